//! The ledger of what was verified, in the repository.
//!
//! A run adds objects and, when they have become many, one that has everything of those before it, which are then removed where
//! that is allowed. Where it is not, they are passed over: whoever reads begins with the newest, and skips what a newer one replaces.

use std::collections::BTreeSet;

use super::{RepositoryError, ServerRepository, keys, malformed};
use crate::catalog::{LEDGER_FORMAT, Ledger, LedgerName};
use crate::storage::{Put, StorageErrorKind};
use crate::wal::PgTime;

/// Longest ledger object, in bytes: runs of segments and packs, of which there are few.
const LEDGER_BYTES: u64 = 64 << 20;
/// Whoever wrote an object named it not longer before than this: so a listing that is older than that is complete.
const SETTLED_AFTER: i64 = 24 * 3600 * 1_000_000;

/// The ledger as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoredLedger {
    /// What counts: the objects that no other one replaces.
    pub current: Vec<(LedgerName, Ledger)>,
    /// All objects that are there.
    pub listed: Vec<LedgerName>,
}

impl StoredLedger {
    /// The objects that count.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.current.iter().map(|(_, ledger)| ledger.clone()).collect()
    }

    /// Makes an object that has everything of those that are there replace them.
    pub fn replace_all(&self, ledger: &mut Ledger, now: PgTime) {
        let settled = PgTime(now.0.saturating_sub(SETTLED_AFTER));
        ledger.replaces = self.listed.iter().filter(|name| name.written_at() >= settled).copied().collect();
        ledger.replaces_before = Some(settled);
    }
}

impl ServerRepository {
    /// Reads the ledger. An object that cannot be understood is passed over: what it told of is verified again.
    ///
    /// # Errors
    /// The store fails.
    pub fn ledger(&self) -> Result<StoredLedger, RepositoryError> {
        let names = self.storage.names(&keys::verified(&self.folder))?;
        let mut listed: Vec<LedgerName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        listed.sort_unstable();
        let (mut current, mut replaced, mut before) = (Vec::new(), BTreeSet::new(), None);
        for name in listed.iter().rev() {
            if replaced.contains(name) || before.is_some_and(|before| name.written_at() < before) {
                continue;
            }
            let Some(ledger) = self.ledger_object(*name)? else { continue };
            replaced.extend(ledger.replaces.iter().copied());
            before = before.max(ledger.replaces_before);
            current.push((*name, ledger));
        }
        Ok(StoredLedger { current, listed })
    }

    fn ledger_object(&self, name: LedgerName) -> Result<Option<Ledger>, RepositoryError> {
        let key = keys::ledger(&self.folder, name);
        let read = match self.storage.get(&key, LEDGER_BYTES) {
            Ok(bytes) => serde_json::from_slice::<Ledger>(&bytes).map_err(|error| error.to_string()),
            // A run that ended meanwhile put another in its place.
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) if error.kind == StorageErrorKind::TooLarge => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let storage = self.storage.describe();
        match read {
            Ok(ledger) if ledger.format == LEDGER_FORMAT => return Ok(Some(ledger)),
            Ok(ledger) => tracing::info!("\"{key}\" in {storage} has format {} and is passed over", ledger.format),
            Err(why) => {
                tracing::warn!("\"{key}\" in {storage} is passed over: {why}; what it told of is verified again")
            }
        }
        Ok(None)
    }

    /// Adds an object to the ledger.
    ///
    /// # Errors
    /// The store fails, or does not let us write.
    pub fn put_ledger(&self, name: LedgerName, ledger: &Ledger) -> Result<Put, RepositoryError> {
        let key = keys::ledger(&self.folder, name);
        let storage = self.storage.as_ref();
        let bytes = serde_json::to_vec(ledger).map_err(|error| malformed(storage, &key, &error))?;
        Ok(storage.put(&key, &bytes)?)
    }

    /// Removes objects of the ledger that a newer one replaces. Where that is not allowed they stay, and are passed over.
    pub fn tidy_ledger(&self, replaced: &[LedgerName]) {
        for name in replaced {
            let key = keys::ledger(&self.folder, *name);
            if let Err(error) = self.storage.delete(&key) {
                tracing::info!("what another object replaces stays: {error}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::repository::Repository;
    use crate::storage::{Memory, Storage};
    use crate::wal::SystemIdentifier;

    const DAY: i64 = 24 * 3600 * 1_000_000;

    fn server() -> ServerRepository {
        let storage: Arc<dyn Storage> = Arc::new(Memory::default());
        let repository = Repository::create(storage, PgTime(0)).expect("an empty store");
        repository.cluster(&"main".parse().expect("a good name")).server(SystemIdentifier(7))
    }

    fn hosts(server: &ServerRepository) -> Vec<String> {
        server.ledger().expect("memory").ledgers().into_iter().map(|ledger| ledger.host).collect()
    }

    /// Objects that a newer one replaces are not read again, also where nobody may remove them; what came in between from another
    /// writer counts.
    #[test]
    fn replaced() {
        let server = server();
        let ledger = |host: &str| Ledger { format: LEDGER_FORMAT, host: host.to_owned(), ..Ledger::default() };
        let name = |at, random| LedgerName::new(PgTime(at), random);
        for (at, host) in [(0, "a"), (5 * DAY, "b"), (6 * DAY, "c")] {
            server.put_ledger(name(at, 1), &ledger(host)).expect("memory");
        }
        let stored = server.ledger().expect("memory");
        // Another writer, whose object was not seen.
        server.put_ledger(name(6 * DAY, 2), &ledger("other")).expect("memory");
        let now = PgTime(6 * DAY + 60_000_000);
        let mut all = ledger("all");
        stored.replace_all(&mut all, now);
        assert_eq!(all.replaces, [name(6 * DAY, 1)], "what is older is replaced by its age");
        server.put_ledger(LedgerName::new(now, 3), &all).expect("memory");
        assert_eq!(hosts(&server), ["all", "other"]);
        server.tidy_ledger(&stored.listed);
        assert_eq!(server.ledger().expect("memory").listed.len(), 2);
        assert_eq!(hosts(&server), ["all", "other"]);
    }

    /// What is no ledger object of this version is passed over.
    #[test]
    fn not_understood() {
        let server = server();
        server.storage.put(&keys::ledger(&server.folder, LedgerName::new(PgTime(0), 1)), b"{").expect("memory");
        let newer = Ledger { format: 2, ..Ledger::default() };
        server.put_ledger(LedgerName::new(PgTime(0), 2), &newer).expect("memory");
        assert!(hosts(&server).is_empty());
    }
}
