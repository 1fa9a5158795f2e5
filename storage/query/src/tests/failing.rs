//! A store that fails: nothing is acknowledged, and sending again repairs it.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use orzo_model::{Point, SampleSink, Scope, SeriesId};
use orzo_promql::{Matcher, Selection, SeriesSource};
use orzo_store::{AppendReceipt, StoreError, StoreStats};

use super::*;
use crate::{NamedSeries, PointStore};

struct Failing {
    store: Arc<Store>,
    fails: AtomicBool,
}

#[async_trait]
impl PointStore for Failing {
    async fn append(&self, points: Vec<Point>) -> Result<AppendReceipt, StoreError> {
        if self.fails.load(Ordering::Acquire) {
            return Err(StoreError::Busy { reason: "the test says so".into() });
        }
        self.store.append(points).await
    }

    async fn scan(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError> {
        let found = self.store.scan(series, from, to).await?;
        // A limit that every question runs into: at most three points per answer.
        if found.iter().map(|(_, points)| points.len()).sum::<usize>() > 3 {
            return Err(StoreError::TooManyPoints { points_max: 3 });
        }
        Ok(found)
    }

    async fn last_before(&self, series: SeriesId, before: Timestamp) -> Result<Option<Measure>, StoreError> {
        self.store.last_before(series, before).await
    }

    async fn last(&self, series: SeriesId) -> Result<Option<Measure>, StoreError> {
        self.store.last(series).await
    }

    async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError> {
        self.store.delete_series(series).await
    }

    async fn settle(&self) -> Result<StoreStats, StoreError> {
        self.store.settle().await
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_that_is_not_stored_and_large_answers_are_read_in_pieces() {
    let f = fixture().await;
    let failing = Arc::new(Failing { store: f.store.clone(), fails: AtomicBool::new(true) });
    let rooms = Rooms::new(&prometheus::Registry::new());
    let room = rooms.room("engine");
    let engine = Engine::new(
        f.engine.index().clone(),
        failing.clone(),
        ResourceDefinitions::shipped(),
        room.clone(),
        f.clock.clone(),
        EngineSettings::default(),
    )
    .await
    .expect("the engine starts");
    let samples: Vec<Sample> = (0..20).map(|n| sample(&format!("vm{}", n % 2), "cpu_util", n * 30, n as f64)).collect();
    let batch = batch(samples, vec![event("m1", "compute.instance.create.end", 0, Uuid::nil())]);
    let error = engine.accept(batch.clone()).await.expect_err("the store is busy");
    assert!(error.is_retryable());
    assert!(f.engine.index().event(&Scope::All, "m1").await.is_err(), "the event waits for its batch");
    assert_eq!(room.balance().stored, 0);
    failing.fails.store(false, Ordering::Release);
    let receipt = engine.accept(batch).await.expect("accepted");
    assert_eq!(receipt.stored, 21);
    assert!(room.balance().is_conserved());
    let index = f.engine.index();
    let vm = index.find_resource(&Scope::All, "instance", "orzo", "vm0").await.expect("there");
    let metric = index.metric_of_resource(&Scope::All, vm.id, "cpu_util").await.expect("there");
    for aggregation in ["mean", "rate:mean"] {
        let query = crate::MeasuresQuery { aggregation: aggregation.into(), ..Default::default() };
        let whole = f.engine.measures(&metric, &query).await.expect("answered");
        assert!(whole.len() > 10);
        assert_eq!(engine.measures(&metric, &query).await.expect("answered"), whole, "{aggregation}");
    }
    // PromQL does not read in pieces: a query of more points than the store gives is too much, and not an error inside.
    let named = NamedSeries::new(Arc::new(engine), Scope::All, Scope::All);
    let name = Matcher::new("__name__".to_owned(), "=", "cpu_util".to_owned()).expect("a matcher");
    let selection = Selection { groups: vec![vec![name]], after_ms: 0, until_ms: i64::MAX / 2000, newest_only: false };
    let error = named.select(&selection, 100, 100).await.expect_err("too much");
    assert_eq!(error.to_string(), orzo_promql::QueryError::TooMuch { what: "points", limit: 3 }.to_string());
}
