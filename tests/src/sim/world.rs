//! The queue of things to come, and the loop that lets them happen.

mod daemon;
mod disks;
mod faults;
mod guarding;
mod links;
mod pairing;
mod roles;
mod services;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use p2p_sync_core::engine::{Command, CommandId, FetchJob, FoundBy, Input, Output, RequestId};
use p2p_sync_core::ids::{ContentHash, DeviceId};
use p2p_sync_core::rel_path::RelPath;

use super::actions::{Action, Hand, Users};
use super::device::{Ambush, AmbushKind, Device};
use super::plan::{Draw, Plan};
use super::rng::Rng;
use super::trace::{Sink, Trace};
pub use links::StrangerSaw;
use links::{Links, Message};

/// Things that may happen in one run. Honest runs need a few ten thousand; more is a livelock.
const STEPS_MAX: u64 = 400_000;
/// How long after the healing all must be at rest.
const REST_WITHIN_MS: u64 = 60 * 60_000;
/// How long nothing may have happened for a run to be at rest: longer than every retry and every anti-entropy round.
const REST_MS: u64 = 240_000;
/// From the first look at all folders after the healing to the second.
const SECOND_LOOK_MS: u64 = 60_000;
/// After that time, when all is healed, the other machine with a device's key is switched on.
const EXCHANGE_MS: u64 = 400_000;
/// After that time users whose state is an old copy stop waiting for members that do not come; less than [`REST_MS`].
const REBIND_MS: u64 = 200_000;
/// Added to a plan's seed, so that what it is drawn from is not what happens in it.
const DICE: u64 = 0x6469_6365_0000_0000;
/// Outputs of one input; an engine that gives more has no end.
const OUTPUTS_MAX: u32 = 20_000;

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash { device: usize, power: bool },
    Ambush { device: usize, ambush: Ambush },
    Jump { device: usize, by: i64 },
    Cut(usize, usize),
    Mend(usize, usize),
    Deafen { from: usize, to: usize, until: u64 },
    Undeafen { from: usize, to: usize },
    Slow { a: usize, b: usize, delay: u64 },
    Quick(usize, usize),
    Empty(usize),
    Lose(usize),
    Exchange(usize),
    Backup(usize),
    Restore(usize),
}

/// What is yet to come.
#[derive(Debug)]
enum Event {
    Start(usize),
    Fault(Fault),
    User(usize, u64),
    Decide(usize, u64),
    AnswerHeld(usize),
    Pair(usize),
    Redeem(usize),
    Connect(usize, usize),
    Reconnect(usize, usize),
    Stranger,
    Daemon {
        device: usize,
        run: u32,
        work: Work,
    },
    Message {
        epoch: u64,
        from: usize,
        to: usize,
        message: Message,
    },
    RequestFails {
        device: usize,
        run: u32,
        id: RequestId,
    },
    Heal,
    LookEverywhere,
    /// Users give up waiting for own events that nobody brings back.
    Rebind,
}

/// What a device's services are about to do.
#[derive(Debug)]
enum Work {
    Wake,
    Commit,
    Look(Vec<RelPath>, FoundBy),
    Report,
    ScanStep,
    Fetch(FetchJob),
    InstallStep,
    LookAgain,
    LanPeer(usize),
}

/// What an observer is shown: an output, before it takes effect.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The device it comes from.
    pub device: &'a Device,
    /// The output.
    pub output: &'a Output,
}

/// Looks at each output as it comes.
pub trait Observer {
    /// Returns what is wrong.
    ///
    /// # Errors
    /// The invariant that does not hold, in words.
    fn see(&mut self, moment: &Moment<'_>) -> Result<(), String>;
}

/// A group of simulated devices.
pub struct World {
    /// The plan.
    pub plan: Plan,
    /// The devices.
    pub devices: Vec<Device>,
    /// What users wrote and gave up.
    pub users: Users,
    /// What the stranger was told.
    pub stranger: StrangerSaw,
    /// When something was last changed, sent or installed, milliseconds.
    pub last_activity_ms: u64,
    rng: Rng,
    trace: Trace,
    time_ms: u64,
    steps: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    wakes: BTreeMap<usize, u64>,
    links: Links,
    next_command: u64,
    tickets: BTreeMap<usize, String>,
    invite_asked: BTreeMap<CommandId, usize>,
    healed: bool,
    observers: Vec<Box<dyn Observer>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("time_ms", &self.time_ms)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Sets the scene of a seed.
    #[must_use]
    pub fn new(seed: u64, sink: Sink, observers: Vec<Box<dyn Observer>>) -> Self {
        Self::with_plan(Draw::default().plan(seed), sink, observers)
    }

