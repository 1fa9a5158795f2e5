//! A webhook with a trust: the receiver gets a token in the name of the alarm's owner, made anew for each notice, that
//! is worth the owner's roles in its project and ends with them. The command line lists and replays what was parked.

use std::time::Duration;

use serde_json::{Value, json};

use super::embedded::POLLING;
use crate::support::{orzo::Orzo, receiver::Receiver, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_notice_carries_a_token_of_the_owner_and_parked_ones_are_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let polling = directory.path().join("polling.yaml");
    std::fs::write(&polling, POLLING).unwrap();
    let settings = format!(
        "[cloud]\nhypervisor = \"simulated\"\n[agents]\npolling_file = \"{}\"\nhost = false\n\
         [alarms]\nlag = \"1s\"\nwebhook_allow = [\"127.0.0.1\"]\n",
        polling.display()
    );
    let orzo = Orzo::start(directory.path(), &settings);
    let token = orzo.token();
    let server = wait_for("a demo server", LIMIT, || {
        let answer = orzo.request("GET", "/compute/v2.1/servers/detail?all_tenants=1", &token, None, 200);
        let servers = answer["servers"].as_array()?.clone();
        servers.iter().find(|server| server["status"] == "ACTIVE")?["id"].as_str().map(str::to_owned)
    });

    let receiver = Receiver::start();
    let alarm = |name: &str, action: &str| {
        json!({
            "name": name, "type": "gnocchi_resources_threshold", "alarm_actions": [action],
            "gnocchi_resources_threshold_rule": {
                "metric": "cpu_util", "resource_id": server, "resource_type": "instance", "threshold": -1.0,
                "comparison_operator": "gt", "aggregation_method": "mean", "granularity": 1, "evaluation_periods": 1}})
    };
    let action = receiver.url.replace("http://", "trust+http://");
    let made = orzo.request("POST", "/alarming/v2/alarms", &token, Some(&alarm("trusted", &action)), 201);
    assert_eq!(made["alarm_actions"][0], action.as_str(), "the trust's id is not shown");
    let notices = wait_for("the webhook", LIMIT, || {
        let received = receiver.received();
        (!received.is_empty()).then_some(received)
    });
    let carried = notices[0].header("x-auth-token").expect("a token").to_owned();
    // Whose it is: the owner's, by a trust, in the owner's project.
    let own = orzo.request("GET", "/identity/v3/auth/projects", &carried, None, 200);
    assert!(own["projects"].to_string().contains("\"admin\""), "{own}");
    let trusts = orzo.request("GET", "/identity/v3/OS-TRUST/trusts", &token, None, 200);
    let trust = trusts["trusts"][0]["id"].as_str().expect("a trust").to_owned();
    assert!(!made.to_string().contains(&trust));
    // What was lent is not lent further, and ends with the trust.
    let more = json!({"trust": {"trustor_user_id": made["user_id"], "trustee_user_id": made["user_id"],
                                "project_id": made["project_id"], "impersonation": true,
                                "roles": [{"name": "member"}]}});
    orzo.request("POST", "/identity/v3/OS-TRUST/trusts", &carried, Some(&more), 403);
    orzo.request("DELETE", &format!("/identity/v3/OS-TRUST/trusts/{trust}"), &token, None, 204);
    orzo.request("GET", "/identity/v3/auth/projects", &carried, None, 401);

    // Without its trust the next notice is parked, and told so.
    let id = made["alarm_id"].as_str().unwrap();
    orzo.request("PUT", &format!("/alarming/v2/alarms/{id}/state"), &token, Some(&json!("ok")), 200);
    let parked = wait_for("a parked notice", LIMIT, || {
        let list = orzo.request("GET", "/alarming/v2/notices?state=parked", &token, None, 200);
        list.as_array().filter(|list| !list.is_empty()).cloned()
    });
    assert!(parked[0]["failure"].as_str().unwrap().contains("trust"), "{parked:?}");
    assert!(!json!(parked).to_string().contains(&trust));

    // The command line: list, show, parked notices, a new start, a test, keys.
    let openrc = orzo.data().join("openrc").display().to_string();
    let orzo_alarm = |arguments: &[&str]| -> (bool, Value) {
        let arguments = [&["alarm"], arguments, &["--openrc", &openrc, "-f", "json"]].concat();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_orzo")).args(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error} {text} {told}"));
        (output.status.success(), answer)
    };
    assert_eq!(orzo_alarm(&["list"]).1[0]["alarm_id"], id);
    assert!(orzo_alarm(&["show", id]).1.to_string().contains("trusted"));
    let (_, listed) = orzo_alarm(&["notices", "--state", "parked"]);
    assert!(listed.as_array().unwrap().iter().any(|notice| notice["alarm_id"] == id), "{listed}");
    let (_, replayed) = orzo_alarm(&["replay", "--alarm", id]);
    assert!(replayed[0]["value"].as_u64().is_some_and(|count| count >= 1), "{replayed}");
    let tried = directory.path().join("tried.json").display().to_string();
    std::fs::write(&tried, alarm("tried", &receiver.url).to_string()).unwrap();
    let (success, turns) = orzo_alarm(&["test", &tried, "--start", "-1 minute"]);
    assert!(success && turns[0]["current"] == "alarm", "{turns}");
    let (success, turns) = orzo_alarm(&["test", "--alarm", id, "--start", "-1 minute"]);
    assert!(success && turns[0]["previous"] == "insufficient data", "{turns}");
    let (success, called) = orzo_alarm(&["call", &receiver.url]);
    assert!(success, "{called}");
    let (success, called) = orzo_alarm(&["call", "http://169.254.169.254/latest/meta-data/"]);
    assert!(!success && called.to_string().contains("not allowed"), "{called}");
    assert!(orzo_alarm(&["keys"]).1[0]["value"].as_str().unwrap().starts_with("whsec_"));
    orzo.request("DELETE", &format!("/alarming/v2/alarms/{id}"), &token, None, 204);
    orzo.assert_conserved();
}
