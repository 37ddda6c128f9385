//! What an owner asks of those that are to be voters, and of those that are.

use std::time::Duration;

use super::{ChoiceNo, Question};
use crate::engine::sync::Asked;
use crate::engine::{Request, StateView, SyncEngine};
use crate::ids::DeviceId;
use crate::lock::succession::Seal;
use crate::lock::{self, Answer, Voted};
use crate::time::Now;

/// Until somebody is asked again who did not say yes.
const AGAIN: Duration = Duration::from_millis(500);
/// Until somebody is told again that a set comes to nothing.
const OFF_AGAIN: Duration = Duration::from_secs(5);

impl SyncEngine {
    /// Tells those who may be sealed for sets that come to nothing.
    pub(super) fn call_off(&mut self, now: Now, view: &impl StateView) {
        let epoch = self.group.as_ref().map_or(0, |group| group.epoch());
        let before = self.choosing.off.len();
        self.choosing.off.retain(|_, off| off.epoch >= epoch);
        if self.choosing.off.len() != before {
            self.keep_choosing();
        }
        let mut due = Vec::new();
        for (set, off) in &mut self.choosing.off {
            for (voter, at) in &mut off.sealed {
                if *at <= now.boot {
                    *at = now.boot.after(OFF_AGAIN);
                    due.push((*voter, Question::Unseal(*set)));
                }
            }
        }
        for (voter, question) in due {
            self.ask_about_voters(voter, question, now, view);
        }
    }

    /// Asks those whose turn has come; `false`: there was none.
    pub(super) fn ask_due(&mut self, now: Now, view: &impl StateView) -> bool {
        let Some(trying) = &mut self.choosing.trying else {
            return false;
        };
        let question = if trying.is_sealing {
            Question::Seal(trying.set)
        } else {
            Question::Stand(trying.set)
        };
        let due = trying.due.extract_if(.., |_, at| *at <= now.boot);
        let due: Vec<DeviceId> = due.map(|(voter, _)| voter).collect();
        for voter in &due {
            self.ask_about_voters(*voter, question, now, view);
        }
        !due.is_empty()
    }

    fn ask_about_voters(&mut self, voter: DeviceId, question: Question, now: Now, view: &impl StateView) {
        let request = match question {
            Question::Stand(next) => lock::Request::Stand { next },
            Question::Seal(next) => {
                let epoch = self.group.as_ref().map_or(0, |group| group.epoch());
                lock::Request::Seal { epoch, next }
            }
            Question::Unseal(next) => lock::Request::Unseal { next },
        };
        self.choosing.next += 1;
        let no = ChoiceNo(self.choosing.next);
        self.choosing.asked.insert(no, (voter, question));
        if voter == self.me {
            let voted = self.vote(&voter, &request, now, view);
            self.choice_answered(no, Some(voted), now);
        } else if self.peers.get(&voter).is_some() {
            self.ask(voter, Asked::Choice(no), Request::Lock(request));
        } else {
            self.choice_answered(no, None, now);
        }
    }

    /// A device answered what was asked about voters, or the question failed.
    pub(in crate::engine) fn choice_answered(&mut self, no: ChoiceNo, voted: Option<Voted>, now: Now) {
        let Some((voter, question)) = self.choosing.asked.remove(&no) else {
            return;
        };
        if let Question::Unseal(set) = question {
            // Whatever it says, it is not sealed for that.
            if voted.is_some() {
                self.called_off(&set, &voter);
            }
            return;
        }
        let Some(Voted { answer, sig, .. }) = voted else {
            self.ask_later(voter, question, None, now);
            return;
        };
        match (question, answer, sig, &mut self.choosing.trying) {
            (Question::Stand(set), Answer::Done, _, Some(trying)) if trying.set == set => {
                trying.stood.insert(voter);
            }
            (Question::Seal(set), Answer::Reported(report), Some(sig), Some(trying)) if trying.set == set => {
                let seal = Seal { voter, report, sig };
                let group = self.group.as_ref().map(|group| group.id);
                let epoch = trying.next.epoch - 1;
                if group.is_some_and(|group| seal.holds(&group, epoch, &set)) {
                    trying.seals.insert(voter, seal);
                }
            }
            (_, answer, ..) => {
                if let Answer::Sealed { next } = &answer
                    && let Some(off) = self.choosing.off.get_mut(next)
                {
                    off.sealed.insert(voter, now.boot);
                }
                self.ask_later(voter, question, Some(answer), now);
            }
        }
    }

    fn ask_later(&mut self, voter: DeviceId, question: Question, refusal: Option<Answer>, now: Now) {
        let Some(trying) = &mut self.choosing.trying else {
            return;
        };
        let is_current = match question {
            Question::Stand(set) => trying.set == set && !trying.is_sealing,
            Question::Seal(set) => trying.set == set && trying.is_sealing,
            Question::Unseal(_) => false,
        };
        if is_current {
            trying.due.insert(voter, now.boot.after(AGAIN));
            if let Some(refusal) = refusal {
                trying.refusals.insert(voter, refusal);
            }
        }
    }

    fn called_off(&mut self, set: &[u8; 32], voter: &DeviceId) {
        let Some(off) = self.choosing.off.get_mut(set) else {
            return;
        };
        off.sealed.remove(voter);
        if off.sealed.is_empty() {
            self.choosing.off.remove(set);
        }
        self.keep_choosing();
    }
}
