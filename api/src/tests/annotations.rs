//! Exemplars and metadata of label sets, by every protocol that brings them, and read back as Prometheus answers them.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    house::House,
    ingest::{Answer, ask, post, snappy, write},
};
use crate::{
    ingest::otlp::tests::example_json,
    prometheus::wire::{write_field, write_sample},
};

/// The moment of the house's clock, in milliseconds.
const NOW_MS: i64 = 1_795_291_200_000;
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A series without samples and with one exemplar, as Prometheus sends it: a field of a message 1.0.
pub(super) fn exemplar_v1(labels: &[(&str, &str)], own: &[(&str, &str)], value: f64, at_ms: i64) -> Vec<u8> {
    let mut exemplar = Vec::new();
    for (name, text) in own {
        orzo_labels::write_label(&mut exemplar, name.as_bytes(), text.as_bytes());
    }
    let mut sample = [0_u8; 20];
    let length = write_sample(&mut sample, at_ms, value);
    // An exemplar numbers value and time from 2, a sample from 1.
    for (at, key) in [(0, 0x11), (9, 0x18)] {
        sample[at] = key;
    }
    exemplar.extend_from_slice(&sample[..length]);
    let mut series = Vec::new();
    for (name, text) in labels {
        orzo_labels::write_label(&mut series, name.as_bytes(), text.as_bytes());
    }
    write_field(&mut series, 3, &exemplar);
    let mut out = Vec::new();
    write_field(&mut out, 1, &series);
    out
}

/// What a name means: a field of a message 1.0.
pub(super) fn metadata_v1(kind: u8, name: &str, help: &str, unit: &str) -> Vec<u8> {
    let mut one = vec![0x08, kind];
    for (field, text) in [(2, name), (4, help), (5, unit)] {
        write_field(&mut one, field, text.as_bytes());
    }
    let mut out = Vec::new();
    write_field(&mut out, 3, &one);
    out
}

pub(super) async fn send_v1(house: &House, asker: &str, body: &[u8]) -> Answer {
    post(house, asker, "/prometheus/api/v1/write", "application/x-protobuf", snappy(body)).await
}

