//! Faults of the rating's faces that were found on running installations, each named after what went wrong.

use serde_json::{Value, json};

use super::{house::House, rating::expect};

const PUSH: &str = "/v2/dataframes";

/// One point of p1's in a time.
fn frame(begin: &str, end: &str, quantity: &str) -> Value {
    let point = json!({"vol": {"unit": "GiB", "qty": quantity}, "rating": {"price": 0.5},
                       "groupby": {"project_id": "p1", "id": "d1"}, "metadata": {}});
    json!({"dataframes": [{"period": {"begin": begin, "end": end}, "usage": {"disk": [point]}}]})
}

async fn refused(house: &House, path: &str, body: &Value, status: u16, words: &[&str]) {
    let told = expect(house, "admin", "POST", path, body, status).await;
    let text = told["message"].as_str().expect("a text");
    assert!(words.iter().all(|word| text.contains(word)), "{body}: {text}");
}

/// p1's server, which is priced, rated until 2026-11-21T18:00:00Z.
async fn rated() -> House {
    let house = House::build().await;
    let hashmap = "/v1/rating/module_config/hashmap";
    let made = expect(&house, "admin", "POST", &format!("{hashmap}/services"), &json!({"name": "instance"}), 201).await;
    let mapping =
        json!({"service_id": made["service_id"], "cost": "0.5", "type": "flat", "start": "2026-11-01T00:00:00"});
    expect(&house, "admin", "POST", &format!("{hashmap}/mappings?force=true"), &mapping, 201).await;
    house.processor.advance(|_, _| ()).await.expect("rated");
    house
}

#[tokio::test]
async fn a_dataframe_into_a_closed_period_is_refused() {
    let house = rated().await;
    let close = json!({"scope_ids": ["p1"], "end": "2026-11-21T00:00:00Z"});
    let closed = expect(&house, "admin", "POST", "/v2/periods", &close, 201).await;
    assert_eq!(closed["periods"][0]["lines"], 6);
    let into = frame("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", "1");
    refused(&house, PUSH, &into, 409, &["p1", "2026-11-21T00:00:00", "closed"]).await;
    let of_closed = "/v2/lines?project_id=p1&begin=2026-11-20&end=2026-11-21";
    let lines = expect(&house, "admin", "GET", of_closed, &Value::Null, 200).await;
    assert_eq!(lines["lines"].as_array().map(Vec::len), Some(6), "as it was closed");
    expect(&house, "admin", "POST", PUSH, &frame("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", "1"), 204).await;
}

