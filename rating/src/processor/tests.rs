//! Rating through the doors: once, again, after a crash, late, closed.

mod faults;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bigdecimal::BigDecimal;
use futures::TryStreamExt;
use orzo_database::Database;
use orzo_model::{Event, ManualClock, Measure, Rooms, Timestamp, Trait, TraitValue};
use parking_lot::Mutex;

use super::*;
use crate::{
    book::{ClosedPeriod, NewMapping, RatingBook, RuleDocument},
    doors::{Evidence, Ledger, LineFilter, MemoryLedger, UsageReadError, UsageReader, Wanted},
    line::{LineKind, RatedLine},
    metrics::Metrics,
};

/// 2026-11-01.
const START: i64 = 1_793_491_200;

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(START + second)
}

/// Usage that a test tells.
#[derive(Default)]
pub(super) struct Told(Mutex<Vec<Evidence>>);

#[async_trait]
impl UsageReader for Told {
    async fn scopes(&self, _begin: Timestamp, _end: Timestamp) -> Result<Vec<String>, UsageReadError> {
        Ok(vec!["p".to_owned()])
    }

    async fn first(&self, _: &str) -> Result<Option<Timestamp>, UsageReadError> {
        Ok(Some(at(600)))
    }

    async fn late(&self, _: Option<i64>, begin: Timestamp) -> Result<(Vec<(String, Timestamp)>, i64), UsageReadError> {
        Ok((vec![("p".to_owned(), begin.max(at(0)))], 1))
    }

    async fn evidence(
        &self,
        _scope: &str,
        _begin: Timestamp,
        _end: Timestamp,
        _wanted: &[Wanted],
    ) -> Result<Vec<Evidence>, UsageReadError> {
        Ok(self.0.lock().clone())
    }
}

fn event(number: u32, second: i64, flavor: &str) -> Event {
    let text = |name: &str, value: &str| Trait { name: name.to_owned(), value: TraitValue::Text(value.to_owned()) };
    Event {
        message_id: format!("m{number}"),
        event_type: "compute.instance.update".to_owned(),
        generated_at: at(second),
        traits: vec![
            text("project_id", "p"),
            text("instance_type", flavor),
            Trait { name: "launched_at".to_owned(), value: TraitValue::Datetime(at(600)) },
        ],
        raw: None,
    }
}

fn server(events: Vec<Event>) -> Evidence {
    Evidence {
        resource: "s".to_owned(),
        resource_type: "instance".to_owned(),
        started_at: at(600),
        ended_at: None,
        revisions: Vec::new(),
        events,
        measures: BTreeMap::from([("cpu".to_owned(), vec![Measure { timestamp: at(900), value: 1.0 }])]),
    }
}

struct Bench {
    clock: Arc<ManualClock>,
    ledger: Arc<MemoryLedger>,
    book: Arc<RatingBook>,
    usage: Arc<Told>,
    processor: Processor,
    _directory: tempfile::TempDir,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(at(6 * 3600));
    let database = Database::open_file(&directory.path().join("db")).await.expect("a database");
    let book = Arc::new(RatingBook::open(database, clock.clone()).await.expect("a book"));
    let service = book.create_service("a", "instance").await.expect("made").service_id;
    let field = book.create_field("a", &service, "flavor_name").await.expect("made").field_id;
    for (flavor, cost) in [("tiny", "1.2"), ("big", "3.6")] {
        let mapping = NewMapping {
            value: Some(flavor.to_owned()),
            cost: cost.parse().expect("a number"),
            kind: crate::Kind::Flat,
            field_id: Some(field.clone()),
            ..empty_mapping()
        };
        book.create_mapping("a", &mapping).await.expect("made");
    }
    let (ledger, usage) = (Arc::new(MemoryLedger::default()), Arc::new(Told::default()));
    *usage.0.lock() = vec![server(vec![event(1, 600, "tiny")])];
    let processor = Processor::new(
        ledger.clone(),
        book.clone(),
        usage.clone(),
        Metrics::shipped(),
        clock.clone(),
        Rooms::new(&prometheus::Registry::new()).room("rating"),
        RatingSettings::default(),
    );
    Bench { clock, ledger, book, usage, processor, _directory: directory }
}

