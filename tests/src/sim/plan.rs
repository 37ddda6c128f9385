//! What a seed means: who takes part, what goes wrong, and when.

use p2p_sync_core::access::Role;

use super::rng::Rng;

/// One minute in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// Devices that take part at most; more find nothing that four do not, and cost time.
const DEVICES_MAX: u64 = 4;
/// What users do at most.
const ACTIONS_MAX: u64 = 60;
/// How far a clock may jump: ten years.
const JUMP_MAX_MS: u64 = 10 * 365 * 24 * 60 * MINUTE_MS;

/// A run, before it starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How the devices take part.
    pub devices: Vec<DevicePlan>,
    /// Whether devices find each other without being told an address.
    pub lan: bool,
    /// Whether devices admit each other without tickets.
    pub trust_lan: bool,
    /// Whether somebody who is no member talks to the devices.
    pub stranger: bool,
    /// When the faults begin, milliseconds. Devices that admit each other without tickets get some quiet first: those
    /// that found each other's groups too late would stay apart for good.
    pub faults_from_ms: u64,
    /// When the faults end, milliseconds.
    pub span_ms: u64,
    /// When who does something.
    pub actions: Vec<(u64, usize)>,
    /// Which cables are cut: from, until, between whom.
    pub cuts: Vec<(u64, u64, usize, usize)>,
    /// Who dies: when, until when.
    pub crashes: Vec<(u64, u64, usize)>,
    /// Who empties his folder: when. Nothing happens while his daemon runs.
    pub emptied: Vec<(u64, usize)>,
    /// Whose clock jumps: when, by how many milliseconds.
    pub jumps: Vec<(u64, usize, i64)>,
    /// Messages lost, of a hundred.
    pub loss: u64,
    /// Broadcasts that arrive twice, of a hundred.
    pub duplicates: u64,
    /// Changes that the watcher misses, of a hundred.
    pub missed_hints: u64,
    /// Fetches that fail for no good reason, of a hundred.
    pub bad_fetches: u64,
    /// The longest a message takes, milliseconds.
    pub delay_max_ms: u64,
    /// The longest that what the scanner saw takes to reach the engine, milliseconds.
    pub report_delay_max_ms: u64,
    /// The longest a commit takes, milliseconds.
    pub commit_max_ms: u64,
}

/// How one device takes part.
#[derive(Debug, Clone)]
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

impl Plan {
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
            devices: (0..count).map(device).collect(),
            lan: false,
            trust_lan: false,
            stranger: false,
            faults_from_ms: 0,
            span_ms: MINUTE_MS,
            actions: Vec::new(),
            cuts: Vec::new(),
            crashes: Vec::new(),
            jumps: Vec::new(),
            emptied: Vec::new(),
            loss: 0,
            duplicates: 0,
            missed_hints: 0,
            bad_fetches: 0,
            delay_max_ms: 20,
            report_delay_max_ms: 20,
            commit_max_ms: 20,
        }
    }

    /// Draws a plan.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        let count = rng.between(2, DEVICES_MAX + 1);
        let trust_lan = rng.percent(20);
        let span_ms = rng.between(1, 5) * MINUTE_MS;
        let calm = rng.percent(25);
        let devices = (0..count)
            .map(|index| DevicePlan::draw(rng, index, trust_lan, span_ms))
            .collect();
        let mut plan = Self {
            devices,
            lan: trust_lan || rng.percent(60),
            trust_lan,
            stranger: !trust_lan && rng.percent(30),
            faults_from_ms: if trust_lan { 20_000 } else { 0 },
            span_ms,
            actions: Vec::new(),
            cuts: Vec::new(),
            crashes: Vec::new(),
            emptied: Vec::new(),
            jumps: Vec::new(),
            loss: if calm { 0 } else { rng.below(15) },
            duplicates: rng.below(20),
            missed_hints: [0, 10, 100][rng.index(3)],
            bad_fetches: if calm { 0 } else { rng.below(20) },
            delay_max_ms: [20, 300, 3_000][rng.index(3)],
            report_delay_max_ms: [0, 20, 500][rng.index(3)],
            commit_max_ms: [5, 100, 1_500][rng.index(3)],
        };
        if trust_lan {
            // It is a local network: whoever waits 20 s in vain founds a group of his own.
            plan.delay_max_ms = plan.delay_max_ms.min(300);
            plan.commit_max_ms = plan.commit_max_ms.min(100);
        }
        plan.draw_actions(rng);
        if !calm {
            plan.draw_faults(rng);
        }
        plan
    }

    /// Half of what users do comes in bursts on several devices at once.
    fn draw_actions(&mut self, rng: &mut Rng) {
        let count = rng.between(5, ACTIONS_MAX + 1);
        let mut at = rng.below(self.span_ms);
        for _ in 0..count {
            at = if rng.percent(50) {
                (at + rng.below(500)).min(self.span_ms)
            } else {
                rng.below(self.span_ms)
            };
            self.actions.push((at, rng.index(self.devices.len())));
        }
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        let last = self.devices.len() as u64;
        let earliest = self.faults_from_ms;
        for _ in 0..rng.below(6) {
            let (a, b) = (rng.below(last), rng.below(last));
            let from = rng.between(earliest, self.span_ms);
            if a != b {
                let until = from + rng.below(MINUTE_MS);
                self.cuts.push((from, until, rng_index(a), rng_index(b)));
            }
        }
        for _ in 0..rng.below(6) {
            let from = rng.between(earliest, self.span_ms);
            let until = from + rng.below(MINUTE_MS / 2);
            let device = rng_index(rng.below(last));
            self.crashes.push((from, until, device));
            if rng.percent(30) {
                self.emptied.push((rng.between(from, until + 1), device));
            }
        }
        if rng.percent(30) {
            let jump = i64::try_from(rng.below(2 * JUMP_MAX_MS)).unwrap_or(0);
            let jump = jump - i64::try_from(JUMP_MAX_MS).unwrap_or(0);
            self.jumps
                .push((rng.below(self.span_ms), rng_index(rng.below(last)), jump));
        }
    }
}

fn rng_index(index: u64) -> usize {
    usize::try_from(index).unwrap_or(0)
}

impl DevicePlan {
    fn draw(rng: &mut Rng, index: u64, trust_lan: bool, span_ms: u64) -> Self {
        let late = rng.percent(30);
        let join_ms = if late {
            rng.below(span_ms / 2)
        } else {
            rng.below(5_000)
        };
        Self {
            start_ms: rng.below(2_000),
            join_ms: (index > 0 && !trust_lan).then_some(join_ms),
            role: [Role::Editor, Role::Editor, Role::Admin][rng.index(3)],
            files: if rng.percent(50) { rng.below(6) } else { 0 },
            skew_ms: i64::try_from(rng.below(10_000)).unwrap_or(0) - 5_000,
        }
    }
}
