//! What the front refuses before a handler sees it, and what it does when a handler breaks.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::house::House;
use crate::request::BODY_BYTES_MAX;

async fn send(house: &House, path: &str, asker: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post(path)
        .header("x-auth-token", asker)
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request");
    let response = house.router.clone().oneshot(request).await.expect("the router does not fail");
    let (parts, body) = response.into_parts();
    let text = String::from_utf8_lossy(&body.collect().await.expect("a body").to_bytes()).into_owned();
    assert!(parts.headers.contains_key("x-openstack-request-id"));
    (parts.status, text)
}

#[tokio::test]
async fn bodies_that_are_too_large_or_too_deep_are_refused() {
    let house = House::build().await;
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let (status, text) = send(&house, "/metric/v1/batch/metrics/measures", "admin", large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{text}");
    let deep = "[".repeat(100_000);
    let (status, text) = send(&house, "/metric/v1/search/resource/generic", "admin", deep).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    let nested = format!("{}{{}}{}", "{\"not\":".repeat(100), "}".repeat(100));
    let (status, text) = send(&house, "/metric/v1/search/resource/generic", "admin", nested).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    assert!(text.contains("levels"), "{text}");
    // Without a credential the body is not even read.
    let (status, _) = send(&house, "/metric/v1/batch/metrics/measures", "nobody", "x".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_handler_that_panics_is_one_answer_and_not_the_end() {
    let house = House::build().await;
    let (status, text) = send(&house, "/collector/v1/batches", "service", "panic").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("\"code\": 500") && !text.contains("a decoder that breaks"), "{text}");
    let (status, _) = send(&house, "/collector/v1/batches", "service", "three samples").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn when_all_places_are_taken_a_request_is_told_to_come_back_and_health_is_still_told() {
    let house = House::build_with(|settings| settings.requests_max = 0).await;
    let (status, text) = send(&house, "/metric/v1/archive_policy", "admin", "{}").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    let request = Request::get("/healthz").body(Body::empty()).expect("a request");
    let response = house.router.clone().oneshot(request).await.expect("the router does not fail");
    assert_eq!(response.status(), StatusCode::OK);
}
