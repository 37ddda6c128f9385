//! `syncctl rescan`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::cmds::status;
use crate::exit::{Exit, Failure};
use crate::output::{JsonPath, Stop, escape, unescape};
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    #[serde(flatten)]
    path: JsonPath,
}

pub(crate) async fn run(session: &mut Session<'_>, path: Option<OsString>) -> Result<(), Stop> {
    let path = match path {
        Some(path) => in_folder(session, &path).await?,
        None => Vec::new(),
    };
    let request = v1::RescanRequest { path: path.clone() };
    session
        .call(CALL_TIMEOUT, async |mut client: Client| {
            client.rescan(request).await
        })
        .await?;
    let json = Json {
        schema: "p2psync.rescan/1",
        path: JsonPath::new(&path),
    };
    session.out.answer(&json, || match path.as_slice() {
        [] => "Scanning the folder; wait for it with: syncctl wait --for in-sync".to_owned(),
        _ => format!(
            "Scanning {}; wait for it with: syncctl wait --for in-sync",
            escape(&path)
        ),
    })
}

/// Returns a path as it was typed as one below the folder.
pub(crate) async fn in_folder(session: &Session<'_>, path: &OsStr) -> Result<Vec<u8>, Failure> {
    if path.as_bytes().starts_with(b"/") {
        let folder = status::fetch(session).await?.folder.unwrap_or_default().path;
        return below(&folder, &unescape(path.as_bytes()));
    }
    Ok(clean(&unescape(path.as_bytes())))
}

/// Takes `./` and slashes away where a shell's completion puts them; `.` is the whole folder.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    if path == b"." { Vec::new() } else { path.to_vec() }
}

/// Returns the part of an absolute path below the folder.
fn below(folder: &[u8], path: &[u8]) -> Result<Vec<u8>, Failure> {
    let (folder, path) = (
        Path::new(OsStr::from_bytes(folder)),
        Path::new(OsStr::from_bytes(path)),
    );
    // The folder's path is real; what was typed may lead there over a link.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let rest = path.strip_prefix(folder).or_else(|_| real.strip_prefix(folder));
    rest.map(|rest| rest.as_os_str().as_bytes().to_vec())
        .map_err(|_| {
            let text = format!("{} is not in the folder {}", path.display(), folder.display());
            Failure::new(Exit::Usage, "BAD_PATH", text)
                .hint("give a path below the folder, for example: syncctl rescan docs")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_must_lie_in_the_folder() {
        assert_eq!(below(b"/srv/sync", b"/srv/sync/a/b").unwrap(), b"a/b");
        assert_eq!(below(b"/srv/sync", b"/srv/sync/").unwrap(), b"");
        assert_eq!(
            below(b"/srv/sync", b"/srv/syncing/a").unwrap_err().exit,
            Exit::Usage
        );
        let temp = tempfile::tempdir().unwrap();
        let real = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("folder/a")).unwrap();
        std::os::unix::fs::symlink(real.join("folder"), real.join("link")).unwrap();
        let (folder, typed) = (real.join("folder"), real.join("link/a"));
        let found = below(folder.as_os_str().as_bytes(), typed.as_os_str().as_bytes());
        assert_eq!(found.unwrap(), b"a");
    }

    #[test]
    fn a_completed_path_loses_its_slashes() {
        assert_eq!(clean(b"./docs/"), b"docs");
        assert_eq!(clean(b"docs"), b"docs");
        assert_eq!(clean(b"."), b"");
        assert_eq!(clean(b"./"), b"");
    }
}
