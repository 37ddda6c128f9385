//! From what `lstat` says to an entry.

use p2p_sync_core::engine::Observed;
use p2p_sync_core::tree::{Entry, Fingerprint, Installed, Node};

use super::Modes;

/// The owner's execute bit.
const OWNER_EXEC: u32 = 0o100;

/// Makes the observation of a path. What this device did not change itself is repeated from the entry it installed: a
/// mode or time that its file system cannot keep must not come back as an edit.
pub(super) fn observe(
    node: Node,
    print: Fingerprint,
    installed: Option<&Installed>,
    modes: Modes,
) -> Observed {
    let base = installed.filter(|i| same_kind(&i.entry.node, &node));
    let mode = match node {
        Node::Link { .. } => 0o777,
        Node::File { .. } | Node::Dir => mode_of(&node, print, base, modes),
    };
    let mtime_ns = match (&node, base) {
        (Node::Dir, _) => 0,
        (_, Some(base)) if base.print.mtime_ns == print.mtime_ns => base.entry.mtime_ns,
        _ => print.mtime_ns,
    };
    Observed {
        entry: Entry { node, mode, mtime_ns },
        print,
        manifest: None,
    }
}

fn mode_of(node: &Node, print: Fingerprint, base: Option<&Installed>, modes: Modes) -> u32 {
    let bits = print.mode & 0o777;
    if let Some(base) = base.filter(|b| b.print.mode & 0o777 == bits) {
        return base.entry.mode;
    }
    match (modes, base) {
        (Modes::Full, _) => bits,
        (Modes::Exec, Some(base)) if node.is_dir() => base.entry.mode,
        (Modes::Exec, Some(base)) => base.entry.mode & !OWNER_EXEC | bits & OWNER_EXEC,
        (Modes::Exec, None) if node.is_dir() || bits & OWNER_EXEC != 0 => 0o755,
        (Modes::Exec, None) => 0o644,
    }
}

const fn same_kind(a: &Node, b: &Node) -> bool {
    matches!(
        (a, b),
        (Node::File { .. }, Node::File { .. })
            | (Node::Dir, Node::Dir)
            | (Node::Link { .. }, Node::Link { .. })
    )
}
