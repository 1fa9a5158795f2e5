//! OpenTelemetry's metrics over HTTP and gRPC, read back by PromQL.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    house::House,
    ingest::{ask, post, send},
};
use crate::ingest::otlp::tests::{example, example_json};

/// The moment of the house's clock, in nanoseconds.
const NOW_NS: u64 = 1_795_291_200_000_000_000;
const PROTOBUF: &str = "application/x-protobuf";
const GRPC: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Every series as `name{labels} value`, sorted.
async fn series(house: &House, asker: &str) -> Vec<String> {
    let (_, answer) = ask(house, asker, "/prometheus/api/v1/query?query=%7B__name__=~%22.%2B%22%7D").await;
    let row = |row: &Value| {
        let mut metric = row["metric"].as_object().expect("labels").clone();
        let name = metric.remove("__name__").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        format!("{name}{} {}", Value::Object(metric), row["value"][1].as_str().unwrap_or_default())
    };
    let mut rows: Vec<String> = answer["data"]["result"].as_array().expect("rows").iter().map(row).collect();
    rows.sort();
    rows
}

/// What [`example`] becomes: as Prometheus' own receiver names and splits it.
fn expected() -> Vec<String> {
    let own = json!({"instance": "i-1", "job": "web/shop"});
    let with = |more: Value| {
        let mut labels = own.as_object().expect("labels").clone();
        labels.extend(more.as_object().expect("labels").clone());
        Value::Object(labels)
    };
    let route = || json!({"http_route": "/a"});
    let bucket = |le: &str| with(json!({"http_route": "/a", "le": le}));
    let mut rows = vec![
        format!("http_duration_seconds_bucket{} 1", bucket("0.5")),
        format!("http_duration_seconds_bucket{} 3", bucket("10")),
        format!("http_duration_seconds_bucket{} 7", bucket("+Inf")),
        format!("http_duration_seconds_count{} 7", with(route())),
        format!("http_duration_seconds_sum{} 9.5", with(route())),
        format!("http_requests_total{} 3", with(json!({"a_b": "1"}))),
        format!("deltas{} 1", with(json!({}))),
        format!("target_info{} 1", with(json!({"host_name": "h1"}))),
    ];
    rows.sort();
    rows
}

#[tokio::test]
async fn both_forms_become_the_series_that_prometheus_would_make_of_them() {
    for (kind, body) in [(PROTOBUF, example(NOW_NS)), ("application/json", example_json(NOW_NS).into_bytes())] {
        for path in ["/otlp/v1/metrics", "/prometheus/api/v1/otlp/v1/metrics"] {
            let house = House::build().await;
            let answer = post(&house, "alice", path, kind, body.clone()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            assert_eq!(answer.headers["content-type"], kind);
            // Two exponential points are not kept, and it says so.
            assert!(answer.text.contains("deltas of exponential histograms are not kept"), "{}", answer.text);
            if kind == "application/json" {
                let told: Value = serde_json::from_str(&answer.text).expect("JSON");
                assert_eq!(told["partialSuccess"]["rejectedDataPoints"], "2");
            } else {
                assert_eq!(&answer.text.as_bytes()[2..4], b"\x08\x02");
            }
            assert_eq!(series(&house, "alice").await, expected(), "{kind}");
            assert_eq!(series(&house, "bob").await, Vec::<String>::new());
            // The same again changes nothing.
            assert_eq!(post(&house, "alice", path, kind, body.clone()).await.status, StatusCode::OK);
            assert_eq!(series(&house, "alice").await, expected());
            house.assert_conserved();
        }
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).expect("compressed");
    encoder.finish().expect("compressed")
}

#[tokio::test]
async fn grpc_is_answered_with_trailers() {
    let house = House::build().await;
    let frame = |compressed: u8, message: &[u8]| {
        let mut body = vec![compressed];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        body
    };
    let call = |asker: &str, body: Vec<u8>| {
        let request = Request::post(GRPC).header("content-type", "application/grpc").header("x-auth-token", asker);
        house.router.clone().oneshot(request.header("grpc-encoding", "gzip").body(Body::from(body)).expect("a request"))
    };
    for (asker, body, status, part) in [
        ("alice", frame(0, &example(NOW_NS)), "0", "exponential"),
        ("alice", frame(1, &gzip(&example(NOW_NS))), "0", "exponential"),
        ("nobody", frame(0, &example(NOW_NS)), "16", ""),
        ("unscoped", frame(0, &example(NOW_NS)), "7", ""),
        ("alice", frame(1, b"no gzip"), "3", ""),
        ("alice", frame(2, b""), "3", ""),
        ("alice", vec![0, 0, 0], "3", ""),
        ("alice", frame(0, b"\xff\xff"), "3", ""),
    ] {
        let response = call(asker, body).await.expect("an answer");
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"application/grpc".parse().expect("a value"))
        );
        let collected = response.into_body().collect().await.expect("a body");
        let trailers = collected.trailers().expect("trailers").clone();
        assert_eq!(trailers["grpc-status"], status, "{trailers:?}");
        assert!(status == "0" || !trailers["grpc-message"].is_empty(), "{trailers:?}");
        let body = collected.to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(part), "{body:?}");
        if status == "0" {
            assert_eq!(u32::from_be_bytes(body[1..5].try_into().expect("a length")) as usize, body.len() - 5);
        }
    }
    assert_eq!(series(&house, "alice").await, expected());
    house.assert_conserved();
}

