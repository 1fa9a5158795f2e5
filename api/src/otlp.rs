//! OTLP's metrics over HTTP (`/otlp/v1/metrics`, also below `/prometheus/api/v1`) and gRPC: series of the caller's project.
//!
//! Success means durable. What cannot be kept of a request is told as `partial_success` and must not be sent again; what may
//! be kept later is answered with 429, then the whole request may come again: what is there already stays as it is.
//!
//! gRPC is one unary method on the port of all other faces: a frame of five bytes and a message, and trailers. That is
//! written here, since a framework for it would bring a second server with its own limits.

use std::{io::Read, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};
use orzo_labels::LabelIndex;
use orzo_model::Caller;
use serde_json::{Value, json};

use crate::{
    SharedApi,
    ingest::{
        DECODED_BYTES_MAX, IngestError,
        labelled::Labelled,
        otlp::{Translator, json as json_form, protobuf},
    },
    problem::Problem,
    prometheus::{Sender, admitted, keep, no_room, project_of, refused_whole},
};

/// Where gRPC's clients ask.
pub(crate) const GRPC_MOUNT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService";
/// Before each message of gRPC: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(crate) fn router() -> Router<SharedApi> {
    Router::new().route("/v1/metrics", post(export))
}

pub(crate) fn grpc_router() -> Router<SharedApi> {
    Router::new().route("/Export", post(export_by_grpc))
}

/// In which form a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        match kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
            PROTOBUF => Ok(Self::Protobuf),
            JSON => Ok(Self::Json),
            _ => {
                let text = format!("the body must be {PROTOBUF} or {JSON}");
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
            }
        }
    }
}

/// What became of a request's points.
#[derive(Debug, Default)]
struct Outcome {
    rejected: u64,
    reason: String,
}

