//! The loop's body: reads evidence, rules and the ledger, calls the pure functions, appends, notes how far it came.

use std::{sync::Arc, time::Duration};

use bigdecimal::BigDecimal;
use futures::TryStreamExt;
use orzo_model::{Room, SharedClock, Timestamp};
use parking_lot::Mutex;

use super::{
    PeriodRules, RatingSettings, Report, SharedRules,
    corrections::{corrections, effective},
    lines::rate,
    periods,
    settling::bill_of,
};
use crate::{
    book::{BookError, ClosedPeriod, NewScope, RatingBook, ScopeFilter, ScopeState, TaskFilter},
    currency::Totals,
    doors::{Ledger, LedgerError, LineFilter, Rules, UsageReadError, UsageReader, Wanted},
    line::{LineKind, RatedLine},
    metrics::{MetricDefinition, Metrics},
    price::Prices,
};

/// Periods whose evidence is read at once: a day of hours. What is in memory follows from it.
pub(super) const PERIODS_AT_ONCE: usize = 24;
/// Stretches of time whose rules are remembered.
const RULES_REMEMBERED: usize = 64;
/// Late events of so long are looked at when a process begins: it may have been down.
const LOOKED_BACK: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is rated a second time at once.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Scopes read at once.
const SCOPES_AT_ONCE: u32 = 1000;
/// Tasks taken on in one go.
const TASKS_AT_ONCE: u32 = 100;
/// Lines held against what is wanted: of one scope and [`PERIODS_AT_ONCE`].
const EXISTING_LINES_MAX: usize = 5_000_000;
/// After so long what was rated is written down, however little it is: a process that dies often comes further all the same.
const BATCH_TAKES_MAX: Duration = Duration::from_secs(2);
/// Lines appended together: some hundred bytes each in memory, twice while the next ones are made.
const LINES_AT_ONCE: usize = 100_000;

/// By which rules a time is rated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesOf {
    /// By those that it was rated by before: only what is known of usage may have changed.
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
    rating: futures::lock::Mutex<()>,
    /// Rules of late.
    remembered: Mutex<Vec<Remembered>>,
    /// Events were looked at until this number.
    looked_until: Mutex<Option<i64>>,
    /// Days were rated a second time until this one.
    seconded_until: Mutex<Option<Timestamp>>,
}

/// Lines that are appended together, and how far their scopes are rated then.
#[derive(Default)]
struct Batch {
    lines: Vec<RatedLine>,
    done: Vec<(ScopeState, Timestamp)>,
}

/// What [`Processor::advance`] has not rated yet.
struct Left {
    /// Scopes, and periods of theirs that follow each other; all of a scope's after each other.
    stretches: std::vec::IntoIter<(ScopeState, Vec<(Timestamp, Timestamp)>)>,
    /// Until then.
    until: Timestamp,
    /// The scope that was looked at last, and whether the ledger had no lines of its stretches when they began.
    fresh: Option<(String, bool)>,
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

    /// Rates every active scope as far as can be; `told` hears of each stretch that is done. Gives the sum of reports.
    ///
    /// Lines of many scopes are appended together, while the next ones are made; a scope's state is advanced when its lines are
    /// durable.
    pub async fn advance(&self, mut told: impl FnMut(&str, Timestamp) + Send) -> Result<Report, ProcessorError> {
        self.discover().await?;
        let ready = self.settings.ready(self.clock.now());
        let mut whole = Report::default();
        let mut left = Vec::new();
        for scope in self.scopes().await?.into_iter().filter(|scope| scope.active) {
            let all = periods(scope.rated_until, ready, self.settings.period);
            left.extend(all.chunks(PERIODS_AT_ONCE).map(|chunk| (scope.clone(), chunk.to_vec())));
        }
        let _one = self.rating.lock().await;
        let mut left = Left { stretches: left.into_iter(), until: ready, fresh: None };
        let mut batch = self.next_batch(&mut left, &mut whole).await?;
        while !batch.done.is_empty() {
            let Batch { lines, done } = batch;
            let append = self.append(lines);
            // The append works on a thread of its own as soon as it is asked for the first time.
            let (appended, next) = futures::join!(append, self.next_batch(&mut left, &mut whole));
            let appended = appended?;
            for (scope, until) in done {
                // An operator may have changed the scope meanwhile: then what was rated stays, and how far to go is decided
                // anew at the next look.
                if let Some(now) = self.book.scope(&scope.scope_id).await?
                    && now.rated_until >= scope.rated_until
                    && now.rated_until < until
                    && now.active
                {
                    self.book.advance(&now, until).await?;
                }
                told(&scope.scope_id, until);
            }
            batch = next?;
            whole.appended += appended;
        }
        Ok(whole)
    }

