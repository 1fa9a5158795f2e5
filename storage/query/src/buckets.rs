//! Points in time order → buckets, in one pass, for several widths at once. Pure.

use std::time::Duration;

use orzo_model::{Measure, Timestamp};

use crate::method::{Method, Statistic};

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

    /// The range of points that it needs.
    pub(crate) fn range(&self) -> (Timestamp, Timestamp) {
        (self.from, self.to)
    }

    /// Takes points, later ones in later calls.
    pub(crate) fn feed(&mut self, points: &[Measure]) {
        for point in points {
            if point.timestamp < self.from || point.timestamp >= self.to || point.value.is_nan() {
                continue;
            }
            let value = if self.method.is_rate {
                match self.before.replace(point.value) {
                    Some(before) => point.value - before,
                    None => continue,
                }
            } else {
                point.value
            };
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
    width: Duration,
    statistic: Statistic,
    from: Timestamp,
    to: Timestamp,
    current: Timestamp,
    values: Vec<f64>,
    done: Vec<Measure>,
}

impl Buckets {
    /// Buckets for points with `from <= timestamp < to`.
    pub(crate) fn new(width: Duration, statistic: Statistic, from: Timestamp, to: Timestamp) -> Self {
        Self { width, statistic, from, to, current: Timestamp::MIN, values: Vec::new(), done: Vec::new() }
    }

    pub(crate) fn push(&mut self, timestamp: Timestamp, value: f64) {
        if timestamp < self.from || timestamp >= self.to {
            return;
        }
        let start = timestamp.floor(self.width);
        if start != self.current {
            self.close();
            self.current = start;
        }
        self.values.push(value);
    }

    fn close(&mut self) {
        if let Some(value) = self.statistic.of(&mut self.values) {
            self.done.push(Measure { timestamp: self.current, value });
        }
        self.values.clear();
    }

    pub(crate) fn finish(mut self) -> Vec<Measure> {
        self.close();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const METHODS: &[&str] = &["mean", "sum", "last", "max", "min", "std", "median", "first", "count", "90pct"];

    /// As the definition says, one bucket at a time, without any cleverness.
    fn oracle(points: &[Measure], method: Method, width: Duration, from: Timestamp, to: Timestamp) -> Vec<Measure> {
        let mut values: Vec<(Timestamp, f64)> = points.iter().map(|p| (p.timestamp, p.value)).collect();
        if method.is_rate {
            values = values.windows(2).map(|pair| (pair[1].0, pair[1].1 - pair[0].1)).collect();
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
            is_rate in any::<bool>(),
            width in 1u64..700,
            bounds in (0i64..6_000, 0i64..6_000),
            piece in 1usize..50,
        ) {
            let points: Vec<Measure> =
                raw.iter().map(|(&s, &value)| Measure { timestamp: Timestamp::from_secs(s), value }).collect();
            let method = Method { is_rate, ..Method::parse(method).expect("a method") };
            let width = Duration::from_secs(width);
            let (from, to) = (Timestamp::from_secs(bounds.0.min(bounds.1)), Timestamp::from_secs(bounds.0.max(bounds.1)));
            let before = points.iter().rev().find(|p| p.timestamp < from).map(|p| p.value);
            let mut series = SeriesBuckets::new(method, before, vec![Buckets::new(width, method.statistic, from, to)]);
            for points in points.chunks(piece) {
                series.feed(points);
            }
            let found = series.finish().remove(0);
            prop_assert_eq!(found, oracle(&points, method, width, from, to));
        }
    }
}
