//! `syncctl`: drives the p2p-sync daemon over its control socket.
//!
//! Data goes to stdout, words to stderr. Every answer exists as JSON with a versioned `schema`; keys are never left
//! out (null stands for nothing), fields may be added. A reader that closes the pipe early is no error.

mod args;
mod client;
mod cmds;
mod exit;
mod output;
mod view;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::args::{
    Cli, Command, DeviceCommand, Global, InviteCommand, LedgerCommand, MemberCommand, PeersCommand,
    QuarantineCommand, RecoveryCommand,
};
use crate::client::{CONNECT_PATIENCE, Client, LedgerClient, Surroundings};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Stop};

/// How long a call may take unless `--timeout` says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A join dials every address of the ticket and gets the group's history; the daemon itself gives up after 120 s.
const JOIN_TIMEOUT: Duration = Duration::from_secs(130);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            let _ = writeln!(err, "error: Cannot start: {e}");
            return ExitCode::from(Exit::Software as u8);
        }
    };
    let pipe = std::io::stdout();
    let around = Surroundings::current();
    let mut stdin = std::io::stdin().lock();
    let input = Typist {
        is_terminal: stdin.is_terminal(),
        reader: &mut stdin,
    };
    let exit = runtime.block_on(run(
        std::env::args_os(),
        &around,
        input,
        &mut out,
        Some(pipe.as_fd()),
        &mut err,
    ));
    ExitCode::from(exit as u8)
}

/// Runs one command line; all that the program does, with its surroundings as arguments.
async fn run<'a>(
    args: impl IntoIterator<Item = OsString>,
    around: &'a Surroundings,
    input: Typist<'a>,
    out: &'a mut dyn Write,
    pipe: Option<BorrowedFd<'a>>,
    err: &'a mut dyn Write,
) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return show_usage(&error, out, err),
    };
    let json = cli.global.json;
    let mut session = Session {
        global: cli.global,
        around,
        input,
        out: Output {
            writer: out,
            json,
            is_terminal: pipe.is_some_and(|fd| fd.is_terminal()),
            pipe,
        },
        err,
    };
    match dispatch(cli.command, &mut session).await {
        Ok(()) | Err(Stop::ReaderGone) => Exit::Ok,
        Err(Stop::Failed(failure)) => {
            show_failure(&failure, json, session.err);
            failure.exit
        }
    }
}

/// Where answers to questions come from.
pub(crate) struct Typist<'a> {
    pub(crate) reader: &'a mut dyn BufRead,
    /// Whether somebody sits there.
    pub(crate) is_terminal: bool,
}

/// What a command works with.
pub(crate) struct Session<'a> {
    pub(crate) global: Global,
    pub(crate) around: &'a Surroundings,
    pub(crate) input: Typist<'a>,
    pub(crate) out: Output<'a>,
    pub(crate) err: &'a mut dyn Write,
}

