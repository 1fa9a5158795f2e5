//! A budget from a rated line to a notice: ledger, sums, metrics, the alarm service's alarm and its outbox.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use orzo_alarms::{AlarmBook, AlarmRequest, Evaluator, EvaluatorParts, EvaluatorSettings};
use orzo_database::Database;
use orzo_definitions::ResourceDefinitions;
use orzo_index::{Index, IndexSettings};
use orzo_model::{Clock, ManualClock, Rooms, Scope, Timestamp};
use orzo_query::{Engine, EngineSettings};
use orzo_rating::{
    BigDecimal, Ledger, LineKind, MemoryLedger, RatedLine, cost_of,
    forecast::{ACCRUED_METRIC, COST_GRANULARITY_S, cost_metric, cost_resource, month},
};
use orzo_store::{Store, StoreSettings};
use serde_json::json;
use uuid::Uuid;

use super::CostMeters;

fn line(begin: Timestamp, cost: &str) -> RatedLine {
    RatedLine {
        id: Uuid::nil(),
        scope: "p".to_owned(),
        service: "instance".to_owned(),
        resource: "r".to_owned(),
        begin,
        end: begin.plus(Duration::from_secs(3600)),
        period: begin,
        unit: "instance".to_owned(),
        quantity: BigDecimal::from(1),
        unit_price: BigDecimal::from(1),
        cost: cost_of(&cost.parse().expect("a number")),
        currency: "EUR".to_owned(),
        kind: LineKind::Usage,
        corrects: None,
        reverses: false,
        rule: "hashmap/instance/0".to_owned(),
        rule_version: 1,
        sequence: 0,
        groupby: Arc::new(BTreeMap::new()),
        metadata: Arc::new(BTreeMap::new()),
        samples: 1,
        rated_at: begin,
    }
    .identified()
}

#[tokio::test]
async fn a_budget_fires_when_what_was_charged_reaches_it() {
    let start: Timestamp = "2026-11-10T00:00:00Z".parse().expect("a time");
    let clock = ManualClock::new(start.plus(Duration::from_secs(12 * 3600)));
    let directory = tempfile::tempdir().expect("a directory");
    let rooms = Rooms::new(&prometheus::Registry::new());
    let database = Database::open("sqlite::memory:").await.expect("a database");
    let book = AlarmBook::open(database.clone(), clock.clone()).await.expect("a book of alarms");
    let settings =
        StoreSettings { directory: directory.path().join("store"), disk_reserve_bytes: 0, ..StoreSettings::default() };
    let store = Store::open(settings, rooms.room("store"), clock.clone()).await.expect("a store");
    let index = Index::open(database, clock.clone(), IndexSettings::default()).await.expect("an index");
    let (index, definitions) = (Arc::new(index), ResourceDefinitions::shipped());
    let engine =
        Engine::new(index, store.clone(), definitions, rooms.room("engine"), clock.clone(), EngineSettings::default());
    let engine = Arc::new(engine.await.expect("an engine"));
    let ledger = Arc::new(MemoryLedger::default());
    let costs = CostMeters::new(engine.clone(), ledger.clone(), clock.clone());
    // As the rating's API makes it of a budget of 10.
    let alarm = json!({
        "name": "november", "type": "gnocchi_resources_threshold", "alarm_actions": ["http://203.0.113.7/hook"],
        "gnocchi_resources_threshold_rule": {
            "metric": cost_metric(ACCRUED_METRIC, "EUR"), "resource_id": cost_resource("p").to_string(), "resource_type": "generic",
            "threshold": 10, "comparison_operator": "ge", "aggregation_method": "max",
            "granularity": COST_GRANULARITY_S, "evaluation_periods": 1,
        },
    });
    let mut request = AlarmRequest::parse(&alarm, false).expect("an alarm");
    request.rule.scope_to("p");
    let alarm = book.create(&request, "user", "p", false).await.expect("made").alarm_id;
    let evaluator = Evaluator::new(
        EvaluatorParts {
            book: book.clone(),
            reader: engine.clone(),
            events: None,
            prometheus: None,
            members: None,
            arrivals: None,
            clock: clock.clone(),
            room: rooms.room("alarms"),
            notices: Arc::default(),
        },
        EvaluatorSettings::default(),
    );
    // Below the budget, at it, and next month.
    let mut states = Vec::new();
    for (hour, cost, later) in [(1, "9.99", 0), (2, "0.01", 0), (3, "0", 22 * 86_400)] {
        clock.advance(Duration::from_secs(later));
        let begin = start.plus(Duration::from_secs(3600 * hour));
        ledger.append(vec![line(begin, cost)]).await.expect("kept");
        for _ in 0..3 {
            costs.publish(hour, clock.now()).await.expect("written");
            clock.advance(Duration::from_secs(COST_GRANULARITY_S));
            evaluator.tick().await.expect("judged");
        }
        clock.advance(Duration::from_secs(30));
        evaluator.tick().await.expect("judged");
        let own = book.get(&Scope::All, &alarm).await.expect("the alarm").to_json();
        states.push(own["state"].as_str().expect("a state").to_owned());
    }
    assert_eq!(states[..2], ["ok", "alarm"], "{states:?}");
    assert_ne!(states[2], "alarm", "a new month begins at nothing");
    // Of two currencies each has its own sum, and none is said of both.
    let now = clock.now();
    let yen = RatedLine { currency: "JPY".to_owned(), resource: "y".to_owned(), ..line(now, "10000") }.identified();
    ledger.append(vec![yen, line(now, "7")]).await.expect("kept");
    costs.publish(9, now).await.expect("written");
    let sums = costs.sums(month(now, 0), month(now, 1)).await.expect("read");
    let sum = |code: &str| sums["p"][code].values().sum::<BigDecimal>();
    assert_eq!((sum("JPY"), sum("EUR")), (BigDecimal::from(10_000), BigDecimal::from(7)));
    let known = costs.known.lock().metrics.keys().filter_map(|(_, code)| code.clone()).collect::<Vec<_>>();
    assert!(known.contains(&"JPY".to_owned()) && known.contains(&"EUR".to_owned()), "{known:?}");
    store.close().await.expect("closed");
}
