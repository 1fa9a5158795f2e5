//! Reading request bodies against their schema, with the words that Gnocchi's clients and tests know.

use std::time::Duration;

use orzo_index::spans;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// Longest name, in characters.
const NAME_MAX: usize = 255;

/// An item of a list, and where in the body it is.
pub(super) type Item<'a> = (&'a Value, Vec<String>);

/// A JSON object of a body, and where in the body it is.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: Vec<String>,
}

impl<'a> Fields<'a> {
    /// The body itself, which must be an object.
    pub(super) fn of(body: &'a Value) -> Result<Self, Problem> {
        Self::at(body, Vec::new())
    }

    /// An object inside the body.
    pub(super) fn at(value: &'a Value, path: Vec<String>) -> Result<Self, Problem> {
        match value {
            Value::Object(object) => Ok(Self { object, path }),
            _ => {
                let steps: Vec<&str> = path.iter().map(String::as_str).collect();
                Err(Problem::input(if steps.is_empty() { "expected a dictionary" } else { "expected dict" }, &steps))
            }
        }
    }

    /// Refuses keys that nobody reads.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Problem> {
        match self.object.keys().find(|key| !names.contains(&key.as_str())) {
            Some(key) => Err(self.problem("extra keys not allowed", key)),
            None => Ok(()),
        }
    }

    /// A value, if the key is there.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    /// A value that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&'a Value, Problem> {
        self.get(name).ok_or_else(|| self.problem("required key not provided", name))
    }

    /// A text, if the key is there.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.value_problem("expected str", name)),
        }
    }

    /// A text or null, if the key is there: `Some(None)` is null.
    pub(super) fn text_or_null(&self, name: &str) -> Result<Option<Option<&'a str>>, Problem> {
        match self.get(name) {
            Some(Value::Null) => Ok(Some(None)),
            _ => Ok(self.text(name)?.map(Some)),
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, Problem> {
        self.required(name)?;
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A name that must be there; Gnocchi's columns hold 255 characters.
    pub(super) fn required_name(&self, name: &str) -> Result<&'a str, Problem> {
        let text = self.required_text(name)?;
        if text.chars().count() > NAME_MAX {
            return Err(self.value_problem(&format!("length of value must be at most {NAME_MAX}"), name));
        }
        Ok(text)
    }

    /// A whole number of at least `least`, if the key is there; a text may say it.
    pub(super) fn whole(&self, name: &str, least: u64) -> Result<Option<u64>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) if number.is_f64() => Err(self.value_problem("expected int", name)),
            Some(Value::Number(number)) => match number.as_u64().filter(|n| *n >= least) {
                Some(number) => Ok(Some(number)),
                None => Err(self.value_problem(&format!("value must be at least {least}"), name)),
            },
            Some(Value::String(text)) => match text.trim().parse::<u64>() {
                Ok(number) if number >= least => Ok(Some(number)),
                Ok(_) => Err(self.value_problem(&format!("value must be at least {least}"), name)),
                Err(_) => Err(self.value_problem("expected int", name)),
            },
            Some(_) => Err(self.value_problem("expected int", name)),
        }
    }

    /// A positive timespan, if the key is there.
    pub(super) fn span(&self, name: &str) -> Result<Option<Duration>, Problem> {
        self.get(name)
            .map(spans::parse_timespan)
            .transpose()
            .map_err(|error| self.value_problem(&error.to_string(), name))
    }

    /// A list with at least one item, if the key is there; each item with its path.
    pub(super) fn list(&self, name: &str) -> Result<Option<Vec<Item<'a>>>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.is_empty() => {
                Err(self.value_problem("length of value must be at least 1", name))
            }
            Some(Value::Array(items)) => {
                let step = |index: usize| {
                    let mut path = self.path.clone();
                    path.extend([name.to_owned(), index.to_string()]);
                    path
                };
                Ok(Some(items.iter().enumerate().map(|(index, item)| (item, step(index))).collect()))
            }
            Some(_) => Err(self.problem("expected a list", name)),
        }
    }

    /// All keys with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.object.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The path of a key.
    pub(super) fn path_of(&self, name: &str) -> Vec<String> {
        self.path.iter().cloned().chain([name.to_owned()]).collect()
    }

    /// A problem with the value of a key.
    pub(super) fn value_problem(&self, reason: &str, name: &str) -> Problem {
        self.problem(&format!("{reason} for dictionary value"), name)
    }

    /// A problem at a key.
    pub(super) fn problem(&self, reason: &str, name: &str) -> Problem {
        let path = self.path_of(name);
        Problem::input(reason, &path.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reason(problem: Problem) -> String {
        problem.description["reason"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        let body = json!({"name": 1, "points": 0, "half": 1.5, "span": "-1s", "empty": [], "object": {}});
        let fields = Fields::of(&body).expect("an object");
        assert_eq!(
            reason(fields.text("name").expect_err("a number")),
            "expected str for dictionary value @ data['name']"
        );
        assert_eq!(
            reason(fields.whole("points", 1).expect_err("too small")),
            "value must be at least 1 for dictionary value @ data['points']"
        );
        assert_eq!(
            reason(fields.whole("half", 0).expect_err("not whole")),
            "expected int for dictionary value @ data['half']"
        );
        assert_eq!(
            reason(fields.span("span").expect_err("negative")),
            "Timespan must be positive for dictionary value @ data['span']"
        );
        assert_eq!(
            reason(fields.list("empty").expect_err("empty")),
            "length of value must be at least 1 for dictionary value @ data['empty']"
        );
        assert_eq!(reason(fields.list("object").expect_err("no list")), "expected a list @ data['object']");
        assert_eq!(reason(fields.required("x").expect_err("missing")), "required key not provided @ data['x']");
        assert!(reason(fields.only(&["name"]).expect_err("extra")).starts_with("extra keys not allowed @ data['"));
        assert!(Fields::of(&json!([])).is_err());
    }
}
