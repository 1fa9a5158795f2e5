//! Native histograms: written by remote write and OTLP, read back by every question, apart by project.

use http::StatusCode;
use orzo_promql::{CUSTOM_SCHEMA, Histogram, ResetHint};
use serde_json::{Value, json};

use super::{
    annotations::send_v1,
    house::House,
    ingest::{ask, post, snappy, write},
};
use crate::prometheus::{
    remote_read::{histogram_message, tests::request as remote_read},
    wire::{write_field, write_number},
};

/// The moment of the house's clock, in milliseconds.
const NOW_MS: i64 = 1_795_291_200_000;

/// A series of histograms: a field of a message 1.0.
pub(super) fn histogram_v1(labels: &[(&str, &str)], histograms: &[(i64, Histogram)]) -> Vec<u8> {
    let messages: Vec<Vec<u8>> = histograms.iter().map(|(at_ms, one)| histogram_message(*at_ms, one)).collect();
    series_v1(labels, &messages)
}

fn series_v1(labels: &[(&str, &str)], messages: &[Vec<u8>]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, text) in labels {
        orzo_labels::write_label(&mut series, name.as_bytes(), text.as_bytes());
    }
    for message in messages {
        write_field(&mut series, 4, message);
    }
    let mut out = Vec::new();
    write_field(&mut out, 1, &series);
    out
}

pub(super) fn example(factor: f64) -> Histogram {
    Histogram {
        schema: 0,
        zero_threshold: 0.001,
        zero_count: 2.0 * factor,
        count: 12.0 * factor,
        sum: 18.4 * factor,
        positive: vec![(0, factor), (1, 2.0 * factor), (4, 3.0 * factor)],
        negative: vec![(0, 4.0 * factor)],
        ..Histogram::default()
    }
}

