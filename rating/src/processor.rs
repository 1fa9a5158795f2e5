//! Rates scopes: for each project and time, from evidence to lines in the ledger.
//!
//! `evidence → timeline → segments → lines → what differs from the ledger → append → how far the scope is rated`
//!
//! The first rating and every later one of the same time are one thing: lines are made, held against those that are there,
//! and what differs is appended as reversals and replacements. A process that dies in between makes the same lines again,
//! with the same ids, which adds nothing. Knows no API, no files and no SQL.

mod corrections;
mod explain;
mod lines;
mod run;
mod settling;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bigdecimal::BigDecimal;
use orzo_model::Timestamp;
use serde::Serialize;

use crate::segments::{Completeness, Finding};

pub use corrections::{Change, corrections, effective};
pub use explain::Explanation;
pub use lines::{PeriodRules, Rated, rate};
pub use run::{Processor, ProcessorError, RulesOf};

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
    /// Lines that the evidence makes.
    pub lines: u64,
    /// Lines that were new in the ledger; 0 where nothing was written.
    pub appended: u64,
    /// Lines that had to be taken back.
    pub reversed: u64,
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
        extend(&mut self.findings, other.findings);
        extend(&mut self.incomplete, other.incomplete);
    }
}

/// Whole periods from one time to another.
pub fn periods(from: Timestamp, to: Timestamp, period: Duration) -> Vec<(Timestamp, Timestamp)> {
    let mut begin = from.floor(period);
    let mut found = Vec::new();
    while begin < to && period.as_micros() > 0 {
        let end = begin.plus(period);
        found.push((begin, end));
        begin = end;
    }
    found
}

/// Rules of a period, shared by all its scopes.
pub type SharedRules = Arc<crate::doors::Rules>;

#[cfg(test)]
mod tests;
