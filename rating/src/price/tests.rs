//! What bills come to by hand.

mod months;

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{purchase::Taken, *};
use crate::{
    RatedLine,
    line::{LineKind, cost_of, example},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Rules in euros, as the lines are.
fn euros(list: &[(&str, &str, Value)]) -> Prices {
    let euro = ("currency", "euro", json!({"code": "EUR"}));
    Prices::from_documents(&documents(&[&[euro], list].concat())).expect("rules")
}

fn documents(list: &[(&str, &str, Value)]) -> Vec<RuleDocument> {
    let document = |(kind, id, body): &(&str, &str, Value)| RuleDocument {
        kind: (*kind).to_owned(),
        id: (*id).to_owned(),
        body: body.clone(),
    };
    list.iter().map(document).collect()
}

/// Two services: 10 instances at 2, and 1500 MB at 0.1.
fn usage() -> Vec<RatedLine> {
    let number = |text: &str| text.parse::<BigDecimal>().expect("a number");
    let mut lines = vec![example(); 10];
    let traffic = RatedLine {
        service: "traffic".to_owned(),
        quantity: number("1500"),
        cost: number("150"),
        unit: "MB".to_owned(),
        ..example()
    };
    lines.push(traffic);
    lines
}

fn settled(list: &[(&str, &str, Value)]) -> Vec<(String, String, String)> {
    let prices = euros(list);
    let lines = usage();
    let at = Timestamp::from_secs;
    let bill = Bill { scope: "p", begin: at(0), end: at(7200), period: HOUR, earlier: &Earlier::default() };
    let made = prices.settle(&bill, &lines, (3, at(9000)));
    assert!(made.iter().all(|line| line.identity() == line.id && line.period == at(3600)));
    made.iter()
        .map(|line| (line.service.clone(), line.kind.name().to_owned(), line.cost.normalized().to_plain_string()))
        .collect()
}

fn row(service: &str, kind: &str, cost: &str) -> (String, String, String) {
    (service.to_owned(), kind.to_owned(), cost.to_owned())
}

#[test]
fn a_bill_is_settled_in_a_fixed_order() {
    let steps = json!([{"above": 0, "unit_price": "0.1"}, {"above": "1000", "unit_price": "0.05"}]);
    let made = settled(&[
        ("tax", "vat", json!({"percent": "19"})),
        ("credit", "welcome", json!({"amount": "30"})),
        ("discount", "partner", json!({"percent": 10})),
        ("minimum", "least", json!({"service": "instance", "amount": 25})),
        ("included", "free", json!({"service": "traffic", "quantity": "500"})),
        ("tiers", "volume", json!({"service": "traffic", "steps": steps})),
    ]);
    // 150 → 125 by tiers, a third of it free: 83.33...; 20 → 25; a tenth off; 30 given; 19 % on the rest.
    assert_eq!(
        made,
        [
            row("traffic", "Adjustment", "-25"),
            row("traffic", "Credit", "-41.6666666667"),
            row("instance", "Adjustment", "5"),
            row("bill", "Credit", "-10.8333333333"),
            row("bill", "Credit", "-30"),
            row("tax", "Tax", "12.825"),
        ]
    );
}

#[test]
fn rules_hold_for_their_projects_and_times_only() {
    let hour = "1970-01-01T01:00:00Z";
    assert_eq!(settled(&[("tax", "t", json!({"percent": 10, "valid_from": hour}))]), []);
    assert_eq!(settled(&[("tax", "t", json!({"percent": 10, "projects": ["q"]}))]), []);
    let own = json!({"percent": 10, "projects": ["p"], "valid_until": hour});
    assert_eq!(settled(&[("tax", "t", own)]), [row("tax", "Tax", "17")]);
    assert_eq!(settled(&[("credit", "c", json!({"amount": 1000}))]), [row("bill", "Credit", "-170")]);
    let tax = |domains: Value| ("tax", "d", json!({"percent": 10, "domains": domains, "projects": ["q"]}));
    let domain = ("domain", "acme", json!({"projects": ["o", "p"]}));
    assert_eq!(settled(&[tax(json!(["acme"])), domain.clone()]), [row("tax", "Tax", "17")]);
    assert_eq!(settled(&[tax(json!(["other"])), domain]), []);
    assert_eq!(settled(&[tax(json!(["acme"]))]), [], "nobody is in a domain that no rule names");
    let two = [("tax", "a", json!({"percent": 10})), ("tax", "b", json!({"percent": 10}))];
    assert_eq!(settled(&two), [row("tax", "Tax", "17"), row("tax", "Tax", "17")], "no tax on tax");
    let currency = documents(&[("currency", "c", json!({"code": "EUR"}))]);
    assert_eq!(Prices::from_documents(&currency).expect("rules").currency("p", Timestamp::EPOCH), "EUR");
}

#[test]
fn wrong_rules_are_named() {
    let at = Timestamp::from_secs;
    for (kind, body, told) in [
        ("tax", json!({}), "tax `x`: percent is missing"),
        ("tax", json!({"percent": "ten"}), "tax `x`: `ten` is no decimal number: digits are expected"),
        ("tax", json!({"percent": -1}), "tax `x`: percent is below zero"),
        ("discount", json!({"percent": 101}), "discount `x`: percent is above 100"),
        ("tiers", json!({"service": "s", "steps": []}), "tiers `x`: 1 to 100 steps are expected"),
        (
            "tiers",
            json!({"service": "s", "steps": [{"above": 1, "unit_price": 1}]}),
            "tiers `x`: steps begin above 0, and each is above the one before",
        ),
        ("included", json!({"quantity": 1}), "included `x`: service is missing"),
        ("currency", json!({"code": "euro"}), "currency `x`: `euro` is no ISO 4217 code, such as EUR"),
        ("credit", json!({"amount": 1, "size": 2}), "credit `x`: unknown field `size`"),
        ("domain", json!({}), "domain `x`: projects are missing"),
        ("purchase", json!({}), "purchase `x`: name is missing"),
        ("purchase", json!({"name": "n"}), "purchase `x`: frequency is missing: once or monthly"),
        ("purchase", json!({"name": "n", "frequency": "daily"}), "purchase `x`: frequency is once or monthly"),
        ("purchase", json!({"name": "n", "frequency": "once"}), "purchase `x`: valid_from is missing"),
        (
            "purchase",
            json!({"name": "n", "frequency": "once", "valid_from": at(5), "valid_until": at(5)}),
            "purchase `x`: valid_until is not after valid_from",
        ),
        ("purchase", json!({"name": "n", "frequency": "once", "valid_from": at(5)}), "purchase `x`: amount is missing"),
        (
            "purchase",
            json!({"name": "n", "frequency": "once", "valid_from": at(5), "amount": -1}),
            "purchase `x`: amount is below zero",
        ),
        (
            "purchase",
            json!({"name": "n", "frequency": "once", "valid_from": at(5), "amount": 1, "quantity": 1}),
            "purchase `x`: service is missing: the quantity is one of a service",
        ),
        ("expression", json!({"service": "s"}), "expression `x`: expression is missing"),
        (
            "expression",
            json!({"service": "s", "expression": "price *"}),
            "expression `x`: at character 8: a value is expected",
        ),
    ] {
        let error = Prices::from_documents(&documents(&[(kind, "x", body)])).expect_err(told).to_string();
        assert!(error.starts_with(told), "{error}");
    }
}

/// A monthly purchase since the epoch, with these fields instead.
fn monthly(fields: Value) -> Value {
    let mut body = json!({"name": "Reserved", "frequency": "monthly", "valid_from": Timestamp::EPOCH, "amount": 20});
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    body
}

#[test]
fn a_purchase_is_charged_used_or_not_and_covers_usage_before_all_else() {
    let package = monthly(json!({"service": "traffic", "quantity": "500"}));
    let steps = json!([{"above": 0, "unit_price": "0.1"}, {"above": 800, "unit_price": "0.05"}]);
    // 500 of 1500 at 0.1 are covered; of the 1000 left 200 are in the second step; 20 + 90 + 20 are taxed.
    let made = settled(&[
        ("tax", "vat", json!({"percent": 10})),
        ("tiers", "volume", json!({"service": "traffic", "steps": steps})),
        ("purchase", "pack", package.clone()),
    ]);
    assert_eq!(
        made,
        [
            row("traffic", "Purchase", "20"),
            row("traffic", "Adjustment", "-50"),
            row("traffic", "Adjustment", "-10"),
            row("tax", "Tax", "13"),
        ]
    );
    // What the others see: the service without what is covered (100 → 90 → 95 → 85.5) and without the fee, the bill with it.
    let made = settled(&[
        ("included", "free", json!({"service": "traffic", "quantity": 100})),
        ("minimum", "least", json!({"service": "traffic", "amount": 95})),
        ("discount", "partner", json!({"service": "traffic", "percent": 10})),
        ("credit", "welcome", json!({"amount": 30})),
        ("tax", "vat", json!({"percent": 20})),
        ("purchase", "pack", package),
    ]);
    assert_eq!(
        made[2..],
        [
            row("traffic", "Credit", "-10"),
            row("traffic", "Adjustment", "5"),
            row("traffic", "Credit", "-9.5"),
            row("bill", "Credit", "-30"),
            row("tax", "Tax", "19.1"),
        ]
    );
    let unused = monthly(json!({"service": "backup", "quantity": 5}));
    assert_eq!(settled(&[("purchase", "x", unused)]), [row("backup", "Purchase", "20")]);
    assert_eq!(settled(&[("purchase", "x", monthly(json!({})))]), [row("purchase", "Purchase", "20")]);
    let free = monthly(json!({"service": "traffic", "quantity": 5, "amount": 0}));
    assert_eq!(settled(&[("purchase", "x", free)]), [row("traffic", "Adjustment", "-0.5")]);
    let large = monthly(json!({"service": "traffic", "quantity": "1e9"}));
    assert_eq!(settled(&[("purchase", "x", large)])[1], row("traffic", "Adjustment", "-150"), "no more than there is");
    // Each project of a domain buys its own; others buy nothing.
    let of_domain = ("purchase", "x", monthly(json!({"domains": ["acme"]})));
    assert_eq!(settled(&[of_domain.clone(), ("domain", "acme", json!({"projects": ["p"]}))]).len(), 1);
    assert_eq!(settled(&[of_domain, ("domain", "acme", json!({"projects": ["q"]}))]), []);
}

fn time(text: &str) -> Timestamp {
    format!("{text}T00:00:00Z").parse().expect("a time")
}

/// So much traffic at 0.1, used on a day.
fn traffic(day: &str, quantity: i64) -> RatedLine {
    let quantity = BigDecimal::from(quantity);
    let cost = cost_of(&(&quantity / BigDecimal::from(10)));
    let begin = time(day);
    RatedLine { service: "traffic".to_owned(), begin, end: begin, period: begin, quantity, cost, ..example() }
        .identified()
}

/// What a bill is settled with.
fn bill(
    rules: &[(&str, &str, Value)],
    (begin, end): (&str, &str),
    lines: &[RatedLine],
    settled: &[RatedLine],
) -> Vec<RatedLine> {
    let prices = euros(rules);
    let (begin, end) = (time(begin), time(end));
    let earlier = Earlier { settled: settled.to_vec(), lines: Vec::new() };
    prices.settle(&Bill { scope: "p", begin, end, period: HOUR, earlier: &earlier }, lines, (3, end))
}

/// Kind, cost, begin and end of lines.
fn shown(lines: &[RatedLine]) -> Vec<String> {
    let day = |time: Timestamp| time.zulu_secs()[5..10].to_owned();
    let cost = |line: &RatedLine| line.cost.normalized().to_plain_string();
    lines.iter().map(|own| format!("{} {} {} {}", own.kind.name(), cost(own), day(own.begin), day(own.end))).collect()
}

#[test]
fn a_fee_is_due_when_its_term_begins_and_is_whole() {
    let body = json!({"valid_from": "2026-10-15T00:00:00Z", "valid_until": "2026-12-10T00:00:00Z"});
    let rules = [("purchase", "x", monthly(body.clone()))];
    let of = |begin, end| shown(&bill(&rules, (begin, end), &[], &[]));
    assert_eq!(of("2026-09-01", "2026-10-01"), [""; 0], "not bought yet");
    assert_eq!(of("2026-10-01", "2026-11-01"), ["Purchase 20 10-15 11-01"]);
    assert_eq!(of("2026-11-01", "2026-11-16"), ["Purchase 20 11-01 12-01"]);
    assert_eq!(of("2026-11-16", "2026-12-01"), [""; 0], "the bill before has it");
    assert_eq!(of("2026-12-01", "2027-01-01"), ["Purchase 20 12-01 12-10"]);
    assert_eq!(of("2027-01-01", "2027-02-01"), [""; 0]);
    let all = bill(&rules, ("2026-10-01", "2027-01-01"), &[], &[]);
    let ids: BTreeSet<Uuid> = all.iter().map(|line| line.id).collect();
    assert_eq!((ids.len(), &all[0].unit, &all[0].unit_price), (3, &"Months".to_owned(), &BigDecimal::from(20)));
    assert_eq!(bill(&rules, ("2026-10-01", "2027-01-01"), &[], &[]), all, "the same lines, the same ids");
    let mut once = monthly(body);
    once["frequency"] = json!("once");
    let of = |begin, end| shown(&bill(&[("purchase", "x", once.clone())], (begin, end), &[], &[]));
    assert_eq!(of("2026-10-01", "2026-11-01"), ["Purchase 20 10-15 12-10"]);
    assert_eq!(of("2026-11-01", "2026-12-01"), [""; 0], "once");
    once["valid_until"] = Value::Null;
    let of = |begin, end| shown(&bill(&[("purchase", "x", once.clone())], (begin, end), &[], &[]));
    assert_eq!(of("2026-10-01", "2026-11-01"), ["Purchase 20 10-15 11-01"], "without end, until the bill's");
}

#[test]
fn a_package_lasts_over_bills_until_it_is_used_up() {
    let fields = json!({"frequency": "once", "service": "traffic", "quantity": 2000, "valid_from": "2026-10-15T00:00:00Z",
        "valid_until": "2027-10-15T00:00:00Z"});
    let rules = [("purchase", "x", monthly(fields))];
    let of = |begin, end, lines: &[RatedLine], settled: &[RatedLine]| bill(&rules, (begin, end), lines, settled);
    let october = [traffic("2026-10-14", 300), traffic("2026-10-15", 1500)];
    let first = of("2026-10-01", "2026-11-01", &october, &[]);
    assert_eq!(shown(&first), ["Purchase 20 10-15 10-15", "Adjustment -150 10-15 11-01"], "300 were used before");
    let facts: Vec<(&str, &str)> =
        first[1].metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        facts,
        [
            ("amortized", "15"),
            ("covered", "1500"),
            ("frequency", "once"),
            ("name", "Reserved"),
            ("rule", "x"),
            ("term", "2026-10-15T00:00:00.000000Z"),
        ]
    );
    let november = [traffic("2026-11-03", 1500)];
    let second = of("2026-11-01", "2026-12-01", &november, &first);
    assert_eq!(shown(&second), ["Adjustment -50 11-01 12-01"]);
    let both = [first.clone(), second].concat();
    assert_eq!(shown(&of("2026-12-01", "2027-01-01", &[traffic("2026-12-01", 9)], &both)), [""; 0], "used up");
    // What was taken back is not taken; a package that grows covers more.
    let back = first[1].reversal(first[1].period, first[1].rated_at);
    assert_eq!(Taken::of(&[first[1].clone(), back]), Taken::default());
    let prices = Prices::from_documents(&documents(&rules)).expect("rules");
    let since = |day| {
        let begin = time(day);
        prices.looks_back("p", begin, begin.plus(Duration::from_secs(86_400)))
    };
    let october = Some((time("2026-10-01"), vec!["traffic".to_owned()]));
    assert_eq!((since("2026-10-15"), since("2026-11-01")), (None, october));
    assert_eq!(since("2027-10-15"), None, "over");
}

