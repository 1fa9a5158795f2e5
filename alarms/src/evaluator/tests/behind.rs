//! When an evaluator looks: also one whose reads take longer than new windows take to close.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{
    Clock, ManualClock, Measure, ReadError, Rooms, Scope, SeriesId, Target, Timestamp, WindowRead, WindowReader,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{AlarmBook, AlarmRequest, Evaluator, EvaluatorParts, EvaluatorSettings};

/// More reads than this in one tick: it does not end.
const READS_MAX: usize = 200;

/// Each read takes so long.
struct Slow {
    clock: Arc<ManualClock>,
    takes: Duration,
    reads: Mutex<usize>,
}

#[async_trait]
impl WindowReader for Slow {
    async fn find_series(&self, _: &Scope, _: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        Ok(Arc::from([SeriesId(1)]))
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        *self.reads.lock() += 1;
        assert!(*self.reads.lock() < READS_MAX, "the tick does not end");
        self.clock.advance(self.takes);
        let each = |read: &WindowRead| {
            let seconds = read.start.secs()..read.stop.secs();
            seconds.map(|at| Measure { timestamp: Timestamp::from_secs(at), value: 1.0 }).collect()
        };
        reads.iter().map(|read| Ok(each(read))).collect()
    }
}

struct House {
    clock: Arc<ManualClock>,
    database: Database,
    reader: Arc<Slow>,
    evaluator: Arc<Evaluator>,
}

/// One alarm with windows of `granularity` seconds.
async fn house(granularity: u64, takes: Duration, settings: EvaluatorSettings) -> House {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let book = AlarmBook::open(database.clone(), clock.clone()).await.expect("the book opens");
    let rule = json!({"metric": "cpu", "resource_id": "r", "resource_type": "instance", "threshold": 80.0,
                      "aggregation_method": "mean", "granularity": granularity});
    let body = json!({"name": "a", "type": "gnocchi_resources_threshold", "gnocchi_resources_threshold_rule": rule});
    let request = AlarmRequest::parse(&body, false).expect("a good request");
    book.create(&request, "u", "p", false).await.expect("created");
    let reader = Arc::new(Slow { clock: clock.clone(), takes, reads: Mutex::default() });
    let parts = EvaluatorParts {
        book,
        reader: reader.clone(),
        events: None,
        prometheus: None,
        members: None,
        arrivals: None,
        clock: clock.clone(),
        room: Rooms::new(&prometheus::Registry::new()).room("alarms"),
        notices: Arc::default(),
    };
    House { clock, database, reader, evaluator: Evaluator::new(parts, settings) }
}

#[tokio::test]
async fn whoever_falls_behind_keeps_its_leases() {
    let house = house(1, Duration::from_secs(2), EvaluatorSettings::default()).await;
    house.evaluator.tick().await.expect("evaluated");
    house.clock.advance(Duration::from_secs(60));
    for _ in 0..4 {
        assert!(house.evaluator.tick().await.expect("evaluated") > 0);
        let sql = "SELECT min(lease_until) AS until FROM alarm_partitions";
        let row = house.database.query_one(sql, &[]).await.expect("read").expect("a row");
        assert!(row.time("until").is_some_and(|until| until > house.clock.now()), "a lease has run out");
    }
}

#[tokio::test]
async fn a_window_is_judged_when_its_lag_is_over_and_not_an_interval_later() {
    // With leases that are not to be renewed meanwhile either.
    let hour = 3_600_000;
    let settings = EvaluatorSettings { interval_ms: 100 * hour, lag_ms: 5000, lease_ms: 1000 * hour };
    let house = house(60, Duration::ZERO, settings).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(house.evaluator.clone().run(stop.clone()));
    // Windows close again and again, and the interval does not end before the last try.
    let mut tries = 0;
    while *house.reader.reads.lock() < 3 {
        assert!(tries < 2000, "nobody looks");
        tries += 1;
        house.clock.advance(Duration::from_secs(66));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    running.await.expect("ends");
}
