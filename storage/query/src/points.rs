//! What the engine needs of a store of points. `orzo_store::Store` is the one that there is; tests put one in memory
//! or one that fails in its place.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_model::{Measure, Point, SeriesId, Timestamp};
use orzo_store::{
    AppendReceipt, Columns, DayRolled, LayerWanted, Reduce, Reduced, RollPlan, Rolled, Store, StoreError, StoreStats,
};

/// Keeps points.
#[async_trait]
pub trait PointStore: Send + Sync + 'static {
    /// Makes points durable, all or none; the same points again change nothing.
    async fn append(&self, points: Vec<Point>) -> Result<AppendReceipt, StoreError>;

    /// Points of these series with `from <= timestamp < to`, in time order per series.
    async fn scan(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError>;

    /// As [`Self::scan`], as columns.
    async fn scan_columns(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Columns)>, StoreError> {
        let found = self.scan(series, from, to).await?;
        Ok(found.into_iter().map(|(series, measures)| (series, measures.into())).collect())
    }

    /// As [`Self::scan_columns`], each series' points reduced, at most `points_max`; no more than `brief` points perhaps on
    /// the caller's own thread.
    async fn scan_reduced(
        &self,
        series: &[SeriesId],
        (from, to): (Timestamp, Timestamp),
        points_max: usize,
        _brief: usize,
        reduce: Arc<Reduce>,
    ) -> Result<Vec<Reduced>, StoreError> {
        let found = self.scan_columns(series, from, to).await?;
        if found.iter().map(|(_, columns)| columns.times.len()).sum::<usize>() > points_max {
            return Err(StoreError::TooManyPoints { points_max });
        }
        let mut reducer = reduce();
        let reduced = found.into_iter().map(|(series, mut columns)| {
            let points = columns.times.len();
            Ok(Reduced { series, points, values: reducer(&mut columns).ok_or(StoreError::Stopped)? })
        });
        reduced.collect()
    }

    /// The newest point of each series between two times, both inclusive; those without one are left out.
    async fn newest_between(
        &self,
        series: &[SeriesId],
        first: Timestamp,
        last: Timestamp,
    ) -> Result<Vec<(SeriesId, Measure)>, StoreError> {
        let found = self.scan(series, first, last.plus(Duration::from_micros(1))).await?;
        Ok(found.into_iter().filter_map(|(series, measures)| Some((series, *measures.last()?))).collect())
    }

    /// The newest point of a series strictly before a time.
    async fn last_before(&self, series: SeriesId, before: Timestamp) -> Result<Option<Measure>, StoreError>;

    /// The newest point of a series.
    async fn last(&self, series: SeriesId) -> Result<Option<Measure>, StoreError>;

    /// The newest point of each series, in their order.
    async fn last_of(&self, series: &[SeriesId]) -> Result<Vec<Option<Measure>>, StoreError> {
        let mut newest = Vec::with_capacity(series.len());
        for &series in series {
            newest.push(self.last(series).await?);
        }
        Ok(newest)
    }

    /// A moment of the store, taken before a read whose answer is to be remembered.
    fn moment(&self) -> u64 {
        0
    }

    /// Which times between two, both inclusive, have changed after a moment; everything if nobody keeps count of it.
    fn changed_since(&self, _moment: u64, _first: Timestamp, _last: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        vec![(Timestamp::MIN, Timestamp::MAX)]
    }

    /// For each layer, for each series, the days of which rollups are all that there is, and their rows; nothing at all if
    /// there is none. Series are sorted, none twice.
    async fn rolled(&self, _wanted: Vec<LayerWanted>, _series: Vec<SeriesId>) -> Result<Vec<Vec<Rolled>>, StoreError> {
        Ok(Vec::new())
    }

    /// A day of which rollups are to be made.
    fn roll_due(&self) -> Option<Timestamp> {
        None
    }

    /// Makes the rollups of a day.
    async fn roll_day(&self, _day: Timestamp, _plan: RollPlan) -> Result<DayRolled, StoreError> {
        Ok(DayRolled::default())
    }

    /// Merges files of rollups, a few at a time; gives how many.
    async fn tidy_rollups(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Takes points out that are older than their series' limits (sorted by series); gives how many files changed.
    async fn expire(&self, _limits: Vec<(SeriesId, Timestamp)>) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Deletes series with everything written so far.
    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError>;

    /// Writes everything to files, merges them, and removes what is not needed any more; gives what is there then.
    async fn settle(&self) -> Result<StoreStats, StoreError>;

    /// The first and the last point's time; `None` without points, or if nobody knows.
    fn times(&self) -> Option<(Timestamp, Timestamp)> {
        None
    }
}

#[async_trait]
impl PointStore for Store {
    async fn append(&self, points: Vec<Point>) -> Result<AppendReceipt, StoreError> {
        Store::append(self, points).await
    }

    async fn scan(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError> {
        Store::scan(self, series, from, to).await
    }

    async fn scan_columns(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Columns)>, StoreError> {
        Store::scan_columns(self, series, from, to).await
    }

    async fn scan_reduced(
        &self,
        series: &[SeriesId],
        times: (Timestamp, Timestamp),
        points_max: usize,
        brief: usize,
        reduce: Arc<Reduce>,
    ) -> Result<Vec<Reduced>, StoreError> {
        Store::scan_reduced(self, series, times, points_max, brief, reduce).await
    }

    async fn newest_between(
        &self,
        series: &[SeriesId],
        first: Timestamp,
        last: Timestamp,
    ) -> Result<Vec<(SeriesId, Measure)>, StoreError> {
        Store::newest_between(self, series, first, last).await
    }

    async fn last_before(&self, series: SeriesId, before: Timestamp) -> Result<Option<Measure>, StoreError> {
        Store::last_before(self, series, before).await
    }

    async fn last(&self, series: SeriesId) -> Result<Option<Measure>, StoreError> {
        Store::last(self, series).await
    }

    async fn last_of(&self, series: &[SeriesId]) -> Result<Vec<Option<Measure>>, StoreError> {
        match *series {
            [] => Ok(Vec::new()),
            // Mostly from memory, without another thread.
            [one] => Ok(vec![Store::last(self, one).await?]),
            _ => Store::last_of(self, series).await,
        }
    }

    fn moment(&self) -> u64 {
        Store::moment(self)
    }

    fn changed_since(&self, moment: u64, first: Timestamp, last: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        Store::changed_since(self, moment, first, last)
    }

    async fn rolled(&self, wanted: Vec<LayerWanted>, series: Vec<SeriesId>) -> Result<Vec<Vec<Rolled>>, StoreError> {
        Store::rolled(self, wanted, series).await
    }

    fn roll_due(&self) -> Option<Timestamp> {
        Store::roll_due(self)
    }

    async fn roll_day(&self, day: Timestamp, plan: RollPlan) -> Result<DayRolled, StoreError> {
        Store::roll_day(self, day, plan).await
    }

    async fn tidy_rollups(&self) -> Result<u64, StoreError> {
        Store::tidy_rollups(self).await
    }

    async fn expire(&self, limits: Vec<(SeriesId, Timestamp)>) -> Result<u64, StoreError> {
        Store::expire(self, limits).await
    }

    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError> {
        Store::delete_series(self, series).await
    }

    async fn settle(&self) -> Result<StoreStats, StoreError> {
        Store::settle(self).await
    }

    fn times(&self) -> Option<(Timestamp, Timestamp)> {
        let stats = self.stats();
        stats.oldest.zip(stats.newest)
    }
}
