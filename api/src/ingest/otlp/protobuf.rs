//! OTLP's metrics as protocol buffers (`opentelemetry.proto.collector.metrics.v1`), one metric in memory at a time.

use super::{Attributes, Data, ExponentialPoint, Head, Histogram, Metric, Number, Summary, Temporality, Translator};
use crate::ingest::{
    IngestError, SAMPLES_MAX,
    protobuf::{Reader, Wire},
    remote_write::RawExemplar,
};

/// Lists within lists of an attribute; deeper ones are an attack.
const DEPTH_MAX: usize = 8;

/// Reads an `ExportMetricsServiceRequest`.
pub(crate) fn read(body: &[u8], translator: &mut Translator<'_>) -> Result<(), IngestError> {
    let mut request = Reader::new(body, 0);
    while let Some((field, wire)) = request.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => read_resource(request.message()?, translator)?,
            _ => request.skip(wire)?,
        }
    }
    Ok(())
}

/// A resource may come after its metrics, so it is looked for first.
fn read_resource(message: Reader<'_>, translator: &mut Translator<'_>) -> Result<(), IngestError> {
    let mut attributes = Attributes::new();
    let mut first = message.clone();
    while let Some((field, wire)) = first.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => {
                let mut resource = first.message()?;
                while let Some((field, wire)) = resource.key()? {
                    match (field, wire) {
                        (1, Wire::Bytes) => attributes.push(read_attribute(resource.message()?, 0)?),
                        _ => resource.skip(wire)?,
                    }
                }
            }
            _ => first.skip(wire)?,
        }
    }
    translator.resource(&attributes)?;
    let mut second = message;
    while let Some((field, wire)) = second.key()? {
        match (field, wire) {
            (2, Wire::Bytes) => {
                let mut scope = second.message()?;
                while let Some((field, wire)) = scope.key()? {
                    match (field, wire) {
                        (2, Wire::Bytes) => translator.metric(read_metric(scope.message()?)?)?,
                        _ => scope.skip(wire)?,
                    }
                }
            }
            _ => second.skip(wire)?,
        }
    }
    Ok(())
}

fn read_metric(mut message: Reader<'_>) -> Result<Metric, IngestError> {
    let mut metric = Metric::default();
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => metric.name = text(&mut message)?,
            (2, Wire::Bytes) => metric.description = text(&mut message)?,
            (3, Wire::Bytes) => metric.unit = text(&mut message)?,
            (5, Wire::Bytes) => metric.data = Data::Gauge(read_points(message.message()?, read_number)?.0),
            (7, Wire::Bytes) => {
                let (points, temporality, monotonic) = read_points(message.message()?, read_number)?;
                metric.data = Data::Sum { points, temporality, monotonic };
            }
            (9, Wire::Bytes) => {
                let (points, temporality, _) = read_points(message.message()?, read_histogram)?;
                metric.data = Data::Histogram { points, temporality };
            }
            (10, Wire::Bytes) => {
                let (points, temporality, _) = read_points(message.message()?, read_exponential)?;
                metric.data = Data::Exponential { points, temporality };
            }
            (11, Wire::Bytes) => metric.data = Data::Summary(read_points(message.message()?, read_summary)?.0),
            _ => message.skip(wire)?,
        }
    }
    Ok(metric)
}

/// Points, temporality and whether a sum is monotonic: these have the same numbers in every kind of metric.
fn read_points<T>(
    mut message: Reader<'_>,
    read: impl Fn(Reader<'_>) -> Result<T, IngestError>,
) -> Result<(Vec<T>, Temporality, bool), IngestError> {
    let (mut points, mut temporality, mut monotonic) = (Vec::new(), Temporality::default(), false);
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (1, Wire::Bytes) if points.len() >= SAMPLES_MAX => return Err(IngestError::TooManySamples),
            (1, Wire::Bytes) => points.push(read(message.message()?)?),
            (2, Wire::Varint) => temporality = Temporality::of(message.varint()?),
            (3, Wire::Varint) => monotonic = message.varint()? != 0,
            _ => message.skip(wire)?,
        }
    }
    Ok((points, temporality, monotonic))
}

