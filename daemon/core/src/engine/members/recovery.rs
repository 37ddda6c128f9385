//! The recovery key: the group's most senior owner, which is no device.
//!
//! Who founds a group makes it, and keeps its secret in the store until its words were written down. Whoever has the words
//! can make any device of the group an owner, by an event of the recovery key's own log: when all owners are lost, or one
//! was stolen. That owner is senior to all others. Two devices that use the words apart would both write event 0 of that
//! log, and each would refuse the other's; so what the words are for is done on one device.

use std::fmt;

use ed25519_dalek::SigningKey;

use crate::access::{GrantFlags, Role, Scopes};
use crate::engine::join::RECOVERY;
use crate::engine::{CommandError, MembersReply, Phase, Reply, StateView, SyncEngine};
use crate::ids::DeviceId;
use crate::ledger::{EventKind, Grant, GrantVia, Item};
use crate::time::Now;

/// The secret half of a group's recovery key.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoverySecret([u8; 32]);

impl RecoverySecret {
    /// Takes the bytes of a secret.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes the bytes of a secret; `None` if they are not 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoverySecret(..)")
    }
}

impl SyncEngine {
    /// Tells the secret of the recovery key.
    pub(super) fn show_recovery(&self) -> Result<Reply, CommandError> {
        let secret = self.joining.recovery.clone().ok_or(CommandError::NoRecovery)?;
        Ok(Reply::Members(MembersReply::Recovery(secret)))
    }

    /// Erases the secret of the recovery key.
    pub(super) fn forget_recovery(&mut self) -> Result<Reply, CommandError> {
        if self.joining.recovery.take().is_none() {
            return Err(CommandError::NoRecovery);
        }
        self.pending.set_setting(RECOVERY, None);
        Ok(Reply::Done)
    }

    /// Makes this device an owner by the recovery key. A device that was removed becomes a member again by it.
    pub(super) fn use_recovery(
        &mut self,
        secret: &RecoverySecret,
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?;
        if self.own_events_missing() > 0 {
            return Err(CommandError::OwnEventsMissing);
        }
        let key = SigningKey::from_bytes(secret.as_bytes());
        if group.recovery() != Some(DeviceId::new(key.verifying_key().to_bytes())) {
            return Err(CommandError::WrongRecovery);
        }
        if !group.has_log_of(&self.me) {
            return Err(CommandError::NotAllowed);
        }
        let grant = Grant {
            device: self.me,
            role: Role::Owner,
            name: group.name_of(&self.me).to_owned(),
            via: GrantVia::Author,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
            person: None,
        };
        self.publish_as(&key, EventKind::Admin, vec![Item::Grant(grant)], now, view);
        // Others showed the removal; nothing in this device's ledger says that it is over.
        if self.phase == Phase::Removed {
            self.admitted_again();
        }
        Ok(Reply::Done)
    }
}
