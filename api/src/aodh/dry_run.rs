//! `POST /v2/alarms/test`, which Aodh does not have: when a rule would have fired over past data. Nothing is kept and
//! nobody is told.
//!
//! The body is that of an alarm (its name may be missing), or `alarm_id` of one that is there, with `start` and `stop`
//! (times, or spans before now); the last hour by default.

use std::time::Duration;

use axum::{Json, extract::State};
use http::StatusCode;
use orzo_alarms::{AlarmRequest, DryRun, DryRunError, DryRunReaders, test_rule};
use orzo_index::spans;
use orzo_model::{Scope, Timestamp};
use serde_json::{Value, json};

use super::{alarms::read, book, own, problem_of, who::Who};
use crate::{SharedApi, problem::Problem, request::JsonBody};

/// What is looked at when nobody says.
const SPAN_DEFAULT: Duration = Duration::from_secs(3600);

pub(super) async fn test(
    State(api): State<SharedApi>,
    who: Who,
    JsonBody(mut body): JsonBody,
) -> Result<Json<Value>, Problem> {
    who.must_read()?;
    let now = api.clock.now();
    let Some(fields) = body.as_object_mut() else { return Err(Problem::bad("expected an object")) };
    let mut time = |name: &str, default: Timestamp| match fields.remove(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => spans::parse_time(&value, now).map_err(|_| Problem::bad(format!("{name} is not a time"))),
    };
    let stop = time("stop", now)?;
    let start = time("start", stop.minus(SPAN_DEFAULT))?;
    let alarm_id = fields.remove("alarm_id");
    let run = match alarm_id {
        Some(Value::String(id)) => {
            if let Some(unknown) = fields.keys().next() {
                return Err(Problem::bad(format!("{unknown} cannot be given together with alarm_id")));
            }
            let alarm = book(&api)?.get(&who.0.scope(), &id).await.map_err(problem_of)?;
            // Who looks sees no more by an operator's rule than by itself.
            let scope = match alarm.is_operators && who.0.is_admin() {
                true => Scope::All,
                false => Scope::Project(alarm.project_id.clone()),
            };
            DryRun {
                rule: alarm.rule,
                time_constraints: alarm.time_constraints,
                repeat_actions: alarm.repeat_actions,
                scope,
                project_id: alarm.project_id,
                start,
                stop,
            }
        }
        Some(_) => return Err(Problem::bad("alarm_id must be a text")),
        None => {
            fields.entry("name").or_insert_with(|| json!("test"));
            let request: AlarmRequest = read(&body, who.0.is_admin())?;
            DryRun {
                rule: request.rule,
                time_constraints: request.time_constraints,
                repeat_actions: request.repeat_actions,
                scope: if who.0.is_admin() { Scope::All } else { own(&who) },
                project_id: who.0.project_id.clone().unwrap_or_default(),
                start,
                stop,
            }
        }
    };
    let Ok(_place) = api.alarm_tests.try_acquire() else {
        return Err(Problem {
            retry_after_s: Some(5),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many tests")
        });
    };
    let readers = DryRunReaders {
        windows: api.engine.as_ref(),
        events: Some(api.engine.as_ref()),
        prometheus: Some(api.prometheus.as_ref()),
    };
    match test_rule(readers, &run).await {
        Ok(timeline) => Ok(Json(timeline.to_json())),
        Err(DryRunError::Refused(reason)) => Err(Problem::bad(reason)),
        Err(DryRunError::Unavailable(reason)) => Err(Problem::unavailable(reason)),
    }
}
