//! Two instances of Syncthing that know only each other: no discovery, no relays, the shortest watcher delay it allows.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::contender::{Contender, sum};
use crate::harness::{Usage, free_port, wait_until};

/// The key for the local HTTP interface.
const API_KEY: &str = "bench";
/// How long starting and connecting may take.
const START_MOST: Duration = Duration::from_secs(120);

/// Two running instances.
pub(crate) struct Syncthing {
    home: TempDir,
    ends: Vec<End>,
}

struct End {
    id: String,
    config_dir: PathBuf,
    folder: PathBuf,
    sync_port: u16,
    api_port: u16,
    process: Option<Child>,
}

/// Makes and starts both.
pub(crate) fn start(below: &Path) -> Result<Syncthing> {
    let home = TempDir::new_in(below).context("Making a directory")?;
    let mut syncthing = Syncthing {
        ends: Vec::new(),
        home,
    };
    for name in ["a", "b"] {
        syncthing.ends.push(End::new(&syncthing.home.path().join(name))?);
    }
    for number in 0..2 {
        let config = syncthing.config(number);
        let end = &mut syncthing.ends[number];
        fs::write(end.config_dir.join("config.xml"), config).context("Writing Syncthing's configuration")?;
        end.start()?;
    }
    wait_until("Syncthing to connect", START_MOST, || {
        for end in &syncthing.ends {
            let connected = end.api("system/connections").is_ok_and(|answer| {
                let peers = answer["connections"].as_object();
                peers.is_some_and(|peers| peers.values().any(|peer| peer["connected"] == true))
            });
            let idle = end
                .api("db/status?folder=f")
                .is_ok_and(|answer| answer["state"] == "idle");
            if !(connected && idle) {
                return Ok(Err(format!("{} is not ready", end.folder.display())));
            }
        }
        Ok(Ok(()))
    })?;
    Ok(syncthing)
}

impl Contender for Syncthing {
    fn name(&self) -> &'static str {
        "Syncthing"
    }

    fn folders(&self) -> [PathBuf; 2] {
        [0, 1].map(|number| self.ends[number].folder.clone())
    }

    fn staging(&self) -> &Path {
        self.home.path()
    }

    fn usage(&self) -> Result<Usage> {
        let processes = self.ends.iter().filter_map(|end| end.process.as_ref());
        Ok(sum(&processes
            .map(|process| Usage::of(process.id()))
            .collect::<Result<Vec<_>>>()?))
    }
}

impl Syncthing {
    fn config(&self, number: usize) -> String {
        let end = &self.ends[number];
        let mut devices = String::new();
        let mut members = String::new();
        for (other, peer) in self.ends.iter().enumerate() {
            let address = if other == number {
                "dynamic".to_owned()
            } else {
                format!("tcp://127.0.0.1:{}", peer.sync_port)
            };
            devices += &format!(
                "<device id=\"{}\" name=\"{other}\"><address>{address}</address></device>\n",
                peer.id
            );
            members += &format!("<device id=\"{}\"/>", peer.id);
        }
        format!(
            "<configuration version=\"36\">\n\
             <folder id=\"f\" label=\"f\" path=\"{folder}\" type=\"sendreceive\" rescanIntervalS=\"3600\" \
             fsWatcherEnabled=\"true\" fsWatcherDelayS=\"1\">{members}</folder>\n{devices}\
             <gui enabled=\"true\" tls=\"false\"><address>127.0.0.1:{api}</address><apikey>{API_KEY}</apikey></gui>\n\
             <options><listenAddress>tcp://127.0.0.1:{sync}</listenAddress>\
             <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
             <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted>\
             <crashReportingEnabled>false</crashReportingEnabled><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
             <reconnectionIntervalS>5</reconnectionIntervalS><startBrowser>false</startBrowser></options>\n\
             </configuration>\n",
            folder = end.folder.display(),
            api = end.api_port,
            sync = end.sync_port,
        )
    }
}

impl End {
    fn new(home: &Path) -> Result<Self> {
        let (config_dir, folder) = (home.join("config"), home.join("folder"));
        fs::create_dir_all(folder.join(".stfolder")).context("Making a directory")?;
        let mut end = Self {
            id: String::new(),
            config_dir,
            folder,
            sync_port: free_port()?,
            api_port: free_port()?,
            process: None,
        };
        let made = end
            .command(&["generate", "--no-default-folder"])
            .output()
            .context("Starting Syncthing")?;
        ensure!(
            made.status.success(),
            "syncthing generate: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let id = end
            .command(&["serve", "--device-id"])
            .output()
            .context("Asking Syncthing for its id")?;
        end.id = String::from_utf8_lossy(&id.stdout).trim().to_owned();
        ensure!(
            !end.id.is_empty(),
            "syncthing tells no id: {}",
            String::from_utf8_lossy(&id.stderr)
        );
        Ok(end)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("syncthing");
        command
            .args(args)
            .arg("--home")
            .arg(&self.config_dir)
            .stdin(Stdio::null());
        command
            .env("STNOUPGRADE", "1")
            .env("HOME", &self.config_dir)
            .env("STMONITORED", "yes");
        command
    }

    fn start(&mut self) -> Result<()> {
        let mut command = self.command(&["serve", "--no-browser", "--no-restart"]);
        self.process = Some(
            command
                .stdout(Stdio::null())
                .spawn()
                .context("Starting Syncthing")?,
        );
        Ok(())
    }

    /// Asks the local HTTP interface; HTTP/1.0, so that the answer ends with the connection.
    fn api(&self, path: &str) -> Result<Value> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.api_port)).context("Connecting to Syncthing")?;
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .context("Setting a limit")?;
        write!(
            stream,
            "GET /rest/{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nX-API-Key: {API_KEY}\r\n\r\n"
        )
        .context("Asking Syncthing")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("Reading Syncthing's answer")?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .context("Syncthing's answer has no body")?;
        serde_json::from_str(body).context("Reading Syncthing's answer")
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Either fails only if the process is gone, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