fn read_number(mut message: Reader<'_>) -> Result<Number, IngestError> {
    let mut point = Number::default();
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (3, Wire::Fixed64) => point.head.time_ns = message.fixed64()?,
            (4, Wire::Fixed64) => point.value = Some(f64::from_bits(message.fixed64()?)),
            (6, Wire::Fixed64) => point.value = Some(message.fixed64()?.cast_signed() as f64),
            (7, Wire::Bytes) => point.head.attributes.push(read_attribute(message.message()?, 0)?),
            (5, Wire::Bytes) => exemplar(&mut message, &mut point.head)?,
            (8, Wire::Varint) => point.head.flags = message.varint()?,
            _ => message.skip(wire)?,
        }
    }
    Ok(point)
}

fn read_histogram(mut message: Reader<'_>) -> Result<Histogram, IngestError> {
    let mut point = Histogram::default();
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (3, Wire::Fixed64) => point.head.time_ns = message.fixed64()?,
            (4, Wire::Fixed64) => point.count = message.fixed64()?,
            (5, Wire::Fixed64) => point.sum = Some(f64::from_bits(message.fixed64()?)),
            (6, Wire::Fixed64) => point.counts.push(message.fixed64()?),
            (6, Wire::Bytes) => packed(&mut message, |bits| point.counts.push(bits))?,
            (7, Wire::Fixed64) => point.bounds.push(f64::from_bits(message.fixed64()?)),
            (7, Wire::Bytes) => packed(&mut message, |bits| point.bounds.push(f64::from_bits(bits)))?,
            (9, Wire::Bytes) => point.head.attributes.push(read_attribute(message.message()?, 0)?),
            (8, Wire::Bytes) => exemplar(&mut message, &mut point.head)?,
            (10, Wire::Varint) => point.head.flags = message.varint()?,
            _ => message.skip(wire)?,
        }
    }
    Ok(point)
}

fn read_exponential(mut message: Reader<'_>) -> Result<ExponentialPoint, IngestError> {
    let mut point = ExponentialPoint::default();
    while let Some((field, wire)) = message.key()? {
        let own = &mut point.histogram;
        match (field, wire) {
            (1, Wire::Bytes) => point.head.attributes.push(read_attribute(message.message()?, 0)?),
            (3, Wire::Fixed64) => point.head.time_ns = message.fixed64()?,
            (4, Wire::Fixed64) => own.count = message.fixed64()?,
            (5, Wire::Fixed64) => own.sum = Some(f64::from_bits(message.fixed64()?)),
            (6, Wire::Varint) => own.scale = unzigzag(message.varint()?),
            (7, Wire::Fixed64) => own.zero_count = message.fixed64()?,
            (8, Wire::Bytes) => own.positive = read_buckets(message.message()?)?,
            (9, Wire::Bytes) => own.negative = read_buckets(message.message()?)?,
            (10, Wire::Varint) => point.head.flags = message.varint()?,
            (11, Wire::Bytes) => exemplar(&mut message, &mut point.head)?,
            (14, Wire::Fixed64) => own.zero_threshold = f64::from_bits(message.fixed64()?),
            _ => message.skip(wire)?,
        }
    }
    Ok(point)
}

fn read_buckets(mut message: Reader<'_>) -> Result<(i32, Vec<u64>), IngestError> {
    let mut buckets = (0, Vec::new());
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (1, Wire::Varint) => buckets.0 = unzigzag(message.varint()?),
            (2, Wire::Varint) => buckets.1.push(message.varint()?),
            (2, Wire::Bytes) => {
                let mut packed = message.message()?;
                while packed.place() < message.place() {
                    // A count takes a byte of the body and eight of memory.
                    if buckets.1.len() >= SAMPLES_MAX {
                        return Err(IngestError::TooManySamples);
                    }
                    buckets.1.push(packed.varint()?);
                }
            }
            _ => message.skip(wire)?,
        }
    }
    Ok(buckets)
}

fn unzigzag(number: u64) -> i32 {
    // What is out of range becomes a scale or a number that nobody takes.
    i32::try_from((number >> 1).cast_signed() ^ -(number & 1).cast_signed()).unwrap_or(i32::MAX)
}

