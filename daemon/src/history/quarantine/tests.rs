use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use ed25519_dalek::SigningKey;
use p2p_sync_core::engine::{Batch, BatchNo, StoredEvent, Write};
use p2p_sync_core::ids::{ContentHash, DeviceId, GroupId};
use p2p_sync_core::ledger::{Body, EventKind, Header, Item, Put, PutFlags, SignedEvent};
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Node};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::control::AtHand;
use crate::history::Ask;
use crate::journal::JournalService;
use crate::root_dir::Modes;
use crate::store::{Store, StoreError, StoreWriter};
use crate::worktree::Worktree;

/// A folder, its store, and a task that does what the event loop would.
struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    writer: Arc<StoreWriter>,
    reports: Receiver<Result<BatchNo, StoreError>>,
    worktree: Arc<Worktree>,
    history: Arc<History>,
    key: SigningKey,
    batches: u64,
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

fn entry(bytes: &str) -> Entry {
    let content = ContentHash::of(bytes.as_bytes());
    let size = bytes.len() as u64;
    Entry {
        node: Node::File { content, size },
        mode: 0o640,
        mtime_ns: 5_000_000_000,
    }
}

fn put(path: &str, bytes: &str, base: &[Dot]) -> Item {
    Item::Put(Put {
        path: rel(path),
        entry: entry(bytes),
        base: base.to_vec(),
        flags: PutFlags::default(),
        moved_from: None,
    })
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
        let (sender, reports) = channel();
        let writer = store.writer(move |report| drop(sender.send(report))).unwrap();
        let writer = Arc::new(writer);
        let journal = Arc::new(JournalService::new(&folder).unwrap());
        let worktree = Arc::new(Worktree::new(&folder, journal, Modes::Full).unwrap());
        let (asks, inbox) = mpsc::unbounded_channel();
        let history = History::new(store.view().unwrap(), writer.clone(), worktree.clone(), asks);
        tokio::spawn(event_loop(inbox, worktree.clone(), folder));
        Self {
            dir,
            store,
            writer,
            reports,
            worktree,
            history: Arc::new(history),
            key: SigningKey::from_bytes(&[7; 32]),
            batches: 0,
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    fn author(&self) -> DeviceId {
        DeviceId::new(self.key.verifying_key().to_bytes())
    }

    fn dot(&self, seq: u64, item: u32) -> Dot {
        let device = self.author().short();
        Dot { device, seq, item }
    }

    fn write(&mut self, writes: Vec<Write>) {
        self.batches += 1;
        let no = BatchNo(self.batches);
        self.writer.submit(Batch { no, writes }).unwrap();
        self.reports.recv().unwrap().unwrap();
    }

    /// Stores an event that counts nowhere, at second `seq`.
    fn say(&mut self, seq: u64, items: Vec<Item>) -> p2p_sync_core::ids::EventId {
        let header = Header {
            author: self.author(),
            seq,
            prev_root: [0; 32],
            hlc: Hlc::default().next(seq * 1_000),
            wall_ms: seq * 1_000,
            seen: Vec::new(),
            kind: EventKind::Work,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let mut writes: Vec<Write> = (0..)
            .zip(&items)
            .map(|(item, said)| Write::Mention(said.path().unwrap().clone(), self.dot(seq, item), true))
            .collect();
        let body = Body { seed: [1; 16], items };
        let (event, id) = SignedEvent::sign(&self.key, &GroupId::new([9; 32]), header, &body);
        writes.push(Write::Event(StoredEvent {
            author: self.author(),
            log: self.author().short(),
            seq,
            id,
            kind: EventKind::Work.code(),
            event,
        }));
        self.write(writes);
        id
    }

    /// Has a version that counts.
    fn count(&mut self, path: &str, bytes: &str, seconds: u64) {
        let dot = Dot {
            device: ShortId::new([1; 8]),
            seq: seconds,
            item: 0,
        };
        let version = Version {
            dot,
            event: p2p_sync_core::ids::EventId::new([1; 32]),
            hlc: Hlc::default().next(seconds * 1_000),
            entry: Some(entry(bytes)),
            base: Vec::new(),
            import: false,
            origins: Vec::new(),
            standing: p2p_sync_core::fold::Standing::default(),
        };
        self.write(vec![Write::Version(rel(path), dot, Some(version))]);
    }

    /// Puts a file into the folder and takes it out again, so that it is kept.
    fn keep(&self, path: &str, bytes: &str) {
        fs::write(self.folder().join(path), bytes).unwrap();
        self.restore(path, "what stood there before");
        fs::remove_file(self.folder().join(path)).unwrap();
        self.worktree.kept().complete(&|| false).unwrap();
    }

    fn restore(&self, path: &str, bytes: &str) {
        fetch(&self.folder(), bytes);
        let (path, entry) = (rel(path), entry(bytes));
        self.worktree.restore(&[RestoreJob { path, entry }]).unwrap();
    }

    fn kept(&self, path: &str) -> usize {
        self.worktree.kept().of_path(&rel(path)).unwrap().len()
    }

    async fn list(&self) -> Vec<(String, AtHand)> {
        let (reply, answer) = oneshot::channel();
        self.history.quarantined(None, 100, reply);
        let page = answer.await.unwrap().unwrap();
        assert_eq!(page.next, None);
        let row = |item: Quarantined| (format!("{} {}", item.path, item.version.id), item.version.at_hand);
        page.items.into_iter().map(row).collect()
    }

    async fn ids(&self) -> Vec<String> {
        self.list().await.into_iter().map(|(row, _)| row).collect()
    }

    async fn accept(&self, path: &str, version: Option<&str>) -> Result<Accepted, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.history.accept(rel(path), version.map(str::to_owned), reply);
        answer.await.unwrap()
    }

    async fn drop_of(&self, path: &str, version: Option<&str>) -> Result<Dropped, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.history
            .drop_quarantined(rel(path), version.map(str::to_owned), reply);
        answer.await.unwrap()
    }
}

