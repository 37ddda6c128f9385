//! A few engines side by side, whose every input is told by the test: no chance, no lost messages, no delay but that of
//! the clock which the test sets forward. What is written is durable at once, what is fetched is there (or
//! comes late, if the test asks for it), and what is installed is done, unless a file stands above it or, where a directory was, something below.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use p2p_sync_core::access::{Role, Scopes};
use p2p_sync_core::engine::{
    Command, CommandError, CommandId, DELETE_GUARD, EngineConfig, FoundBy, InboundId, Input, InstallAction,
    InstallJob, InstallOutcome, InstallResult, LocalChange, Notification, Observed, Output, OwnLogSize,
    Recovered, RecoveredInstall, Reply, Request, RequestFailed, RequestId, Response, ScanNo, SyncEngine,
};
use p2p_sync_core::ids::{ContentHash, DeviceId, GroupId};
use p2p_sync_core::ledger::Person;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::{BootInstant, Now};
use p2p_sync_core::tree::{Entry, Fingerprint, Node};
use p2p_sync_tests::sim::store::MemoryStore;
use p2p_sync_tests::sim::ticket;

use crate::floor::Floor;

/// Milliseconds since 1970 at the start; any date would do.
pub(crate) const EPOCH_MS: u64 = 1_750_000_000_000;

/// Says whether a question is lost: who asks, whom, what.
type LosesQuestion = Box<dyn FnMut(usize, usize, &Request) -> bool>;
/// Says whether an answer is lost, by who asked.
type LosesAnswer = Box<dyn FnMut(usize, &Response) -> bool>;
/// Returns what is answered in the place of who is asked, if anything: who asks, what.
type ForgesAnswer = Box<dyn FnMut(usize, &Request) -> Option<Response>>;

/// One engine with what it asked for.
pub(crate) struct Seat {
    config: EngineConfig,
    pub(crate) engine: SyncEngine,
    pub(crate) store: MemoryStore,
    /// Installs that were asked for.
    pub(crate) installs: Vec<InstallJob>,
    /// What stands on its disk.
    pub(crate) floor: Floor,
    /// Contents that were fetched.
    pub(crate) fetched: usize,
    pub(crate) replies: Vec<Result<Reply, CommandError>>,
    /// What it tells the local network.
    pub(crate) announced: Option<Option<GroupId>>,
    /// What the next full scan that it asks for finds.
    pub(crate) next_scan: Vec<(RelPath, Option<File>)>,
    /// Directories that it finds besides, with their inodes.
    pub(crate) next_dirs: Vec<(RelPath, u64)>,
    /// The newest full scan that it asked for.
    pub(crate) scan_asked: ScanNo,
    /// What it told its users.
    pub(crate) notified: Vec<Notification>,
    /// Paths that it wants looked at again.
    pub(crate) rescans: Vec<RelPath>,
}

impl Seat {
    pub(crate) fn id(&self) -> DeviceId {
        self.engine.device()
    }

    pub(crate) fn group(&self) -> Option<GroupId> {
        self.engine.status().group
    }

    pub(crate) fn secret(&self) -> [u8; 32] {
        self.config.secret
    }
}

/// See the module.
pub(crate) struct Desk {
    pub(crate) seats: Vec<Seat>,
    clock: Rc<Cell<u64>>,
    inbox: VecDeque<(usize, Input)>,
    questions: BTreeMap<InboundId, (usize, RequestId)>,
    next: u64,
    /// Whether fetched contents come with the next step of the clock, and those that are under way.
    pub(crate) fetches_late: bool,
    late: Vec<(usize, Input)>,
    pub(crate) loses_question: LosesQuestion,
    pub(crate) loses_answer: LosesAnswer,
    pub(crate) forges_answer: ForgesAnswer,
    /// Whether devices that are connected are on the same local network.
    pub(crate) near: bool,
    /// Answers to questions that the test itself asked.
    pub(crate) answers: BTreeMap<InboundId, Response>,
    /// While set, nothing that is asked for is fetched.
    pub(crate) holds_fetches: bool,
    /// While set, no full scan that is asked for is made.
    pub(crate) holds_scans: bool,
    /// While set, installs that are asked for wait for [`Desk::let_install`].
    pub(crate) holds_installs: bool,
    held_installs: Vec<(usize, Vec<InstallJob>)>,
    /// While set, this comes of every install.
    pub(crate) refuses: Option<InstallOutcome>,
    /// What the scanner sees in the middle of the next install that is refused.
    pub(crate) glimpse: Vec<(RelPath, Option<File>)>,
}

