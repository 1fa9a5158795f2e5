//! Each rule of the language with a small file, and the shipped file with samples and events of the shipped others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use orzo_model::{Sample, SampleKind, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ActionKind, ArchivePolicyItem, ResourceDefinitions};
use crate::{EventDefinitions, MeterDefinitions, UserMetadata, fixtures};

fn sample(meter: &str, metadata: Value) -> Sample {
    let metadata: BTreeMap<String, Value> = serde_json::from_value(metadata).expect("an object");
    Sample {
        id: Uuid::nil(),
        meter: meter.to_owned(),
        kind: SampleKind::Gauge,
        unit: "u".to_owned(),
        value: 1.5,
        timestamp: Timestamp::EPOCH,
        resource_id: "r".to_owned(),
        project_id: Some("p".to_owned()),
        user_id: None,
        source: "openstack".to_owned(),
        metadata: Arc::new(metadata),
    }
}

#[test]
fn every_meter_that_is_made_anywhere_has_its_place() {
    let resources = ResourceDefinitions::shipped();
    for (resource_type, meters) in [
        (
            "instance",
            "power.state cpu cpu_util vcpus memory memory.available memory.usage memory.resident memory.swap.in \
             memory.swap.out perf.cpu.cycles perf.instructions perf.cache.references perf.cache.misses disk.root.size \
             disk.ephemeral.size compute.instance.booting.time",
        ),
        (
            "instance_disk",
            "disk.device.read.requests disk.device.read.bytes disk.device.write.requests disk.device.write.bytes \
             disk.device.read.latency disk.device.write.latency disk.device.capacity disk.device.allocation \
             disk.device.usage disk.device.read.requests.rate disk.device.read.bytes.rate \
             disk.device.write.requests.rate disk.device.write.bytes.rate",
        ),
        (
            "instance_network_interface",
            "network.incoming.bytes network.incoming.packets network.incoming.packets.error \
             network.incoming.packets.drop network.outgoing.bytes network.outgoing.packets network.incoming.bytes.delta \
             network.outgoing.bytes.rate network.incoming.packets.rate network.outgoing.packets.rate",
        ),
        ("image", "image.size image.download image.serve"),
        ("volume", "volume.size snapshot.size backup.size volume.snapshot.size volume.backup.size"),
        ("volume_provider", "volume.provider.capacity.total volume.provider.capacity.virtual_free"),
        ("volume_provider_pool", "volume.provider.pool.capacity.free"),
        ("volume_service", "volume.service.health"),
        ("identity", "identity.authenticate.success identity.authenticate.failure identity.project.created"),
        ("network", "bandwidth ip.floating"),
        ("nova_compute", "compute.node.cpu.percent compute.node.cpu.idle.time"),
        ("swift_account", "storage.objects storage.objects.incoming.bytes storage.containers.objects.size"),
        ("ceph_account", "radosgw.objects.size radosgw.api.request"),
        ("manila_share", "manila.share.size manila.share.status"),
        ("loadbalancer", "loadbalancer.operating"),
        ("dns_zone", "dns.zone.ttl"),
        ("ipmi_sensor", "hardware.ipmi.temperature hardware.ipmi.power"),
        ("ipmi", "hardware.ipmi.node.power"),
        (
            "host",
            "hardware.cpu.util hardware.cpu.load.1min hardware.memory.total hardware.memory.used \
             hardware.memory.swap.avail",
        ),
        ("host_disk", "hardware.disk.size.total hardware.disk.read.bytes hardware.disk.read.bytes.rate"),
        ("host_network_interface", "hardware.network.incoming.bytes hardware.network.outgoing.errors"),
    ] {
        for meter in meters.split_whitespace() {
            assert_eq!(resources.resource_type(meter), Some(resource_type), "{meter}");
        }
    }
    for meter in MeterDefinitions::shipped().names().filter(|name| !name.contains('$')) {
        assert!(resources.resource_type(meter).is_some(), "{meter} is made from notifications, but has no place");
    }
    assert_eq!(resources.resource_type("my.own.meter"), None);
}

