//! A device's event loop: inputs to the engine, outputs to the services, alarms.

use std::sync::Arc;

use p2p_sync_core::engine::{Command, CommandId, FetchJob, FoundBy, Input, Output, Request, Response};
use p2p_sync_core::ignore::IgnoreRules;

use super::{Event, Moment, OUTPUTS_MAX, Work, World};
use crate::sim::{scanner, ticket};

impl World {
    pub(super) fn start(&mut self, device: usize) -> Result<(), String> {
        if self.devices[device].engine.is_some() {
            return Ok(());
        }
        let here = &mut self.devices[device];
        let dies = !self.healed && here.dice.percent(5);
        let intents = dies.then(|| here.dice.below(3));
        let Ok(recovery) = here.start(self.time_ms, intents) else {
            self.trace
                .line(format_args!("{:>8} {device} dies in recovery", self.time_ms));
            self.at(self.time_ms + 100, Event::Start(device));
            return Ok(());
        };
        self.wakes.remove(&device);
        self.trace
            .line(format_args!("{:>8} {device} starts: {recovery:?}", self.time_ms));
        self.last_activity_ms = self.time_ms;
        self.tell(device, Input::IgnoreRules(self.devices[device].rules.clone()))?;
        let installs = recovery.installs;
        self.tell(device, Input::Start { installs })?;
        self.note_unfinished(device, recovery.unfinished);
        for other in 0..self.devices.len() {
            self.schedule_connect(device, other);
        }
        Ok(())
    }

    /// Lets a device's daemon die, with all that it wrote durable, and starts it again by other ignore rules.
    ///
    /// # Errors
    /// What an observer found in the outputs.
    pub fn restart_with(&mut self, device: usize, rules: Arc<dyn IgnoreRules>) -> Result<(), String> {
        let on_their_way = self.devices[device].store.pending_len();
        self.devices[device].crash(on_their_way);
        self.drop_links(device)?;
        self.devices[device].rules = rules;
        self.start(device)
    }

    /// Gives a running device other ignore rules.
    ///
    /// # Errors
    /// What an observer found in the outputs.
    pub fn ignore(&mut self, device: usize, rules: Arc<dyn IgnoreRules>) -> Result<(), String> {
        self.devices[device].rules = rules.clone();
        self.tell(device, Input::IgnoreRules(rules))
    }

    /// Takes what the engine gives until it gives nothing more.
    pub(super) fn drain(&mut self, device: usize) -> Result<(), String> {
        for _ in 0..OUTPUTS_MAX {
            let engine = self.devices[device].engine.as_mut();
            let Some(output) = engine.and_then(|engine| engine.poll_output()) else {
                self.set_alarm(device);
                return Ok(());
            };
            self.trace
                .line(format_args!("{:>8} {device} > {output:?}", self.time_ms));
            let moment = Moment {
                device: &self.devices[device],
                output: &output,
            };
            for observer in &mut self.observers {
                observer.see(&moment)?;
            }
            self.perform(device, output)?;
        }
        Err(format!("Device {device} gives outputs without end"))
    }

    fn set_alarm(&mut self, device: usize) {
        let here = &self.devices[device];
        let Some((due, _)) = here.engine.as_ref().and_then(|engine| engine.poll_timeout()) else {
            return;
        };
        let due = here.time_of(due).max(self.time_ms);
        if self.wakes.get(&device).is_none_or(|set| due < *set) {
            self.wakes.insert(device, due);
            self.later(device, due - self.time_ms, Work::Wake);
        }
    }

