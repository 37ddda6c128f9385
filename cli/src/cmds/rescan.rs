//! `syncctl rescan`.

use std::ffi::OsString;

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::cmds::place;
use crate::output::{JsonPath, Stop, escape};
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    #[serde(flatten)]
    path: JsonPath,
}

pub(crate) async fn run(session: &mut Session<'_>, path: Option<OsString>) -> Result<(), Stop> {
    let path = match path {
        Some(path) => place::of(session, &path).await?,
        None => Vec::new(),
    };
    let request = v1::RescanRequest { path: path.clone() };
    session
        .call(CALL_TIMEOUT, async |mut client: Client| {
            client.rescan(request).await
        })
        .await?;
    let json = Json {
        schema: "p2psync.rescan/1",
        path: JsonPath::new(&path),
    };
    session.out.answer(&json, || match path.as_slice() {
        [] => "Scanning the folder; wait for it with: syncctl wait --for in-sync".to_owned(),
        _ => format!(
            "Scanning {}; wait for it with: syncctl wait --for in-sync",
            escape(&path)
        ),
    })
}
