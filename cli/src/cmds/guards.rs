//! `syncctl confirm-deletes`, `pause`, `resume` and `leave`.

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Stop, escape, short};
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct ConfirmJson {
    schema: &'static str,
    restore: bool,
}

pub(crate) async fn confirm_deletes(session: &mut Session<'_>, restore: bool) -> Result<(), Stop> {
    let request = v1::ConfirmDeletesRequest { restore };
    session
        .call(CALL_TIMEOUT, async |mut client: Client| {
            client.confirm_deletes(request).await
        })
        .await?;
    let json = ConfirmJson {
        schema: "p2psync.confirm-deletes/1",
        restore,
    };
    session.out.answer(&json, || {
        let what = if restore {
            "The files are being brought back"
        } else {
            "What is still gone is being deleted on the other devices"
        };
        format!("{what}; wait for it with: syncctl wait --for in-sync")
    })
}

#[derive(Debug, Serialize)]
struct PausedJson {
    schema: &'static str,
    paused: bool,
}

#[derive(Debug, Serialize)]
struct LeaveJson<'a> {
    schema: &'static str,
    group: &'a str,
}

pub(crate) async fn pause(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |mut client: Client| client.pause(v1::PauseRequest {}).await;
    session.call(CALL_TIMEOUT, call).await?;
    let json = PausedJson {
        schema: "p2psync.pause/1",
        paused: true,
    };
    session
        .out
        .answer(&json, || "Paused; go on with: syncctl resume".to_owned())
}

pub(crate) async fn resume(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |mut client: Client| client.resume(v1::ResumeRequest {}).await;
    session.call(CALL_TIMEOUT, call).await?;
    let json = PausedJson {
        schema: "p2psync.resume/1",
        paused: false,
    };
    session.out.answer(&json, || {
        "Resumed; wait for it with: syncctl wait --for in-sync".to_owned()
    })
}

pub(crate) async fn leave(session: &mut Session<'_>, yes: bool) -> Result<(), Stop> {
    if !yes {
        let text =
            "This device forgets its group; the files stay, and are not synced with the others any more";
        let failure = Failure::new(Exit::Usage, "NOT_CONFIRMED", text);
        return Err(failure
            .hint("if that is what you want: syncctl leave --yes")
            .into());
    }
    let call = async |mut client: Client| client.leave(v1::LeaveRequest {}).await;
    let left = session.call(CALL_TIMEOUT, call).await?;
    let json = LeaveJson {
        schema: "p2psync.leave/1",
        group: &left.group_id,
    };
    session.out.answer(&json, || {
        let group = escape(short(&left.group_id).as_bytes());
        format!("Left the group; this device is alone in its own, {group}")
    })
}
