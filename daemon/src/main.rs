//! The daemon's command: reads the configuration, runs the daemon until it is told to stop, and says in one line why it
//! cannot.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use p2p_sync_daemon::config::{Cli, EXIT_CONFIG, MaxSize, Settings, Subcommand, print_first_start};
use p2p_sync_daemon::daemon::{Daemon, DaemonError, Options};
use p2p_sync_daemon::ignore_rules::RuleSource;
use p2p_sync_daemon::worktree::{Retention, SizeLimit};
use p2p_sync_daemon::{demo, error_chain};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The exit code for wrong arguments (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// The exit code when another daemon has the folder, the store or the socket, or the disk refuses (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;

const _: () = assert!(
    !p2p_sync_core::signature::ARE_FORGEABLE,
    "forgeable-signatures is for the simulator only"
);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_USAGE)
            };
        }
    };
    match &cli.command {
        Some(Subcommand::Demo { source_dir }) => run_demo(source_dir.as_deref()),
        None => run_daemon(&cli),
    }
}

#[expect(clippy::print_stdout, reason = "the demo is for reading")]
fn run_demo(source: Option<&std::path::Path>) -> ExitCode {
    start_log("warn");
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, EXIT_UNAVAILABLE),
    };
    match runtime.block_on(demo::run(source, &mut |line| println!("{line}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

#[expect(clippy::print_stdout, reason = "the first start tells how to go on")]
fn run_daemon(cli: &Cli) -> ExitCode {
    let settings = match Settings::resolve(cli) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    if cli.check_config {
        print!("{}", settings.summary());
        return ExitCode::SUCCESS;
    }
    // Directories of the folder have the modes that the group gave them, at once; whatever else is made says its own.
    rustix::process::umask(rustix::fs::Mode::empty());
    start_log(&settings.log);
    let options = match options(&settings, cli.rebind) {
        Ok(options) => options,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, EXIT_UNAVAILABLE),
    };
    let result = runtime.block_on(async {
        let stop = StopSignals::listen().map_err(DaemonError::Thread)?;
        let daemon = Daemon::start(options)?;
        if daemon.is_fresh()
            && let Some(socket) = daemon.socket()
        {
            print!(
                "{}",
                print_first_start(&settings, &daemon.device().to_hex(), socket)
            );
        }
        daemon.run_until(stop.wait()).await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, EXIT_UNAVAILABLE),
    }
}

/// SIGTERM and SIGINT, caught from before the daemon starts, so that none is missed; and SIGXFSZ, so that a file that
/// grows beyond the system's limit for it is an error at that file and not the daemon's end.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    _file_too_large: Signal,
}

impl StopSignals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn options(settings: &Settings, rebind: bool) -> Result<Options, libp2p::multiaddr::Error> {
    let listen = settings
        .listen
        .iter()
        .map(|address| address.parse())
        .collect::<Result<_, _>>()?;
    Ok(Options {
        folder: settings.folder.clone(),
        state_dir: settings.state_dir.clone(),
        socket: Some(settings.socket.clone()),
        control_group: settings.group.clone(),
        control_read_only_group: settings.read_only_group.clone(),
        listen,
        fallback_port: settings.listen_is_default,
        peers: settings.peers.clone(),
        name: settings.name.clone(),
        join: settings.join.clone(),
        mdns: settings.mdns,
        lan_pairing: settings.lan_pairing,
        trust_lan: settings.trust_lan,
        ignore: RuleSource::new(
            settings.default_ignores,
            settings.ignore.clone(),
            &settings.folder,
        ),
        retention: Retention {
            keep: settings.keep_versions,
            max_size: match settings.max_versions {
                MaxSize::Bytes(bytes) => SizeLimit::Bytes(bytes),
                MaxSize::Percent(percent) => SizeLimit::Percent(percent),
            },
        },
        min_free: settings.min_free,
        author_quota: settings.author_quota,
        rebind,
        delete_guard: settings.delete_guard,
        modes: match settings.modes {
            p2p_sync_daemon::config::Modes::Full => p2p_sync_daemon::root_dir::Modes::Full,
            p2p_sync_daemon::config::Modes::Exec => p2p_sync_daemon::root_dir::Modes::Exec,
        },
    })
}

/// Logs to stderr: without times under systemd, which adds its own.
fn start_log(filter: &str) {
    let filter = EnvFilter::try_from_env("P2P_SYNC_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failure is told")]
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("error: {}", error_chain(error));
    ExitCode::from(code)
}
