//! Windows in memory: what the rules have read already, shared by all rules that ask the same, and slid along.
//!
//! `question → series (found once, within the scope) → closed windows`. Only windows that are new are read, many
//! questions in one read. A sample that arrives for a window that was read drops it, so that it is read again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use orzo_model::{Measure, ReadError, Scope, SeriesId, Target, Timestamp, WindowRead, WindowReader};

use crate::arrivals::ArrivalBox;

/// Lookups under way at once.
const LOOKUPS_MAX: usize = 16;
/// Questions in one read: enough to share a scan, few enough that its answer stays small.
const READS_AT_ONCE: usize = 2048;
/// A resource's metric is looked up again after this: it may have gone, or been given to another project.
const FOUND_TTL: Duration = Duration::from_secs(3600);
/// The members of a group change without a sample telling so.
const GROUP_TTL: Duration = Duration::from_secs(60);
/// What was not there is looked for again after this, or earlier when a new series appears.
const MISSING_TTL: Duration = Duration::from_secs(60);
/// Windows kept before the oldest that is needed, so that they are not dropped one by one.
const SLACK_WINDOWS: usize = 64;

/// What is read, without the times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) scope: Scope,
    pub(crate) target: Target,
    pub(crate) aggregation: String,
    pub(crate) reaggregation: Option<String>,
    pub(crate) granularity: Duration,
}

/// Number of a question here.
pub(crate) type Place = usize;

/// Why there are no windows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Missing {
    /// The metric or resource is not there, or the question is wrong: no data, in the words of the reader.
    NoData(ReadReason),
    /// It cannot be read now.
    Unavailable(String),
}

/// What the reader said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReadReason {
    /// `Resource x`, `Metric y`.
    NotFound(String),
    /// In words.
    Invalid(String),
}

struct Window {
    question: Question,
    users: usize,
    series: Option<Arc<[SeriesId]>>,
    /// When the series were looked up, and how many series had appeared by then.
    found_at: Option<(Duration, u64)>,
    missing: Option<Missing>,
    /// Closed windows with `from <= start < until`, in order.
    values: Vec<Measure>,
    from: Timestamp,
    until: Timestamp,
    /// The newest sample that arrived.
    newest: Option<Timestamp>,
}

/// All questions.
#[derive(Default)]
pub(crate) struct Windows {
    slots: Vec<Option<Window>>,
    free: Vec<Place>,
    places: HashMap<Question, Place>,
    by_series: HashMap<SeriesId, Vec<Place>>,
}

