//! `syncctl wait`.

use std::time::Duration;

use p2p_sync_proto::v1;
use p2p_sync_proto::v1::watch_response::Change;
use serde::Serialize;
use tokio::time::Instant;

use crate::args::Condition;
use crate::client;
use crate::exit::{Exit, Failure};
use crate::output::Stop;
use crate::{CALL_TIMEOUT, Session};

/// Between two tries while the daemon restarts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    condition: &'static str,
    met: bool,
    waited_ms: u64,
}

/// Waits; a daemon that is not there yet, or restarts meanwhile, is waited for as well if there is a deadline.
pub(crate) async fn run(
    session: &mut Session<'_>,
    condition: Condition,
    deadline: Option<Instant>,
) -> Result<(), Stop> {
    let start = Instant::now();
    let met = until_met(session, condition, deadline);
    match deadline {
        None => met.await?,
        Some(deadline) => match tokio::time::timeout_at(deadline, met).await {
            Ok(result) => result?,
            Err(_) => return Err(time_is_up(session, condition, start).await.into()),
        },
    }
    let waited_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let json = Json {
        schema: "p2psync.wait/1",
        condition: condition.as_str(),
        met: true,
        waited_ms,
    };
    session.out.answer(&json, || condition.as_str().to_owned())
}

async fn until_met(
    session: &Session<'_>,
    condition: Condition,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    loop {
        let failure = match watch(session, condition, deadline).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        // Not there: `watch` has tried for as long as it may.
        if failure.exit != Exit::Unavailable || failure.reason == "NOT_RUNNING" || deadline.is_none() {
            return Err(failure);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn watch(
    session: &Session<'_>,
    condition: Condition,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    let socket = client::find_socket(&session.global, session.around)?;
    let patience = deadline.map_or(CALL_TIMEOUT.min(client::CONNECT_PATIENCE), |d| {
        // A little less than all of it, so that "not running" is said and not only "time is up".
        d.saturating_duration_since(Instant::now())
            .saturating_sub(Duration::from_millis(50))
    });
    let mut client = client::connect(&socket, patience)
        .await
        .map(client::Client::new)?;
    let mut stream = client.watch(v1::WatchRequest {}).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(Change::Status(status)) = message.change else {
            continue;
        };
        let folder = status.folder.clone().unwrap_or_default();
        if folder.state() == v1::FolderState::Failed {
            let text = format!("The folder failed: {}", folder.failure);
            return Err(Failure::new(Exit::No, "FOLDER_FAILED", text).hint("see: syncctl status"));
        }
        if folder.state() == v1::FolderState::Paused && condition == Condition::InSync {
            let failure = Failure::new(Exit::No, "PAUSED", "The folder is paused");
            return Err(failure.hint("go on: syncctl resume"));
        }
        if is_met(condition, &status) {
            return Ok(());
        }
    }
    Err(Failure::new(
        Exit::Unavailable,
        "STREAM_ENDED",
        "The daemon ended the stream",
    ))
}

fn is_met(condition: Condition, status: &v1::Status) -> bool {
    match condition {
        Condition::InSync => status
            .folder
            .as_ref()
            .is_some_and(|f| f.state() == v1::FolderState::InSync && f.files_needed == 0),
        Condition::Connected => status.peers.is_some_and(|p| p.connected > 0),
    }
}

/// Says what was waited for in vain: if nobody answers even then, that it is the daemon.
async fn time_is_up(session: &Session<'_>, condition: Condition, start: Instant) -> Failure {
    let reachable = match client::find_socket(&session.global, session.around) {
        Ok(socket) => client::connect(&socket, Duration::ZERO).await.map(drop),
        Err(failure) => Err(failure),
    };
    match reachable {
        Err(failure) => failure,
        Ok(()) => {
            let waited = start.elapsed().as_secs_f32();
            let text = format!("Not {} after {waited:.1} s", condition.as_str());
            Failure::new(Exit::TempFail, "TIMEOUT", text)
                .hint("see what is missing: syncctl status, syncctl peers")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_sync_means_that_nothing_is_needed() {
        let status = |state: v1::FolderState, files_needed, connected| v1::Status {
            folder: Some(v1::FolderStatus {
                state: state.into(),
                files_needed,
                ..Default::default()
            }),
            peers: Some(v1::PeerCounts { total: 3, connected }),
            ..Default::default()
        };
        assert!(is_met(Condition::InSync, &status(v1::FolderState::InSync, 0, 0)));
        assert!(!is_met(Condition::InSync, &status(v1::FolderState::InSync, 1, 0)));
        assert!(!is_met(
            Condition::InSync,
            &status(v1::FolderState::Syncing, 0, 0)
        ));
        assert!(!is_met(Condition::InSync, &v1::Status::default()));
        assert!(is_met(
            Condition::Connected,
            &status(v1::FolderState::Syncing, 0, 1)
        ));
        assert!(!is_met(
            Condition::Connected,
            &status(v1::FolderState::InSync, 0, 0)
        ));
    }
}
