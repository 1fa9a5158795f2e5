//! The access matrix: every route of the metric API × administrator, service, creator, project reader, other project,
//! nobody. The rows say who may act and who may see; the cells are made from them and asked one by one.
//!
//! Each cell gets things of its own: a policy, a rule and a type of the administrator's, and a resource with a metric that
//! `alice` (project p1) has created for the project p3, which `rick` may read.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;

/// Letter, token.
const ASKERS: [(char, Option<&str>); 6] = [
    ('A', Some("admin")),
    ('S', Some("service")),
    ('C', Some("alice")),
    ('R', Some("rick")),
    ('O', Some("bob")),
    ('N', None),
];
const EVERYONE: &str = "ASCRO";

/// What one request shall get, from everyone.
struct Row {
    /// `GET /v1/...`, with `{resource}`, `{metric}`, `{policy}`, `{rule}`, `{type}` for the cell's things.
    request: &'static str,
    body: Value,
    /// Status for who may.
    status: u16,
    /// Who may.
    may: &'static str,
    /// Who sees the thing: 403 if it may not act. Everyone else is told that there is none.
    sees: &'static str,
    /// For lists: who finds the cell's thing in the answer. `None`: no list.
    finds: Option<(&'static str, &'static str)>,
}

fn row(request: &'static str, body: Value, status: u16, may: &'static str, sees: &'static str) -> Row {
    Row { request, body, status, may, sees, finds: None }
}

fn list(request: &'static str, body: Value, thing: &'static str, finds: &'static str) -> Row {
    Row { request, body, status: 200, may: EVERYONE, sees: EVERYONE, finds: Some((thing, finds)) }
}

