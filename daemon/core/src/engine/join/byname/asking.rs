//! The side that asks: looking for the name, asking one device, showing the digits, waiting for the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Exchange, LanDevice, PairCode, PairError};
use crate::engine::sync::Asked;
use crate::engine::{CommandId, RefuseReason, Request};
use crate::ids::{DeviceId, GroupId};
use crate::time::{BootInstant, Now};

/// How long the local network is looked at before a name is taken for found: others may answer to it, too.
const LOOK_FOR: Duration = Duration::from_secs(3);
/// How long it is looked at when nobody answers to the name.
const LOOK_MOST: Duration = Duration::from_secs(8);
/// Between two looks, and between two questions whether it was let in.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the asker waits for a user on the other side; `syncctl` gives up before.
const WAIT_MOST: Duration = Duration::from_secs(600);
/// Devices of the local network that are remembered while it is looked at.
const MAX_FOUND: usize = 64;

/// A user's wish to join by name; see the module.
#[derive(Debug)]
pub(in crate::engine) struct Asking {
    /// What is looked for; `None`: whatever is there.
    name: Option<String>,
    pub(super) reply: CommandId,
    began: BootInstant,
    pub(super) deadline: BootInstant,
    pub(super) again: BootInstant,
    found: BTreeMap<DeviceId, LanDevice>,
    /// Devices that may not let anybody in.
    unable: BTreeSet<DeviceId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Looking,
    /// One device is asked.
    Asking(Question),
}

/// The question to one device.
#[derive(Debug)]
struct Question {
    to: LanDevice,
    nonce: [u8; 32],
    /// The digits, once the other nonce is known.
    code: Option<PairCode>,
    /// Whether the user was told the digits.
    told: bool,
    under_way: bool,
}

/// What is to be done about the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Look on.
    Look,
    /// Ask this device.
    Ask(LanDevice),
    /// Only a list was wanted.
    List(Vec<LanDevice>),
    /// Give up.
    Fail(PairError),
}

impl Asking {
    pub(super) fn new(name: Option<String>, reply: CommandId, now: Now) -> Self {
        Self {
            name: name.map(|name| name.trim().to_owned()),
            reply,
            began: now.boot,
            deadline: now.boot.after(WAIT_MOST),
            again: now.boot.after(AGAIN),
            found: BTreeMap::new(),
            unable: BTreeSet::new(),
            stage: Stage::Looking,
        }
    }

    /// Returns when it has something to do.
    pub(in crate::engine::join) fn due(&self) -> BootInstant {
        self.deadline.min(self.again)
    }

    pub(super) const fn is_looking(&self) -> bool {
        matches!(self.stage, Stage::Looking)
    }

    pub(super) fn knows(&self, device: &DeviceId) -> bool {
        self.found.contains_key(device)
    }

    /// Returns the device that is asked.
    pub(super) fn to(&self) -> Option<DeviceId> {
        match &self.stage {
            Stage::Looking => None,
            Stage::Asking(question) => Some(question.to.device),
        }
    }

    pub(super) fn ask_again(&mut self, now: Now) {
        self.again = now.boot.after(AGAIN);
    }

    /// Takes note of a device that told about itself.
    pub(super) fn heard(&mut self, found: LanDevice) {
        if self.found.len() < MAX_FOUND || self.knows(&found.device) {
            self.found.insert(found.device, found);
        }
    }

    /// Says what to do about what was found so far.
    pub(super) fn decide(&self, now: Now) -> Decision {
        let looked = now.boot.since(self.began);
        if looked < LOOK_FOR {
            return Decision::Look;
        }
        let all = || self.found.values().cloned().collect::<Vec<_>>();
        let Some(name) = &self.name else {
            return if self.found.is_empty() && looked < LOOK_MOST {
                Decision::Look
            } else {
                Decision::List(all())
            };
        };
        let matching: Vec<&LanDevice> = self
            .found
            .values()
            .filter(|found| answers_to(found, name))
            .collect();
        let groups: BTreeSet<GroupId> = matching.iter().map(|found| found.here.group).collect();
        let name = name.clone();
        match groups.len() {
            0 if looked < LOOK_MOST => Decision::Look,
            0 => Decision::Fail(PairError::NoSuchName { name, found: all() }),
            1 => self.next_of(&matching),
            _ => {
                let found = matching.into_iter().cloned().collect();
                Decision::Fail(PairError::Ambiguous { name, found })
            }
        }
    }

