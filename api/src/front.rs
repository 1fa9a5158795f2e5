//! Before and after every handler: request id, limits, deadline, panics, the access log and its counter.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, Uri};
use orzo_model::SharedClock;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use serde_json::Value;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    ApiParts,
    problem::{Problem, REQUEST_ID},
    request::normal_path,
};

/// What all faces share in front of their handlers.
#[derive(Clone)]
pub(crate) struct Front {
    clock: SharedClock,
    places: Arc<Semaphore>,
    deadline: Duration,
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Front {
    pub(crate) fn new(parts: &ApiParts) -> Self {
        let requests = IntCounterVec::new(
            Opts::new("orzo_http_requests_total", "HTTP requests answered, by face, method and status."),
            &["face", "method", "status"],
        )
        .expect("the name is valid");
        let seconds = HistogramVec::new(
            HistogramOpts::new("orzo_http_seconds", "How long HTTP requests took.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            &["face", "method"],
        )
        .expect("the name is valid");
        let registry = parts.rooms.registry();
        registry.register(Box::new(requests.clone())).expect("router is called once per registry");
        registry.register(Box::new(seconds.clone())).expect("router is called once per registry");
        Self {
            clock: parts.clock.clone(),
            places: Arc::new(Semaphore::new(parts.settings.requests_max)),
            deadline: parts.settings.answer_deadline,
            requests,
            seconds,
        }
    }

    /// Puts the front before a face's routes.
    pub(crate) fn face(&self, name: &'static str, routes: Router) -> Router {
        routes.layer(CatchPanicLayer::custom(panicked)).layer(from_fn_with_state((self.clone(), name), pass))
    }
}

async fn pass(State((front, face)): State<(Front, &'static str)>, request: Request, next: Next) -> Response {
    let started = front.clock.monotonic();
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let method = method_label(request.method());
    // The path without its query: a query may hold what is nobody's business.
    let path = request.uri().path().to_owned();
    let mut response = answer(&front, face, request, next).await;
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let took = front.clock.monotonic().saturating_sub(started);
    let status = response.status();
    front.requests.with_label_values(&[face, method, status.as_str()]).inc();
    front.seconds.with_label_values(&[face, method]).observe(took.as_secs_f64());
    tracing::debug!(request_id, method, path, status = status.as_u16(), ?took, "request");
    response
}

async fn answer(front: &Front, face: &str, request: Request, next: Next) -> Response {
    // Health must be told even when everything else is full.
    if face == "health" {
        return next.run(request).await;
    }
    let Ok(_place) = front.places.try_acquire() else {
        return Problem::unavailable("too many requests at once").into_response();
    };
    match tokio::time::timeout(front.deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("the answer took too long").into_response(),
    }
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has logged what happened; the client gets no inside view.
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the request id is in the log").into_response()
}

/// Methods that clients invent must not become labels.
fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// 404 of a path that no face knows.
pub(crate) async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Value::Null)
}

/// 405; axum adds `Allow`.
pub(crate) async fn no_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "")
}

/// Takes doubled and trailing slashes away.
pub(crate) fn make_path_normal(request: &mut Request) {
    let normal = normal_path(request.uri().path());
    if normal == request.uri().path() {
        return;
    }
    let text = match request.uri().query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal,
    };
    // Parts of a valid URI make a valid URI; if not, the path stays and is not found.
    if let Ok(uri) = text.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
}
