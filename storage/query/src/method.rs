//! Aggregation methods. Pure.
//!
//! Within a metric (Gnocchi's archive policies): `mean sum last max min std median first count Npct`, and each with
//! `rate:` before it, over the differences of successive raw points. `std` is the sample's (n-1) and has no value for a
//! single point. Points that are NaN say nothing and are left out.
//!
//! Over metrics and windows (re-aggregation): `mean median std min max sum var count`, and with `rate:`; `std` and
//! `var` are the population's, missing values are left out.

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
    /// Middle value.
    Median,
    /// Value of the oldest point.
    First,
    /// How many.
    Count,
    /// Percentile with linear interpolation.
    Percentile(u8),
}

/// An aggregation method of an archive policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method {
    /// Over differences of successive points instead of the points.
    pub is_rate: bool,
    /// What is made of them.
    pub statistic: Statistic,
}

impl Method {
    /// Reads `mean`, `rate:95pct` and so on.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_rate, name) = match text.strip_prefix("rate:") {
            Some(name) => (true, name),
            None => (false, text),
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
        Some(Self { is_rate, statistic })
    }
}

impl Statistic {
    /// The statistic of values in time order; `None` where there is none. May reorder the values.
    pub fn of(self, values: &mut [f64]) -> Option<f64> {
        let (&first, &last) = (values.first()?, values.last()?);
        let count = values.len() as f64;
        Some(match self {
            Self::Mean => values.iter().sum::<f64>() / count,
            Self::Sum => values.iter().sum(),
            Self::Last => last,
            Self::First => first,
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Count => count,
            Self::Std if values.len() < 2 => return None,
            Self::Std => (squares(values) / (count - 1.0)).sqrt(),
            Self::Median => quantile(values, 0.5),
            Self::Percentile(percentage) => quantile(values, f64::from(percentage) / 100.0),
        })
    }
}

/// A re-aggregation over metrics, a rolling window or a coarser bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaggregation {
    /// Over differences of successive rows instead of the rows.
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
}

impl ReaggregationKind {
    /// Of all values that are not NaN; NaN where there is none (numpy's nan-functions: a sum or count of nothing is 0).
    pub fn of(self, values: impl Iterator<Item = f64>, scratch: &mut Vec<f64>) -> f64 {
        scratch.clear();
        scratch.extend(values.filter(|value| !value.is_nan()));
        let count = scratch.len() as f64;
        match self {
            Self::Sum => return scratch.iter().sum(),
            Self::Count => return count,
            _ if scratch.is_empty() => return f64::NAN,
            _ => {}
        }
        match self {
            Self::Mean => scratch.iter().sum::<f64>() / count,
            Self::Median => quantile(scratch, 0.5),
            Self::Std => (squares(scratch) / count).sqrt(),
            Self::Var => squares(scratch) / count,
            Self::Min => scratch.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Max => scratch.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Sum | Self::Count => unreachable!("answered above"),
        }
    }
}

/// Sum of squared distances from the mean.
fn squares(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean) * (value - mean)).sum()
}

/// Linear interpolation between the closest ranks, as numpy's `percentile` and `median`.
fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = fraction * (values.len() - 1) as f64;
    let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
    if below == above {
        return values[below];
    }
    values[below] + (values[above] - values[below]) * (rank - rank.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_gnocchis() {
        let of = |name: &str, values: &[f64]| Method::parse(name).expect(name).statistic.of(&mut values.to_vec());
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
        assert!(Method::parse("rate:95pct").is_some_and(|method| method.is_rate));
        assert!(Method::parse("100pct").is_none() && Method::parse("rate:rate:mean").is_none());
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
        assert_eq!(of("sum", &[f64::NAN]), 0.0);
        assert!(of("max", &[f64::NAN]).is_nan());
    }
}
