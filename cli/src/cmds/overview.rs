//! `syncctl` alone: one line of state and what to type next.

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::Session;
use crate::cmds::status;
use crate::exit::Failure;
use crate::output::{Stop, escape};
use crate::view::{StatusJson, folder_state};

pub(crate) async fn run(session: &mut Session<'_>) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json {
        schema: &'static str,
        running: bool,
        status: Option<StatusJson>,
    }
    let status = status::fetch(session).await;
    let text = words(status.as_ref());
    let status = status.ok().map(StatusJson::from);
    let json = Json {
        schema: "p2psync.overview/1",
        running: status.is_some(),
        status,
    };
    session.out.answer(&json, || text)
}

fn words(status: Result<&v1::Status, &Failure>) -> String {
    let state = match status {
        Ok(status) => {
            let folder = status.folder.clone().unwrap_or_default();
            let state = folder_state(folder.state()).replace('_', " ");
            let connected = status.peers.unwrap_or_default().connected;
            format!("{} is {state}, {connected} peers connected", escape(&folder.path))
        }
        Err(failure) => match &failure.hint {
            Some(hint) => format!("{}; {hint}", failure.message),
            None => failure.message.clone(),
        },
    };
    format!(
        "{state}\n\n\
         syncctl status          what the daemon is doing\n\
         syncctl peers           the devices of the group\n\
         syncctl invite create   a ticket for another device\n\
         syncctl join TICKET     use such a ticket here\n\
         syncctl --help          everything else\n"
    )
}
