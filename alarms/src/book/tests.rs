//! The book on SQLite always, and on PostgreSQL when `ORZO_TEST_POSTGRES` names one.

use std::time::Duration;

use orzo_model::{Clock, ManualClock, Timestamp};
use serde_json::json;

use super::{leases::PARTITIONS, *};
use crate::rule::Rule;

pub(crate) fn request(threshold: f64) -> AlarmRequest {
    let body = json!({
        "name": "hot", "type": "gnocchi_resources_threshold", "alarm_actions": ["http://203.0.113.7/hook"],
        "gnocchi_resources_threshold_rule": {
            "metric": "cpu_util", "resource_id": "r", "resource_type": "instance", "threshold": threshold,
            "aggregation_method": "mean", "comparison_operator": "gt", "granularity": 60}
    });
    AlarmRequest::parse(&body, true).expect("a good request")
}

fn to_alarm() -> Judgement {
    let reason_data = json!({"type": "threshold", "disposition": "outside", "count": 1, "most_recent": 95.0});
    Judgement { state: AlarmState::Alarm, reason: "Transition to alarm".into(), reason_data }
}

fn threshold_of(alarm: &Alarm) -> f64 {
    match &alarm.rule {
        Rule::Resource(rule) => rule.threshold.condition.threshold,
        other => panic!("unexpected {}", other.type_name()),
    }
}

async fn books() -> Vec<(AlarmBook, std::sync::Arc<ManualClock>)> {
    let mut databases = vec![Database::open("sqlite::memory:").await.expect("sqlite opens")];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        // A schema of its own for each test: they run side by side.
        let schema = format!("test_{}", Uuid::new_v4().simple());
        let database = Database::open_in_schema(&url, &schema).await.expect("postgresql opens");
        databases.push(database);
    }
    let mut books = Vec::new();
    for database in databases {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        books.push((AlarmBook::open(database, clock.clone()).await.expect("the book opens"), clock));
    }
    books
}

#[tokio::test]
async fn an_alarm_is_written_read_changed_and_deleted_with_its_history() {
    for (book, clock) in books().await {
        let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
        let scope = Scope::Project("p".into());
        assert_eq!(book.get(&scope, &alarm.alarm_id).await.expect("found"), alarm);
        clock.advance(Duration::from_secs(5));
        let changed = book.update(&alarm, &request(90.0), "u", "p").await.expect("updated");
        assert_eq!(threshold_of(&changed), 90.0);
        let history = book.history(&scope, &alarm.alarm_id, 10).await.expect("history");
        assert_eq!(history.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["rule change", "creation"]);
        assert!(history[0].detail.contains("90.0") && !history[0].detail.contains("project_id"));
        book.delete(&scope, &alarm.alarm_id).await.expect("deleted");
        assert!(matches!(book.get(&Scope::All, &alarm.alarm_id).await, Err(BookError::NotFound { .. })));
    }
}

#[tokio::test]
async fn another_project_sees_nothing() {
    for (book, _clock) in books().await {
        let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
        for scope in [Scope::Project("other".into()), Scope::Nothing] {
            assert!(matches!(book.get(&scope, &alarm.alarm_id).await, Err(BookError::NotFound { .. })));
            assert!(matches!(book.delete(&scope, &alarm.alarm_id).await, Err(BookError::NotFound { .. })));
            assert!(matches!(book.history(&scope, &alarm.alarm_id, 9).await, Err(BookError::NotFound { .. })));
            assert!(book.list(&scope, &AlarmFilter::default()).await.expect("list").is_empty());
            // Not even by naming the project in the filter.
            let filter = AlarmFilter { project_id: Some("p".into()), ..AlarmFilter::default() };
            assert!(book.list(&scope, &filter).await.expect("list").is_empty());
        }
        assert_eq!(book.list(&Scope::All, &AlarmFilter::default()).await.expect("list").len(), 1);
    }
}

