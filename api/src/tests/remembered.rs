//! That an answer is the same whether parts of it were remembered or not: random writes near and late, deletions, changes of
//! labels, by several callers, and after them random questions, each with memory and without (`nocache=1`), to the byte.

use std::cell::Cell;

use axum::body::Body;
use http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::json;

use super::{
    house::House,
    ingest::{post, send, write},
};

/// The moment of the house's clock, in seconds, a full hour.
const NOW: i64 = 1_795_291_200;
const MINUTE: i64 = 60;
const RESOURCE: &str = "00000000-0000-0000-0000-0000000000aa";

const QUERIES: [&str; 26] = [
    "up",
    "sum by (job) (up)",
    "sum(up) by (project_id)",
    "rate(hits_total[30m])",
    "rate(up[30m])",
    "avg_over_time(disk_read[1h])",
    "sum by (user_id) (disk_read)",
    "{__name__=~\"up|disk.read\"}",
    "topk(1, up)",
    "bottomk(2, hits_total) or up",
    "limitk(1, up)",
    "count_values(\"n\", up)",
    "quantile(0.5, up)",
    "up offset 30m",
    "up offset -30m",
    "up @ end()",
    "up - on (job) hits_total",
    "sum(up) / sum(hits_total)",
    "absent(up{job=\"x\"})",
    "absent_over_time(up[20m])",
    "max_over_time(sum(up)[2h:10m])",
    "label_replace(up, \"x\", \"$1\", \"job\", \"(.).*\")",
    "timestamp(up)",
    "up and on (job) hits_total > 3",
    "scalar(sum(up))",
    "sort(up) * end()",
];

#[derive(Clone, Debug)]
enum Step {
    /// Points of a series, at minutes before now.
    Write { asker: &'static str, name: &'static str, job: u8, minutes: Vec<i64>, value: f64 },
    /// Points of a metric of a resource.
    Measure { minutes: Vec<i64>, value: u8 },
    /// The resource's owner is another, and so is a label.
    Change(u8),
    /// All series of a name.
    Delete { asker: &'static str, name: &'static str },
    /// A question of a caller about hours before now.
    Ask { asker: &'static str, query: usize, first: i64, hours: i64, step: i64, phase: i64, limit: u8 },
}

fn asker() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["alice", "alice", "bob", "admin"])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["up", "up", "hits_total"])
}

/// Mostly of the last minutes, sometimes of days ago.
fn minutes() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        12 => prop::collection::vec(-5..20_i64, 1..4),
        1 => prop::collection::vec(0..2000_i64, 1..4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![6 => (0..5_u8).prop_map(f64::from), 1 => Just(f64::NAN), 1 => Just(f64::from_bits(0x7ff0_0000_0000_0002))];
    prop_oneof![
        12 => (asker(), name(), 0..3_u8, minutes(), value)
            .prop_map(|(asker, name, job, minutes, value)| Step::Write { asker, name, job, minutes, value }),
        6 => (minutes(), 0..9_u8).prop_map(|(minutes, value)| Step::Measure { minutes, value }),
        1 => (0..3_u8).prop_map(Step::Change),
        1 => (asker(), name()).prop_map(|(asker, name)| Step::Delete { asker, name }),
        // A few shapes, so that the same is asked again.
        40 => (
            asker(),
            prop_oneof![1 => 0..QUERIES.len(), 3 => 0..6_usize],
            prop::sample::select(vec![30, 30, 30, 27, 12]),
            prop::sample::select(vec![30, 30, 28, 10]),
            prop::sample::select(vec![10, 10, 30]),
            prop::sample::select(vec![0, 0, 0, 7]),
            prop::sample::select(vec![0, 0, 0, 1]),
        )
            .prop_map(|(asker, query, first, hours, step, phase, limit)| Step::Ask { asker, query, first, hours, step, phase, limit }),
    ]
}

