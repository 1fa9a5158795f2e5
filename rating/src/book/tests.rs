//! The book on SQLite always, and on PostgreSQL when `ORZO_TEST_POSTGRES` names one.

use std::{sync::Arc, time::Duration};

use orzo_model::{Clock, ManualClock};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::Usage;

async fn books() -> Vec<(RatingBook, Arc<ManualClock>)> {
    let mut databases = vec![Database::open("sqlite::memory:").await.expect("sqlite opens")];
    if let Ok(url) = std::env::var("ORZO_TEST_POSTGRES") {
        let schema = format!("test_{}", Uuid::new_v4().simple());
        databases.push(Database::open_in_schema(&url, &schema).await.expect("postgresql opens"));
    }
    let mut books = Vec::new();
    for database in databases {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        books.push((RatingBook::open(database, clock.clone()).await.expect("the book opens"), clock));
    }
    books
}

fn flat(cost: &str) -> NewMapping {
    NewMapping {
        value: None,
        cost: decimal(cost).expect("a number"),
        kind: Kind::Flat,
        service_id: None,
        field_id: None,
        group_id: None,
        tenant_id: None,
        start: None,
        end: None,
        name: None,
        description: None,
        force: false,
    }
}

async fn price(book: &RatingBook, version: u64, flavor: &str) -> String {
    let rules = book.rules_of(version, book.now()).await.expect("rules");
    let usage = Usage {
        service: "instance".to_owned(),
        quantity: BigDecimal::from(2),
        description: [("flavor_id".to_owned(), json!(flavor))].into(),
    };
    rules.hashmap.for_tenant(None).price(&usage).expect("a price").normalized().to_plain_string()
}

#[tokio::test]
async fn the_rules_of_any_version_can_be_had_again() {
    for (book, clock) in books().await {
        let service = book.create_service("u", "instance").await.expect("a service");
        let field = book.create_field("u", &service.service_id, "flavor_id").await.expect("a field");
        let field_id = Some(field.field_id.clone());
        let new = NewMapping { field_id: field_id.clone(), value: Some("small".to_owned()), ..flat("0.1") };
        let cheap = book.create_mapping("u", &new).await.expect("a mapping");
        let first = book.rule_version().await.expect("a version");
        assert_eq!(first, 3, "one for each change");
        clock.advance(Duration::from_secs(60));
        book.delete_mapping("v", &cheap.mapping_id).await.expect("deleted");
        let dear = NewMapping { cost: decimal("0.3").expect("a number"), ..new.clone() };
        book.create_mapping("v", &dear).await.expect("another one");
        let second = book.rule_version().await.expect("a version");
        assert_eq!(price(&book, first, "small").await, "0.2", "as it was, although it is deleted now");
        assert_eq!(price(&book, second, "small").await, "0.6");
        assert_eq!(price(&book, second, "large").await, "0");
        assert_eq!(price(&book, 0, "small").await, "0", "before there were rules");
        let changes = book.rule_changes(None, 2).await.expect("changes");
        assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [5, 4]);
        assert!(changes[1].change.contains("removed") && changes[1].changed_by == "v");
        book.delete_service("u", &service.service_id).await.expect("deleted");
        assert_eq!(price(&book, second, "small").await, "0.6");
        assert_eq!(price(&book, second + 1, "small").await, "0");
        assert!(book.mapping(&cheap.mapping_id).await.is_err(), "went with its service");
    }
}

