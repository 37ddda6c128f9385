//! Tickets: what a joining device needs to know, as one word that survives copying.
//!
//! A ticket is `p2ps1` and then, in lower-case base32 (RFC 4648) without padding:
//!
//! ```text
//! version u8 = 1 | group id 32 | invite secret 32 | count u8 | count × (length u8, address) | checksum 4
//! ```
//!
//! An address is a multiaddress as text, with the `/p2p/` part that names the device. The checksum is the first 4
//! bytes of the SHA-256 of all before it: it catches a mistyped or cut ticket, nothing else. Whoever has the ticket
//! can join, so its `Debug` form leaves the secret out.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};

use crate::ids::GroupId;

/// What every ticket starts with.
pub const PREFIX: &str = "p2ps1";
/// Addresses that a ticket may carry: a few networks each with IPv4 and IPv6; more would not fit a chat line.
pub const MAX_ADDRESSES: usize = 16;
/// Bytes that an address may have; its length is one byte.
pub const MAX_ADDRESS_LEN: usize = 255;
/// Characters a ticket may have, before anything is decoded: the longest that the bounds above allow is under 6 720.
pub const MAX_TEXT_LEN: usize = 8_192;

const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;

/// Why a text is not a ticket, or a ticket cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not start with [`PREFIX`].
    #[error("A ticket starts with p2ps1")]
    Prefix,
    /// Something in it is not base32.
    #[error("The ticket holds a character that tickets do not have")]
    Encoding,
    /// The checksum is wrong or there are too few or too many bytes: some of it is missing or was changed.
    #[error("Part of the ticket is missing or was changed")]
    Damaged,
    /// It was made by a newer version.
    #[error("The ticket has version {0}, which this program does not know")]
    Version(u8),
    /// There are more than [`MAX_ADDRESSES`] addresses, or one is empty, too long or not UTF-8.
    #[error("The ticket's addresses break the rules")]
    Addresses,
}

/// An invitation to a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The group.
    pub group: GroupId,
    /// The invite's secret key.
    pub secret: [u8; 32],
    /// Where members can be reached: at most [`MAX_ADDRESSES`] multiaddresses, each of 1 to [`MAX_ADDRESS_LEN`]
    /// bytes.
    pub addresses: Vec<String>,
}

impl Ticket {
    /// Makes a ticket, leaving out addresses beyond the first [`MAX_ADDRESSES`] and those that do not fit.
    #[must_use]
    pub fn new(group: GroupId, secret: [u8; 32], addresses: impl IntoIterator<Item = String>) -> Self {
        let addresses = addresses
            .into_iter()
            .filter(|a| (1..=MAX_ADDRESS_LEN).contains(&a.len()))
            .take(MAX_ADDRESSES)
            .collect();
        Self {
            group,
            secret,
            addresses,
        }
    }

