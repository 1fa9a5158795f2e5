//! Answers that were given, kept for as long as they are true: a dashboard asks the same every minute, and nearly all of
//! what it asks about has long been over.
//!
//! `query → what is kept of its answer and still true → times that are left → evaluated → kept`. What a query gives at a
//! time follows from the series that its selectors find, their labels, and their points in the span before that time
//! ([`Plan::reach_ms`]). So a part of an answer is true while the same series are found under the same labels, and nothing
//! has changed in that span since it was read: late points, deletions and retention are all told by the store
//! ([`crate::PointStore::changed_since`]). No clock decides, and nothing has to be forgotten. Tenants are apart: the
//! scopes are part of the key, and what a caller finds is looked up within its scopes each time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use orzo_model::{Scope, SeriesId, Timestamp};
use orzo_promql::{Labels, Limits, MatcherGroup, Part, Plan, QueryError as PromError, Window};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use super::NamedSeries;
use crate::{Engine, QueryError};

/// Memory for answers, both halves: some hundred views of a large cloud.
const BYTES_MAX: usize = 32 << 20;
/// A larger answer is a table that nobody looks at twice.
const ANSWER_BYTES_MAX: usize = BYTES_MAX / 8;
/// A longer text is not worth comparing.
const TEXT_BYTES_MAX: usize = 4096;

/// What was asked: the same text about times of the same grid, by somebody who may see the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    metrics: Scope,
    labelled: Scope,
    text: String,
    step_ms: i64,
    /// Where the grid's times lie between multiples of its step.
    phase_ms: i64,
    lookback_ms: i64,
}

#[derive(Debug)]
struct Kept {
    /// Of the series that were found and their labels.
    found: u128,
    /// When it was true.
    moment: u64,
    part: Part,
    bytes: usize,
}

/// The answers; one for an engine.
#[derive(Default)]
pub(crate) struct Answers {
    halves: Mutex<Halves>,
    /// Times of queries that were answered from here.
    steps: AtomicU64,
}

impl Engine {
    /// At how many times of their grids queries were answered from what was remembered, since the start.
    pub fn remembered_steps(&self) -> u64 {
        self.answers.steps.load(Ordering::Relaxed)
    }
}

/// When the young half is full the old half goes, and what is asked for again becomes young.
#[derive(Default)]
struct Halves {
    young: HashMap<Key, Arc<Kept>>,
    young_bytes: usize,
    old: HashMap<Key, Arc<Kept>>,
}

impl Answers {
    fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        let mut halves = self.halves.lock();
        if let Some(kept) = halves.young.get(key) {
            return Some(kept.clone());
        }
        let kept = halves.old.remove(key)?;
        halves.keep(key.clone(), kept.clone());
        Some(kept)
    }

    fn keep(&self, key: Key, kept: Kept) {
        if kept.bytes <= ANSWER_BYTES_MAX {
            self.halves.lock().keep(key, Arc::new(kept));
        }
    }
}

impl Halves {
    fn keep(&mut self, key: Key, kept: Arc<Kept>) {
        if self.young_bytes + kept.bytes > BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.old.remove(&key);
        self.young_bytes += kept.bytes;
        if let Some(before) = self.young.insert(key, kept) {
            self.young_bytes -= before.bytes;
        }
    }
}

/// What is known of a query's answer before it is evaluated.
pub struct Remembered {
    key: Key,
    /// Taken before anything was read.
    moment: u64,
    window: Window,
    part: Option<Part>,
}

impl Remembered {
    /// The times that are left, as windows: before what is known and after it.
    pub fn left(&self) -> Vec<Window> {
        let Some(known) = self.part.as_ref().map(Part::window) else { return vec![self.window] };
        let Window { start_ms, end_ms, step_ms } = self.window;
        let before = Window { start_ms, end_ms: known.start_ms - step_ms, step_ms };
        let after = Window { start_ms: known.end_ms + step_ms, end_ms, step_ms };
        [before, after].into_iter().filter(|window| window.start_ms <= window.end_ms).collect()
    }

    /// Whether anything is known.
    pub fn is_any(&self) -> bool {
        self.part.is_some()
    }

    /// The whole answer, from what is known and what [`Self::left`] gave, in that order; `None` if they do not fit.
    pub fn with(&self, parts: Vec<Part>) -> Option<Part> {
        let mut all: Vec<Part> = parts.into_iter().chain(self.part.clone()).collect();
        all.sort_by_key(|part| part.window().start_ms);
        let mut parts = all.into_iter();
        let first = parts.next()?;
        let whole = parts.try_fold(first, Part::followed_by)?;
        (whole.window() == self.window).then_some(whole)
    }
}