    /// Lines of the next stretches, as many as are appended together.
    async fn next_batch(&self, left: &mut Left, whole: &mut Report) -> Result<Batch, ProcessorError> {
        let mut batch = Batch::default();
        let begun = self.clock.monotonic();
        while batch.lines.len() < LINES_AT_ONCE && self.clock.monotonic().saturating_sub(begun) < BATCH_TAKES_MAX {
            let Some((scope, some)) = left.stretches.next() else { break };
            let (Some((from, _)), Some((_, until))) = (some.first().copied(), some.last().copied()) else { continue };
            // Mostly nothing is there of what was not rated yet, and one look at a scope tells it for all its stretches.
            let is_fresh = match &left.fresh {
                Some((of, is_fresh)) if *of == scope.scope_id => *is_fresh,
                _ => self.existing_at_most(&scope.scope_id, from, left.until, 0).await?.is_some(),
            };
            left.fresh = Some((scope.scope_id.clone(), is_fresh));
            let existing = if is_fresh { Vec::new() } else { self.existing(&scope.scope_id, from, until).await? };
            let (report, lines) = self.rate_some(&scope.scope_id, &some, &existing, RulesOf::Now).await?;
            whole.add(report);
            batch.lines.extend(lines);
            match batch.done.last_mut() {
                Some((own, last)) if own.scope_id == scope.scope_id => *last = until,
                _ => batch.done.push((scope, until)),
            }
        }
        Ok(batch)
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

    /// Rates again what tasks ask for. Gives how many were done.
    pub async fn reprocess(&self) -> Result<u64, ProcessorError> {
        let filter = TaskFilter { waiting: true, ..TaskFilter::default() };
        let mut done = 0;
        for mut task in self.book.tasks(&filter, 0, TASKS_AT_ONCE).await? {
            loop {
                let from = task.done_until.unwrap_or(task.begin);
                let all = periods(from, task.end, self.settings.period);
                let Some((_, until)) = all.get(..PERIODS_AT_ONCE.min(all.len())).and_then(<[_]>::last).copied() else {
                    break;
                };
                let scopes = match task.scope_id.as_str() {
                    "ALL" => self.scopes().await?.into_iter().map(|scope| scope.scope_id).collect(),
                    one => vec![one.to_owned()],
                };
                for scope in scopes {
                    self.rate(&scope, (from, until), RulesOf::Now, true).await?;
                }
                let until = until.min(task.end);
                if !self.book.advance_task(&task, until).await? {
                    break;
                }
                task.done_until = Some(until);
                if task.is_done() {
                    done += 1;
                    break;
                }
            }
        }
        Ok(done)
    }

    /// Rates a stretch of a scope, for the first time or again. What differs from the ledger is appended if `is_written`, else
    /// only told.
    pub async fn rate(
        &self,
        scope: &str,
        (from, to): (Timestamp, Timestamp),
        by: RulesOf,
        is_written: bool,
    ) -> Result<Report, ProcessorError> {
        let _one = self.rating.lock().await;
        let mut whole = Report::default();
        for some in periods(from, to, self.settings.period).chunks(PERIODS_AT_ONCE) {
            let (Some((from, _)), Some((_, to))) = (some.first().copied(), some.last().copied()) else { continue };
            let existing = self.existing(scope, from, to).await?;
            let (report, lines) = self.rate_some(scope, some, &existing, by).await?;
            whole.add(report);
            if is_written {
                whole.appended += self.append(lines).await?;
            }
        }
        Ok(whole)
    }

    async fn rate_some(
        &self,
        scope: &str,
        some: &[(Timestamp, Timestamp)],
        existing: &[RatedLine],
        by: RulesOf,
    ) -> Result<(Report, Vec<RatedLine>), ProcessorError> {
        let (Some((from, _)), Some((_, to))) = (some.first().copied(), some.last().copied()) else {
            return Ok((Report::default(), Vec::new()));
        };
        let now = self.clock.now();
        let evidence = self.usage.evidence(scope, from, to, &self.wanted()).await?;
        let rules = self.rules(scope, some, by, existing).await?;
        let rated = rate(scope, &evidence, &rules, &self.metrics, &self.settings, now);
        drop(evidence);
        let mut report = Report {
            lines: rated.lines.len() as u64,
            before: by_service(effective(existing).into_iter()),
            after: by_service(rated.lines.iter()),
            findings: rated.findings,
            incomplete: rated.incomplete,
            ..Report::default()
        };
        let closed = self.book.closed_periods(Some(scope), from, to).await?;
        let open = now.floor(self.settings.period);
        let period_of = |period: Timestamp| match closed.iter().any(|own| own.begin <= period && period < own.end) {
            true => open,
            false => period,
        };
        let (lines, changes) = corrections(existing, rated.lines, period_of, now);
        report.changes = changes;
        report.reversed = lines.iter().filter(|line| line.reverses).count() as u64;
        let mut bounded = Report::default();
        bounded.add(report);
        Ok((bounded, lines))
    }

    /// The lines of usage that a scope has for a time, those that were taken back and what took them back among them.
    async fn existing(&self, scope: &str, from: Timestamp, to: Timestamp) -> Result<Vec<RatedLine>, ProcessorError> {
        self.existing_at_most(scope, from, to, EXISTING_LINES_MAX).await?.ok_or_else(|| {
            let reason = format!("scope {scope} has more than {EXISTING_LINES_MAX} lines from {from} to {to}");
            ProcessorError::Refused { reason }
        })
    }

    /// The same; `None` if there are more than so many.
    async fn existing_at_most(
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
            // What others bring in (CloudKitty's API) is theirs.
            if line.kind == LineKind::Usage && line.rule.starts_with("hashmap/") {
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

    /// The rules of periods as they are for a scope.
    async fn rules(
        &self,
        scope: &str,
        some: &[(Timestamp, Timestamp)],
        by: RulesOf,
        existing: &[RatedLine],
    ) -> Result<Vec<PeriodRules>, ProcessorError> {
        let newest = self.book.rule_version().await?;
        let mut found: Vec<PeriodRules> = Vec::with_capacity(some.len());
        for (begin, end) in some.iter().copied() {
            let rated_by = existing.iter().filter(|line| begin <= line.begin && line.begin < end);
            let version = match by {
                RulesOf::Now => newest,
                RulesOf::Then => rated_by.map(|line| line.rule_version).max().unwrap_or(newest),
            };
            let rules = self.rules_at(version, begin).await?;
            let list = match found.last() {
                Some(last) if Arc::ptr_eq(&last.rules, &rules) => last.list.clone(),
                _ => Arc::new(rules.hashmap.for_tenant(Some(scope))),
            };
            found.push(PeriodRules { begin, end, rules, list });
        }
        Ok(found)
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

    /// Rates again what late events are about: those that came since the last look and tell of what was rated already. The
    /// first look of a process goes back a week.
    pub async fn catch_up(&self) -> Result<Report, ProcessorError> {
        let since = *self.looked_until.lock();
        let (late, until) = self.usage.late(since, self.clock.now().minus(LOOKED_BACK)).await?;
        let mut whole = Report::default();
        for (scope, earliest) in late {
            let Some(state) = self.book.scope(&scope).await? else { continue };
            let from = earliest.floor(self.settings.period);
            if from < state.rated_until {
                whole.add(self.rate(&scope, (from, state.rated_until), RulesOf::Then, true).await?);
            }
        }
        *self.looked_until.lock() = Some(until);
        Ok(whole)
    }

    /// Rates days a second time when they are over for as long as the settings say, by the rules of the first time: samples
    /// that came late are in them then, which no event tells of. A process begins with the day that is due last.
    pub async fn second(&self) -> Result<Report, ProcessorError> {
        let mut whole = Report::default();
        let Some(later) = self.settings.seconded_after else { return Ok(whole) };
        let due = self.clock.now().minus(later).floor(DAY);
        let begin = self.seconded_until.lock().unwrap_or(due.minus(DAY));
        for (from, to) in periods(begin, due, DAY) {
            for scope in self.scopes().await?.into_iter().filter(|scope| scope.active) {
                let until = to.min(scope.rated_until);
                // A day without a line is one from before the project was rated, or nothing was there.
                let has_lines = from < until && self.existing_at_most(&scope.scope_id, from, until, 0).await?.is_none();
                if has_lines {
                    whole.add(self.rate(&scope.scope_id, (from, until), RulesOf::Then, true).await?);
                }
            }
            *self.seconded_until.lock() = Some(to);
        }
        Ok(whole)
    }

    /// Closes a scope's periods from the end of what is closed until `end`: from now on they get no lines. Where nothing is closed
    /// yet and nobody says from when on, `begin` is the epoch. Gives what was closed; `None` where all of it was closed already.
    pub async fn close(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
        by: &str,
    ) -> Result<Option<ClosedPeriod>, ProcessorError> {
        let _one = self.rating.lock().await;
        let state = self.book.scope(scope).await?;
        let rated_until = state.map(|state| state.rated_until).unwrap_or(Timestamp::MIN);
        if rated_until < end {
            let reason = format!("scope {scope} is rated until {rated_until} only; {end} cannot be closed yet");
            return Err(ProcessorError::Refused { reason });
        }
        let closed = self.book.closed_periods(Some(scope), begin, end).await?;
        let begin = closed.iter().map(|own| own.end).max().unwrap_or(begin).max(begin);
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

fn by_service<'a>(lines: impl Iterator<Item = &'a RatedLine>) -> std::collections::BTreeMap<String, BigDecimal> {
    let mut sums = std::collections::BTreeMap::new();
    for line in lines {
        match sums.get_mut(&line.service) {
            Some(sum) => *sum += &line.cost,
            None => {
                sums.insert(line.service.clone(), line.cost.clone());
            }
        }
    }
    sums
}

/// The begin of a month, UTC.
pub(crate) fn month_begin(at: Timestamp) -> Timestamp {
    let text = at.to_chrono().format("%Y-%m-01").to_string();
    text.parse().unwrap_or(Timestamp::EPOCH)
}
