//! Where points come from.

use std::sync::{Arc, atomic::AtomicBool};

use async_trait::async_trait;
use regex::Regex;

use crate::{Histogram, Labels, Limits, Plan, QueryError, fold::Folding};

/// How a label's value is compared.
#[derive(Clone, Debug)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Matches(Regex),
    /// `!~`, anchored at both ends
    MatchesNot(Regex),
}

/// A condition on one label; a label that is not there has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what, as it was written.
    pub value: String,
}

/// Longer expressions are no filters that a person or a dashboard wrote.
const EXPRESSION_BYTES_MAX: usize = 64 * 1024;

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        let is_same_operator = std::mem::discriminant(&self.operator) == std::mem::discriminant(&other.operator);
        is_same_operator && self.name == other.name && self.value == other.value
    }
}

impl Matcher {
    /// From its parts, as they stand in a selector: `=`, `!=`, `=~` or `!~`.
    pub fn new(name: String, operator: &str, value: String) -> Result<Self, QueryError> {
        let wrong = |reason: String| QueryError::Syntax(format!("the matcher of {name:?} is none: {reason}"));
        let expression = || {
            if value.len() > EXPRESSION_BYTES_MAX {
                return Err(wrong(format!("it is longer than {EXPRESSION_BYTES_MAX} bytes")));
            }
            Regex::new(&format!("^(?s:{value})$")).map_err(|error| wrong(error.to_string()))
        };
        let operator = match operator {
            "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "=~" => Operator::Matches(expression()?),
            "!~" => Operator::MatchesNot(expression()?),
            other => return Err(wrong(format!("{other:?} is no operator"))),
        };
        Ok(Self { name, operator, value })
    }

    /// A label with one value.
    pub(crate) fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), operator: Operator::Equal, value: value.to_owned() }
    }

    /// Whether a value of the label fulfils it.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.operator {
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
            Operator::Matches(regex) => regex.is_match(value),
            Operator::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// Conditions that must all hold.
pub type MatcherGroup = Vec<Matcher>;

/// Which points a selector needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// A series belongs to it if all matchers of any group hold.
    pub groups: Vec<MatcherGroup>,
    /// Points after this time, in milliseconds …
    pub after_ms: i64,
    /// … up to and including this one.
    pub until_ms: i64,
    /// Of each series the newest of these points is enough.
    pub newest_only: bool,
}

/// The points of one series, in the order of their times, no time twice.
#[derive(Clone, Debug)]
pub struct RawSeries {
    /// Its labels, `__name__` among them.
    pub labels: Labels,
    /// Milliseconds since 1970. Series that were scraped together may share them.
    pub times: Arc<[i64]>,
    /// As many values; stale markers included. One that stands for a histogram is [`crate::marked`] with its place below.
    pub values: Vec<f64>,
    /// Native histograms among the values; nearly always none.
    pub histograms: Vec<Arc<Histogram>>,
}

/// Answers selectors. It gives only what the caller may see, and should stop reading when a limit is passed.
#[async_trait]
pub trait SeriesSource: Send + Sync {
    /// All series of a selection that have points in its range.
    async fn select(
        &self,
        selection: &Selection,
        series_max: usize,
        points_max: usize,
    ) -> Result<Vec<RawSeries>, QueryError>;

    /// All selections of a plan, in their order, together no more than the limits. One after the other, unless the source
    /// knows better; what is folded is folded after it was read, unless the source can do it while it reads.
    async fn select_all(
        &self,
        plan: &Plan,
        limits: &Limits,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<Selected>, QueryError> {
        let (mut all, mut taken) = (Vec::new(), Taken::new(limits.series_max, limits.points_max));
        for (selection, fold) in plan.selections().iter().zip(plan.folds()) {
            let (series_left, points_left) = taken.left();
            let selected = Selected::Points(self.select(selection, series_left, points_left).await?);
            taken.take(&selected)?;
            all.push(match fold {
                Some(fold) => selected.folded(&Folding::new(fold.clone(), limits.cells_max, cancelled.clone()))?,
                None => selected,
            });
        }
        Ok(all)
    }
}

/// A series whose points were folded.
#[derive(Clone, Debug)]
pub struct FoldedSeries {
    /// Its labels, `__name__` among them.
    pub labels: Labels,
    /// How many points it had.
    pub points: usize,
    /// What [`Folding::of`] gave, not empty.
    pub values: Vec<f64>,
}

/// A time and a value.
const POINT_BYTES: usize = 16;

/// What was read of a selection.
#[derive(Clone, Debug)]
pub enum Selected {
    /// The points themselves.
    Points(Vec<RawSeries>),
    /// What the plan's [`crate::Fold`] made of each series.
    Folded(Vec<FoldedSeries>),
}

impl Selected {
    /// How many series there are.
    pub fn series(&self) -> usize {
        match self {
            Self::Points(series) => series.len(),
            Self::Folded(series) => series.len(),
        }
    }

    /// How many points were read.
    pub fn points(&self) -> usize {
        match self {
            Self::Points(series) => series.iter().map(|one| one.times.len()).sum(),
            Self::Folded(series) => series.iter().map(|one| one.points).sum(),
        }
    }

    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Points(_) => self.points() * POINT_BYTES,
            Self::Folded(series) => series.iter().map(|one| one.values.len() * size_of::<f64>()).sum(),
        }
    }

    /// Folded, unless there are histograms among the points.
    fn folded(self, folding: &Folding) -> Result<Self, QueryError> {
        let Self::Points(series) = self else { return Ok(self) };
        if series.iter().any(|one| !one.histograms.is_empty()) {
            return Ok(Self::Points(series));
        }
        let mut folded = Vec::with_capacity(series.len());
        for RawSeries { labels, times, values, .. } in series {
            let (points, values) = (times.len(), folding.of(&times, &values).ok_or_else(|| folding.problem())?);
            if !values.is_empty() {
                folded.push(FoldedSeries { labels, points, values });
            }
        }
        Ok(Self::Folded(folded))
    }
}

/// What the selections of one query have taken of its limits.
pub struct Taken {
    series_max: usize,
    points_max: usize,
    series: usize,
    points: usize,
}

impl Taken {
    /// Nothing yet.
    pub fn new(series_max: usize, points_max: usize) -> Self {
        Self { series_max, points_max, series: 0, points: 0 }
    }

    /// Series and points that are left.
    pub fn left(&self) -> (usize, usize) {
        (self.series_max - self.series, self.points_max - self.points)
    }

    /// Takes what was selected, if that is not too much.
    pub fn take(&mut self, selected: &Selected) -> Result<(), QueryError> {
        let (series, points) = self.left();
        let more = selected.points();
        if selected.series() > series {
            return Err(QueryError::TooMuch { what: "series", limit: self.series_max });
        }
        if more > points {
            return Err(QueryError::TooMuch { what: "points", limit: self.points_max });
        }
        self.series += selected.series();
        self.points += more;
        Ok(())
    }
}
