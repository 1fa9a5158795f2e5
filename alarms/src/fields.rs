//! One JSON object of a request, read field by field; what is wrong is told in Aodh's words (those of its WSME types).

use serde_json::{Map, Value};

use crate::{alarm::AlarmError, python};

/// The fields of an object, and where it stands in the request.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Reads an object whose fields are all among `known`; `argument` is its path, such as `alarm.event_rule`.
    pub(crate) fn of(argument: &str, json: &'a Value, known: &[&str]) -> Result<Self, AlarmError> {
        let Value::Object(map) = json else {
            let field = argument.rsplit('.').next().unwrap_or(argument);
            return Err(AlarmError::invalid(field, json, "Expected a JSON object"));
        };
        let mut unknown: Vec<&str> = map.keys().map(String::as_str).filter(|field| !known.contains(field)).collect();
        unknown.sort_unstable();
        match unknown.len() {
            0 => Ok(Self { map }),
            1 => Err(AlarmError::Refused(format!("Unknown attribute for argument {argument}: {}", unknown[0]))),
            _ => {
                let names = unknown.join(", ");
                Err(AlarmError::Refused(format!("Unknown attributes for argument {argument}: {names}")))
            }
        }
    }

    /// The value, unless it is missing or null.
    pub(crate) fn value(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// A text.
    pub(crate) fn text(&self, field: &str) -> Result<Option<String>, AlarmError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong_type(field, other, "str")),
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&self, field: &str) -> Result<String, AlarmError> {
        self.text(field)?.ok_or_else(|| missing(field))
    }

    /// A finite number, or a text that is one, as the command line sends it.
    pub(crate) fn number(&self, field: &str) -> Result<Option<f64>, AlarmError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if number.is_finite() => Ok(Some(number)),
            Some(_) => Err(AlarmError::invalid(field, value, "Value should be a finite number")),
            None => {
                let shown = python::repr(value);
                Err(AlarmError::invalid(field, value, &format!("could not convert string to float: {shown}")))
            }
        }
    }

    /// A whole number within limits, or a text that is one.
    pub(crate) fn whole(&self, field: &str, least: u32, most: u32) -> Result<Option<u32>, AlarmError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let number = match value {
            // Python's int() cuts a float.
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            let shown = python::repr(value);
            let reason = format!("invalid literal for int() with base 10: {shown}");
            return Err(AlarmError::invalid(field, value, &reason));
        };
        if number < i64::from(least) {
            return Err(AlarmError::invalid(field, value, &format!("Value should be greater or equal to {least}")));
        }
        match u32::try_from(number) {
            Ok(number) if number <= most => Ok(Some(number)),
            _ => Err(AlarmError::invalid(field, value, &format!("Value should be lower or equal to {most}"))),
        }
    }

    /// True or false, or a text that Python's oslo takes for one.
    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>, AlarmError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let text = match value {
            Value::Bool(flag) => return Ok(Some(*flag)),
            Value::String(text) => text.trim().to_ascii_lowercase(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        match text.as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(Some(true)),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(Some(false)),
            _ => {
                let reason = format!("Value not an unambiguous boolean: {}", python::text(value));
                Err(AlarmError::invalid(field, value, &reason))
            }
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, field: &str) -> Result<Option<Vec<String>>, AlarmError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    other => Err(wrong_type(field, other, "str")),
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(other) => {
                let reason = format!("Value not a valid list: {}", python::text(other));
                Err(AlarmError::invalid(field, other, &reason))
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, field: &str, choices: &[(&str, T)]) -> Result<Option<T>, AlarmError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let found = choices.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let mut words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            words.sort_unstable();
            AlarmError::invalid(field, value, &format!("Value should be one of: {}", words.join(", ")))
        })
    }
}

/// A field that must be there is not.
pub(crate) fn missing(field: &str) -> AlarmError {
    AlarmError::invalid(field, &Value::Null, "Mandatory field missing.")
}

fn wrong_type(field: &str, value: &Value, wanted: &str) -> AlarmError {
    let found = match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    };
    let reason = format!("Wrong type. Expected '<class '{wanted}'>', got '<class '{found}'>'");
    AlarmError::invalid(field, value, &reason)
}