async fn furnish(house: &House) {
    let policy = json!({"name": "minutes", "definition": [{"granularity": 60, "points": 60}]});
    post(house, "admin", "/metric/v1/archive_policy", "application/json", policy.to_string()).await;
    let metrics = json!({"disk.read": {"archive_policy_name": "minutes"}, "other": {"archive_policy_name": "minutes"}});
    let resource = json!({"id": RESOURCE, "user_id": "u0", "metrics": metrics});
    let answer = post(house, "alice", "/metric/v1/resource/generic", "application/json", resource.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    for asker in ["alice", "bob"] {
        for job in 0..2 {
            let minutes: Vec<i64> = (0..180).map(|ten| ten * 10).collect();
            for name in ["up", "hits_total"] {
                take(house, &Step::Write { asker, name, job, minutes: minutes.clone(), value: f64::from(job) }).await;
            }
        }
    }
    take(house, &Step::Measure { minutes: (0..180).map(|ten| ten * 10).collect(), value: 4 }).await;
}

async fn take(house: &House, step: &Step) {
    let answer = match step {
        Step::Write { asker, name, job, minutes, value } => {
            let (job, mut samples) = (format!("j{job}"), Vec::new());
            for minute in minutes {
                samples.push(((NOW - minute * MINUTE) * 1000, *value));
            }
            samples.sort_by_key(|(time, _)| *time);
            samples.dedup_by_key(|(time, _)| *time);
            write(house, asker, &[(&[("__name__", name), ("job", job.as_str())], &samples[..])]).await
        }
        Step::Measure { minutes, value } => {
            let of = |minute: &i64| json!({"timestamp": NOW - minute * MINUTE, "value": value});
            let body = json!(minutes.iter().map(of).collect::<Vec<_>>()).to_string();
            let path = format!("/metric/v1/resource/generic/{RESOURCE}/metric/disk.read/measures");
            post(house, "alice", &path, "application/json", body).await
        }
        Step::Change(user) => {
            let body = json!({"user_id": format!("u{user}")}).to_string();
            let request = Request::patch(format!("/metric/v1/resource/generic/{RESOURCE}"))
                .header("x-auth-token", "admin")
                .header("content-type", "application/json");
            send(house, request.body(Body::from(body)).expect("a request")).await
        }
        Step::Delete { asker, name } => {
            let path = format!("/prometheus/api/v1/admin/tsdb/delete_series?match[]={name}");
            post(house, asker, &path, "application/x-www-form-urlencoded", "").await
        }
        Step::Ask { .. } => unreachable!("is asked elsewhere"),
    };
    assert!(answer.status.is_success(), "{step:?}: {} {}", answer.status, answer.text);
}

#[test]
fn what_is_remembered_is_what_would_be_computed() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let cases = std::env::var("ORZO_REMEMBERED_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    let (compared, remembered) = (Cell::new(0_u64), Cell::new(0));
    let outcome = runner.run(&prop::collection::vec(step(), 150), |steps| {
        let house = runtime.block_on(async {
            let house = House::build().await;
            furnish(&house).await;
            house
        });
        for step in &steps {
            let Step::Ask { asker, query, first, hours, step, phase, limit } = step else {
                runtime.block_on(take(&house, step));
                continue;
            };
            let start = NOW - first * 60 * MINUTE + phase;
            let limit = limit.to_string();
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("query", QUERIES[*query]).append_pair("start", &start.to_string());
            form.append_pair("end", &(start + hours * 60 * MINUTE).to_string());
            form.append_pair("step", &(step * MINUTE).to_string()).append_pair("limit", &limit);
            let with = form.finish();
            let kind = "application/x-www-form-urlencoded";
            let (with, without) = runtime.block_on(async {
                let path = "/prometheus/api/v1/query_range";
                let without = format!("{with}&nocache=1");
                (post(&house, asker, path, kind, with.clone()).await, post(&house, asker, path, kind, without).await)
            });
            prop_assert_eq!(with.status, without.status, "{} {:?} {:?}", asker, QUERIES[*query], step);
            prop_assert_eq!(&with.text, &without.text, "{} {:?}", asker, QUERIES[*query]);
            compared.set(compared.get() + 1);
        }
        remembered.set(remembered.get() + house.engine.remembered_steps());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{} answers compared; {} of their times were remembered", compared.get(), remembered.get());
    // Many times of each question would be more, if there were not so many changes.
    assert!(remembered.get() > 5 * compared.get(), "hardly anything was remembered");
}
