//! Aodh's v2 API: alarms, their state and history, queries, quotas, capabilities and metrics; and, of our own, notices.
//!
//! Every command of the real client works against it. Who may do what is Aodh's default: a reader of the project looks,
//! a member changes, an admin does so in all projects. An alarm of another project looks the same as one that is not
//! there. Everything an alarm means is decided in `orzo_alarms`.

mod alarms;
mod dry_run;
mod history;
mod metrics;
mod notices;
mod queries;
mod quotas;
mod trusts;
mod who;

use axum::{
    Json, Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use orzo_alarms::{AlarmBook, BookError, DoorError};
use orzo_model::Scope;
use serde_json::{Value, json};

use self::who::Who;
use crate::{ALARMING_MOUNT, Api, SharedApi, problem::Problem, request::Links};

pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/", get(versions))
        .route("/healthcheck", get(crate::health::healthcheck))
        .route("/v2", get(version))
        .route("/v2/capabilities", get(capabilities))
        .route("/v2/alarms", get(alarms::list).post(alarms::create))
        .route("/v2/alarms/test", post(dry_run::test))
        .route("/v2/alarms/{id}", get(alarms::show).put(alarms::update).delete(alarms::delete))
        .route("/v2/alarms/{id}/state", get(alarms::show_state).put(alarms::set_state))
        .route("/v2/alarms/{id}/history", get(history::of_alarm))
        .route("/v2/query/alarms", post(queries::alarms))
        .route("/v2/query/alarms/history", post(queries::history))
        .route("/v2/quotas", get(quotas::show).post(quotas::set))
        .route("/v2/quotas/{project}", axum::routing::delete(quotas::forget))
        .route("/v2/metrics", get(metrics::show))
        .route("/v2/notices", get(notices::list))
        .route("/v2/notices/replay", post(notices::replay))
        .route("/v2/notices/test", post(notices::test))
        .route("/v2/notices/signing_keys", get(notices::signing_keys))
        .route("/v2/notices/{id}", get(notices::show))
        .layer(from_fn(as_aodh_tells_faults))
}

/// Problems get the body that Aodh's clients read.
async fn as_aodh_tells_faults(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // Taken out, so that nothing further out writes it in another form.
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let text = match &problem.description {
        Value::String(text) if text.is_empty() => problem.status.canonical_reason().unwrap_or("Error").to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => problem.status.canonical_reason().unwrap_or("Error").to_owned(),
        other => other.get("reason").and_then(Value::as_str).map_or_else(|| other.to_string(), str::to_owned),
    };
    let code = if problem.status.is_server_error() { "Server" } else { "Client" };
    let body = json!({"error_message": {"faultcode": code, "faultstring": text, "debuginfo": null}});
    let mut told = (problem.status, Json(body)).into_response();
    if let Some(after) = response.headers().get(header::RETRY_AFTER) {
        told.headers_mut().insert(header::RETRY_AFTER, after.clone());
    }
    told
}

async fn versions(links: Links) -> Json<Value> {
    let v2 = json!({
        "id": "v2", "status": "CURRENT", "updated": "2013-02-13T00:00:00Z",
        "links": [{"rel": "self", "href": links.to(ALARMING_MOUNT, &["v2"])}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.telemetry-v2+json"}],
    });
    Json(json!({"versions": {"values": [v2]}}))
}

async fn version(links: Links) -> Json<Value> {
    versions(links).await
}

async fn capabilities(_who: Who) -> Json<Value> {
    Json(json!({
        "api": {"alarms:query:simple": true, "alarms:query:complex": true, "alarms:history:query:simple": true,
                "alarms:history:query:complex": true},
        "alarm_storage": {"storage:production_ready": true},
    }))
}

fn book(api: &Api) -> Result<&AlarmBook, Problem> {
    api.alarms.as_ref().ok_or_else(|| Problem::unavailable("this process does not serve alarms"))
}

/// 401, as Aodh says it of another's project or user.
fn not_authorized(aspect: &str, id: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, format!("Not Authorized to access {aspect} {id}"))
}

/// The alarms of a caller who does not ask for all projects.
fn own(who: &Who) -> Scope {
    who.0.project_id.clone().map_or(Scope::Nothing, Scope::Project)
}

pub(crate) fn problem_of(error: BookError) -> Problem {
    match &error {
        BookError::NotFound { .. } => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
        BookError::Damaged { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "an alarm cannot be read");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
        BookError::BadMarker { .. } | BookError::TooMuch { .. } => Problem::bad(error.to_string()),
        BookError::OverQuota { .. } => Problem::new(StatusCode::FORBIDDEN, error.to_string()),
        BookError::Changed { .. } => Problem::unavailable("the alarm is being changed by others"),
        BookError::Database(inner) if inner.is_refusal() => Problem::bad(inner.to_string()),
        BookError::Database(inner) if inner.is_retryable() => {
            tracing::warn!(error = inner as &dyn std::error::Error, "alarms cannot be reached");
            Problem::unavailable("the alarms' database does not answer")
        }
        BookError::Database(inner) => {
            tracing::error!(error = inner as &dyn std::error::Error, "the alarms' database failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the alarms' database failed; see the log")
        }
        #[allow(unreachable_patterns)] // the book's room may learn of more
        _ => {
            tracing::error!(error = &error as &dyn std::error::Error, "the alarm book failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the alarm book failed; see the log")
        }
    }
}

fn problem_of_door(error: DoorError) -> Problem {
    match error {
        DoorError::Refused { reason } => {
            tracing::warn!(reason, "a trust is refused");
            Problem::bad("the identity service does not make a trust for these actions")
        }
        DoorError::Unavailable { reason } => {
            tracing::warn!(reason, "the identity service makes no trust now");
            Problem::unavailable("the identity service does not answer")
        }
    }
}
