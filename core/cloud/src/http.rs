//! What every HTTP face of the cloud shares: who asks, request ids, JSON bodies, and errors in Keystone's shape.
//!
//! Request → id, spoofed identity headers removed, panics caught → token verified → handler → answer with
//! `X-Openstack-Request-Id`. It knows no service.

use std::{any::Any, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, OriginalUri, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use orzo_database::{AsConflict, DatabaseError};
use serde::de::DeserializeOwned;
use serde_json::json;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::{CloudError, identity::Identity};

/// Keystone's own limit for a body (oslo.middleware `max_request_body_size`); nothing but an image is larger.
pub const JSON_BYTES_MAX: usize = 114_688;

/// Sent back on every answer, so that a user can quote it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// Set by keystonemiddleware behind the real services' doors; a client that sends them is pretending
/// (CVE-2026-22797), so they are removed before anyone can read them.
const SPOOFED: &[&str] =
    &["x-user", "x-project", "x-tenant", "x-role", "x-domain", "x-identity-status", "x-is-admin", "x-service-"];

/// An answer that says no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// For the user.
    pub message: String,
    /// Seconds after which asking again makes sense.
    pub retry_after_s: Option<u64>,
    /// What broke, for the log; never shown.
    #[source]
    pub cause: Option<DatabaseError>,
}

impl ApiError {
    /// An answer with this status and message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after_s: None, cause: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401, in Keystone's words: the same for every reason.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "The request you have made requires authentication.")
    }

    /// 403, naming the action as Keystone's policy does.
    pub fn forbidden(action: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, format!("You are not authorized to perform the requested action: {action}."))
    }

    /// 404, in Keystone's words.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Could not find {what}: {id}."))
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        if error.is_refusal() {
            return Self::bad_request(format!("Invalid input: {error}."));
        }
        let (status, message) = if error.is_constraint() {
            (StatusCode::CONFLICT, "The change conflicts with something that exists already.")
        } else if error.is_retryable() {
            (StatusCode::SERVICE_UNAVAILABLE, "The database is not available now; try again.")
        } else {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "An unexpected error prevented the server from fulfilling your request.",
            )
        };
        Self { status, message: message.to_owned(), retry_after_s: None, cause: Some(error) }
    }
}

impl From<CloudError> for ApiError {
    fn from(error: CloudError) -> Self {
        match error {
            CloudError::Database(error) => error.into(),
            error => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl AsConflict for ApiError {
    fn is_conflict(&self) -> bool {
        self.cause.as_ref().is_some_and(AsConflict::is_conflict)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::SERVICE_UNAVAILABLE && self.cause.is_none() {
            // Told to come back, as intended: a flood of requests must not be a flood of errors.
            tracing::debug!(reason = self.message, "busy");
        } else if self.status.is_server_error() {
            // The end of the line: the caller gets the message, the operator gets the cause.
            tracing::error!(error = &self as &dyn std::error::Error, status = self.status.as_u16(), "request failed");
        }
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = json!({"error": {"code": self.status.as_u16(), "title": title, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Keystone"));
        }
        response
    }
}

/// Where a request came from, for notifications and against guessing.
#[derive(Clone, Debug, Default)]
pub struct RequestContext {
    /// `req-<uuid>`.
    pub request_id: String,
    /// Address of the client, if the server knows it.
    pub address: Option<String>,
    /// Its `User-Agent`.
    pub agent: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Verifies `X-Auth-Token` for services that refuse in a shape of their own: a good one puts the
/// [`orzo_model::Caller`] among the request's extensions, any other puts nothing there.
pub fn with_caller(router: Router, identity: Arc<Identity>) -> Router {
    router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        let identity = identity.clone();
        async move {
            match identity.authenticate_request(request.headers()).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                }
                Err(error) if error.status == StatusCode::UNAUTHORIZED => {}
                // Not knowing is not a no.
                Err(error) => return error.into_response(),
            }
            next.run(request).await
        }
    }))
}

/// A JSON body; what is wrong with it is told with line and column.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is larger than {JSON_BYTES_MAX} bytes."))
            }
            _ => ApiError::bad_request("The body could not be read."),
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("The body is not the JSON expected here: {error}.")))
    }
}