    /// Reads a ticket; white space around it and upper case do no harm.
    ///
    /// # Errors
    /// One of [`TicketError`].
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TEXT_LEN {
            return Err(TicketError::Damaged);
        }
        let text = text.to_ascii_lowercase();
        let encoded = text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        let bytes = decode(encoded)?;
        let (body, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(TicketError::Damaged)?;
        if *checksum != checksum_of(body) {
            return Err(TicketError::Damaged);
        }
        parse_body(body)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(self.group.as_bytes());
        bytes.extend_from_slice(&self.secret);
        // The fields are public, so the bounds are kept here as well as in `new`.
        let fitting = Self::new(self.group, self.secret, self.addresses.iter().cloned()).addresses;
        bytes.push(u8::try_from(fitting.len()).unwrap_or(u8::MAX));
        for address in &fitting {
            bytes.push(u8::try_from(address.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(address.as_bytes());
        }
        let checksum = checksum_of(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{}",
            BASE32_NOPAD.encode(&self.to_bytes()).to_ascii_lowercase()
        )
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("group", &self.group)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Decodes base32; a text that is merely cut short is damaged, not wrongly encoded.
fn decode(encoded: &str) -> Result<Vec<u8>, TicketError> {
    let upper = encoded.to_ascii_uppercase();
    if !upper.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7')) {
        return Err(TicketError::Encoding);
    }
    BASE32_NOPAD
        .decode(upper.as_bytes())
        .map_err(|_| TicketError::Damaged)
}

fn checksum_of(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::digest(body);
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&digest[..CHECKSUM_LEN]);
    checksum
}

fn parse_body(body: &[u8]) -> Result<Ticket, TicketError> {
    let (version, rest) = body.split_first().ok_or(TicketError::Damaged)?;
    if *version != VERSION {
        return Err(TicketError::Version(*version));
    }
    let (group, rest) = rest.split_first_chunk::<32>().ok_or(TicketError::Damaged)?;
    let (secret, rest) = rest.split_first_chunk::<32>().ok_or(TicketError::Damaged)?;
    let (count, mut rest) = rest.split_first().ok_or(TicketError::Damaged)?;
    if usize::from(*count) > MAX_ADDRESSES {
        return Err(TicketError::Addresses);
    }
    let mut addresses = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let (len, after) = rest.split_first().ok_or(TicketError::Damaged)?;
        let (address, after) = after
            .split_at_checked(usize::from(*len))
            .ok_or(TicketError::Damaged)?;
        let address = std::str::from_utf8(address).map_err(|_| TicketError::Addresses)?;
        if address.is_empty() {
            return Err(TicketError::Addresses);
        }
        addresses.push(address.to_owned());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(TicketError::Damaged);
    }
    Ok(Ticket {
        group: GroupId::new(*group),
        secret: *secret,
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Ticket {
        Ticket {
            group: GroupId::new([7; 32]),
            secret: [9; 32],
            addresses: vec![
                "/ip4/192.0.2.7/tcp/22010/p2p/12D3KooWA".into(),
                "/ip6/::1/tcp/1/p2p/12D3KooWA".into(),
            ],
        }
    }

    #[test]
    fn a_ticket_is_read_back() {
        let text = sample().to_string();
        assert!(text.starts_with("p2ps1"));
        assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert_eq!(Ticket::parse(&text), Ok(sample()));
        assert_eq!(
            Ticket::parse(&format!("  {}\n", text.to_uppercase())),
            Ok(sample())
        );
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        let ticket = Ticket {
            group: GroupId::new([0; 32]),
            secret: [1; 32],
            addresses: vec!["/a".into()],
        };
        let group = "a".repeat(52);
        assert_eq!(
            ticket.to_string(),
            format!("p2ps1ae{group}ibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaebc6ylvfa7jm")
        );
    }

    #[test]
    fn a_changed_or_cut_ticket_is_damaged() {
        let text = sample().to_string();
        for cut in PREFIX.len()..text.len() {
            assert_eq!(Ticket::parse(&text[..cut]), Err(TicketError::Damaged), "{cut}");
        }
        let changed = text.replacen("5", "4", 1).replacen("a", "b", 1);
        assert_eq!(Ticket::parse(&changed), Err(TicketError::Damaged));
    }

    #[test]
    fn what_is_no_ticket_is_told_apart() {
        assert_eq!(Ticket::parse("hello"), Err(TicketError::Prefix));
        assert_eq!(Ticket::parse(""), Err(TicketError::Prefix));
        assert_eq!(Ticket::parse("p2ps1!!"), Err(TicketError::Encoding));
        assert_eq!(Ticket::parse("p2ps1"), Err(TicketError::Damaged));
        assert_eq!(Ticket::parse(&"p2ps1".repeat(2_000)), Err(TicketError::Damaged));
    }

    #[test]
    fn a_newer_version_and_bad_addresses_are_refused() {
        let with = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let checksum = checksum_of(&bytes);
            bytes.extend_from_slice(&checksum);
            Ticket::parse(&format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes)))
        };
        assert_eq!(with(&[2; 70]), Err(TicketError::Version(2)));
        let mut body = vec![VERSION];
        body.extend_from_slice(&[0; 64]);
        assert_eq!(with(&[&body[..], &[17]].concat()), Err(TicketError::Addresses));
        assert_eq!(with(&[&body[..], &[1, 0]].concat()), Err(TicketError::Addresses));
        assert_eq!(
            with(&[&body[..], &[1, 1, 0xff]].concat()),
            Err(TicketError::Addresses)
        );
        assert_eq!(with(&[&body[..], &[0, 0]].concat()), Err(TicketError::Damaged));
        assert!(with(&[&body[..], &[0]].concat()).is_ok());
    }

    #[test]
    fn addresses_that_do_not_fit_are_left_out() {
        let many = (0..40).map(|i| {
            if i == 0 {
                "a".repeat(256)
            } else {
                format!("/dns/{i}")
            }
        });
        let ticket = Ticket::new(GroupId::new([0; 32]), [0; 32], many);
        assert_eq!(ticket.addresses.len(), MAX_ADDRESSES);
        assert_eq!(ticket.addresses[0], "/dns/1");
        assert_eq!(Ticket::parse(&ticket.to_string()), Ok(ticket));
    }

    #[test]
    fn the_secret_is_not_in_the_debug_form() {
        let ticket = Ticket {
            secret: [0xab; 32],
            ..sample()
        };
        assert!(!format!("{ticket:?}").contains("171"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "p2ps1[a-z2-7]{0,200}") {
            let _ = Ticket::parse(&text);
        }
    }
}
