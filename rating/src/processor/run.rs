//! The processor: what it stands on, scopes and rules and lines as they are read, what is appended, and closing.

use std::{collections::BTreeMap, sync::Arc};

use bigdecimal::BigDecimal;
use futures::TryStreamExt;
use orzo_model::{Room, SharedClock, Timestamp};
use parking_lot::Mutex;

use super::{RatingSettings, SharedRules, again::is_own, settling::bill_of};
use crate::{
    book::{BookError, ClosedPeriod, NewScope, RatingBook, ScopeFilter, ScopeState},
    currency::Totals,
    doors::{Ledger, LedgerError, LineFilter, Rules, UsageReadError, UsageReader, Wanted},
    line::RatedLine,
    metrics::{MetricDefinition, Metrics},
    price::Prices,
};

/// Stretches of time whose rules are remembered.
const RULES_REMEMBERED: usize = 64;
/// Scopes read at once.
const SCOPES_AT_ONCE: u32 = 1000;
/// Lines held against what is wanted: of one scope and the periods that are rated together.
const EXISTING_LINES_MAX: usize = 5_000_000;
/// By which rules a time is rated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesOf {
    /// By those that it was rated by before: only what is known of usage may have changed. What these had no price for is rated by
    /// the newest.
    Then,
    /// By the newest.
    Now,
}

/// Why rating did not come further. Everything may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The usage.
    #[error(transparent)]
    Usage(#[from] UsageReadError),
    /// What is closed gets no lines.
    #[error("the bill of {scope} from {begin} until {end} is closed and gets no more lines")]
    Closed {
        /// Project.
        scope: String,
        /// From.
        begin: Timestamp,
        /// Until.
        end: Timestamp,
    },
    /// What was asked for is not possible.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// Rates. One per process; the ledger's lock keeps others out.
pub struct Processor {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) book: Arc<RatingBook>,
    pub(super) usage: Arc<dyn UsageReader>,
    pub(super) metrics: Metrics,
    pub(super) clock: SharedClock,
    room: Room,
    pub(super) settings: RatingSettings,
    /// One rating at a time: each is held against the ledger as it is.
    pub(super) rating: futures::lock::Mutex<()>,
    /// What is brought in is not brought into what is just being closed.
    closing: futures::lock::Mutex<()>,
    /// Rules of late.
    remembered: Mutex<Vec<Remembered>>,
    /// Events were looked at until this number.
    pub(super) looked_until: Mutex<Option<i64>>,
    /// Days were rated a second time until this one.
    pub(super) seconded_until: Mutex<Option<Timestamp>>,
}

/// Rules and how long they say the same.
struct Remembered {
    from: Timestamp,
    until: Timestamp,
    rules: SharedRules,
}

