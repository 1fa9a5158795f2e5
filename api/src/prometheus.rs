//! Prometheus' faces: remote write 1.0 and 2.0 here, the questions in the files below.
//!
//! The same is below `/project/ID` for one project only. What only reads takes read tokens.
//!
//! Series belong to the caller's project, whoever the caller is. A 204 means durable. Answers and their headers are
//! those of Prometheus' remote write specification and HTTP API. This file knows no store.

use std::{cell::RefCell, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use orzo_labels::{LabelIndex, Met};
use orzo_model::{Caller, Standing};
use orzo_query::LabelledTarget;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use crate::{
    SharedApi,
    authenticate::Asker,
    ingest::{
        IngestError,
        admission::{Admission, Place},
        labelled::{Beginnings, Labelled},
        remote_write::{self, Incoming},
        snappy,
    },
    offered::Offered,
    parameters::Parameters,
    problem::Problem,
    request::{BODY_BYTES_MAX, body_bytes},
};

mod about;
mod chunks;
mod federate;
mod parts;
pub(crate) mod places;
pub(crate) mod query;
pub(crate) mod remote_read;
mod rules;
mod series;
mod status;
mod steps;
pub(crate) mod targets;
mod tokens;
pub(crate) mod wire;

/// Bodies up to this size are read on the thread that received them: handing them over costs more.
const READ_HERE_BYTES_MAX: usize = 1 << 20;
/// Decompressed bodies keep their memory for the next ones, so many and so large.
const BUFFERS_MAX: usize = 16;
const BUFFER_BYTES_MAX: usize = 2 << 20;

/// What ingest keeps between requests.
#[derive(Default)]
pub(crate) struct Ingest {
    pub(crate) admission: Admission,
    beginnings: RwLock<Beginnings>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Ingest {
    fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_default()
    }

    fn keep(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
    }
}

pub(crate) fn router() -> Router<SharedApi> {
    reading()
        .layer(crate::reads_of(|_| true))
        .route("/api/v1/write", post(write))
        .route("/api/v1/otlp/v1/metrics", post(crate::otlp::export))
        .route("/api/v1/admin/tsdb/delete_series", post(series::delete).put(series::delete))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", axum::routing::delete(tokens::revoke))
}

/// What changes nothing, so that a read token is enough for it.
fn reading() -> Router<SharedApi> {
    Router::new()
        .route("/api/v1/read", post(remote_read::read))
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/query_exemplars", get(about::exemplars).post(about::exemplars))
        .route("/api/v1/format_query", get(about::format).post(about::format))
        .route("/api/v1/parse_query", get(about::parse).post(about::parse))
        .route("/api/v1/metadata", get(about::metadata))
        .route("/api/v1/series", get(series::series).post(series::series))
        .route("/api/v1/labels", get(series::labels).post(series::labels))
        .route("/api/v1/label/{name}/values", get(series::values))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/alertmanagers", get(about::alertmanagers))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/targets/metadata", get(targets::targets_metadata))
        .route("/api/v1/scrape_pools", get(targets::scrape_pools))
        .route("/api/v1/notifications", get(about::notifications))
        .route("/api/v1/status/buildinfo", get(status::build))
        .route("/api/v1/status/config", get(status::configuration))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/runtimeinfo", get(status::runtime))
        .route("/api/v1/status/tsdb", get(status::cardinality))
        .route("/api/v1/status/walreplay", get(status::log_replay))
        .route("/federate", get(federate::federate))
        .route("/-/healthy", get(about::healthy))
        .route("/-/ready", get(about::ready))
}

/// A refused request, as Prometheus' HTTP API tells it.
pub(crate) struct Refused(Problem);

impl<E: Into<Problem>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let kind = match self.0.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => "unavailable",
            status if status.is_server_error() => "internal",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            _ => "bad_data",
        };
        let named = || self.0.status.canonical_reason().unwrap_or("refused").to_lowercase();
        let text = match &self.0.description {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::String(_) | Value::Null => named(),
            other => other.to_string(),
        };
        let body = Json(json!({"status": "error", "errorType": kind, "error": text}));
        let mut response = (self.0.status, body).into_response();
        if let Some(seconds) = self.0.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What is refused before a handler is asked (no credential, no such path, too much at once) in this API's own form.
