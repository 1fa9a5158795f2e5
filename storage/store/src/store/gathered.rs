//! What a read gathers, series by series, from sources that come from old to new. Pure.

use orzo_model::{Measure, SeriesId, Timestamp};

use crate::{head::Head, table::data_file::Wanted};

/// Memory is reserved for so many files like the first one; series may end.
const FILES_RESERVED_MAX: usize = 32;

/// The points of one series as columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Microseconds since 1970.
    pub times: Vec<i64>,
    /// As many values.
    pub values: Vec<f64>,
    /// Some time is not after the one before it.
    is_mixed: bool,
}

impl Columns {
    /// Notes whether what comes next, beginning with this time, is behind what is there.
    fn note(&mut self, first: Option<&i64>) {
        if let (Some(last), Some(first)) = (self.times.last(), first) {
            self.is_mixed |= first <= last;
        }
    }
}

/// The points of one series, in a form that somebody computes with.
pub(super) trait Gathered: Default + Send + 'static {
    /// Takes more, which are in the order of their times, no time twice; `is_last` if no more will come, and then it may
    /// take the lists themselves and leave its own.
    fn extend(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>, is_last: bool);

    /// There will be about so many points.
    fn reserve(&mut self, points: usize);

    /// Takes one more.
    fn push(&mut self, micros: i64, value: f64);

    /// Takes what another has, as newer.
    fn append(&mut self, other: Self);

    fn is_empty(&self) -> bool;

    /// Forgets the points and keeps the room for them.
    fn clear(&mut self);

    /// Sorted by time; of one time the last taken stays.
    fn newest_by_time(&mut self);
}

impl Gathered for Vec<Measure> {
    fn extend(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>, _: bool) {
        let measures = times.iter().zip(values.iter()).map(|(time, value)| measure(*time, *value));
        Extend::extend(self, measures);
    }

    fn reserve(&mut self, points: usize) {
        Vec::reserve(self, points);
    }

    fn push(&mut self, micros: i64, value: f64) {
        Vec::push(self, measure(micros, value));
    }

    fn append(&mut self, mut other: Self) {
        Vec::append(self, &mut other);
    }

    fn is_empty(&self) -> bool {
        <[Measure]>::is_empty(self)
    }

    fn clear(&mut self) {
        Vec::clear(self);
    }

    fn newest_by_time(&mut self) {
        if !self.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
            self.sort_by_key(|measure| measure.timestamp);
            self.dedup_by(|next, kept| {
                let is_same = next.timestamp == kept.timestamp;
                if is_same {
                    *kept = *next;
                }
                is_same
            });
        }
    }
}

impl From<Vec<Measure>> for Columns {
    fn from(measures: Vec<Measure>) -> Self {
        let mut columns = Self::default();
        columns.times.reserve(measures.len());
        columns.values.reserve(measures.len());
        measures.iter().for_each(|measure| Gathered::push(&mut columns, measure.timestamp.micros(), measure.value));
        columns
    }
}

impl Gathered for Columns {
    fn extend(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>, is_last: bool) {
        debug_assert!(times.is_sorted_by(|a, b| a < b));
        if self.times.is_empty() && (is_last || self.times.capacity() < times.len()) {
            std::mem::swap(&mut self.times, times);
            std::mem::swap(&mut self.values, values);
            return;
        }
        self.note(times.first());
        self.times.extend_from_slice(times);
        self.values.extend_from_slice(values);
    }

    fn reserve(&mut self, points: usize) {
        self.times.reserve(points);
        self.values.reserve(points);
    }

    fn push(&mut self, micros: i64, value: f64) {
        self.note(Some(&micros));
        self.times.push(micros);
        self.values.push(value);
    }

    fn append(&mut self, mut other: Self) {
        self.note(other.times.first());
        self.is_mixed |= other.is_mixed;
        self.times.append(&mut other.times);
        self.values.append(&mut other.values);
    }

    fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.is_mixed = false;
    }

    fn newest_by_time(&mut self) {
        debug_assert!(self.is_mixed || self.times.is_sorted_by(|a, b| a < b));
        if self.is_mixed {
            let mut measures: Vec<Measure> = Vec::with_capacity(self.times.len());
            Gathered::extend(&mut measures, &mut self.times, &mut self.values, true);
            measures.newest_by_time();
            *self = measures.into();
        }
    }
}