#[tokio::test]
async fn dataframes_of_impossible_times_are_refused_with_place_and_reason() {
    let house = House::build().await;
    for (begin, end, why) in [
        ("0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "it begins before 1970"),
        ("1969-12-31T23:00:00Z", "1970-01-01T01:00:00Z", "it begins before 1970"),
        ("2150-01-01T00:00:00Z", "2150-01-01T01:00:00Z", "32 days after now"),
        ("2026-01-01T00:00:00Z", "2027-01-03T00:00:00Z", "longer than 366 days"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "ends before it begins"),
    ] {
        refused(&house, PUSH, &frame(begin, end, "1"), 400, &["dataframes[0].period", why]).await;
    }
    let huge = "1".repeat(29);
    let place = "dataframes[0].usage.disk[0].vol.qty";
    refused(&house, PUSH, &frame("2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", &huge), 400, &[place]).await;
    // CloudKitty takes what is given back.
    expect(&house, "admin", "POST", PUSH, &frame("2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", "-1"), 204).await;
}

#[tokio::test]
async fn a_preview_of_all_time_looks_at_what_there_is() {
    let house = rated().await;
    let all = json!({"scope_ids": ["ALL"], "begin": "0001-01-01T00:00:00Z", "end": "9999-12-31T00:00:00Z"});
    let report = expect(&house, "admin", "POST", "/v2/rerate", &all, 200).await;
    assert_eq!((&report["periods"], &report["lines"]), (&json!(32 * 24 + 24), &json!(24)), "{report}");
}

#[tokio::test]
async fn a_preview_of_more_than_is_looked_at_at_once_names_the_limit() {
    let house = House::build().await;
    for number in 0..101 {
        let scope = json!({"scope_id": format!("s{number}"), "last_processed_timestamp": "2026-11-10T00:00:00Z"});
        expect(&house, "admin", "POST", "/v2/scope", &scope, 200).await;
    }
    let year = json!({"scope_ids": ["ALL"], "begin": "2025-09-20T00:00:00Z", "end": "2026-11-10T00:00:00Z"});
    refused(&house, "/v2/rerate", &year, 400, &["1000000 are previewed at once"]).await;
}

#[tokio::test]
async fn a_close_within_a_period_or_with_a_gap_is_refused() {
    let house = rated().await;
    let close = |begin: Option<&str>, end: &str| match begin {
        Some(begin) => json!({"scope_ids": ["p1"], "begin": begin, "end": end}),
        None => json!({"scope_ids": ["p1"], "end": end}),
    };
    let within = close(None, "2026-11-21T02:52:30Z");
    refused(&house, "/v2/periods", &within, 400, &["02:00:00", "03:00:00", "within a rating period"]).await;
    expect(&house, "admin", "POST", "/v2/periods", &close(None, "2026-11-21T00:00:00Z"), 201).await;
    let gap = close(Some("2026-11-21T01:00:00Z"), "2026-11-21T03:00:00Z");
    refused(&house, "/v2/periods", &gap, 400, &["closed until 2026-11-21T00:00:00"]).await;
}

#[tokio::test]
async fn an_export_of_a_project_that_nobody_knows_is_refused() {
    let house = rated().await;
    let export =
        |project: &str| json!({"profile": "focus-1.2-csv", "begin": "2026-11-01", "projects": ["p1", project]});
    refused(&house, "/v2/exports", &export("typo"), 400, &["`typo`"]).await;
    // One that only the ledger knows.
    let mut foreign = frame("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", "1");
    foreign["dataframes"][0]["usage"]["disk"][0]["groupby"]["project_id"] = json!("gone");
    expect(&house, "admin", "POST", PUSH, &foreign, 204).await;
    expect(&house, "admin", "POST", "/v2/exports", &export("gone"), 202).await;
}

#[tokio::test]
async fn an_expression_that_can_have_no_price_is_refused_where_it_is_written() {
    let house = rated().await;
    for (text, words) in [
        ("price / (quantity - quantity)", ["`e`", "it divides by zero"]),
        ("if(flavor_nam == 'small', 1, price)", ["`flavor_nam`", "flavor_name"]),
    ] {
        let body = json!({"service": "instance", "expression": text});
        let told = expect(&house, "admin", "PUT", "/v2/prices/expression/e", &body, 400).await;
        let told = told["message"].as_str().expect("a text");
        assert!(words.iter().all(|word| told.contains(word)), "{text}: {told}");
    }
}

#[tokio::test]
async fn a_scope_without_a_price_is_plainly_held() {
    let house = House::build().await;
    let body = json!({"service": "instance", "expression": "price / (quantity - 1)"});
    expect(&house, "admin", "PUT", "/v2/prices/expression/e", &body, 200).await;
    house.processor.advance(|_, _| ()).await.expect("rated");
    let scopes = expect(&house, "admin", "GET", "/v2/scope?scope_id=p1", &Value::Null, 200).await;
    let own = &scopes["results"][0];
    assert_eq!(own["last_processed_timestamp"], "2026-11-20T18:00:00+00:00");
    assert!(own["held"]["reason"].as_str().is_some_and(|text| text.contains("it divides by zero")), "{own}");
    let table = "/v2/completeness?begin=2026-11-20T18:00:00&end=2026-11-20T20:00:00";
    let told = expect(&house, "alice", "GET", table, &Value::Null, 200).await;
    assert_eq!(told["disagreements"][0]["reason"], "no price", "{told}");
    assert_eq!(told["held"]["rated_until"], "2026-11-20T18:00:00+00:00");
}
