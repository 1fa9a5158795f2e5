//! What metrics of a name have for labels, from memory: a dashboard asks the same names again and again, and reading a
//! thousand resources from the database costs more than reading their points.
//!
//! A row is true as long as the index has not changed ([`orzo_index::Index::changes`]); what is changed in the database by
//! anything but this process is seen after [`TRUSTED_FOR`] at the latest. Tenants are apart: the scope is part of the key.
//!
//! Label sets that a selector has found are remembered as well, as long as no series of their project comes or goes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use orzo_labels::Version;
use orzo_model::{Scope, SeriesId};
use orzo_promql::Labels;
use parking_lot::Mutex;

/// Label sets that are kept, about 600 bytes each; beyond them everything is forgotten and read again.
const ROWS_MAX: usize = 100_000;
/// Longer than the minute after which dashboards ask again. The process with the store is the only one that writes the
/// index, and hears of each change; this is for what an operator changes in the database behind its back.
const TRUSTED_FOR: Duration = Duration::from_secs(90);

/// Metrics of one name within one scope, with their labels.
pub(super) type Named = Arc<Vec<(SeriesId, Labels)>>;

#[derive(Clone)]
struct Kept<T> {
    value: T,
    changes: u64,
    read_at: Duration,
}

impl<T> Kept<T> {
    fn is_true(&self, changes: u64, now: Duration) -> bool {
        self.changes == changes && now.saturating_sub(self.read_at) < TRUSTED_FOR
    }
}

/// When something was read: before it, so that a change in between makes it untrue.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    changes: u64,
    at: Duration,
}

#[derive(Default)]
struct Rows {
    metrics: HashMap<(String, Scope), Kept<Named>>,
    names: HashMap<Scope, Kept<Arc<Vec<String>>>>,
    count: usize,
}

/// Label sets that are kept, some 600 bytes each with what only they have; beyond them everything is forgotten.
const SETS_MAX: usize = 50_000;

/// What selectors found among label sets: by book, then by the selector's text.
#[derive(Default)]
struct SetRows {
    books: HashMap<String, HashMap<String, (Version, Named)>>,
    count: usize,
}

/// The memory; one for an engine.
#[derive(Default)]
pub(crate) struct Memory {
    rows: Mutex<Rows>,
    sets: Mutex<SetRows>,
}

impl Memory {
    pub(super) fn reading(changes: u64, now: Duration) -> Reading {
        Reading { changes, at: now }
    }

    pub(super) fn metrics(&self, name: &str, scope: &Scope, reading: Reading) -> Option<Named> {
        let rows = self.rows.lock();
        let kept = rows.metrics.get(&(name.to_owned(), scope.clone()))?;
        kept.is_true(reading.changes, reading.at).then(|| kept.value.clone())
    }

    pub(super) fn keep_metrics(&self, name: &str, scope: &Scope, value: Named, reading: Reading) {
        let mut rows = self.rows.lock();
        let key = (name.to_owned(), scope.clone());
        let before = rows.metrics.get(&key).map_or(0, |kept| kept.value.len() + 1);
        // An empty list takes place as well.
        let after = rows.count - before + value.len() + 1;
        if after > ROWS_MAX {
            *rows = Rows::default();
            return;
        }
        rows.count = after;
        rows.metrics.insert(key, Kept { value, changes: reading.changes, read_at: reading.at });
    }

    /// What a selector found in a book that has not changed since.
    pub(super) fn sets(&self, book: &str, selector: &str, version: Version) -> Option<Named> {
        let sets = self.sets.lock();
        let (known, found) = sets.books.get(book)?.get(selector)?;
        (*known == version).then(|| found.clone())
    }

    pub(super) fn keep_sets(&self, book: &str, selector: String, version: Version, found: Named) {
        let mut sets = self.sets.lock();
        // An empty list takes place as well.
        let more = found.len() + 1;
        let before =
            sets.books.get(book).and_then(|known| known.get(&selector)).map_or(0, |(_, found)| found.len() + 1);
        if sets.count - before + more > SETS_MAX {
            *sets = SetRows::default();
            return;
        }
        sets.count = sets.count - before + more;
        sets.books.entry(book.to_owned()).or_default().insert(selector, (version, found));
    }

    pub(super) fn names(&self, scope: &Scope, reading: Reading) -> Option<Arc<Vec<String>>> {
        let rows = self.rows.lock();
        let kept = rows.names.get(scope)?;
        kept.is_true(reading.changes, reading.at).then(|| kept.value.clone())
    }

    pub(super) fn keep_names(&self, scope: &Scope, value: Arc<Vec<String>>, reading: Reading) {
        let mut rows = self.rows.lock();
        let before = rows.names.get(scope).map_or(0, |kept| kept.value.len() + 1);
        let after = rows.count - before + value.len() + 1;
        if after > ROWS_MAX {
            *rows = Rows::default();
            return;
        }
        rows.count = after;
        rows.names.insert(scope.clone(), Kept { value, changes: reading.changes, read_at: reading.at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: u64) -> Named {
        Arc::new((0..count).map(|number| (SeriesId(number), Labels::new([("__name__", "cpu")]))).collect())
    }

    #[test]
    fn what_is_remembered_is_true_until_something_changes_or_time_has_passed() {
        let memory = Memory::default();
        let at = |changes, seconds| Memory::reading(changes, Duration::from_secs(seconds));
        let own = Scope::Project("p1".to_owned());
        memory.keep_metrics("cpu", &own, labels(2), at(1, 10));
        assert_eq!(memory.metrics("cpu", &own, at(1, 99)).map(|named| named.len()), Some(2));
        assert!(memory.metrics("cpu", &own, at(2, 99)).is_none(), "the index has changed");
        assert!(memory.metrics("cpu", &own, at(1, 100)).is_none(), "somebody may have changed it");
        assert!(memory.metrics("cpu", &Scope::Project("p2".to_owned()), at(1, 99)).is_none(), "another's");
        assert!(memory.metrics("memory", &own, at(1, 99)).is_none());
    }

    #[test]
    fn label_sets_are_remembered_by_project_and_bounded() {
        let (memory, version) = (Memory::default(), Version::default());
        memory.keep_sets("p1", "up".to_owned(), version, labels(2));
        assert_eq!(memory.sets("p1", "up", version).map(|found| found.len()), Some(2));
        assert!(memory.sets("p2", "up", version).is_none(), "another's");
        assert!(memory.sets("p1", "down", version).is_none());
        for number in 0..30 {
            memory.keep_sets("p1", format!("m{number}"), version, labels(SETS_MAX as u64 / 20));
        }
        let sets = memory.sets.lock();
        let count: usize = sets.books.values().flat_map(HashMap::values).map(|(_, found)| found.len() + 1).sum();
        assert!(count == sets.count && count <= SETS_MAX, "{count} {}", sets.count);
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::default();
        let at = Memory::reading(1, Duration::ZERO);
        memory.keep_metrics("many", &Scope::All, labels(ROWS_MAX as u64), at);
        assert!(memory.metrics("many", &Scope::All, at).is_none());
        for number in 0..30 {
            memory.keep_metrics(&format!("m{number}"), &Scope::All, labels(ROWS_MAX as u64 / 20), at);
        }
        assert!(memory.rows.lock().count <= ROWS_MAX);
        memory.keep_names(&Scope::All, Arc::new(vec!["cpu".to_owned()]), at);
        assert_eq!(memory.names(&Scope::All, at).map(|names| names.len()), Some(1));
    }
}
