//! Taking another folder for the same state.

use p2p_sync_core::engine::{COMPARE, COMPARE_NOW};
use rusqlite::{Connection, TransactionBehavior};

use super::{Store, StoreError};

/// When the engine compares the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// At once.
    Now,
    /// Once the ledger is complete.
    WithPeers,
}

impl Store {
    /// Forgets what stands in the folder, and keeps what the group agreed on: every path is needed until it is found, and
    /// the engine compares all files as a joiner does. Durable on return; twice is as once.
    ///
    /// A join that has not compared its folder yet stays one, since its ledger may not be complete.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn forget_folder(&mut self, compare: Compare) -> Result<(), StoreError> {
        forget(&mut self.connection, compare).map_err(|source| StoreError::Write { source })
    }
}

fn forget(connection: &mut Connection, compare: Compare) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "DELETE FROM installed; DELETE FROM partials;
         INSERT OR IGNORE INTO needs SELECT path FROM paths WHERE live = 1;
         INSERT OR IGNORE INTO needs SELECT name FROM copy_names;",
    )?;
    let (on_conflict, value) = match compare {
        Compare::Now => ("IGNORE", COMPARE_NOW),
        // Also where a folder was to be compared at once.
        Compare::WithPeers => ("REPLACE", &[][..]),
    };
    transaction.execute(
        &format!(
            "INSERT OR {on_conflict} INTO settings (name, value)
             SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM settings WHERE name = 'group')"
        ),
        (COMPARE, value),
    )?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(group: bool) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
        store
            .connection
            .execute_batch(
                "INSERT INTO installed VALUES (CAST('a' AS BLOB), 1, 0, x'00');
                 INSERT INTO paths VALUES (CAST('a' AS BLOB), 1, x'00'), (CAST('b' AS BLOB), 0, x'00'),
                                          (CAST('c' AS BLOB), 1, x'00');
                 INSERT INTO copy_names VALUES (CAST('a (conflict)' AS BLOB), CAST('a' AS BLOB));
                 INSERT INTO partials VALUES (x'11', x'22');
                 INSERT INTO needs VALUES (CAST('c' AS BLOB));",
            )
            .unwrap();
        if group {
            let sql = "INSERT INTO settings VALUES ('group', x'00')";
            store.connection.execute_batch(sql).unwrap();
        }
        (dir, store)
    }

    fn setting(store: &Store) -> Option<Vec<u8>> {
        store.load().unwrap().settings.get(COMPARE).cloned()
    }

    #[test]
    fn everything_that_lives_is_needed_again_and_nothing_is_installed() {
        let (_dir, mut store) = store(true);
        for _ in 0..2 {
            store.forget_folder(Compare::Now).unwrap();
            let recovered = store.load().unwrap();
            let needs: Vec<_> = recovered.needs.iter().map(|path| path.as_bytes()).collect();
            assert_eq!(needs, [&b"a"[..], b"a (conflict)", b"c"]);
            assert_eq!(recovered.installed_count, 0);
            assert_eq!(setting(&store).as_deref(), Some(COMPARE_NOW));
        }
    }

    #[test]
    fn a_folder_that_was_to_be_compared_at_once_waits_for_the_ledger() {
        let (_dir, mut store) = store(true);
        store.forget_folder(Compare::Now).unwrap();
        store.forget_folder(Compare::WithPeers).unwrap();
        assert_eq!(setting(&store), Some(Vec::new()));
        assert_eq!(store.load().unwrap().installed_count, 0);
    }

    #[test]
    fn a_join_that_is_under_way_stays_one_and_without_a_group_nothing_is_compared() {
        let (_dir, mut joining) = store(true);
        let sql = "INSERT INTO settings VALUES ('joining', x'')";
        joining.connection.execute_batch(sql).unwrap();
        joining.forget_folder(Compare::Now).unwrap();
        assert_eq!(setting(&joining), Some(Vec::new()));
        let (_dir, mut fresh) = store(false);
        fresh.forget_folder(Compare::Now).unwrap();
        assert_eq!(setting(&fresh), None);
    }
}
