//! The fakes of a device's store, scanner, transfer and local discovery at work.

use p2p_sync_core::engine::{Batch, FetchFailure, FetchJob, FoundBy, Input, ScanNo, Write};
use p2p_sync_core::ids::GroupId;
use p2p_sync_core::rel_path::RelPath;

use super::{Work, World};
use crate::sim::scanner;

/// Paths that a scan looks at before it tells what it found.
const SCAN_BATCH: usize = 5;

impl World {
    pub(super) fn persist(&mut self, device: usize, batch: Batch) {
        let here = &mut self.devices[device];
        here.last_batch = batch.no;
        here.issued(batch.no);
        if batch.writes.contains(&Write::Forget) {
            here.guarded.clear();
        }
        here.store.push(batch);
        let delay = here.dice.between(1, 2 + self.plan.commit_max_ms);
        self.later(device, delay, Work::Commit);
    }

    /// Commits one batch, or all as a group commit does, and says so once.
    pub(super) fn commit(&mut self, device: usize) -> Result<(), String> {
        let all = self.devices[device].dice.percent(30);
        let mut newest = None;
        while let Some(batch) = self.devices[device].store.commit_next() {
            newest = Some(batch.no);
            if !all {
                break;
            }
        }
        match newest {
            Some(no) => {
                self.devices[device].durable_batch = no;
                self.tell(device, Input::Persisted(no))?;
                self.devices[device].note_own_log();
                self.finish_installs(device);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn begin_scan(&mut self, device: usize, no: ScanNo) {
        let here = &mut self.devices[device];
        here.scan_no = no;
        let paths = scanner::all_paths(&here.disk, here.store.durable());
        let running = here.scan.replace(paths.into()).is_some();
        if running {
            // It begins anew.
            self.report(device, Input::ScanFailed);
        } else {
            let delay = self.devices[device].dice.between(1, 300);
            self.later(device, delay, Work::ScanStep);
        }
    }

    pub(super) fn scan_step(&mut self, device: usize) -> Result<(), String> {
        let Some(mut open) = self.devices[device].scan.take() else {
            return Ok(());
        };
        let batch: Vec<RelPath> = open.drain(..open.len().min(SCAN_BATCH)).collect();
        let finished = open.is_empty();
        if !finished {
            self.devices[device].scan = Some(open);
            let delay = self.devices[device].dice.between(1, 300);
            self.later(device, delay, Work::ScanStep);
        }
        self.look_and_tell(device, &batch, |_| FoundBy::Scan);
        if finished {
            let no = self.devices[device].scan_no;
            self.report(device, Input::ScanFinished(no));
        }
        Ok(())
    }

    /// Sends what the scanner found, which reaches the engine in order but later than it was seen.
    fn report(&mut self, device: usize, input: Input) {
        let delay = self.devices[device].dice.below(1 + self.plan.report_delay_max_ms);
        self.devices[device].reports.push_back(input);
        self.later(device, delay, Work::Report);
    }

    pub(super) fn next_report(&mut self, device: usize) -> Result<(), String> {
        match self.devices[device].reports.pop_front() {
            Some(input) => {
                let finished = matches!(input, Input::ScanFinished(_));
                if let Input::LocalChanges(changes) = &input {
                    self.devices[device].note_what_was_seen(changes);
                }
                self.tell(device, input)?;
                if finished {
                    self.see_what_is_held(device);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn look_and_tell(
        &mut self,
        device: usize,
        paths: &[RelPath],
        found_by: impl Fn(&RelPath) -> FoundBy,
    ) {
        let here = &mut self.devices[device];
        let tables = here.store.durable();
        let looked = paths
            .iter()
            .filter(|path| !scanner::is_ignored(path, &here.disk, tables, &*here.rules))
            .filter_map(|path| {
                let now = here.now(self.time_ms).boot;
                scanner::look(path, &here.disk, tables, now, found_by(path))
            });
        let changes: Vec<_> = looked.collect();
        here.disk.set_time(self.time_ms);
        scanner::make_durable(&changes, &mut here.disk);
        if !changes.is_empty() {
            self.report(device, Input::LocalChanges(changes));
        }
    }

    /// Gets a content from this device's own files, else from the first named peer that is connected and holds it.
    pub(super) fn fetch(&mut self, device: usize, job: FetchJob) -> Result<(), String> {
        let failed = |reason| Input::FetchFailed {
            content: job.content,
            reason,
        };
        if self.devices[device].dice.percent(self.plan.bad_fetches) {
            return self.tell(
                device,
                failed(FetchFailure::Disk("No space left on device".to_owned())),
            );
        }
        let own = self.devices[device].disk.bytes_of(&job.content);
        let Some(bytes) = own.or_else(|| self.serve(device, &job)) else {
            return self.tell(device, failed(FetchFailure::NoSource));
        };
        self.devices[device].disk.fetched(bytes);
        self.tell(device, Input::Fetched(vec![job.content]))
    }

    /// What the peers have at this moment; a file that is being edited is gone for whoever asks too late.
    fn serve(&self, device: usize, job: &FetchJob) -> Option<Vec<u8>> {
        let asker = self.devices[device].id;
        let peers = job.from.iter().filter_map(|id| self.index_of(id));
        let willing = peers.filter(|peer| {
            self.links.are_connected(device, *peer) && self.devices[*peer].members.contains(&asker)
        });
        let mut offers = willing.filter_map(|peer| self.devices[peer].disk.bytes_of(&job.content));
        offers.next()
    }

    /// Tells the local network; each device hears it in its own time, and whoever is new hears of the others.
    pub(super) fn announce(&mut self, device: usize, group: Option<GroupId>) {
        self.devices[device].announced = Some(group);
        for other in 0..self.devices.len() {
            if other != device {
                let delay = self.links.dice(device, other).between(1, 2_000);
                self.later(other, delay, Work::LanPeer(device));
                if group.is_none() && self.devices[other].announced.is_some() {
                    self.later(device, delay, Work::LanPeer(other));
                }
            }
        }
    }

    pub(super) fn lan_peer(&mut self, device: usize, other: usize) -> Result<(), String> {
        if !self.plan.trust_lan || !self.links.hears(other, device) {
            return Ok(());
        }
        let there = &self.devices[other];
        let id = there.id;
        match there.announced {
            Some(group) if there.engine.is_some() => self.tell(device, Input::LanPeer { device: id, group }),
            _ => Ok(()),
        }
    }
}
