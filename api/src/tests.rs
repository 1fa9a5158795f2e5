//! Behaviours of the faces: each scenario is a JSON file in `scenarios/`, run by one `play` against the whole router on
//! an empty index and store. A step is a request, the status it must have, and what its answer must hold.

use std::{collections::BTreeMap, path::Path};

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt;

use crate::{tests::house::House, wire};

mod access;
mod alarming;
mod alarms_by_promql;
mod annotations;
mod client;
mod faults;
mod house;
mod ingest;
mod leaks;
mod limits;
mod native;
mod otlp;
mod page;
mod promql;
mod rating;
mod remembered;
mod scraped;
mod sql;
mod store;
mod summaries;
mod tokens;
mod watch;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    story: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Why it is there.
    #[serde(default)]
    say: String,
    /// Whose token; none without.
    #[serde(default, rename = "as")]
    asker: Option<String>,
    /// `POST /metric/v1/...`; `$NAME` is what an earlier step kept.
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
    status: u16,
    /// JSON pointer → value; `{"~": "regex"}` matches a text, `{"#": n}` a length, `{"absent": true}` nothing.
    #[serde(default)]
    expect: BTreeMap<String, Value>,
    #[serde(default)]
    expect_headers: BTreeMap<String, String>,
    /// Name → JSON pointer, or `header:name`.
    #[serde(default)]
    keep: BTreeMap<String, String>,
}

#[tokio::test]
async fn every_scenario_plays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scenarios");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder is there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(files.len() >= 8, "scenarios are missing from {}", folder.display());
    let wanted = std::env::var("ORZO_SCENARIO").ok().filter(|wanted| !wanted.is_empty());
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("readable");
        let scenario: Scenario = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        play(&name, &scenario).await;
    }
}

async fn play(name: &str, scenario: &Scenario) {
    let house = House::build().await;
    let mut kept = BTreeMap::from([("LONG".to_owned(), "x".repeat(70_000))]);
    for (number, step) in scenario.steps.iter().enumerate() {
        let place = format!("{name} ({}), step {}: {} {}", scenario.story, number + 1, step.request, step.say);
        let (method, target) = step.request.split_once(' ').expect("METHOD /path");
        let mut request = Request::builder().method(method).uri(filled(target, &kept).replace(' ', "%20"));
        if !step.headers.keys().any(|header| header.eq_ignore_ascii_case("accept")) {
            request = request.header(header::ACCEPT, "application/json");
        }
        if step.body.is_some() && !step.headers.keys().any(|header| header.eq_ignore_ascii_case("content-type")) {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(asker) = &step.asker {
            request = request.header("x-auth-token", asker);
        }
        for (header, value) in &step.headers {
            request = request.header(header, filled(value, &kept));
        }
        let body = match &step.body {
            None => String::new(),
            // A text is sent as it is, so that what is not JSON can be sent as well.
            Some(Value::String(text)) => filled(text, &kept),
            Some(body) => filled(&body.to_string(), &kept),
        };
        let request = request.header(header::HOST, "orzo.test").body(Body::from(body)).expect("a request");
        let response = house.router.clone().oneshot(request).await.expect("the router does not fail");
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.expect("a body").to_bytes().to_vec()).expect("text");
        assert_eq!(parts.status.as_u16(), step.status, "{place}\n{text}");
        assert!(parts.headers.contains_key("x-openstack-request-id"), "{place}: no request id");
        let answer: Value = serde_json::from_str(&wire::quote_bare_numbers(&text)).unwrap_or(Value::String(text));
        for (key, from) in &step.keep {
            let value = match from.strip_prefix("header:") {
                Some(header) => parts.headers[header].to_str().expect("text").to_owned(),
                None => match answer.pointer(from) {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => panic!("{place}: nothing at {from} of {answer}"),
                },
            };
            kept.insert(key.clone(), value);
        }
        for (pointer, expected) in &step.expect {
            let expected: Value = serde_json::from_str(&filled(&expected.to_string(), &kept)).expect("still JSON");
            check(answer.pointer(&filled(pointer, &kept)), &expected, &format!("{place}: {pointer} of {answer}"));
        }
        for (header, expected) in &step.expect_headers {
            let value = parts.headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or("(none)");
            assert_eq!(value, filled(expected, &kept), "{place}: {header}");
        }
    }
    house.assert_conserved();
}

fn check(found: Option<&Value>, expected: &Value, place: &str) {
    let rule = expected.as_object().filter(|rule| rule.len() == 1);
    if rule.is_some_and(|rule| rule.contains_key("absent")) {
        assert!(found.is_none(), "{place}");
        return;
    }
    let found = found.unwrap_or_else(|| panic!("{place}: nothing there"));
    if let Some(pattern) = rule.and_then(|rule| rule.get("~")).and_then(Value::as_str) {
        let text = found.as_str().map(str::to_owned).unwrap_or_else(|| found.to_string());
        assert!(regex::Regex::new(pattern).expect("a pattern").is_match(&text), "{place}: `{text}` is not `{pattern}`");
    } else if let Some(length) = rule.and_then(|rule| rule.get("#")).and_then(Value::as_u64) {
        let count = found.as_array().map(Vec::len).or_else(|| found.as_object().map(serde_json::Map::len));
        assert_eq!(count, usize::try_from(length).ok(), "{place}");
    } else {
        assert_eq!(found, expected, "{place}");
    }
}

fn filled(text: &str, kept: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    // The longer name first: `$TAG2` is not `$TAG` and a 2.
    for (name, value) in kept.iter().rev() {
        text = text.replace(&format!("${name}"), value);
    }
    text
}

#[test]
fn the_checks_can_fail() {
    let failing = [
        (serde_json::json!("abc"), serde_json::json!({"~": "^b"})),
        (serde_json::json!([1, 2]), serde_json::json!({"#": 3})),
        (serde_json::json!(1), serde_json::json!(2)),
        (serde_json::json!(1), serde_json::json!({"absent": true})),
    ];
    for (found, expected) in failing {
        assert!(std::panic::catch_unwind(|| check(Some(&found), &expected, "")).is_err(), "{found} {expected}");
    }
}
