//! OTLP's metrics as JSON: field names in lowerCamelCase, 64-bit numbers as texts or numbers, enums as numbers (some
//! senders write their names). Unknown fields are passed over, as the specification says.

use serde_json::Value;

use super::{
    Attributes, Data, ExponentialPoint, Head, Histogram, Metric, Number, Summary, Temporality, Translator,
    protobuf::plain,
};
use crate::ingest::{IngestError, histograms::Exponential, remote_write::RawExemplar};

/// Longest body in JSON: as a tree it takes many times its bytes.
pub(crate) const JSON_BYTES_MAX: usize = 4 << 20;
/// How many times.
pub(crate) const TREE_FACTOR: usize = 12;

/// Reads an `ExportMetricsServiceRequest`.
pub(crate) fn read(body: &[u8], translator: &mut Translator<'_>) -> Result<(), IngestError> {
    if body.len() > JSON_BYTES_MAX {
        return Err(IngestError::ClaimsTooMuch { claimed: body.len() });
    }
    // serde_json refuses nesting deeper than 128.
    let request: Value = serde_json::from_slice(body)
        .map_err(|error| IngestError::Malformed { at: error.column(), what: "it is not JSON" })?;
    if !request.is_object() {
        return Err(IngestError::Malformed { at: 0, what: "it is no JSON object" });
    }
    for resource in list(&request["resourceMetrics"]) {
        translator.resource(&attributes(&resource["resource"]["attributes"]))?;
        for scope in list(&resource["scopeMetrics"]) {
            for metric in list(&scope["metrics"]) {
                translator.metric(read_metric(metric))?;
            }
        }
    }
    Ok(())
}

fn read_metric(metric: &Value) -> Metric {
    let text = |name: &str| metric[name].as_str().unwrap_or_default().to_owned();
    let temporality = |data: &Value| match &data["aggregationTemporality"] {
        Value::String(name) if name.ends_with("_DELTA") => Temporality::Delta,
        Value::String(name) if name.ends_with("_CUMULATIVE") => Temporality::Cumulative,
        other => Temporality::of(whole(other)),
    };
    let points = |data: &'_ Value| list(&data["dataPoints"]).to_vec();
    let data = if let Some(data) = present(metric, "gauge") {
        Data::Gauge(points(data).iter().map(read_number).collect())
    } else if let Some(data) = present(metric, "sum") {
        Data::Sum {
            points: points(data).iter().map(read_number).collect(),
            temporality: temporality(data),
            monotonic: data["isMonotonic"].as_bool().unwrap_or(false),
        }
    } else if let Some(data) = present(metric, "histogram") {
        let points = points(data).iter().map(read_histogram).collect();
        Data::Histogram { points, temporality: temporality(data) }
    } else if let Some(data) = present(metric, "exponentialHistogram") {
        let points = points(data).iter().map(read_exponential).collect();
        Data::Exponential { points, temporality: temporality(data) }
    } else if let Some(data) = present(metric, "summary") {
        Data::Summary(points(data).iter().map(read_summary).collect())
    } else {
        Data::Nothing
    };
    Metric { name: text("name"), unit: text("unit"), description: text("description"), data }
}

fn read_head(point: &Value) -> Head {
    Head {
        attributes: attributes(&point["attributes"]),
        time_ns: whole(&point["timeUnixNano"]),
        flags: whole(&point["flags"]),
        exemplars: list(&point["exemplars"]).iter().map(read_exemplar).collect(),
    }
}

fn read_exemplar(one: &Value) -> RawExemplar {
    let mut exemplar = RawExemplar {
        labels: Vec::new(),
        value: value_of(one),
        at_ms: (whole(&one["timeUnixNano"]) / 1_000_000).cast_signed(),
    };
    for (field, name) in [("spanId", "span_id"), ("traceId", "trace_id")] {
        exemplar.name_id(name, one[field].as_str().unwrap_or_default());
    }
    for (name, value) in attributes(&one["filteredAttributes"]) {
        exemplar.push(&name, &value);
    }
    exemplar
}

fn read_number(point: &Value) -> Number {
    Number { head: read_head(point), value: value_of(point) }
}

fn value_of(point: &Value) -> f64 {
    match &point["asInt"] {
        Value::Null => number(&point["asDouble"]),
        // Beyond 53 bits a double is what the store has.
        Value::String(text) => text.parse::<i64>().map_or(f64::NAN, |value| value as f64),
        other => number(other),
    }
}

fn read_histogram(point: &Value) -> Histogram {
    Histogram {
        head: read_head(point),
        count: whole(&point["count"]),
        sum: point.get("sum").filter(|sum| !sum.is_null()).map(number),
        bounds: list(&point["explicitBounds"]).iter().map(number).collect(),
        counts: list(&point["bucketCounts"]).iter().map(whole).collect(),
    }
}

fn read_exponential(point: &Value) -> ExponentialPoint {
    let signed = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
    let buckets =
        |side: &Value| (signed(&side["offset"]), list(&side["bucketCounts"]).iter().map(whole).collect::<Vec<u64>>());
    let histogram = Exponential {
        count: whole(&point["count"]),
        sum: point.get("sum").filter(|sum| !sum.is_null()).map(number),
        scale: signed(&point["scale"]),
        zero_count: whole(&point["zeroCount"]),
        zero_threshold: number(&point["zeroThreshold"]),
        positive: buckets(&point["positive"]),
        negative: buckets(&point["negative"]),
    };
    ExponentialPoint { head: read_head(point), histogram }
}

fn read_summary(point: &Value) -> Summary {
    let quantile = |one: &Value| (number(&one["quantile"]), number(&one["value"]));
    Summary {
        head: read_head(point),
        count: whole(&point["count"]),
        sum: number(&point["sum"]),
        quantiles: list(&point["quantileValues"]).iter().map(quantile).collect(),
    }
}

fn present<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| value.is_object())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn attributes(value: &Value) -> Attributes {
    let one = |pair: &Value| (pair["key"].as_str().unwrap_or_default().to_owned(), plain(any(&pair["value"])));
    list(value).iter().map(one).collect()
}

/// An `AnyValue`: an object with one field that says its type.
fn any(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else { return Value::Null };
    match kind.as_str() {
        // A number that was sent as text is a number all the same.
        "intValue" => inner.as_str().and_then(|text| text.parse::<i64>().ok()).map_or(inner.clone(), Value::from),
        "arrayValue" => list(&inner["values"]).iter().map(any).collect(),
        "kvlistValue" => {
            attributes(&inner["values"]).into_iter().map(|(name, value)| (name, Value::from(value))).collect()
        }
        _ => inner.clone(),
    }
}

/// A whole number of 64 bits; 0 if it is none.
fn whole(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    }
}

/// A double; JSON's own numbers, or the names of those that JSON does not know. NaN if it is none.
fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => match text.as_str() {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            text => text.parse().unwrap_or(f64::NAN),
        },
        Value::Null => 0.0,
        other => other.as_f64().unwrap_or(f64::NAN),
    }
}
