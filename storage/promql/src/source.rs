//! Where points come from.

use std::sync::Arc;

use async_trait::async_trait;
use regex::Regex;

use crate::{Labels, QueryError};

/// How a label's value is compared.
#[derive(Clone, Debug)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Matches(Regex),
    /// `!~`, anchored at both ends
    MatchesNot(Regex),
}

/// A condition on one label; a label that is not there has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what, as it was written.
    pub value: String,
}

/// Longer expressions are no filters that a person or a dashboard wrote.
const EXPRESSION_BYTES_MAX: usize = 64 * 1024;

impl Matcher {
    /// From its parts, as they stand in a selector: `=`, `!=`, `=~` or `!~`.
    pub fn new(name: String, operator: &str, value: String) -> Result<Self, QueryError> {
        let wrong = |reason: String| QueryError::Syntax(format!("the matcher of {name:?} is none: {reason}"));
        let expression = || {
            if value.len() > EXPRESSION_BYTES_MAX {
                return Err(wrong(format!("it is longer than {EXPRESSION_BYTES_MAX} bytes")));
            }
            Regex::new(&format!("^(?s:{value})$")).map_err(|error| wrong(error.to_string()))
        };
        let operator = match operator {
            "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "=~" => Operator::Matches(expression()?),
            "!~" => Operator::MatchesNot(expression()?),
            other => return Err(wrong(format!("{other:?} is no operator"))),
        };
        Ok(Self { name, operator, value })
    }

    /// Whether a value of the label fulfils it.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.operator {
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
            Operator::Matches(regex) => regex.is_match(value),
            Operator::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// Conditions that must all hold.
pub type MatcherGroup = Vec<Matcher>;

/// Which points a selector needs.
#[derive(Clone, Debug)]
pub struct Selection {
    /// A series belongs to it if all matchers of any group hold.
    pub groups: Vec<MatcherGroup>,
    /// Points after this time, in milliseconds …
    pub after_ms: i64,
    /// … up to and including this one.
    pub until_ms: i64,
}

/// The points of one series, in the order of their times, no time twice.
#[derive(Clone, Debug)]
pub struct RawSeries {
    /// Its labels, `__name__` among them.
    pub labels: Labels,
    /// Milliseconds since 1970.
    pub times: Arc<[i64]>,
    /// As many values; stale markers included.
    pub values: Arc<[f64]>,
}

/// Answers selectors. It gives only what the caller may see, and should stop reading when a limit is passed.
#[async_trait]
pub trait SeriesSource: Send + Sync {
    /// All series of a selection that have points in its range.
    async fn select(
        &self,
        selection: &Selection,
        series_max: usize,
        points_max: usize,
    ) -> Result<Vec<RawSeries>, QueryError>;
}
