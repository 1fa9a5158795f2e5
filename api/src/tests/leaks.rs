//! That nobody learns anything of another project: random series, labels and values of two projects, some of them alike,
//! and random questions by every door of Prometheus' API that reads. One house has both projects, the other only Alice's;
//! what she hears must be the same in both, to the byte: status, headers and body.

use std::{cell::Cell, fmt::Write};

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    annotations::{exemplar_v1, metadata_v1, send_v1},
    house::House,
    ingest::{post, send, write},
    native::{example, histogram_v1},
};
use crate::prometheus::remote_read::tests::request as remote_read;

/// The moment of the house's clock, in milliseconds.
const NOW_MS: i64 = 1_795_291_200_000;
/// Part of every name and value that is Bob's alone.
const SECRET: &str = "zq";
/// Names that both have.
const SHARED: [&str; 5] = ["up", "cpu", "hits_total", "took_bucket", "disk.read"];

/// A series: name, labels, three values.
#[derive(Clone, Debug)]
struct Own {
    name: String,
    labels: Vec<(String, String)>,
    values: [f64; 3],
}

/// What a project has.
#[derive(Clone, Debug)]
struct Has {
    series: Vec<Own>,
    /// Names and units of metrics of a resource.
    metrics: Vec<(String, String)>,
}

/// A word: one that both projects use, or one of this project's own.
fn word(own: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["api", "web", "1", "+Inf", "server", "a.b"]).prop_map(str::to_owned),
        "[a-z]{1,6}"
            .prop_map(move |text| format!("{own}{text}").replace(if own == SECRET { "\0" } else { SECRET }, "")),
    ]
}

fn name(own: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(SHARED.to_vec()).prop_map(str::to_owned),
        "[a-z]{1,5}".prop_map(move |text| {
            let text = if own == SECRET { text } else { text.replace(SECRET, "") };
            format!("{own}_{text}")
        })
    ]
}

fn series(own: &'static str) -> impl Strategy<Value = Own> {
    let label = prop_oneof![
        prop::sample::select(vec!["job", "le", "host", "dc.name"]).prop_map(str::to_owned),
        "[a-z]{1,3}".prop_map(move |text| format!("{own}l_{}", text.replace(SECRET, ""))),
    ];
    let labels = prop::collection::btree_map(label, word(own), 0..4);
    let values = prop::array::uniform3(prop_oneof![-1e3..1e3, Just(f64::NAN), Just(f64::INFINITY), Just(0.0)]);
    (name(own), labels, values).prop_map(|(name, labels, values)| Own {
        name,
        labels: labels.into_iter().collect(),
        values,
    })
}

fn has(own: &'static str) -> impl Strategy<Value = Has> {
    let metrics = prop::collection::btree_map(name(own), word(own), 1..4);
    (prop::collection::vec(series(own), 1..8), metrics)
        .prop_map(|(series, metrics)| Has { series, metrics: metrics.into_iter().collect() })
}

/// What she asks with: names of her own and of Bob's, which she may have heard of.
#[derive(Clone, Debug)]
struct Asked {
    door: usize,
    shape: usize,
    name: usize,
    label: usize,
    operator: usize,
    value: usize,
    way: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    (0..DOORS, 0..SHAPES.len(), any::<usize>(), any::<usize>(), 0..4_usize, any::<usize>(), 0..4_usize).prop_map(
        |(door, shape, name, label, operator, value, way)| Asked { door, shape, name, label, operator, value, way },
    )
}

/// `@` is a selector.
const SHAPES: [&str; 16] = [
    "@",
    "sum(@)",
    "count by (job) (@)",
    "topk(2, @)",
    "count_values(\"n\", @)",
    "absent(@)",
    "rate(@[5m])",
    "absent_over_time(@[5m])",
    "sum_over_time((@)[2m:30s])",
    "histogram_quantile(0.9, @)",
    "@ + on () @",
    "@ and on (job) up",
    "label_replace(@, \"x\", \"$1\", \"host\", \"(.*)\")",
    "limitk(1, @)",
    "sum(@",
    "quantile(7, @) or vector(1)",
];
const OPERATORS: [&str; 4] = ["=", "!=", "=~", "!~"];
/// Ways in of [`question`].
const DOORS: usize = 22;

