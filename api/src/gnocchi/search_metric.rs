//! `POST /v1/search/metric`: measures whose values fit a condition.
//!
//! A condition is `{operator: number}`, of the value; or `{operator: [operand, operand]}`, where an operand is a number
//! or a condition whose result is taken as a number; or `and`, `or`, `not` of several. `{">": [{"%": 2}, 0]}`.

use axum::{extract::State, response::Response};
use orzo_index::Metric;
use orzo_model::Timestamp;
use orzo_query::{MeasuresQuery, operations::Binary};
use serde_json::Value;
use uuid::Uuid;

use super::{
    answer::tree,
    rows::{NotFinite, rows},
};
use crate::{
    SharedApi, authenticate::Asker, parameters::Parameters, policy::Action, problem::Problem,
    request::OptionalJsonBody, wire::Tree,
};

/// Deepest nesting; a condition is written by hand, and the walk is recursive.
const DEPTH_MAX: usize = 32;
/// Metrics in one question at most; each is read at each granularity.
const METRICS_MAX: usize = 1000;
/// Granularities in one question at most; a policy has a handful.
const GRANULARITIES_MAX: usize = 64;

pub(super) async fn search(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    not_finite: NotFinite,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let mut ids = Vec::new();
    for id in parameters.all("metric_id") {
        ids.push(Uuid::try_parse(id).map_err(|_| Problem::missing(format!("Metric {id}")))?);
    }
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() || ids.len() > METRICS_MAX {
        return Err(Problem::argument("metric_id", format!("Must be given, at most {METRICS_MAX} times")));
    }
    let found = api.index().known_metrics(&api.scope(Action::SearchMetric, &caller), &ids).await?;
    let body = body.ok_or_else(|| Problem::bad("No query specified in body"))?;
    let condition = Condition::parse(&body, 0)?;
    let now = api.clock.now();
    let query = MeasuresQuery {
        aggregation: parameters.get("aggregation").unwrap_or("mean").to_owned(),
        start: time(&parameters, "start", now)?,
        stop: time(&parameters, "stop", now)?,
        ..MeasuresQuery::default()
    };
    let mut granularities = Vec::new();
    for text in parameters.all("granularity") {
        let span = orzo_index::spans::parse_timespan(&text.into());
        granularities.push(span.map_err(|error| Problem::argument("granularity", error.to_string()))?);
    }
    granularities.sort_unstable_by(|a, b| b.cmp(a));
    granularities.dedup();
    if granularities.len() > GRANULARITIES_MAX {
        return Err(Problem::argument("granularity", format!("At most {GRANULARITIES_MAX} at once")));
    }
    let wanted = (!granularities.is_empty()).then_some(granularities.as_slice());
    // Metrics that are not there have no measures that fit.
    let metrics: Vec<&Metric> = found.iter().flatten().map(|metric| &**metric).collect();
    let answers = api.engine.measures_of_all(&metrics, wanted, &query).await?;
    let mut parts = Vec::with_capacity(metrics.len());
    for (metric, mut measures) in metrics.into_iter().zip(answers) {
        measures.retain(|measure| condition.holds(measure.value));
        parts.push((metric.id.to_string(), rows(&measures, not_finite)));
    }
    Ok(tree(&Tree::Object(parts)))
}

fn time(parameters: &Parameters, name: &str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    parameters.time(name, now).map_err(|_| Problem::bad(format!("Invalid value for {name}")))
}