impl Session<'_> {
    /// Connects to the daemon.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.channel().await.map(Client::new)
    }

    /// Connects to the daemon, to ask about the ledger.
    pub(crate) async fn ledger(&self) -> Result<LedgerClient, Failure> {
        self.channel().await.map(LedgerClient::new)
    }

    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        let patience = self.timeout(CALL_TIMEOUT).min(CONNECT_PATIENCE);
        client::connect(&client::find_socket(&self.global, self.around)?, patience).await
    }

    /// Connects, makes a call, and gives up when the time is up.
    pub(crate) async fn call<T>(
        &self,
        otherwise: Duration,
        call: impl AsyncFnOnce(Client) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, Failure> {
        self.in_time(otherwise, async {
            Ok(call(self.client().await?).await?.into_inner())
        })
        .await
    }

    /// Makes a call of any of the daemon's services, as [`Session::call`] does.
    pub(crate) async fn call_on<T>(
        &self,
        otherwise: Duration,
        call: impl AsyncFnOnce(Channel) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, Failure> {
        self.in_time(otherwise, async {
            Ok(call(self.channel().await?).await?.into_inner())
        })
        .await
    }

    /// Like [`call`](Self::call), for the ledger.
    pub(crate) async fn ask_ledger<T>(
        &self,
        otherwise: Duration,
        call: impl AsyncFnOnce(LedgerClient) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, Failure> {
        self.in_time(otherwise, async {
            Ok(call(self.ledger().await?).await?.into_inner())
        })
        .await
    }

    async fn in_time<T>(
        &self,
        otherwise: Duration,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let timeout = self.timeout(otherwise);
        match tokio::time::timeout(timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(time_is_up(timeout)),
        }
    }

    pub(crate) fn timeout(&self, otherwise: Duration) -> Duration {
        self.global.timeout.unwrap_or(otherwise)
    }
}

/// Returns the failure of a call that took too long.
pub(crate) fn time_is_up(timeout: Duration) -> Failure {
    Failure::new(Exit::TempFail, "TIMEOUT", format!("No answer in {timeout:?}"))
        .hint("allow more time: --timeout 60s")
}

async fn dispatch(command: Option<Command>, session: &mut Session<'_>) -> Result<(), Stop> {
    match command {
        None => cmds::overview::run(session).await,
        Some(Command::Status) => cmds::status::run(session).await,
        Some(Command::Peers {
            command: None | Some(PeersCommand::List),
        }) => cmds::peers::list(session).await,
        Some(Command::Peers {
            command: Some(PeersCommand::Connect { address }),
        }) => cmds::peers::connect(session, address).await,
        Some(Command::Watch) => cmds::watch::run(session).await,
        Some(Command::Wait { condition }) => {
            let deadline = session.global.timeout.map(|t| Instant::now() + t);
            cmds::wait::run(session, condition, deadline).await
        }
        Some(Command::Invite {
            command: InviteCommand::Create(wanted),
        }) => cmds::invite::create(session, wanted).await,
        Some(Command::Invite {
            command: InviteCommand::List,
        }) => cmds::invite::list(session).await,
        Some(Command::Invite {
            command: InviteCommand::Revoke { invite, yes },
        }) => cmds::invite::revoke(session, invite, yes).await,
        Some(Command::Member {
            command: None | Some(MemberCommand::List),
        }) => cmds::member::list(session).await,
        Some(Command::Member {
            command: Some(MemberCommand::Role(wanted)),
        }) => cmds::member::role(session, wanted).await,
        Some(Command::Member {
            command: Some(MemberCommand::Person(wanted)),
        }) => cmds::member::person(session, wanted).await,
        Some(Command::Member {
            command: Some(MemberCommand::Remove(wanted)),
        }) => cmds::member::remove(session, wanted).await,
        Some(Command::Recovery { command }) => match command {
            RecoveryCommand::Show => cmds::recovery::show(session).await,
            RecoveryCommand::Use => cmds::recovery::take(session).await,
        },
        Some(Command::Device { command }) => match command {
            DeviceCommand::Id => cmds::device::id(session).await,
            DeviceCommand::Rename { name } => cmds::device::rename(session, name).await,
        },
        Some(Command::Join {
            ticket,
            keep_both,
            prefer_group,
            dry_run,
        }) => {
            let choice = cmds::join::choice(keep_both, prefer_group);
            cmds::join::run(session, ticket, choice, dry_run).await
        }
        Some(Command::Approve {
            device,
            code,
            role,
            person,
        }) => match (device, code) {
            (Some(device), Some(code)) => cmds::pairing::approve(session, device, code, role, person).await,
            _ => cmds::pairing::list_requests(session).await,
        },
        Some(Command::Rescan { path }) => cmds::rescan::run(session, path).await,
        Some(Command::Journal) => cmds::journal::run(session).await,
        Some(Command::History { path, skip, limit }) => cmds::history::run(session, path, skip, limit).await,
        Some(Command::Ledger { command }) => cmds::ledger::run(session, command).await,
        Some(Command::Log(args)) => cmds::ledger::run(session, LedgerCommand::Log(args)).await,
        Some(Command::Restore {
            path,
            version,
            before,
            output,
        }) => {
            let wanted = cmds::restore::Wanted { version, before };
            cmds::restore::run(session, path, wanted, output).await
        }
        Some(Command::Quarantine { command }) => match command {
            QuarantineCommand::List => cmds::quarantine::list(session).await,
            QuarantineCommand::Accept { path, version } => {
                cmds::quarantine::accept(session, path, version).await
            }
            QuarantineCommand::Drop { path, version, yes } => {
                cmds::quarantine::drop(session, path, version, yes).await
            }
        },
        Some(Command::Lock {
            path,
            lasts,
            note,
            wait,
        }) => {
            let wanted = cmds::locks::Wanted {
                path,
                lasts,
                note,
                wait,
            };
            cmds::locks::lock(session, wanted).await
        }
        Some(Command::Unlock { path, force, reason }) => {
            if force {
                cmds::locks::force(session, &path, reason.unwrap_or_default()).await
            } else {
                cmds::locks::unlock(session, &path).await
            }
        }
        Some(Command::Locks { mine, theirs }) => {
            cmds::locks::list(session, (mine || theirs).then_some(mine)).await
        }
        Some(Command::Voters { command }) => cmds::voters::run(session, command).await,
        Some(Command::ConfirmDeletes { restore }) => cmds::guards::confirm_deletes(session, restore).await,
        Some(Command::Why { path }) => cmds::why::run(session, path).await,
        Some(Command::Pause) => cmds::guards::pause(session).await,
        Some(Command::Resume) => cmds::guards::resume(session).await,
        Some(Command::Leave { yes }) => cmds::guards::leave(session, yes).await,
    }
}

fn show_usage(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(out, "{error}");
            Exit::Ok
        }
        _ => {
            let _ = write!(err, "{error}");
            Exit::Usage
        }
    }
}

fn show_failure(failure: &Failure, json: bool, err: &mut dyn Write) {
    // Nothing is left to do if stderr is gone, too.
    if json {
        let _ = writeln!(err, "{}", failure.to_json());
        return;
    }
    let _ = writeln!(err, "error: {}", output::escape(failure.message.as_bytes()));
    if let Some(hint) = &failure.hint {
        let _ = writeln!(err, "  hint: {hint}");
    }
}
