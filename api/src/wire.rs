//! How answers are written: JSON, with measures straight to text, and with Gnocchi's bare `NaN` and `Infinity`.
//!
//! JSON knows no NaN, but Gnocchi writes it so, and Python's clients read it so; only measures can hold one. In request
//! bodies the same bare words are read as texts (a measure's value may be a text).

use std::{borrow::Cow, fmt::Write};

use serde_json::Value;

/// An answer's body. Objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    /// Anything without measures.
    Json(Value),
    /// Text that is JSON, or Gnocchi's bare `NaN`, already: measures.
    Written(String),
    /// Named parts.
    Object(Vec<(String, Tree)>),
    /// Parts in order.
    List(Vec<Tree>),
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl Tree {
    /// The text of this tree.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Json(value) => write_json(value, out),
            Self::Written(text) => out.push_str(text),
            Self::Object(parts) => {
                out.push('{');
                for (index, (name, part)) in parts.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    write_text(name, out);
                    out.push_str(": ");
                    part.write(out);
                }
                out.push('}');
            }
            Self::List(parts) => {
                out.push('[');
                for (index, part) in parts.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    part.write(out);
                }
                out.push(']');
            }
        }
    }
}

/// JSON as Python writes it, which clients' tests compare as text: `", "` and `": "` between things, ASCII only.
pub(crate) fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (name, field)) in fields.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_text(name, out);
                out.push_str(": ");
                write_json(field, out);
            }
            out.push('}');
        }
    }
}

/// A text with its quotes.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    // Most texts need no escapes and are copied whole. A byte beyond ASCII is the first of its character.
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..b' ' | b'\x7f'..)) {
        out.push_str(&rest[..at]);
        let c = rest[at..].chars().next().unwrap_or_default();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
        rest = &rest[at + c.len_utf8()..];
    }
    out.push_str(rest);
    out.push('"');
}

/// A request body with bare `NaN`, `Infinity` and `-Infinity` turned into texts, so that a JSON reader takes it.
pub(crate) fn quote_bare_numbers(body: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !WORDS.iter().any(|word| body.contains(word)) {
        return Cow::Borrowed(body);
    }
    let mut out = String::with_capacity(body.len() + 16);
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = text_end(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        } else if let Some(word) = WORDS.iter().find(|word| rest.starts_with(**word)) {
            let _ = write!(out, "\"{word}\"");
            rest = &rest[word.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Cow::Owned(out)
}

/// Length of the JSON text that `rest` starts with, quotes included.
fn text_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_written_already_stay_as_they_are() {
        let tree = Tree::Object(vec![("a\"b".to_owned(), Tree::List(vec![Tree::Written("[NaN]".to_owned())]))]);
        assert_eq!(tree.to_text(), "{\"a\\\"b\": [[NaN]]}");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = serde_json::json!({"a\"\\": [1, -2.5, null, true], "é😀\n\u{1}": {}});
        assert_eq!(
            Tree::Json(value.clone()).to_text(),
            r#"{"a\"\\": [1, -2.5, null, true], "\u00e9\ud83d\ude00\n\u0001": {}}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&Tree::Json(value.clone()).to_text()).expect("JSON"), value);
    }

    #[test]
    fn bare_numbers_are_quoted_only_outside_texts() {
        assert_eq!(quote_bare_numbers("[1,2]"), "[1,2]");
        assert_eq!(
            quote_bare_numbers(r#"{"NaN \"NaN": NaN, "é": -Infinity, "x": [Infinity]}"#),
            r#"{"NaN \"NaN": "NaN", "é": "-Infinity", "x": ["Infinity"]}"#
        );
        assert_eq!(quote_bare_numbers("\"NaN"), "\"NaN");
    }

    proptest::proptest! {
        #[test]
        fn quoting_never_breaks_and_keeps_good_json(text in "\\PC{0,40}") {
            let _ = quote_bare_numbers(&text);
            let json = serde_json::to_string(&text).expect("text");
            proptest::prop_assert_eq!(quote_bare_numbers(&json), json.as_str());
        }
    }
}