#[tokio::test]
async fn hostile_bodies_are_refused_and_counted() {
    let house = House::build().await;
    let bomb = gzip(&vec![b' '; 40 << 20]);
    // One point with 500,000 buckets and long labels: half a request in memory for each bucket.
    let many = {
        let numbers =
            |count: u64, of: fn(u64) -> u64| (0..count).flat_map(move |n| of(n).to_le_bytes()).collect::<Vec<u8>>();
        let field = |number: u8, bytes: &[u8]| {
            let mut out = vec![number << 3 | 2];
            let mut rest = bytes.len();
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
            out.extend_from_slice(bytes);
            out
        };
        let label = field(9, &[field(1, b"a"), field(2, &field(1, &[b'x'; 1000]))].concat());
        let buckets = [field(6, &numbers(200_001, |_| 1)), field(7, &numbers(200_000, |n| (n as f64).to_bits()))];
        let time = [&[3 << 3 | 1][..], &NOW_NS.to_le_bytes()].concat();
        let point = field(1, &[time, buckets.concat(), label].concat());
        let metric = [field(1, b"h"), field(9, &[point, vec![2 << 3, 2]].concat())].concat();
        field(1, &field(2, &field(2, &metric)))
    };
    let deep = {
        // An attribute that is a list in a list in a list ...
        let mut value = Vec::new();
        for _ in 0..64 {
            value = [vec![1 << 3 | 2, value.len() as u8], value].concat();
            value = [vec![5 << 3 | 2, value.len() as u8], value].concat();
            if value.len() > 100 {
                break;
            }
        }
        let attribute = [vec![2 << 3 | 2, value.len() as u8], value].concat();
        let resource = [vec![1 << 3 | 2, attribute.len() as u8], attribute].concat();
        let resource = [vec![1 << 3 | 2, resource.len() as u8], resource].concat();
        [vec![1 << 3 | 2, resource.len() as u8], resource].concat()
    };
    for (name, kind, encoding, body, status) in [
        ("a bomb", PROTOBUF, "gzip", bomb.clone(), 413),
        ("a bomb of JSON", "application/json", "gzip", bomb, 413),
        ("no gzip", PROTOBUF, "gzip", b"nothing".to_vec(), 400),
        ("another compression", PROTOBUF, "zstd", example(NOW_NS), 415),
        ("another form", "text/plain", "identity", Vec::new(), 415),
        ("no message", PROTOBUF, "identity", vec![0xff; 10], 400),
        ("no JSON", "application/json", "identity", b"{".to_vec(), 400),
        ("a list", "application/json", "identity", b"[]".to_vec(), 400),
        ("labels for each of many buckets", PROTOBUF, "identity", many, 413),
        ("lists within lists", PROTOBUF, "identity", deep, 400),
        ("too long", PROTOBUF, "identity", vec![0; (8 << 20) + 1], 413),
    ] {
        let request = Request::post("/otlp/v1/metrics").header("x-auth-token", "alice").header("content-type", kind);
        let request = request.header("content-encoding", encoding).body(Body::from(body)).expect("a request");
        let answer = send(&house, request).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.text);
    }
    let answer = post(&house, "nobody", "/otlp/v1/metrics", PROTOBUF, example(NOW_NS)).await;
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_bytes()),
        (StatusCode::UNAUTHORIZED, PROTOBUF.as_bytes())
    );
    // A time that no store can hold, and none at all.
    for time in [0, u64::MAX] {
        let answer = post(&house, "alice", "/otlp/v1/metrics", "application/json", example_json(time)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert!(answer.text.contains("rejectedDataPoints"), "{}", answer.text);
    }
    assert_eq!(series(&house, "alice").await, Vec::<String>::new());
    house.assert_conserved();
}

