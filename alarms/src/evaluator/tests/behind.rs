//! An evaluator whose reads take longer than new windows take to close.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{
    Clock, ManualClock, Measure, ReadError, Rooms, Scope, SeriesId, Target, Timestamp, WindowRead, WindowReader,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::{AlarmBook, AlarmRequest, Evaluator, EvaluatorParts, EvaluatorSettings};

/// More reads than this in one tick: it does not end.
const READS_MAX: usize = 200;

/// Each read takes two seconds.
struct Slow(Arc<ManualClock>, Mutex<usize>);

#[async_trait]
impl WindowReader for Slow {
    async fn find_series(&self, _: &Scope, _: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        Ok(Arc::from([SeriesId(1)]))
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        *self.1.lock() += 1;
        assert!(*self.1.lock() < READS_MAX, "the tick does not end");
        self.0.advance(Duration::from_secs(2));
        let each = |read: &WindowRead| {
            let seconds = read.start.secs()..read.stop.secs();
            seconds.map(|at| Measure { timestamp: Timestamp::from_secs(at), value: 1.0 }).collect()
        };
        reads.iter().map(|read| Ok(each(read))).collect()
    }
}

#[tokio::test]
async fn whoever_falls_behind_keeps_its_leases() {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let book = AlarmBook::open(database.clone(), clock.clone()).await.expect("the book opens");
    let rule = json!({"metric": "cpu", "resource_id": "r", "resource_type": "instance", "threshold": 80.0,
                      "aggregation_method": "mean", "granularity": 1});
    let body = json!({"name": "a", "type": "gnocchi_resources_threshold", "gnocchi_resources_threshold_rule": rule});
    let request = AlarmRequest::parse(&body, false).expect("a good request");
    book.create(&request, "u", "p", false).await.expect("created");
    let parts = EvaluatorParts {
        book,
        reader: Arc::new(Slow(clock.clone(), Mutex::default())),
        events: None,
        prometheus: None,
        members: None,
        arrivals: None,
        clock: clock.clone(),
        room: Rooms::new(&prometheus::Registry::new()).room("alarms"),
        notices: Arc::default(),
    };
    let evaluator = Evaluator::new(parts, EvaluatorSettings::default());
    evaluator.tick().await.expect("evaluated");
    clock.advance(Duration::from_secs(60));
    for _ in 0..4 {
        assert!(evaluator.tick().await.expect("evaluated") > 0);
        let sql = "SELECT min(lease_until) AS until FROM alarm_partitions";
        let row = database.query_one(sql, &[]).await.expect("read").expect("a row");
        assert!(row.time("until").is_some_and(|until| until > clock.now()), "a lease has run out");
    }
}
