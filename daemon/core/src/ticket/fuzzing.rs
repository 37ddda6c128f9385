//! What must hold of any text that is given as a ticket.

use data_encoding::BASE32_NOPAD;

use super::{MAX_ADDRESS_LEN, MAX_ADDRESSES, PREFIX, Ticket, checksum_of};
use crate::ids::GroupId;

/// Checks bytes as a ticket's text, and as what lies behind the text, whose checksum no search would come upon: what is
/// read is written as the very same text.
///
/// # Panics
/// If it does not hold.
pub fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_text(text);
    }
    let whole = [bytes, &checksum_of(bytes)].concat();
    check_text(&format!("{PREFIX}{}", BASE32_NOPAD.encode(&whole)));
}

fn check_text(text: &str) {
    let Ok(ticket) = Ticket::parse(text) else {
        return;
    };
    assert_eq!(ticket.to_string(), text.trim().to_ascii_lowercase());
    assert!(ticket.addresses.len() <= MAX_ADDRESSES);
    let fits = |address: &String| (1..=MAX_ADDRESS_LEN).contains(&address.len());
    assert!(ticket.addresses.iter().all(fits));
}

/// Returns tickets from which a search begins, as text and as what lies behind it.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let ticket = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| (*address).to_owned());
        Ticket::new(GroupId::new([7; 32]), [9; 32], addresses)
    };
    let tickets = [
        ticket(&[]),
        ticket(&["/ip4/192.0.2.7/tcp/22010/p2p/12D3KooWA", "/ip6/::1/tcp/1"]),
        ticket(&["/dns/a"; MAX_ADDRESSES]),
    ];
    let mut all = Vec::new();
    for ticket in tickets {
        all.push(ticket.to_string().into_bytes());
        let mut bytes = ticket.to_bytes();
        bytes.truncate(bytes.len() - super::CHECKSUM_LEN);
        all.push(bytes);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fuzzing::tests::kept;

    #[test]
    fn kept_tickets_hold() {
        kept("ticket").iter().for_each(|bytes| check(bytes));
    }

    #[test]
    fn what_a_search_begins_with_is_read_and_holds() {
        for pair in seeds().chunks(2) {
            let text = std::str::from_utf8(&pair[0]).unwrap();
            assert!(Ticket::parse(text).is_ok());
            pair.iter().for_each(|bytes| check(bytes));
        }
    }
}
