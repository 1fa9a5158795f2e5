//! Points leave the store with their names: by a running server and from the directory of a stopped one, with the same points; exactly,
//! day by day, resumable, and never over somebody else's files.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::support::orzo::{Orzo, runtime};

/// 2026-01-01.
const START: i64 = 1_767_225_600;
const DAYS: [&str; 3] = ["2026-01-01", "2026-01-02", "2026-01-04"];

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

/// Hashes and sums by day.
fn tallies(directory: &Path) -> BTreeMap<String, Value> {
    let manifest = manifest(directory);
    assert_eq!(manifest["is_whole"], true);
    let days = manifest["days"].as_array().unwrap().iter();
    days.map(|day| {
        let tally = &day["tally"];
        (
            day["day"].as_str().unwrap().to_owned(),
            json!([tally["rows"], tally["sum"], tally["hash"], tally["not_numbers"]]),
        )
    })
    .collect()
}

#[test]
fn points_are_exported_with_their_names() {
    runtime();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let settings = "[log]\nlevel = \"warn\"\n[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n\
                    [agents]\ncompute = false\nhost = false\ncentral = false\nnotifications = false\n";
    let mut orzo = Orzo::start(&home, settings);
    let token = orzo.token();
    let body =
        json!({"id": "vm 1", "project_id": "p-1", "metrics": {"=cpu()": {"archive_policy_name": "low", "unit": "%"}}});
    let made = orzo.request("POST", "/metric/v1/resource/generic", &token, Some(&body), 201);
    let metric = made["metrics"]["=cpu()"].as_str().unwrap();
    let mut expected: BTreeMap<&str, Vec<(i64, f64)>> = BTreeMap::new();
    for (day, offset) in DAYS.iter().zip([0, 1, 3]) {
        let values = [0.1 + 0.2, -1e300 / 3.0, 5e-324, 42.0];
        let points = values.iter().enumerate().map(|(n, value)| (START + offset * 86_400 + n as i64 * 7200, *value));
        expected.insert(day, points.collect());
    }
    let measures: Vec<Value> =
        expected.values().flatten().map(|(at, value)| json!({"timestamp": at, "value": value})).collect();
    orzo.request("POST", &format!("/metric/v1/metric/{metric}/measures"), &token, Some(&json!(measures)), 202);
    let lines: String =
        (0..100).map(|n| format!("t,host=a\\,\\\"b load={n} {}\n", (START + 86_400 + n) * 1_000_000_000)).collect();
    assert_eq!(orzo.try_post_bytes("/influxdb/write?db=x", &token, lines.into_bytes()), Some(204));

    let (openrc, config) = (orzo.data().join("openrc"), home.join("orzo.toml"));
    let export = |to: &str, more: &[&str]| {
        let binary = std::env::var_os("ORZO_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_orzo").into());
        let mut command = Command::new(binary);
        command.args(["store", "export", "--config"]).arg(&config).arg("--output").arg(directory.path().join(to));
        if more.contains(&"--server") {
            command.arg("--openrc").arg(&openrc);
        }
        command.args(more).output().unwrap()
    };
    let at = |name: &str| directory.path().join(name);
    // A running server has its directory for itself, and says how to ask it.
    let locked = export("locked", &[]);
    assert!(!locked.status.success() && said(&locked).contains("--server"), "{}", said(&locked));
    let of_server = export("server", &["--server", "--format", "csv"]);
    assert!(of_server.status.success(), "{}", said(&of_server));
    assert!(said(&of_server).contains("112 rows in 3 files"), "{}", said(&of_server));
    let mut found = 0;
    for (day, points) in &expected {
        let path = at("server").join(format!("day={day}/points.csv"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("timestamp,value,series,meter,unit,resource_id,project_id,labels\n"), "{text}");
        let of_metric: Vec<&str> = text.lines().filter(|line| line.contains("'=cpu()")).collect();
        assert_eq!(of_metric.len(), points.len(), "{text}");
        for (line, (_, value)) in of_metric.iter().zip(points) {
            let fields: Vec<&str> = line.splitn(8, ',').collect();
            assert_eq!(fields[1].parse::<f64>().unwrap().to_bits(), value.to_bits(), "{line}");
            assert_eq!((fields[3], fields[4], fields[6]), ("'=cpu()", "%", "p-1"), "{line}");
        }
        found += text.matches("\"\"host\"\":\"\"a,\\\"\"b\"\"").count();
        // What the manifest says of the bytes, sha256sum says, too.
        let sum = Command::new("sha256sum").arg(&path).output().unwrap();
        let manifest = manifest(&at("server"));
        let named = format!("day={day}/points.csv");
        let entry = manifest["days"].as_array().unwrap().iter().find(|entry| entry["path"] == named.as_str()).unwrap();
        assert!(said(&sum).starts_with(entry["tally"]["sha256"].as_str().unwrap()), "{entry}");
    }
    assert_eq!(found, 100, "labels are one quoted field");
    // What is there already is not made again, nor overwritten by something else.
    let again = export("server", &["--server", "--format", "csv"]);
    assert!(!again.status.success() && said(&again).contains("is whole"), "{}", said(&again));
    let other = export("server", &["--server", "--format", "csv", "--meter", "t_load"]);
    assert!(!other.status.success() && said(&other).contains("another export"), "{}", said(&other));
    // One that was stopped goes on behind the last whole day.
    let mut stopped = manifest(&at("server"));
    let third = stopped["days"].as_array_mut().unwrap().pop().unwrap();
    stopped["is_whole"] = json!(false);
    stopped["rows"] = json!(108);
    std::fs::write(at("server").join("manifest.json"), stopped.to_string()).unwrap();
    std::fs::remove_file(at("server").join("day=2026-01-04/points.csv")).unwrap();
    let first = at("server").join("day=2026-01-01/points.csv");
    let untouched = std::fs::metadata(&first).unwrap().modified().unwrap();
    let on = export("server", &["--server", "--format", "csv"]);
    assert!(on.status.success(), "{}", said(&on));
    assert_eq!(manifest(&at("server"))["days"][2], third);
    assert_eq!(std::fs::metadata(&first).unwrap().modified().unwrap(), untouched);
    // Part of it: a project, a meter, a time.
    let part = export(
        "part",
        &["--server", "--project", "p-1", "--from", "2026-01-01T02:00:00Z", "--until", "2026-01-02T02:00:00Z"],
    );
    assert!(part.status.success() && said(&part).contains("4 rows in 2 files"), "{}", said(&part));
    let none = export("none", &["--server", "--meter", "nothing"]);
    assert!(none.status.success() && said(&none).contains("0 rows in 0 files"), "{}", said(&none));
    // Who is no administrator gets nothing.
    assert_eq!(orzo.try_request("POST", "/v1/points", "nobody", Some(&json!({"first": 0, "last": 1}))).unwrap().0, 401);
    assert_eq!(orzo.request("POST", "/v1/points", &token, Some(&json!({"first": 0})), 400)["code"], 400);
    assert_eq!(orzo.stop(), Some(0));
    // The directory of the stopped server has the same points.
    let of_directory = export("directory", &[]);
    assert!(of_directory.status.success(), "{}", said(&of_directory));
    assert_eq!(tallies(&at("directory")), tallies(&at("server")));
    assert!(at("directory").join("day=2026-01-04/points.parquet").is_file());
    let text = said(&export("nowhere", &["--server"]));
    assert!(text.contains("error") || text.contains("Error"), "a server that is away is told: {text}");
}
