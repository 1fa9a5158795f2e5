//! What the rows of a file have in common, counted as they come.

use orzo_model::{Point, SeriesId, Timestamp};

use super::data_file::point_hash;

/// What the rows of a file have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) rows: u64,
    /// Rows whose value is a double.
    pub(crate) doubles: u64,
    pub(crate) series_min: u64,
    pub(crate) series_max: u64,
    pub(crate) time_min: Timestamp,
    pub(crate) time_max: Timestamp,
    /// Sum of [`point_hash`].
    pub(crate) hash: u128,
}

impl Contents {
    /// More rows of one series, sorted by time; series come in their order.
    pub(crate) fn take_run<T: Row>(&mut self, series: SeriesId, run: &[T]) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
        let (first, last) = (Timestamp::from_micros(first.micros()), Timestamp::from_micros(last.micros()));
        if self.rows == 0 {
            (self.series_min, self.time_min, self.time_max) = (series.0, first, last);
        }
        self.rows += run.len() as u64;
        self.series_max = series.0;
        self.time_min = self.time_min.min(first);
        self.time_max = self.time_max.max(last);
        let hash = |row: &T| point_hash(series, row.micros(), row.value());
        self.hash = run.iter().fold(self.hash, |sum, row| sum.wrapping_add(hash(row)));
    }
}

/// A time and a value of a series that is known beside it.
pub(crate) trait Row {
    /// Microseconds since the epoch.
    fn micros(&self) -> i64;
    /// What was measured then.
    fn value(&self) -> f64;
}

impl Row for (i64, f64) {
    fn micros(&self) -> i64 {
        self.0
    }

    fn value(&self) -> f64 {
        self.1
    }
}

impl Row for Point {
    fn micros(&self) -> i64 {
        self.timestamp.micros()
    }

    fn value(&self) -> f64 {
        self.value
    }
}
