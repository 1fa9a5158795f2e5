//! The store's upkeep at an operator's word.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use orzo_query::LabelledPoints;
use serde_json::Value;
use tower::ServiceExt;

use super::house::House;

async fn settle(house: &House, asker: &str) -> (StatusCode, Value) {
    let request = Request::post("/store/v1/settle").header("x-auth-token", asker).body(Body::empty());
    let response = house.router.clone().oneshot(request.expect("a request")).await.expect("the router does not fail");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn an_administrator_settles_the_store_and_nobody_else_does() {
    let house = House::build().await;
    let point = |n: i64| orzo_model::Point {
        series: orzo_model::SeriesId(7),
        timestamp: orzo_model::Timestamp::from_secs(1_795_200_000 + n),
        value: n as f64,
    };
    for n in 0..3 {
        let points = LabelledPoints { known: vec![point(n)], ..LabelledPoints::default() };
        house.engine.write_labelled("p1", points).await.expect("stored");
    }
    for stranger in ["alice", "service", "nobody"] {
        let (status, _) = settle(&house, stranger).await;
        assert!(matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED), "{stranger}: {status}");
    }
    let (status, figures) = settle(&house, "admin").await;
    assert_eq!(status, StatusCode::OK, "{figures}");
    assert_eq!((&figures["head_points"], &figures["rows"], &figures["files"]), (&0.into(), &3.into(), &1.into()));
    assert_eq!(figures["covered_sequence"], figures["sequence"]);
}
