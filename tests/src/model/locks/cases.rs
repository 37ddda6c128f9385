//! What is looked at: small groups for every change, larger ones for long searches.

use super::{Locks, Mistake};

/// Until a holder has stopped to believe and then its voters have dropped its lease.
const ONE_LEASE_MS: u64 = 59_000;

/// Returns what is looked at with every change, by name.
#[must_use]
pub fn small() -> Vec<(&'static str, Locks)> {
    let renewed = Locks {
        renews: true,
        releases: false,
        horizon_ms: 80_000,
        ..pair()
    };
    let gone = Locks {
        crashes: 1,
        releases: false,
        ..pair()
    };
    let durable = Locks {
        renews: true,
        durable: true,
        horizon_ms: ONE_LEASE_MS,
        ..pair()
    };
    vec![
        ("two claims, let go", pair()),
        ("renewed", renewed),
        ("a voter restarts", restarted()),
        ("a holder is gone", gone),
        ("durable", durable),
        ("the voters change", other_voters()),
        ("an owner gives up once", given_up()),
    ]
}

/// Returns what long searches look at.
#[must_use]
pub fn large() -> Vec<(&'static str, Locks)> {
    let all = Locks {
        renews: true,
        restarts: 1,
        crashes: 1,
        horizon_ms: 80_000,
        ..pair()
    };
    let durable = Locks {
        durable: true,
        horizon_ms: ONE_LEASE_MS,
        ..all.clone()
    };
    let twice = Locks {
        restarts: 2,
        ..pair()
    };
    let three = Locks {
        tries: vec![1, 1, 1],
        max_number: 3,
        horizon_ms: ONE_LEASE_MS,
        ..pair()
    };
    let released = Locks {
        releases: true,
        ..other_voters()
    };
    let renewed = Locks {
        renews: true,
        horizon_ms: 80_000,
        ..other_voters()
    };
    let under_load = Locks {
        tries: vec![1, 1, 2],
        ..other_voters()
    };
    vec![
        ("the voters change, let go", released),
        ("the voters change, renewed", renewed),
        ("the voters change under load", under_load),
        ("two restarts", twice),
        ("all at once", all),
        ("all at once, durable", durable),
        ("three claims", three),
    ]
}

/// Returns a group in which a mistake breaks a rule; without it, it is one of the small ones.
#[must_use]
pub fn wrong(mistake: Mistake) -> Locks {
    let right = match mistake {
        Mistake::QuorumOfOne
        | Mistake::NoGuard
        | Mistake::CountsFromAnswer
        | Mistake::NoFloor
        | Mistake::DoneAtOne => pair(),
        Mistake::SlotsLost | Mistake::CountsTimeOff | Mistake::FloorLost => restarted(),
        Mistake::TakesOverMajority | Mistake::GoesOnSealed | Mistake::MixesEpochs => other_voters(),
        Mistake::KeepsSeals => given_up(),
    };
    Locks {
        mistake: Some(mistake),
        ..right
    }
}

fn pair() -> Locks {
    Locks {
        tries: vec![1, 1],
        max_number: 2,
        releases: true,
        horizon_ms: 125_000,
        ..Locks::default()
    }
}

fn restarted() -> Locks {
    Locks {
        restarts: 1,
        ..pair()
    }
}

fn other_voters() -> Locks {
    Locks {
        tries: vec![1, 2],
        max_number: 1,
        changes_voters: true,
        horizon_ms: ONE_LEASE_MS,
        ..Locks::default()
    }
}

fn given_up() -> Locks {
    Locks {
        gives_up: true,
        ..other_voters()
    }
}
