//! `/v1/points`: points with their names, all that are wanted, as a stream for exports; for administrators.
//!
//! `GET /v1/points/days` says which days have points, `POST /v1/points` streams those of some time. The form of the stream, and what
//! may be wanted, are known to whoever reads points and to the command that writes them to files; this file hands them on. A
//! client that goes away ends its stream.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem, request};

/// Seconds after which a place may be free.
const RETRY_AFTER_S: u64 = 10;

/// Pieces of a stream.
pub type PointStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointsRefusal {
    /// The question is wrong.
    Invalid(String),
    /// As many streams as may run are running.
    Busy(String),
    /// Something does not work for now.
    Unavailable(String),
}

/// Reads points for exports; whoever may ask is decided here.
#[async_trait]
pub trait PointsReader: Send + Sync + 'static {
    /// Days, counted from 1970-01-01 UTC, that have points.
    async fn days(&self) -> Result<Vec<i64>, PointsRefusal>;
    /// Begins a stream of what a JSON object says.
    fn stream(&self, wanted: Value) -> Result<PointStream, PointsRefusal>;
}

/// The routes below the mount; none if nobody reads points.
pub(crate) fn router(reader: Option<&Arc<dyn PointsReader>>) -> Router<SharedApi> {
    match reader {
        Some(_) => Router::new().route("/points", post(stream)).route("/points/days", get(days)),
        None => Router::new(),
    }
}

fn reader(api: &SharedApi) -> Result<&Arc<dyn PointsReader>, Problem> {
    api.points.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, Value::Null))
}

async fn days(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    let days = reader(&api)?.days().await.map_err(problem)?;
    Ok(Json(json!({ "days": days })).into_response())
}

async fn stream(Asker(caller): Asker, State(api): State<SharedApi>, request: Request) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    let reader = reader(&api)?.clone();
    if !request::is_json(request.headers()) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is application/json"));
    }
    let bytes = request::body_bytes(request.into_body()).await?;
    let wanted =
        serde_json::from_slice(&bytes).map_err(|error| Problem::bad(format!("the body is no JSON: {error}")))?;
    let stream = reader.stream(wanted).map_err(problem)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(stream)).into_response())
}

fn problem(refusal: PointsRefusal) -> Problem {
    match refusal {
        PointsRefusal::Invalid(reason) => Problem::bad(reason),
        PointsRefusal::Busy(reason) => {
            Problem { retry_after_s: Some(RETRY_AFTER_S), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, reason) }
        }
        PointsRefusal::Unavailable(reason) => Problem::unavailable(reason),
    }
}
