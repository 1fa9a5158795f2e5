//! `/v2/notices`, which Aodh does not have: what became of notices, a new start for parked ones, a test call, and the
//! keys that receivers verify signatures with.
//!
//! An owner is told what kind of failure it was; what the receiver answered, and where its name led, only an
//! administrator is.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use orzo_alarms::{Action, Notice, NoticeFilter, NoticeState, Outcome, Trust};
use orzo_model::Scope;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{alarms::with_next, book, own, problem_of, queries, who::Who};
use crate::{
    SharedApi,
    parameters::Parameters,
    problem::Problem,
    request::{JsonBody, Links, OptionalJsonBody},
};

/// Entries of a page without a limit, and at most.
const PAGE_MAX: u32 = 1000;

pub(super) async fn list(
    State(api): State<SharedApi>,
    who: Who,
    links: Links,
    parameters: Parameters,
) -> Result<Response, Problem> {
    who.must_read()?;
    let known = ["state", "alarm_id", "project_id", "all_projects", "limit", "marker"];
    if let Some((unknown, _)) = parameters.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Problem::bad(format!("unknown parameter {unknown}; known are {}", known.join(", "))));
    }
    let state = parameters.get("state").map(state_of).transpose()?;
    let limit = queries::page(orzo_alarms::Subject::Alarms, &parameters)?.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let filter = NoticeFilter {
        state,
        alarm_id: parameters.get("alarm_id").map(str::to_owned),
        project_id: parameters.get("project_id").map(str::to_owned),
        notice_id: None,
        marker: parameters.get("marker").map(str::to_owned),
        limit: Some(limit),
    };
    let scope = scope_of(&who, filter.project_id.as_deref(), parameters.flag("all_projects")?)?;
    let notices = book(&api)?.find_notices(&scope, &filter).await.map_err(problem_of)?;
    let last = notices.last().map(|notice| notice.notice_id.clone()).filter(|_| notices.len() == limit as usize);
    let body: Value = notices.iter().map(|notice| shown(notice, &who)).collect();
    Ok(with_next(Json(body).into_response(), &links, &parameters, last.as_deref()))
}

pub(super) async fn show(
    State(api): State<SharedApi>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    who.must_read()?;
    let filter = NoticeFilter { notice_id: Some(id.clone()), ..NoticeFilter::default() };
    let found = book(&api)?.find_notices(&who.0.scope(), &filter).await.map_err(problem_of)?;
    let notice = found.first().ok_or_else(|| Problem::missing(format!("Notice {id}")))?;
    let mut body = shown(notice, &who);
    body["body"] = serde_json::from_str(&notice.body).unwrap_or_default();
    Ok(Json(body))
}

/// Gives parked notices a new start: one (`notice_id`), those of an alarm (`alarm_id`) or of a project, or all of the
/// caller's project.
pub(super) async fn replay(
    State(api): State<SharedApi>,
    who: Who,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    who.must_write()?;
    let body = body.unwrap_or_else(|| json!({}));
    let fields = body.as_object().ok_or_else(|| Problem::bad("expected an object"))?;
    let known = ["notice_id", "alarm_id", "project_id", "all_projects"];
    if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Problem::bad(format!("unknown field {unknown}; known are {}", known.join(", "))));
    }
    let text = |key: &str| match &body[key] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(Problem::bad(format!("{key} must be a text"))),
    };
    let all_projects = match &body["all_projects"] {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        _ => return Err(Problem::bad("all_projects must be true or false")),
    };
    let filter = NoticeFilter {
        notice_id: text("notice_id")?,
        alarm_id: text("alarm_id")?,
        project_id: text("project_id")?,
        ..NoticeFilter::default()
    };
    // One notice is found by its id wherever the caller may look.
    let is_one = filter.notice_id.is_some() && who.0.is_admin();
    let scope = scope_of(&who, filter.project_id.as_deref(), all_projects || is_one)?;
    let replayed = book(&api)?.replay_notices(&scope, &filter).await.map_err(problem_of)?;
    Ok((StatusCode::ACCEPTED, Json(json!({"replayed": replayed}))))
}

