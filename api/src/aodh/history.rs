//! `/v2/alarms/{id}/history`: who changed what about an alarm, and when.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use orzo_alarms::{Change, Filter, Search, Subject};
use serde_json::{Value, json};

use super::{alarms::with_next, book, problem_of, queries, who::Who};
use crate::{SharedApi, parameters::Parameters, problem::Problem, request::Links};

pub(super) async fn of_alarm(
    State(api): State<SharedApi>,
    who: Who,
    links: Links,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    who.must_read()?;
    let conditions = queries::simple(&parameters)?
        .iter()
        .map(|asked| queries::condition(Subject::History, asked))
        .collect::<Result<Vec<_>, _>>()?;
    let condition = (!conditions.is_empty()).then_some(Filter::All(conditions));
    let search = Search { condition, ..queries::page(Subject::History, &parameters)? };
    let scope = who.0.scope();
    // 404 of an alarm that is not there, or not for this caller.
    book(&api)?.get(&scope, &id).await.map_err(problem_of)?;
    let page = book(&api)?.search_history(&scope, Some(&id), &search).await.map_err(problem_of)?;
    let last = page.rows.last().map(|change| change.event_id.clone()).filter(|_| page.is_cut);
    let body: Value = page.rows.iter().map(change_json).collect();
    Ok(with_next(Json(body).into_response(), &links, &parameters, last.as_deref()))
}

pub(super) fn change_json(change: &Change) -> Value {
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