#[test]
fn nothing_that_is_sent_makes_it_panic_or_lose_count() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let house = runtime.block_on(House::build());
    let whole = example(NOW_NS);
    let changed = (prop::collection::vec((0..whole.len(), any::<u8>()), 0..6), 0..=whole.len());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&changed, |(changes, end)| {
        let mut body = whole[..end].to_vec();
        for (at, byte) in changes {
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
        }
        let answer = runtime.block_on(post(&house, "alice", "/otlp/v1/metrics", PROTOBUF, body));
        prop_assert!(matches!(answer.status.as_u16(), 200 | 400 | 413), "{}: {}", answer.status, answer.text);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    house.assert_conserved();
}

/// A request of JSON with one metric `m` of this kind, whose list of points is `points`.
fn json_of(kind: &str, points: Value) -> Value {
    let data = json!({"aggregationTemporality": 2, "dataPoints": points});
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", kind: data}]}]}]})
}

async fn post_json(house: &House, body: &Value) -> super::ingest::Answer {
    post(house, "alice", "/otlp/v1/metrics", "application/json", body.to_string()).await
}

#[tokio::test]
async fn what_cannot_be_read_of_json_is_refused_with_its_place_and_not_kept_as_nan_or_zero() {
    let house = House::build().await;
    let metric = "resourceMetrics[0].scopeMetrics[0].metrics[0]";
    let time = NOW_NS.to_string();
    let point = |fields: Value| {
        let mut point = json!({"timeUnixNano": time, "count": "1"});
        point.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        json!([point])
    };
    let mut cases = Vec::new();
    for (kind, fields, field, what) in [
        ("gauge", json!({"asDouble": "abc"}), "asDouble", "not a number"),
        ("gauge", json!({"asDouble": {"a": 1}}), "asDouble", "not a number"),
        ("gauge", json!({"asDouble": true}), "asDouble", "not a number"),
        ("gauge", json!({"asDouble": ""}), "asDouble", "not a number"),
        ("gauge", json!({"asDouble": "inf"}), "asDouble", "not a number"),
        ("gauge", json!({"asDouble": "1e400"}), "asDouble", "not a number"),
        ("sum", json!({"asInt": "1.5"}), "asInt", "not a whole number of 64 bits"),
        ("sum", json!({"asInt": 1.5}), "asInt", "not a whole number of 64 bits"),
        ("sum", json!({"asInt": "9223372036854775808"}), "asInt", "not a whole number of 64 bits"),
        ("sum", json!({"asInt": [1]}), "asInt", "not a whole number of 64 bits"),
        ("gauge", json!({"asInt": 1, "timeUnixNano": "now"}), "timeUnixNano", "not a whole number from 0 to 2^64 - 1"),
        ("gauge", json!({"asInt": 1, "timeUnixNano": -1}), "timeUnixNano", "not a whole number from 0 to 2^64 - 1"),
        ("gauge", json!({"asInt": 1, "attributes": {"a": "b"}}), "attributes", "not a list"),
        ("gauge", json!({"asInt": 1, "attributes": ["a"]}), "attributes[0]", "not an object"),
        ("gauge", json!({"asInt": 1, "attributes": [{"key": 1}]}), "attributes[0].key", "not a text"),
        (
            "gauge",
            json!({"asInt": 1, "attributes": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": "x"}]}}}]}),
            "attributes[0].value.arrayValue.values[0].intValue",
            "not a whole number of 64 bits",
        ),
        ("sum", json!({"asInt": 1, "exemplars": [{"asDouble": "x"}]}), "exemplars[0].asDouble", "not a number"),
        ("histogram", json!({"sum": "many"}), "sum", "not a number"),
        ("histogram", json!({"bucketCounts": ["1", null]}), "bucketCounts[1]", "not a whole number from 0 to 2^64 - 1"),
        ("histogram", json!({"explicitBounds": "x"}), "explicitBounds", "not a list"),
        ("exponentialHistogram", json!({"scale": 1e30}), "scale", "not a whole number of 32 bits"),
        ("exponentialHistogram", json!({"positive": []}), "positive", "not an object"),
        ("summary", json!({"quantileValues": [{"value": {}}]}), "quantileValues[0].value", "not a number"),
    ] {
        let place = format!("{metric}.{kind}.dataPoints[0].{field}");
        cases.push((json_of(kind, point(fields)), format!("{place}: {what}")));
    }
    let inside = |metric: Value| json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]});
    cases.extend([
        (json!({"resourceMetrics": "a"}), "resourceMetrics: not a list".to_owned()),
        (json!({"resourceMetrics": [1]}), "resourceMetrics[0]: not an object".to_owned()),
        (json!({"resourceMetrics": [{"resource": "a"}]}), "resourceMetrics[0].resource: not an object".to_owned()),
        (
            json!({"resourceMetrics": [{}, {"scopeMetrics": {"a": 1}}]}),
            "resourceMetrics[1].scopeMetrics: not a list".to_owned(),
        ),
        (json_of("gauge", json!("x")), format!("{metric}.gauge.dataPoints: not a list")),
        (json_of("gauge", json!([null])), format!("{metric}.gauge.dataPoints[0]: not an object")),
        (inside(json!({"name": "m", "gauge": 5})), format!("{metric}.gauge: not an object")),
        (inside(json!({"name": 5})), format!("{metric}.name: not a text")),
        (inside(json!({"sum": {"isMonotonic": "yes"}})), format!("{metric}.sum.isMonotonic: neither true nor false")),
        (
            inside(json!({"sum": {"aggregationTemporality": "DAILY"}})),
            format!("{metric}.sum.aggregationTemporality: not a temporality"),
        ),
        (inside(json!({"name": "m", "sum": {}, "gauge": {}})), format!("{metric}: more than one kind of metric")),
        (
            json_of("gauge", point(json!({"asInt": 1, "asDouble": 1}))),
            format!("{metric}.gauge.dataPoints[0]: both asInt and asDouble"),
        ),
    ]);
    for (body, text) in cases {
        let answer = post_json(&house, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.text);
        let told: Value = serde_json::from_str(&answer.text).expect("JSON");
        assert_eq!(told["message"], format!("the body cannot be read: {text}"), "{body}");
    }
    assert_eq!(series(&house, "alice").await, Vec::<String>::new());
    house.assert_conserved();
}

