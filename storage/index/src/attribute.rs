//! Resource types and their attributes: what a value may be. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{IndexError, spans};

/// Names that a type's attribute may not take: a resource has them already.
const RESERVED: &[&str] = &[
    "id",
    "type",
    "metrics",
    "revision",
    "revision_start",
    "revision_end",
    "started_at",
    "ended_at",
    "user_id",
    "project_id",
    "created_by_user_id",
    "created_by_project_id",
    "get_metric",
    "creator",
];
/// Longest attribute and type names (Gnocchi's limit comes from PostgreSQL's identifiers).
const NAME_CHARACTERS_MAX: usize = 63;
/// Longest text value (Gnocchi's `max_length` may not be larger).
pub const TEXT_CHARACTERS_MAX: usize = 255;
/// Attributes of one type at most.
const ATTRIBUTES_MAX: usize = 256;

/// A kind of resource and what is said about each of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceType {
    /// `instance`, `image`, `generic` ...
    pub name: String,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// One attribute of a resource type, in Gnocchi's JSON form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// What its values are.
    #[serde(flatten)]
    pub kind: AttributeKind,
    /// Whether a resource made by the API must have it.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

fn text_max() -> usize {
    TEXT_CHARACTERS_MAX
}

/// What an attribute's values are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum AttributeKind {
    /// Text.
    String {
        /// Shortest, in characters.
        #[serde(default)]
        min_length: usize,
        /// Longest, in characters.
        #[serde(default = "text_max")]
        max_length: usize,
    },
    /// A UUID.
    Uuid,
    /// A number.
    Number {
        /// Smallest.
        #[serde(default)]
        min: Option<f64>,
        /// Largest.
        #[serde(default)]
        max: Option<f64>,
    },
    /// True or false.
    Bool,
    /// A time.
    Datetime,
}

impl ResourceType {
    /// A checked type.
    pub fn new(name: &str, attributes: BTreeMap<String, Attribute>) -> Result<Self, IndexError> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || name.contains('/') || name.chars().count() > 255 {
            return Err(IndexError::invalid_input("not a valid value for dictionary value @ data['name']", &["name"]));
        }
        let this = Self { name: name.to_owned(), attributes };
        this.check()?;
        Ok(this)
    }

    /// Whether its attributes have allowed names and limits.
    pub fn check(&self) -> Result<(), IndexError> {
        if self.attributes.len() > ATTRIBUTES_MAX {
            return Err(IndexError::refused(format!("More than {ATTRIBUTES_MAX} attributes in one resource type")));
        }
        for (name, attribute) in &self.attributes {
            let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().count() <= NAME_CHARACTERS_MAX
                && !RESERVED.contains(&name.as_str());
            let limits = match &attribute.kind {
                AttributeKind::String { min_length, max_length } => {
                    min_length <= max_length && *max_length <= TEXT_CHARACTERS_MAX + 1
                }
                AttributeKind::Number { min: Some(min), max: Some(max) } => min <= max,
                _ => true,
            };
            if !valid {
                return Err(IndexError::refused(format!("Invalid input: Resource attribute name {name} is invalid")));
            }
            if !limits {
                let reason = format!("not a valid value @ data['attributes']['{name}']");
                return Err(IndexError::invalid_input(reason, &["attributes", name]));
            }
        }
        Ok(())
    }

    /// Whether resources have an attribute of this name beyond the ones that all resources have.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    /// Checks the attributes of a resource made by the API. `partial`: only what is there must be right.
    pub fn check_attributes(
        &self,
        given: &Map<String, Value>,
        partial: bool,
    ) -> Result<Map<String, Value>, IndexError> {
        let mut checked = Map::new();
        for (name, value) in given {
            let Some(attribute) = self.attributes.get(name) else {
                let reason = format!("extra keys not allowed @ data['{name}']");
                return Err(IndexError::invalid_input(reason, &[name]));
            };
            if value.is_null() && !attribute.required {
                checked.insert(name.clone(), Value::Null);
                continue;
            }
            let value = attribute.kind.check(value).map_err(|reason| {
                IndexError::invalid_input(format!("{reason} for dictionary value @ data['{name}']"), &[name])
            })?;
            checked.insert(name.clone(), value);
        }
        if !partial {
            for (name, attribute) in &self.attributes {
                if attribute.required && !given.contains_key(name) {
                    let reason = format!("required key not provided @ data['{name}']");
                    return Err(IndexError::invalid_input(reason, &[name]));
                }
            }
        }
        Ok(checked)
    }
}

