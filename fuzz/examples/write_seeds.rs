//! Writes the inputs that a search begins with to `corpus`, each under the hash of its bytes.

use std::{fs, io};

use p2p_sync_core::{ledger, merkle, ticket};

#[path = "../../daemon/src/network"]
mod network {
    #[allow(dead_code, reason = "the daemon uses the rest")]
    mod convert;

    pub(crate) fn seeds() -> Vec<Vec<u8>> {
        convert::fuzzing::seeds()
    }
}

fn main() -> io::Result<()> {
    let all = [
        ("header", ledger::fuzzing::headers()),
        ("body", ledger::fuzzing::bodies()),
        ("proof", ledger::fuzzing::proofs()),
        ("ticket", ticket::fuzzing::seeds()),
        ("message", network::seeds()),
    ];
    for (target, seeds) in all {
        let dir = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&dir)?;
        for seed in seeds {
            let hash = merkle::leaf_hash(&seed);
            let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(format!("{dir}/{name}"), seed)?;
        }
    }
    Ok(())
}
