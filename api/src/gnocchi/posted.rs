//! Bodies with measures → measures. Pure, but for the reading of the body itself.
//!
//! Most bodies have the shape that `scan.rs` reads without a tree. Others are read here: values that are texts or NaN,
//! times relative to now, keys that nobody reads; and everything that is wrong, with Gnocchi's words for it.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::StatusCode;
use orzo_index::spans::{MEASURE_MICROS_MAX, SpanError, TimeForm, parse_time};
use orzo_model::{Measure, Timestamp};
use orzo_query::{MeasuresColumn, NamedMetric};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    body::{metric_name, unit},
    fields::Fields,
    scan,
};
use crate::{
    SharedApi,
    problem::Problem,
    request::{body_bytes, decode, is_json},
};

/// A JSON body that is not read yet; 415 without the content type.
pub(super) struct PostedBody(Bytes);

impl FromRequest<SharedApi> for PostedBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &SharedApi) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let bytes = body_bytes(request.into_body()).await?;
        if is_json { Ok(Self(bytes)) } else { Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "")) }
    }
}

impl PostedBody {
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// `[{"timestamp": T, "value": V}, ...]`.
pub(super) fn measures(body: &PostedBody, now: Timestamp) -> Result<Vec<Measure>, Problem> {
    match body.text().and_then(scan::measures) {
        Some(measures) => Ok(measures),
        None => slow_measures(&decode(&body.0)?, now),
    }
}

/// `{metric id: measures}`.
pub(super) fn by_metric(body: &PostedBody, now: Timestamp) -> Result<(Vec<Uuid>, MeasuresColumn), Problem> {
    match body.text().and_then(scan::by_metric) {
        Some(read) => Ok(read),
        None => slow_by_metric(&decode(&body.0)?, now),
    }
}

/// `{resource: {metric name: measures, or {"measures", "archive_policy_name", "unit"}}}`.
pub(super) fn by_resource(body: &PostedBody, now: Timestamp) -> Result<(Vec<NamedMetric>, MeasuresColumn), Problem> {
    match body.text().and_then(scan::by_resource) {
        Some(read) => Ok(read),
        None => slow_by_resource(&decode(&body.0)?, now),
    }
}

/// A value may be a text that holds a number, `NaN` among them.
pub(super) fn slow_measures(body: &Value, now: Timestamp) -> Result<Vec<Measure>, Problem> {
    let format = || measures_problem("unexpected measures format");
    let rows = body.as_array().ok_or_else(format)?;
    let field = |row: &'_ Value, name: &str| row.as_object().and_then(|row| row.get(name)).cloned().ok_or_else(format);
    let times: Vec<Value> = rows.iter().map(|row| field(row, "timestamp")).collect::<Result<_, _>>()?;
    let values: Vec<Value> = rows.iter().map(|row| field(row, "value")).collect::<Result<_, _>>()?;
    let times = times_of(&times, now).map_err(|error| {
        let words = match error {
            SpanError::BeforeEpoch | SpanError::TooLate => error.to_string(),
            _ => "Unable to convert timestamps".to_owned(),
        };
        measures_problem(&format!("unexpected timestamp '{words}'"))
    })?;
    let values = values.iter().map(|value| number(value).ok_or_else(|| measures_problem("unexpected measures value")));
    times.into_iter().zip(values).map(|(timestamp, value)| Ok(Measure { timestamp, value: value? })).collect()
}

/// The times of one list of measures. All are written as the first one is: as seconds since the epoch, as dates, or as
/// timespans from now.
fn times_of(values: &[Value], now: Timestamp) -> Result<Vec<Timestamp>, SpanError> {
    let first = values.first().and_then(TimeForm::of);
    let read = values.iter().map(|value| {
        if TimeForm::of(value) != first {
            return Err(SpanError::NotATime);
        }
        match parse_time(value, now)? {
            time if time.micros() > MEASURE_MICROS_MAX => Err(SpanError::TooLate),
            time => Ok(time),
        }
    });
    read.collect()
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

pub(super) fn slow_by_metric(body: &Value, now: Timestamp) -> Result<(Vec<Uuid>, MeasuresColumn), Problem> {
    let (mut ids, mut column) = (Vec::new(), MeasuresColumn::default());
    for (id, rows) in Fields::of(body)?.iter() {
        ids.push(Uuid::try_parse(id).map_err(|_| Problem::input("not a valid value", &[id]))?);
        column.measures.extend(slow_measures(rows, now)?);
        column.end_metric();
    }
    Ok((ids, column))
}

pub(super) fn slow_by_resource(body: &Value, now: Timestamp) -> Result<(Vec<NamedMetric>, MeasuresColumn), Problem> {
    let (mut metrics, mut column) = (Vec::new(), MeasuresColumn::default());
    for (resource, named) in Fields::of(body)?.iter() {
        let fields = Fields::at(named, vec![resource.to_owned()])?;
        for (name, content) in fields.iter() {
            metric_name(name).map_err(|reason| fields.problem(reason, name))?;
            let mut metric =
                NamedMetric { resource: resource.to_owned(), name: name.to_owned(), ..NamedMetric::default() };
            let rows = match content {
                Value::Object(_) => {
                    let inner = Fields::at(content, fields.path_of(name))?;
                    inner.only(&["measures", "archive_policy_name", "unit"])?;
                    metric.archive_policy_name = inner.text("archive_policy_name")?.map(str::to_owned);
                    metric.unit = unit(&inner)?;
                    inner.required("measures")?
                }
                rows => rows,
            };
            column.measures.extend(slow_measures(rows, now)?);
            column.end_metric();
            metrics.push(metric);
        }
    }
    Ok((metrics, column))
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
        let read = |body: Value| slow_measures(&body, now);
        assert_eq!(read(json!([])), Ok(vec![]));
        let got = read(json!([{"timestamp": 1425652440, "value": "3"}, {"timestamp": "1425652441.5", "value": 5}]));
        let got = got.expect("measures");
        assert_eq!(got[1], Measure { timestamp: Timestamp::from_micros(1_425_652_441_500_000), value: 5.0 });
        assert!(
            read(json!([{"timestamp": "2015-03-06T14:34:00+02:00", "value": "NaN"}])).expect("read")[0].value.is_nan()
        );
        let relative = json!([{"timestamp": "-1 minute", "value": 1}, {"timestamp": "-1s", "value": 2}]);
        assert_eq!(read(relative).expect("read")[0].timestamp, Timestamp::from_secs(999_999_940));
        for mixed in [
            json!([{"timestamp": "2015-03-06T14:33:57", "value": 1}, {"timestamp": 1425652440, "value": 3}]),
            json!([{"timestamp": 1425652440, "value": 1}, {"timestamp": "-5 minutes", "value": 3}]),
            json!([{"timestamp": "-5 minutes", "value": 1}, {"timestamp": "2015-03-06T14:33:57", "value": 3}]),
            json!([{"timestamp": "NaT", "value": 1}]),
            json!([{"timestamp": [], "value": 1}]),
        ] {
            assert_eq!(reason(read(mixed)), "unexpected timestamp 'Unable to convert timestamps'");
        }
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
        let (metrics, column) = slow_by_resource(&body, now).expect("a batch");
        assert_eq!((metrics.len(), column.ends), (2, vec![1, 1]));
        let mem = metrics.iter().find(|metric| metric.name == "mem").expect("there");
        assert_eq!(mem.unit.as_deref(), Some("B"));
        assert!(slow_by_resource(&json!({"vm": {"mem": {"unit": "B"}}}), now).is_err(), "no measures");
        assert!(slow_by_resource(&json!({"vm": {"a/b": []}}), now).is_err());
        assert!(slow_by_resource(&json!({"vm": {"a": {"measures": [], "unit": "x".repeat(32)}}}), now).is_err());
        assert!(slow_by_metric(&json!({"xx": []}), now).is_err());
        assert_eq!(slow_by_metric(&json!({}), now), Ok((Vec::new(), MeasuresColumn::default())));
    }
}
