//! The thread that looks after old versions: it finds the contents of those that lack one, and removes what is too old
//! or too much, hourly and after much was replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use crate::worktree::{Kept, Retention};

/// Between two purges that nothing asked for.
const PURGE_INTERVAL: Duration = Duration::from_secs(3600);
/// Between two looks at how much was replaced.
const GROWTH_INTERVAL: Duration = Duration::from_secs(10);

/// The thread's handles.
#[derive(Debug)]
pub(crate) struct VersionsTask {
    end: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl VersionsTask {
    /// Ends the thread and waits for it. Blocks for as long as it takes to read a block or remove a file.
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.end);
        // It has nothing to hand over.
        let _ = self.thread.join();
    }
}

/// Starts the thread.
pub(crate) fn spawn(kept: Arc<Kept>, retention: Retention) -> std::io::Result<VersionsTask> {
    let (end, ended) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let thread = std::thread::Builder::new()
        .name("versions".to_owned())
        .spawn(move || run(&kept, &retention, &ended, &stopping))?;
    Ok(VersionsTask { end, stop, thread })
}

fn run(kept: &Kept, retention: &Retention, ended: &Receiver<()>, stop: &AtomicBool) {
    let mut next = Instant::now();
    loop {
        if next <= Instant::now() || kept.has_grown() {
            next = Instant::now() + PURGE_INTERVAL;
            purge(kept, retention);
            if let Err(error) = kept.complete(&|| stop.load(Ordering::Relaxed)) {
                warn!(path = %kept.path().display(), %error, "Cannot read old versions");
            }
        }
        match ended.recv_timeout(GROWTH_INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn purge(kept: &Kept, retention: &Retention) {
    match kept.purge(retention, SystemTime::now()) {
        Ok(purged) if purged.files > 0 => {
            info!(files = purged.files, bytes = purged.bytes, "Removed old versions");
        }
        Ok(_) => {}
        Err(error) => warn!(path = %kept.path().display(), %error, "Cannot remove old versions"),
    }
}
