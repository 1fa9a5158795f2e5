//! The door for evaluators elsewhere: who may ask, what is refused, and that a scope that was said is kept.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use orzo_model::watch::wire::READS_MAX;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;

async fn ask(house: &House, question: &str, asker: &str, body: &Value) -> (StatusCode, Value) {
    post(house, &format!("/watch/v1/{question}"), asker, body).await
}

async fn post(house: &House, path: &str, asker: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header("x-auth-token", asker)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request");
    let response = house.router.clone().oneshot(request).await.expect("the router does not fail");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn evaluators_ask_as_services_and_see_what_the_scope_says() {
    let house = House::build().await;
    let policy = json!({"name": "low", "definition": [{"granularity": "5m", "points": 1000}]});
    let (status, _) = post(&house, "/metric/v1/archive_policy", "admin", &policy).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, metric) = post(&house, "/metric/v1/metric", "admin", &json!({"archive_policy_name": "low"})).await;
    assert_eq!(status, StatusCode::CREATED, "{metric}");
    let id = metric["id"].as_str().expect("an id").to_owned();
    let target = json!({"metrics": [id]});
    let all = json!({"scope": "all", "target": target});
    for stranger in ["alice", "nobody"] {
        let (status, _) = ask(&house, "series", stranger, &all).await;
        assert!(matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED), "{stranger}: {status}");
    }
    let (status, found) = ask(&house, "series", "service", &all).await;
    assert_eq!((status, found["Ok"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{found}");
    // The same metric, for an alarm of a project that it is not of.
    let (status, hidden) =
        ask(&house, "series", "service", &json!({"scope": {"project": "p9"}, "target": target})).await;
    assert_eq!(status, StatusCode::OK);
    assert!(hidden["Err"]["not_found"].is_object(), "{hidden}");

    let read = json!({"series": found["Ok"], "aggregation": "mean", "reaggregation": null,
                      "granularity_us": 300_000_000, "start_us": 0, "stop_us": 600_000_000});
    let (status, answers) = ask(&house, "windows", "service", &json!({"reads": [read]})).await;
    assert_eq!((status, &answers[0]), (StatusCode::OK, &json!({"Ok": []})), "{answers}");
    let (status, newest) = ask(&house, "events", "service", &json!("newest")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(newest["Ok"].is_i64(), "{newest}");
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let house = House::build().await;
    for (question, body) in [
        ("series", json!({"scope": "everything", "target": {"metrics": []}})),
        ("series", json!({"target": {"metrics": []}})),
        ("windows", json!({"reads": 7})),
        ("events", json!({"before": {}})),
    ] {
        let (status, _) = ask(&house, question, "service", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{question}: {body}");
    }
    let read = json!({"series": [], "aggregation": "mean", "reaggregation": null, "granularity_us": 1, "start_us": 0,
                      "stop_us": 1});
    let (status, _) = ask(&house, "windows", "service", &json!({"reads": vec![read; READS_MAX + 1]})).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}
