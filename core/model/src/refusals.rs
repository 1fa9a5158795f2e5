//! What was refused lately, and of which meter: the counters say how much, this says whose.
//!
//! In: what a room refused, with its reason. Out: one row for each room, reason, meter and project, the newest first. It is
//! for people who look for a missing meter; it is bounded, it is lost at a restart, and nothing is decided by it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::Timestamp;

/// Rows that are remembered; beyond them the oldest is forgotten. Names are at most 255 characters, so this is a few
/// hundred kilobytes.
const ROWS_MAX: usize = 1_000;

/// A sample that a room refused, as far as it can be told whose it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSample {
    /// Name of the meter.
    pub meter: String,
    /// Its resource, as the sender names it.
    pub resource_id: String,
    /// Whose it is.
    pub project_id: Option<String>,
}

/// Samples of one meter that a room refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The room.
    pub room: &'static str,
    /// As counted.
    pub reason: &'static str,
    /// The last of them.
    pub last: RefusedSample,
    /// When the last was refused.
    pub last_at: Timestamp,
    /// How many since the start, or since the row was forgotten.
    pub count: u64,
}

type Key = (&'static str, &'static str, String, Option<String>);

/// The rows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Refusals {
    rows: Arc<Mutex<HashMap<Key, Refused>>>,
}

impl Refusals {
    pub(crate) fn note(&self, room: &'static str, reason: &'static str, sample: RefusedSample, now: Timestamp) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (room, reason, sample.meter.clone(), sample.project_id.clone());
        if let Some(row) = rows.get_mut(&key) {
            row.count += 1;
            row.last = sample;
            row.last_at = now;
            return;
        }
        if rows.len() >= ROWS_MAX
            && let Some(oldest) = rows.iter().min_by_key(|(_, row)| row.last_at).map(|(key, _)| key.clone())
        {
            rows.remove(&oldest);
        }
        rows.insert(key, Refused { room, reason, last: sample, last_at: now, count: 1 });
    }

    /// The newest first.
    pub(crate) fn list(&self) -> Vec<Refused> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<Refused> = rows.values().cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_at));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(meter: &str) -> RefusedSample {
        RefusedSample { meter: meter.to_owned(), resource_id: "r".to_owned(), project_id: None }
    }

    #[test]
    fn refusals_are_counted_by_meter_and_the_oldest_are_forgotten() {
        let refusals = Refusals::default();
        let at = Timestamp::from_micros;
        refusals.note("collector", "unit", sample("first"), at(1));
        for number in 0..ROWS_MAX as i64 {
            refusals.note("collector", "unit", sample(&format!("m{number}")), at(2 + number));
        }
        let last = ROWS_MAX as i64 + 2;
        refusals.note("collector", "unit", sample("m0"), at(last));
        let rows = refusals.list();
        assert_eq!(rows.len(), ROWS_MAX);
        assert!(rows.iter().all(|row| row.last.meter != "first"));
        assert_eq!((rows[0].last.meter.as_str(), rows[0].count, rows[0].last_at), ("m0", 2, at(last)));
    }
}
