//! `syncctl status`.

use std::fmt::Write as _;
use std::time::SystemTime;

use p2p_sync_proto::v1;

use crate::exit::{Exit, Failure};
use crate::output::{Stop, escape, number, short, size, span};
use crate::view::{StatusJson, folder_state, role};
use crate::{CALL_TIMEOUT, Session};

pub(crate) async fn run(session: &mut Session<'_>) -> Result<(), Stop> {
    let status = fetch(session).await?;
    if status.version != env!("CARGO_PKG_VERSION") {
        let _ = writeln!(
            session.err,
            "warning: daemon {} and syncctl {} have different versions",
            escape(status.version.as_bytes()),
            env!("CARGO_PKG_VERSION")
        );
    }
    let text = words(&status, SystemTime::now());
    session.out.answer(&StatusJson::from(status), || text)
}

/// Asks for the status.
pub(crate) async fn fetch(session: &Session<'_>) -> Result<v1::Status, Failure> {
    let call = async |mut client: crate::Client| client.get_status(v1::GetStatusRequest {}).await;
    let response = session.call(CALL_TIMEOUT, call).await?;
    response
        .status
        .ok_or_else(|| Failure::new(Exit::Protocol, "EMPTY_STATUS", "The daemon sent an empty status"))
}

/// Returns the status for people.
fn words(status: &v1::Status, now: SystemTime) -> String {
    let device = status.device.clone().unwrap_or_default();
    let folder = status.folder.clone().unwrap_or_default();
    let peers = status.peers.unwrap_or_default();
    let mut text = format!("p2p-sync {}", escape(status.version.as_bytes()));
    if !device.id.is_empty() {
        let _ = write!(text, "  device {}", escape(short(&device.id).as_bytes()));
    }
    let _ = write!(text, "  \"{}\"", escape(device.name.as_bytes()));
    if !device.person.is_empty() {
        let _ = write!(text, " of {}", escape(device.person.as_bytes()));
    }
    if let Some(up) = status
        .started_at
        .and_then(|t| now.duration_since(SystemTime::try_from(t).ok()?).ok())
    {
        let _ = write!(text, "  up {}", span(up.as_secs()));
    }
    text.push_str("\n\n");
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("Folder", escape(&folder.path));
    line("State", state_words(&folder));
    line("Files", number(folder.files_total));
    line("To go", to_go(&folder));
    line("Group", group_words(status));
    line(
        "Peers",
        format!("{} of {} connected", peers.connected, peers.total),
    );
    line("Conflicts", number(folder.conflicts));
    for (i, address) in status.listen_addresses.iter().enumerate() {
        line(if i == 0 { "Address" } else { "" }, escape(address.as_bytes()));
    }
    for (i, warning) in status.warnings.iter().enumerate() {
        line(if i == 0 { "Warnings" } else { "" }, warning_words(warning));
    }
    text.push_str(&stuck_words(&folder));
    text
}

/// Returns the stuck paths with their reasons.
fn stuck_words(folder: &v1::FolderStatus) -> String {
    let mut text = String::new();
    for (i, stuck) in folder.stuck.iter().enumerate() {
        let name = if i == 0 { "Stuck" } else { "" };
        let (path, reason) = (escape(&stuck.path), escape(stuck.reason.as_bytes()));
        let _ = writeln!(text, "{name:<10}{path}: {reason}");
    }
    let more = folder.stuck_total.saturating_sub(folder.stuck.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "{:<10}and {} more", "", number(more));
    }
    text
}

fn state_words(folder: &v1::FolderStatus) -> String {
    let state = folder_state(folder.state()).replace('_', " ");
    if folder.state() == v1::FolderState::Removed {
        format!(
            "{state}: this device is no member any more; its folder is left as it is; join again: syncctl join TICKET"
        )
    } else if folder.failure.is_empty() {
        state
    } else {
        format!("{state}: {}", escape(folder.failure.as_bytes()))
    }
}

