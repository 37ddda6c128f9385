//! `syncctl confirm-deletes`.

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::output::Stop;
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
