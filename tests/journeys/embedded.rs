//! `orzo serve` with nothing else installed: simulated guests and this machine's own meters, read by the API, judged
//! by an alarm, told to a webhook; a deleted server ends as event and resource.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{orzo::Orzo, receiver::Receiver, wait_for};

/// A tick of a second instead of ten, to wait less; everything else is the default.
pub const POLLING: &str = "sources:\n  - name: everything\n    interval: 1\n    meters: ['*']\n";

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_sample_walks_from_a_guest_to_a_webhook() {
    let directory = tempfile::tempdir().unwrap();
    let polling = directory.path().join("polling.yaml");
    std::fs::write(&polling, POLLING).unwrap();
    let settings = format!(
        "[cloud]\nhypervisor = \"simulated\"\n[agents]\npolling_file = \"{}\"\n\
         [alarms]\nlag = \"1s\"\nwebhook_allow = [\"127.0.0.0/8\"]\n",
        polling.display()
    );
    let mut orzo = Orzo::start(directory.path(), &settings);
    let token = orzo.token();

    // It began itself anew in its place, with the allocator's setting.
    let environment = std::fs::read(format!("/proc/{}/environ", orzo.pid())).unwrap();
    assert!(environment.split(|byte| *byte == 0).any(|one| one == b"MIMALLOC_PURGE_DELAY=100"));

    // Guests are there, and say what they are.
    let servers = wait_for("demo servers", LIMIT, || {
        let answer = orzo.request("GET", "/compute/v2.1/servers/detail?all_tenants=1", &token, None, 200);
        let servers = answer["servers"].as_array()?.clone();
        let active = servers.iter().filter(|server| server["status"] == "ACTIVE").count();
        (active > 0).then_some(servers)
    });
    let hypervisors = orzo.request("GET", "/compute/v2.1/os-hypervisors/detail", &token, None, 200);
    assert!(hypervisors.to_string().contains("simulated"), "{hypervisors}");
    let server = servers.iter().find(|server| server["status"] == "ACTIVE").unwrap();
    let id = server["id"].as_str().unwrap();

    // Its meters arrive, the derived ones too.
    for metric in ["cpu", "cpu_util", "memory.usage", "vcpus", "power.state"] {
        let rows = measures(&orzo, &token, id, metric);
        assert!(!rows.is_empty(), "{metric}");
    }
    let load = measures(&orzo, &token, id, "cpu_util");
    let value = load[0][2].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&value), "cpu_util {value}");
    // The resource tells what it is.
    let resource = orzo.request("GET", &format!("/metric/v1/resource/instance/{id}"), &token, None, 200);
    assert_eq!(resource["display_name"], server["name"]);
    assert_eq!(resource["project_id"], server["tenant_id"]);
    assert_eq!(resource["ended_at"], Value::Null);

    // This machine's own meters.
    let search = json!({"=": {"type": "host"}});
    let hosts = wait_for("the host's resource", LIMIT, || {
        let found = orzo.request("POST", "/metric/v1/search/resource/generic", &token, Some(&search), 200);
        found.as_array().filter(|list| !list.is_empty()).cloned()
    });
    let host = hosts[0]["id"].as_str().unwrap();
    for metric in ["hardware.memory.total", "hardware.cpu.load.1min", "hardware.cpu.util"] {
        assert!(!measures(&orzo, &token, host, metric).is_empty(), "{metric}");
    }

    // An alarm that any load meets turns, and its webhook is told.
    let receiver = Receiver::start();
    let alarm = json!({
        "name": "any load", "type": "gnocchi_resources_threshold", "alarm_actions": [receiver.url], "severity": "low",
        "gnocchi_resources_threshold_rule": {
            "metric": "cpu_util", "resource_id": id, "resource_type": "instance", "threshold": -1.0,
            "comparison_operator": "gt", "aggregation_method": "mean", "granularity": 1, "evaluation_periods": 1}});
    let alarm = orzo.request("POST", "/alarming/v2/alarms", &token, Some(&alarm), 201);
    let alarm_id = alarm["alarm_id"].as_str().unwrap();
    let notices = wait_for("the webhook", LIMIT, || {
        let received = receiver.received();
        (!received.is_empty()).then_some(received)
    });
    assert_eq!(notices[0].body["alarm_id"], alarm_id);
    assert_eq!(notices[0].body["current"], "alarm");
    assert_eq!(notices[0].body["reason_data"]["type"], "threshold");
    for header in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert!(notices[0].header(header).is_some(), "{header}");
    }
    let history = orzo.request("GET", &format!("/alarming/v2/alarms/{alarm_id}/history"), &token, None, 200);
    let turns = history.as_array().unwrap().iter().filter(|entry| entry["type"] == "state transition").count();
    assert_eq!(turns, notices.len(), "one notice for each transition to alarm so far: {history}");
    orzo.request("DELETE", &format!("/alarming/v2/alarms/{alarm_id}"), &token, None, 204);

    // So does one over a group of resources.
    let group = json!({
        "name": "any load anywhere", "type": "gnocchi_aggregation_by_resources_threshold",
        "alarm_actions": [receiver.url],
        "gnocchi_aggregation_by_resources_threshold_rule": {
            "metric": "cpu_util", "resource_type": "instance", "query": "{\"=\": {\"ended_at\": null}}",
            "threshold": -1.0, "comparison_operator": "gt", "aggregation_method": "mean", "granularity": 1}});
    let group = orzo.request("POST", "/alarming/v2/alarms", &token, Some(&group), 201);
    let group_id = group["alarm_id"].as_str().unwrap();
    wait_for("the group's webhook", LIMIT, || {
        let received = receiver.received();
        received.iter().any(|notice| notice.body["alarm_id"] == group_id).then_some(())
    });
    orzo.request("DELETE", &format!("/alarming/v2/alarms/{group_id}"), &token, None, 204);

    // The command line shows the same measures, as a table, as data and as a plot.
    let orzo_measures = |more: &[&str]| {
        let openrc = orzo.data().join("openrc").display().to_string();
        let arguments = [&["measures", "show", id, "cpu_util", "--openrc", &openrc], more].concat();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_orzo")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let rows: Value = serde_json::from_str(&orzo_measures(&["-f", "json"])).unwrap();
    assert!(rows[0]["value"].is_f64() && rows[0]["granularity"].is_f64(), "{rows}");
    assert!(orzo_measures(&["-f", "csv"]).starts_with("timestamp,granularity,value\n"));
    assert!(orzo_measures(&[]).contains("granularity"));
    let plot = orzo_measures(&["--plot"]);
    assert!(plot.contains("cpu_util") && plot.chars().any(|c| ('\u{2800}'..='\u{28ff}').contains(&c)), "{plot}");

    // A deleted server is an event, and its resource has ended.
    orzo.request("DELETE", &format!("/compute/v2.1/servers/{id}"), &token, None, 204);
    assert_deleted(&orzo, &token, id);

    orzo.assert_conserved();
    assert_eq!(orzo.stop(), Some(0), "SIGTERM drains and exits 0");

    // What was measured is still there.
    orzo.restart();
    assert!(!measures(&orzo, &token, id, "cpu_util").is_empty());
    let resource = orzo.request("GET", &format!("/metric/v1/resource/instance/{id}"), &token, None, 200);
    assert_ne!(resource["ended_at"], Value::Null, "a deleted server does not come back");
}