#[tokio::test]
async fn of_two_transitions_at_once_one_loses_with_all_its_notices() {
    for (book, clock) in books().await {
        let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
        let until = clock.now();
        book.transition(&alarm, &to_alarm(), until).await.expect("the first wins");
        let second = book.transition(&alarm, &to_alarm(), until).await;
        assert!(matches!(second, Err(BookError::Changed { .. })));
        assert_eq!(book.notice_counts().await.expect("counts"), (1, 0, 0));
        let history = book.history(&Scope::All, &alarm.alarm_id, 10).await.expect("history");
        assert_eq!(history.iter().filter(|c| c.kind == "state transition").count(), 1);
    }
}

#[tokio::test]
async fn a_notice_is_leased_and_comes_back_when_the_lease_runs_out() {
    for (book, clock) in books().await {
        let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
        book.transition(&alarm, &to_alarm(), clock.now()).await.expect("transition");
        let lease = Duration::from_secs(60);
        let first = book.take_notices(10, lease).await.expect("take");
        assert_eq!(first.len(), 1);
        assert!(book.take_notices(10, lease).await.expect("take").is_empty());
        clock.advance(lease);
        let again = book.take_notices(10, lease).await.expect("take");
        assert_eq!(again[0].notice_id, first[0].notice_id);
        assert_eq!(again[0].body, first[0].body);
        book.delivered(&again[0]).await.expect("mark");
        clock.advance(lease);
        assert!(book.take_notices(10, lease).await.expect("take").is_empty());
        assert_eq!(book.notice_counts().await.expect("counts"), (0, 1, 0));
    }
}

#[tokio::test]
async fn what_was_delivered_is_marked_in_the_commit_that_takes_the_next() {
    for (book, clock) in books().await {
        for _ in 0..10 {
            let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
            book.transition(&alarm, &to_alarm(), clock.now()).await.expect("a transition");
        }
        let lease = Duration::from_secs(30);
        let mut sent = 0;
        let mut under_way: Vec<Notice> = Vec::new();
        loop {
            // As many at once as a receiver may get.
            let taken = book.settle_and_take(&under_way, 10, lease).await.expect("settled and taken");
            sent += taken.len();
            assert_eq!(
                book.notice_counts().await.expect("counts"),
                (10 - (sent - taken.len()) as u64, (sent - taken.len()) as u64, 0)
            );
            if taken.is_empty() {
                break;
            }
            assert!(taken.len() <= 4, "{} at once for one receiver", taken.len());
            under_way = taken;
        }
        assert_eq!(sent, 10);
        assert_eq!(book.notice_counts().await.expect("counts"), (0, 10, 0));
    }
}