async fn exemplars(house: &House, asker: &str, query: &str) -> Value {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let (start, end) = (NOW_MS / 1000 - 600, NOW_MS / 1000 + 600);
    let path = format!("/prometheus/api/v1/query_exemplars?query={query}&start={start}&end={end}");
    let (status, body) = ask(house, asker, &path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["data"].clone()
}

async fn metadata(house: &House, asker: &str, question: &str) -> Value {
    ask(house, asker, &format!("/prometheus/api/v1/metadata{question}")).await.1["data"].clone()
}

#[tokio::test]
async fn exemplars_and_metadata_of_remote_write_1_are_answered() {
    let house = House::build().await;
    let labels = [("__name__", "took_bucket"), ("job", "a"), ("le", "1")];
    assert_eq!(write(&house, "alice", &[(&labels, &[(NOW_MS, 4.0)])]).await.status, StatusCode::NO_CONTENT);
    let long = "x".repeat(130);
    let body = [
        exemplar_v1(&labels, &[("trace_id", "t1")], 0.25, NOW_MS - 5),
        exemplar_v1(&labels, &[("trace_id", "t1")], 0.25, NOW_MS - 5),
        exemplar_v1(&labels, &[("trace_id", &long)], 0.5, NOW_MS),
        exemplar_v1(&[("__name__", "unknown")], &[("trace_id", "t2")], 0.5, NOW_MS),
        metadata_v1(3, "took", "How long it took.", "s"),
        metadata_v1(1, "hits_total", "Hits.", ""),
        metadata_v1(99, "odd", "", ""),
    ];
    for _ in 0..2 {
        let answer = send_v1(&house, "alice", &body.concat()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        assert_eq!(answer.headers["x-prometheus-remote-write-exemplars-written"], "2");
    }
    let expected = json!([{
        "seriesLabels": {"__name__": "took_bucket", "job": "a", "le": "1"},
        "exemplars": [{"labels": {"trace_id": "t1"}, "value": "0.25", "timestamp": 1_795_291_199.995}],
    }]);
    // Of every series that a query selects, whatever it makes of them.
    for query in ["took_bucket", "histogram_quantile(0.9, sum by (le) (rate(took_bucket{job=\"a\"}[5m]))) + up"] {
        assert_eq!(exemplars(&house, "alice", query).await, expected, "{query}");
    }
    assert_eq!(exemplars(&house, "alice", "took_bucket{job=\"b\"}").await, json!([]));
    assert_eq!(exemplars(&house, "bob", "took_bucket").await, json!([]));
    // Grafana's front end sends milliseconds.
    let path = format!("/prometheus/api/v1/query_exemplars?query=took_bucket&start={}&end={NOW_MS}", NOW_MS - 1000);
    assert_eq!(ask(&house, "alice", &path).await.1["data"], expected);
    let path = format!("/prometheus/api/v1/query_exemplars?query=took_bucket&start={NOW_MS}&end={NOW_MS}");
    assert_eq!(ask(&house, "alice", &path).await.1["data"], json!([]));
    let took = json!([{"type": "histogram", "help": "How long it took.", "unit": "s"}]);
    assert_eq!(metadata(&house, "alice", "?metric=took").await, json!({"took": took}));
    let all = metadata(&house, "alice", "").await;
    assert_eq!(
        (&all["took"], &all["hits_total"][0]["type"], &all["odd"][0]["type"]),
        (&took, &json!("counter"), &json!("unknown"))
    );
    assert_eq!(metadata(&house, "alice", "?limit=1").await.as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(metadata(&house, "bob", "?metric=took").await, json!({}));
    assert_eq!(ask(&house, "alice", "/prometheus/api/v1/metadata?limit_per_metric=x").await.0, StatusCode::BAD_REQUEST);
    // What is deleted has no exemplars any more.
    let deleted =
        post(&house, "alice", "/prometheus/api/v1/admin/tsdb/delete_series?match[]=took_bucket", "", "").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(exemplars(&house, "alice", "took_bucket").await, json!([]));
    house.assert_conserved();
}

#[tokio::test]
async fn exemplars_and_metadata_of_remote_write_2_are_answered() {
    let house = House::build().await;
    let symbols = ["", "__name__", "took_count", "trace_id", "t1", "How long.", "s"];
    let mut sample = [0_u8; 20];
    let length = write_sample(&mut sample, NOW_MS, 4.0);
    let exemplar = [&[0x0a, 2, 3, 4, 0x11][..], &0.25_f64.to_le_bytes(), &[0x18], &sample[10..length]].concat();
    let mut series = vec![0x0a, 2, 1, 2];
    write_field(&mut series, 2, &sample[..length]);
    write_field(&mut series, 4, &exemplar);
    write_field(&mut series, 5, &[0x08, 3, 0x18, 5, 0x20, 6]);
    let mut body = Vec::new();
    for symbol in symbols {
        write_field(&mut body, 4, symbol.as_bytes());
    }
    write_field(&mut body, 5, &series);
    let answer = post(&house, "alice", "/prometheus/api/v1/write", V2, snappy(&body)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(answer.headers["x-prometheus-remote-write-exemplars-written"], "1");
    let found = exemplars(&house, "alice", "took_count").await;
    let one = json!({"labels": {"trace_id": "t1"}, "value": "0.25", "timestamp": NOW_MS / 1000});
    assert_eq!(found[0]["exemplars"][0]["timestamp"].as_f64(), one["timestamp"].as_f64());
    assert_eq!(
        (&found[0]["exemplars"][0]["labels"], found[0]["exemplars"].as_array().map(Vec::len)),
        (&one["labels"], Some(1))
    );
    // A series of a histogram tells of the histogram.
    let took = json!({"took": [{"type": "histogram", "help": "How long.", "unit": "s"}]});
    assert_eq!(metadata(&house, "alice", "?metric=took").await, took);
    // Symbols that are not there, and labels that would become larger than any body.
    for wrong in [&[0x0a, 2, 3, 99][..], &[0x08, 1]] {
        let mut series = vec![0x0a, 2, 1, 2];
        write_field(&mut series, 4, wrong);
        let mut body = Vec::new();
        for symbol in symbols {
            write_field(&mut body, 4, symbol.as_bytes());
        }
        write_field(&mut body, 5, &series);
        let answer = post(&house, "alice", "/prometheus/api/v1/write", V2, snappy(&body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    }
    house.assert_conserved();
}

#[tokio::test]
async fn a_request_brings_only_so_many_exemplars_and_the_rest_is_counted() {
    let house = House::build().await;
    let labels = [("__name__", "up")];
    write(&house, "alice", &[(&labels, &[(NOW_MS, 1.0)])]).await;
    let many: Vec<u8> =
        (0..=crate::ingest::EXEMPLARS_MAX as i64).flat_map(|at| exemplar_v1(&labels, &[], 1.0, NOW_MS + at)).collect();
    let answer = send_v1(&house, "alice", &many).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    let written = crate::ingest::EXEMPLARS_MAX.to_string();
    assert_eq!(answer.headers["x-prometheus-remote-write-exemplars-written"], written.as_str());
    assert_eq!(house.room.balance().refused, 1);
    house.assert_conserved();
}

#[tokio::test]
async fn exemplars_and_descriptions_of_opentelemetry_are_answered() {
    let house = House::build().await;
    let mut request: Value = serde_json::from_str(&example_json(NOW_MS as u64 * 1_000_000)).expect("JSON");
    let metrics = &mut request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    metrics[0]["description"] = "How long.".into();
    metrics[0]["histogram"]["dataPoints"][0]["exemplars"] = json!([
        {"timeUnixNano": format!("{}000000", NOW_MS - 1), "asDouble": 0.7, "traceId": "0af7", "spanId": "b7ad",
         "filteredAttributes": [{"key": "user", "value": {"stringValue": "u1"}}]},
        {"timeUnixNano": format!("{}000000", NOW_MS - 1), "asDouble": 99},
    ]);
    let answer = post(&house, "alice", "/otlp/v1/metrics", "application/json", request.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let found = exemplars(&house, "alice", "http_duration_seconds_bucket").await;
    let mut buckets: Vec<(String, String)> = found
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["seriesLabels"]["le"].to_string(), row["exemplars"][0]["value"].to_string()))
        .collect();
    buckets.sort();
    // Each in the bucket that its value falls into.
    let pair = |le: &str, value: &str| (format!("{le:?}"), format!("{value:?}"));
    assert_eq!(buckets, [pair("+Inf", "99"), pair("10", "0.7")]);
    let of_ten = found.as_array().expect("rows").iter().find(|row| row["seriesLabels"]["le"] == "10").expect("a row");
    assert_eq!(of_ten["exemplars"][0]["labels"], json!({"trace_id": "0af7", "span_id": "b7ad", "user": "u1"}));
    let about = metadata(&house, "alice", "").await;
    assert_eq!(about["http_duration_seconds"], json!([{"type": "histogram", "help": "How long.", "unit": "s"}]));
    assert_eq!(about["http_requests_total"][0]["type"], "counter");
    house.assert_conserved();
}

#[tokio::test]
async fn deltas_go_on_where_their_series_are_and_a_repeat_adds_nothing() {
    let house = House::build().await;
    let request = |at_s: i64, value: f64| {
        let time = format!("{}000000000", NOW_MS / 1000 + at_s);
        let histogram = json!({
            "timeUnixNano": time, "count": "3", "sum": value, "bucketCounts": ["1", "2"], "explicitBounds": [1],
        });
        json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
            {"name": "hits", "sum": {"aggregationTemporality": 1, "isMonotonic": true,
                "dataPoints": [{"timeUnixNano": time, "asDouble": value}]}},
            {"name": "took", "histogram": {"aggregationTemporality": 1, "dataPoints": [histogram]}},
        ]}]}]})
        .to_string()
    };
    let send = |at_s, value| {
        let house = &house;
        async move { post(house, "alice", "/otlp/v1/metrics", "application/json", request(at_s, value)).await }
    };
    let value = |query: &'static str, at_s: i64| {
        let house = &house;
        async move {
            let path = format!("/prometheus/api/v1/query?query={query}&time={}", NOW_MS / 1000 + at_s);
            ask(house, "alice", &path).await.1["data"]["result"][0]["value"][1].as_str().unwrap_or("none").to_owned()
        }
    };
    // A retry adds nothing, whether the first try was answered or not.
    for (at_s, added) in [(-60, 2.0), (-30, 3.0), (-30, 3.0)] {
        let answer = send(at_s, added).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, "{}"));
    }
    assert_eq!(value("hits_total", -60).await, "2");
    assert_eq!(value("hits_total", 0).await, "5");
    assert_eq!(value("took_sum", 0).await, "5");
    assert_eq!(value("took_bucket%7Ble=%22%2BInf%22%7D", 0).await, "6");
    assert_eq!(value("took_bucket%7Ble=%221%22%7D", 0).await, "2");
    // What comes after a later one cannot be added any more, and says so.
    let late = send(-45, 100.0).await;
    assert!(late.text.contains("a delta came after a later one"), "{}", late.text);
    assert_eq!(value("hits_total", 0).await, "5");
    assert_eq!(send(0, 1.0).await.text, "{}");
    assert_eq!(value("hits_total", 0).await, "6");
    house.assert_conserved();
}

