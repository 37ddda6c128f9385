//! Names of devices, groups, events, contents and versions.
//!
//! Every name is a fixed-size byte string with a type of its own, so that one can never be passed for another.
//! They print as lower-case hexadecimal; [`DeviceId`] and [`ShortId`] also have a short form for people.

use std::fmt;
use std::ops::RangeInclusive;

use data_encoding::HEXLOWER;

/// Why bytes or text are not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The length is not the one of this kind of name.
    #[error("A {kind} has {expected} bytes, not {actual}")]
    Length {
        /// What was being read.
        kind: &'static str,
        /// Bytes it must have.
        expected: usize,
        /// Bytes it had.
        actual: usize,
    },
    /// The text is not lower-case hexadecimal.
    #[error("A {kind} is written in lower-case hexadecimal")]
    Hex {
        /// What was being read.
        kind: &'static str,
    },
}

macro_rules! byte_name {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Bytes in this name.
            pub const LEN: usize = $len;

            /// Wraps bytes that are known to be such a name.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Reads a name from a slice.
            ///
            /// # Errors
            /// [`IdError::Length`] if the slice has another length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                let array = bytes.try_into().map_err(|_| IdError::Length {
                    kind: $kind,
                    expected: $len,
                    actual: bytes.len(),
                })?;
                Ok(Self(array))
            }

            /// Reads the hexadecimal form.
            ///
            /// # Errors
            /// [`IdError::Hex`] or [`IdError::Length`].
            pub fn from_hex(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| IdError::Hex { kind: $kind })?;
                Self::from_slice(&bytes)
            }

            /// Returns the bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Returns the hexadecimal form.
            #[must_use]
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = self.to_hex();
                write!(f, "{}({})", stringify!($name), &hex[..hex.len().min(12)])
            }
        }
    };
}

byte_name!(
    /// The Ed25519 public key of a device, 32 bytes; libp2p's PeerId is derived from it.
    DeviceId, 32, "device id"
);
byte_name!(
    /// The first 8 bytes of a [`DeviceId`]; unique within a group (a Grant that would break this is void).
    ShortId, 8, "short device id"
);
byte_name!(
    /// The id of the Genesis event: SHA-256(0x00 ‖ genesis header).
    GroupId, 32, "group id"
);
byte_name!(
    /// SHA-256(0x00 ‖ header bytes): the RFC 6962 leaf hash of an event.
    EventId, 32, "event id"
);
byte_name!(
    /// The BLAKE3 hash of a file's bytes (what `b3sum` prints).
    ContentHash, 32, "content hash"
);

impl DeviceId {
    /// Returns the name of this device in dots, `seen` and conflict copies.
    #[must_use]
    pub fn short(&self) -> ShortId {
        let mut short = [0; ShortId::LEN];
        short.copy_from_slice(&self.0[..ShortId::LEN]);
        ShortId(short)
    }
}

impl ShortId {
    /// Returns the devices that may have this short name: those whose ids begin so.
    #[must_use]
    pub fn devices(&self) -> RangeInclusive<DeviceId> {
        let [mut first, mut last] = [[0; DeviceId::LEN], [0xff; DeviceId::LEN]];
        first[..Self::LEN].copy_from_slice(&self.0);
        last[..Self::LEN].copy_from_slice(&self.0);
        DeviceId(first)..=DeviceId(last)
    }

    /// Returns the first 8 hexadecimal digits, as in the name of a conflict copy.
    #[must_use]
    pub fn label(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl EventId {
    /// Returns the first 16 bytes, the form that `seen` carries.
    #[must_use]
    pub fn id16(&self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        half
    }

    /// Returns this event's id as the name of the group that it founds.
    #[must_use]
    pub const fn as_group(&self) -> GroupId {
        GroupId(self.0)
    }
}

impl ContentHash {
    /// Returns the hash of the given bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Names one version of one path: item `item` of event `seq` of `device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The author.
    pub device: ShortId,
    /// The event's place in the author's log, from 0.
    pub seq: u64,
    /// The item's place in the event, from 0.
    pub item: u32,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.device.label(), self.seq, self.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_back() {
        let id = DeviceId::new([7; 32]);
        assert_eq!(DeviceId::from_hex(&id.to_hex()), Ok(id));
        assert!(DeviceId::from_hex("07").is_err());
        assert!(DeviceId::from_hex(&"0G".repeat(32)).is_err());
    }

    #[test]
    fn a_short_name_stands_for_the_devices_whose_ids_begin_so() {
        let mut id = [7; 32];
        let short = DeviceId::new(id).short();
        assert!(short.devices().contains(&DeviceId::new(id)));
        id[31] = 0xff;
        assert!(short.devices().contains(&DeviceId::new(id)));
        for other in [6, 8] {
            id[7] = other;
            assert!(!short.devices().contains(&DeviceId::new(id)));
        }
    }

    #[test]
    fn content_hash_is_the_standard_blake3() {
        assert_eq!(
            ContentHash::of(b"").to_hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }
}
