//! The history: who changed what about an alarm, and when. An entry is written in the transaction of its change.

use orzo_database::Transaction;
use orzo_model::{Scope, Timestamp};
use uuid::Uuid;

use super::{AlarmBook, BookError, PAGE_MAX, rows::change_of};
use crate::alarm::Alarm;

/// What happened to an alarm, as Aodh names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// `creation`
    Creation,
    /// `rule change`
    RuleChange,
    /// `state transition`
    StateTransition,
    /// `deletion`
    Deletion,
}

impl ChangeKind {
    /// As Aodh spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::RuleChange => "rule change",
            Self::StateTransition => "state transition",
            Self::Deletion => "deletion",
        }
    }
}

/// An entry of the history.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are Aodh's
pub struct Change {
    pub event_id: String,
    pub alarm_id: String,
    pub kind: String,
    /// JSON text.
    pub detail: String,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub on_behalf_of: String,
    pub timestamp: Timestamp,
    pub severity: String,
}

/// Who makes a change, for the history.
pub(super) struct Author<'a> {
    pub(super) user_id: Option<&'a str>,
    pub(super) project_id: Option<&'a str>,
}

impl AlarmBook {
    /// What happened to an alarm, newest first.
    pub async fn history(&self, scope: &Scope, alarm_id: &str, limit: u32) -> Result<Vec<Change>, BookError> {
        self.get(scope, alarm_id).await?;
        let sql = format!(
            "SELECT * FROM alarm_history WHERE alarm_id = $1 ORDER BY happened_at DESC, event_id LIMIT {}",
            limit.min(PAGE_MAX)
        );
        Ok(self.database.query(&sql, &[alarm_id.into()]).await?.iter().map(change_of).collect())
    }
}

pub(super) fn change(alarm: &Alarm, kind: ChangeKind, detail: String, author: &Author<'_>, now: Timestamp) -> Change {
    Change {
        event_id: Uuid::new_v4().to_string(),
        alarm_id: alarm.alarm_id.clone(),
        kind: kind.as_str().to_owned(),
        detail,
        user_id: author.user_id.map(str::to_owned),
        project_id: author.project_id.map(str::to_owned),
        on_behalf_of: alarm.project_id.clone(),
        timestamp: now,
        severity: alarm.severity.as_str().to_owned(),
    }
}

/// The fields that differ, with their new values.
pub(super) fn difference(before: &Alarm, after: &Alarm) -> String {
    let (before, after) = (before.to_json(), after.to_json());
    let changed: serde_json::Map<_, _> = after
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| before.get(key.as_str()) != Some(value) && key.as_str() != "timestamp")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    serde_json::Value::Object(changed).to_string()
}

pub(super) async fn write_change(tx: &mut Transaction<'_>, change: &Change) -> Result<(), BookError> {
    tx.execute(
        "INSERT INTO alarm_history (event_id, alarm_id, kind, detail, user_id, project_id, on_behalf_of, happened_at, \
         severity) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            change.event_id.as_str().into(),
            change.alarm_id.as_str().into(),
            change.kind.as_str().into(),
            change.detail.as_str().into(),
            change.user_id.clone().into(),
            change.project_id.clone().into(),
            change.on_behalf_of.as_str().into(),
            change.timestamp.into(),
            change.severity.as_str().into(),
        ],
    )
    .await?;
    Ok(())
}
