//! OTLP's metrics as JSON: field names in lowerCamelCase, 64-bit numbers as texts or numbers, enums as numbers (some
//! senders write their names). Unknown fields are passed over and `null` is an absent field, as the specification says.
//!
//! What is there and is something else than its field is refuses the whole body, with its place: a value that nobody
//! understood must not become a point.

use serde_json::Value;

use self::place::Node;
use super::{
    Attributes, Data, ExponentialPoint, Head, Histogram, Metric, Number, Summary, Temporality, Translator,
    protobuf::plain,
};
use crate::ingest::{IngestError, histograms::Exponential, remote_write::RawExemplar};

mod place;

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
    Node::root(&request).objects("resourceMetrics", |resource| {
        let own = resource.object("resource", |own| read_attributes(own, "attributes"))?;
        translator.resource(&own.unwrap_or_default())?;
        resource.objects("scopeMetrics", |scope| {
            scope.objects("metrics", |metric| translator.metric(read_metric(metric)?))?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

fn read_metric(metric: &Node<'_>) -> Result<Metric, IngestError> {
    let mut data = Data::Nothing;
    for kind in ["gauge", "sum", "histogram", "exponentialHistogram", "summary"] {
        let Some(read) = metric.object(kind, |own| read_data(kind, own))? else { continue };
        if data != Data::Nothing {
            return Err(metric.wrong("more than one kind of metric"));
        }
        data = read;
    }
    let text = |name| metric.text(name).map(|text| text.unwrap_or_default().to_owned());
    Ok(Metric { name: text("name")?, unit: text("unit")?, description: text("description")?, data })
}

fn read_data(kind: &str, data: &Node<'_>) -> Result<Data, IngestError> {
    Ok(match kind {
        "gauge" => Data::Gauge(data.objects("dataPoints", read_number)?),
        "sum" => Data::Sum {
            points: data.objects("dataPoints", read_number)?,
            temporality: read_temporality(data)?,
            monotonic: data.boolean("isMonotonic")?.unwrap_or(false),
        },
        "histogram" => Data::Histogram {
            points: data.objects("dataPoints", read_histogram)?,
            temporality: read_temporality(data)?,
        },
        "exponentialHistogram" => Data::Exponential {
            points: data.objects("dataPoints", read_exponential)?,
            temporality: read_temporality(data)?,
        },
        _ => Data::Summary(data.objects("dataPoints", read_summary)?),
    })
}

fn read_temporality(data: &Node<'_>) -> Result<Temporality, IngestError> {
    let read = |field: &Node<'_>| match field.value.as_str() {
        Some("AGGREGATION_TEMPORALITY_UNSPECIFIED") => Ok(Temporality::Unspecified),
        Some("AGGREGATION_TEMPORALITY_DELTA") => Ok(Temporality::Delta),
        Some("AGGREGATION_TEMPORALITY_CUMULATIVE") => Ok(Temporality::Cumulative),
        // A number from a later version is one that we do not know.
        None if field.value.is_number() => Ok(Temporality::of(u64::try_from(field.as_signed()?).unwrap_or(0))),
        _ => Err(field.wrong("not a temporality")),
    };
    Ok(data.field("aggregationTemporality", read)?.unwrap_or_default())
}

fn read_head(point: &Node<'_>) -> Result<Head, IngestError> {
    Ok(Head {
        attributes: read_attributes(point, "attributes")?,
        time_ns: point.whole("timeUnixNano")?,
        flags: point.whole("flags")?,
        exemplars: point.objects("exemplars", read_exemplar)?,
    })
}

fn read_exemplar(one: &Node<'_>) -> Result<RawExemplar, IngestError> {
    let at_ms = (one.whole("timeUnixNano")? / 1_000_000).cast_signed();
    let mut exemplar = RawExemplar { at_ms, ..RawExemplar::default() };
    for (field, name) in [("spanId", "span_id"), ("traceId", "trace_id")] {
        exemplar.name_id(name, one.text(field)?.unwrap_or_default());
    }
    for (name, value) in read_attributes(one, "filteredAttributes")? {
        exemplar.push(&name, &value);
    }
    Ok(exemplar.observing(read_value(one)?))
}

fn read_number(point: &Node<'_>) -> Result<Number, IngestError> {
    Ok(Number { head: read_head(point)?, value: read_value(point)? })
}

/// The value of a point or an exemplar: one of two fields, or none.
fn read_value(point: &Node<'_>) -> Result<Option<f64>, IngestError> {
    // Beyond 53 bits a double is what the store has.
    let whole = point.field("asInt", |field| Ok(field.as_integer()? as f64))?;
    match (whole, point.double("asDouble")?) {
        (Some(_), Some(_)) => Err(point.wrong("both asInt and asDouble")),
        (whole, double) => Ok(whole.or(double)),
    }
}

fn read_histogram(point: &Node<'_>) -> Result<Histogram, IngestError> {
    Ok(Histogram {
        head: read_head(point)?,
        count: point.whole("count")?,
        sum: point.double("sum")?,
        bounds: point.list("explicitBounds", |node| node.as_double())?,
        counts: point.list("bucketCounts", |node| node.as_whole())?,
    })
}

fn read_exponential(point: &Node<'_>) -> Result<ExponentialPoint, IngestError> {
    let signed = |node: &Node<'_>, name| node.field(name, |node| node.as_signed()).map(Option::unwrap_or_default);
    let side = |name| {
        let buckets =
            |side: &Node<'_>| Ok((signed(side, "offset")?, side.list("bucketCounts", |node| node.as_whole())?));
        point.object(name, buckets).map(Option::unwrap_or_default)
    };
    let histogram = Exponential {
        count: point.whole("count")?,
        sum: point.double("sum")?,
        scale: signed(point, "scale")?,
        zero_count: point.whole("zeroCount")?,
        zero_threshold: point.double("zeroThreshold")?.unwrap_or(0.0),
        positive: side("positive")?,
        negative: side("negative")?,
    };
    Ok(ExponentialPoint { head: read_head(point)?, histogram })
}

fn read_summary(point: &Node<'_>) -> Result<Summary, IngestError> {
    let quantile = |one: &Node<'_>| Ok((one.double("quantile")?.unwrap_or(0.0), one.double("value")?.unwrap_or(0.0)));
    Ok(Summary {
        head: read_head(point)?,
        count: point.whole("count")?,
        sum: point.double("sum")?.unwrap_or(0.0),
        quantiles: point.objects("quantileValues", quantile)?,
    })
}

fn read_attributes(owner: &Node<'_>, field: &'static str) -> Result<Attributes, IngestError> {
    owner.objects(field, |pair| {
        let value = pair.object("value", read_any)?.unwrap_or(Value::Null);
        Ok((pair.text("key")?.unwrap_or_default().to_owned(), plain(value)))
    })
}

/// An `AnyValue`: an object with one field that says its type. One of a type from a later version has no value.
fn read_any(any: &Node<'_>) -> Result<Value, IngestError> {
    let text = |field: &Node<'_>| Ok(Value::from(field.as_text()?));
    let fields = [
        any.field("stringValue", text)?,
        any.field("boolValue", |field| Ok(Value::from(field.as_boolean()?)))?,
        any.field("intValue", |field| Ok(Value::from(field.as_integer()?)))?,
        any.field("doubleValue", read_double)?,
        any.object("arrayValue", |list| Ok(Value::from(list.objects("values", read_any)?)))?,
        any.object("kvlistValue", |list| {
            let pairs = read_attributes(list, "values")?;
            Ok(pairs.into_iter().map(|(name, value)| (name, Value::from(value))).collect())
        })?,
        any.field("bytesValue", text)?,
    ];
    let mut values = fields.into_iter().flatten();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(any.wrong("more than one value")),
        (value, None) => Ok(value.unwrap_or(Value::Null)),
    }
}

/// A number as it was written; those that JSON does not know are texts.
fn read_double(field: &Node<'_>) -> Result<Value, IngestError> {
    let value = field.as_double()?;
    Ok(if field.value.is_number() || !value.is_finite() { field.value.clone() } else { Value::from(value) })
}
