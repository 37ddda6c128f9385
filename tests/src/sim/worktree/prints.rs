//! What fingerprints tell about an entry.

use p2p_sync_core::tree::{Entry, Fingerprint};

const TYPE_BITS: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const DIR: u32 = 0o040_000;

pub(super) const fn is_dir(print: &Fingerprint) -> bool {
    print.mode & TYPE_BITS == DIR
}

pub(super) const fn is_file(print: &Fingerprint) -> bool {
    print.mode & TYPE_BITS == FILE
}

/// Says whether what stands at a path is what was expected there.
pub(super) fn is_expected(expect: Option<&Fingerprint>, now: Option<&Fingerprint>) -> bool {
    match (expect, now) {
        (None, None) => true,
        (Some(expect), Some(now)) if is_dir(expect) => expect.mode == now.mode,
        (Some(expect), Some(now)) => expect == now,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Says whether this is the expected entry after a rename, which moves the change time.
pub(super) fn is_moved(expect: &Fingerprint, now: &Fingerprint) -> bool {
    let ctime_ns = expect.ctime_ns;
    is_expected(Some(expect), Some(&Fingerprint { ctime_ns, ..*now }))
}

/// Says whether a file still holds the bytes it held.
pub(super) const fn is_untouched(before: &Fingerprint, now: &Fingerprint) -> bool {
    before.ino == now.ino && before.size == now.size && before.mtime_ns == now.mtime_ns
}

/// Returns the print to tell of an entry that was put in place as `staged` and looks like `now`.
pub(super) fn as_installed(staged: &Fingerprint, now: Fingerprint) -> Fingerprint {
    if is_untouched(staged, &now) && staged.mode == now.mode {
        now
    } else {
        *staged
    }
}

/// Says whether an entry that had this mode has it still, or the one that its new entry asks for.
pub(super) const fn is_mode_of_ours(entry: &Entry, old: u32, now: u32) -> bool {
    now == old || now & 0o777 == entry.mode
}

/// Says whether an entry on disk already has the wanted mode and time.
pub(super) const fn has_meta(entry: &Entry, now: &Fingerprint) -> bool {
    now.mode & 0o777 == entry.mode && now.mtime_ns == entry.mtime_ns
}
