//! PromQL, evaluated a column at a time.
//!
//! `text → Plan → select (source) → columns → answer`. In comes a query and a grid of times; out go series with a value at
//! each time. Points come through [`SeriesSource`]; whoever implements it decides which series a caller may see.
//!
//! It knows no HTTP, no tenants, no files. Semantics are those of Prometheus 3.
#![forbid(unsafe_code)]

mod aggregate;
mod binary;
mod calendar;
mod column;
mod error;
mod evaluate;
mod function;
mod histogram;
mod labels;
mod matching;
mod notes;
mod plan;
mod range;
mod select;
mod source;
#[cfg(test)]
mod tests;
mod text;

use std::sync::{Arc, atomic::AtomicBool};

pub use column::{Column, Series, Value};
pub use error::QueryError;
pub use labels::Labels;
pub use plan::{Plan, Window, formatted, selector, tree};
pub use source::{Matcher, MatcherGroup, Operator, RawSeries, Selection, SeriesSource};
pub use text::{number_text, value_text};

/// A series without a sample for so long has ended, in milliseconds, unless a query says otherwise.
pub const LOOKBACK_MS: i64 = 300_000;

/// What one query may cost, and how far a selector looks back.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps of the grid, after its first time; Prometheus refuses more than 11,000 as well.
    pub steps_max: usize,
    /// Series that all selectors together may find.
    pub series_max: usize,
    /// Points that all selectors together may read.
    pub points_max: usize,
    /// Values (series × times) of one intermediate result; 8 bytes each.
    pub cells_max: usize,
    /// A series without a sample for so long has ended, in milliseconds.
    pub lookback_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 11_000,
            series_max: 100_000,
            points_max: 50_000_000,
            cells_max: 50_000_000,
            lookback_ms: LOOKBACK_MS,
        }
    }
}

/// What a query gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The values.
    pub value: Value,
    /// What is probably wrong with the query or the data.
    pub warnings: Vec<String>,
    /// What may be wrong.
    pub infos: Vec<String>,
}

/// Reads what the plan selects and evaluates it.
///
/// `cancelled` is looked at often: once it is true, the evaluation ends with [`QueryError::Cancelled`]. The evaluation
/// itself does not wait for anything; run it where a computation may take a core for a while.
pub async fn run(
    plan: &Plan,
    source: &dyn SeriesSource,
    limits: &Limits,
    cancelled: Arc<AtomicBool>,
) -> Result<Answer, QueryError> {
    let found = read(plan, source, limits).await?;
    evaluate(plan, &found, limits, &cancelled)
}

/// Reads everything that the plan selects: one answer of the source for each selector.
pub async fn read(plan: &Plan, source: &dyn SeriesSource, limits: &Limits) -> Result<Vec<Vec<RawSeries>>, QueryError> {
    let mut found = Vec::with_capacity(plan.selections().len());
    let (mut series, mut points) = (0, 0);
    for selection in plan.selections() {
        let selected = source.select(selection, limits.series_max - series, limits.points_max - points).await?;
        series += selected.len();
        points += selected.iter().map(|one| one.times.len()).sum::<usize>();
        if series > limits.series_max {
            return Err(QueryError::TooMuch { what: "series", limit: limits.series_max });
        }
        if points > limits.points_max {
            return Err(QueryError::TooMuch { what: "points", limit: limits.points_max });
        }
        found.push(selected);
    }
    Ok(found)
}

/// Evaluates a plan over what was [`read`] for it.
pub fn evaluate(
    plan: &Plan,
    found: &[Vec<RawSeries>],
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<Answer, QueryError> {
    let evaluation = evaluate::Evaluation { found, limits, cancelled, notes: notes::Notes::default() };
    let value = evaluation.whole(plan)?;
    let (warnings, infos) = evaluation.notes.into_texts();
    Ok(Answer { value, warnings, infos })
}
