//! A member whose device went bad: the real network and the real provider under the key of a member, with a bit of
//! every large write flipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncRead, AsyncWrite};
use p2p_sync_core::content::{Manifest, ManifestHasher};
use p2p_sync_core::engine::{Request, RequestId, Response, StateView};
use p2p_sync_core::ids::{ContentHash, DeviceId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Installed, Node};
use p2p_sync_daemon::identity;
use p2p_sync_daemon::network::{NetworkCommand, NetworkConfig, NetworkEvent, NetworkService};
use p2p_sync_daemon::store::Store;
use p2p_sync_daemon::transfer::{ContentIndex, Provider, TransferStats};
use p2p_sync_tests::harness::{Device, Group, PATIENCE, fill_file};

use crate::settle_without_conflict;

/// More bytes than the events of the group have.
const MANY: usize = 1 << 20;
/// The file that the bad device serves.
const FILE: &str = "film";
/// Its size: several chunks and a part of one.
const SIZE: u64 = (8 << 20) + 1000;

#[test]
fn a_peer_that_flips_bytes_is_refused_and_the_file_comes_from_another() -> Result<()> {
    let mut group = Group::of(3)?;
    group[2].connect(&group[1])?;
    settle_without_conflict(&group)?;
    group[0].stop()?;
    fill_file(&group[1].path(FILE), SIZE, 5)?;
    group[1].wait_in_sync()?;
    let other = group[2].path(FILE);
    group[2].wait("the file on cleo", PATIENCE, |_| {
        Ok(if other.exists() {
            Ok(())
        } else {
            Err(String::new())
        })
    })?;
    group[1].stop()?;
    // Cleo is away until the bad device, which tells anna of the file, is found out.
    let members = [0, 2].map(|number| device_id(&group[number]));
    let members = members.into_iter().collect::<Result<BTreeSet<_>>>()?;
    group[2].stop()?;
    let bad = BadDevice::start(&group[1], members, group[0].address())?;
    group[0].start()?;
    let flips = Arc::clone(&bad.flipped);
    group[0].wait("the bad device to be found out", PATIENCE, |anna| {
        let log = fs::read_to_string(anna.log_path()).unwrap_or_default();
        let named = log.contains("A device sent what no honest daemon sends")
            && log.contains(&bad.device.short().to_string());
        Ok(if named {
            Ok(())
        } else {
            Err(format!("{} flips", flips.load(Ordering::SeqCst)))
        })
    })?;
    ensure!(bad.flipped.load(Ordering::SeqCst) > 0, "Nothing was flipped");
    ensure!(
        !group[0].path(FILE).exists(),
        "The file came though nobody had it whole"
    );
    group[2].start()?;
    let came = group[0].path(FILE);
    group[0].wait("the file on anna", PATIENCE, |_| {
        Ok(if came.exists() { Ok(()) } else { Err(String::new()) })
    })?;
    ensure!(
        fs::read(came)? == fs::read(group[1].path(FILE))?,
        "Flipped bytes came in"
    );
    drop(bad);
    group[1].start()?;
    settle_without_conflict(&group)?;
    Ok(())
}

