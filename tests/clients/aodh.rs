//! Every alarm command of the real client: `openstack alarm ...`, `alarm-history ...`, `alarm quota ...`,
//! `alarming capabilities list`; every type that it can make.

use serde_json::Value;

use super::names;
use crate::support::{clients::Clients, has_real_parts, orzo::Orzo};

const SETTINGS: &str = "[cloud]\nhypervisor = \"simulated\"\ndemo_servers = false\n\
                        [agents]\ncompute = false\nhost = false\ncentral = false\n\
                        [alarms]\nevaluation_metrics = true\nproject_quota = 20\n";

const RESOURCE: &str = "6868da77-fa82-4e67-aba9-270c5ae8cbca";

/// Type and what the client needs for it besides a name.
const TYPES: &[(&str, &[&str])] = &[
    (
        "gnocchi_resources_threshold",
        &[
            "--metric",
            "cpu_util",
            "--resource-id",
            RESOURCE,
            "--resource-type",
            "instance",
            "--aggregation-method",
            "rate:mean",
            "--threshold",
            "80.5",
            "--comparison-operator",
            "ge",
            "--granularity",
            "300",
            "--evaluation-periods",
            "3",
        ],
    ),
    (
        "gnocchi_aggregation_by_metrics_threshold",
        &[
            "--metric",
            "3d2ab6b4-8b2d-4d11-a5c1-0c6c4ac1f0a5",
            "--metric",
            "b3c1fda8-3f1d-4f9d-9a5b-6b4cf4a0d2b1",
            "--aggregation-method",
            "mean",
            "--threshold",
            "50",
        ],
    ),
    (
        "gnocchi_aggregation_by_resources_threshold",
        &[
            "--metric",
            "cpu_util",
            "--query",
            "{\"=\": {\"server_group\": \"web\"}}",
            "--resource-type",
            "instance",
            "--aggregation-method",
            "mean",
            "--threshold",
            "50",
        ],
    ),
    ("event", &["--event-type", "compute.instance.*", "--query", "traits.state=string::error"]),
    (
        "composite",
        &[
            "--composite-rule",
            "{\"or\": [{\"type\": \"gnocchi_resources_threshold\", \"metric\": \"cpu_util\", \"resource_id\": \"r\", \
             \"resource_type\": \"instance\", \"aggregation_method\": \"mean\", \"threshold\": 1}, \
             {\"type\": \"gnocchi_resources_threshold\", \"metric\": \"memory\", \"resource_id\": \"r\", \
             \"resource_type\": \"instance\", \"aggregation_method\": \"mean\", \"threshold\": 2}]}",
        ],
    ),
    ("prometheus", &["--query", "up{job=\"api\"}", "--threshold", "1", "--comparison-operator", "lt"]),
    ("loadbalancer_member_health", &["--stack-id", "stack", "--pool-id", "pool", "--autoscaling-group-id", "group"]),
    ("threshold", &["--meter-name", "cpu_util", "--threshold", "70", "--statistic", "max", "--period", "120"]),
];

