//! `syncctl ledger` and `syncctl log`.

mod check_proof;
mod event;
mod export;
mod file;
mod log;
mod prove;
mod show;
mod verify;

use crate::Session;
use crate::args::LedgerCommand;
use crate::exit::{Exit, Failure};
use crate::output::Stop;

pub(crate) async fn run(session: &mut Session<'_>, command: LedgerCommand) -> Result<(), Stop> {
    match command {
        LedgerCommand::Log(args) if args.follow => log::follow(session, args.limit).await,
        LedgerCommand::Log(args) => log::list(session, args).await,
        LedgerCommand::Show { event, genesis: _ } => show::run(session, event).await,
        LedgerCommand::Verify { fast, full: _ } => verify::run(session, fast).await,
        LedgerCommand::Prove {
            what,
            event,
            item,
            output,
            force,
        } => {
            let wanted = prove::Wanted { what, event, item };
            prove::run(session, wanted, &output, force).await
        }
        LedgerCommand::CheckProof { file, genesis } => check_proof::run(session, &file, &genesis),
        LedgerCommand::Export {
            bundle,
            output,
            force,
            jsonl: _,
        } => export::run(session, bundle, output.as_deref(), force).await,
    }
}

/// The daemon ended a stream that it should not have ended.
fn ended() -> Failure {
    Failure::new(Exit::Unavailable, "STREAM_ENDED", "The daemon ended the stream")
        .hint("see whether it runs: syncctl status")
}
