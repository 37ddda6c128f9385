//! Deterministic CBOR: the checker that every signed byte string passes before it is decoded (ledger.md 2).
//!
//! Allowed are unsigned and negative integers, byte strings, text strings, arrays, `null`, `true` and `false`. Integers
//! and lengths are in their shortest form, lengths are definite; no maps, tags or floats; no bytes after the end. So
//! one value has exactly one encoding, and nobody can say the same thing under two hashes.

use minicbor::decode::Error as CborError;

/// Levels of arrays a document may have.
pub const MAX_DEPTH: u32 = 8;
/// Elements one array may have.
pub const MAX_ARRAY: u64 = 8192;
/// Elements a document may have in all.
pub const MAX_ELEMENTS: u32 = 131_072;

/// Why bytes are not a deterministic document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// The bytes end within an element.
    #[error("The document is cut short")]
    Truncated,
    /// There are bytes after the document.
    #[error("There are bytes after the document")]
    Trailing,
    /// An integer or length is not in its shortest form.
    #[error("An integer is not in its shortest form")]
    NotShortest,
    /// A map, tag, float, undefined value or indefinite length.
    #[error("The document holds an element of a kind that is not allowed")]
    Kind,
    /// One of the limits is exceeded.
    #[error("The document is nested too deeply or has too many elements")]
    Limit,
    /// A text string is not UTF-8.
    #[error("A text is not UTF-8")]
    Text,
}

/// Checks that `bytes` are exactly one deterministic document.
///
/// # Errors
/// One of [`EncodingError`].
pub fn check(bytes: &[u8]) -> Result<(), EncodingError> {
    let mut checker = Checker {
        rest: bytes,
        elements: 0,
    };
    checker.element(0)?;
    if checker.rest.is_empty() {
        Ok(())
    } else {
        Err(EncodingError::Trailing)
    }
}

struct Checker<'a> {
    rest: &'a [u8],
    elements: u32,
}

impl<'a> Checker<'a> {
    fn element(&mut self, depth: u32) -> Result<(), EncodingError> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(EncodingError::Limit);
        }
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        match major {
            0 | 1 => self.argument(info).map(|_| ()),
            2 => self.string(info).map(|_| ()),
            3 => {
                let text = self.string(info)?;
                std::str::from_utf8(text)
                    .map(|_| ())
                    .map_err(|_| EncodingError::Text)
            }
            4 => self.array(info, depth),
            7 if matches!(info, 20..=22) => Ok(()),
            _ => Err(EncodingError::Kind),
        }
    }

    fn array(&mut self, info: u8, depth: u32) -> Result<(), EncodingError> {
        let count = self.argument(info)?;
        if count > MAX_ARRAY || depth >= MAX_DEPTH {
            return Err(EncodingError::Limit);
        }
        (0..count).try_for_each(|_| self.element(depth + 1))
    }

    fn string(&mut self, info: u8) -> Result<&'a [u8], EncodingError> {
        let len = usize::try_from(self.argument(info)?).map_err(|_| EncodingError::Truncated)?;
        self.take(len)
    }

    fn argument(&mut self, info: u8) -> Result<u64, EncodingError> {
        let width = match info {
            0..=23 => return Ok(u64::from(info)),
            24..=27 => 1 << (info - 24),
            _ => return Err(EncodingError::Kind),
        };
        let value = self.take(width)?.iter().fold(0, |v, b| v << 8 | u64::from(*b));
        let least = if width == 1 { 24 } else { 1 << (4 * width) };
        if value < least {
            Err(EncodingError::NotShortest)
        } else {
            Ok(value)
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], EncodingError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(EncodingError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

/// A decoder's error: the document is deterministic, but not of the expected shape.
#[derive(Debug, thiserror::Error)]
#[error("The document does not have the expected shape")]
pub struct ShapeError(#[source] Option<CborError>);

impl ShapeError {
    /// The shape is wrong in a way that the CBOR reader does not see.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

impl Default for ShapeError {
    fn default() -> Self {
        Self::new()
    }
}

impl From<CborError> for ShapeError {
    fn from(error: CborError) -> Self {
        Self(Some(error))
    }
}

pub(crate) type Encoder<'a> = minicbor::Encoder<&'a mut Vec<u8>>;
pub(crate) type Decoder<'a> = minicbor::Decoder<'a>;

/// Writing to a vector cannot fail; this spells that once.
pub(crate) fn infallible<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    debug_assert!(result.is_ok(), "writing CBOR to memory cannot fail");
}

/// Encodes a document.
pub(crate) fn to_vec(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut minicbor::Encoder::new(&mut bytes));
    bytes
}

/// Reads an array header and requires its exact length.
pub(crate) fn array_of(d: &mut Decoder<'_>, len: u64) -> Result<(), ShapeError> {
    if d.array()? == Some(len) {
        Ok(())
    } else {
        Err(ShapeError::new())
    }
}

/// Reads an array header and returns its length.
pub(crate) fn array_len(d: &mut Decoder<'_>) -> Result<u64, ShapeError> {
    d.array()?.ok_or(ShapeError::new())
}

/// Reads a byte string of exactly N bytes.
pub(crate) fn bytes_of<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], ShapeError> {
    d.bytes()?.try_into().map_err(|_| ShapeError::new())
}

/// Reads `null` or a value.
pub(crate) fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, ShapeError>,
) -> Result<Option<T>, ShapeError> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    read(d).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_deterministic_documents_pass() {
        let good: [&[u8]; 6] = [
            &[0x00],
            &[0x18, 24],
            &[0x80],
            &[0x82, 0x01, 0x41, 0xff],
            &[0xf6],
            &[0x61, b'a'],
        ];
        for bytes in good {
            assert_eq!(check(bytes), Ok(()), "{bytes:02x?}");
        }
        let bad: [(&[u8], EncodingError); 12] = [
            (&[], EncodingError::Truncated),
            (&[0x18, 23], EncodingError::NotShortest),
            (&[0x19, 0, 255], EncodingError::NotShortest),
            (&[0x1a, 0, 0, 0xff, 0xff], EncodingError::NotShortest),
            (
                &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
                EncodingError::NotShortest,
            ),
            (&[0x58, 1, 0], EncodingError::NotShortest),
            (&[0x9f, 0xff], EncodingError::Kind),
            (&[0xa0], EncodingError::Kind),
            (&[0xc0, 0], EncodingError::Kind),
            (&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], EncodingError::Kind),
            (&[0, 0], EncodingError::Trailing),
            (&[0x61, 0xff], EncodingError::Text),
        ];
        for (bytes, error) in bad {
            assert_eq!(check(bytes), Err(error), "{bytes:02x?}");
        }
    }

    #[test]
    fn depth_and_counts_are_limited() {
        let mut nested = vec![0x81; 8];
        nested.push(0);
        assert_eq!(check(&nested), Ok(()));
        nested.insert(0, 0x81);
        assert_eq!(check(&nested), Err(EncodingError::Limit));
        let mut wide = vec![0x99, 0x20, 0x01];
        wide.extend(std::iter::repeat_n(0, 8193));
        assert_eq!(check(&wide), Err(EncodingError::Limit));
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }
    }
}