/// A condition on a value.
#[derive(Debug, PartialEq)]
enum Condition {
    Number(f64),
    /// Of the value itself and a number.
    Value(Binary, f64),
    Operands(Binary, Box<[Condition; 2]>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Neither(Vec<Condition>),
}

impl Condition {
    fn parse(json: &Value, depth: usize) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::input(&reason, &[]);
        if depth > DEPTH_MAX {
            return Err(wrong(format!("A condition may have {DEPTH_MAX} levels at most")));
        }
        let mut entries = json.as_object().ok_or_else(|| wrong("expected a dictionary".to_owned()))?.iter();
        let (Some((name, inner)), None) = (entries.next(), entries.next()) else {
            return Err(wrong("a condition has exactly one operator".to_owned()));
        };
        let name = name.as_str();
        let several = |inner: &Value| {
            let list = inner.as_array().ok_or_else(|| Problem::input("expected a list", &[name]))?;
            list.iter().map(|item| Self::parse(item, depth + 1)).collect::<Result<Vec<_>, _>>()
        };
        match name {
            "and" | "∧" => return Ok(Self::All(several(inner)?)),
            "or" | "∨" => return Ok(Self::Any(several(inner)?)),
            "not" => return Ok(Self::Neither(several(inner)?)),
            _ => {}
        }
        let comparison = Binary::parse(name).filter(|_| !matches!(name, "max" | "clip_min" | "clip_max"));
        let binary = comparison.ok_or_else(|| Problem::input("extra keys not allowed", &[name]))?;
        let operand = |json: &Value| match json.as_f64() {
            Some(number) => Ok(Self::Number(number)),
            None => Self::parse(json, depth + 1),
        };
        match inner {
            Value::Array(operands) => match operands.as_slice() {
                [left, right] => Ok(Self::Operands(binary, Box::new([operand(left)?, operand(right)?]))),
                _ => Err(Problem::input("expected two operands", &[name])),
            },
            number => match number.as_f64() {
                Some(number) => Ok(Self::Value(binary, number)),
                None => Err(Problem::input("not a valid value for dictionary value", &[name])),
            },
        }
    }

    /// Whether a value fits: the result is anything but zero, as in Python.
    fn holds(&self, value: f64) -> bool {
        self.result(value) != 0.0
    }

    fn result(&self, value: f64) -> f64 {
        let truth = |truth: bool| f64::from(u8::from(truth));
        match self {
            Self::Number(number) => *number,
            Self::Value(binary, number) => binary.apply(value, *number),
            Self::Operands(binary, operands) => {
                let [left, right] = &**operands;
                binary.apply(left.result(value), right.result(value))
            }
            Self::All(conditions) => truth(conditions.iter().all(|condition| condition.holds(value))),
            Self::Any(conditions) => truth(conditions.iter().any(|condition| condition.holds(value))),
            Self::Neither(conditions) => truth(!conditions.iter().any(|condition| condition.holds(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_judge_values() {
        for (condition, holds, fails) in [
            (json!({"=": 12}), 12.0, 13.0),
            (json!({"≥": 1000}), 1000.0, 999.0),
            (json!({">": [{"%": 2}, 0]}), 3.0, 4.0),
            (json!({"and": [{">": 1}, {"<": 100}]}), 50.0, 100.0),
            (json!({"∨": [{"eq": 1}, {"eq": 2}]}), 2.0, 3.0),
            (json!({"not": [{">": 5}]}), 5.0, 6.0),
            (json!({"ne": [{"+": 1}, {"mul": 2}]}), 2.0, 1.0),
            (json!({"-": 5}), 4.0, 5.0),
        ] {
            let parsed = Condition::parse(&condition, 0).expect("a condition");
            assert!(parsed.holds(holds), "{condition} {holds}");
            assert!(!parsed.holds(fails), "{condition} {fails}");
        }
        let mut deep = json!({">": 1});
        for _ in 0..=DEPTH_MAX {
            deep = json!({"not": [deep]});
        }
        for bad in [
            json!({}),
            json!([]),
            json!({">": 1, "<": 2}),
            json!({"bogus": 1}),
            json!({"max": 1}),
            json!({">": "1"}),
            json!({">": [1, 2, 3]}),
            json!({"and": {}}),
            deep,
        ] {
            assert!(Condition::parse(&bad, 0).is_err(), "{bad}");
        }
    }
}
