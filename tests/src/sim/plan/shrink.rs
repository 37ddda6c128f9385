//! Makes a plan that fails smaller, for as long as it fails in the same way.

use super::Plan;

/// Runs that are spent on it at most; some ten seconds.
const RUNS_MAX: u32 = 1_500;

/// Leaves out what is not needed for a failure (delta debugging: halves first, then smaller and smaller parts, then
/// devices and single settings, until nothing more can go). `fails` runs a plan and says whether it fails in the same way.
#[must_use]
pub fn shrink(plan: Plan, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search { plan, fails, runs: 0 };
    while search.drop_happenings() | search.calm() && search.runs < RUNS_MAX {}
    search.plan
}

struct Search<F> {
    plan: Plan,
    fails: F,
    runs: u32,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Takes a smaller plan if it fails too.
    fn take(&mut self, smaller: Plan) -> bool {
        if smaller == self.plan || self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let fails = (self.fails)(&smaller);
        if fails {
            self.plan = smaller;
        }
        fails
    }

    fn drop_happenings(&mut self) -> bool {
        let mut dropped = false;
        let mut part = self.plan.happenings.len().div_ceil(2);
        while part > 0 {
            let mut from = 0;
            while from < self.plan.happenings.len() {
                let mut smaller = self.plan.clone();
                let to = (from + part).min(smaller.happenings.len());
                smaller.happenings.drain(from..to);
                if self.take(smaller) {
                    dropped = true;
                } else {
                    from = to;
                }
            }
            part /= 2;
        }
        dropped
    }

    /// Takes away the last device, and everything that goes wrong by chance.
    fn calm(&mut self) -> bool {
        let mut calmed = self.drop_last_device();
        for device in 0..self.plan.devices.len() {
            calmed |= self.change(|plan| plan.devices[device].files = 0);
            calmed |= self.change(|plan| plan.devices[device].skew_ms = 0);
            calmed |= self.change(|plan| plan.devices[device].start_ms = 0);
        }
        let quiet = Plan::quiet(0);
        let calmer: [fn(&mut Plan, &Plan); 9] = [
            |plan, _| plan.stranger = false,
            |plan, quiet| plan.loss = quiet.loss,
            |plan, quiet| plan.duplicates = quiet.duplicates,
            |plan, quiet| plan.missed_hints = quiet.missed_hints,
            |plan, quiet| plan.bad_fetches = quiet.bad_fetches,
            |plan, quiet| plan.user_syncs = quiet.user_syncs,
            |plan, quiet| plan.delay_max_ms = quiet.delay_max_ms,
            |plan, quiet| plan.report_delay_max_ms = quiet.report_delay_max_ms,
            |plan, quiet| plan.commit_max_ms = quiet.commit_max_ms,
        ];
        for calm in calmer {
            calmed |= self.change(|plan| calm(plan, &quiet));
        }
        calmed
    }

    fn drop_last_device(&mut self) -> bool {
        let last = self.plan.devices.len().saturating_sub(1);
        last >= 2
            && self.change(|plan| {
                plan.devices.truncate(last);
                plan.happenings
                    .retain(|happening| !happening.devices().contains(&last));
            })
    }

    fn change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut smaller = self.plan.clone();
        change(&mut smaller);
        self.take(smaller)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Draw, Happening};
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let mut plan = Draw::default().plan(3);
        let needed = [
            Happening::Empty { at: 77, device: 1 },
            Happening::Jump {
                at: 99,
                device: 0,
                by: -5,
            },
        ];
        plan.happenings.insert(2, needed[0]);
        plan.happenings.push(needed[1]);
        plan.loss = 9;
        let fails = |plan: &Plan| plan.loss > 0 && needed.iter().all(|one| plan.happenings.contains(one));
        let small = shrink(plan, fails);
        assert_eq!(small.happenings, needed);
        assert_eq!((small.devices.len(), small.loss, small.duplicates), (2, 9, 0));
    }
}