#[test]
fn packages_of_different_times_share_usage_and_cover_nothing_twice() {
    let package = |from: &str, until: &str| {
        monthly(json!({"service": "traffic", "quantity": 10, "valid_from": time(from), "valid_until": time(until)}))
    };
    let rules = [
        ("purchase", "a", package("2026-11-01", "2026-12-01")),
        ("purchase", "b", package("2026-11-15", "2026-11-20")),
    ];
    let of = |lines: &[RatedLine]| {
        let made = bill(&rules, ("2026-11-01", "2026-12-01"), lines, &[]);
        let covers = made.iter().filter(|line| line.kind == LineKind::Adjustment);
        covers.map(|line| format!("{} {}", line.metadata["rule"], line.metadata["covered"])).collect::<Vec<_>>()
    };
    assert_eq!(of(&[traffic("2026-11-05", 8), traffic("2026-11-16", 8)]), ["b 8", "a 8"]);
    assert_eq!(of(&[traffic("2026-11-16", 18)]), ["b 10", "a 8"], "what ends first is used first");
    assert_eq!(of(&[traffic("2026-11-21", 18)]), ["a 10"]);
    // A correction is usage of its time; where it leaves nothing, nothing is covered.
    let line = traffic("2026-11-05", 8);
    let back = line.reversal(time("2026-11-25"), time("2026-11-25"));
    assert_eq!(of(&[line.clone(), back.clone()]), [""; 0]);
    assert_eq!(of(&[back, traffic("2026-11-05", 3)]), [""; 0], "taken back is more than is there");
    let free = RatedLine { cost: BigDecimal::from(0), ..line };
    assert_eq!(of(&[free]), [""; 0], "what costs nothing takes nothing of a package");
}
