//! `syncctl ledger prove`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use p2p_sync_proto::v1::prove_item_request::Target;
use p2p_sync_proto::{reason, v1};
use serde::Serialize;

use super::file::{NewFile, check_absent};
use crate::cmds::place;
use crate::exit::Failure;
use crate::output::{JsonPath, Stop, escape, size};
use crate::{LedgerClient, Session};

/// How long a proof may take unless `--timeout` says otherwise: the ids of whole logs are read for it.
const PROVE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be proven.
pub(super) struct Wanted {
    pub(super) what: OsString,
    /// It is an event.
    pub(super) event: bool,
    pub(super) item: u32,
}

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    group: String,
    event: String,
    item: u32,
    output: JsonPath,
    size: usize,
}

pub(super) async fn run(
    session: &mut Session<'_>,
    wanted: Wanted,
    output: &Path,
    force: bool,
) -> Result<(), Stop> {
    let output = session.around.current_dir.join(output);
    check_absent(&output, force)?;
    let made = prove(session, &wanted).await?;
    let mut file = NewFile::create(&output, force)?;
    file.write(&made.proof)?;
    file.finish()?;
    let path = output.as_os_str().as_bytes();
    let json = Json {
        schema: "p2psync.ledger_prove/1",
        group: made.group_id.clone(),
        event: made.event_id.clone(),
        item: made.item,
        output: JsonPath::new(path),
        size: made.proof.len(),
    };
    session.out.answer(&json, || {
        format!(
            "wrote the proof of item {} of event {} to {} ({})\ncheck it anywhere: syncctl ledger check-proof {} --genesis {}",
            made.item,
            made.event_id,
            escape(path),
            size(made.proof.len() as u64),
            escape(path),
            made.group_id
        )
    })
}

/// Asks for the proof of a path, and if there is none, of an event that is called so.
async fn prove(session: &mut Session<'_>, wanted: &Wanted) -> Result<v1::ProveItemResponse, Stop> {
    let event = wanted.what.to_str().filter(|text| is_event(text));
    let event = event.map(|text| Target::Event(text.to_owned()));
    if wanted.event {
        let text = wanted.what.to_string_lossy().into_owned();
        return Ok(ask(session, Target::Event(text), wanted.item).await?);
    }
    let path = Target::Path(place::of(session, &wanted.what).await?);
    match (ask(session, path, 0).await, event) {
        (Err(failure), Some(event)) if failure.reason == reason::NO_SUCH_EVENT => {
            Ok(ask(session, event, wanted.item).await?)
        }
        (answer, _) => Ok(answer?),
    }
}

async fn ask(session: &Session<'_>, target: Target, item: u32) -> Result<v1::ProveItemResponse, Failure> {
    let request = v1::ProveItemRequest {
        target: Some(target),
        item,
    };
    let call = async |mut client: LedgerClient| client.prove_item(request).await;
    session.ask_ledger(PROVE_TIMEOUT, call).await
}

/// Says whether a text could name an event.
fn is_event(text: &str) -> bool {
    let at_place = text
        .rsplit_once(':')
        .is_some_and(|(_, seq)| seq.parse::<u64>().is_ok());
    let by_id = text.len() >= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    at_place || by_id
}
