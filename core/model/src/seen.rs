//! Which meters went through a room lately, and which failed there: the counters say how much, this says of what.
//!
//! In: what a room made or took, by meter, and what it could not. Out: one row for each room and meter. It is for people who
//! look for a missing meter: bounded, lost at a restart, and nothing is decided by it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Sample, Timestamp};

/// Rows that are remembered, a few hundred bytes each; beyond them the one that was seen longest ago is forgotten.
const ROWS_MAX: usize = 5_000;
/// Longer names and reasons are cut: they are shown to people.
const TEXT_CHARACTERS_MAX: usize = 255;

/// What a room knows of a meter since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMeter {
    /// The room.
    pub room: &'static str,
    /// Name of the meter.
    pub meter: String,
    /// Samples that went on; a poll of nothing adds none.
    pub passed: u64,
    /// When it last went well, with or without samples.
    pub passed_at: Option<Timestamp>,
    /// How often it went wrong.
    pub failed: u64,
    /// When and why it last did.
    pub failure: Option<(Timestamp, String)>,
}

impl SeenMeter {
    fn last_at(&self) -> Option<Timestamp> {
        self.passed_at.max(self.failure.as_ref().map(|(at, _)| *at))
    }
}

/// The rows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    rows: Arc<Mutex<HashMap<(&'static str, String), SeenMeter>>>,
}

/// How many samples there are of each meter.
pub fn by_meter<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    // Samples of one meter mostly come one after the other.
    let mut run: Option<(&str, u64)> = None;
    for sample in samples {
        match &mut run {
            Some((meter, count)) if *meter == sample.meter => *count += 1,
            other => {
                if let Some((meter, count)) = other.replace((&sample.meter, 1)) {
                    *counts.entry(meter).or_default() += count;
                }
            }
        }
    }
    if let Some((meter, count)) = run {
        *counts.entry(meter).or_default() += count;
    }
    counts
}

impl Seen {
    pub(crate) fn passed<'a>(
        &self,
        room: &'static str,
        meters: impl IntoIterator<Item = (&'a str, u64)>,
        now: Timestamp,
    ) {
        self.change(room, meters, |row, count| {
            row.passed += count;
            row.passed_at = row.passed_at.max(Some(now));
        });
    }

    pub(crate) fn failed<'a>(
        &self,
        room: &'static str,
        meters: impl IntoIterator<Item = &'a str>,
        reason: &str,
        now: Timestamp,
    ) {
        let reason: String = reason.chars().take(TEXT_CHARACTERS_MAX).collect();
        self.change(room, meters.into_iter().map(|meter| (meter, 1)), |row, count| {
            row.failed += count;
            row.failure = Some((now, reason.clone()));
        });
    }

    fn change<'a>(
        &self,
        room: &'static str,
        meters: impl IntoIterator<Item = (&'a str, u64)>,
        change: impl Fn(&mut SeenMeter, u64),
    ) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (meter, count) in meters {
            let meter: String = meter.chars().take(TEXT_CHARACTERS_MAX).collect();
            let key = (room, meter);
            if rows.len() >= ROWS_MAX
                && !rows.contains_key(&key)
                && let Some(oldest) = rows.iter().min_by_key(|(_, row)| row.last_at()).map(|(key, _)| key.clone())
            {
                rows.remove(&oldest);
            }
            let (room, meter) = key.clone();
            let empty = || SeenMeter { room, meter, passed: 0, passed_at: None, failed: 0, failure: None };
            change(rows.entry(key).or_insert_with(empty), count);
        }
    }

    /// Rows of the meters that are wanted, by room.
    pub(crate) fn list(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<SeenMeter> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<SeenMeter> = rows.values().filter(|row| is_wanted(&row.meter)).cloned().collect();
        rows.sort_by(|a, b| (a.room, &a.meter).cmp(&(b.room, &b.meter)));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_tell_what_went_through_and_what_failed() {
        let (seen, at) = (Seen::default(), Timestamp::from_secs);
        seen.passed("compute", [("cpu", 3), ("memory", 0)], at(10));
        seen.failed("compute", ["cpu"], "the hypervisor is silent", at(20));
        seen.passed("compute", [("cpu", 2)], at(15));
        seen.passed("collector", [("cpu", 1)], at(11));
        let rows = seen.list(|meter| meter == "cpu");
        assert_eq!(rows.iter().map(|row| row.room).collect::<Vec<_>>(), ["collector", "compute"]);
        let polled = &rows[1];
        assert_eq!((polled.passed, polled.passed_at, polled.failed), (5, Some(at(15)), 1));
        assert_eq!(polled.failure, Some((at(20), "the hypervisor is silent".to_owned())));
        let empty = &seen.list(|meter| meter == "memory")[0];
        assert_eq!((empty.passed, empty.passed_at), (0, Some(at(10))), "it was polled and gave nothing");
    }

    #[test]
    fn what_was_seen_longest_ago_is_forgotten() {
        let seen = Seen::default();
        seen.passed("collector", [("first", 1)], Timestamp::from_secs(1));
        for number in 0..ROWS_MAX as i64 {
            let name = format!("m{number}");
            seen.passed("collector", [(name.as_str(), 1)], Timestamp::from_secs(2 + number));
        }
        assert_eq!(seen.list(|_| true).len(), ROWS_MAX);
        assert!(seen.list(|meter| meter == "first").is_empty());
        seen.passed("collector", [("x".repeat(9_999).as_str(), 1)], Timestamp::from_secs(9));
        assert_eq!(seen.list(|meter| meter.starts_with('x'))[0].meter.len(), TEXT_CHARACTERS_MAX);
    }
}
