//! The room that is left on a file system whatever is fetched: a full disk would stop the user's own programs too.
//!
//! Contents are not fetched or copied into what is reserved. Deletions, renames, modes and directories are small, and
//! often what makes room: they are not held back.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// Most of the default reserve: a hundredth of a large disk would be more than anybody wants to leave unused.
const DEFAULT_MOST: u64 = 1 << 30;
/// Largest percentage that makes sense.
const MAX_PERCENT: u8 = 99;

/// How much is left free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// A hundredth of the file system, at most 1 GiB.
    #[default]
    Default,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system.
    Percent(u8),
}

impl Reserve {
    /// Reads `1GiB`, `500 MiB`, `2%` or `0`.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a size like \"1GiB\", a part like \"2%\", or \"0\", found {text:?}");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let shift = match unit.trim() {
            "%" => {
                let percent = u8::try_from(number)
                    .ok()
                    .filter(|percent| *percent <= MAX_PERCENT);
                return percent.map(Self::Percent).ok_or_else(wrong);
            }
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << shift).map(Self::Bytes).ok_or_else(wrong)
    }

    /// Returns the bytes to leave free on a file system of `total` bytes.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Default => (total / 100).min(DEFAULT_MOST),
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }

    /// Fails if `needed` bytes would not leave the reserve free on the file system of an open file. One that does not
    /// tell how full it is has room.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] around [`NoRoom`].
    pub fn check(self, on: impl AsFd, needed: u64) -> io::Result<()> {
        let Ok(stat) = rustix::fs::fstatvfs(on) else {
            return Ok(());
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserved = self.of(stat.f_blocks.saturating_mul(stat.f_frsize));
        self.judge(needed, free, reserved)
            .map_err(|no_room| io::Error::new(io::ErrorKind::StorageFull, no_room))
    }

    fn judge(self, needed: u64, free: u64, reserved: u64) -> Result<(), NoRoom> {
        // Without a reserve the file system decides: it may compress or share what is written.
        if self == Self::Bytes(0) || needed.saturating_add(reserved) <= free {
            return Ok(());
        }
        Err(NoRoom {
            needed,
            free,
            reserved,
        })
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("1%, at most 1GiB"),
            Self::Bytes(bytes) => {
                let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
                let whole = |shift: &u32| *bytes > 0 && bytes.trailing_zeros() >= *shift;
                match units.iter().find(|(shift, _)| whole(shift)) {
                    Some((shift, unit)) => write!(f, "{}{unit}", bytes >> shift),
                    None => write!(f, "{bytes}"),
                }
            }
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Something would not leave enough free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room: it needs {}, {} are free, and {} of these are to stay free (folder.min_free)",
    Size(*needed), Size(*free), Size(*reserved)
)]
pub struct NoRoom {
    /// Bytes that it needs.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that stay free.
    pub reserved: u64,
}

/// Bytes for people: `3.1 MiB`.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut tenths, mut unit) = (u128::from(self.0) * 10, "bytes");
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if tenths < 10_240 {
                break;
            }
            (tenths, unit) = (tenths / 1024, larger);
        }
        if unit == "bytes" {
            write!(f, "{} bytes", self.0)
        } else {
            write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_parts_are_read_and_shown() {
        let check = |text: &str, expect: Option<(Reserve, &str)>| {
            let found = Reserve::parse(text).ok();
            assert_eq!(
                found.map(|r| (r, r.to_string())),
                expect.map(|(r, s)| (r, s.to_owned())),
                "{text}"
            );
        };
        check("0", Some((Reserve::Bytes(0), "0")));
        check("4096", Some((Reserve::Bytes(4096), "4KiB")));
        check("1GiB", Some((Reserve::Bytes(1 << 30), "1GiB")));
        check(" 500 MiB ", Some((Reserve::Bytes(500 << 20), "500MiB")));
        check("2%", Some((Reserve::Percent(2), "2%")));
        for text in [
            "",
            "GiB",
            "1.5GiB",
            "-1",
            "1GB",
            "100%",
            "99999999999999999999",
            "99999999TiB",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn the_default_is_a_hundredth_and_never_more_than_a_gibibyte() {
        assert_eq!(Reserve::Default.of(8 << 20), (8 << 20) / 100);
        assert_eq!(Reserve::Default.of(16 << 40), 1 << 30);
        assert_eq!(Reserve::Percent(2).of(1000), 20);
    }

    #[test]
    fn what_would_touch_the_reserve_is_refused_with_all_three_numbers() {
        let reserve = Reserve::Bytes(100);
        assert_eq!(reserve.judge(50, 150, 100), Ok(()));
        let refused = reserve.judge(5 << 20, 3 << 20, 1 << 20).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no room: it needs 5.0 MiB, 3.0 MiB are free, and 1.0 MiB of these are to stay free (folder.min_free)"
        );
        assert!(reserve.judge(51, 150, 100).is_err());
        assert!(reserve.judge(u64::MAX, 150, 100).is_err());
        assert_eq!(Reserve::Bytes(0).judge(u64::MAX, 0, 0), Ok(()));
    }

    #[test]
    fn a_real_file_system_is_asked() {
        let dir = std::fs::File::open(std::env::temp_dir()).unwrap();
        let full = Reserve::Percent(0).check(&dir, u64::MAX).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(Reserve::Bytes(0).check(&dir, u64::MAX).is_ok());
    }
}