/// The sum of what was closed, in its one currency.
fn total_of(closed: &ClosedPeriod) -> &BigDecimal {
    assert_eq!(closed.totals.len(), 1, "{closed:?}");
    &closed.totals["USD"]
}

fn empty_mapping() -> NewMapping {
    NewMapping {
        value: None,
        cost: BigDecimal::default(),
        kind: crate::Kind::Flat,
        service_id: None,
        field_id: None,
        group_id: None,
        tenant_id: None,
        start: Some(at(-1)),
        end: None,
        name: None,
        description: None,
        force: true,
    }
}

impl Bench {
    async fn lines(&self) -> Vec<RatedLine> {
        let all = self.ledger.read(&LineFilter::default()).await.expect("read");
        all.try_collect().await.expect("lines")
    }

    async fn total(&self) -> String {
        let sum: BigDecimal = self.lines().await.into_iter().map(|line| line.cost).sum();
        sum.normalized().to_plain_string()
    }
}

#[tokio::test]
async fn every_active_scope_is_rated_as_far_as_can_be_and_again_adds_nothing() {
    let bench = bench().await;
    let report = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((report.lines, report.appended), (4, 4), "hours 0 to 3; two more have to be over");
    assert_eq!(bench.total().await, "4.6", "3000 seconds and three hours at 1.2");
    let first = &bench.lines().await[0];
    assert_eq!((first.begin, first.end, first.period), (at(600), at(3600), at(0)));
    assert_eq!(first.quantity.to_string(), "0.8333333333");
    assert_eq!((first.unit_price.to_string().as_str(), first.samples), ("1.2000000000", 1));
    assert_eq!(first.groupby.get("project_id").map(String::as_str), Some("p"));
    let again = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((again.lines, again.appended), (0, 0));
    // As after a crash between the append and the note of how far it came.
    let state = bench.book.scope("p").await.expect("read").expect("there");
    bench.book.advance(&state, at(0), None).await.expect("set back");
    let repeated = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((repeated.lines, repeated.appended, repeated.reversed), (4, 0, 0));
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(bench.processor.advance(|_, _| ()).await.expect("rated").appended, 1);
}

#[tokio::test]
async fn what_comes_late_after_a_crash_is_corrected_and_not_added() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let state = bench.book.scope("p").await.expect("read").expect("there");
    bench.book.advance(&state, at(0), None).await.expect("set back");
    // The first line would keep its id and its old cost if ids alone decided.
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 1800, "big")])];
    let report = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((report.appended, report.reversed), (9, 4));
    assert_eq!(bench.total().await, "13", "1200 s at 1.2, then at 3.6");
}

#[tokio::test]
async fn late_events_are_found_and_corrected() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!(bench.processor.catch_up().await.expect("looked").appended, 0);
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 7200, "big")])];
    assert_eq!(bench.processor.catch_up().await.expect("looked").appended, 4);
    assert_eq!(bench.total().await, "9.4");
}

#[tokio::test]
async fn a_report_comes_before_anything_is_written() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 7200, "big")])];
    let report = bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, false).await.expect("looked at");
    assert_eq!((report.appended, report.changes.len()), (0, 2));
    assert_eq!(report.before["instance"].normalized().to_string(), "4.6");
    assert_eq!(report.after["instance"].normalized().to_string(), "9.4");
    assert_eq!(bench.total().await, "4.6");
}

#[tokio::test]
async fn a_closed_period_gets_no_line_any_more() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let refused = bench.processor.close("p", at(0), at(5 * 3600), "a").await.expect_err("not rated yet");
    assert!(refused.to_string().contains("cannot be closed yet"), "{refused}");
    let closed = bench.processor.close("p", at(0), at(4 * 3600), "a").await.expect("closed").expect("something");
    assert_eq!((closed.lines, total_of(&closed).normalized().to_string().as_str()), (4, "4.6"));
    assert_eq!(bench.processor.close("p", at(0), at(4 * 3600), "a").await.expect("closed"), None::<ClosedPeriod>);
    let before = bench.lines().await;
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 7200, "big")])];
    let report = bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, true).await.expect("rated again");
    assert_eq!((report.appended, report.reversed), (4, 2));
    let after = bench.lines().await;
    let within: Vec<RatedLine> = after.iter().filter(|line| line.period < at(4 * 3600)).cloned().collect();
    assert_eq!(within, before, "what was closed is as it was");
    let new: Vec<&RatedLine> = after.iter().filter(|line| line.period >= at(4 * 3600)).collect();
    assert!(new.iter().all(|line| line.corrects.is_some() && line.period == at(6 * 3600)));
    assert_eq!(bench.total().await, "9.4");
    // Again, and a change of rules on top.
    assert_eq!(bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, true).await.expect("again").appended, 0);
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny")])];
    bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, true).await.expect("and back");
    assert_eq!(bench.total().await, "4.6");
    *bench.usage.0.lock() = Vec::new();
    bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, true).await.expect("all gone");
    assert_eq!(bench.total().await, "0");
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny")])];
    bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, true).await.expect("and there again");
    assert_eq!(bench.total().await, "4.6");
    let all = bench.lines().await;
    assert!(all.iter().all(|line| line.identity() == line.id));
}

