use super::*;
use crate::access::Role;
use crate::ledger::samples::{World, grant, grown, put};

fn rows(world: &World) -> Vec<Row> {
    let row = |(short, header, event): &(ShortId, Header, SignedEvent)| Row {
        short: short.as_bytes().to_vec(),
        author: header.author.as_bytes().to_vec(),
        seq: header.seq,
        kind: i64::from(header.kind.code()),
        id: event.id().as_bytes().to_vec(),
        header: Arc::clone(&event.header),
        signature: event.signature.to_vec(),
        body: Arc::clone(&event.body),
    };
    world.arrived.iter().map(row).collect()
}

fn audit(world: &World, rows: &[Row], depth: Depth) -> Vec<String> {
    audit_of(world, rows, depth, |_| u64::MAX)
}

fn audit_of(world: &World, rows: &[Row], depth: Depth, taken: impl Fn(ShortId) -> u64) -> Vec<String> {
    let mut audit = Audit::new(world.group, depth);
    let mut faults = Vec::new();
    let stored = |n: usize| {
        move |device: ShortId, seq| {
            let mut before = rows[..n].iter();
            let row = before.find(|r| r.short == device.as_bytes() && r.seq == seq)?;
            let clock = Header::from_bytes(&row.header).ok()?.hlc;
            Some((EventId::new(merkle::leaf_hash(&row.header)), clock))
        }
    };
    for (n, row) in rows.iter().enumerate() {
        faults.extend(audit.event(row, stored(n)));
    }
    faults.extend(audit.finish_seen(taken, stored(rows.len())));
    let logs = world.logs.iter().filter(|log| log.size() > 0);
    let logs = logs.map(|log| (log.author.short(), Some(log.clone()))).collect();
    faults.extend(audit.finish(&logs));
    faults
        .iter()
        .map(|fault| format!("{} {}", fault.seq, fault.what))
        .collect()
}

#[test]
fn a_sound_ledger_has_no_faults() {
    let (world, _) = grown();
    for depth in [Depth::Fast, Depth::Full] {
        assert_eq!(audit(&world, &rows(&world), depth), [""; 0]);
    }
}

#[test]
fn a_missing_event_is_one_finding_of_its_log_and_one_of_each_that_has_seen_it() {
    let (world, _) = grown();
    let mut rows = rows(&world);
    rows.remove(2);
    let faults = audit(&world, &rows, Depth::Fast);
    assert_eq!(faults, ["1 1 events before it are missing"]);
    let faults = audit(&world, &rows, Depth::Full);
    assert!(
        faults
            .iter()
            .any(|f| f.contains("it has seen event") && f.contains("missing")),
        "{faults:?}"
    );
}

#[test]
fn an_event_that_stands_twice_is_found() {
    let (world, _) = grown();
    let mut rows = rows(&world);
    rows.push(rows[4].clone());
    let faults = audit(&world, &rows, Depth::Fast);
    assert_eq!(
        faults.iter().filter(|f| f.contains("taken already")).count(),
        1,
        "{faults:?}"
    );
}

#[test]
fn a_log_whose_end_the_store_believes_elsewhere_is_found() {
    let (mut world, _) = grown();
    let rows = rows(&world);
    world.publish(0, EventKind::Work, vec![put("not stored")]);
    for depth in [Depth::Fast, Depth::Full] {
        let faults = audit(&world, &rows, depth);
        assert!(faults.len() == 1 && faults[0].contains("log's end"), "{faults:?}");
    }
}

#[test]
fn an_author_whom_nobody_admitted_and_a_second_founding_are_found() {
    let mut world = World::founded();
    world.work(4, "a stranger's");
    let faults = audit(&world, &rows(&world), Depth::Full);
    assert_eq!(faults, ["0 no grant for its author arrived before it"]);
    let mut world = World::founded();
    world.publish(0, EventKind::Genesis, vec![grant(1, Role::Owner)]);
    let faults = audit(&world, &rows(&world), Depth::Full);
    assert_eq!(faults, ["1 the event founds a second group"]);
}

#[test]
fn a_ledger_of_another_group_does_not_begin_with_its_genesis() {
    let (mut world, _) = grown();
    let rows = rows(&world);
    world.group = GroupId::new([3; 32]);
    let faults = audit(&world, &rows, Depth::Full);
    assert!(faults.iter().any(|f| f.contains("does not begin")), "{faults:?}");
}

#[test]
fn what_was_seen_of_a_log_beyond_what_is_taken_of_it_need_not_be_here() {
    let mut world = World::founded();
    world.publish(
        0,
        EventKind::Admin,
        vec![grant(1, Role::Editor), grant(2, Role::Editor)],
    );
    let mut other = world.clone();
    other.work(1, "beyond the cut");
    other.work(2, "seen that");
    let gone = world.logs[1].author.short();
    let mut rows = rows(&world);
    rows.push(self::rows(&other).pop().unwrap());
    world.logs[2] = other.logs[2].clone();
    let faults = |limit| {
        let taken = |log| if log == gone { limit } else { u64::MAX };
        audit_of(&world, &rows, Depth::Full, taken)
    };
    assert_eq!(faults(0), [""; 0]);
    assert_eq!(faults(1).len(), 1, "{:?}", faults(1));
}

#[test]
fn a_history_that_an_event_has_not_seen_is_found() {
    let mut world = World::founded();
    world.publish(0, EventKind::Admin, vec![grant(1, Role::Editor)]);
    let mut other = world.clone();
    world.work(0, "one");
    other.work(0, "two");
    other.work(1, "seen two");
    let mut rows = rows(&world);
    rows.push(self::rows(&other).pop().unwrap());
    world.logs[1] = other.logs[1].clone();
    let faults = audit(&world, &rows, Depth::Full);
    assert!(
        faults.len() == 1 && faults[0].contains("another event 2"),
        "{faults:?}"
    );
}
