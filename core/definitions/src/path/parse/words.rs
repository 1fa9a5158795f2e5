//! The parser's smallest parts: constants, numbers, names, quoted text, and functions in back-ticks.

use regex::Regex;
use serde_json::Value;

use super::Parser;
use crate::path::{PathError, expression::Expression};

impl Parser<'_> {
    pub(super) fn constant(&mut self) -> Result<Value, PathError> {
        self.skip_space();
        match self.peek() {
            Some(c) if c == '-' || c.is_ascii_digit() => self.number(),
            Some('\'' | '"') => self.quoted().map(Value::String),
            _ => Ok(match self.name()?.as_str() {
                "true" | "True" => Value::Bool(true),
                "false" | "False" => Value::Bool(false),
                other => Value::String(other.to_owned()),
            }),
        }
    }

    pub(super) fn number(&mut self) -> Result<Value, PathError> {
        let start = self.at;
        if self.peek() == Some('-') {
            self.at += 1;
        }
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let has_fraction = self.peek() == Some('.') && self.peek_after(1).is_some_and(|c| c.is_ascii_digit());
        if has_fraction {
            self.at += 1;
            while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                self.at += 1;
            }
        }
        let text: String = self.characters[start..self.at].iter().collect();
        serde_json::from_str::<serde_json::Number>(&text)
            .map(Value::Number)
            .map_err(|_| self.error(format!("`{text}` is not a number")))
    }

    pub(super) fn name(&mut self) -> Result<String, PathError> {
        self.skip_space();
        match self.peek() {
            Some('\'' | '"') => self.quoted(),
            Some(c) if is_name(c) && !c.is_ascii_digit() && c != '-' => {
                let start = self.at;
                while self.peek().is_some_and(is_name) {
                    self.at += 1;
                }
                Ok(self.characters[start..self.at].iter().collect())
            }
            Some(c) => Err(self.error(format!("unexpected `{c}` where a name should be"))),
            None => Err(self.error("the path ends where a name should be")),
        }
    }

    pub(super) fn quoted(&mut self) -> Result<String, PathError> {
        let quote = self.peek().expect("the caller has seen the quote");
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(self.error(format!("missing {quote}"))),
                Some('\\') => {
                    let escaped = self.peek_after(1).ok_or_else(|| self.error("nothing after `\\`"))?;
                    text.push(escaped);
                    self.at += 2;
                }
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    pub(super) fn function(&mut self) -> Result<Expression, PathError> {
        let start = self.at;
        let length = self.characters[start + 1..].iter().position(|c| *c == '`');
        let length = length.ok_or_else(|| self.error("missing the closing back-tick"))?;
        let text: String = self.characters[start + 1..start + 1 + length].iter().collect();
        let expression = match text.as_str() {
            "this" => Expression::This,
            "parent" => Expression::Parent,
            "len" => Expression::Length,
            "sorted" => Expression::Sorted,
            _ => self.function_with_arguments(&text)?,
        };
        self.at = start + length + 2;
        Ok(expression)
    }

    fn function_with_arguments(&self, text: &str) -> Result<Expression, PathError> {
        let arguments = |name: &str| {
            text.strip_prefix(name).and_then(|t| t.trim_start().strip_prefix('(')).and_then(|t| t.strip_suffix(')'))
        };
        if let Some(arguments) = arguments("split") {
            // The separator may itself be a comma, so the numbers are taken from the end.
            let mut parts = arguments.rsplitn(3, ',');
            let splits_max = parts.next().and_then(|t| t.trim().parse::<i64>().ok());
            let segment = parts.next().and_then(|t| t.trim().parse().ok());
            return match (parts.next(), segment, splits_max) {
                (Some(separator), Some(segment), Some(splits_max)) if !separator.is_empty() => Ok(Expression::Split {
                    separator: separator.to_owned(),
                    segment,
                    splits_max: usize::try_from(splits_max).ok(),
                }),
                _ => Err(self.error("expected split(separator, segment, splits or -1)")),
            };
        }
        if let Some((pattern, replacement)) =
            arguments("sub").and_then(|t| t.trim_start().strip_prefix('/')).and_then(|t| t.rsplit_once("/,"))
        {
            // Python writes groups as \1, the regex crate as ${1}.
            let group = Regex::new(r"\\(\d)").expect("the pattern is constant");
            let replacement = group.replace_all(&replacement.trim_start().replace('$', "$$"), "$${$1}").into_owned();
            return Ok(Expression::Substitute { pattern: self.regex(pattern)?, replacement });
        }
        Err(self.error(format!("unknown function `{text}`; known are len, sorted, split, sub, parent, this")))
    }

    pub(super) fn regex(&self, pattern: &str) -> Result<Regex, PathError> {
        crate::pattern::regex(pattern).map_err(|reason| self.error(reason))
    }
}

pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '@' | '-')
}
