//! Random values for tests, from domains small enough that keys collide.

use std::sync::{Arc, LazyLock};

use p2p_sync_core::content::{CHUNK_SIZE, Manifest, ManifestHasher};
use p2p_sync_core::engine::{StoredEvent, Write};
use p2p_sync_core::fold::{Fence, Fences, Origin, PathState, Standing, Version};
use p2p_sync_core::ids::{ContentHash, DeviceId, Dot, EventId, ShortId};
use p2p_sync_core::ledger::{Left, LogState, SignedEvent};
use p2p_sync_core::lock::Token;
use p2p_sync_core::merkle::Peaks;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Fingerprint, Installed, Node};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

const PATHS: [&[u8]; 14] = [
    b"a",
    b"a-",
    b"a/b",
    b"a/b-",
    b"a/b/c",
    b"a/b/d/e",
    b"a/b0",
    b"a/c",
    b"a0",
    b"b",
    b"b/x",
    b"b/x/y/z",
    b"\xff",
    b"\xff/\xff\xfe",
];
pub(super) const SETTINGS: [&str; 3] = ["group", "join", "own"];

/// Manifests of one chunk and of several.
pub(super) static MANIFESTS: LazyLock<Vec<Arc<Manifest>>> = LazyLock::new(|| {
    [0, 7, 3 * CHUNK_SIZE as usize + 5]
        .map(|len| {
            let mut hasher = ManifestHasher::new();
            hasher.update(&vec![1; len]);
            Arc::new(hasher.finish())
        })
        .to_vec()
});

pub(super) fn paths() -> Vec<RelPath> {
    PATHS.iter().map(|path| RelPath::parse(*path).unwrap()).collect()
}

pub(super) fn devices() -> Vec<DeviceId> {
    [1, 2, 0xff].map(|b| DeviceId::new([b; 32])).to_vec()
}

/// Contents, two of which have the same first 8 bytes.
pub(super) fn contents() -> Vec<ContentHash> {
    let mut twin = [7; 32];
    twin[31] = 8;
    vec![
        ContentHash::new([7; 32]),
        ContentHash::new(twin),
        ContentHash::new([0xff; 32]),
    ]
}

pub(super) fn nodes() -> Vec<Node> {
    let files = contents()
        .into_iter()
        .flat_map(|content| [3, u64::MAX].map(|size| Node::File { content, size }));
    let links = [&b""[..], b"../x\xff"].map(|target| Node::Link {
        target: target.to_vec(),
    });
    files.chain(links).chain([Node::Dir]).collect()
}

pub(super) fn path() -> impl Strategy<Value = RelPath> {
    select(paths())
}

pub(super) fn any_dot() -> impl Strategy<Value = Dot> {
    (any::<[u8; 8]>(), any::<u64>(), any::<u32>()).prop_map(|(device, seq, item)| Dot {
        device: ShortId::new(device),
        seq,
        item,
    })
}

fn dot() -> impl Strategy<Value = Dot> {
    (select(devices()), 0..3_u64, 0..2_u32).prop_map(|(device, seq, item)| Dot {
        device: device.short(),
        seq,
        item,
    })
}

fn order() -> impl Strategy<Value = (Hlc, EventId)> {
    (any::<u64>(), any::<[u8; 32]>()).prop_map(|(hlc, id)| (Hlc::from_bits(hlc), EventId::new(id)))
}

fn entry() -> impl Strategy<Value = Entry> {
    (select(nodes()), 0..=0o777_u32, any::<i64>()).prop_map(|(node, mode, mtime_ns)| Entry {
        node,
        mode,
        mtime_ns,
    })
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    let entry = proptest::option::weighted(0.7, entry());
    (
        dot(),
        order(),
        entry,
        vec(any_dot(), 0..4),
        any::<bool>(),
        vec(origin(), 0..3),
        standing(),
    )
        .prop_map(
            |(dot, (hlc, event), entry, base, import, origins, standing)| Version {
                dot,
                event,
                hlc,
                entry,
                base,
                import,
                origins,
                standing,
            },
        )
}

fn token() -> impl Strategy<Value = Token> {
    let some = (0..3_u64, any::<u64>()).prop_map(|(epoch, n)| Token { epoch, n });
    prop_oneof![Just(Token::default()), some]
}

fn standing() -> impl Strategy<Value = Standing> {
    (token(), token(), any::<bool>()).prop_map(|(token, knew, fenced)| Standing { token, knew, fenced })
}

fn origin() -> impl Strategy<Value = Origin> {
    (any_dot(), token(), any::<bool>(), order()).prop_map(|(dot, token, plain, order)| Origin {
        dot,
        token,
        plain,
        order,
    })
}