#[tokio::test]
async fn a_bill_is_settled_when_it_is_closed_also_after_a_try_that_died() {
    let bench = bench().await;
    let tax = |percent: &str| RuleDocument {
        kind: "tax".to_owned(),
        id: "vat".to_owned(),
        body: serde_json::json!({"percent": percent}),
    };
    bench.book.put_document("a", &tax("10")).await.expect("written");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    // A try that got as far as its lines, with another tax.
    bench.processor.settle("p", at(0), at(4 * 3600)).await.expect("settled");
    assert_eq!(bench.total().await, "5.06");
    bench.book.put_document("a", &tax("20")).await.expect("written");
    let closed = bench.processor.close("p", at(0), at(4 * 3600), "a").await.expect("closed").expect("something");
    assert_eq!(total_of(&closed).normalized().to_string(), "5.52", "4.6 and a fifth");
    assert_eq!(bench.total().await, "5.52");
}

#[tokio::test]
async fn what_a_try_has_left_is_taken_back_also_where_its_bill_began_later() {
    let bench = bench().await;
    let body = serde_json::json!({"percent": 10});
    let tax = RuleDocument { kind: "tax".to_owned(), id: "vat".to_owned(), body };
    bench.book.put_document("a", &tax).await.expect("written");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    bench.processor.settle("p", at(3600), at(2 * 3600)).await.expect("settled");
    assert_eq!(bench.total().await, "4.72");
    let closed = bench.processor.close("p", at(0), at(4 * 3600), "a").await.expect("closed").expect("something");
    assert_eq!(total_of(&closed).normalized().to_string(), "5.06");
}

/// Since January: 3 a month, with 2 instances' hours.
fn reserved() -> RuleDocument {
    let body = serde_json::json!({"name": "Reserved", "service": "instance", "amount": "3", "quantity": 2,
        "frequency": "monthly", "valid_from": "2026-01-01T00:00:00Z"});
    RuleDocument { kind: "purchase".to_owned(), id: "reserved".to_owned(), body }
}

#[tokio::test]
async fn a_package_is_charged_once_a_month_and_bills_share_what_it_covers() {
    let bench = bench().await;
    bench.book.put_document("a", &reserved()).await.expect("written");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let expected = bench.processor.expected("p", at(0), at(2 * 3600)).await.expect("told");
    let costs: Vec<String> = expected.iter().map(|line| line.cost.normalized().to_plain_string()).collect();
    assert_eq!(costs, ["3", "-2.2"], "1.8333333333 of the 2 hours");
    assert_eq!(bench.total().await, "4.6", "nothing is written");
    // From the beginning: not for the months before there was anything.
    let closed = bench.processor.close("p", Timestamp::EPOCH, at(2 * 3600), "a").await.expect("closed").expect("some");
    assert_eq!((closed.lines, total_of(&closed).normalized().to_string().as_str()), (4, "3"));
    let mut settled = bench.lines().await;
    settled.retain(|line| line.kind != LineKind::Usage);
    settled.sort_by_key(|line| line.kind);
    assert_eq!(settled, expected, "as was told");
    // The rest of the month: 0.1666666667 of two hours are left, no second fee.
    let closed = bench.processor.close("p", at(0), at(4 * 3600), "a").await.expect("closed").expect("some");
    assert_eq!((closed.lines, total_of(&closed).normalized().to_string().as_str()), (3, "2.2"));
    // What comes to light later is corrected at list price; what is settled stays.
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 7200, "big")])];
    assert_eq!(bench.processor.catch_up().await.expect("looked").appended, 4);
    assert_eq!(bench.total().await, "10", "5.2, and two hours at 2.4 more");
}

