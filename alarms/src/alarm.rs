//! An alarm as the API gives and takes it (Aodh v2).

use std::fmt;

use orzo_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    constraints,
    fields::{Fields, missing},
    notify::action::{Action, ActionError, scrubbed},
    python,
    rule::{Rule, TYPES},
};

/// The three states, as Aodh spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlarmState {
    /// The condition is met.
    #[serde(rename = "alarm")]
    Alarm,
    /// The condition is not met.
    #[serde(rename = "ok")]
    Ok,
    /// Not enough measures to tell.
    #[serde(rename = "insufficient data")]
    InsufficientData,
}

impl AlarmState {
    /// As Aodh spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Ok => "ok",
            Self::InsufficientData => "insufficient data",
        }
    }

    /// All, as Aodh spells them.
    pub(crate) const ALL: [(&str, Self); 3] =
        [("ok", Self::Ok), ("alarm", Self::Alarm), ("insufficient data", Self::InsufficientData)];

    /// From Aodh's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(word, _)| *word == text).map(|(_, state)| state)
    }
}

impl fmt::Display for AlarmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The default.
    #[default]
    Low,
    /// In between.
    Moderate,
    /// Wake someone.
    Critical,
}

impl Severity {
    /// All, as Aodh spells them.
    pub(crate) const ALL: [(&str, Self); 3] =
        [("low", Self::Low), ("moderate", Self::Moderate), ("critical", Self::Critical)];

    /// As Aodh spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Moderate => "moderate",
            Self::Critical => "critical",
        }
    }
}

/// When an alarm is evaluated: from each time of the cron line, for so long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConstraint {
    /// For people.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Five cron fields.
    pub start: String,
    /// Seconds from each start.
    pub duration: u64,
    /// IANA name; empty is UTC.
    #[serde(default)]
    pub timezone: String,
}

/// An alarm as it is kept.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are Aodh's, explained in its API
pub struct Alarm {
    pub alarm_id: String,
    pub name: String,
    pub description: String,
    pub enabled: bool,
    pub rule: Rule,
    pub ok_actions: Vec<String>,
    pub alarm_actions: Vec<String>,
    pub insufficient_data_actions: Vec<String>,
    pub repeat_actions: bool,
    pub time_constraints: Vec<TimeConstraint>,
    pub project_id: String,
    pub user_id: String,
    /// Last change of the definition.
    pub timestamp: Timestamp,
    pub state: AlarmState,
    pub state_timestamp: Timestamp,
    pub state_reason: String,
    pub severity: Severity,
    pub evaluate_timestamp: Timestamp,
    /// Whether its reads may look at all projects: an administrator made it.
    pub is_operators: bool,
    /// Counts changes of definition and state; a change names the one it saw, so that of two at once one loses.
    pub revision: i64,
    /// All windows that end at or before this time have been evaluated; it may be more, which the partition's lease
    /// knows.
    pub evaluated_until: Timestamp,
    /// All events up to this number have been looked at; it may be more, which the partition's lease knows.
    pub events_until: i64,
}

/// What a caller may say of an alarm; what is missing gets Aodh's default.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are Aodh's
pub struct AlarmRequest {
    pub name: String,
    pub description: Option<String>,
    pub enabled: bool,
    pub rule: Rule,
    pub ok_actions: Vec<String>,
    pub alarm_actions: Vec<String>,
    pub insufficient_data_actions: Vec<String>,
    pub repeat_actions: bool,
    pub time_constraints: Vec<TimeConstraint>,
    pub severity: Severity,
    pub state: Option<AlarmState>,
    pub project_id: Option<String>,
    pub user_id: Option<String>,
}

/// A request that is not an alarm, in the words of Aodh.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum AlarmError {
    /// A field is not what it must be.
    #[error("Invalid input for field/attribute {field}. Value: '{value}'. {reason}")]
    Invalid {
        /// Which field.
        field: String,
        /// What was given, as Python prints it; cut when it is long.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else that is wrong.
    #[error("{0}")]
    Refused(String),
    /// Not allowed to this caller (401).
    #[error("{0}")]
    Unauthorized(String),
}

/// Longer values are cut in error texts.
const SHOWN_CHARACTERS_MAX: usize = 256;

impl AlarmError {
    pub(crate) fn invalid(field: &str, value: &Value, reason: &str) -> Self {
        let value = python::text(value).chars().take(SHOWN_CHARACTERS_MAX).collect();
        Self::Invalid { field: field.to_owned(), value, reason: reason.to_owned() }
    }
}

