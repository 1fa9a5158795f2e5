//! Which ids are there already. Looked up by project and hour of use, which an id determines (a period it does not: what is
//! retried later would correct in a later period), so that a batch asks for what it is about and not for a year of everybody.
//! Pure but for the function that is handed in to read the ids of buckets.

use std::collections::{BTreeSet, HashMap, HashSet};

use orzo_model::Timestamp;
use orzo_rating::RatedLine;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

/// Width of a bucket.
const HOUR_MICROS: i64 = 3_600_000_000;
/// Ids remembered, about 40 bytes each. When there are more all are forgotten and read again as needed.
const IDS_MAX: usize = 2_000_000;

/// Hours by number since the epoch.
type Hour = i64;

/// A project (the hash of its id) and an hour of use.
pub(crate) type Bucket = (u128, Hour);

fn hour_of(time: Timestamp) -> Hour {
    time.micros().div_euclid(HOUR_MICROS)
}

/// The bucket of a line.
pub(crate) fn bucket_of(scope: &str, begin: Timestamp) -> Bucket {
    (xxh3_128(scope.as_bytes()), hour_of(begin))
}

/// The first and last microsecond of an hour.
fn bounds(hour: Hour) -> (i64, i64) {
    (hour.saturating_mul(HOUR_MICROS), hour.saturating_mul(HOUR_MICROS).saturating_add(HOUR_MICROS - 1))
}

/// Buckets whose ids are not known yet.
#[derive(Default)]
pub(crate) struct Missing {
    buckets: HashSet<Bucket>,
    hours: BTreeSet<Hour>,
    scopes: BTreeSet<String>,
}

impl Missing {
    /// Whether a file with these first and last begins of use and projects may have ids of theirs.
    pub(crate) fn may_be_in(&self, begins: (i64, i64), scopes: &(String, String)) -> bool {
        let first = hour_of(Timestamp::from_micros(begins.0));
        self.hours.range(first..).next().is_some_and(|hour| bounds(*hour).0 <= begins.1)
            && self.scopes.range::<String, _>(&scopes.0..=&scopes.1).next().is_some()
    }

    /// Whether a bucket is one of them.
    pub(crate) fn has(&self, bucket: &Bucket) -> bool {
        self.buckets.contains(bucket)
    }
}

/// Ids by bucket, of the buckets that were asked for lately.
#[derive(Default)]
pub(crate) struct Known {
    buckets: HashMap<Bucket, HashSet<Uuid>>,
    count: usize,
}

impl Known {
    /// Leaves out the lines that are there and those that a batch has twice. `read` tells the ids of buckets that are not
    /// known yet.
    pub(crate) fn new_of<E>(
        &mut self,
        mut lines: Vec<RatedLine>,
        read: impl FnOnce(&Missing) -> Result<Vec<(Bucket, Uuid)>, E>,
    ) -> Result<Vec<RatedLine>, E> {
        if self.count > IDS_MAX {
            self.forget();
        }
        let mut missing = Missing::default();
        for line in &lines {
            let bucket = bucket_of(&line.scope, line.begin);
            if !self.buckets.contains_key(&bucket) && missing.buckets.insert(bucket) {
                missing.hours.insert(bucket.1);
                if !missing.scopes.contains(&line.scope) {
                    missing.scopes.insert(line.scope.clone());
                }
            }
        }
        if !missing.buckets.is_empty() {
            let found = read(&missing)?;
            self.count += found.len();
            for bucket in missing.buckets {
                self.buckets.insert(bucket, HashSet::new());
            }
            for (bucket, id) in found {
                self.buckets.entry(bucket).or_default().insert(id);
            }
        }
        let mut within = HashSet::with_capacity(lines.len());
        let buckets = &self.buckets;
        lines.retain(|line| {
            let is_there = buckets.get(&bucket_of(&line.scope, line.begin)).is_some_and(|ids| ids.contains(&line.id));
            !is_there && within.insert(line.id)
        });
        Ok(lines)
    }

    /// These are there now.
    pub(crate) fn add(&mut self, lines: &[RatedLine]) {
        for line in lines {
            self.buckets.entry(bucket_of(&line.scope, line.begin)).or_default().insert(line.id);
        }
        self.count += lines.len();
    }

    /// After an error nobody knows what is there.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
