//! `syncctl why`.

use std::ffi::OsString;
use std::fmt::Write as _;

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::cmds::locks::{OneJson, one, sentence};
use crate::cmds::place;
use crate::exit::{Exit, Failure};
use crate::output::{JsonPath, Stop, escape, or_null, short, size};
use crate::view::DeviceJson;
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    cause: &'static str,
    settled: bool,
    #[serde(serialize_with = "or_null")]
    reason: String,
    removal: bool,
    present: bool,
    paused: bool,
    author: Option<DeviceJson>,
    from: Vec<DeviceJson>,
    bytes_needed: u64,
    retry_in_ms: Option<i64>,
    copies: Vec<JsonPath>,
    copy_of: Option<JsonPath>,
    blockers: Vec<JsonPath>,
    behind: Vec<DeviceJson>,
    locks: Vec<OneJson>,
}

pub(crate) async fn run(session: &mut Session<'_>, path: OsString) -> Result<(), Stop> {
    let path = place::of(session, &path).await?;
    if path.is_empty() {
        let failure = Failure::new(Exit::Usage, "BAD_PATH", "That is the folder itself");
        return Err(failure.hint("see: syncctl status").into());
    }
    let request = v1::WhyRequest { path };
    let call = async |mut client: Client| client.why(request).await;
    let answer = session.call(CALL_TIMEOUT, call).await?;
    let text = words(&answer);
    session.out.answer(&Json::from(answer), || text)
}

impl From<v1::WhyResponse> for Json {
    fn from(answer: v1::WhyResponse) -> Self {
        let paths = |list: &[Vec<u8>]| list.iter().map(|path| JsonPath::new(path)).collect();
        let devices = |list: Vec<v1::Device>| list.into_iter().map(DeviceJson::from).collect();
        Self {
            schema: "p2psync.why/1",
            path: JsonPath::new(&answer.path),
            cause: cause_word(answer.cause()),
            settled: is_settled(answer.cause()),
            removal: answer.removal,
            present: answer.present,
            paused: answer.paused,
            bytes_needed: answer.bytes_needed,
            retry_in_ms: answer
                .retry_in
                .map(|wait| wait.seconds.saturating_mul(1_000) + i64::from(wait.nanos / 1_000_000)),
            copies: paths(&answer.copies),
            copy_of: Some(answer.copy_of)
                .filter(|path| !path.is_empty())
                .map(|path| JsonPath::new(&path)),
            blockers: paths(&answer.blockers),
            locks: answer.locks.into_iter().map(one).collect(),
            reason: answer.reason,
            author: answer.author.map(DeviceJson::from),
            from: devices(answer.from),
            behind: devices(answer.behind),
        }
    }
}

/// Says whether nothing is to be done at the path.
fn is_settled(cause: v1::PathCause) -> bool {
    use v1::PathCause::{Deleted, Ignored, InSync, Unknown};
    matches!(cause, Unknown | Deleted | InSync | Ignored)
}

fn cause_word(cause: v1::PathCause) -> &'static str {
    match cause {
        v1::PathCause::Unspecified | v1::PathCause::Unknown => "unknown",
        v1::PathCause::Deleted => "deleted",
        v1::PathCause::InSync => "in_sync",
        v1::PathCause::Starting => "starting",
        v1::PathCause::Publishing => "publishing",
        v1::PathCause::Waiting => "waiting",
        v1::PathCause::Fetching => "fetching",
        v1::PathCause::NoSource => "no_source",
        v1::PathCause::Queued => "queued",
        v1::PathCause::Installing => "installing",
        v1::PathCause::Parked => "parked",
        v1::PathCause::DeletionHeld => "deletion_held",
        v1::PathCause::JoinHeld => "join_held",
        v1::PathCause::Ignored => "ignored",
        v1::PathCause::Unreadable => "unreadable",
    }
}

