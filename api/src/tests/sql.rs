//! SQL at the API: who may ask, in which forms, and what refusals look like. Queries themselves are another room's.

use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;
use crate::{SqlAnswer, SqlForm, SqlRefusal, SqlRefusalKind, SqlRunner};

/// Answers every query with the query, or refuses it by its first word.
pub(super) struct OneAnswer;

#[async_trait]
impl SqlRunner for OneAnswer {
    async fn run(&self, query: &str, form: SqlForm) -> Result<SqlAnswer, SqlRefusal> {
        let refused = |kind, place| Err(SqlRefusal { kind, reason: format!("no: {query}"), place });
        match query.split(' ').next().unwrap_or_default() {
            "wrong" => refused(SqlRefusalKind::Invalid, Some((2, 7))),
            "long" => refused(SqlRefusalKind::TooLong, None),
            "slow" => refused(SqlRefusalKind::NotComputed, None),
            "busy" => refused(SqlRefusalKind::Busy, None),
            "broken" => refused(SqlRefusalKind::Unavailable, None),
            _ => Ok(SqlAnswer { body: format!("{form:?} {query}").into(), rows: 3 }),
        }
    }
}

async fn ask(house: &House, asker: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::post("/v1/sql").header("x-auth-token", asker);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let response = house.router.clone().oneshot(request).await.expect("the router does not fail");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).expect("text"))
}

const JSON: (&str, &str) = ("content-type", "application/json");
const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");

#[tokio::test]
async fn administrators_ask_and_nobody_else_does() {
    let house = House::build().await;
    for stranger in ["alice", "service", "nobody"] {
        let (status, _, text) = ask(&house, stranger, &[TEXT], "SELECT 1").await;
        assert!(matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED), "{stranger}: {status} {text}");
    }
    let (status, headers, text) = ask(&house, "admin", &[TEXT], "SELECT 1").await;
    assert_eq!(
        (status, text.as_str(), &headers["x-row-count"]),
        (StatusCode::OK, "Json SELECT 1", &"3".parse().expect("a value"))
    );
    let (status, _, text) = ask(&house, "admin", &[JSON], r#"{"query": "SELECT 2"}"#).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "Json SELECT 2"));
}

#[tokio::test]
async fn answers_come_in_the_form_that_is_accepted() {
    let house = House::build().await;
    for (accept, media, form) in [
        ("text/csv", "text/csv; charset=utf-8", "Csv"),
        ("text/html, application/vnd.apache.arrow.stream;q=0.5", "application/vnd.apache.arrow.stream", "Arrow"),
        ("*/*", "application/json", "Json"),
    ] {
        let (status, headers, text) = ask(&house, "admin", &[TEXT, ("accept", accept)], "SELECT 1").await;
        assert_eq!((status, text), (StatusCode::OK, format!("{form} SELECT 1")), "{accept}");
        assert_eq!(headers["content-type"], media);
    }
    let (status, _, _) = ask(&house, "admin", &[TEXT, ("accept", "image/png")], "SELECT 1").await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn refusals_say_what_is_wrong_and_where() {
    let house = House::build().await;
    let (status, _, text) = ask(&house, "admin", &[TEXT], "wrong query").await;
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(told["description"]["detail"], json!({"line": 2, "column": 7}));
    assert_eq!(told["description"]["reason"], "no: wrong query");
    for (query, expected) in [
        ("long", StatusCode::PAYLOAD_TOO_LARGE),
        ("slow", StatusCode::UNPROCESSABLE_ENTITY),
        ("busy", StatusCode::TOO_MANY_REQUESTS),
        ("broken", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (status, headers, _) = ask(&house, "admin", &[TEXT], query).await;
        assert_eq!(status, expected, "{query}");
        let comes_again = matches!(query, "busy" | "broken");
        assert_eq!(headers.contains_key("retry-after"), comes_again, "{query}");
    }
    for (headers, body, expected) in [
        (&[][..], "SELECT 1", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (&[JSON][..], "SELECT 1", StatusCode::BAD_REQUEST),
        (&[JSON][..], "[]", StatusCode::BAD_REQUEST),
        (&[JSON][..], "{}", StatusCode::BAD_REQUEST),
        (&[JSON][..], r#"{"query": 1}"#, StatusCode::BAD_REQUEST),
        (&[JSON][..], r#"{"query": "SELECT 1", "querry": ""}"#, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(&house, "admin", headers, body).await.0, expected, "{body}");
    }
}
