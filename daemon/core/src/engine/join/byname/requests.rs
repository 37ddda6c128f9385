//! The side that is asked: who asks, and what came of it.
//!
//! Strangers make all of this, so it is small: [`MAX_REQUESTS`] at a time, each for [`REQUEST_LIFE`] at most and only
//! as long as the asker goes on asking. New ones are rare, too ([`ASK_EVERY`]): somebody who stands between two devices
//! would have to ask again and again until his digits happen to be those of the other exchange.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Exchange, JoinRequest, PairCode, PairError};
use crate::engine::RefuseReason;
use crate::ids::DeviceId;
use crate::time::{BootInstant, Now};

/// Devices that ask at a time; further ones are told to come back.
pub(super) const MAX_REQUESTS: usize = 8;
/// How long a request is good.
pub(super) const REQUEST_LIFE: Duration = Duration::from_secs(600);
/// A request lapses when its device has not asked again for so long: its user gave up, or it is gone.
pub(super) const REQUEST_SILENCE: Duration = Duration::from_secs(30);
/// Wrong digits with which a request is dropped.
pub(super) const MAX_WRONG: u32 = 3;
/// Questions to be let in that may come at once, from whomever.
pub(super) const ASK_BURST: u32 = 8;
/// After those, one comes through in this time: 28 in the life of one code, so a chance of 1 in 35 000 for somebody who
/// asks until his digits are the right ones.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(30);
/// Questions for this device's name that may come at once, from whomever.
const WHO_BURST: u32 = 32;
/// After those, one is answered in this time.
const WHO_EVERY: Duration = Duration::from_millis(100);
/// Digits of an id that are needed to name a device.
const MIN_ID_DIGITS: usize = 4;

/// The requests that are open; see the module.
#[derive(Debug)]
pub(in crate::engine) struct Requests {
    open: BTreeMap<DeviceId, Open>,
    asks: Allowance,
    whos: Allowance,
}

/// One request.
#[derive(Debug)]
struct Open {
    name: String,
    commitment: [u8; 32],
    nonce: [u8; 32],
    /// The asker's nonce and the digits, once it has shown the nonce.
    shown: Option<([u8; 32], PairCode)>,
    wrong: u32,
    approved: bool,
    since: BootInstant,
    heard: BootInstant,
}

/// What a shown nonce led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Revealed {
    /// There is something to show to the user.
    Shown(JoinRequest),
    /// Its user has not decided yet.
    Waiting,
    /// It was let in.
    Approved,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            asks: Allowance::new(ASK_BURST, ASK_EVERY),
            whos: Allowance::new(WHO_BURST, WHO_EVERY),
        }
    }
}

impl Requests {
    /// Returns what a user should see.
    pub(in crate::engine) fn shown(&self) -> Vec<JoinRequest> {
        let waiting = self.open.iter().filter(|(_, open)| !open.approved);
        waiting
            .filter_map(|(device, open)| open.request(*device))
            .collect()
    }

    /// Returns when the next request lapses.
    pub(in crate::engine::join) fn deadline(&self) -> Option<BootInstant> {
        self.open.values().map(Open::lapses).min()
    }

    /// Forgets all that is of the group that was left.
    pub(in crate::engine::join) fn clear(&mut self) {
        self.open.clear();
    }

    /// Drops what has lapsed.
    pub(super) fn expire(&mut self, now: Now) {
        self.open.retain(|_, open| open.lapses() > now.boot);
    }

    /// Says whether one more stranger may be told this device's name.
    pub(super) fn may_say_who(&mut self, now: Now) -> bool {
        self.whos.take(now.boot)
    }

    /// Takes a question; one of the same device that was open is dropped for it.
    pub(super) fn ask(
        &mut self,
        from: DeviceId,
        name: String,
        commitment: [u8; 32],
        nonce: [u8; 32],
        now: Now,
    ) -> Result<(), RefuseReason> {
        self.expire(now);
        let is_room = self.open.len() < MAX_REQUESTS || self.open.contains_key(&from);
        if !is_room || !self.asks.take(now.boot) {
            return Err(RefuseReason::Busy);
        }
        let open = Open {
            name,
            commitment,
            nonce,
            shown: None,
            wrong: 0,
            approved: false,
            since: now.boot,
            heard: now.boot,
        };
        self.open.insert(from, open);
        Ok(())
    }

    /// Takes the asker's nonce; the same one again asks how it stands.
    pub(super) fn reveal(
        &mut self,
        exchange: Exchange,
        nonce: &[u8; 32],
        now: Now,
    ) -> Result<Revealed, RefuseReason> {
        self.expire(now);
        let asker = exchange.asker;
        let open = self.open.get_mut(&asker).ok_or(RefuseReason::NotAsked)?;
        if exchange.commitment(nonce) != open.commitment {
            self.open.remove(&asker);
            return Err(RefuseReason::NotAsked);
        }
        open.heard = now.boot;
        if open.approved {
            return Ok(Revealed::Approved);
        }
        if open.shown.is_some() {
            return Ok(Revealed::Waiting);
        }
        open.shown = Some((*nonce, exchange.code(nonce, &open.nonce)));
        open.request(asker)
            .map(Revealed::Shown)
            .ok_or(RefuseReason::NotAsked)
    }

    /// Lets a device in whose user showed these digits; `device` is its id in hexadecimal or the beginning of it.
    pub(super) fn approve(&mut self, device: &str, code: &str, now: Now) -> Result<JoinRequest, PairError> {
        self.expire(now);
        let wanted: String = device.chars().filter(|c| *c != '-').collect();
        let wanted = wanted.to_ascii_lowercase();
        if wanted.len() < MIN_ID_DIGITS {
            return Err(PairError::NoSuchRequest);
        }
        let is_meant = |(id, open): &(&DeviceId, &mut Open)| {
            open.shown.is_some() && !open.approved && id.to_hex().starts_with(&wanted)
        };
        let mut meant = self.open.iter_mut().filter(is_meant);
        let (device, open) = meant.next().ok_or(PairError::NoSuchRequest)?;
        if meant.next().is_some() {
            return Err(PairError::NotUnique);
        }
        let request = open.request(*device).ok_or(PairError::NoSuchRequest)?;
        if PairCode::parse(code) == Some(request.code) {
            open.approved = true;
            return Ok(request);
        }
        open.wrong += 1;
        let left = MAX_WRONG.saturating_sub(open.wrong);
        if left == 0 {
            self.open.remove(&request.device);
        }
        Err(PairError::WrongCode { left })
    }
}

impl Open {
    fn lapses(&self) -> BootInstant {
        self.heard
            .after(REQUEST_SILENCE)
            .min(self.since.after(REQUEST_LIFE))
    }

    fn request(&self, device: DeviceId) -> Option<JoinRequest> {
        let (_, code) = self.shown?;
        let name = self.name.clone();
        Some(JoinRequest { device, name, code })
    }
}

/// So many at once, then one in a while.
#[derive(Debug)]
struct Allowance {
    burst: u32,
    every: Duration,
    left: u32,
    /// From when the time to the next one counts; `None` while all are left.
    since: Option<BootInstant>,
}

impl Allowance {
    const fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            left: burst,
            since: None,
        }
    }

    fn take(&mut self, now: BootInstant) -> bool {
        while let Some(since) = self.since.filter(|since| now.since(*since) >= self.every) {
            self.left += 1;
            self.since = (self.left < self.burst).then(|| since.after(self.every));
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.since.get_or_insert(now);
        true
    }
}
