//! A stretch of a scope, from its evidence to what has to be appended; and whatever rates a time again: tasks, late events, days
//! over which samples came late.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bigdecimal::BigDecimal;
use futures::TryStreamExt;
use orzo_model::Timestamp;

use super::{
    Charge, PeriodRules, Processor, ProcessorError, Rated, Report, RulesOf, Unpriced,
    corrections::{corrections, effective},
    lines::rate,
    periods, periods_count, stretches,
    unpriced::{findings, first_missing},
};
use crate::{
    book::TaskFilter,
    doors::{Evidence, LineFilter},
    line::{LineKind, RatedLine},
    segments::timeline,
};

/// Late events of so long are looked at when a process begins: it may have been down.
const LOOKED_BACK: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is rated a second time at once.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Tasks taken on in one go.
const TASKS_AT_ONCE: u32 = 100;
/// A time of so many periods is rated as it is asked for; a longer one is cut to what there is first. A year of hours.
const PERIODS_UNCUT: u64 = 10_000;
/// Points may be older than the first that anybody told of their resource, by so much: those of an import.
const BEFORE_FIRST_SIGN: Duration = Duration::from_secs(32 * 24 * 3600);

/// What a stretch came to.
pub(super) struct Stretch {
    pub(super) report: Report,
    /// To be appended.
    pub(super) lines: Vec<RatedLine>,
    /// The first charge that has no price and no line.
    pub(super) missing: Option<Unpriced>,
}