    fn perform(&mut self, device: usize, output: Output) -> Result<(), String> {
        let in_vain = |jobs: &[FetchJob]| jobs.iter().all(|job| self.is_out_of_reach(&job.content));
        let waits = matches!(&output, Output::Fetch(jobs) if in_vain(jobs));
        if is_activity(&output) && !waits {
            self.last_activity_ms = self.time_ms;
        }
        match output {
            Output::Persist(batch) => self.persist(device, batch),
            Output::Request { to, id, request } => self.send_request(device, &to, id, request),
            Output::Respond { id, response } => return self.send_response(device, id, response),
            Output::Gossip(message) => self.broadcast(device, &message),
            // The engine is in the middle of its outputs; links change after them.
            Output::Members(members) => self.set_members(device, members),
            Output::Announce { group } => self.announce(device, group),
            Output::SeekLan => {}
            Output::Dial { address } => {
                if let Some(to) = ticket::resolve(&address) {
                    self.devices[device].dials.insert(to);
                    self.schedule_connect(device, to);
                }
            }
            Output::Undial { address } => {
                if let Some(to) = ticket::resolve(&address) {
                    self.devices[device].dials.remove(&to);
                }
            }
            Output::Fetch(jobs) => {
                for job in jobs {
                    let longest = 2 + self.plan.delay_max_ms;
                    let delay = self.devices[device].dice.between(1, longest);
                    self.later(device, delay, Work::Fetch(job));
                }
            }
            Output::DropContent(contents) => self.devices[device].disk.drop_contents(&contents),
            Output::Install(jobs) => self.queue_installs(device, jobs),
            Output::Scan(no) => self.begin_scan(device, no),
            Output::Rescan(paths) => {
                let delay = self.devices[device].dice.between(1, 500);
                self.later(device, delay, Work::Look(paths, FoundBy::Look));
            }
            Output::Look { .. } => return Err("its users do not ask for locks".to_owned()),
            Output::Reply { id, reply } => self.replied(device, id, reply),
            Output::Notify(_) => {}
        }
        Ok(())
    }

    pub(super) fn work(&mut self, device: usize, work: Work) -> Result<(), String> {
        if self.devices[device].engine.is_none() {
            return Ok(());
        }
        match work {
            Work::Wake => self.wake(device),
            Work::Commit => self.commit(device),
            Work::Look(hints, found_by) => {
                let here = &self.devices[device];
                let paths = scanner::around(&hints, &here.disk, here.store.durable());
                self.look_and_tell(device, &paths, |path| {
                    let hinted = hints.iter().any(|hint| path == hint || path.is_below(hint));
                    if hinted { found_by } else { FoundBy::Look }
                });
                Ok(())
            }
            Work::Report => self.next_report(device),
            Work::ScanStep => self.scan_step(device),
            Work::Fetch(job) => self.fetch(device, job),
            Work::InstallStep => self.install_step(device),
            Work::LookAgain => {
                self.look_again(device);
                Ok(())
            }
            Work::LanPeer(other) => self.lan_peer(device, other),
        }
    }

    fn wake(&mut self, device: usize) -> Result<(), String> {
        // An alarm that was set before an earlier one is still in the queue; it finds nothing due.
        if self.wakes.get(&device).is_some_and(|set| *set <= self.time_ms) {
            self.wakes.remove(&device);
        }
        let now = self.devices[device].now(self.time_ms);
        let here = &mut self.devices[device];
        let Some(engine) = here.engine.as_mut() else {
            return Ok(());
        };
        let Some((due, reason)) = engine.poll_timeout() else {
            return Ok(());
        };
        if due <= now.boot {
            self.trace
                .line(format_args!("{:>8} {device} wakes: {reason}", self.time_ms));
            engine.handle_timeout(now, here.store.durable());
        }
        self.drain(device)
    }

    /// Asks a device something in its user's name.
    pub(super) fn command(&mut self, device: usize, command: Command) -> Result<CommandId, String> {
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.tell(device, Input::Command { id, command })?;
        Ok(id)
    }

    pub(super) fn schedule_connect(&mut self, a: usize, b: usize) {
        if a != b {
            let delay = self.links.dice(a, b).between(10, 3_000);
            self.at(self.time_ms + delay, Event::Connect(a, b));
        }
    }
}

/// Says whether an output shows that something is still going on; comparing heads and scanning goes on for ever, and so
/// does asking of one that was removed.
fn is_activity(output: &Output) -> bool {
    match output {
        Output::Persist(_)
        | Output::Fetch(_)
        | Output::Install(_)
        | Output::Rescan(_)
        | Output::Look { .. }
        | Output::Gossip(_) => true,
        Output::Members(_)
        | Output::Announce { .. }
        | Output::SeekLan
        | Output::Dial { .. }
        | Output::Undial { .. }
        | Output::Reply { .. } => true,
        Output::Request { request, .. } => {
            let idle = Request::is_join(request)
                || matches!(request, Request::Heads { .. } | Request::InSync { .. });
            !idle
        }
        Output::Respond { response, .. } => {
            let idle = matches!(response, Response::Same | Response::Ack | Response::Refused(_));
            !idle && !matches!(response, Response::Removed { .. })
        }
        Output::Scan(_) | Output::Notify(_) | Output::DropContent(_) => false,
    }
}
