//! A tenant sees its own usage and alarms, and nothing of anyone else's.

use std::time::Duration;

use serde_json::{Value, json};

use super::embedded::POLLING;
use crate::support::{orzo::Orzo, wait_for};

#[test]
fn a_tenant_sees_its_own_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let polling = directory.path().join("polling.yaml");
    std::fs::write(&polling, POLLING).unwrap();
    let settings = format!("[cloud]\nhypervisor = \"simulated\"\n[agents]\npolling_file = \"{}\"\n", polling.display());
    let orzo = Orzo::start(directory.path(), &settings);
    let admin = orzo.token();
    let stranger = tenant(&orzo, &admin, "stranger");

    // Something of the demo project to look for.
    let search = json!({"=": {"type": "instance"}});
    let theirs = wait_for("an instance", Duration::from_secs(60), || {
        let found = orzo.request("POST", "/metric/v1/search/resource/generic", &admin, Some(&search), 200);
        found.as_array()?.iter().find(|resource| resource["metrics"]["cpu_util"].is_string()).cloned()
    });
    let resource = theirs["id"].as_str().unwrap();
    let metric = theirs["metrics"]["cpu_util"].as_str().unwrap();
    let alarm = json!({
        "name": "mine", "type": "gnocchi_resources_threshold",
        "gnocchi_resources_threshold_rule": {
            "metric": "cpu_util", "resource_id": resource, "resource_type": "instance", "threshold": -1.0,
            "comparison_operator": "gt", "aggregation_method": "mean", "granularity": 1}});
    let of_admin = orzo.request("POST", "/alarming/v2/alarms", &admin, Some(&alarm), 201);
    let of_admin = of_admin["alarm_id"].as_str().unwrap();

    // Lists hold what is its own (its log-in is metered) and nothing else.
    let demo = theirs["project_id"].as_str().unwrap();
    for (method, path, body) in [
        ("GET", "/metric/v1/resource/generic".to_owned(), None),
        ("GET", "/metric/v1/resource/instance".to_owned(), None),
        ("GET", "/metric/v1/metric".to_owned(), None),
        ("POST", "/metric/v1/search/resource/generic".to_owned(), Some(&search)),
        ("GET", "/alarming/v2/alarms".to_owned(), None),
        ("GET", "/event/v2/events".to_owned(), None),
        ("GET", "/compute/v2.1/servers".to_owned(), None),
    ] {
        let answer = orzo.request(method, &path, &stranger, body, 200);
        let list = if path.ends_with("servers") { &answer["servers"] } else { &answer };
        assert!(list.is_array(), "{path}: {answer}");
        let text = list.to_string();
        for foreign in [resource, metric, demo, of_admin, "cpu_util", "hardware."] {
            assert!(!text.contains(foreign), "{path} shows {foreign}: {text}");
        }
    }
    // What is named is not there.
    for (method, path) in [
        ("GET", format!("/metric/v1/resource/generic/{resource}")),
        ("GET", format!("/metric/v1/resource/instance/{resource}/history")),
        ("GET", format!("/metric/v1/resource/generic/{resource}/metric/cpu_util/measures")),
        ("GET", format!("/metric/v1/metric/{metric}")),
        ("GET", format!("/metric/v1/metric/{metric}/measures")),
        ("DELETE", format!("/metric/v1/metric/{metric}")),
        ("DELETE", format!("/metric/v1/resource/generic/{resource}")),
        ("GET", format!("/alarming/v2/alarms/{of_admin}")),
        ("DELETE", format!("/alarming/v2/alarms/{of_admin}")),
        ("GET", format!("/compute/v2.1/servers/{resource}")),
        ("DELETE", format!("/compute/v2.1/servers/{resource}")),
    ] {
        let (status, answer) = orzo.try_request(method, &path, &stranger, None).unwrap();
        assert!(matches!(status, 403 | 404), "{method} {path}: {status} {answer}");
        let there = format!("{answer}");
        assert!(!there.contains("display_name"), "{path} leaks: {answer}");
    }
    // Aggregates over all instances are over nobody's.
    let aggregates = json!({"operations": ["aggregate", "mean", ["metric", "cpu_util", "mean"]],
                            "search": {"=": {"type": "instance"}}, "resource_type": "instance"});
    let (status, answer) = orzo.try_request("POST", "/metric/v1/aggregates", &stranger, Some(&aggregates)).unwrap();
    let leaked = answer["measures"]["aggregated"].as_array().is_some_and(|rows| !rows.is_empty());
    assert!(matches!(status, 200 | 404) && !leaked, "{status} {answer}");

    // Its alarm on a foreign resource stays blind.
    let of_stranger = orzo.request("POST", "/alarming/v2/alarms", &stranger, Some(&alarm), 201);
    let own = of_stranger["alarm_id"].as_str().unwrap();
    wait_for("the admin's alarm to turn", Duration::from_secs(60), || {
        let state = orzo.request("GET", &format!("/alarming/v2/alarms/{of_admin}/state"), &admin, None, 200);
        (state == "alarm").then_some(())
    });
    let state = orzo.request("GET", &format!("/alarming/v2/alarms/{own}/state"), &stranger, None, 200);
    assert_eq!(state, "insufficient data");

    // Operators' doors are shut, and so is everything without a token.
    for (path, expected) in [("/metric/v1/status", 403), ("/compute/v2.1/os-hypervisors", 403)] {
        assert_eq!(orzo.try_request("GET", path, &stranger, None).unwrap().0, expected, "{path}");
    }
    for path in
        ["/metric/v1/metric", "/alarming/v2/alarms", "/event/v2/events", "/compute/v2.1/servers", "/image/v2/images"]
    {
        assert_eq!(orzo.try_request("GET", path, "not-a-token", None).unwrap().0, 401, "{path}");
    }
    orzo.assert_conserved();
}

/// A project with a member of its own; gives the member's token.
fn tenant(orzo: &Orzo, admin: &str, name: &str) -> String {
    let project = json!({"project": {"name": name, "domain_id": "default"}});
    let project = orzo.request("POST", "/identity/v3/projects", admin, Some(&project), 201);
    let project = project["project"]["id"].as_str().unwrap().to_owned();
    let user = json!({"user": {"name": name, "domain_id": "default", "password": "a-tenant-password"}});
    let user = orzo.request("POST", "/identity/v3/users", admin, Some(&user), 201);
    let user = user["user"]["id"].as_str().unwrap().to_owned();
    let roles = orzo.request("GET", "/identity/v3/roles?name=member", admin, None, 200);
    let role = roles["roles"][0]["id"].as_str().unwrap();
    let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    orzo.request("PUT", &path, admin, None, 204);
    token_of(orzo, name, "a-tenant-password", name)
}

fn token_of(orzo: &Orzo, user: &str, password: &str, project: &str) -> String {
    let body: Value = json!({"auth": {
        "identity": {"methods": ["password"],
            "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}}},
        "scope": {"project": {"name": project, "domain": {"id": "default"}}}}});
    orzo.token_for(&body)
}
