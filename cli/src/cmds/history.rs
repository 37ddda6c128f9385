//! `syncctl history`.

use std::ffi::OsString;

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::cmds::place;
use crate::output::{JsonPath, Stop, escape, hex, or_null, size, table};
use crate::view::{DeviceJson, device_words, role};
use crate::{CALL_TIMEOUT, Client, Session};

/// Digits of a content's hash that people are shown.
const HASH_SHOWN: usize = 12;

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    versions: Vec<VersionJson>,
    more: bool,
}

/// One version as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct VersionJson {
    id: String,
    author: Option<DeviceJson>,
    author_role: Option<&'static str>,
    role_then: Option<&'static str>,
    void: bool,
    time: Option<String>,
    kind: &'static str,
    size: u64,
    #[serde(serialize_with = "null_if_empty")]
    content: String,
    target: Option<JsonPath>,
    mode: String,
    mtime_ns: i64,
    current: bool,
    conflict: bool,
    moved: Option<JsonPath>,
    at_hand: Option<&'static str>,
}

fn null_if_empty<S: serde::Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    or_null(text, to)
}

impl VersionJson {
    pub(crate) fn of(version: &v1::PathVersion) -> Self {
        let bytes = |bytes: &[u8]| Some(JsonPath::new(bytes)).filter(|_| !bytes.is_empty());
        Self {
            id: version.id.clone(),
            author: version.author.clone().map(DeviceJson::from),
            author_role: role(version.author_role()),
            role_then: role(version.role_then()),
            void: version.void,
            time: version.time.map(|time| time.to_string()),
            kind: kind(version.kind()),
            size: version.size,
            content: hex(&version.content),
            target: bytes(&version.target),
            mode: format!("{:04o}", version.mode),
            mtime_ns: version.mtime_ns,
            current: version.current,
            conflict: version.conflict,
            moved: bytes(&version.moved),
            at_hand: at_hand(version.at_hand()),
        }
    }
}

pub(crate) async fn run(
    session: &mut Session<'_>,
    path: OsString,
    skip: u32,
    limit: u32,
) -> Result<(), Stop> {
    let path = place::of(session, &path).await?;
    let request = v1::GetHistoryRequest {
        path: path.clone(),
        skip,
        limit,
    };
    let call = async |mut client: Client| client.get_history(request).await;
    let page = session.call(CALL_TIMEOUT, call).await?;
    let json = Json {
        schema: "p2psync.history/1",
        path: JsonPath::new(&path),
        versions: page.versions.iter().map(VersionJson::of).collect(),
        more: page.more,
    };
    session.out.answer(&json, || words(&page, skip))
}

fn words(page: &v1::GetHistoryResponse, skip: u32) -> String {
    let heading = [
        "VERSION", "TIME", "AUTHOR", "ROLE", "WHAT", "SIZE", "CONTENT", "BYTES", "",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(page.versions.iter().map(row));
    let mut text = table(&rows);
    if page.more {
        let next = usize::try_from(skip)
            .unwrap_or(usize::MAX)
            .saturating_add(page.versions.len());
        text.push_str(&format!("There are older ones: --skip {next}\n"));
    }
    text
}

fn row(version: &v1::PathVersion) -> Vec<String> {
    let dash = || "-".to_owned();
    let is_file = version.kind() == v1::VersionKind::File;
    vec![
        version.id.clone(),
        time(version),
        author(version),
        match (&version.author, role(version.role_then())) {
            (None, _) => dash(),
            (Some(_), role) => role.unwrap_or("none").to_owned(),
        },
        kind(version.kind()).to_owned(),
        if is_file { size(version.size) } else { dash() },
        if is_file {
            hex(&version.content).chars().take(HASH_SHOWN).collect()
        } else {
            dash()
        },
        match version.at_hand() {
            v1::AtHand::Unspecified => dash(),
            v1::AtHand::Folder => "in the folder".to_owned(),
            v1::AtHand::Versions => "kept here".to_owned(),
            v1::AtHand::No => "not here".to_owned(),
        },
        notes(version),
    ]
}

fn notes(version: &v1::PathVersion) -> String {
    let mut notes = Vec::new();
    if version.current {
        notes.push("current".to_owned());
    }
    if version.conflict {
        notes.push("conflict copy".to_owned());
    }
    if version.void {
        notes.push("counts nowhere".to_owned());
    }
    if version.author.is_none() {
        notes.push("replaced here, never published".to_owned());
    }
    if !version.moved.is_empty() {
        let to = version.kind() == v1::VersionKind::Deleted;
        notes.push(format!(
            "moved {} {}",
            if to { "to" } else { "from" },
            escape(&version.moved)
        ));
    }
    notes.join(", ")
}

/// Returns when a version was written, to the second.
pub(crate) fn time(version: &v1::PathVersion) -> String {
    let seconds = |time: prost_types::Timestamp| prost_types::Timestamp { nanos: 0, ..time };
    version
        .time
        .map(|time| seconds(time).to_string())
        .unwrap_or_default()
}

/// Returns who wrote a version.
pub(crate) fn author(version: &v1::PathVersion) -> String {
    match &version.author {
        None => "-".to_owned(),
        Some(device) => device_words(device),
    }
}

pub(crate) const fn kind(kind: v1::VersionKind) -> &'static str {
    match kind {
        v1::VersionKind::Unspecified => "unknown",
        v1::VersionKind::File => "file",
        v1::VersionKind::Directory => "directory",
        v1::VersionKind::Link => "link",
        v1::VersionKind::Deleted => "deleted",
    }
}

const fn at_hand(at_hand: v1::AtHand) -> Option<&'static str> {
    match at_hand {
        v1::AtHand::Unspecified => None,
        v1::AtHand::Folder => Some("folder"),
        v1::AtHand::Versions => Some("versions"),
        v1::AtHand::No => Some("no"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_line_whatever_its_author_and_path_are_called() {
        let version = v1::PathVersion {
            id: "3f2a0b0c-17-0".into(),
            author: Some(v1::Device {
                name: "lap\x1b[0mtop".into(),
                ..Default::default()
            }),
            time: Some(prost_types::Timestamp { seconds: 5, nanos: 7 }),
            kind: v1::VersionKind::File.into(),
            size: 2048,
            content: vec![0xab; 32],
            current: true,
            moved: b"a\nb".to_vec(),
            at_hand: v1::AtHand::Versions.into(),
            author_role: v1::Role::Viewer.into(),
            role_then: v1::Role::Editor.into(),
            ..Default::default()
        };
        let void = v1::PathVersion {
            role_then: v1::Role::Unspecified.into(),
            current: false,
            moved: Vec::new(),
            void: true,
            ..version.clone()
        };
        let page = v1::GetHistoryResponse {
            versions: vec![version, void],
            more: true,
        };
        assert_eq!(
            words(&page, 3),
            "VERSION        TIME                  AUTHOR         ROLE    WHAT  SIZE     CONTENT       BYTES\n\
             3f2a0b0c-17-0  1970-01-01T00:00:05Z  lap\\x1b[0mtop  editor  file  2.0 KiB  abababababab  kept here  \
             current, moved from a\\x0ab\n\
             3f2a0b0c-17-0  1970-01-01T00:00:05Z  lap\\x1b[0mtop  none    file  2.0 KiB  abababababab  kept here  \
             counts nowhere\n\
             There are older ones: --skip 5\n"
        );
    }
}
