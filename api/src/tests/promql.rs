//! Prometheus' questions over HTTP, and that nobody's answer depends on what another project has.

use axum::body::Body;
use http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    house::House,
    ingest::{Answer, ask, post, send, write},
};

/// The moment of the house's clock, in milliseconds.
const NOW_MS: i64 = 1_795_291_200_000;
const FORM: &str = "application/x-www-form-urlencoded";

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

async fn get(house: &House, asker: &str, path: &str, pairs: &[(&str, &str)]) -> Answer {
    let path = format!("/prometheus{path}?{}", form(pairs));
    let request = Request::get(path).header("x-auth-token", asker).header("accept", "*/*");
    send(house, request.body(Body::empty()).expect("a request")).await
}

/// Three samples of each series, the last one at the clock's moment; a resource with a metric for each project.
async fn furnish(house: &House, projects: &[(&str, &str)]) {
    for round in 0..3 {
        for (asker, secret) in projects {
            let time = NOW_MS - (2 - round) * 30_000;
            let own = format!("of_{secret}");
            let mut series: Vec<(Vec<(&str, &str)>, f64)> = Vec::new();
            for job in ["api", *secret] {
                series.push((vec![("__name__", "up"), ("job", job)], 1.0));
                series.push((vec![("__name__", "hits_total"), ("job", job), ("dc.name", *secret)], round as f64));
            }
            series.push((vec![("__name__", &own), (&own, "x")], secret.len() as f64));
            for (le, count) in [("1", 2.0), ("5", 3.0), ("+Inf", 4.0), (*secret, 9.0)] {
                series.push((vec![("__name__", "took_bucket"), ("le", le)], count * round as f64));
            }
            let samples: Vec<[(i64, f64); 1]> = series.iter().map(|(_, value)| [(time, *value)]).collect();
            let written: Vec<_> =
                series.iter().zip(&samples).map(|((labels, _), samples)| (&labels[..], &samples[..])).collect();
            let answer = write(house, asker, &written).await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        }
    }
    for (asker, secret) in projects {
        let policy = json!({"name": "minutes", "definition": [{"granularity": 60, "points": 60}]});
        post(house, "admin", "/metric/v1/archive_policy", "application/json", policy.to_string()).await;
        let id = uuid::Uuid::from_u128(secret.len() as u128).to_string();
        let resource = json!({
            "id": id, "user_id": secret, "metrics": {
                "disk.read": {"archive_policy_name": "minutes", "unit": "B"},
                format!("meter.{secret}"): {"archive_policy_name": "minutes", "unit": secret},
            },
        });
        let answer = post(house, asker, "/metric/v1/resource/generic", "application/json", resource.to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let measures = json!([{"timestamp": NOW_MS / 1000 - 20, "value": 7.0}]).to_string();
        for name in ["disk.read".to_owned(), format!("meter.{secret}")] {
            let path = format!("/metric/v1/resource/generic/{id}/metric/{name}/measures");
            let answer = post(house, asker, &path, "application/json", measures.clone()).await;
            assert!(answer.status.is_success(), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn every_question_of_grafana_and_prometheus_has_an_answer() {
    let house = House::build().await;
    furnish(&house, &[("alice", "alices")]).await;
    let now = (NOW_MS / 1000).to_string();
    let then = (NOW_MS / 1000 - 60).to_string();
    let data = |answer: Answer| -> Value {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let answer: Value = serde_json::from_str(&answer.text).expect("JSON");
        assert_eq!(answer["status"], "success");
        answer["data"].clone()
    };
    // Grafana's health check, by both verbs.
    let four = [("query", "1+1"), ("time", "4")];
    assert_eq!(
        data(get(&house, "alice", "/api/v1/query", &four).await),
        json!({"resultType": "scalar", "result": [4, "2"]})
    );
    let posted = post(&house, "alice", "/prometheus/api/v1/query", FORM, form(&four)).await;
    assert_eq!(data(posted)["result"], json!([4, "2"]));
    let up = [("query", "up"), ("start", then.as_str()), ("end", now.as_str()), ("step", "30")];
    assert_eq!(data(get(&house, "alice", "/api/v1/query_range", &up).await)["result"][0]["values"][0][1], "1");
    // Metrics of resources, under names that PromQL knows, with their units.
    let units = data(get(&house, "alice", "/api/v1/metadata", &[("limit", "40000")]).await);
    assert_eq!(units["disk_read"], json!([{"type": "unknown", "help": "", "unit": "B"}]));
    assert_eq!(data(get(&house, "alice", "/api/v1/metadata", &[("metric", "nothing")]).await), json!({}));
    let names = data(get(&house, "alice", "/api/v1/label/__name__/values", &[]).await);
    assert_eq!(names, json!(["disk_read", "hits_total", "meter_alices", "of_alices", "took_bucket", "up"]));
    let values = data(get(&house, "alice", "/api/v1/label/U__dc_2e_name/values", &[("match[]", "hits_total")]).await);
    assert_eq!(values, json!(["alices"]));
    // Grafana gives milliseconds here.
    let exemplars = [("query", "up"), ("start", "1795291200000"), ("end", "1795291260000")];
    assert_eq!(data(get(&house, "alice", "/api/v1/query_exemplars", &exemplars).await), json!([]));
    assert_eq!(
        data(get(&house, "alice", "/api/v1/format_query", &[("query", "sum( up )by(job)")]).await),
        json!("sum by (job) (up)")
    );
    assert_eq!(data(get(&house, "alice", "/api/v1/parse_query", &[("query", "-up")]).await)["type"], "unaryExpr");
    let counted = data(get(&house, "alice", "/api/v1/status/tsdb", &[("limit", "2")]).await);
    assert_eq!(counted["headStats"]["numSeries"], 11);
    assert_eq!(counted["seriesCountByMetricName"][0], json!({"name": "took_bucket", "value": 4}));
    for (path, part) in [
        ("/api/v1/rules", json!({"groups": []})),
        ("/api/v1/alerts", json!({"alerts": []})),
        ("/api/v1/alertmanagers", json!({"activeAlertmanagers": [], "droppedAlertmanagers": []})),
        ("/api/v1/targets", json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}})),
        ("/api/v1/scrape_pools", json!({"scrapePools": []})),
    ] {
        assert_eq!(data(get(&house, "alice", path, &[]).await), part, "{path}");
    }
    for path in ["status/buildinfo", "status/config", "status/flags", "status/runtimeinfo", "targets/metadata"] {
        data(get(&house, "alice", &format!("/api/v1/{path}"), &[]).await);
    }
    let federated = get(&house, "alice", "/federate", &[("match[]", "up"), ("match[]", "disk_read")]).await.text;
    assert!(federated.contains("# TYPE disk_read untyped\ndisk_read{"), "{federated}");
    assert!(federated.contains(&format!("up{{job=\"api\"}} 1 {NOW_MS}\n")), "{federated}");
    assert_eq!(get(&house, "nobody", "/api/v1/status/flags", &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&house, "nobody", "/-/healthy", &[]).await.status, StatusCode::OK);
    assert_eq!(get(&house, "nobody", "/-/ready", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE, "half ready");
}

#[tokio::test]
async fn limits_statistics_and_notes_stand_beside_the_answer() {
    let house = House::build().await;
    furnish(&house, &[("alice", "alices")]).await;
    let body = |answer: Answer| -> Value { serde_json::from_str(&answer.text).expect("JSON") };
    let cut = body(get(&house, "alice", "/api/v1/query", &[("query", "took_bucket"), ("limit", "2")]).await);
    assert_eq!(cut["data"]["result"].as_array().map(Vec::len), Some(2));
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    let whole = body(get(&house, "alice", "/api/v1/query", &[("query", "took_bucket"), ("limit", "4")]).await);
    assert!(whole.get("warnings").is_none(), "{whole}");
    let counted = body(get(&house, "alice", "/api/v1/query", &[("query", "up"), ("stats", "all")]).await);
    assert_eq!(counted["data"]["stats"]["samples"]["totalQueryableSamples"], 2, "the newest of each series");
    let noted = body(get(&house, "alice", "/api/v1/query", &[("query", "rate(up[1m])")]).await);
    assert!(noted["infos"][0].as_str().is_some_and(|text| text.contains("might not be a counter")), "{noted}");
    let short = [("query", "up"), ("time", "1795291220"), ("lookback_delta", "10s")];
    assert_eq!(body(get(&house, "alice", "/api/v1/query", &short).await)["data"]["result"], json!([]));
    let wrong = get(&house, "alice", "/federate", &[("match[]", "up{")]).await;
    assert!(wrong.status == StatusCode::BAD_REQUEST && wrong.text.starts_with("invalid parameter"), "{}", wrong.text);
    for (path, pairs, status, kind) in [
        ("/api/v1/query", [("query", "up"), ("limit", "-1")], 400, "bad_data"),
        ("/api/v1/query", [("query", "up"), ("limit", "x")], 400, "bad_data"),
        ("/api/v1/query", [("query", "up{"), ("limit", "1")], 400, "bad_data"),
        ("/api/v1/query", [("query", "up"), ("timeout", "x")], 400, "bad_data"),
        ("/api/v1/query", [("query", "up"), ("time", "x")], 400, "bad_data"),
        ("/api/v1/query", [("query", "up + on () up"), ("limit", "1")], 422, "execution"),
        ("/api/v1/query_range", [("query", "up"), ("start", "1")], 400, "bad_data"),
        ("/api/v1/query_exemplars", [("query", "up"), ("start", "x")], 400, "bad_data"),
        ("/api/v1/series", [("match[]", "up"), ("limit", "-5")], 400, "bad_data"),
        ("/api/v1/series", [("match[]", "{}"), ("limit", "5")], 400, "bad_data"),
        ("/api/v1/format_query", [("query", "up("), ("x", "y")], 400, "bad_data"),
        ("/api/v1/parse_query", [("query", ""), ("x", "y")], 400, "bad_data"),
    ] {
        let answer = get(&house, "alice", path, &pairs).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {pairs:?}: {}", answer.text);
        assert_eq!(body(answer)["errorType"], kind, "{path} {pairs:?}");
    }
}

#[tokio::test]
async fn a_query_explains_itself_and_shows_what_each_step_took() {
    let house = House::build().await;
    furnish(&house, &[("alice", "alices")]).await;
    let body = |answer: Answer| -> Value { serde_json::from_str(&answer.text).expect("JSON") };
    let query = ("query", "sum(up) + 1");
    let explained = body(get(&house, "alice", "/api/v1/query", &[query, ("explain", "1")]).await);
    let plan = &explained["data"]["explain"];
    assert_eq!((&plan["message"], &plan["children"][0]["message"]), (&json!("+"), &json!("sum")), "{explained}");
    assert!(plan.get("duration_msec").is_none() && plan["children"][0]["children"][0]["reads"]["until"].is_number());
    let traced = body(get(&house, "alice", "/api/v1/query", &[query, ("trace", "1")]).await);
    assert_eq!(traced["data"]["result"][0]["value"][1], "3", "{traced}");
    let steps = &traced["trace"]["children"];
    assert_eq!((&steps[1]["message"], &steps[1]["children"][0]["series"]), (&json!("reading"), &json!(2)), "{traced}");
    assert_eq!((&steps[2]["message"], &steps[2]["children"][0]["values"]), (&json!("+"), &json!(1)), "{traced}");
    assert!(steps[2]["duration_msec"].is_number());
    let untraced = body(get(&house, "alice", "/api/v1/query", &[query, ("trace", "0")]).await);
    assert!(untraced.get("trace").is_none());
}

#[tokio::test]
async fn what_is_wrong_is_named_once_and_a_name_with_nul_is_nobodys() {
    let house = House::build().await;
    furnish(&house, &[("alice", "alices")]).await;
    let error = |answer: Answer| -> String {
        let body: Value = serde_json::from_str(&answer.text).expect("JSON");
        body["error"].as_str().unwrap_or_default().to_owned()
    };
    let asked = |pairs: &'static [(&'static str, &'static str)]| get(&house, "alice", "/api/v1/query", pairs);
    let wrong = error(asked(&[("query", "up"), ("time", "foo")]).await);
    assert!(wrong.starts_with("invalid parameter \"time\": ") && !wrong.contains("\"query\""), "{wrong}");
    let wrong = error(asked(&[("query", "up{")]).await);
    assert!(wrong.starts_with("invalid parameter \"query\": "), "{wrong}");
    let wrong = get(&house, "alice", "/federate", &[("match[]", "up{")]).await.text;
    assert!(wrong.starts_with("invalid parameter \"match[]\": ") && !wrong.contains("\"query\""), "{wrong}");
    let long = [("query", "up"), ("start", "0"), ("end", "1000000"), ("step", "1")];
    let wrong = error(get(&house, "alice", "/api/v1/query_range", &long).await);
    assert!(wrong.starts_with("exceeded maximum resolution"), "{wrong}");
    let nobody = asked(&[("query", "{\"a\\x00b\"}")]).await;
    assert_eq!(nobody.status, StatusCode::OK, "{}", nobody.text);
}

#[tokio::test]
async fn alarms_are_shown_as_rules_and_alerts_to_their_project_only() {
    let house = House::build().await;
    let alarm = json!({
        "name": "too many", "type": "prometheus", "severity": "critical",
        "prometheus_rule": {"query": "sum(up)", "threshold": 5, "comparison_operator": "gt"},
    });
    let made = post(&house, "alice", "/alarming/v2/alarms", "application/json", alarm.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made: Value = serde_json::from_str(&made.text).expect("JSON");
    let path = format!("/alarming/v2/alarms/{}/state", made["alarm_id"].as_str().expect("an id"));
    let request = Request::put(path).header("x-auth-token", "alice").header("content-type", "application/json");
    let changed = send(&house, request.body("\"alarm\"".into()).expect("a request")).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    let (_, rules) = ask(&house, "alice", "/prometheus/api/v1/rules").await;
    let rule = &rules["data"]["groups"][0]["rules"][0];
    assert_eq!(
        (&rule["name"], &rule["state"], &rule["type"]),
        (&json!("too many"), &json!("firing"), &json!("alerting"))
    );
    assert!(rule["query"].as_str().is_some_and(|query| query.contains("sum(up)")), "{rule}");
    let (_, alerts) = ask(&house, "alice", "/prometheus/api/v1/alerts").await;
    assert_eq!(alerts["data"]["alerts"][0]["labels"]["alertname"], "too many");
    assert_eq!(alerts["data"]["alerts"][0]["labels"]["severity"], "critical");
    let (_, recorded) = ask(&house, "alice", "/prometheus/api/v1/rules?type=record").await;
    assert_eq!(recorded["data"]["groups"], json!([]));
    for asker in ["bob", "unscoped"] {
        let (_, others) = ask(&house, asker, "/prometheus/api/v1/rules").await;
        assert_eq!(others["data"]["groups"], json!([]), "{asker}");
    }
}

/// Matchers that look for what the other project has, too.
fn matchers() -> impl Strategy<Value = String> {
    let label =
        prop::sample::select(vec!["job", "le", "dc.name", "project_id", "user_id", "resource_id", "of_bobs", "type"]);
    let value =
        prop::sample::select(vec!["api", "bobs", "alices", "", ".*", ".+", "b.*|a.*", "p2", "p1", "x", "generic"]);
    let operator = prop::sample::select(vec!["=", "!=", "=~", "!~"]);
    let one = (label, operator, value).prop_map(|(label, operator, value)| format!("\"{label}\"{operator}\"{value}\""));
    prop::collection::vec(one, 0..3).prop_map(|all| all.join(","))
}

fn selectors() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "up",
        "hits_total",
        "of_bobs",
        "of_alices",
        "took_bucket",
        "disk_read",
        "meter_bobs",
        "meter_alices",
    ]);
    prop_oneof![
        (name, matchers()).prop_map(|(name, matchers)| format!("{name}{{{matchers}}}")),
        matchers().prop_map(|matchers| format!("{{__name__=~\".+\",{matchers}}}")),
        matchers().prop_map(|matchers| format!("{{\"disk.read\",{matchers}}}")),
        matchers().prop_map(|matchers| format!("{{{matchers}}}")),
    ]
}

fn queries() -> impl Strategy<Value = String> {
    let call = prop::sample::select(vec![
        "sum(_)",
        "count(_)",
        "count by (job, user_id) (_)",
        "topk(2, _)",
        "limitk(1, _)",
        "sort_desc(_)",
        "count_values(\"n\", _)",
        "absent(_)",
        "scalar(_)",
        "label_replace(_, \"x\", \"$1\", \"user_id\", \"(.*)\")",
        "histogram_quantile(0.5, _)",
        "sum_over_time((_)[2m:30s])",
        "group by (__name__) (_)",
        "-_",
        "sum without (le) (_)",
        "quantile(7, _)",
        "timestamp(_)",
        "sort_by_label(_, \"job\")",
    ]);
    let over = prop::sample::select(vec![
        "rate",
        "last_over_time",
        "count_over_time",
        "absent_over_time",
        "present_over_time",
    ]);
    let joined = prop::sample::select(vec![
        "and",
        "or",
        "unless",
        "+",
        "> on ()",
        "* on (job) group_left ()",
        "== ignoring (job)",
        "and on ()",
    ]);
    let leaf =
        prop_oneof![selectors(), (over, selectors()).prop_map(|(over, selector)| format!("{over}({selector}[5m])")),];
    leaf.prop_recursive(3, 8, 2, move |inner| {
        prop_oneof![
            (call.clone(), inner.clone()).prop_map(|(call, inner)| call.replacen('_', &inner, 1)),
            (inner.clone(), joined.clone(), inner).prop_map(|(a, joined, b)| format!("({a}) {joined} ({b})")),
        ]
    })
}

/// One house has both projects' series, the other only Alice's: whatever she asks, both answer with the same bytes. So no
/// label, value, count, warning or error of hers knows anything of Bob.
#[test]
fn answers_do_not_depend_on_other_projects() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (both, alone) = runtime.block_on(async {
        let (both, alone) = (House::build().await, House::build().await);
        furnish(&both, &[("bob", "bobs"), ("alice", "alices")]).await;
        furnish(&alone, &[("alice", "alices")]).await;
        (both, alone)
    });
    let now = (NOW_MS / 1000).to_string();
    let then = (NOW_MS / 1000 - 90).to_string();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&(queries(), selectors()), |(query, selector)| {
        let questions: [(&str, Vec<(&str, &str)>); 11] = [
            ("/api/v1/query", vec![("query", &query), ("time", &now)]),
            ("/api/v1/query_range", vec![("query", &query), ("start", &then), ("end", &now), ("step", "30")]),
            ("/api/v1/series", vec![("match[]", &selector)]),
            ("/api/v1/series", vec![("match[]", &selector), ("limit", "1")]),
            ("/api/v1/labels", vec![("match[]", &selector)]),
            ("/api/v1/labels", vec![]),
            ("/api/v1/label/user_id/values", vec![("match[]", &selector)]),
            ("/api/v1/label/__name__/values", vec![]),
            ("/api/v1/metadata", vec![]),
            ("/api/v1/status/tsdb", vec![]),
            ("/federate", vec![("match[]", &selector)]),
        ];
        for (path, pairs) in questions {
            let (with, without) = runtime.block_on(async {
                (get(&both, "alice", path, &pairs).await, get(&alone, "alice", path, &pairs).await)
            });
            prop_assert!(
                !with.text.contains("bobs") || query.contains("bobs") || selector.contains("bobs"),
                "{path} {pairs:?}: {}",
                with.text
            );
            prop_assert_eq!((with.status, with.text), (without.status, without.text), "{} {:?}", path, pairs);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[tokio::test]
async fn series_and_labels_are_those_of_the_days_that_are_asked_for() {
    let house = House::build().await;
    let day = 86_400_000;
    let noon = 1_795_262_400_000 - 1_795_262_400_000 % day + day / 2;
    let old = [(&[("__name__", "old"), ("job", "a")][..], &[(noon - 5 * day, 1.0)][..])];
    let new = [(&[("__name__", "new"), ("host", "b")][..], &[(noon - 5 * day, 1.0), (noon, 1.0)][..])];
    for series in [&old[..], &new[..]] {
        assert_eq!(super::ingest::write(&house, "alice", series).await.status, StatusCode::NO_CONTENT);
    }
    let ask = |path: &'static str, from: i64, to: i64| {
        let house = &house;
        async move {
            let join = if path.contains('?') { '&' } else { '?' };
            let path = format!("/prometheus/api/v1/{path}{join}start={}&end={}", from / 1000, to / 1000);
            super::ingest::ask(house, "alice", &path).await.1["data"].clone()
        }
    };
    let (first, last) = (noon - day / 4, noon - day / 8);
    assert_eq!(ask("label/__name__/values", first, last).await, json!(["new"]));
    assert_eq!(ask("labels", first, last).await, json!(["__name__", "host"]));
    assert_eq!(
        ask("series?match[]={__name__=~%22.%2B%22}", first, last).await,
        json!([{"__name__": "new", "host": "b"}])
    );
    let before = first - 5 * day;
    assert_eq!(ask("label/__name__/values", before, before).await, json!(["new", "old"]));
    assert_eq!(ask("label/job/values?match[]=old", before, last).await, json!(["a"]));
    // Days on which nobody had a point.
    assert_eq!(ask("label/__name__/values", first - 3 * day, first - 2 * day).await, json!([]));
    assert_eq!(ask("labels", noon + day, noon + 2 * day).await, json!([]));
}
