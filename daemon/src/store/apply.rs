//! One write as SQL. All writes to a key that exists replace the row, except events, which never change.

use p2p_sync_core::content::Manifest;
use p2p_sync_core::engine::{StoredEvent, Write};
use p2p_sync_core::fold::{PathState, Version};
use p2p_sync_core::ids::{ContentHash, Dot, EventId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Installed, Node};
use rusqlite::{Connection, OptionalExtension, Params};

use super::StoreError;
use super::codec::{dot_key, node_key, prefix, write_installed, write_log, write_path_state, write_version};
use super::rows::{bits, seq_column};

/// Tables that [`Write::Forget`] empties: all but manifests and partials, which describe bytes and not a group.
const FORGET: &str = "
    DELETE FROM events; DELETE FROM logs; DELETE FROM versions; DELETE FROM paths; DELETE FROM replaced;
    DELETE FROM installed; DELETE FROM copy_names; DELETE FROM needs; DELETE FROM settings; DELETE FROM mentions;
    DELETE FROM author_bytes;
";

/// Applies one write within the open transaction.
pub(super) fn apply(connection: &Connection, write: &Write) -> Result<(), StoreError> {
    if let Write::Event(event) = write {
        return append(connection, event);
    }
    apply_row(connection, write).map_err(|source| StoreError::Write { source })
}

fn apply_row(c: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        // Taken by the caller.
        Write::Event(_) => Ok(()),
        Write::Log(short, log) => run(
            c,
            "INSERT OR REPLACE INTO logs (short, state) VALUES (?1, ?2)",
            (short.as_bytes(), write_log(log)),
        ),
        Write::Version(path, _, Some(version)) => put_version(c, path, version),
        Write::Version(path, dot, None) => run(
            c,
            "DELETE FROM versions WHERE path = ?1 AND dot = ?2",
            (path.as_bytes(), dot_key(*dot)),
        ),
        Write::Mention(path, dot, true) => run(
            c,
            "INSERT OR IGNORE INTO mentions (path, dot) VALUES (?1, ?2)",
            (path.as_bytes(), dot_key(*dot)),
        ),
        Write::Mention(path, dot, false) => run(
            c,
            "DELETE FROM mentions WHERE path = ?1 AND dot = ?2",
            (path.as_bytes(), dot_key(*dot)),
        ),
        Write::PathState(path, state) => put_path_state(c, path, state.as_ref()),
        Write::Replaced(path, node, Some(order)) => put_replaced(c, path, node, *order),
        Write::Replaced(path, node, None) => run(
            c,
            "DELETE FROM replaced WHERE path = ?1 AND node = ?2",
            (path.as_bytes(), node_key(node)),
        ),
        Write::Installed(path, installed) => put_installed(c, path, installed.as_ref()),
        Write::CopyName { name, origin } => match origin {
            Some(origin) => run(
                c,
                "INSERT OR REPLACE INTO copy_names (name, origin) VALUES (?1, ?2)",
                (name.as_bytes(), origin.as_bytes()),
            ),
            None => run(c, "DELETE FROM copy_names WHERE name = ?1", [name.as_bytes()]),
        },
        Write::Need(path, true) => run(
            c,
            "INSERT OR IGNORE INTO needs (path) VALUES (?1)",
            [path.as_bytes()],
        ),
        Write::Need(path, false) => run(c, "DELETE FROM needs WHERE path = ?1", [path.as_bytes()]),
        Write::Manifest(manifest) => put_manifest(c, manifest),
        Write::Setting(name, Some(value)) => run(
            c,
            "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)",
            (name, value),
        ),
        Write::Setting(name, None) => run(c, "DELETE FROM settings WHERE name = ?1", [name]),
        Write::Forget => c.execute_batch(FORGET),
    }
}

