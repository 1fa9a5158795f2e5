//! Aodh's v2 API: alarms, their state and their history.
//!
//! `alarm create|list|show|update|delete|state|history` of the real client work against it. An alarm of another
//! project looks the same as one that is not there. Everything an alarm means is decided in `orzo_alarms`.

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use orzo_alarms::{Alarm, AlarmBook, AlarmFilter, AlarmRequest, AlarmState, BookError, Change};
use orzo_model::{Caller, Scope};
use serde_json::{Value, json};

use crate::{
    ALARMING_MOUNT, SharedApi,
    authenticate::Asker,
    parameters::{Parameters, boolean},
    problem::Problem,
    request::{JsonBody, Links},
};

/// Entries of a history without a limit, as many as a page can be.
const HISTORY_MAX: u32 = 1000;
/// Somebody who changed the same alarm at the same moment is let through first so often.
const CHANGE_TRIES: u32 = 3;

pub(crate) fn router() -> Router<SharedApi> {
    Router::new()
        .route("/", get(versions))
        .route("/v2", get(version))
        .route("/v2/capabilities", get(capabilities))
        .route("/v2/alarms", get(list).post(create))
        .route("/v2/alarms/{id}", get(show).put(update).delete(delete))
        .route("/v2/alarms/{id}/state", get(show_state).put(set_state))
        .route("/v2/alarms/{id}/history", get(history))
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

async fn capabilities(_asker: Asker) -> Json<Value> {
    Json(
        json!({"api": {"alarms:query:simple": true, "alarms:query:complex": false, "alarms:history:query:simple": true},
                "alarm_storage": {"storage:production_ready": true}}),
    )
}

async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    let (filter, all_projects) = filter_of(&parameters)?;
    let scope = if caller.is_admin() && !all_projects { own(&caller) } else { caller.scope() };
    if all_projects && !caller.is_admin() {
        return Err(Problem::forbidden());
    }
    // An administrator who names a project means that one.
    let scope = if caller.is_admin() && filter.project_id.is_some() { Scope::All } else { scope };
    let alarms = book(&api)?.list(&scope, &filter).await.map_err(problem_of)?;
    Ok(Json(alarms.iter().map(Alarm::to_json).collect()))
}

async fn create(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let request = AlarmRequest::parse(&body, caller.is_admin()).map_err(|error| Problem::bad(error.to_string()))?;
    let (user, project) = owner_of(&caller, &request)?;
    let is_operators = caller.is_admin();
    let alarm = book(&api)?.create(&request, &user, &project, is_operators).await.map_err(problem_of)?;
    let location = links.to(ALARMING_MOUNT, &["v2", "alarms", &alarm.alarm_id]);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(alarm.to_json())).into_response())
}

async fn show(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let alarm = book(&api)?.get(&caller.scope(), &id).await.map_err(problem_of)?;
    Ok(Json(alarm.to_json()))
}

async fn update(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let request = AlarmRequest::parse(&body, caller.is_admin()).map_err(|error| Problem::bad(error.to_string()))?;
    may_change(&api, &caller, &id).await?;
    let (user, project) = (caller.user_id.as_str(), caller.project_id.as_deref().unwrap_or_default());
    for _ in 0..CHANGE_TRIES {
        let before = book(&api)?.get(&caller.scope(), &id).await.map_err(problem_of)?;
        let moves = request.project_id.as_ref().is_some_and(|wanted| *wanted != before.project_id)
            || request.user_id.as_ref().is_some_and(|wanted| *wanted != before.user_id);
        if moves {
            return Err(Problem::bad("an alarm cannot be given to another project or user"));
        }
        match book(&api)?.update(&before, &request, user, project).await {
            // The evaluator was faster; its change and ours are both wanted.
            Err(BookError::Changed { .. }) => {}
            other => return Ok(Json(other.map_err(problem_of)?.to_json())),
        }
    }
    Err(Problem::unavailable("the alarm is being changed by others"))
}

