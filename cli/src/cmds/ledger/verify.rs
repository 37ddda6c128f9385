//! `syncctl ledger verify`.

use std::time::Duration;

use p2p_sync_proto::v1;
use serde::Serialize;
use tokio::time::Instant;

use super::ended;
use crate::Session;
use crate::exit::{Exit, Failure};
use crate::output::{Stop, escape, number};
use crate::view::{DeviceJson, device_words};

/// Between two words about how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    group: String,
    mode: &'static str,
    ok: bool,
    events: u64,
    devices: u32,
    faults_total: u64,
    faults: Vec<FaultJson>,
}

#[derive(Debug, Serialize)]
struct FaultJson {
    device: DeviceJson,
    seq: u64,
    problem: String,
}

pub(super) async fn run(session: &mut Session<'_>, fast: bool) -> Result<(), Stop> {
    let started = Instant::now();
    let limit = session.global.timeout;
    let check = check(session, fast);
    let checked = match limit {
        Some(limit) => tokio::time::timeout(limit, check)
            .await
            .unwrap_or_else(|_| Err(crate::time_is_up(limit).into())),
        None => check.await,
    };
    let (last, faults) = checked?;
    let json = Json {
        schema: "p2psync.ledger_verify/1",
        group: last.group_id.clone(),
        mode: if fast { "fast" } else { "full" },
        ok: last.faults_total == 0,
        events: last.checked,
        devices: last.devices,
        faults_total: last.faults_total,
        faults: faults.iter().map(fault).collect(),
    };
    let took = started.elapsed();
    session.out.answer(&json, || words(&last, &faults, fast, took))?;
    if last.faults_total == 0 {
        return Ok(());
    }
    let text = format!("The ledger has {} faults", number(last.faults_total));
    Err(Failure::new(Exit::Data, "LEDGER_DAMAGED", text)
        .hint("the disk or another program has changed the store: check the disk; a device that is set up anew gets the ledger from the others")
        .into())
}

async fn check(
    session: &mut Session<'_>,
    fast: bool,
) -> Result<(v1::VerifyLedgerResponse, Vec<v1::LedgerFault>), Stop> {
    let mut client = session.ledger().await?;
    let request = v1::VerifyLedgerRequest { fast };
    let mut steps = client.verify_ledger(request).await?.into_inner();
    let mut faults = Vec::new();
    let mut told = Instant::now();
    while let Some(mut step) = steps.message().await? {
        faults.append(&mut step.faults);
        if step.done {
            return Ok((step, faults));
        }
        if told.elapsed() >= PROGRESS && !session.out.json {
            told = Instant::now();
            let (checked, total) = (number(step.checked), number(step.total));
            // Nothing is left to do if stderr is gone.
            let _ = writeln!(session.err, "checked {checked} of {total} events");
        }
    }
    Err(ended().into())
}

fn fault(fault: &v1::LedgerFault) -> FaultJson {
    FaultJson {
        device: fault.device.clone().unwrap_or_default().into(),
        seq: fault.seq,
        problem: fault.problem.clone(),
    }
}

fn words(last: &v1::VerifyLedgerResponse, faults: &[v1::LedgerFault], fast: bool, took: Duration) -> String {
    let mut text = format!(
        "checked {} events of {} devices in {:.1} s: ",
        number(last.checked),
        last.devices,
        took.as_secs_f64()
    );
    if faults.is_empty() {
        text.push_str(if fast {
            "chains and counts ok\n"
        } else {
            "signatures ok, items ok, chains ok, clocks ok, seen events ok, admissions ok\n"
        });
        return text;
    }
    text.push_str(&format!("{} faults\n", number(last.faults_total)));
    for fault in faults {
        let device = fault.device.as_ref().map(device_words).unwrap_or_default();
        let problem = escape(fault.problem.as_bytes());
        text.push_str(&format!("{device}:{}  {problem}\n", fault.seq));
    }
    let hidden = last.faults_total.saturating_sub(faults.len() as u64);
    if hidden > 0 {
        text.push_str(&format!("and {} more\n", number(hidden)));
    }
    text
}
