//! A Gnocchi's names and points become ours. The source is another Orzo, which speaks Gnocchi's language; with `ORZO_TEST_GNOCCHI_URL` the same
//! story is told of a real one (basic authentication, user `admin`).

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{
    orzo::{Orzo, PASSWORD, runtime},
    wait_for,
};

/// 2026-01-01.
const START: i64 = 1_767_225_600;
const QUIET: &str = "[log]\nlevel = \"warn\"\n[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n\
                     [agents]\ncompute = false\nhost = false\ncentral = false\n";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where things are made.
struct Source {
    url: String,
    header: (&'static str, String),
    /// What the command is told.
    login: Vec<String>,
    password: String,
}

impl Source {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let kind = if method == reqwest::Method::PATCH && path.contains("resource_type") {
            "application/json-patch+json"
        } else {
            "application/json"
        };
        let client = reqwest::Client::new();
        let mut request = client.request(method, format!("{}{path}", self.url)).header(self.header.0, &self.header.1);
        request = request.header("accept", "application/json");
        if let Some(body) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        runtime().block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
        })
    }

    fn make(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, Some(body));
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

#[test]
fn a_gnocchi_is_imported_with_its_ids_its_history_and_its_points() {
    runtime();
    let directory = tempfile::tempdir().unwrap();
    let home = |name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let new = Orzo::start(&home("new"), QUIET);
    let (source, _old) = match std::env::var("ORZO_TEST_GNOCCHI_URL") {
        Ok(url) => {
            let header = ("authorization", "basic YWRtaW46".to_owned());
            let login = ["--user", "admin"].map(str::to_owned).to_vec();
            (Source { url, header, login, password: String::new() }, None)
        }
        Err(_) => {
            let old = Orzo::start(&home("old"), QUIET);
            let token = directory.path().join("token");
            std::fs::write(&token, old.token()).unwrap();
            let login = vec!["--token-file".to_owned(), token.display().to_string()];
            let header = ("x-auth-token", old.token());
            (Source { url: old.url("/metric"), header, login, password: PASSWORD.to_owned() }, Some(old))
        }
    };
    // Minutes for an hour, and hours for long: what is older than the minutes is told by the hours.
    let policy = json!({"name": "import-short", "aggregation_methods": ["mean", "sum", "max"], "definition": [
        {"granularity": "1 minute", "timespan": "1 hour"}, {"granularity": "1 hour", "timespan": "30 days"}]});
    source.make("POST", "/v1/archive_policy", &policy);
    source.make(
        "POST",
        "/v1/archive_policy",
        &json!({"name": "import-counts", "aggregation_methods": ["count"],
        "definition": [{"granularity": "1 hour", "timespan": "30 days"}]}),
    );
    source.make(
        "POST",
        "/v1/resource_type",
        &json!({"name": "import_type", "attributes": {
        "host": {"type": "string", "required": true}, "size": {"type": "number", "required": false}}}),
    );
    let mut resources = Vec::new();
    for number in 0..3 {
        let made = source.make(
            "POST",
            "/v1/resource/import_type",
            &json!({"id": format!("thing {number}"), "host": "h1",
            "project_id": "import-p", "user_id": "import-u", "started_at": "2025-12-01T00:00:00",
            "metrics": {"import.cpu": {"archive_policy_name": "import-short", "unit": "%"}}}),
        );
        let id = made["id"].as_str().unwrap().to_owned();
        source.make("PATCH", &format!("/v1/resource/import_type/{id}"), &json!({"host": "h2", "size": 4.5}));
        resources.push((id, made["metrics"]["import.cpu"].as_str().unwrap().to_owned()));
    }
    let generic =
        source.make("POST", "/v1/resource/generic", &json!({"id": "import generic", "project_id": "import-p"}));
    let free =
        source.make("POST", "/v1/metric", &json!({"archive_policy_name": "import-short", "name": "import.free"}));
    let counts =
        source.make("POST", "/v1/metric", &json!({"archive_policy_name": "import-counts", "name": "import.counts"}));
    let free = free["id"].as_str().unwrap().to_owned();
    let mut metrics: Vec<String> = resources.iter().map(|(_, metric)| metric.clone()).collect();
    metrics.push(free.clone());
    // Four hours of half minutes.
    let measures: Vec<Value> = (0..480)
        .map(|n| json!({"timestamp": START + n * 30, "value": if n == 471 { 1e300 / 3.0 } else { n as f64 * 0.1 }}))
        .collect();
    for metric in metrics.iter().chain([&counts["id"].as_str().unwrap().to_owned()]) {
        source.make("POST", &format!("/v1/metric/{metric}/measures"), &json!(measures));
    }
    let minutes =
        |base: &dyn Fn(&str) -> Value| base(&format!("/v1/metric/{free}/measures?granularity=60&aggregation=mean"));
    let there = wait_for("the aggregates", std::time::Duration::from_secs(60), || {
        let found = minutes(&|path| source.ask("GET", path, None).1);
        found.as_array().is_some_and(|rows| rows.len() == 60).then_some(found)
    });

    let journal = directory.path().join("journal");
    let openrc = new.data().join("openrc");
    let import = |more: &[&str]| {
        let binary = std::env::var_os("ORZO_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_orzo").into());
        let mut command = Command::new(binary);
        command.args(["import", "gnocchi", "-f", "csv", "--from", &source.url]).args(&source.login);
        command.env("ORZO_IMPORT_PASSWORD", &source.password);
        command.arg("--journal").arg(&journal).arg("--openrc").arg(&openrc).args(more).output().unwrap()
    };
    let first = import(&[]);
    assert!(first.status.success(), "{}", said(&first));
    let text = said(&first);
    // The finest hour, and the three hours before it.
    assert_eq!(text.matches(",mean,63,63,").count(), 4, "{text}");
    assert!(text.contains("; 0 metrics differ") && !text.contains("DIFFERENT"), "{text}");
    assert!(text.contains("its policy keeps nothing that stands for values"), "{text}");

    let token = new.token();
    let here = |path: &str| new.request("GET", &format!("/metric{path}"), &token, None, 200);
    assert_eq!(minutes(&here), there, "the minutes are the same, bit for bit");
    for (id, metric) in &resources {
        let found = here(&format!("/v1/resource/import_type/{id}"));
        let (_, other) = source.ask("GET", &format!("/v1/resource/import_type/{id}"), None);
        for field in [
            "id",
            "creator",
            "started_at",
            "ended_at",
            "revision_start",
            "project_id",
            "original_resource_id",
            "host",
            "size",
            "metrics",
        ] {
            assert_eq!(found[field], other[field], "{field}: {found} {other}");
        }
        let history = here(&format!("/v1/resource/import_type/{id}/history"));
        let (_, other) = source.ask("GET", &format!("/v1/resource/import_type/{id}/history"), None);
        let told = |history: &Value| -> Vec<Value> {
            let rows = history.as_array().unwrap().iter();
            rows.map(|row| json!([row["host"], row["size"], row["revision_start"], row["revision_end"]])).collect()
        };
        assert_eq!((told(&history).len(), told(&history)), (2, told(&other)));
        assert_eq!(here(&format!("/v1/metric/{metric}"))["unit"], "%");
    }
    assert_eq!(here(&format!("/v1/resource/generic/{}", generic["id"].as_str().unwrap()))["type"], "generic");
    let hours =
        here(&format!("/v1/metric/{free}/measures?granularity=3600&aggregation=max&start=2026-01-01&stop=2026-01-02"));
    assert_eq!(hours.as_array().unwrap().len(), 4, "{hours}");

    // What was stopped after some metrics goes on behind them; what is here is not made again.
    let text = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&journal, format!("{}\n{}\n{{\"id", lines[0], lines[1])).unwrap();
    let again = import(&[]);
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("0 resources and 0 metrics made"), "{}", said(&again));
    let gone_on = std::fs::read_to_string(&journal).unwrap();
    assert!(gone_on.starts_with(&format!("{}\n{}\n", lines[0], lines[1])), "{gone_on}");
    // A point that the source has not is told by its metric.
    let body = json!([{"timestamp": START + 3 * 3600 + 61, "value": 5}]);
    new.request("POST", &format!("/metric/v1/metric/{free}/measures"), &token, Some(&body), 202);
    let different = import(&[]);
    assert!(!different.status.success(), "{}", said(&different));
    let line = said(&different).lines().find(|line| line.contains("DIFFERENT")).unwrap().to_owned();
    assert!(line.starts_with(&free) && line.contains(",63,64,"), "{line}");
    assert_eq!(said(&different).matches("DIFFERENT").count(), 1);
    // A journal of something else is not gone on with.
    let other = import(&["--aggregation", "max"]);
    assert!(!other.status.success() && said(&other).contains("another import"), "{}", said(&other));
}