/// Puts the shell around the services: request ids, panics caught, spoofed headers removed, body limits, 404 and 405
/// in Keystone's shape. An upload handler reads the [`Body`] itself and is not limited here.
pub fn shell(router: Router) -> Router {
    router
        .fallback(|OriginalUri(uri): OriginalUri| async move {
            ApiError::new(StatusCode::NOT_FOUND, format!("No resource is at {}.", uri.path()))
        })
        .method_not_allowed_fallback(|method: Method, OriginalUri(uri): OriginalUri| async move {
            let message = format!("{method} is not supported at {}.", uri.path());
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(identify))
}

/// Makes everything at and below `prefix` go to `service`, which is a [`shell`] that knows nothing of the prefix.
/// Unlike a router with a fallback it can be merged with the routers of other rooms. A trailing slash means the same
/// page.
pub fn mounted(prefix: &str, service: Router) -> Router {
    Router::new().nest_service(prefix, service.map_request(without_trailing_slash))
}

fn without_trailing_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() < path.len() && !trimmed.is_empty() {
        let text = match request.uri().query() {
            Some(query) => format!("{trimmed}?{query}"),
            None => trimmed.to_owned(),
        };
        // A part of a valid path is one as well; if not, the request stays as it is and finds nothing.
        if let Ok(uri) = text.parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Gives the request an id and removes what only a middleware may say.
async fn identify(mut request: Request, next: Next) -> Response {
    strip_spoofed(request.headers_mut());
    let context = RequestContext {
        request_id: format!("req-{}", Uuid::new_v4()),
        address: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string()),
        agent: request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            // It ends up in notifications; longer ones are nobody's name.
            .map(|agent| agent.chars().take(256).collect()),
    };
    let id = HeaderValue::from_str(&context.request_id).expect("a UUID is a valid header value");
    request.extensions_mut().insert(context);
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().entry(header::VARY).or_insert(HeaderValue::from_static("X-Auth-Token"));
    response
}

fn strip_spoofed(headers: &mut HeaderMap) {
    let spoofed: Vec<HeaderName> =
        headers.keys().filter(|name| SPOOFED.iter().any(|start| name.as_str().starts_with(start))).cloned().collect();
    for name in spoofed {
        headers.remove(name);
    }
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let reason = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(reason, "a handler panicked");
    let message = "An unexpected error prevented the server from fulfilling your request.";
    let body = json!({"error": {"code": 500, "title": "Internal Server Error", "message": message}});
    (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use http_body_util::BodyExt;

    use super::*;

    async fn answer(request: Request) -> (StatusCode, HeaderMap, serde_json::Value) {
        let router = Router::new()
            .route(
                "/boom",
                get(|| async {
                    if true {
                        panic!("at the disco")
                    }
                }),
            )
            .route("/echo", post(|JsonBody(value): JsonBody<serde_json::Value>| async move { Json(value) }))
            .route(
                "/headers",
                get(|headers: HeaderMap| async move {
                    Json(headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>())
                }),
            );
        let router = mounted("/in", shell(router));
        // As compose does; a second fallback in the tree would panic here.
        let router = router.merge(Router::new().route("/elsewhere", get(|| async {})));
        let response = router.oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).expect("always JSON"))
    }

    fn request(method: &str, path: &str, body: impl Into<Body>) -> Request {
        Request::builder().method(method).uri(format!("/in{path}")).body(body.into()).expect("a request")
    }

    #[tokio::test]
    async fn every_answer_has_a_request_id_and_errors_have_keystones_shape() {
        for (method, path, status) in [
            ("GET", "/boom", 500),
            ("GET", "/boom/", 500),
            ("GET", "/nowhere", 404),
            ("GET", "/", 404),
            ("PUT", "/echo", 405),
        ] {
            let (found, headers, body) = answer(request(method, path, Body::empty())).await;
            assert_eq!(found.as_u16(), status, "{path}");
            assert!(headers[REQUEST_ID].to_str().expect("text").starts_with("req-"), "{path}");
            assert_eq!(body["error"]["code"], status, "{path}");
            assert!(!body.to_string().contains("disco"), "the panic's words stay in the log");
        }
    }

    #[tokio::test]
    async fn bad_json_is_told_with_line_and_column_and_a_large_body_is_refused() {
        let (status, _, body) = answer(request("POST", "/echo", "{\"a\":\n  oops}")).await;
        assert_eq!(status, 400);
        assert!(body["error"]["message"].as_str().expect("text").contains("line 2 column 3"), "{body}");
        let (status, _, _) = answer(request("POST", "/echo", vec![b' '; JSON_BYTES_MAX + 1])).await;
        assert_eq!(status, 413);
    }

    #[tokio::test]
    async fn identity_headers_of_a_client_are_removed() {
        let request = Request::builder()
            .uri("/in/headers/")
            .header("X-User-Id", "admin")
            .header("X-Roles", "admin")
            .header("X-Project-Id", "p")
            .header("X-Identity-Status", "Confirmed")
            .header("X-Auth-Token", "t")
            .body(Body::empty())
            .expect("a request");
        let (_, _, names) = answer(request).await;
        assert_eq!(names, json!(["x-auth-token"]));
    }
}
