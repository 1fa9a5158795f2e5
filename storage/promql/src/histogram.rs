//! Classic histograms: series that differ in `le` only, each counting what is less or equal.

use std::collections::HashMap;

use crate::{
    Labels, Series,
    column::{Column, is_present},
    labels::NAME,
    notes::Notes,
};

/// The label with a bucket's upper bound.
const BOUND: &str = "le";

/// One bucket at one time: its upper bound, and how much is not above it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// Counts that differ by less than this part of themselves are the same: sums of floats are not exact.
const SMALL_PART: f64 = 1e-12;

/// For each histogram and time, what `judge` says of its buckets: bounds and counts, sorted, no bound twice.
fn each(
    series: Vec<Series>,
    count: usize,
    notes: &Notes,
    judge: impl Fn(&mut [(f64, f64)], usize, &str) -> f64,
) -> Vec<Series> {
    let mut order: Vec<Labels> = Vec::new();
    let mut histograms: HashMap<Labels, Vec<(f64, Column)>> = HashMap::new();
    for one in series {
        let Some(bound) = parse_bound(one.labels.get(BOUND)) else {
            notes.bad_bucket(one.labels.get(NAME), one.labels.get(BOUND));
            continue;
        };
        let labels = one.labels.with(BOUND, "");
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
        // Prometheus drops the name of what it has judged once, and later notes are without it.
        let mut name = labels.get(NAME);
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
                column.0[at] = judge(&mut merged(&present), at, name);
                name = "";
            }
        }
        if !column.is_empty() {
            out.push(Series { labels: labels.without_name(), column });
        }
    }
    out
}

/// `histogram_quantile`
pub(crate) fn quantile(q: &[f64], series: Vec<Series>, count: usize, notes: &Notes) -> Vec<Series> {
    each(series, count, notes, |buckets, at, name| quantile_of(q[at], buckets, name, notes))
}

/// `histogram_fraction`
pub(crate) fn fraction(lower: &[f64], upper: &[f64], series: Vec<Series>, count: usize, notes: &Notes) -> Vec<Series> {
    each(series, count, notes, |buckets, at, _| fraction_of(lower[at], upper[at], buckets))
}

fn parse_bound(text: &str) -> Option<f64> {
    match text {
        "" => None,
        "+Inf" | "Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

/// Buckets with the same bound added.
fn merged(buckets: &[Bucket]) -> Vec<(f64, f64)> {
    let mut merged: Vec<(f64, f64)> = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bucket.bound => last.1 += bucket.count,
            _ => merged.push((bucket.bound, bucket.count)),
        }
    }
    merged
}

/// Makes counts that never fall: scrapes are not atomic, so a bucket may lag a little. Says whether it had to, beyond what
/// rounding does.
fn force_monotonic(buckets: &mut [(f64, f64)]) -> bool {
    let mut forced = false;
    let mut highest = buckets.first().map_or(0.0, |bucket| bucket.1);
    for bucket in buckets.iter_mut().skip(1) {
        let count = bucket.1;
        if count == highest {
            continue;
        }
        if is_nearly(count, highest) {
            bucket.1 = highest;
        } else if count < highest {
            bucket.1 = highest;
            forced = true;
        } else {
            highest = count;
        }
    }
    forced
}

fn is_nearly(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    match a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        true => difference < SMALL_PART * f64::MIN_POSITIVE,
        false => difference / sum.min(f64::MAX) < SMALL_PART,
    }
}

fn quantile_of(q: f64, buckets: &mut [(f64, f64)], name: &str, notes: &Notes) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = buckets.len() - 1;
    if buckets[last].0 != f64::INFINITY {
        return f64::NAN;
    }
    let is_forced = force_monotonic(buckets);
    let observations = buckets[last].1;
    if last == 0 || observations == 0.0 {
        return f64::NAN;
    }
    if is_forced {
        notes.forced_monotonic(name);
    }
    let mut rank = q * observations;
    let at = buckets[..last].iter().position(|bucket| bucket.1 >= rank).unwrap_or(last);
    if at == last {
        return buckets[last - 1].0;
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
    let (bound, observations) = buckets[buckets.len() - 1];
    if bound != f64::INFINITY || observations == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets, observations) - rank_of(lower, buckets, observations)) / observations
}

/// How many observations are not above a value, interpolated within its bucket.
fn rank_of(value: f64, buckets: &[(f64, f64)], observations: f64) -> f64 {
    // The first bucket begins at zero, or has no beginning if its bound is not positive.
    let mut start = if buckets[0].0 <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let mut before = 0.0;
    for (end, count) in buckets {
        if start >= value || *end > value {
            let share = if start >= value { 0.0 } else { (count - before) * (value - start) / (end - start) };
            let rank = before + share;
            return if rank > observations { observations } else { rank };
        }
        (start, before) = (*end, *count);
    }
    observations
}
