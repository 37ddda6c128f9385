//! A run as data: who takes part, what users do, what goes wrong, and when.
//!
//! A plan is drawn from a seed (`plan/draw.rs`), can be written down and read again (`plan/text.rs`), and can be made
//! smaller while it still fails (`plan/shrink.rs`). Each [`Happening`] stands for itself: what it does follows from its
//! own numbers, so that leaving one out changes the others as little as possible. All other chance (how long messages
//! take, which are lost) comes from the plan's seed, by a stream of its own for each device and each pair of devices.

mod draw;
mod shrink;
mod text;

use std::collections::BTreeSet;

use p2p_sync_core::access::Role;

pub use draw::Draw;
pub use shrink::shrink;

/// One minute in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// A run, before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// From which all that the plan does not name is drawn.
    pub seed: u64,
    /// How the devices take part.
    pub devices: Vec<DevicePlan>,
    /// What happens to them.
    pub happenings: Vec<Happening>,
    /// Whether devices find each other without being told an address.
    pub lan: bool,
    /// Whether devices admit each other without tickets.
    pub trust_lan: bool,
    /// Whether somebody who is no member talks to the devices.
    pub stranger: bool,
    /// When messages begin to be lost, milliseconds. Devices that admit each other without tickets get some quiet first:
    /// those that found each other's groups too late would stay apart for good.
    pub faults_from_ms: u64,
    /// When the faults end, milliseconds.
    pub span_ms: u64,
    /// Messages lost, of a hundred.
    pub loss: u64,
    /// Broadcasts that arrive twice, of a hundred; half of those long after, maybe over another connection.
    pub duplicates: u64,
    /// Changes that the watcher misses, of a hundred.
    pub missed_hints: u64,
    /// Fetches that fail for no good reason, of a hundred.
    pub bad_fetches: u64,
    /// Writes that users make durable at once, of a hundred.
    pub user_syncs: u64,
    /// The longest a message takes, milliseconds.
    pub delay_max_ms: u64,
    /// The longest that what the scanner saw takes to reach the engine, milliseconds.
    pub report_delay_max_ms: u64,
    /// The longest a commit takes, milliseconds.
    pub commit_max_ms: u64,
}

/// How one device takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// When its daemon starts first, milliseconds.
    pub start_ms: u64,
    /// When its user redeems a ticket; `None`: never (it is the inviter).
    pub join_ms: Option<u64>,
    /// What the ticket gives.
    pub role: Role,
    /// Files in its folder before it starts.
    pub files: u64,
    /// How far its clock is off, milliseconds.
    pub skew_ms: i64,
}

/// One thing that happens. Times are milliseconds since the start of the run; devices are named by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// A user does something.
    User {
        /// When.
        at: u64,
        /// Whose user.
        device: usize,
        /// From which it is drawn.
        seed: u64,
    },
    /// A user does something at the path of an install, between two of its steps.
    Meddle {
        /// From when on.
        at: u64,
        /// Whose user.
        device: usize,
        /// How many steps of installs he lets pass before.
        steps: u64,
        /// From which it is drawn.
        seed: u64,
    },
    /// A cable is cut.
    Cut {
        /// When.
        at: u64,
        /// When it is mended.
        until: u64,
        /// One end.
        a: usize,
        /// The other end.
        b: usize,
    },
    /// Messages get through in one direction only.
    OneWay {
        /// When.
        at: u64,
        /// When it ends.
        until: u64,
        /// Who is not heard.
        from: usize,
        /// Who does not hear.
        to: usize,
    },
    /// Messages between two devices take long.
    Slow {
        /// When.
        at: u64,
        /// When it ends.
        until: u64,
        /// One end.
        a: usize,
        /// The other end.
        b: usize,
        /// How long at most, milliseconds.
        delay: u64,
    },
    /// A daemon dies.
    Crash {
        /// When.
        at: u64,
        /// When it is started again.
        until: u64,
        /// Whose.
        device: usize,
        /// After how many steps of installs from then on; 0: at once.
        steps: u64,
        /// Whether the machine dies, and with it what is not yet on its disk.
        power: bool,
    },
    /// A user empties his folder. Nothing happens while his daemon runs.
    Empty {
        /// When.
        at: u64,
        /// Whose.
        device: usize,
    },
    /// A clock jumps.
    Jump {
        /// When.
        at: u64,
        /// Whose.
        device: usize,
        /// By how many milliseconds.
        by: i64,
    },
    /// A user decides about members: roles, removals, new tickets for who was removed.
    Admin {
        /// When.
        at: u64,
        /// Whose user.
        device: usize,
        /// From which it is drawn.
        seed: u64,
    },
    /// A device's state and key are lost while the folder stays; its user pairs it anew. Nothing happens while its
    /// daemon runs.
    Lose {
        /// When.
        at: u64,
        /// Whose.
        device: usize,
    },
    /// A machine is copied, with the key, the state and the folder of its device; once there is a copy, the one takes the
    /// place of the other. Nothing happens while the daemon runs.
    Exchange {
        /// When.
        at: u64,
        /// Whose.
        device: usize,
    },
    /// A copy of a device's database is made, to which [`Happening::Restore`] goes back.
    Backup {
        /// When.
        at: u64,
        /// Whose.
        device: usize,
    },
    /// A device's database becomes that of the last copy, while the folder stays. Nothing happens while its daemon runs.
    Restore {
        /// When.
        at: u64,
        /// Whose.
        device: usize,
    },
}

