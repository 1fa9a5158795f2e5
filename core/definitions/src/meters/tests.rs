//! Each rule of the language with a small file, and the shipped file with notifications in the services' shapes.

use orzo_model::{Sample, SampleKind};
use serde_json::json;

use super::{MeterDefinitions, Metered, SkipReason, UserMetadata};
use crate::{Notification, fixtures};

fn measured(definitions: &MeterDefinitions, notification: &Notification) -> Metered {
    definitions.samples(notification, &UserMetadata::default())
}

/// What the single definition `yaml` (the inside of one entry, indented by four) makes of a notification.
fn with(yaml: &str, notification: &Notification) -> Metered {
    let text = format!("metric:\n  - {}\n", yaml.trim().replace('\n', "\n    "));
    measured(&MeterDefinitions::parse(&[("t.yaml", &text)]).expect(&text), notification)
}

fn error_of(text: &str) -> String {
    MeterDefinitions::parse(&[("m.yaml", text)]).expect_err(text).to_string()
}

fn find<'a>(metered: &'a Metered, meter: &str) -> &'a Sample {
    metered.samples.iter().find(|sample| sample.meter == meter).expect(meter)
}

#[test]
fn an_instance_makes_its_five_meters() {
    let metered = measured(&MeterDefinitions::shipped(), &fixtures::instance_created());
    let mut meters: Vec<_> = metered.samples.iter().map(|s| (s.meter.as_str(), s.value, s.unit.as_str())).collect();
    meters.sort_by(|a, b| a.0.cmp(b.0));
    assert_eq!(
        meters,
        [
            ("compute.instance.booting.time", 6.5, "sec"),
            ("disk.ephemeral.size", 5.0, "GiB"),
            ("disk.root.size", 20.0, "GiB"),
            ("memory", 2048.0, "MiB"),
            ("vcpus", 2.0, "vcpu"),
        ]
    );
    assert_eq!(metered.skipped, []);
    let vcpus = find(&metered, "vcpus");
    assert_eq!(vcpus.kind, SampleKind::Gauge);
    assert_eq!(vcpus.resource_id, "0d9c8b7a-6f5e-4d3c-2b1a-0f9e8d7c6b5a");
    assert_eq!(vcpus.project_id.as_deref(), Some("11aa22bb33cc44dd55ee66ff77008899"));
    assert_eq!(vcpus.timestamp.isoformat(), "2026-11-21T20:10:05.250000+00:00");
    assert_eq!(vcpus.metadata["flavor_name"], "m1.small");
    assert_eq!(vcpus.metadata["user_metadata"], json!({"server_group": "web", "tier_name": "front"}));
    assert!(!vcpus.metadata.contains_key("deleted_at"), "an empty value is left out");
}

#[test]
fn the_same_notification_makes_the_same_ids() {
    let ids = |notification: &Notification| -> Vec<_> {
        measured(&MeterDefinitions::shipped(), notification).samples.iter().map(|s| s.id).collect()
    };
    let first = ids(&fixtures::instance_created());
    assert_eq!(first, ids(&fixtures::instance_created()));
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), first.len());
}

#[test]
fn instance_meters_are_not_made_from_create_start_and_update() {
    for event_type in ["compute.instance.create.start", "compute.instance.update"] {
        let created = fixtures::instance_created();
        let other = Notification::new(
            created.message_id.clone(),
            event_type.to_owned(),
            created.publisher_id.clone(),
            created.priority,
            created.timestamp,
            created.payload().clone(),
            serde_json::Map::new(),
        );
        assert_eq!(measured(&MeterDefinitions::shipped(), &other), Metered::default(), "{event_type}");
    }
}

#[test]
fn an_image_keeps_its_whole_payload_as_metadata() {
    let metered = measured(&MeterDefinitions::shipped(), &fixtures::image_uploaded());
    let size = find(&metered, "image.size");
    assert_eq!((size.value, size.unit.as_str()), (65536.0, "B"));
    assert_eq!(size.project_id.as_deref(), Some("11aa22bb33cc44dd55ee66ff77008899"));
    assert_eq!(size.metadata["disk_format"], "qcow2");
    assert_eq!(size.metadata["event_type"], "image.upload");
    assert_eq!(size.metadata["host"], "image.controller-1");
}

#[test]
fn an_image_without_a_size_is_skipped_with_a_reason() {
    let uploaded = fixtures::image_uploaded();
    let mut payload = uploaded.payload().clone();
    payload["size"] = json!(null);
    let saving = Notification::new(
        uploaded.message_id.clone(),
        "image.update".to_owned(),
        uploaded.publisher_id.clone(),
        uploaded.priority,
        uploaded.timestamp,
        payload,
        serde_json::Map::new(),
    );
    let metered = measured(&MeterDefinitions::shipped(), &saving);
    assert_eq!(metered.skipped, [("image.size".to_owned(), SkipReason::NoVolume)]);
    assert!(metered.samples.is_empty());
}

