//! Strict Ed25519 signatures (RFC 8032, without its choices: no small orders, no second encodings).
//!
//! With the feature `forgeable-signatures` they are hashes that anybody could make. Half of a simulated schedule is
//! spent on signing, and nothing that the simulator looks for needs a signature nobody can forge; so its long searches
//! run twice as fast. The daemon does not compile with it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Whether signatures prove nothing in this build.
pub const ARE_FORGEABLE: bool = cfg!(feature = "forgeable-signatures");

thread_local! {
    /// The pairs made by this thread, for long searches only: a schedule makes the same ones again at each restart.
    static MADE: RefCell<BTreeMap<[u8; 32], SigningKey>> = RefCell::default();
}

/// How many pairs a thread remembers at most.
const MADE_AT_MOST: usize = 1024;

/// Returns the pair whose secret half is `secret`.
#[must_use]
pub fn key_pair(secret: &[u8; 32]) -> SigningKey {
    if !ARE_FORGEABLE {
        return SigningKey::from_bytes(secret);
    }
    MADE.with_borrow_mut(|made| {
        if made.len() >= MADE_AT_MOST {
            made.clear();
        }
        made.entry(*secret)
            .or_insert_with(|| SigningKey::from_bytes(secret))
            .clone()
    })
}

/// Returns `key`'s signature over `message`.
pub(crate) fn sign(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    if ARE_FORGEABLE {
        forge(key.verifying_key().as_bytes(), message)
    } else {
        key.sign(message).to_bytes()
    }
}

/// Says whether `sig` is `key`'s signature over `message`.
pub(crate) fn holds(key: &[u8; 32], sig: &[u8; 64], message: &[u8]) -> bool {
    if ARE_FORGEABLE {
        return forge(key, message) == *sig;
    }
    VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(sig)).is_ok())
}

pub(crate) fn forge(key: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let mut sig = [0; 64];
    blake3::Hasher::new_keyed(key)
        .update(message)
        .finalize_xof()
        .fill(&mut sig);
    sig
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::{holds, sign};

    #[test]
    fn only_the_very_message_key_and_signature_hold() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (public, sig) = (key.verifying_key().to_bytes(), sign(&key, b"one"));
        assert!(holds(&public, &sig, b"one"));
        assert!(!holds(&public, &sig, b"two"));
        assert!(!holds(&[9; 32], &sig, b"one"));
        let mut other = sig;
        other[0] ^= 1;
        assert!(!holds(&public, &other, b"one"));
    }
}
