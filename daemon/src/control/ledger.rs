//! The ledger: what users ask of it, and what they are told.

mod convert;

use std::time::{Duration, SystemTime};

use p2p_sync_core::ids::{DeviceId, EventId, GroupId, ShortId};
use p2p_sync_core::ledger::audit::Fault;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_proto::v1::ledger_service_server::LedgerService;
use p2p_sync_proto::{reason, v1};
use tokio::sync::{mpsc, watch as latest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::convert::{Shown, token};
use super::history::{Reply, STREAM_QUEUE};
use super::service::Rpcs;
use super::status::{from_error, invalid};
use super::{ControlCommand, ControlError, ReplyTo, StatusSnapshot};
use crate::ledger_query::{JudgedEvent, LedgerOrder, LedgerPage, LedgerQuery};

/// Events in one answer unless the caller says otherwise.
const DEFAULT_PAGE: usize = 100;
/// Events in one answer.
const MAX_PAGE: usize = 1_000;
/// Items shown of an event in a list unless the caller says otherwise.
const DEFAULT_ITEMS: usize = 10;
/// Items shown of an event in a list: all that it can have.
const MAX_ITEMS: usize = p2p_sync_core::ledger::MAX_ITEMS;
/// Digits of a device's id that name it, at least.
const MIN_DEVICE_DIGITS: usize = 4;
/// Digits of an event's id that name it, at least.
const MIN_EVENT_DIGITS: usize = 8;

/// A question about the ledger. Exactly one answer goes to each `reply`.
#[derive(Debug)]
pub enum LedgerCommand {
    /// A page of events.
    List {
        /// Which.
        query: LedgerQuery,
        /// The page, and whose ledger it is.
        reply: ReplyTo<(LedgerPage<JudgedEvent>, GroupId)>,
    },
    /// One event.
    Get {
        /// Which.
        event: EventRef,
        /// The event, and whose ledger it is in.
        reply: ReplyTo<(JudgedEvent, GroupId)>,
    },
    /// Events as they arrive.
    Follow {
        /// Where they go. A closed receiver ends it.
        parts: mpsc::Sender<Result<FollowPart, ControlError>>,
    },
    /// Check everything again.
    Verify {
        /// Or only the chains.
        fast: bool,
        /// How far it is. A closed receiver ends it.
        steps: mpsc::Sender<Result<VerifyStep, ControlError>>,
    },
    /// Make a proof.
    Prove {
        /// Of what.
        target: ProveTarget,
        /// The proof.
        reply: ReplyTo<Proven>,
    },
}

/// Names an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventRef {
    /// By the first digits of its id.
    Id(String),
    /// By its place in a log.
    At(ShortId, u64),
}

/// What is to be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProveTarget {
    /// The version that stands at a path.
    Path(RelPath),
    /// An item of an event.
    Item(EventRef, u32),
}

/// A proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The file.
    pub proof: Vec<u8>,
    /// For whom it holds.
    pub group: GroupId,
    /// Of which event.
    pub event: EventId,
    /// Of which item.
    pub item: u32,
}

/// What follows in a stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowPart {
    /// What arrived after this comes.
    Started(u64),
    /// An event.
    Event(Box<JudgedEvent>),
    /// Nothing happened for a while.
    Heartbeat,
}

/// How far a check of the ledger is; the counts are totals.
#[derive(Debug, Default)]
pub struct VerifyStep {
    /// Events looked at.
    pub checked: u64,
    /// Events there are.
    pub total: u64,
    /// What was found since the last step.
    pub faults: Vec<Fault>,
    /// How much was found.
    pub faults_total: u64,
    /// The last step: how many logs there are, and of which group.
    pub done: Option<(usize, GroupId)>,
}

