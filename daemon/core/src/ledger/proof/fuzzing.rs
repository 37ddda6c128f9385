//! What must hold of any bytes that are shown as a proof.

use super::wire::{Past, Power, Proof, Signed};
use crate::ids::{EventId, GroupId};
use crate::ledger::event::Header;
use crate::{merkle, signature};

/// Memory that a proof may take for each byte it came from: a link with nothing in it is over 200 bytes long.
const MAX_GROWTH: usize = 8;

pub(in crate::ledger) fn check(bytes: &[u8]) {
    let Ok(mut proof) = Proof::from_bytes(bytes) else {
        return;
    };
    assert_eq!(proof.to_bytes(), bytes, "{proof:?}");
    assert!(weight(&proof) <= MAX_GROWTH * bytes.len());
    // The group is whatever the first event founds, so that more than the first look at it is reached.
    let first = proof.links.first().unwrap_or(&proof.shown);
    let group = EventId::new(merkle::leaf_hash(&first.signed.header)).as_group();
    if let Ok(statement) = super::check(bytes, group) {
        assert_eq!(statement.group, group);
        assert!(super::check(bytes, GroupId::new([0; 32])).is_err());
    }
    if signature::ARE_FORGEABLE {
        sign_again(&mut proof, &group);
        if let Ok(statement) = super::check(&proof.to_bytes(), group) {
            assert_eq!(statement.group, group);
        }
    }
}

/// Makes the signatures good, which no search would come upon.
fn sign_again(proof: &mut Proof, group: &GroupId) {
    let links = proof.links.iter_mut().chain([&mut proof.shown]);
    let signed = links.map(|link| &mut link.signed);
    let witnesses = proof.witnesses.iter_mut().map(|witness| &mut witness.signed);
    for Signed {
        header, signature, ..
    } in signed.chain(witnesses)
    {
        forge(header, signature, group);
    }
    if let Some(newest) = &mut proof.newest {
        forge(&newest.header, &mut newest.signature, group);
    }
}

fn forge(bytes: &[u8], signature: &mut [u8; 64], group: &GroupId) {
    if let Ok(header) = Header::from_bytes(bytes) {
        *signature = header.forged(bytes, group);
    }
}

fn weight(proof: &Proof) -> usize {
    let links = proof.links.iter().chain([&proof.shown]);
    let of_links = links.map(|link| {
        let path = link.path.as_flattened().len();
        size_of_val(link) + of_signed(&link.signed) + link.item.len() + path + of_power(link.invite.as_ref())
    });
    let of_witnesses = proof.witnesses.iter().map(|witness| {
        let tip = witness.tip.as_ref().map_or(0, |tip| tip.header.len());
        size_of_val(witness) + of_signed(&witness.signed) + tip
    });
    of_links.chain(of_witnesses).sum()
}

fn of_signed(signed: &Signed) -> usize {
    signed.header.len() + of_power(signed.power.as_ref())
}

fn of_power(power: Option<&Power>) -> usize {
    match power.map(|power| &power.past) {
        Some(Past::Own(path)) => path.as_flattened().len(),
        Some(Past::Other { sight, tip }) => {
            let parts = sight.iter().chain(tip);
            parts
                .map(|part| part.header.len() + part.path.as_flattened().len())
                .sum()
        }
        None => 0,
    }
}