pub(crate) fn in_envelope(response: Response) -> Response {
    let Some(problem) = response.extensions().get::<Problem>() else { return response };
    let mut told = Refused(problem.clone()).into_response();
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            told.headers_mut().insert(name.clone(), value.clone());
        }
    }
    told
}

/// The project whose series a caller writes and reads.
pub(crate) fn project_of(caller: &Caller) -> Result<&str, Problem> {
    let none = || Problem::new(StatusCode::FORBIDDEN, "the credential has no project");
    caller.project_id.as_deref().ok_or_else(none)
}

/// Who asks, by what clients of these faces can be set to send: besides the usual credentials a token as `Authorization:
/// Bearer` (Prometheus) or `Authorization: Token` (InfluxDB 2).
pub(crate) struct Sender(pub(crate) Caller);

impl FromRequestParts<SharedApi> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &SharedApi) -> Result<Self, Problem> {
        if !parts.headers.contains_key(TOKEN_HEADER)
            && let Some(token) = bearer(&parts.headers)
        {
            parts.headers.insert(TOKEN_HEADER, token);
        }
        let Asker(caller) = Asker::from_request_parts(parts, api).await?;
        match parts.extensions.get::<OnlyProject>() {
            None => Ok(Self(caller)),
            Some(OnlyProject(project)) => {
                within(caller, project).map(Self).ok_or_else(|| Problem::missing(format!("the project {project}")))
            }
        }
    }
}

/// The project that a request's path names: `/project/ID/api/v1/...` is about nothing else.
#[derive(Clone)]
struct OnlyProject(String);

/// Longer than any id of a project.
const PROJECT_BYTES_MAX: usize = 64;

/// Takes the project out of the path, if it names one.
pub(crate) fn name_project(request: &mut Request) {
    let named = || {
        let (project, rest) = request.uri().path().strip_prefix("/project/")?.split_once('/')?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_id = !project.is_empty() && project.len() <= PROJECT_BYTES_MAX && project.bytes().all(is_plain);
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri = format!("/{rest}{query}").parse::<http::Uri>().ok().filter(|_| is_id)?;
        Some((OnlyProject(project.to_owned()), uri))
    };
    if let Some((project, uri)) = named() {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(project);
    }
}

/// The caller in one project only: its own, or any for an operator, who then sees what a member of it would. Nobody else
/// hears whether there is such a project.
fn within(caller: Caller, project: &str) -> Option<Caller> {
    let is_own = caller.project_id.as_deref() == Some(project);
    if !is_own && !caller.is_admin() {
        return None;
    }
    Some(Caller {
        project_id: Some(project.to_owned()),
        project_name: caller.project_name.filter(|_| is_own),
        roles: caller.roles.into_iter().filter(|role| role != "admin").collect(),
        standing: if caller.standing == Standing::Everywhere { Standing::Project } else { caller.standing },
        ..caller
    })
}

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-auth-token");

fn bearer(headers: &HeaderMap) -> Option<HeaderValue> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let is_one = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    let mut token = HeaderValue::from_str(token.trim()).ok().filter(|_| is_one)?;
    token.set_sensitive(true);
    Some(token)
}

/// Which message a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    V1,
    V2,
}

impl Message {
    /// By the content type; without one, and without its parameter, it is 1.0.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported = |text: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"snappy")
        {
            return Err(unsupported("the body must be a snappy block".to_owned()));
        }
        let Some(text) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::V1) };
        let text = text.to_str().unwrap_or("").to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        if parts.next() != Some("application/x-protobuf") {
            return Err(unsupported("the body must be application/x-protobuf".to_owned()));
        }
        match parts.find_map(|part| part.strip_prefix("proto=")).map(|proto| proto.trim_matches('"')) {
            None | Some("prometheus.writerequest") => Ok(Self::V1),
            Some("io.prometheus.write.v2.request") => Ok(Self::V2),
            Some(_) => Err(unsupported("the message is neither remote write 1.0 nor 2.0".to_owned())),
        }
    }
}

