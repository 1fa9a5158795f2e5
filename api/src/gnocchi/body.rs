//! Bodies with measures → measures. Pure.

use std::collections::BTreeMap;

use http::StatusCode;
use orzo_index::spans::SpanError;
use orzo_model::{Measure, Timestamp};
use orzo_query::ResourceMeasures;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fields::Fields;
use crate::{parameters::times_of_values, problem::Problem};

/// Longest unit, as in Gnocchi's database.
pub(super) const UNIT_CHARACTERS_MAX: usize = 31;

/// `[{"timestamp": T, "value": V}, ...]`. A value may be a text that holds a number, `NaN` among them.
pub(super) fn measures(body: &Value, now: Timestamp) -> Result<Vec<Measure>, Problem> {
    let format = || measures_problem("unexpected measures format");
    let rows = body.as_array().ok_or_else(format)?;
    let field = |row: &'_ Value, name: &str| row.as_object().and_then(|row| row.get(name)).cloned().ok_or_else(format);
    let times: Vec<Value> = rows.iter().map(|row| field(row, "timestamp")).collect::<Result<_, _>>()?;
    let values: Vec<Value> = rows.iter().map(|row| field(row, "value")).collect::<Result<_, _>>()?;
    let times = times_of_values(times.iter(), now).map_err(|error| {
        let words = match error {
            SpanError::BeforeEpoch => "Timestamp must be after Epoch",
            _ => "Unable to convert timestamps",
        };
        measures_problem(&format!("unexpected timestamp '{words}'"))
    })?;
    let values = values.iter().map(|value| number(value).ok_or_else(|| measures_problem("unexpected measures value")));
    times.into_iter().zip(values).map(|(timestamp, value)| Ok(Measure { timestamp, value: value? })).collect()
}

fn measures_problem(reason: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, json!({"cause": "Invalid input", "reason": reason, "detail": []}))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        _ => None,
    }
}

/// `{metric id: measures}`.
pub(super) fn by_metric(body: &Value, now: Timestamp) -> Result<BTreeMap<Uuid, Vec<Measure>>, Problem> {
    let mut answer = BTreeMap::new();
    for (id, rows) in Fields::of(body)?.iter() {
        let uuid = Uuid::try_parse(id).map_err(|_| Problem::input("not a valid value", &[id]))?;
        answer.entry(uuid).or_insert_with(Vec::new).extend(measures(rows, now)?);
    }
    Ok(answer)
}

/// Resources, as the client names them, each with what is posted for its metrics by name.
pub(super) type MeasuresByResource = Vec<(String, BTreeMap<String, ResourceMeasures>)>;

/// `{resource: {metric name: measures, or {"measures", "archive_policy_name", "unit"}}}`.
pub(super) fn by_resource(body: &Value, now: Timestamp) -> Result<MeasuresByResource, Problem> {
    let mut answer = Vec::new();
    for (resource, metrics) in Fields::of(body)?.iter() {
        let fields = Fields::at(metrics, vec![resource.to_owned()])?;
        let mut named = BTreeMap::new();
        for (name, content) in fields.iter() {
            metric_name(name).map_err(|reason| fields.problem(reason, name))?;
            let entry = match content {
                Value::Object(_) => {
                    let inner = Fields::at(content, fields.path_of(name))?;
                    inner.only(&["measures", "archive_policy_name", "unit"])?;
                    ResourceMeasures {
                        measures: measures(inner.required("measures")?, now)?,
                        archive_policy_name: inner.text("archive_policy_name")?.map(str::to_owned),
                        unit: unit(&inner)?,
                    }
                }
                _ => ResourceMeasures { measures: measures(content, now)?, archive_policy_name: None, unit: None },
            };
            named.insert(name.to_owned(), entry);
        }
        answer.push((resource.to_owned(), named));
    }
    Ok(answer)
}

/// The unit of a metric, if it is not too long.
pub(super) fn unit(fields: &Fields<'_>) -> Result<Option<String>, Problem> {
    match fields.text_or_null("unit")? {
        Some(Some(unit)) if unit.chars().count() > UNIT_CHARACTERS_MAX => {
            Err(fields.value_problem(&format!("length of value must be at most {UNIT_CHARACTERS_MAX}"), "unit"))
        }
        other => Ok(other.flatten().map(str::to_owned)),
    }
}

/// Whether a metric may have this name.
pub(super) fn metric_name(name: &str) -> Result<(), &'static str> {
    if name.contains('/') { Err("'/' is not supported in metric name") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<Vec<Measure>, Problem>) -> String {
        result.expect_err("refused").description["reason"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn measures_are_read_as_gnocchi_reads_them() {
        let now = Timestamp::from_secs(1_000_000_000);
        let read = |body: Value| measures(&body, now);
        assert_eq!(read(json!([])), Ok(vec![]));
        let got = read(json!([{"timestamp": 1425652440, "value": "3"}, {"timestamp": "1425652441.5", "value": 5}]));
        let got = got.expect("measures");
        assert_eq!(got[1], Measure { timestamp: Timestamp::from_micros(1_425_652_441_500_000), value: 5.0 });
        assert!(
            read(json!([{"timestamp": "2015-03-06T14:34:00+02:00", "value": "NaN"}])).expect("read")[0].value.is_nan()
        );
        assert_eq!(
            read(json!([{"timestamp": "-1 minute", "value": 1}])).expect("read")[0].timestamp,
            Timestamp::from_secs(999_999_940)
        );
        assert_eq!(
            reason(read(
                json!([{"timestamp": "2015-03-06T14:33:57", "value": 1}, {"timestamp": 1425652440, "value": 3}])
            )),
            "unexpected timestamp 'Unable to convert timestamps'"
        );
        assert_eq!(
            reason(read(json!([{"timestamp": "1969-01-01T00:00:00", "value": 1}]))),
            "unexpected timestamp 'Timestamp must be after Epoch'"
        );
        assert_eq!(reason(read(json!([{"timestamp": 1, "value": "abc"}]))), "unexpected measures value");
        for body in [json!({"a": 1}), json!([1]), json!([{"value": 1}]), json!([{"timestamp": 1}])] {
            assert_eq!(reason(read(body)), "unexpected measures format");
        }
    }

    #[test]
    fn batches_name_what_they_mean() {
        let now = Timestamp::from_secs(1_000_000_000);
        let body = json!({"vm": {"cpu": [{"timestamp": 1, "value": 2}],
                                 "mem": {"measures": [], "archive_policy_name": "low", "unit": "B"}}});
        let read = by_resource(&body, now).expect("a batch");
        assert_eq!(read[0].1["cpu"].measures.len(), 1);
        assert_eq!(read[0].1["mem"].unit.as_deref(), Some("B"));
        assert!(by_resource(&json!({"vm": {"mem": {"unit": "B"}}}), now).is_err(), "no measures");
        assert!(by_resource(&json!({"vm": {"a/b": []}}), now).is_err());
        assert!(by_resource(&json!({"vm": {"a": {"measures": [], "unit": "x".repeat(32)}}}), now).is_err());
        assert!(by_metric(&json!({"xx": []}), now).is_err());
        assert_eq!(by_metric(&json!({}), now), Ok(BTreeMap::new()));
    }
}
