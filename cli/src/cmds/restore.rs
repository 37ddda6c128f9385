//! `syncctl restore`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use p2p_sync_proto::v1::read_version_response::Part;
use p2p_sync_proto::{reason, v1};
use serde::Serialize;

use crate::Session;
use crate::cmds::history::{VersionJson, author, time};
use crate::cmds::place;
use crate::exit::{Exit, Failure};
use crate::output::{JsonPath, Stop, escape, number, size};

/// Paths named that could not be restored; the rest is counted.
const PROBLEMS_SHOWN: usize = 20;

/// Which version is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) version: Option<String>,
    pub(crate) before: Option<SystemTime>,
}

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    output: Option<JsonPath>,
    version: Option<VersionJson>,
    restored: u64,
    unchanged: u64,
    failed: u64,
    problems: Vec<ProblemJson>,
}

#[derive(Debug, Serialize)]
struct ProblemJson {
    #[serde(flatten)]
    path: JsonPath,
    not_at_hand: bool,
    reason: String,
}

pub(crate) async fn run(
    session: &mut Session<'_>,
    path: OsString,
    wanted: Wanted,
    output: Option<PathBuf>,
) -> Result<(), Stop> {
    let path = place::of(session, &path).await?;
    match output {
        Some(output) => write_out(session, path, wanted, output).await,
        None => put_back(session, path, wanted).await,
    }
}

async fn put_back(session: &mut Session<'_>, path: Vec<u8>, wanted: Wanted) -> Result<(), Stop> {
    use v1::restore_request::Pick;
    let pick = wanted
        .version
        .map(Pick::Version)
        .or_else(|| wanted.before.map(|time| Pick::Before(time.into())));
    let request = v1::RestoreRequest {
        path: path.clone(),
        pick,
    };
    let mut problems = Vec::new();
    let restore = async {
        let mut client = session.client().await?;
        let mut steps = client.restore(request).await?.into_inner();
        while let Some(mut step) = steps.message().await? {
            problems.append(&mut step.problems);
            if step.done {
                return Ok(step);
            }
        }
        Err(ended())
    };
    let last = match session.global.timeout {
        Some(limit) => tokio::time::timeout(limit, restore)
            .await
            .unwrap_or_else(|_| Err(crate::time_is_up(limit))),
        None => restore.await,
    };
    let last = last.map_err(|failure| advise(failure, &path))?;
    let json = Json {
        schema: "p2psync.restore/1",
        path: JsonPath::new(&path),
        output: None,
        version: last.version.as_ref().map(VersionJson::of),
        restored: last.restored,
        unchanged: last.unchanged,
        failed: last.failed,
        problems: problems.iter().map(problem).collect(),
    };
    session.out.answer(&json, || words(&path, &last))?;
    if last.failed == 0 {
        return Ok(());
    }
    if !session.out.json {
        for problem in problems.iter().take(PROBLEMS_SHOWN) {
            // Nothing is left to do if stderr is gone.
            let _ = writeln!(
                session.err,
                "not restored: {}: {}",
                escape(&problem.path),
                escape(problem.reason.as_bytes())
            );
        }
    }
    Err(not_all(&last, &problems).into())
}

fn problem(problem: &v1::RestoreProblem) -> ProblemJson {
    ProblemJson {
        path: JsonPath::new(&problem.path),
        not_at_hand: problem.not_at_hand,
        reason: problem.reason.clone(),
    }
}

fn words(path: &[u8], last: &v1::RestoreResponse) -> String {
    match &last.version {
        Some(_) if last.failed > 0 => "restored 0 paths".to_owned(),
        Some(version) if last.unchanged > 0 => {
            format!("{} is version {} already", escape(path), version.id)
        }
        Some(version) => format!(
            "restored {} to version {} of {} by {}\nwhat stood there is kept: syncctl history {}",
            escape(path),
            version.id,
            time(version),
            author(version),
            escape(path)
        ),
        None => format!(
            "restored {} paths, {} were as they had been, {} could not be restored",
            number(last.restored),
            number(last.unchanged),
            number(last.failed)
        ),
    }
}

fn not_all(last: &v1::RestoreResponse, problems: &[v1::RestoreProblem]) -> Failure {
    let missing = problems.iter().filter(|problem| problem.not_at_hand).count();
    let text = format!(
        "{} paths were not restored; of {} no connected device has the bytes",
        number(last.failed),
        number(u64::try_from(missing).unwrap_or(u64::MAX))
    );
    let failure = Failure::new(Exit::No, "NOT_ALL_RESTORED", text);
    if missing > 0 {
        failure.hint("connect a device that may have them and try again: syncctl peers")
    } else {
        failure.hint("write a version elsewhere: syncctl restore PATH -o FILE")
    }
}