fn fences() -> impl Strategy<Value = Fences> {
    vec(fence(), 0..3).prop_map(|all| {
        let mut fences = Fences::default();
        all.into_iter().for_each(|fence| fences.add(fence));
        fences
    })
}

fn fence() -> impl Strategy<Value = Fence> {
    (any_dot(), token(), any::<[u8; 32]>(), vec(any_dot(), 0..3)).prop_map(|(grant, token, holder, ends)| {
        Fence {
            grant,
            token,
            holder: DeviceId::new(holder),
            ends,
        }
    })
}

pub(super) fn path_state() -> impl Strategy<Value = PathState> {
    (
        vec(version(), 0..3),
        vec(version(), 0..3),
        fences(),
        vec((path(), any_dot()), 0..3),
    )
        .prop_map(|(heads, fenced, fences, shown)| PathState {
            heads,
            fenced,
            fences,
            shown,
        })
}

pub(super) fn installed() -> impl Strategy<Value = Installed> {
    let print = (
        any::<u64>(),
        any::<u64>(),
        any::<i64>(),
        any::<i64>(),
        any::<u32>(),
    )
        .prop_map(|(ino, size, mtime_ns, ctime_ns, mode)| Fingerprint {
            ino,
            size,
            mtime_ns,
            ctime_ns,
            mode,
        });
    (entry(), print, vec(any_dot(), 0..3), proptest::option::of(path())).prop_map(
        |(entry, print, dots, copy_of)| Installed {
            entry,
            print,
            dots,
            copy_of,
        },
    )
}

pub(super) fn log() -> impl Strategy<Value = LogState> {
    let seen = btree_map(any::<[u8; 8]>().prop_map(ShortId::new), any::<u64>(), 0..4);
    let left = proptest::option::of((any::<[u8; 8]>().prop_map(ShortId::new), any::<u64>()));
    (
        select(devices()),
        left,
        vec(any::<[u8; 32]>(), 0..9),
        order(),
        seen,
    )
        .prop_map(|(author, left, leaves, (hlc, last_id), seen)| {
            let mut peaks = Peaks::default();
            leaves.into_iter().for_each(|leaf| peaks.push(leaf));
            LogState {
                author,
                name: author.short(),
                left: left.map(|(log, size)| Left { log, size }),
                peaks,
                last_id,
                hlc,
                seen,
            }
        })
}

/// Makes the event of `author` at `seq`; its id follows from both.
pub(super) fn event(author: DeviceId, seq: u64, kind: u16, body: usize) -> StoredEvent {
    let header: Arc<[u8]> = [&author.as_bytes()[..], &seq.to_be_bytes()].concat().into();
    let event = SignedEvent {
        header,
        signature: [seq as u8; 64],
        body: vec![kind as u8; body].into(),
    };
    StoredEvent {
        author,
        log: author.short(),
        seq,
        id: event.id(),
        kind,
        event,
    }
}

/// Random writes. Events are at place 0 of their logs; whoever applies them moves them to the end.
pub(super) fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => (select(devices()), 0..4_u16, 0..300_usize).prop_map(|(a, kind, body)| Write::Event(event(a, 0, kind, body))),
        1 => log().prop_map(|log| Write::Log(log.author.short(), log)),
        4 => (path(), version()).prop_map(|(path, version)| Write::Version(path, version.dot, Some(version))),
        1 => (path(), version()).prop_map(|(path, version)| Write::Version(path, version.dot, None)),
        2 => (path(), any_dot(), any::<bool>()).prop_map(|(path, dot, there)| Write::Mention(path, dot, there)),
        4 => (path(), proptest::option::weighted(0.7, path_state())).prop_map(|(p, s)| Write::PathState(p, s)),
        2 => (path(), select(nodes()), proptest::option::weighted(0.8, order())).prop_map(|(path, node, order)| Write::Replaced(path, node, order)),
        4 => (path(), proptest::option::weighted(0.7, installed())).prop_map(|(p, i)| Write::Installed(p, i)),
        2 => (path(), proptest::option::of(path())).prop_map(|(name, origin)| Write::CopyName { name, origin }),
        2 => (path(), any::<bool>()).prop_map(|(path, need)| Write::Need(path, need)),
        1 => select(MANIFESTS.clone()).prop_map(Write::Manifest),
        2 => (select(&SETTINGS[..]), proptest::option::of(vec(any::<u8>(), 0..9))).prop_map(|(n, v)| Write::Setting(n, v)),
    ]
}
