//! `event`: an alarm that an event turns on.

use orzo_model::{Timestamp, TraitValue};
use serde_json::{Value, json};

use super::Comparison;
use crate::{alarm::AlarmError, fields::Fields};

/// Events of a type, with traits that compare so.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRule {
    /// Shell pattern on the event's type.
    pub event_type: String,
    /// All of these.
    pub query: Vec<EventQuery>,
    /// Our own: an event of this type (a shell pattern) turns the alarm off again ...
    pub resolve_event_type: Option<String>,
    /// ... if all of these hold of it.
    pub resolve_query: Vec<EventQuery>,
    /// Our own: seconds after which the alarm goes off by itself.
    pub resolve_after: Option<u32>,
}

/// A condition on an event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventQuery {
    /// `traits.<name>`, or `event_type`, `message_id`, `generated`.
    pub field: String,
    /// Between the event's value and ours.
    pub op: Comparison,
    /// `string`, `integer`, `float`, `boolean`, `datetime`, or empty: a text.
    pub kind: Option<String>,
    /// As it was given.
    pub value: String,
}

/// A pattern that a person wrote.
const PATTERN_BYTES_MAX: usize = 255;
/// Conditions on one event; each is compared with every event of the type.
const QUERIES_MAX: usize = 64;
/// Traits are not longer.
const VALUE_BYTES_MAX: usize = 4096;
/// A year; an alarm that stays on longer is not waited for.
const RESOLVE_AFTER_MAX_S: u32 = 366 * 86_400;

impl EventRule {
    pub(super) fn parse(path: &str, json: &Value) -> Result<Self, AlarmError> {
        let known = ["event_type", "query", "resolve_event_type", "resolve_query", "resolve_after"];
        let fields = Fields::of(path, json, &known)?;
        let rule = Self {
            event_type: fields.text("event_type")?.filter(|text| !text.is_empty()).unwrap_or_else(|| "*".into()),
            query: queries(path, "query", &fields)?,
            resolve_event_type: fields.text("resolve_event_type")?.filter(|text| !text.is_empty()),
            resolve_query: queries(path, "resolve_query", &fields)?,
            resolve_after: fields.whole("resolve_after", 1, RESOLVE_AFTER_MAX_S)?,
        };
        for (field, pattern) in
            [("event_type", Some(&rule.event_type)), ("resolve_event_type", rule.resolve_event_type.as_ref())]
        {
            if pattern.is_some_and(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
                return Err(AlarmError::Refused(format!("{field} is longer than {PATTERN_BYTES_MAX} bytes")));
            }
        }
        if !rule.resolve_query.is_empty() && rule.resolve_event_type.is_none() {
            return Err(AlarmError::Refused("resolve_query needs a resolve_event_type".to_owned()));
        }
        Ok(rule)
    }

    pub(crate) fn to_json(&self) -> Value {
        let list = |queries: &[EventQuery]| queries.iter().map(EventQuery::to_json).collect::<Vec<_>>();
        let mut json = json!({"event_type": self.event_type, "query": list(&self.query)});
        if let Some(event_type) = &self.resolve_event_type {
            json["resolve_event_type"] = json!(event_type);
            json["resolve_query"] = json!(list(&self.resolve_query));
        }
        if let Some(after) = self.resolve_after {
            json["resolve_after"] = json!(after);
        }
        json
    }
}

impl EventQuery {
    fn parse(path: &str, json: &Value) -> Result<Self, AlarmError> {
        let fields = Fields::of(&format!("{path}.query"), json, &["field", "op", "type", "value"])?;
        let query = Self {
            field: fields.required_text("field")?,
            op: fields.choice("op", &Comparison::ALL)?.unwrap_or_default(),
            kind: fields.text("type")?,
            value: fields.required_text("value")?,
        };
        if query.value.len() > VALUE_BYTES_MAX || query.field.len() > VALUE_BYTES_MAX {
            return Err(AlarmError::Refused(format!("A query's field and value have at most {VALUE_BYTES_MAX} bytes")));
        }
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ".',_-".contains(letter);
        if !query.field.chars().all(is_plain) {
            return Err(AlarmError::Refused(
                "Query value or traits invalid: does not match regular expression ^[a-zA-Z.',0-9_-]*$ for dictionary \
                 value @ data['field']"
                    .to_owned(),
            ));
        }
        query.wanted()?;
        Ok(query)
    }

    fn to_json(&self) -> Value {
        let mut json = json!({"field": self.field, "op": self.op.as_str(), "value": self.value});
        if let Some(kind) = &self.kind {
            json["type"] = json!(kind);
        }
        json
    }

    /// What the event's value is compared with, in the query's type.
    pub(crate) fn wanted(&self) -> Result<TraitValue, AlarmError> {
        let kind = self.kind.as_deref().unwrap_or_default();
        let value = self.value.trim();
        let found = match kind {
            "" | "string" => Some(TraitValue::Text(self.value.clone())),
            "integer" => value.parse().ok().map(TraitValue::Integer),
            "float" => value.parse().ok().map(TraitValue::Float),
            "boolean" => match value.to_ascii_lowercase().as_str() {
                "1" | "t" | "true" | "on" | "y" | "yes" => Some(TraitValue::Text("true".into())),
                "0" | "f" | "false" | "off" | "n" | "no" => Some(TraitValue::Text("false".into())),
                _ => None,
            },
            "datetime" => value.parse::<Timestamp>().ok().map(TraitValue::Datetime),
            other => {
                return Err(AlarmError::Refused(format!(
                    "The data type {other} is not supported. The supported data type list is: ['integer', 'float', \
                     'string', 'boolean', 'datetime']"
                )));
            }
        };
        found.ok_or_else(|| {
            AlarmError::Refused(format!("Unable to convert the value {} to the expected data type {kind}.", self.value))
        })
    }
}

fn queries(path: &str, field: &str, fields: &Fields<'_>) -> Result<Vec<EventQuery>, AlarmError> {
    match fields.value(field) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > QUERIES_MAX => {
            Err(AlarmError::Refused(format!("{field} has at most {QUERIES_MAX} conditions, not {}", items.len())))
        }
        Some(Value::Array(items)) => items.iter().map(|item| EventQuery::parse(path, item)).collect(),
        Some(other) => Err(AlarmError::invalid(field, other, "Value not a valid list")),
    }
}