/// A device's network run by the test; ends when dropped.
struct BadDevice {
    device: DeviceId,
    flipped: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

impl BadDevice {
    fn start(device: &Device, members: BTreeSet<DeviceId>, address: String) -> Result<Self> {
        let (secret, _) = identity::load_or_create(&device.state())?;
        let config = NetworkConfig {
            secret,
            listen: vec![device.address().parse().context("Reading the address")?],
            fallback_port: false,
            mdns: false,
            trust_lan: false,
        };
        let store = Store::open(&device.state().join("store.sqlite"))?;
        let (events, _) = store.view()?.events_beyond(&BTreeMap::new(), MANY);
        let events: Vec<_> = events.into_iter().map(|stored| stored.event).collect();
        let index = Arc::new(OneFile::read(&device.folder())?);
        let stats = Arc::new(TransferStats::default());
        let provider = Provider::new(&device.folder(), index, Arc::new(|_| ()), stats)?;
        let flipped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&flipped);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let (service, mut handle) = NetworkService::new(config)?;
        drop(entered);
        runtime.spawn(service.run());
        runtime.spawn(async move {
            let _ = handle.commands.send(NetworkCommand::Members(members)).await;
            let _ = handle.commands.send(NetworkCommand::Dial { address }).await;
            while let Some(event) = handle.events.recv().await {
                match event {
                    NetworkEvent::Request { id, .. } => {
                        let response = Response::Same;
                        let _ = handle
                            .commands
                            .send(NetworkCommand::Respond { id, response })
                            .await;
                    }
                    NetworkEvent::Connected {
                        device: to,
                        member: true,
                        ..
                    } => {
                        let (id, events) = (RequestId(1), events.clone());
                        let request = Request::Push { events };
                        let _ = handle
                            .commands
                            .send(NetworkCommand::Request { to, id, request })
                            .await;
                    }
                    NetworkEvent::Stream { from, stream } => {
                        let (provider, flipped) = (provider.clone(), Arc::clone(&counter));
                        tokio::spawn(async move { provider.serve(from, Flipping { stream, flipped }).await });
                    }
                    _ => {}
                }
            }
        });
        Ok(Self {
            device: device_id(device)?,
            flipped,
            _runtime: runtime,
        })
    }
}

fn device_id(device: &Device) -> Result<DeviceId> {
    let (secret, _) = identity::load_or_create(&device.state())?;
    let key = ed25519_dalek::SigningKey::from_bytes(&secret)
        .verifying_key()
        .to_bytes();
    DeviceId::from_slice(&key).context("A key is a device id")
}

/// Knows the one file of a folder.
struct OneFile {
    path: RelPath,
    manifest: Manifest,
    installed: Installed,
}

impl OneFile {
    fn read(folder: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let mut file = fs::File::open(folder.join(FILE))?;
        file.read_to_end(&mut bytes)?;
        let mut hasher = ManifestHasher::new();
        hasher.update(&bytes);
        let manifest = hasher.finish();
        let meta = file.metadata()?;
        let nanos = |secs: i64, nanos: i64| secs * 1_000_000_000 + nanos;
        let mtime_ns = nanos(meta.mtime(), meta.mtime_nsec());
        let installed = Installed {
            entry: Entry {
                node: Node::File {
                    content: manifest.content(),
                    size: SIZE,
                },
                mode: meta.mode() & 0o777,
                mtime_ns,
            },
            print: Fingerprint {
                ino: meta.ino(),
                size: SIZE,
                mtime_ns,
                ctime_ns: nanos(meta.ctime(), meta.ctime_nsec()),
                mode: meta.mode() & 0o170_777,
            },
            dots: Vec::new(),
            copy_of: None,
        };
        Ok(Self {
            path: RelPath::parse(FILE)?,
            manifest,
            installed,
        })
    }
}

impl ContentIndex for OneFile {
    fn manifest(&self, content: &ContentHash) -> Option<Manifest> {
        (*content == self.manifest.content()).then(|| self.manifest.clone())
    }
    fn put_manifest(&self, _: Manifest) {}
    fn files(&self, content: &ContentHash) -> Vec<(RelPath, Installed)> {
        let mine = *content == self.manifest.content();
        mine.then(|| (self.path.clone(), self.installed.clone()))
            .into_iter()
            .collect()
    }
    fn partial(&self, _: &ContentHash) -> Option<Vec<u8>> {
        None
    }
    fn set_partial(&self, _: &ContentHash, _: Vec<u8>) {}
    fn clear_partial(&self, _: &ContentHash) {}
    fn kept(&self, _: &ContentHash) -> Vec<RelPath> {
        Vec::new()
    }
}

/// Less than this is framing, and stays as it is: a peer that talks nonsense is another test's.
const LARGE_WRITE: usize = 4096;

/// A stream that flips a bit in the middle of each large write.
struct Flipping<S> {
    stream: S,
    flipped: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Flipping<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flipping<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.len() < LARGE_WRITE {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        let mut bytes = buf.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        let wrote = Pin::new(&mut self.stream).poll_write(cx, &bytes);
        if matches!(wrote, Poll::Ready(Ok(count)) if count > middle) {
            self.flipped.fetch_add(1, Ordering::SeqCst);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
