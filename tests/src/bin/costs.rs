//! Measures what the core costs: events that a device verifies and applies in a second, and bytes of ledger for each
//! file. Two engines talk to each other over stores in memory; only what the second does with pages of events is counted,
//! in processor time.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use p2p_sync_core::access::{Role, Scopes};
use p2p_sync_core::engine::{
    Command, CommandId, EngineConfig, FoundBy, InboundId, Input, LocalChange, Observed, Output, Recovered,
    Reply, RequestId, Response, SyncEngine,
};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::{BootInstant, Now};
use p2p_sync_core::tree::{Entry, Fingerprint, Node};
use p2p_sync_tests::sim::store::MemoryStore;
use p2p_sync_tests::sim::ticket;

/// Milliseconds that one publication takes; an engine makes no two events in less.
const STEP_MS: u64 = 50;

#[derive(Debug, Parser)]
struct Options {
    /// Files that are changed one after the other, an event each
    #[arg(long, default_value_t = 10_000)]
    single: u64,
    /// Files that are found at once
    #[arg(long, default_value_t = 50_000)]
    import: u64,
}

struct Side {
    engine: SyncEngine,
    store: MemoryStore,
    /// Requests of the other side that wait for an answer.
    asked: Vec<(InboundId, RequestId)>,
    reply: Option<Reply>,
}

struct Pair {
    sides: [Side; 2],
    inbox: VecDeque<(usize, Input)>,
    clock_ms: u64,
    next: u64,
    /// What the second side spent on pages of events.
    spent: Duration,
}

impl Side {
    fn new(seed: u8) -> Self {
        let config = EngineConfig {
            secret: [seed; 32],
            name: format!("device {seed}"),
            seed: [seed; 32],
            trust_lan: false,
            lan_pairing: false,
            delete_guard: None,
        };
        Self {
            engine: SyncEngine::new(config, Recovered::default()),
            store: MemoryStore::default(),
            asked: Vec::new(),
            reply: None,
        }
    }
}

impl Pair {
    fn new() -> Result<Self> {
        let mut pair = Self {
            sides: [Side::new(1), Side::new(2)],
            inbox: VecDeque::new(),
            clock_ms: 1_000,
            next: 0,
            spent: Duration::ZERO,
        };
        for side in 0..2 {
            pair.tell(side, Input::Start { installs: vec![] });
        }
        let invite = Command::CreateInvite {
            role: Role::Editor,
            expires_ms: None,
            max_uses: 1,
            scopes: Scopes::whole(),
            person: None,
            secret: [7; 32],
        };
        let id = CommandId(0);
        pair.tell(0, Input::Command { id, command: invite });
        let Some(Reply::Invited { group, secret }) = pair.sides[0].reply.take() else {
            anyhow::bail!("No invite was made");
        };
        pair.connect();
        let command = Command::Join {
            ticket: ticket::print(group, secret, &[0]),
        };
        pair.tell(1, Input::Command { id, command });
        pair.pass(20_000);
        ensure!(
            pair.sides[1].engine.status().group.is_some(),
            "The second did not join"
        );
        Ok(pair)
    }

    fn connect(&mut self) {
        for side in 0..2 {
            let device = self.sides[1 - side].engine.device();
            let address = ticket::address(1 - side);
            let (local, near) = (true, true);
            let input = Input::Connected {
                device,
                address,
                local,
                near,
            };
            self.tell(side, input);
        }
    }

    fn disconnect(&mut self) {
        for side in 0..2 {
            let device = self.sides[1 - side].engine.device();
            self.tell(side, Input::Disconnected { device });
        }
    }