impl NamedSeries {
    /// What is kept of a query's answer and is still true; `None` if an answer to it is not made of parts.
    pub async fn remembered(&self, text: &str, plan: &Plan, limits: &Limits) -> Result<Option<Remembered>, PromError> {
        let Some(reach_ms) = plan.reach_ms().filter(|_| !plan.selections().is_empty() && text.len() <= TEXT_BYTES_MAX)
        else {
            return Ok(None);
        };
        let window = plan.window();
        let key = Key {
            metrics: self.metrics.clone(),
            labelled: self.labelled.clone(),
            text: text.to_owned(),
            step_ms: window.step_ms,
            phase_ms: window.start_ms.rem_euclid(window.step_ms),
            lookback_ms: plan.lookback_ms(),
        };
        let moment = self.engine.store.moment();
        let mut remembered = Remembered { key, moment, window, part: None };
        if let Some(kept) = self.engine.answers.get(&remembered.key)
            && self.found_by(plan, limits).await? == Some(kept.found)
        {
            let own = kept.part.window();
            let both =
                Window { start_ms: own.start_ms.max(window.start_ms), end_ms: own.end_ms.min(window.end_ms), ..window };
            let micros = |millis: i64| Timestamp::from_micros(millis.saturating_mul(1000));
            let (first, last) = (micros(both.start_ms.saturating_sub(reach_ms)), micros(both.end_ms.saturating_add(1)));
            // A point of a millisecond's last microsecond is one of that millisecond.
            let changed = self.engine.store.changed_since(kept.moment, first, last);
            let millis = |time: Timestamp| time.micros().div_euclid(1000);
            let changed: Vec<_> = changed.iter().map(|(first, last)| (millis(*first), millis(*last))).collect();
            remembered.part = longest_unchanged(both, reach_ms, &changed)
                .and_then(|(first_ms, last_ms)| kept.part.cut(first_ms, last_ms))
                // Two short evaluations cost more than they save if little is known.
                .filter(|part| 2 * part.steps() >= plan.times().count());
            let steps = remembered.part.as_ref().map_or(0, Part::steps) as u64;
            self.engine.answers.steps.fetch_add(steps, Ordering::Relaxed);
        }
        Ok(Some(remembered))
    }

    /// Keeps a whole answer that was read after `remembered` was asked for.
    pub async fn remember(
        &self,
        remembered: Remembered,
        plan: &Plan,
        limits: &Limits,
        whole: Part,
    ) -> Result<(), PromError> {
        let Some(found) = self.found_by(plan, limits).await? else { return Ok(()) };
        let bytes = whole.memory_bytes() + remembered.key.text.len();
        self.engine.answers.keep(remembered.key, Kept { found, moment: remembered.moment, part: whole, bytes });
        Ok(())
    }

    /// How many series a plan's selectors find together.
    pub async fn series_found(&self, plan: &Plan, limits: &Limits) -> Result<usize, PromError> {
        let mut series = 0;
        for selection in plan.selections() {
            let found = self.selected(&selection.groups, limits.series_max + 1).await.map_err(failed)?;
            series += found.numbers.len() + found.natives.len();
        }
        Ok(series)
    }

    /// Of all series that a plan's selectors find, and their labels: other series or labels, another number. `None` if they
    /// find more than they may.
    async fn found_by(&self, plan: &Plan, limits: &Limits) -> Result<Option<u128>, PromError> {
        let mut bytes = Vec::new();
        for selection in plan.selections() {
            let found = self.selected(&selection.groups, limits.series_max + 1).await.map_err(failed)?;
            if found.numbers.len() + found.natives.len() > limits.series_max {
                return Ok(None);
            }
            for some in [&found.numbers, &found.natives] {
                bytes.extend_from_slice(&(some.len() as u64).to_le_bytes());
                for (series, labels) in some {
                    bytes.extend_from_slice(&series.0.to_le_bytes());
                    bytes.extend_from_slice(&labels.hash_here().to_le_bytes());
                }
            }
        }
        Ok(Some(xxh3_128(&bytes)))
    }

    /// What a selector finds, looked up once for each query: so an answer is read of the very series that are remembered
    /// with it.
    pub(super) async fn selected(&self, groups: &[MatcherGroup], limit: usize) -> Result<Arc<Selected>, QueryError> {
        let known = |selected: &[Known]| {
            let same = selected.iter().find(|(own, own_limit, _)| *own_limit == limit && own == groups);
            same.map(|(_, _, found)| found.clone())
        };
        if let Some(found) = known(&self.selected.lock()) {
            return Ok(found);
        }
        let found = Arc::new(Selected {
            numbers: self.find_numbers(groups, limit).await?,
            natives: self.find_natives(groups, limit)?,
        });
        let mut selected = self.selected.lock();
        // Whoever looked at the same time must have seen the same.
        if let Some(found) = known(&selected) {
            return Ok(found);
        }
        selected.push((groups.to_vec(), limit, found.clone()));
        Ok(found)
    }
}

