//! Label sets through the engine: written, found, read, deleted.
//!
//! `known series → points; new label sets → label index (durable) → points; then one append`. Labels come before points,
//! as metrics do, so that no acknowledged point has a series without a name.
//!
//! It knows no protocol: whoever parses one looks known series up itself ([`LabelIndex::project`]), while it parses.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use orzo_index::Index;
use orzo_labels::{LabelError, LabelIndex, LabelSets, LabelledSeries, Matcher, Refusal, SeriesNumbers};
use orzo_model::{Exemplar, Measure, MetricMetadata, Point, Scope, SeriesId, Timestamp};

use crate::{Engine, QueryError, native};

/// Deleted series whose points are removed in one step.
const PURGED_AT_ONCE: usize = 1000;
/// How long after its deletion a series' points are removed: a request that had looked it up may still write to it.
const PURGE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Points of one project's request.
#[derive(Debug, Default)]
pub struct LabelledPoints {
    /// Of series that are known.
    pub known: Vec<Point>,
    /// Label sets that were not known when they were looked up; the same may stand there twice.
    pub new: LabelSets,
    /// Points of those: which set, when, what.
    pub new_points: Vec<(usize, Timestamp, f64)>,
    /// What was added to a series since its last point, until a time: becomes a point of the whole, durably counted.
    pub deltas: Vec<(LabelledTarget, Timestamp, f64)>,
    /// Native histograms.
    pub native: NativePoints,
    /// Exemplars, and whose they are.
    pub exemplars: Vec<(LabelledTarget, Exemplar)>,
    /// What names of metrics mean.
    pub metadata: BTreeMap<String, MetricMetadata>,
}

/// Words of native histograms, as points: their label sets have numbers of their own.
#[derive(Debug, Default)]
pub struct NativePoints {
    /// Of series that are known.
    pub known: Vec<Point>,
    /// Label sets that were not known when they were looked up.
    pub new: LabelSets,
    /// Points of those: which set, when, what.
    pub new_points: Vec<(usize, Timestamp, f64)>,
    /// How many histograms there are in all, by new set or of known series.
    pub histograms: u64,
    /// Exemplars of these series; places are those of the new sets here.
    pub exemplars: Vec<(LabelledTarget, Exemplar)>,
}

impl NativePoints {
    /// Adds a histogram's words; `at` is a whole millisecond.
    pub fn push(&mut self, target: LabelledTarget, at: Timestamp, words: &[f64]) {
        self.histograms += 1;
        let points = native::points(at, words);
        match target {
            LabelledTarget::Known(series) => {
                self.known.extend(points.map(|(timestamp, value)| Point { series, timestamp, value }));
            }
            LabelledTarget::New(place) => self.new_points.extend(points.map(|(at, word)| (place, at, word))),
        }
    }

    /// Words of all of them.
    pub fn words(&self) -> u64 {
        (self.known.len() + self.new_points.len()) as u64
    }
}

/// The series of a target, given those of the new sets.
fn owner_of(target: LabelledTarget, made: &[Option<SeriesId>]) -> Option<SeriesId> {
    match target {
        LabelledTarget::Known(series) => Some(series),
        LabelledTarget::New(place) => made.get(place).copied().flatten(),
    }
}

/// Deltas as points.
#[derive(Default)]
struct AddedUp {
    points: Vec<Point>,
    repeated: u64,
    late: u64,
}

/// Why a delta is refused that came after a later one.
const LATE: &str = "delta out of order";

/// Where something of a series goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelledTarget {
    /// A series that was known when it was looked up.
    Known(SeriesId),
    /// One of the request's new label sets, by its place.
    New(usize),
}

impl LabelledPoints {
    /// Adds a point.
    #[inline]
    pub fn push(&mut self, target: LabelledTarget, timestamp: Timestamp, value: f64) {
        match target {
            LabelledTarget::Known(series) => self.known.push(Point { series, timestamp, value }),
            LabelledTarget::New(place) => self.new_points.push((place, timestamp, value)),
        }
    }
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelledReceipt {
    /// Durable and new.
    pub stored: u64,
    /// Durable before.
    pub repeated: u64,
    /// Not taken, because their series was not.
    pub refused: u64,
    /// Why.
    pub refusal: Option<Refusal>,
    /// Deltas that came after a later one of their series, and cannot be added any more.
    pub deltas_late: u64,
    /// Words of native histograms that were not taken, because their series was not; also in `refused`.
    pub words_refused: u64,
    /// How many histograms those are.
    pub histograms_refused: u64,
    /// Exemplars that are durable; those of refused series are not.
    pub exemplars: u64,
    /// Names that there was no room for metadata of.
    pub metadata_refused: u64,
    /// Series of the new sets.
    pub series: Vec<Option<SeriesId>>,
}

/// The index as the label index needs it.
pub struct IndexNumbers(pub Arc<Index>);

#[async_trait]
impl SeriesNumbers for IndexNumbers {
    async fn reserve(&self, count: u64) -> Result<u64, String> {
        self.0.reserve_series(count).await.map_err(|error| error.to_string())
    }
}

impl Engine {
    /// With label sets. Without them, series of metrics are all there is.
    pub fn with_labels(self, labels: Arc<LabelIndex>) -> Self {
        Self { labels: Some(labels), ..self }
    }

