//! The way of a bill: usage and prices come in over the API, are rated, explained, exported, closed and verified by the
//! command line; what comes late is corrected in the open, and what somebody changed afterwards is found.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{orzo::Orzo, wait_for};

/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const HOUR: i64 = 3600;
/// What the interface receives each second.
const BYTES_PER_SECOND: i64 = 40_000;

fn command(orzo: &Orzo, arguments: &[&str]) -> Output {
    let binary = std::env::var_os("ORZO_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_orzo").into());
    let config = orzo.data().parent().unwrap().join("orzo.toml");
    Command::new(binary).args(arguments).arg("--config").arg(config).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Standard output of a command that must succeed, as JSON.
fn rows(orzo: &Orzo, arguments: &[&str]) -> Value {
    let output = command(orzo, &[arguments, &["-f", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&output)))
}

fn zulu(second: i64) -> String {
    chrono::DateTime::from_timestamp(second, 0).unwrap().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn lines(orzo: &Orzo, token: &str, resource: &str, (begin, end): (i64, i64)) -> Vec<Value> {
    let path = format!("/rating/v2/lines?limit=1000&begin={}&end={}&resource_id={resource}", zulu(begin), zulu(end));
    orzo.request("GET", &path, token, None, 200)["lines"].as_array().unwrap().clone()
}

/// In ten-thousand-millionths.
fn cost(line: &Value) -> i128 {
    let text = line["cost"].as_str().unwrap();
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    sign * format!("{whole}{fraction:0<10}").parse::<i128>().unwrap()
}

fn run_of(directory: &Path) -> PathBuf {
    let mut runs = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    runs.find(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).expect("a run")
}

/// Posts what the interface has counted at some times.
fn measured(orzo: &Orzo, token: &str, nic: &str, points: impl Iterator<Item = (i64, i64)>) {
    let measures: Vec<Value> = points.map(|(at, value)| json!({"timestamp": at, "value": value})).collect();
    let body = json!({nic: {"network.incoming.bytes":
        {"archive_policy_name": "ceilometer-low", "unit": "B", "measures": measures}}});
    let path = "/metric/v1/batch/resources/metrics/measures?create_metrics=true";
    orzo.request("POST", path, token, Some(&body), 202);
}

/// Has a time rated again and waits until it is.
fn again(orzo: &Orzo, token: &str, scope: &str, (begin, end): (i64, i64)) {
    let body = json!({"scope_ids": [scope], "start_reprocess_time": zulu(begin), "end_reprocess_time": zulu(end),
        "reason": "points came late"});
    orzo.request("POST", "/rating/v2/task/reprocesses", token, Some(&body), 202);
    wait_for("the time to be rated again", LIMIT, || {
        let tasks = orzo.request("GET", "/rating/v2/task/reprocesses?limit=100", token, None, 200);
        let is_done = |own: &Value| own["current_reprocess_time"] == own["end_reprocess_time"];
        tasks["results"].as_array().unwrap().iter().all(is_done).then_some(())
    });
}

#[test]
fn a_bill_is_rated_explained_exported_closed_corrected_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n[rating]\ninterval = \"1s\"\n";
    let mut orzo = Orzo::start(directory.path(), settings);
    let token = orzo.token();
    let projects = orzo.request("GET", "/identity/v3/auth/projects", &token, None, 200);
    let scope = projects["projects"][0]["id"].as_str().unwrap().to_owned();
    let hour = orzo_model::SystemClock::shared().now().secs() / HOUR * HOUR;
    let (begin, closed, end) = (hour - 24 * HOUR, hour - 6 * HOUR, hour - 4 * HOUR);
    let nic = "an-interface";

    // Prices that hold since the first point.
    let at = "/rating/v1/rating/module_config/hashmap";
    let service = json!({"name": "network.incoming.bytes"});
    let made = orzo.request("POST", &format!("{at}/services"), &token, Some(&service), 201);
    let body = json!({"service_id": made["service_id"], "type": "flat", "cost": "0.002", "start": zulu(begin)});
    orzo.request("POST", &format!("{at}/mappings?force=true"), &token, Some(&body), 201);
    orzo.request(
        "PUT",
        "/rating/v2/prices/tax/vat",
        &token,
        Some(&json!({"percent": "19", "valid_from": zulu(begin)})),
        200,
    );

    // An interface that was measured every five minutes, but for two hours. Nothing says when it began but its points.
    let is_gap = |at: i64| at > hour - 12 * HOUR && at < hour - 10 * HOUR;
    let times = || (begin..hour - 2 * HOUR).step_by(300);
    let body = json!({"id": nic, "project_id": scope, "user_id": "u", "name": "tap0", "instance_id": "1c1c1c1c-1c1c-4c1c-8c1c-1c1c1c1c1c1c"});
    orzo.request("POST", "/metric/v1/resource/instance_network_interface", &token, Some(&body), 201);
    measured(&orzo, &token, nic, times().filter(|at| !is_gap(*at)).map(|at| (at, (at - begin) * BYTES_PER_SECOND)));

    wait_for("the project to be rated", LIMIT, || {
        let rows = rows(&orzo, &["bill", "status"]);
        let own = rows.as_array().unwrap().iter().find(|row| row["project"] == scope.as_str()).cloned()?;
        (own["rated until"].as_str()? >= zulu(end).as_str()).then_some(())
    });
    again(&orzo, &token, &scope, (begin, end));
    // An increase belongs to the hour in which it was read: the first has eleven of them, the gap's all came at its end.
    let first = lines(&orzo, &token, nic, (begin, closed));
    let costs: Vec<i128> = first.iter().map(cost).collect();
    let whole = 2_880_000_000;
    let mut expected = vec![whole; 17];
    expected[0] = whole / 12 * 11;
    expected[12] = whole / 12;
    expected[13] = 2 * whole + whole * 11 / 12;
    assert_eq!(costs, expected, "0.002 for each of 144 MB an hour: {first:?}");

    // Where it comes from, by the command line beside the running server and by the API.
    let line = first[3]["id"].as_str().unwrap();
    let told = rows(&orzo, &["bill", "explain", line]);
    assert!(
        told["line"]["id"] == line && told["note"].as_str().is_some_and(|note| note.contains("--server")),
        "{told}"
    );
    let openrc = orzo.data().join("openrc").display().to_string();
    let walked = rows(&orzo, &["bill", "explain", line, "--server", "--openrc", &openrc]);
    assert_eq!(walked["explanation"]["points"].as_array().map(Vec::len), Some(13), "{walked}");
    let table = command(&orzo, &["bill", "explain", line, "--server", "--openrc", &openrc]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for part in ["Rules of that version", "Usage:", "Points of", "rated anew from the above it is the same"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let explained = orzo.request("GET", &format!("/rating/v2/lines/{line}"), &token, None, 200);
    let explained = &explained["explanation"];
    assert_eq!((explained["points"].as_array().map(Vec::len), &explained["is_reproduced"]), (Some(13), &json!(true)));
    let path = format!("/rating/v2/completeness?begin={}&end={}&project_id={scope}", zulu(begin), zulu(closed));
    let complete = orzo.request("GET", &path, &token, None, 200);
    let missing = &complete["resources"][0]["missing"];
    assert!(missing.to_string().contains(&zulu(hour - 12 * HOUR)[..13]), "the gap is told: {complete}");

    // Closed by the running server, with its tax: 18 hours at 0.288 less five minutes, and 19 % of that.
    let arguments = [
        "bill",
        "close",
        "--server",
        "--from",
        &zulu(begin),
        "--until",
        &zulu(closed),
        "--scope",
        &scope,
        "--openrc",
        &openrc,
    ];
    let periods = rows(&orzo, &arguments);
    assert_eq!(periods[0]["project"], scope.as_str(), "{periods}");
    let total: f64 = periods[0]["total"].to_string().trim_matches('"').parse().unwrap();
    assert!((total - 5.16 * 1.19).abs() < 0.005, "{periods}");

    // Exported twice: the same bytes.
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let export = |into: &Path, more: &[&str]| {
        let (begin, end) = (zulu(begin), zulu(closed));
        let into = into.display().to_string();
        let mut arguments = vec!["export", "run", "focus-1.2-csv", "--from", &begin, "--to", &end, "--into", &into];
        arguments.extend(more);
        let output = command(&orzo, &arguments);
        assert!(output.status.success(), "{}", said(&output));
    };
    export(&one, &[]);
    let manifest: Value = serde_json::from_slice(&std::fs::read(run_of(&one).join("Manifest.json")).unwrap()).unwrap();

    // What the gap would have told comes late.
    let late = times().filter(|at| is_gap(*at)).map(|at| (at, (at - begin) * BYTES_PER_SECOND));
    measured(&orzo, &token, nic, late);
    again(&orzo, &token, &scope, (begin, end));
    assert_eq!(lines(&orzo, &token, nic, (begin, closed)), first, "a closed period gets no lines");
    let all = lines(&orzo, &token, nic, (begin, hour + HOUR));
    // Lines for a time that was closed, in a period that is not.
    let closed_at = zulu(closed)[..19].to_owned();
    let is_late = |line: &&Value| {
        let text = |name: &str| line[name].as_str().unwrap()[..19].to_owned();
        text("begin") < closed_at && text("period") >= closed_at
    };
    let corrections: Vec<&Value> = all.iter().filter(is_late).collect();
    let mut costs: Vec<i128> = corrections.iter().map(|line| cost(line)).collect();
    costs.sort_unstable();
    // Two lines taken back, two in their place, and one of the hour that had none.
    assert_eq!(costs, [-expected[13], -whole / 12, whole, whole, whole], "{corrections:?}");
    assert_eq!(costs.iter().sum::<i128>(), 0, "the gap's sum was right");

    let watermark = manifest["watermark"].as_str().unwrap();
    export(&two, &["--as-of", watermark]);
    for file in manifest["files"].as_array().unwrap() {
        let name = file["name"].as_str().unwrap();
        let bytes = |of: &Path| std::fs::read(run_of(of).join(name)).unwrap();
        assert!(bytes(&one) == bytes(&two), "{name} has the same bytes when it is made again");
    }
    // One in the place where the server keeps its own.
    let output = command(&orzo, &["export", "run", "focus-1.2-csv", "--from", &zulu(begin), "--to", &zulu(closed)]);
    assert!(output.status.success(), "{}", said(&output));
    orzo.assert_conserved();

    assert_eq!(orzo.stop(), Some(0));
    let verified = command(&orzo, &["bill", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
    for words in
        ["1 closed periods held", "1 exports held against the ledger, 1 of them cell by cell", "rated anew, 0 differ"]
    {
        assert!(said(&verified).contains(words), "{words}: {}", said(&verified));
    }
    // A cell that somebody changed.
    let run = run_of(&orzo.data().join("exports"));
    let file = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "csv")).expect("a file");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("0.288"), "{text}");
    std::fs::write(&file, text.replacen("0.288", "0.299", 1)).unwrap();
    let found = command(&orzo, &["bill", "verify"]);
    let name = run.file_name().unwrap().to_string_lossy().into_owned();
    assert!(!found.status.success() && said(&found).contains(&name), "{}", said(&found));
}