#[tokio::test]
async fn a_mapping_holds_from_its_start_until_before_its_end() {
    for (book, clock) in books().await {
        let service = book.create_service("u", "instance").await.expect("a service");
        let (now, hour) = (clock.now(), Duration::from_secs(3600));
        let service_id = Some(service.service_id.clone());
        let (start, end) = (Some(now.plus(hour)), Some(now.plus(hour * 2)));
        let new = NewMapping { service_id: service_id.clone(), start, end, ..flat("5") };
        let mapping = book.create_mapping("u", &new).await.expect("a mapping");
        let version = book.rule_version().await.expect("a version");
        for (hours, cost) in [(0.0, "0"), (1.0, "10"), (1.9, "10"), (2.0, "0")] {
            let at = now.plus(hour.mul_f64(hours));
            let rules = book.rules_of(version, at).await.expect("rules");
            let usage =
                Usage { service: "instance".into(), quantity: BigDecimal::from(2), description: Default::default() };
            let price = rules.hashmap.for_tenant(None).price(&usage).expect("a price");
            assert_eq!(price, decimal(cost).expect("a number"), "after {hours} h");
            assert!(rules.valid_from <= at && at < rules.valid_until);
            assert!(rules.valid_from == now.plus(hour) || hours != 1.9);
        }
        let other = NewMapping { service_id: service_id.clone(), start: Some(now.plus(hour * 3)), ..flat("6") };
        book.create_mapping("u", &other).await.expect("after it");
        for (start, end) in [(0, None), (1, Some(2)), (0, Some(3)), (2, Some(3))] {
            let start = Some(now.plus(hour * start));
            let end = end.map(|end| now.plus(hour * end));
            let twice = NewMapping { service_id: service_id.clone(), start, end, ..flat("7") };
            let error = book.create_mapping("u", &twice).await.expect_err("at the same time");
            assert!(matches!(error, BookError::Exists { .. }), "{error}");
        }
        let tenant = NewMapping { tenant_id: Some("p".into()), ..new.clone() };
        book.create_mapping("u", &tenant).await.expect("for one tenant");
        let past = NewMapping { service_id, start: Some(now.minus(hour)), end: Some(now), ..flat("1") };
        assert!(book.create_mapping("u", &past).await.is_err(), "in the past");
        book.create_mapping("u", &NewMapping { force: true, ..past }).await.expect("by force");
        // Before it begins all may change, afterwards the end alone.
        let cost = Some(decimal("8").expect("a number"));
        let change = MappingChange { cost: cost.clone(), end, ..MappingChange::default() };
        assert!(book.update_mapping("v", &mapping.mapping_id, &change).await.expect("changed"));
        let version = book.rule_version().await.expect("a version");
        assert!(!book.update_mapping("v", &mapping.mapping_id, &change).await.expect("the same again"));
        assert_eq!(book.rule_version().await.expect("a version"), version, "what changes nothing makes no version");
        let changed = book.mapping(&mapping.mapping_id).await.expect("a mapping");
        assert_eq!((Some(changed.cost), changed.updated_by.as_deref()), (cost, Some("v")));
        clock.advance(hour * 3 / 2);
        let longer = MappingChange { end: Some(now.plus(hour * 3)), ..change };
        assert!(book.update_mapping("v", &mapping.mapping_id, &longer).await.is_err(), "it has an end");
    }
}

#[tokio::test]
async fn a_running_mapping_can_only_be_given_an_end() {
    for (book, clock) in books().await {
        let service = book.create_service("u", "instance").await.expect("a service");
        let new = NewMapping { service_id: Some(service.service_id), ..flat("5") };
        let mapping = book.create_mapping("u", &new).await.expect("a mapping");
        clock.advance(Duration::from_secs(10));
        let cost = Some(decimal("6").expect("a number"));
        let dearer = MappingChange { cost, ..MappingChange::default() };
        let error = book.update_mapping("u", &mapping.mapping_id, &dearer).await.expect_err("running");
        assert!(error.to_string().starts_with("You are allowed to update only the attribute [end]"), "{error}");
        let past = MappingChange { end: Some(clock.now().minus(Duration::from_secs(1))), ..MappingChange::default() };
        assert!(book.update_mapping("u", &mapping.mapping_id, &past).await.is_err());
        let end = Some(clock.now().plus(Duration::from_secs(60)));
        let ends = MappingChange { end, cost: Some(mapping.cost), ..MappingChange::default() };
        assert!(book.update_mapping("u", &mapping.mapping_id, &ends).await.expect("ends"));
        assert!(!book.update_mapping("u", &mapping.mapping_id, &ends).await.expect("the same again"));
        assert_eq!(book.mapping(&mapping.mapping_id).await.expect("a mapping").end, end);
    }
}