    /// With what meters mean, by name; of others only their unit is known.
    pub fn with_meters(self, meters: BTreeMap<String, MetricMetadata>) -> Self {
        Self { meters, ..self }
    }

    /// The label index, if there is one.
    pub fn labels(&self) -> Result<&Arc<LabelIndex>, QueryError> {
        let absent = || LabelError::Closed { reason: "this process has none".to_owned() };
        self.labels.as_ref().ok_or_else(|| absent().into())
    }

    /// Makes new series and keeps all points. `Ok` means durable. Points of series that are refused are not kept, the
    /// others are.
    pub async fn write_labelled(&self, project: &str, labelled: LabelledPoints) -> Result<LabelledReceipt, QueryError> {
        let exemplars = (labelled.exemplars.len() + labelled.native.exemplars.len()) as u64;
        let points = labelled.known.len() + labelled.new_points.len() + labelled.deltas.len();
        let count = points as u64 + labelled.native.words() + exemplars;
        self.room.received(count);
        let outcome = self.write_points(project, labelled).await;
        match &outcome {
            Ok(receipt) => {
                self.room.stored(receipt.stored + receipt.exemplars);
                self.room.refused("exemplar of a refused series", exemplars - receipt.exemplars);
                self.room.refused(LATE, receipt.deltas_late);
                self.room.dropped("repeat", receipt.repeated);
                if let Some(refusal) = &receipt.refusal {
                    self.room.refused(refusal.reason(), receipt.refused);
                }
            }
            Err(error) if error.is_retryable() => self.room.returned(count),
            Err(_) => self.room.refused("not acceptable", count),
        }
        outcome
    }

    async fn write_points(&self, project: &str, labelled: LabelledPoints) -> Result<LabelledReceipt, QueryError> {
        let LabelledPoints { known: mut points, new, new_points, deltas, native, exemplars, metadata } = labelled;
        let mut receipt = LabelledReceipt::default();
        if !new.is_empty() {
            let created = self.labels()?.create(project, new).await?;
            points.reserve(new_points.len());
            for (place, timestamp, value) in new_points {
                match created.series[place] {
                    Some(series) => points.push(Point { series, timestamp, value }),
                    None => receipt.refused += 1,
                }
            }
            (receipt.series, receipt.refusal) = (created.series, created.refusal);
        }
        let (native_exemplars, native_made) = self.make_native(project, native, &mut points, &mut receipt).await?;
        let made = receipt.series.clone();
        let owner = |target| owner_of(target, &made);
        // Who adds to what is there must not be overtaken between reading and writing.
        let adding = if deltas.is_empty() { None } else { Some(self.adding.lock().await) };
        if !deltas.is_empty() {
            let owned = deltas.len();
            let deltas: Vec<Point> = deltas
                .into_iter()
                .filter_map(|(target, timestamp, value)| Some(Point { series: owner(target)?, timestamp, value }))
                .collect();
            receipt.refused += (owned - deltas.len()) as u64;
            let whole = self.added_up(deltas).await?;
            (receipt.repeated, receipt.deltas_late) = (whole.repeated, whole.late);
            points.extend(whole.points);
        }
        if !points.is_empty() {
            let count = points.len() as u64;
            let appended = self.store.append(points).await?;
            let replaced = appended.replaced.min(count);
            receipt.repeated += replaced;
            receipt.stored = count - replaced;
        }
        drop(adding);
        // Points come first: what explains them may be sent again if this fails, and changes nothing then.
        let natives = native_exemplars.into_iter().map(|(target, one)| (owner_of(target, &native_made), one));
        let owned = exemplars.into_iter().map(|(target, one)| (owner(target), one)).chain(natives);
        let exemplars: Vec<(SeriesId, Exemplar)> = owned.filter_map(|(series, one)| Some((series?, one))).collect();
        self.index.keep_exemplars(project, &exemplars).await?;
        receipt.exemplars = exemplars.len() as u64;
        receipt.metadata_refused = self.index.keep_metadata(project, &metadata).await?;
        Ok(receipt)
    }