/// `POST /v1/metrics`
pub(crate) async fn export(State(api): State<SharedApi>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let form = match Form::of(&parts.headers) {
        Ok(form) => form,
        Err(problem) => return refused(Form::Json, &problem),
    };
    let taken = async {
        let Sender(caller) = Sender::from_request_parts(&mut parts, &api).await?;
        let is_gzip = is_gzip(parts.headers.get(header::CONTENT_ENCODING))?;
        take(&api, &caller, &parts.headers, body, |body| Ok((body, is_gzip)), form).await
    };
    match taken.await {
        Ok(outcome) => {
            let (kind, body) = match form {
                Form::Protobuf => (PROTOBUF, message(&outcome)),
                Form::Json => (JSON, json_message(&outcome).to_string().into_bytes()),
            };
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(problem) => refused(form, &problem),
    }
}

/// `MetricsService/Export`
async fn export_by_grpc(State(api): State<SharedApi>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let is_grpc =
        parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is a method of gRPC").into_response();
    }
    let taken = async {
        let Sender(caller) = Sender::from_request_parts(&mut parts, &api).await?;
        let encoding = parts.headers.get("grpc-encoding").cloned();
        let unframed = move |body: Bytes| {
            let (is_compressed, message) = unframed(&body)?;
            Ok((message, is_compressed && is_gzip(encoding.as_ref())?))
        };
        take(&api, &caller, &parts.headers, body, unframed, Form::Protobuf).await
    };
    let (status, text, body) = match taken.await {
        Ok(outcome) => (0, String::new(), framed(&message(&outcome))),
        Err(problem) => (grpc_status(problem.status), told(&problem), Vec::new()),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    if let Ok(text) = HeaderValue::try_from(escaped(&text)) {
        trailers.insert("grpc-message", text);
    }
    let body = Full::new(Bytes::from(body)).with_trailers(async { Some(Ok::<_, std::convert::Infallible>(trailers)) });
    ([(header::CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
}

/// Reads and keeps a message; `unwrapped` takes the transport's frame away and says whether gzip is below it.
async fn take(
    api: &SharedApi,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    unwrapped: impl FnOnce(Bytes) -> Result<(Bytes, bool), Problem>,
    form: Form,
) -> Result<Outcome, Problem> {
    let project: Arc<str> = project_of(caller)?.into();
    let labels = api.engine.labels()?.clone();
    let (mut place, body) = admitted(api, &project, headers, body).await?;
    let (body, is_gzip) = unwrapped(body)?;
    // What gzip will become it does not say in a way that can be believed; JSON becomes a tree.
    let decoded_max = match form {
        Form::Protobuf => DECODED_BYTES_MAX,
        Form::Json => json_form::JSON_BYTES_MAX,
    };
    let decoded = if is_gzip { decoded_max } else { body.len().min(decoded_max) };
    let tree = if form == Form::Json { json_form::TREE_FACTOR } else { 1 };
    if !place.grow(decoded * tree) {
        return Err(no_room());
    }
    let read = {
        let project = project.clone();
        tokio::task::spawn_blocking(move || {
            let unpacked;
            let bytes = if is_gzip {
                unpacked = unzip(&body, decoded_max)?;
                &unpacked[..]
            } else {
                &body[..]
            };
            read(&labels, &project, form, bytes)
        })
    };
    let read = read.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))?;
    let (labelled, rejected) = read.map_err(|error| refused_whole(api, &error))?;
    let refused: u64 = labelled.refused.values().sum();
    let good = labelled.samples.saturating_sub(refused);
    let written = keep(api, &project, labelled).await?;
    match written.problem {
        Some(problem) if problem.retry_after_s.is_some() => Err(problem),
        Some(problem) => {
            let lost = good.saturating_sub(written.samples).max(refused.saturating_sub(rejected));
            Ok(Outcome { rejected: rejected + lost, reason: told(&problem) })
        }
        None => Ok(Outcome::default()),
    }
}

fn read(labels: &LabelIndex, project: &str, form: Form, body: &[u8]) -> Result<(Labelled, u64), IngestError> {
    let native = labels.project(&orzo_query::book_of(project));
    let (project, limits) = (labels.project(project), labels.settings().set);
    let (known, native) = (project.known(), native.known());
    let mut translator = Translator::new(&known, &native, &limits);
    match form {
        Form::Protobuf => protobuf::read(body, &mut translator)?,
        Form::Json => json_form::read(body, &mut translator)?,
    }
    translator.finish()
}

fn is_gzip(encoding: Option<&HeaderValue>) -> Result<bool, Problem> {
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(_) => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be plain or gzip")),
    }
}

fn unzip(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, IngestError> {
    let mut unpacked = Vec::new();
    let outcome = flate2::read::MultiGzDecoder::new(body).take(bytes_max as u64 + 1).read_to_end(&mut unpacked);
    outcome.map_err(|_| IngestError::Malformed { at: 0, what: "it is not gzip" })?;
    if unpacked.len() > bytes_max {
        return Err(IngestError::ClaimsTooMuch { claimed: unpacked.len() });
    }
    Ok(unpacked)
}

/// The one message of a unary call.
fn unframed(body: &Bytes) -> Result<(bool, Bytes), Problem> {
    let wrong = || Problem::bad("the body is not one message of gRPC");
    let head = body.first_chunk::<FRAME_BYTES>().ok_or_else(wrong)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] > 1 || body.len() - FRAME_BYTES != length {
        return Err(wrong());
    }
    Ok((head[0] == 1, body.slice(FRAME_BYTES..)))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// `ExportMetricsServiceResponse`; empty if everything was kept.
fn message(outcome: &Outcome) -> Vec<u8> {
    if outcome.rejected == 0 && outcome.reason.is_empty() {
        return Vec::new();
    }
    let mut partial = vec![0x08];
    write_varint(&mut partial, outcome.rejected);
    write_text(&mut partial, 2, &outcome.reason);
    let mut out = vec![0x0a];
    write_varint(&mut out, partial.len() as u64);
    out.extend(partial);
    out
}

fn json_message(outcome: &Outcome) -> Value {
    match outcome.rejected == 0 && outcome.reason.is_empty() {
        true => json!({}),
        false => json!({"partialSuccess": {
            "rejectedDataPoints": outcome.rejected.to_string(), "errorMessage": outcome.reason,
        }}),
    }
}

/// `google.rpc.Status`, in the form of the request.
fn refused(form: Form, problem: &Problem) -> Response {
    let (code, text) = (grpc_status(problem.status), told(problem));
    let (kind, body) = match form {
        Form::Protobuf => {
            let mut body = vec![0x08];
            write_varint(&mut body, u64::from(code));
            write_text(&mut body, 2, &text);
            (PROTOBUF, body)
        }
        Form::Json => (JSON, json!({"code": code, "message": text}).to_string().into_bytes()),
    };
    let mut response = (problem.status, [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(seconds) = problem.retry_after_s {
        let name: HeaderName = header::RETRY_AFTER;
        response.headers_mut().insert(name, HeaderValue::from(seconds));
    }
    response
}

fn told(problem: &Problem) -> String {
    match &problem.description {
        Value::String(text) if text.is_empty() => problem.status.canonical_reason().unwrap_or("refused").to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => problem.status.canonical_reason().unwrap_or("refused").to_owned(),
        other => other.to_string(),
    }
}

/// gRPC's code for a status; only UNAVAILABLE (14) is sent again.
fn grpc_status(status: StatusCode) -> u16 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 5,
        StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => 14,
        status if status.is_client_error() => 3,
        _ => 13,
    }
}

/// A message of gRPC's trailers: what is no plain character is percent-encoded.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn write_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_text(out: &mut Vec<u8>, field: u8, text: &str) {
    out.push(field << 3 | 2);
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