async fn write(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let project: Arc<str> = project_of(&caller)?.into();
    let message = Message::of(&headers)?;
    let labels = api.engine.labels()?.clone();
    let (mut place, body) = admitted(&api, &project, &headers, body).await?;
    let claimed = snappy::claimed_bytes(&body).map_err(|error| refused_whole(&api, &error))?;
    if !place.grow(claimed) {
        return Err(no_room().into());
    }
    let labelled = if claimed <= READ_HERE_BYTES_MAX {
        read(&api, &labels, &project, message, &body)
    } else {
        let (api, project) = (api.clone(), project.clone());
        let read = tokio::task::spawn_blocking(move || read(&api, &labels, &project, message, &body));
        read.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))?
    };
    let mut labelled = labelled.map_err(|error| refused_whole(&api, &error))?;
    let (begun, new_begun) = (std::mem::take(&mut labelled.begun), std::mem::take(&mut labelled.new_begun));
    let written = keep(&api, &project, labelled).await?;
    let new_begun = new_begun.into_iter().filter_map(|(set, at)| Some((written.series.get(set).copied()??, at)));
    let mut begun = begun.into_iter().chain(new_begun).peekable();
    if begun.peek().is_some() {
        api.ingest.beginnings.write().learn(begun);
    }
    Ok(written.answer(StatusCode::NO_CONTENT))
}

/// The body of a request, with a place in memory that was free before it was read.
pub(crate) async fn admitted(
    api: &SharedApi,
    project: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Place, Bytes), Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let place = api.ingest.admission.enter(project, length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX));
    let place = place.ok_or_else(no_room)?;
    Ok((place, body_bytes(body).await?))
}

/// 503: other bodies have the memory.
pub(crate) fn no_room() -> Problem {
    Problem { retry_after_s: Some(1), ..Problem::unavailable("too many bytes are being read at once") }
}

/// Nothing of a body is kept; what was in it nobody knows, so it counts as one.
pub(crate) fn refused_whole(api: &SharedApi, error: &IngestError) -> Problem {
    Offered::new(&api.room, 1).refused_all(error.reason());
    error.clone().into()
}

/// Bytes of a body for each sample, seldom less: memory for its points is taken once.
const SAMPLE_BYTES: usize = 160;

fn read(
    api: &SharedApi,
    labels: &LabelIndex,
    project: &str,
    message: Message,
    body: &[u8],
) -> Result<Labelled, IngestError> {
    let mut buffer = api.ingest.buffer();
    let outcome = snappy::decode_into(body, &mut buffer).and_then(|()| {
        let mut labelled = Labelled::default();
        let native = labels.project(&orzo_query::book_of(project));
        let (project, limits) = (labels.project(project), labels.settings().set);
        let (known, native) = (project.known(), native.known());
        labelled.points.known.reserve(buffer.len() / SAMPLE_BYTES);
        let met = RefCell::new(Met::default());
        let find = |labels: &[u8]| known.look_up_or_met(labels, &mut met.borrow_mut());
        let mut take = |one: Incoming<'_>, beginnings: &Beginnings| {
            let (labels, series) = (one.labels, one.series.or_else(|| find(one.labels)));
            let target = labelled.take(Incoming { series, ..one }, &known, &native, &limits, beginnings)?;
            if let Some(LabelledTarget::Known(found)) = target.filter(|_| series.is_none()) {
                known.meet(labels, found, &mut met.borrow_mut());
            }
            Ok(())
        };
        match message {
            Message::V1 => {
                // Nothing in 1.0 says when a counter began.
                let nothing = Beginnings::default();
                if let Some(from) = remote_write::read_v1(&buffer, find, |one| take(one, &nothing))? {
                    remote_write::read_metadata_v1(&buffer, from, |name, about| labelled.describe(name, about))?;
                }
            }
            Message::V2 => {
                let beginnings = api.ingest.beginnings.read();
                remote_write::read_v2(&buffer, |one| take(one, &beginnings))?;
            }
        }
        Ok(labelled)
    });
    api.ingest.keep(buffer);
    outcome
}

