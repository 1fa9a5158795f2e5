//! How Gnocchi's face answers: bodies, headers, and errors of the rooms below as problems.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use orzo_index::IndexError;
use orzo_query::{QueryError, StoreError};
use serde_json::{Value, json};

use crate::{problem::Problem, wire::Tree};

/// 200 with a body.
pub(super) fn ok(body: Value) -> Response {
    tree(&Tree::Json(body))
}

/// 200 with a body that may hold measures.
pub(super) fn tree(body: &Tree) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_text()).into_response()
}

/// 201 with a body and where it is found.
pub(super) fn created(location: &str, body: Value) -> Response {
    let mut response = ok(body);
    *response.status_mut() = StatusCode::CREATED;
    set(&mut response, header::LOCATION, location);
    response
}

/// 202 without a body: durable (contract C1).
pub(super) fn accepted() -> Response {
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], "").into_response()
}

/// 204.
pub(super) fn no_content() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Sets a header whose text comes from data; one that no header can hold is left out.
pub(super) fn set(response: &mut Response, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::NotFound { what } => Self::missing(what),
            IndexError::Exists { .. } | IndexError::NamedMetricExists { .. } => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            IndexError::InUse { .. } | IndexError::Refused { .. } => Self::bad(error.to_string()),
            IndexError::Invalid { cause, reason, detail } => {
                Self::new(StatusCode::BAD_REQUEST, described(cause, reason, detail))
            }
            IndexError::Database(_) | IndexError::Damaged { .. } => {
                let retryable = error.is_retryable();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a request finds the index without an answer"
                );
                if retryable {
                    Self::unavailable("the index does not answer")
                } else {
                    Self::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "the index cannot answer; the request id is in the log",
                    )
                }
            }
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotFound { text } => Self::new(StatusCode::NOT_FOUND, text),
            QueryError::Missing { cause, reason, detail } => {
                Self::new(StatusCode::NOT_FOUND, described(cause, reason, detail))
            }
            QueryError::Refused { text } => Self::bad(text),
            QueryError::Invalid { cause, reason, detail } => {
                Self::new(StatusCode::BAD_REQUEST, described(cause, reason, detail))
            }
            QueryError::Index(error) => error.into(),
            QueryError::Store(error @ (StoreError::Invalid { .. } | StoreError::TooManyPoints { .. })) => {
                Self::bad(error.to_string())
            }
            QueryError::Labels(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a request finds the label index without an answer"
                );
                Self::unavailable("the label index does not answer")
            }
            QueryError::Store(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a request finds the store without an answer"
                );
                Self::unavailable("the store does not answer")
            }
        }
    }
}

/// Gnocchi's structured form; what is empty is left out.
fn described(cause: String, reason: String, detail: Value) -> Value {
    let mut description = json!({"cause": cause});
    if !reason.is_empty() {
        description["reason"] = reason.into();
    }
    if !detail.is_null() {
        description["detail"] = detail;
    }
    description
}