#[tonic::async_trait]
impl LedgerService for Rpcs {
    type FollowEventsStream = Reply<v1::FollowEventsResponse>;
    type VerifyLedgerStream = Reply<v1::VerifyLedgerResponse>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let query = query(&request, &self.backend.status.borrow())?;
        let shown = Shown {
            items: items(request.max_items),
            path: query.path.clone(),
            bytes: request.with_bytes,
        };
        let asked = query.clone();
        let (page, group) = self
            .ask(|reply| ControlCommand::Ledger(LedgerCommand::List { query, reply }))
            .await?;
        let names = self.backend.status.borrow().clone();
        let events = page.events.iter();
        let events = events.map(|event| convert::event(event, &shown, &names));
        Ok(Response::new(v1::ListEventsResponse {
            events: events.collect(),
            next_page_token: page
                .next
                .map(|place| token::write(&asked, place))
                .unwrap_or_default(),
            group_id: group.to_hex(),
        }))
    }

    async fn follow_events(
        &self,
        request: Request<v1::FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let shown = Shown {
            items: items(request.into_inner().max_items),
            path: None,
            bytes: false,
        };
        let (parts, inbox) = mpsc::channel(STREAM_QUEUE);
        self.tell(ControlCommand::Ledger(LedgerCommand::Follow { parts }))
            .await?;
        let status = self.backend.status.clone();
        let mut seq = 0;
        let convert = move |part| {
            seq += 1;
            let names = status.borrow().clone();
            Ok(convert::follow(seq, part, &shown, &names))
        };
        Ok(Response::new(pump(inbox, self.stopping.clone(), convert)))
    }

    async fn get_event(
        &self,
        request: Request<v1::GetEventRequest>,
    ) -> Result<Response<v1::GetEventResponse>, Status> {
        let (event, group) = self.event(&request.into_inner().event).await?;
        let names = self.backend.status.borrow().clone();
        Ok(Response::new(v1::GetEventResponse {
            event: Some(convert::event(&event, &Shown::all(), &names)),
            group_id: group.to_hex(),
        }))
    }

    async fn verify_ledger(
        &self,
        request: Request<v1::VerifyLedgerRequest>,
    ) -> Result<Response<Self::VerifyLedgerStream>, Status> {
        let fast = request.into_inner().fast;
        let (steps, inbox) = mpsc::channel(STREAM_QUEUE);
        self.tell(ControlCommand::Ledger(LedgerCommand::Verify { fast, steps }))
            .await?;
        let status = self.backend.status.clone();
        let convert = move |step| Ok(convert::verify(step, &status.borrow()));
        Ok(Response::new(pump(inbox, self.stopping.clone(), convert)))
    }

    async fn prove_item(
        &self,
        request: Request<v1::ProveItemRequest>,
    ) -> Result<Response<v1::ProveItemResponse>, Status> {
        use v1::prove_item_request::Target;
        let request = request.into_inner();
        let target = match request.target {
            Some(Target::Path(path)) => ProveTarget::Path(super::history::path(path)?),
            Some(Target::Event(event)) => {
                let event = event_ref(&event, &self.backend.status.borrow())?;
                ProveTarget::Item(event, request.item)
            }
            None => return Err(invalid(reason::INVALID_ARGUMENT, "Nothing is named to prove")),
        };
        let proven = self
            .ask(|reply| ControlCommand::Ledger(LedgerCommand::Prove { target, reply }))
            .await?;
        Ok(Response::new(v1::ProveItemResponse {
            proof: proven.proof,
            group_id: proven.group.to_hex(),
            event_id: proven.event.to_hex(),
            item: proven.item,
        }))
    }
}