    /// Sets the scene of a plan.
    #[must_use]
    pub fn with_plan(plan: Plan, sink: Sink, observers: Vec<Box<dyn Observer>>) -> Self {
        let mut rng = Rng::new(plan.seed ^ DICE);
        let each = plan.devices.iter().enumerate();
        let devices = each
            .map(|(i, d)| Device::new(i, d.skew_ms, plan.trust_lan, &mut rng))
            .collect();
        let mut world = Self {
            devices,
            users: Users::default(),
            stranger: StrangerSaw::default(),
            last_activity_ms: 0,
            trace: Trace::new(sink),
            time_ms: 0,
            steps: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            wakes: BTreeMap::new(),
            links: Links::new(&mut rng),
            next_command: 0,
            tickets: BTreeMap::new(),
            invite_asked: BTreeMap::new(),
            healed: false,
            observers,
            plan,
            rng,
        };
        world.schedule();
        world
    }

    /// Lets everything happen until, after the healing, nothing does any more.
    ///
    /// # Errors
    /// What an observer found, or that there is no end.
    pub fn run(&mut self) -> Result<(), String> {
        // Machines that were switched off are heard, too, and others may have waited for what only they have.
        while !self.healed {
            self.step()?;
        }
        for _ in 0..2 {
            if self.devices.iter().any(|device| device.twin.is_some()) {
                self.pass(EXCHANGE_MS)?;
                self.exchange_all()?;
            }
        }
        self.run_to_rest()
    }

    fn run_to_rest(&mut self) -> Result<(), String> {
        let end = self.plan.span_ms.max(self.time_ms) + REST_WITHIN_MS;
        while !self.is_at_rest() {
            self.step()?;
            if self.time_ms > end {
                return Err(self.unrest());
            }
        }
        Ok(())
    }

    fn exchange_all(&mut self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            if self.devices[device].twin.is_none() {
                continue;
            }
            self.crash(device, false)?;
            self.devices[device].exchange();
            self.start(device)?;
            self.at(self.time_ms + SECOND_LOOK_MS, Event::LookEverywhere);
        }
        Ok(())
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn pass(&mut self, duration_ms: u64) -> Result<(), String> {
        let end = self.time_ms + duration_ms;
        while self
            .queue
            .first_key_value()
            .is_some_and(|((at, _), _)| *at <= end)
        {
            self.step()?;
        }
        self.time_ms = end;
        Ok(())
    }

    /// Returns the trace.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns milliseconds since the start.
    #[must_use]
    pub const fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Gives a device an input at once.
    ///
    /// # Errors
    /// What an observer found in the outputs.
    pub fn tell(&mut self, device: usize, input: Input) -> Result<(), String> {
        let now = self.devices[device].now(self.time_ms);
        let here = &mut self.devices[device];
        let Some(engine) = here.engine.as_mut() else {
            return Ok(());
        };
        self.trace
            .line(format_args!("{:>8} {device} < {input:?}", self.time_ms));
        engine.handle_input(input, now, here.store.durable());
        self.drain(device)
    }

    /// Says whether the device with this id is one of the simulated ones, and which.
    #[must_use]
    pub fn index_of(&self, id: &DeviceId) -> Option<usize> {
        self.devices.iter().position(|device| device.id == *id)
    }

    fn schedule(&mut self) {
        for index in 0..self.devices.len() {
            let plan = self.plan.devices[index].clone();
            let files = plan.files;
            let mut rng = self.devices[index].dice.clone();
            self.with_hand(index, |hand| hand.move_in(files, &mut rng));
            self.devices[index].dice = rng;
            let all: Vec<RelPath> = self.devices[index].disk.tree().keys().cloned().collect();
            self.devices[index].note_user(&all);
            self.at(plan.start_ms, Event::Start(index));
            if let Some(join_ms) = plan.join_ms {
                self.at(join_ms, Event::Pair(index));
            }
        }
        for happening in self.plan.happenings.clone() {
            self.expect(happening);
        }
        if self.plan.stranger {
            for _ in 0..10 {
                let at = self.rng.below(self.plan.span_ms);
                self.at(at, Event::Stranger);
            }
        }
        self.at(self.plan.span_ms, Event::Heal);
    }

    fn is_at_rest(&self) -> bool {
        self.healed
            && self.time_ms > self.last_activity_ms + REST_MS
            && self.time_ms > self.plan.span_ms + REST_MS
    }

    /// Says whether a content that a device may still want is on no disk, since users gave it up. A device whose state is an
    /// old copy, or lost, cannot know what its user deleted or replaced meanwhile; the group says that nobody has those
    /// bytes, and goes on asking.
    #[must_use]
    pub fn is_out_of_reach(&self, content: &ContentHash) -> bool {
        if self.plan.changes_roles() {
            // Perhaps only a device had them that was removed since.
            return !self.insiders().iter().any(|device| device.disk.keeps(content));
        }
        (self.plan.restores() || self.plan.loses())
            && self.users.given_up.contains(content)
            && !self.devices.iter().any(|device| device.disk.keeps(content))
    }

