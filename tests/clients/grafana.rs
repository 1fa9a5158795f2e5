//! Grafana's own front end for Prometheus, run in Node with Orzo as the data source: `tests/clients/grafana`.
//!
//! `tests/run` installs it and says where in `ORZO_TEST_GRAFANA`.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::support::orzo::Orzo;

/// Seconds between the points of the data.
const STEP: i64 = 30;
/// Points of each series.
const POINTS: i64 = 31;

#[test]
fn grafanas_front_end_finds_everything_that_it_asks_for() {
    let Some(directory) = std::env::var_os("ORZO_TEST_GRAFANA").map(PathBuf::from) else { return };
    let data = tempfile::tempdir().unwrap();
    let settings = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n[agents]\nhost = false\n";
    let orzo = Orzo::start(data.path(), settings);
    let admin = orzo.token();
    let until = orzo_model::SystemClock::shared().now().secs() / STEP * STEP;
    furnish(&orzo, &admin, until);
    let made = orzo.request("POST", "/prometheus/tokens", &admin, Some(&json!({"name": "grafana"})), 201);

    let output = Command::new("node")
        .args(["node_modules/vitest/vitest.mjs", "run"])
        .current_dir(&directory)
        .env("ORZO_PROMETHEUS_URL", orzo.url("/prometheus"))
        .env("ORZO_READ_TOKEN", made["token"].as_str().unwrap())
        .env("ORZO_DATA_UNTIL", until.to_string())
        .output()
        .unwrap_or_else(|error| panic!("node: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    // All of them ran: none was left out and none was lost.
    assert!(text(&output.stdout).contains("24 passed"), "{}", text(&output.stdout));
    orzo.assert_conserved();
}

/// Series of three hosts in two places, a counter, a histogram, a metric of a resource, and an alarm that is on.
fn furnish(orzo: &Orzo, admin: &str, until: i64) {
    let mut lines = Vec::new();
    for point in 0..POINTS {
        let time = until - (POINTS - 1 - point) * STEP;
        for (number, (host, place)) in [("h1", "north"), ("h2", "south"), ("h3", "north")].into_iter().enumerate() {
            lines.push(format!("host,host={host},dc.name={place} load={} {time}", number + 1));
            lines.push(format!("hits,host={host} total={point} {time}"));
        }
        for (le, count) in [("1", 1), ("5", 3), ("+Inf", 4)] {
            lines.push(format!("took,le={le} bucket={} {time}", count * point));
        }
    }
    let written = orzo.try_post_bytes("/influxdb/write?db=test&precision=s", admin, lines.join("\n").into_bytes());
    assert_eq!(written, Some(204));
    // OpenTelemetry brings exemplars, and says what a name means.
    let point = json!({
        "timeUnixNano": format!("{}000000000", until - 30), "count": "2", "sum": 1.5, "bucketCounts": ["1", "1"],
        "explicitBounds": [1], "exemplars": [
            {"timeUnixNano": format!("{}000000000", until - 31), "asDouble": 1.25, "traceId": "0af7651916cd43dd8448eb211c80319c"},
        ],
    });
    let histogram = json!({"aggregationTemporality": 2, "dataPoints": [point]});
    let metric =
        json!({"name": "served", "unit": "s", "description": "How long answers took.", "histogram": histogram});
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]});
    orzo.request("POST", "/otlp/v1/metrics", admin, Some(&request), 200);
    let id = "6868da77-fa82-4e67-aba9-270c5ae8cbca";
    let resource = json!({"id": id, "metrics": {"disk.read": {"archive_policy_name": "ceilometer-low", "unit": "B"}}});
    orzo.request("POST", "/metric/v1/resource/generic", admin, Some(&resource), 201);
    let measures = json!([{"timestamp": until - 60, "value": 7.0}]);
    let path = format!("/metric/v1/resource/generic/{id}/metric/disk.read/measures");
    orzo.request("POST", &path, admin, Some(&measures), 202);
    // Nothing but such an event changes its state, and there is none.
    let alarm = json!({"name": "hosts are busy", "type": "event", "event_rule": {"event_type": "none.such"}});
    let made = orzo.request("POST", "/alarming/v2/alarms", admin, Some(&alarm), 201);
    let path = format!("/alarming/v2/alarms/{}/state", made["alarm_id"].as_str().unwrap());
    orzo.request("PUT", &path, admin, Some(&Value::from("alarm")), 200);
}