/// A request, without its credential.
struct Question {
    method: &'static str,
    path: String,
    kind: &'static str,
    body: Vec<u8>,
}

/// All names, labels and values of both, to ask with.
struct Words {
    names: Vec<String>,
    labels: Vec<String>,
    values: Vec<String>,
}

impl Words {
    fn of(worlds: [&Has; 2]) -> Self {
        let all = || worlds.into_iter().flat_map(|has| &has.series);
        let mut names: Vec<String> = all().map(|one| one.name.clone()).collect();
        names.extend(worlds.into_iter().flat_map(|has| &has.metrics).map(|(name, _)| name.clone()));
        names.extend([".+", "took", "zq_native"].map(str::to_owned));
        let mut labels: Vec<String> = all().flat_map(|one| &one.labels).map(|(name, _)| name.clone()).collect();
        labels.extend(["job", "project_id", "user_id", "resource_id", "unit"].map(str::to_owned));
        let mut values: Vec<String> = all().flat_map(|one| &one.labels).map(|(_, value)| value.clone()).collect();
        values.extend(["", ".*", "p2", "p1", "zq.*", "(", "u-bob"].map(str::to_owned));
        Self { names, labels, values }
    }
}

fn question(asked: &Asked, words: &Words) -> Question {
    let pick = |list: &[String], place: usize| list[place % list.len()].clone();
    let (name, label) = (pick(&words.names, asked.name), pick(&words.labels, asked.label));
    let (operator, value) = (OPERATORS[asked.operator], pick(&words.values, asked.value));
    let by_name = if name == ".+" { "=~" } else { "=" };
    let selector = format!("{{__name__{by_name}\"{name}\",\"{label}\"{operator}\"{value}\"}}");
    let query = SHAPES[asked.shape].replace('@', &selector);
    let (now, then) = ((NOW_MS / 1000).to_string(), (NOW_MS / 1000 - 90).to_string());
    let form =
        |pairs: &[(&str, &str)]| url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let get = |path: &str, pairs: &[(&str, &str)]| Question {
        method: "GET",
        path: format!("{path}?{}", form(pairs)),
        kind: "",
        body: Vec::new(),
    };
    let in_path: String = url::form_urlencoded::byte_serialize(label.as_bytes()).collect();
    match asked.door {
        0 => get("/api/v1/query", &[("query", &query), ("time", &now)]),
        1 => get("/api/v1/query", &[("query", &query), ("time", &now), ("limit", "1"), ("lookback_delta", "40s")]),
        2 => get("/api/v1/query_range", &[("query", &query), ("start", &then), ("end", &now), ("step", "30")]),
        3 => Question {
            method: "POST",
            path: "/api/v1/query_range".to_owned(),
            kind: "application/x-www-form-urlencoded",
            body: form(&[("query", &query), ("start", &then), ("end", &now), ("step", "15")]).into_bytes(),
        },
        4 => get("/api/v1/series", &[("match[]", &selector), ("start", &then), ("end", &now)]),
        5 => get("/api/v1/series", &[("match[]", &selector), ("match[]", "{job!=\"\"}"), ("limit", "2")]),
        6 => get("/api/v1/labels", &[]),
        7 => get("/api/v1/labels", &[("match[]", &selector), ("limit", "2")]),
        8 => get(&format!("/api/v1/label/{in_path}/values"), &[]),
        9 => get(&format!("/api/v1/label/{in_path}/values"), &[("match[]", &selector)]),
        10 => get("/api/v1/label/__name__/values", &[("match[]", &format!("{{\"{label}\"{operator}\"{value}\"}}"))]),
        11 => get("/api/v1/metadata", &[("limit", "3")]),
        12 => get("/api/v1/metadata", &[("metric", &name)]),
        13 => get("/api/v1/query_exemplars", &[("query", &query), ("start", &then), ("end", &now)]),
        14 => get("/api/v1/rules", &[("rule_name[]", &value)]),
        15 => get("/api/v1/alerts", &[]),
        16 => get("/api/v1/targets", &[("state", "any")]),
        17 => get("/api/v1/status/tsdb", &[("limit", "5")]),
        18 => get("/federate", &[("match[]", &selector)]),
        19 => get("/tokens", &[]),
        20 => get(&format!("/api/v1/{value}/{name}"), &[("query", &query)]),
        _ => {
            let kind = asked.operator as u8;
            let matchers = [(0, "__name__", name.as_str()), (kind, label.as_str(), value.as_str())];
            let by_label = [(kind, label.as_str(), value.as_str())];
            Question {
                method: "POST",
                path: "/api/v1/read".to_owned(),
                kind: "application/x-protobuf",
                body: remote_read(&[&matchers, &by_label], NOW_MS - 100_000, NOW_MS),
            }
        }
    }
}

