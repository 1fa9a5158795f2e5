//! The alarm API as Aodh's: every route with every persona, and what the answers hold. On SQLite always, on PostgreSQL
//! when `ORZO_TEST_POSTGRES` names one.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;

/// Whose requests: nobody's, a token without a project, another service's, an admin's (of project p0), the creator's, a
/// colleague's, a reader's of the same project, another project's member's.
const PERSONAS: [&str; 8] = ["nobody", "unscoped", "service", "admin", "alice", "anna", "rita", "bob"];

/// The source of the routes, so that the table below cannot forget one.
const ROUTES: &str = include_str!("../aodh.rs");

type Cells = [u16; 8];

/// Anybody with or without a token.
const PUBLIC: Cells = [200; 8];
/// Anybody with a token.
const TOKEN: Cells = [401, 200, 200, 200, 200, 200, 200, 200];
/// Who reads in some project.
const READER: Cells = [401, 403, 403, 200, 200, 200, 200, 200];
/// Who reads in the creator's project.
const OWN_READER: Cells = [401, 403, 403, 200, 200, 200, 200, 404];
/// Who names the creator's project.
const NAMES_IT: Cells = [401, 403, 403, 200, 200, 200, 200, 401];
/// Only an admin, looking.
const ADMIN: Cells = [401, 403, 403, 200, 403, 403, 403, 403];

/// Method and path (`ID` is an alarm of alice's), body, and the status for each persona.
fn table() -> Vec<(&'static str, &'static str, Value, Cells)> {
    let filter = |filter: Value| json!({"filter": filter.to_string()});
    let owned = |more: Value| {
        let mut alarm = alarm("made");
        for (key, value) in more.as_object().into_iter().flatten() {
            alarm[key] = value.clone();
        }
        alarm
    };
    vec![
        ("GET", "/", Value::Null, PUBLIC),
        ("GET", "/healthcheck", Value::Null, PUBLIC),
        ("GET", "/v2", Value::Null, PUBLIC),
        ("GET", "/v2/capabilities", Value::Null, TOKEN),
        ("GET", "/v2/alarms", Value::Null, READER),
        ("GET", "/v2/alarms?q.field=all_projects&q.op=eq&q.value=true", Value::Null, ADMIN),
        ("GET", "/v2/alarms?q.field=all_projects&q.op=eq&q.value=false", Value::Null, READER),
        ("GET", "/v2/alarms?q.field=project_id&q.value=p1", Value::Null, NAMES_IT),
        ("GET", "/v2/alarms?q.field=project_id&q.op=ne&q.value=p1", Value::Null, NAMES_IT),
        ("POST", "/v2/alarms", alarm("made"), [401, 403, 403, 201, 201, 201, 403, 201]),
        ("POST", "/v2/alarms", owned(json!({"project_id": "p1"})), [401, 403, 403, 201, 201, 201, 403, 401]),
        ("POST", "/v2/alarms", owned(json!({"user_id": "u-alice"})), [401, 403, 403, 201, 201, 401, 403, 401]),
        ("POST", "/v2/alarms", owned(json!({"ok_actions": ["log://"]})), [401, 403, 403, 201, 401, 401, 403, 401]),
        ("POST", "/v2/alarms", owned(json!({"ok_actions": ["topic://t"]})), [401, 403, 403, 201, 401, 401, 403, 401]),
        ("POST", "/v2/alarms/test", alarm("tried"), READER),
        ("POST", "/v2/alarms/test", json!({"alarm_id": "ID"}), OWN_READER),
        ("GET", "/v2/alarms/ID", Value::Null, OWN_READER),
        ("PUT", "/v2/alarms/ID", alarm("changed"), [401, 403, 403, 200, 200, 200, 403, 404]),
        ("PUT", "/v2/alarms/ID", owned(json!({"project_id": "p2"})), [401, 403, 403, 401, 401, 401, 403, 404]),
        ("DELETE", "/v2/alarms/ID", Value::Null, [401, 403, 403, 204, 204, 204, 403, 404]),
        ("GET", "/v2/alarms/ID/state", Value::Null, OWN_READER),
        ("PUT", "/v2/alarms/ID/state", json!("ok"), [401, 403, 403, 200, 200, 200, 403, 404]),
        ("GET", "/v2/alarms/ID/history", Value::Null, OWN_READER),
        ("POST", "/v2/query/alarms", Value::Null, READER),
        ("POST", "/v2/query/alarms", filter(json!({"=": {"project_id": "p1"}})), NAMES_IT),
        (
            "POST",
            "/v2/query/alarms",
            filter(json!({"not": {"in": {"project": ["p1", "p3"]}}})),
            [401, 403, 403, 200, 401, 401, 401, 401],
        ),
        (
            "POST",
            "/v2/query/alarms",
            filter(json!({"=~": {"project_id": ".*"}})),
            [401, 403, 403, 200, 401, 401, 401, 401],
        ),
        ("POST", "/v2/query/alarms/history", Value::Null, READER),
        ("POST", "/v2/query/alarms/history", filter(json!({"=": {"on_behalf_of": "p1"}})), NAMES_IT),
        ("GET", "/v2/quotas", Value::Null, READER),
        ("GET", "/v2/quotas?project_id=p1", Value::Null, NAMES_IT),
        (
            "POST",
            "/v2/quotas",
            json!({"project_id": "p9", "quotas": [{"resource": "alarms", "limit": 5}]}),
            [401, 403, 403, 201, 403, 403, 403, 403],
        ),
        ("DELETE", "/v2/quotas/p9", Value::Null, [401, 403, 403, 204, 403, 403, 403, 403]),
        ("GET", "/v2/metrics", Value::Null, READER),
        ("GET", "/v2/metrics?all_projects=true", Value::Null, ADMIN),
        ("GET", "/v2/notices", Value::Null, READER),
        ("GET", "/v2/notices?all_projects=true", Value::Null, ADMIN),
        ("GET", "/v2/notices?project_id=p1", Value::Null, NAMES_IT),
        ("GET", "/v2/notices/unknown", Value::Null, [401, 403, 403, 404, 404, 404, 404, 404]),
        ("POST", "/v2/notices/replay", Value::Null, [401, 403, 403, 202, 202, 202, 403, 202]),
        ("POST", "/v2/notices/replay", json!({"all_projects": true}), [401, 403, 403, 202, 403, 403, 403, 403]),
        ("POST", "/v2/notices/replay", json!({"project_id": "p1"}), [401, 403, 403, 202, 202, 202, 403, 401]),
        ("POST", "/v2/notices/test", json!({"action": "http://127.0.0.1/"}), [401, 403, 403, 200, 200, 200, 403, 200]),
        ("GET", "/v2/notices/signing_keys", Value::Null, [401, 403, 403, 200, 200, 200, 403, 200]),
    ]
}

