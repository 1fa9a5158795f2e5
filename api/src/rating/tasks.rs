//! Version 2's reprocessing: ranges of the past that are rated again. For administrators.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use orzo_model::Timestamp;
use orzo_rating::{ScopeFilter, Task, TaskFilter};
use serde_json::{Value, json};

use super::{
    book, must_be_admin, parts, problem_of,
    wsme::{Body, known, page, query_text, query_texts},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem, request::JsonBody};

/// The word for all scopes.
const ALL: &str = "ALL";
/// Scopes of one request at most.
const SCOPES_MAX: u32 = 10_000;

fn shown(task: &Task) -> Value {
    json!({
        "scope_id": task.scope_id, "reason": task.reason, "start_reprocess_time": task.begin.naive(),
        "end_reprocess_time": task.end.naive(),
        "current_reprocess_time": task.done_until.map(Timestamp::naive).unwrap_or_default(),
    })
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let scope_ids = query_texts(&parameters, "scope_ids");
    answer(&api, &parameters, scope_ids).await
}

pub(super) async fn of_scope(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(scope): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    answer(&api, &parameters, vec![scope]).await
}

async fn answer(api: &SharedApi, parameters: &Parameters, scope_ids: Vec<String>) -> Result<Json<Value>, Problem> {
    known(parameters, &["scope_ids", "order", "offset", "limit"])?;
    let (offset, limit) = page(parameters)?;
    let order = query_text(parameters, "order").unwrap_or_else(|| "desc".to_owned()).to_ascii_lowercase();
    if order != "asc" && order != "desc" {
        let order: String = order.chars().take(80).collect();
        return Err(Problem::bad(format!("The order [{order}] is not valid. Accepted values are ['asc', 'desc'].")));
    }
    let filter = TaskFilter { scope_ids, waiting: false, descending: order == "desc" };
    let tasks = book(api)?.tasks(&filter, offset, limit).await.map_err(problem_of)?;
    Ok(Json(json!({"results": tasks.iter().map(shown).collect::<Value>()})))
}

pub(super) async fn create(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &["scope_ids", "start_reprocess_time", "end_reprocess_time", "reason"])?;
    let missing = |name: &str| Problem::bad(format!("Invalid data : required key not provided (path: '['{name}']')"));
    let scope_ids = body.texts("scope_ids")?;
    let begin = body.time("start_reprocess_time")?.ok_or_else(|| missing("start_reprocess_time"))?;
    let end = body.time("end_reprocess_time")?.ok_or_else(|| missing("end_reprocess_time"))?;
    let reason = body.text("reason")?.unwrap_or_default();
    if scope_ids.is_empty() {
        return Err(missing("scope_ids"));
    }
    let is_all = scope_ids.iter().any(|id| id == ALL);
    if is_all && scope_ids.len() != 1 {
        return Err(Problem::bad(format!(
            "Cannot use 'ALL' with scope ID [{scope_ids:?}]. Either schedule a reprocessing for all active scopes using \
             'ALL' option, or inform only the scopes you desire to schedule a reprocessing."
        )));
    }
    if reason.trim().is_empty() {
        return Err(Problem::bad(
            "Empty or blank reason text is not allowed. Please, do inform/register the reason for the reprocessing of a \
             previously processed timestamp.",
        ));
    }
    check_range(begin, end, parts(&api)?.period)?;
    let book = book(&api)?;
    let filter = ScopeFilter { scope_ids: if is_all { Vec::new() } else { scope_ids.clone() }, ..Default::default() };
    let scopes = book.scopes(&filter, 0, SCOPES_MAX).await.map_err(problem_of)?;
    let unknown: Vec<&String> =
        scope_ids.iter().filter(|id| !is_all && !scopes.iter().any(|scope| scope.scope_id == **id)).collect();
    if !unknown.is_empty() || scopes.is_empty() {
        return Err(Problem::bad(format!(
            "Scopes {unknown:?} scheduled to reprocess [start={begin}, end={end}] do not exist."
        )));
    }
    for scope in &scopes {
        for (word, edge, ends) in [("start", begin, "starting"), ("end", end, "ending")] {
            if edge > scope.made_until() {
                return Err(Problem::bad(format!(
                    "Cannot execute a reprocessing [{word}={edge}] for scope [{}] {ends} after the last possible \
                     timestamp [{}].",
                    scope.scope_id,
                    scope.made_until()
                )));
            }
        }
    }
    let ids: Vec<String> = scopes.into_iter().map(|scope| scope.scope_id).collect();
    book.create_tasks(&caller.user_id, &ids, &reason, begin, end).await.map_err(problem_of)?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

/// Refuses a range that is empty, or does not begin and end with a period.
fn check_range(begin: Timestamp, end: Timestamp, period: Duration) -> Result<(), Problem> {
    if end < begin {
        return Err(Problem::bad(format!(
            "End reprocessing timestamp [{end}] cannot be less than start reprocessing timestamp [{begin}]."
        )));
    }
    let (first, mut last) = (begin.floor(period), end.floor(period));
    if (first, last) == (begin, end) && begin < end {
        return Ok(());
    }
    if first == last {
        last = last.plus(period);
    }
    Err(Problem::bad(format!(
        "The provided reprocess time window does not comply with the configured collector period. A valid time window \
         near the provided one is ['{first}', '{last}']"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_begin_and_end_with_a_period() {
        let (hour, at) = (Duration::from_secs(3600), Timestamp::from_secs);
        assert!(check_range(at(3600), at(7200), hour).is_ok());
        for (begin, end) in [(3601, 7200), (3600, 7201), (7200, 3600), (3600, 3600), (3601, 3602)] {
            assert!(check_range(at(begin), at(end), hour).is_err(), "{begin} {end}");
        }
    }
}