/// Aodh's column is 255 wide.
const NAME_CHARS_MAX: usize = 255;
/// Enough for every receiver a person could mean; each is a request per transition.
const ACTIONS_MAX: usize = 32;
/// More windows than a week has quarter hours are a mistake.
const CONSTRAINTS_MAX: usize = 64;
/// Fields that a client sends back from what it was shown; they are ours to set.
const READ_ONLY: [&str; 6] =
    ["alarm_id", "timestamp", "state_timestamp", "state_reason", "evaluate_timestamp", "links"];

impl AlarmRequest {
    /// Reads the body of POST and PUT. `is_admin` may use `log:` actions.
    pub fn parse(body: &Value, is_admin: bool) -> Result<Self, AlarmError> {
        let Value::Object(given) = body else {
            return Err(AlarmError::Refused("Unable to parse the alarm: expected a JSON object".to_owned()));
        };
        let mut known: Vec<&str> = FIELDS.to_vec();
        known.extend(READ_ONLY);
        let rule_keys: Vec<String> = TYPES.iter().map(|name| Rule::key(name)).collect();
        known.extend(rule_keys.iter().map(String::as_str));
        let fields = Fields::of("alarm", body, &known)?;
        let type_name = fields.required_text("type")?;
        let types = TYPES.map(|name| (name, ()));
        fields.choice("type", &types)?;
        let rule_key = Rule::key(&type_name);
        // A PUT of what a GET gave may have the rule keys of other types with null.
        let set: Vec<&String> =
            rule_keys.iter().filter(|key| given.get(*key).is_some_and(|rule| !rule.is_null())).collect();
        let Some(rule) = fields.value(&rule_key) else {
            return Err(AlarmError::Refused(format!("{rule_key} must be set for {type_name} type alarm")));
        };
        if let [first, second, ..] = set[..] {
            return Err(AlarmError::Refused(format!("{first} and {second} cannot be set at the same time")));
        }
        let rule = Rule::parse(&type_name, rule)?;
        let name = fields.required_text("name")?;
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            let reason = format!("Value should have 1 to {NAME_CHARS_MAX} characters");
            return Err(AlarmError::invalid("name", &json!(name), &reason));
        }
        Ok(Self {
            name,
            description: fields.text("description")?.filter(|text| !text.is_empty()),
            enabled: fields.flag("enabled")?.unwrap_or(true),
            rule,
            ok_actions: actions(&fields, "ok_actions", is_admin)?,
            alarm_actions: actions(&fields, "alarm_actions", is_admin)?,
            insufficient_data_actions: actions(&fields, "insufficient_data_actions", is_admin)?,
            repeat_actions: fields.flag("repeat_actions")?.unwrap_or(false),
            time_constraints: time_constraints(&fields)?,
            severity: fields.choice("severity", &Severity::ALL)?.unwrap_or_default(),
            state: fields.choice("state", &AlarmState::ALL)?,
            project_id: fields.text("project_id")?.filter(|id| !id.is_empty()),
            user_id: fields.text("user_id")?.filter(|id| !id.is_empty()),
        })
    }
}

fn time_constraints(fields: &Fields<'_>) -> Result<Vec<TimeConstraint>, AlarmError> {
    let items = match fields.value("time_constraints") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= CONSTRAINTS_MAX => items,
        Some(Value::Array(_)) => {
            return Err(AlarmError::Refused(format!("time_constraints count exceeds maximum value {CONSTRAINTS_MAX}")));
        }
        Some(other) => return Err(AlarmError::invalid("time_constraints", other, "Value not a valid list")),
    };
    let mut constraints: Vec<TimeConstraint> = Vec::new();
    for item in items {
        let known = ["name", "description", "start", "duration", "timezone"];
        let fields = Fields::of("alarm.time_constraints", item, &known)?;
        let start = fields.required_text("start")?;
        let duration = fields.whole("duration", 0, constraints::DURATION_MAX_S)?.ok_or_else(|| missing("duration"))?;
        let given = fields.text("description")?.filter(|text| !text.is_empty());
        let constraint = TimeConstraint {
            name: fields.required_text("name")?,
            description: Some(
                given.unwrap_or_else(|| format!("Time constraint at {start} lasting for {duration} seconds")),
            ),
            start,
            duration: u64::from(duration),
            timezone: fields.text("timezone")?.unwrap_or_default(),
        };
        constraints::check(&constraint)?;
        if constraints.iter().any(|other| other.name == constraint.name) {
            return Err(AlarmError::Refused("Time constraint names must be unique for a given alarm.".to_owned()));
        }
        constraints.push(constraint);
    }
    Ok(constraints)
}