/// What was written of a request.
pub(crate) struct Written {
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
    pub(crate) series: Vec<Option<orzo_model::SeriesId>>,
    /// Why something was not, and how it is told.
    pub(crate) problem: Option<Problem>,
}

impl Written {
    fn answer(self, status: StatusCode) -> Response {
        let mut response = match self.problem {
            Some(problem) => {
                let mut response =
                    (problem.status, problem.description.as_str().unwrap_or("").to_owned()).into_response();
                if let Some(seconds) = problem.retry_after_s {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                response
            }
            None => status.into_response(),
        };
        for (name, count) in [("samples", self.samples), ("histograms", self.histograms), ("exemplars", self.exemplars)]
        {
            let name = HeaderName::try_from(format!("x-prometheus-remote-write-{name}-written"));
            if let Ok(name) = name {
                response.headers_mut().insert(name, HeaderValue::from(count));
            }
        }
        response
    }
}

/// Keeps what was read, and counts it.
pub(crate) async fn keep(api: &SharedApi, project: &str, labelled: Labelled) -> Result<Written, Problem> {
    let Labelled { points, samples, zeros, exemplars, exemplars_refused, refused, first_refusal, .. } = labelled;
    // A histogram counts as the points that it becomes.
    let (histograms, words) = (points.native.histograms, points.native.words());
    let mut offered = Offered::new(&api.room, samples + zeros + words + exemplars);
    for (reason, count) in &refused {
        offered.refused(reason, *count);
    }
    for (reason, count) in &exemplars_refused {
        offered.refused(reason, *count);
    }
    let exemplars = (points.exemplars.len() + points.native.exemplars.len()) as u64;
    // On an error the rest counts as given back.
    let receipt = api.engine.write_labelled(project, points).await?;
    if let Some(refusal) = &receipt.refusal {
        offered.refused(refusal.reason(), receipt.refused);
    }
    offered.refused("no such series", exemplars - receipt.exemplars);
    offered.repeated(receipt.repeated);
    offered.stored(receipt.stored + receipt.exemplars);
    if receipt.metadata_refused > 0 {
        api.room.received(receipt.metadata_refused);
        api.room.refused("too many names with metadata", receipt.metadata_refused);
    }
    offered.refused("delta out of order", receipt.deltas_late);
    let written = (receipt.stored + receipt.repeated).saturating_sub(zeros + words - receipt.words_refused);
    let histograms = histograms - receipt.histograms_refused;
    let late = (receipt.deltas_late > 0).then(|| "a delta came after a later one of its series".to_owned());
    let mut problem = first_refusal.or(late).map(Problem::bad);
    if let Some(refusal) = receipt.refusal {
        // What may be taken later is sent again; that the rest is then there twice changes nothing.
        let later = Problem {
            retry_after_s: Some(RETRY_AFTER_S),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, refusal.to_string())
        };
        problem = Some(if refusal.is_retryable() { later } else { Problem::bad(refusal.to_string()) });
    }
    Ok(Written { samples: written, histograms, exemplars: receipt.exemplars, series: receipt.series, problem })
}

/// New series are counted by the minute.
const RETRY_AFTER_S: u64 = 30;

/// Parameters of the query and of a form body.
async fn parameters_of(request: Request) -> Result<Parameters, Problem> {
    let (parts, body) = request.into_parts();
    let mut text = parts.uri.query().unwrap_or("").to_owned();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if kind.starts_with("application/x-www-form-urlencoded") {
        let body = body_bytes(body).await?;
        text.push('&');
        text.push_str(&String::from_utf8_lossy(&body));
    }
    Ok(Parameters::parse(&text))
}
