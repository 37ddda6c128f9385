//! A device's name and its libp2p PeerId are the same Ed25519 public key.

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use p2p_sync_core::ids::DeviceId;

/// The bytes are not an Ed25519 public key, or the PeerId does not contain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Not an Ed25519 identity")]
pub struct IdentityError;

/// Returns the PeerId of a device.
///
/// # Errors
/// [`IdentityError`] if the id is not a point of the curve.
pub fn peer_of(device: &DeviceId) -> Result<PeerId, IdentityError> {
    let key = ed25519::PublicKey::try_from_bytes(device.as_bytes()).map_err(|_| IdentityError)?;
    Ok(PublicKey::from(key).to_peer_id())
}

/// Returns the device with this PeerId.
///
/// # Errors
/// [`IdentityError`] if the PeerId is a hash, or contains a key of another kind.
pub fn device_of(peer: &PeerId) -> Result<DeviceId, IdentityError> {
    const IDENTITY_HASH: u8 = 0;
    let bytes = peer.to_bytes();
    let [IDENTITY_HASH, _, encoded @ ..] = bytes.as_slice() else {
        return Err(IdentityError);
    };
    let key = PublicKey::try_decode_protobuf(encoded).map_err(|_| IdentityError)?;
    let key = key.try_into_ed25519().map_err(|_| IdentityError)?;
    Ok(DeviceId::new(key.to_bytes()))
}

/// Returns the key pair of a secret key.
pub(super) fn keypair_of(mut secret: [u8; 32]) -> Result<Keypair, IdentityError> {
    Keypair::ed25519_from_bytes(&mut secret).map_err(|_| IdentityError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_and_peer_id_name_the_same_key() {
        let keypair = keypair_of([7; 32]).unwrap();
        let peer = keypair.public().to_peer_id();
        let device = device_of(&peer).unwrap();
        assert_eq!(peer_of(&device), Ok(peer));
    }

    #[test]
    fn a_peer_id_without_a_key_is_refused() {
        assert_eq!(device_of(&PeerId::random()), Err(IdentityError));
    }
}
