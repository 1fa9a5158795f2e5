//! What the engine needs of a store of points. `orzo_store::Store` is the one that there is; tests put one in memory
//! or one that fails in its place.

use async_trait::async_trait;
use orzo_model::{Measure, Point, SeriesId, Timestamp};
use orzo_store::{AppendReceipt, Store, StoreError};

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

    /// Deletes series with everything written so far.
    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError>;
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

    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError> {
        Store::delete_series(self, series).await
    }
}