/// Series that a selector finds, in the order of their numbers.
#[derive(Default)]
pub(super) struct Selected {
    pub(super) numbers: Vec<(SeriesId, Labels)>,
    pub(super) natives: Vec<(SeriesId, Labels)>,
}

/// A selector, how many series it may find at most, and what it found.
pub(super) type Known = (Vec<MatcherGroup>, usize, Arc<Selected>);

fn failed(error: QueryError) -> PromError {
    PromError::Source(Box::new(error))
}

/// Of the times of a window the longest run of which none has a change in the span before it: its first and last. Changes
/// are ranges from first to last, in order.
fn longest_unchanged(window: Window, reach_ms: i64, changed: &[(i64, i64)]) -> Option<(i64, i64)> {
    let Window { start_ms, end_ms, step_ms } = window;
    let mut best: Option<(i64, i64)> = None;
    let mut offer = |first: i64, last: i64| {
        // From the first time of the grid not before `first` to the last one not after `last`.
        let first = start_ms + (first.max(start_ms) - start_ms).saturating_add(step_ms - 1) / step_ms * step_ms;
        let last = start_ms + (last.clamp(start_ms - 1, end_ms) - start_ms).div_euclid(step_ms) * step_ms;
        if first <= last && best.is_none_or(|(from, to)| to - from < last - first) {
            best = Some((first, last));
        }
    };
    let mut free = start_ms;
    for (first, last) in changed {
        offer(free, first.saturating_sub(1));
        free = free.max(last.saturating_add(reach_ms).saturating_add(1));
    }
    if free <= end_ms {
        offer(free, end_ms);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_without_changes_is_taken() {
        let window = Window { start_ms: 100, end_ms: 205, step_ms: 10 };
        let longest = |reach, changed: &[(i64, i64)]| longest_unchanged(window, reach, changed);
        assert_eq!(longest(5, &[]), Some((100, 200)));
        // A change at 150 is seen at 150 and, with that reach, at 160.
        assert_eq!(longest(15, &[(150, 150)]), Some((100, 140)));
        assert_eq!(longest(15, &[(120, 120)]), Some((140, 200)));
        assert_eq!(longest(15, &[(90, 90), (190, 1000)]), Some((110, 180)));
        assert_eq!(longest(15, &[(i64::MIN, i64::MAX)]), None);
        assert_eq!(longest(0, &[(0, 99), (131, 133), (300, 400)]), Some((140, 200)));
        assert_eq!(longest(1000, &[(0, 99)]), None);
        assert_eq!(longest_unchanged(Window { start_ms: 100, end_ms: 90, step_ms: 10 }, 5, &[]), None);
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let answers = Answers::default();
        let key = |number: usize| Key {
            metrics: Scope::All,
            labelled: Scope::Nothing,
            text: format!("up + {number}"),
            step_ms: 10,
            phase_ms: 0,
            lookback_ms: 5,
        };
        let window = Window { start_ms: 0, end_ms: 100, step_ms: 10 };
        let limits = Limits::default();
        let plan = Plan::new("vector(1)", window, &limits).expect("a plan");
        let nobody = std::sync::atomic::AtomicBool::new(false);
        let answer = orzo_promql::evaluate(&plan, Vec::new(), &limits, &nobody).expect("an answer");
        let part = Part::of(&plan, &answer).expect("a part");
        let kept = |bytes| Kept { found: 1, moment: 1, part: part.clone(), bytes };
        answers.keep(key(0), kept(ANSWER_BYTES_MAX));
        for number in 1..200 {
            assert!(answers.get(&key(0)).is_some(), "it was asked for a moment ago");
            answers.keep(key(number), kept(1 << 20));
            let halves = answers.halves.lock();
            let bytes: usize = halves.young.values().chain(halves.old.values()).map(|kept| kept.bytes).sum();
            assert!(bytes <= BYTES_MAX, "{bytes}");
        }
        assert!(answers.get(&key(1)).is_none() && answers.get(&key(199)).is_some());
        answers.keep(key(500), kept(ANSWER_BYTES_MAX + 1));
        assert!(answers.get(&key(500)).is_none());
    }
}
