//! Paths into notifications and samples, in the dialect that Ceilometer's definition files are written in.
//!
//! `text → Path::parse → Path`, then `Path::find(root) → matches`. The dialect is jsonpath-rw with its -ext additions
//! (which is older than, and different from, RFC 9535): children and grouped names `a.(b|c)`, descendants `..`, `|`,
//! indexes and slices, `.[*]`, filters with a single `=`, arithmetic, and functions in back-ticks. What a path does
//! not find is not an error. This file knows no file, no YAML and no notification.

mod expression;
mod find;
mod parse;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde_json::Value;

use expression::Expression;
pub(crate) use find::is_true;

/// Longest path text; the longest that Ceilometer ships has 90 characters.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Deepest nesting of groups and filters in a path; deeper texts would only be attacks on the stack.
pub const DEPTH_MAX: usize = 32;
/// Matches that one path may have in one message; `..` in a large message stops here.
pub const MATCHES_MAX: usize = 10_000;

/// A parsed path.
#[derive(Clone, Debug)]
pub struct Path {
    text: String,
    expression: Expression,
    /// The same path as alternatives of plain names, where it is no more than that; nearly all paths are, and samples
    /// are placed by the million.
    chains: Option<Vec<Vec<String>>>,
}

/// A text that is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path: {reason} at character {position}")]
pub struct PathError {
    /// The text, cut to 120 characters.
    pub text: String,
    /// Where, counted in characters from 1.
    pub position: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Something that a path can start from or find.
#[derive(Clone, Debug)]
pub enum Datum<'a> {
    /// A JSON value.
    Json(&'a Value),
    /// A JSON value that the path computed.
    Made(Value),
    /// A JSON object that is kept as a sorted map.
    Map(&'a BTreeMap<String, Value>),
    /// A text on its own.
    Text(&'a str),
    /// Named values that stand side by side without a map of their own.
    Record(&'a [(&'static str, Datum<'a>)]),
}

/// A match of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'a> {
    /// Where it was found, as names and `[index]`es joined by dots, without the root.
    pub path: String,
    /// What was found.
    pub value: Cow<'a, Value>,
}

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let expression = parse::parse(text)?;
        let chains = expression.chains();
        Ok(Self { text: text.to_owned(), expression, chains })
    }

    /// The union of several paths, in their order; what Ceilometer makes of a list of `fields`.
    pub fn parse_any(texts: &[&str]) -> Result<Self, PathError> {
        match texts {
            [text] => Self::parse(text),
            _ => {
                for text in texts {
                    Self::parse(text)?;
                }
                Self::parse(&texts.iter().map(|text| format!("({text})")).collect::<Vec<_>>().join("|"))
            }
        }
    }

    /// All matches that are not null, in document order of each alternative.
    pub fn find<'a>(&self, root: &Datum<'a>) -> Vec<Found<'a>> {
        find::find(&self.expression, root)
    }

    /// The first match that is not null.
    pub fn first(&self, root: &Datum<'_>) -> Option<Value> {
        match &self.chains {
            Some(chains) => chains.iter().find_map(|chain| find::follow(chain, root)),
            None => self.find(root).into_iter().next().map(|found| found.value.into_owned()),
        }
    }

    /// The names that the path begins with, if it is nothing but names; for saying what a definition depends on.
    pub fn first_names(&self) -> Option<Vec<&str>> {
        self.chains.as_ref().map(|chains| chains.iter().filter_map(|c| c.first()).map(String::as_str).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Self {
        Self::Json(value)
    }
}

impl<'a> Datum<'a> {
    /// The child of this name.
    fn child(&self, name: &str) -> Option<Datum<'a>> {
        match self {
            Self::Json(Value::Object(map)) => map.get(name).map(Datum::Json),
            Self::Map(map) => map.get(name).map(Datum::Json),
            Self::Record(entries) => entries.iter().find(|(key, _)| *key == name).map(|(_, datum)| datum.clone()),
            Self::Made(Value::Object(map)) => map.get(name).cloned().map(Datum::Made),
            Self::Json(_) | Self::Made(_) | Self::Text(_) => None,
        }
    }

    /// Elements, if this is a list.
    fn elements(&self) -> Option<Vec<Datum<'a>>> {
        match self {
            Self::Json(Value::Array(list)) => Some(list.iter().map(Datum::Json).collect()),
            Self::Made(Value::Array(list)) => Some(list.iter().cloned().map(Datum::Made).collect()),
            _ => None,
        }
    }

    /// Named children, if this is an object.
    fn entries(&self) -> Option<Vec<(String, Datum<'a>)>> {
        match self {
            Self::Json(Value::Object(map)) => Some(map.iter().map(|(k, v)| (k.clone(), Datum::Json(v))).collect()),
            Self::Made(Value::Object(map)) => {
                Some(map.iter().map(|(k, v)| (k.clone(), Datum::Made(v.clone()))).collect())
            }
            Self::Map(map) => Some(map.iter().map(|(k, v)| (k.clone(), Datum::Json(v))).collect()),
            Self::Record(entries) => Some(entries.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()),
            Self::Json(_) | Self::Made(_) | Self::Text(_) => None,
        }
    }

    /// As a JSON value.
    fn to_value(&self) -> Cow<'a, Value> {
        match self {
            Self::Json(value) => Cow::Borrowed(value),
            Self::Made(value) => Cow::Owned(value.clone()),
            Self::Text(text) => Cow::Owned(Value::from(*text)),
            Self::Map(map) => Cow::Owned(Value::Object(map.iter().map(|(k, v)| (k.clone(), v.clone())).collect())),
            Self::Record(entries) => {
                let object = entries.iter().map(|(k, v)| ((*k).to_owned(), v.to_value().into_owned()));
                Cow::Owned(Value::Object(object.collect()))
            }
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Json(Value::Null) | Self::Made(Value::Null))
    }
}
