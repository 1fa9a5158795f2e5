//! The first rating: every scope as far as can be, its lines appended together with those of others; and what holds a scope.

use std::{collections::VecDeque, time::Duration};

use orzo_model::Timestamp;

use super::{Processor, ProcessorError, Report, RulesOf, again::Stretch, stretches};
use crate::{
    book::{Held, ScopeState},
    line::RatedLine,
};

/// After so long what was rated is written down, however little it is: a process that dies often comes further all the same.
const BATCH_TAKES_MAX: Duration = Duration::from_secs(2);
/// Lines appended together: some hundred bytes each in memory, twice while the next ones are made.
const LINES_AT_ONCE: usize = 100_000;

/// Lines that are appended together, and how far their scopes are rated then.
#[derive(Default)]
struct Batch {
    lines: Vec<RatedLine>,
    done: Vec<Done>,
}

/// How far a scope is rated.
struct Done {
    /// As it was when it was begun.
    scope: ScopeState,
    rated_until: Timestamp,
    held: Option<Held>,
    /// Until then lines were made.
    made_until: Timestamp,
}

/// What [`Processor::advance`] has not rated yet.
struct Left {
    scopes: VecDeque<Course>,
    /// Until then.
    until: Timestamp,
    /// Newest version of the rules.
    version: u64,
}

/// A scope on its way.
struct Course {
    scope: ScopeState,
    /// Periods that follow each other.
    stretches: Box<dyn Iterator<Item = Vec<(Timestamp, Timestamp)>> + Send>,
    /// Whether the ledger had no lines of its stretches when they began; `None`: nobody has looked.
    is_fresh: Option<bool>,
    /// Everything before this is rated.
    rated_until: Timestamp,
    /// Why that goes no further.
    held_by: Option<String>,
}

impl Course {
    /// A scope goes on where its lines end, or where there is anything of it (`begin`). One that is held tries again from where it
    /// is held, if the rules have changed.
    fn of(scope: ScopeState, begin: Timestamp, left: &Left, period: Duration) -> Self {
        let held = scope.held.as_ref().filter(|held| held.rule_version == left.version);
        let rated_until = scope.rated_until;
        let stretches: Box<dyn Iterator<Item = _> + Send> = match held {
            Some(_) => Box::new(stretches(begin, left.until, period)),
            None => {
                let again = stretches(rated_until, scope.made_until().min(left.until), period);
                Box::new(again.chain(stretches(begin, left.until, period)))
            }
        };
        let held_by = held.map(|held| held.reason.clone());
        Self { scope, stretches, is_fresh: None, rated_until, held_by }
    }

    /// By which rules a stretch until then is rated: what was made already keeps its prices.
    fn rules(&self, until: Timestamp) -> RulesOf {
        let is_made = self.scope.held.as_ref().is_some_and(|held| until <= held.made_until);
        if is_made { RulesOf::Then } else { RulesOf::Now }
    }

    /// After a stretch until then, of which this is missing.
    fn done(&mut self, until: Timestamp, missing: Option<String>, from: Timestamp, version: u64) -> Done {
        if self.held_by.is_none() {
            self.rated_until = if missing.is_some() { from } else { until };
            self.held_by = missing;
        }
        let before = self.scope.held.as_ref().filter(|held| until < held.made_until);
        let made_until = before.map_or(until, |held| held.made_until);
        let rule_version = before.map_or(version, |held| held.rule_version);
        let reason = self.held_by.clone().or(before.map(|held| held.reason.clone()));
        let held = reason.map(|reason| Held { made_until, rule_version, reason });
        Done { scope: self.scope.clone(), rated_until: self.rated_until, held, made_until: until }
    }
}

impl Processor {
    /// Rates every active scope as far as can be; `told` hears of each stretch that is done. Gives the sum of reports.
    ///
    /// Lines of many scopes are appended together, while the next ones are made; a scope's state is advanced when its lines are
    /// durable. A scope is rated until the first period in which a charge has no price: it is held there, and says why, until the
    /// price is mended; lines of what follows are made all the same.
    pub async fn advance(&self, mut told: impl FnMut(&str, Timestamp) + Send) -> Result<Report, ProcessorError> {
        self.discover().await?;
        let until = self.settings.ready(self.clock.now());
        let mut whole = Report::default();
        let mut left = Left { scopes: VecDeque::new(), until, version: self.book.rule_version().await? };
        for scope in self.scopes().await?.into_iter().filter(|scope| scope.active) {
            // Somebody may have made a scope that begins with the first of all years.
            let begin = self.begin_of(&scope.scope_id, (scope.made_until(), until)).await?;
            left.scopes.push_back(Course::of(scope, begin, &left, self.settings.period));
        }
        let _one = self.rating.lock().await;
        let mut batch = self.next_batch(&mut left, &mut whole).await?;
        while !batch.done.is_empty() {
            let Batch { lines, done } = batch;
            let append = self.append(lines);
            // The append works on a thread of its own as soon as it is asked for the first time.
            let (appended, next) = futures::join!(append, self.next_batch(&mut left, &mut whole));
            let appended = appended?;
            for own in done {
                self.note(&own).await?;
                told(&own.scope.scope_id, own.made_until);
            }
            batch = next?;
            whole.appended += appended;
        }
        Ok(whole)
    }

    /// Notes how far a scope is rated. An operator may have changed the scope meanwhile: then what was rated stays, and how far to
    /// go is decided anew at the next look.
    async fn note(&self, done: &Done) -> Result<(), ProcessorError> {
        let Some(now) = self.book.scope(&done.scope.scope_id).await? else { return Ok(()) };
        let is_as_before = now.rated_until >= done.scope.rated_until && now.rated_until <= done.rated_until;
        let is_news = now.rated_until != done.rated_until || now.held != done.held;
        if now.active && is_as_before && is_news {
            self.book.advance(&now, done.rated_until, done.held.as_ref()).await?;
        }
        Ok(())
    }

    /// Lines of the next stretches, as many as are appended together.
    async fn next_batch(&self, left: &mut Left, whole: &mut Report) -> Result<Batch, ProcessorError> {
        let mut batch = Batch::default();
        let begun = self.clock.monotonic();
        while batch.lines.len() < LINES_AT_ONCE && self.clock.monotonic().saturating_sub(begun) < BATCH_TAKES_MAX {
            let Some(course) = left.scopes.front_mut() else { break };
            let Some(some) = course.stretches.next() else {
                left.scopes.pop_front();
                continue;
            };
            let (Some((from, _)), Some((_, until))) = (some.first().copied(), some.last().copied()) else { continue };
            let scope = course.scope.scope_id.clone();
            // Mostly nothing is there of what was not rated yet, and one look at a scope tells it for all its stretches.
            let is_fresh = match course.is_fresh {
                Some(is_fresh) => is_fresh,
                None => self.existing_at_most(&scope, from, left.until, 0).await?.is_some(),
            };
            course.is_fresh = Some(is_fresh);
            let existing = if is_fresh { Vec::new() } else { self.existing(&scope, from, until).await? };
            let by = course.rules(until);
            let Stretch { report, lines, missing } = self.rate_some(&scope, &some, &existing, by).await?;
            whole.add(report);
            batch.lines.extend(lines);
            let missing_from = missing.as_ref().map_or(until, |own| own.charge.period);
            let done = course.done(until, missing.map(|own| own.to_string()), missing_from, left.version);
            match batch.done.last_mut() {
                Some(last) if last.scope.scope_id == scope => *last = done,
                _ => batch.done.push(done),
            }
        }
        Ok(batch)
    }
}
