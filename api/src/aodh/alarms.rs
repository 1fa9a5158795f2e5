//! `/v2/alarms`: the alarms themselves and their state.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use orzo_alarms::{Alarm, AlarmError, AlarmRequest, AlarmState, BookError, Filter, Search, Subject};
use orzo_model::Scope;
use serde_json::Value;

use super::{book, not_authorized, own, problem_of, queries, trusts, who::Who};
use crate::{
    ALARMING_MOUNT, SharedApi,
    parameters::{Parameters, boolean},
    problem::Problem,
    request::{JsonBody, Links},
};

/// Somebody who changed the same alarm at the same moment is let through first so often.
const CHANGE_TRIES: u32 = 3;

pub(super) async fn list(
    State(api): State<SharedApi>,
    who: Who,
    links: Links,
    parameters: Parameters,
) -> Result<Response, Problem> {
    who.must_read()?;
    let mut all_projects = false;
    let mut conditions = Vec::new();
    for asked in queries::simple(&parameters)? {
        if asked.field == "all_projects" {
            all_projects = boolean("all_projects", asked.text)?;
            if all_projects {
                who.must_be_admin()?;
            }
            continue;
        }
        conditions.push(queries::condition(Subject::Alarms, &asked)?);
    }
    let condition = (!conditions.is_empty()).then_some(Filter::All(conditions));
    let named = condition.as_ref().map(|condition| condition.values_of("project_id")).unwrap_or_default();
    queries::must_be_own(&who, &named)?;
    // An administrator who names a project means that one.
    let scope = match who.0.is_admin() && (all_projects || !named.is_empty()) {
        true => Scope::All,
        false => own(&who),
    };
    let search = Search { condition, ..queries::page(Subject::Alarms, &parameters)? };
    let page = book(&api)?.search(&scope, &search).await.map_err(problem_of)?;
    let last = page.rows.last().map(|alarm| alarm.alarm_id.clone()).filter(|_| page.is_cut);
    let body: Value = page.rows.iter().map(Alarm::to_json).collect();
    Ok(with_next(Json(body).into_response(), &links, &parameters, last.as_deref()))
}

/// Says where the next page is, if there is one.
pub(super) fn with_next(
    mut response: Response,
    links: &Links,
    parameters: &Parameters,
    marker: Option<&str>,
) -> Response {
    let Some(marker) = marker else { return response };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.0.iter().filter(|(name, _)| name != "marker"));
    query.append_pair("marker", marker);
    let link = format!("<{}?{}>; rel=\"next\"", links.here(ALARMING_MOUNT), query.finish());
    if let Ok(value) = HeaderValue::from_str(&link) {
        response.headers_mut().insert(header::LINK, value);
    }
    response
}

pub(super) async fn create(
    State(api): State<SharedApi>,
    who: Who,
    links: Links,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = &who.0;
    let own_project = caller.project_id.clone().ok_or_else(Problem::forbidden)?;
    who.must_write()?;
    let mut request = read(&body, caller.is_admin())?;
    if !caller.is_admin() {
        if let Some(user) = request.user_id.as_ref().filter(|user| **user != caller.user_id) {
            return Err(not_authorized("user", user));
        }
        if let Some(project) = request.project_id.as_ref().filter(|project| **project != own_project) {
            return Err(not_authorized("project", project));
        }
    }
    let user = request.user_id.clone().unwrap_or_else(|| caller.user_id.clone());
    let project = request.project_id.clone().unwrap_or_else(|| own_project.clone());
    // What an administrator makes for another project sees what that project sees: its members can change it.
    let is_operators = caller.is_admin() && project == own_project;
    if !is_operators {
        request.rule.scope_to(&project);
    }
    trusts::make(&api, &headers, &mut request).await?;
    let alarm = book(&api)?.create(&request, &user, &project, is_operators).await.map_err(problem_of)?;
    let location = links.to(ALARMING_MOUNT, &["v2", "alarms", &alarm.alarm_id]);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(alarm.to_json())).into_response())
}

pub(super) fn read(body: &Value, is_admin: bool) -> Result<AlarmRequest, Problem> {
    AlarmRequest::parse(body, is_admin).map_err(|error| match error {
        AlarmError::Unauthorized(_) => Problem::new(StatusCode::UNAUTHORIZED, error.to_string()),
        _ => Problem::bad(error.to_string()),
    })
}

pub(super) async fn show(
    State(api): State<SharedApi>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    who.must_read()?;
    let alarm = book(&api)?.get(&who.0.scope(), &id).await.map_err(problem_of)?;
    Ok(Json(alarm.to_json()))
}

pub(super) async fn update(
    State(api): State<SharedApi>,
    who: Who,
    headers: HeaderMap,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    may_change(&api, &who, &id).await?;
    let caller = &who.0;
    let mut request = read(&body, caller.is_admin())?;
    trusts::make(&api, &headers, &mut request).await?;
    let project = caller.project_id.as_deref().unwrap_or_default();
    for _ in 0..CHANGE_TRIES {
        let mut before = book(&api)?.get(&caller.scope(), &id).await.map_err(problem_of)?;
        if let Some(project) = request.project_id.as_ref().filter(|wanted| **wanted != before.project_id) {
            return Err(not_authorized("project", project));
        }
        if let Some(user) = request.user_id.as_ref().filter(|wanted| **wanted != before.user_id) {
            return Err(not_authorized("user", user));
        }
        // A rule that a member wrote sees what the member's project sees, whoever made the alarm.
        before.is_operators &= caller.is_admin();
        if !before.is_operators {
            request.rule.scope_to(&before.project_id);
        }
        match book(&api)?.update(&before, &request, &caller.user_id, project).await {
            // The evaluator was faster; its change and ours are both wanted.
            Err(BookError::Changed { .. }) => {}
            other => return Ok(Json(other.map_err(problem_of)?.to_json())),
        }
    }
    Err(Problem::unavailable("the alarm is being changed by others"))
}

pub(super) async fn delete(
    State(api): State<SharedApi>,
    who: Who,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    may_change(&api, &who, &id).await?;
    let (user, project) = (who.0.user_id.as_str(), who.0.project_id.as_deref().unwrap_or_default());
    book(&api)?.delete_by(&who.0.scope(), &id, user, project).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn show_state(
    State(api): State<SharedApi>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<AlarmState>, Problem> {
    who.must_read()?;
    Ok(Json(book(&api)?.get(&who.0.scope(), &id).await.map_err(problem_of)?.state))
}

pub(super) async fn set_state(
    State(api): State<SharedApi>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<AlarmState>, Problem> {
    may_change(&api, &who, &id).await?;
    let state = body.as_str().and_then(AlarmState::parse).ok_or_else(|| Problem::bad("state invalid"))?;
    let (user, project) = (who.0.user_id.as_str(), who.0.project_id.as_deref().unwrap_or_default());
    for _ in 0..CHANGE_TRIES {
        let before = book(&api)?.get(&who.0.scope(), &id).await.map_err(problem_of)?;
        match book(&api)?.set_state(&before, state, user, project).await {
            Err(BookError::Changed { .. }) => {}
            other => return Ok(Json(other.map_err(problem_of)?.state)),
        }
    }
    Err(Problem::unavailable("the alarm is being changed by others"))
}

/// 404 for what a reader may not see, before 403 for what it may not change.
async fn may_change(api: &SharedApi, who: &Who, id: &str) -> Result<(), Problem> {
    who.must_read()?;
    if who.must_write().is_ok() {
        return Ok(());
    }
    book(api)?.get(&who.0.scope(), id).await.map_err(problem_of)?;
    who.must_write()
}