pub(super) fn alarm(name: &str) -> Value {
    json!({
        "name": name, "type": "gnocchi_resources_threshold", "alarm_actions": ["http://203.0.113.7/hook?secret=1"],
        "gnocchi_resources_threshold_rule": {
            "metric": "cpu_util", "resource_id": "r", "resource_type": "instance", "threshold": 80.0,
            "aggregation_method": "mean", "comparison_operator": "gt", "granularity": 60}
    })
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

async fn ask(house: &House, who: &str, method: &str, path: &str, body: &Value) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/alarming{path}"))
        .header(header::HOST, "orzo.test")
        .header(header::ACCEPT, "application/json");
    if who != "nobody" {
        request = request.header("x-auth-token", who);
    }
    let body = match body {
        Value::Null => Body::empty(),
        body => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        }
    };
    let response = house.router.clone().oneshot(request.body(body).expect("a request")).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn expect(house: &House, who: &str, method: &str, path: &str, body: &Value, status: u16) -> Value {
    let answer = ask(house, who, method, path, body).await;
    assert_eq!(answer.status.as_u16(), status, "{who} {method} {path}: {}", answer.body);
    answer.body
}

async fn create(house: &House, who: &str, body: &Value) -> String {
    let made = expect(house, who, "POST", "/v2/alarms", body, 201).await;
    made["alarm_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn every_route_answers_every_persona_as_the_policies_say() {
    for house in House::on_every_database(|settings| settings.evaluation_metrics = true).await {
        let mut wrong = Vec::new();
        let mut cells = 0;
        for (method, path, body, expected) in table() {
            for (who, expected) in PERSONAS.iter().zip(expected) {
                // An alarm of alice's for each cell: some requests end it.
                let id = create(&house, "alice", &alarm("alices")).await;
                let body: Value =
                    serde_json::from_str(&body.to_string().replace("\"ID\"", &format!("\"{id}\""))).expect("JSON");
                let answer = ask(&house, who, method, &path.replace("ID", &id), &body).await;
                cells += 1;
                if answer.status.as_u16() != expected {
                    wrong.push(format!("{who} {method} {path} {body}: {} not {expected}", answer.status));
                }
                let is_refusal = answer.status.is_client_error();
                if is_refusal && answer.body["error_message"]["faultcode"] != "Client" {
                    wrong.push(format!("{who} {method} {path}: not Aodh's fault: {}", answer.body));
                }
                // Whatever it is, another project's member sees nothing of this one.
                let text = answer.body.to_string();
                if *who == "bob" && !is_refusal && (text.contains("\"p1\"") || text.contains(&id)) {
                    wrong.push(format!("bob {method} {path} sees: {text}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {cells} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
        println!("{cells} cells, 0 wrong");
        house.assert_conserved();
    }
}

#[test]
fn the_table_has_every_route() {
    let table = table();
    let asked: BTreeSet<(String, String)> = table
        .iter()
        .map(|(method, path, ..)| {
            let path = path.split('?').next().unwrap_or_default();
            let path = path.replace("/ID", "/{id}").replace("/quotas/p9", "/quotas/{project}");
            ((*method).to_owned(), path.replace("/notices/unknown", "/notices/{id}"))
        })
        .collect();
    let route = regex::Regex::new(r#"\.route\("([^"]+)", (.*)\)\n"#).expect("a pattern");
    let method = regex::Regex::new(r"\b(get|post|put|delete)\(").expect("a pattern");
    let mut routes = 0;
    for found in route.captures_iter(ROUTES) {
        for method in method.captures_iter(&found[2]) {
            let pair = (method[1].to_uppercase(), found[1].to_owned());
            assert!(asked.contains(&pair), "{pair:?} is not in the table");
            routes += 1;
        }
    }
    assert!(routes >= 24, "only {routes} routes were found in the source");
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    for house in House::on_every_database(|_| {}).await {
        for (name, severity, enabled) in
            [("b", "low", true), ("a", "critical", false), ("c", "moderate", true), ("d", "critical", true)]
        {
            let mut body = alarm(name);
            body["severity"] = json!(severity);
            body["enabled"] = json!(enabled);
            create(&house, "alice", &body).await;
        }
        create(&house, "bob", &alarm("foreign")).await;
        let names = |answer: &Value| -> String {
            answer.as_array().expect("a list").iter().filter_map(|alarm| alarm["name"].as_str()).collect()
        };
        for (query, expected) in [
            ("sort=name", "abcd"),
            ("sort=name:desc", "dcba"),
            ("sort=severity:asc&sort=name:asc", "bcad"),
            ("sort=severity:desc&sort=name:desc", "dacb"),
            ("sort=enabled:asc&sort=name", "abcd"),
            ("q.field=enabled&q.value=false", "a"),
            ("q.field=enabled&q.op=eq&q.type=boolean&q.value=False", "a"),
            ("q.field=severity&q.op=ge&q.value=moderate&sort=name", "acd"),
            ("q.field=name&q.op=ne&q.value=a&q.field=severity&q.op=eq&q.value=critical", "d"),
            ("q.field=name&q.op=gt&q.value=b&sort=name", "cd"),
            ("q.field=state&q.value=insufficient%20data&sort=name", "abcd"),
            ("q.field=type&q.value=gnocchi_resources_threshold&q.field=user_id&q.value=u-alice&sort=name", "abcd"),
            ("q.field=user_id&q.value=12345678901234567890", ""),
            ("q.field=timestamp&q.op=lt&q.type=datetime&q.value=2020-01-01T00:00:00", ""),
            ("q.field=repeat_actions&q.value=false&sort=name", "abcd"),
        ] {
            let found = expect(&house, "alice", "GET", &format!("/v2/alarms?{query}"), &Value::Null, 200).await;
            assert_eq!(names(&found), expected, "{query}");
        }
        // Pages of every order follow each other without gap or repeat.
        for sort in [
            "alarm_id",
            "enabled",
            "name",
            "type",
            "severity",
            "timestamp",
            "user_id",
            "project_id",
            "state",
            "repeat_actions",
            "state_timestamp",
        ] {
            for direction in ["asc", "desc"] {
                let order = format!("sort={sort}:{direction}");
                let all = expect(&house, "alice", "GET", &format!("/v2/alarms?{order}"), &Value::Null, 200).await;
                let (mut seen, mut marker) = (String::new(), String::new());
                loop {
                    let path = format!("/v2/alarms?{order}&limit=1{marker}");
                    let answer = ask(&house, "alice", "GET", &path, &Value::Null).await;
                    let Some(last) = answer.body[0]["alarm_id"].as_str() else { break };
                    seen.push_str(&names(&answer.body));
                    let more = answer.headers.contains_key(header::LINK);
                    assert_eq!(more, seen.len() < 4, "{order}: the link to the next page");
                    marker = format!("&marker={last}");
                }
                assert_eq!(seen, names(&all), "{order}");
            }
        }
        for (query, said) in [
            ("sort=colour", "supported sort keys"),
            ("sort=name:up", "neither asc nor desc"),
            ("limit=0", "positive integer"),
            ("limit=-1", "positive integer"),
            ("limit=x", "positive integer"),
            ("marker=nothing", "marker nothing not found"),
            ("q.field=colour&q.value=red", "unrecognized field in query: colour"),
            ("q.field=name", "every q.field needs one q.value"),
            ("q.field=name&q.op=like&q.value=x", "unimplemented operator"),
            ("q.field=name&q.type=colour&q.value=x", "The data type colour is not supported"),
            ("q.field=enabled&q.type=integer&q.value=x", "Unable to convert the value x"),
        ] {
            let told = expect(&house, "alice", "GET", &format!("/v2/alarms?{query}"), &Value::Null, 400).await;
            let text = told["error_message"]["faultstring"].as_str().expect("a text");
            assert!(text.contains(said), "{query}: {text}");
        }
        // Another project's alarm is no marker.
        let foreign = expect(&house, "bob", "GET", "/v2/alarms", &Value::Null, 200).await;
        let path = format!("/v2/alarms?marker={}", foreign[0]["alarm_id"].as_str().expect("an id"));
        expect(&house, "alice", "GET", &path, &Value::Null, 400).await;
    }
}

#[tokio::test]
async fn complex_queries_find_what_they_say() {
    for house in House::on_every_database(|_| {}).await {
        for (name, severity) in [("web-1", "low"), ("web-2", "critical"), ("db-1", "moderate")] {
            let mut body = alarm(name);
            body["severity"] = json!(severity);
            create(&house, "alice", &body).await;
        }
        create(&house, "bob", &alarm("web-3")).await;
        let id = create(&house, "alice", &alarm("odd' \" %_ name")).await;
        expect(&house, "alice", "PUT", &format!("/v2/alarms/{id}/state"), &json!("ok"), 200).await;
        for (filter, expected) in [
            (json!({"=": {"name": "web-1"}}), 1),
            (json!({"!=": {"name": "web-1"}}), 3),
            (json!({"=~": {"name": "^web-[0-9]$"}}), 2),
            (json!({"not": {"=~": {"name": "^web-"}}}), 2),
            (json!({"=~": {"name": "nothing"}}), 0),
            (json!({"not": {"=~": {"name": "nothing"}}}), 4),
            (json!({"in": {"severity": ["critical", "moderate"]}}), 2),
            (json!({"AND": [{"=~": {"name": "1$"}}, {"OR": [{"=": {"severity": "low"}}, {"=": {"state": "ok"}}]}]}), 1),
            (json!({"=": {"name": "odd' \" %_ name"}}), 1),
            (json!({"=": {"name": "' OR '1'='1"}}), 0),
            (json!({">": {"timestamp": "2020-01-01T00:00:00"}}), 4),
            (json!({"=<": {"state_timestamp": "2020-01-01T00:00:00+00:00"}}), 0),
            (json!({"=": {"enabled": true}}), 4),
            (json!({"=": {"project": "p1"}}), 4),
        ] {
            let body = json!({"filter": filter.to_string(), "orderby": "[{\"severity\": \"DESC\"}]"});
            let found = expect(&house, "alice", "POST", "/v2/query/alarms", &body, 200).await;
            assert_eq!(found.as_array().expect("a list").len(), expected, "{filter}: {found}");
        }
        let body = json!({"orderby": "[{\"severity\": \"DESC\"}, {\"name\": \"asc\"}]", "limit": 2});
        let found = expect(&house, "alice", "POST", "/v2/query/alarms", &body, 200).await;
        assert_eq!((&found[0]["name"], &found[1]["name"]), (&json!("web-2"), &json!("db-1")));
        let all = expect(&house, "admin", "POST", "/v2/query/alarms", &json!({}), 200).await;
        assert_eq!(all.as_array().map(Vec::len), Some(5), "an admin's query is of all projects");
        let body = json!({"filter": json!({"=": {"type": "state transition"}}).to_string()});
        let changes = expect(&house, "alice", "POST", "/v2/query/alarms/history", &body, 200).await;
        assert_eq!((changes.as_array().map(Vec::len), &changes[0]["alarm_id"]), (Some(1), &json!(id)));
        let foreign = expect(&house, "bob", "POST", "/v2/query/alarms/history", &json!({}), 200).await;
        assert_eq!(foreign.as_array().map(Vec::len), Some(1));
        for (body, said) in [
            (json!({"filter": "{"}), "Filter expression not valid"),
            (json!({"filter": {"=": {"name": "a"}}}), "it must be JSON in a text"),
            (json!({"filter": "{\"=\": {\"colour\": 1}}"}), "unrecognized field"),
            (json!({"orderby": "[{\"name\": \"up\"}]"}), "Order-by expression not valid"),
            (json!({"limit": 0}), "Limit should be positive"),
            (json!({"limit": "many"}), "Limit should be a number"),
            (json!({"colour": 1}), "Unknown attribute"),
            (json!([]), "a query is an object"),
        ] {
            let told = expect(&house, "alice", "POST", "/v2/query/alarms", &body, 400).await;
            let text = told["error_message"]["faultstring"].as_str().expect("a text");
            assert!(text.contains(said), "{body}: {text}");
        }
    }
}

#[tokio::test]
async fn history_is_filtered_sorted_and_paged() {
    for house in House::on_every_database(|_| {}).await {
        let id = create(&house, "alice", &alarm("one")).await;
        for state in ["ok", "alarm", "ok"] {
            expect(&house, "alice", "PUT", &format!("/v2/alarms/{id}/state"), &json!(state), 200).await;
        }
        expect(&house, "alice", "PUT", &format!("/v2/alarms/{id}"), &alarm("two"), 200).await;
        let path = format!("/v2/alarms/{id}/history");
        for (query, expected) in [
            ("", 5),
            ("?q.field=type&q.value=state%20transition", 3),
            ("?q.field=type&q.value=rule%20change", 1),
            ("?q.field=timestamp&q.op=gt&q.value=2100-01-01T00:00:00", 0),
            ("?q.field=user_id&q.value=u-alice", 5),
            ("?limit=2&sort=timestamp:asc", 2),
        ] {
            let found = expect(&house, "alice", "GET", &format!("{path}{query}"), &Value::Null, 200).await;
            assert_eq!(found.as_array().map(Vec::len), Some(expected), "{query}: {found}");
        }
        let (mut seen, mut marker) = (BTreeSet::new(), String::new());
        while let Some(last) = {
            let page = format!("{path}?sort=type&limit=2{marker}");
            let found = expect(&house, "alice", "GET", &page, &Value::Null, 200).await;
            let ids: Vec<String> = found
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|c| c["event_id"].as_str())
                .map(str::to_owned)
                .collect();
            for id in &ids {
                assert!(seen.insert(id.clone()), "{id} comes twice");
            }
            ids.last().cloned()
        } {
            marker = format!("&marker={last}");
        }
        assert_eq!(seen.len(), 5);
        expect(&house, "alice", "GET", &format!("{path}?q.field=state&q.value=ok"), &Value::Null, 400).await;
    }
}

#[tokio::test]
async fn quotas_count_a_projects_alarms_and_looking_changes_nothing() {
    for house in House::on_every_database(|_| {}).await {
        for _ in 0..3 {
            let quota = expect(&house, "alice", "GET", "/v2/quotas", &Value::Null, 200).await;
            assert_eq!(quota, json!({"project_id": "p1", "quotas": [{"resource": "alarms", "limit": -1}]}));
            create(&house, "alice", &alarm("one")).await;
        }
        let limit = |project: &str, limit: i64| json!({"project_id": project, "quotas": [{"resource": "alarms", "limit": limit}]});
        expect(&house, "admin", "POST", "/v2/quotas", &limit("p1", 4), 201).await;
        // The project's alarms count, whoever of it makes them; another project's do not.
        create(&house, "anna", &alarm("four")).await;
        let told = expect(&house, "alice", "POST", "/v2/alarms", &alarm("five"), 403).await;
        assert_eq!(told["error_message"]["faultstring"], "Alarm quota exceeded for user u-alice on project p1");
        create(&house, "bob", &alarm("other")).await;
        expect(&house, "admin", "DELETE", "/v2/quotas/p1", &Value::Null, 204).await;
        create(&house, "alice", &alarm("five")).await;
        expect(&house, "admin", "POST", "/v2/quotas", &limit("p2", 0), 201).await;
        expect(&house, "bob", "POST", "/v2/alarms", &alarm("none"), 403).await;
        for body in [
            limit("p1", -2),
            json!({"project_id": "p1", "quotas": [{"resource": "servers", "limit": 1}]}),
            json!({"quotas": []}),
            json!({"project_id": "p1", "quotas": [{"resource": "alarms", "limit": "many"}]}),
            json!({"project_id": "p1", "quotas": {}}),
        ] {
            expect(&house, "admin", "POST", "/v2/quotas", &body, 400).await;
        }
    }
}

#[tokio::test]
async fn metrics_are_off_unless_they_are_asked_for() {
    let house = House::build().await;
    let told = expect(&house, "admin", "GET", "/v2/metrics", &Value::Null, 403).await;
    assert_eq!(told["error_message"]["faultstring"], "metrics endpoint is disabled");
}

#[tokio::test]
async fn noauth_believes_headers_only_where_it_is_set() {
    let house = House::build_with(|settings| settings.alarming_noauth = true).await;
    let ask = async |user: Option<&str>, path: &str| {
        let mut request = Request::builder().uri(format!("/alarming{path}")).header(header::HOST, "orzo.test");
        request = request.header(header::ACCEPT, "application/json");
        if let Some(user) = user {
            request = request.header("x-user-id", user).header("x-project-id", "p1").header("x-roles", "admin");
        }
        house
            .router
            .clone()
            .oneshot(request.body(Body::empty()).expect("a request"))
            .await
            .expect("infallible")
            .status()
    };
    assert_eq!(ask(Some("u"), "/v2/alarms").await, StatusCode::OK);
    assert_eq!(ask(None, "/v2/alarms").await, StatusCode::UNAUTHORIZED);
    let strict = House::build().await;
    let request = Request::builder()
        .uri("/alarming/v2/alarms")
        .header("x-user-id", "u")
        .header("x-project-id", "p1")
        .header("x-roles", "admin");
    let request = request.body(Body::empty()).expect("a request");
    assert_eq!(strict.router.clone().oneshot(request).await.expect("infallible").status(), StatusCode::UNAUTHORIZED);
}

/// As Aodh does: what is stored and shown is what the project may see.
#[tokio::test]
async fn the_search_of_who_is_no_operator_is_narrowed_once_and_shown_so() {
    let house = House::build().await;
    let asked = r#"{"=": {"server_group": "g"}}"#;
    let body = |query: &Value| {
        json!({
            "name": "group", "type": "gnocchi_aggregation_by_resources_threshold",
            "gnocchi_aggregation_by_resources_threshold_rule": {"metric": "cpu", "resource_type": "generic",
                "query": query, "threshold": 80.0, "aggregation_method": "mean"}
        })
    };
    let query = |alarm: &Value| alarm["gnocchi_aggregation_by_resources_threshold_rule"]["query"].clone();
    let seen = |project: &str| {
        let own = [json!({"=": {"created_by_project_id": project}}), json!({"=": {"project_id": project}})];
        json!({"and": [{"or": own}, {"=": {"server_group": "g"}}]})
    };
    let parsed = |query: &Value| -> Value { serde_json::from_str(query.as_str().expect("text")).expect("JSON") };
    let operators = expect(&house, "admin", "POST", "/v2/alarms", &body(&json!(asked)), 201).await;
    assert_eq!(query(&operators), asked);
    let members = expect(&house, "alice", "POST", "/v2/alarms", &body(&json!(asked)), 201).await;
    assert_eq!(parsed(&query(&members)), seen("p1"));
    let mut others = body(&json!(asked));
    others["project_id"] = json!("p1");
    let others = expect(&house, "admin", "POST", "/v2/alarms", &others, 201).await;
    assert_eq!(parsed(&query(&others)), seen("p1"));
    // What was shown and comes back is not narrowed again; what a member writes anew is.
    let path = |alarm: &Value| format!("/v2/alarms/{}", alarm["alarm_id"].as_str().expect("an id"));
    for text in [query(&members), json!(asked)] {
        let again = expect(&house, "alice", "PUT", &path(&members), &body(&text), 200).await;
        assert_eq!(parsed(&query(&again)), seen("p1"));
    }
    let rewritten = expect(&house, "olga", "PUT", &path(&operators), &body(&json!(asked)), 200).await;
    assert_eq!(parsed(&query(&rewritten)), seen("p0"));
}

/// A member who rewrites the rule of an alarm that an administrator made for its own project must not read as an
/// administrator.
#[tokio::test]
async fn a_rule_that_a_member_wrote_sees_what_the_member_sees() {
    for house in House::on_every_database(|_| {}).await {
        let mut body = alarm("operators");
        let id = create(&house, "admin", &body).await;
        body["name"] = json!("mine now");
        expect(&house, "olga", "PUT", &format!("/v2/alarms/{id}"), &body, 200).await;
        assert!(!house.is_operators(&id).await, "it still reads everything");
        // What an administrator makes for another project sees that project.
        let mut body = alarm("for others");
        body["project_id"] = json!("p1");
        let id = create(&house, "admin", &body).await;
        assert!(!house.is_operators(&id).await);
        let id = create(&house, "admin", &alarm("operators")).await;
        assert!(house.is_operators(&id).await);
    }
}

#[tokio::test]
async fn a_test_call_goes_the_way_of_every_notice_and_tells_the_owner_little() {
    let house = House::build().await;
    let test = json!({"action": "http://169.254.169.254/latest/meta-data/"});
    let told = expect(&house, "alice", "POST", "/v2/notices/test", &test, 200).await;
    assert_eq!(told["delivered"], false);
    assert_eq!(told["failure"], "the receiver cannot be reached, or its address is not allowed for notices");
    assert!(told.get("last_error").is_none());
    let told = expect(&house, "admin", "POST", "/v2/notices/test", &test, 200).await;
    assert!(told["last_error"].as_str().is_some_and(|text| text.contains("169.254.169.254")));
    for (body, who) in [
        (json!({"action": "ftp://h/"}), "alice"),
        (json!({"action": "log://"}), "alice"),
        (json!({"action": "trust+http://h/"}), "alice"),
        (json!({}), "alice"),
    ] {
        expect(&house, who, "POST", "/v2/notices/test", &body, 400).await;
    }
    let told = expect(&house, "admin", "POST", "/v2/notices/test", &json!({"action": "log://"}), 200).await;
    assert_eq!(told["delivered"], true);
}

#[tokio::test]
async fn each_project_is_shown_its_own_keys() {
    let house = House::build().await;
    let keys = async |who: &str| expect(&house, who, "GET", "/v2/notices/signing_keys", &Value::Null, 200).await;
    let (alice, anna, bob) = (keys("alice").await, keys("anna").await, keys("bob").await);
    assert_eq!(alice, anna);
    assert_ne!(alice["signing_keys"], bob["signing_keys"]);
    assert!(alice["signing_keys"][0].as_str().is_some_and(|key| key.starts_with("whsec_")));
}
