//! CloudKitty's API: every route with every persona, and what the answers hold. On SQLite always, on PostgreSQL when
//! `ORZO_TEST_POSTGRES` names one.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;

/// As in the alarm API's table: nobody, a token without a project, another service, an administrator (project p0), a
/// member of p1, a colleague, a reader of p1, a member of p2.
const PERSONAS: [&str; 8] = ["nobody", "unscoped", "service", "admin", "alice", "anna", "rita", "bob"];
/// The source of the routes, so that the table below cannot forget one.
const ROUTES: &str = include_str!("../rating.rs");

type Cells = [u16; 8];

const PUBLIC: Cells = [200; 8];
const TOKEN: Cells = [401, 200, 200, 200, 200, 200, 200, 200];

/// Only an administrator gets so far.
fn admin(status: u16) -> Cells {
    [401, 403, 403, status, 403, 403, 403, 403]
}

/// Method and path (capitals are ids of the cell's things), body, and the status for each persona.
fn table() -> Vec<(&'static str, &'static str, Value, Cells)> {
    let none = || Value::Null;
    let mapping = || json!({"field_id": "FIELD", "value": "new", "type": "flat", "cost": "0.1"});
    let later = || json!({"mapping_id": "MAPPING", "cost": "0.2", "start": "2100-01-01"});
    let threshold = || json!({"service_id": "SERVICE", "level": 5, "type": "rate", "cost": 0.5});
    let changed = || json!({"threshold_id": "THRESHOLD", "level": 6, "type": "flat", "cost": 1});
    let frame = json!({"dataframes": [{
        "period": {"begin": "20261121T100000Z", "end": "20261121T110000Z"},
        "usage": {"instance": [{"vol": {"unit": "instance", "qty": 1}, "rating": {"price": "0.5"},
            "groupby": {"project_id": "p9", "id": "r9"}, "metadata": {}}]}}]});
    let task = json!({"scope_ids": ["SCOPE"], "start_reprocess_time": "2026-11-01T00:00:00Z",
        "end_reprocess_time": "2026-11-01T01:00:00Z", "reason": "late data"});
    let scope = || json!({"scope_id": "SCOPE", "active": true});
    let reset = json!({"scope_id": "SCOPE", "last_processed_timestamp": "2026-11-02T00:00:00Z"});
    let create = json!({"scope_id": "NEW", "last_processed_timestamp": "20261102T000000Z"});
    let budget = json!({"name": "NEW", "amount": 100, "on": "forecast", "alarm_actions": ["http://203.0.113.7/hook"]});
    let of_project = |mut budget: Value, project: &str| {
        budget["project_id"] = json!(project);
        budget
    };
    let own: Cells = [401, 403, 200, 200, 200, 200, 200, 200];
    let of_p1: Cells = [401, 403, 403, 200, 200, 200, 200, 403];
    vec![
        ("GET", "/", none(), PUBLIC),
        ("GET", "/v2", none(), PUBLIC),
        ("GET", "/healthcheck", none(), PUBLIC),
        ("GET", "/v1/info/config", none(), TOKEN),
        ("GET", "/v1/info/metrics", none(), TOKEN),
        ("GET", "/v1/info/metrics/instance", none(), TOKEN),
        ("GET", "/v1/info/services", none(), TOKEN),
        ("GET", "/v1/info/services/volume.size", none(), TOKEN),
        ("GET", "/v1/rating/modules", none(), admin(200)),
        ("GET", "/v1/rating/modules/hashmap", none(), admin(200)),
        ("PUT", "/v1/rating/modules/noop", json!({"module_id": "noop", "priority": 1}), admin(200)),
        ("PUT", "/v1/rating/modules/none", json!({"priority": 1}), admin(404)),
        ("GET", "/v1/rating/reload_modules", none(), admin(204)),
        ("POST", "/v1/rating/quote", json!({"resources": []}), TOKEN),
        ("GET", "/v1/rating/module_config/hashmap/types", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/services", none(), admin(200)),
        ("POST", "/v1/rating/module_config/hashmap/services", json!({"name": "NEW"}), admin(201)),
        ("DELETE", "/v1/rating/module_config/hashmap/services", json!({"service_id": "SERVICE"}), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/services/SERVICE", none(), admin(200)),
        ("DELETE", "/v1/rating/module_config/hashmap/services/SERVICE", none(), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/fields?service_id=SERVICE", none(), admin(200)),
        (
            "POST",
            "/v1/rating/module_config/hashmap/fields",
            json!({"service_id": "SERVICE", "name": "NEW"}),
            admin(201),
        ),
        ("DELETE", "/v1/rating/module_config/hashmap/fields", json!({"field_id": "FIELD"}), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/fields/FIELD", none(), admin(200)),
        ("DELETE", "/v1/rating/module_config/hashmap/fields/FIELD", none(), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/groups", none(), admin(200)),
        ("POST", "/v1/rating/module_config/hashmap/groups", json!({"name": "NEW"}), admin(201)),
        (
            "DELETE",
            "/v1/rating/module_config/hashmap/groups",
            json!({"group_id": "GROUP", "recursive": true}),
            admin(204),
        ),
        ("GET", "/v1/rating/module_config/hashmap/groups/GROUP", none(), admin(200)),
        ("DELETE", "/v1/rating/module_config/hashmap/groups/GROUP?recursive=true", none(), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/groups/mappings?group_id=GROUP", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/groups/thresholds?group_id=GROUP", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/groups/GROUP/mappings", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/groups/GROUP/thresholds", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/mappings?field_id=FIELD", none(), admin(200)),
        ("POST", "/v1/rating/module_config/hashmap/mappings", mapping(), admin(201)),
        ("PUT", "/v1/rating/module_config/hashmap/mappings", later(), admin(302)),
        ("DELETE", "/v1/rating/module_config/hashmap/mappings", json!({"mapping_id": "MAPPING"}), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/mappings/MAPPING", none(), admin(200)),
        ("PUT", "/v1/rating/module_config/hashmap/mappings/MAPPING", later(), admin(302)),
        ("DELETE", "/v1/rating/module_config/hashmap/mappings/MAPPING", none(), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/mappings/group?mapping_id=MAPPING", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/mappings/MAPPING/group", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/thresholds?service_id=SERVICE", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/thresholds", none(), admin(400)),
        ("POST", "/v1/rating/module_config/hashmap/thresholds", threshold(), admin(201)),
        ("PUT", "/v1/rating/module_config/hashmap/thresholds", changed(), admin(302)),
        ("DELETE", "/v1/rating/module_config/hashmap/thresholds", json!({"threshold_id": "THRESHOLD"}), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/thresholds/THRESHOLD", none(), admin(200)),
        ("PUT", "/v1/rating/module_config/hashmap/thresholds/THRESHOLD", changed(), admin(302)),
        ("DELETE", "/v1/rating/module_config/hashmap/thresholds/THRESHOLD", none(), admin(204)),
        ("GET", "/v1/rating/module_config/hashmap/thresholds/group?threshold_id=THRESHOLD", none(), admin(200)),
        ("GET", "/v1/rating/module_config/hashmap/thresholds/THRESHOLD/group", none(), admin(200)),
        ("GET", "/v1/rating/module_config/pyscripts/scripts", none(), admin(200)),
        ("POST", "/v1/rating/module_config/pyscripts/scripts", json!({"name": "a", "data": "b"}), admin(400)),
        ("GET", "/v1/rating/module_config/pyscripts/scripts/SERVICE", none(), admin(404)),
        ("PUT", "/v1/rating/module_config/pyscripts/scripts/SERVICE", json!({}), admin(400)),
        ("DELETE", "/v1/rating/module_config/pyscripts/scripts/SERVICE", none(), admin(404)),
        ("GET", "/v1/report/summary", none(), own),
        ("GET", "/v1/report/summary?all_tenants=true&groupby=tenant_id,res_type", none(), admin(200)),
        ("GET", "/v1/report/summary?tenant_id=p1&groupby=res_type", none(), of_p1),
        ("GET", "/v1/report/total", none(), own),
        ("GET", "/v1/report/total?tenant_id=p1", none(), of_p1),
        ("GET", "/v1/report/total?all_tenants=true", none(), admin(200)),
        ("GET", "/v1/report/tenants", none(), admin(200)),
        ("GET", "/v1/storage/dataframes", none(), TOKEN),
        ("GET", "/v1/storage/dataframes?tenant_id=p1", none(), of_p1),
        ("GET", "/v1/collector/mappings", none(), admin(200)),
        ("POST", "/v1/collector/mappings", json!({"service": "SERVICE", "collector": "c"}), admin(200)),
        ("DELETE", "/v1/collector/mappings", json!({"service": "MAPPED"}), admin(204)),
        ("POST", "/v1/collector/mappings/c/SERVICE", none(), admin(200)),
        ("GET", "/v1/collector/mappings/MAPPED", none(), admin(200)),
        ("DELETE", "/v1/collector/mappings/MAPPED", none(), admin(204)),
        ("GET", "/v1/collector/states?name=gnocchi", none(), admin(200)),
        ("PUT", "/v1/collector/states", json!({"name": "c", "enabled": true}), admin(200)),
        ("GET", "/v1/collector/states/c", none(), admin(200)),
        ("PUT", "/v1/collector/states/c", json!({"enabled": false}), admin(200)),
        ("GET", "/v1/collector/c/states", none(), admin(200)),
        ("PUT", "/v1/collector/c/states", json!({"enabled": false}), admin(200)),
        ("GET", "/v2/dataframes", none(), [401, 200, 404, 200, 200, 200, 200, 404]),
        ("GET", "/v2/dataframes?filters=project_id:p1", none(), [401, 200, 404, 200, 200, 200, 200, 404]),
        ("POST", "/v2/dataframes", frame, admin(204)),
        ("GET", "/v2/summary", none(), TOKEN),
        ("GET", "/v2/summary?groupby=project_id,type&response_format=object", none(), TOKEN),
        ("GET", "/v2/budgets", none(), own),
        ("POST", "/v2/budgets", budget.clone(), [401, 403, 403, 201, 201, 201, 403, 201]),
        ("POST", "/v2/budgets", of_project(budget, "p1"), [401, 403, 403, 201, 201, 201, 403, 403]),
        ("DELETE", "/v2/budgets/BUDGET", none(), [401, 403, 404, 204, 204, 204, 403, 404]),
        ("GET", "/v2/exports", none(), admin(200)),
        ("POST", "/v2/exports", json!({"profile": "xml"}), admin(400)),
        ("GET", "/v2/exports/RUN/Manifest.json", none(), admin(404)),
        ("GET", "/v2/deliveries", none(), admin(200)),
        ("GET", "/v2/deliveries?state=lost", none(), admin(400)),
        ("GET", "/v2/deliveries/DELIVERY", none(), admin(404)),
        ("POST", "/v2/deliveries/DELIVERY/replay", none(), admin(404)),
        ("GET", "/v2/invoices/p1/2026-11", none(), of_p1),
        ("GET", "/v2/invoices/p1/2026-11?format=html&language=zh", none(), of_p1),
        ("GET", "/v2/invoices/p1/november", none(), [401, 403, 403, 400, 400, 400, 400, 403]),
        ("GET", "/v2/prices", none(), admin(200)),
        ("GET", "/v2/prices?kind=tariff", none(), admin(400)),
        ("GET", "/v2/prices/discount/DOCUMENT", none(), admin(200)),
        ("PUT", "/v2/prices/discount/NEW", json!({"percent": 0}), admin(200)),
        ("PUT", "/v2/prices/tariff/NEW", json!({}), admin(400)),
        ("DELETE", "/v2/prices/discount/DOCUMENT", none(), admin(204)),
        ("DELETE", "/v2/prices/discount/NEW", none(), admin(404)),
        ("GET", "/v2/rules/changes", none(), admin(200)),
        ("POST", "/v2/quote", json!({"resources": []}), own),
        ("POST", "/v2/quote", json!({"resources": [], "project_id": "p1"}), of_p1),
        ("GET", "/v2/periods", none(), own),
        ("GET", "/v2/periods?scope_id=p1", none(), of_p1),
        ("POST", "/v2/periods", json!({"scope_ids": ["SCOPE"], "end": "2026-11-02"}), admin(201)),
        ("POST", "/v2/periods", json!({"scope_ids": ["SCOPE"], "end": "2026-11-12"}), admin(400)),
        (
            "POST",
            "/v2/rerate",
            json!({"scope_ids": ["SCOPE"], "begin": "2026-11-01", "end": "2026-11-02", "rules": "then"}),
            admin(200),
        ),
        ("GET", "/v2/lines", none(), own),
        ("GET", "/v2/lines?project_id=p1&limit=2", none(), of_p1),
        ("GET", "/v2/lines/RUN", none(), [401, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/v2/completeness", none(), own),
        ("GET", "/v2/completeness?project_id=p1&begin=2026-11-20", none(), of_p1),
        ("GET", "/v2/scope", none(), admin(200)),
        ("PUT", "/v2/scope", reset, admin(202)),
        ("PATCH", "/v2/scope", scope(), admin(200)),
        ("POST", "/v2/scope", create, admin(200)),
        ("GET", "/v2/rating/modules", none(), admin(200)),
        ("GET", "/v2/rating/modules/hashmap", none(), admin(200)),
        ("PUT", "/v2/rating/modules/hashmap", json!({"enabled": true}), admin(204)),
        ("GET", "/v2/task/reprocesses", none(), admin(200)),
        ("POST", "/v2/task/reprocesses", task, admin(202)),
        ("GET", "/v2/task/reprocesses/SCOPE", none(), admin(200)),
    ]
}

pub(super) struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

async fn ask(house: &House, who: &str, method: &str, path: &str, body: &Value) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/rating{path}"))
        .header(header::HOST, "orzo.test")
        .header(header::ACCEPT, "application/json")
        // The real client sends it with everything.
        .header(header::CONTENT_TYPE, "application/json");
    if who != "nobody" {
        request = request.header("x-auth-token", who);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = house.router.clone().oneshot(request.body(body).expect("a request")).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body }
}

pub(super) async fn expect(house: &House, who: &str, method: &str, path: &str, body: &Value, status: u16) -> Value {
    let answer = ask(house, who, method, path, body).await;
    assert_eq!(answer.status.as_u16(), status, "{who} {method} {path} {body}: {}", answer.body);
    answer.body
}

const HASHMAP: &str = "/v1/rating/module_config/hashmap";

async fn make(house: &House, what: &str, body: Value, id: &str) -> String {
    let made = expect(house, "admin", "POST", &format!("{HASHMAP}/{what}"), &body, 201).await;
    made[id].as_str().expect("an id").to_owned()
}

/// The things of one cell, by the word that stands for them.
async fn things(house: &House, cell: usize) -> Vec<(&'static str, String)> {
    let service = make(house, "services", json!({"name": format!("s{cell}")}), "service_id").await;
    let field = make(house, "fields", json!({"service_id": service, "name": "f"}), "field_id").await;
    let group = make(house, "groups", json!({"name": format!("g{cell}")}), "group_id").await;
    let mapping = json!({"field_id": field, "group_id": group, "value": "v", "cost": "0.1", "start": "2100-01-01"});
    let mapping = make(house, "mappings", mapping, "mapping_id").await;
    let threshold = json!({"service_id": service, "group_id": group, "level": 3, "cost": 2});
    let threshold = make(house, "thresholds", threshold, "threshold_id").await;
    let (scope, mapped) = (format!("scope{cell}"), format!("mapped{cell}"));
    let body = json!({"scope_id": scope, "last_processed_timestamp": "2026-11-10T00:00:00Z"});
    expect(house, "admin", "POST", "/v2/scope", &body, 200).await;
    let body = json!({"service": mapped, "collector": "c"});
    expect(house, "admin", "POST", "/v1/collector/mappings", &body, 200).await;
    let budget = json!({"name": format!("budget{cell}"), "amount": "12.5"});
    let budget = expect(house, "alice", "POST", "/v2/budgets", &budget, 201).await;
    let budget = budget["budget_id"].as_str().expect("an id").to_owned();
    let document = format!("document{cell}");
    vec![
        ("DOCUMENT", document),
        ("BUDGET", budget),
        ("SERVICE", service),
        ("FIELD", field),
        ("GROUP", group),
        ("MAPPING", mapping),
        ("THRESHOLD", threshold),
        ("SCOPE", scope),
        ("MAPPED", mapped),
        ("NEW", format!("new{cell}")),
        ("RUN", uuid::Uuid::from_u128(7).to_string()),
    ]
}

fn filled(text: &str, things: &[(&'static str, String)]) -> String {
    // `HASHMAP` is not among the words: paths are lower case.
    things.iter().fold(text.to_owned(), |text, (word, id)| text.replace(word, id))
}

/// Rated lines of two projects in this month (the house's is November 2026).
async fn push(house: &House) {
    let point = |project: &str, resource: &str, flavor: &str, quantity: Value, price: &str| {
        json!({"vol": {"unit": "instance", "qty": quantity}, "rating": {"price": price},
               "groupby": {"project_id": project, "id": resource, "user_id": "u"}, "metadata": {"flavor_name": flavor}})
    };
    let frame = |hour: u32, usage: Value| {
        json!({"period": {"begin": format!("2026-11-20T{hour:02}:00:00+00:00"),
                          "end": format!("2026-11-20T{:02}:00:00+00:00", hour + 1)}, "usage": usage})
    };
    let volume = json!([point("p1", "v1", "-", json!(20), "0.02")]);
    let frames = json!({"dataframes": [
        frame(10, json!({"instance": [point("p1", "r1", "small", json!(1), "0.1"), point("p1", "r2", "large", json!(1), "0.2")]})),
        frame(11, json!({"instance": [point("p1", "r1", "small", json!(0.5), "0.05")], "volume.size": volume})),
        frame(11, json!({"instance": [point("p3", "r3", "small", json!(1), "7")]})),
    ]});
    expect(house, "admin", "POST", "/v2/dataframes", &frames, 204).await;
    // Pushed again it is there once.
    expect(house, "admin", "POST", "/v2/dataframes", &frames, 204).await;
}

#[tokio::test]
async fn every_route_answers_every_persona_as_the_policies_say() {
    for house in House::on_every_database(|_| {}).await {
        push(&house).await;
        let mut wrong = Vec::new();
        let mut cells = 0;
        for (method, path, body, expected) in table() {
            for (who, expected) in PERSONAS.iter().zip(expected) {
                cells += 1;
                let things = things(&house, cells).await;
                let body: Value = serde_json::from_str(&filled(&body.to_string(), &things)).expect("JSON");
                let path = filled(path, &things);
                if path.contains("/document") {
                    expect(&house, "admin", "PUT", &path, &json!({"percent": 0}), 200).await;
                }
                let answer = ask(&house, who, method, &path, &body).await;
                if answer.status.as_u16() != expected {
                    wrong.push(format!("{who} {method} {path}: {} not {expected}: {}", answer.status, answer.body));
                }
                let is_refusal = answer.status.is_client_error();
                let told = if path.starts_with("/v1") { &answer.body["faultstring"] } else { &answer.body["message"] };
                if is_refusal && !told.is_string() {
                    wrong.push(format!("{who} {method} {path}: not CloudKitty's fault: {}", answer.body));
                }
                let text = answer.body.to_string();
                if *who == "bob" && !is_refusal && (text.contains("\"p1\"") || text.contains("\"r1\"")) {
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
    let shape = |path: &str| -> String {
        let path = path.split('?').next().unwrap_or_default();
        let names = [
            "hashmap",
            "noop",
            "none",
            "instance",
            "volume.size",
            "gnocchi",
            "c",
            "p1",
            "2026-11",
            "november",
            "discount",
            "tariff",
        ];
        let part = |(place, part): (usize, &str)| match part {
            part if part.starts_with('{') || part.chars().all(|c| c.is_ascii_uppercase()) && !part.is_empty() => {
                "*".into()
            }
            // The last segment, or a collector's name.
            "Manifest.json" => "*".to_owned(),
            part if names.contains(&part) && place > 2 && part != "hashmap" => "*".to_owned(),
            "hashmap" if path.contains("/modules/") => "*".to_owned(),
            part => part.to_owned(),
        };
        path.split('/').enumerate().map(part).collect::<Vec<_>>().join("/")
    };
    let asked: BTreeSet<(String, String)> =
        table.iter().map(|(method, path, ..)| ((*method).to_owned(), shape(path))).collect();
    let source = ROUTES.split("pub(crate) fn router()").nth(1).expect("the router");
    let source = source.split(".layer(").next().expect("its end");
    let place = regex::Regex::new(r#"^\s*(&path\()?"([^"]+)""#).expect("a pattern");
    let method = regex::Regex::new(r"\b(get|post|put|delete|patch)\(").expect("a pattern");
    let mut routes = 0;
    for part in source.split(".route(").skip(1) {
        let found = place.captures(part).expect("a path");
        let path = if found.get(1).is_some() { format!("{HASHMAP}/{}", &found[2]) } else { found[2].to_owned() };
        for method in method.captures_iter(part) {
            let pair = (method[1].to_uppercase(), shape(&path));
            assert!(asked.contains(&pair), "{pair:?} is not in the table");
            routes += 1;
        }
    }
    assert!(routes >= 75, "only {routes} routes were found in the source");
}

#[tokio::test]
async fn reports_sum_what_was_rated_and_show_a_project_its_own() {
    for house in House::on_every_database(|_| {}).await {
        push(&house).await;
        let get = async |who: &str, path: &str| expect(&house, who, "GET", path, &Value::Null, 200).await;
        assert_eq!(get("alice", "/v1/report/total").await, "0.37");
        assert_eq!(get("admin", "/v1/report/total?all_tenants=true").await, "7.37");
        assert_eq!(get("admin", "/v1/report/total?tenant_id=p1&service=instance").await, "0.35");
        assert_eq!(get("alice", "/v1/report/total?begin=2026-11-20T11:00:00").await, "0.07");
        assert_eq!(get("admin", "/v1/report/tenants").await, json!(["p1", "p3"]));
        assert_eq!(get("admin", "/v1/report/tenants?end=2026-11-20T11:00:00").await, json!(["p1"]));
        let summary = get("admin", "/v1/report/summary?all_tenants=1&groupby=tenant_id,res_type").await;
        let rows: Vec<_> = summary["summary"].as_array().expect("rows").iter().map(|row| &row["rate"]).collect();
        assert_eq!(rows, ["0.35", "7.0", "0.02"]);
        assert_eq!(get("bob", "/v1/report/summary").await, json!({"summary": []}));

        let frames = get("alice", "/v1/storage/dataframes").await;
        let frames = frames["dataframes"].as_array().expect("frames");
        assert_eq!(frames.len(), 3, "{frames:?}");
        assert_eq!((&frames[0]["begin"], &frames[0]["tenant_id"]), (&json!("2026-11-20T10:00:00"), &json!("p1")));
        let first = &frames[0]["resources"][0];
        assert_eq!((&first["volume"], &first["rating"]), (&json!("1"), &json!("0.1")));
        assert_eq!((&first["desc"]["flavor_name"], &first["desc"]["id"]), (&json!("small"), &json!("r1")));

        let all = get("alice", "/v2/dataframes").await;
        assert_eq!((&all["total"], all["dataframes"].as_array().map(Vec::len)), (&json!(4), Some(2)));
        assert_eq!(all["dataframes"][0]["period"]["begin"], "2026-11-20T10:00:00+00:00");
        assert_eq!(all["dataframes"][1]["usage"]["volume.size"][0]["vol"], json!({"unit": "instance", "qty": 20}));
        let page = get("alice", "/v2/dataframes?offset=1&limit=2").await;
        assert_eq!(page["total"], 4);
        assert_eq!(page["dataframes"][0]["usage"]["instance"][0]["rating"]["price"], 0.2);
        assert_eq!(page["dataframes"][1]["usage"]["instance"][0]["vol"]["qty"], 0.5);
        let small = get("admin", "/v2/dataframes?filters=flavor_name:small,type:instance").await;
        assert_eq!(small["total"], 3);
        let foreign = get("alice", "/v2/dataframes?filters=project_id:p3").await;
        assert_eq!(foreign["total"], 4, "whoever is asked about: one's own");

        let table = get("alice", "/v2/summary?groupby=type").await;
        assert_eq!(table["columns"], json!(["begin", "end", "qty", "rate", "type"]));
        let begin = ["2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"];
        assert_eq!(table["results"][0], json!([begin[0], begin[1], 2.5, 0.35, "instance"]));
        let custom = "custom_fields=MAX(price)%20AS%20dearest,COUNT(qty)%20AS%20n";
        let objects =
            get("admin", &format!("/v2/summary?groupby=time,project_id&response_format=object&{custom}")).await;
        assert_eq!((&objects["total"], &objects["format"]), (&json!(3), &json!("object")));
        assert_eq!(
            objects["results"][2],
            json!({"begin": "2026-11-20T11:00:00+00:00", "end": "2026-11-20T12:00:00+00:00", "dearest": 7, "n": 1,
                   "project_id": "p3"})
        );
        let filtered = get("admin", "/v2/summary?filters=type:instance,flavor_name:small,flavor_name:large").await;
        assert_eq!(filtered["results"][0][3], 7.35);
        let days = get("admin", "/v2/summary?groupby=time-d,time-y&limit=1").await;
        assert_eq!(
            (&days["total"], &days["results"][0][4], &days["results"][0][5]),
            (&json!(1), &json!("324"), &json!("2026"))
        );
        let nothing = get("bob", "/v2/summary").await;
        assert_eq!(nothing, json!({"total": 0, "columns": [], "results": [], "format": "table"}));
        for path in [
            "/v2/summary?groupby=time-x",
            "/v2/summary?response_format=xml",
            "/v2/summary?filters=x",
            "/v2/summary?custom_fields=DROP(qty)%20AS%20x",
            "/v2/summary?begin=yesterday",
            "/v2/summary?colour=red",
            "/v2/dataframes?limit=0",
            "/v1/report/total?colour=red",
        ] {
            expect(&house, "admin", "GET", path, &Value::Null, 400).await;
        }
    }
}

#[tokio::test]
async fn wrong_dataframes_are_refused_with_their_place_and_nothing_is_kept() {
    let house = House::build().await;
    let good = json!({"vol": {"unit": "GiB", "qty": 1.2}, "rating": {"price": 0.04}, "groupby": {}, "metadata": {}});
    let frame = |points: Value| {
        let period = json!({"begin": "20261123T122810Z", "end": "20261123T132810Z"});
        json!({"dataframes": [{"period": period, "usage": {"metric_one": points}}]})
    };
    let mut late = frame(json!([good]));
    late["dataframes"][0]["period"]["end"] = json!("20261123T122810Z");
    let mut malformed = frame(json!([good]));
    malformed["dataframes"][0]["period"]["begin"] = json!("20261123");
    for (body, place) in [
        (json!({"dataframes": []}), "must not be empty"),
        (json!({}), "dataframes"),
        (json!([]), "dataframes"),
        (frame(json!({})), "usage.metric_one"),
        (frame(json!([good, {"vol": {"unit": "GiB"}}])), "qty"),
        (frame(json!([good, {"vol": {"qty": 1}}])), "usage.metric_one[1].vol.unit"),
        (frame(json!([{"vol": {"unit": "GiB", "qty": 1}, "groupby": {}}])), "metadata"),
        (frame(json!([{"vol": {"unit": "GiB", "qty": "NaN"}, "groupby": {}, "metadata": {}}])), "qty"),
        (late, "ends before it begins"),
        (malformed, "begin"),
        (json!({"dataframes": [{"period": {"begin": "20261123T122810Z"}}]}), "period.end"),
    ] {
        let told = expect(&house, "admin", "POST", "/v2/dataframes", &body, 400).await;
        let text = told["message"].as_str().expect("a text");
        assert!(text.contains(place), "{body}: {text}");
    }
    expect(&house, "admin", "GET", "/v2/dataframes", &Value::Null, 404).await;
    // Twins in one request are two; others of the same time and resource are others.
    expect(&house, "admin", "POST", "/v2/dataframes", &frame(json!([good, good])), 204).await;
    let mut other = good.clone();
    other["rating"]["price"] = json!(0.05);
    expect(&house, "admin", "POST", "/v2/dataframes", &frame(json!([other])), 204).await;
    assert_eq!(expect(&house, "admin", "GET", "/v2/dataframes", &Value::Null, 200).await["total"], 3);
}

#[tokio::test]
async fn rules_are_kept_shown_and_quoted() {
    for house in House::on_every_database(|_| {}).await {
        let service = make(&house, "services", json!({"name": "instance"}), "service_id").await;
        let field = make(&house, "fields", json!({"service_id": service, "name": "flavor_name"}), "field_id").await;
        let path = format!("{HASHMAP}/mappings?force=true");
        let body = json!({"field_id": field, "value": "small", "type": "flat", "cost": 0.1, "start": "2014-01-01",
                          "name": "cheap", "description": "For All"});
        let answer = ask(&house, "admin", "POST", &path, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let mapping = answer.body["mapping_id"].as_str().expect("an id").to_owned();
        assert_eq!(
            answer.headers[header::LOCATION],
            format!("http://orzo.test/rating{HASHMAP}/mappings/{mapping}").as_str()
        );
        assert_eq!(answer.body["cost"], "0.1000000000000000000000000000");
        assert_eq!((&answer.body["start"], &answer.body["end"]), (&json!("2014-01-01T00:00:00"), &Value::Null));
        assert_eq!((&answer.body["created_by"], &answer.body["service_id"]), (&json!("u-admin"), &Value::Null));
        let quote = json!({"resources": [
            {"service": "instance", "volume": 2, "desc": {"flavor_name": "small"}},
            {"service": "instance", "volume": "1.5", "desc": {"metadata": {"flavor_name": "small"}}},
            {"service": "instance", "volume": 1, "desc": {"flavor_name": "huge"}}]});
        assert_eq!(expect(&house, "bob", "POST", "/v1/rating/quote", &quote, 200).await, 0.35);
        expect(&house, "admin", "PUT", "/v2/rating/modules/hashmap", &json!({"enabled": false}), 204).await;
        assert_eq!(expect(&house, "bob", "POST", "/v1/rating/quote", &quote, 200).await, 0.0);
        expect(&house, "admin", "PUT", "/v2/rating/modules/hashmap", &json!({"enabled": true}), 204).await;
        // The real client sends a change again and again while it is told that it has moved.
        let end = json!({"mapping_id": mapping, "cost": "0.1", "end": "2100-01-01"});
        let one = format!("{HASHMAP}/mappings/{mapping}");
        expect(&house, "admin", "PUT", &one, &end, 302).await;
        expect(&house, "admin", "PUT", &one, &end, 200).await;
        let shown = expect(&house, "admin", "GET", &one, &Value::Null, 200).await;
        assert_eq!((&shown["end"], &shown["updated_by"]), (&json!("2100-01-01T23:59:59"), &json!("u-admin")));
        let list = async |query: &str| {
            let path = format!("{HASHMAP}/mappings?{query}");
            let found = expect(&house, "admin", "GET", &path, &Value::Null, 200).await;
            found["mappings"].as_array().expect("a list").len()
        };
        for (query, expected) in [
            ("", 1),
            (&format!("field_id={field}"), 1),
            (&format!("service_id={service}"), 0),
            ("description=for+all", 1),
            ("created_by=u-alice", 0),
            ("is_active=true", 1),
            ("filter_tenant=true&tenant_id=7977999e-2e25-11e6-a8b2-df30b233ffcb", 0),
            ("filter_tenant=true", 1),
            ("no_group=true", 1),
            ("start=2015-01-01", 0),
        ] {
            assert_eq!(list(query).await, expected, "{query}");
        }
        expect(&house, "admin", "DELETE", &one, &Value::Null, 204).await;
        assert_eq!((list("").await, list("deleted=true").await), (0, 1));
        let shown = expect(&house, "admin", "GET", &one, &Value::Null, 200).await;
        assert_eq!(shown["deleted_by"], "u-admin");
        assert_eq!(expect(&house, "bob", "POST", "/v1/rating/quote", &quote, 200).await, 0.0);

        for (path, body, status, said) in [
            ("services", json!({"name": "instance"}), 409, "Service instance already exists (UUID: "),
            ("services", json!({}), 400, "Mandatory field missing."),
            ("services", json!({"name": "x", "colour": 1}), 400, "Unknown attribute"),
            ("fields", json!({"service_id": service, "name": "flavor_name"}), 409, "Field flavor_name already exists"),
            ("fields", json!({"service_id": "x", "name": "a"}), 400, "Invalid UUID, got 'x'"),
            ("mappings", json!({"service_id": service, "cost": "x"}), 400, "attribute cost"),
            ("mappings", json!({"service_id": service}), 400, "Mandatory field missing."),
            ("mappings", json!({"cost": 1}), 400, "You must specify one parent."),
            (
                "mappings",
                json!({"service_id": service, "type": "fail", "cost": 1}),
                400,
                "Value should be one of: flat, rate",
            ),
            ("mappings", json!({"service_id": service, "cost": 1, "start": "2014-01-01"}), 400, "start in the past"),
            (
                "mappings",
                json!({"service_id": service, "cost": 1, "start": "2101-01-01", "end": "2100-01-01"}),
                400,
                "start after end",
            ),
            ("mappings", json!({"service_id": service, "value": "v", "cost": 1}), 400, "You can't specify a value"),
            ("thresholds", json!({"service_id": service, "cost": 1}), 400, "Mandatory field missing."),
            (
                "thresholds",
                json!({"service_id": "7977999e-2e25-11e6-a8b2-df30b233ffcb", "level": 1, "cost": 1}),
                400,
                "No such service",
            ),
        ] {
            let told = expect(&house, "admin", "POST", &format!("{HASHMAP}/{path}"), &body, status).await;
            let text = told["faultstring"].as_str().expect("a text");
            assert!(text.contains(said), "{path} {body}: {text}");
        }
        let told = expect(&house, "admin", "PUT", &format!("{HASHMAP}/mappings/42"), &json!({"cost": 1}), 404).await;
        assert_eq!(told["faultstring"], "No such mapping: 42");
        let told = expect(&house, "admin", "POST", "/v1/rating/module_config/pyscripts/scripts", &json!({}), 400).await;
        assert!(told["faultstring"].as_str().is_some_and(|text| text.contains("expression")), "{told}");
        house.assert_conserved();
    }
}

#[tokio::test]
async fn scopes_are_reset_changed_and_reprocessed() {
    for house in House::on_every_database(|_| {}).await {
        expect(&house, "admin", "GET", "/v2/scope", &Value::Null, 404).await;
        for scope in ["a", "b"] {
            let body = json!({"scope_id": scope, "last_processed_timestamp": "20261116T080000Z", "collector": "c1"});
            let made = expect(&house, "admin", "POST", "/v2/scope", &body, 200).await;
            assert_eq!(made["last_processed_timestamp"], "2026-11-16T08:00:00+00:00");
            assert_eq!((&made["scope_key"], &made["active"]), (&json!("project_id"), &json!(true)));
            expect(&house, "admin", "POST", "/v2/scope", &body, 404).await;
        }
        let ids = async |query: &str| {
            let found = ask(&house, "admin", "GET", &format!("/v2/scope?{query}"), &Value::Null).await.body;
            let scopes = found["results"].as_array().cloned().unwrap_or_default();
            scopes.iter().filter_map(|scope| scope["scope_id"].as_str().map(str::to_owned)).collect::<String>()
        };
        let patch = json!({"scope_id": "b", "active": false, "fetcher": "f2"});
        let patched = expect(&house, "admin", "PATCH", "/v2/scope", &patch, 200).await;
        assert_eq!((&patched["active"], &patched["fetcher"]), (&json!(false), &json!("f2")));
        for (query, expected) in [
            ("", "ab"),
            ("active=1", "a"),
            ("active=0", "b"),
            ("scope_id=a,b&fetcher=f2", "b"),
            ("limit=1&offset=1", "b"),
            ("collector=none", ""),
        ] {
            assert_eq!(ids(query).await, expected, "{query}");
        }
        let task = |scopes: Value, begin: &str, end: &str, reason: &str| json!({"scope_ids": scopes, "start_reprocess_time": begin, "end_reprocess_time": end, "reason": reason});
        let (first, last) = ("2026-11-16T06:00:00Z", "2026-11-16T08:00:00Z");
        let path = "/v2/task/reprocesses";
        for (body, said) in [
            (task(json!(["a"]), first, last, " "), "Empty or blank reason"),
            (task(json!(["a"]), last, first, "x"), "cannot be less than"),
            (task(json!(["a"]), first, "2026-11-16T07:30:00Z", "x"), "does not comply"),
            (task(json!(["a"]), first, "2026-11-16T09:00:00Z", "x"), "ending after the last possible timestamp"),
            (task(json!(["a", "ALL"]), first, last, "x"), "Cannot use 'ALL' with scope ID"),
            (task(json!(["nope"]), first, last, "x"), "do not exist"),
            (task(json!([]), first, last, "x"), "required key not provided"),
        ] {
            let told = expect(&house, "admin", "POST", path, &body, 400).await;
            assert!(told["message"].as_str().is_some_and(|text| text.contains(said)), "{body}: {told}");
        }
        expect(&house, "admin", "POST", path, &task(json!(["a"]), first, last, "late data"), 202).await;
        let told = expect(&house, "admin", "POST", path, &task(json!(["ALL"]), first, last, "again"), 400).await;
        assert!(told.to_string().contains("already has a schedule"), "{told}");
        let tasks = expect(&house, "admin", "GET", &format!("{path}?order=ASC"), &Value::Null, 200).await;
        assert_eq!(tasks["results"].as_array().map(Vec::len), Some(1), "all of it or none: {tasks}");
        assert_eq!(
            (&tasks["results"][0]["scope_id"], &tasks["results"][0]["current_reprocess_time"]),
            (&json!("a"), &json!(""))
        );
        assert_eq!(
            expect(&house, "admin", "GET", &format!("{path}/b"), &Value::Null, 200).await,
            json!({"results": []})
        );
        expect(&house, "admin", "GET", &format!("{path}?order=up"), &Value::Null, 400).await;
        for (body, status) in [
            (json!({"all_scopes": true, "last_processed_timestamp": "20261110T000000Z"}), 202),
            (json!({"scope_id": "a,b", "state": "2026-11-11T00:00:00+00:00"}), 202),
            (json!({"scope_id": "nope", "last_processed_timestamp": "20261110T000000Z"}), 404),
            (json!({"scope_key": "k", "last_processed_timestamp": "20261110T000000Z"}), 400),
            (json!({"scope_id": "a"}), 400),
            (json!({"all_scopes": true, "scope_id": "a", "last_processed_timestamp": "20261110T000000Z"}), 400),
        ] {
            expect(&house, "admin", "PUT", "/v2/scope", &body, status).await;
        }
        let scopes = expect(&house, "admin", "GET", "/v2/scope", &Value::Null, 200).await;
        assert_eq!(scopes["results"][1]["last_processed_timestamp"], "2026-11-11T00:00:00+00:00");
    }
}

#[tokio::test]
async fn a_budget_is_an_alarm_on_a_projects_costs() {
    for house in House::on_every_database(|_| {}).await {
        let body = json!({"name": "november", "amount": "99.5", "on": "forecast", "severity": "critical"});
        let made = expect(&house, "alice", "POST", "/v2/budgets", &body, 201).await;
        assert_eq!(
            (&made["amount"], &made["on"], &made["project_id"]),
            (&json!(99.5), &json!("forecast"), &json!("p1"))
        );
        assert_eq!(made["state"], "insufficient data");
        assert_eq!(made["currency"], "USD", "the project's");
        let of_p3 = json!({"name": "theirs", "amount": 7, "project_id": "p3", "currency": "JPY"});
        assert_eq!(expect(&house, "admin", "POST", "/v2/budgets", &of_p3, 201).await["currency"], "JPY");
        let names = async |who: &str| {
            let found = expect(&house, who, "GET", "/v2/budgets", &Value::Null, 200).await;
            let budgets = found["budgets"].as_array().cloned().unwrap_or_default();
            let mut names: Vec<_> = budgets.iter().filter_map(|own| own["name"].as_str().map(str::to_owned)).collect();
            names.sort();
            names
        };
        assert_eq!(names("rita").await, ["november"]);
        assert_eq!(names("rick").await, ["theirs"]);
        assert_eq!(names("admin").await, ["november", "theirs"]);
        assert!(names("bob").await.is_empty());
        let id = made["budget_id"].as_str().expect("an id");
        assert!(!house.is_operators(id).await, "it reads what the project reads");
        for (body, said) in [
            (json!({"name": "x"}), "needs an amount"),
            (json!({"amount": 1}), "Mandatory field missing"),
            (json!({"name": "x", "amount": "NaN"}), "amount"),
            (json!({"name": "x", "amount": -1}), "amount is below zero"),
            (json!({"name": "x", "amount": "1e40"}), "amount is not below"),
            (json!({"name": "x", "amount": 1, "currency": "ZZZ"}), "currency: `ZZZ` is no ISO 4217 code"),
            (json!({"name": "x", "amount": 1, "on": "monday"}), "accrued or forecast"),
            (json!({"name": "x", "amount": 1, "alarm_actions": ["ftp://x/"]}), "ftp"),
            (json!({"name": "x", "amount": 1, "alarm_actions": ["trust+http://x/"]}), "trusts"),
        ] {
            let told = expect(&house, "alice", "POST", "/v2/budgets", &body, 400).await;
            assert!(told["message"].as_str().is_some_and(|text| text.contains(said)), "{body}: {told}");
        }
        expect(&house, "alice", "DELETE", &format!("/v2/budgets/{id}"), &Value::Null, 204).await;
        expect(&house, "alice", "DELETE", &format!("/v2/budgets/{id}"), &Value::Null, 404).await;
    }
}

#[tokio::test]
async fn costs_of_two_currencies_are_added_nowhere() {
    for house in House::on_every_database(|_| {}).await {
        let put = async |path: &str, body: Value, status: u16| {
            expect(&house, "admin", "PUT", &format!("/v2/prices/{path}"), &body, status).await
        };
        for (path, body, said) in [
            ("currency/x", json!({"code": "ZZZ"}), "currency `x`: code: `ZZZ` is no ISO 4217 code"),
            ("credit/x", json!({"amount": "1e40"}), "credit `x`: amount has more than 16 digits before the point"),
            ("minimum/x", json!({"amount": 1e40}), "minimum `x`: amount has more than 16 digits before the point"),
        ] {
            let told = put(path, body, 400).await;
            assert!(told["message"].as_str().is_some_and(|text| text.starts_with(said)), "{told}");
        }
        put("tax/vat", json!({"percent": 19}), 200).await;
        put("currency/p1", json!({"code": "JPY", "projects": ["p1"], "valid_from": "2026-11-20T11:00:00Z"}), 200).await;
        // Of p1: 0.3 dollars before eleven, 0.07 yen after; of p3: 7 dollars.
        push(&house).await;
        let get =
            async |who: &str, path: &str, status: u16| expect(&house, who, "GET", path, &Value::Null, status).await;
        let invoice = get("alice", "/v2/invoices/p1/2026-11", 200).await;
        let parts: Vec<_> = invoice["currencies"].as_array().expect("parts").iter().collect();
        let said = |name: &str| parts.iter().map(|part| part[name].clone()).collect::<Vec<_>>();
        assert_eq!(
            (said("currency"), said("net")),
            (vec![json!("JPY"), json!("USD")], vec![json!("0.07"), json!("0.30")])
        );
        assert_eq!(said("tax"), [json!("0.0133"), json!("0.057")]);
        let theirs = get("admin", "/v2/invoices/p3/2026-11", 200).await;
        assert_eq!((&theirs["currencies"][0]["currency"], &theirs["currencies"][1]), (&json!("USD"), &Value::Null));
        for path in ["/v2/summary", "/v1/report/total", "/v1/report/summary", "/v2/summary?groupby=project_id"] {
            let told = get("alice", path, 400).await;
            assert!(told.to_string().contains("JPY, USD"), "{path}: {told}");
        }
        let rates = |answer: &Value| {
            let rows = answer["results"].as_array().cloned().unwrap_or_default();
            rows.iter().map(|row| (row["rate"].clone(), row["currency"].clone())).collect::<Vec<_>>()
        };
        let objects = "/v2/summary?response_format=object&groupby=currency";
        let grouped = get("alice", objects, 200).await;
        assert_eq!(rates(&grouped), [(json!(0.07), json!("JPY")), (json!(0.3), json!("USD"))], "{grouped}");
        let filtered = get("alice", &format!("{objects}&filters=currency:USD"), 200).await;
        assert_eq!(rates(&filtered), [(json!(0.3), json!("USD"))]);
        let counted = get("alice", "/v2/summary?custom_fields=SUM(qty)%20AS%20qty", 200).await;
        assert_eq!(counted["total"], 1, "what is no money has no currency");
        assert_eq!(get("alice", "/v1/report/total?end=2026-11-20T11:00:00", 200).await, "0.3");
        // Closed in pieces or not, each currency has its own sum.
        house.processor.discover().await.expect("found");
        house.processor.advance(|_, _| ()).await.expect("rated");
        let close = json!({"scope_ids": ["p1"], "end": "2026-11-21T00:00:00"});
        let closed = expect(&house, "admin", "POST", "/v2/periods", &close, 201).await;
        let own = &closed["periods"][0];
        assert_eq!(
            (&own["totals"], &own["total"], &own["currency"]),
            (&json!({"JPY": "0.0833", "USD": "0.357"}), &Value::Null, &Value::Null),
            "{closed}"
        );
        assert_eq!(get("alice", "/v2/periods", 200).await["periods"][0]["totals"], own["totals"]);
    }
}

#[tokio::test]
async fn an_invoice_is_a_page_for_browsers() {
    let house = House::build().await;
    push(&house).await;
    let ask = async |query: &str, accept: Option<&str>| {
        let mut request = Request::builder()
            .uri(format!("/rating/v2/invoices/p1/2026-11{query}"))
            .header(header::HOST, "orzo.test")
            .header("x-auth-token", "alice");
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let response = house.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
        let response = response.expect("infallible");
        let kind = response.headers()[header::CONTENT_TYPE].to_str().expect("ascii").to_owned();
        (response.status().as_u16(), kind.split(';').next().unwrap_or_default().to_owned())
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    let (page, data) = ((200, "text/html".to_owned()), (200, "application/json".to_owned()));
    for accept in [browser, "text/html", "text/html,application/xhtml+xml"] {
        assert_eq!(ask("?format=html", Some(accept)).await, page, "{accept}");
        assert_eq!(ask("", Some(accept)).await, page, "{accept}");
    }
    for accept in [None, Some("*/*"), Some("application/json"), Some("application/json, text/html")] {
        assert_eq!(ask("", accept).await, data, "{accept:?}");
    }
    assert_eq!(ask("?format=json", Some(browser)).await, data, "who says it gets it");
    assert_eq!(ask("", Some("image/png")).await.0, 406);
    assert_eq!(ask("?language=fr", Some("text/html")).await.0, 400, "wrong is wrong, and no page");
}

#[tokio::test]
async fn exports_are_begun_listed_and_fetched_and_nothing_else_of_the_disk_is() {
    for house in House::on_every_database(|_| {}).await {
        push(&house).await;
        let body = json!({"profile": "focus-1.2-csv", "begin": "2026-11-01", "end": "2026-12-01"});
        let job = expect(&house, "admin", "POST", "/v2/exports", &body, 202).await;
        let mut listed = Value::Null;
        // A minute: it is written and synced by a thread of its own.
        for _ in 0..6000 {
            listed = expect(&house, "admin", "GET", "/v2/exports", &Value::Null, 200).await;
            if listed["jobs"][0]["state"] != "running" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!((&listed["jobs"][0]["job"], &listed["jobs"][0]["state"]), (&job["job"], &json!("done")), "{listed}");
        let run = &listed["runs"][0];
        assert_eq!((&run["lines"], &run["totals"]["USD"]), (&json!(5), &json!("7.37")), "{listed}");
        assert_eq!((&listed["jobs"][0]["run"], &listed["public_key"]), (&run["run"], &run["public_key"]));
        let path = |name: &str| format!("/v2/exports/{}/{name}", run["run"].as_str().expect("an id"));
        let manifest = expect(&house, "admin", "GET", &path("Manifest.json"), &Value::Null, 200).await;
        assert_eq!(manifest, *run);
        let file = run["files"][0]["name"].as_str().expect("a name");
        let answer = ask(&house, "admin", "GET", &path(file), &Value::Null).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers[header::CONTENT_TYPE]),
            (200, &"text/csv; charset=utf-8".parse().expect("a value"))
        );
        for name in
            ["export.key", "..%2Fexport.key", "..%2f..%2Fexport.key", "%2Fetc%2Fpasswd", ".", "Manifest.json%00"]
        {
            expect(&house, "admin", "GET", &path(name), &Value::Null, 404).await;
        }
        expect(&house, "alice", "GET", &path("Manifest.json"), &Value::Null, 403).await;
        for body in [json!({}), json!({"profile": "focus-1.2-csv", "begin": "2026-12-01", "end": "2026-11-01"})] {
            expect(&house, "admin", "POST", "/v2/exports", &body, 400).await;
        }
        let invoice = expect(&house, "alice", "GET", "/v2/invoices/p1/2026-11", &Value::Null, 200).await;
        assert_eq!(
            (&invoice["project"], &invoice["lines"], &invoice["is_provisional"]),
            (&json!("p1"), &json!(4), &json!(true))
        );
        expect(&house, "alice", "GET", "/v2/invoices/p1/2026-10", &Value::Null, 404).await;
        expect(&house, "alice", "GET", "/v2/invoices/p1/2026-11?format=pdf", &Value::Null, 400).await;
        expect(&house, "alice", "GET", "/v2/invoices/p1/2026-11?language=fr", &Value::Null, 400).await;
    }
}

#[tokio::test]
async fn deliveries_of_exports_are_listed_and_only_what_was_given_up_begins_anew() {
    for house in House::on_every_database(|_| {}).await {
        let new = orzo_delivery::NewDelivery {
            run: uuid::Uuid::from_u128(7),
            directory: "nowhere".to_owned(),
            profile: "focus-1.2-csv".to_owned(),
            target: "finance".to_owned(),
        };
        let ids = house.outbox.ask(&[new], None).await.expect("room for it");
        let path = format!("/v2/deliveries/{}", ids[0]);
        let list = async |query: &str| {
            let answer = expect(&house, "admin", "GET", &format!("/v2/deliveries{query}"), &Value::Null, 200).await;
            answer["deliveries"].as_array().expect("a list").len()
        };
        assert_eq!((list("?state=waiting").await, list("?target=finance").await), (1, 1));
        assert_eq!((list("?state=parked").await, list("?target=other").await), (0, 0));
        let one = expect(&house, "admin", "GET", &path, &Value::Null, 200).await;
        assert_eq!((&one["state"], &one["profile"]), (&json!("waiting"), &json!("focus-1.2-csv")), "{one}");
        expect(&house, "admin", "POST", &format!("{path}/replay"), &Value::Null, 409).await;
        let mut own = house.outbox.find(&ids[0]).await.expect("the outbox").expect("it is there");
        house.outbox.failed(&own, "refused", None).await.expect("it is given up");
        own = house.outbox.find(&ids[0]).await.expect("the outbox").expect("it is there");
        assert_eq!(own.state, orzo_delivery::DeliveryState::Parked);
        expect(&house, "alice", "POST", &format!("{path}/replay"), &Value::Null, 403).await;
        let again = expect(&house, "admin", "POST", &format!("{path}/replay"), &Value::Null, 202).await;
        assert_eq!(again["state"], "waiting", "{again}");
    }
}

#[tokio::test]
async fn a_bill_is_priced_quoted_closed_and_explained_over_http() {
    for house in House::on_every_database(|_| {}).await {
        let service = make(&house, "services", json!({"name": "instance"}), "service_id").await;
        let mapping = json!({"service_id": service, "cost": "0.5", "type": "flat", "start": "2026-11-01"});
        make(&house, "mappings?force=true", mapping, "mapping_id").await;
        for (path, body) in [
            ("tax/vat", json!({"percent": 10})),
            ("domain/acme", json!({"projects": ["p1"]})),
            ("discount/acme", json!({"percent": 50, "domains": ["acme"]})),
            (
                "expression/small",
                json!({"service": "instance", "expression": "if(flavor_name == 'small', price * 2, price)"}),
            ),
        ] {
            expect(&house, "admin", "PUT", &format!("/v2/prices/{path}"), &body, 200).await;
        }
        for (path, body, said) in [
            ("tax/vat", json!({"percent": "many"}), "tax `vat`: `many` is no decimal number"),
            ("expression/x", json!({"service": "instance", "expression": "price *"}), "at character 8"),
            ("tax/vat", json!([]), "tax `vat`"),
        ] {
            let told = expect(&house, "admin", "PUT", &format!("/v2/prices/{path}"), &body, 400).await;
            assert!(told["message"].as_str().is_some_and(|text| text.contains(said)), "{path} {body}: {told}");
        }
        let listed = expect(&house, "admin", "GET", "/v2/prices?kind=tax", &Value::Null, 200).await;
        assert_eq!(listed["prices"], json!([{"kind": "tax", "id": "vat", "body": {"percent": 10}}]));
        let changes = expect(&house, "admin", "GET", "/v2/rules/changes", &Value::Null, 200).await;
        assert_eq!(changes["changes"][0]["change"], "expression small written");
        // What it would cost: 2 servers, one of the flavor.
        let resources = json!([{"service": "instance", "volume": 1, "desc": {"flavor_name": "small"}},
                               {"service": "instance", "volume": 1, "desc": {"flavor_name": "large"}}]);
        let quoted = expect(&house, "alice", "POST", "/v2/quote", &json!({"resources": resources}), 200).await;
        assert_eq!(
            (&quoted["usage"][0]["cost"], &quoted["usage"][1]["cost"], &quoted["settled"][0]["cost"], &quoted["total"]),
            (&json!("1"), &json!("0.5"), &json!("-0.75"), &json!("0.825")),
            "{quoted}"
        );
        let of_p2 = expect(&house, "bob", "POST", "/v2/quote", &json!({"resources": resources}), 200).await;
        assert_eq!(of_p2["total"], "1.65", "no discount there");
        // What it did cost: 24 hours of one server.
        house.processor.advance(|_, _| ()).await.expect("rated");
        let lines = "/v2/lines?project_id=p1&begin=2026-11-20T18:00:00&end=2026-11-20T20:00:00";
        let listed = expect(&house, "alice", "GET", lines, &Value::Null, 200).await;
        assert_eq!(listed["lines"].as_array().map(Vec::len), Some(2), "{listed}");
        let id = listed["lines"][0]["id"].as_str().expect("an id").to_owned();
        let path = format!("/v2/lines/{id}");
        let told = expect(&house, "alice", "GET", &path, &Value::Null, 200).await;
        assert_eq!(
            (&told["line"]["id"], &told["line"]["cost"], &told["explanation"]["is_reproduced"]),
            (&json!(id), &json!("1.0"), &json!(true)),
            "{told}"
        );
        assert_eq!(told["explanation"]["events"][0]["event_type"], "compute.instance.create.end");
        assert_eq!(told["explanation"]["points"].as_array().map(Vec::len), Some(12));
        expect(&house, "bob", "GET", &path, &Value::Null, 404).await;
        let table = "/v2/completeness?begin=2026-11-20T18:00:00&end=2026-11-20T20:00:00";
        let complete = expect(&house, "alice", "GET", table, &Value::Null, 200).await;
        assert_eq!(
            (&complete["resources"][0]["expected"], &complete["resources"][0]["present"]),
            (&json!(24), &json!(12))
        );
        // The price is another one now: looked at by the new rules and by the old ones.
        expect(&house, "admin", "DELETE", "/v2/prices/expression/small", &Value::Null, 204).await;
        let again = json!({"scope_ids": ["p1"], "begin": "2026-11-20", "end": "2026-11-21"});
        let report = expect(&house, "admin", "POST", "/v2/rerate", &again, 200).await;
        assert_eq!(
            (report["changes"].as_array().map(Vec::len), &report["appended"]),
            (Some(12), &json!(0)),
            "{report}"
        );
        let then = json!({"scope_ids": ["p1"], "begin": "2026-11-20", "end": "2026-11-21", "rules": "then"});
        assert_eq!(expect(&house, "admin", "POST", "/v2/rerate", &then, 200).await["changes"], json!([]));
        // Closed: 6 hours at 1, half of it off, a tenth on it. An invoice of before says so already, of the 24 hours that
        // are rated.
        let month = "/v2/invoices/p1/2026-11";
        let provisional = expect(&house, "alice", "GET", month, &Value::Null, 200).await;
        assert_eq!(
            (
                &provisional["is_provisional"],
                &provisional["currencies"][0]["total"],
                &provisional["currencies"][0]["tax"]
            ),
            (&json!(true), &json!("13.20"), &json!("1.20")),
            "{provisional}"
        );
        let close = json!({"scope_ids": ["ALL"], "end": "2026-11-21T00:00:00"});
        let closed = expect(&house, "admin", "POST", "/v2/periods", &close, 201).await;
        assert_eq!(closed["periods"][0]["total"], "3.3", "{closed}");
        assert_eq!(expect(&house, "admin", "POST", "/v2/periods", &close, 201).await["periods"], json!([]), "once");
        let seen = expect(&house, "alice", "GET", "/v2/periods", &Value::Null, 200).await;
        assert_eq!(seen["periods"], closed["periods"]);
        assert_eq!(expect(&house, "bob", "GET", "/v2/periods", &Value::Null, 200).await["periods"], json!([]));
        for body in [
            json!({"end": "2026-11-21"}),
            json!({"scope_ids": ["p1"]}),
            json!({"scope_ids": ["p1"], "end": "2026-11-22"}),
        ] {
            expect(&house, "admin", "POST", "/v2/periods", &body, 400).await;
        }
        expect(&house, "admin", "POST", "/v2/periods", &json!({"scope_ids": ["p9"], "end": "2026-11-21"}), 404).await;
        // Lines of settlement come from no usage.
        let all =
            expect(&house, "alice", "GET", "/v2/lines?begin=2026-11-20&end=2026-11-21&type=tax", &Value::Null, 200)
                .await;
        let tax = all["lines"][0]["id"].as_str().expect("an id");
        let told = expect(&house, "alice", "GET", &format!("/v2/lines/{tax}"), &Value::Null, 200).await;
        assert_eq!((&told["line"]["kind"], &told["explanation"]["events"]), (&json!("Tax"), &json!([])));
    }
}

#[tokio::test]
async fn a_package_is_bought_quoted_previewed_and_closed_over_http() {
    for house in House::on_every_database(|_| {}).await {
        let service = make(&house, "services", json!({"name": "instance"}), "service_id").await;
        let mapping = json!({"service_id": service, "cost": "0.5", "type": "flat", "start": "2026-11-01"});
        make(&house, "mappings?force=true", mapping, "mapping_id").await;
        let path = "/v2/prices/purchase/ten";
        let told = expect(&house, "admin", "PUT", path, &json!({"name": "Ten hours", "frequency": "daily"}), 400).await;
        assert_eq!(told["message"], "purchase `ten`: frequency is once or monthly");
        let package = json!({"name": "Ten hours", "service": "instance", "quantity": 10, "amount": "2", "frequency": "monthly",
            "valid_from": "2026-11-01T00:00:00Z", "projects": ["p1"]});
        expect(&house, "admin", "PUT", path, &package, 200).await;
        let resources = json!([{"service": "instance", "volume": 2, "desc": {}}]);
        let quoted = expect(&house, "alice", "POST", "/v2/quote", &json!({"resources": resources}), 200).await;
        assert_eq!(
            quoted["settled"],
            json!([{"kind": "Purchase", "service": "instance", "cost": "2", "currency": "USD", "rule": "price/purchase/ten"},
                   {"kind": "Adjustment", "service": "instance", "cost": "-1", "currency": "USD",
                    "rule": "price/purchase/ten"}])
        );
        assert_eq!(
            expect(&house, "bob", "POST", "/v2/quote", &json!({"resources": resources}), 200).await["total"],
            "1"
        );
        // 24 hours at a half; ten of them are covered. The invoice says it before anything is closed, and says the same after.
        house.processor.advance(|_, _| ()).await.expect("rated");
        let invoice = async || expect(&house, "alice", "GET", "/v2/invoices/p1/2026-11", &Value::Null, 200).await;
        let before = invoice().await;
        let bought = json!([{"service": "Instances", "detail": "Ten hours", "resources": 0, "quantity": "1.00",
            "unit": "Months", "unit_price": "2.00", "cost": "2.00"}]);
        assert_eq!((&before["currencies"][0]["purchases"], &before["lines"]), (&bought, &json!(26)), "{before}");
        assert_eq!(before["currencies"][0]["total"], "9.00");
        let close = json!({"scope_ids": ["p1"], "end": "2026-11-21T00:00:00"});
        let closed = expect(&house, "admin", "POST", "/v2/periods", &close, 201).await;
        assert_eq!(closed["periods"][0]["total"], "2", "6 hours, all of them covered");
        let after = invoice().await;
        let part = &after["currencies"][0];
        assert_eq!(
            (&part["purchases"], &part["total"], &after["lines"]),
            (&bought, &json!("9.00"), &json!(27)),
            "{after}"
        );
    }
}
