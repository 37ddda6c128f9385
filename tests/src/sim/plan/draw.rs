//! What a seed means.

use p2p_sync_core::access::Role;

use super::{DevicePlan, Happening, MINUTE_MS, Plan};
use crate::sim::rng::Rng;

/// Devices that take part at most; more find nothing that four do not, and cost time.
const DEVICES_MAX: u64 = 4;
/// What users do at most.
const ACTIONS_MAX: u64 = 60;
/// Decisions about members at most.
const ADMIN_ACTIONS_MAX: u64 = 8;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;
/// How far a clock may jump: a machine whose clock lost its battery begins in 1970, about so many years before.
const JUMP_MAX_YEARS: u64 = 60;
/// Steps of installs that pass at most before a user meddles with one, or a daemon dies between two: about three installs.
const STEPS_MAX: u64 = 24;
/// The longest a message takes over a slow line; an asker waits 30 s for an answer.
const SLOW_MAX_MS: u64 = 20_000;

/// What may be drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draw {
    /// Whether databases are restored from old copies.
    pub restores: bool,
    /// Whether roles change, and devices are removed and let in again.
    pub roles: bool,
    /// Whether a second machine has the key of a device.
    pub twins: bool,
}

impl Draw {
    /// Draws the plan of a seed.
    #[must_use]
    pub fn plan(self, seed: u64) -> Plan {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let count = rng.between(2, DEVICES_MAX + 1);
        let trust_lan = rng.percent(20);
        let span_ms = rng.between(1, 5) * MINUTE_MS;
        let calm = rng.percent(25);
        let devices = (0..count)
            .map(|index| DevicePlan::draw(rng, index, trust_lan, span_ms))
            .collect();
        let mut plan = Plan {
            seed,
            devices,
            happenings: Vec::new(),
            lan: trust_lan || rng.percent(60),
            trust_lan,
            stranger: !trust_lan && rng.percent(30),
            faults_from_ms: if trust_lan { 20_000 } else { 0 },
            span_ms,
            loss: if calm { 0 } else { rng.below(15) },
            duplicates: rng.below(20),
            missed_hints: [0, 10, 100][rng.index(3)],
            bad_fetches: if calm { 0 } else { rng.below(20) },
            user_syncs: [0, 50, 100][rng.index(3)],
            delay_max_ms: [20, 300, 3_000][rng.index(3)],
            report_delay_max_ms: [0, 20, 500][rng.index(3)],
            commit_max_ms: [5, 100, 1_500][rng.index(3)],
        };
        if trust_lan {
            // It is a local network: whoever waits 20 s in vain founds a group of his own.
            plan.delay_max_ms = plan.delay_max_ms.min(300);
            plan.commit_max_ms = plan.commit_max_ms.min(100);
        }
        if self.roles {
            draw_roles(&mut plan, rng);
        }
        draw_actions(&mut plan, rng);
        if self.twins {
            draw_twins(&mut plan, rng);
        }
        if !calm {
            draw_links(&mut plan, rng);
            draw_crashes(&mut plan, rng);
            draw_meddling(&mut plan, rng);
            draw_jumps(&mut plan, rng);
            if self.restores {
                draw_restores(&mut plan, rng);
            }
        }
        plan.happenings.sort_by_key(Happening::at);
        plan
    }
}

/// Users of any device decide about members; what their roles do not allow is refused. Without tickets nobody who was
/// removed stays out.
fn draw_roles(plan: &mut Plan, rng: &mut Rng) {
    plan.trust_lan = false;
    plan.faults_from_ms = 0;
    for (device, index) in plan.devices.iter_mut().zip(0..) {
        if index > 0 {
            device.join_ms.get_or_insert(1_000);
            device.role = [Role::Viewer, Role::Editor, Role::Admin, Role::Admin][rng.index(4)];
        }
    }
    for _ in 0..rng.between(1, ADMIN_ACTIONS_MAX + 1) {
        let (at, device, seed) = (rng.below(plan.span_ms), rng.index(plan.devices.len()), rng.bits());
        // The founder is the strongest: half of it is his.
        let device = if rng.percent(50) { 0 } else { device };
        plan.happenings.push(Happening::Admin { at, device, seed });
    }
}

