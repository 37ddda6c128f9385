//! A member whose device obeys nobody: the real network service under its key, and events that it signs and chains as
//! the format wants and its role does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use ed25519_dalek::SigningKey;
use futures::{AsyncReadExt, AsyncWriteExt};
use p2p_sync_core::engine::{Recovered, Request, RequestFailed, RequestId, Response};
use p2p_sync_core::ids::{ContentHash, DeviceId, Dot, GroupId, ShortId};
use p2p_sync_core::ledger::{Body, EventKind, Header, Item, LogState, Seen, SignedEvent};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::Entry;
use p2p_sync_daemon::identity;
use p2p_sync_daemon::network::{NetworkCommand, NetworkConfig, NetworkEvent, NetworkService, StreamOpener};
use p2p_sync_daemon::store::{Store, StoreView};
use p2p_sync_tests::harness::{Device, PATIENCE, wait_until};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Sender;

/// What a provider of content is told first, and answers (`daemon/src/transfer/wire.rs`).
const PREAMBLE: [u8; 5] = *b"p2pc\x01";
/// The answer kind for a whole content.
const DATA: u8 = 1;

pub(super) type Answer = Result<Response, RequestFailed>;

/// Takes the place of a device that was stopped; ends when dropped.
pub(super) struct Forger {
    pub(super) id: DeviceId,
    pub(super) group: GroupId,
    key: SigningKey,
    log: LogState,
    newest: Hlc,
    unseen: Vec<Seen>,
    view: StoreView,
    peers: Arc<Peers>,
    commands: Sender<NetworkCommand>,
    streams: StreamOpener,
    runtime: Arc<Runtime>,
    asked: u64,
    /// The device whose files these are.
    pub(super) device: Device,
}

impl fmt::Debug for Forger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forger({})", self.device.name)
    }
}

/// What the network told.
#[derive(Debug, Default)]
struct Peers {
    connected: Mutex<BTreeSet<DeviceId>>,
    answers: Mutex<BTreeMap<RequestId, Answer>>,
}

impl Forger {
    /// Runs the network of a device that is stopped, and connects to others.
    pub(super) fn start(device: Device, others: &[&Device], runtime: &Arc<Runtime>) -> Result<Self> {
        let (secret, _) = identity::load_or_create(&device.state())?;
        let key = SigningKey::from_bytes(&secret);
        let id = DeviceId::new(key.verifying_key().to_bytes());
        let store = Store::open(&device.state().join("store.sqlite"))?;
        let known = store.load()?;
        let genesis = known.admin_events.first().context("A group has a beginning")?;
        let members = others.iter().map(|other| id_of(other)).collect::<Result<_>>()?;
        let config = NetworkConfig {
            secret,
            listen: vec![device.address().parse().context("Reading the address")?],
            fallback_port: false,
            mdns: false,
            trust_lan: false,
        };
        let entered = runtime.enter();
        let (service, handle) = NetworkService::new(config)?;
        drop(entered);
        runtime.spawn(service.run());
        let peers = Arc::new(Peers::default());
        let (commands, streams) = (handle.commands.clone(), handle.streams.clone());
        runtime.spawn(talk(handle, Arc::clone(&peers)));
        let new = Self {
            id,
            group: genesis.id.as_group(),
            key,
            log: own_log(&known, id),
            newest: known.logs.values().map(|log| log.hlc).max().unwrap_or_default(),
            unseen: unseen(&known, id),
            view: store.view()?,
            peers,
            commands,
            streams,
            runtime: Arc::clone(runtime),
            asked: 0,
            device,
        };
        new.tell(NetworkCommand::Members(members))?;
        for other in others {
            let address = other.address();
            new.tell(NetworkCommand::Dial { address })?;
            new.wait_connected(other)?;
        }
        Ok(new)
    }

    fn tell(&self, command: NetworkCommand) -> Result<()> {
        let sent = self.commands.blocking_send(command);
        sent.map_err(|_| anyhow!("The network of {} ended", self.device.name))
    }

    fn wait_connected(&self, other: &Device) -> Result<()> {
        let id = id_of(other)?;
        let what = format!("{} to be connected to {}", self.device.name, other.name);
        wait_until(&what, PATIENCE, || {
            let connected = self
                .peers
                .connected
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_there = connected.contains(&id);
            Ok(is_there.then_some(()).ok_or_else(|| format!("{connected:?}")))
        })
    }

