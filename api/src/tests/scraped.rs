//! What Prometheus' faces tell of targets, rules and the process: to operators, to members, to others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use orzo_model::MetricMetadata;
use serde_json::{Value, json};

use super::{
    house::House,
    ingest::{ask, post, write},
};
use crate::{TargetView, Targets};

/// An exporter of p3's and one of p0's, which is shown a token.
pub(super) struct TwoTargets;

impl Targets for TwoTargets {
    fn targets(&self) -> Vec<TargetView> {
        let target = |name: &str, project: &str, has_token, metadata: &[(&str, &str, &str, &str)]| TargetView {
            name: name.to_owned(),
            url: format!("http://{name}:9100/metrics"),
            project: project.to_owned(),
            labels: vec![("instance".to_owned(), format!("{name}:9100")), ("job".to_owned(), name.to_owned())],
            has_token,
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            is_up: Some(true),
            last_error: String::new(),
            last_at: None,
            last_duration: Duration::ZERO,
            metadata: Arc::new(about(metadata)),
        };
        vec![
            target("node", "p3", false, &[("up_s", "gauge", "How long.", "s"), ("hits_total", "counter", "", "")]),
            target("front", "p0", true, &[("hits_total", "counter", "Hits.", "")]),
        ]
    }
}

fn about(rows: &[(&str, &str, &str, &str)]) -> BTreeMap<String, MetricMetadata> {
    rows.iter().map(|(name, kind, help, unit)| ((*name).to_owned(), MetricMetadata::new(kind, help, unit))).collect()
}

async fn data(house: &House, asker: &str, path: &str) -> Value {
    let (status, answer) = ask(house, asker, &format!("/prometheus/api/v1/{path}")).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    answer["data"].clone()
}