#[test]
fn attributes_are_picked_out_of_the_sample() {
    let resources = ResourceDefinitions::shipped();
    let metadata = json!({
        "instance_host": "node-7", "host": "a hash", "display_name": "web-1", "flavor": {"id": "2", "name": "m1.small"},
        "image_ref": null, "image": {"id": "i"}, "user_metadata": {"server_group": "web"}, "status": "active"
    });
    let placement = resources.place(&sample("cpu", metadata)).expect("placed");
    assert_eq!(placement.resource_type, "instance");
    assert_eq!(placement.archive_policy_name.as_deref(), Some("ceilometer-high-rate"));
    assert_eq!(
        serde_json::to_value(&placement.attributes).expect("a map"),
        json!({"host": "node-7", "display_name": "web-1", "flavor_id": "2", "flavor_name": "m1.small",
               "image_ref": "i", "server_group": "web"})
    );
    let disk = sample("disk.device.read.bytes", json!({"disk_name": "vda", "instance_id": "0d9c"}));
    let placement = resources.place(&disk).expect("placed");
    assert_eq!(
        serde_json::to_value(&placement.attributes).expect("a map"),
        json!({"name": "vda", "instance_id": "0d9c"})
    );
}

#[test]
fn the_sample_itself_can_be_an_attribute() {
    let file = "resources:\n  - resource_type: t\n    metrics: [m]\n    attributes:\n      a: counter_name\n      \
                b: name\n      c: volume\n      d: project_id\n      e: user_id\n      f: $.resource_metadata.x.y\n      \
                g: resource_metadata.z + '-' + resource_id\n      h: type\n      i: timestamp\n";
    let resources = ResourceDefinitions::parse("r.yaml", file).expect("fine");
    let placement = resources.place(&sample("m", json!({"x": {"y": [1]}, "z": "z"}))).expect("placed");
    assert_eq!(
        serde_json::to_value(&placement.attributes).expect("a map"),
        json!({"a": "m", "b": "m", "c": 1.5, "d": "p", "f": [1], "g": "z-resource_id", "h": "gauge", "i": "1970-01-01T00:00:00+00:00"}),
        "a lone name beside an operator is a text, as in jsonpath-rw-ext, so `g` ends with one"
    );
    assert_eq!(placement.archive_policy_name, None);
}

#[test]
fn exact_names_come_before_globs_and_later_definitions_before_earlier_ones() {
    let file = "archive_policy_default: low\nresources:\n\
                - {resource_type: globs, metrics: {'a.*': {archive_policy_name: high}}}\n\
                - {resource_type: exact, metrics: {a.b: null}}\n\
                - {resource_type: later, metrics: ['a.c*']}\n\
                - {resource_type: old, archive_policy: medium, metrics: [o]}\n";
    let resources = ResourceDefinitions::parse("r.yaml", file).expect("fine");
    let place = |meter: &str| {
        let placement = resources.place(&sample(meter, json!({}))).expect(meter);
        (placement.resource_type, placement.archive_policy_name.expect("a policy"))
    };
    assert_eq!(place("a.x"), ("globs".to_owned(), "high".to_owned()));
    assert_eq!(place("a.b"), ("exact".to_owned(), "low".to_owned()));
    assert_eq!(place("a.cd"), ("later".to_owned(), "low".to_owned()));
    assert_eq!(place("o"), ("old".to_owned(), "medium".to_owned()));
}

#[test]
fn archive_policies_are_read_with_their_spans() {
    let resources = ResourceDefinitions::shipped();
    let names: Vec<_> = resources.archive_policies().iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["ceilometer-low", "ceilometer-low-rate", "ceilometer-high", "ceilometer-high-rate"]);
    assert!(names.contains(&resources.archive_policy_default().expect("there is one")));
    let high = &resources.archive_policies()[3];
    assert_eq!(high.aggregation_methods, ["mean", "rate:mean"]);
    assert_eq!(
        high.definition[0],
        ArchivePolicyItem {
            granularity: Some(Duration::from_secs(1)),
            timespan: Some(Duration::from_secs(3600)),
            points: None
        }
    );
    assert_eq!(high.definition[2].timespan, Some(Duration::from_secs(365 * 86_400)));
}

