//! `syncctl quarantine`.

use std::ffi::OsString;

use p2p_sync_proto::{reason, v1};
use serde::Serialize;
use tonic::transport::Channel;

use crate::client::Quarantine;
use crate::cmds::confirm::confirm;
use crate::cmds::history::{VersionJson, author, kind, time};
use crate::cmds::place;
use crate::exit::Failure;
use crate::output::{JsonPath, Stop, escape, number, size, table};
use crate::{CALL_TIMEOUT, Session};

/// Versions asked for at once.
const PAGE: i32 = 1_000;
/// Digits of an event's id that people are shown.
const EVENT_SHOWN: usize = 12;

#[derive(Debug, Serialize)]
struct ListJson<'a> {
    schema: &'static str,
    items: Vec<ItemJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ItemJson<'a> {
    #[serde(flatten)]
    path: JsonPath,
    event: &'a str,
    version: Option<VersionJson>,
}

pub(crate) async fn list(session: &mut Session<'_>) -> Result<(), Stop> {
    let mut items = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListQuarantineRequest {
            page_size: PAGE,
            page_token,
        };
        let call = async |channel: Channel| Quarantine::new(channel).list_quarantine(request).await;
        let mut page = session.call_on(CALL_TIMEOUT, call).await?;
        items.append(&mut page.items);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let json = ListJson {
        schema: "p2psync.quarantine/1",
        items: items.iter().map(item).collect(),
    };
    session.out.answer(&json, || words(&items))
}

fn item(item: &v1::Quarantined) -> ItemJson<'_> {
    ItemJson {
        path: JsonPath::new(&item.path),
        event: &item.event,
        version: item.version.as_ref().map(VersionJson::of),
    }
}

fn words(items: &[v1::Quarantined]) -> String {
    if items.is_empty() {
        return "nothing is in quarantine".to_owned();
    }
    let heading = [
        "PATH", "VERSION", "TIME", "AUTHOR", "WHAT", "SIZE", "EVENT", "BYTES",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(items.iter().map(row));
    table(&rows)
}

fn row(item: &v1::Quarantined) -> Vec<String> {
    let version = item.version.clone().unwrap_or_default();
    let is_file = version.kind() == v1::VersionKind::File;
    vec![
        escape(&item.path),
        version.id.clone(),
        time(&version),
        author(&version),
        kind(version.kind()).to_owned(),
        if is_file {
            size(version.size)
        } else {
            "-".to_owned()
        },
        escape(item.event.as_bytes()).chars().take(EVENT_SHOWN).collect(),
        match version.at_hand() {
            v1::AtHand::Unspecified => "-",
            v1::AtHand::Folder => "in the folder",
            v1::AtHand::Versions => "kept here",
            v1::AtHand::No => "not here",
        }
        .to_owned(),
    ]
}

pub(crate) async fn accept(
    session: &mut Session<'_>,
    path: OsString,
    version: Option<String>,
) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json {
        schema: &'static str,
        #[serde(flatten)]
        path: JsonPath,
        version: Option<VersionJson>,
        unchanged: bool,
    }
    let path = place::of(session, &path).await?;
    let request = v1::AcceptQuarantinedRequest {
        path: path.clone(),
        version,
    };
    let accept = async {
        let mut service = Quarantine::new(session.channel().await?);
        Ok::<_, Failure>(service.accept_quarantined(request).await?.into_inner())
    };
    // Bytes that another device has take as long as they take.
    let done = match session.global.timeout {
        Some(limit) => tokio::time::timeout(limit, accept)
            .await
            .unwrap_or_else(|_| Err(crate::time_is_up(limit))),
        None => accept.await,
    };
    let done = done.map_err(advise)?;
    let json = Json {
        schema: "p2psync.quarantine-accept/1",
        path: JsonPath::new(&path),
        version: done.version.as_ref().map(VersionJson::of),
        unchanged: done.unchanged,
    };
    session.out.answer(&json, || {
        let version = done.version.clone().unwrap_or_default();
        let path = escape(&path);
        if done.unchanged {
            return format!("{path} is version {} already", version.id);
        }
        format!(
            "accepted version {} of {path} of {} by {}; this device publishes it\n\
             what stood there is kept: syncctl history {path}",
            version.id,
            time(&version),
            author(&version),
        )
    })
}

pub(crate) async fn drop(
    session: &mut Session<'_>,
    path: OsString,
    version: Option<String>,
    yes: bool,
) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json {
        schema: &'static str,
        #[serde(flatten)]
        path: JsonPath,
        versions: Vec<VersionJson>,
        files: u64,
        bytes: u64,
    }
    let path = place::of(session, &path).await?;
    let what = version.as_ref().map_or_else(
        || format!("what is in quarantine of {}", escape(&path)),
        |id| format!("version {} of {}", escape(id.as_bytes()), escape(&path)),
    );
    confirm(
        session,
        yes,
        &format!("Drop {what}? Its bytes on this device are gone then."),
    )?;
    let request = v1::DropQuarantinedRequest {
        path: path.clone(),
        version,
    };
    let call = async |channel: Channel| Quarantine::new(channel).drop_quarantined(request).await;
    let done = session.call_on(CALL_TIMEOUT, call).await.map_err(advise)?;
    let json = Json {
        schema: "p2psync.quarantine-drop/1",
        path: JsonPath::new(&path),
        versions: done.versions.iter().map(VersionJson::of).collect(),
        files: done.files,
        bytes: done.bytes,
    };
    session.out.answer(&json, || {
        format!(
            "dropped {} versions of {}; {} files of {} were removed here",
            number(u64::try_from(done.versions.len()).unwrap_or(u64::MAX)),
            escape(&path),
            number(done.files),
            size(done.bytes)
        )
    })
}

fn advise(failure: Failure) -> Failure {
    match failure.reason.as_str() {
        reason::NO_SUCH_VERSION => failure.hint("see what there is: syncctl quarantine list"),
        reason::ROLE_TOO_LOW => {
            failure.hint("do it on a device that may write there; see which: syncctl member list")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_quarantine_is_one_line_each_whatever_it_is_called() {
        let version = v1::PathVersion {
            id: "3f2a0b0c-17-0".into(),
            time: Some(prost_types::Timestamp { seconds: 5, nanos: 7 }),
            author: Some(v1::Device {
                id: "0b".repeat(8),
                ..Default::default()
            }),
            kind: v1::VersionKind::File.into(),
            size: 2048,
            at_hand: v1::AtHand::No.into(),
            ..Default::default()
        };
        let item = v1::Quarantined {
            path: b"a\nb".to_vec(),
            version: Some(version),
            event: "5a".repeat(32),
        };
        assert_eq!(
            words(&[item]),
            "PATH    VERSION        TIME                  AUTHOR    WHAT  SIZE     EVENT         BYTES\n\
             a\\x0ab  3f2a0b0c-17-0  1970-01-01T00:00:05Z  0b0b0b0b  file  2.0 KiB  5a5a5a5a5a5a  not here\n"
        );
        assert_eq!(words(&[]), "nothing is in quarantine");
    }
}
