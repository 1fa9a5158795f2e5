//! The shipped dashboards on a cloud that runs: every variable has values, every query an answer, and nearly every panel
//! something to show.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::Value;

use super::embedded::POLLING;
use crate::support::{orzo::Orzo, wait_for};

/// Questions to `/prometheus`; the `data` of the answer, which must be a good one.
fn ask(orzo: &Orzo, token: &str, path: &str, pairs: &[(&str, &str)]) -> Value {
    let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    orzo.request("GET", &format!("/prometheus/api/v1/{path}?{query}"), token, None, 200)["data"].clone()
}

fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut text = text.replace("$__range", "15m");
    for (name, value) in values {
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// Orzo's own counters as lines, as if they had been scraped.
fn scraped(orzo: &Orzo, token: &str) {
    let number = |value: f64| if value.is_finite() { Some(value) } else { None };
    let mut lines = Vec::new();
    for (series, value) in orzo.metrics() {
        let Some(value) = number(value) else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((&series, ""));
        let Some((measurement, field)) = name.rsplit_once('_') else { continue };
        let labels = labels.trim_end_matches('}').replace(' ', "\\ ").replace('"', "");
        let labels = if labels.is_empty() { String::new() } else { format!(",{labels}") };
        lines.push(format!("{measurement},job=orzo{labels} {field}={value}"));
    }
    assert!(lines.len() > 20);
    let status = orzo.try_post_bytes("/influxdb/write", token, lines.join("\n").into_bytes());
    assert_eq!(status, Some(204), "{}", lines.join("\n"));
}

#[test]
fn every_panel_of_the_shipped_dashboards_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let polling = directory.path().join("polling.yaml");
    std::fs::write(&polling, POLLING).unwrap();
    let settings = format!("[cloud]\nhypervisor = \"simulated\"\n[agents]\npolling_file = \"{}\"\n", polling.display());
    let orzo = Orzo::start(directory.path(), &settings);
    let token = orzo.token();
    wait_for("rates of guests", Duration::from_secs(60), || {
        let found =
            ask(&orzo, &token, "query", &[("query", "count(rate(cpu[5m])) and count(disk_device_read_bytes_rate)")]);
        found["result"].as_array().is_some_and(|rows| !rows.is_empty()).then_some(())
    });
    scraped(&orzo, &token);
    let written = directory.path().join("grafana");
    let output = Command::new(env!("CARGO_BIN_EXE_orzo")).arg("dashboards").arg(&written).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Later, for rates.
    scraped(&orzo, &token);
    let (mut asked, mut empty) = (0, Vec::new());
    let mut files: Vec<_> =
        std::fs::read_dir(written.join("dashboards")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in &files {
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut values = BTreeMap::new();
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            // label_values(SERIES, LABEL), as Grafana asks it.
            let query = filled(query, &values);
            let (series, label) =
                query.trim_start_matches("label_values(").trim_end_matches(')').rsplit_once(", ").unwrap();
            let found = ask(&orzo, &token, &format!("label/{label}/values"), &[("match[]", series)]);
            let value = found[0].as_str().unwrap_or_else(|| panic!("{}: {query} has no values", file.display()));
            values.insert(variable["name"].as_str().unwrap().to_owned(), value.to_owned());
        }
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = filled(target["expr"].as_str().unwrap(), &values);
                let found = ask(&orzo, &token, "query", &[("query", &query)]);
                asked += 1;
                if found["result"].as_array().is_none_or(Vec::is_empty) {
                    empty.push(query);
                }
            }
        }
    }
    assert_eq!(files.len(), 5);
    // Nothing is refused, given up or waiting on a quiet cloud, and its guests have not lost packets.
    let quiet = ["orzo_refused_total", "orzo_dropped_total", "orzo_waiting", "_drop{"];
    empty.retain(|query| !quiet.iter().any(|name| query.contains(name)));
    assert!(asked > 60 && empty.is_empty(), "{asked} queries; without an answer:\n{}", empty.join("\n"));
}