impl Desk {
    /// Starts `count` engines that are not connected; seats are in the order of their ids.
    pub(crate) fn new(count: u8, trust_lan: bool) -> Self {
        let mut seats: Vec<Seat> = (1..=count).map(|seed| seat(seed, trust_lan)).collect();
        seats.sort_by_key(Seat::id);
        let mut desk = Self {
            seats,
            clock: Rc::new(Cell::new(1_000)),
            inbox: VecDeque::new(),
            questions: BTreeMap::new(),
            next: 0,
            fetches_late: false,
            late: Vec::new(),
            loses_question: Box::new(|_, _, _| false),
            loses_answer: Box::new(|_, _| false),
            forges_answer: Box::new(|_, _| None),
            near: true,
            answers: BTreeMap::new(),
            holds_fetches: false,
            holds_scans: false,
            holds_installs: false,
            held_installs: Vec::new(),
            refuses: None,
            glimpse: Vec::new(),
        };
        for index in 0..desk.seats.len() {
            desk.tell(index, Input::Start { installs: vec![] });
        }
        desk
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.get()
    }

    /// The clock, for those who lose things up to some time.
    pub(crate) fn clock(&self) -> Rc<Cell<u64>> {
        self.clock.clone()
    }

    /// Ends an engine and starts it again from what is durable.
    pub(crate) fn restart(&mut self, index: usize) {
        self.restart_with(index, vec![], OwnLogSize::default());
    }

    /// As [`Desk::restart`], with pairing by name switched off.
    pub(crate) fn switch_pairing_off(&mut self, index: usize) {
        self.seats[index].config.lan_pairing = false;
        self.restart(index);
    }

    /// What a device is called.
    pub(crate) fn name(&self, index: usize) -> String {
        self.seats[index].config.name.clone()
    }

    /// As [`Desk::restart`], with installs that recovery found.
    pub(crate) fn restart_after(&mut self, index: usize, installs: Vec<RecoveredInstall>) {
        self.restart_with(index, installs, OwnLogSize::default());
    }

    /// As [`Desk::restart`], with an own log as something else than the store knows of.
    pub(crate) fn restart_expecting(&mut self, index: usize, own_log: OwnLogSize) {
        self.restart_with(index, vec![], own_log);
    }

    fn restart_with(&mut self, index: usize, installs: Vec<RecoveredInstall>, own_log: OwnLogSize) {
        for other in 0..self.seats.len() {
            if other != index {
                self.disconnect(index, other);
            }
        }
        let seat = &mut self.seats[index];
        seat.engine = SyncEngine::new(seat.config.clone(), seat.store.recover());
        seat.engine.expect_own_log(own_log);
        seat.announced = None;
        self.tell(index, Input::Start { installs });
    }

    /// Gives an input, and everybody what follows from it at once.
    pub(crate) fn tell(&mut self, index: usize, input: Input) {
        self.inbox.push_back((index, input));
        self.settle();
    }