fn measure(micros: i64, value: f64) -> Measure {
    Measure { timestamp: Timestamp::from_micros(micros), value }
}

/// Points by series, older sources first.
pub(super) struct Found<'a, G> {
    series: &'a [SeriesId],
    gathered: Vec<G>,
    /// Which series the last points were of: points come by series.
    at: usize,
    pub(super) points: usize,
    points_max: usize,
}

impl<'a, G: Gathered> Found<'a, G> {
    pub(super) fn new(series: &'a [SeriesId], points_max: usize) -> Self {
        Self { series, gathered: series.iter().map(|_| G::default()).collect(), at: 0, points: 0, points_max }
    }

    pub(super) fn series(&self) -> &'a [SeriesId] {
        self.series
    }

    /// Empty, for other series, with the room that there was for the ones before.
    pub(super) fn renew(&mut self, series: &'a [SeriesId]) {
        self.gathered.truncate(series.len());
        self.gathered.iter_mut().for_each(G::clear);
        self.gathered.resize_with(series.len(), G::default);
        (self.series, self.at, self.points) = (series, 0, 0);
    }

    /// The same in parts of so many series.
    pub(super) fn split(self, series: usize) -> Vec<Self> {
        let mut gathered = self.gathered.into_iter();
        let part = |part: &'a [SeriesId]| {
            let mut of_part =
                Self { series: part, gathered: Vec::new(), at: 0, points: 0, points_max: self.points_max };
            of_part.gathered.extend(gathered.by_ref().take(part.len()));
            of_part
        };
        let mut parts: Vec<Self> = self.series.chunks(series).map(part).collect();
        // What was counted is counted once.
        if let Some(first) = parts.first_mut() {
            first.points = self.points;
        }
        parts
    }

    fn of(&mut self, series: SeriesId) -> Option<&mut G> {
        if self.series.get(self.at) != Some(&series) {
            self.at = self.series.partition_point(|other| *other < series);
        }
        self.gathered.get_mut(self.at)
    }

    /// Takes more, of the first of so many files that are still to be read; `false` once there are too many.
    pub(super) fn take(&mut self, files: usize, series: SeriesId, times: &mut Vec<i64>, values: &mut Vec<f64>) -> bool {
        self.points += times.len();
        if self.points > self.points_max {
            return false;
        }
        let room = self.points_max - self.points;
        if let Some(gathered) = self.of(series) {
            if files > 1 && gathered.is_empty() {
                // Days of a series are about as long; a list that grows is copied again and again.
                gathered.reserve((times.len() * files.min(FILES_RESERVED_MAX)).min(room));
            }
            gathered.extend(times, values, files == 1);
        }
        true
    }

    pub(super) fn take_head(&mut self, head: &Head, wanted: &Wanted<'_>, hides: impl Fn(SeriesId) -> bool) {
        for series in wanted.series.iter().filter(|series| !hides(**series)) {
            let (mut count, room) = (0, self.points_max.saturating_sub(self.points));
            let Some(gathered) = self.of(*series) else { continue };
            head.read(*series, wanted.first, wanted.last, &mut |measure| {
                count += 1;
                if count <= room {
                    gathered.push(measure.timestamp.micros(), measure.value);
                }
            });
            self.points += count;
            if self.points > self.points_max {
                return;
            }
        }
    }

    /// Takes what another found, as newer.
    pub(super) fn append(&mut self, other: Self) {
        self.points += other.points;
        for (gathered, more) in self.gathered.iter_mut().zip(other.gathered) {
            gathered.append(more);
        }
    }

    /// The series that have points, with all of them.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (SeriesId, &mut G)> {
        self.series.iter().copied().zip(&mut self.gathered).filter(|(_, gathered)| !gathered.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_measures_keep_the_newest_of_one_time() {
        let rows = [(3, 1.0), (5, 2.0), (4, 3.0), (5, 4.0), (3, 5.0)];
        let (mut columns, mut measures) = (Columns::default(), Vec::new());
        for (time, value) in rows {
            columns.push(time, value);
            Gathered::push(&mut measures, time, value);
        }
        columns.newest_by_time();
        assert_eq!(columns, Columns { times: vec![3, 4, 5], values: vec![5.0, 3.0, 4.0], is_mixed: false });
        measures.newest_by_time();
        assert_eq!(measures, [measure(3, 5.0), measure(4, 3.0), measure(5, 4.0)]);
    }
}