/// Sends a test to an action, by the same way as every notice: same checks of the address, same signature.
pub(super) async fn test(
    State(api): State<SharedApi>,
    who: Who,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    who.must_write()?;
    let text = body["action"].as_str().ok_or_else(|| Problem::bad("action is needed: the URL to test"))?;
    let action = Action::check(text, who.0.is_admin()).map_err(|error| Problem::bad(error.to_string()))?;
    if *action.trust() != Trust::None {
        return Err(Problem::bad("a test makes no trust; test the URL without trust+"));
    }
    let deliverer = api.deliverer.as_ref().ok_or_else(|| Problem::unavailable("this process sends no notices"))?;
    let Ok(_place) = api.alarm_tests.try_acquire() else {
        return Err(Problem {
            retry_after_s: Some(5),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many tests")
        });
    };
    let project = who.0.project_id.as_deref().unwrap_or_default();
    let now = api.clock.now();
    let body = json!({
        "alarm_name": "test", "alarm_id": Uuid::nil().to_string(), "severity": "low", "previous": "ok",
        "current": "alarm", "reason": "This is a test; nothing has happened.",
        "reason_data": {"type": "test"},
    });
    let id = Uuid::new_v4().to_string();
    let notice = Notice::new(id.clone(), &Uuid::nil().to_string(), project, text, body.to_string(), now);
    Ok(Json(match deliverer.deliver(&notice).await {
        Outcome::Delivered => json!({"notice_id": id, "delivered": true, "failure": null}),
        Outcome::Failed { failure, reason, .. } | Outcome::Hopeless { failure, reason } => {
            let mut shown = json!({"notice_id": id, "delivered": false, "failure": failure.told()});
            if who.0.is_admin() {
                shown["last_error"] = json!(reason);
            }
            shown
        }
    }))
}

/// The keys of the caller's project; while an operator changes the key there are two.
pub(super) async fn signing_keys(State(api): State<SharedApi>, who: Who) -> Result<(HeaderMap, Json<Value>), Problem> {
    who.must_write()?;
    let project = who.0.project_id.as_deref().ok_or_else(Problem::forbidden)?;
    let deliverer = api.deliverer.as_ref().ok_or_else(|| Problem::unavailable("this process sends no notices"))?;
    let keys = deliverer.webhook().keys().of_project(project);
    let keys: Vec<&str> = keys.iter().map(|key| key.expose_secret()).collect();
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((headers, Json(json!({"project_id": project, "signing_keys": keys}))))
}

fn state_of(text: &str) -> Result<NoticeState, Problem> {
    NoticeState::parse(text).ok_or_else(|| Problem::bad("state is one of waiting, delivered, parked"))
}

fn scope_of(who: &Who, project: Option<&str>, all_projects: bool) -> Result<Scope, Problem> {
    if all_projects {
        who.must_be_admin()?;
    }
    queries::must_be_own(who, &project.into_iter().collect::<Vec<_>>())?;
    Ok(if who.0.is_admin() && (all_projects || project.is_some()) { Scope::All } else { own(who) })
}

fn shown(notice: &Notice, who: &Who) -> Value {
    let mut shown = json!({
        "notice_id": notice.notice_id,
        "alarm_id": notice.alarm_id,
        "project_id": notice.project_id,
        "action": notice.shown_action(),
        "state": notice.state.as_str(),
        "created_at": notice.created_at.naive(),
        "replayed_at": notice.replayed_at.map(|at| at.naive()),
        "attempts": notice.attempts,
        "next_at": (notice.state == NoticeState::Waiting).then(|| notice.next_at.naive()),
        "failure": notice.failure.map(orzo_alarms::Failure::told),
    });
    if who.0.is_admin() {
        shown["last_error"] = json!(notice.last_error);
    }
    shown
}
