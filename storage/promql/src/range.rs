//! Functions of a range of points: rates, statistics over time, regressions. Pure.

use crate::{error::QueryError, select::RangeWindow};

/// A function of one window, with the values of its scalar parameters at that time.
pub(crate) type OverTime = fn(&RangeWindow<'_>, &[f64]) -> Option<f64>;

/// The function of a name, if it is one over time.
pub(crate) fn over_time(name: &str) -> Option<OverTime> {
    Some(match name {
        "rate" => |w, _| extrapolated(w, true, true),
        "increase" => |w, _| extrapolated(w, true, false),
        "delta" => |w, _| extrapolated(w, false, false),
        "irate" => |w, _| last_two(w, true),
        "idelta" => |w, _| last_two(w, false),
        "deriv" => |w, _| (w.values.len() > 1).then(|| regression(w.times, w.values, w.times[0]).0),
        "predict_linear" => |w, p| {
            let (slope, intercept) = (w.values.len() > 1).then(|| regression(w.times, w.values, w.now))?;
            Some(slope * p[0] + intercept)
        },
        "double_exponential_smoothing" => |w, p| smoothed(w.values, p[0], p[1]),
        "changes" => |w, _| Some(pairs(w, |a, b| a != b && !(a.is_nan() && b.is_nan()))),
        "resets" => |w, _| Some(pairs(w, |a, b| b < a)),
        "avg_over_time" => |w, _| Some(average(w.values)),
        "sum_over_time" => |w, _| Some(sum_of(w.values).value()),
        "count_over_time" => |w, _| Some(w.values.len() as f64),
        "present_over_time" => |_, _| Some(1.0),
        "last_over_time" => |w, _| w.values.last().copied(),
        "first_over_time" => |w, _| w.values.first().copied(),
        "min_over_time" => |w, _| extreme(w.values, |new, old| new < old).map(|at| w.values[at]),
        "max_over_time" => |w, _| extreme(w.values, |new, old| new > old).map(|at| w.values[at]),
        "ts_of_min_over_time" => |w, _| extreme(w.values, |new, old| new <= old).map(|at| seconds(w.times[at])),
        "ts_of_max_over_time" => |w, _| extreme(w.values, |new, old| new >= old).map(|at| seconds(w.times[at])),
        "ts_of_first_over_time" => |w, _| w.times.first().map(|time| seconds(*time)),
        "ts_of_last_over_time" => |w, _| w.times.last().map(|time| seconds(*time)),
        "stddev_over_time" => |w, _| Some(variance_over_time(w.values).sqrt()),
        "stdvar_over_time" => |w, _| Some(variance_over_time(w.values)),
        "quantile_over_time" => |w, p| Some(quantile(p[0], &mut w.values.to_vec())),
        "mad_over_time" => |w, _| {
            let median = quantile(0.5, &mut w.values.to_vec());
            Some(quantile(0.5, &mut w.values.iter().map(|value| (value - median).abs()).collect::<Vec<_>>()))
        },
        _ => return None,
    })
}

/// Whether a result is still the metric itself and keeps its name.
pub(crate) fn keeps_name(name: &str) -> bool {
    matches!(name, "last_over_time" | "first_over_time")
}

/// Parameters that no window could be judged with.
pub(crate) fn check_parameters(name: &str, parameters: &[f64]) -> Result<(), QueryError> {
    if name != "double_exponential_smoothing" {
        return Ok(());
    }
    for (what, factor) in [("smoothing", parameters[0]), ("trend", parameters[1])] {
        if !(factor > 0.0 && factor < 1.0) {
            let initial = &what[..1];
            return Err(QueryError::execution(format!(
                "invalid {what} factor. Expected: 0 < {initial}f < 1, got: {factor:.6}"
            )));
        }
    }
    Ok(())
}

fn seconds(time: i64) -> f64 {
    time as f64 / 1000.0
}

/// `rate`, `increase` and `delta`: the change between first and last sample, extended to the window's ends where samples
/// are close enough to them that they would have gone on.
fn extrapolated(window: &RangeWindow<'_>, is_counter: bool, is_rate: bool) -> Option<f64> {
    let (times, values) = (window.times, window.values);
    let count = values.len();
    if count < 2 {
        return None;
    }
    let mut change = values[count - 1] - values[0];
    if is_counter {
        // A counter that goes back has started again from zero. Added one by one, as Prometheus does: near the largest
        // number another order overflows elsewhere.
        for pair in values.windows(2).filter(|pair| pair[1] < pair[0]) {
            change += pair[0];
        }
    }
    let whole = (is_counter && change > 0.0 && values[0] >= 0.0).then_some((values[0], change));
    Some(change * extrapolation(window, count, (times[0], times[count - 1]), whole, is_rate))
}

/// By how much a change between the first and the last of `count` samples is extended to its window's ends, or to a rate.
/// `whole` is a counter's first value and its change.
pub(crate) fn extrapolation(
    window: &RangeWindow<'_>,
    count: usize,
    (first, last): (i64, i64),
    whole: Option<(f64, f64)>,
    is_rate: bool,
) -> f64 {
    let sampled = seconds(last - first);
    let mut to_start = seconds(first - window.start);
    let mut to_end = seconds(window.end - last);
    let distance = sampled / (count - 1) as f64;
    // Farther than this from an end, the series is taken to begin or stop half a distance from its sample.
    let threshold = distance * 1.1;
    if to_start >= threshold {
        to_start = distance / 2.0;
    }
    if let Some((value, change)) = whole.filter(|(value, change)| *change > 0.0 && *value >= 0.0) {
        // A counter is never below zero, so it cannot be extended further back than to zero.
        to_start = to_start.min(sampled * (value / change));
    }
    if to_end >= threshold {
        to_end = distance / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if is_rate {
        factor /= seconds(window.end - window.start);
    }
    factor
}

pub(crate) fn last_two(window: &RangeWindow<'_>, is_rate: bool) -> Option<f64> {
    let count = window.values.len();
    let [before, last] = *window.values.get(count.checked_sub(2)?..)? else { return None };
    if !is_rate {
        return Some(last - before);
    }
    let change = if last < before { last } else { last - before };
    let took = seconds(window.times[count - 1] - window.times[count - 2]);
    (took != 0.0).then(|| change / took)
}

fn pairs(window: &RangeWindow<'_>, counts: impl Fn(f64, f64) -> bool) -> f64 {
    window.values.windows(2).filter(|pair| counts(pair[0], pair[1])).count() as f64
}

/// The place of the least or greatest; anything goes before NaN.
fn extreme(values: &[f64], is_better: impl Fn(f64, f64) -> bool) -> Option<usize> {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if is_better(*value, values[best]) || values[best].is_nan() {
            best = at;
        }
    }
    (!values.is_empty()).then_some(best)
}

/// A sum whose rounding errors are carried along (Neumaier).
pub(crate) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut total = Compensated::default();
    for value in values {
        total.add(value);
    }
    total.value()
}

