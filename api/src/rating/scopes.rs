//! Version 2's scopes: until when each project is rated. For administrators.

use axum::{Json, extract::State};
use http::StatusCode;
use orzo_rating::{NewScope, ScopeChange, ScopeFilter, ScopeState};
use serde_json::{Value, json};

use super::{
    book, must_be_admin, problem_of,
    wsme::{Body, known, page, query_texts},
};
use crate::{
    SharedApi, authenticate::Asker, parameters::Parameters, parameters::boolean, problem::Problem, request::JsonBody,
};

/// Scopes that one reset looks at; more are reset in several.
const RESET_MAX: u32 = 100_000;

fn shown(scope: &ScopeState) -> Value {
    json!({
        "scope_id": scope.scope_id, "scope_key": scope.scope_key, "fetcher": scope.fetcher,
        "collector": scope.collector, "active": scope.active,
        "last_processed_timestamp": scope.rated_until.isoformat(),
        "scope_activation_toggle_date": scope.toggled_at.isoformat(),
        // Of our own: why it comes no further though its time is over.
        "held": scope.held.as_ref().map(|held| json!({"reason": held.reason, "made_until": held.made_until.isoformat()})),
        // The real client's name for it.
        "state": scope.rated_until.isoformat(),
    })
}

fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "No resource found for provided filters.")
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["scope_id", "scope_key", "fetcher", "collector", "active", "offset", "limit"])?;
    let (offset, limit) = page(&parameters)?;
    let active = query_texts(&parameters, "active");
    let filter = ScopeFilter {
        scope_ids: query_texts(&parameters, "scope_id"),
        scope_keys: query_texts(&parameters, "scope_key"),
        fetchers: query_texts(&parameters, "fetcher"),
        collectors: query_texts(&parameters, "collector"),
        active: active.iter().map(|text| boolean("active", text)).collect::<Result<_, _>>()?,
    };
    let scopes = book(&api)?.scopes(&filter, offset, limit).await.map_err(problem_of)?;
    if scopes.is_empty() {
        return Err(nothing());
    }
    Ok(Json(json!({"results": scopes.iter().map(shown).collect::<Value>()})))
}

/// What lies after a moment is to be rated again.
pub(super) async fn reset(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    must_be_admin(&caller)?;
    let known = ["all_scopes", "scope_id", "scope_key", "fetcher", "collector", "last_processed_timestamp", "state"];
    let body = Body::read(body, &known)?;
    let (is_all, scope_ids) = (body.flag("all_scopes")?.unwrap_or(false), body.texts("scope_id")?);
    if is_all && !scope_ids.is_empty() {
        return Err(Problem::bad(
            "Invalid data : two or more values in the same group of exclusion 'scope_selector' (path: '[]')",
        ));
    }
    if !is_all && scope_ids.is_empty() {
        return Err(Problem::bad("Either all_scopes or a scope_id should be specified."));
    }
    // The real client calls it by its old name.
    let until = match body.time("last_processed_timestamp")? {
        Some(until) => Some(until),
        None => body.time("state")?,
    };
    let until = until.ok_or_else(|| Problem::bad("Variable 'last_processed_timestamp' cannot be empty/None."))?;
    let filter = ScopeFilter {
        scope_ids,
        scope_keys: body.texts("scope_key")?,
        fetchers: body.texts("fetcher")?,
        collectors: body.texts("collector")?,
        active: Vec::new(),
    };
    let book = book(&api)?;
    let scopes = book.scopes(&filter, 0, RESET_MAX).await.map_err(problem_of)?;
    if scopes.is_empty() {
        return Err(nothing());
    }
    let ids: Vec<String> = scopes.into_iter().map(|scope| scope.scope_id).collect();
    book.reset_scopes(&ids, until).await.map_err(problem_of)?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

pub(super) async fn change(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &["scope_id", "scope_key", "fetcher", "collector", "active"])?;
    let scope_id = body.needed_text("scope_id")?;
    let change = ScopeChange {
        scope_key: body.text("scope_key")?,
        fetcher: body.text("fetcher")?,
        collector: body.text("collector")?,
        active: body.flag("active")?,
    };
    let scope = book(&api)?.change_scope(&scope_id, &change).await.map_err(problem_of)?;
    scope.as_ref().map(shown).map(Json).ok_or_else(nothing)
}

pub(super) async fn create(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let known = ["scope_id", "scope_key", "fetcher", "collector", "active", "last_processed_timestamp"];
    let body = Body::read(body, &known)?;
    let new = NewScope {
        scope_id: body.needed_text("scope_id")?,
        scope_key: body.text("scope_key")?,
        fetcher: body.text("fetcher")?,
        collector: body.text("collector")?,
        active: body.flag("active")?.unwrap_or(true),
        rated_until: body.time("last_processed_timestamp")?.ok_or_else(|| {
            Problem::bad("Invalid data : required key not provided (path: '['last_processed_timestamp']')")
        })?,
    };
    let book = book(&api)?;
    if !book.create_scope(&new).await.map_err(problem_of)? {
        let reason = format!("Cannot create a scope with an already existing scope_id: {}.", new.scope_id);
        return Err(Problem::new(StatusCode::NOT_FOUND, reason));
    }
    let scope = book.scope(&new.scope_id).await.map_err(problem_of)?;
    scope.as_ref().map(shown).map(Json).ok_or_else(nothing)
}