    /// Sets the clock forward; whoever has something to do meanwhile does it at its time.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now_ms() + ms;
        loop {
            for (index, input) in std::mem::take(&mut self.late) {
                self.tell(index, input);
            }
            let deadlines = self.seats.iter().enumerate();
            let due = deadlines.filter_map(|(i, seat)| Some((seat.engine.poll_timeout()?.0.as_millis(), i)));
            let Some((at, index)) = due.min().filter(|(at, _)| *at <= end) else {
                break;
            };
            self.clock.set(self.now_ms().max(at));
            let now = self.now();
            let seat = &mut self.seats[index];
            seat.engine.handle_timeout(now, seat.store.durable());
            self.drain(index);
            self.settle();
        }
        self.clock.set(end);
    }

    /// Makes the installs that were held.
    pub(crate) fn let_install(&mut self) {
        self.holds_installs = false;
        for (index, jobs) in std::mem::take(&mut self.held_installs) {
            self.take(index, Output::Install(jobs));
        }
        self.settle();
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        for (one, other) in [(a, b), (b, a)] {
            let device = self.seats[other].id();
            let address = ticket::address(other);
            let local = true;
            self.tell(
                one,
                Input::Connected {
                    device,
                    address,
                    local,
                    near: self.near,
                },
            );
        }
    }

    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        for (one, other) in [(a, b), (b, a)] {
            let device = self.seats[other].id();
            self.tell(one, Input::Disconnected { device });
        }
    }

    pub(crate) fn command(&mut self, index: usize, command: Command) -> CommandId {
        self.next += 1;
        let id = CommandId(self.next);
        self.tell(index, Input::Command { id, command });
        id
    }

    /// Makes an invite at one and returns its ticket.
    pub(crate) fn invite(&mut self, index: usize, role: Role) -> String {
        self.invite_to(index, role, Scopes::whole())
    }

    /// As [`Desk::invite`], to write in these parts of the folder only.
    pub(crate) fn invite_to(&mut self, index: usize, role: Role, scopes: Scopes) -> String {
        self.invite_person(index, role, scopes, None)
    }

    /// As [`Desk::invite_to`], for a device of this person.
    pub(crate) fn invite_person(
        &mut self,
        index: usize,
        role: Role,
        scopes: Scopes,
        person: Option<Person>,
    ) -> String {
        self.next += 1;
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&self.next.to_be_bytes());
        let (expires_ms, max_uses) = (None, 1);
        self.command(
            index,
            Command::CreateInvite {
                role,
                expires_ms,
                max_uses,
                scopes,
                person,
                secret,
            },
        );
        let Some(Ok(Reply::Invited { group, secret })) = self.seats[index].replies.pop() else {
            panic!("no invite");
        };
        ticket::print(group, secret, &[index])
    }

    /// Two connected members of one group.
    pub(crate) fn pair() -> Self {
        Self::pair_as(Role::Editor)
    }

    /// Two connected members of one group, the second in this role.
    pub(crate) fn pair_as(role: Role) -> Self {
        let mut desk = Self::new(2, false);
        let ticket = desk.invite(0, role);
        desk.connect(0, 1);
        desk.command(1, Command::Join { ticket });
        desk.pass(10_000);
        assert_eq!(desk.seats[0].group(), desk.seats[1].group());
        desk
    }

    /// Tells an engine what its scanner found now.
    pub(crate) fn report(&mut self, index: usize, found: &[(RelPath, Option<File>)]) {
        self.found(index, observed(found), FoundBy::Look);
    }

    /// As [`Desk::report`], of what the watcher told of.
    pub(crate) fn witness(&mut self, index: usize, found: &[(RelPath, Option<File>)]) {
        self.found(index, observed(found), FoundBy::Watcher);
    }

    /// Tells an engine that its scanner found directories.
    pub(crate) fn report_dirs(&mut self, index: usize, dirs: &[RelPath]) {
        self.report_dirs_as(index, dirs, 0);
    }

    /// As [`Desk::report_dirs`], with this inode.
    pub(crate) fn report_dirs_as(&mut self, index: usize, dirs: &[RelPath], ino: u64) {
        let found = dirs.iter().map(|dir| (dir.clone(), Some(directory(ino))));
        self.found(index, found.collect(), FoundBy::Look);
    }

    /// Ends a full scan that found directories, with this inode, and whatever it told before.
    pub(crate) fn scan_dirs(&mut self, index: usize, dirs: &[RelPath], ino: u64) {
        let found = dirs.iter().map(|dir| (dir.clone(), Some(directory(ino))));
        self.found(index, found.collect(), FoundBy::Scan);
        self.scan(index, &[]);
    }

    /// Tells an engine what a full scan found now.
    pub(crate) fn scan(&mut self, index: usize, found: &[(RelPath, Option<File>)]) {
        self.part_of_scan(index, found);
        let no = self.seats[index].scan_asked;
        self.tell(index, Input::ScanFinished(no));
    }

    /// Tells an engine what a full scan found that goes on.
    pub(crate) fn part_of_scan(&mut self, index: usize, found: &[(RelPath, Option<File>)]) {
        self.found(index, observed(found), FoundBy::Scan);
    }

    fn found(&mut self, index: usize, found: Vec<(RelPath, Option<Observed>)>, found_by: FoundBy) {
        let changes = self.changes(index, found, found_by);
        self.tell(index, Input::LocalChanges(changes));
    }

    fn changes(
        &mut self,
        index: usize,
        found: Vec<(RelPath, Option<Observed>)>,
        found_by: FoundBy,
    ) -> Vec<LocalChange> {
        let seen_at = self.now().boot;
        let floor = &mut self.seats[index].floor;
        let changes = found.into_iter().map(|(path, after)| {
            floor.set(&path, after.as_ref().map(|after| &after.entry.node));
            LocalChange {
                path,
                seen_at,
                after,
                found_by,
            }
        });
        changes.collect()
    }

    fn now(&self) -> Now {
        Now {
            boot: BootInstant::from_millis(self.now_ms()),
            wall_ms: EPOCH_MS + self.now_ms(),
        }
    }

    /// Lets everybody take what was said to him.
    fn settle(&mut self) {
        while let Some((index, input)) = self.inbox.pop_front() {
            let now = self.now();
            let seat = &mut self.seats[index];
            seat.engine.handle_input(input, now, seat.store.durable());
            self.drain(index);
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.seats[index].engine.poll_output() {
            self.take(index, output);
        }
    }

    fn take(&mut self, index: usize, output: Output) {
        let seat = &mut self.seats[index];
        match output {
            Output::Persist(batch) => {
                let no = batch.no;
                seat.store.push(batch);
                seat.store.commit_next();
                self.inbox.push_back((index, Input::Persisted(no)));
            }
            Output::Request { to, id, request } => self.ask(index, to, id, request),
            Output::Respond { id, response } => {
                if let Some((asker, question)) = self.questions.remove(&id) {
                    let lost = (self.loses_answer)(asker, &response);
                    let result = if lost { Err(RequestFailed) } else { Ok(response) };
                    let answer = Input::Response { id: question, result };
                    self.inbox.push_back((asker, answer));
                } else {
                    self.answers.insert(id, response);
                }
            }
            Output::Fetch(_) if self.holds_fetches => {}
            Output::Install(jobs) if self.holds_installs => self.held_installs.push((index, jobs)),
            Output::Install(jobs) if self.refuses.is_some() => {
                let outcome = self.refuses.clone().into_iter().cycle();
                let results = jobs.into_iter().zip(outcome);
                let results = results.map(|(job, outcome)| InstallResult {
                    path: job.path,
                    outcome,
                });
                self.inbox.push_back((index, Input::Installed(results.collect())));
                let seen = std::mem::take(&mut self.glimpse).into_iter();
                let seen = seen.map(|(path, file)| (path, file.map(File::observed)));
                let changes = self.changes(index, seen.collect(), FoundBy::Look);
                self.inbox.push_back((index, Input::LocalChanges(changes)));
            }
            Output::Fetch(jobs) => {
                seat.fetched += jobs.len();
                let contents = jobs.iter().map(|job| job.content).collect();
                let input = Input::Fetched(contents);
                if self.fetches_late {
                    self.late.push((index, input));
                } else {
                    self.inbox.push_back((index, input));
                }
            }
            Output::Install(jobs) => {
                let first = seat.installs.len();
                let results = jobs.iter().enumerate();
                let results = results
                    .map(|(i, job)| InstallResult {
                        path: job.path.clone(),
                        outcome: seat.floor.refusal(job).unwrap_or_else(|| {
                            seat.floor.install(job);
                            InstallOutcome::Done(print_after(job, 1_000_000 + first + i))
                        }),
                    })
                    .collect();
                seat.installs.extend(jobs);
                self.inbox.push_back((index, Input::Installed(results)));
            }
            Output::Scan(no) => {
                seat.scan_asked = no;
                if self.holds_scans {
                    return;
                }
                let dirs = std::mem::take(&mut seat.next_dirs).into_iter();
                let dirs = dirs.map(|(path, ino)| (path, Some(directory(ino))));
                let found = std::mem::take(&mut seat.next_scan).into_iter();
                let found = found.map(|(path, file)| (path, file.map(File::observed)));
                let found = dirs.chain(found);
                let changes = self.changes(index, found.collect(), FoundBy::Scan);
                self.inbox.push_back((index, Input::LocalChanges(changes)));
                self.inbox.push_back((index, Input::ScanFinished(no)));
            }
            Output::Reply { reply, .. } => seat.replies.push(reply),
            Output::Rescan(paths) => seat.rescans.extend(paths),
            Output::Look { no, .. } => self.inbox.push_back((index, Input::Looked(no))),
            Output::Announce { group } => seat.announced = Some(group),
            Output::Gossip(_)
            | Output::Members(_)
            | Output::SeekLan
            | Output::Dial { .. }
            | Output::Undial { .. }
            | Output::DropContent(_) => {}
            Output::Notify(notification) => self.seats[index].notified.push(notification),
        }
    }

    fn ask(&mut self, asker: usize, to: DeviceId, id: RequestId, request: Request) {
        if let Some(forged) = (self.forges_answer)(asker, &request) {
            let result = Ok(forged);
            self.inbox.push_back((asker, Input::Response { id, result }));
            return;
        }
        let asked = self.seats.iter().position(|seat| seat.id() == to);
        let asked = asked.filter(|asked| !(self.loses_question)(asker, *asked, &request));
        let Some(asked) = asked else {
            let result = Err(RequestFailed);
            self.inbox.push_back((asker, Input::Response { id, result }));
            return;
        };
        self.next += 1;
        let inbound = InboundId(self.next);
        self.questions.insert(inbound, (asker, id));
        let from = self.seats[asker].id();
        let id = inbound;
        self.inbox
            .push_back((asked, Input::Request { from, id, request }));
    }
}