impl Windows {
    /// A place for a question; the same for the same question. To be given back with [`Self::leave`].
    pub(crate) fn enter(&mut self, question: Question) -> Place {
        if let Some(&place) = self.places.get(&question) {
            if let Some(window) = &mut self.slots[place] {
                window.users += 1;
            }
            return place;
        }
        let window = Window {
            question: question.clone(),
            users: 1,
            series: None,
            found_at: None,
            missing: None,
            values: Vec::new(),
            from: Timestamp::EPOCH,
            until: Timestamp::EPOCH,
            newest: None,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = Some(window);
                place
            }
            None => {
                self.slots.push(Some(window));
                self.slots.len() - 1
            }
        };
        self.places.insert(question, place);
        place
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, place: Place) {
        let Some(window) = self.slots.get_mut(place).and_then(Option::as_mut) else { return };
        window.users -= 1;
        if window.users > 0 {
            return;
        }
        let window = self.slots[place].take().expect("it was there a moment ago");
        self.places.remove(&window.question);
        forget_series(&mut self.by_series, window.series.as_deref().unwrap_or_default(), place);
        self.free.push(place);
    }

    /// How many questions there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Which questions read a series.
    pub(crate) fn of_series(&self, series: SeriesId) -> &[Place] {
        self.by_series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Whether a question has one series only, so that a newer sample says that a window is complete.
    pub(crate) fn is_single(&self, place: Place) -> bool {
        self.slot(place).is_some_and(|window| matches!(window.question.target, Target::Resource { .. }))
    }

    /// Samples arrived for these times: windows from the oldest on are read again. Gives the newest so far.
    pub(crate) fn arrived(&mut self, place: Place, oldest: Timestamp, newest: Timestamp) -> Timestamp {
        let Some(window) = self.slots.get_mut(place).and_then(Option::as_mut) else { return newest };
        let newest = window.newest.map_or(newest, |known| known.max(newest));
        window.newest = Some(newest);
        let start = oldest.floor(window.question.granularity);
        if start < window.until {
            let kept = window.values.partition_point(|measure| measure.timestamp < start);
            window.values.truncate(kept);
            window.until = start.max(window.from);
        }
        newest
    }

    /// The newest sample of a question's series that arrived.
    pub(crate) fn newest(&self, place: Place) -> Option<Timestamp> {
        self.slot(place).and_then(|window| window.newest)
    }

    /// The windows that start at or after `start` and end at or before `end`. They must have been read.
    pub(crate) fn between(&self, place: Place, start: Timestamp, end: Timestamp) -> Result<&[Measure], &Missing> {
        let Some(window) = self.slot(place) else { return Ok(&[]) };
        if let Some(missing) = &window.missing {
            return Err(missing);
        }
        let width = window.question.granularity;
        let first = window.values.partition_point(|measure| measure.timestamp < start);
        let last = window.values.partition_point(|measure| measure.timestamp.plus(width) <= end);
        Ok(&window.values[first..last.max(first)])
    }

    /// Reads what is needed: for each place the windows from the one to the other time. Series that are found are watched
    /// before they are read, so that no sample falls in between; when series appear that were not there before, what was
    /// missing is looked for again.
    pub(crate) async fn read(
        &mut self,
        reader: &dyn WindowReader,
        wanted: &HashMap<Place, (Timestamp, Timestamp)>,
        now: Duration,
        arrivals: Option<&ArrivalBox>,
    ) {
        self.hear(reader, wanted.keys().copied(), now, arrivals).await;
        let mut places = Vec::new();
        let mut reads = Vec::new();
        for (&place, &(start, end)) in wanted {
            let Some(window) = self.slots.get_mut(place).and_then(Option::as_mut) else { continue };
            let Some(series) = &window.series else { continue };
            // Differences of rows need the row before, which may be any number of windows back.
            let slides = !window.question.reaggregation.as_deref().is_some_and(|method| method.starts_with("rate:"));
            let is_covered = slides && window.from <= start && start <= window.until && !window.until.eq(&window.from);
            if is_covered && window.until >= end {
                continue;
            }
            let from = if is_covered { window.until } else { start };
            if !is_covered {
                window.values.clear();
                window.from = start;
                window.until = start;
            }
            places.push((place, end));
            reads.push(WindowRead {
                series: series.clone(),
                aggregation: window.question.aggregation.clone(),
                reaggregation: window.question.reaggregation.clone(),
                granularity: window.question.granularity,
                start: from,
                stop: end,
            });
        }
        for (places, reads) in places.chunks(READS_AT_ONCE).zip(reads.chunks(READS_AT_ONCE)) {
            let answers = reader.read_windows(reads).await;
            for ((&(place, end), read), answer) in places.iter().zip(reads).zip(answers) {
                if let Some(window) = self.slots.get_mut(place).and_then(Option::as_mut) {
                    window.take(read.start, end, answer, wanted[&place].0);
                }
            }
        }
    }

    /// Whether the series of a question were looked for at all.
    pub(crate) fn is_known(&self, place: Place) -> bool {
        self.slot(place).is_some_and(|window| window.found_at.is_some())
    }

    /// Finds the series of questions, where they are not known, and from now on hears of their samples.
    pub(crate) async fn hear(
        &mut self,
        reader: &dyn WindowReader,
        places: impl Iterator<Item = Place>,
        now: Duration,
        arrivals: Option<&ArrivalBox>,
    ) {
        let appeared = arrivals.map(ArrivalBox::newest_series);
        let fresh = self.find(reader, places, now, appeared).await;
        if let Some(arrivals) = arrivals.filter(|_| !fresh.is_empty()) {
            arrivals.watch(fresh);
        }
    }

    /// Looks up the series of questions that need it; gives those that were not known before.
    async fn find(
        &mut self,
        reader: &dyn WindowReader,
        places: impl Iterator<Item = Place>,
        now: Duration,
        appeared: Option<u64>,
    ) -> Vec<SeriesId> {
        let mut due = Vec::new();
        for place in places {
            if let Some(window) = self.slot(place)
                && window.is_to_find(now, appeared)
            {
                due.push((place, window.question.scope.clone(), window.question.target.clone()));
            }
        }
        let found: Vec<_> = stream::iter(due)
            .map(|(place, scope, target)| async move { (place, reader.find_series(&scope, &target).await) })
            .buffer_unordered(LOOKUPS_MAX)
            .collect()
            .await;
        let mut fresh = Vec::new();
        for (place, answer) in found {
            let Some(window) = self.slots.get_mut(place).and_then(Option::as_mut) else { continue };
            let before = window.series.take();
            match answer {
                Ok(series) => {
                    window.missing = None;
                    window.found_at = Some((now, appeared.unwrap_or(0)));
                    if before.as_deref() != Some(&*series) {
                        window.values.clear();
                        window.until = window.from;
                        forget_series(&mut self.by_series, before.as_deref().unwrap_or_default(), place);
                        for id in series.iter() {
                            self.by_series.entry(*id).or_default().push(place);
                            fresh.push(*id);
                        }
                    }
                    window.series = Some(series);
                }
                Err(error) => {
                    forget_series(&mut self.by_series, before.as_deref().unwrap_or_default(), place);
                    window.values.clear();
                    window.until = window.from;
                    window.found_at = Some((now, appeared.unwrap_or(0)));
                    window.missing = Some(Missing::of(error));
                }
            }
        }
        fresh
    }

    fn slot(&self, place: Place) -> Option<&Window> {
        self.slots.get(place).and_then(Option::as_ref)
    }
}