    /// Makes new series of histograms, and adds their words to the points of the request. Gives their exemplars, and the new
    /// series.
    async fn make_native(
        &self,
        project: &str,
        native: NativePoints,
        points: &mut Vec<Point>,
        receipt: &mut LabelledReceipt,
    ) -> Result<(Vec<(LabelledTarget, Exemplar)>, Vec<Option<SeriesId>>), QueryError> {
        let NativePoints { known, new, new_points, exemplars, .. } = native;
        points.extend(known);
        if new.is_empty() {
            return Ok((exemplars, Vec::new()));
        }
        let created = self.labels()?.create(&native::book_of(project), new).await?;
        points.reserve(new_points.len());
        for (place, timestamp, value) in new_points {
            match created.series[place] {
                Some(series) => points.push(Point { series, timestamp, value }),
                None => {
                    receipt.words_refused += 1;
                    // The first word of a histogram stands at its millisecond.
                    receipt.histograms_refused += u64::from(timestamp.micros().rem_euclid(1000) == 0);
                }
            }
        }
        receipt.refused += receipt.words_refused;
        receipt.refusal = receipt.refusal.take().or(created.refusal);
        Ok((exemplars, created.series))
    }

    /// Deltas as points of the whole: each series goes on from its newest point, so that a restart loses nothing. A delta
    /// of that point's very time was added already.
    async fn added_up(&self, mut deltas: Vec<Point>) -> Result<AddedUp, QueryError> {
        deltas.sort_by_key(|point| (point.series, point.timestamp));
        let mut series: Vec<SeriesId> = deltas.iter().map(|point| point.series).collect();
        series.dedup();
        let newest = self.store.last_of(&series).await?;
        let mut newest: HashMap<SeriesId, Option<Measure>> = series.into_iter().zip(newest).collect();
        let mut whole = AddedUp::default();
        for mut delta in deltas {
            let last = newest.entry(delta.series).or_default();
            match last {
                Some(last) if last.timestamp == delta.timestamp => {
                    whole.repeated += 1;
                    continue;
                }
                Some(last) if last.timestamp > delta.timestamp => {
                    whole.late += 1;
                    continue;
                }
                // After an end (a stale marker) the count begins again, as after a restart of its source.
                Some(last) if !last.value.is_nan() && !delta.value.is_nan() => delta.value += last.value,
                _ => {}
            }
            *last = Some(Measure { timestamp: delta.timestamp, value: delta.value });
            whole.points.push(delta);
        }
        Ok(whole)
    }

    /// Series whose labels are accepted by all matchers, by number, at most `limit`.
    pub fn find_labelled(
        &self,
        scope: &Scope,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<Vec<LabelledSeries>, QueryError> {
        Ok(self.labels()?.find(scope, matchers, limit))
    }

    /// Points of the series whose labels are accepted by all matchers, with `from <= timestamp < to`; series without
    /// points in that time are left out.
    pub async fn read_labelled(
        &self,
        scope: &Scope,
        matchers: &[Matcher],
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<(LabelledSeries, Vec<Measure>)>, QueryError> {
        let found = self.find_labelled(scope, matchers, limit)?;
        let series: Vec<SeriesId> = found.iter().map(|found| found.series).collect();
        let points = self.store.scan(&series, from, to).await?;
        // Both are by number.
        let mut found = found.into_iter();
        let with_labels = points.into_iter().filter_map(|(series, measures)| {
            let labelled = found.find(|found| found.series == series)?;
            Some((labelled, measures))
        });
        Ok(with_labels.collect())
    }

    /// Deletes series by their labels. They are gone from every answer at once, their points from the store a minute
    /// later ([`Self::purge_labelled`]). Gives how many.
    pub async fn delete_labelled(&self, scope: &Scope, matchers: &[Matcher]) -> Result<u64, QueryError> {
        Ok(self.labels()?.delete(scope, matchers).await?)
    }

    /// Has the store do its upkeep now: everything in files, merged. What is there then.
    pub async fn settle_store(&self) -> Result<orzo_store::StoreStats, QueryError> {
        Ok(self.store.settle().await?)
    }

    /// The first and the last time of all points, whosever they are.
    pub fn stored_times(&self) -> Option<(Timestamp, Timestamp)> {
        self.store.times()
    }

    /// Removes the points of deleted series from the store, then forgets the series. How many. To be called now and
    /// then; a crash between the two steps is repaired by the next call.
    pub async fn purge_labelled(&self) -> Result<u64, QueryError> {
        let Some(labels) = &self.labels else { return Ok(0) };
        let mut count = 0;
        loop {
            let series = labels.deleted(self.clock.now().minus(PURGE_AFTER), PURGED_AT_ONCE);
            if series.is_empty() {
                return Ok(count);
            }
            self.store.delete_series(&series).await?;
            count += series.len() as u64;
            labels.purged(series).await?;
        }
    }
}
