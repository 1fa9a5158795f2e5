//! Points that are durable in the log and not yet in a file. In memory, sorted, one value per (series, timestamp).
//!
//! It does not know the disk.

use std::collections::BTreeMap;

use orzo_model::{Measure, Point, SeriesId, Timestamp};

/// What a point takes in memory, about: key and value in tree nodes that are two thirds full, and their share of links.
const POINT_BYTES: usize = 40;

/// The points.
#[derive(Debug, Default)]
pub(crate) struct Head {
    points: BTreeMap<(u64, i64), f64>,
    /// When the first of them came.
    since: Option<Timestamp>,
    /// The first and the last time that was put in.
    times: Option<(Timestamp, Timestamp)>,
}

impl Head {
    /// Puts points in; the last value of a key wins. Gives how many replaced another.
    pub(crate) fn put(&mut self, points: &[Point], now: Timestamp) -> u64 {
        self.since.get_or_insert(now);
        let mut replaced = 0;
        for point in points {
            replaced +=
                u64::from(self.points.insert((point.series.0, point.timestamp.micros()), point.value).is_some());
            let (first, last) = self.times.unwrap_or((point.timestamp, point.timestamp));
            self.times = Some((first.min(point.timestamp), last.max(point.timestamp)));
        }
        replaced
    }

    /// Takes all points of a series out.
    pub(crate) fn remove_series(&mut self, series: SeriesId) {
        let keys: Vec<_> =
            self.points.range(range(series, Timestamp::MIN, Timestamp::MAX)).map(|(key, _)| *key).collect();
        for key in keys {
            self.points.remove(&key);
        }
    }

    /// The points of a series between two times, both inclusive.
    pub(crate) fn read(&self, series: SeriesId, first: Timestamp, last: Timestamp) -> impl Iterator<Item = Measure> {
        let range = (first <= last).then(|| self.points.range(range(series, first, last)));
        range.into_iter().flatten().map(|((_, micros), value)| measure(*micros, *value))
    }

    /// The newest point of a series not after `last`.
    pub(crate) fn last(&self, series: SeriesId, last: Timestamp) -> Option<Measure> {
        let newest = self.points.range(range(series, Timestamp::MIN, last)).next_back();
        newest.map(|((_, micros), value)| measure(*micros, *value))
    }

    /// All points, by series and time.
    pub(crate) fn points(&self) -> impl Iterator<Item = Point> {
        self.points.iter().map(|((series, micros), value)| Point {
            series: SeriesId(*series),
            timestamp: Timestamp::from_micros(*micros),
            value: *value,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.points.len() * POINT_BYTES
    }

    /// The first and the last time of any series, those that were taken out included.
    pub(crate) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        self.times
    }

    /// When the first of its points came.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.since
    }
}

fn range(series: SeriesId, first: Timestamp, last: Timestamp) -> std::ops::RangeInclusive<(u64, i64)> {
    (series.0, first.micros())..=(series.0, last.micros())
}

fn measure(micros: i64, value: f64) -> Measure {
    Measure { timestamp: Timestamp::from_micros(micros), value }
}