fn read_summary(mut message: Reader<'_>) -> Result<Summary, IngestError> {
    let mut point = Summary::default();
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (3, Wire::Fixed64) => point.head.time_ns = message.fixed64()?,
            (4, Wire::Fixed64) => point.count = message.fixed64()?,
            (5, Wire::Fixed64) => point.sum = f64::from_bits(message.fixed64()?),
            (6, Wire::Bytes) => {
                let (mut quantile, mut own) = ((0.0, 0.0), message.message()?);
                while let Some((field, wire)) = own.key()? {
                    match (field, wire) {
                        (1, Wire::Fixed64) => quantile.0 = f64::from_bits(own.fixed64()?),
                        (2, Wire::Fixed64) => quantile.1 = f64::from_bits(own.fixed64()?),
                        _ => own.skip(wire)?,
                    }
                }
                point.quantiles.push(quantile);
            }
            (7, Wire::Bytes) => point.head.attributes.push(read_attribute(message.message()?, 0)?),
            (8, Wire::Varint) => point.head.flags = message.varint()?,
            _ => message.skip(wire)?,
        }
    }
    Ok(point)
}

fn exemplar(message: &mut Reader<'_>, head: &mut Head) -> Result<(), IngestError> {
    let (mut own, mut exemplar) = (message.message()?, RawExemplar::default());
    let mut value = None;
    while let Some((field, wire)) = own.key()? {
        match (field, wire) {
            (2, Wire::Fixed64) => exemplar.at_ms = (own.fixed64()? / 1_000_000).cast_signed(),
            (3, Wire::Fixed64) => value = Some(f64::from_bits(own.fixed64()?)),
            (6, Wire::Fixed64) => value = Some(own.fixed64()?.cast_signed() as f64),
            (4, Wire::Bytes) => exemplar.name_id("span_id", &hex::encode(own.bytes()?)),
            (5, Wire::Bytes) => exemplar.name_id("trace_id", &hex::encode(own.bytes()?)),
            (7, Wire::Bytes) => {
                let (name, value) = read_attribute(own.message()?, 0)?;
                exemplar.push(&name, &value);
            }
            _ => own.skip(wire)?,
        }
    }
    head.exemplars.push(exemplar.observing(value));
    Ok(())
}

fn packed(message: &mut Reader<'_>, mut take: impl FnMut(u64)) -> Result<(), IngestError> {
    let mut numbers = message.message()?;
    let length = numbers.place();
    let end = message.place();
    if !(end - length).is_multiple_of(8) {
        return Err(message.malformed("a list of numbers ends within a number"));
    }
    while numbers.place() < end {
        take(numbers.fixed64()?);
    }
    Ok(())
}

fn read_attribute(mut message: Reader<'_>, depth: usize) -> Result<(String, String), IngestError> {
    let (mut name, mut value) = (String::new(), serde_json::Value::Null);
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => name = text(&mut message)?,
            (2, Wire::Bytes) => value = read_value(message.message()?, depth)?,
            _ => message.skip(wire)?,
        }
    }
    Ok((name, plain(value)))
}

/// A value as text; lists and maps as JSON.
pub(super) fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn read_value(mut message: Reader<'_>, depth: usize) -> Result<serde_json::Value, IngestError> {
    if depth > DEPTH_MAX {
        return Err(message.malformed("an attribute is nested too deeply"));
    }
    let mut value = serde_json::Value::Null;
    while let Some((field, wire)) = message.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => value = text(&mut message)?.into(),
            (2, Wire::Varint) => value = (message.varint()? != 0).into(),
            (3, Wire::Varint) => value = message.varint()?.cast_signed().into(),
            (4, Wire::Fixed64) => value = f64::from_bits(message.fixed64()?).into(),
            (5, Wire::Bytes) => {
                let (mut list, mut own) = (Vec::new(), message.message()?);
                while let Some((field, wire)) = own.key()? {
                    match (field, wire) {
                        (1, Wire::Bytes) => list.push(read_value(own.message()?, depth + 1)?),
                        _ => own.skip(wire)?,
                    }
                }
                value = list.into();
            }
            (6, Wire::Bytes) => {
                let (mut map, mut own) = (serde_json::Map::new(), message.message()?);
                while let Some((field, wire)) = own.key()? {
                    match (field, wire) {
                        (1, Wire::Bytes) => {
                            let (name, value) = read_attribute(own.message()?, depth + 1)?;
                            map.insert(name, value.into());
                        }
                        _ => own.skip(wire)?,
                    }
                }
                value = map.into();
            }
            (7, Wire::Bytes) => value = hex::encode(message.bytes()?).into(),
            _ => message.skip(wire)?,
        }
    }
    Ok(value)
}

fn text(message: &mut Reader<'_>) -> Result<String, IngestError> {
    let bytes = message.bytes()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| message.malformed("a text is not UTF-8"))
}
