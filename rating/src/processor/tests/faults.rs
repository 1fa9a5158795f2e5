//! Faults that were found on running installations, each named after what went wrong.

use serde_json::json;

use super::*;
use crate::book::Held;

const HOUR: i64 = 3600;

fn expression(text: &str) -> RuleDocument {
    let body = json!({"service": "instance", "expression": text});
    RuleDocument { kind: "expression".to_owned(), id: "e".to_owned(), body }
}

/// Fails for one flavor only.
const BROKEN: &str = "if(flavor_name == 'tiny', price / (quantity - quantity), price)";

/// Beside the tiny server a big one.
fn two() -> Vec<Evidence> {
    let big = Evidence { resource: "t".to_owned(), ..server(vec![event(9, 600, "big")]) };
    vec![server(vec![event(1, 600, "tiny")]), big]
}

impl Bench {
    async fn scope(&self) -> crate::book::ScopeState {
        self.book.scope("p").await.expect("read").expect("there")
    }

    async fn later(&self, hours: u64) -> Report {
        self.clock.advance(Duration::from_secs(3600 * hours));
        self.processor.advance(|_, _| ()).await.expect("rated")
    }
}

#[tokio::test]
async fn a_price_that_cannot_be_computed_takes_nothing_back() {
    let bench = bench().await;
    *bench.usage.0.lock() = two();
    bench.processor.advance(|_, _| ()).await.expect("rated");
    bench.processor.close("p", at(0), at(2 * HOUR), "a").await.expect("closed").expect("something");
    let before = bench.lines().await;
    bench.book.put_document("a", &expression(BROKEN)).await.expect("written");
    // A new hour, a second look at what late events are about, and all of it by the newest rules: another process did these.
    let first = bench.later(1).await;
    assert_eq!((first.unpriced, first.appended), (1, 1), "the big server is charged");
    let then = bench.processor.rate("p", (at(0), at(5 * HOUR)), RulesOf::Then, true).await.expect("rated again");
    assert_eq!((then.appended, then.reversed, then.unpriced), (0, 0, 1), "{:?}", then.changes);
    let now = bench.processor.rate("p", (at(0), at(5 * HOUR)), RulesOf::Now, false).await.expect("rated again");
    assert!(now.changes.iter().all(|own| own.resource == "t"), "the tiny one's lines stand: {:?}", now.changes);
    assert_eq!((now.unpriced, now.before == now.after), (5, true), "a new rule for the big one, at the same price");
    assert_eq!(now.findings[0].reason, "no price");
    assert!(now.findings[0].detail.contains("expression `e`: it divides by zero"), "{:?}", now.findings);
    assert_eq!(bench.processor.catch_up().await.expect("looked").appended, 0);
    bench.clock.set(at(36 * HOUR));
    assert_eq!(bench.processor.second().await.expect("looked").reversed, 0);
    let after = bench.lines().await;
    assert!(before.iter().all(|line| after.contains(line)) && after.iter().all(|line| !line.reverses));
}

#[tokio::test]
async fn a_scope_waits_for_a_price_says_so_and_makes_up_for_it_when_it_is_mended() {
    let bench = bench().await;
    *bench.usage.0.lock() = two();
    bench.processor.advance(|_, _| ()).await.expect("rated");
    bench.book.put_document("a", &expression(BROKEN)).await.expect("written");
    assert_eq!(bench.later(2).await.appended, 2, "the big server's two hours");
    let held = bench.scope().await;
    assert_eq!((held.rated_until, held.made_until()), (at(4 * HOUR), at(6 * HOUR)));
    let Some(Held { reason, .. }) = held.held else { panic!("it is held") };
    assert_eq!(reason, "instance of s from 2026-11-01T04:00:00Z: expression `e`: it divides by zero");
    let (_, told) = bench.processor.completeness("p", at(0), at(6 * HOUR)).await.expect("a table");
    let told: Vec<_> = told.iter().map(|own| (own.resource.as_str(), own.at, own.detail.as_str())).collect();
    let detail = "instance until 2026-11-01T06:00:00Z: expression `e`: it divides by zero";
    assert_eq!(told, [("s", at(4 * HOUR), detail)]);
    let refused = bench.processor.close("p", at(0), at(5 * HOUR), "a").await.expect_err("not all of it is rated");
    assert!(refused.to_string().contains("it is held by instance of s"), "{refused}");
    // Nothing has changed: only what is new is looked at.
    let next = bench.later(1).await;
    assert_eq!((next.periods, next.appended, next.unpriced), (1, 1, 1));
    // The price is mended, and others have changed meanwhile: what stands keeps its price.
    let service = bench.book.services().await.expect("services").remove(0).service_id;
    let all = NewMapping { cost: "1000".parse().expect("a number"), service_id: Some(service), ..empty_mapping() };
    bench.book.create_mapping("a", &all).await.expect("made");
    bench.book.put_document("a", &expression("5")).await.expect("written");
    let mended = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((mended.appended, mended.reversed, mended.unpriced), (3, 0, 0), "the tiny server's three hours");
    let scope = bench.scope().await;
    assert_eq!((scope.rated_until, scope.held), (at(7 * HOUR), None));
    let lines = bench.lines().await;
    let costs = |resource: &str| {
        let own = lines.iter().filter(|line| line.resource == resource);
        own.map(|line| line.cost.normalized().to_plain_string()).collect::<Vec<_>>()
    };
    assert_eq!(costs("s"), ["1", "1.2", "1.2", "1.2", "5", "5", "5"]);
    assert_eq!(costs("t"), ["3", "3.6", "3.6", "3.6", "3.6", "3.6", "3.6"]);
    // And it stays so, also when late events are looked at.
    assert_eq!(bench.processor.catch_up().await.expect("looked").appended, 0);
    assert_eq!(bench.processor.completeness("p", at(0), at(7 * HOUR)).await.expect("a table").1, []);
}