/// The matrix. `N` is nobody: 401 unless it is named.
fn rows() -> Vec<Row> {
    let none = Value::Null;
    let policy = json!({"name": "{new}", "definition": [{"granularity": "1s", "points": 10}]});
    let definition = json!({"definition": [{"granularity": "1s", "points": 20}]});
    let rule = json!({"name": "{new}", "metric_pattern": "x*", "archive_policy_name": "{policy}"});
    let measures = json!([{"timestamp": "2020-01-01T00:00:00", "value": 1}]);
    let search = json!({"=": {"id": "{resource}"}});
    let operations = json!({"operations": ["metric", "{metric}", "mean"]});
    let found = json!({"operations": ["metric", "cpu", "mean"], "resource_type": "generic", "search": search});
    let patch = json!([{"op": "add", "path": "/attributes/b", "value": {"type": "bool", "required": false}}]);
    vec![
        row("GET /", none.clone(), 200, "ASCRON", EVERYONE),
        row("GET /v1", none.clone(), 200, "ASCRON", EVERYONE),
        row("GET /v1/capabilities", none.clone(), 200, "ASCRON", EVERYONE),
        row("GET /v1/status", none.clone(), 200, "A", EVERYONE),
        list("GET /v1/archive_policy", none.clone(), "{policy}", EVERYONE),
        row("POST /v1/archive_policy", policy, 201, "AS", EVERYONE),
        row("GET /v1/archive_policy/{policy}", none.clone(), 200, EVERYONE, EVERYONE),
        row("PATCH /v1/archive_policy/{policy}", definition.clone(), 200, "A", EVERYONE),
        row("PATCH /v1/archive_policy/{policy}?rebuild=true", definition, 200, "A", EVERYONE),
        row("DELETE /v1/archive_policy/{spare}", none.clone(), 204, "A", EVERYONE),
        list("GET /v1/archive_policy_rule", none.clone(), "{rule}", EVERYONE),
        row("POST /v1/archive_policy_rule", rule, 201, "A", EVERYONE),
        row("GET /v1/archive_policy_rule/{rule}", none.clone(), 200, EVERYONE, EVERYONE),
        row("PATCH /v1/archive_policy_rule/{rule}", json!({"name": "{new}"}), 200, "A", EVERYONE),
        row("DELETE /v1/archive_policy_rule/{rule}", none.clone(), 204, "A", EVERYONE),
        list("GET /v1/metric?limit=1000", none.clone(), "{metric}", "ACR"),
        row("POST /v1/metric", json!({"archive_policy_name": "{policy}"}), 201, EVERYONE, EVERYONE),
        row(
            "POST /v1/metric",
            json!({"archive_policy_name": "{policy}", "name": "new", "resource_id": "{resource}"}),
            201,
            "ASC",
            "ASCR",
        ),
        row("GET /v1/metric/{metric}", none.clone(), 200, "ASCR", "ASCR"),
        row("DELETE /v1/metric/{metric}", none.clone(), 204, "AC", "ASCR"),
        row("GET /v1/metric/{metric}/measures", none.clone(), 200, "ASCR", "ASCR"),
        row("POST /v1/metric/{metric}/measures", measures.clone(), 202, "ASC", "ASCR"),
        list("GET /v1/resource_type", none.clone(), "{type}", EVERYONE),
        row("POST /v1/resource_type", json!({"name": "{new}"}), 201, "AS", EVERYONE),
        row("GET /v1/resource_type/{type}", none.clone(), 200, EVERYONE, EVERYONE),
        row("PATCH /v1/resource_type/{type}", patch, 200, "AS", EVERYONE),
        row("DELETE /v1/resource_type/{type}", none.clone(), 204, "A", EVERYONE),
        row("GET /v1/resource", none.clone(), 200, EVERYONE, EVERYONE),
        list("GET /v1/resource/generic?limit=1000", none.clone(), "{resource}", "ACR"),
        row("POST /v1/resource/generic", json!({"id": "{new}"}), 201, EVERYONE, EVERYONE),
        // By query: who may not remove it removes nothing.
        Row {
            finds: Some(("\"deleted\": 1", "AC")),
            ..row("DELETE /v1/resource/generic?filter=id%3D{resource}", none.clone(), 200, EVERYONE, EVERYONE)
        },
        row("GET /v1/resource/generic/{resource}", none.clone(), 200, "ACR", "ACR"),
        row("PATCH /v1/resource/generic/{resource}", json!({"user_id": "x"}), 200, "ASC", "ASCR"),
        row("DELETE /v1/resource/generic/{resource}", none.clone(), 204, "AC", "ACR"),
        row("GET /v1/resource/generic/{resource}/history", none.clone(), 200, "ACR", "ACR"),
        row("GET /v1/resource/generic/{resource}/metric", none.clone(), 200, "ACR", "ACR"),
        row(
            "POST /v1/resource/generic/{resource}/metric",
            json!({"new": {"archive_policy_name": "{policy}"}}),
            200,
            "ASC",
            "ASCR",
        ),
        row("GET /v1/resource/generic/{resource}/metric/cpu", none.clone(), 200, "ASCR", "ASCR"),
        row("DELETE /v1/resource/generic/{resource}/metric/cpu", none.clone(), 204, "AC", "ASCR"),
        row("GET /v1/resource/generic/{resource}/metric/cpu/measures", none.clone(), 200, "ASCR", "ASCR"),
        row("POST /v1/resource/generic/{resource}/metric/cpu/measures", measures.clone(), 202, "ASC", "ASCR"),
        list("POST /v1/search/resource/generic", search.clone(), "{resource}", "ASCR"),
        // Nothing to read here, for nobody.
        row("GET /v1/search/resource/generic", none.clone(), 404, "ASCRON", EVERYONE),
        // What cannot be seen is unknown: 400 in Gnocchi's batches, see `hidden_status`.
        row("POST /v1/batch/metrics/measures", json!({"{metric}": measures}), 202, "ASC", "ASCR"),
        row("POST /v1/batch/resources/metrics/measures", json!({"{resource}": {"cpu": measures}}), 202, "ASC", "ASCR"),
        row("POST /v1/aggregates", operations, 200, "ASCR", "ASCR"),
        row("POST /v1/aggregates", found, 200, "ASCR", "ASCR"),
        row("GET /v1/aggregation/metric?metric={metric}&aggregation=mean", none.clone(), 200, "ASCR", "ASCR"),
        row("POST /v1/aggregation/metric?aggregation=mean", json!(["{metric}"]), 200, "ASCR", "ASCR"),
        row("GET /v1/aggregation/resource/generic/metric", none.clone(), 405, "ASCRON", EVERYONE),
        Row {
            finds: Some(("2019-", "ASCR")),
            ..row("POST /v1/aggregation/resource/generic/metric/cpu", search, 200, EVERYONE, EVERYONE)
        },
        row("GET /v1/search/metric", none.clone(), 404, "ASCRON", EVERYONE),
        list("POST /v1/search/metric?metric_id={metric}", json!({">": 0}), "{metric}", "ACR"),
    ]
}

/// How a thing that the asker may not see is denied.
fn hidden_status(row: &Row) -> u16 {
    if row.request.starts_with("POST /v1/batch/") { 400 } else { 404 }
}

struct Answer {
    status: u16,
    text: String,
}