impl Window {
    fn is_to_find(&self, now: Duration, appeared: Option<u64>) -> bool {
        let Some((found_at, seen)) = self.found_at else { return true };
        let age = now.saturating_sub(found_at);
        match &self.missing {
            Some(Missing::Unavailable(_)) => true,
            // Without word of new series nobody tells that it is there now.
            Some(Missing::NoData(_)) => appeared.is_none_or(|appeared| appeared > seen) || age >= MISSING_TTL,
            None if matches!(self.question.target, Target::Group { .. }) => age >= GROUP_TTL,
            // A metric that is silent may have been replaced by another of the same name.
            None if self.values.is_empty() && appeared.is_none_or(|appeared| appeared > seen) => age >= MISSING_TTL,
            None => age >= FOUND_TTL,
        }
    }

    fn take(&mut self, start: Timestamp, end: Timestamp, answer: Result<Vec<Measure>, ReadError>, needed: Timestamp) {
        match answer {
            Ok(measures) => {
                self.missing = None;
                let width = self.question.granularity;
                let is_in = |measure: &Measure| measure.timestamp >= start && measure.timestamp.plus(width) <= end;
                self.values.extend(measures.into_iter().filter(is_in));
                self.until = end;
                let old = self.values.partition_point(|measure| measure.timestamp < needed);
                if old > SLACK_WINDOWS {
                    self.values.drain(..old);
                    self.from = needed;
                }
            }
            Err(error) => {
                self.values.clear();
                self.until = self.from;
                self.missing = Some(Missing::of(error));
            }
        }
    }
}

impl Missing {
    fn of(error: ReadError) -> Self {
        match error {
            ReadError::NotFound { what } => Self::NoData(ReadReason::NotFound(what)),
            ReadError::Invalid { reason } => Self::NoData(ReadReason::Invalid(reason)),
            ReadError::Unavailable { reason } => Self::Unavailable(reason),
        }
    }
}

fn forget_series(by_series: &mut HashMap<SeriesId, Vec<Place>>, series: &[SeriesId], place: Place) {
    for id in series {
        if let Some(places) = by_series.get_mut(id) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                by_series.remove(id);
            }
        }
    }
}
