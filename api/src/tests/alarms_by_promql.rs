//! Alarms of type `prometheus` without a Prometheus: they ask Orzo, as far as their project may look.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    house::House,
    ingest::{ask, post, write},
};

const NOW_MS: i64 = 1_795_291_200_000;

/// `load` is 7 in alice's project and 100 in bob's.
async fn furnished() -> House {
    let house = House::build().await;
    for (asker, value) in [("alice", 7.0), ("bob", 100.0)] {
        let answer = write(&house, asker, &[(&[("__name__", "load")], &[(NOW_MS, value)])]).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    }
    house
}

fn alarm(name: &str, query: &str) -> Value {
    let rule = json!({"query": query, "comparison_operator": "gt", "threshold": 50});
    json!({"name": name, "type": "prometheus", "prometheus_rule": rule})
}

async fn make(house: &House, asker: &str, alarm: &Value) -> Value {
    let made = post(house, asker, "/alarming/v2/alarms", "application/json", alarm.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    serde_json::from_str(&made.text).expect("JSON")
}

async fn test(house: &House, asker: &str, alarm: &Value) -> (StatusCode, Value) {
    let mut body = alarm.clone();
    body["start"] = json!("2026-11-21T20:00:00Z");
    body["stop"] = json!("2026-11-21T20:01:00Z");
    let answer = post(house, asker, "/alarming/v2/alarms/test", "application/json", body.to_string()).await;
    (answer.status, serde_json::from_str(&answer.text).unwrap_or_default())
}

#[tokio::test]
async fn a_prometheus_rule_is_tried_on_the_series_of_its_project() {
    let house = furnished().await;
    for (asker, query, value, state) in [
        ("alice", "sum(load)", json!(7.0), "ok"),
        ("alice", "sum({__name__=~\".+\"})", json!(7.0), "ok"),
        ("alice", "load or load{project=\"p2\"}", json!(7.0), "ok"),
        ("bob", "sum(load)", json!(100.0), "alarm"),
        ("admin", "sum(load)", json!(107.0), "alarm"),
    ] {
        let (status, timeline) = test(&house, asker, &alarm("a", query)).await;
        assert_eq!(status, StatusCode::OK, "{asker} {query}: {timeline}");
        let window = &timeline["windows"][0];
        assert_eq!((&window["value"], &window["state"]), (&value, &json!(state)), "{asker} {query}");
    }
    let mut narrowed = alarm("a", "sum(load)");
    for (asker, value) in [("admin", 100.0), ("alice", 7.0)] {
        narrowed["prometheus_rule"]["scope_to_project"] = json!("p2");
        let (_, timeline) = test(&house, asker, &narrowed).await;
        assert_eq!(timeline["windows"][0]["value"], value, "{asker}");
    }
    let (status, refused) = test(&house, "alice", &alarm("a", "sum(load[5m])")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
}

#[tokio::test]
async fn prometheus_alarms_are_evaluated_and_their_rules_show_health_and_errors() {
    let house = furnished().await;
    let health = async |asker: &str| {
        let (_, rules) = ask(&house, asker, "/prometheus/api/v1/rules").await;
        let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().expect("rules");
        let shown =
            |rule: &Value| [&rule["name"], &rule["state"], &rule["health"], &rule["lastError"]].map(Clone::clone);
        rules.iter().map(shown).collect::<Vec<_>>()
    };
    let calm = make(&house, "alice", &alarm("calm", "load")).await;
    let loud = make(&house, "bob", &alarm("loud", "load")).await;
    let everything = make(&house, "admin", &alarm("everything", "sum(load) > 100")).await;
    let unknown = ["calm", "inactive", "unknown"];
    assert_eq!(health("alice").await, [[json!(unknown[0]), json!(unknown[1]), json!(unknown[2]), Value::Null]]);

    let evaluator = house.evaluator();
    evaluator.tick().await.expect("a tick");
    house.clock.advance(Duration::from_secs(70));
    evaluator.tick().await.expect("a tick");
    for (asker, made, state) in [("alice", &calm, "ok"), ("bob", &loud, "alarm"), ("admin", &everything, "alarm")] {
        let path = format!("/alarming/v2/alarms/{}", made["alarm_id"].as_str().expect("an id"));
        let (_, shown) = ask(&house, asker, &path).await;
        assert_eq!(shown["state"], state, "{shown}");
    }
    assert_eq!(health("alice").await, [[json!("calm"), json!("inactive"), json!("ok"), Value::Null]]);
    assert_eq!(health("bob").await, [[json!("loud"), json!("firing"), json!("ok"), Value::Null]]);

    // The API takes what looks like PromQL; only the engine knows that a sum has no ranges.
    let broken = make(&house, "bob", &alarm("broken", "sum(load[5m])")).await;
    assert_eq!(broken["state"], "insufficient data");
    house.clock.advance(Duration::from_secs(60));
    evaluator.tick().await.expect("a tick");
    house.clock.advance(Duration::from_secs(60));
    evaluator.tick().await.expect("a tick");
    let shown = health("bob").await.into_iter().find(|rule| rule[0] == "broken").expect("the rule");
    assert_eq!((&shown[1], &shown[2]), (&json!("inactive"), &json!("err")), "{shown:?}");
    let error = shown[3].as_str().expect("an error");
    assert!(error.contains("got matrix"), "{error}");
    // What is wrong with another project's alarm nobody else hears.
    assert_eq!(health("alice").await.len(), 1);
}

#[tokio::test]
async fn evaluators_elsewhere_ask_in_promql_with_their_alarms_scope() {
    let house = furnished().await;
    let asked = |scope: Value, query: &str| json!({"scope": scope, "query": query, "at_us": NOW_MS * 1000}).to_string();
    let all = asked(json!("all"), "sum(load)");
    for (asker, body, status, bits) in [
        ("service", &all, StatusCode::OK, Some(107.0_f64)),
        ("service", &asked(json!({"project": "p1"}), "load"), StatusCode::OK, Some(7.0)),
        ("service", &asked(json!({"project": "p9"}), "load"), StatusCode::OK, None),
        ("alice", &all, StatusCode::FORBIDDEN, None),
    ] {
        let answer = post(&house, asker, "/watch/v1/instant", "application/json", body.clone()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let answer: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        assert_eq!(answer["Ok"][0].as_u64(), bits.map(f64::to_bits), "{answer}");
    }
}