/// Measures of a resource's metric, once there are some.
pub fn measures(orzo: &Orzo, token: &str, resource: &str, metric: &str) -> Vec<Value> {
    let path = format!("/metric/v1/resource/generic/{resource}/metric/{metric}/measures");
    wait_for(metric, LIMIT, || {
        let (status, answer) = orzo.try_request("GET", &path, token, None)?;
        let rows = answer.as_array().filter(|rows| status == 200 && !rows.is_empty())?;
        Some(rows.clone())
    })
}

/// The end of a server, as event and as resource.
pub fn assert_deleted(orzo: &Orzo, token: &str, id: &str) {
    wait_for("the resource's end", LIMIT, || {
        let path = format!("/metric/v1/resource/instance/{id}");
        let resource = orzo.request("GET", &path, token, None, 200);
        (resource["ended_at"] != Value::Null).then_some(())
    });
    let event = wait_for("the event", LIMIT, || {
        let path = "/event/v2/events?q.field=event_type&q.op=eq&q.value=compute.instance.delete.end&\
                    q.field=all_tenants&q.value=true&q.op=eq";
        let events = orzo.request("GET", path, token, None, 200);
        events.as_array()?.iter().find(|event| event.to_string().contains(id)).cloned()
    });
    let traits = event["traits"].as_array().unwrap();
    assert!(traits.iter().any(|t| t["name"] == "instance_id" && t["value"] == id), "{event}");
}
