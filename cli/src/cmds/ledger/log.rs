//! `syncctl ledger log`, also called `syncctl log`.

use std::time::Duration;

use p2p_sync_proto::v1;
use p2p_sync_proto::v1::follow_events_response::Change;
use serde::Serialize;

use super::ended;
use super::event::{EventJson, left_out, lines};
use crate::args::LogArgs;
use crate::cmds::place;
use crate::exit::Failure;
use crate::output::{Stop, table};
use crate::{CALL_TIMEOUT, LedgerClient, Session};

/// Events shown unless the user says otherwise.
const DEFAULT_LIMIT: u32 = 100;
/// Events shown before those that arrive.
const DEFAULT_BEFORE: u32 = 10;
/// Events in one answer, at most.
const PAGE: u32 = 1_000;
/// How often to look whether anybody still reads.
const READER_CHECK: Duration = Duration::from_millis(250);

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    group: String,
    events: Vec<EventJson>,
    more: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    schema: &'static str,
    event: EventJson,
}

/// What several pages add up to.
struct Listed {
    group: String,
    events: Vec<v1::Event>,
    more: bool,
}

pub(super) async fn list(session: &mut Session<'_>, args: LogArgs) -> Result<(), Stop> {
    let path = match &args.path {
        Some(path) => place::of(session, path).await?,
        None => Vec::new(),
    };
    let order = if args.by_arrival {
        v1::EventOrder::Arrival
    } else {
        v1::EventOrder::Clock
    };
    let request = v1::ListEventsRequest {
        path,
        device: args.device.unwrap_or_default(),
        since: args.since.map(Into::into),
        order: order.into(),
        oldest_first: args.oldest_first,
        ..Default::default()
    };
    let listed = pages(session, request, args.limit.unwrap_or(DEFAULT_LIMIT)).await?;
    let json = Json {
        schema: "p2psync.ledger_log/1",
        group: listed.group.clone(),
        events: listed.events.iter().map(EventJson::of).collect(),
        more: listed.more,
    };
    session.out.answer(&json, || words(&listed))
}

/// Asks for pages until there are enough events.
async fn pages(
    session: &Session<'_>,
    mut request: v1::ListEventsRequest,
    limit: u32,
) -> Result<Listed, Failure> {
    let mut listed = Listed {
        group: String::new(),
        events: Vec::new(),
        more: false,
    };
    loop {
        let left = limit.saturating_sub(u32::try_from(listed.events.len()).unwrap_or(u32::MAX));
        if left == 0 {
            return Ok(listed);
        }
        request.page_size = i32::try_from(left.min(PAGE)).unwrap_or(i32::MAX);
        let call = async |mut client: LedgerClient| client.list_events(request.clone()).await;
        let page = session.ask_ledger(CALL_TIMEOUT, call).await?;
        listed.group = page.group_id;
        listed.events.extend(page.events);
        listed.more = !page.next_page_token.is_empty();
        if !listed.more {
            return Ok(listed);
        }
        request.page_token = page.next_page_token;
    }
}

fn words(listed: &Listed) -> String {
    let heading = ["TIME", "DEVICE", "ROLE", "WHAT", "ABOUT", "", "EVENT"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for event in &listed.events {
        rows.extend(lines(event));
        rows.extend(left_out(event));
    }
    let mut text = table(&rows);
    if listed.more {
        text.push_str("There are more: -n N\n");
    }
    text
}

/// Shows the last events, and then those that arrive.
pub(super) async fn follow(session: &mut Session<'_>, limit: Option<u32>) -> Result<(), Stop> {
    let mut client = session.ledger().await?;
    let request = v1::FollowEventsRequest::default();
    let mut stream = client.follow_events(request).await?.into_inner();
    let mut reader_check = tokio::time::interval(READER_CHECK);
    loop {
        let message = tokio::select! {
            message = stream.message() => message?,
            _ = reader_check.tick() => {
                if session.out.reader_gone() {
                    return Err(Stop::ReaderGone);
                }
                continue;
            }
        };
        match message.map(|message| message.change) {
            None => return Err(ended().into()),
            Some(Some(Change::Started(started))) => {
                let before = before(session, limit.unwrap_or(DEFAULT_BEFORE)).await?;
                // What arrived since the stream began comes with it.
                let before = before
                    .iter()
                    .rev()
                    .filter(|event| event.arrival <= started.arrival);
                for event in before {
                    show(session, event)?;
                }
            }
            Some(Some(Change::Event(event))) => show(session, &event)?,
            Some(Some(Change::Heartbeat(_)) | None) => {}
        }
    }
}

/// Returns the last events that arrived, the last first.
async fn before(session: &Session<'_>, limit: u32) -> Result<Vec<v1::Event>, Failure> {
    let request = v1::ListEventsRequest {
        order: v1::EventOrder::Arrival.into(),
        ..Default::default()
    };
    Ok(pages(session, request, limit).await?.events)
}

fn show(session: &mut Session<'_>, event: &v1::Event) -> Result<(), Stop> {
    let line = Line {
        schema: "p2psync.ledger_event/1",
        event: EventJson::of(event),
    };
    session.out.answer(&line, || {
        let mut text = String::new();
        for line in lines(event).into_iter().chain(left_out(event)) {
            let filled: Vec<String> = line.into_iter().filter(|cell| !cell.is_empty()).collect();
            text.push_str(&filled.join("  "));
            text.push('\n');
        }
        text
    })
}