#[test]
fn the_end_of_an_instance_ends_what_it_had() {
    let created = fixtures::instance_created();
    let event = EventDefinitions::shipped().event(&created, false).expect("an event");
    let resources = ResourceDefinitions::shipped();
    let actions = resources.actions(&event);
    assert_eq!(actions.len(), 1);
    let action = &actions[0];
    assert_eq!((action.kind, action.resource_type.as_str()), (ActionKind::Create, "instance"));
    assert_eq!(action.resource_id, "0d9c8b7a-6f5e-4d3c-2b1a-0f9e8d7c6b5a");
    assert_eq!(action.project_id.as_deref(), Some("11aa22bb33cc44dd55ee66ff77008899"));
    assert_eq!(action.attributes["flavor_name"], "m1.small");
    assert!(!action.attributes.contains_key("id") && !action.attributes.contains_key("project_id"));
    assert_eq!(action.associated, []);

    let mut event = event;
    event.event_type = "compute.instance.delete.start".to_owned();
    let actions = resources.actions(&event);
    assert_eq!(actions[0].kind, ActionKind::Delete);
    assert_eq!(actions[0].at, created.timestamp);
    let associated: Vec<_> =
        actions[0].associated.iter().map(|a| (a.resource_type.as_str(), a.search.clone())).collect();
    let search = json!({"=": {"instance_id": "0d9c8b7a-6f5e-4d3c-2b1a-0f9e8d7c6b5a"}});
    assert_eq!(associated, [("instance_disk", search.clone()), ("instance_network_interface", search)]);

    event.traits.retain(|t| t.name != "instance_id");
    assert_eq!(resources.actions(&event), [], "an event that does not say which resource does nothing");
    event.event_type = "compute.instance.exists".to_owned();
    assert_eq!(resources.actions(&event), []);
}

#[test]
fn an_id_cannot_change_the_search() {
    let file = "resources:\n- {resource_type: t, metrics: [], event_delete: d, event_attributes: {id: i}, \
                event_associated_resources: {other: '{\"=\": {\"of\": \"%s\"}}'}}\n";
    let resources = ResourceDefinitions::parse("r.yaml", file).expect("fine");
    let id = "a/b\"}, \"or\": {\"x\": \"";
    let event = orzo_model::Event {
        message_id: "m".to_owned(),
        event_type: "d".to_owned(),
        generated_at: Timestamp::EPOCH,
        traits: vec![orzo_model::Trait { name: "i".to_owned(), value: orzo_model::TraitValue::Text(id.to_owned()) }],
        raw: None,
    };
    let actions = resources.actions(&event);
    assert_eq!(actions[0].associated[0].search, json!({"=": {"of": id}}));
    assert_eq!(actions[0].resource_id, id.replace('/', "_"));
}

#[test]
fn samples_of_notifications_find_their_attributes() {
    let resources = ResourceDefinitions::shipped();
    let metered = MeterDefinitions::shipped().samples(&fixtures::instance_created(), &UserMetadata::default());
    let vcpus = metered.samples.iter().find(|s| s.meter == "vcpus").expect("made");
    let placement = resources.place(vcpus).expect("placed");
    for (name, value) in [
        ("host", "node-7"),
        ("flavor_id", "2"),
        ("flavor_name", "m1.small"),
        ("server_group", "web"),
        ("display_name", "web-1"),
    ] {
        assert_eq!(placement.attributes.get(name), Some(&json!(value)), "{name}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_file_line_and_field() {
    let error = |text: &str| ResourceDefinitions::parse("g.yaml", text).expect_err(text).to_string();
    assert_eq!(
        error("resources:\n- {metrics: [a]}"),
        "g.yaml:2:3: `resources[0].resource_type`: required, but missing"
    );
    assert!(
        error("resources:\n- {resource_type: t, metrics: {a: {policy: x}}}")
            .contains("`resources[0].metrics.a.policy`: unknown key")
    );
    assert!(
        error("archive_policies:\n- {name: n, definition: [{granularity: soon, points: 1}]}")
            .contains("`soon` is not a span")
    );
    assert!(error("archive_policies:\n- {name: n, definition: [{granularity: 1 s}]}").contains("needs two of"));
    assert!(error("archive_policies:\n- {name: n}").contains("at least one granularity"));
    assert!(error("resources:\n- {resource_type: t, metrics: [], event_delete: d}").contains("needs `id`"));
    assert!(
        error("resources:\n- {resource_type: t, metrics: [], event_associated_resources: {a: '{'}}")
            .contains("not a search in JSON")
    );
}
