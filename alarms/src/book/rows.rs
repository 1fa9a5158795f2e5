//! Alarms, changes and notices to and from rows.

use orzo_database::{Row, Value};
use orzo_model::Timestamp;

use super::{BookError, Change, Notice, NoticeState, notices::receiver_of};
use crate::{
    alarm::{Alarm, AlarmState},
    notify::Failure,
    rule::Rule,
};

/// Columns of `alarms`, in the order of [`values_of`].
pub(super) const COLUMNS: [&str; 24] = [
    "alarm_id",
    "name",
    "description",
    "enabled",
    "type",
    "rule",
    "ok_actions",
    "alarm_actions",
    "insufficient_data_actions",
    "repeat_actions",
    "time_constraints",
    "project_id",
    "user_id",
    "changed_at",
    "state",
    "state_at",
    "state_reason",
    "severity",
    "evaluate_at",
    "operators",
    "revision",
    "evaluated_until",
    "due_at",
    "events_until",
];

pub(super) fn values_of(alarm: &Alarm) -> Vec<Value> {
    let list = |items: &[String]| serde_json::json!(items).to_string();
    vec![
        alarm.alarm_id.as_str().into(),
        alarm.name.as_str().into(),
        alarm.description.as_str().into(),
        alarm.enabled.into(),
        alarm.rule.type_name().into(),
        alarm.rule.to_json().to_string().into(),
        list(&alarm.ok_actions).into(),
        list(&alarm.alarm_actions).into(),
        list(&alarm.insufficient_data_actions).into(),
        alarm.repeat_actions.into(),
        serde_json::json!(alarm.time_constraints).to_string().into(),
        alarm.project_id.as_str().into(),
        alarm.user_id.as_str().into(),
        alarm.timestamp.into(),
        alarm.state.as_str().into(),
        alarm.state_timestamp.into(),
        alarm.state_reason.as_str().into(),
        alarm.severity.as_str().into(),
        alarm.evaluate_timestamp.into(),
        alarm.is_operators.into(),
        alarm.revision.into(),
        alarm.evaluated_until.into(),
        alarm.evaluated_until.plus(alarm.rule.granularity()).into(),
        alarm.events_until.into(),
    ]
}

/// An alarm, if every part of its row can be read; a newer program, or damage, may have left one that cannot.
pub(super) fn alarm_of(row: &Row) -> Result<Alarm, BookError> {
    let damaged = |column: &str, reason: String| BookError::Damaged {
        alarm_id: row.string("alarm_id"),
        column: column.to_owned(),
        reason,
    };
    let time = |column: &str| row.time(column).ok_or_else(|| damaged(column, "is not a time".into()));
    let list = |column: &str| json(row, column).map_err(|error| damaged(column, error));
    let rule = json(row, "rule").map_err(|error| damaged("rule", error))?;
    let rule = Rule::parse(&row.string("type"), &rule).map_err(|error| damaged("rule", error.to_string()))?;
    let state = AlarmState::parse(&row.string("state"));
    Ok(Alarm {
        alarm_id: row.string("alarm_id"),
        name: row.string("name"),
        description: row.string("description"),
        enabled: row.flag("enabled"),
        rule,
        ok_actions: list("ok_actions")?,
        alarm_actions: list("alarm_actions")?,
        insufficient_data_actions: list("insufficient_data_actions")?,
        repeat_actions: row.flag("repeat_actions"),
        time_constraints: json(row, "time_constraints").map_err(|error| damaged("time_constraints", error))?,
        project_id: row.string("project_id"),
        user_id: row.string("user_id"),
        timestamp: time("changed_at")?,
        state: state.ok_or_else(|| damaged("state", format!("`{}` is not known", row.string("state"))))?,
        state_timestamp: time("state_at")?,
        state_reason: row.string("state_reason"),
        severity: serde_json::from_value(serde_json::json!(row.string("severity")))
            .map_err(|error| damaged("severity", error.to_string()))?,
        evaluate_timestamp: time("evaluate_at")?,
        is_operators: row.flag("operators"),
        revision: row.int("revision").ok_or_else(|| damaged("revision", "is not a number".into()))?,
        evaluated_until: time("evaluated_until")?,
        events_until: row.int("events_until").unwrap_or(0),
    })
}

fn json<T: for<'de> serde::Deserialize<'de>>(row: &Row, column: &str) -> Result<T, String> {
    serde_json::from_str(&row.string(column)).map_err(|error| error.to_string())
}

pub(super) fn change_of(row: &Row) -> Change {
    Change {
        event_id: row.string("event_id"),
        alarm_id: row.string("alarm_id"),
        kind: row.string("kind"),
        detail: row.string("detail"),
        user_id: row.text("user_id"),
        project_id: row.text("project_id"),
        on_behalf_of: row.string("on_behalf_of"),
        timestamp: row.time("happened_at").unwrap_or(Timestamp::EPOCH),
        severity: row.string("severity"),
    }
}

pub(super) fn notice_of(row: &Row) -> Notice {
    let action = row.string("action");
    // Written before receivers were.
    let receiver = Some(row.string("receiver")).filter(|receiver| !receiver.is_empty());
    Notice {
        notice_id: row.string("notice_id"),
        alarm_id: row.string("alarm_id"),
        project_id: row.string("project_id"),
        receiver: receiver.unwrap_or_else(|| receiver_of(&action)),
        action,
        body: row.string("body"),
        state: NoticeState::parse(&row.string("state")).unwrap_or(NoticeState::Waiting),
        created_at: row.time("created_at").unwrap_or(Timestamp::EPOCH),
        replayed_at: row.time("replayed_at"),
        attempts: row.int("attempts").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        next_at: row.time("next_at").unwrap_or(Timestamp::EPOCH),
        failure: row.text("failure").and_then(|text| Failure::parse(&text)),
        last_error: row.text("last_error"),
        is_receiver_gone: false,
        leased_until: None,
    }
}
