//! YAML text → a tree of nodes that know their line, and the reading of it with errors that name file, line and field.
//!
//! Read as PyYAML reads it where that can matter: merge keys, YAML 1.1 booleans (`yes`, `on`), octal-looking numbers.
//! Unlike PyYAML, a repeated key is refused, and sizes and alias replays are bounded. This file knows no definition.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};

use crate::{DefinitionError, FILE_BYTES_MAX};

/// Nodes of one file after aliases are replayed; Ceilometer's largest has about 3,000.
const NODES_MAX: usize = 200_000;
/// Events that aliases and merge keys may add; a small file with nested aliases would otherwise become a huge one.
const REPLAYED_EVENTS_MAX: usize = 200_000;

/// A value with the place where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) value: Yaml,
}

/// What YAML can say.
#[derive(Clone, Debug)]
pub(crate) enum Yaml {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Where a node is, for errors: the file and the way of names that leads there.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    file: &'a str,
    field: String,
}

/// Reads one document; an empty one is null.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, DefinitionError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(DefinitionError::TooLarge { file: file.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_depth: 64,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED_EVENTS_MAX },
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let node: Spanned<Yaml> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        DefinitionError::Syntax {
            file: file.to_owned(),
            line: location.map_or(1, |l| l.line()),
            column: location.map_or(1, |l| l.column()),
            reason: one_line(&error.to_string()),
        }
    })?;
    Ok(node.into())
}

/// The first line, without the position that the parser's own texts carry at their end or start.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let line = line.rfind(" at line ").map_or(line, |at| &line[..at]);
    line.trim_start_matches("error: ").to_owned()
}

impl<'a> Place<'a> {
    /// The top of a file.
    pub(crate) fn top(file: &'a str) -> Self {
        Self { file, field: String::new() }
    }

    /// A named child.
    pub(crate) fn child(&self, name: &str) -> Self {
        let field = if self.field.is_empty() { name.to_owned() } else { format!("{}.{name}", self.field) };
        Self { file: self.file, field }
    }

    /// An element of a list.
    pub(crate) fn element(&self, index: usize) -> Self {
        Self { file: self.file, field: format!("{}[{index}]", self.field) }
    }

    /// An error at `node`.
    pub(crate) fn error(&self, node: &Node, reason: impl Into<String>) -> DefinitionError {
        DefinitionError::Field {
            file: self.file.to_owned(),
            line: node.line,
            column: node.column,
            field: if self.field.is_empty() { "top level".to_owned() } else { self.field.clone() },
            reason: reason.into(),
        }
    }
}

impl Node {
    /// What it is, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Yaml::Null => "nothing",
            Yaml::Bool(_) => "a boolean",
            Yaml::Integer(_) | Yaml::Float(_) => "a number",
            Yaml::Text(_) => "a text",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a map",
        }
    }

    /// A text; numbers and booleans are taken as they would be printed.
    pub(crate) fn text(&self, place: &Place<'_>) -> Result<String, DefinitionError> {
        match &self.value {
            Yaml::Text(text) => Ok(text.clone()),
            Yaml::Integer(number) => Ok(number.to_string()),
            Yaml::Float(number) => Ok(number.to_string()),
            Yaml::Bool(value) => Ok(value.to_string()),
            _ => Err(place.error(self, format!("expected a text, found {}", self.kind()))),
        }
    }

    /// A whole number that is not negative, also when written as text.
    pub(crate) fn count(&self, place: &Place<'_>) -> Result<u64, DefinitionError> {
        let number = match &self.value {
            Yaml::Integer(number) => u64::try_from(*number).ok(),
            Yaml::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| place.error(self, format!("expected a whole number, found {}", self.kind())))
    }

    /// A boolean.
    pub(crate) fn boolean(&self, place: &Place<'_>) -> Result<bool, DefinitionError> {
        match &self.value {
            Yaml::Bool(value) => Ok(*value),
            Yaml::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" => Ok(true),
                "no" | "off" | "false" => Ok(false),
                _ => Err(place.error(self, format!("expected true or false, found `{text}`"))),
            },
            _ => Err(place.error(self, format!("expected true or false, found {}", self.kind()))),
        }
    }

    /// A text or a list of texts; nothing is an empty list.
    pub(crate) fn texts(&self, place: &Place<'_>) -> Result<Vec<String>, DefinitionError> {
        match &self.value {
            Yaml::Null => Ok(Vec::new()),
            Yaml::List(list) => list.iter().enumerate().map(|(index, node)| node.text(&place.element(index))).collect(),
            _ => Ok(vec![self.text(place)?]),
        }
    }

    /// A list; nothing is an empty list.
    pub(crate) fn list(&self, place: &Place<'_>) -> Result<&[Node], DefinitionError> {
        match &self.value {
            Yaml::List(list) => Ok(list),
            Yaml::Null => Ok(&[]),
            _ => Err(place.error(self, format!("expected a list, found {}", self.kind()))),
        }
    }

    /// A map with any names; nothing is an empty map.
    pub(crate) fn entries(&self, place: &Place<'_>) -> Result<Vec<(String, &Node)>, DefinitionError> {
        match &self.value {
            Yaml::Map(entries) => entries.iter().map(|(key, node)| Ok((key.text(place)?, node))).collect(),
            Yaml::Null => Ok(Vec::new()),
            _ => Err(place.error(self, format!("expected a map, found {}", self.kind()))),
        }
    }

    /// A map with only these names.
    pub(crate) fn fields(&self, place: &Place<'_>, known: &[&str]) -> Result<Fields<'_>, DefinitionError> {
        let Yaml::Map(entries) = &self.value else {
            return Err(place.error(self, format!("expected a map, found {}", self.kind())));
        };
        let mut fields = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let name = key.text(place)?;
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(place.child(&name).error(key, format!("unknown key; known are {known}")));
            }
            fields.push((name, node));
        }
        Ok(Fields { node: self, fields })
    }

    /// As JSON, for values that a definition passes through.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Yaml::Null => serde_json::Value::Null,
            Yaml::Bool(value) => (*value).into(),
            Yaml::Integer(number) => (*number).into(),
            Yaml::Float(number) => (*number).into(),
            Yaml::Text(text) => text.clone().into(),
            Yaml::List(list) => list.iter().map(Node::to_json).collect(),
            Yaml::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .filter_map(|(key, node)| Some((key.text(&Place::top("")).ok()?, node.to_json())))
                    .collect(),
            ),
        }
    }
}

