//! `syncctl lock`, `unlock` and `locks`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use crate::client::Locks;
use crate::cmds::place;
use crate::output::{JsonPath, Stop, escape, table};
use crate::view::{DeviceJson, device_words};
use crate::{CALL_TIMEOUT, Session};

/// What the daemon may take beside the waiting: it has the newest version first, or publishes the last change.
const LOCK_TIMEOUT: Duration = Duration::from_secs(35);

/// What `lock` was told.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) path: OsString,
    pub(crate) lasts: Option<Duration>,
    pub(crate) note: String,
    pub(crate) wait: Duration,
}

#[derive(Debug, Serialize)]
struct LockJson {
    schema: &'static str,
    #[serde(flatten)]
    lock: OneJson,
}

#[derive(Debug, Serialize)]
struct UnlockJson {
    schema: &'static str,
    #[serde(flatten)]
    lock: OneJson,
    /// Whether the others can have it at once.
    by_majority: bool,
}

#[derive(Debug, Serialize)]
struct ListJson {
    schema: &'static str,
    locks: Vec<OneJson>,
    voters: Vec<VoterJson>,
}

#[derive(Debug, Serialize)]
struct VoterJson {
    device: Option<DeviceJson>,
    reachable: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct OneJson {
    paths: Vec<PathJson>,
    holder: Option<DeviceJson>,
    token: String,
    since: String,
    until: Option<String>,
    note: String,
    mine: bool,
    confirmed: bool,
}

#[derive(Debug, Serialize)]
struct PathJson {
    #[serde(flatten)]
    path: JsonPath,
    directory: bool,
}

pub(crate) async fn lock(session: &mut Session<'_>, wanted: Wanted) -> Result<(), Stop> {
    let path = resource(session, &wanted.path).await?;
    let request = v1::AcquireLockRequest {
        path: Some(path),
        until: wanted.lasts.map(|lasts| (SystemTime::now() + lasts).into()),
        note: wanted.note,
        wait: wanted.wait.try_into().ok(),
    };
    let call = async |channel: Channel| Locks::new(channel).acquire_lock(request).await;
    let lock = session
        .call_on(LOCK_TIMEOUT + wanted.wait, call)
        .await?
        .lock
        .unwrap_or_default();
    let text = format!(
        "Locked {}; when you are done: syncctl unlock {}",
        what(&lock),
        what(&lock)
    );
    let json = LockJson {
        schema: "p2psync.lock/1",
        lock: one(lock),
    };
    session.out.answer(&json, || text)
}

pub(crate) async fn unlock(session: &mut Session<'_>, path: &OsString) -> Result<(), Stop> {
    let path = Some(resource(session, path).await?);
    let request = v1::ReleaseLockRequest { path };
    let call = async |channel: Channel| Locks::new(channel).release_lock(request).await;
    let done = session.call_on(LOCK_TIMEOUT, call).await?;
    ended(session, done.lock, done.by_majority)
}

pub(crate) async fn force(session: &mut Session<'_>, path: &OsString, reason: String) -> Result<(), Stop> {
    let path = Some(resource(session, path).await?);
    let request = v1::BreakLockRequest { path, reason };
    let call = async |channel: Channel| Locks::new(channel).break_lock(request).await;
    let lock = session.call_on(CALL_TIMEOUT, call).await?.lock;
    ended(session, lock, true)
}

fn ended(session: &mut Session<'_>, lock: Option<v1::Lock>, by_majority: bool) -> Result<(), Stop> {
    let lock = lock.unwrap_or_default();
    let later = if by_majority {
        ""
    } else {
        "; others can lock it once the voters hear of it"
    };
    let text = format!("Unlocked {}{later}", what(&lock));
    let json = UnlockJson {
        schema: "p2psync.unlock/1",
        lock: one(lock),
        by_majority,
    };
    session.out.answer(&json, || text)
}

/// Lists the locks; `mine`: this device's only, or others' only.
pub(crate) async fn list(session: &mut Session<'_>, mine: Option<bool>) -> Result<(), Stop> {
    let call = async |channel: Channel| Locks::new(channel).list_locks(v1::ListLocksRequest {}).await;
    let mut all = session.call_on(CALL_TIMEOUT, call).await?;
    all.locks.retain(|lock| mine.is_none_or(|mine| lock.mine == mine));
    let text = words(&all);
    let voter = |voter: v1::Voter| VoterJson {
        device: voter.device.map(DeviceJson::from),
        reachable: voter.reachable,
    };
    let json = ListJson {
        schema: "p2psync.locks/1",
        locks: all.locks.into_iter().map(one).collect(),
        voters: all.voters.into_iter().map(voter).collect(),
    };
    session.out.answer(&json, || text)
}

fn words(all: &v1::ListLocksResponse) -> String {
    let reached = all.voters.iter().filter(|voter| voter.reachable).count();
    let voters = format!("{reached} of {} voters reachable", all.voters.len());
    if all.locks.is_empty() {
        return format!("nothing is locked; {voters}");
    }
    let heading = ["PATH", "HOLDER", "SINCE", "UNTIL", "NOTE"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(all.locks.iter().map(row));
    format!("{}\n{voters}", table(&rows).trim_end())
}

fn row(lock: &v1::Lock) -> Vec<String> {
    let holder = match &lock.holder {
        Some(device) if lock.mine && lock.confirmed => format!("{} (this device)", device_words(device)),
        Some(device) if lock.mine => format!("{} (this device; voters not asked yet)", device_words(device)),
        Some(device) => device_words(device),
        None => "-".to_owned(),
    };
    vec![
        what(lock),
        holder,
        seconds(lock.since),
        lock.until
            .map_or_else(|| "-".to_owned(), |until| seconds(Some(until))),
        escape(lock.note.as_bytes()),
    ]
}

/// Returns what is locked, by whom, since when and what for, in one line.
pub(crate) fn sentence(lock: &v1::Lock) -> String {
    let holder = match &lock.holder {
        Some(_) if lock.mine => "this device".to_owned(),
        Some(device) => device_words(device),
        None => "-".to_owned(),
    };
    let mut text = format!("{}, by {holder} since {}", what(lock), seconds(lock.since));
    if !lock.note.is_empty() {
        text.push_str(": ");
        text.push_str(&escape(lock.note.as_bytes()));
    }
    text
}

/// Returns what a lock covers, in words.
fn what(lock: &v1::Lock) -> String {
    let name = |path: &v1::LockedPath| {
        let slash = if path.directory { "/" } else { "" };
        format!("{}{slash}", escape(&path.path))
    };
    lock.paths.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn seconds(time: Option<prost_types::Timestamp>) -> String {
    time.map(|time| prost_types::Timestamp { nanos: 0, ..time }.to_string())
        .unwrap_or_default()
}

pub(crate) fn one(lock: v1::Lock) -> OneJson {
    let path = |path: &v1::LockedPath| PathJson {
        path: JsonPath::new(&path.path),
        directory: path.directory,
    };
    OneJson {
        paths: lock.paths.iter().map(path).collect(),
        holder: lock.holder.map(DeviceJson::from),
        token: format!("{}.{}", lock.epoch, lock.number),
        since: seconds(lock.since),
        until: lock.until.map(|until| seconds(Some(until))),
        note: lock.note,
        mine: lock.mine,
        confirmed: lock.confirmed,
    }
}

/// Reads what was typed: a slash at the end names a directory with all that is below it.
async fn resource(session: &mut Session<'_>, typed: &OsString) -> Result<v1::LockedPath, Stop> {
    let directory = typed.as_bytes().ends_with(b"/");
    let path = place::of(session, typed).await?;
    Ok(v1::LockedPath { path, directory })
}
