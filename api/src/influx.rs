//! InfluxDB's write faces, 1 and 2: lines become series with labels.
//!
//! A field of a line is the series `measurement_field` with the line's tags as labels, and the database or bucket as the
//! label `db`, as other stores of Prometheus' kind map it. Texts are no measures and are left out. Lines that cannot be
//! read are told, and take no other with them. Series belong to the caller's project; 204 means durable.

use std::{io::Read, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use orzo_labels::{LabelIndex, METRIC_NAME};
use serde_json::{Value, json};

use crate::{
    SharedApi,
    ingest::{
        DECODED_BYTES_MAX, IngestError, SAMPLES_MAX,
        labelled::Labelled,
        line_protocol::{FieldValue, Lines, Precision},
    },
    parameters::Parameters,
    problem::Problem,
    prometheus::{Sender, Written, admitted, keep, no_room, project_of, refused_whole},
};

pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/ping", get(ping))
        .route("/health", get(health))
        .route("/query", get(query).post(query))
        .route("/write", post(write))
        .route("/api/v2/write", post(write))
}

/// A refused request, in a form that the clients of both versions read.
struct Refused(Problem);

impl<E: Into<Problem>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let text = match &self.0.description {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let code = match self.0.status {
            StatusCode::PAYLOAD_TOO_LARGE => "request too large",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::TOO_MANY_REQUESTS => "too many requests",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            status if status.is_server_error() => "internal error",
            _ => "invalid",
        };
        let body = Json(json!({"code": code, "message": &text, "error": &text}));
        let mut response = (self.0.status, body).into_response();
        if let Some(seconds) = self.0.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

async fn ping() -> Response {
    let version = (HeaderName::from_static("x-influxdb-version"), HeaderValue::from_static("1.8-orzo"));
    (StatusCode::NO_CONTENT, [version]).into_response()
}

async fn health() -> Response {
    Json(json!({"name": "orzo", "message": "ready for writes", "status": "pass", "checks": []})).into_response()
}

/// Clients make their database first; here there is nothing to make.
async fn query(_: Sender, parameters: Parameters) -> Result<Response, Refused> {
    let text = parameters.get("q").unwrap_or("").trim().to_ascii_lowercase();
    if text.starts_with("create database") {
        return Ok(Json(json!({"results": [{"statement_id": 0}]})).into_response());
    }
    Err(Problem::bad("only writes are taken here; ask Prometheus' API").into())
}

async fn write(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let project: Arc<str> = project_of(&caller)?.into();
    let database = parameters.get("bucket").or(parameters.get("db")).unwrap_or("").to_owned();
    let precision = Precision::parse(parameters.get("precision"));
    let precision = precision.ok_or_else(|| Problem::bad("precision must be ns, us, ms, s, m or h"))?;
    let labels = api.engine.labels()?.clone();
    let (mut place, body) = admitted(&api, &project, &headers, body).await?;
    let is_gzip = match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be plain or gzip").into());
        }
    };
    // What gzip will become it does not say in a way that can be believed.
    if !place.grow(if is_gzip { DECODED_BYTES_MAX } else { body.len() }) {
        return Err(no_room().into());
    }
    let read = {
        let (now, project) = (api.clock.now().micros(), project.clone());
        move || {
            let unpacked;
            let bytes = if is_gzip {
                unpacked = unzip(&body)?;
                &unpacked[..]
            } else {
                &body[..]
            };
            read(now, &labels, &project, &database, precision, bytes)
        }
    };
    let labelled = tokio::task::spawn_blocking(read).await;
    let labelled = labelled.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))?;
    let labelled = labelled.map_err(|error| refused_whole(&api, &error))?;
    let Written { problem, .. } = keep(&api, &project, labelled).await?;
    match problem {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(problem) => {
            let text = format!("partial write: {}", problem.description.as_str().unwrap_or(""));
            Err(Problem { description: text.into(), ..problem }.into())
        }
    }
}

fn unzip(body: &[u8]) -> Result<Vec<u8>, IngestError> {
    let mut unpacked = Vec::new();
    let limit = DECODED_BYTES_MAX as u64 + 1;
    let outcome = flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut unpacked);
    outcome.map_err(|_| IngestError::Malformed { at: 0, what: "it is not gzip" })?;
    if unpacked.len() > DECODED_BYTES_MAX {
        return Err(IngestError::ClaimsTooMuch { claimed: unpacked.len() });
    }
    Ok(unpacked)
}

fn read(
    now: i64,
    labels: &LabelIndex,
    project: &str,
    database: &str,
    precision: Precision,
    body: &[u8],
) -> Result<Labelled, IngestError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| IngestError::Malformed { at: error.valid_up_to(), what: "it is not UTF-8 text" })?;
    let mut labelled = Labelled::default();
    let (project, limits) = (labels.project(project), labels.settings().set);
    let known = project.known();
    let mut name = String::new();
    for line in Lines::new(text) {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                labelled.samples += 1;
                labelled.refuse("malformed", 1, || error.to_string());
                continue;
            }
        };
        let at = match line.timestamp {
            Some(timestamp) => precision.micros(timestamp),
            None => Some(now),
        };
        for (field, value) in &line.fields {
            let value = match value {
                FieldValue::Number(value) => *value,
                FieldValue::Boolean(value) => f64::from(u8::from(*value)),
                FieldValue::Text => continue,
            };
            if labelled.samples >= SAMPLES_MAX as u64 {
                return Err(IngestError::TooManySamples);
            }
            name.clear();
            name.extend([&*line.measurement, "_", field]);
            // A tag cannot be the series' name; a tag `db` goes before the database.
            let mut pairs: Vec<(&str, &str)> = line.tags.iter().map(|(name, value)| (&**name, &**value)).collect();
            if !pairs.iter().any(|(name, _)| *name == "db") {
                pairs.push(("db", database));
            }
            pairs.push((METRIC_NAME, &name));
            labelled.take_point(&mut pairs, at, value, &known, &limits);
        }
    }
    Ok(labelled)
}
