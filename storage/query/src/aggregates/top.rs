//! The largest, or smallest, of many series or groups: what a person looks for in a cloud of thousands. Gnocchi answers
//! all of them and leaves the choice to the client. Pure.

use super::{AggregatesAnswer, MeasuredSeries};
use crate::{method::Statistic, read::AggregatedMeasure};

/// How many of them, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// How many are kept.
    pub count: usize,
    /// The smallest instead of the largest.
    pub smallest: bool,
    /// By which value of each.
    pub by: TopBy,
}

/// The value that series are compared by, over their measures of the coarsest granularity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopBy {
    /// Average.
    #[default]
    Mean,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// Sum.
    Sum,
    /// Newest.
    Last,
}

impl TopBy {
    /// Reads `mean`, `max`, `min`, `sum`, `last`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "mean" => Self::Mean,
            "max" => Self::Max,
            "min" => Self::Min,
            "sum" => Self::Sum,
            "last" => Self::Last,
            _ => return None,
        })
    }

    fn of(self, measures: &[AggregatedMeasure]) -> Option<f64> {
        let coarsest = measures.first()?.granularity;
        let same = measures.iter().filter(|measure| measure.granularity == coarsest);
        let mut values: Vec<f64> = same.map(|measure| measure.value).filter(|value| !value.is_nan()).collect();
        let statistic = match self {
            Self::Mean => Statistic::Mean,
            Self::Max => Statistic::Max,
            Self::Min => Statistic::Min,
            Self::Sum => Statistic::Sum,
            Self::Last => Statistic::Last,
        };
        statistic.of(&mut values)
    }
}

impl Top {
    /// Keeps the first so many, in the order of their values; one aggregated series stays as it is. What has no value
    /// comes last.
    pub(super) fn of(self, answer: AggregatesAnswer) -> AggregatesAnswer {
        match answer {
            AggregatesAnswer::Groups(groups) => {
                AggregatesAnswer::Groups(self.kept(groups, |(_, one)| self.value_of(&one.measures)))
            }
            AggregatesAnswer::Single(mut one) => {
                one.measures = match one.measures {
                    MeasuredSeries::ByMetric(series) => {
                        MeasuredSeries::ByMetric(self.kept(series, |(_, _, measures)| self.by.of(measures)))
                    }
                    MeasuredSeries::ByResource(series) => {
                        MeasuredSeries::ByResource(self.kept(series, |(_, _, _, measures)| self.by.of(measures)))
                    }
                    aggregated => aggregated,
                };
                AggregatesAnswer::Single(one)
            }
        }
    }

    /// The value of a group: of its largest series, if it has several.
    fn value_of(self, measures: &MeasuredSeries) -> Option<f64> {
        let values: Vec<f64> = match measures {
            MeasuredSeries::Aggregated(measures) => self.by.of(measures).into_iter().collect(),
            MeasuredSeries::ByMetric(series) => series.iter().filter_map(|(_, _, m)| self.by.of(m)).collect(),
            MeasuredSeries::ByResource(series) => series.iter().filter_map(|(_, _, _, m)| self.by.of(m)).collect(),
        };
        values.into_iter().reduce(if self.smallest { f64::min } else { f64::max })
    }

    fn kept<T>(self, items: Vec<T>, value: impl Fn(&T) -> Option<f64>) -> Vec<T> {
        let mut ranked: Vec<(Option<f64>, T)> = items.into_iter().map(|item| (value(&item), item)).collect();
        ranked.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) if self.smallest => a.total_cmp(b),
            (Some(a), Some(b)) => b.total_cmp(a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        ranked.truncate(self.count);
        ranked.into_iter().map(|(_, item)| item).collect()
    }
}