    /// Chooses whom to ask of those in one group: who is called so himself comes first.
    fn next_of(&self, matching: &[&LanDevice]) -> Decision {
        let able = || {
            matching
                .iter()
                .filter(|found| !self.unable.contains(&found.device))
        };
        let is_named = |found: &&&LanDevice| {
            let name = self.name.as_deref().unwrap_or_default();
            is_same(&found.here.device_name, name) || is_id_of(name, &found.device)
        };
        match able().find(is_named).or_else(|| able().next()) {
            Some(found) => Decision::Ask((*found).clone()),
            None => Decision::Fail(PairError::MayNotAdmit),
        }
    }

    /// Turns to a device, with a fresh nonce.
    pub(super) fn begin(&mut self, to: LanDevice, nonce: [u8; 32]) {
        self.stage = Stage::Asking(Question {
            to,
            nonce,
            code: None,
            told: false,
            under_way: false,
        });
    }

    /// Returns what to ask next, unless an answer is awaited.
    pub(super) fn next_question(&mut self, me: DeviceId, my_name: &str) -> Option<(Asked, Request)> {
        let Stage::Asking(question) = &mut self.stage else {
            return None;
        };
        if std::mem::replace(&mut question.under_way, true) {
            return None;
        }
        let nonce = question.nonce;
        if question.code.is_some() {
            return Some((Asked::PairReveal, Request::JoinReveal { nonce }));
        }
        let commitment = question.exchange(me).commitment(&nonce);
        let request = Request::JoinAsk {
            group: question.to.here.group,
            name: my_name.to_owned(),
            commitment,
        };
        Some((Asked::PairAsk, request))
    }

    /// Takes note that the last question got no answer.
    pub(super) const fn unanswered(&mut self) {
        if let Stage::Asking(question) = &mut self.stage {
            question.under_way = false;
        }
    }

    /// Takes the other side's nonce; only the first counts, for ours may be known by now.
    pub(super) fn challenged(&mut self, me: DeviceId, nonce: &[u8; 32]) {
        self.unanswered();
        if let Stage::Asking(question) = &mut self.stage
            && question.code.is_none()
        {
            question.code = Some(question.exchange(me).code(&question.nonce, nonce));
        }
    }

    /// Returns the digits to show, when the other side has them for the first time.
    pub(super) fn acknowledged(&mut self) -> Option<(LanDevice, PairCode)> {
        self.unanswered();
        let Stage::Asking(question) = &mut self.stage else {
            return None;
        };
        let code = question.code?;
        let is_news = !std::mem::replace(&mut question.told, true);
        is_news.then(|| (question.to.clone(), code))
    }

    /// Says what to do after a refusal: another device of the group may be allowed to let somebody in.
    pub(super) fn refused(&mut self, reason: RefuseReason) -> Decision {
        let Some(to) = self.to() else {
            return Decision::Look;
        };
        match reason {
            RefuseReason::MayNotAdmit => {
                self.unable.insert(to);
                self.stage = Stage::Looking;
                let name = self.name.clone().unwrap_or_default();
                let matching: Vec<&LanDevice> = self
                    .found
                    .values()
                    .filter(|found| answers_to(found, &name))
                    .collect();
                self.next_of(&matching)
            }
            RefuseReason::Busy => Decision::Fail(PairError::Busy),
            _ => Decision::Fail(PairError::TurnedDown),
        }
    }

    /// Returns the group to enter, if this device was asked and its user could know the digits.
    pub(super) fn accepted(&self, from: &DeviceId) -> Option<GroupId> {
        match &self.stage {
            Stage::Asking(question) if question.to.device == *from && question.told => {
                Some(question.to.here.group)
            }
            _ => None,
        }
    }
}

impl Question {
    const fn exchange(&self, me: DeviceId) -> Exchange {
        Exchange {
            group: self.to.here.group,
            asker: me,
            answerer: self.to.device,
        }
    }
}

/// Says whether a device, or its group, is called so, or the device's id begins so.
fn answers_to(found: &LanDevice, name: &str) -> bool {
    let here = &found.here;
    is_same(&here.device_name, name) || is_same(&here.group_name, name) || is_id_of(name, &found.device)
}

fn is_same(a: &str, b: &str) -> bool {
    a.trim().to_lowercase() == b.to_lowercase()
}

/// Says whether `text` is the beginning of an id as lists show it: 8 hexadecimal digits at least.
fn is_id_of(text: &str, device: &DeviceId) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    digits.len() >= 8 && device.to_hex().starts_with(&digits.to_ascii_lowercase())
}
