//! The caller's alarms as Prometheus shows alerting rules and alerts, for dashboards that look for them there.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use orzo_alarms::{Alarm, AlarmFilter, AlarmState, Rule};
use orzo_model::{Caller, Scope};
use serde_json::{Value, json};

use super::{Refused, Sender};
use crate::{SharedApi, aodh::problem_of, parameters::Parameters, problem::Problem};

/// Alarms of one answer, as many as one page of the alarm book has.
const ALARMS_MAX: u32 = 1_000;

/// `GET /api/v1/rules`
pub(super) async fn rules(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Refused> {
    // Alarms are alerts; nothing is recorded.
    let is_asked = match parameters.get("type") {
        None | Some("" | "alert") => true,
        Some("record") => false,
        Some(other) => {
            return Err(Problem::bad(format!("invalid parameter \"type\": not supported value {other:?}")).into());
        }
    };
    let alarms = if is_asked { alarms_of(&api, &caller).await? } else { Vec::new() };
    let names: Vec<&str> = parameters.all("rule_name[]").collect();
    let chosen = alarms.iter().filter(|alarm| names.is_empty() || names.contains(&alarm.name.as_str()));
    let rules: Vec<Value> = chosen.map(|alarm| rule_of(&api, alarm)).collect();
    let groups = match rules.is_empty() {
        true => json!([]),
        false => json!([{
            "name": "alarms", "file": "orzo", "rules": rules, "interval": 60, "limit": 0, "evaluationTime": 0,
            "lastEvaluation": api.clock.now().to_string(),
        }]),
    };
    Ok(Json(json!({"status": "success", "data": {"groups": groups}})).into_response())
}

/// `GET /api/v1/alerts`
pub(super) async fn alerts(Sender(caller): Sender, State(api): State<SharedApi>) -> Result<Response, Refused> {
    let alarms = alarms_of(&api, &caller).await?;
    let alerts: Vec<Value> = alarms.iter().flat_map(alerts_of).collect();
    Ok(Json(json!({"status": "success", "data": {"alerts": alerts}})).into_response())
}

/// Enabled alarms of the caller's project, for who may read alarms; an installation without alarms has none.
async fn alarms_of(api: &SharedApi, caller: &Caller) -> Result<Vec<Alarm>, Problem> {
    let (Some(book), Some(project)) = (&api.alarms, &caller.project_id) else { return Ok(Vec::new()) };
    if !caller.has_role("reader") && !caller.is_admin() {
        return Ok(Vec::new());
    }
    let filter = AlarmFilter { enabled: Some(true), limit: Some(ALARMS_MAX), ..AlarmFilter::default() };
    book.list(&Scope::Project(project.clone()), &filter).await.map_err(problem_of)
}

fn rule_of(api: &SharedApi, alarm: &Alarm) -> Value {
    let state = if alarm.state == AlarmState::Alarm { "firing" } else { "inactive" };
    let newest = api.alarms.as_ref().and_then(|book| book.evaluations().newest(&alarm.alarm_id));
    let error = newest.as_ref().and_then(|newest| newest.error.as_deref());
    let health = match (&newest, error) {
        (_, Some(_)) => "err",
        (Some(_), None) => "ok",
        // Evaluated before this process began, or elsewhere.
        (None, None) if alarm.state != AlarmState::InsufficientData => "ok",
        (None, None) => "unknown",
    };
    let evaluated_at = newest.as_ref().map_or(alarm.evaluate_timestamp, |newest| newest.at);
    let query = match &alarm.rule {
        Rule::Prometheus(rule) => rule.query.clone(),
        other => other.to_json().to_string(),
    };
    let mut shown = json!({
        "state": state, "name": alarm.name, "query": query, "duration": 0, "keepFiringFor": 0,
        "labels": {
            "alarm_id": alarm.alarm_id, "project_id": alarm.project_id, "severity": alarm.severity.as_str(),
            "type": alarm.rule.type_name(),
        },
        "annotations": annotations(alarm), "alerts": alerts_of(alarm).collect::<Vec<_>>(), "health": health,
        "evaluationTime": 0, "lastEvaluation": evaluated_at.to_string(), "type": "alerting",
    });
    if let Some(error) = error {
        shown["lastError"] = json!(error);
    }
    shown
}

fn annotations(alarm: &Alarm) -> Value {
    json!({"description": alarm.description, "summary": alarm.state_reason})
}

/// The alert of an alarm, if it is one now.
fn alerts_of(alarm: &Alarm) -> impl Iterator<Item = Value> {
    let alert = (alarm.state == AlarmState::Alarm).then(|| {
        json!({
            "labels": {
                "alertname": alarm.name, "alarm_id": alarm.alarm_id, "project_id": alarm.project_id,
                "severity": alarm.severity.as_str(),
            },
            "annotations": annotations(alarm), "state": "firing", "activeAt": alarm.state_timestamp.to_string(),
            "value": "1e+00",
        })
    });
    alert.into_iter()
}
