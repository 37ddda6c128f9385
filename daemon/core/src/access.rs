//! Roles (roles.md): who may do what, from the admin events of a group.
//!
//! Power sits in grants. [`evaluate()`] takes all admin events, [`History`], and finds which grants are valid and for which
//! events each is live, [`Rights`]. The outcome depends on the set of events only, not on their order of arrival.

mod evaluate;
mod history;
mod rights;
mod scope;

pub use evaluate::{dominates, evaluate};
pub use history::{AdminEvent, Branch, Deed, GrantDeed, History, Kept, LogPoint};
pub use rights::{LiveGrant, Position, Rank, Rights, Span, Writable, level};
pub use scope::{Scopes, ScopesError};

/// What a device may do; the order is the order of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May read, serve and relay.
    Viewer,
    /// May also change files.
    Editor,
    /// May also invite and remove editors and viewers.
    Admin,
    /// May do everything.
    Owner,
}

impl Role {
    /// Returns the number that events carry: 0 owner, 1 admin, 2 editor, 3 viewer.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Owner => 0,
            Self::Admin => 1,
            Self::Editor => 2,
            Self::Viewer => 3,
        }
    }

    /// Returns the role with this number.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Owner),
            1 => Some(Self::Admin),
            2 => Some(Self::Editor),
            3 => Some(Self::Viewer),
            _ => None,
        }
    }

    /// Returns the word for this role.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
        }
    }

    /// Says whether this role may publish Puts, Dels and Discards.
    #[must_use]
    pub const fn may_write(self) -> bool {
        matches!(self, Self::Owner | Self::Admin | Self::Editor)
    }

    /// Says whether this role may give `other` by Grant or Invite.
    #[must_use]
    pub const fn may_give(self, other: Self) -> bool {
        match self {
            Self::Owner => true,
            Self::Admin => matches!(other, Self::Editor | Self::Viewer),
            Self::Editor | Self::Viewer => false,
        }
    }
}

/// What a grant lets its device do besides its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GrantFlags {
    /// It may author checkpoints. Given by owners.
    pub archive: bool,
    /// It may be named as a voter. Given by owners.
    pub voter: bool,
    /// It may redeem invites up to its own level. Given by owners and admins.
    pub admit: bool,
}

impl GrantFlags {
    /// Returns the number that events carry: 1 archive, 2 voter, 4 admit.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.archive as u8 | (self.voter as u8) << 1 | (self.admit as u8) << 2
    }

    /// Returns the flags with this number.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits > 7 {
            return None;
        }
        Some(Self {
            archive: bits & 1 != 0,
            voter: bits & 2 != 0,
            admit: bits & 4 != 0,
        })
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
