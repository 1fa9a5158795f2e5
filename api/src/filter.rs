//! The text form of a resource search (`filter=`, or a string as `search`) → the JSON form that the index understands.
//!
//! Grammar as in Gnocchi 4.7's documentation: `attribute OP value`, `not`, `and`/`∧`, `or`/`∨`, parentheses; values are
//! null, booleans, UUIDs, words, numbers, quoted texts, and lists in brackets. `not` binds closest, then `and`, then `or`.

use serde_json::{Map, Number, Value, json};

use crate::problem::Problem;

/// A filter is typed by people or built by dashboards; longer ones belong into a JSON body.
const LENGTH_MAX: usize = 16 * 1024;
/// Deeper nesting is an attack on the stack, not a question.
const DEPTH_MAX: usize = 50;

/// Reads a filter. An empty one matches everything (`{}`).
pub(crate) fn parse(text: &str) -> Result<Value, Problem> {
    if text.len() > LENGTH_MAX {
        return Err(Problem::bad(format!("Invalid filter: longer than {LENGTH_MAX} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    let mut reader = Reader { text, at: 0 };
    let answer = reader.alternatives(0).and_then(|tree| {
        reader.skip_space();
        if reader.rest().is_empty() { Ok(tree) } else { Err("Expected end of text") }
    });
    answer.map_err(|expected| {
        let line = text[..reader.at].matches('\n').count() + 1;
        let column = text[..reader.at].chars().rev().take_while(|c| *c != '\n').count() + 1;
        let at = text[..reader.at].chars().count();
        Problem::bad(format!("Invalid filter: {expected}  (at char {at}), (line:{line}, col:{column})"))
    })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Parsed = Result<Value, &'static str>;

/// Longest first, so that `>=` is not read as `>`. `==` is for JSON only: Gnocchi refuses it here.
const SIGNS: [&str; 9] = [">=", "<=", "!=", ">", "<", "=", "≠", "≥", "≤"];
const WORD_SIGNS: [&str; 8] = ["eq", "ne", "lt", "gt", "ge", "le", "in", "like"];

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes a sign if it comes next.
    fn sign(&mut self, sign: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Takes a word if it comes next and ends there.
    fn word(&mut self, word: &str) -> bool {
        self.skip_space();
        let found = self.rest().strip_prefix(word).is_some_and(|after| !after.starts_with(is_word_character));
        if found {
            self.at += word.len();
        }
        found
    }

    fn alternatives(&mut self, depth: usize) -> Parsed {
        let mut parts = vec![self.conjunction(depth)?];
        while self.word("or") || self.sign("∨") {
            parts.push(self.conjunction(depth)?);
        }
        Ok(joined("or", parts))
    }

    fn conjunction(&mut self, depth: usize) -> Parsed {
        let mut parts = vec![self.term(depth)?];
        while self.word("and") || self.sign("∧") {
            parts.push(self.term(depth)?);
        }
        Ok(joined("and", parts))
    }

    fn term(&mut self, depth: usize) -> Parsed {
        if depth >= DEPTH_MAX {
            return Err("too deeply nested");
        }
        if self.word("not") {
            return Ok(json!({"not": self.term(depth + 1)?}));
        }
        if self.sign("(") {
            let inside = self.alternatives(depth + 1)?;
            return if self.sign(")") { Ok(inside) } else { Err("Expected ')'") };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed {
        let attribute = self.bare_word().ok_or("Expected an attribute")?;
        let operator = SIGNS
            .into_iter()
            .find(|sign| self.sign(sign))
            .or_else(|| WORD_SIGNS.into_iter().find(|word| self.word(word)))
            .ok_or("Expected an operator")?;
        let value = if self.sign("[") { self.list()? } else { self.value()? };
        if operator == "in" && !value.is_array() {
            return Err("Expected a list");
        }
        let mut pair = Map::new();
        pair.insert(attribute.to_owned(), value);
        Ok(json!({operator: pair}))
    }

    fn list(&mut self) -> Parsed {
        // An empty list is the search's affair, which refuses it in its own words.
        if self.sign("]") {
            return Ok(json!([]));
        }
        let mut values = vec![self.value()?];
        while self.sign(",") {
            values.push(self.value()?);
        }
        if self.sign("]") { Ok(Value::Array(values)) } else { Err("Expected ']'") }
    }

    fn value(&mut self) -> Parsed {
        self.skip_space();
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let end = rest[1..].find(quote).ok_or("Expected a closing quote")?;
            self.at += end + 2;
            return Ok(Value::String(rest[1..=end].to_owned()));
        }
        let length = rest.find(|c: char| !is_word_character(c) && !matches!(c, '-' | '+' | '.')).unwrap_or(rest.len());
        let word = &rest[..length];
        let value = match word {
            "null" | "None" | "none" => Value::Null,
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            _ if word.len() >= 32 && uuid::Uuid::try_parse(word).is_ok() => Value::String(word.to_owned()),
            _ if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let end = word.find(|c| !is_word_character(c)).unwrap_or(word.len());
                self.at += end;
                return Ok(Value::String(word[..end].to_owned()));
            }
            _ => number(word).ok_or("Expected a value")?,
        };
        self.at += length;
        Ok(value)
    }

    fn bare_word(&mut self) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c| !is_word_character(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        word.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| {
            self.at += end;
            word
        })
    }
}

fn is_word_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn number(word: &str) -> Option<Value> {
    if let Ok(whole) = word.trim_start_matches('+').parse::<i64>() {
        return Some(Value::from(whole));
    }
    // Words such as `inf` never get here: they start with a letter.
    word.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number)
}

/// The last part stands first, as in Gnocchi: of several that are wrong, it is the one that is told.
fn joined(operator: &str, mut parts: Vec<Value>) -> Value {
    parts.reverse();
    if parts.len() == 1 { parts.remove(0) } else { json!({operator: parts}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_the_json_form() {
        for (text, expected) in [
            ("", json!({})),
            ("a=1", json!({"=": {"a": 1}})),
            ("a = -1.5", json!({"=": {"a": -1.5}})),
            ("flavor_id!=\"1\"", json!({"!=": {"flavor_id": "1"}})),
            ("nm like 'x%' and size>2", json!({"and": [{">": {"size": 2}}, {"like": {"nm": "x%"}}]})),
            (
                "not (flavor_id!=\"1\" and memory>=24)",
                json!({"not": {"and": [{">=": {"memory": 24}}, {"!=": {"flavor_id": "1"}}]}}),
            ),
            ("a=1 or b=2 and c=3", json!({"or": [{"and": [{"=": {"c": 3}}, {"=": {"b": 2}}]}, {"=": {"a": 1}}]})),
            ("a=1 ∨ b=2 ∨ c≠3", json!({"or": [{"≠": {"c": 3}}, {"=": {"b": 2}}, {"=": {"a": 1}}]})),
            ("ended_at = null", json!({"=": {"ended_at": null}})),
            ("on eq True", json!({"eq": {"on": true}})),
            ("id=90d58eea-70d7-4294-a49a-170dcdf44c3c", json!({"=": {"id": "90d58eea-70d7-4294-a49a-170dcdf44c3c"}})),
            ("host in [\"a\", b, 3]", json!({"in": {"host": ["a", "b", 3]}})),
            ("not not a=b", json!({"not": {"not": {"=": {"a": "b"}}}})),
            ("android = nothing", json!({"=": {"android": "nothing"}})),
        ] {
            assert_eq!(parse(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_filter_is_refused_with_its_place() {
        for text in
            ["nm", "a=", "=1", "(a=1", "a=1)", "a=1 b=2", "a in b", "a='x", "a=[1", "a==1", "and", "a=1 and", "é=1"]
        {
            let problem = parse(text).expect_err(text);
            assert!(problem.description.as_str().is_some_and(|d| d.starts_with("Invalid filter: ")), "{text}");
        }
        assert!(parse(&"(".repeat(5_000)).is_err());
        assert!(parse(&"not ".repeat(4_000)).is_err());
        assert!(parse(&format!("a='{}'", "x".repeat(LENGTH_MAX))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[a-z0-9 ()=<>!'\"\\[\\],∧∨≠é-]{0,60}") {
            let _ = parse(&text);
        }
    }
}