#[tokio::test]
async fn rules_that_hold_for_a_time_hold_in_a_projects_first_bill() {
    let bench = bench().await;
    let body = serde_json::json!({"percent": 10, "valid_from": "2026-11-01T00:00:00Z"});
    let tax = RuleDocument { kind: "tax".to_owned(), id: "vat".to_owned(), body };
    bench.book.put_document("a", &tax).await.expect("written");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let closed = bench.processor.close("p", Timestamp::EPOCH, at(4 * 3600), "a").await.expect("closed").expect("some");
    assert_eq!(total_of(&closed).normalized().to_string(), "5.06");
    let line = bench.lines().await.into_iter().find(|line| line.kind == LineKind::Tax).expect("a tax");
    assert_eq!((line.begin, line.end), (at(0), at(4 * 3600)), "it is no tax since 1970");
}

#[tokio::test]
async fn whole_periods_are_charged_as_cloudkitty_does() {
    let mut bench = bench().await;
    let settings = RatingSettings { mode: Mode::CloudKitty, ..RatingSettings::default() };
    bench.processor = Processor::new(
        bench.ledger.clone(),
        bench.book.clone(),
        bench.usage.clone(),
        Metrics::shipped(),
        bench.clock.clone(),
        Rooms::new(&prometheus::Registry::new()).room("rating"),
        settings,
    );
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let lines = bench.lines().await;
    assert_eq!(lines.len(), 1, "an hour without points is not charged");
    assert_eq!(
        (lines[0].begin, lines[0].end, lines[0].cost.normalized().to_string()),
        (at(0), at(3600), "1.2".to_owned())
    );
}

const TRAFFIC: &str = "metrics:
  network.incoming.bytes:
    unit: B
    alt_name: traffic
    groupby: [id, project_id]
    extra_args: {resource_type: instance, usage: increase}
";

#[tokio::test]
async fn samples_that_come_late_are_in_the_second_rating_by_the_rules_of_the_first() {
    let mut bench = bench().await;
    let service = bench.book.create_service("a", "traffic").await.expect("made").service_id;
    let cost = |cost: &str| NewMapping {
        cost: cost.parse().expect("a number"),
        service_id: Some(service.clone()),
        ..empty_mapping()
    };
    let mapping = bench.book.create_mapping("a", &cost("2")).await.expect("made");
    bench.processor = Processor::new(
        bench.ledger.clone(),
        bench.book.clone(),
        bench.usage.clone(),
        Metrics::parse(TRAFFIC, "traffic.yml").expect("metrics"),
        bench.clock.clone(),
        Rooms::new(&prometheus::Registry::new()).room("rating"),
        RatingSettings::default(),
    );
    let counted = |values: &[(i64, f64)]| {
        let points = values.iter().map(|(second, value)| Measure { timestamp: at(*second), value: *value }).collect();
        let measures = BTreeMap::from([("network.incoming.bytes".to_owned(), points)]);
        vec![Evidence { measures, ..server(vec![event(1, 600, "tiny")]) }]
    };
    *bench.usage.0.lock() = counted(&[(900, 5.0)]);
    bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!(bench.total().await, "10");
    // Prices change, and an agent's spool comes in; no event tells of it.
    bench.book.delete_mapping("a", &mapping.mapping_id).await.expect("deleted");
    bench.book.create_mapping("a", &cost("100")).await.expect("made");
    *bench.usage.0.lock() = counted(&[(900, 5.0), (1500, 7.0), (4000, 8.0)]);
    assert_eq!(bench.processor.second().await.expect("looked").appended, 0, "the day is not over");
    bench.clock.set(at(36 * 3600));
    assert_eq!(
        bench.processor.second().await.expect("looked").appended,
        3,
        "one taken back, one in its place, one new"
    );
    let lines = bench.lines().await;
    let effective = effective(&lines);
    let costs: Vec<String> = effective.iter().map(|line| line.cost.normalized().to_plain_string()).collect();
    assert_eq!(costs, ["14", "100"], "what was rated keeps its price; what nobody had rated has today's");
    assert_eq!(bench.processor.second().await.expect("looked").lines, 0, "once a day");
    // A day before the project was rated stays unrated.
    bench.clock.set(at(12 * 3600));
    let fresh = Processor::new(
        bench.ledger.clone(),
        bench.book.clone(),
        bench.usage.clone(),
        Metrics::parse(TRAFFIC, "traffic.yml").expect("metrics"),
        bench.clock.clone(),
        Rooms::new(&prometheus::Registry::new()).room("rating"),
        RatingSettings::default(),
    );
    assert_eq!(fresh.second().await.expect("looked").lines, 0);
}

