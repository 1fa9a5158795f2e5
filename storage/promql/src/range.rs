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
        "sum_over_time" => |w, _| Some(sum(w.values.iter().copied())),
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
        "stddev_over_time" => |w, _| Some(variance(w.values).sqrt()),
        "stdvar_over_time" => |w, _| Some(variance(w.values)),
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
    let sampled = seconds(times[count - 1] - times[0]);
    let mut to_start = seconds(times[0] - window.start);
    let mut to_end = seconds(window.end - times[count - 1]);
    let distance = sampled / (count - 1) as f64;
    // Farther than this from an end, the series is taken to begin or stop half a distance from its sample.
    let threshold = distance * 1.1;
    if to_start >= threshold {
        to_start = distance / 2.0;
    }
    if is_counter && change > 0.0 && values[0] >= 0.0 {
        // A counter is never below zero, so it cannot be extended further back than to zero.
        to_start = to_start.min(sampled * (values[0] / change));
    }
    if to_end >= threshold {
        to_end = distance / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if is_rate {
        factor /= seconds(window.end - window.start);
    }
    Some(change * factor)
}

fn last_two(window: &RangeWindow<'_>, is_rate: bool) -> Option<f64> {
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
}

/// The mean; of numbers whose sum would overflow as well.
pub(crate) fn average(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let total = sum(values.iter().copied());
    if total.is_infinite() && values.iter().all(|value| value.is_finite()) {
        return sum(values.iter().map(|value| value / count));
    }
    total / count
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
