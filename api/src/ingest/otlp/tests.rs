//! Messages are written here by hand, read, cut at every byte; both forms must mean the same.

use super::*;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field with bytes: a text or a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn fixed(number: u8, bits: u64) -> Vec<u8> {
    let mut out = vec![number << 3 | 1];
    out.extend_from_slice(&bits.to_le_bytes());
    out
}

fn attribute(number: u8, name: &str, value: &str) -> Vec<u8> {
    field(number, &[field(1, name.as_bytes()), field(2, &field(1, value.as_bytes()))].concat())
}

/// A request with one resource; `metrics` are messages.
fn request(metrics: &[Vec<u8>]) -> Vec<u8> {
    let resource = [
        attribute(1, "service.name", "shop"),
        attribute(1, "service.namespace", "web"),
        attribute(1, "service.instance.id", "i-1"),
        attribute(1, "host.name", "h1"),
    ];
    let metrics: Vec<Vec<u8>> = metrics.iter().map(|metric| field(2, metric)).collect();
    // The scopes come before the resource, which they may.
    field(1, &[field(2, &metrics.concat()), field(1, &resource.concat())].concat())
}

fn metric(name: &str, unit: &str, kind: u8, data: &[Vec<u8>]) -> Vec<u8> {
    [field(1, name.as_bytes()), field(3, unit.as_bytes()), field(kind, &data.concat())].concat()
}

/// A histogram with three buckets, a monotonic sum, a gauge that is no more, a delta, and deltas of an exponential histogram.
pub(crate) fn example(time_ns: u64) -> Vec<u8> {
    let time = || fixed(3, time_ns);
    let packed = |numbers: &[u64]| numbers.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>();
    let histogram = [
        time(),
        fixed(4, 7),
        fixed(5, 9.5_f64.to_bits()),
        field(6, &packed(&[1, 2, 4])),
        field(7, &packed(&[0.5_f64.to_bits(), 10_f64.to_bits()])),
        attribute(9, "http.route", "/a"),
        field(8, b""),
    ];
    let number = |value: f64, rest: Vec<u8>| field(1, &[time(), fixed(4, value.to_bits()), rest].concat());
    let cumulative = vec![2 << 3, 2];
    request(&[
        metric("http.duration", "s", 9, &[field(1, &histogram.concat()), cumulative.clone()]),
        metric("http.requests", "{request}", 7, &[number(3.0, attribute(7, "a.b", "1")), cumulative, vec![3 << 3, 1]]),
        metric("load", "1", 5, &[number(0.0, vec![8 << 3, 1])]),
        metric("deltas", "", 7, &[number(1.0, Vec::new()), vec![2 << 3, 1]]),
        metric("exponential", "", 10, &[field(1, &time()), field(1, &time()), vec![2 << 3, 1]]),
    ])
}

/// The same as JSON.
pub(crate) fn example_json(time_ns: u64) -> String {
    let time = time_ns.to_string();
    let text = |value: &str| serde_json::json!({"stringValue": value});
    serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": text("shop")}, {"key": "service.namespace", "value": text("web")},
            {"key": "service.instance.id", "value": text("i-1")}, {"key": "host.name", "value": text("h1")},
        ]},
        "scopeMetrics": [{"metrics": [
            {"name": "http.duration", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [{
                "timeUnixNano": time, "count": "7", "sum": 9.5, "bucketCounts": ["1", "2", "4"],
                "explicitBounds": [0.5, 10], "attributes": [{"key": "http.route", "value": text("/a")}],
                "exemplars": [{}],
            }]}},
            {"name": "http.requests", "unit": "{request}", "sum": {
                "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE", "isMonotonic": true, "dataPoints": [
                    {"timeUnixNano": time, "asInt": "3", "attributes": [{"key": "a.b", "value": {"intValue": "1"}}]}],
            }},
            {"name": "load", "unit": "1", "gauge": {"dataPoints": [{"timeUnixNano": time, "asDouble": 0, "flags": 1}]}},
            {"name": "deltas", "sum": {"aggregationTemporality": 1, "dataPoints": [{"timeUnixNano": time, "asDouble": 1}]}},
            {"name": "exponential", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [
                {"timeUnixNano": time}, {"timeUnixNano": time}]}},
        ]}],
    }]})
    .to_string()
}

/// Two points of a gauge that have a time and nothing else.
pub(crate) fn gauge_without_values(time_ns: u64) -> Vec<u8> {
    let point = field(1, &fixed(3, time_ns));
    request(&[metric("m", "", 5, &[point.clone(), point])])
}

#[test]
fn a_body_cut_anywhere_is_refused_or_shorter_and_never_a_panic() {
    let whole = example(1);
    for end in 0..whole.len() {
        let mut reader = super::super::protobuf::Reader::new(&whole[..end], 0);
        while let Ok(Some((_, wire))) = reader.key() {
            if reader.skip(wire).is_err() {
                break;
            }
        }
    }
}

#[test]
fn labels_that_become_alike_are_put_together() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels = labels_of([pair("a.b", "2"), pair("a-b", "1"), pair("c", ""), pair("", "x")].iter());
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), [pair("a_b", "1;2")]);
}
