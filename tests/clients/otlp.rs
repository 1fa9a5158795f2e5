//! OpenTelemetry's own SDK sends its metrics, over HTTP and gRPC, both with gzip.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::support::{
    has_real_parts,
    orzo::{Orzo, PASSWORD},
};

#[test]
fn opentelemetrys_sdk_is_understood_over_http_and_grpc() {
    if !has_real_parts("OpenTelemetry's SDK") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n[agents]\nhost = false\n";
    let orzo = Orzo::start(directory.path(), settings);
    let clients = std::env::var_os("ORZO_TEST_CLIENTS").unwrap();
    let address = orzo.url("").trim_start_matches("http://").to_owned();
    let token = orzo.token();
    for way in ["http", "grpc"] {
        let output = Command::new(Path::new(&clients).join("python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/otlp.py"))
            .args([&address, way, "admin", PASSWORD])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !errors.contains("Failed to export"), "{way}: {errors}");
        let path = format!("/prometheus/api/v1/query?query=%7Bjob=%22test/{way}%22,le!~%22..*%22%7D");
        let answer = orzo.request("GET", &path, &token, None, 200);
        let row = |row: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&row["metric"]["__name__"]), text(&row["value"][1]))
        };
        let mut rows: Vec<_> = answer["data"]["result"].as_array().unwrap().iter().map(row).collect();
        rows.sort();
        let expected = [
            ("cpu_usage_ratio", "0.5"),
            ("http_duration_seconds_count", "1"),
            ("http_duration_seconds_sum", "0.3"),
            ("http_requests_total", "3"),
            ("queue_size", "-2"),
            ("target_info", "1"),
        ];
        assert_eq!(rows, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "{way}");
        // A bucket for each of the SDK's fifteen bounds and one for the rest.
        let path =
            format!("/prometheus/api/v1/query?query=count(http_duration_seconds_bucket%7Bjob=%22test/{way}%22%7D)");
        assert_eq!(orzo.request("GET", &path, &token, None, 200)["data"]["result"][0]["value"][1], "16");
    }
    orzo.assert_conserved();
}
