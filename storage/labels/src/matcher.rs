//! What a label must be: `=`, `!=`, `=~`, `!~`, as Prometheus means them. Pure.
//!
//! A label that is not there counts as empty, and expressions match a value from its beginning to its end.

use regex::Regex;
use regex_syntax::hir::literal::Extractor;

/// Longest expression; what is longer is a program, not a question.
const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// Memory that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Most expressions of dashboards are a list of values; longer lists are matched as expressions.
const VALUES_MAX: usize = 1000;

/// How a label's value is looked at.
#[derive(Clone, Debug)]
enum Rule {
    /// It is one of these, which are sorted.
    OneOf(Vec<String>),
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
        Self { name: name.into(), rule: Rule::OneOf(vec![value.into()]), is_positive: true }
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
        if let Some(values) = values_of(expression) {
            return Ok(Self { name, rule: Rule::OneOf(values), is_positive: true });
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
            Rule::OneOf(values) => values.binary_search_by(|wanted| (**wanted).cmp(value)).is_ok(),
            Rule::Matching(expression) => expression.is_match(value),
        };
        is_so == self.is_positive
    }

    /// The values that it accepts, if they can be told; none of them is empty.
    pub(crate) fn only(&self) -> Option<&[String]> {
        self.values().filter(|_| self.is_positive)
    }

    /// The values that it does not accept, if they can be told; none of them is empty.
    pub(crate) fn all_but(&self) -> Option<&[String]> {
        self.values().filter(|_| !self.is_positive)
    }

    fn values(&self) -> Option<&[String]> {
        match &self.rule {
            Rule::OneOf(values) if values.first().is_some_and(|first| !first.is_empty()) => Some(values),
            _ => None,
        }
    }
}

/// The values that an expression matches, sorted, if it is but a list of them.
fn values_of(expression: &str) -> Option<Vec<String>> {
    let parsed = regex_syntax::Parser::new().parse(&format!("(?s:{expression})")).ok()?;
    // What looks around is not in the values.
    if !parsed.properties().look_set().is_empty() {
        return None;
    }
    let found = Extractor::new().limit_total(VALUES_MAX).extract(&parsed);
    let literals = found.literals().filter(|_| found.is_exact())?;
    let mut values = Vec::with_capacity(literals.len());
    for literal in literals {
        values.push(std::str::from_utf8(literal.as_bytes()).ok()?.to_owned());
    }
    values.sort_unstable();
    values.dedup();
    Some(values)
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
    fn a_list_of_values_is_seen_as_one() {
        let values = |expression| values_of(expression).map(|values| values.join(" "));
        assert_eq!(values("host_(2|1|10)").as_deref(), Some("host_1 host_10 host_2"));
        assert_eq!(values("up").as_deref(), Some("up"));
        assert_eq!(values("a|b|a").as_deref(), Some("a b"));
        assert_eq!(values("v[12]").as_deref(), Some("v1 v2"));
        for expression in ["a.*", "a+", "^a", r"\ba", "a$", ".", "(", r"\w", &"[0-9]".repeat(9)] {
            assert_eq!(values(expression), None, "{expression}");
        }
    }

    #[test]
    fn hostile_expressions_are_refused() {
        assert!(Matcher::matching("x", "(").is_err());
        assert!(Matcher::matching("x", "((a{1000}){1000}){1000}").is_err());
        assert!(Matcher::matching("x", &"a".repeat(EXPRESSION_BYTES_MAX + 1)).is_err());
    }
}