fn advise(failure: Failure, path: &[u8]) -> Failure {
    let path = escape(path);
    match failure.reason.as_str() {
        reason::ROLE_TOO_LOW => failure.hint(format!("write it elsewhere: syncctl restore {path} -o FILE")),
        reason::NO_SUCH_VERSION => failure.hint(format!("see what there is: syncctl history {path}")),
        _ => failure,
    }
}

fn ended() -> Failure {
    Failure::new(Exit::Unavailable, "STREAM_ENDED", "The daemon ended the stream")
        .hint("see whether it runs: syncctl status")
}

async fn write_out(
    session: &mut Session<'_>,
    path: Vec<u8>,
    wanted: Wanted,
    output: PathBuf,
) -> Result<(), Stop> {
    use v1::read_version_request::Pick;
    let output = session.around.current_dir.join(output);
    if output.symlink_metadata().is_ok() {
        return Err(exists(&output).into());
    }
    let pick = wanted
        .version
        .map(Pick::Version)
        .or_else(|| wanted.before.map(|time| Pick::Before(time.into())));
    let request = v1::ReadVersionRequest {
        path: path.clone(),
        pick,
    };
    let read = async {
        let mut client = session.client().await?;
        let mut parts = client.read_version(request).await?.into_inner();
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(Part::Version(version)) = first else {
            return Err(ended());
        };
        let mut target = Target::create(&output, &version)?;
        while let Some(message) = parts.message().await? {
            if let Some(Part::Data(bytes)) = message.part {
                target.write(&bytes)?;
            }
        }
        target.finish(&version)?;
        Ok(version)
    };
    let version = match session.global.timeout {
        Some(limit) => tokio::time::timeout(limit, read)
            .await
            .unwrap_or_else(|_| Err(crate::time_is_up(limit))),
        None => read.await,
    };
    let version = version.map_err(|failure| advise(failure, &path))?;
    let json = Json {
        schema: "p2psync.restore/1",
        path: JsonPath::new(&path),
        output: Some(JsonPath::new(output.as_os_str().as_bytes())),
        version: Some(VersionJson::of(&version)),
        restored: 1,
        unchanged: 0,
        failed: 0,
        problems: Vec::new(),
    };
    session.out.answer(&json, || {
        format!(
            "wrote version {} of {} ({}) to {}",
            version.id,
            escape(&path),
            size(version.size),
            escape(output.as_os_str().as_bytes())
        )
    })
}

/// The file that a version is written to; removed again unless it is finished.
struct Target<'p> {
    path: &'p Path,
    file: Option<File>,
    written: u64,
    finished: bool,
}

impl<'p> Target<'p> {
    fn create(path: &'p Path, version: &v1::PathVersion) -> Result<Self, Failure> {
        let made = match version.kind() {
            v1::VersionKind::File => {
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map(Some)
            }
            v1::VersionKind::Link => {
                let text = std::ffi::OsStr::from_bytes(&version.target);
                std::os::unix::fs::symlink(text, path).map(|()| None)
            }
            v1::VersionKind::Unspecified | v1::VersionKind::Directory | v1::VersionKind::Deleted => {
                let text = "That version is a directory, which has no bytes to write";
                return Err(Failure::new(Exit::No, "NOT_A_FILE", text)
                    .hint("restore what was in it: syncctl restore --before TIME PATH"));
            }
        };
        match made {
            Ok(file) => Ok(Self {
                path,
                file,
                written: 0,
                finished: false,
            }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            Err(e) => Err(cannot("write", path, &e)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes)
                .map_err(|e| cannot("write", self.path, &e))?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self, version: &v1::PathVersion) -> Result<(), Failure> {
        if let Some(file) = &self.file {
            if self.written != version.size {
                return Err(ended());
            }
            let done = file
                .set_permissions(Permissions::from_mode(version.mode & 0o777))
                .and_then(|()| file.set_modified(modified(version.mtime_ns)))
                .and_then(|()| file.sync_all());
            done.map_err(|e| cannot("finish", self.path, &e))?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is at least not complete, and says so by its mode.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn modified(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

fn exists(path: &Path) -> Failure {
    let text = format!(
        "{} is there already and stays",
        escape(path.as_os_str().as_bytes())
    );
    Failure::new(Exit::CantCreate, "OUTPUT_EXISTS", text).hint("choose another name: -o FILE")
}

fn cannot(act: &str, path: &Path, e: &io::Error) -> Failure {
    let text = format!("Cannot {act} {}: {e}", escape(path.as_os_str().as_bytes()));
    Failure::new(Exit::CantCreate, "IO", text).hint("choose another place: -o FILE")
}
