//! Alarms that this process makes and deletes reach its evaluator without being read from the database.

use std::sync::Arc;

use async_trait::async_trait;
use orzo_database::Database;
use orzo_model::{
    ManualClock, Measure, ReadError, Rooms, Scope, SeriesId, Target, Timestamp, WindowRead, WindowReader,
};
use serde_json::json;

use crate::{AlarmBook, AlarmRequest, Evaluator, EvaluatorParts, EvaluatorSettings};

/// Nothing is there.
struct Empty;

#[async_trait]
impl WindowReader for Empty {
    async fn find_series(&self, _: &Scope, _: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        Err(ReadError::NotFound { what: "Metric".into() })
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        reads.iter().map(|_| Ok(Vec::new())).collect()
    }
}

async fn create(book: &AlarmBook, number: usize) -> String {
    let body = json!({
        "name": format!("alarm {number}"), "type": "gnocchi_resources_threshold",
        "gnocchi_resources_threshold_rule": {"metric": "cpu", "resource_id": "r", "resource_type": "instance",
            "threshold": 80.0, "aggregation_method": "mean"}
    });
    let request = AlarmRequest::parse(&body, false).expect("a good request");
    book.create(&request, "user", "project", false).await.expect("created").alarm_id
}

#[tokio::test]
async fn changes_of_this_process_are_not_read_again_and_more_than_can_be_told_are() {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let database = Database::open("sqlite::memory:").await.expect("sqlite opens");
    let book = AlarmBook::open(database.clone(), clock.clone()).await.expect("the book opens");
    let parts = EvaluatorParts {
        book: book.clone(),
        reader: Arc::new(Empty),
        events: None,
        prometheus: None,
        members: None,
        arrivals: None,
        clock,
        room: Rooms::new(&prometheus::Registry::new()).room("alarms"),
        notices: Arc::default(),
    };
    let evaluator = Evaluator::new(parts, EvaluatorSettings::default());
    evaluator.tick().await.expect("evaluated");
    let mut made = Vec::new();
    for number in 0..20 {
        made.push(create(&book, number).await);
        let before = database.statements();
        evaluator.tick().await.expect("evaluated");
        assert_eq!(database.statements(), before, "the database was asked about alarm {number}");
        assert_eq!(evaluator.load().await.0, number + 1);
    }
    book.delete(&Scope::All, &made[0]).await.expect("deleted");
    evaluator.tick().await.expect("evaluated");
    assert_eq!(evaluator.load().await.0, 19);
    for number in 0..crate::book::TOLD_MAX + 1 {
        create(&book, number).await;
    }
    evaluator.tick().await.expect("evaluated");
    assert_eq!(evaluator.load().await.0, 19 + crate::book::TOLD_MAX + 1);
}
