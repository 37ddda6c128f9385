//! The stable words that say why a call failed: `reason` in `google.rpc.ErrorInfo`, domain [`DOMAIN`].
//!
//! The daemon sends them, `syncctl` maps them to exit codes and hints, scripts may match on them. None is ever renamed.

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "p2psync";

/// The caller is neither root, nor the daemon's user, nor in its group.
pub const CALLER_NOT_PERMITTED: &str = "CALLER_NOT_PERMITTED";
/// The caller is in the read-only group, and the call does more than read.
pub const CALLER_READS_ONLY: &str = "CALLER_READS_ONLY";
/// The device is in no group yet.
pub const NO_GROUP: &str = "NO_GROUP";
/// The device's role does not allow it.
pub const ROLE_TOO_LOW: &str = "ROLE_TOO_LOW";
/// What would be changed was given by a device that is as senior, or more.
pub const OUTRANKED: &str = "OUTRANKED";
/// No member has this id or name.
pub const NO_SUCH_MEMBER: &str = "NO_SUCH_MEMBER";
/// There is no such invite.
pub const NO_SUCH_INVITE: &str = "NO_SUCH_INVITE";
/// The secret of the recovery key is not on this device.
pub const NO_RECOVERY: &str = "NO_RECOVERY";
/// The secret is not that of the group's recovery key.
pub const WRONG_RECOVERY: &str = "WRONG_RECOVERY";
/// A lock is in the way.
pub const LOCKED: &str = "LOCKED";
/// There is no lock on what was named.
pub const NO_SUCH_LOCK: &str = "NO_SUCH_LOCK";
/// Too few voters could be reached.
pub const NO_QUORUM: &str = "NO_QUORUM";
/// A device that is to grant locks cannot be reached.
pub const VOTER_UNREACHABLE: &str = "VOTER_UNREACHABLE";
/// These devices grant the locks already.
pub const SAME_VOTERS: &str = "SAME_VOTERS";
/// A voter has lost its state, or has no room.
pub const VOTER_UNFIT: &str = "VOTER_UNFIT";
/// A newer version is not on this device yet.
pub const BEHIND: &str = "BEHIND";
/// What was named is the beginning of several ids, or the name of several devices.
pub const AMBIGUOUS: &str = "AMBIGUOUS";
/// An argument makes no sense.
pub const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
/// The text is not a ticket.
pub const BAD_TICKET: &str = "BAD_TICKET";
/// The text is not a multiaddress.
pub const BAD_ADDRESS: &str = "BAD_ADDRESS";
/// The bytes are not a path of the folder.
pub const BAD_PATH: &str = "BAD_PATH";
/// The device is already in a group with others.
pub const ALREADY_IN_GROUP: &str = "ALREADY_IN_GROUP";
/// The state is an old copy: the device waits for its own newest events.
pub const STATE_OLD: &str = "STATE_OLD";
/// Another join is under way here, or the inviting device is busy.
pub const BUSY: &str = "BUSY";
/// The inviting device does not know the invite.
pub const INVITE_UNKNOWN: &str = "INVITE_UNKNOWN";
/// The invite's time is over.
pub const INVITE_EXPIRED: &str = "INVITE_EXPIRED";
/// The invite was used as often as it may be.
pub const INVITE_USED_UP: &str = "INVITE_USED_UP";
/// The reached device may not admit anybody.
pub const INVITER_MAY_NOT_ADMIT: &str = "INVITER_MAY_NOT_ADMIT";
/// No device of the ticket could be reached in time.
pub const INVITER_UNREACHABLE: &str = "INVITER_UNREACHABLE";
/// Nobody on the local network answers to the name.
pub const NO_SUCH_NAME: &str = "NO_SUCH_NAME";
/// Several groups on the local network answer to the name.
pub const NAME_AMBIGUOUS: &str = "NAME_AMBIGUOUS";
/// The device that was asked does not know of the request any more, or sent no way into its group.
pub const JOIN_TURNED_DOWN: &str = "JOIN_TURNED_DOWN";
/// Nobody approved the join in time.
pub const NOT_APPROVED: &str = "NOT_APPROVED";
/// No such device asks to be let in, or several whose ids begin so.
pub const NO_SUCH_REQUEST: &str = "NO_SUCH_REQUEST";
/// The digits are not those that the device shows.
pub const WRONG_CODE: &str = "WRONG_CODE";
/// No address is known that could stand on a ticket.
pub const NO_ADDRESS: &str = "NO_ADDRESS";
/// No such version of the path is known.
pub const NO_SUCH_VERSION: &str = "NO_SUCH_VERSION";
/// No device that is connected has the bytes.
pub const BYTES_NOT_AT_HAND: &str = "BYTES_NOT_AT_HAND";
/// The path is ignored on this device.
pub const PATH_IGNORED: &str = "PATH_IGNORED";
/// There is no such event, path or device in the ledger.
pub const NO_SUCH_EVENT: &str = "NO_SUCH_EVENT";
/// The ledger does not show that the author's role allowed the item.
pub const NOT_PROVABLE: &str = "NOT_PROVABLE";
/// The stored ledger is not what was once checked.
pub const LEDGER_DAMAGED: &str = "LEDGER_DAMAGED";
/// The disk refused.
pub const IO: &str = "IO";
/// The folder is not kept any more, since a disk failed; only a restart helps.
pub const FOLDER_FAILED: &str = "FOLDER_FAILED";
/// The daemon did not get to it in time.
pub const TIMEOUT: &str = "TIMEOUT";
/// The daemon is stopping.
pub const STOPPING: &str = "STOPPING";
