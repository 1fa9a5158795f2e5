//! Rates scopes: for each project and time, from evidence to lines in the ledger.
//!
//! `evidence → timeline → segments → lines → what differs from the ledger → append → how far the scope is rated`
//!
//! The first rating and every later one of the same time are one thing: lines are made, held against those that are there,
//! and what differs is appended as reversals and replacements. A process that dies in between makes the same lines again,
//! with the same ids, which adds nothing. Knows no API, no files and no SQL.

mod advance;
mod again;
mod corrections;
mod explain;
mod lines;
mod run;
mod settling;
mod unpriced;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bigdecimal::BigDecimal;
use futures::TryStreamExt;
use orzo_model::Timestamp;
use serde::Serialize;

use crate::{
    book::RatingBook,
    doors::{Ledger, LineFilter},
    segments::{Completeness, Finding},
};

pub use corrections::{Change, corrections, effective};
pub use explain::Explanation;
pub use lines::{PeriodRules, Rated, rate};
pub use run::{Processor, ProcessorError, RulesOf};
pub use unpriced::{Charge, Unpriced};

/// How usage is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// To the second, by what happened.
    #[default]
    Exact,
    /// Whole periods, by what Gnocchi's aggregates would say, as CloudKitty charges.
    CloudKitty,
}

/// Settings of the rating.
#[derive(Clone, Debug, PartialEq)]
pub struct RatingSettings {
    /// How usage is charged.
    pub mode: Mode,
    /// Length of a rating period; periods are aligned to the epoch.
    pub period: Duration,
    /// A period is rated when so many more are over, so that what is late a little is in it.
    pub wait_periods: u32,
    /// One point of each polled metric is expected in each such time.
    pub slot: Duration,
    /// Days are rated a second time when they are over for so long, for samples that came late; `None`: never.
    pub seconded_after: Option<Duration>,
}

impl Default for RatingSettings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            period: Duration::from_secs(3600),
            wait_periods: 2,
            slot: Duration::from_secs(300),
            seconded_after: Some(Duration::from_secs(12 * 3600)),
        }
    }
}

impl RatingSettings {
    /// How far can be rated at a moment.
    pub fn ready(&self, now: Timestamp) -> Timestamp {
        now.floor(self.period).minus(self.period.saturating_mul(self.wait_periods))
    }
}

/// What rating a stretch of a scope came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Periods that were looked at, of each scope.
    pub periods: u64,
    /// Lines that the evidence makes.
    pub lines: u64,
    /// Lines that were new in the ledger; 0 where nothing was written.
    pub appended: u64,
    /// Lines that had to be taken back.
    pub reversed: u64,
    /// Charges (a resource's usage of a service in a period) that have no price: they make no lines, and what stands of them
    /// stays. `findings` says why.
    pub unpriced: u64,
    /// Their costs before, by service.
    pub before: BTreeMap<String, BigDecimal>,
    /// The costs after, by service.
    pub after: BTreeMap<String, BigDecimal>,
    /// What differs, the first of it.
    pub changes: Vec<Change>,
    /// What does not fit together, the first of it.
    pub findings: Vec<Finding>,
    /// What was expected of polling and what was there, of resources with something missing.
    pub incomplete: Vec<Completeness>,
}

/// Changes, findings and gaps that a report lists; it counts all.
const LISTED_MAX: usize = 1000;

impl Report {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.periods += other.periods;
        self.unpriced += other.unpriced;
        self.lines += other.lines;
        self.appended += other.appended;
        self.reversed += other.reversed;
        for (own, others) in [(&mut self.before, other.before), (&mut self.after, other.after)] {
            for (service, cost) in others {
                *own.entry(service).or_default() += cost;
            }
        }
        fn extend<T>(own: &mut Vec<T>, others: Vec<T>) {
            own.extend(others.into_iter().take(LISTED_MAX.saturating_sub(own.len())));
        }
        extend(&mut self.changes, other.changes);
        // What costs money comes first, however many others there are.
        let (no_price, others): (Vec<Finding>, Vec<Finding>) =
            other.findings.into_iter().partition(|found| found.reason == unpriced::NO_PRICE);
        let priced_at = self.findings.iter().take_while(|found| found.reason == unpriced::NO_PRICE).count();
        self.findings.splice(priced_at..priced_at, no_price);
        self.findings.truncate(LISTED_MAX);
        extend(&mut self.findings, others);
        extend(&mut self.incomplete, other.incomplete);
    }
}

/// Whole periods from one time to another, one after the other: none is made before it is asked for.
pub fn periods(
    from: Timestamp,
    to: Timestamp,
    period: Duration,
) -> impl Iterator<Item = (Timestamp, Timestamp)> + Send + use<> {
    let mut next = from.floor(period);
    std::iter::from_fn(move || {
        let begin = next;
        next = begin.plus(period);
        (begin < to && begin < next).then_some((begin, next))
    })
}

/// How many these are.
pub fn periods_count(from: Timestamp, to: Timestamp, period: Duration) -> u64 {
    let (from, period) = (from.floor(period), period.as_micros());
    let micros = u128::try_from(to.micros().saturating_sub(from.micros())).unwrap_or(0);
    if period == 0 { 0 } else { u64::try_from(micros.div_ceil(period)).unwrap_or(u64::MAX) }
}

/// Periods whose evidence is read at once, unless they are short: a day of hours. What is in memory follows from it.
const PERIODS_AT_ONCE: u64 = 24;
/// Short periods are read together for so long: points are read an hour or two beyond each time anyway.
const READ_AT_ONCE: Duration = Duration::from_secs(2 * 3600);

/// How many periods are rated together.
fn periods_at_once(period: Duration) -> usize {
    let short = READ_AT_ONCE.as_secs() / period.as_secs().max(1);
    usize::try_from(short.max(PERIODS_AT_ONCE)).unwrap_or(usize::MAX)
}

/// Periods that are rated together, one after the other.
fn stretches(
    from: Timestamp,
    to: Timestamp,
    period: Duration,
) -> impl Iterator<Item = Vec<(Timestamp, Timestamp)>> + Send + use<> {
    let mut left = periods(from, to, period);
    std::iter::from_fn(move || {
        let some: Vec<_> = left.by_ref().take(periods_at_once(period)).collect();
        (!some.is_empty()).then_some(some)
    })
}

/// Whether the rating or the ledger knows a project: one that neither knows is a slip of the pen.
pub async fn is_known(book: &RatingBook, ledger: &dyn Ledger, project: &str) -> Result<bool, ProcessorError> {
    if book.scope(project).await?.is_some() {
        return Ok(true);
    }
    let filter = LineFilter { scopes: Some(vec![project.to_owned()]), ..LineFilter::default() };
    Ok(ledger.read(&filter).await?.try_next().await?.is_some())
}

/// Rules of a period, shared by all its scopes.
pub type SharedRules = Arc<crate::doors::Rules>;

#[cfg(test)]
mod tests;