    /// Signs the next event of this device's log.
    pub(super) fn sign(&mut self, kind: EventKind, items: Vec<Item>) -> Result<SignedEvent> {
        let hlc = self.newest.next(0);
        let header = Header {
            author: self.id,
            seq: self.log.size(),
            prev_root: self.log.peaks.root(),
            hlc,
            wall_ms: hlc.wall_ms(),
            seen: std::mem::take(&mut self.unseen),
            kind,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let body = Body {
            seed: identity::random32()?[..16].try_into()?,
            items,
        };
        let (event, _) = SignedEvent::sign(&self.key, &self.group, header, &body);
        let signed = event.verify(&self.group)?;
        let seen = signed.header.seen.iter().map(|seen| (seen.device, seen.next_seq));
        self.log
            .push(signed.id, &signed.header, &seen.collect::<Vec<_>>());
        self.newest = hlc;
        Ok(event)
    }

    /// Shows another device events, which says nothing of whether it takes them.
    pub(super) fn push(&mut self, to: &Device, events: &[SignedEvent]) -> Result<()> {
        let events = events.to_vec();
        let answer = self.ask(to, &Request::Push { events })?;
        let is_answered = answer == Ok(Response::Ack);
        is_answered
            .then_some(())
            .with_context(|| format!("{} answered {answer:?}", to.name))
    }

    /// Asks another device something.
    pub(super) fn ask(&mut self, other: &Device, request: &Request) -> Result<Answer> {
        let to = id_of(other)?;
        self.asked += 1;
        let id = RequestId(self.asked);
        let request = request.clone();
        self.tell(NetworkCommand::Request { to, id, request })?;
        let what = format!("the answer of {} to {}", other.name, self.device.name);
        wait_until(&what, PATIENCE, || {
            let mut answers = self.peers.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(answers.remove(&id).ok_or_else(String::new))
        })
    }

    /// Asks another device until it gives such an answer: connections are made anew when rights change.
    pub(super) fn ask_until(
        &mut self,
        other: &Device,
        request: &Request,
        is_it: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let what = format!("an answer of {} to {}", other.name, self.device.name);
        wait_until(&what, PATIENCE, || {
            let answer = self.ask(other, request)?;
            Ok(if is_it(&answer) {
                Ok(answer)
            } else {
                Err(format!("{answer:?}"))
            })
        })
    }

    /// Asks another device for a content of at most one chunk.
    pub(super) fn fetch(&self, from: &Device, bytes: &[u8]) -> Result<Vec<u8>> {
        let from = id_of(from)?;
        let mut request = vec![1];
        request.extend_from_slice(ContentHash::of(bytes).as_bytes());
        request.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        request.extend_from_slice(&0_u64.to_le_bytes());
        self.runtime.block_on(async {
            let mut stream = self.streams.open(from).await?;
            stream.write_all(&PREAMBLE).await?;
            stream.write_all(&request).await?;
            stream.flush().await?;
            let mut head = [0; 6];
            stream.read_exact(&mut head).await?;
            anyhow::ensure!(head[1] == DATA, "It was answered {head:?}");
            let mut found = vec![0; bytes.len()];
            stream.read_exact(&mut found).await?;
            Ok(found)
        })
    }

    /// Returns what stands at a path, as this device last knew, and the versions that show there: the winner first.
    pub(super) fn heads(&self, path: &RelPath) -> Result<(Entry, Vec<Dot>)> {
        use p2p_sync_core::engine::StateView as _;
        let state = self
            .view
            .path_state(path)
            .with_context(|| format!("Nothing is at {path}"))?;
        let winner = state
            .winner()
            .with_context(|| format!("Nothing wins at {path}"))?;
        let entry = winner
            .entry
            .clone()
            .with_context(|| format!("Nothing is at {path}"))?;
        let others = state
            .heads
            .iter()
            .map(|head| head.dot)
            .filter(|dot| *dot != winner.dot);
        Ok((entry, std::iter::once(winner.dot).chain(others).collect()))
    }
}

/// Answers what honest devices ask with what ends the conversation, and notes what they say.
async fn talk(mut handle: p2p_sync_daemon::network::NetworkHandle, peers: Arc<Peers>) {
    while let Some(event) = handle.events.recv().await {
        let connected = || peers.connected.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            NetworkEvent::Request { id, request, .. } => {
                let response = match request {
                    Request::Push { .. } | Request::InSync { .. } => Response::Ack,
                    _ => Response::Same,
                };
                let answer = NetworkCommand::Respond { id, response };
                let _ = handle.commands.send(answer).await;
            }
            NetworkEvent::Connected {
                device, member: true, ..
            } => drop(connected().insert(device)),
            NetworkEvent::Disconnected { device } => drop(connected().remove(&device)),
            NetworkEvent::Response { id, result } => {
                let mut answers = peers.answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.insert(id, result);
            }
            _ => {}
        }
    }
}

fn own_log(known: &Recovered, id: DeviceId) -> LogState {
    let own = known.logs.get(&id.short()).cloned();
    own.unwrap_or_else(|| LogState::empty(id))
}

/// Returns what this device has of others and has not said yet.
fn unseen(known: &Recovered, id: DeviceId) -> Vec<Seen> {
    let own = own_log(known, id);
    let is_new = |(short, log): &(&ShortId, &LogState)| {
        **short != id.short() && own.seen.get(*short).copied().unwrap_or(0) < log.size()
    };
    let seen = |(short, log): (&ShortId, &LogState)| Seen {
        device: *short,
        next_seq: log.size(),
        id16: log.last_id.id16(),
    };
    known.logs.iter().filter(is_new).map(seen).collect()
}

/// Returns a device's id.
pub(super) fn id_of(device: &Device) -> Result<DeviceId> {
    let (secret, _) = identity::load_or_create(&device.state())?;
    let key = SigningKey::from_bytes(&secret).verifying_key();
    Ok(DeviceId::new(key.to_bytes()))
}