/// Passes what the daemon tells to the caller, until either ends or the daemon stops.
fn pump<T: Send + 'static, M: Send + 'static>(
    mut inbox: mpsc::Receiver<Result<T, ControlError>>,
    mut stopping: latest::Receiver<bool>,
    mut convert: impl FnMut(T) -> Result<M, ControlError> + Send + 'static,
) -> Reply<M> {
    let (queue, messages) = mpsc::channel(STREAM_QUEUE);
    tokio::spawn(async move {
        loop {
            let part = tokio::select! {
                part = inbox.recv() => part,
                () = queue.closed() => return,
                _ = stopping.wait_for(|stop| *stop) => Some(Err(ControlError::Stopping)),
            };
            let Some(part) = part else { return };
            let message = part.and_then(&mut convert).map_err(|e| from_error(&e));
            let last = message.is_err();
            if queue.send(message).await.is_err() || last {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(messages))
}

fn items(wanted: u32) -> usize {
    match usize::try_from(wanted).unwrap_or(MAX_ITEMS) {
        0 => DEFAULT_ITEMS,
        wanted => wanted.min(MAX_ITEMS),
    }
}

/// Reads what is asked for.
fn query(request: &v1::ListEventsRequest, names: &StatusSnapshot) -> Result<LedgerQuery, Status> {
    let device = match request.device.as_str() {
        "" => None,
        text => Some(device(text, names)?),
    };
    let path = match request.path.as_slice() {
        [] => None,
        path => Some(super::history::path(path.to_vec())?),
    };
    let since = request.since.map(SystemTime::try_from).transpose();
    let since = since.map_err(|e| invalid(reason::INVALID_ARGUMENT, e.to_string()))?;
    let mut query = LedgerQuery {
        order: match request.order() {
            v1::EventOrder::Arrival => LedgerOrder::Arrival,
            v1::EventOrder::Clock | v1::EventOrder::Unspecified => LedgerOrder::Clock,
        },
        newest_first: !request.oldest_first,
        device,
        path,
        since_ms: since.map(millis),
        after: None,
        limit: match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => return Err(invalid(reason::INVALID_ARGUMENT, "A page has at least one event")),
        },
    };
    if !request.page_token.is_empty() {
        let place = token::read(&query, &request.page_token);
        let bad = || invalid(reason::INVALID_ARGUMENT, "The page token is not of this question");
        query.after = Some(place.ok_or_else(bad)?);
    }
    Ok(query)
}

fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Rpcs {
    /// Finds an event by its name, and says whose ledger it is in.
    pub(super) async fn event(&self, text: &str) -> Result<(JudgedEvent, GroupId), Status> {
        let event = event_ref(text, &self.backend.status.borrow())?;
        self.ask(|reply| ControlCommand::Ledger(LedgerCommand::Get { event, reply }))
            .await
    }
}

/// Reads the name of an event.
fn event_ref(text: &str, names: &StatusSnapshot) -> Result<EventRef, Status> {
    if let Some((device, seq)) = text.rsplit_once(':') {
        let seq = seq
            .parse()
            .map_err(|_| no_event(format!("{text} is no DEVICE:SEQ")))?;
        return Ok(EventRef::At(self::device(device, names)?, seq));
    }
    if text.len() < MIN_EVENT_DIGITS || !is_hex(text) {
        let text =
            format!("{text} is no event: give at least {MIN_EVENT_DIGITS} digits of its id, or DEVICE:SEQ");
        return Err(no_event(text));
    }
    Ok(EventRef::Id(text.to_owned()))
}

/// Finds a device by its name or the first digits of its id. A whole id, or the half of it that the ledger names it by
/// in short, may also be that of a device which is no member any more.
fn device(text: &str, names: &StatusSnapshot) -> Result<ShortId, Status> {
    let engine = &names.engine;
    let own = engine.device.map(|id| (id, names.name.as_str()));
    let peers = engine.peers.iter();
    let all: Vec<(DeviceId, &str)> = own
        .into_iter()
        .chain(peers.map(|p| (p.device, p.name.as_str())))
        .collect();
    let digits = text.len() >= MIN_DEVICE_DIGITS && is_hex(text);
    let mut found: Vec<DeviceId> = all
        .iter()
        .filter(|(_, name)| *name == text)
        .map(|d| d.0)
        .collect();
    if found.is_empty() && digits {
        found = all.iter().map(|d| d.0).collect();
        found.retain(|id| id.to_hex().starts_with(text));
    }
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => return Ok(one.short()),
        [_, _, ..] => return Err(no_event(format!("More than one device is called {text}"))),
        [] => {}
    }
    let half = text.get(..2 * ShortId::LEN).filter(|_| digits);
    let known = half.and_then(|half| ShortId::from_hex(half).ok());
    known.ok_or_else(|| no_event(format!("No device is called {text}, or has an id that begins so")))
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn no_event(text: String) -> Status {
    from_error(&ControlError::NoSuchEvent(text))
}

#[cfg(test)]
mod tests;
