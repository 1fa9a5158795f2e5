//! `/prometheus/tokens`: read tokens are made, listed and revoked, by who shows a credential of the identity service.
//!
//! A member makes tokens for its own project; an operator for any, and for all of them together. A read token makes none.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use orzo_model::{Caller, Scope, Timestamp};
use orzo_tokens::{NewToken, ReadToken, TokenBook};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refused, Sender};
use crate::{SharedApi, authenticate::problem_of, parameters::Parameters, problem::Problem, request::body_bytes};

/// What is said of a token that is to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    expires_at: Option<String>,
    #[serde(default)]
    all_projects: bool,
    project_id: Option<String>,
}

/// `POST /tokens`: the only answer that has the token's text.
pub(super) async fn create(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    request: Request,
) -> Result<Response, Refused> {
    may_manage(&caller)?;
    let body = body_bytes(request.into_body()).await?;
    let wanted: Wanted =
        serde_json::from_slice(&body).map_err(|error| Problem::bad(format!("the body cannot be read: {error}")))?;
    let new = checked(wanted, &caller)?;
    let is_own = caller.project_id.as_ref() == Some(&new.project_id);
    if !is_own {
        must_exist(&api, &new.project_id).await?;
    }
    let (token, text) = book(&api)?.create(&new).await.map_err(|error| problem_of(&error))?;
    let mut shown = shown(&token);
    shown["token"] = text.expose_secret().into();
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// `GET /tokens`: those of the caller's project; `all_projects=true` for operators.
pub(super) async fn list(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Refused> {
    may_manage(&caller)?;
    let scope = match parameters.get("all_projects") {
        None | Some("false") => within_project(&caller)?,
        Some("true") if caller.is_admin() => Scope::All,
        Some("true") => return Err(Problem::new(StatusCode::FORBIDDEN, "all_projects is for operators").into()),
        Some(_) => return Err(Problem::bad("all_projects is true or false").into()),
    };
    let tokens = book(&api)?.list(&scope).await.map_err(|error| problem_of(&error))?;
    let tokens: Vec<Value> = tokens.iter().map(shown).collect();
    Ok(Json(json!({"tokens": tokens})).into_response())
}

/// `DELETE /tokens/{id}`: from now on it is worth nothing.
pub(super) async fn revoke(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    may_manage(&caller)?;
    let scope = if caller.is_admin() { Scope::All } else { within_project(&caller)? };
    match book(&api)?.revoke(&scope, &id).await.map_err(|error| problem_of(&error))? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Problem::missing("a token with this id").into()),
    }
}

fn book(api: &SharedApi) -> Result<&Arc<TokenBook>, Problem> {
    api.tokens.as_ref().ok_or_else(|| Problem::unavailable("there is no book of tokens"))
}

/// Whoever only reads gives nothing away.
fn may_manage(caller: &Caller) -> Result<(), Problem> {
    match caller.has_role("member") || caller.is_admin() {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::FORBIDDEN, "tokens are made and revoked by members of a project")),
    }
}

fn within_project(caller: &Caller) -> Result<Scope, Problem> {
    super::project_of(caller).map(|project| Scope::Project(project.to_owned()))
}

fn checked(wanted: Wanted, caller: &Caller) -> Result<NewToken, Problem> {
    let own = super::project_of(caller)?;
    let project = wanted.project_id.as_deref().unwrap_or(own);
    let is_beyond = wanted.all_projects || project != own;
    if is_beyond && !caller.is_admin() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only operators make tokens beyond their own project"));
    }
    let expires_at = wanted.expires_at.map(|text| {
        text.parse::<Timestamp>().map_err(|_| Problem::bad("expires_at is no time such as 2026-01-31T12:00:00Z"))
    });
    Ok(NewToken {
        name: wanted.name,
        project_id: project.to_owned(),
        all_projects: wanted.all_projects,
        user_id: caller.user_id.clone(),
        user_name: caller.user_name.clone(),
        expires_at: expires_at.transpose()?,
    })
}

/// Nobody could use a token for a project that is mistyped, and whoever made one of that id later would be read with it.
async fn must_exist(api: &SharedApi, project: &str) -> Result<(), Problem> {
    match api.session.has_project(project).await {
        Ok(Some(false)) => Err(Problem::missing(format!("the project {project}"))),
        // An identity service elsewhere may keep its projects to itself.
        Ok(Some(true) | None) => Ok(()),
        Err(error) => Err(Problem::unavailable(format!("cannot ask for the project {project}: {}", error.reason))),
    }
}

fn shown(token: &ReadToken) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "id": token.id, "name": token.name, "project_id": token.project_id, "all_projects": token.all_projects,
        "user_id": token.user_id, "user_name": token.user_name, "created_at": token.created_at.to_string(),
        "expires_at": time(token.expires_at), "last_used_at": time(token.last_used_at),
    })
}