impl Processor {
    /// What of a time can be rated for a scope: until its lines are made, and from when on there is anything of it. Nothing where
    /// the scope is not known.
    pub async fn cut(
        &self,
        scope: &str,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Option<(Timestamp, Timestamp)>, ProcessorError> {
        let Some(state) = self.book.scope(scope).await? else { return Ok(None) };
        let to = state.made_until().min(to);
        if from >= to {
            return Ok(None);
        }
        let from = self.begin_of(scope, (from, to)).await?;
        Ok((from < to).then_some((from, to)))
    }

    /// How many periods a time has.
    pub fn periods_in(&self, (from, to): (Timestamp, Timestamp)) -> u64 {
        periods_count(from, to, self.settings.period)
    }

    /// When the first thing began that a project owned, by all that is known of it; `None`: nothing is.
    pub async fn first_sign(&self, scope: &str) -> Result<Option<Timestamp>, ProcessorError> {
        let Some(mut first) = self.usage.first(scope).await? else { return Ok(None) };
        let until = first.plus(self.settings.period);
        for own in self.usage.evidence(scope, first, until, &self.wanted()).await? {
            let life = timeline(&own, self.clock.now());
            let owned = life.states.iter().filter(|state| state.project_id.as_deref() == Some(scope));
            first = owned.map(|state| state.begin).fold(first, Timestamp::min);
        }
        Ok(Some(first))
    }

    /// The begin of a time, or later where it is long and nothing is known of its beginning.
    pub(super) async fn begin_of(
        &self,
        scope: &str,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Timestamp, ProcessorError> {
        let period = self.settings.period;
        if periods_count(from, to, period) <= PERIODS_UNCUT {
            return Ok(from);
        }
        let mut first = self.first_sign(scope).await?.unwrap_or(to).min(to).minus(BEFORE_FIRST_SIGN);
        let filter = LineFilter {
            scopes: Some(vec![scope.to_owned()]),
            used_from: Some(from),
            used_before: Some(first),
            ..LineFilter::default()
        };
        let mut lines = self.ledger.read(&filter).await?;
        while let Some(line) = lines.try_next().await? {
            if is_own(&line) {
                first = first.min(line.begin);
            }
        }
        Ok(first.floor(period).max(from))
    }

    /// Rates again what tasks ask for. Gives how many were done, and what they came to.
    pub async fn reprocess(&self) -> Result<(u64, Report), ProcessorError> {
        let filter = TaskFilter { waiting: true, ..TaskFilter::default() };
        let (mut done, mut whole) = (0, Report::default());
        for mut task in self.book.tasks(&filter, 0, TASKS_AT_ONCE).await? {
            loop {
                let mut from = task.done_until.unwrap_or(task.begin);
                let scopes: Vec<String> = match task.scope_id.as_str() {
                    "ALL" => self.scopes().await?.into_iter().map(|scope| scope.scope_id).collect(),
                    one => vec![one.to_owned()],
                };
                if task.done_until.is_none() {
                    let mut first = task.end;
                    for scope in &scopes {
                        first = first.min(self.begin_of(scope, (from, task.end)).await?);
                    }
                    from = first;
                }
                let some = stretches(from, task.end, self.settings.period).next().unwrap_or_default();
                let until = some.last().map_or(task.end, |(_, until)| task.end.min(*until));
                for scope in scopes {
                    whole.add(self.rate(&scope, (from, until), RulesOf::Now, true).await?);
                }
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
        Ok((done, whole))
    }

    /// Rates a time of a scope, for the first time or again. What differs from the ledger is appended if `is_written`, else
    /// only told.
    pub async fn rate(
        &self,
        scope: &str,
        time: (Timestamp, Timestamp),
        by: RulesOf,
        is_written: bool,
    ) -> Result<Report, ProcessorError> {
        self.rate_told(scope, time, by, is_written, |_| ()).await
    }

    /// The same; `told` hears of how many periods more are done. Others rate in between: each stretch is held against the ledger
    /// as it is then.
    pub async fn rate_told(
        &self,
        scope: &str,
        (from, to): (Timestamp, Timestamp),
        by: RulesOf,
        is_written: bool,
        mut told: impl FnMut(u64) + Send,
    ) -> Result<Report, ProcessorError> {
        let mut whole = Report::default();
        for some in stretches(from, to, self.settings.period) {
            let (Some((from, _)), Some((_, to))) = (some.first().copied(), some.last().copied()) else { continue };
            let _one = self.rating.lock().await;
            let existing = self.existing(scope, from, to).await?;
            let Stretch { report, lines, .. } = self.rate_some(scope, &some, &existing, by).await?;
            whole.add(report);
            if is_written {
                whole.appended += self.append(lines).await?;
            }
            told(some.len() as u64);
        }
        Ok(whole)
    }

    pub(super) async fn rate_some(
        &self,
        scope: &str,
        some: &[(Timestamp, Timestamp)],
        existing: &[RatedLine],
        by: RulesOf,
    ) -> Result<Stretch, ProcessorError> {
        let (Some((from, _)), Some((_, to))) = (some.first().copied(), some.last().copied()) else {
            return Ok(Stretch { report: Report::default(), lines: Vec::new(), missing: None });
        };
        let now = self.clock.now();
        let evidence = self.usage.evidence(scope, from, to, &self.wanted()).await?;
        let rated = self.rated(scope, &evidence, some, existing, by).await?;
        drop(evidence);
        let mut report = Report {
            periods: some.len() as u64,
            lines: rated.lines.len() as u64,
            unpriced: rated.unpriced.len() as u64,
            before: by_service(effective(existing).into_iter()),
            findings: findings(&rated.unpriced),
            incomplete: rated.incomplete,
            ..Report::default()
        };
        report.findings.extend(rated.findings);
        // What has no price is not known to be otherwise than it stands.
        let (held_against, standing) = self.without(existing, &rated.unpriced);
        report.after = by_service(rated.lines.iter().chain(standing.iter().copied()));
        let period = self.settings.period;
        let charged: HashSet<Charge> = standing.iter().map(|line| Charge::of(line, period)).collect();
        let missing = first_missing(&rated.unpriced, &charged).cloned();
        let closed = self.book.closed_periods(Some(scope), from, to).await?;
        let open = now.floor(period);
        let period_of = |period: Timestamp| match closed.iter().any(|own| own.begin <= period && period < own.end) {
            true => open,
            false => period,
        };
        let (lines, changes) = corrections(&held_against, rated.lines, period_of, now);
        report.changes = changes;
        report.reversed = lines.iter().filter(|line| line.reverses).count() as u64;
        let mut bounded = Report::default();
        bounded.add(report);
        Ok(Stretch { report: bounded, lines, missing })
    }

    /// The lines of other charges, and the ones that count of these.
    fn without<'l>(
        &self,
        existing: &'l [RatedLine],
        unpriced: &[Unpriced],
    ) -> (Cow<'l, [RatedLine]>, Vec<&'l RatedLine>) {
        if unpriced.is_empty() {
            return (Cow::Borrowed(existing), Vec::new());
        }
        let charges: HashSet<&Charge> = unpriced.iter().map(|own| &own.charge).collect();
        let is_one = |line: &RatedLine| charges.contains(&Charge::of(line, self.settings.period));
        let others = existing.iter().filter(|line| !is_one(line)).cloned().collect();
        let standing = effective(existing).into_iter().filter(|line| is_one(line)).collect();
        (Cow::Owned(others), standing)
    }

    /// What evidence makes. [`RulesOf::Then`] rates each charge by the newest rules among those of its own lines; what has none by
    /// the newest of its period; and what these have no price for by the newest of all, so that a price that was mended makes the
    /// lines that were missing and changes no others.
    pub(super) async fn rated(
        &self,
        scope: &str,
        evidence: &[Evidence],
        some: &[(Timestamp, Timestamp)],
        existing: &[RatedLine],
        by: RulesOf,
    ) -> Result<Rated, ProcessorError> {
        let now = self.clock.now();
        let newest = self.book.rule_version().await?;
        let mut versions: BTreeMap<Timestamp, u64> = BTreeMap::new();
        for line in existing.iter().filter(|_| by == RulesOf::Then) {
            let version = versions.entry(line.begin.floor(self.settings.period)).or_default();
            *version = line.rule_version.max(*version);
        }
        let rules = self.rules(scope, some, |begin| versions.get(&begin).copied().unwrap_or(newest)).await?;
        let mut rated = rate(scope, evidence, &rules, &self.metrics, &self.settings, now);
        if by == RulesOf::Now {
            return Ok(rated);
        }
        for (version, charges) in self.by_other_rules(existing, &rated.unpriced, &versions, newest) {
            let resources: HashSet<&str> = charges.iter().map(|own| own.resource.as_str()).collect();
            let times: HashSet<Timestamp> = charges.iter().map(|own| own.period).collect();
            let some: Vec<_> = some.iter().copied().filter(|(begin, _)| times.contains(begin)).collect();
            let rules = self.rules(scope, &some, |_| version).await?;
            let evidence = evidence.iter().filter(|own| resources.contains(own.resource.as_str()));
            let other = rate(scope, evidence, &rules, &self.metrics, &self.settings, now);
            let period = self.settings.period;
            rated.lines.retain(|line| !charges.contains(&Charge::of(line, period)));
            rated.unpriced.retain(|own| !charges.contains(&own.charge));
            rated.lines.extend(other.lines.into_iter().filter(|line| charges.contains(&Charge::of(line, period))));
            rated.unpriced.extend(other.unpriced.into_iter().filter(|own| charges.contains(&own.charge)));
        }
        Ok(rated)
    }

    /// The charges that are rated by other rules than their period, by version.
    fn by_other_rules(
        &self,
        existing: &[RatedLine],
        unpriced: &[Unpriced],
        versions: &BTreeMap<Timestamp, u64>,
        newest: u64,
    ) -> BTreeMap<u64, HashSet<Charge>> {
        let period = self.settings.period;
        let version_of = |charge: &Charge| versions.get(&charge.period).copied().unwrap_or(newest);
        let standing = effective(existing);
        // Mostly all lines of a period are by the same rules, and nothing is looked up here.
        let has_older = |line: &&&RatedLine| {
            versions.get(&line.begin.floor(period)).is_some_and(|version| line.rule_version < *version)
        };
        let mut own: HashMap<Charge, u64> =
            standing.iter().filter(has_older).map(|line| (Charge::of(line, period), 0)).collect();
        own.extend(unpriced.iter().map(|own| (own.charge.clone(), 0)));
        if own.is_empty() {
            return BTreeMap::new();
        }
        for line in standing {
            if let Some(version) = own.get_mut(&Charge::of(line, period)) {
                *version = line.rule_version.max(*version);
            }
        }
        let mut found: BTreeMap<u64, HashSet<Charge>> = BTreeMap::new();
        for (charge, version) in own {
            // Rules begin with version 1: this one has no line.
            let version = if version == 0 { newest } else { version };
            if version != version_of(&charge) {
                found.entry(version).or_default().insert(charge);
            }
        }
        found
    }

    /// The rules of periods as they are for a scope, each of a version.
    pub(super) async fn rules(
        &self,
        scope: &str,
        some: &[(Timestamp, Timestamp)],
        version_at: impl Fn(Timestamp) -> u64,
    ) -> Result<Vec<PeriodRules>, ProcessorError> {
        let mut found: Vec<PeriodRules> = Vec::with_capacity(some.len());
        for (begin, end) in some.iter().copied() {
            let rules = self.rules_at(version_at(begin), begin).await?;
            let list = match found.last() {
                Some(last) if Arc::ptr_eq(&last.rules, &rules) => last.list.clone(),
                _ => Arc::new(rules.hashmap.for_tenant(Some(scope))),
            };
            found.push(PeriodRules { begin, end, rules, list });
        }
        Ok(found)
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
            if from < state.made_until() {
                whole.add(self.rate(&scope, (from, state.made_until()), RulesOf::Then, true).await?);
                if state.held.is_some() {
                    // What has no price may be another thing now, or nothing.
                    self.book.try_again(&scope).await?;
                }
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
                let until = to.min(scope.made_until());
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
}

/// Whether the rating made a line. What others bring in (CloudKitty's API) is theirs.
pub(super) fn is_own(line: &RatedLine) -> bool {
    line.kind == LineKind::Usage && line.rule.starts_with("hashmap/")
}

fn by_service<'a>(lines: impl Iterator<Item = &'a RatedLine>) -> BTreeMap<String, BigDecimal> {
    let mut sums = BTreeMap::new();
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
