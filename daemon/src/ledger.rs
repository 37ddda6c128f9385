//! The ledger for people: pages, single events, events as they arrive, checks, proofs.
//!
//! Each question is a task of its own, with a connection to the store of its own. The event loop tells when something became
//! durable, so that followers look again, and says what of the events that are shown counts ([`Judge`]); all else never
//! touches it. The store is the followers' queue: who reads
//! slowly reads later. A crash loses nothing but the answers under way.

use std::sync::Arc;
use std::time::Duration;

use p2p_sync_core::engine::{CommandError, Verdict};
use p2p_sync_core::ids::{GroupId, ShortId};
use p2p_sync_core::ledger::VerifiedEvent;
use p2p_sync_core::ledger::audit::Depth;
use p2p_sync_core::ledger::proof::{self, MakeError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::control::{
    ControlError, EventRef, FollowPart, LedgerCommand, ProveTarget, Proven, ReplyTo, VerifyStep,
};
use crate::ledger_query::{JudgedEvent, LedgerEvent, LedgerPage};
use crate::store::{AuditEnd, LedgerFile, LedgerReader, StoreError};

/// Pages, events and proofs that are read at once; more wait.
const MAX_READING: usize = 4;
/// Callers that follow at once; each holds a connection to the store.
const MAX_FOLLOWING: usize = 16;
/// When nothing arrives for so long, a follower hears that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Faults that a check names; a ledger with more is lost anyway.
const MAX_FAULTS: u64 = 1_000;

/// Asks what of events counts.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The events, each with the log that it is stored in.
    pub(crate) events: Vec<(ShortId, Arc<VerifiedEvent>)>,
    /// The verdicts, in the same order.
    pub(crate) reply: oneshot::Sender<Vec<Verdict>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: LedgerFile,
    /// Holds as many questions as there are readers and followers, at most.
    judges: mpsc::UnboundedSender<Judge>,
    /// Changes when something became durable.
    durable: watch::Sender<()>,
    reading: Semaphore,
    following: Semaphore,
    auditing: Semaphore,
}

impl Ledger {
    pub(crate) fn new(file: LedgerFile, judges: mpsc::UnboundedSender<Judge>) -> Self {
        Self {
            file,
            judges,
            durable: watch::channel(()).0,
            reading: Semaphore::new(MAX_READING),
            following: Semaphore::new(MAX_FOLLOWING),
            auditing: Semaphore::new(1),
        }
    }

    /// Tells followers that something became durable.
    pub(crate) fn grown(&self) {
        self.durable.send_replace(());
    }