async fn delete(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    may_change(&api, &caller, &id).await?;
    book(&api)?.delete(&caller.scope(), &id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn show_state(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
) -> Result<Json<AlarmState>, Problem> {
    Ok(Json(book(&api)?.get(&caller.scope(), &id).await.map_err(problem_of)?.state))
}

async fn set_state(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<AlarmState>, Problem> {
    let state = body
        .as_str()
        .and_then(AlarmState::parse)
        .ok_or_else(|| Problem::bad("state invalid: expected one of \"ok\", \"alarm\", \"insufficient data\""))?;
    may_change(&api, &caller, &id).await?;
    let (user, project) = (caller.user_id.as_str(), caller.project_id.as_deref().unwrap_or_default());
    for _ in 0..CHANGE_TRIES {
        let before = book(&api)?.get(&caller.scope(), &id).await.map_err(problem_of)?;
        match book(&api)?.set_state(&before, state, user, project).await {
            Err(BookError::Changed { .. }) => {}
            other => return Ok(Json(other.map_err(problem_of)?.state)),
        }
    }
    Err(Problem::unavailable("the alarm is being changed by others"))
}

async fn history(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    let limit = limit_of(&parameters)?.unwrap_or(HISTORY_MAX);
    let changes = book(&api)?.history(&caller.scope(), &id, limit).await.map_err(problem_of)?;
    Ok(Json(changes.iter().map(change_json).collect()))
}

fn change_json(change: &Change) -> Value {
    json!({
        "event_id": change.event_id,
        "alarm_id": change.alarm_id,
        "type": change.kind,
        "detail": change.detail,
        "user_id": change.user_id,
        "project_id": change.project_id,
        "on_behalf_of": change.on_behalf_of,
        "timestamp": change.timestamp.naive(),
        "severity": change.severity,
    })
}

/// The filter, and whether an administrator asks for all projects.
fn filter_of(parameters: &Parameters) -> Result<(AlarmFilter, bool), Problem> {
    let mut filter = AlarmFilter {
        limit: limit_of(parameters)?,
        marker: parameters.get("marker").map(str::to_owned),
        ..AlarmFilter::default()
    };
    if parameters.all("sort").next().is_some_and(|sort| sort != "timestamp:desc") {
        return Err(Problem::bad("sort: only timestamp:desc is served"));
    }
    let mut all_projects = false;
    let fields: Vec<&str> = parameters.all("q.field").collect();
    let operators: Vec<&str> = parameters.all("q.op").collect();
    let values: Vec<&str> = parameters.all("q.value").collect();
    if fields.len() != values.len() {
        return Err(Problem::bad("every q.field needs one q.value"));
    }
    if let Some(operator) = operators.iter().find(|operator| !matches!(**operator, "eq" | "")) {
        return Err(Problem::bad(format!("operator {operator} is not supported for alarms; only eq is")));
    }
    for (field, value) in fields.into_iter().zip(values) {
        match field {
            "all_projects" => all_projects = boolean(field, value)?,
            "name" => filter.name = Some(value.to_owned()),
            "type" => filter.type_name = Some(value.to_owned()),
            "state" => {
                let state = AlarmState::parse(value);
                filter.state = Some(state.ok_or_else(|| Problem::bad(format!("state `{value}` is not known")))?);
            }
            "enabled" => filter.enabled = Some(boolean(field, value)?),
            "severity" => filter.severity = Some(value.to_owned()),
            "user_id" => filter.user_id = Some(value.to_owned()),
            "project_id" => filter.project_id = Some(value.to_owned()),
            "repeat_actions" => filter.repeat_actions = Some(boolean(field, value)?),
            other => {
                return Err(Problem::bad(format!(
                    "unrecognized field in query: {other}; known are all_projects, enabled, name, project_id, \
                     repeat_actions, severity, state, type, user_id"
                )));
            }
        }
    }
    Ok((filter, all_projects))
}

fn limit_of(parameters: &Parameters) -> Result<Option<u32>, Problem> {
    match parameters.get("limit") {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(limit) if limit > 0 => Ok(Some(limit)),
            _ => Err(Problem::bad("Limit must be positive")),
        },
    }
}

/// Whose the new alarm is: the caller's; an administrator may make one for others.
fn owner_of(caller: &Caller, request: &AlarmRequest) -> Result<(String, String), Problem> {
    let own_project = caller.project_id.clone().ok_or_else(|| Problem::bad("the token has no project"))?;
    if !caller.is_admin() {
        let foreign = request.project_id.as_ref().is_some_and(|project| *project != own_project)
            || request.user_id.as_ref().is_some_and(|user| *user != caller.user_id);
        if foreign {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "Not Authorized to access another project or user"));
        }
        if !is_writer(caller) {
            return Err(Problem::forbidden());
        }
    }
    let user = request.user_id.clone().unwrap_or_else(|| caller.user_id.clone());
    Ok((user, request.project_id.clone().unwrap_or(own_project)))
}

/// A role `reader` only looks.
fn is_writer(caller: &Caller) -> bool {
    caller.is_admin() || caller.has_role("member")
}

/// 404 for what the caller may not see, before 403 for what it may not change.
async fn may_change(api: &SharedApi, caller: &Caller, id: &str) -> Result<(), Problem> {
    if is_writer(caller) {
        return Ok(());
    }
    book(api)?.get(&caller.scope(), id).await.map_err(problem_of)?;
    Err(Problem::forbidden())
}

fn own(caller: &Caller) -> Scope {
    caller.project_id.clone().map_or(Scope::Nothing, Scope::Project)
}

fn book(api: &SharedApi) -> Result<&AlarmBook, Problem> {
    api.alarms.as_ref().ok_or_else(|| Problem::unavailable("this process does not serve alarms"))
}

fn problem_of(error: BookError) -> Problem {
    match &error {
        BookError::NotFound { .. } => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
        BookError::Damaged { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "an alarm cannot be read");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
        BookError::BadMarker { .. } => Problem::bad(error.to_string()),
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
    }
}