/// A map whose names have been checked.
pub(crate) struct Fields<'a> {
    node: &'a Node,
    fields: Vec<(String, &'a Node)>,
}

impl<'a> Fields<'a> {
    /// A field, if it is there and not nothing.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Node> {
        let node = self.fields.iter().find(|(field, _)| field == name).map(|(_, node)| *node)?;
        (!matches!(node.value, Yaml::Null)).then_some(node)
    }

    /// A field that must be there.
    pub(crate) fn need(&self, place: &Place<'_>, name: &str) -> Result<&'a Node, DefinitionError> {
        self.get(name).ok_or_else(|| place.child(name).error(self.node, "required, but missing"))
    }
}

impl From<Spanned<Yaml>> for Node {
    fn from(spanned: Spanned<Yaml>) -> Self {
        // Where it is written out, also for what an alias or a merge key brought here: that is where to mend it.
        let location = spanned.defined;
        Self { line: location.line(), column: location.column(), value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct YamlVisitor;

        impl<'de> Visitor<'de> for YamlVisitor {
            type Value = Yaml;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }

            fn visit_none<E: de::Error>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Yaml, E> {
                Ok(Yaml::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Yaml, E> {
                Ok(Yaml::Integer(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Yaml, E> {
                i64::try_from(value).map(Yaml::Integer).map_err(|_| E::custom("a number beyond 64 bits"))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Yaml, E> {
                Ok(Yaml::Float(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Yaml, E> {
                Ok(Yaml::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = access.next_element::<Spanned<Yaml>>()? {
                    list.push(node.into());
                }
                Ok(Yaml::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = access.next_key::<Spanned<String>>()? {
                    let key = Spanned::new(Yaml::Text(key.value), key.referenced, key.defined);
                    let value = access.next_value::<Spanned<Yaml>>()?;
                    entries.push((key.into(), value.into()));
                }
                Ok(Yaml::Map(entries))
            }
        }

        deserializer.deserialize_any(YamlVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_their_line_also_behind_aliases_and_merge_keys() {
        let text = "base: &base\n  a: 1\n  b: yes\nother:\n  <<: *base\n  b: off\nagain: *base\n";
        let node = parse("f.yaml", text).expect("it is YAML");
        let place = Place::top("f.yaml");
        let top = node.fields(&place, &["base", "other", "again"]).expect("a map");
        let other = top.get("other").expect("there").fields(&place, &["a", "b"]).expect("a map");
        assert_eq!(other.get("a").expect("merged").line, 2);
        assert!(!other.get("b").expect("own").boolean(&place).expect("a boolean"), "its own value wins");
        let again = top.get("again").expect("there").fields(&place, &["a", "b"]).expect("a map");
        assert!(again.get("b").expect("there").boolean(&place).expect("a boolean"));
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let node = parse("f.yaml", "a:\n  b: 1\n  c: 2\n").expect("it is YAML");
        let place = Place::top("f.yaml");
        let a = node.fields(&place, &["a"]).expect("a map").get("a").expect("there");
        let error = a.fields(&place.child("a"), &["b"]).err().expect("c is unknown");
        assert_eq!(error.to_string(), "f.yaml:3:3: `a.c`: unknown key; known are b");
        let error = parse("f.yaml", "a: 1\nb: [\n").expect_err("not YAML").to_string();
        assert!(error.starts_with("f.yaml:"), "{error}");
        let error = parse("f.yaml", "a: 1\na: 2\n").expect_err("a repeated key").to_string();
        assert!(error.starts_with("f.yaml:2:1: "), "{error}");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (name, previous) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
            text += &format!("{name}: &{name} [{}]\n", vec![format!("*{previous}"); 9].join(", "));
        }
        assert!(parse("bomb.yaml", &text).is_err());
        assert!(parse("large.yaml", &"#".repeat(FILE_BYTES_MAX + 1)).is_err());
    }
}
