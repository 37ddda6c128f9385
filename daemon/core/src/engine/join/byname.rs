//! Pairing by name on the local network (overview.md D13): `syncctl join lan:NAME` here, `syncctl approve DEVICE CODE`
//! there.
//!
//! Nobody enters without a Grant, and nobody is made to ask: a device asks only after its user named a group or a
//! device, and takes an acceptance only as the answer to that question. Both sides compute the same six digits, from
//! both devices' keys, the group and a random nonce of each. The asker sends the hash of its nonce first and the nonce
//! itself only when it has the other one, so neither side can choose its nonce after it knows the other's: somebody who
//! stands between the two, with keys of his own, has one chance in a million for each question that he asks, and
//! questions are few ([`requests`]). The user carries the digits from one screen to the other; three wrong ones end the
//! request.
//!
//! What it does not prove: the asker joins the group of the device that answered to the name, and that device alone
//! decides to accept. Where somebody may pose as another, compare what `syncctl device id` says there, or use an invite.
//!
//! Everything goes by questions and answers of the join protocol, and only between devices that are near: the asker asks
//! again every few seconds whether it was let in, which also shows that it still wants to be. All of it lives in memory;
//! after a crash of either side the user asks again.

mod answerer;
mod asker;
mod asking;
mod requests;

use std::fmt;

use sha2::{Digest, Sha256};

pub(in crate::engine) use asking::Asking;
pub(in crate::engine) use requests::Requests;

use crate::access::Role;
use crate::engine::{CommandId, Here};
use crate::ids::{DeviceId, GroupId};
use crate::ledger::Person;

const COMMIT_CONTEXT: &[u8] = b"p2p-sync/pair-commit/1\0";
const CODE_CONTEXT: &[u8] = b"p2p-sync/pair-code/1\0";
/// There are so many codes.
const CODES: u64 = 1_000_000;

/// Six digits that two devices show, equal only if nobody stands between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairCode(u32);

impl PairCode {
    /// Reads six digits; spaces and hyphens among them count for nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        let is_code = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_code).map(Self)
    }
}

impl fmt::Display for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// What a user can ask about pairing by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairCommand {
    /// List the devices of the local network that can be asked; answered by [`PairReply::Found`].
    List,
    /// Ask to join the group of this name, or that of the device with this name or id. Answered by [`PairReply::Code`],
    /// and later by [`Joined`](crate::engine::Reply::Joined) or an error.
    Join {
        /// As the user typed it.
        name: String,
    },
    /// Give up a [`PairCommand::Join`], which is answered with [`PairError::GivenUp`].
    Cancel {
        /// Which command.
        join: CommandId,
    },
    /// Let a device in that asked; answered by [`PairReply::Approved`].
    Approve {
        /// Its id in hexadecimal, or the beginning of it.
        device: String,
        /// The six digits that it shows.
        code: String,
        /// The role it gets; never owner.
        role: Role,
        /// Whose it is, if that is to be said.
        person: Option<Person>,
    },
}

/// The answer to a [`PairCommand`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairReply {
    /// Devices of the local network.
    Found(Vec<LanDevice>),
    /// The question was taken there; the join goes on.
    Code {
        /// The device that was asked.
        asked: LanDevice,
        /// What is to be typed there.
        code: PairCode,
    },
    /// A device was let in.
    Approved {
        /// Who.
        device: DeviceId,
        /// Its name.
        name: String,
        /// Its role.
        role: Role,
    },
}

/// A device of the local network that told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanDevice {
    /// Who.
    pub device: DeviceId,
    /// What it says of itself.
    pub here: Here,
}

impl fmt::Display for LanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Here {
            group_name,
            device_name,
            ..
        } = &self.here;
        let id = self.device.short().label();
        write!(f, "{device_name} ({id}) in the group {group_name}")
    }
}

/// A device that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Who.
    pub device: DeviceId,
    /// What it calls itself.
    pub name: String,
    /// The digits that it must show.
    pub code: PairCode,
}

/// Why pairing by name came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// Nobody answers to the name.
    #[error(
        "There is no device or group called {name} on the local network{}",
        listed(found)
    )]
    NoSuchName {
        /// As it was asked for.
        name: String,
        /// Who is there.
        found: Vec<LanDevice>,
    },
    /// Devices of several groups answer to the name.
    #[error("Several groups on the local network answer to {name}{}", listed(found))]
    Ambiguous {
        /// As it was asked for.
        name: String,
        /// Who answers to it.
        found: Vec<LanDevice>,
    },
    /// The device that was asked may not let anybody in, or does not want to be asked.
    #[error("The device that was asked may not let anybody in")]
    MayNotAdmit,
    /// Too many are asking it.
    #[error("The device that was asked has too many requests open")]
    Busy,
    /// The device that was asked does not know of the request any more.
    #[error(
        "The request was turned down: wrong digits were typed, its time was over, or the device was restarted"
    )]
    TurnedDown,
    /// What was sent is no way into the group.
    #[error("The device that was asked sent no way into its group")]
    BadAnswer,
    /// Nobody approved it in time.
    #[error("Nobody approved it in time")]
    TimeIsUp,
    /// Its user gave it up.
    #[error("The join was given up")]
    GivenUp,
    /// No such device asks.
    #[error("No such device asks to be let in")]
    NoSuchRequest,
    /// The beginning of the id does not say which device is meant.
    #[error("Several devices that ask have an id that begins so")]
    NotUnique,
    /// The digits are others.
    #[error("These are not the digits that the device shows; {}", tries(*left))]
    WrongCode {
        /// How many tries are left; 0: the request is dropped.
        left: u32,
    },
}

fn listed(found: &[LanDevice]) -> String {
    let list: Vec<String> = found.iter().map(ToString::to_string).collect();
    if list.is_empty() {
        ", nor any other".to_owned()
    } else {
        format!("; there are: {}", list.join(", "))
    }
}

fn tries(left: u32) -> String {
    match left {
        0 => "the request is dropped, and the device must ask again".to_owned(),
        1 => "one try is left".to_owned(),
        left => format!("{left} tries are left"),
    }
}

/// The two sides of one question, as each of them sees it.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    group: GroupId,
    asker: DeviceId,
    answerer: DeviceId,
}

impl Exchange {
    /// Returns what the asker sends before its nonce.
    fn commitment(&self, asker_nonce: &[u8; 32]) -> [u8; 32] {
        self.hash(COMMIT_CONTEXT, &[asker_nonce])
    }

    /// Returns the digits; 64 bits of the hash are enough to make all codes equally likely.
    fn code(&self, asker_nonce: &[u8; 32], answerer_nonce: &[u8; 32]) -> PairCode {
        let hash = self.hash(CODE_CONTEXT, &[asker_nonce, answerer_nonce]);
        let mut eight = [0; 8];
        eight.copy_from_slice(&hash[..8]);
        PairCode(u32::try_from(u64::from_be_bytes(eight) % CODES).unwrap_or(0))
    }

    fn hash(&self, context: &[u8], nonces: &[&[u8; 32]]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(context);
        hasher.update(self.group.as_bytes());
        hasher.update(self.asker.as_bytes());
        hasher.update(self.answerer.as_bytes());
        nonces.iter().for_each(|nonce| hasher.update(nonce));
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests;
