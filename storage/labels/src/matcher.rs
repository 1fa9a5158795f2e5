//! What a label must be: `=`, `!=`, `=~`, `!~`, as Prometheus means them. Pure.
//!
//! A label that is not there counts as empty, and expressions match a value from its beginning to its end.

use regex::Regex;

/// Longest expression; what is longer is a program, not a question.
const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// Memory that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// How a label's value is looked at.
#[derive(Clone, Debug)]
enum Rule {
    Equal(String),
    Matching(Regex),
}

/// What one label must be, or must not be.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    rule: Rule,
    is_positive: bool,
}

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the expression for label `{name}` cannot be used: {reason}")]
pub struct MatcherError {
    /// Which label.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl Matcher {
    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), rule: Rule::Equal(value.into()), is_positive: true }
    }

    /// `name!="value"`.
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { is_positive: false, ..Self::equal(name, value) }
    }

    /// `name=~"expression"`.
    pub fn matching(name: impl Into<String>, expression: &str) -> Result<Self, MatcherError> {
        let name = name.into();
        let failed = |reason: String| MatcherError { name: name.clone(), reason };
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(failed(format!("it is longer than {EXPRESSION_BYTES_MAX} bytes")));
        }
        let whole = regex::RegexBuilder::new(&format!("^(?s:{expression})$")).size_limit(COMPILED_BYTES_MAX).build();
        let expression = whole.map_err(|error| failed(error.to_string()))?;
        Ok(Self { name, rule: Rule::Matching(expression), is_positive: true })
    }

    /// `name!~"expression"`.
    pub fn not_matching(name: impl Into<String>, expression: &str) -> Result<Self, MatcherError> {
        Ok(Self { is_positive: false, ..Self::matching(name, expression)? })
    }

    /// Which label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value is as it should be; of a label that is not there the value is empty.
    pub fn accepts(&self, value: &str) -> bool {
        let is_so = match &self.rule {
            Rule::Equal(wanted) => wanted == value,
            Rule::Matching(expression) => expression.is_match(value),
        };
        is_so == self.is_positive
    }

    /// The one value that it accepts, if it is of that kind.
    pub(crate) fn only(&self) -> Option<&str> {
        match &self.rule {
            Rule::Equal(value) if self.is_positive && !value.is_empty() => Some(value),
            _ => None,
        }
    }

    /// The one value that it does not accept, if it is of that kind.
    pub(crate) fn all_but(&self) -> Option<&str> {
        match &self.rule {
            Rule::Equal(value) if !self.is_positive && !value.is_empty() => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_values_and_absence_is_empty() {
        let a = |value| Matcher::matching("x", value).expect("an expression");
        assert!(a("a|b").accepts("b") && !a("a|b").accepts("ab") && !a("a").accepts("ba"));
        assert!(a(".*").accepts("") && !a(".+").accepts("") && a(".*").accepts("two\nlines"));
        assert!(Matcher::not_equal("x", "a").accepts("") && !Matcher::not_equal("x", "").accepts(""));
        assert!(Matcher::not_matching("x", "a.*").expect("an expression").accepts(""));
    }

    #[test]
    fn hostile_expressions_are_refused() {
        assert!(Matcher::matching("x", "(").is_err());
        assert!(Matcher::matching("x", "((a{1000}){1000}){1000}").is_err());
        assert!(Matcher::matching("x", &"a".repeat(EXPRESSION_BYTES_MAX + 1)).is_err());
    }
}