#[test]
fn a_name_can_be_computed_from_the_notification() {
    let metered = measured(&MeterDefinitions::shipped(), &fixtures::authenticated());
    let sample = find(&metered, "identity.authenticate.failure");
    assert_eq!((sample.value, sample.kind), (1.0, SampleKind::Delta));
    assert_eq!(sample.resource_id, "e5f60718293a4b5c6d7e8f90a1b2c3d4");
}

#[test]
fn a_list_of_readings_is_picked_apart_by_filters() {
    let metered = measured(&MeterDefinitions::shipped(), &fixtures::node_metrics());
    let frequency = find(&metered, "compute.node.cpu.frequency");
    assert_eq!(frequency.value, 2400.0);
    assert_eq!(frequency.resource_id, "node-7_node-7.example.org");
    assert_eq!(frequency.timestamp.isoformat(), "2026-11-21T20:14:58+00:00", "the reading's own time");
    assert_eq!(find(&metered, "compute.node.cpu.percent").value, 12.5);
    assert_eq!(find(&metered, "compute.node.cpu.user.time").kind, SampleKind::Cumulative);
    assert_eq!(metered.samples.len(), 3);
    assert!(metered.skipped.iter().all(|(_, reason)| *reason == SkipReason::NoVolume));
}

#[test]
fn lookup_makes_one_sample_per_element() {
    let metered = measured(&MeterDefinitions::shipped(), &fixtures::object_request());
    let made: Vec<_> = metered.samples.iter().map(|s| (s.meter.as_str(), s.value, s.resource_id.as_str())).collect();
    assert_eq!(
        made,
        [("storage.objects.incoming.bytes", 28.0, "11aa22bb"), ("storage.objects.outgoing.bytes", 1.0, "11aa22bb")]
    );
}

#[test]
fn lookup_drops_lists_of_different_length_and_is_silent_without_elements() {
    let uneven = with(
        "name: $.payload.measurements.[*].metric.[*].name\nevent_type: objectstore.*\ntype: delta\nunit: B\n\
         volume: $.payload.measurements.[0].result\nresource_id: $.payload.target.id\nlookup: [name, volume]",
        &fixtures::object_request(),
    );
    assert!(uneven.samples.is_empty());
    assert_eq!(uneven.skipped[0].1, SkipReason::UnevenLists);
    let repeated = with(
        "name: $.payload.measurements.[*].metric.[*].name\nevent_type: objectstore.*\ntype: delta\nunit: B\n\
         volume: $.payload.measurements.[0].result\nresource_id: $.payload.target.id\nlookup: name",
        &fixtures::object_request(),
    );
    assert_eq!(repeated.samples.iter().map(|s| s.value).collect::<Vec<_>>(), [28.0, 28.0]);
    let none = with(
        "name: $.payload.nothing.[*].name\nevent_type: objectstore.*\ntype: delta\nunit: B\n\
         volume: 1\nresource_id: $.payload.target.id\nlookup: [name]",
        &fixtures::object_request(),
    );
    assert!(none.samples.is_empty());
}

#[test]
fn a_volume_brings_what_belongs_to_it() {
    let metered = measured(&MeterDefinitions::shipped(), &fixtures::volume_created());
    let size = find(&metered, "volume.size");
    assert_eq!(size.value, 40.0);
    assert_eq!(
        serde_json::to_value(&size.metadata).expect("a map"),
        json!({"display_name": "data", "volume_type": "ssd", "volume_type_id": "ssd", "image_id": "5f6e7d8c",
               "instance_id": "0d9c8b7a"})
    );
}

#[test]
fn owners_fall_back_to_the_context() {
    let metered = with(
        "name: m\nevent_type: compute.*\ntype: gauge\nunit: '%'\nvolume: 1\nresource_id: $.payload.instance_id",
        &fixtures::instance_created(),
    );
    let sample = find(&metered, "m");
    assert_eq!(sample.project_id.as_deref(), Some("p-context"));
    assert_eq!(sample.user_id.as_deref(), Some("u-context"));
    assert_eq!(sample.unit, "%");
}

