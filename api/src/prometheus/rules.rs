//! The caller's alarms as Prometheus shows alerting rules and alerts, for dashboards that look for them there.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use orzo_alarms::{Alarm, AlarmFilter, AlarmState, Rule};
use orzo_model::{Caller, Scope};
use orzo_promql::{MatcherGroup, QueryError};
use serde_json::{Map, Value, json};

use super::{
    Refused, Sender,
    query::{failed, invalid},
    series::groups,
    targets::holds,
};
use crate::{SharedApi, aodh::problem_of, parameters::Parameters, problem::Problem};

/// Alarms of one answer, as many as one page of the alarm book has.
const ALARMS_MAX: u32 = 1_000;

/// All alarms are one group of one file.
const GROUP: &str = "alarms";
const FILE: &str = "orzo";

/// Which rules are asked for.
struct Chosen<'p> {
    names: Vec<&'p str>,
    groups: Vec<&'p str>,
    files: Vec<&'p str>,
    /// Of labels.
    matchers: Vec<MatcherGroup>,
    with_alerts: bool,
}

impl<'p> Chosen<'p> {
    /// Reads what Prometheus 3 reads. There is one group, so that no answer has a next one, and no token was ever given.
    fn of(parameters: &'p Parameters) -> Result<Self, QueryError> {
        let text = |name| parameters.get(name).filter(|text| !text.is_empty());
        let without_alerts = match text("exclude_alerts") {
            None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => false,
            Some("1" | "t" | "T" | "true" | "True" | "TRUE") => true,
            Some(_) => return Err(invalid("exclude_alerts", "must be true or false")),
        };
        match (text("group_limit").map(str::parse::<i64>), text("group_next_token")) {
            (Some(Err(_)), _) => return Err(invalid("group_limit", "group_limit needs to be a valid number")),
            (Some(Ok(..=0)), _) => return Err(invalid("group_limit", "group_limit needs to be greater than 0")),
            (None, Some(_)) => {
                let reason = "group_limit needs to be present in order to paginate over the groups";
                return Err(invalid("group_next_token", reason));
            }
            (Some(Ok(_)), Some(token)) => {
                let reason = format!("invalid group_next_token '{token}'. were rule groups changed?");
                return Err(invalid("group_next_token", &reason));
            }
            (_, None) => {}
        }
        Ok(Self {
            names: parameters.all("rule_name[]").collect(),
            groups: parameters.all("rule_group[]").collect(),
            files: parameters.all("file[]").collect(),
            matchers: groups(parameters)?,
            with_alerts: !without_alerts,
        })
    }

    fn has_group(&self) -> bool {
        let is_asked = |wanted: &[&str], own| wanted.is_empty() || wanted.contains(&own);
        is_asked(&self.groups, GROUP) && is_asked(&self.files, FILE)
    }

    fn has(&self, alarm: &Alarm) -> bool {
        (self.names.is_empty() || self.names.contains(&alarm.name.as_str()))
            && (self.matchers.is_empty() || holds(&self.matchers, &labels_of(alarm)))
    }
}

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
    let chosen = match Chosen::of(&parameters) {
        Ok(chosen) => chosen,
        Err(error) => return Ok(failed(&error)),
    };
    let alarms = if is_asked && chosen.has_group() { alarms_of(&api, &caller).await? } else { Vec::new() };
    let rules: Vec<Value> =
        alarms.iter().filter(|alarm| chosen.has(alarm)).map(|alarm| rule_of(&api, alarm, chosen.with_alerts)).collect();
    let groups = match rules.is_empty() {
        true => json!([]),
        false => json!([{
            "name": GROUP, "file": FILE, "rules": rules, "interval": 60, "limit": 0, "evaluationTime": 0,
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

fn rule_of(api: &SharedApi, alarm: &Alarm, with_alerts: bool) -> Value {
    let labels: Map<String, Value> = labels_of(alarm).into_iter().map(|(name, value)| (name, value.into())).collect();
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
        "labels": labels, "annotations": annotations(alarm),
        "alerts": alerts_of(alarm).filter(|_| with_alerts).collect::<Vec<_>>(), "health": health,
        "evaluationTime": 0, "lastEvaluation": evaluated_at.to_string(), "type": "alerting",
    });
    if let Some(error) = error {
        shown["lastError"] = json!(error);
    }
    shown
}

fn labels_of(alarm: &Alarm) -> Vec<(String, String)> {
    let labels = [
        ("alarm_id", alarm.alarm_id.as_str()),
        ("project_id", &alarm.project_id),
        ("severity", alarm.severity.as_str()),
        ("type", alarm.rule.type_name()),
    ];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
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