async fn furnish(house: &House, asker: &str, id: u128, has: &Has) {
    for (round, time) in [NOW_MS - 60_000, NOW_MS - 30_000, NOW_MS].into_iter().enumerate() {
        for one in &has.series {
            let mut labels = vec![("__name__", one.name.as_str())];
            labels.extend(one.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            labels.sort_unstable();
            // The same set twice, with another value: the later one holds, in both houses.
            let answer = write(house, asker, &[(&labels[..], &[(time, one.values[round])])]).await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        }
    }
    let own = if asker == "bob" { SECRET } else { "own" };
    let mut said = Vec::new();
    for (number, one) in has.series.iter().enumerate() {
        let mut labels = vec![("__name__", one.name.as_str())];
        labels.extend(one.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        labels.sort_unstable();
        said.extend(exemplar_v1(&labels, &[("trace_id", &format!("{own}{number}"))], 1.0, NOW_MS - 45_000));
        said.extend(metadata_v1(1, &one.name, &format!("help of {own}"), own));
    }
    // Histograms of one's own name, and of one that both have.
    for name in [format!("{own}_native"), "took".to_owned()] {
        let labels = [("__name__", name.as_str()), ("owner", own)];
        said.extend(histogram_v1(&labels, &[(NOW_MS - 60_000, example(1.0)), (NOW_MS, example(2.0))]));
    }
    let answer = send_v1(house, asker, &said).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(answer.headers["x-prometheus-remote-write-exemplars-written"], has.series.len().to_string().as_str());
    let id = uuid::Uuid::from_u128(id).to_string();
    let metrics: serde_json::Map<String, Value> = has
        .metrics
        .iter()
        .map(|(name, unit)| (name.clone(), json!({"archive_policy_name": "minutes", "unit": unit})))
        .collect();
    let resource = json!({"id": id, "user_id": format!("u of {asker}"), "metrics": metrics}).to_string();
    let answer = post(house, asker, "/metric/v1/resource/generic", "application/json", resource).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    for (name, _) in &has.metrics {
        let measures = json!([{"timestamp": NOW_MS / 1000 - 20, "value": id.len()}]).to_string();
        let path = format!("/metric/v1/resource/generic/{id}/metric/{name}/measures");
        let answer = post(house, asker, &path, "application/json", measures).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let alarm = json!({
        "name": format!("alarm of {}", has.metrics[0].0), "type": "prometheus",
        "prometheus_rule": {"query": "up", "threshold": 5},
    });
    // Whose ids are random: only Bob has one, so that Alice's answers can be compared.
    if asker == "bob" {
        let made = post(house, asker, "/alarming/v2/alarms", "application/json", alarm.to_string()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let token = json!({"name": format!("{SECRET} token")}).to_string();
        let made = post(house, asker, "/prometheus/tokens", "application/json", token).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }
}

/// A house, and the text of a read token of Alice's.
async fn built(alice: &Has, bob: Option<&Has>) -> (House, String) {
    let house = House::build().await;
    let policy = json!({"name": "minutes", "definition": [{"granularity": 60, "points": 60}]});
    post(&house, "admin", "/metric/v1/archive_policy", "application/json", policy.to_string()).await;
    if let Some(bob) = bob {
        furnish(&house, "bob", 2, bob).await;
    }
    furnish(&house, "alice", 1, alice).await;
    let made = post(&house, "alice", "/prometheus/tokens", "application/json", "{\"name\": \"hers\"}").await;
    let made: Value = serde_json::from_str(&made.text).expect("JSON");
    (house, made["token"].as_str().expect("a token").to_owned())
}

/// Status, headers and body; without what is another at each request.
async fn heard(house: &House, token: &str, way: usize, question: &Question) -> String {
    // By her own token, by a read token, by her project's path, and by Bob's.
    let project = ["", "", "/project/p1", "/project/p2"][way];
    let request = Request::builder().method(question.method).uri(format!("/prometheus{project}{}", question.path));
    let request = match way {
        1 => request.header("authorization", format!("Bearer {token}")),
        _ => request.header("x-auth-token", "alice"),
    };
    let request = request.header("content-type", question.kind).body(Body::from(question.body.clone()));
    let answer = send(house, request.expect("a request")).await;
    let mut headers: HeaderMap = answer.headers;
    headers.remove("x-openstack-request-id");
    let mut text = format!("{}\n", answer.status);
    for (name, value) in &headers {
        let _ = writeln!(text, "{name}: {}", value.to_str().unwrap_or("?"));
    }
    let mut body = answer.text;
    if question.path.starts_with("/tokens") {
        // Its id is another in each house.
        if let Ok(Value::Object(mut listed)) = serde_json::from_str::<Value>(&body) {
            if let Some(list) = listed.get_mut("tokens").and_then(Value::as_array_mut) {
                list.iter_mut().for_each(|one| one["id"] = Value::Null);
            }
            body = Value::Object(listed).to_string();
        }
        text = text.lines().filter(|line| !line.starts_with("content-length")).collect::<Vec<_>>().join("\n");
    }
    text.push_str(&body);
    text
}

#[test]
fn random_projects_learn_nothing_of_each_other() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let cases = std::env::var("ORZO_LEAK_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(16);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        // A world is large; what fails is shown with its question.
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    });
    let (compared, good) = (Cell::new(0_u32), Cell::new(0_u32));
    let strategy = (has("own"), has(SECRET), prop::collection::vec(asked(), 120));
    let outcome = runner.run(&strategy, |(alice, bob, questions)| {
        let words = Words::of([&alice, &bob]);
        let ((both, token_both), (alone, token_alone)) =
            runtime.block_on(async { (built(&alice, Some(&bob)).await, built(&alice, None).await) });
        for asked in &questions {
            let question = question(asked, &words);
            let (with, without) = runtime.block_on(async {
                (
                    heard(&both, &token_both, asked.way, &question).await,
                    heard(&alone, &token_alone, asked.way, &question).await,
                )
            });
            let told = String::from_utf8_lossy(&question.body);
            prop_assert_eq!(&with, &without, "{} {} {}", question.method, question.path, told);
            // What is packed may have these two letters by chance: a word that ends in `z`, and a snappy tag behind it.
            let is_packed = with.contains("content-encoding: snappy");
            prop_assert!(
                is_packed || !with.contains(SECRET) || question.path.contains(SECRET) || told.contains(SECRET),
                "{} {}: {with}",
                question.method,
                question.path
            );
            compared.set(compared.get() + 1);
            good.set(good.get() + u32::from(with.starts_with("200")));
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (compared, good) = (compared.get(), good.get());
    println!("{compared} answers compared, {good} of them 200");
    assert!(good * 2 > compared, "too few questions were good ones: {good} of {compared}");
}