/// What an install leaves at its path.
fn print_after(job: &InstallJob, ino: usize) -> Option<Fingerprint> {
    let (entry, ino) = match &job.action {
        InstallAction::Remove => return None,
        InstallAction::Put { entry, .. } => (entry, ino as u64),
        InstallAction::SetMeta { entry } => (entry, job.expect.map_or(0, |print| print.ino)),
        InstallAction::Move {
            entry, from_expect, ..
        } => (entry, from_expect.ino),
    };
    let mtime_ns = entry.mtime_ns;
    Some(Fingerprint {
        ino,
        size: entry.node.size(),
        mtime_ns,
        ctime_ns: mtime_ns,
        mode: entry.mode,
    })
}

fn observed(found: &[(RelPath, Option<File>)]) -> Vec<(RelPath, Option<Observed>)> {
    let found = found.iter();
    found
        .map(|(path, file)| (path.clone(), file.map(File::observed)))
        .collect()
}

/// A file in a test: its inode, and what is in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    pub(crate) ino: u64,
    pub(crate) content: u64,
}

impl File {
    pub(crate) fn observed(self) -> Observed {
        let bytes = self.content.to_be_bytes();
        let size = bytes.len() as u64;
        let content = ContentHash::of(&bytes);
        let node = Node::File { content, size };
        let (mode, mtime_ns) = (0o644, 1);
        Observed {
            entry: Entry { node, mode, mtime_ns },
            print: Fingerprint {
                ino: self.ino,
                size,
                mtime_ns,
                ctime_ns: mtime_ns,
                mode,
            },
            manifest: None,
        }
    }
}

pub(crate) fn directory(ino: u64) -> Observed {
    let (node, mode, mtime_ns) = (Node::Dir, 0o755, 0);
    Observed {
        entry: Entry { node, mode, mtime_ns },
        print: Fingerprint {
            ino,
            mode,
            ..Fingerprint::default()
        },
        manifest: None,
    }
}

fn seat(seed: u8, trust_lan: bool) -> Seat {
    let config = EngineConfig {
        secret: [seed; 32],
        name: format!("device {seed}"),
        seed: [seed; 32],
        trust_lan,
        lan_pairing: true,
        delete_guard: Some(DELETE_GUARD),
    };
    Seat {
        engine: SyncEngine::new(config.clone(), Recovered::default()),
        config,
        store: MemoryStore::default(),
        installs: Vec::new(),
        floor: Floor::default(),
        fetched: 0,
        replies: Vec::new(),
        announced: None,
        next_scan: Vec::new(),
        next_dirs: Vec::new(),
        scan_asked: ScanNo::default(),
        rescans: Vec::new(),
        notified: Vec::new(),
    }
}
