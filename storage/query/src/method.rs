//! Aggregation methods. Pure.
//!
//! Within a metric (Gnocchi's archive policies): `mean sum last max min std median first count Npct`, and each with
//! `rate:` before it, over the differences of successive raw points; with `increase:` before it the same, but a counter
//! that starts again counts from zero, so that no difference is negative (Orzo's own). `std` is the sample's (n-1) and
//! has no value for a single point. A NaN among the points does what it does in Gnocchi: it is counted, `min` passes it
//! over, everything that needs its value becomes NaN.
//!
//! Over metrics and windows (re-aggregation): `mean median std min max sum var count`, and with `rate:` the differences
//! of the results; `std` and `var` are the population's, missing values are left out.

use orzo_index::policy::percent;

/// What is made of the values of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Average.
    Mean,
    /// Sum.
    Sum,
    /// Value of the newest point.
    Last,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// Standard deviation of the sample.
    Std,
    /// Variance of the sample; only where buckets are aggregated again.
    Variance,
    /// Middle value.
    Median,
    /// Value of the oldest point.
    First,
    /// How many.
    Count,
    /// Percentile with linear interpolation.
    Percentile(u8),
}

/// What is aggregated in place of the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// `rate:`: the difference to the point before.
    Difference,
    /// `increase:`: the same of a counter. A value below the one before means that the counter started again at zero.
    Increase,
}

impl Change {
    /// From one value to the next.
    pub fn between(self, before: f64, value: f64) -> f64 {
        match self {
            Self::Increase if value < before => value,
            Self::Difference | Self::Increase => value - before,
        }
    }
}

/// An aggregation method of an archive policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method {
    /// Over changes between successive points instead of the points.
    pub change: Option<Change>,
    /// What is made of them.
    pub statistic: Statistic,
}

impl Method {
    /// Reads `mean`, `rate:95pct`, `increase:sum` and so on.
    pub fn parse(text: &str) -> Option<Self> {
        let (change, name) = match text.split_once(':') {
            Some(("rate", name)) => (Some(Change::Difference), name),
            Some(("increase", name)) => (Some(Change::Increase), name),
            Some(_) => return None,
            None => (None, text),
        };
        let statistic = match name {
            "mean" => Statistic::Mean,
            "sum" => Statistic::Sum,
            "last" => Statistic::Last,
            "max" => Statistic::Max,
            "min" => Statistic::Min,
            "std" => Statistic::Std,
            "median" => Statistic::Median,
            "first" => Statistic::First,
            "count" => Statistic::Count,
            other => Statistic::Percentile(percent(other)?),
        };
        Some(Self { change, statistic })
    }

    /// Whether it is one that Gnocchi does not have, and that needs no archive policy to foresee it.
    pub fn is_own(self) -> bool {
        self.change == Some(Change::Increase)
    }
}

impl Statistic {
    /// The statistic of values in time order; `None` where there is none. May reorder the values.
    pub fn of(self, values: &mut [f64]) -> Option<f64> {
        let (&first, &last) = (values.first()?, values.last()?);
        let count = values.len() as f64;
        Some(match self {
            Self::Mean => sum(values) / count,
            Self::Sum => sum(values),
            Self::Last => last,
            Self::First => first,
            Self::Max if values.iter().any(|value| value.is_nan()) => f64::NAN,
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            // Starts with NaN, which `f64::min` passes over.
            Self::Min => values.iter().copied().fold(f64::NAN, f64::min),
            Self::Count => count,
            Self::Std | Self::Variance if values.len() < 2 => return None,
            Self::Std => (squares(values) / (count - 1.0)).sqrt(),
            Self::Variance => squares(values) / (count - 1.0),
            Self::Median => median(values),
            Self::Percentile(percentage) => quantile(values, f64::from(percentage) / 100.0),
        })
    }
}

/// A re-aggregation over metrics, a rolling window or a coarser bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaggregation {
    /// Differences of successive results instead of the results.
    pub is_rate: bool,
    /// What is made of them.
    pub kind: ReaggregationKind,
}

/// What a re-aggregation makes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaggregationKind {
    /// Average.
    Mean,
    /// Middle value.
    Median,
    /// Standard deviation of the population.
    Std,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Sum.
    Sum,
    /// Variance of the population.
    Var,
    /// How many there are.
    Count,
}

impl Reaggregation {
    /// Reads `mean`, `rate:sum` and so on.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_rate, name) = match text.strip_prefix("rate:") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let kind = match name {
            "mean" => ReaggregationKind::Mean,
            "median" => ReaggregationKind::Median,
            "std" => ReaggregationKind::Std,
            "min" => ReaggregationKind::Min,
            "max" => ReaggregationKind::Max,
            "sum" => ReaggregationKind::Sum,
            "var" => ReaggregationKind::Var,
            "count" => ReaggregationKind::Count,
            _ => return None,
        };
        Some(Self { is_rate, kind })
    }

    /// The method of the same name for wider buckets: Gnocchi's `resample` aggregates as within a metric, so that `std`
    /// is the sample's.
    pub(crate) fn within_buckets(self) -> Method {
        let statistic = match self.kind {
            ReaggregationKind::Mean => Statistic::Mean,
            ReaggregationKind::Median => Statistic::Median,
            ReaggregationKind::Std => Statistic::Std,
            ReaggregationKind::Min => Statistic::Min,
            ReaggregationKind::Max => Statistic::Max,
            ReaggregationKind::Sum => Statistic::Sum,
            ReaggregationKind::Var => Statistic::Variance,
            ReaggregationKind::Count => Statistic::Count,
        };
        Method { change: self.is_rate.then_some(Change::Difference), statistic }
    }
}

