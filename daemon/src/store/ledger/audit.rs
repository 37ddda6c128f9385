//! Showing the whole ledger to the auditor, some rows at a time.

use p2p_sync_core::engine::Taken;
use p2p_sync_core::ids::GroupId;
use p2p_sync_core::ledger::audit::{Audit, Depth, Fault};

use super::super::StoreError;
use super::LedgerReader;

/// How far an audit is.
#[derive(Debug)]
pub struct AuditStep {
    /// Events looked at.
    pub checked: u64,
    /// Events there were when it began.
    pub total: u64,
    /// What was found since the last step.
    pub faults: Vec<Fault>,
}

/// How an audit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEnd {
    /// All was looked at.
    Done {
        /// Events.
        events: u64,
        /// Logs.
        logs: usize,
    },
    /// Whoever listened has gone.
    Stopped,
    /// The device took another group's ledger meanwhile.
    Replaced,
}

impl LedgerReader {
    /// Looks at every event, also those that arrive meanwhile, and at what is believed of the logs. `tell` says whether
    /// to go on.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn audit(
        &self,
        group: GroupId,
        depth: Depth,
        mut tell: impl FnMut(AuditStep) -> bool,
    ) -> Result<AuditEnd, StoreError> {
        let (total, _) = self.extent()?;
        let mut audit = Audit::new(group, depth);
        let (mut after, mut first) = (0, None);
        let end = loop {
            audit.expect(&self.logs()?);
            let rows = self.rows(after, depth == Depth::Full)?;
            let mut faults = Vec::new();
            for (arrival, row) in &rows {
                // What cannot be read is not there.
                let stored = |device, seq| self.id_and_clock(device, seq).ok().flatten();
                faults.extend(audit.event(row, stored));
                after = *arrival;
                first.get_or_insert_with(|| row.id.clone());
            }
            let checked = audit.events();
            if !rows.is_empty() {
                let total = total.max(checked);
                if !tell(AuditStep {
                    checked,
                    total,
                    faults,
                }) {
                    return Ok(AuditEnd::Stopped);
                }
                continue;
            }
            if let Some(end) = self.end(after)? {
                break end;
            }
        };
        if end.first != first {
            return Ok(AuditEnd::Replaced);
        }
        let events = audit.events();
        let taken = Taken::read(end.group.as_deref());
        let stored = |device, seq| self.id_and_clock(device, seq).ok().flatten();
        let mut faults = audit.finish_seen(|log| taken.of(log), stored);
        faults.extend(audit.finish(&end.logs));
        let last = AuditStep {
            checked: events,
            total: events,
            faults,
        };
        if !tell(last) {
            return Ok(AuditEnd::Stopped);
        }
        let logs = audit.logs();
        Ok(AuditEnd::Done { events, logs })
    }
}