impl Happening {
    /// Returns when it happens, or begins.
    #[must_use]
    pub const fn at(&self) -> u64 {
        match self {
            Self::User { at, .. }
            | Self::Admin { at, .. }
            | Self::Meddle { at, .. }
            | Self::Cut { at, .. }
            | Self::OneWay { at, .. }
            | Self::Slow { at, .. }
            | Self::Crash { at, .. }
            | Self::Empty { at, .. }
            | Self::Jump { at, .. }
            | Self::Lose { at, .. }
            | Self::Exchange { at, .. }
            | Self::Backup { at, .. }
            | Self::Restore { at, .. } => *at,
        }
    }

    /// Returns the devices that it happens to.
    #[must_use]
    pub fn devices(&self) -> BTreeSet<usize> {
        match *self {
            Self::User { device, .. }
            | Self::Admin { device, .. }
            | Self::Meddle { device, .. }
            | Self::Crash { device, .. }
            | Self::Empty { device, .. }
            | Self::Jump { device, .. }
            | Self::Lose { device, .. }
            | Self::Exchange { device, .. }
            | Self::Backup { device, .. }
            | Self::Restore { device, .. } => BTreeSet::from([device]),
            Self::Cut { a, b, .. } | Self::Slow { a, b, .. } => BTreeSet::from([a, b]),
            Self::OneWay { from, to, .. } => BTreeSet::from([from, to]),
        }
    }
}

impl Plan {
    /// Says whether an old copy of a database is put back in it.
    #[must_use]
    pub fn restores(&self) -> bool {
        let mut all = self.happenings.iter();
        all.any(|happening| matches!(happening, Happening::Restore { .. }))
    }

    /// Says whether roles change in it.
    #[must_use]
    pub fn changes_roles(&self) -> bool {
        let mut all = self.happenings.iter();
        let viewers = self.devices.iter().any(|device| !device.role.may_write());
        viewers || all.any(|happening| matches!(happening, Happening::Admin { .. }))
    }

    /// Says whether a device loses its state in it.
    #[must_use]
    pub fn loses(&self) -> bool {
        let mut all = self.happenings.iter();
        all.any(|happening| matches!(happening, Happening::Lose { .. }))
    }

    /// Returns a plan in which nothing happens but that `count` devices pair, and nothing goes wrong.
    #[must_use]
    pub fn quiet(count: u64) -> Self {
        let device = |index| DevicePlan {
            start_ms: 0,
            join_ms: (index > 0).then_some(1_000),
            role: Role::Editor,
            files: 0,
            skew_ms: 0,
        };
        Self {
            seed: 0,
            devices: (0..count).map(device).collect(),
            happenings: Vec::new(),
            lan: false,
            trust_lan: false,
            stranger: false,
            faults_from_ms: 0,
            span_ms: MINUTE_MS,
            loss: 0,
            duplicates: 0,
            missed_hints: 0,
            bad_fetches: 0,
            user_syncs: 100,
            delay_max_ms: 20,
            report_delay_max_ms: 20,
            commit_max_ms: 20,
        }
    }
}
