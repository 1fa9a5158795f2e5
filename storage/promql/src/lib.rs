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
mod explain;
mod expressions;
mod fold;
mod function;
mod histogram;
mod info;
mod labels;
mod literals;
mod matching;
mod native;
mod notes;
mod parts;
mod plan;
mod range;
mod select;
mod source;
#[cfg(test)]
mod tests;
mod text;

use std::{
    cell::Cell,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use column::{Column, Series, Value};
pub use error::QueryError;
pub use explain::Step;
pub use expressions::Expressions;
pub use fold::{Fold, Folding};
pub use labels::Labels;
pub use native::{CUSTOM_SCHEMA, EXPONENTIAL_SCHEMAS, Histogram, Listed, ResetHint, marked, number_of};
pub use parts::Part;
pub use plan::{Plan, Window, formatted, selector, tree};
pub use source::{FoldedSeries, Matcher, MatcherGroup, Operator, RawSeries, Selected, Selection, SeriesSource, Taken};
pub use text::{number_text, write_value, write_whole};

/// A series without a sample for so long has ended, in milliseconds, unless a query says otherwise.
pub const LOOKBACK_MS: i64 = 300_000;

/// Memory that queries share. What is taken is given back when the last [`Limits`] with this room are dropped.
pub trait Room: Debug + Send + Sync {
    /// Takes so many bytes more.
    fn take(&self, bytes: usize) -> Result<(), QueryError>;

    /// Room of the same query that is given back by itself, for what is done piece by piece.
    fn apart(&self) -> Arc<dyn Room>;
}

/// What one query may cost, and how far a selector looks back.
#[derive(Clone, Debug)]
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
    /// Where its memory comes from; `None`: nobody counts it.
    pub room: Option<Arc<dyn Room>>,
}

impl Limits {
    /// Takes memory, if that is counted.
    pub fn take(&self, bytes: usize) -> Result<(), QueryError> {
        self.room.as_ref().map_or(Ok(()), |room| room.take(bytes))
    }

    /// The same for a piece of the query, whose memory is given back when these are dropped.
    pub fn of_piece(&self) -> Self {
        Self { room: self.room.as_ref().map(|room| room.apart()), ..self.clone() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 11_000,
            series_max: 100_000,
            points_max: 50_000_000,
            cells_max: 50_000_000,
            lookback_ms: LOOKBACK_MS,
            room: None,
        }
    }
}

/// Cancels an evaluation that nobody waits for any longer.
pub struct CancelOnDrop(pub Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
    /// Histograms that values stand for ([`number_of`]).
    pub histograms: Vec<Arc<Histogram>>,
}

impl Answer {
    /// The histogram that a value stands for, if it does.
    pub fn histogram(&self, value: f64) -> Option<&Histogram> {
        // Without histograms a number is a number, whatever its bits.
        number_of(value).and_then(|number| self.histograms.get(number)).map(|histogram| &**histogram)
    }
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
    let found = read(plan, source, limits, &cancelled).await?;
    evaluate(plan, found, limits, &cancelled)
}

/// Reads everything that the plan selects: one answer of the source for each selector. Ends as [`run`] does.
pub async fn read(
    plan: &Plan,
    source: &dyn SeriesSource,
    limits: &Limits,
    cancelled: &Arc<AtomicBool>,
) -> Result<Vec<Selected>, QueryError> {
    let selected = source.select_all(plan, limits, cancelled).await?;
    limits.take(selected.iter().map(Selected::bytes).sum())?;
    Ok(selected)
}

/// Evaluates a plan over what was [`read`] for it.
pub fn evaluate(
    plan: &Plan,
    selected: Vec<Selected>,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<Answer, QueryError> {
    evaluate_with(plan, selected, limits, cancelled, None).map(|(answer, _)| answer)
}

/// As [`evaluate`], with what each step took by a clock.
pub fn evaluate_traced(
    plan: &Plan,
    selected: Vec<Selected>,
    limits: &Limits,
    cancelled: &AtomicBool,
    now: &dyn Fn() -> Duration,
) -> Result<(Answer, Step), QueryError> {
    evaluate_with(plan, selected, limits, cancelled, Some(explain::Trace::new(now)))
}

fn evaluate_with(
    plan: &Plan,
    selected: Vec<Selected>,
    limits: &Limits,
    cancelled: &AtomicBool,
    trace: Option<explain::Trace<'_>>,
) -> Result<(Answer, Step), QueryError> {
    let (mut found, mut folded) = (Vec::with_capacity(selected.len()), Vec::with_capacity(selected.len()));
    for one in selected {
        let (points, values) = match one {
            Selected::Points(points) => (points, None),
            Selected::Folded(values) => (Vec::new(), Some(values)),
        };
        found.push(points);
        folded.push(values);
    }
    // Only where there are histograms is anybody asked whether a value is one.
    let has_histograms = found.iter().flatten().any(|series| !series.histograms.is_empty());
    let natives = has_histograms.then(native::Natives::default);
    if let Some(natives) = &natives {
        found = found.iter().map(|some| numbered(some, natives)).collect();
        // What was folded has none: a number that only looks like one is a NaN.
        let values = folded.iter_mut().flatten().flatten().flat_map(|one| &mut one.values);
        values.filter(|value| number_of(**value).is_some()).for_each(|value| *value = f64::NAN);
    }
    let (found, folded) = (&found[..], folded.into());
    let (notes, peak) = (notes::Notes::default(), Cell::new(0));
    let evaluation = evaluate::Evaluation { found, folded, limits, cancelled, notes, natives, trace, peak };
    let value = evaluation.whole(plan)?;
    let (warnings, infos) = evaluation.notes.into_texts();
    let histograms = evaluation.natives.map(native::Natives::into_all).unwrap_or_default();
    let step = evaluation.trace.map(explain::Trace::into_step).unwrap_or_default();
    Ok((Answer { value, warnings, infos, histograms }, step))
}

/// Series whose histograms have their numbers in the whole evaluation. A number that only looks like one is a NaN.
fn numbered(series: &[RawSeries], natives: &native::Natives) -> Vec<RawSeries> {
    let of = |one: &RawSeries| {
        let values = one.values.iter().map(|value| match number_of(*value) {
            None => *value,
            Some(place) => one.histograms.get(place).map_or(f64::NAN, |histogram| natives.keep(histogram.clone())),
        });
        RawSeries {
            labels: one.labels.clone(),
            times: one.times.clone(),
            values: values.collect(),
            histograms: Vec::new(),
        }
    };
    series.iter().map(of).collect()
}
