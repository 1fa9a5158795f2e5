//! Closing bills and rating again, on a running server, of our own; and what is closed. Closing and rating again are for
//! administrators; a project sees what of it is closed.

use axum::{Json, extract::State};
use http::StatusCode;
use orzo_model::Timestamp;
use orzo_rating::{ClosedPeriod, Processor, ProcessorError, Report, RulesOf, ScopeFilter};
use serde_json::{Value, json};

use super::{
    book, must_be_admin, must_own, parts, problem_of, problem_of_ledger,
    wsme::{Body, known, query_text, query_time, single, text, texts},
};
use crate::{Api, SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem, request::JsonBody};

/// Projects of one request; more are closed in several.
const SCOPES_MAX: u32 = 10_000;
/// Rating periods of one preview, over all its projects: some minutes' work.
const PREVIEWED_MAX: u64 = 1_000_000;
/// Rows of one answer.
const PERIODS_MAX: usize = 10_000;

pub(super) fn processor(api: &Api) -> Result<&Processor, Problem> {
    parts(api)?.processor.as_deref().ok_or_else(|| Problem::unavailable("this process does not rate"))
}

pub(super) fn problem_of_processor(error: ProcessorError) -> Problem {
    match error {
        ProcessorError::Ledger(error) => problem_of_ledger(error),
        ProcessorError::Book(error) => problem_of(error),
        ProcessorError::Refused { reason } => Problem::bad(reason),
        closed @ ProcessorError::Closed { .. } => Problem::new(StatusCode::CONFLICT, closed.to_string()),
        ProcessorError::Usage(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "usage cannot be read");
            Problem::unavailable("usage cannot be read now")
        }
    }
}

fn shown(own: &ClosedPeriod) -> Value {
    // Of one currency also as one number.
    let (currency, total) = single(&own.totals).unzip();
    json!({
        "scope_id": own.scope_id, "begin": own.begin.isoformat(), "end": own.end.isoformat(),
        "closed_at": own.closed_at.isoformat(), "closed_by": own.closed_by, "rule_version": own.rule_version,
        "lines": own.lines, "totals": texts(&own.totals), "total": total.map(text), "currency": currency,
    })
}

pub(super) async fn list(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    known(&parameters, &["scope_id", "begin", "end"])?;
    let scope = query_text(&parameters, "scope_id");
    let scope = if caller.is_admin() { scope } else { scope.or_else(|| caller.project_id.clone()) };
    if scope.is_some() || !caller.is_admin() {
        must_own(&caller, scope.as_deref())?;
    }
    let begin = query_time(&parameters, "begin")?.unwrap_or(Timestamp::MIN);
    let end = query_time(&parameters, "end")?.unwrap_or(Timestamp::MAX);
    let periods = book(&api)?.closed_periods(scope.as_deref(), begin, end).await.map_err(problem_of)?;
    if periods.len() > PERIODS_MAX {
        return Err(Problem::bad(format!("more than {PERIODS_MAX} periods; ask for one project, or a shorter time")));
    }
    Ok(Json(json!({"periods": periods.iter().map(shown).collect::<Value>()})))
}

/// The projects that a request names, or all.
async fn chosen(api: &Api, body: &Body) -> Result<Vec<String>, Problem> {
    let named = body.texts("scope_ids")?;
    if named.is_empty() {
        return Err(Problem::bad("scope_ids is missing: a list of projects, or [\"ALL\"]"));
    }
    let is_all = named.iter().any(|id| id == "ALL");
    let filter = ScopeFilter { scope_ids: if is_all { Vec::new() } else { named.clone() }, ..ScopeFilter::default() };
    let scopes = book(api)?.scopes(&filter, 0, SCOPES_MAX).await.map_err(problem_of)?;
    let found: Vec<String> = scopes.into_iter().map(|scope| scope.scope_id).collect();
    if let Some(unknown) = named.iter().find(|id| !is_all && !found.contains(id)) {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("There is no scope {unknown}.")));
    }
    Ok(found)
}

/// Closes projects' time until a moment: bills are settled, and from then on these periods get no line. Begin and end are borders
/// of rating periods, and nothing is left open between two closed times. What was closed before
/// an error stays closed; asked again the rest is.
pub(super) async fn close(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &["scope_ids", "begin", "end"])?;
    let end = body.time("end")?.ok_or_else(|| Problem::bad("end is missing"))?;
    let begin = body.time("begin")?;
    let processor = processor(&api)?;
    let mut closed = Vec::new();
    for scope in chosen(&api, &body).await? {
        let before = book(&api)?.closed_periods(Some(&scope), Timestamp::MIN, end).await.map_err(problem_of)?;
        let from = begin.or(before.iter().map(|own| own.end).max()).unwrap_or(Timestamp::EPOCH);
        let own = processor.close(&scope, from, end, &caller.user_id).await.map_err(problem_of_processor)?;
        closed.extend(own.as_ref().map(shown));
    }
    Ok((StatusCode::CREATED, Json(json!({"periods": closed}))))
}

/// What rating a time again would change; nothing is written (`/v2/task/reprocesses` does that). Of the time that is asked for
/// what is rated, and has anything in it, is looked at; `periods` of the answer says how much that was. By the newest rules, or by
/// those of the first time (`"rules": "then"`), which shows what of usage became known late.
pub(super) async fn preview(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &["scope_ids", "begin", "end", "rules"])?;
    let time = |name: &str| body.time(name)?.ok_or_else(|| Problem::bad(format!("{name} is missing")));
    let (begin, end) = (time("begin")?, time("end")?);
    if begin >= end {
        return Err(Problem::bad(format!("nothing is between {begin} and {end}")));
    }
    let by = match body.text("rules")?.as_deref() {
        None | Some("now") => RulesOf::Now,
        Some("then") => RulesOf::Then,
        Some(_) => return Err(Problem::bad("rules is now or then")),
    };
    let processor = processor(&api)?;
    let (mut times, mut count) = (Vec::new(), 0_u64);
    for scope in chosen(&api, &body).await? {
        if let Some(time) = processor.cut(&scope, (begin, end)).await.map_err(problem_of_processor)? {
            count = count.saturating_add(processor.periods_in(time));
            times.push((scope, time));
        }
    }
    if count > PREVIEWED_MAX {
        return Err(Problem::bad(format!(
            "these projects have {count} rating periods in this time; {PREVIEWED_MAX} are previewed at once. Ask for fewer \
             projects, or a shorter time"
        )));
    }
    let mut whole = Report::default();
    for (scope, time) in times {
        whole.add(processor.rate(&scope, time, by, false).await.map_err(problem_of_processor)?);
    }
    Ok(Json(json!(whole)))
}
