//! Which times have changed since a moment: so that whoever remembers what was read knows whether it is still so.
//!
//! `appended points, deletions, retention → hours with the moment of their last change → ranges that changed since`. A
//! change is told for its whole hour, and more than really changed may be told, never less. Pure memory, empty after a
//! start, when nobody remembers anything either.

use std::collections::BTreeMap;

use orzo_model::{Point, Timestamp};

/// An hour in microseconds: fine enough that what comes in now leaves yesterday alone.
const HOUR: i64 = 3_600_000_000;
/// Hours that are told apart, five years of them in some megabytes; of the oldest beyond it is only known that some of them
/// changed.
const HOURS_MAX: usize = if cfg!(test) { 8 } else { 50_000 };

/// Moments of changes, by hour.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Grows with every change.
    moment: u64,
    hours: BTreeMap<i64, u64>,
    /// Everything before this hour changed at this moment, or before it.
    older: Option<(i64, u64)>,
    /// Everything changed at this moment.
    all: u64,
}

impl Changed {
    /// What is read after this moment was taken has everything that changed before.
    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    /// Points came in.
    pub(super) fn points(&mut self, points: &[Point]) {
        self.moment += 1;
        // Points come in runs of one time or of one series.
        let mut known = i64::MAX..i64::MAX;
        for point in points {
            let micros = point.timestamp.micros();
            if !known.contains(&micros) {
                let hour = micros.div_euclid(HOUR);
                known = hour.saturating_mul(HOUR)..hour.saturating_add(1).saturating_mul(HOUR);
                self.hours.insert(hour, self.moment);
            }
        }
        while self.hours.len() > HOURS_MAX
            && let Some((hour, moment)) = self.hours.pop_first()
        {
            let newest = self.older.map_or(0, |(_, moment)| moment).max(moment);
            self.older = Some((self.older.map_or(i64::MIN, |(before, _)| before).max(hour + 1), newest));
        }
    }

    /// Points before a time may be gone.
    pub(super) fn before(&mut self, time: Timestamp) {
        self.moment += 1;
        let hour = time.micros().div_euclid(HOUR).saturating_add(1);
        self.older = Some((self.older.map_or(i64::MIN, |(before, _)| before).max(hour), self.moment));
    }

    /// Anything may be different.
    pub(super) fn everything(&mut self) {
        self.moment += 1;
        self.all = self.moment;
    }

    /// What changed after a moment between two times, both inclusive: ranges from first to last, in order.
    pub(super) fn since(&self, moment: u64, first: Timestamp, last: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        if self.all > moment {
            return vec![(Timestamp::MIN, Timestamp::MAX)];
        }
        let mut ranges: Vec<(Timestamp, Timestamp)> = Vec::new();
        let starts_at = |hour: i64| Timestamp::from_micros(hour.saturating_mul(HOUR));
        let ends_at = |hour: i64| Timestamp::from_micros(hour.saturating_add(1).saturating_mul(HOUR).saturating_sub(1));
        if let Some((before, _)) = self.older.filter(|(before, at)| *at > moment && first < starts_at(*before)) {
            ranges.push((Timestamp::MIN, ends_at(before - 1)));
        }
        let (from, to) = (first.micros().div_euclid(HOUR), last.micros().div_euclid(HOUR));
        if from > to {
            return ranges;
        }
        for (hour, _) in self.hours.range(from..=to).filter(|(_, at)| **at > moment) {
            match ranges.last_mut().filter(|(_, end)| end.micros() >= starts_at(*hour).micros().saturating_sub(1)) {
                Some((_, end)) => *end = (*end).max(ends_at(*hour)),
                None => ranges.push((starts_at(*hour), ends_at(*hour))),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use orzo_model::SeriesId;
    use proptest::prelude::*;

    use super::*;

    fn at(hour: i64, micros: i64) -> Timestamp {
        Timestamp::from_micros(hour * HOUR + micros)
    }

    fn points(times: &[Timestamp]) -> Vec<Point> {
        times.iter().map(|timestamp| Point { series: SeriesId(1), timestamp: *timestamp, value: 1.0 }).collect()
    }

    #[test]
    fn hours_that_changed_are_told_to_who_looked_before() {
        let mut changed = Changed::default();
        changed.points(&points(&[at(10, 0), at(11, 5), at(20, 7)]));
        let moment = changed.moment();
        assert_eq!(changed.since(moment, Timestamp::MIN, Timestamp::MAX), []);
        changed.points(&points(&[at(20, 9)]));
        let all = |moment, changed: &Changed| changed.since(moment, at(0, 0), at(100, 0));
        assert_eq!(all(moment, &changed), [(at(20, 0), at(21, -1))]);
        assert_eq!(all(0, &changed), [(at(10, 0), at(12, -1)), (at(20, 0), at(21, -1))]);
        assert_eq!(changed.since(moment, at(0, 0), at(20, -1)), []);
        changed.before(at(5, 1));
        assert_eq!(all(moment, &changed)[0], (Timestamp::MIN, at(6, -1)));
        assert_eq!(changed.since(moment, at(6, 0), at(19, 0)), []);
        changed.everything();
        assert_eq!(all(moment, &changed), [(Timestamp::MIN, Timestamp::MAX)]);
        assert_eq!(all(changed.moment(), &changed), []);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Points(Vec<i64>),
        Before(i64),
        Everything,
    }

    proptest! {
        /// Whatever changed after a moment is told, however many hours there are.
        #[test]
        fn nothing_that_changed_is_left_out(
            steps in prop::collection::vec(
                prop_oneof![
                    8 => prop::collection::vec(-30..30_i64, 1..6).prop_map(Step::Points),
                    1 => (-30..30_i64).prop_map(Step::Before),
                    1 => Just(Step::Everything),
                ],
                1..40,
            ),
            first in -30..30_i64,
            length in 0..30_i64,
        ) {
            let mut changed = Changed::default();
            let moments: Vec<u64> = steps.iter().map(|step| {
                let moment = changed.moment();
                match step {
                    Step::Points(hours) => changed.points(&points(&hours.iter().map(|hour| at(*hour, 3)).collect::<Vec<_>>())),
                    Step::Before(hour) => changed.before(at(*hour, 3)),
                    Step::Everything => changed.everything(),
                }
                moment
            }).collect();
            prop_assert!(changed.hours.len() <= HOURS_MAX);
            let last = first + length;
            for (place, moment) in moments.iter().enumerate() {
                let told = changed.since(*moment, at(first, 0), at(last, 5));
                prop_assert!(told.windows(2).all(|pair| pair[0].1 < pair[1].0), "{told:?}");
                let is_told = |hour: i64| told.iter().any(|(from, to)| *from <= at(hour, 3) && at(hour, 3) <= *to);
                for step in &steps[place..] {
                    let is_wrong = match step {
                        Step::Points(hours) => hours.iter().any(|hour| (first..=last).contains(hour) && !is_told(*hour)),
                        Step::Before(before) => (first..=last).any(|hour| hour < *before && !is_told(hour)),
                        Step::Everything => (first..=last).any(|hour| !is_told(hour)),
                    };
                    prop_assert!(!is_wrong, "{step:?} since {moment}: {told:?}");
                }
            }
        }
    }
}