#[tokio::test]
async fn late_events_correct_by_the_rules_of_the_first_time() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let service = bench.book.services().await.expect("services").remove(0).service_id;
    let all = NewMapping { cost: "1000".parse().expect("a number"), service_id: Some(service), ..empty_mapping() };
    bench.book.create_mapping("a", &all).await.expect("made");
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 7200, "big")])];
    assert_eq!(bench.processor.catch_up().await.expect("looked").appended, 4);
    assert_eq!(bench.total().await, "9.4");
    let newest = bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, false).await.expect("looked at");
    assert_eq!(newest.changes.len(), 4, "asked for the newest rules all of it differs");
}

#[tokio::test]
async fn an_expression_makes_the_price_of_its_services_lines() {
    let bench = bench().await;
    let expression = RuleDocument {
        kind: "expression".to_owned(),
        id: "loyal".to_owned(),
        body: serde_json::json!({"service": "instance", "projects": ["p"], "valid_from": at(7200),
            "expression": "if(flavor_name == 'tiny', price / 2, price) + 0.01"}),
    };
    bench.book.put_document("a", &expression).await.expect("written");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let lines = bench.lines().await;
    let costs: Vec<String> = lines.iter().map(|line| line.cost.normalized().to_plain_string()).collect();
    assert_eq!(costs, ["1", "1.2", "0.61", "0.61"]);
    assert_eq!(
        (lines[1].rule.as_str(), lines[2].rule.as_str()),
        ("hashmap/instance/0", "hashmap/instance/0/expression/loyal")
    );
    // Lines with an expression are held against the ledger as all others.
    assert_eq!(bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, true).await.expect("again").appended, 0);
    // One that has no value for a usage makes no line, and says so.
    let wrong =
        RuleDocument { body: serde_json::json!({"service": "instance", "expression": "flavor_name"}), ..expression };
    bench.book.put_document("a", &wrong).await.expect("written");
    let report = bench.processor.rate("p", (at(0), at(4 * 3600)), RulesOf::Now, false).await.expect("looked at");
    assert_eq!((report.lines, report.findings[0].reason), (0, "no price"));
    assert!(report.findings[0].detail.contains("`loyal`"), "{:?}", report.findings);
}

#[tokio::test]
async fn a_line_is_explained_down_to_events_and_points() {
    let bench = bench().await;
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 1800, "big")])];
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let service = bench.book.services().await.expect("services").remove(0).service_id;
    let all = NewMapping { cost: "1000".parse().expect("a number"), service_id: Some(service), ..empty_mapping() };
    bench.book.create_mapping("a", &all).await.expect("made");
    let lines = bench.lines().await;
    let told = bench.processor.explain(&lines[0]).await.expect("explained");
    assert!(told.has_its_id && told.is_reproduced, "by the rules of its version, whatever they are now: {told:?}");
    assert_eq!(told.rated_anew.as_ref().map(|own| own.id), Some(lines[0].id));
    assert_eq!((told.events.len(), told.points.len(), told.counts), (2, 1, [2, 0, 1]));
    assert_eq!(told.points[0]["timestamp"], serde_json::json!(at(900)));
    assert_eq!(told.stretches.len(), 2, "tiny and big");
    assert_eq!(told.rules[0]["fields"][0]["mappings"][0]["cost"], "1.2");
    assert_eq!(told.completeness.as_ref().map(|own| (own.expected, own.present)), Some((10, 1)));
    // What happened turns out to be otherwise: the line is not what it would be now.
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "big")])];
    assert!(!bench.processor.explain(&lines[0]).await.expect("explained").is_reproduced);
    let foreign = RatedLine { rule: "pushed".to_owned(), ..lines[0].clone() };
    let told = bench.processor.explain(&foreign).await.expect("explained");
    assert!(told.events.is_empty() && !told.has_its_id && told.rated_anew.is_none());
}

