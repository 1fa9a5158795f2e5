//! Every command that the embedded cloud promises, by the real clients, against the embedded defaults.

mod aodh;
mod cloudkitty;
mod grafana;
mod otlp;
mod prometheus;

use std::time::Duration;

use serde_json::Value;

use crate::support::{clients::Clients, has_real_parts, orzo::Orzo, wait_for};

fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().filter_map(|row| row["Name"].as_str().or_else(|| row["name"].as_str())).map(str::to_owned).collect()
}

#[test]
fn openstackclient_works() {
    if !has_real_parts("openstackclient") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let orzo = Orzo::start(directory.path(), "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n");
    let admin = Clients::admin(&orzo);
    let openstack = |arguments: &str| admin.run("openstack", &arguments.split(' ').collect::<Vec<_>>());
    let json = |arguments: &str| admin.json("openstack", &arguments.split(' ').collect::<Vec<_>>());

    // identity
    let token = json("token issue");
    assert!(token["id"].as_str().unwrap().len() <= 255);
    let types: Vec<String> =
        json("catalog list").as_array().unwrap().iter().map(|row| row["Type"].as_str().unwrap().to_owned()).collect();
    for wanted in ["identity", "image", "compute", "metric", "alarming", "metering", "event", "rating"] {
        assert!(types.iter().any(|own| own == wanted), "{wanted} is not in the catalog: {types:?}");
    }
    json("project create blue");
    json("user create --project blue --password a-good-password ann");
    json("role create painter");
    openstack("role add --project blue --user ann member");
    openstack("role add --project blue --user ann painter");
    assert!(names(&json("project list")).contains(&"blue".to_owned()));
    assert!(names(&json("user list")).contains(&"ann".to_owned()));
    assert!(names(&json("role list")).contains(&"painter".to_owned()));
    assert_eq!(json("project show blue")["name"], "blue");
    assert_eq!(json("user show ann")["name"], "ann");
    assert_eq!(json("role show painter")["name"], "painter");
    let ann = Clients::of(&orzo, "ann", "a-good-password", "blue");
    let credential = ann.json("openstack", &["application", "credential", "create", "machine"]);
    assert!(credential["Secret"].as_str().is_some_and(|secret| secret.len() >= 32), "{credential}");
    let (success, _, errors) = ann.try_run("openstack", &["project", "create", "red"]);
    assert!(!success && errors.contains("403"), "{errors}");

    // image
    let file = directory.path().join("small.raw");
    std::fs::write(&file, vec![7u8; 100_000]).unwrap();
    let file = file.display().to_string();
    let image = json(&format!("image create --disk-format raw --file {file} small"));
    assert_eq!(image["status"], "active", "{image}");
    assert!(names(&json("image list")).contains(&"small".to_owned()));
    assert_eq!(json("image show small")["size"], 100_000);
    let saved = directory.path().join("saved").display().to_string();
    openstack(&format!("image save --file {saved} small"));
    assert_eq!(std::fs::read(&saved).unwrap(), std::fs::read(&file).unwrap());

    // compute
    json("flavor create --ram 256 --disk 1 --vcpus 1 tiny");
    assert!(names(&json("flavor list")).contains(&"tiny".to_owned()));
    let server = json("server create --flavor tiny --image small --no-network --wait one");
    assert_eq!(server["status"], "ACTIVE", "{server}");
    assert!(names(&json("server list")).contains(&"one".to_owned()));
    let status = |expected: &str| {
        wait_for(expected, Duration::from_secs(60), || (json("server show one")["status"] == expected).then_some(()));
    };
    openstack("server stop one");
    status("SHUTOFF");
    openstack("server start one");
    status("ACTIVE");
    openstack("server reboot --wait one");
    status("ACTIVE");
    let hypervisors = json("hypervisor list");
    assert_eq!(hypervisors[0]["Hypervisor Type"], "simulated", "{hypervisors}");
    openstack("server delete --wait one");
    assert!(names(&json("server list")).is_empty());

    // and away again
    openstack("image delete small");
    openstack("role delete painter");
    openstack("user delete ann");
    openstack("project delete blue");
    assert!(!names(&json("project list")).contains(&"blue".to_owned()));
    orzo.assert_conserved();
}

#[test]
fn gnocchiclient_works() {
    if !has_real_parts("gnocchiclient") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let orzo = Orzo::start(directory.path(), "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n");
    let admin = Clients::admin(&orzo);
    let gnocchi = |arguments: &[&str]| admin.run("gnocchi", arguments);
    let json = |arguments: &[&str]| admin.json("gnocchi", arguments);

    json(&["archive-policy", "create", "-d", "granularity:1s,points:3600", "-m", "mean", "-m", "max", "fine"]);
    assert!(names(&json(&["archive-policy", "list"])).contains(&"fine".to_owned()));
    assert_eq!(json(&["archive-policy", "show", "fine"])["name"], "fine");
    let resource = "6868da77-fa82-4e67-aba9-270c5ae8cbca";
    json(&["resource", "create", "--type", "generic", "-n", "load:fine", resource]);
    assert_eq!(json(&["resource", "show", resource])["id"], resource);
    json(&["resource", "update", "-a", "project_id:someproject", resource]);
    let list = json(&["resource", "list"]);
    assert!(list.as_array().unwrap().iter().any(|row| row["id"] == resource), "{list}");
    let found = json(&["resource", "search", "project_id=someproject"]);
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let history = json(&["resource", "history", resource]);
    assert_eq!(history.as_array().unwrap().len(), 2, "{history}");
    let metric = json(&["metric", "create", "--archive-policy-name", "fine", "alone"]);
    let metric = metric["id"].as_str().unwrap().to_owned();
    assert!(json(&["metric", "list"]).to_string().contains(&metric));
    assert_eq!(json(&["metric", "show", &metric])["id"], metric.as_str());
    gnocchi(&["measures", "add", "-m", "2026-11-01T00:00:00@1", "-m", "2026-11-01T00:00:01@3", &metric]);
    let shown = json(&["measures", "show", &metric]);
    assert_eq!(shown.as_array().unwrap().len(), 2, "{shown}");
    let batch = directory.path().join("batch.json");
    std::fs::write(&batch, format!("{{\"{metric}\": [{{\"timestamp\": \"2026-11-01T00:00:02\", \"value\": 5}}]}}"))
        .unwrap();
    gnocchi(&["measures", "batch-metrics", &batch.display().to_string()]);
    let batch_of_resources =
        format!("{{\"{resource}\": {{\"load\": [{{\"timestamp\": \"2026-11-01T00:00:02\", \"value\": 7}}]}}}}");
    std::fs::write(&batch, batch_of_resources).unwrap();
    gnocchi(&["measures", "batch-resources-metrics", &batch.display().to_string()]);
    let aggregated = json(&[
        "aggregates",
        "--resource-type",
        "generic",
        "(aggregate max (metric load mean))",
        "project_id=someproject",
    ]);
    assert!(aggregated.to_string().contains('7'), "{aggregated}");
    let (success, _, errors) = admin.try_run("gnocchi", &["metric", "show", "6868da77-fa82-4e67-aba9-270c5ae8cbcb"]);
    assert!(!success && errors.contains("does not exist"), "{errors}");
    gnocchi(&["metric", "delete", &metric]);
    gnocchi(&["resource", "delete", resource]);
    assert!(!json(&["resource", "list"]).to_string().contains(resource));
    orzo.assert_conserved();
}