#[tokio::test]
async fn a_held_scope_is_tried_again_when_late_events_come() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    bench.book.put_document("a", &expression(BROKEN)).await.expect("written");
    bench.later(2).await;
    assert!(bench.scope().await.held.is_some());
    // It was resized before all this, as is told now.
    *bench.usage.0.lock() = vec![server(vec![event(1, 600, "tiny"), event(2, 4 * HOUR, "big")])];
    bench.processor.catch_up().await.expect("looked");
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let scope = bench.scope().await;
    assert_eq!((scope.rated_until, scope.held), (at(6 * HOUR), None));
    assert_eq!(bench.total().await, "11.8", "4.6, and two hours at 3.6");
}

#[tokio::test]
async fn an_operator_may_go_on_without_a_price() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    bench.book.put_document("a", &expression(BROKEN)).await.expect("written");
    bench.later(1).await;
    bench.book.reset_scopes(&["p".to_owned()], at(5 * HOUR)).await.expect("reset");
    assert_eq!(bench.scope().await.held, None);
    bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!(bench.scope().await.rated_until, at(5 * HOUR));
    let (_, told) = bench.processor.completeness("p", at(0), at(5 * HOUR)).await.expect("a table");
    assert_eq!(told.len(), 1, "it is told all the same: {told:?}");
}

#[tokio::test]
async fn a_number_that_no_line_holds_stops_nobody_else() {
    let bench = bench().await;
    *bench.usage.0.lock() = two();
    let huge = "if(flavor_name == 'tiny', 100000000000000000000 * 100000000000000000000, price)";
    bench.book.put_document("a", &expression(huge)).await.expect("written");
    let report = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((report.appended, report.unpriced), (4, 4), "the big server's hours");
    assert!(report.findings[0].detail.contains("28 digits"), "{:?}", report.findings);
}

#[tokio::test]
async fn all_time_is_cut_to_what_there_is() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    let all = (Timestamp::MIN, Timestamp::MAX);
    assert!(bench.processor.periods_in(all) > 80_000_000);
    let time = bench.processor.cut("p", all).await.expect("cut").expect("something");
    assert_eq!((time.1, bench.processor.periods_in(time)), (at(4 * HOUR), 32 * 24 + 4), "a month before it began");
    assert_eq!(bench.processor.rate("p", time, RulesOf::Now, false).await.expect("looked at").changes, []);
    assert_eq!(bench.processor.cut("q", all).await.expect("cut"), None, "nobody knows it");
    let asked = (at(-HOUR), at(HOUR));
    assert_eq!(
        bench.processor.cut("p", asked).await.expect("cut"),
        Some(asked),
        "short times are as they are asked for"
    );
}

#[tokio::test]
async fn a_close_cuts_no_period_and_leaves_no_gap() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    for (begin, end) in [(at(0), at(HOUR + 1800)), (at(1800), at(HOUR))] {
        let refused = bench.processor.close("p", begin, end, "a").await.expect_err("a period would be cut");
        assert!(refused.to_string().contains("within a rating period"), "{refused}");
    }
    bench.processor.close("p", at(0), at(HOUR), "a").await.expect("closed").expect("something");
    let refused = bench.processor.close("p", at(2 * HOUR), at(3 * HOUR), "a").await.expect_err("an hour between");
    let last = at(HOUR).to_string();
    assert!(refused.to_string().contains(&format!("closed until {last}")), "{refused}");
    assert!(bench.processor.close("p", at(HOUR), at(3 * HOUR), "a").await.expect("closed").is_some());
}

#[tokio::test]
async fn nothing_is_brought_into_what_is_closed() {
    let bench = bench().await;
    bench.processor.advance(|_, _| ()).await.expect("rated");
    bench.processor.close("p", at(0), at(2 * HOUR), "a").await.expect("closed").expect("something");
    let line = |hour: i64| {
        let (begin, end) = (at(hour * HOUR), at((hour + 1) * HOUR));
        RatedLine { period: begin, begin, end, rule: "pushed:1".to_owned(), ..crate::line::example() }.identified()
    };
    let before = bench.lines().await.len();
    let refused = bench.processor.bring_in(vec![line(3), line(1)]).await.expect_err("closed");
    assert!(matches!(&refused, ProcessorError::Closed { end, .. } if *end == at(2 * HOUR)), "{refused}");
    assert_eq!(bench.lines().await.len(), before, "all or nothing");
    assert_eq!(bench.processor.bring_in(vec![line(2), line(3)]).await.expect("kept"), 2);
}

#[tokio::test]
async fn a_scope_that_begins_with_the_first_of_all_years_is_rated_all_the_same() {
    let bench = bench().await;
    bench.processor.discover().await.expect("found");
    bench.book.reset_scopes(&["p".to_owned()], Timestamp::MIN).await.expect("reset");
    let report = bench.processor.advance(|_, _| ()).await.expect("rated");
    assert_eq!((report.periods, report.appended), (32 * 24 + 4, 4));
    assert_eq!(bench.scope().await.rated_until, at(4 * HOUR));
}
