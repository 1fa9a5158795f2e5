//! `composite`: rules of the threshold kinds under `and` and `or`, nested.

use serde_json::{Value, json};

use super::Rule;
use crate::{alarm::AlarmError, python};

/// A composite rule or one of its parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Composite {
    /// All of them.
    And(Vec<Composite>),
    /// Any of them.
    Or(Vec<Composite>),
    /// A rule that is no composite.
    Leaf(Box<Rule>),
}

/// Types that a part may have, sorted, as Aodh's error text lists them.
const PARTS: [&str; 4] = [
    "gnocchi_aggregation_by_metrics_threshold",
    "gnocchi_aggregation_by_resources_threshold",
    "gnocchi_resources_threshold",
    "prometheus",
];
/// Deeper nesting cannot be read by a person, and would only cost stack.
const DEPTH_MAX: usize = 16;
/// Each leaf is a read at every evaluation.
const LEAVES_MAX: usize = 100;

impl Composite {
    pub(super) fn parse(json: &Value) -> Result<Self, AlarmError> {
        let rule = Self::parse_at(json, 0)?;
        let count = rule.leaves().len();
        if count > LEAVES_MAX {
            return Err(AlarmError::Refused(format!("A composite rule has at most {LEAVES_MAX} rules, not {count}")));
        }
        Ok(rule)
    }

    fn parse_at(json: &Value, depth: usize) -> Result<Self, AlarmError> {
        if depth > DEPTH_MAX {
            return Err(AlarmError::Refused(format!("A composite rule is nested at most {DEPTH_MAX} deep")));
        }
        let Value::Object(fields) = json else { return Err(not_composite(json)) };
        if fields.len() == 1 {
            let (key, parts) = fields.iter().next().expect("it has one");
            if key != "and" && key != "or" {
                return Err(AlarmError::Refused(
                    "Threshold rules should be combined with \"and\" or \"or\"".to_owned(),
                ));
            }
            let Value::Array(parts) = parts else { return Err(not_composite(json)) };
            if parts.is_empty() {
                return Err(not_composite(json));
            }
            if parts.len() > LEAVES_MAX {
                let count = parts.len();
                return Err(AlarmError::Refused(format!(
                    "A composite rule has at most {LEAVES_MAX} rules, not {count}"
                )));
            }
            let parts = parts.iter().map(|part| Self::parse_at(part, depth + 1)).collect::<Result<_, _>>()?;
            return Ok(if key == "and" { Self::And(parts) } else { Self::Or(parts) });
        }
        let Some(type_name) = fields.get("type").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(AlarmError::Refused("type must be set in every rule".to_owned()));
        };
        if !PARTS.contains(&type_name) {
            let parts = python::repr(&json!(PARTS));
            return Err(AlarmError::Refused(format!(
                "Unsupported sub-rule type :{type_name} in composite rule, should be one of: {parts}"
            )));
        }
        let mut own = fields.clone();
        own.remove("type");
        if own.get("clear_threshold").is_some_and(|clear| !clear.is_null()) {
            return Err(AlarmError::Refused(
                "clear_threshold needs the state of an alarm, which a part of a composite rule has not".to_owned(),
            ));
        }
        let rule = Rule::parse_at("alarm.composite_rule", type_name, &Value::Object(own))?;
        Ok(Self::Leaf(Box::new(rule)))
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::And(parts) => json!({"and": parts.iter().map(Self::to_json).collect::<Vec<_>>()}),
            Self::Or(parts) => json!({"or": parts.iter().map(Self::to_json).collect::<Vec<_>>()}),
            Self::Leaf(rule) => leaf_json(rule),
        }
    }

    /// The rules, from left to right: `rule1`, `rule2` ... in Aodh's texts.
    pub fn leaves(&self) -> Vec<&Rule> {
        let mut leaves = Vec::new();
        self.collect(&mut leaves);
        leaves
    }

    fn collect<'a>(&'a self, leaves: &mut Vec<&'a Rule>) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.collect(leaves)),
            Self::Leaf(rule) => leaves.push(rule),
        }
    }

    pub(super) fn scope_to(&mut self, project_id: &str) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter_mut().for_each(|part| part.scope_to(project_id)),
            Self::Leaf(rule) => {
                if let Rule::Prometheus(rule) = rule.as_mut() {
                    rule.scope_to_project = Some(project_id.to_owned());
                }
            }
        }
    }
}

/// A leaf as it stands in a composite rule, and among the `causative_rules` of a notice.
pub(crate) fn leaf_json(rule: &Rule) -> Value {
    let mut json = rule.to_json();
    json["type"] = json!(rule.type_name());
    json
}

fn not_composite(json: &Value) -> AlarmError {
    let shown: String = python::text(json).chars().take(256).collect();
    AlarmError::Refused(format!(
        "Invalid input composite rule: {shown}, it should be a dict with an \"and\" or \"or\" as key, and the value of \
         dict should be a list of basic threshold rules or sub composite rules, can be nested."
    ))
}