async fn send(house: &House, asker: Option<&str>, request: &str, body: &Value) -> Answer {
    let (method, path) = request.split_once(' ').expect("METHOD /path");
    let mut builder = Request::builder().method(method).uri(format!("/metric{path}"));
    let content = if request.starts_with("PATCH /v1/resource_type") { "json-patch+json" } else { "json" };
    builder = builder.header(header::ACCEPT, "application/json");
    if !body.is_null() {
        builder = builder.header(header::CONTENT_TYPE, format!("application/{content}"));
    }
    if let Some(asker) = asker {
        builder = builder.header("x-auth-token", asker);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response =
        house.router.clone().oneshot(builder.body(Body::from(body)).expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    Answer { status, text: String::from_utf8(bytes.to_vec()).expect("text") }
}

/// The things of one cell, by name.
async fn things(house: &House, cell: usize) -> Vec<(&'static str, String)> {
    let make = async |asker: &str, request: &str, body: Value| {
        let answer = send(house, Some(asker), request, &body).await;
        assert!(answer.status < 300, "{request}: {} {}", answer.status, answer.text);
        serde_json::from_str::<Value>(&answer.text).unwrap_or(Value::Null)
    };
    let names = ["policy", "spare", "rule", "type", "new"].map(|name| (name, format!("{name}{cell}")));
    let named = |wanted: &str| names.iter().find(|(name, _)| *name == wanted).expect("a name").1.clone();
    for policy in ["policy", "spare"] {
        let definition = json!([{"granularity": "1s", "points": 10}]);
        let body = json!({"name": named(policy), "definition": definition, "aggregation_methods": ["mean"]});
        make("admin", "POST /v1/archive_policy", body).await;
    }
    let rule = json!({"name": named("rule"), "metric_pattern": named("rule"), "archive_policy_name": named("policy")});
    make("admin", "POST /v1/archive_policy_rule", rule).await;
    make("admin", "POST /v1/resource_type", json!({"name": named("type")})).await;
    let metrics = json!({"cpu": {"archive_policy_name": named("policy")}});
    let id = uuid::Uuid::from_u128(0x1000 + cell as u128);
    let resource = json!({"id": id.to_string(), "project_id": "p3", "metrics": metrics});
    let resource = make("alice", "POST /v1/resource/generic", resource).await;
    let metric = resource["metrics"]["cpu"].as_str().expect("a metric").to_owned();
    let measures = json!([{"timestamp": "2019-01-01T00:00:00", "value": 1}]);
    make("alice", &format!("POST /v1/metric/{metric}/measures"), measures).await;
    names.into_iter().chain([("resource", id.to_string()), ("metric", metric)]).collect()
}

fn filled(text: &str, things: &[(&'static str, String)]) -> String {
    things.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

#[tokio::test]
async fn the_access_matrix_has_no_wrong_cell() {
    let house = House::build().await;
    let mut wrong = Vec::new();
    let mut cells = 0;
    for row in rows() {
        for (letter, asker) in ASKERS {
            cells += 1;
            let things = things(&house, cells).await;
            let request = filled(row.request, &things);
            let body: Value = serde_json::from_str(&filled(&row.body.to_string(), &things)).expect("JSON");
            let expected = match letter {
                letter if row.may.contains(letter) => row.status,
                'N' => 401,
                letter if row.sees.contains(letter) => 403,
                _ => hidden_status(&row),
            };
            let answer = send(&house, asker, &request, &body).await;
            if answer.status != expected {
                wrong.push(format!("{letter} {request}: {} instead of {expected}: {}", answer.status, answer.text));
                continue;
            }
            if let Some((thing, finds)) = row.finds.filter(|_| answer.status == row.status) {
                let found = answer.text.contains(&filled(thing, &things));
                if found != finds.contains(letter) {
                    wrong.push(format!("{letter} {request}: finds it: {found}"));
                }
            }
            // Denied and absent look the same: the answer for a thing that is not there differs in its name only.
            if answer.status == hidden_status(&row) && !row.may.contains(letter) {
                let absent = uuid::Uuid::from_u128(0xabc).to_string();
                let absent_metric = uuid::Uuid::from_u128(0xdef).to_string();
                let other = |text: &str| {
                    let text = text.replace(&filled("{resource}", &things), &absent);
                    text.replace(&filled("{metric}", &things), &absent_metric)
                };
                let other_body: Value = serde_json::from_str(&other(&body.to_string())).expect("JSON");
                let nothing = send(&house, asker, &other(&request), &other_body).await;
                if nothing.status != answer.status || nothing.text != other(&answer.text) {
                    wrong.push(format!("{letter} {request}: `{}` tells that it is there", answer.text));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A route without a row would be a route that nobody has thought about.
#[test]
fn every_route_has_a_row() {
    let router = include_str!("../gnocchi.rs");
    let mut routes = BTreeSet::new();
    for part in router.split(".route(").skip(1) {
        let path = part.split('"').nth(1).expect("a path");
        let handlers = &part[..part.find(".route(").unwrap_or(part.len())];
        for (word, method) in [("get(", "GET"), ("post(", "POST"), ("patch(", "PATCH"), ("delete(", "DELETE")] {
            if handlers.contains(word) {
                routes.insert((method, shape(path)));
            }
        }
    }
    assert!(routes.len() > 40, "{routes:?}");
    let rows = rows();
    let known: BTreeSet<_> = rows
        .iter()
        .map(|row| row.request.split_once(' ').expect("METHOD /path"))
        .map(|(method, path)| (method, shape(path.split('?').next().expect("a path"))))
        .collect();
    // Judged in the tests of their own: they take other bodies, and answer in other forms.
    let elsewhere = ["/healthcheck", "/v1/influxdb", "/v1/prometheus"];
    let missing: Vec<_> = routes
        .iter()
        .filter(|route| !known.contains(*route) && !elsewhere.iter().any(|path| route.1.starts_with(path)))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// A path whose variable parts are `*`.
fn shape(path: &str) -> String {
    let variable = |segment: &str| segment.starts_with('{') || matches!(segment, "generic" | "cpu");
    let segments = path.split('/').map(|segment| if variable(segment) { "*" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}