    /// Says who is still busy, and with what.
    fn unrest(&self) -> String {
        let mut text = format!("No rest {REST_WITHIN_MS} ms after the healing:");
        for device in &self.devices {
            let status = device.status();
            let needs: Vec<&RelPath> = device.store.durable().needs.iter().collect();
            let _ = write!(text, " [{} {:?}, needs {needs:?}]", device.index, status.state);
        }
        text
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("No end after {STEPS_MAX} steps"));
        }
        let Some(((at, _), event)) = self.queue.pop_first() else {
            self.time_ms += REST_MS;
            return Ok(());
        };
        self.time_ms = self.time_ms.max(at);
        self.happen(event)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Start(device) => self.start(device),
            Event::Fault(fault) => self.fault(fault),
            Event::User(device, seed) => {
                self.act(device, seed);
                Ok(())
            }
            Event::Decide(device, seed) => self.decide(device, seed),
            Event::AnswerHeld(device) => self.answer_held(device),
            Event::Pair(device) => self.pair(device),
            Event::Redeem(device) => self.redeem(device),
            Event::Connect(a, b) => self.connect(a, b),
            Event::Reconnect(a, b) => self.disconnect(a, b),
            Event::Stranger => self.stranger_asks(),
            Event::Daemon { device, run, work } if self.devices[device].run == run => self.work(device, work),
            Event::Daemon { .. } => Ok(()),
            Event::Message {
                epoch,
                from,
                to,
                message,
            } => self.deliver(epoch, from, to, message),
            Event::RequestFails { device, run, id } => self.request_fails(device, run, id),
            Event::Heal => self.heal(),
            Event::LookEverywhere => self.look_everywhere(),
            Event::Rebind => self.rebind(),
        }
    }

    /// Ends all faults; each user asks for a look at the whole folder, as some watcher may have missed something.
    fn heal(&mut self) -> Result<(), String> {
        self.trace.line(format_args!("{:>8} all is healed", self.time_ms));
        self.healed = true;
        self.last_activity_ms = self.time_ms;
        self.plan.loss = 0;
        self.plan.bad_fetches = 0;
        self.plan.missed_hints = 0;
        self.links.heal();
        for a in 0..self.devices.len() {
            self.devices[a].ambushes.clear();
            self.start(a)?;
            for b in 0..a {
                self.mend(b, a);
            }
        }
        self.at(self.time_ms, Event::LookEverywhere);
        // A scan compares with what is durable: what was published at its start and changed since is found by the next.
        self.at(self.time_ms + SECOND_LOOK_MS, Event::LookEverywhere);
        self.at(self.time_ms + REBIND_MS, Event::Rebind);
        Ok(())
    }

    fn look_everywhere(&mut self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            let path = None;
            self.command(device, Command::Rescan { path })?;
        }
        Ok(())
    }

    fn act(&mut self, device: usize, seed: u64) {
        let action = self.with_hand(device, |hand| hand.act(&mut Rng::new(seed)));
        if let Some(action) = action {
            self.acted(device, &action);
        }
    }

    /// Notes what a user did; the watcher sees it, or not.
    fn acted(&mut self, device: usize, action: &Action) {
        self.trace
            .line(format_args!("{:>8} {device} user: {action}", self.time_ms));
        self.last_activity_ms = self.time_ms;
        let here = &mut self.devices[device];
        here.note_what_is_back();
        here.note_user(&action.paths);
        let own = action.paths.iter().filter(|path| path.is_own());
        let contents = own.filter_map(|path| here.disk.lstat(path)?.entry().node.content());
        self.users.unsynced.extend(contents);
        if !here.dice.percent(self.plan.missed_hints) {
            let delay = here.dice.between(1, 2_000);
            self.later(device, delay, Work::Look(action.paths.clone(), FoundBy::Watcher));
        }
    }

    fn with_hand<T>(&mut self, device: usize, act: impl FnOnce(&mut Hand<'_>) -> T) -> T {
        let here = &mut self.devices[device];
        // Clocks of two machines do not agree to the nanosecond, even where their skews do to the
        // millisecond: one user's file never has the size and time of another's by chance.
        let now_ns = here.now(self.time_ms).wall_ms.saturating_mul(1_000_000) + device as u64;
        here.disk.set_time(self.time_ms);
        here.disk.set_by_user(true);
        // An install may have put something there just before the daemon died.
        here.note_what_is_back();
        act(&mut Hand {
            users: &mut self.users,
            disk: &mut here.disk,
            device,
            now_ns: i64::try_from(now_ns).unwrap_or(i64::MAX),
            syncs: self.plan.user_syncs,
        })
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.next_event += 1;
        self.queue
            .insert((at_ms.max(self.time_ms), self.next_event), event);
    }

    /// Has a device's services do something after a while, unless the daemon dies before.
    fn later(&mut self, device: usize, delay_ms: u64, work: Work) {
        let run = self.devices[device].run;
        self.at(self.time_ms + delay_ms, Event::Daemon { device, run, work });
    }
}
