//! `combination`, retired: the states of other alarms, combined.

use serde_json::{Value, json};

use crate::{
    alarm::AlarmError,
    fields::{Fields, missing},
};

/// How the states are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operator {
    /// All are in alarm.
    #[default]
    And,
    /// Any is in alarm.
    Or,
}

/// A rule on other alarms' states.
#[derive(Clone, Debug, PartialEq)]
pub struct CombinationRule {
    /// All or any.
    pub operator: Operator,
    /// At least two alarms.
    pub alarm_ids: Vec<String>,
}

/// Alarms of one rule.
const ALARMS_MAX: usize = 100;
/// Ids are shorter.
const ID_BYTES_MAX: usize = 128;

impl Operator {
    const ALL: [(&str, Self); 2] = [("and", Self::And), ("or", Self::Or)];

    /// As Aodh spells it.
    pub fn as_str(self) -> &'static str {
        if self == Self::And { "and" } else { "or" }
    }
}

impl CombinationRule {
    pub(super) fn parse(path: &str, json: &Value) -> Result<Self, AlarmError> {
        let fields = Fields::of(path, json, &["operator", "alarm_ids"])?;
        let operator = fields.choice("operator", &Operator::ALL)?.unwrap_or_default();
        let given = fields.texts("alarm_ids")?.ok_or_else(|| missing("alarm_ids"))?;
        if given.len() > ALARMS_MAX || given.iter().any(|id| id.len() > ID_BYTES_MAX) {
            return Err(AlarmError::Refused(format!(
                "alarm_ids has at most {ALARMS_MAX} ids of at most {ID_BYTES_MAX} bytes"
            )));
        }
        let mut alarm_ids: Vec<String> = Vec::new();
        for id in given {
            if !alarm_ids.contains(&id) {
                alarm_ids.push(id);
            }
        }
        if alarm_ids.len() < 2 {
            return Err(AlarmError::Refused(
                "Alarm combination rule should contain at least two different alarm ids.".to_owned(),
            ));
        }
        Ok(Self { operator, alarm_ids })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"operator": self.operator.as_str(), "alarm_ids": self.alarm_ids})
    }

    pub(super) fn default_description(&self) -> String {
        format!("Combined state of alarms {}", self.alarm_ids.join(&format!(" {} ", self.operator.as_str())))
    }
}
