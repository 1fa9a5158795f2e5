//! Label sets through the engine: written, found, read, deleted.
//!
//! `known series → points; new label sets → label index (durable) → points; then one append`. Labels come before points,
//! as metrics do, so that no acknowledged point has a series without a name.
//!
//! It knows no protocol: whoever parses one looks known series up itself ([`LabelIndex::project`]), while it parses.

use std::sync::Arc;

use async_trait::async_trait;
use orzo_index::Index;
use orzo_labels::{LabelError, LabelIndex, LabelSets, LabelledSeries, Matcher, Refusal, SeriesNumbers};
use orzo_model::{Measure, Point, Scope, SeriesId, Timestamp};

use crate::{Engine, QueryError};

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

    /// The label index, if there is one.
    pub fn labels(&self) -> Result<&Arc<LabelIndex>, QueryError> {
        let absent = || LabelError::Closed { reason: "this process has none".to_owned() };
        self.labels.as_ref().ok_or_else(|| absent().into())
    }

    /// Makes new series and keeps all points. `Ok` means durable. Points of series that are refused are not kept, the
    /// others are.
    pub async fn write_labelled(&self, project: &str, labelled: LabelledPoints) -> Result<LabelledReceipt, QueryError> {
        let count = (labelled.known.len() + labelled.new_points.len()) as u64;
        self.room.received(count);
        let outcome = self.write_points(project, labelled).await;
        match &outcome {
            Ok(receipt) => {
                self.room.stored(receipt.stored);
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
        let LabelledPoints { known: mut points, new, new_points } = labelled;
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
        if !points.is_empty() {
            let count = points.len() as u64;
            let appended = self.store.append(points).await?;
            receipt.repeated = appended.replaced.min(count);
            receipt.stored = count - receipt.repeated;
        }
        Ok(receipt)
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
