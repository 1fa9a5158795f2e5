//! Points of other monitoring systems over HTTP, read back through the engine.

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use orzo_labels::Matcher;
use orzo_model::{Scope, Timestamp};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::House;
use crate::ingest::{
    DECODED_BYTES_MAX,
    labelled::{Beginnings, Labelled},
    remote_write::{
        Incoming, read_v1,
        tests::{Written, write_v1, write_v2},
    },
};

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// The NaN that Prometheus sends when a series has ended.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

pub(super) async fn send(house: &House, request: Request<Body>) -> Answer {
    let response = house.router.clone().oneshot(request).await.expect("the router does not fail");
    let (parts, body) = response.into_parts();
    let text = String::from_utf8_lossy(&body.collect().await.expect("a body").to_bytes()).into_owned();
    Answer { status: parts.status, headers: parts.headers, text }
}

pub(super) async fn post(house: &House, asker: &str, path: &str, kind: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(path).header("x-auth-token", asker).header("content-type", kind);
    send(house, request.body(body.into()).expect("a request")).await
}

pub(super) fn snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).expect("compressed")
}

/// A body of remote write 1.0.
pub(super) fn written(series: &[Written<'_>]) -> Vec<u8> {
    snappy(&write_v1(series))
}

pub(super) async fn write(house: &House, asker: &str, series: &[Written<'_>]) -> Answer {
    post(house, asker, "/prometheus/api/v1/write", "application/x-protobuf", written(series)).await
}

pub(super) async fn ask(house: &House, asker: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header("x-auth-token", asker).header("accept", "*/*");
    let answer = send(house, request.body(Body::empty()).expect("a request")).await;
    (answer.status, serde_json::from_str(&answer.text).unwrap_or(Value::Null))
}

/// Points of the series of this name: labels, then (milliseconds, bits).
async fn read(house: &House, project: &str, name: &str) -> Vec<(String, Vec<(i64, u64)>)> {
    let scope = Scope::Project(project.to_owned());
    let matchers = [Matcher::equal("__name__", name)];
    let found = house.engine.read_labelled(&scope, &matchers, Timestamp::MIN, Timestamp::MAX, 100).await.expect("read");
    let rows = found.into_iter().map(|(series, measures)| {
        let labels: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let points = measures.iter().map(|m| (m.timestamp.micros() / 1000, m.value.to_bits())).collect();
        (labels.join(","), points)
    });
    rows.collect()
}

fn example() -> [Written<'static>; 2] {
    [
        (&[("__name__", "up"), ("job", "a")], &[(1000, 1.5), (2000, STALE)]),
        (&[("__name__", "up"), ("job", "b")], &[(-1, 0.25)]),
    ]
}

#[tokio::test]
async fn remote_write_is_kept_bit_by_bit_and_a_repeat_changes_nothing() {
    let house = House::build().await;
    for _ in 0..3 {
        let answer = write(&house, "alice", &example()).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
        assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "3");
        assert_eq!(answer.headers["x-prometheus-remote-write-histograms-written"], "0");
    }
    let expected = vec![
        ("__name__=up,job=a".to_owned(), vec![(1000, 1.5f64.to_bits()), (2000, STALE.to_bits())]),
        ("__name__=up,job=b".to_owned(), vec![(-1, 0.25f64.to_bits())]),
    ];
    assert_eq!(read(&house, "p1", "up").await, expected);
    // The same set in another order is the same series.
    let turned: [Written<'_>; 1] = [(&[("job", "b"), ("__name__", "up")], &[(5, 7.0)])];
    assert_eq!(write(&house, "alice", &turned).await.status, StatusCode::NO_CONTENT);
    assert_eq!(write(&house, "alice", &turned).await.status, StatusCode::NO_CONTENT);
    assert_eq!(read(&house, "p1", "up").await[1].1.len(), 2);
    house.assert_conserved();
}

#[tokio::test]
async fn tokens_come_as_each_client_sends_them() {
    let house = House::build().await;
    for (path, authorization, status) in [
        ("/prometheus/api/v1/write", "Bearer alice", 204),
        ("/prometheus/api/v1/write", "Basic YWxpY2U6c2VjcmV0", 204),
        ("/prometheus/api/v1/write", "Bearer nobody", 401),
        ("/prometheus/api/v1/write", "Bearer", 401),
        ("/influxdb/api/v2/write", "Token alice", 204),
        ("/influxdb/api/v2/write", "Digest alice", 401),
        ("/metric/v1/metric", "Bearer alice", 401),
    ] {
        let body = if path.starts_with("/prometheus") { snappy(&write_v1(&example())) } else { Vec::new() };
        let request = Request::post(path).header("authorization", authorization).body(body.into());
        assert_eq!(send(&house, request.expect("a request")).await.status, status, "{path} {authorization}");
    }
}

#[tokio::test]
async fn message_2_is_the_same_and_begins_counters_at_zero() {
    let house = House::build().await;
    for round in 0..3 {
        let samples = [(2000 + round, 4.0)];
        let series: [Written<'_>; 1] = [(&[("__name__", "requests_total"), ("job", "a")], &samples)];
        let answer =
            post(&house, "alice", "/prometheus/api/v1/write", V2, snappy(&write_v2(&series, Some(1500)))).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "1");
    }
    let four = 4f64.to_bits();
    let expected = vec![(1500, 0f64.to_bits()), (2000, four), (2001, four), (2002, four)];
    assert_eq!(read(&house, "p1", "requests_total").await, [("__name__=requests_total,job=a".to_owned(), expected)]);
    house.assert_conserved();
}

#[tokio::test]
async fn projects_keep_their_series_apart() {
    let house = House::build().await;
    let mine: [Written<'_>; 1] = [(&[("__name__", "up"), ("job", "mine")], &[(1, 1.0)])];
    let yours: [Written<'_>; 1] = [(&[("__name__", "up"), ("job", "yours")], &[(1, 2.0)])];
    write(&house, "alice", &mine).await;
    write(&house, "bob", &yours).await;
    write(&house, "bob", &mine).await;
    assert_eq!(read(&house, "p1", "up").await.len(), 1);
    assert_eq!(read(&house, "p2", "up").await.len(), 2);
    assert_eq!(write(&house, "unscoped", &mine).await.status, StatusCode::FORBIDDEN);
    assert_eq!(write(&house, "nobody", &mine).await.status, StatusCode::UNAUTHORIZED);
    for (asker, jobs) in [("alice", json!(["mine"])), ("bob", json!(["mine", "yours"])), ("admin", json!([]))] {
        let (_, found) = ask(&house, asker, "/prometheus/api/v1/label/job/values").await;
        assert_eq!(found["data"], jobs, "{asker}");
    }
    let (_, found) = ask(&house, "alice", "/prometheus/api/v1/series?match[]=up&match[]=%7Bjob%3D~%22.%2B%22%7D").await;
    assert_eq!(found, json!({"status": "success", "data": [{"__name__": "up", "job": "mine"}]}));
    let (_, found) = ask(&house, "bob", "/prometheus/api/v1/labels?match[]=up").await;
    assert_eq!(found["data"], json!(["__name__", "job"]));
    // What one deletes the other keeps.
    let path = "/prometheus/api/v1/admin/tsdb/delete_series?match[]=up";
    assert_eq!(post(&house, "bob", path, "text/plain", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!((read(&house, "p1", "up").await.len(), read(&house, "p2", "up").await.len()), (1, 0));
    house.assert_conserved();
}

#[tokio::test]
async fn questions_that_are_none_are_told_so() {
    let house = House::build().await;
    write(&house, "alice", &example()).await;
    for path in [
        "series",
        "series?match[]=%7B%7D",
        "series?match[]=up&start=tomorrow-ish",
        "labels?match[]=up%7B",
        "label/job/values?limit=x",
    ] {
        let (status, answer) = ask(&house, "alice", &format!("/prometheus/api/v1/{path}")).await;
        assert_eq!((status, &answer["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{path}");
    }
    let (_, nothing) = ask(&house, "alice", "/prometheus/api/v1/series?match[]=up&start=5&end=4").await;
    assert_eq!(nothing["data"], json!([]), "nothing lies between them");
    let (_, found) = ask(&house, "alice", "/prometheus/api/v1/series?match[]=up&limit=1&start=-1&end=10").await;
    assert_eq!((found["data"].as_array().map(Vec::len), found["warnings"].is_array()), (Some(1), true));
    let request = Request::post("/prometheus/api/v1/series").header("x-auth-token", "alice");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body("match[]=up".into());
    assert_eq!(send(&house, request.expect("a request")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn hostile_bodies_are_refused_and_counted_and_nothing_else_is_lost() {
    let house = House::build().await;
    let path = "/prometheus/api/v1/write";
    // A claim of 10 GB; too much; no snappy; no message.
    let mut claim = Vec::new();
    let mut rest = 10u64 << 30;
    while rest >= 0x80 {
        claim.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    claim.push(rest as u8);
    let zeros = snappy(&vec![0; DECODED_BYTES_MAX + 1]);
    for (body, status, kind) in [
        (claim, StatusCode::PAYLOAD_TOO_LARGE, "application/x-protobuf"),
        (zeros, StatusCode::PAYLOAD_TOO_LARGE, "application/x-protobuf"),
        (b"hello".to_vec(), StatusCode::BAD_REQUEST, "application/x-protobuf"),
        (snappy(&[0xff; 100]), StatusCode::BAD_REQUEST, "application/x-protobuf"),
        (snappy(&write_v1(&example())), StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json"),
        (snappy(&write_v1(&example())), StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/x-protobuf;proto=x.Y"),
    ] {
        let answer = post(&house, "alice", path, kind, body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    // Series that cannot be kept do not take the others with them.
    let names: Vec<String> = (0..100_000).map(|name| format!("n{name}")).collect();
    let mut many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    many.push(("__name__", "bomb"));
    let long = "x".repeat(5 << 20);
    let mixed: [Written<'_>; 5] = [
        (&many, &[(1, 1.0)]),
        (&[("__name__", "bomb"), ("long", &long)], &[(1, 1.0)]),
        (&[("job", "nameless")], &[(1, 1.0), (2, 1.0)]),
        (&[("__name__", "good")], &[(1, 1.0), (i64::MAX, 1.0)]),
        (&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(1, 1.0)]),
    ];
    let answer = write(&house, "alice", &mixed).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "1");
    assert!(answer.text.contains("100001 labels") && answer.text.len() < 300, "{}", answer.text);
    assert_eq!(read(&house, "p1", "good").await.len(), 1);
    // A project that has all its series keeps getting points for them.
    let names: Vec<String> = (0..1100).map(|name| format!("m{name}")).collect();
    let labels: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("__name__", name.as_str())]).collect();
    let flood: Vec<Written<'_>> = labels.iter().map(|labels| (&labels[..], &[(1, 1.0)][..])).collect();
    let answer = write(&house, "alice", &flood).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("1000 series"), "{}", answer.text);
    assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "999");
    assert_eq!(write(&house, "alice", &[(&[("__name__", "good")], &[(9, 9.0)])]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(write(&house, "bob", &flood[..10]).await.status, StatusCode::NO_CONTENT);
    house.assert_conserved();
}

#[tokio::test]
async fn lines_become_series_with_labels() {
    let house = House::build().await;
    let lines = "cpu,host=a,zone=z usage=1.5,idle=2i,text=\"x\",busy=t 1000000000\nmem,host=a free=7 2000000000\n";
    let answer = post(&house, "alice", "/influxdb/write?db=metrics", "text/plain", lines).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let usage = vec![("__name__=cpu_usage,db=metrics,host=a,zone=z".to_owned(), vec![(1000, 1.5f64.to_bits())])];
    assert_eq!(read(&house, "p1", "cpu_usage").await, usage);
    assert_eq!(read(&house, "p1", "cpu_busy").await[0].1, [(1000, 1f64.to_bits())]);
    assert!(read(&house, "p1", "cpu_text").await.is_empty());
    // Version 2, in seconds; a bad line among good ones.
    let path = "/influxdb/api/v2/write?org=o&bucket=b&precision=s";
    let answer = post(&house, "alice", path, "text/plain", "mem free=8 3\nbroken\nmem free=9 4").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("partial write: line 2"), "{}", answer.text);
    let free = read(&house, "p1", "mem_free").await;
    assert_eq!(free[1], ("__name__=mem_free,db=b".to_owned(), vec![(3000, 8f64.to_bits()), (4000, 9f64.to_bits())]));
    for (path, body, status) in [
        ("/influxdb/write?precision=weeks", "a v=1", StatusCode::BAD_REQUEST),
        ("/influxdb/write", "", StatusCode::NO_CONTENT),
        ("/influxdb/query?q=CREATE+DATABASE+x", "", StatusCode::OK),
        ("/influxdb/query?q=SELECT+1", "", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(post(&house, "alice", path, "text/plain", body).await.status, status, "{path}");
    }
    house.assert_conserved();
}

#[tokio::test]
async fn lines_may_come_in_gzip_and_bombs_in_it_are_refused() {
    use std::io::Write;
    let house = House::build().await;
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).expect("compressed");
        writer.finish().expect("compressed")
    };
    for (body, status) in [
        (gzip(b"cpu v=1 1000000000"), StatusCode::NO_CONTENT),
        (gzip(&vec![b' '; DECODED_BYTES_MAX + 1]), StatusCode::PAYLOAD_TOO_LARGE),
        (b"cpu v=1".to_vec(), StatusCode::BAD_REQUEST),
    ] {
        let request =
            Request::post("/influxdb/write").header("x-auth-token", "alice").header("content-encoding", "gzip");
        let answer = send(&house, request.body(body.into()).expect("a request")).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    assert_eq!(read(&house, "p1", "cpu_v").await.len(), 1);
    house.assert_conserved();
}

#[tokio::test]
async fn the_metric_api_takes_remote_write_and_lines_as_gnocchi_does() {
    let house = House::build().await;
    let body = json!({"name": "low", "definition": [{"granularity": "1s"}]}).to_string();
    assert_eq!(post(&house, "admin", "/metric/v1/archive_policy", "application/json", body).await.status, 201);
    let path = "/metric/v1/influxdb/write?db=lines";
    assert_eq!(post(&house, "alice", path, "text/plain", "cpu,host=a v=1 1000000000").await.status, 404);
    let make = "/metric/v1/influxdb/query?q=create+database+lines";
    assert_eq!(post(&house, "admin", make, "text/plain", "").await.status, 204);
    assert_eq!(post(&house, "alice", path, "text/plain", "cpu,host=a v=1 1000000000").await.status, 400);
    let body = json!({"name": "all", "metric_pattern": "*", "archive_policy_name": "low"}).to_string();
    assert_eq!(post(&house, "admin", "/metric/v1/archive_policy_rule", "application/json", body).await.status, 201);
    assert_eq!(post(&house, "alice", path, "text/plain", "cpu,host=a,b=c v=1 1000000000").await.status, 204);
    let (_, found) = ask(&house, "alice", "/metric/v1/resource/lines/a/metric/cpu.v@b=c/measures").await;
    assert_eq!(found, json!([["1970-01-01T00:00:01+00:00", 1.0, 1.0]]));
    let (status, _) = ask(&house, "bob", "/metric/v1/resource/lines/a").await;
    assert_eq!(status, 404);

    let series: [Written<'_>; 2] = [
        (&[("__name__", "up"), ("instance", "i"), ("job", "j"), ("le", "1")], &[(1000, 1.0)]),
        (&[("__name__", "up"), ("instance", "i"), ("job", "j"), ("le", "2")], &[(2000, 2.0)]),
    ];
    for path in ["/metric/v1/prometheus/write", "/metric/v1/prometheus/write?labels=name"] {
        let answer = post(&house, "alice", path, "application/x-protobuf", snappy(&write_v1(&series))).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::ACCEPTED, ""));
    }
    let (_, found) = ask(&house, "alice", "/metric/v1/resource/prometheus/j@i").await;
    assert_eq!((&found["job"], &found["instance"]), (&json!("j"), &json!("i")));
    let names: Vec<&String> = found["metrics"].as_object().expect("metrics").keys().collect();
    assert_eq!(names, ["up", "up{le=\"1\"}", "up{le=\"2\"}"]);
    let answer = post(&house, "alice", "/metric/v1/prometheus/write", "application/x-protobuf", "x").await;
    assert_eq!(answer.status, 400);
    house.assert_conserved();
}

#[tokio::test]
async fn a_new_series_that_stands_often_in_a_body_is_written_once() {
    let house = House::build().await;
    let labels: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    let turned: &[(&str, &str)] = &[("job", "a"), ("__name__", "up")];
    let with_empty: &[(&str, &str)] = &[("__name__", "up"), ("address", ""), ("job", "a")];
    let body = write_v1(&[
        (labels, &[(1, 1.0)]),
        (&[("__name__", "down")], &[(1, 0.0)]),
        (labels, &[(2, 2.0)]),
        (turned, &[(3, 3.0)]),
        (with_empty, &[(4, 4.0)]),
        (turned, &[(5, 5.0)]),
        (with_empty, &[(6, 6.0)]),
    ]);
    let index = house.engine.labels().expect("labels").clone();
    let (project, limits) = (index.project("p1"), index.settings().set);
    let (known, native) = (project.known(), index.project("none"));
    let native = native.known();
    let (mut labelled, nothing) = (Labelled::default(), Beginnings::default());
    let mut take = |one: Incoming<'_>| labelled.take(one, &known, &native, &limits, &nothing);
    read_v1(&body, |_| None, |one| take(one).map(|_| ())).expect("read");
    assert_eq!(labelled.points.new.len(), 2);
    let places: Vec<usize> = labelled.points.new_points.iter().map(|(place, _, _)| *place).collect();
    assert_eq!(places, [0, 1, 0, 0, 0, 0, 0]);
}