#[tokio::test]
async fn groups_leave_or_take_their_costs_with_them() {
    for (book, _) in books().await {
        let service = book.create_service("u", "instance").await.expect("a service");
        for is_recursive in [false, true] {
            let group = book.create_group("u", "g").await.expect("a group");
            let (service_id, group_id) = (Some(service.service_id.clone()), Some(group.group_id.clone()));
            let new = NewMapping { service_id: service_id.clone(), group_id: group_id.clone(), ..flat("1") };
            let mapping = book.create_mapping("u", &new).await.expect("a mapping");
            let new = NewThreshold {
                level: BigDecimal::from(3),
                cost: BigDecimal::from(1),
                kind: Kind::Rate,
                service_id,
                field_id: None,
                group_id,
                tenant_id: None,
            };
            let threshold = book.create_threshold("u", &new).await.expect("a threshold");
            assert!(matches!(book.create_threshold("u", &new).await, Err(BookError::Exists { .. })));
            assert_eq!(book.group_of_mapping(&mapping.mapping_id).await.expect("a group"), group);
            book.delete_group("u", &group.group_id, is_recursive).await.expect("deleted");
            assert_eq!(book.mapping(&mapping.mapping_id).await.is_err(), is_recursive);
            assert_eq!(book.threshold(&threshold.threshold_id).await.is_err(), is_recursive);
            assert!(book.group_of_threshold(&threshold.threshold_id).await.is_err());
            book.delete_mapping("u", &mapping.mapping_id).await.ok();
            book.delete_threshold("u", &threshold.threshold_id).await.ok();
        }
    }
}

#[tokio::test]
async fn names_are_there_once_and_parents_must_be_there() {
    for (book, _) in books().await {
        let service = book.create_service("u", "instance").await.expect("a service");
        let error = book.create_service("u", "instance").await.expect_err("twice").to_string();
        assert_eq!(error, format!("Service instance already exists (UUID: {})", service.service_id));
        assert!(book.create_field("u", "no-such", "x").await.is_err());
        for (new, text) in [
            (flat("1"), "You must specify one parent."),
            (
                NewMapping { service_id: Some("a".into()), field_id: Some("b".into()), ..flat("1") },
                "You can only specify one parent.",
            ),
            (NewMapping { field_id: Some("b".into()), ..flat("1") }, "You must specify a value for a field mapping."),
            (NewMapping { service_id: Some("a".into()), ..flat("1") }, "No such service: None (UUID: a)"),
            (NewMapping { service_id: Some("a".into()), ..flat("1e-29") }, "the cost has more than 28 decimal places"),
        ] {
            assert_eq!(book.create_mapping("u", &new).await.expect_err(text).to_string(), text);
        }
        assert_eq!(book.rule_version().await.expect("a version"), 1, "what is refused makes no version");
        let nul = book.create_service("u", "a\0b").await.expect_err("not storable");
        assert!(matches!(nul, BookError::Database(error) if error.is_refusal()));
    }
}

#[tokio::test]
async fn a_scope_advances_only_from_what_was_seen() {
    for (book, clock) in books().await {
        let now = clock.now();
        let new = NewScope {
            scope_id: "p".into(),
            scope_key: None,
            fetcher: None,
            collector: None,
            active: true,
            rated_until: now,
        };
        assert!(book.create_scope(&new).await.expect("made"));
        assert!(!book.create_scope(&new).await.expect("there already"));
        let seen = book.scope("p").await.expect("a scope").expect("there");
        let hour = Duration::from_secs(3600);
        let after = book.advance(&seen, now.plus(hour), None).await.expect("advanced").expect("not lost");
        assert_eq!(after.rated_until, now.plus(hour));
        assert_eq!(
            book.advance(&seen, now.plus(hour), None).await.expect("no error"),
            None,
            "a second one is too late"
        );
        assert_eq!(book.reset_scopes(&["p".into(), "q".into()], now).await.expect("reset"), 1);
        assert_eq!(
            book.advance(&after, now.plus(hour * 2), None).await.expect("no error"),
            None,
            "it was reset meanwhile"
        );
        clock.advance(hour);
        let off = ScopeChange { active: Some(false), ..ScopeChange::default() };
        let off = book.change_scope("p", &off).await.expect("changed").expect("there");
        assert_eq!((off.active, off.toggled_at, off.scope_key.as_str()), (false, clock.now(), SCOPE_KEY));
        let filter = ScopeFilter { active: vec![true], ..ScopeFilter::default() };
        assert!(book.scopes(&filter, 0, 10).await.expect("scopes").is_empty());
        assert_eq!(book.scopes(&ScopeFilter::default(), 0, 10).await.expect("scopes"), [off]);
    }
}