const FIELDS: [&str; 14] = [
    "name",
    "description",
    "enabled",
    "type",
    "ok_actions",
    "alarm_actions",
    "insufficient_data_actions",
    "repeat_actions",
    "time_constraints",
    "severity",
    "state",
    "project_id",
    "user_id",
    "state_reason",
];

impl Alarm {
    /// As the API shows it.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "alarm_id": self.alarm_id,
            "name": self.name,
            "description": self.description,
            "enabled": self.enabled,
            "type": self.rule.type_name(),
            "ok_actions": shown(&self.ok_actions),
            "alarm_actions": shown(&self.alarm_actions),
            "insufficient_data_actions": shown(&self.insufficient_data_actions),
            "repeat_actions": self.repeat_actions,
            "time_constraints": self.time_constraints,
            "project_id": self.project_id,
            "user_id": self.user_id,
            "timestamp": self.timestamp.naive(),
            "state": self.state,
            "state_timestamp": self.state_timestamp.naive(),
            "state_reason": self.state_reason,
            "severity": self.severity,
            "evaluate_timestamp": self.evaluate_timestamp.naive(),
        });
        json[Rule::key(self.rule.type_name())] = self.rule.to_json();
        json
    }

    /// Where the notices of a transition to `state` go.
    pub fn actions(&self, state: AlarmState) -> &[String] {
        match state {
            AlarmState::Alarm => &self.alarm_actions,
            AlarmState::Ok => &self.ok_actions,
            AlarmState::InsufficientData => &self.insufficient_data_actions,
        }
    }
}

/// Actions as anybody may read them: without the ids of trusts.
fn shown(actions: &[String]) -> Vec<String> {
    actions.iter().map(|action| scrubbed(action)).collect()
}

fn actions(fields: &Fields<'_>, field: &str, is_admin: bool) -> Result<Vec<String>, AlarmError> {
    let mut actions: Vec<String> = Vec::new();
    for action in fields.texts(field)?.unwrap_or_default() {
        // Aodh removes repeats, too.
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    if actions.len() > ACTIONS_MAX {
        return Err(AlarmError::Refused(format!("{field} count exceeds maximum value {ACTIONS_MAX}")));
    }
    for action in &actions {
        Action::check(action, is_admin).map_err(|error| match error {
            ActionError::NotAllowed { .. } => AlarmError::Unauthorized(error.to_string()),
            _ => AlarmError::Refused(error.to_string()),
        })?;
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Value {
        json!({
            "name": "hot", "type": "gnocchi_resources_threshold",
            "alarm_actions": ["http://203.0.113.7/hook"],
            "gnocchi_resources_threshold_rule": {
                "metric": "cpu_util", "resource_id": "r", "resource_type": "instance", "threshold": 80.0,
                "aggregation_method": "mean", "comparison_operator": "gt"
            }
        })
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut json = body();
        change(&mut json);
        AlarmRequest::parse(&json, false).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_small_request_gets_the_defaults() {
        let request = AlarmRequest::parse(&body(), false).expect("a good request");
        assert!(request.enabled && !request.repeat_actions);
        assert_eq!(request.severity, Severity::Low);
    }

    #[test]
    fn wrong_requests_name_the_field() {
        assert!(refused(|j| j["name"] = json!("")).contains("name"));
        assert!(
            refused(|j| j["type"] = json!("lunar"))
                .contains("Value: 'lunar'. Value should be one of: combination, composite,")
        );
        assert!(refused(|j| j["surprise"] = json!(1)).contains("surprise"));
        assert!(refused(|j| j["alarm_actions"] = json!(["ftp://h/"])).contains("Unsupported action ftp://h/"));
        assert!(refused(|j| j["alarm_actions"] = json!(["http://u:p@h/"])).contains("credentials"));
        assert!(refused(|j| j["ok_actions"] = json!(["log://"])).contains("not authorized"));
        assert!(refused(|j| j["severity"] = json!("dire")).contains("severity"));
        assert!(
            refused(|j| {
                j.as_object_mut().expect("object").remove("gnocchi_resources_threshold_rule");
            })
            .contains("must be set")
        );
        assert!(
            refused(|j| j["time_constraints"] = json!([{"name": "n", "start": "61 * * * *", "duration": 60}]))
                .contains("61 * * * *")
        );
    }
}