impl ReaggregationKind {
    /// Of all values that are not NaN; NaN where there is none (numpy's nan-functions: a sum or count of nothing is 0).
    pub fn of(self, values: impl Iterator<Item = f64>, scratch: &mut Vec<f64>) -> f64 {
        scratch.clear();
        scratch.extend(values.filter(|value| !value.is_nan()));
        let count = scratch.len() as f64;
        match self {
            Self::Sum => return sum(scratch),
            Self::Count => return count,
            _ if scratch.is_empty() => return f64::NAN,
            _ => {}
        }
        match self {
            Self::Mean => sum(scratch) / count,
            Self::Median => median(scratch),
            Self::Std => (squares(scratch) / count).sqrt(),
            Self::Var => squares(scratch) / count,
            Self::Min => scratch.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Max => scratch.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Sum | Self::Count => unreachable!("answered above"),
        }
    }
}

/// In order, from zero: Rust's own sum of nothing is minus zero.
fn sum(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum, value| sum + value)
}

/// Sum of squared distances from the mean.
fn squares(values: &[f64]) -> f64 {
    let mean = sum(values) / values.len() as f64;
    values.iter().map(|value| (value - mean) * (value - mean)).sum()
}

/// As numpy sorts: NaN last.
fn sort(values: &mut [f64]) {
    values.sort_unstable_by(|a, b| a.is_nan().cmp(&b.is_nan()).then_with(|| a.total_cmp(b)));
}

/// The middle value, or the average of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    sort(values);
    let above = values.len() / 2;
    let below = (values.len() - 1) / 2;
    if above == below { values[above] } else { (values[below] + values[above]) / 2.0 }
}

/// Linear interpolation between the closest ranks, weighted as Gnocchi does it.
fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    sort(values);
    let rank = fraction * (values.len() - 1) as f64;
    let (below, above) = (rank.floor(), rank.ceil());
    if below == above {
        return values[below as usize];
    }
    values[below as usize] * (above - rank) + values[above as usize] * (rank - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, values: &[f64]) -> Option<f64> {
        Method::parse(name).expect(name).statistic.of(&mut values.to_vec())
    }

    #[test]
    fn statistics_are_gnocchis() {
        let values = [3.0, 1.0, 2.0, 10.0];
        for (name, expected) in [
            ("mean", 4.0),
            ("sum", 16.0),
            ("last", 10.0),
            ("first", 3.0),
            ("max", 10.0),
            ("min", 1.0),
            ("count", 4.0),
            ("median", 2.5),
            ("50pct", 2.5),
            ("25pct", 1.75),
            ("90pct", 7.9),
        ] {
            let found = of(name, &values).expect(name);
            assert!((found - expected).abs() < 1e-12, "{name}: {found}");
        }
        assert_eq!(of("std", &[1.0]), None);
        assert_eq!(of("std", &[1.0, 3.0]), Some(2f64.sqrt()));
        assert_eq!(of("mean", &[]), None);
        assert_eq!(of("median", &[5.0, 1.0, 3.0]), Some(3.0));
        assert!(Method::parse("rate:95pct").is_some_and(|method| method.change == Some(Change::Difference)));
        assert!(Method::parse("100pct").is_none() && Method::parse("rate:rate:mean").is_none());
        assert!(Method::parse("fall:mean").is_none());
    }

    #[test]
    fn nan_among_the_points_does_what_it_does_in_gnocchi() {
        let values = [1.0, f64::NAN, 3.0];
        for name in ["mean", "sum", "max", "std"] {
            assert!(of(name, &values).expect(name).is_nan(), "{name}");
        }
        assert_eq!(of("min", &values), Some(1.0));
        assert_eq!(of("count", &values), Some(3.0));
        assert_eq!(of("median", &values), Some(3.0), "NaN sorts last");
        assert_eq!(of("last", &values), Some(3.0));
        assert!(of("min", &[f64::NAN]).expect("one").is_nan());
        assert!(of("median", &[-f64::NAN, 1.0, 2.0]).is_some_and(|value| value == 2.0));
        assert_eq!(of("max", &[f64::INFINITY, 1.0]), Some(f64::INFINITY));
    }

    #[test]
    fn a_counter_that_starts_again_increases_from_zero() {
        assert_eq!(Change::Difference.between(10.0, 3.0), -7.0);
        assert_eq!(Change::Increase.between(10.0, 3.0), 3.0);
        assert_eq!(Change::Increase.between(10.0, 13.0), 3.0);
        assert!(Method::parse("increase:mean").is_some_and(Method::is_own));
        assert!(Method::parse("rate:mean").is_some_and(|method| !method.is_own()));
    }

    #[test]
    fn reaggregations_leave_out_what_is_missing() {
        let of = |name: &str, values: &[f64]| {
            Reaggregation::parse(name).expect(name).kind.of(values.iter().copied(), &mut Vec::new())
        };
        let values = [1.0, f64::NAN, 3.0];
        assert_eq!(of("mean", &values), 2.0);
        assert_eq!(of("std", &values), 1.0);
        assert_eq!(of("var", &values), 1.0);
        assert_eq!(of("count", &values), 2.0);
        assert_eq!(of("median", &values), 2.0);
        assert_eq!(of("sum", &[f64::NAN]), 0.0);
        assert!(of("max", &[f64::NAN]).is_nan());
    }
}