#[test]
fn aodhclient_works() {
    if !has_real_parts("aodhclient") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let orzo = Orzo::start(directory.path(), SETTINGS);
    let admin = Clients::admin(&orzo);
    let openstack = |arguments: &[&str]| admin.run("openstack", &[&["alarm"], arguments].concat());
    let json = |arguments: &[&str]| admin.json("openstack", &[&["alarm"], arguments].concat());

    // create, of every type
    let mut ids = Vec::new();
    for (kind, more) in TYPES {
        let name = format!("of-{kind}");
        let made = json(&[&["create", "--name", &name, "--type", kind], *more].concat());
        assert_eq!(made["type"], *kind, "{made}");
        assert_eq!(made["state"], "insufficient data", "{made}");
        ids.push(made["alarm_id"].as_str().unwrap().to_owned());
    }
    let full = json(
        &[
            &["create", "--name", "full", "--type", "gnocchi_resources_threshold"],
            TYPES[0].1,
            &[
                "--severity",
                "critical",
                "--description",
                "with everything",
                "--enabled",
                "True",
                "--state",
                "ok",
                "--alarm-action",
                "http://203.0.113.7/hook",
                "--alarm-action",
                "log://",
                "--ok-action",
                "https://example.org/ok",
                "--insufficient-data-action",
                "zaqar://?topic=unknown",
                "--repeat-actions",
                "True",
                "--time-constraint",
                "name=day;start='0 9 29 2 *';duration=3600;timezone=Europe/Berlin",
            ],
        ]
        .concat(),
    );
    assert_eq!(
        (&full["severity"], &full["state"], &full["threshold"]),
        (&"critical".into(), &"ok".into(), &80.5.into())
    );
    assert!(full["time_constraints"].to_string().contains("Europe/Berlin"), "{full}");
    let full = full["alarm_id"].as_str().unwrap();

    // list, with filters, sorts, pages and rich queries
    assert_eq!(names(&json(&["list"])).len(), TYPES.len() + 1);
    assert_eq!(names(&json(&["list", "--filter", "severity=critical"])), ["full"]);
    assert_eq!(names(&json(&["list", "--filter", "type=event", "--filter", "enabled=true"])), ["of-event"]);
    assert_eq!(names(&json(&["list", "--filter", "all_projects=true"])).len(), TYPES.len() + 1);
    let sorted = names(&json(&["list", "--sort", "name:desc", "--limit", "2"]));
    assert_eq!(sorted, ["of-threshold", "of-prometheus"]);
    let first = json(&["list", "--sort", "name:asc", "--limit", "1"]);
    let marker = first[0]["alarm_id"].as_str().unwrap();
    let rest = names(&json(&["list", "--sort", "name:asc", "--marker", marker]));
    assert_eq!((rest.len(), rest.contains(&"full".to_owned())), (TYPES.len(), false));
    for (query, expected) in [
        ("state=ok", 1),
        ("severity=critical and enabled=true", 1),
        ("type=event or type=composite", 2),
        ("not type=event", TYPES.len()),
        ("name!=full", TYPES.len()),
    ] {
        assert_eq!(names(&json(&["list", "--query", query])).len(), expected, "{query}");
    }

    // show, by id and by name
    assert_eq!(json(&["show", full])["name"], "full");
    assert_eq!(json(&["show", "full"])["alarm_id"], full);
    assert_eq!(json(&["show", "--name", "of-event"])["event_type"], "compute.instance.*");
    assert!(json(&["show", "of-composite"])["composite_rule"].to_string().contains("memory"));

    // update, every type, by id and by name
    let changed = json(&["update", "--threshold", "90", "--enabled", "False", "full"]);
    assert_eq!((&changed["threshold"], &changed["enabled"]), (&90.0.into(), &false.into()), "{changed}");
    for (place, (kind, more)) in TYPES.iter().enumerate() {
        // The client forgets the rule of this type unless it is named again.
        let again = if *kind == "loadbalancer_member_health" { *more } else { &[] };
        let changed = json(&[&["update", "--severity", "moderate", &ids[place]], again].concat());
        assert_eq!((&changed["severity"], &changed["type"]), (&"moderate".into(), &(*kind).into()), "{changed}");
    }
    let changed = json(&["update", "--name", "of-event", "--event-type", "image.*"]);
    assert_eq!(changed["event_type"], "image.*", "{changed}");
    let changed = json(&["update", "--alarm-action", "", "full"]);
    assert_eq!(changed["alarm_actions"], Value::Array(Vec::new()), "{changed}");

    // state
    assert_eq!(json(&["state", "get", full])["state"], "ok");
    assert_eq!(json(&["state", "set", "--state", "alarm", full])["state"], "alarm");
    assert_eq!(json(&["state", "get", "--name", "full"])["state"], "alarm");
    assert_eq!(json(&["state", "set", "--state", "ok", "full"])["state"], "ok");

    // history
    let history = admin.json("openstack", &["alarm-history", "show", full, "--sort", "timestamp:asc"]);
    let kinds: Vec<&str> = history.as_array().unwrap().iter().filter_map(|row| row["type"].as_str()).collect();
    assert_eq!(kinds, ["creation", "rule change", "rule change", "state transition", "state transition"]);
    let one = admin.json("openstack", &["alarm-history", "show", full, "--limit", "1"]);
    assert_eq!(one[0]["type"], "state transition");
    let found = admin.json("openstack", &["alarm-history", "search"]);
    assert!(found.as_array().unwrap().len() > TYPES.len(), "{found}");
    let query = format!("alarm_id={full} and type='state transition'");
    let found = admin.json("openstack", &["alarm-history", "search", "--query", &query]);
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");

    // capabilities, quotas, metrics
    let capabilities = admin.json("openstack", &["alarming", "capabilities", "list"]);
    assert_eq!(capabilities["api"]["alarms:query:complex"], true, "{capabilities}");
    assert_eq!(json(&["quota", "show"])["alarms"], 20);
    let project = admin.json("openstack", &["project", "show", "admin"])["id"].as_str().unwrap().to_owned();
    assert_eq!(json(&["quota", "set", &project, "--alarm", "9"])["alarms"], 9);
    assert_eq!(json(&["quota", "show", "--project", &project])["alarms"], 9);
    let more = [&["alarm", "create", "--name", "tenth", "--type", "event"], TYPES[3].1].concat();
    let (success, _, errors) = admin.try_run("openstack", &more);
    assert!(!success && errors.contains("Alarm quota exceeded"), "{errors}");
    json(&["quota", "set", &project, "--alarm", "-1"]);
    assert!(json(&["metrics"]).is_array());

    // what is wrong is told
    let (success, _, errors) = admin.try_run("openstack", &["alarm", "show", "6868da77-fa82-4e67-aba9-270c5ae8cbcb"]);
    assert!(!success && errors.contains("not found"), "{errors}");
    let bad = [&["alarm", "create", "--name", "bad", "--type", "event", "--alarm-action", "ftp://host/"], TYPES[3].1];
    let (success, _, errors) = admin.try_run("openstack", &bad.concat());
    assert!(!success && errors.contains("Unsupported action ftp"), "{errors}");

    // a member of another project sees nothing, and makes its own
    admin.json("openstack", &["project", "create", "blue"]);
    admin.json("openstack", &["user", "create", "--project", "blue", "--password", "a-good-password", "ann"]);
    admin.run("openstack", &["role", "add", "--project", "blue", "--user", "ann", "member"]);
    let ann = Clients::of(&orzo, "ann", "a-good-password", "blue");
    assert!(names(&ann.json("openstack", &["alarm", "list"])).is_empty());
    let (success, _, errors) = ann.try_run("openstack", &["alarm", "show", full]);
    assert!(!success && errors.contains("not found"), "{errors}");
    let (success, _, errors) = ann.try_run("openstack", &["alarm", "quota", "set", &project, "--alarm", "1"]);
    assert!(!success && errors.contains("403"), "{errors}");

    // a trust: made with the alarm, seen by its maker, its id never shown
    let trusted = [
        &["alarm", "create", "--name", "trusted", "--type", "event", "--alarm-action"],
        &["trust+https://heat.example.org/v1/signal"][..],
        TYPES[3].1,
    ];
    let trusted = ann.json("openstack", &trusted.concat());
    assert_eq!(trusted["alarm_actions"][0], "trust+https://heat.example.org/v1/signal");
    let trusts = admin.json("openstack", &["trust", "list"]);
    assert_eq!(trusts.as_array().map(Vec::len), Some(1), "{trusts}");
    let id = trusts[0]["ID"].as_str().unwrap();
    assert_eq!(trusts[0]["Impersonation"], true, "{trusts}");
    assert!(!trusted.to_string().contains(id));
    assert_eq!(admin.json("openstack", &["trust", "show", id])["id"], id);

    // trusts by hand; only an administrator can look up the names
    let by_hand = ["trust", "create", "--project", "admin", "--role", "member", "--impersonate", "admin", "ann"];
    let by_hand = admin.json("openstack", &by_hand);
    admin.run("openstack", &["trust", "delete", by_hand["id"].as_str().unwrap()]);

    // delete, by id and by name
    openstack(&["delete", full]);
    openstack(&["delete", "--name", "of-event"]);
    for (kind, _) in TYPES.iter().filter(|(kind, _)| *kind != "event") {
        openstack(&["delete", &format!("of-{kind}")]);
    }
    assert!(names(&json(&["list"])).is_empty());
    orzo.assert_conserved();
}