impl AttributeKind {
    /// Its name in Gnocchi's form.
    pub fn name(&self) -> &'static str {
        match self {
            Self::String { .. } => "string",
            Self::Uuid => "uuid",
            Self::Number { .. } => "number",
            Self::Bool => "bool",
            Self::Datetime => "datetime",
        }
    }

    /// The value in its stored form, or what is wrong with it (voluptuous' words, which clients match).
    pub fn check(&self, value: &Value) -> Result<Value, String> {
        match self {
            Self::String { min_length, max_length } => {
                let text = value.as_str().ok_or("expected str")?;
                let length = text.chars().count();
                if length < *min_length {
                    return Err(format!("length of value must be at least {min_length}"));
                }
                if length > *max_length {
                    return Err(format!("length of value must be at most {max_length}"));
                }
                Ok(value.clone())
            }
            Self::Uuid => match value.as_str().and_then(|text| uuid::Uuid::parse_str(text).ok()) {
                Some(id) => Ok(Value::String(id.to_string())),
                None => Err("badly formed hexadecimal UUID string".into()),
            },
            Self::Number { min, max } => {
                let number = value.as_f64().ok_or("expected Real")?;
                if let Some(min) = min.filter(|min| number < *min) {
                    return Err(format!("value must be at least {min}"));
                }
                if let Some(max) = max.filter(|max| number > *max) {
                    return Err(format!("value must be at most {max}"));
                }
                Ok(value.clone())
            }
            Self::Bool => match value {
                Value::Bool(_) => Ok(value.clone()),
                Value::String(text) => match text.to_ascii_lowercase().as_str() {
                    "1" | "t" | "true" | "yes" | "y" | "on" => Ok(Value::Bool(true)),
                    "0" | "f" | "false" | "no" | "n" | "off" => Ok(Value::Bool(false)),
                    _ => Err("not a valid value".into()),
                },
                _ => Err("expected bool".into()),
            },
            Self::Datetime => {
                // Relative times make no sense in a stored attribute, so "now" is the epoch and never shows.
                match spans::parse_time(value, orzo_model::Timestamp::EPOCH) {
                    Ok(time) => Ok(Value::String(time.isoformat())),
                    Err(_) => Err("not a valid value".into()),
                }
            }
        }
    }

    /// The nearest allowed value for one that a sample brought; `None` if there is none. Metadata of samples is what
    /// it is: a text too long is cut and a number becomes text, because losing the sample would be worse.
    pub fn coerce(&self, value: &Value) -> Option<Value> {
        let value = match (self, value) {
            (_, Value::Null) => return None,
            (Self::String { max_length, .. }, Value::String(text)) => {
                Value::String(storable(text).chars().take(*max_length).collect())
            }
            (Self::String { max_length, .. }, Value::Number(_) | Value::Bool(_)) => {
                Value::String(value.to_string().chars().take(*max_length).collect())
            }
            (Self::Number { .. }, Value::String(text)) => serde_json::Number::from_f64(text.parse().ok()?)?.into(),
            _ => value.clone(),
        };
        self.check(&value).ok()
    }

    /// How a stored value is searched: as text, or as a number (times in microseconds, booleans 0 and 1).
    pub(crate) fn searchable(&self, value: &Value) -> (Option<String>, Option<f64>) {
        match (self, value) {
            (Self::String { .. } | Self::Uuid, Value::String(text)) => (Some(text.clone()), None),
            (Self::Number { .. }, Value::Number(number)) => (None, number.as_f64()),
            (Self::Bool, Value::Bool(truth)) => (None, Some(f64::from(u8::from(*truth)))),
            (Self::Datetime, Value::String(text)) => {
                (None, text.parse::<orzo_model::Timestamp>().ok().map(|time| time.micros() as f64))
            }
            _ => (None, None),
        }
    }

    /// Whether values are searched as text.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::String { .. } | Self::Uuid)
    }
}

/// A text without NUL characters, which PostgreSQL cannot store.
pub fn storable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attribute(json: Value) -> Attribute {
        serde_json::from_value(json).expect("an attribute")
    }

    #[test]
    fn attributes_travel_in_gnocchis_form() {
        let text = attribute(json!({"type": "string"}));
        assert_eq!(
            serde_json::to_value(&text).expect("json"),
            json!({"type": "string", "min_length": 0, "max_length": 255, "required": true})
        );
        let number = attribute(json!({"type": "number", "min": 1, "required": false}));
        assert_eq!(
            serde_json::to_value(&number).expect("json"),
            json!({"type": "number", "min": 1.0, "max": null, "required": false})
        );
    }

    #[test]
    fn the_api_is_strict_and_samples_are_not_lost_over_an_attribute() {
        let short = AttributeKind::String { min_length: 1, max_length: 3 };
        assert!(short.check(&json!("abcd")).is_err() && short.check(&json!(5)).is_err());
        assert_eq!(short.coerce(&json!("abcd")), Some(json!("abc")));
        assert_eq!(short.coerce(&json!(5)), Some(json!("5")));
        assert_eq!(short.coerce(&json!({"a": 1})), None);
        assert_eq!(AttributeKind::Uuid.coerce(&json!("not one")), None);
        assert_eq!(
            AttributeKind::Uuid.check(&json!("2D5A1D4E3BB94D9E8E2A7C0D9B1F2A3C")),
            Ok(json!("2d5a1d4e-3bb9-4d9e-8e2a-7c0d9b1f2a3c"))
        );
        assert_eq!(
            AttributeKind::Datetime.check(&json!("2026-11-21 20:04:19")),
            Ok(json!("2026-11-21T20:04:19+00:00"))
        );
    }

    #[test]
    fn reserved_names_and_missing_attributes_are_refused() {
        let name = |name: &str| ResourceType::new("t", [(name.to_owned(), attribute(json!({"type": "bool"})))].into());
        assert!(name("project_id").is_err() && name("_x").is_err() && name("fine").is_ok());
        let kind = name("fine").expect("valid");
        let missing = kind.check_attributes(&Map::new(), false).expect_err("required");
        assert!(missing.to_string().contains("required key not provided @ data['fine']"));
        assert!(kind.check_attributes(&Map::new(), true).is_ok());
        let extra = json!({"fine": true, "more": 1});
        assert!(kind.check_attributes(extra.as_object().expect("object"), false).is_err());
    }
}