/// Sums that are made side by side: enough that no addition waits for the one before.
const LANES: usize = 4;
/// From so many values on, sums side by side are worth it.
const LANES_FROM: usize = 16;

/// [`sum`] of many. Side by side there are other rounding errors, which are carried along as well; where the order
/// matters, because a sum is near the largest number or not a number, it is added one by one.
fn sum_of(values: &[f64]) -> Compensated {
    if values.len() >= LANES_FROM {
        let (mut sums, mut lost, mut largest) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            let lanes = sums.iter_mut().zip(&mut lost).zip(&mut largest).zip(chunk);
            for (((sum, lost), largest), value) in lanes {
                let total = *sum + value;
                // What Neumaier's sum loses, without a branch (Knuth).
                let back = total - *sum;
                *lost += (*sum - (total - back)) + (value - back);
                *sum = total;
                *largest = if value.abs() > *largest { value.abs() } else { *largest };
            }
        }
        let largest = largest.into_iter().chain(rest.iter().map(|value| value.abs())).fold(0.0, f64::max);
        let mut total = Compensated::default();
        sums.into_iter().chain(lost).chain(rest.iter().copied()).for_each(|value| total.add(value));
        if total.value().is_finite() && largest < f64::MAX / (2.0 * values.len() as f64) {
            return total;
        }
    }
    let mut total = Compensated::default();
    values.iter().for_each(|value| total.add(*value));
    total
}

/// A running sum with its compensation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Compensated {
    sum: f64,
    lost: f64,
}

impl Compensated {
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(crate) fn value(&self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }

    /// A part of it: what was lost is divided by itself, so that the mean of equals is their value.
    fn divided(&self, count: f64) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum / count + self.lost / count }
    }
}

/// The mean; of numbers whose sum would overflow as well.
pub(crate) fn average(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let total = sum_of(values);
    if total.value().is_infinite() && values.iter().all(|value| value.is_finite()) {
        return moving_average(values);
    }
    total.divided(count)
}