#[tokio::test]
async fn every_form_of_proto3s_json_is_read() {
    let house = House::build().await;
    let point = |name: &str, value: Value| {
        let mut point = json!({
            "timeUnixNano": NOW_NS, "attributes": [{"key": "of", "value": {"stringValue": name}}], "flags": null,
            "exemplars": null, "fromALaterVersion": {"a": [1]},
        });
        point.as_object_mut().expect("an object").extend(value.as_object().expect("an object").clone());
        point
    };
    let points = [
        ("a", json!({"asInt": "-3"})),
        ("b", json!({"asInt": 3.0})),
        ("c", json!({"asInt": "3e2", "asDouble": null})),
        ("d", json!({"asDouble": "1.5e-1"})),
        ("e", json!({"asDouble": "NaN"})),
        ("f", json!({"asDouble": "-Infinity"})),
        ("g", json!({"asDouble": 7})),
    ];
    let points: Vec<Value> = points.into_iter().map(|(name, value)| point(name, value)).collect();
    for temporality in [json!(2), json!("AGGREGATION_TEMPORALITY_CUMULATIVE")] {
        let mut body = json_of("sum", json!(points));
        let metric = &mut body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0];
        metric["sum"]["aggregationTemporality"] = temporality;
        metric["gauge"] = Value::Null;
        let answer = post_json(&house, &body).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, "{}"));
    }
    let values = ["a\"} -3", "b\"} 3", "c\"} 300", "d\"} 0.15", "e\"} NaN", "f\"} -Inf", "g\"} 7"];
    assert_eq!(series(&house, "alice").await, values.map(|rest| format!("m{{\"of\":\"{rest}")));
    for body in [json!({}), json!({"resourceMetrics": null}), json_of("gauge", Value::Null), json!({"later": "x"})] {
        let answer = post_json(&house, &body).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, "{}"), "{body}");
    }
    house.assert_conserved();
}

#[tokio::test]
async fn a_data_point_without_a_value_is_rejected_and_not_kept_as_zero() {
    let time = NOW_NS.to_string();
    let points = json!([{"timeUnixNano": time}, {"timeUnixNano": time, "asDouble": null}]);
    for (kind, body) in [
        (PROTOBUF, crate::ingest::otlp::tests::gauge_without_values(NOW_NS)),
        ("application/json", json_of("gauge", points).to_string().into_bytes()),
    ] {
        let house = House::build().await;
        let answer = post(&house, "alice", "/otlp/v1/metrics", kind, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert!(answer.text.contains("has neither asDouble nor asInt"), "{kind}: {}", answer.text);
        match kind {
            PROTOBUF => assert_eq!(&answer.text.as_bytes()[2..4], b"\x08\x02"),
            _ => assert!(answer.text.contains("\"rejectedDataPoints\":\"2\""), "{}", answer.text),
        }
        assert_eq!(series(&house, "alice").await, Vec::<String>::new(), "{kind}");
        // That nothing was recorded is something to keep: the series ends.
        let value = json!([{"timeUnixNano": (NOW_NS - 60_000_000_000).to_string(), "asDouble": 1}]);
        let ended = json!([{"timeUnixNano": time, "flags": 1}]);
        for points in [value, ended] {
            let answer = post_json(&house, &json_of("gauge", points)).await;
            assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, "{}"));
        }
        assert_eq!(series(&house, "alice").await, Vec::<String>::new(), "{kind}");
        house.assert_conserved();
    }
}
