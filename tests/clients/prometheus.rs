//! A real Prometheus beside Orzo: it reads Orzo's series through `remote_read`, as streamed chunks.
//!
//! Runs where `ORZO_TEST_PROMETHEUS` names a Prometheus; `tests/run` looks for one.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{free_port, orzo::Orzo, wait_for};

/// Ends with the test.
struct Prometheus {
    child: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(binary: &std::ffi::OsStr, directory: &std::path::Path, configuration: &str) -> Self {
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        // Prometheus does not say which port it has found: ask for a free one and hope that it stays free.
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { child, address };
        wait_for("Prometheus", Duration::from_secs(60), || prometheus.get("/-/ready").map(drop));
        prometheus
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        // Short answers on a connection of their own: HTTP's oldest form says where they end.
        let mut stream = TcpStream::connect(&self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        answer
            .split(|byte| *byte == b' ')
            .nth(1)
            .is_some_and(|status| status == b"200")
            .then(|| answer[end + 4..].to_vec())
    }

    fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Value {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}");
        let body = self.get(&path).unwrap_or_else(|| panic!("{path}"));
        serde_json::from_slice::<Value>(&body).unwrap()["data"]["result"].clone()
    }
}

#[test]
fn a_prometheus_reads_our_series_as_chunks() {
    let Some(binary) = std::env::var_os("ORZO_TEST_PROMETHEUS") else { return };
    let data = tempfile::tempdir().unwrap();
    let settings = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n[agents]\nhost = false\n";
    let orzo = Orzo::start(data.path(), settings);
    let admin = orzo.token();
    let until = orzo_model::SystemClock::shared().now().secs() / 60 * 60;
    // More points than a chunk has, values that share many bits and values that share none, steps that differ.
    let points = 700;
    let mut lines = Vec::new();
    let mut time = until - 40_000;
    for point in 0..points {
        time += [15, 15, 15, 61, 200][point % 5];
        for host in ["a", "b"] {
            let value = if host == "a" { point as f64 } else { (point as f64 * 0.731).sin() * 1e9 };
            lines.push(format!("host,host={host} load={value} {time}"));
        }
    }
    let written = orzo.try_post_bytes("/influxdb/write?db=test&precision=s", &admin, lines.join("\n").into_bytes());
    assert_eq!(written, Some(204));
    let made = orzo.request("POST", "/prometheus/tokens", &admin, Some(&json!({"name": "prometheus"})), 201);
    let token = made["token"].as_str().unwrap();
    let configuration = format!(
        "remote_read:\n- url: {}\n  read_recent: true\n  bearer_token: {token}\n",
        orzo.url("/prometheus/api/v1/read")
    );
    let directory = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(&binary, directory.path(), &configuration);
    for query in ["host_load", "sum(rate(host_load{host=\"a\"}[5m]))", "count_over_time(host_load{host=~\"b|c\"}[1h])"]
    {
        let theirs = prometheus.range(query, until - 40_000, until, 60);
        let text: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let path = format!("/prometheus/api/v1/query_range?query={text}&start={}&end={until}&step=60", until - 40_000);
        let ours = orzo.request("GET", &path, &admin, None, 200);
        assert!(theirs.as_array().is_some_and(|rows| !rows.is_empty()), "{query}: {theirs}");
        assert_eq!(theirs, ours["data"]["result"], "{query}");
    }
    // What another project has, this token does not read; what nobody has, nobody reads.
    assert_eq!(prometheus.range("nothing_such", until - 600, until, 60), json!([]));
    orzo.assert_conserved();
}