impl Processor {
    /// Puts the parts together.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        book: Arc<RatingBook>,
        usage: Arc<dyn UsageReader>,
        metrics: Metrics,
        clock: SharedClock,
        room: Room,
        settings: RatingSettings,
    ) -> Self {
        Self {
            ledger,
            book,
            usage,
            metrics,
            clock,
            room,
            settings,
            rating: futures::lock::Mutex::default(),
            closing: futures::lock::Mutex::default(),
            remembered: Mutex::default(),
            looked_until: Mutex::default(),
            seconded_until: Mutex::default(),
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &RatingSettings {
        &self.settings
    }

    /// What is charged.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Makes scopes of projects that were not known: those that have owned something since the month began. They are rated
    /// from the begin of that month on, as CloudKitty does.
    pub async fn discover(&self) -> Result<u64, ProcessorError> {
        let now = self.clock.now();
        let month = month_begin(now);
        let mut made = 0;
        for scope_id in self.usage.scopes(month, now).await? {
            let new = NewScope {
                scope_id,
                scope_key: None,
                fetcher: None,
                collector: None,
                active: true,
                rated_until: month,
            };
            made += u64::from(self.book.create_scope(&new).await?);
        }
        Ok(made)
    }

    /// All scopes.
    pub async fn scopes(&self) -> Result<Vec<ScopeState>, ProcessorError> {
        let mut found: Vec<ScopeState> = Vec::new();
        loop {
            let offset = u32::try_from(found.len()).unwrap_or(u32::MAX);
            let page = self.book.scopes(&ScopeFilter::default(), offset, SCOPES_AT_ONCE).await?;
            let is_last = page.len() < SCOPES_AT_ONCE as usize;
            found.extend(page);
            if is_last {
                return Ok(found);
            }
        }
    }

    pub(super) async fn append(&self, lines: Vec<RatedLine>) -> Result<u64, ProcessorError> {
        let count = lines.len() as u64;
        if count == 0 {
            return Ok(0);
        }
        self.room.received(count);
        match self.ledger.append(lines).await {
            Ok(new) => {
                self.room.stored(new);
                self.room.dropped("already in the ledger", count - new);
                Ok(new)
            }
            Err(error) => {
                self.room.returned(count);
                Err(error.into())
            }
        }
    }

    /// The lines of usage that a scope has for a time, those that were taken back and what took them back among them.
    pub(super) async fn existing(
        &self,
        scope: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<RatedLine>, ProcessorError> {
        self.existing_at_most(scope, from, to, EXISTING_LINES_MAX).await?.ok_or_else(|| {
            let reason = format!("scope {scope} has more than {EXISTING_LINES_MAX} lines from {from} to {to}");
            ProcessorError::Refused { reason }
        })
    }

    /// The same; `None` if there are more than so many.
    pub(super) async fn existing_at_most(
        &self,
        scope: &str,
        from: Timestamp,
        to: Timestamp,
        lines_max: usize,
    ) -> Result<Option<Vec<RatedLine>>, ProcessorError> {
        let filter = LineFilter {
            scopes: Some(vec![scope.to_owned()]),
            used_from: Some(from),
            used_before: Some(to),
            ..LineFilter::default()
        };
        let mut stream = self.ledger.read(&filter).await?;
        let mut found = Vec::new();
        while let Some(line) = stream.try_next().await? {
            if is_own(&line) {
                found.push(line);
            }
            if found.len() > lines_max {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// All that is charged.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let wanted = |own: &MetricDefinition| Wanted {
            resource_type: own.collecting.resource_type.clone(),
            metric: own.metric.clone(),
        };
        self.metrics.definitions.iter().map(wanted).collect()
    }

    /// The rules of a version at a moment; remembered for as long as they say the same.
    pub(super) async fn rules_at(&self, version: u64, at: Timestamp) -> Result<SharedRules, ProcessorError> {
        let holds = |own: &&Remembered| own.rules.version == version && own.from <= at && at < own.until;
        if let Some(own) = self.remembered.lock().iter().find(holds) {
            return Ok(own.rules.clone());
        }
        let set = self.book.rules_of(version, at).await?;
        let prices = Prices::from_documents(&set.documents)
            .map_err(|error| ProcessorError::Refused { reason: format!("version {version} of the rules: {error}") })?;
        let rules = Arc::new(Rules { version, hashmap: set.hashmap, prices });
        let mut remembered = self.remembered.lock();
        if remembered.len() >= RULES_REMEMBERED {
            remembered.clear();
        }
        remembered.push(Remembered { from: set.valid_from, until: set.valid_until, rules: rules.clone() });
        Ok(rules)
    }

    /// Closes a scope's periods from the end of what is closed until `end`: from now on they get no lines. Where nothing is closed
    /// yet and nobody says from when on, `begin` is the epoch. Gives what was closed; `None` where all of it was closed already.
    /// Refused where a period would be cut, and where a time between two closed ones would be left open.
    pub async fn close(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
        by: &str,
    ) -> Result<Option<ClosedPeriod>, ProcessorError> {
        let refused = |reason: String| Err(ProcessorError::Refused { reason });
        for (word, edge) in [("begins", begin), ("ends", end)] {
            let first = edge.floor(self.settings.period);
            if first != edge {
                let next = first.plus(self.settings.period);
                return refused(format!("{edge} is within a rating period, which {word} at {first} or {next}"));
            }
        }
        let (_one, _closing) = (self.rating.lock().await, self.closing.lock().await);
        let state = self.book.scope(scope).await?;
        let (rated_until, held) = state.map_or((Timestamp::MIN, None), |state| (state.rated_until, state.held));
        if rated_until < end {
            let why = held.map(|held| format!("; it is held by {}", held.reason)).unwrap_or_default();
            return refused(format!(
                "scope {scope} is rated until {rated_until} only; {end} cannot be closed yet{why}"
            ));
        }
        let before = self.book.closed_periods(Some(scope), Timestamp::MIN, end).await?;
        let last = before.iter().map(|own| own.end).filter(|last| *last <= begin).max();
        if let Some(last) = last.filter(|last| *last < begin) {
            return refused(format!(
                "scope {scope} is closed until {last}; what is between that and {begin} would stay open"
            ));
        }
        let closed = before.iter().filter(|own| own.end > begin);
        let begin = closed.map(|own| own.end).max().unwrap_or(begin).max(begin);
        if begin >= end {
            return Ok(None);
        }
        self.settle(scope, begin, end).await?;
        let (mut lines, mut totals) = (0, Totals::new());
        let mut stream = self.ledger.read(&bill_of(scope, begin, end)).await?;
        while let Some(line) = stream.try_next().await? {
            lines += 1;
            *totals.entry(line.currency).or_default() += line.cost;
        }
        let rule_version = self.book.rule_version().await?;
        if totals.is_empty() {
            let last = Timestamp::from_micros(end.micros() - 1);
            let rules = self.rules_at(rule_version, last).await?;
            totals.insert(rules.prices.currency(scope, last).to_owned(), BigDecimal::default());
        }
        let period = ClosedPeriod {
            scope_id: scope.to_owned(),
            begin,
            end,
            closed_at: self.clock.now(),
            closed_by: by.to_owned(),
            rule_version,
            lines,
            totals,
        };
        Ok(self.book.close_period(&period).await?.then_some(period))
    }
}

impl Processor {
    /// Appends lines that others have rated; says how many were new. Refused where one of them belongs to a closed period.
    pub async fn bring_in(&self, lines: Vec<RatedLine>) -> Result<u64, ProcessorError> {
        let _closing = self.closing.lock().await;
        let mut times: BTreeMap<&str, (Timestamp, Timestamp)> = BTreeMap::new();
        for line in &lines {
            let time = times.entry(&line.scope).or_insert((line.period, line.period));
            *time = (time.0.min(line.period), time.1.max(line.period));
        }
        for (scope, (first, last)) in times {
            let closed =
                self.book.closed_periods(Some(scope), first, Timestamp::from_micros(last.micros() + 1)).await?;
            let is_in = |own: &&ClosedPeriod| {
                lines.iter().any(|line| line.scope == scope && own.begin <= line.period && line.period < own.end)
            };
            if let Some(own) = closed.into_iter().find(|own| is_in(&own)) {
                return Err(ProcessorError::Closed { scope: own.scope_id, begin: own.begin, end: own.end });
            }
        }
        self.append(lines).await
    }
}

/// The begin of a month, UTC.
pub(crate) fn month_begin(at: Timestamp) -> Timestamp {
    let text = at.to_chrono().format("%Y-%m-01").to_string();
    text.parse().unwrap_or(Timestamp::EPOCH)
}