/// Half of what users do comes in bursts on several devices at once.
fn draw_actions(plan: &mut Plan, rng: &mut Rng) {
    let count = rng.between(5, ACTIONS_MAX + 1);
    let mut at = rng.below(plan.span_ms);
    for _ in 0..count {
        at = if rng.percent(50) {
            (at + rng.below(500)).min(plan.span_ms)
        } else {
            rng.below(plan.span_ms)
        };
        let (device, seed) = (rng.index(plan.devices.len()), rng.bits());
        plan.happenings.push(Happening::User { at, device, seed });
    }
}

fn draw_links(plan: &mut Plan, rng: &mut Rng) {
    for _ in 0..rng.below(8) {
        let (a, b) = (rng.index(plan.devices.len()), rng.index(plan.devices.len()));
        let at = rng.between(plan.faults_from_ms, plan.span_ms);
        let until = at + rng.below(MINUTE_MS);
        let kind = rng.below(10);
        let delay = rng.between(1_000, SLOW_MAX_MS);
        if a == b {
            continue;
        }
        plan.happenings.push(match kind {
            0..6 => Happening::Cut { at, until, a, b },
            6..9 => Happening::OneWay {
                at,
                until,
                from: a,
                to: b,
            },
            _ => Happening::Slow {
                at,
                until,
                a,
                b,
                delay,
            },
        });
    }
}

/// Half of the crashes come between two steps of an install, and half are power cuts.
fn draw_crashes(plan: &mut Plan, rng: &mut Rng) {
    for _ in 0..rng.below(8) {
        let at = rng.between(plan.faults_from_ms, plan.span_ms);
        let until = at + rng.below(MINUTE_MS / 2);
        let device = rng.index(plan.devices.len());
        let steps = if rng.percent(50) {
            rng.between(1, STEPS_MAX)
        } else {
            0
        };
        plan.happenings.push(Happening::Crash {
            at,
            until,
            device,
            steps,
            power: rng.percent(50),
        });
        if rng.percent(20) {
            let at = rng.between(at, until + 1);
            plan.happenings.push(Happening::Empty { at, device });
        }
        if device > 0 && rng.percent(10) && !plan.trust_lan {
            let at = rng.between(at, until + 1);
            plan.happenings.push(Happening::Lose { at, device });
        }
    }
}

fn draw_meddling(plan: &mut Plan, rng: &mut Rng) {
    for _ in 0..rng.below(12) {
        plan.happenings.push(Happening::Meddle {
            at: rng.below(plan.span_ms),
            device: rng.index(plan.devices.len()),
            steps: rng.below(STEPS_MAX),
            seed: rng.bits(),
        });
    }
}

/// Clocks jump by hours or by years, forth or back, at any time.
fn draw_jumps(plan: &mut Plan, rng: &mut Rng) {
    if !rng.percent(40) {
        return;
    }
    for _ in 0..rng.between(1, 4) {
        let by = if rng.percent(50) {
            rng.below(48 * HOUR_MS)
        } else {
            rng.below(JUMP_MAX_YEARS * YEAR_MS)
        };
        let by = i64::try_from(by).unwrap_or(0);
        plan.happenings.push(Happening::Jump {
            at: rng.below(plan.span_ms),
            device: rng.index(plan.devices.len()),
            by: if rng.percent(50) { by } else { -by },
        });
    }
}

/// A device is copied while its daemon is down, and now the one and now the other is switched on.
fn draw_twins(plan: &mut Plan, rng: &mut Rng) {
    let device = rng.index(plan.devices.len());
    for _ in 0..rng.between(2, 6) {
        let down = rng.between(plan.faults_from_ms, plan.span_ms);
        plan.happenings.push(Happening::Crash {
            at: down,
            until: down + 2_000,
            device,
            steps: 0,
            power: false,
        });
        plan.happenings.push(Happening::Exchange {
            at: down + 1_000,
            device,
        });
    }
}

/// A copy is made, and while the daemon is down the database becomes that copy.
fn draw_restores(plan: &mut Plan, rng: &mut Rng) {
    for _ in 0..rng.between(1, 3) {
        let device = rng.index(plan.devices.len());
        let at = rng.between(plan.faults_from_ms, plan.span_ms);
        let down = rng.between(at, plan.span_ms);
        plan.happenings.push(Happening::Backup { at, device });
        plan.happenings.push(Happening::Crash {
            at: down,
            until: down + 2_000,
            device,
            steps: 0,
            power: false,
        });
        plan.happenings.push(Happening::Restore {
            at: down + 1_000,
            device,
        });
    }
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