    fn now(&self) -> Now {
        Now {
            boot: BootInstant::from_millis(self.clock_ms),
            wall_ms: 1_750_000_000_000 + self.clock_ms,
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(STEP_MS) {
            self.clock_ms += STEP_MS;
            let now = self.now();
            for side in 0..2 {
                let Side { engine, store, .. } = &mut self.sides[side];
                engine.handle_timeout(now, store.durable());
                self.drain(side);
            }
            self.settle();
        }
    }

    fn tell(&mut self, side: usize, input: Input) {
        self.inbox.push_back((side, input));
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((side, input)) = self.inbox.pop_front() {
            let now = self.now();
            let is_page = matches!(
                &input,
                Input::Response {
                    result: Ok(Response::Events { .. }),
                    ..
                }
            );
            let Side { engine, store, .. } = &mut self.sides[side];
            let start = cpu_time();
            engine.handle_input(input, now, store.durable());
            if is_page && side == 1 {
                self.spent += cpu_time().saturating_sub(start);
            }
            self.drain(side);
        }
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.sides[side].engine.poll_output() {
            self.take(side, output);
        }
    }

    fn take(&mut self, side: usize, output: Output) {
        let (from, other) = (self.sides[side].engine.device(), 1 - side);
        match output {
            Output::Persist(batch) => {
                let no = batch.no;
                self.sides[side].store.push(batch);
                self.sides[side].store.commit_next();
                self.inbox.push_back((side, Input::Persisted(no)));
            }
            Output::Request { id, request, .. } => {
                self.next += 1;
                let inbound = InboundId(self.next);
                self.sides[other].asked.push((inbound, id));
                let id = inbound;
                self.inbox
                    .push_back((other, Input::Request { from, id, request }));
            }
            Output::Respond { id, response } => {
                let asked = &mut self.sides[side].asked;
                if let Some(at) = asked.iter().position(|(inbound, _)| *inbound == id) {
                    let (_, id) = asked.swap_remove(at);
                    let result = Ok(response);
                    self.inbox.push_back((other, Input::Response { id, result }));
                }
            }
            Output::Reply { reply, .. } => self.sides[side].reply = reply.ok(),
            // Nobody fetches or installs: that is the shell's work.
            _ => {}
        }
    }

    fn found(&mut self, numbers: std::ops::Range<u64>, kind: &str) -> Result<()> {
        let seen_at = self.now().boot;
        let change = |number: u64| -> Result<LocalChange> {
            Ok(LocalChange {
                path: RelPath::parse(format!(
                    "{kind}/directory {}/file number {number}.txt",
                    number / 1_000
                ))?,
                seen_at,
                after: Some(observed(number)),
                found_by: FoundBy::Watcher,
            })
        };
        let changes = numbers.map(change).collect::<Result<Vec<_>>>()?;
        self.tell(0, Input::LocalChanges(changes));
        Ok(())
    }

    /// Has the second take what the first published, and returns a line about it.
    fn measure(
        &mut self,
        kind: &str,
        files: u64,
        publish: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<String> {
        self.disconnect();
        let before = self.sides[1].store.durable().events.len();
        publish(self)?;
        self.pass(10_000);
        self.spent = Duration::ZERO;
        self.connect();
        self.pass(10_000);
        let all = &self.sides[1].store.durable().events;
        let author = self.sides[0].engine.device().short();
        let events = all.len() - before;
        let newest = all.range((author, 0)..=(author, u64::MAX)).rev().take(events);
        let bytes: usize = newest.map(|(_, stored)| stored.event.len()).sum();
        ensure!(events > 0, "Nothing arrived");
        let seconds = self.spent.as_secs_f64();
        Ok(format!(
            "{kind}: {files} files, {events} events, {bytes} bytes ({} an event, {} a file); {:.0} events/s, {:.0} files/s",
            bytes / events,
            bytes as u64 / files,
            events as f64 / seconds,
            files as f64 / seconds,
        ))
    }
}

/// Processor time of this thread: what else the machine does is of no concern.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn observed(number: u64) -> Observed {
    let content = ContentHash::of(&number.to_be_bytes());
    let (size, mode, mtime_ns) = (41_200, 0o644, 1_750_000_000_123_456_789);
    Observed {
        entry: Entry {
            node: Node::File { content, size },
            mode,
            mtime_ns,
        },
        print: Fingerprint {
            ino: number,
            size,
            mtime_ns,
            ctime_ns: mtime_ns,
            mode,
        },
        manifest: None,
    }
}

fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<()> {
    let mut pair = Pair::new().context("Making a group of two")?;
    let single = pair.measure("one by one", options.single, |pair| {
        for number in 0..options.single {
            pair.found(number..number + 1, "single")?;
            pair.pass(STEP_MS);
        }
        Ok(())
    })?;
    say(&single);
    let import = pair.measure("import", options.import, |pair| {
        pair.found(0..options.import, "import")
    })?;
    say(&import);
    Ok(())
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program's answer and its error"
)]
fn main() -> ExitCode {
    match run(&Options::parse(), &mut |line| println!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("costs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