#[test]
fn plugins_work_on_volumes() {
    for (volume, expected) in [
        ("{fields: [payload.created_at, payload.launched_at], plugin: timedelta}", 6.5),
        ("{fields: payload.state, plugin: {name: map, parameters: {values: {active: 1, error: 2}}}}", 1.0),
        ("{fields: payload.host, plugin: {name: map, parameters: {values: {a: 1}, default: -1}}}", -1.0),
        ("{fields: payload.state, plugin: {name: map, parameters: {values: {ACTIVE: 3}, case_sensitive: no}}}", 3.0),
        ("{fields: payload.host, plugin: {name: split, parameters: {separator: '-', segment: 1}}}", 7.0),
        (
            "{fields: [payload.vcpus, payload.state], plugin: {name: bitfield, parameters: {initial_bitfield: 1, flags: \
             [{path: payload.vcpus, bit: 1}, {path: payload.state, bit: 2, value: active}, \
              {path: payload.state, bit: 3, value: off}]}}}",
            7.0,
        ),
    ] {
        let definition =
            format!("name: m\nevent_type: compute\ntype: gauge\nunit: x\nvolume: {volume}\nresource_id: payload.host");
        let metered = with(&definition, &fixtures::instance_created());
        assert_eq!(metered.samples.first().map(|s| s.value), Some(expected), "{volume} {:?}", metered.skipped);
    }
}

#[test]
fn what_a_sample_lacks_is_said() {
    for (change, reason) in [
        ("volume: $.payload.nothing", SkipReason::NoVolume),
        ("volume: $.payload.display_name", SkipReason::NotANumber),
        ("resource_id: $.payload.nothing", SkipReason::NoResource),
        ("name: $.payload.nothing", SkipReason::NoName),
        ("type: $.payload.state", SkipReason::BadKind),
        ("timestamp: $.payload.display_name", SkipReason::BadTimestamp),
    ] {
        let key = change.split(':').next().expect("a key");
        let mut lines =
            vec!["name: m", "event_type: .*", "type: gauge", "unit: x", "volume: 1", "resource_id: payload.host"];
        lines.retain(|line| line.split(':').next() != Some(key));
        lines.push(change);
        let metered = with(&lines.join("\n"), &fixtures::instance_created());
        assert_eq!(metered.skipped.first().map(|(_, reason)| *reason), Some(reason), "{change}");
    }
}

#[test]
fn the_first_file_wins_and_inside_a_file_the_last_definition() {
    let meter = |volume: u8| {
        format!("  - {{name: m, event_type: x, type: gauge, unit: u, volume: {volume}, resource_id: payload.id}}\n")
    };
    let first = format!("metric:\n{}{}", meter(1), meter(2));
    let second = format!("metric:\n{}", meter(3));
    let definitions =
        MeterDefinitions::parse(&[("a.yaml", &first), ("b.yaml", &second), ("c.yaml", "")]).expect("fine");
    let notification = Notification::new(
        "id".to_owned(),
        "x.y".to_owned(),
        "p".to_owned(),
        crate::Priority::Info,
        orzo_model::Timestamp::EPOCH,
        json!({"id": "r"}),
        serde_json::Map::new(),
    );
    let values: Vec<_> = measured(&definitions, &notification).samples.iter().map(|s| s.value).collect();
    assert_eq!(values, [2.0]);
    assert_eq!(
        definitions.overridden(),
        [
            "a.yaml:2: meter `m` is passed over, a.yaml:3 defines it",
            "b.yaml:2: meter `m` is passed over, a.yaml:3 defines it"
        ]
    );
}

#[test]
fn a_wrong_file_is_refused_with_file_line_and_field() {
    let base = "metric:\n  - name: m\n    event_type: x\n    type: gauge\n    unit: u\n    volume: 1\n";
    assert_eq!(error_of(base), "m.yaml:2:5: `metric[0].resource_id`: required, but missing");
    let with = |line: &str| error_of(&format!("{base}    resource_id: payload.id\n{line}\n"));
    assert!(
        with("    multi: name").starts_with("m.yaml:8:5: `metric[0].multi`: unknown key"),
        "{}",
        with("    multi: name")
    );
    assert!(with("    lookup: [colour]").contains("`metric[0].lookup`: `colour` cannot be looked up"));
    assert!(with("    timestamp: 'payload.['").starts_with("m.yaml:8:16: `metric[0].timestamp`"));
    assert!(error_of(&base.replace("gauge", "level")).contains("m.yaml:4:11: `metric[0].type`: `level` is none of"));
    assert!(
        error_of(&base.replace("event_type: x", "event_type: 'x('")).contains("m.yaml:3:17: `metric[0].event_type`")
    );
    let wish = base.replace("volume: 1", "volume: {fields: payload.a, plugin: wish}");
    let error = error_of(&format!("{wish}    resource_id: payload.id\n"));
    assert!(error.contains("`metric[0].volume.plugin`: unknown plugin `wish`"), "{error}");
    assert!(error_of("meters: []").contains("unknown key"));
    assert!(error_of("- a").contains("expected a map"));
}