#[tokio::test]
async fn after_a_kill_a_process_goes_on_with_its_own_notices_at_once_and_leaves_those_of_others() {
    for (book, clock) in books().await {
        let alarm = book.create(&request(80.0), "u", "p", false).await.expect("created");
        book.transition(&alarm, &to_alarm(), clock.now()).await.expect("transition");
        let (mine, other) = (book.clone().with_holder("here"), book.clone().with_holder("there"));
        let lease = Duration::from_secs(60);
        let taken = mine.take_notices(10, lease).await.expect("take");
        assert_eq!(taken[0].leased_until, Some(clock.now().plus(lease)));
        assert_eq!(book.regain_notices().await.expect("without a name"), 0);
        assert_eq!(other.regain_notices().await.expect("somebody else's"), 0);
        assert!(other.take_notices(10, lease).await.expect("take").is_empty());
        assert_eq!(mine.regain_notices().await.expect("its own"), 1);
        let again = mine.take_notices(10, lease).await.expect("take");
        assert_eq!(again[0].notice_id, taken[0].notice_id);
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    for (book, clock) in books().await {
        for place in 0..7 {
            // Some share a time, so that the id must decide.
            if place % 3 == 0 {
                clock.advance(Duration::from_secs(1));
            }
            book.create(&request(f64::from(place)), "u", "p", false).await.expect("created");
        }
        let mut seen = Vec::new();
        let mut filter = AlarmFilter { limit: Some(2), ..AlarmFilter::default() };
        loop {
            let page = book.list(&Scope::All, &filter).await.expect("page");
            let Some(last) = page.last() else { break };
            filter.marker = Some(last.alarm_id.clone());
            seen.extend(page.into_iter().map(|alarm| alarm.alarm_id));
        }
        let all = book.list(&Scope::All, &AlarmFilter::default()).await.expect("all");
        assert_eq!(seen, all.into_iter().map(|alarm| alarm.alarm_id).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_alarm_that_cannot_be_read_is_an_error_and_stops_no_other() {
    for (book, _clock) in books().await {
        let broken = book.create(&request(80.0), "u", "p", false).await.expect("created");
        let sound = book.create(&request(80.0), "u", "p", false).await.expect("created");
        let sql = "UPDATE alarms SET rule = '{}' WHERE alarm_id = $1";
        book.database.execute(sql, &[broken.alarm_id.as_str().into()]).await.expect("damaged");
        let error = book.get(&Scope::All, &broken.alarm_id).await.expect_err("damaged");
        assert!(matches!(&error, BookError::Damaged { column, .. } if column == "rule"), "{error}");
        let mut found = Vec::new();
        for partition in 0..PARTITIONS {
            found.extend(book.partition(partition).await.expect("a partition"));
        }
        assert_eq!(found.iter().map(|alarm| &alarm.alarm_id).collect::<Vec<_>>(), [&sound.alarm_id]);
    }
}

#[tokio::test]
async fn every_alarm_is_in_one_partition_and_a_transition_under_an_old_token_does_not_commit() {
    for (book, clock) in books().await {
        for _ in 0..40 {
            book.create(&request(80.0), "u", "p", false).await.expect("created");
        }
        let lease = Duration::from_secs(15);
        let first = book.claim("first", &[], lease).await.expect("claimed");
        assert_eq!(first.len(), PARTITIONS);
        let mut count = 0;
        for lease in &first {
            for alarm in book.partition(lease.partition).await.expect("a partition") {
                assert_eq!(partition_of(&alarm.alarm_id), lease.partition);
                count += 1;
            }
        }
        assert_eq!(count, 40);
        // Nobody else gets any while the lease runs; afterwards half, since the first was heard of not long ago.
        assert!(book.claim("second", &[], lease).await.expect("claimed").is_empty());
        clock.advance(lease);
        let second = book.claim("second", &[], lease).await.expect("claimed");
        assert_eq!(second.len(), PARTITIONS);
        let alarm = book.list(&Scope::All, &AlarmFilter::default()).await.expect("listed").remove(0);
        let write = |token: i64| Transition {
            before: alarm.clone(),
            judgement: to_alarm(),
            until: Some(clock.now()),
            events_until: None,
            is_recorded: false,
            token: Some(token),
        };
        let token = |leases: &[Lease]| {
            leases.iter().find(|lease| lease.partition == partition_of(&alarm.alarm_id)).expect("held").token
        };
        let lost = book.write_transitions(&[write(token(&first))]).await.expect("asked");
        assert!(matches!(lost.as_slice(), [Written::Lost]), "{lost:?}");
        assert_eq!(book.notice_counts().await.expect("counts"), (0, 0, 0));
        let done = book.write_transitions(&[write(token(&second))]).await.expect("asked");
        assert!(matches!(done.as_slice(), [Written::Done(_)]), "{done:?}");
        assert_eq!(book.notice_counts().await.expect("counts"), (1, 0, 0));
    }
}

#[tokio::test]
async fn two_evaluators_share_the_partitions_and_what_was_reached_goes_with_them() {
    for (book, clock) in books().await {
        let lease = Duration::from_secs(15);
        let mut first = book.claim("first", &[], lease).await.expect("claimed");
        for lease in &mut first {
            lease.evaluated_until = clock.now();
            lease.events_until = 7;
        }
        clock.advance(Duration::from_secs(5));
        book.claim("second", &[], lease).await.expect("claimed");
        let kept = book.claim("first", &first, lease).await.expect("claimed");
        assert_eq!(kept.len(), PARTITIONS / 2);
        let second = book.claim("second", &[], lease).await.expect("claimed");
        assert_eq!(second.len(), PARTITIONS / 2);
        assert!(
            second.iter().all(|lease| lease.evaluated_until == first[0].evaluated_until && lease.events_until == 7)
        );
        assert!(second.iter().all(|lease| lease.token == 2) && kept.iter().all(|lease| lease.token == 1));
        book.release("second", &second).await.expect("released");
        let all = book.claim("first", &kept, lease).await.expect("claimed");
        assert_eq!(all.len(), PARTITIONS);
    }
}