/// Appends an event; one that is already there is left alone, a different one in its place is an error.
fn append(c: &Connection, event: &StoredEvent) -> Result<(), StoreError> {
    let short = event.log;
    let seq = seq_column(event.seq);
    let row = (
        short.as_bytes(),
        seq,
        event.kind,
        event.author.as_bytes(),
        event.id.as_bytes(),
        &event.event.signature,
        &*event.event.header,
        &*event.event.body,
    );
    let write = |source| StoreError::Write { source };
    let added = c
        .prepare_cached(
            "INSERT INTO events (short, seq, kind, author, id, sig, header, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )
        .and_then(|mut insert| insert.execute(row))
        .map_err(write)?;
    if added > 0 {
        return count(c, event).map_err(write);
    }
    let known: Option<[u8; EventId::LEN]> = c
        .prepare_cached("SELECT id FROM events WHERE short = ?1 AND seq = ?2")
        .and_then(|mut query| {
            query
                .query_row((short.as_bytes(), seq), |row| row.get(0))
                .optional()
        })
        .map_err(write)?;
    if known == Some(*event.id.as_bytes()) {
        Ok(())
    } else {
        Err(StoreError::EventConflict {
            author: event.author,
            seq: event.seq,
        })
    }
}

/// Counts the bytes of an event that was added as its author's.
fn count(c: &Connection, event: &StoredEvent) -> rusqlite::Result<()> {
    run(
        c,
        "INSERT INTO author_bytes (author, bytes) VALUES (?1, ?2)
         ON CONFLICT (author) DO UPDATE SET bytes = bytes + excluded.bytes",
        (event.author.as_bytes(), seq_column(event.event.len() as u64)),
    )
}

fn put_version(c: &Connection, path: &RelPath, version: &Version) -> rusqlite::Result<()> {
    let node = version.node().map(|node| prefix(&node_key(node)));
    run(
        c,
        "INSERT OR REPLACE INTO versions (path, dot, node, data) VALUES (?1, ?2, ?3, ?4)",
        (
            path.as_bytes(),
            dot_key(version.dot),
            node,
            write_version(version),
        ),
    )
}

fn put_path_state(c: &Connection, path: &RelPath, state: Option<&PathState>) -> rusqlite::Result<()> {
    let Some(state) = state else {
        return run(c, "DELETE FROM paths WHERE path = ?1", [path.as_bytes()]);
    };
    run(
        c,
        "INSERT OR REPLACE INTO paths (path, live, state) VALUES (?1, ?2, ?3)",
        (path.as_bytes(), state.is_live(), write_path_state(state)),
    )
}

fn put_replaced(c: &Connection, path: &RelPath, node: &Node, order: (Hlc, EventId)) -> rusqlite::Result<()> {
    run(
        c,
        "INSERT OR REPLACE INTO replaced (path, node, hlc, event) VALUES (?1, ?2, ?3, ?4)",
        (
            path.as_bytes(),
            node_key(node),
            bits(order.0.bits()),
            order.1.as_bytes(),
        ),
    )
}

fn put_installed(c: &Connection, path: &RelPath, installed: Option<&Installed>) -> rusqlite::Result<()> {
    let Some(installed) = installed else {
        return run(c, "DELETE FROM installed WHERE path = ?1", [path.as_bytes()]);
    };
    let content = installed
        .entry
        .node
        .content()
        .map(|content| prefix(content.as_bytes()));
    run(
        c,
        "INSERT OR REPLACE INTO installed (path, content, copy, data) VALUES (?1, ?2, ?3, ?4)",
        (
            path.as_bytes(),
            content,
            installed.copy_of.is_some(),
            write_installed(installed),
        ),
    )
}

/// Notes that the user decided about these items of a path.
pub(super) fn settle(c: &Connection, path: &RelPath, dots: &[Dot]) -> rusqlite::Result<()> {
    for dot in dots {
        run(
            c,
            "UPDATE mentions SET settled = 1 WHERE path = ?1 AND dot = ?2",
            (path.as_bytes(), dot_key(*dot)),
        )?;
    }
    Ok(())
}

/// Keeps a manifest; one that is already there says the same.
pub(super) fn put_manifest(c: &Connection, manifest: &Manifest) -> rusqlite::Result<()> {
    run(
        c,
        "INSERT OR IGNORE INTO manifests (content, size, chunks) VALUES (?1, ?2, ?3)",
        (
            manifest.content().as_bytes(),
            bits(manifest.size()),
            manifest.chunks().as_flattened(),
        ),
    )
}

/// Keeps or forgets which chunks of a content are there.
pub(super) fn put_partial(
    c: &Connection,
    content: &ContentHash,
    bitmap: Option<&[u8]>,
) -> rusqlite::Result<()> {
    match bitmap {
        Some(bitmap) => run(
            c,
            "INSERT OR REPLACE INTO partials (content, bitmap) VALUES (?1, ?2)",
            (content.as_bytes(), bitmap),
        ),
        None => run(c, "DELETE FROM partials WHERE content = ?1", [content.as_bytes()]),
    }
}

fn run(c: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<()> {
    c.prepare_cached(sql)?.execute(params).map(|_| ())
}
