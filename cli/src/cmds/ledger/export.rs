//! `syncctl ledger export`.
//!
//! A bundle is a few lines of text that end in an empty line, then a frame for each event, then the end:
//!
//! ```text
//! frame = header length u32, body length u32, signature 64 bytes, header, body       numbers are big-endian
//! end   = 0 u32, 0 u32, number of frames u64
//! ```
//!
//! No header is empty, so the end is no frame, and a bundle that was cut off has none.

use std::path::Path;

use p2p_sync_proto::v1;
use serde::Serialize;

use super::event::{ItemJson, items, kind};
use super::file::{NewFile, check_absent};
use super::show::{SeenJson, seen};
use crate::exit::{Exit, Failure};
use crate::output::{Stop, hex, number};
use crate::{CALL_TIMEOUT, LedgerClient, Session};

/// Events in one answer; a page ends earlier if they are large.
const PAGE: i32 = 1_000;
/// Items of an event: all.
const ALL_ITEMS: u32 = 4_096;

const PREAMBLE: &str = "\
p2p-sync ledger bundle 0
After the first empty line follows a frame for each event, in an order in which each comes after all that it has seen:
header length (4 bytes, big-endian), body length (4), Ed25519 signature (64), header, body. The end is 0 (4), 0 (4) and
the number of frames (8). The signature is over \"p2p-sync/event/1\" and a zero byte, the group's id (32 zero bytes for
the first event) and the header. An event's id is SHA-256 over a zero byte and the header; the first one's is the group's.
";

/// One event; only what its bytes say, so that all devices write the same line for it.
#[derive(Debug, Serialize)]
struct Line {
    schema: &'static str,
    id: String,
    author: String,
    seq: u64,
    time: Option<String>,
    hlc: String,
    kind: &'static str,
    prev_root: String,
    seen: Vec<SeenJson>,
    items: Vec<ItemJson>,
    header: String,
    signature: String,
    body: String,
}

pub(super) async fn run(
    session: &mut Session<'_>,
    bundle: bool,
    output: Option<&Path>,
    force: bool,
) -> Result<(), Stop> {
    let output = output.map(|output| session.around.current_dir.join(output));
    if let Some(output) = &output {
        check_absent(output, force)?;
    }
    let mut page = page(session, String::new()).await?;
    let mut file = match &output {
        Some(output) => Some(NewFile::create(output, force)?),
        None => None,
    };
    if bundle {
        let group = &page.group_id;
        write(
            session,
            &mut file,
            format!("{PREAMBLE}group {group}\n\n").as_bytes(),
        )?;
    }
    let mut written = 0_u64;
    loop {
        for event in &page.events {
            written += 1;
            let bytes = if bundle { frame(event)? } else { line(event)? };
            write(session, &mut file, &bytes)?;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        page = self::page(session, page.next_page_token).await?;
    }
    if bundle {
        let end = [&[0; 8][..], &written.to_be_bytes()].concat();
        write(session, &mut file, &end)?;
    }
    if let Some(file) = file {
        file.finish()?;
        // Nothing is left to do if stderr is gone.
        let _ = writeln!(session.err, "wrote {} events", number(written));
    }
    Ok(())
}

fn write(session: &mut Session<'_>, file: &mut Option<NewFile>, bytes: &[u8]) -> Result<(), Stop> {
    match file {
        Some(file) => Ok(file.write(bytes)?),
        None => session.out.bytes(bytes),
    }
}

async fn page(session: &Session<'_>, page_token: String) -> Result<v1::ListEventsResponse, Failure> {
    let request = v1::ListEventsRequest {
        order: v1::EventOrder::Arrival.into(),
        oldest_first: true,
        page_size: PAGE,
        page_token,
        max_items: ALL_ITEMS,
        with_bytes: true,
        ..Default::default()
    };
    let call = async |mut client: LedgerClient| client.list_events(request).await;
    session.ask_ledger(CALL_TIMEOUT, call).await
}

fn frame(event: &v1::Event) -> Result<Vec<u8>, Failure> {
    let bad = || Failure::new(Exit::Protocol, "BAD_EVENT", "The daemon sent no whole event");
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map(u32::to_be_bytes);
    if event.header.is_empty() || event.signature.len() != 64 {
        return Err(bad());
    }
    let (header, body) = (length(&event.header), length(&event.body));
    let (header, body) = (header.map_err(|_| bad())?, body.map_err(|_| bad())?);
    let parts = [&header[..], &body, &event.signature, &event.header, &event.body];
    Ok(parts.concat())
}

fn line(event: &v1::Event) -> Result<Vec<u8>, Failure> {
    let line = Line {
        schema: "p2psync.ledger_export/1",
        id: event.id.clone(),
        author: event.author.clone().unwrap_or_default().id,
        seq: event.seq,
        time: event.time.map(|time| time.to_string()),
        hlc: event.hlc.to_string(),
        kind: kind(event.kind()),
        prev_root: hex(&event.prev_root),
        seen: seen(event),
        items: items(event),
        header: hex(&event.header),
        signature: hex(&event.signature),
        body: hex(&event.body),
    };
    let mut bytes = serde_json::to_vec(&line)
        .map_err(|e| Failure::new(Exit::Software, "INTERNAL", format!("Cannot write JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_the_bundle_says_of_itself() {
        let event = v1::Event {
            header: b"head".to_vec(),
            signature: vec![7; 64],
            body: b"bo".to_vec(),
            ..Default::default()
        };
        let frame = frame(&event).unwrap();
        assert_eq!(frame[..8], [0, 0, 0, 4, 0, 0, 0, 2]);
        assert_eq!(frame[8..72], [7; 64]);
        assert_eq!(frame[72..], *b"headbo");
        assert!(super::frame(&v1::Event::default()).is_err());
        assert!(!PREAMBLE.contains("\n\n"));
    }
}
