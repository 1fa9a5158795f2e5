//! `threshold`, retired: statistics over all samples of a meter that a query finds, as Ceilometer's own API gave them.

use serde_json::{Value, json};

use super::{Comparison, Condition};
use crate::{alarm::AlarmError, fields::Fields, python};

/// A rule on a meter's samples.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterRule {
    /// Operator and threshold.
    pub condition: Condition,
    /// Name of the meter.
    pub meter_name: String,
    /// Which samples.
    pub query: Vec<MeterQuery>,
    /// Width of a window in seconds.
    pub period: u32,
    /// What of a window is compared.
    pub statistic: MeterStatistic,
    /// How many windows must agree.
    pub evaluation_periods: u32,
    /// Leaves out windows whose sample count is more than two standard deviations from the mean.
    pub exclude_outliers: bool,
}

/// A condition on samples; only `eq` ever made sense here.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterQuery {
    /// `resource_id`, `project_id`, `user_id`, `metadata.<key>`.
    pub field: String,
    /// The comparison.
    pub op: Comparison,
    /// As it was given; may be empty.
    pub kind: Option<String>,
    /// As it was given.
    pub value: String,
}

/// What of a window is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum MeterStatistic {
    Max,
    Min,
    #[default]
    Avg,
    Sum,
    Count,
}

/// As for Gnocchi's rules; the retired type had no limit.
const EVALUATION_PERIODS_MAX: u32 = 100;
/// A year.
const PERIOD_MAX_S: u32 = 365 * 86_400;
/// Conditions of one query.
const QUERIES_MAX: usize = 64;
/// Names and values.
const TEXT_BYTES_MAX: usize = 1024;

impl MeterStatistic {
    const ALL: [(&str, Self); 5] =
        [("max", Self::Max), ("min", Self::Min), ("avg", Self::Avg), ("sum", Self::Sum), ("count", Self::Count)];

    /// As Ceilometer spells it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, statistic)| *statistic == self).map_or("avg", |(word, _)| word)
    }
}

impl MeterRule {
    pub(super) fn parse(path: &str, json: &Value) -> Result<Self, AlarmError> {
        let known = [
            "meter_name",
            "query",
            "period",
            "comparison_operator",
            "threshold",
            "clear_threshold",
            "statistic",
            "evaluation_periods",
            "exclude_outliers",
        ];
        let fields = Fields::of(path, json, &known)?;
        let rule = Self {
            condition: Condition::parse(&fields)?,
            meter_name: fields.required_text("meter_name")?,
            query: queries(path, &fields)?,
            period: fields.whole("period", 1, PERIOD_MAX_S)?.unwrap_or(60),
            statistic: fields.choice("statistic", &MeterStatistic::ALL)?.unwrap_or_default(),
            evaluation_periods: fields.whole("evaluation_periods", 1, EVALUATION_PERIODS_MAX)?.unwrap_or(1),
            exclude_outliers: fields.flag("exclude_outliers")?.unwrap_or(false),
        };
        if rule.meter_name.len() > TEXT_BYTES_MAX {
            return Err(AlarmError::Refused(format!("meter_name is longer than {TEXT_BYTES_MAX} bytes")));
        }
        Ok(rule)
    }

    pub(super) fn to_json(&self) -> Value {
        let query: Vec<Value> = self.query.iter().map(MeterQuery::to_json).collect();
        let mut json = json!({
            "meter_name": self.meter_name, "query": query, "period": self.period, "statistic": self.statistic.as_str(),
            "evaluation_periods": self.evaluation_periods, "exclude_outliers": self.exclude_outliers,
        });
        self.condition.write(&mut json);
        json
    }

    pub(super) fn default_description(&self) -> String {
        format!(
            "Alarm when {} is {} a {} of {} over {} seconds",
            self.meter_name,
            self.condition.comparison_operator.as_str(),
            self.statistic.as_str(),
            python::float(self.condition.threshold),
            self.period
        )
    }

    /// The search that finds the resources whose samples are meant, and their type.
    pub(crate) fn search(&self) -> (String, Value) {
        let mut resource_type = "generic";
        let mut conditions = Vec::new();
        for query in &self.query {
            let field = match query.field.as_str() {
                "resource" | "resource_id" => "id",
                "project" | "project_id" | "tenant" => "project_id",
                "user" | "user_id" => "user_id",
                other => {
                    // Heat's groups, as Ceilometer's resource definitions name the attribute; other metadata is kept
                    // under its own name.
                    resource_type = "instance";
                    let name = other.rsplit('.').next().unwrap_or(other);
                    if matches!(name, "server_group" | "autoscaling_group" | "stack") { "server_group" } else { name }
                }
            };
            conditions.push(json!({"=": {field: query.value}}));
        }
        let search = match conditions.len() {
            0 => json!({}),
            1 => conditions.remove(0),
            _ => json!({"and": conditions}),
        };
        (resource_type.to_owned(), search)
    }
}

impl MeterQuery {
    fn to_json(&self) -> Value {
        let mut json = json!({"field": self.field, "op": self.op.as_str(), "value": self.value});
        if let Some(kind) = &self.kind {
            json["type"] = json!(kind);
        }
        json
    }
}

fn queries(path: &str, fields: &Fields<'_>) -> Result<Vec<MeterQuery>, AlarmError> {
    let items = match fields.value("query") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= QUERIES_MAX => items,
        Some(Value::Array(items)) => {
            return Err(AlarmError::Refused(format!(
                "query has at most {QUERIES_MAX} conditions, not {}",
                items.len()
            )));
        }
        Some(other) => return Err(AlarmError::invalid("query", other, "Value not a valid list")),
    };
    let mut queries = Vec::new();
    for item in items {
        let fields = Fields::of(&format!("{path}.query"), item, &["field", "op", "type", "value"])?;
        let query = MeterQuery {
            field: fields.required_text("field")?,
            op: fields.choice("op", &Comparison::ALL)?.unwrap_or_default(),
            kind: fields.text("type")?,
            value: fields.required_text("value")?,
        };
        if query.field == "timestamp" {
            return Err(AlarmError::Refused("Unknown argument: \"timestamp\": not valid for this resource".to_owned()));
        }
        let is_known = matches!(
            query.field.as_str(),
            "resource" | "resource_id" | "project" | "project_id" | "tenant" | "user" | "user_id"
        ) || query.field.starts_with("metadata.")
            || query.field.starts_with("resource_metadata.");
        if !is_known {
            let field = &query.field;
            return Err(AlarmError::Refused(format!(
                "Unknown argument: \"{field}\": unrecognized field in query: known are metadata.*, project_id, \
                 resource_id, user_id"
            )));
        }
        if query.op != Comparison::Eq {
            let op = json!(query.op.as_str());
            return Err(AlarmError::invalid("op", &op, "Value should be eq"));
        }
        if query.field.len() > TEXT_BYTES_MAX || query.value.len() > TEXT_BYTES_MAX {
            return Err(AlarmError::Refused(format!("a query's field or value is longer than {TEXT_BYTES_MAX} bytes")));
        }
        queries.push(query);
    }
    Ok(queries)
}