async fn query(house: &House, asker: &str, text: &str) -> Value {
    let text: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let (status, body) =
        ask(house, asker, &format!("/prometheus/api/v1/query?query={text}&time={}", NOW_MS / 1000)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["data"]["result"].clone()
}

#[tokio::test]
async fn a_native_histogram_is_kept_and_answered_as_prometheus_answers_it() {
    let house = House::build().await;
    let labels = [("__name__", "took"), ("job", "a")];
    let body = histogram_v1(&labels, &[(NOW_MS - 60_000, example(1.0)), (NOW_MS, example(2.0))]);
    for _ in 0..2 {
        let answer = send_v1(&house, "alice", &body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        assert_eq!(answer.headers["x-prometheus-remote-write-histograms-written"], "2");
        assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "0");
    }
    let buckets = json!([
        [1, "-1", "-0.5", "8"],
        [3, "-0.001", "0.001", "4"],
        [0, "0.5", "1", "2"],
        [0, "1", "2", "4"],
        [0, "8", "16", "6"]
    ]);
    let whole = json!([NOW_MS / 1000, {"count": "24", "sum": "36.8", "buckets": buckets}]);
    assert_eq!(
        query(&house, "alice", "took").await,
        json!([{"metric": {"__name__": "took", "job": "a"}, "histogram": whole}])
    );
    assert_eq!(query(&house, "alice", "histogram_count(increase(took[2m]))").await[0]["value"][1], "24");
    assert_eq!(query(&house, "alice", "histogram_sum(took) + 0").await[0]["value"][1], "36.8");
    let range = query(&house, "alice", "took[2m]").await;
    assert_eq!((range[0]["histograms"].as_array().map(Vec::len), &range[0]["values"]), (Some(2), &Value::Null));
    // It is a series among others.
    for (path, has) in [
        ("/prometheus/api/v1/series?match[]=took", json!([{"__name__": "took", "job": "a"}])),
        ("/prometheus/api/v1/label/__name__/values", json!(["took"])),
        ("/prometheus/api/v1/labels", json!(["__name__", "job"])),
        ("/prometheus/api/v1/label/job/values?match[]=took", json!(["a"])),
    ] {
        assert_eq!(ask(&house, "alice", path).await.1["data"], has, "{path}");
        assert_eq!(ask(&house, "bob", path).await.1["data"], json!([]), "{path}");
    }
    assert_eq!(query(&house, "bob", "{__name__=~\".+\"}").await, json!([]));
    // Another Prometheus reads it, as samples, although it would rather have chunks.
    let asked = remote_read(&[&[(0, "__name__", "took")]], NOW_MS - 100_000, NOW_MS);
    let answer = post(&house, "alice", "/prometheus/api/v1/read", "application/x-protobuf", asked).await;
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_bytes()),
        (StatusCode::OK, &b"application/x-protobuf"[..])
    );
    // Deleted, it is gone; the next one is another series.
    let path = "/prometheus/api/v1/admin/tsdb/delete_series?match[]=took";
    assert_eq!(post(&house, "alice", path, "", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(query(&house, "alice", "took").await, json!([]));
    house.assert_conserved();
}

#[tokio::test]
async fn numbers_and_histograms_of_one_series_are_one_series() {
    let house = House::build().await;
    let labels = [("__name__", "took")];
    let stale = Histogram { sum: f64::from_bits(0x7ff0_0000_0000_0002), ..Histogram::default() };
    write(&house, "alice", &[(&labels, &[(NOW_MS - 90_000, 7.0), (NOW_MS - 60_000, 8.0)])]).await;
    let custom = Histogram {
        schema: CUSTOM_SCHEMA,
        hint: ResetHint::Gauge,
        count: 3.0,
        sum: 2.0,
        positive: vec![(0, 1.0), (2, 2.0)],
        bounds: vec![-1.0, 0.5],
        ..Histogram::default()
    };
    let body =
        histogram_v1(&labels, &[(NOW_MS - 60_000, custom), (NOW_MS - 30_000, example(1.0)), (NOW_MS - 1, stale)]);
    assert_eq!(send_v1(&house, "alice", &body).await.status, StatusCode::NO_CONTENT);
    let found = query(&house, "alice", "took[5m]").await;
    let times = |list: &str| -> Vec<i64> {
        let points = found[0][list].as_array().expect("points");
        points.iter().map(|point| (point[0].as_f64().expect("a time") * 1000.0) as i64 - NOW_MS).collect()
    };
    // At one time the histogram counts, whichever came first.
    assert_eq!((times("values"), times("histograms")), (vec![-90_000], vec![-60_000, -30_000]));
    assert_eq!(found[0]["histograms"][0][1]["buckets"], json!([[3, "-Inf", "-1", "1"], [0, "0.5", "+Inf", "2"]]));
    assert_eq!(query(&house, "alice", "took").await, json!([]), "it has ended");
    assert_eq!(query(&house, "alice", "count_over_time(took[5m])").await[0]["value"][1], "3");
    house.assert_conserved();
}

#[tokio::test]
async fn what_is_no_histogram_is_refused_and_the_rest_is_kept() {
    let house = House::build().await;
    let many = Histogram { positive: (0..2000).map(|at| (at, 0.0)).collect(), ..Histogram::default() };
    let unsorted = Histogram { schema: CUSTOM_SCHEMA, bounds: vec![1.0, 1.0], ..Histogram::default() };
    let below = Histogram { positive: vec![(0, -1.0)], ..Histogram::default() };
    // Whole counts: the buckets must add up.
    let mut short = vec![0x08, 5];
    write_field(&mut short, 11, &[0x08, 0, 0x10, 1]);
    write_field(&mut short, 12, &[2]);
    write_number(&mut short, 15, NOW_MS.cast_unsigned());
    let mut huge = vec![0x08, 0];
    write_field(&mut huge, 11, &[0x08, 0, 0x10, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    for (message, reason) in [
        (histogram_message(NOW_MS, &many), "too many buckets"),
        (histogram_message(NOW_MS, &Histogram { schema: 9, ..Histogram::default() }), "schema"),
        (histogram_message(NOW_MS, &unsorted), "do not grow"),
        (histogram_message(NOW_MS, &below), "less than nothing"),
        (histogram_message(i64::MAX, &example(1.0)), "out of range"),
        (short, "add up"),
        (huge, "fewer counts"),
    ] {
        let good = histogram_v1(&[("__name__", "good")], &[(NOW_MS, example(1.0))]);
        let body = [series_v1(&[("__name__", "bad")], &[message]), good].concat();
        let answer = send_v1(&house, "alice", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{reason}");
        assert!(answer.text.contains(reason), "{reason}: {}", answer.text);
        assert_eq!(answer.headers["x-prometheus-remote-write-histograms-written"], "1", "{reason}");
    }
    assert_eq!(query(&house, "alice", "bad").await, json!([]));
    assert_eq!(query(&house, "alice", "good").await.as_array().map(Vec::len), Some(1));
    let whole = histogram_v1(&[("__name__", "cut")], &[(NOW_MS, example(1.0))]);
    for end in 0..whole.len() {
        let answer =
            post(&house, "alice", "/prometheus/api/v1/write", "application/x-protobuf", snappy(&whole[..end])).await;
        assert!(answer.status.is_success() || answer.status == StatusCode::BAD_REQUEST, "{end}: {}", answer.text);
    }
    house.assert_conserved();
}

#[tokio::test]
async fn exponential_histograms_of_opentelemetry_are_native_ones() {
    let house = House::build().await;
    let request = |temporality: u8, scale: i32| {
        let point = json!({
            "timeUnixNano": format!("{NOW_MS}000000"), "count": "10", "sum": 20.5, "scale": scale, "zeroCount": "1",
            "positive": {"offset": 1, "bucketCounts": ["2", "0", "3"]}, "negative": {"offset": -1, "bucketCounts": ["4"]},
            "exemplars": [{"timeUnixNano": format!("{NOW_MS}000000"), "asDouble": 3, "traceId": "0af7"}],
        });
        json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
            {"name": "took", "unit": "s", "exponentialHistogram": {"aggregationTemporality": temporality, "dataPoints": [point]}},
        ]}]}]})
    };
    let send = |body: Value| {
        let house = &house;
        async move { post(house, "alice", "/otlp/v1/metrics", "application/json", body.to_string()).await }
    };
    assert_eq!(send(request(2, 0)).await.text, "{}");
    let found = query(&house, "alice", "took_seconds").await;
    let buckets = found[0]["histogram"][1]["buckets"].as_array().expect("buckets").clone();
    assert_eq!(buckets[0], json!([1, "-1", "-0.5", "4"]));
    assert_eq!((&buckets[1][0], &buckets[1][3]), (&json!(3), &json!("1")));
    assert_eq!(buckets[2..], [json!([0, "2", "4", "2"]), json!([0, "8", "16", "3"])]);
    let path = "/prometheus/api/v1/query_exemplars?query=took_seconds";
    assert_eq!(ask(&house, "alice", path).await.1["data"][0]["exemplars"][0]["labels"], json!({"trace_id": "0af7"}));
    assert_eq!(
        ask(&house, "alice", "/prometheus/api/v1/metadata").await.1["data"]["took_seconds"][0]["type"],
        "histogram"
    );
    // Finer than any schema: merged into the finest. Coarser than any: refused.
    assert_eq!(send(request(2, 20)).await.text, "{}");
    assert_eq!(query(&house, "alice", "histogram_count(took_seconds)").await[0]["value"][1], "10");
    assert!(send(request(2, -5)).await.text.contains("coarser"));
    assert!(send(request(1, 0)).await.text.contains("deltas of exponential histograms"));
    house.assert_conserved();
}