fn fetch(folder: &std::path::Path, bytes: &str) {
    let name = ContentHash::of(bytes.as_bytes()).to_hex();
    fs::write(folder.join(".p2p-sync/tmp").join(name), bytes).unwrap();
}

/// Gets what is kept and refuses what is not, as if nobody were connected.
async fn event_loop(mut asks: mpsc::UnboundedReceiver<Ask>, worktree: Arc<Worktree>, folder: PathBuf) {
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Get { content, reply, .. } => {
                let places = worktree.kept().with_content(&content, 1);
                let _ = reply.send(match places.first() {
                    Some(place) => {
                        let tmp = folder.join(".p2p-sync/tmp").join(content.to_hex());
                        fs::copy(folder.join(place.to_string()), tmp).unwrap();
                        Ok(())
                    }
                    None => Err(p2p_sync_core::engine::FetchFailure::NoSource),
                });
            }
            Ask::Restore { jobs, reply } => {
                let _ = reply.send(worktree.restore(&jobs).map_err(|e| e.to_string()));
            }
            Ask::Roles { events, reply } => {
                let _ = reply.send(vec![Some(p2p_sync_core::access::Role::Editor); events.len()]);
            }
            Ask::Release(_) | Ask::Rescan(_) => {}
        }
    }
}

fn id(rig: &Rig, seq: u64, item: u32) -> String {
    facts::id_of(rig.dot(seq, item))
}

#[tokio::test]
async fn what_counts_nowhere_is_listed_with_where_its_bytes_are_and_what_is_no_put_is_not() {
    let mut rig = Rig::new();
    let base = [rig.dot(9, 0)];
    let del = Item::Del {
        path: rel("c"),
        base: base.to_vec(),
        moved_to: None,
    };
    let event = rig.say(1, vec![put("b", "kept", &[]), put("a", "away", &[]), del]);
    rig.keep("b", "kept");
    let (a, b) = (id(&rig, 1, 1), id(&rig, 1, 0));
    assert_eq!(
        rig.list().await,
        [
            (format!("a {a}"), AtHand::No),
            (format!("b {b}"), AtHand::Versions),
        ]
    );
    let (view, kept) = (rig.store.view().unwrap(), rig.worktree.kept());
    let first = page(&view, &kept, None, 1);
    assert_eq!((first.items.len(), first.items[0].event), (1, event));
    assert_eq!(first.items[0].version.author, Some(rig.author().short()));
    let second = page(&view, &kept, first.next, 1);
    assert_eq!(second.items[0].path, rel("b"));
    assert_eq!(page(&view, &kept, second.next, 1), QuarantinePage::default());
}

#[tokio::test]
async fn what_is_accepted_stands_at_its_path_and_is_listed_no_more_with_what_it_replaced() {
    let mut rig = Rig::new();
    rig.say(1, vec![put("a", "first", &[])]);
    rig.say(2, vec![put("a", "second", &[rig.dot(1, 0)])]);
    rig.say(3, vec![put("a", "beside", &[])]);
    rig.keep("a", "second");
    rig.keep("a", "beside");
    fs::write(rig.folder().join("a"), "edited since").unwrap();
    let second = id(&rig, 2, 0);
    let accepted = rig.accept("a", Some(&second)).await.unwrap();
    assert_eq!((accepted.version.id, accepted.unchanged), (second, false));
    assert_eq!(fs::read_to_string(rig.folder().join("a")).unwrap(), "second");
    let kept = rig.worktree.kept().of_path(&rel("a")).unwrap();
    let edited = kept
        .iter()
        .filter(|file| file.size == "edited since".len() as u64);
    assert_eq!(edited.count(), 1, "what stood there is kept");
    assert_eq!(rig.ids().await, [format!("a {}", id(&rig, 3, 0))]);
    let newest = rig.accept("a", None).await.unwrap();
    assert_eq!(newest.version.id, id(&rig, 3, 0));
    assert_eq!(rig.ids().await, Vec::<String>::new());
    let nothing = rig.accept("a", None).await.unwrap_err();
    assert!(matches!(nothing, ControlError::NoVersion(_)), "{nothing:?}");
}

