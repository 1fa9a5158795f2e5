//! Each rule of the arithmetic by itself; all of them together are compared with CloudKitty by `tests/differential/rating`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::decimal::decimal;

fn price(rules: &Value, tenant: Option<&str>, quantity: &str, description: Value) -> String {
    let list = HashMap::from_json(rules).expect("rules").for_tenant(tenant);
    let description: BTreeMap<String, Value> = serde_json::from_value(description).expect("an object");
    let usage = Usage { service: "instance".to_owned(), quantity: decimal(quantity).expect("a number"), description };
    list.price(&usage).map_or_else(|error| error.to_string(), |price| price.normalized().to_plain_string())
}

fn instance(parts: Value) -> Value {
    let mut service = json!({"name": "instance"});
    service.as_object_mut().expect("an object").extend(parts.as_object().expect("an object").clone());
    json!({"services": [service]})
}

fn mapping(value: &str, kind: &str, cost: &str) -> Value {
    json!({"value": value, "type": kind, "cost": cost})
}

#[test]
fn the_largest_flat_counts_and_rates_multiply() {
    let fields = json!([
        {"name": "flavor", "mappings": [mapping("tiny", "flat", "0.1"), mapping("big", "flat", "0.5")]},
        {"name": "image", "mappings": [mapping("linux", "flat", "0.2"), mapping("windows", "rate", "1.5")]},
        {"name": "zone", "mappings": [mapping("far", "rate", "2")]},
    ]);
    let rules = instance(json!({"fields": fields}));
    assert_eq!(price(&rules, None, "2", json!({"flavor": "tiny", "image": "linux"})), "0.4");
    assert_eq!(price(&rules, None, "2", json!({"flavor": "big", "image": "linux"})), "1");
    assert_eq!(price(&rules, None, "1", json!({"flavor": "big", "image": "windows", "zone": "far"})), "1.5");
    assert_eq!(price(&rules, None, "1", json!({"image": "windows"})), "0", "a rate of nothing");
    assert_eq!(price(&rules, None, "1", json!({"flavor": "unknown"})), "0");
}

/// Found by the comparison with CloudKitty, seed 20269309.
#[test]
fn a_flat_price_of_more_than_28_digits_is_rounded_where_no_threshold_is_reached() {
    let flat = json!([{"type": "flat", "cost": "293.888940256506489036775094034"}]);
    let fields = json!([{"name": "zone", "mappings": [mapping("far", "rate", "5.326195858828606921972598638")]}]);
    let rules = instance(json!({"mappings": flat, "fields": fields}));
    assert_eq!(price(&rules, None, "54.3", json!({"zone": "far"})), "84996.33607065048721975209927");
}

#[test]
fn thresholds_of_services_and_fields_count_at_different_points() {
    let flat = json!([{"type": "flat", "cost": "3"}]);
    let thresholds =
        json!([{"level": "5", "type": "rate", "cost": "0.9"}, {"level": "10", "type": "rate", "cost": "0.5"}]);
    let rules = instance(json!({"mappings": flat, "thresholds": thresholds}));
    assert_eq!(price(&rules, None, "4", json!({})), "12");
    assert_eq!(price(&rules, None, "5", json!({})), "13.5", "a level is reached at its own value");
    assert_eq!(price(&rules, None, "10", json!({})), "15", "only the highest counts");
    let adds = instance(json!({"mappings": flat, "thresholds": [{"level": 0, "type": "flat", "cost": "1.5"}]}));
    assert_eq!(price(&adds, None, "2", json!({})), "7.5", "added to the product");
    let field = json!([{"name": "disk", "thresholds": [{"level": 100, "type": "flat", "cost": "1.5"}]}]);
    let of_field = instance(json!({"mappings": flat, "fields": field}));
    assert_eq!(price(&of_field, None, "2", json!({"disk": 100})), "9", "added to the flat part");
    assert_eq!(price(&of_field, None, "2", json!({"disk": "99.99"})), "6");
    let text = price(&of_field, None, "2", json!({"disk": "many"}));
    assert_eq!(
        text,
        "service `instance`, field `disk` has thresholds, and `many` is no decimal number: digits are expected"
    );
}

#[test]
fn groups_are_summed_and_a_tenants_own_entry_replaces_that_of_all() {
    let grouped = |group: &str, tenant: Option<&str>, cost: &str| json!({"type": "flat", "cost": cost, "group": group, "tenant_id": tenant});
    let mappings = [grouped("a", None, "1"), grouped("b", None, "10"), grouped("a", Some("t"), "0.5")];
    let rules = instance(json!({"mappings": mappings}));
    assert_eq!(price(&rules, None, "1", json!({})), "11");
    assert_eq!(price(&rules, Some("t"), "1", json!({})), "10.5");
    assert_eq!(price(&rules, Some("u"), "1", json!({})), "11");
    let other = HashMap::from_json(&rules).expect("rules").for_tenant(None);
    let usage = Usage { service: "volume".to_owned(), quantity: BigDecimal::one(), description: BTreeMap::new() };
    assert_eq!(other.price(&usage), Ok(BigDecimal::zero()));
}

#[test]
fn wrong_rules_are_refused_with_their_place() {
    let refused = |parts: Value| HashMap::from_json(&instance(parts)).expect_err("must be refused").to_string();
    let field = |mappings: Value, thresholds: Value| json!({"fields": [{"name": "f", "mappings": mappings, "thresholds": thresholds}]});
    let cases = [
        (
            json!({"mappings": [{"type": "flat", "cost": "x"}]}),
            "services[0].mappings[0].cost: `x` is no decimal number: digits are expected",
        ),
        (
            json!({"mappings": [{"type": "flat", "cost": "1", "value": "v"}]}),
            "services[0].mappings[0]: a mapping of a service has no value; write it under a field",
        ),
        (
            field(json!([{"type": "flat", "cost": "1"}]), json!([])),
            "services[0].fields[0].mappings[0]: a mapping of a field needs the value that it is for",
        ),
        (
            field(json!([]), json!([{"type": "rate", "cost": 1}])),
            "services[0].fields[0].thresholds[0]: the level is missing",
        ),
        (
            field(
                json!([]),
                json!([{"type": "rate", "cost": 1, "level": 1}, {"type": "rate", "cost": 2, "level": "1.0"}]),
            ),
            "services[0].fields[0].thresholds[1]: another threshold is at the same level, group and tenant",
        ),
        (
            field(json!([mapping("v", "flat", "1"), mapping("v", "rate", "2")]), json!([])),
            "services[0].fields[0].mappings[1]: another mapping is for the same value, group and tenant",
        ),
        (json!({"fields": [{"name": ""}]}), "services[0].fields[0].name: it is empty"),
    ];
    for (parts, text) in cases {
        assert_eq!(refused(parts), text);
    }
    for parts in [
        json!({"mappings": [{"type": "cheap", "cost": 1}]}),
        json!({"prices": []}),
        json!({"mappings": [{"type": "flat", "cost": null}]}),
    ] {
        refused(parts);
    }
    let twice = json!({"services": [{"name": "a"}, {"name": "a"}]});
    assert_eq!(HashMap::from_json(&twice).expect_err("twice").to_string(), "services[1].name: `a` is there twice");
}
