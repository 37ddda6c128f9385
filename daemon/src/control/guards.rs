//! Between messages and the daemon's types: why a path is as it is, what is stuck, what a joiner brought.

use std::time::Duration;

use p2p_sync_core::engine::{Cause, JoinCounts};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_proto::v1;

use super::locks::{named, to_proto};
use super::{Obstacle, StatusSnapshot, WhyAnswer};

/// Stuck paths in one status; at 4 KiB each they stay below tonic's message limit of 4 MiB.
const MAX_STUCK: usize = 100;

/// Returns stuck and unreadable paths as messages, each once, and how many there are.
pub(super) fn stuck(snapshot: &StatusSnapshot) -> (Vec<v1::StuckPath>, u64) {
    let engine = &snapshot.engine;
    let all = engine.stuck.iter().chain(&snapshot.unreadable);
    let list = all.take(MAX_STUCK).map(|(path, reason)| v1::StuckPath {
        path: path.as_bytes().to_vec(),
        reason: reason.clone(),
    });
    (list.collect(), engine.stuck_count + snapshot.unreadable_count)
}

/// Returns what a joiner's files turned out to be as a message.
pub(super) const fn join_counts(counts: JoinCounts) -> v1::JoinCounts {
    v1::JoinCounts {
        same: counts.same,
        old: counts.old,
        new: counts.new,
        differing: counts.differing,
    }
}

/// Returns what is known about a path as a message; `names` are the devices' names.
pub(super) fn why(answer: WhyAnswer, names: &StatusSnapshot) -> v1::WhyResponse {
    let WhyAnswer {
        report,
        obstacle,
        blockers,
    } = answer;
    let named = |device| named(device, names);
    let devices = |ids: Vec<DeviceId>| ids.into_iter().map(named).collect();
    let bytes = |paths: Vec<RelPath>| paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    let locks = report.locks.into_iter().map(|lock| to_proto(lock, names));
    let mut response = v1::WhyResponse {
        locks: locks.collect(),
        path: report.path.as_bytes().to_vec(),
        removal: report.removal,
        present: report.present,
        paused: report.paused,
        author: report.author.map(named),
        copies: bytes(report.copies),
        copy_of: report
            .copy_of
            .map(|path| path.as_bytes().to_vec())
            .unwrap_or_default(),
        blockers: bytes(blockers),
        behind: devices(report.behind),
        ..Default::default()
    };
    let cause = match (obstacle, report.cause) {
        (Some(Obstacle::Ignored), _) => v1::PathCause::Ignored,
        (Some(Obstacle::Unreadable(why)), _) => {
            response.reason = why;
            v1::PathCause::Unreadable
        }
        (None, Cause::Unknown) => v1::PathCause::Unknown,
        (None, Cause::Deleted) => v1::PathCause::Deleted,
        (None, Cause::InSync) => v1::PathCause::InSync,
        (None, Cause::Starting) => v1::PathCause::Starting,
        (None, Cause::Publishing) => v1::PathCause::Publishing,
        (None, Cause::Waiting) => v1::PathCause::Waiting,
        (None, Cause::Fetching { size, from }) => {
            response.bytes_needed = size;
            response.from = devices(from);
            v1::PathCause::Fetching
        }
        (None, Cause::NoSource { size, retry_in }) => {
            response.bytes_needed = size;
            response.retry_in = retry_in.and_then(duration);
            v1::PathCause::NoSource
        }
        (None, Cause::Queued) => v1::PathCause::Queued,
        (None, Cause::Installing) => v1::PathCause::Installing,
        (None, Cause::Parked { reason, retry_in }) => {
            response.reason = reason.unwrap_or_default();
            response.retry_in = retry_in.and_then(duration);
            v1::PathCause::Parked
        }
        (None, Cause::DeletionHeld) => v1::PathCause::DeletionHeld,
        (None, Cause::JoinHeld) => v1::PathCause::JoinHeld,
    };
    response.cause = cause.into();
    response
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    time.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use p2p_sync_core::engine::WhyReport;

    use super::*;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn answer(cause: Cause, obstacle: Option<Obstacle>) -> WhyAnswer {
        WhyAnswer {
            report: WhyReport {
                path: rel("a"),
                cause,
                removal: false,
                present: true,
                paused: false,
                author: Some(DeviceId::new([1; 32])),
                copies: vec![rel("a (conflict)")],
                copy_of: None,
                behind: Vec::new(),
                locks: Vec::new(),
            },
            obstacle,
            blockers: vec![rel("a/left")],
        }
    }

    fn snapshot() -> StatusSnapshot {
        StatusSnapshot::starting("atlas".into(), "/srv/sync".into(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn what_the_scanner_cannot_read_comes_before_what_the_engine_says() {
        let unreadable = Some(Obstacle::Unreadable("Permission denied".into()));
        let response = why(answer(Cause::InSync, unreadable), &snapshot());
        assert_eq!(response.cause(), v1::PathCause::Unreadable);
        assert_eq!(response.reason, "Permission denied");
        let response = why(answer(Cause::InSync, None), &snapshot());
        assert_eq!(response.cause(), v1::PathCause::InSync);
        assert_eq!(response.blockers, [b"a/left".to_vec()]);
    }

    #[test]
    fn unreadable_paths_are_stuck_and_only_a_hundred_are_named() {
        let mut snapshot = snapshot();
        snapshot.engine.stuck = (0..90).map(|i| (rel(&format!("s{i}")), "why".into())).collect();
        snapshot.engine.stuck_count = 2_000;
        snapshot.unreadable = (0..20).map(|i| (rel(&format!("u{i}")), "no".into())).collect();
        snapshot.unreadable_count = 20;
        let (named, total) = stuck(&snapshot);
        assert_eq!((named.len(), total), (100, 2_020));
        assert_eq!(named[99].path, b"u9");
    }
}