#[tokio::test]
async fn what_nobody_has_cannot_be_accepted_and_stays_listed() {
    let mut rig = Rig::new();
    rig.say(1, vec![put("a", "away", &[])]);
    for wanted in [None, Some(id(&rig, 1, 0))] {
        let error = rig.accept("a", wanted.as_deref()).await.unwrap_err();
        assert!(matches!(error, ControlError::NotAtHand), "{error:?}");
    }
    let unknown = rig.accept("a", Some("ffff")).await.unwrap_err();
    assert!(matches!(unknown, ControlError::NoVersion(_)), "{unknown:?}");
    assert_eq!(rig.ids().await.len(), 1);
    assert!(!rig.folder().join("a").exists());
}

#[tokio::test]
async fn what_is_dropped_takes_its_bytes_along_and_nobody_elses() {
    let mut rig = Rig::new();
    let event = rig.say(1, vec![put("a", "void", &[])]);
    rig.say(2, vec![put("a", "counts elsewhere in time", &[])]);
    rig.count("a", "counts elsewhere in time", 1);
    let copy = names::copy_names(&rel("a"), rig.dot(1, 0), &event.to_hex())[0].to_string();
    for (path, bytes) in [
        ("a", "void"),
        (copy.as_str(), "void"),
        ("b", "void"),
        ("a", "counts elsewhere in time"),
        ("a", "never published"),
    ] {
        rig.keep(path, bytes);
    }
    let before = rig.kept("a");
    let dropped = rig.drop_of("a", None).await.unwrap();
    let ids: Vec<String> = dropped.versions.into_iter().map(|version| version.id).collect();
    assert_eq!(ids, [id(&rig, 2, 0), id(&rig, 1, 0)]);
    assert_eq!((dropped.files, dropped.bytes), (2, 8));
    assert_eq!(
        (rig.kept("a"), rig.kept(&copy), rig.kept("b")),
        (before - 1, 0, 1)
    );
    assert_eq!(rig.ids().await, Vec::<String>::new());
    let nothing = rig.drop_of("a", None).await.unwrap_err();
    assert!(matches!(nothing, ControlError::NoVersion(_)), "{nothing:?}");
}

#[tokio::test]
async fn bytes_that_another_version_in_quarantine_has_stay_when_one_is_dropped() {
    let mut rig = Rig::new();
    rig.say(1, vec![put("a", "void", &[])]);
    rig.say(2, vec![put("a", "void", &[rig.dot(1, 0)])]);
    rig.keep("a", "void");
    let dropped = rig.drop_of("a", Some(&id(&rig, 2, 0))).await.unwrap();
    assert_eq!((dropped.versions.len(), dropped.files), (1, 0));
    assert_eq!(
        rig.list().await,
        [(format!("a {}", id(&rig, 1, 0)), AtHand::Versions)]
    );
    assert_eq!(rig.drop_of("a", None).await.unwrap().files, 1);
}

#[tokio::test]
async fn what_somebody_published_again_is_in_quarantine_no_more() {
    let mut rig = Rig::new();
    rig.say(5, vec![put("a", "same", &[])]);
    rig.count("a", "same", 4);
    assert_eq!(rig.ids().await.len(), 1, "it was so before, too");
    rig.count("a", "other", 6);
    assert_eq!(rig.ids().await.len(), 1);
    rig.count("a", "same", 7);
    assert_eq!(rig.ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_history_names_what_counts_nowhere_and_means_it_only_by_its_id() {
    let mut rig = Rig::new();
    rig.count("a", "first", 1);
    rig.say(2, vec![put("a", "void", &[])]);
    rig.count("a", "second", 3);
    rig.keep("a", "void");
    let (reply, answer) = oneshot::channel();
    rig.history.list(rel("a"), 0, 9, reply);
    let page = answer.await.unwrap().unwrap();
    let shown = page.versions.iter().filter(|version| version.seq.is_some());
    let shown: Vec<_> = shown
        .map(|version| (version.seq.unwrap(), version.void, version.role_then))
        .collect();
    let editor = Some(p2p_sync_core::access::Role::Editor);
    assert_eq!(shown, [(3, false, editor), (2, true, None), (1, false, editor)]);
    let void = ContentHash::of(b"void");
    let content = |version: &&PathVersion| version.entry.as_ref().and_then(|entry| entry.node.content());
    let rows = page
        .versions
        .iter()
        .filter(|version| content(version) == Some(void));
    assert_eq!(rows.count(), 1, "its kept file is no version beside it");
    let (view, kept) = (rig.store.view().unwrap(), rig.worktree.kept());
    let newest = facts::pick(&view, &kept, &rel("a"), &crate::control::Pick::Newest).unwrap();
    assert!(!newest.void);
    let by_id = crate::control::Pick::Id(id(&rig, 2, 0));
    assert!(facts::pick(&view, &kept, &rel("a"), &by_id).unwrap().void);
}