/// Returns bytes and paths that are left: a percentage says nothing about a large folder.
fn to_go(folder: &v1::FolderStatus) -> String {
    match (folder.files_needed, folder.bytes_needed) {
        (0, 0) => "-".to_owned(),
        (1, bytes) => format!("1 path, {}", size(bytes)),
        (paths, bytes) => format!("{} paths, {}", number(paths), size(bytes)),
    }
}

fn group_words(status: &v1::Status) -> String {
    if status.group_id.is_empty() {
        return "none yet; join one: syncctl join TICKET".to_owned();
    }
    let id = escape(short(&status.group_id).as_bytes());
    format!(
        "{id} (this device: {})",
        role(status.role()).unwrap_or("no member")
    )
}

fn warning_words(warning: &v1::Warning) -> String {
    let message = escape(warning.message.as_bytes());
    match warning.code.as_str() {
        "JOIN_HELD" => format!("{message}; choose: syncctl join --keep-both, or syncctl join --prefer-group"),
        "PATH_STUCK" => format!("{message}; ask about one: syncctl why PATH"),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::sample_status;

    #[test]
    fn the_status_in_words() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + 90_000);
        assert_eq!(
            words(&sample_status(), now),
            "\
p2p-sync 0.1.0  device 0a0a0a0a  \"atlas\" of Anna  up 1d 1h

Folder    /srv/sync
State     syncing
Files     12,480
To go     2 paths, 1.5 MiB
Group     07070707 (this device: owner)
Peers     1 of 2 connected
Conflicts 1
Address   /ip4/192.0.2.7/tcp/22010/p2p/12D3Koo
Warnings  1 conflict copies lie in the folder
"
        );
    }

    #[test]
    fn the_status_as_json() {
        assert_eq!(
            serde_json::to_string(&StatusJson::from(sample_status())).unwrap(),
            r#"{"schema":"p2psync.status/1","version":"0.1.0","device":{"id":"0a0a0a0a0a0a","name":"atlas","peer_id":"12D3Koo","person":"Anna"},"group":"0707070707","role":"owner","started_at":"1970-01-12T13:46:40Z","folder":{"path":"/srv/sync","path_hex":null,"state":"syncing","files_total":12480,"files_needed":2,"bytes_needed":1572864,"conflicts":1,"join_held":0,"deletions_held":0,"stuck":[],"stuck_total":0,"join":null,"rejected":0,"failure":null},"peers":{"connected":1,"total":2},"listen_addresses":["/ip4/192.0.2.7/tcp/22010/p2p/12D3Koo"],"events":40,"bytes_in":5,"bytes_out":6,"warnings":[{"code":"CONFLICTS","message":"1 conflict copies lie in the folder"}]}"#
        );
    }

    #[test]
    fn stuck_paths_are_named_with_their_reasons_and_the_others_counted() {
        let stuck = |path: &str| v1::StuckPath {
            path: path.into(),
            reason: "no connected device has its content".into(),
        };
        let folder = v1::FolderStatus {
            stuck: vec![stuck("a"), stuck("b")],
            stuck_total: 1_002,
            ..Default::default()
        };
        assert_eq!(
            stuck_words(&folder),
            "\
Stuck     a: no connected device has its content
          b: no connected device has its content
          and 1,000 more
"
        );
    }

    #[test]
    fn a_removed_device_says_how_to_join_again() {
        let folder = v1::FolderStatus {
            state: v1::FolderState::Removed.into(),
            ..Default::default()
        };
        let text = state_words(&folder);
        assert!(
            text.starts_with("removed: this device is no member any more; its folder is left as it is"),
            "{text}"
        );
        assert!(text.ends_with("syncctl join TICKET"), "{text}");
    }

    #[test]
    fn a_device_without_a_group_says_how_to_get_into_one() {
        let text = words(&v1::Status::default(), SystemTime::UNIX_EPOCH);
        assert!(text.contains("syncctl join TICKET"), "{text}");
        let json = serde_json::to_string(&StatusJson::from(v1::Status::default())).unwrap();
        assert!(
            json.contains(r#""group":null,"role":null,"started_at":null"#),
            "{json}"
        );
    }
}