    /// Answers a question about the ledger of a group.
    pub(crate) fn answer(self: &Arc<Self>, command: LedgerCommand, group: Option<GroupId>) {
        match command {
            LedgerCommand::List { query, reply } => {
                let this = Arc::clone(self);
                let page = move |reader: &LedgerReader, group| {
                    let LedgerPage { events, next } = reader.page(&query).map_err(unreadable)?;
                    let events = this.judge(events)?;
                    Ok((LedgerPage { events, next }, group))
                };
                self.read(group, reply, page);
            }
            LedgerCommand::Get { event, reply } => {
                let this = Arc::clone(self);
                let event = move |reader: &LedgerReader, group| {
                    let found = this.judge(vec![find(reader, &event)?])?.pop();
                    Ok((found.ok_or(ControlError::Stopping)?, group))
                };
                self.read(group, reply, event);
            }
            LedgerCommand::Prove { target, reply } => {
                let proof = move |reader: &LedgerReader, group| prove(reader, group, &target);
                self.read(group, reply, proof);
            }
            LedgerCommand::Follow { parts } => {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    if let Err(error) = this.follow(group, &parts).await {
                        let _ = parts.send(Err(error)).await;
                    }
                });
            }
            LedgerCommand::Verify { fast, steps } => {
                let this = Arc::clone(self);
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = this.verify(group, fast, &steps) {
                        let _ = steps.blocking_send(Err(error));
                    }
                });
            }
        }
    }

    /// Reads on a connection and a thread of its own.
    fn read<T: Send + 'static>(
        self: &Arc<Self>,
        group: Option<GroupId>,
        reply: ReplyTo<T>,
        read: impl FnOnce(&LedgerReader, GroupId) -> Result<T, ControlError> + Send + 'static,
    ) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(_permit) = this.reading.acquire().await else {
                return;
            };
            let file = this.file.clone();
            let work = move || {
                let group = group.ok_or(CommandError::NoGroup)?;
                read(&file.open().map_err(unreadable)?, group)
            };
            let done = tokio::task::spawn_blocking(work).await;
            let _ = reply.send(done.unwrap_or(Err(ControlError::Stopping)));
        });
    }

    /// Reads events and asks what of them counts. Waits for the answer; not for the event loop's own thread.
    fn judge(&self, events: Vec<LedgerEvent>) -> Result<Vec<JudgedEvent>, ControlError> {
        let read = events.iter().map(|event| {
            let stored = &event.stored;
            let read = stored.event.read_stored().map_err(|error| {
                let author = stored.author.short().label();
                ControlError::LedgerDamaged(format!("event {} of {author}: {error}", stored.seq))
            })?;
            Ok((stored.log, Arc::new(read)))
        });
        let read: Vec<(ShortId, Arc<VerifiedEvent>)> = read.collect::<Result<_, ControlError>>()?;
        if read.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        let asked = self.judges.send(Judge {
            events: read.clone(),
            reply,
        });
        asked.map_err(|_| ControlError::Stopping)?;
        let verdicts = answer.blocking_recv().map_err(|_| ControlError::Stopping)?;
        let judged = events.into_iter().zip(read).zip(verdicts);
        let judged = judged.map(|((event, (_, read)), verdict)| JudgedEvent { event, read, verdict });
        Ok(judged.collect())
    }

    async fn follow(
        self: &Arc<Self>,
        group: Option<GroupId>,
        parts: &mpsc::Sender<Result<FollowPart, ControlError>>,
    ) -> Result<(), ControlError> {
        group.ok_or(CommandError::NoGroup)?;
        let permit = self.following.try_acquire();
        let _permit = permit.map_err(|_| ControlError::LedgerBusy("they follow it"))?;
        let mut durable = self.durable.subscribe();
        let file = self.file.clone();
        let opened = blocking(move || {
            let reader = file.open().map_err(unreadable)?;
            let (_, arrival) = reader.extent().map_err(unreadable)?;
            Ok((reader, arrival))
        });
        let (mut reader, mut arrival) = opened.await?;
        let mut part = Some(FollowPart::Started(arrival));
        loop {
            if let Some(part) = part.take()
                && parts.send(Ok(part)).await.is_err()
            {
                return Ok(());
            }
            let this = Arc::clone(self);
            let read = blocking(move || {
                let next = reader.next_arrived(arrival).map_err(unreadable)?;
                let next = this.judge(next.into_iter().collect())?.pop();
                Ok((reader, next))
            });
            let next;
            (reader, next) = read.await?;
            if let Some(event) = next {
                arrival = event.event.arrival;
                part = Some(FollowPart::Event(Box::new(event)));
                continue;
            }
            part = tokio::select! {
                () = parts.closed() => return Ok(()),
                changed = durable.changed() => {
                    changed.map_err(|_| ControlError::Stopping)?;
                    None
                }
                () = tokio::time::sleep(HEARTBEAT) => Some(FollowPart::Heartbeat),
            };
        }
    }

    fn verify(
        &self,
        group: Option<GroupId>,
        fast: bool,
        steps: &mpsc::Sender<Result<VerifyStep, ControlError>>,
    ) -> Result<(), ControlError> {
        let group = group.ok_or(CommandError::NoGroup)?;
        let permit = self.auditing.try_acquire();
        let _permit = permit.map_err(|_| ControlError::LedgerBusy("another check is under way"))?;
        let reader = self.file.open().map_err(unreadable)?;
        let depth = if fast { Depth::Fast } else { Depth::Full };
        let mut found = 0;
        let end = reader.audit(group, depth, |mut step| {
            let room = MAX_FAULTS.saturating_sub(found);
            found += step.faults.len() as u64;
            step.faults.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            let step = VerifyStep {
                checked: step.checked,
                total: step.total,
                faults: step.faults,
                faults_total: found,
                done: None,
            };
            steps.blocking_send(Ok(step)).is_ok()
        });
        match end.map_err(unreadable)? {
            AuditEnd::Stopped => {}
            AuditEnd::Replaced => {
                return Err(ControlError::LedgerBusy("it became another group's meanwhile"));
            }
            AuditEnd::Done { events, logs } => {
                let last = VerifyStep {
                    checked: events,
                    total: events,
                    faults: Vec::new(),
                    faults_total: found,
                    done: Some((logs, group)),
                };
                // A caller that has gone wants no answer.
                let _ = steps.blocking_send(Ok(last));
            }
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ControlError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(ControlError::Stopping))
}

fn find(reader: &LedgerReader, event: &EventRef) -> Result<LedgerEvent, ControlError> {
    match event {
        EventRef::At(author, seq) => {
            let found = reader.event(*author, *seq).map_err(unreadable)?;
            let none = || ControlError::NoSuchEvent(format!("{} has no event {seq}", author.label()));
            found.ok_or_else(none)
        }
        EventRef::Id(id) => {
            let mut found = reader.events_with_id(id).map_err(unreadable)?;
            match (found.pop(), found.pop()) {
                (Some(event), None) => Ok(event),
                (None, _) => Err(ControlError::NoSuchEvent(format!(
                    "No event's id begins with {id}"
                ))),
                (Some(_), Some(_)) => Err(ControlError::NoSuchEvent(format!(
                    "More than one event's id begins with {id}"
                ))),
            }
        }
    }
}

fn prove(reader: &LedgerReader, group: GroupId, target: &ProveTarget) -> Result<Proven, ControlError> {
    let (author, seq, item) = match target {
        ProveTarget::Path(path) => {
            let winner = reader.winner(path).map_err(unreadable)?;
            let none = || ControlError::NoSuchEvent(format!("The ledger has nothing of {path}"));
            let dot = winner.ok_or_else(none)?;
            (dot.device, dot.seq, dot.item)
        }
        ProveTarget::Item(event, item) => {
            let event = find(reader, event)?.stored;
            (event.log, event.seq, *item)
        }
    };
    let made = proof::make(reader, group, author, seq, item);
    let proof = made.map_err(|error| match error {
        MakeError::Source(error) => unreadable(error),
        MakeError::NoSuchItem => ControlError::NoSuchEvent(error.to_string()),
        MakeError::NotAllowed | MakeError::Forked(_) => ControlError::NotProvable(error.to_string()),
        other => ControlError::LedgerDamaged(crate::error_chain(&other)),
    })?;
    let event = reader.event(author, seq).map_err(unreadable)?;
    let event = event.ok_or_else(|| ControlError::NoSuchEvent("The event is gone".to_owned()))?;
    Ok(Proven {
        proof,
        group,
        event: event.stored.id,
        item,
    })
}

fn unreadable(error: StoreError) -> ControlError {
    ControlError::Ledger(crate::error_chain(&error))
}
