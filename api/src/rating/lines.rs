//! Where a line comes from, and what of usage was measured, of our own. A project sees its own.

use axum::{
    Json,
    extract::{Path, State},
};
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use orzo_rating::{LineFilter, RatedLine};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    book, must_own, parts,
    periods::{problem_of_processor, processor},
    problem_of, problem_of_ledger, range,
    wsme::{known, page, query_text, query_time},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem};

/// Lines of one answer at most.
const LINES_MAX: u32 = 1000;

/// A project's lines of a time, in the ledger's order, with their ids.
pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &["project_id", "begin", "end", "type", "resource_id", "offset", "limit"])?;
    let project = query_text(&parameters, "project_id").or_else(|| caller.project_id.clone());
    must_own(&caller, project.as_deref())?;
    let (offset, limit) = page(&parameters)?;
    let (begin, end) = range(query_time(&parameters, "begin")?, query_time(&parameters, "end")?, api.clock.now());
    let filter = LineFilter {
        scopes: Some(project.iter().cloned().collect()),
        begin: Some(begin),
        end: Some(end),
        services: query_text(&parameters, "type").map(|service| vec![service]),
        ..LineFilter::default()
    };
    let resource = query_text(&parameters, "resource_id");
    let lines = parts(&api)?.ledger.read(&filter).await.map_err(problem_of_ledger)?;
    let lines: Vec<RatedLine> = lines
        .try_filter(|line| std::future::ready(resource.as_ref().is_none_or(|wanted| line.resource == *wanted)))
        .skip(offset as usize)
        .take(limit.min(LINES_MAX) as usize)
        .try_collect()
        .await
        .map_err(problem_of_ledger)?;
    Ok(Json(json!({"lines": lines})))
}

/// A line, those that belong to the same usage (what it corrects, what corrects it), and where it comes from: rules,
/// stretches of usage, events, points, and the line rated anew from them.
pub(super) async fn explain(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &[])?;
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("There is no line {id}."));
    let id = Uuid::try_parse(&id).map_err(|_| none())?;
    let parts = parts(&api)?;
    let mut filter = LineFilter { ids: Some(vec![id]), ..LineFilter::default() };
    if !caller.is_admin() {
        // Another's line is not there, below the question.
        filter.scopes = Some(caller.project_id.iter().cloned().collect());
    }
    let found: Option<RatedLine> =
        parts.ledger.read(&filter).await.map_err(problem_of_ledger)?.try_next().await.map_err(problem_of_ledger)?;
    let line = found.ok_or_else(none)?;
    let period = line.begin.floor(parts.period);
    let filter = LineFilter {
        scopes: Some(vec![line.scope.clone()]),
        used_from: Some(period),
        used_before: Some(period.plus(parts.period)),
        services: Some(vec![line.service.clone()]),
        ..LineFilter::default()
    };
    let beside = parts.ledger.read(&filter).await.map_err(problem_of_ledger)?;
    let related: Vec<RatedLine> = beside
        .try_filter(|own| std::future::ready(own.resource == line.resource && own.id != line.id))
        .try_collect()
        .await
        .map_err(problem_of_ledger)?;
    let explanation = processor(&api)?.explain(&line).await.map_err(problem_of_processor)?;
    Ok(Json(json!({"line": line, "related": related, "explanation": explanation})))
}

/// What of a project's usage was polled, for each resource and metric, and what does not fit together.
pub(super) async fn completeness(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &["project_id", "begin", "end"])?;
    let project = query_text(&parameters, "project_id").or_else(|| caller.project_id.clone());
    must_own(&caller, project.as_deref())?;
    let (begin, end) = range(query_time(&parameters, "begin")?, query_time(&parameters, "end")?, api.clock.now());
    let end = end.min(api.clock.now().floor(parts(&api)?.period));
    if begin >= end {
        return Err(Problem::bad(format!("nothing that is over is between {begin} and {end}")));
    }
    let project = project.unwrap_or_default();
    let scope = book(&api)?.scope(&project).await.map_err(problem_of)?;
    let held = scope.and_then(|scope| Some((scope.rated_until, scope.held?)));
    let held = held.map(|(at, held)| json!({"rated_until": at.isoformat(), "reason": held.reason}));
    let found = processor(&api)?.completeness(&project, begin, end).await.map_err(problem_of_processor)?;
    Ok(Json(json!({
        "project_id": project, "begin": begin.isoformat(), "end": end.isoformat(), "resources": found.0,
        "disagreements": found.1, "held": held,
    })))
}
