//! `syncctl ledger show`.

use std::fmt::Write as _;

use p2p_sync_proto::v1;
use serde::Serialize;

use super::event::{EventJson, author, judged, kind, role_then, time};
use crate::cmds::status;
use crate::exit::{Exit, Failure};
use crate::output::{Stop, escape, hex, table};
use crate::view::role;
use crate::{CALL_TIMEOUT, LedgerClient, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    group: String,
    event: EventJson,
    prev_root: String,
    seen: Vec<SeenJson>,
    header: String,
    signature: String,
    body: String,
}

/// What an author had seen of another log.
#[derive(Debug, Serialize)]
pub(super) struct SeenJson {
    device: String,
    next_seq: u64,
    id16: String,
}

/// Shows an event; `None`: the one that founded the group.
pub(super) async fn run(session: &mut Session<'_>, event: Option<String>) -> Result<(), Stop> {
    let event = match event {
        Some(event) => event,
        None => genesis(session).await?,
    };
    let request = v1::GetEventRequest { event };
    let call = async |mut client: LedgerClient| client.get_event(request).await;
    let answer = session.ask_ledger(CALL_TIMEOUT, call).await?;
    let empty = || Failure::new(Exit::Protocol, "EMPTY_EVENT", "The daemon sent an empty event");
    let event = answer.event.ok_or_else(empty)?;
    let json = Json {
        schema: "p2psync.ledger_show/1",
        group: answer.group_id.clone(),
        event: EventJson::of(&event),
        prev_root: hex(&event.prev_root),
        seen: seen(&event),
        header: hex(&event.header),
        signature: hex(&event.signature),
        body: hex(&event.body),
    };
    session.out.answer(&json, || text(&event, &answer.group_id))
}

/// The group's id is the id of its Genesis event.
async fn genesis(session: &Session<'_>) -> Result<String, Failure> {
    let id = status::fetch(session).await?.group_id;
    if id.is_empty() {
        let text = "This device is in no group";
        return Err(Failure::new(Exit::No, "NO_GROUP", text).hint("join one: syncctl join TICKET"));
    }
    Ok(id)
}

/// Returns what an event's author had newly seen.
pub(super) fn seen(event: &v1::Event) -> Vec<SeenJson> {
    let seen = event.seen.iter();
    seen.map(|seen| SeenJson {
        device: seen.device.clone(),
        next_seq: seen.next_seq,
        id16: hex(&seen.id16),
    })
    .collect()
}

fn text(event: &v1::Event, group: &str) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    let device = event.author.clone().unwrap_or_default();
    line("Event", escape(event.id.as_bytes()));
    line("Group", escape(group.as_bytes()));
    let now = role(event.author_role()).unwrap_or("no member");
    let id = escape(device.id.as_bytes());
    line("Device", format!("{} ({id}), now {now}", author(event)));
    let void = if event.void { ": it counts nowhere" } else { "" };
    line("Role then", format!("{}{void}", role_then(event)));
    line(
        "Number",
        format!("{} of its log, arrived here as {}", event.seq, event.arrival),
    );
    line("Signed", format!("{} by its clock", time(event)));
    line("Kind", kind(event.kind()).to_owned());
    for (i, seen) in event.seen.iter().enumerate() {
        let name = if i == 0 { "Had seen" } else { "" };
        let device = escape(seen.device.as_bytes());
        line(name, format!("{} events of {device}", seen.next_seq));
    }
    let rows: Vec<Vec<String>> = (event.items.iter())
        .map(|item| {
            let mut row = vec![item.index.to_string()];
            row.extend(judged(item));
            row
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&rows));
    text
}
