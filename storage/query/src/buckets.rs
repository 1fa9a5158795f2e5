//! Points in time order → buckets, in one pass, for several widths at once. Pure.

use orzo_model::{Measure, Timestamp};

use crate::{
    method::{Change, Method, Statistic},
    width::Width,
};

/// Collects the points of one series into buckets of several widths.
pub(crate) struct SeriesBuckets {
    method: Method,
    /// Points outside are passed over.
    from: Timestamp,
    to: Timestamp,
    /// The value of the point before, for rates.
    before: Option<f64>,
    widths: Vec<Buckets>,
}

impl SeriesBuckets {
    /// `before` is the last point before the range; only rates need it.
    pub(crate) fn new(method: Method, before: Option<f64>, widths: Vec<Buckets>) -> Self {
        let from = widths.iter().map(|buckets| buckets.from).min().unwrap_or(Timestamp::MAX);
        let to = widths.iter().map(|buckets| buckets.to).max().unwrap_or(Timestamp::MIN);
        Self { method, from, to, before, widths }
    }

    /// The same, knowing the value of the last point before the range.
    pub(crate) fn after(mut self, before: Option<f64>) -> Self {
        self.before = before;
        self
    }

    /// How values become buckets.
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// Each width, with the range of points that it needs.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Width, Timestamp, Timestamp)> {
        self.widths.iter().map(|buckets| (buckets.width, buckets.from, buckets.to))
    }

    /// The range of points that it needs.
    pub(crate) fn range(&self) -> (Timestamp, Timestamp) {
        (self.from, self.to)
    }

    /// Takes points, later ones in later calls.
    pub(crate) fn feed(&mut self, points: &[Measure]) {
        let first = points.partition_point(|point| point.timestamp < self.from);
        let last = points.partition_point(|point| point.timestamp < self.to);
        let points = points.get(first..last).unwrap_or_default();
        match self.method.change {
            None => {
                for buckets in &mut self.widths {
                    for point in points {
                        buckets.push(point.timestamp, point.value);
                    }
                }
            }
            Some(change) => self.feed_changes(points, change),
        }
    }

    fn feed_changes(&mut self, points: &[Measure], change: Change) {
        for point in points {
            let Some(before) = self.before.replace(point.value) else { continue };
            let value = change.between(before, point.value);
            for buckets in &mut self.widths {
                buckets.push(point.timestamp, value);
            }
        }
    }

    /// The buckets of each width.
    pub(crate) fn finish(self) -> Vec<Vec<Measure>> {
        self.widths.into_iter().map(Buckets::finish).collect()
    }
}

/// Buckets of one width.
pub(crate) struct Buckets {
    width: Width,
    statistic: Statistic,
    from: Timestamp,
    to: Timestamp,
    /// The open bucket: its start, and the start of the next one.
    start: Timestamp,
    next: Timestamp,
    values: Vec<f64>,
    done: Vec<Measure>,
}

impl Buckets {
    /// Buckets for points with `from <= timestamp < to`.
    pub(crate) fn new(width: Width, statistic: Statistic, from: Timestamp, to: Timestamp) -> Self {
        let (start, next) = (Timestamp::MIN, Timestamp::MIN);
        Self { width, statistic, from, to, start, next, values: Vec::new(), done: Vec::new() }
    }

    pub(crate) fn push(&mut self, timestamp: Timestamp, value: f64) {
        if timestamp < self.from || timestamp >= self.to {
            return;
        }
        if timestamp >= self.next {
            self.close();
            (self.start, self.next) = self.width.bucket(timestamp);
        }
        self.values.push(value);
    }

    fn close(&mut self) {
        let value = match *self.values.as_slice() {
            [] => None,
            // Most buckets of the finest width hold one point.
            [only] => self.statistic.of(&mut [only]),
            _ => self.statistic.of(&mut self.values),
        };
        if let Some(value) = value {
            self.done.push(Measure { timestamp: self.start, value });
        }
        self.values.clear();
    }

    pub(crate) fn finish(mut self) -> Vec<Measure> {
        self.close();
        self.done
    }
}

/// Buckets aggregated again, into others. `change` is over successive buckets.
pub(crate) fn rebucket(measures: impl Iterator<Item = Measure>, width: Width, method: Method) -> Vec<Measure> {
    let mut buckets = Buckets::new(width, method.statistic, Timestamp::MIN, Timestamp::MAX);
    let mut before: Option<f64> = None;
    for measure in measures {
        let value = match method.change {
            None => measure.value,
            Some(change) => match before.replace(measure.value) {
                Some(before) => change.between(before, measure.value),
                None => continue,
            },
        };
        buckets.push(measure.timestamp, value);
    }
    buckets.finish()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const METHODS: &[&str] = &["mean", "sum", "last", "max", "min", "std", "median", "first", "count", "90pct"];

    /// As the definition says, one bucket at a time, without any cleverness.
    fn oracle(points: &[Measure], method: Method, width: Duration, from: Timestamp, to: Timestamp) -> Vec<Measure> {
        let mut values: Vec<(Timestamp, f64)> = points.iter().map(|p| (p.timestamp, p.value)).collect();
        if let Some(change) = method.change {
            values = values.windows(2).map(|pair| (pair[1].0, change.between(pair[0].1, pair[1].1))).collect();
        }
        let mut buckets: BTreeMap<Timestamp, Vec<f64>> = BTreeMap::new();
        for (timestamp, value) in values {
            if timestamp >= from && timestamp < to {
                buckets.entry(timestamp.floor(width)).or_default().push(value);
            }
        }
        let made = buckets
            .into_iter()
            .map(|(timestamp, mut values)| method.statistic.of(&mut values).map(|value| Measure { timestamp, value }));
        made.flatten().collect()
    }

    proptest! {
        #[test]
        fn buckets_fed_in_pieces_are_what_the_definition_says(
            raw in prop::collection::btree_map(0i64..5_000, -100f64..100.0, 0..200),
            method in prop::sample::select(METHODS),
            change in prop::sample::select(&[None, Some(Change::Difference), Some(Change::Increase)]),
            width in 1u64..700,
            bounds in (0i64..6_000, 0i64..6_000),
            piece in 1usize..50,
        ) {
            let points: Vec<Measure> =
                raw.iter().map(|(&s, &value)| Measure { timestamp: Timestamp::from_secs(s), value }).collect();
            let method = Method { change, ..Method::parse(method).expect("a method") };
            let width = Duration::from_secs(width);
            let (from, to) = (Timestamp::from_secs(bounds.0.min(bounds.1)), Timestamp::from_secs(bounds.0.max(bounds.1)));
            let before = points.iter().rev().find(|p| p.timestamp < from).map(|p| p.value);
            let buckets = Buckets::new(width.into(), method.statistic, from, to);
            let mut series = SeriesBuckets::new(method, before, vec![buckets]);
            for points in points.chunks(piece) {
                series.feed(points);
            }
            let found = series.finish().remove(0);
            prop_assert_eq!(found, oracle(&points, method, width, from, to));
        }
    }
}
