//! `POST /v1/sql`: SQL over everything that is kept, for administrators.
//!
//! In: `{"query": "SELECT …"}`, or the query itself as `text/plain` or `application/sql`. Out, by `Accept`: JSON, CSV or an
//! Arrow stream; or a problem that says what is wrong and where. It knows neither SQL nor processes: whoever runs queries is
//! handed in, and stops when the request's future is dropped, which is when its client goes away.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem, request};

/// Seconds after which a place may be free: most queries take less.
const RETRY_AFTER_S: u64 = 1;
/// The header with the number of rows.
const ROWS: &str = "x-row-count";

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlForm {
    /// One JSON object.
    Json,
    /// Comma-separated values.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct SqlAnswer {
    /// In the form that was asked for.
    pub body: Bytes,
    /// How many rows it has.
    pub rows: u64,
}

/// Why there is none.
#[derive(Clone, Debug)]
pub struct SqlRefusal {
    /// What it means for whoever asked.
    pub kind: SqlRefusalKind,
    /// In their words.
    pub reason: String,
    /// Line and column of the query, from 1, if they are known.
    pub place: Option<(u64, u64)>,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlRefusalKind {
    /// The query is wrong.
    Invalid,
    /// Its text is too long.
    TooLong,
    /// It cannot be computed within its limits, or at all.
    NotComputed,
    /// Too many run already.
    Busy,
    /// Something does not work for now.
    Unavailable,
}

/// Runs queries over everything; whoever may ask is decided here.
#[async_trait]
pub trait SqlRunner: Send + Sync + 'static {
    /// Runs one. Dropping the future ends it.
    async fn run(&self, query: &str, form: SqlForm) -> Result<SqlAnswer, SqlRefusal>;
}

impl SqlForm {
    /// The media type of its answers.
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The first form that `Accept` names; JSON if it names none, `None` if it wants something else.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let ranges: Vec<String> = headers
            .get_all(header::ACCEPT)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or("").split(','))
            .map(|range| range.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
            .filter(|range| !range.is_empty())
            .collect();
        let form = |range: &String| match range.as_str() {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/csv" | "text/*" => Some(Self::Csv),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            _ => None,
        };
        if ranges.is_empty() { Some(Self::Json) } else { ranges.iter().find_map(form) }
    }
}

/// The routes below the mount; none if nobody runs queries.
pub(crate) fn router(runner: Option<&Arc<dyn SqlRunner>>) -> Router<SharedApi> {
    match runner {
        Some(_) => Router::new().route("/sql", post(run)),
        None => Router::new(),
    }
}

async fn run(Asker(caller): Asker, State(api): State<SharedApi>, request: Request) -> Result<Response, Problem> {
    policy::admin(&caller)?;
    let runner = api.sql.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, Value::Null))?;
    let form = SqlForm::accepted(request.headers()).ok_or_else(|| {
        let forms = "answers are application/json, text/csv or application/vnd.apache.arrow.stream";
        Problem::new(StatusCode::NOT_ACCEPTABLE, forms)
    })?;
    let query = query_of(request).await?;
    let answer = runner.run(&query, form).await.map_err(problem)?;
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, form.media_type())], answer.body).into_response();
    response.headers_mut().insert(ROWS, HeaderValue::from(answer.rows));
    Ok(response)
}

/// The query of a body: an object, or the text itself.
async fn query_of(request: Request) -> Result<String, Problem> {
    let is_json = request::is_json(request.headers());
    let is_text = !is_json && request::is_any(request.headers(), &["text/plain", "application/sql", "text/sql"]);
    if !is_json && !is_text {
        let kinds = "the body is application/json ({\"query\": \"SELECT …\"}), text/plain or application/sql";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kinds));
    }
    let bytes = request::body_bytes(request.into_body()).await?;
    let text = std::str::from_utf8(&bytes).map_err(|error| Problem::bad(format!("the body is no UTF-8: {error}")))?;
    if is_text {
        return Ok(text.to_owned());
    }
    let body: Value =
        serde_json::from_str(text).map_err(|error| Problem::bad(format!("the body is no JSON: {error}")))?;
    let fields = body.as_object().ok_or_else(|| Problem::input("expected an object", &[]))?;
    if let Some(strange) = fields.keys().find(|name| *name != "query") {
        return Err(Problem::input("extra keys not allowed", &[strange]));
    }
    match fields.get("query") {
        Some(Value::String(query)) => Ok(query.clone()),
        Some(_) => Err(Problem::input("expected str", &["query"])),
        None => Err(Problem::input("required key not provided", &["query"])),
    }
}

fn problem(refusal: SqlRefusal) -> Problem {
    let status = match refusal.kind {
        SqlRefusalKind::Invalid => StatusCode::BAD_REQUEST,
        SqlRefusalKind::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        SqlRefusalKind::NotComputed => StatusCode::UNPROCESSABLE_ENTITY,
        SqlRefusalKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        SqlRefusalKind::Unavailable => return Problem::unavailable(refusal.reason),
    };
    let description = match refusal.place {
        Some((line, column)) => {
            json!({"cause": "Invalid query", "reason": refusal.reason, "detail": {"line": line, "column": column}})
        }
        None => Value::from(refusal.reason),
    };
    let retry_after_s = (refusal.kind == SqlRefusalKind::Busy).then_some(RETRY_AFTER_S);
    Problem { retry_after_s, ..Problem::new(status, description) }
}
