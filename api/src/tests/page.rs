//! The page's own questions: who may ask them, and that a tenant hears of its own only.

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;

async fn ask(
    house: &House,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Value,
) -> (StatusCode, HeaderMap, Value) {
    let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header("x-auth-token", token);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let answer = house.router.clone().oneshot(request.body(body).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn get(house: &House, path: &str, token: &str) -> Value {
    let (status, _, body) = ask(house, "GET", path, Some(token), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

/// A resource of `alice` (project p1) and one of `bob` (p2), each with a meter `cpu_util`.
async fn furnished() -> House {
    let house = House::build().await;
    let policy = json!({"name": "low", "definition": [{"granularity": "60s", "points": 100}]});
    let (status, _, body) = ask(&house, "POST", "/metric/v1/archive_policy", Some("admin"), policy).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    for (id, project, count) in [("vm-alice", "p1", 1), ("vm-bob", "p2", 2)] {
        let metrics: Value = (0..count)
            .map(|number| {
                (
                    if number == 0 { "cpu_util".to_owned() } else { format!("own{number}") },
                    json!({"archive_policy_name": "low"}),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let resource = json!({"id": id, "project_id": project, "metrics": metrics});
        let (status, _, body) = ask(&house, "POST", "/metric/v1/resource/generic", Some("admin"), resource).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let path = format!("/metric/v1/resource/generic/{id}/metric/cpu_util/measures");
        let measures = json!([{"timestamp": "2026-11-21T19:59:00", "value": 1}]);
        let (status, _, body) = ask(&house, "POST", &path, Some("admin"), measures).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    }
    house
}

#[tokio::test]
async fn the_page_is_served_with_guards_and_to_everybody() {
    let house = House::build_with(|settings| {
        settings.identity_url = Some("https://keystone.example.org:5000/v3".parse().expect("a URL"));
    })
    .await;
    let (status, headers, _) = ask(&house, "GET", "/", None, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(policy.contains("connect-src 'self' https://keystone.example.org:5000;"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let (_, _, about) = ask(&house, "GET", "/page/v1/about", None, Value::Null).await;
    assert_eq!(about["identity"], "https://keystone.example.org:5000/v3");
    assert_eq!(about["metric"], "metric");
    let (status, _, _) = ask(&house, "GET", "/assets/none.js", None, Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn rooms_are_for_operators() {
    let house = House::build().await;
    for (token, wanted) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some("alice"), StatusCode::FORBIDDEN),
        (Some("service"), StatusCode::OK),
        (Some("admin"), StatusCode::OK),
    ] {
        let (status, _, body) = ask(&house, "GET", "/page/v1/rooms", token, Value::Null).await;
        assert_eq!(status, wanted, "{token:?}: {body}");
        assert_eq!(body["rooms"].is_array(), wanted == StatusCode::OK);
    }
}

#[tokio::test]
async fn series_are_counted_within_what_a_caller_may_see() {
    let house = furnished().await;
    let counted = get(&house, "/page/v1/cardinality", "admin").await;
    assert_eq!(counted["series"], 3, "{counted}");
    assert_eq!(counted["by_project"]["rows"][0], json!({"name": "p2", "series": 2, "meters": 2}));
    let own = get(&house, "/page/v1/cardinality", "alice").await;
    assert_eq!(own["series"], 1, "{own}");
    assert!(!own.to_string().contains("p2") && !own.to_string().contains("own1"), "{own}");
    let (status, _, _) = ask(&house, "GET", "/page/v1/cardinality", None, Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_missing_meter_is_looked_for_within_what_a_caller_may_see() {
    let house = furnished().await;
    let all = get(&house, "/page/v1/missing?meter=cpu_util", "admin").await;
    assert_eq!((&all["series"], &all["is_operator"]), (&json!(2), &json!(true)), "{all}");
    let own = get(&house, "/page/v1/missing?meter=cpu_util", "alice").await;
    assert_eq!(own["series"], 1, "{own}");
    assert_eq!(own["newest_at"], 1_795_291_140.0, "2026-11-21T19:59:00");
    // What is another's is told like what is nowhere.
    let others = get(&house, "/page/v1/missing?meter=own1", "alice").await;
    let nowhere = get(&house, "/page/v1/missing?meter=own2", "alice").await;
    assert_eq!(others, nowhere);
    let others = get(&house, "/page/v1/missing?meter=cpu_util&resource=vm-bob", "alice").await;
    let nowhere = get(&house, "/page/v1/missing?meter=cpu_util&resource=vm-carol", "alice").await;
    assert_eq!(others, nowhere);
    let (status, _, _) = ask(&house, "GET", "/page/v1/missing", Some("alice"), Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn rooms_tell_operators_of_a_meter_and_tenants_nothing_of_others() {
    let house = furnished().await;
    let at = "2026-11-21T19:58:00Z".parse().expect("a time");
    house.room.note_passed([("cpu_util", 7), ("own1", 1)], at);
    house.room.note_failed(["own1"], "words of the hypervisor", at);
    let all = get(&house, "/page/v1/missing?meter=own1", "admin").await;
    assert_eq!((&all["seen"][0]["passed"], &all["seen"][0]["failed"]), (&json!(1), &json!(1)), "{all}");
    assert_eq!(all["seen"][0]["failure"], "words of the hypervisor");
    let own = get(&house, "/page/v1/missing?meter=own1", "alice").await;
    assert_eq!((&own["seen"], &own["quarantined"], &own["elsewhere"]), (&json!([]), &json!(0), &json!(0)), "{own}");
    // Label sets of another project: an operator hears that there are some, another tenant does not.
    let answer =
        super::ingest::write(&house, "alice", &[(&[("__name__", "queue_length")], &[(1_795_291_140_000, 1.0)])]);
    assert_eq!(answer.await.status, StatusCode::NO_CONTENT);
    let told = async |token: &str| get(&house, "/page/v1/missing?meter=queue_length", token).await;
    let (admin, alice, bob) = (told("admin").await, told("alice").await, told("bob").await);
    assert_eq!((&admin["series"], &admin["elsewhere"]), (&json!(0), &json!(1)), "{admin}");
    assert_eq!((&alice["series"], &alice["elsewhere"]), (&json!(1), &json!(0)), "{alice}");
    assert_eq!((&bob["series"], &bob["elsewhere"]), (&json!(0), &json!(0)), "{bob}");
}

#[tokio::test]
async fn what_is_remembered_of_names_and_labels_is_true_after_every_change() {
    let house = furnished().await;
    let query = "/prometheus/api/v1/series?match[]=cpu_util";
    let owners = async |token: &str| -> Vec<String> {
        let found = get(&house, query, token).await;
        let rows = found["data"].as_array().cloned().unwrap_or_default();
        let mut owners: Vec<_> = rows.iter().map(|row| row["project_id"].as_str().unwrap_or("").to_owned()).collect();
        owners.sort();
        owners
    };
    // Asked twice, so that the second answer is from memory.
    for _ in 0..2 {
        assert_eq!(owners("admin").await, ["p1", "p2"]);
        assert_eq!(owners("alice").await, ["p1"]);
    }
    let change = json!({"project_id": "p3"});
    let (status, _, body) = ask(&house, "PATCH", "/metric/v1/resource/generic/vm-alice", Some("admin"), change).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(owners("admin").await, ["p2", "p3"]);
    assert!(owners("alice").await.is_empty(), "it is another's now");
    let resource = json!({"id": "vm-new", "project_id": "p1", "metrics": {"cpu_util": {"archive_policy_name": "low"}}});
    let (status, _, body) = ask(&house, "POST", "/metric/v1/resource/generic", Some("admin"), resource).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(owners("alice").await, ["p1"]);
    let (status, _, body) =
        ask(&house, "DELETE", "/metric/v1/resource/generic/vm-bob", Some("admin"), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    assert_eq!(owners("admin").await, ["p1", "p3"]);
}