#[tokio::test]
async fn metadata_of_own_meters_has_type_help_and_unit_under_both_names() {
    let house = House::build().await;
    let policy = json!({"name": "minutes", "definition": [{"granularity": 60, "points": 60}]});
    post(&house, "admin", "/metric/v1/archive_policy", "application/json", policy.to_string()).await;
    let metric = |unit| json!({"archive_policy_name": "minutes", "unit": unit});
    let resource = json!({
        "id": uuid::Uuid::from_u128(1), "project_id": "p1",
        "metrics": {"disk.device.read.bytes": metric(""), "disk.device.read.bytes.mine": metric("KiB")},
    });
    let answer = post(&house, "alice", "/metric/v1/resource/generic", "application/json", resource.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let own = json!([{"type": "counter", "help": "Bytes read from the device", "unit": "B"}]);
    for name in ["disk.device.read.bytes", "disk_device_read_bytes"] {
        assert_eq!(metadata(&house, "alice", &format!("?metric={name}")).await, json!({name: own}));
        assert_eq!(metadata(&house, "bob", &format!("?metric={name}")).await, json!({}));
    }
    let mine = json!([{"type": "unknown", "help": "", "unit": "KiB"}]);
    let all = json!({"disk_device_read_bytes": own, "disk_device_read_bytes_mine": mine});
    assert_eq!(metadata(&house, "alice", "").await, all);
}
