//! `prometheus`: every value of an instant query is compared with a threshold.

use serde_json::{Value, json};

use super::Condition;
use crate::{alarm::AlarmError, fields::Fields, promql};

/// A rule on the answer of a Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub struct PrometheusRule {
    /// Operator and threshold.
    pub condition: Condition,
    /// PromQL.
    pub query: String,
    /// The project whose series alone are asked for; set for who is not an operator.
    pub scope_to_project: Option<String>,
}

/// A query that a person wrote.
const QUERY_BYTES_MAX: usize = 16 * 1024;

impl PrometheusRule {
    pub(super) fn parse(path: &str, json: &Value) -> Result<Self, AlarmError> {
        let known = ["comparison_operator", "threshold", "clear_threshold", "query", "scope_to_project"];
        let fields = Fields::of(path, json, &known)?;
        let rule = Self {
            condition: Condition::parse(&fields)?,
            query: fields.required_text("query")?,
            scope_to_project: fields.text("scope_to_project")?,
        };
        if rule.query.len() > QUERY_BYTES_MAX {
            return Err(AlarmError::Refused(format!("query is longer than {QUERY_BYTES_MAX} bytes")));
        }
        promql::scoped(&rule.query, "project", "p").map_err(|reason| {
            AlarmError::invalid("query", &json!(rule.query), &format!("It is not a PromQL query: {reason}"))
        })?;
        Ok(rule)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({"query": self.query});
        self.condition.write(&mut json);
        if let Some(project) = &self.scope_to_project {
            json["scope_to_project"] = json!(project);
        }
        json
    }
}