#[tokio::test]
async fn completeness_is_told_for_every_resource() {
    let bench = bench().await;
    let points = (900..7200).step_by(300).filter(|second| !(3600..4500).contains(second));
    let points = points.map(|second| Measure { timestamp: at(second), value: 1.0 }).collect();
    let measures = BTreeMap::from([("cpu".to_owned(), points)]);
    *bench.usage.0.lock() = vec![Evidence { measures, ..server(vec![event(1, 600, "tiny")]) }];
    let (table, findings) = bench.processor.completeness("p", at(0), at(7200)).await.expect("a table");
    assert_eq!(table.len(), 1, "{table:?}");
    assert_eq!((table[0].expected, table[0].present), (22, 18));
    assert_eq!(table[0].missing, [(at(600), at(900)), (at(3600), at(4500))]);
    assert!(findings.is_empty());
    assert!(bench.processor.completeness("q", at(0), at(7200)).await.expect("a table").0.is_empty(), "another's");
    let year = bench.processor.completeness("p", at(0), at(365 * 86_400)).await.expect_err("too much");
    assert!(year.to_string().contains("are answered at once"), "{year}");
}

fn rule(kind: &str, id: &str, body: serde_json::Value) -> RuleDocument {
    RuleDocument { kind: kind.to_owned(), id: id.to_owned(), body }
}

#[tokio::test]
async fn a_month_closed_in_pieces_gives_a_credit_and_an_included_quantity_once() {
    let mut totals = Vec::new();
    for ends in [&[4][..], &[1, 2, 4], &[3, 4]] {
        let bench = bench().await;
        for document in [
            rule("credit", "c", serde_json::json!({"amount": "0.5"})),
            rule("credit", "welcome", serde_json::json!({"amount": 2, "frequency": "once"})),
            rule("included", "i", serde_json::json!({"service": "instance", "quantity": "1.5"})),
            rule("minimum", "m", serde_json::json!({"amount": 3})),
            rule("tax", "t", serde_json::json!({"percent": 19})),
        ] {
            bench.book.put_document("a", &document).await.expect("written");
        }
        bench.processor.advance(|_, _| ()).await.expect("rated");
        let mut closed = BigDecimal::default();
        for end in ends {
            let end = at(end * 3600);
            let expected = bench.processor.expected("p", at(0), end).await;
            assert!(expected.is_ok(), "{expected:?}");
            let own = bench.processor.close("p", Timestamp::EPOCH, end, "a").await.expect("closed").expect("some");
            closed += total_of(&own);
        }
        assert_eq!(bench.total().await, closed.normalized().to_plain_string());
        let given: BigDecimal =
            bench.lines().await.iter().filter(|own| own.rule.starts_with("price/credit/")).map(|own| &own.cost).sum();
        assert_eq!(given.normalized().to_plain_string(), "-2.5", "once, in {ends:?}");
        totals.push(bench.total().await);
    }
    // 4.6, less 1.5 of 3.8333333333 hours at 1.2; at least 3; less 2.5; and a fifth less a hundredth on it.
    assert_eq!(totals, ["0.595", "0.595", "0.595"]);
}

#[tokio::test]
async fn a_closing_record_has_a_sum_for_each_currency() {
    let bench = bench().await;
    let yen = serde_json::json!({"code": "JPY", "projects": ["p"], "valid_from": at(2 * 3600)});
    bench.book.put_document("a", &rule("currency", "only-p", yen)).await.expect("written");
    bench.book.put_document("a", &rule("tax", "t", serde_json::json!({"percent": 10}))).await.expect("written");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let closed = bench.processor.close("p", at(0), at(4 * 3600), "a").await.expect("closed").expect("some");
    let sums: Vec<_> = closed.totals.iter().map(|(code, sum)| (code.as_str(), sum.normalized().to_string())).collect();
    assert_eq!(sums, [("JPY", "2.64".to_owned()), ("USD", "2.42".to_owned())]);
    assert_eq!(bench.book.closed_periods(Some("p"), at(0), at(1)).await.expect("read"), [closed]);
}