/// Returns what stands in the way, and what to do next.
fn cause_text(answer: &v1::WhyResponse) -> (String, &'static str) {
    let bytes = size(answer.bytes_needed);
    let reason = escape(answer.reason.as_bytes());
    let look = "see: syncctl watch";
    match answer.cause() {
        v1::PathCause::Unspecified | v1::PathCause::Unknown => (
            "nobody knows of it".to_owned(),
            "if it is in the folder, look once more: syncctl rescan PATH",
        ),
        v1::PathCause::Deleted => ("it was deleted, and is not here".to_owned(), ""),
        v1::PathCause::InSync => ("in sync".to_owned(), ""),
        v1::PathCause::Starting => (
            "the group's ledger is not complete here yet".to_owned(),
            "see who is connected: syncctl peers",
        ),
        v1::PathCause::Publishing => ("a change made here is about to be published".to_owned(), look),
        v1::PathCause::Waiting => ("it waits for its turn".to_owned(), look),
        v1::PathCause::Fetching => (format!("its content, {bytes}, is being fetched"), look),
        v1::PathCause::NoSource => (
            format!("no connected device has its content, {bytes}"),
            "start the device that wrote it, or connect to it: syncctl peers",
        ),
        v1::PathCause::Queued => ("its content is here; it waits for its turn".to_owned(), look),
        v1::PathCause::Installing => ("it is being put in place".to_owned(), look),
        v1::PathCause::Parked if answer.removal && !answer.blockers.is_empty() => (
            "the directory is to be taken away, but holds something".to_owned(),
            "move or remove what lies in it",
        ),
        v1::PathCause::Parked if answer.reason.is_empty() => (
            "it changed while it was put in place; it is tried again".to_owned(),
            look,
        ),
        v1::PathCause::Parked => (reason, "mend that; it is tried again by itself"),
        v1::PathCause::DeletionHeld => (
            "it vanished while nobody looked, with many others; it is not deleted on other devices"
                .to_owned(),
            "was it meant? syncctl confirm-deletes; if not: syncctl confirm-deletes --restore",
        ),
        v1::PathCause::JoinHeld => (
            "it differs from the group's since this device joined".to_owned(),
            "choose: syncctl join --keep-both, or syncctl join --prefer-group",
        ),
        v1::PathCause::Ignored => ("it is left out by its name".to_owned(), ""),
        v1::PathCause::Unreadable => (
            format!("it cannot be read or synced: {reason}"),
            "mend that, then: syncctl rescan PATH",
        ),
    }
}

fn words(answer: &v1::WhyResponse) -> String {
    let (cause, next) = cause_text(answer);
    let mut text = format!("{}: {cause}\n", escape(&answer.path));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10}{value}");
    };
    if answer.paused {
        line("paused", "nothing is done before: syncctl resume".to_owned());
    }
    let names = |list: &[v1::Device]| list.iter().map(device_words).collect::<Vec<_>>().join(", ");
    if !answer.from.is_empty() {
        line("from", names(&answer.from));
    }
    if let Some(author) = answer.author.as_ref().filter(|_| !is_settled(answer.cause())) {
        line("author", device_words(author));
    }
    if let Some(wait) = &answer.retry_in {
        line(
            "next try",
            format!("in {} s", wait.seconds.saturating_add(i64::from(wait.nanos > 0))),
        );
    }
    for lock in &answer.locks {
        line("locked", sentence(lock));
    }
    for blocker in &answer.blockers {
        line("holds", escape(blocker));
    }
    if !answer.copy_of.is_empty() {
        line("copy of", escape(&answer.copy_of));
    }
    for copy in &answer.copies {
        line("copy", escape(copy));
    }
    if !answer.behind.is_empty() {
        line("behind", names(&answer.behind));
    }
    if !next.is_empty() {
        line("next", next.replace("PATH", &escape(&answer.path)));
    }
    text
}

fn device_words(device: &v1::Device) -> String {
    let id = escape(short(&device.id).as_bytes());
    if device.name.is_empty() {
        id
    } else {
        format!("{} ({id})", escape(device.name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, name: &str) -> v1::Device {
        v1::Device {
            id: id.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_cause_comes_first_and_the_next_step_last() {
        let answer = v1::WhyResponse {
            path: b"a b".to_vec(),
            cause: v1::PathCause::NoSource.into(),
            author: Some(device("0a0b0c0d0e", "atlas")),
            bytes_needed: 1536,
            retry_in: Some(prost_types::Duration { seconds: 9, nanos: 1 }),
            copies: vec![b"a b (conflict 1)".to_vec()],
            behind: vec![device("0f0f0f0f0f", "")],
            locks: vec![v1::Lock {
                paths: vec![v1::LockedPath {
                    path: b"a b".to_vec(),
                    directory: false,
                }],
                holder: Some(device("0a0b0c0d0e", "atlas")),
                since: Some(prost_types::Timestamp { seconds: 0, nanos: 1 }),
                note: "Figures".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            words(&answer),
            "\
a b: no connected device has its content, 1.5 KiB
  author    atlas (0a0b0c0d)
  next try  in 10 s
  locked    a b, by atlas since 1970-01-01T00:00:00Z: Figures
  copy      a b (conflict 1)
  behind    0f0f0f0f
  next      start the device that wrote it, or connect to it: syncctl peers
"
        );
    }

    #[test]
    fn a_directory_that_cannot_go_names_what_it_holds() {
        let answer = v1::WhyResponse {
            path: b"d".to_vec(),
            cause: v1::PathCause::Parked.into(),
            removal: true,
            blockers: vec![b"d/core".to_vec()],
            ..Default::default()
        };
        let text = words(&answer);
        assert!(text.contains("holds     d/core\n"), "{text}");
    }

    #[test]
    fn keys_are_never_left_out() {
        let json = serde_json::to_string(&Json::from(v1::WhyResponse::default())).unwrap();
        assert_eq!(
            json,
            r#"{"schema":"p2psync.why/1","path":"","path_hex":null,"cause":"unknown","settled":false,"reason":null,"removal":false,"present":false,"paused":false,"author":null,"from":[],"bytes_needed":0,"retry_in_ms":null,"copies":[],"copy_of":null,"blockers":[],"behind":[],"locks":[]}"#
        );
    }
}
