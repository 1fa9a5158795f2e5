//! Points to quantities: the increase of a counter across restarts, the mean of a level over time, and what CloudKitty's
//! Gnocchi collector would have fetched. Exact: each double is taken as the decimal that it prints as.

use bigdecimal::{BigDecimal, FromPrimitive, Zero};
use orzo_model::{Measure, Timestamp};

use crate::decimal::decimal;

/// Largest double below which every whole number is one.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A double as the shortest decimal that reads back as it; `None` for what is no number.
pub fn exact(value: f64) -> Option<BigDecimal> {
    if !value.is_finite() {
        return None;
    }
    if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
        return BigDecimal::from_i64(value as i64);
    }
    decimal(&format!("{value:e}")).ok()
}

/// By how much a counter grew: the sum of what each point of `[begin, end)` is above the one before it. After a restart a
/// counter begins at zero, so that a smaller value is an increase by itself. A first point ever counts from zero only if
/// the counter is known to begin with the resource (`begins_at_zero`). Says also how many points it rests on; `None`
/// without any.
///
/// Each increase belongs to the moment of its point, so that the sum over periods is the sum over all, and nothing is
/// counted twice.
pub fn increase(
    points: &[Measure],
    begin: Timestamp,
    end: Timestamp,
    begins_at_zero: bool,
) -> Option<(BigDecimal, u64)> {
    let first = points.partition_point(|point| point.timestamp < begin);
    let last = points.partition_point(|point| point.timestamp < end);
    let mut before = match first.checked_sub(1) {
        Some(place) => exact(points[place].value),
        None => begins_at_zero.then(BigDecimal::zero),
    };
    let (mut sum, mut count) = (BigDecimal::zero(), 0);
    for point in &points[first..last] {
        let Some(value) = exact(point.value) else { continue };
        count += 1;
        match &before {
            Some(before) if value >= *before => sum += &value - before,
            Some(_) => sum += &value,
            None => {}
        }
        before = Some(value);
    }
    (count > 0).then_some((sum, count))
}

/// A level's mean over time: each point's value holds until the next point; the first one also before it. Exact as a
/// fraction: the sum of values times microseconds, and the microseconds. `None` without a point that holds.
pub fn level(points: &[Measure], begin: Timestamp, end: Timestamp) -> Option<(BigDecimal, i64, u64)> {
    let whole = end.micros() - begin.micros();
    if whole <= 0 {
        return None;
    }
    let first = points.partition_point(|point| point.timestamp <= begin);
    let last = points.partition_point(|point| point.timestamp < end);
    let mut held = match first.checked_sub(1) {
        Some(place) => exact(points[place].value)?,
        None => exact(points.get(first).filter(|_| first < last)?.value)?,
    };
    let (mut sum, mut from) = (BigDecimal::zero(), begin.micros());
    for point in &points[first..last] {
        let Some(value) = exact(point.value) else { continue };
        if value != held {
            sum += held * BigDecimal::from(point.timestamp.micros() - from);
            from = point.timestamp.micros();
            held = value;
        }
    }
    sum += held * BigDecimal::from(end.micros() - from);
    let count = points[..last].len() - points[..last].partition_point(|point| point.timestamp < begin);
    Some((sum, whole, count as u64))
}

/// What CloudKitty's Gnocchi collector fetches of a period: one aggregate of its points, of their changes for `rate:`.
/// `None` without any.
pub fn collected(points: &[Measure], begin: Timestamp, end: Timestamp, method: &str) -> Option<(BigDecimal, u64)> {
    let first = points.partition_point(|point| point.timestamp < begin);
    let last = points.partition_point(|point| point.timestamp < end);
    let value = |point: &Measure| exact(point.value);
    let (method, mut values): (&str, Vec<BigDecimal>) = match method.strip_prefix("rate:") {
        None => (method, points[first..last].iter().filter_map(value).collect()),
        Some(method) => {
            let from = first.saturating_sub(1);
            let changes = points[from..last].windows(2).filter_map(|pair| Some(value(&pair[1])? - value(&pair[0])?));
            (method, changes.collect())
        }
    };
    let count = values.len() as u64;
    let sum = || values.iter().fold(BigDecimal::zero(), |sum, value| sum + value);
    let aggregate = match method {
        "min" => values.iter().min().cloned(),
        "sum" => (count > 0).then(sum),
        "mean" => (count > 0).then(|| sum() / BigDecimal::from(count)),
        "count" => (count > 0).then(|| BigDecimal::from(count)),
        "first" => values.first().cloned(),
        "last" => values.last().cloned(),
        "median" => {
            values.sort();
            let middle = values.len() / 2;
            let upper = values.get(middle).cloned();
            match values.len() % 2 {
                1 => upper,
                _ => upper.map(|upper| (upper + &values[middle - 1]) / BigDecimal::from(2)),
            }
        }
        _ => values.iter().max().cloned(),
    };
    aggregate.map(|aggregate| (aggregate, count))
}
