//! Classic histograms: series that differ in `le` only, each counting what is less or equal.

use std::collections::HashMap;

use crate::{
    Labels, Series,
    column::{Column, is_present},
};

/// The label with a bucket's upper bound.
const BOUND: &str = "le";

/// One bucket at one time: its upper bound, and how much is not above it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// For each histogram and time, what `judge` says of its buckets (sorted, cumulative, the last one infinite).
fn each(series: Vec<Series>, count: usize, judge: impl Fn(&[(f64, f64)], usize) -> f64) -> Vec<Series> {
    let mut order: Vec<Labels> = Vec::new();
    let mut histograms: HashMap<Labels, Vec<(f64, Column)>> = HashMap::new();
    for one in series {
        let Some(bound) = parse_bound(one.labels.get(BOUND)) else { continue };
        let labels = one.labels.without_name().with(BOUND, "");
        histograms
            .entry(labels)
            .or_insert_with_key(|labels| {
                order.push(labels.clone());
                Vec::new()
            })
            .push((bound, one.column));
    }
    let mut out = Vec::with_capacity(order.len());
    for labels in order {
        let mut buckets = histograms.remove(&labels).unwrap_or_default();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut column = Column::absent(count);
        let mut present: Vec<Bucket> = Vec::with_capacity(buckets.len());
        for at in 0..count {
            present.clear();
            for (bound, values) in &buckets {
                let value = values.0[at];
                if is_present(value) {
                    present.push(Bucket { bound: *bound, count: value });
                }
            }
            if !present.is_empty() {
                column.0[at] = judge(&usable(&present), at);
            }
        }
        if !column.is_empty() {
            out.push(Series { labels, column });
        }
    }
    out
}

/// `histogram_quantile`
pub(crate) fn quantile(q: &[f64], series: Vec<Series>, count: usize) -> Vec<Series> {
    each(series, count, |buckets, at| quantile_of(q[at], buckets))
}

/// `histogram_fraction`
pub(crate) fn fraction(lower: &[f64], upper: &[f64], series: Vec<Series>, count: usize) -> Vec<Series> {
    each(series, count, |buckets, at| fraction_of(lower[at], upper[at], buckets))
}

fn parse_bound(text: &str) -> Option<f64> {
    match text {
        "" => None,
        "+Inf" | "Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

/// Buckets with the same bound added, and counts that never fall: scrapes are not atomic, so a bucket may lag a little.
fn usable(buckets: &[Bucket]) -> Vec<(f64, f64)> {
    let mut merged: Vec<(f64, f64)> = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bucket.bound => last.1 += bucket.count,
            _ => merged.push((bucket.bound, bucket.count)),
        }
    }
    let mut highest = f64::NEG_INFINITY;
    for bucket in &mut merged {
        highest = highest.max(bucket.1);
        bucket.1 = highest;
    }
    merged
}

fn quantile_of(q: f64, buckets: &[(f64, f64)]) -> f64 {
    if q.is_nan() || buckets.len() < 2 || buckets[buckets.len() - 1].0 != f64::INFINITY {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let observations = buckets[buckets.len() - 1].1;
    if observations == 0.0 || observations.is_nan() {
        return f64::NAN;
    }
    let mut rank = q * observations;
    let at = buckets[..buckets.len() - 1].partition_point(|bucket| bucket.1 < rank);
    if at == buckets.len() - 1 {
        return buckets[at - 1].0;
    }
    let (end, mut count) = buckets[at];
    if at == 0 && end <= 0.0 {
        return end;
    }
    let mut start = 0.0;
    if at > 0 {
        start = buckets[at - 1].0;
        count -= buckets[at - 1].1;
        rank -= buckets[at - 1].1;
    }
    start + (end - start) * (rank / count)
}

fn fraction_of(lower: f64, upper: f64, buckets: &[(f64, f64)]) -> f64 {
    if buckets.len() < 2 || buckets[buckets.len() - 1].0 != f64::INFINITY {
        return f64::NAN;
    }
    let observations = buckets[buckets.len() - 1].1;
    if observations == 0.0 || observations.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets) - rank_of(lower, buckets)) / observations
}

/// How many observations are not above a value, interpolated within its bucket.
fn rank_of(value: f64, buckets: &[(f64, f64)]) -> f64 {
    if value == f64::NEG_INFINITY {
        return 0.0;
    }
    let at = buckets.partition_point(|bucket| bucket.0 < value);
    let Some(&(end, count)) = buckets.get(at) else { return buckets[buckets.len() - 1].1 };
    if value == end {
        return count;
    }
    let (start, before) = match at {
        // The first bucket begins at zero, or has no beginning if its bound is not positive.
        0 if end > 0.0 => (0.0, 0.0),
        0 => return 0.0,
        at => buckets[at - 1],
    };
    if end == f64::INFINITY {
        return before;
    }
    if value <= start {
        return before;
    }
    before + (count - before) * ((value - start) / (end - start))
}