#[tokio::test]
async fn metadata_of_targets_is_answered_and_not_always_empty() {
    let house = House::build().await;
    let target = |name: &str| json!({"instance": format!("{name}:9100"), "job": name});
    let row = |name: &str, metric: &str, kind: &str, help: &str, unit: &str| json!({"target": target(name), "metric": metric, "type": kind, "help": help, "unit": unit});
    let node = [row("node", "hits_total", "counter", "", ""), row("node", "up_s", "gauge", "How long.", "s")];
    let front = row("front", "hits_total", "counter", "Hits.", "");
    let all = json!([node[0], node[1], front]);
    for (asker, path, expected) in [
        ("admin", "targets/metadata", all.clone()),
        ("admin", "targets/metadata?limit=-1&metric=&match_target=", all.clone()),
        ("rick", "targets/metadata", json!(node)),
        ("alice", "targets/metadata", json!([])),
        ("admin", "targets/metadata?limit=0", json!([])),
        ("admin", "targets/metadata?limit=1", json!(node)),
        ("admin", "targets/metadata?match_target=%7Bjob%3D%22front%22%7D", json!([front])),
        ("rick", "targets/metadata?match_target=%7Bjob%3D%22front%22%7D", json!([])),
        ("admin", "targets/metadata?metric=up", json!([])),
        (
            "admin",
            "targets/metadata?metric=hits_total",
            json!([
                {"target": target("node"), "type": "counter", "help": "", "unit": ""},
                {"target": target("front"), "type": "counter", "help": "Hits.", "unit": ""},
            ]),
        ),
    ] {
        assert_eq!(data(&house, asker, path).await, expected, "{asker} {path}");
    }
    for (path, part) in [("limit=x", "limit must be a number"), ("match_target=%7Bjob", "match_target")] {
        let (status, answer) = ask(&house, "admin", &format!("/prometheus/api/v1/targets/metadata?{path}")).await;
        assert_eq!((status, &answer["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{path}");
        assert!(answer["error"].as_str().is_some_and(|text| text.contains(part)), "{answer}");
    }
}

#[tokio::test]
async fn rules_are_chosen_by_every_parameter_of_prometheus() {
    let house = House::build().await;
    for (name, severity) in [("a", "critical"), ("b", "low")] {
        let alarm = json!({
            "name": name, "type": "prometheus", "severity": severity,
            "prometheus_rule": {"query": "up", "threshold": 5, "comparison_operator": "gt"},
        });
        let made = post(&house, "alice", "/alarming/v2/alarms", "application/json", alarm.to_string()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let id = serde_json::from_str::<Value>(&made.text).expect("JSON")["alarm_id"].clone();
        let path = format!("/alarming/v2/alarms/{}/state", id.as_str().expect("an id"));
        let request = http::Request::put(path).header("x-auth-token", "alice");
        let request = request.header("content-type", "application/json").body("\"alarm\"".into());
        assert_eq!(super::ingest::send(&house, request.expect("a request")).await.status, StatusCode::OK);
    }
    for (question, expected) in [
        ("", vec!["a 1", "b 1"]),
        ("rule_name[]=a", vec!["a 1"]),
        ("rule_name[]=a&rule_name[]=b", vec!["a 1", "b 1"]),
        ("rule_group[]=alarms&file[]=orzo", vec!["a 1", "b 1"]),
        ("rule_group[]=other", vec![]),
        ("file[]=other&file[]=third", vec![]),
        ("match[]=%7Bseverity%3D%22low%22%7D", vec!["b 1"]),
        ("match[]=%7Bseverity%3D%22low%22%7D&match[]=%7Bseverity%3D~%22crit.*%22%7D", vec!["a 1", "b 1"]),
        ("match[]=%7Bseverity%3D%22low%22%7D&rule_name[]=a", vec![]),
        ("exclude_alerts=true", vec!["a 0", "b 0"]),
        ("exclude_alerts=false&group_limit=1", vec!["a 1", "b 1"]),
    ] {
        let answer = data(&house, "alice", &format!("rules?{question}")).await;
        let rules = answer["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        let mut rows: Vec<String> = rules
            .iter()
            .map(|rule| {
                let alerts = rule["alerts"].as_array().map_or(0, Vec::len);
                format!("{} {alerts}", rule["name"].as_str().unwrap_or_default())
            })
            .collect();
        rows.sort();
        assert_eq!(rows, expected, "{question}");
        assert!(answer.get("groupNextToken").is_none(), "{answer}");
    }
    for question in [
        "match[]=%7B",
        "exclude_alerts=perhaps",
        "group_limit=0",
        "group_limit=x",
        "group_next_token=x",
        "group_limit=1&group_next_token=x",
    ] {
        let (status, answer) = ask(&house, "alice", &format!("/prometheus/api/v1/rules?{question}")).await;
        assert_eq!((status, &answer["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{question}");
    }
}

#[tokio::test]
async fn status_tells_what_is_true_and_operators_more() {
    let house = House::build().await;
    for asker in ["admin", "alice"] {
        let (up, is_operator) = (data(&house, asker, "status/runtimeinfo").await, asker == "admin");
        assert_eq!(up["startTime"], "2026-11-21T20:00:00+00:00");
        assert_eq!(up["CWD"].as_str().is_some_and(str::is_empty), !is_operator, "{up}");
        let told = data(&house, asker, "status/config").await;
        let yaml = told["yaml"].as_str().expect("a text");
        assert_eq!(yaml.contains("job_name: \"front\""), is_operator, "{yaml}");
        assert_eq!(yaml.contains("credentials: <secret>"), is_operator, "{yaml}");
        assert_eq!(data(&house, asker, "status/walreplay").await, json!({"min": 0, "max": 0, "current": 0}));
        assert_eq!(data(&house, asker, "notifications").await, json!([]));
    }
    assert_eq!(ask(&house, "admin", "/prometheus/api/v1/notifications/live").await.0, StatusCode::NOT_FOUND);
    let now = 1_795_291_200_000;
    let samples = [(now - 60_000, 1.0), (now, 2.0)];
    assert_eq!(write(&house, "alice", &[(&[("__name__", "up")], &samples)]).await.status, StatusCode::NO_CONTENT);
    for (asker, first, last) in [("admin", now - 60_000, now), ("alice", 0, 0)] {
        let told = data(&house, asker, "status/tsdb").await["headStats"].clone();
        assert_eq!((&told["minTime"], &told["maxTime"]), (&json!(first), &json!(last)), "{asker}");
    }
}
