//! The evaluator on the manual clock with a reader that a test fills.

use std::collections::BTreeMap;

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{Clock, ManualClock, Rooms};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::{alarm::AlarmRequest, book::NoticeState};

/// Values of one metric by bucket start, in seconds.
#[derive(Default)]
struct Series {
    values: Mutex<BTreeMap<i64, f64>>,
    is_down: Mutex<bool>,
    seen_scopes: Mutex<Vec<Scope>>,
}

#[async_trait]
impl MeasureReader for Series {
    async fn read_resource(&self, scope: &Scope, read: &ResourceRead) -> Result<Vec<Measure>, ReadError> {
        self.seen_scopes.lock().push(scope.clone());
        if *self.is_down.lock() {
            return Err(ReadError::Unavailable { reason: "down".into() });
        }
        let values = self.values.lock();
        Ok(values
            .range(read.start.secs()..read.stop.secs())
            .map(|(at, value)| Measure { timestamp: Timestamp::from_secs(*at), value: *value })
            .collect())
    }

    async fn read_group(&self, _: &Scope, read: &GroupRead) -> Result<Vec<Measure>, ReadError> {
        Err(ReadError::NotFound { what: format!("Metric {}", read.metric) })
    }

    async fn last_before(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<Measure>, ReadError> {
        Ok(None)
    }
}

const START: i64 = 1_800_000_000;

struct Bench {
    clock: Arc<ManualClock>,
    series: Arc<Series>,
    book: AlarmBook,
    evaluator: Arc<Evaluator>,
    room: Room,
    alarm_id: String,
}

async fn bench(change: impl FnOnce(&mut serde_json::Value)) -> Bench {
    let clock = ManualClock::new(Timestamp::from_secs(START));
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let book = AlarmBook::open(database, clock.clone()).await.expect("the book opens");
    let series = Arc::new(Series::default());
    let room = Rooms::new(&prometheus::Registry::new()).room("alarms");
    let settings = EvaluatorSettings { interval_ms: 1000, lag_ms: 5000 };
    let evaluator = Evaluator::new(book.clone(), series.clone(), settings, clock.clone(), room.clone(), Arc::default());
    let mut body = json!({
        "name": "hot", "type": "gnocchi_resources_threshold",
        "alarm_actions": ["http://203.0.113.7/hot"], "ok_actions": ["http://203.0.113.7/cool"],
        "gnocchi_resources_threshold_rule": {
            "metric": "cpu_util", "resource_id": "r", "resource_type": "instance", "threshold": 80.0,
            "aggregation_method": "mean", "comparison_operator": "gt", "granularity": 60, "evaluation_periods": 2}
    });
    change(&mut body);
    let request = AlarmRequest::parse(&body, false).expect("a good request");
    let alarm = book.create(&request, "u", "p", false).await.expect("created");
    Bench { clock, series, book, evaluator, room, alarm_id: alarm.alarm_id }
}

impl Bench {
    /// Puts a value into each following minute, moving the clock to just after each and evaluating.
    async fn minutes(&self, values: &[Option<f64>]) {
        for value in values {
            let bucket = self.clock.now().floor(Duration::from_secs(60));
            if let Some(value) = value {
                self.series.values.lock().insert(bucket.secs(), *value);
            }
            self.clock.set(bucket.plus(Duration::from_secs(65)));
            self.evaluator.tick().await.expect("evaluated");
        }
        assert!(self.room.balance().is_conserved(), "{:?}", self.room.balance());
    }

    async fn state(&self) -> AlarmState {
        self.book.get(&Scope::All, &self.alarm_id).await.expect("found").state
    }

    async fn notices(&self) -> Vec<String> {
        let mut notices = self.book.notices(NoticeState::Waiting, 100).await.expect("notices");
        notices.reverse();
        notices.into_iter().map(|notice| notice.action).collect()
    }
}

#[tokio::test]
async fn turns_when_all_windows_agree_and_tells_once() {
    let bench = bench(|_| {}).await;
    bench.minutes(&[Some(95.0), Some(96.0)]).await;
    assert_eq!(bench.state().await, AlarmState::Alarm);
    bench.minutes(&[Some(97.0), Some(98.0)]).await;
    assert_eq!(bench.notices().await, ["http://203.0.113.7/hot"]);
    bench.minutes(&[Some(10.0)]).await;
    assert_eq!(bench.state().await, AlarmState::Alarm, "mixed values keep the state");
    bench.minutes(&[Some(11.0)]).await;
    assert_eq!(bench.state().await, AlarmState::Ok);
    assert_eq!(bench.notices().await, ["http://203.0.113.7/hot", "http://203.0.113.7/cool"]);
}

#[tokio::test]
async fn repeats_when_asked_to() {
    let bench = bench(|body| body["repeat_actions"] = json!(true)).await;
    bench.minutes(&[Some(95.0), Some(96.0), Some(97.0), Some(98.0)]).await;
    assert_eq!(bench.notices().await.len(), 3);
}

#[tokio::test]
async fn silence_is_insufficient_data() {
    let bench = bench(|_| {}).await;
    bench.minutes(&[Some(95.0), Some(96.0), None, None, None]).await;
    assert_eq!(bench.state().await, AlarmState::InsufficientData);
}

#[tokio::test]
async fn a_spike_during_a_pause_still_fires_and_clears_in_order() {
    let bench = bench(|_| {}).await;
    bench.minutes(&[Some(1.0), Some(1.0)]).await;
    assert_eq!(bench.state().await, AlarmState::Ok);
    let bucket = bench.clock.now().floor(Duration::from_secs(60)).secs();
    for (minute, value) in [95.0, 96.0, 1.0, 1.0].into_iter().enumerate() {
        bench.series.values.lock().insert(bucket + 60 * minute as i64, value);
    }
    bench.clock.advance(Duration::from_secs(60 * 4 + 5));
    bench.evaluator.tick().await.expect("evaluated");
    assert_eq!(bench.state().await, AlarmState::Ok);
    let history = bench.book.history(&Scope::All, &bench.alarm_id, 10).await.expect("history");
    let turns = history.iter().filter(|change| change.kind == "state transition").count();
    assert_eq!(turns, 3, "ok, alarm, ok");
}

#[tokio::test]
async fn an_unreadable_store_changes_nothing_and_the_window_is_judged_later() {
    let bench = bench(|_| {}).await;
    bench.minutes(&[Some(95.0)]).await;
    *bench.series.is_down.lock() = true;
    bench.minutes(&[Some(96.0), Some(97.0)]).await;
    assert_ne!(bench.state().await, AlarmState::Alarm);
    *bench.series.is_down.lock() = false;
    bench.minutes(&[Some(98.0)]).await;
    assert_eq!(bench.state().await, AlarmState::Alarm);
}

#[tokio::test]
async fn an_alarm_reads_with_the_scope_of_its_project() {
    let bench = bench(|_| {}).await;
    bench.minutes(&[Some(95.0)]).await;
    assert_eq!(*bench.series.seen_scopes.lock(), [Scope::Project("p".into())]);
}

#[tokio::test]
async fn outside_its_time_constraints_it_is_frozen() {
    // Open for the first minute of each hour only; the bench starts at a full hour.
    let constraint = json!([{"name": "n", "start": "30 * * * *", "duration": 60}]);
    let bench = bench(|body| body["time_constraints"] = constraint).await;
    bench.minutes(&[Some(95.0), Some(96.0)]).await;
    assert_eq!(bench.state().await, AlarmState::InsufficientData);
}
