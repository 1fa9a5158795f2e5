//! Reading request bodies with checked types: `"enabled": "False"` is a mistake to be told, never a truth (the lesson
//! of OSSA-2026-007). Pure.

use orzo_database::Row;
use serde_json::{Map, Value};

use crate::http::ApiError;

/// What clients may add of their own (`--property`), as JSON text; it is sent back with every listing.
const EXTRA_BYTES_MAX: usize = 16_384;

/// The object inside `{"user": {...}}`.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    what: &'static str,
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn of(body: Value, what: &'static str) -> Result<Self, ApiError> {
        match body {
            Value::Object(mut outer) => match outer.remove(what) {
                Some(Value::Object(map)) => Ok(Self { what, map }),
                _ => Err(ApiError::bad_request(format!("Expecting to find an object `{what}` in the body."))),
            },
            _ => Err(ApiError::bad_request(format!("Expecting to find an object with `{what}` in the body."))),
        }
    }

    /// Whether the field is there, even as null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Text, or nothing if it is absent or null.
    pub(crate) fn text(&self, key: &str, chars_max: usize) -> Result<Option<String>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= chars_max => Ok(Some(text.clone())),
            Some(Value::String(_)) => Err(self.wrong(key, &format!("is longer than {chars_max} characters"))),
            Some(_) => Err(self.wrong(key, "is not of type 'string'")),
        }
    }

    /// A name: 1 to `chars_max` characters, not only blanks.
    pub(crate) fn name(&self, chars_max: usize) -> Result<Option<String>, ApiError> {
        match self.text("name", chars_max)? {
            Some(name) if name.trim().is_empty() => Err(self.wrong("name", "is empty")),
            None if self.has("name") => Err(self.wrong("name", "is null")),
            name => Ok(name),
        }
    }

    pub(crate) fn required_name(&self, chars_max: usize) -> Result<String, ApiError> {
        self.name(chars_max)?.ok_or_else(|| self.wrong("name", "is required"))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "is not of type 'boolean'")),
        }
    }

    /// What is not in `known`, merged over `before`; null removes. As JSON text.
    pub(crate) fn extra(&self, known: &[&str], before: &str) -> Result<String, ApiError> {
        let mut extra: Map<String, Value> = serde_json::from_str(before).unwrap_or_default();
        for (key, value) in self.map.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            if value.is_null() {
                extra.remove(key);
            } else {
                extra.insert(key.clone(), value.clone());
            }
        }
        let text = Value::Object(extra).to_string();
        if text.len() > EXTRA_BYTES_MAX {
            let message = format!("The properties of a {} are limited to {EXTRA_BYTES_MAX} bytes.", self.what);
            return Err(ApiError::bad_request(message));
        }
        Ok(text)
    }

    pub(crate) fn wrong(&self, key: &str, how: &str) -> ApiError {
        ApiError::bad_request(format!("Invalid input for field '{}/{key}': it {how}.", self.what))
    }
}

/// What a row's `extra` column holds; the caller adds its own columns over it.
pub(crate) fn extra_of(row: &Row) -> Map<String, Value> {
    serde_json::from_str(&row.string("extra")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of(json!({"user": value}), "user").expect("an object")
    }

    #[test]
    fn types_are_checked_and_null_is_absent() {
        let user = fields(json!({"name": "ann", "enabled": "False", "email": null}));
        assert_eq!(user.required_name(64).expect("a name"), "ann");
        assert!(user.flag("enabled").expect_err("a text").message.contains("user/enabled"));
        assert_eq!(user.text("email", 9).expect("null"), None);
        assert!(user.required_name(2).is_err());
        assert!(fields(json!({"name": " "})).name(64).is_err());
        assert!(fields(json!({"name": null})).name(64).is_err());
        assert!(Fields::of(json!({"user": []}), "user").is_err());
        assert!(Fields::of(json!([]), "user").is_err());
    }

    #[test]
    fn own_properties_are_merged_removed_by_null_and_bounded() {
        let user = fields(json!({"name": "ann", "email": "a@b", "old": null}));
        assert_eq!(user.extra(&["name"], r#"{"old": 1, "kept": 2}"#).expect("fits"), r#"{"email":"a@b","kept":2}"#);
        let large = fields(json!({"x": "y".repeat(EXTRA_BYTES_MAX)}));
        assert!(large.extra(&[], "{}").is_err());
    }
}
