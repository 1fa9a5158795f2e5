//! Queries in PromQL that take long: a project that has many of them keeps nobody else waiting.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{
    InstantQueries, ManualClock, Measure, ReadError, Rooms, Scope, SeriesId, Target, Timestamp, WindowRead,
    WindowReader,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::{AlarmBook, AlarmRequest, Evaluator, EvaluatorParts, EvaluatorSettings};

/// Each query takes a second.
struct Slow {
    clock: Arc<ManualClock>,
    asked: Mutex<Vec<Scope>>,
}

#[async_trait]
impl InstantQueries for Slow {
    async fn instant(&self, scope: &Scope, _: &str, _: Timestamp) -> Result<Vec<f64>, ReadError> {
        self.clock.advance(Duration::from_secs(1));
        self.asked.lock().push(scope.clone());
        Ok(vec![1.0])
    }
}

#[async_trait]
impl WindowReader for Slow {
    async fn find_series(&self, _: &Scope, _: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        Ok(Arc::from([]))
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        reads.iter().map(|_| Ok(Vec::new())).collect()
    }
}

#[tokio::test]
async fn many_slow_queries_of_one_project_keep_no_other_waiting_and_are_all_asked() {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_010));
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let book = AlarmBook::open(database, clock.clone()).await.expect("the book opens");
    let projects = std::iter::repeat_n("many", 20).chain(["one"]);
    for project in projects {
        let body = json!({"name": "a", "type": "prometheus", "prometheus_rule": {"query": "up", "threshold": 5}});
        let request = AlarmRequest::parse(&body, false).expect("a good request");
        book.create(&request, "u", project, false).await.expect("created");
    }
    let queries = Arc::new(Slow { clock: clock.clone(), asked: Mutex::default() });
    let parts = EvaluatorParts {
        book,
        reader: queries.clone(),
        events: None,
        prometheus: Some(queries.clone()),
        members: None,
        arrivals: None,
        clock: clock.clone(),
        room: Rooms::new(&prometheus::Registry::new()).room("alarms"),
        notices: Arc::default(),
    };
    let evaluator = Evaluator::new(parts, EvaluatorSettings::default());
    // The minute that was over when the alarms were made, until nothing of it is left.
    for _ in 0..5 {
        evaluator.tick().await.expect("evaluated");
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(queries.asked.lock().drain(..).count(), 21);
    clock.advance(Duration::from_secs(45));
    evaluator.tick().await.expect("evaluated");
    let first = queries.asked.lock().clone();
    assert!(first[..2].contains(&Scope::Project("one".into())), "{first:?}");
    assert!(first.len() < 10, "the round had no end: {} queries", first.len());
    for _ in 0..5 {
        clock.advance(Duration::from_secs(1));
        evaluator.tick().await.expect("evaluated");
    }
    assert_eq!(queries.asked.lock().len(), 21);
}