#[tokio::test]
async fn tasks_do_not_overlap_and_end() {
    for (book, clock) in books().await {
        let (now, hour) = (clock.now(), Duration::from_secs(3600));
        let both = ["p".to_owned(), "q".to_owned()];
        let tasks = book.create_tasks("u", &both, "late data", now, now.plus(hour)).await.expect("tasks");
        let error = book.create_tasks("u", &both[1..], "again", now, now.plus(hour)).await.expect_err("overlaps");
        assert!(error.to_string().contains("already has a schedule"), "{error}");
        book.create_tasks("u", &both[..1], "after", now.plus(hour), now.plus(hour * 2)).await.expect("beside it");
        assert!(book.advance_task(&tasks[1], now.plus(hour)).await.expect("advanced"));
        assert!(!book.advance_task(&tasks[1], now.plus(hour)).await.expect("no error"), "somebody was faster");
        let waiting = TaskFilter { waiting: true, ..TaskFilter::default() };
        let numbers: Vec<i64> =
            book.tasks(&waiting, 0, 10).await.expect("tasks").iter().map(|task| task.number).collect();
        assert_eq!(numbers, [1, 3]);
        let of_q = TaskFilter { scope_ids: vec!["q".into()], descending: true, ..TaskFilter::default() };
        assert!(book.tasks(&of_q, 0, 10).await.expect("tasks")[0].is_done());
        book.create_tasks("u", &both[1..], "again", now, now.plus(hour)).await.expect("the first one is done");
    }
}

#[tokio::test]
async fn a_period_is_closed_once_and_modules_are_remembered() {
    for (book, clock) in books().await {
        let (now, day) = (clock.now(), Duration::from_secs(86_400));
        let period = ClosedPeriod {
            scope_id: "p".into(),
            begin: now,
            end: now.plus(day),
            closed_at: now.plus(day),
            closed_by: "u".into(),
            rule_version: 3,
            lines: 7,
            totals: [("EUR", "1.0000000001"), ("JPY", "10000")]
                .map(|(code, sum)| (code.to_owned(), decimal(sum).expect("a number")))
                .into(),
        };
        assert!(book.close_period(&period).await.expect("closed"));
        let overlapping = ClosedPeriod { begin: now.plus(day / 2), end: now.plus(day * 2), ..period.clone() };
        assert!(!book.close_period(&overlapping).await.expect("no error"));
        assert_eq!(book.closed_periods(Some("p"), now, now.plus(day)).await.expect("periods"), [period]);
        book.set_module("hashmap", Some(false), Some(7)).await.expect("set");
        let hashmap = book.modules().await.expect("modules").remove(0);
        assert_eq!((hashmap.enabled, hashmap.priority), (false, 7));
        assert!(book.set_module("pyscripts", Some(true), None).await.is_err());
        assert!(book.set_module("none", None, None).await.is_err());
    }
}

#[tokio::test]
async fn documents_have_versions_too() {
    for (book, clock) in books().await {
        let tax = |rate: &str| RuleDocument { kind: "tax".into(), id: "vat".into(), body: json!({"rate": rate}) };
        book.put_document("u", &tax("0.19")).await.expect("written");
        book.put_document("u", &tax("0.20")).await.expect("written");
        assert_eq!(book.documents("tax").await.expect("documents"), [tax("0.20")]);
        assert_eq!(book.rules_of(1, clock.now()).await.expect("rules").documents, [tax("0.19")]);
        book.delete_document("u", "tax", "vat").await.expect("removed");
        assert!(book.delete_document("u", "tax", "vat").await.is_err());
        assert!(book.documents("tax").await.expect("documents").is_empty());
    }
}