/// The mean of numbers whose sum is too large: from there on the mean is moved, as Prometheus does.
fn moving_average(values: &[f64]) -> f64 {
    let (mut total, mut mean) = (Compensated::default(), None::<Compensated>);
    for (at, value) in values.iter().enumerate() {
        let (before, count) = (at as f64, at as f64 + 1.0);
        if mean.is_none() {
            let mut more = total;
            more.add(*value);
            if more.sum.is_finite() {
                total = more;
                continue;
            }
        }
        let old = mean.unwrap_or(Compensated { sum: total.sum / before, lost: total.lost / before });
        let share = before / count;
        let mut new = Compensated { sum: share * old.sum, lost: share * old.lost };
        new.add(value / count);
        mean = Some(new);
    }
    mean.map_or_else(|| total.divided(values.len() as f64), |mean| mean.value())
}

/// Population variance over time: as [`variance`], and as in Prometheus with the rounding errors carried along.
fn variance_over_time(values: &[f64]) -> f64 {
    let (mut mean, mut squares, mut count) = (Compensated::default(), Compensated::default(), 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean.value();
        mean.add(delta / count);
        squares.add(delta * (value - mean.value()));
    }
    squares.value() / count
}

/// Population variance (Welford).
pub(crate) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares, mut count) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    squares / count
}

/// The quantile by linear interpolation between ranks; sorts.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN is smaller than anything.
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// Slope and value at `origin` of the least squares line.
fn regression(times: &[i64], values: &[f64], origin: i64) -> (f64, f64) {
    if values.iter().all(|value| *value == values[0]) {
        return if values[0].is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, values[0]) };
    }
    let count = values.len() as f64;
    let x = |time: &i64| seconds(time - origin);
    let points = || times.iter().map(x).zip(values.iter().copied());
    let sum_x = sum(points().map(|(x, _)| x));
    let sum_y = sum(points().map(|(_, y)| y));
    let sum_xy = sum(points().map(|(x, y)| x * y));
    let sum_xx = sum(points().map(|(x, _)| x * x));
    let slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count);
    (slope, sum_y / count - slope * sum_x / count)
}

/// Holt's double exponential smoothing.
fn smoothed(values: &[f64], smoothing: f64, trend: f64) -> Option<f64> {
    let (first, second) = (*values.first()?, *values.get(1)?);
    let (mut before, mut level, mut slope) = (0.0, first, second - first);
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_equals_is_their_value() {
        for value in [55.06224709108993, 0.1, -7.3e300, 1e-310] {
            for count in 1..40 {
                assert_eq!(average(&vec![value; count]), value, "{count} times");
            }
        }
        let huge = [1.2e308, 1.7e308, -1.1e308, 1.6e308, 0.6e308];
        assert!((average(&huge) / 0.8e308 - 1.0).abs() < 1e-15, "{}", average(&huge));
    }

    #[test]
    fn a_sum_side_by_side_is_the_sum_one_by_one() {
        // Numbers that cancel: what is lost on the way must be carried along.
        let mut values: Vec<f64> = (0..999).map(|at| f64::from(at % 7) * 1e15 + f64::from(at) * 0.1).collect();
        values.extend(values.clone().iter().map(|value| -value));
        values.extend([0.25, 1e-9, 3.5]);
        for length in [0, 1, 15, 16, 17, 1000, values.len()] {
            let (one, other) = (sum_of(&values[..length]).value(), sum(values[..length].iter().copied()));
            assert!((one - other).abs() <= 1e-12 * other.abs().max(1.0), "{length}: {one} {other}");
        }
        let with = |value: f64| [vec![1.0; 40], vec![value; 3], vec![-2.0; 40]].concat();
        assert!(sum_of(&with(f64::NAN)).value().is_nan());
        assert_eq!(sum_of(&with(f64::INFINITY)).value(), f64::INFINITY);
        // One by one it overflows and stays there; in another order it might not.
        let near = [vec![f64::MAX; 2], vec![-f64::MAX; 2], vec![0.0; 20]].concat();
        assert_eq!(sum_of(&near).value().to_bits(), sum(near.iter().copied()).to_bits());
    }

    #[test]
    fn a_variance_over_time_at_the_middle_of_a_digit_is_not_below_it() {
        // As Prometheus has it; without the rounding errors it is 110.24999999999996, which rounds to 110.2.
        assert_eq!(variance_over_time(&[30.7, 34.1, 4.3, 20.5, 32.9, 31.1]), 110.25);
    }
}
