//! Whole files: the shipped ones, and Ceilometer's own where `ORZO_TEST_CEILOMETER` names its installed package.

use std::path::PathBuf;

use crate::{
    Definitions, EventDefinitions, MeterDefinitions, ResourceDefinitions, UserMetadata, fixtures, read_directory,
    read_file,
};

/// Meter directory (in `scratch` unless Ceilometer's own is given), event definitions, resource definitions.
fn files(scratch: &std::path::Path) -> (PathBuf, PathBuf, PathBuf) {
    match std::env::var_os("ORZO_TEST_CEILOMETER").map(PathBuf::from) {
        Some(package) => (
            package.join("data/meters.d"),
            package.join("pipeline/data/event_definitions.yaml"),
            package.join("publisher/data/gnocchi_resources.yaml"),
        ),
        None => {
            let defaults = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("defaults");
            let meters = scratch.to_owned();
            std::fs::copy(defaults.join("meters.yaml"), meters.join("meters.yaml")).expect("copied");
            std::fs::write(meters.join("README"), "not YAML: [").expect("written");
            (meters, defaults.join("event_definitions.yaml"), defaults.join("gnocchi_resources.yaml"))
        }
    }
}

#[test]
fn an_operators_files_are_read_as_they_are() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (meters, events, resources) = files(scratch.path());
    let texts = read_directory(&meters).expect("readable");
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let meters = MeterDefinitions::parse(&texts).expect("good meters");
    let (name, text) = read_file(&events).expect("readable");
    let events = EventDefinitions::parse(&name, &text).expect("good events");
    let (name, text) = read_file(&resources).expect("readable");
    let resources = ResourceDefinitions::parse(&name, &text).expect("good resources");

    for notification in [
        fixtures::instance_created(),
        fixtures::image_uploaded(),
        fixtures::authenticated(),
        fixtures::node_metrics(),
        fixtures::object_request(),
        fixtures::volume_created(),
    ] {
        let ours = Definitions::shipped();
        let metered = meters.samples(&notification, &UserMetadata::default());
        let shipped = ours.meters.samples(&notification, &UserMetadata::default());
        let names = |metered: &crate::Metered| {
            let mut names: Vec<_> =
                metered.samples.iter().map(|s| (s.meter.clone(), s.unit.clone(), s.value.to_bits())).collect();
            names.sort();
            names
        };
        assert_eq!(names(&metered), names(&shipped), "{}", notification.event_type);
        for sample in &metered.samples {
            assert_eq!(
                resources.resource_type(&sample.meter),
                ours.resources.resource_type(&sample.meter),
                "{}",
                sample.meter
            );
        }
        let event = events.event(&notification, false).expect("an event");
        let shipped = ours.events.event(&notification, false).expect("an event");
        for name in ["resource_id", "project_id", "instance_id", "host", "service", "request_id", "outcome"] {
            if let Some(value) = event.text(name) {
                assert_eq!(shipped.text(name), Some(value), "{} {name}", notification.event_type);
            }
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = read_file(std::path::Path::new("/nonexistent/meters.yaml")).expect_err("not there");
    assert_eq!(error.to_string(), "cannot read /nonexistent/meters.yaml");
    assert!(read_directory(std::path::Path::new("/nonexistent")).is_err());
}

#[test]
fn an_operators_meter_comes_before_the_shipped_one_and_the_rest_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mine.yaml");
    let text =
        "metric:\n- {name: image.size, event_type: image, type: gauge, unit: kB, volume: 1, resource_id: payload.id}\n";
    std::fs::write(&file, text).expect("written");
    let definitions = Definitions::read(&[directory.path().to_owned()], None, None).expect("fine");
    let metered = definitions.meters.samples(&fixtures::image_uploaded(), &UserMetadata::default());
    assert_eq!(metered.samples.iter().map(|s| s.unit.as_str()).collect::<Vec<_>>(), ["kB"]);
    assert!(definitions.meters.names().any(|name| name == "vcpus"));
    assert_eq!(definitions.meters.overridden().len(), 1);
    std::fs::write(&file, "metric: 5").expect("written");
    let error = Definitions::read(&[directory.path().to_owned()], None, None).expect_err("not a list").to_string();
    assert!(error.contains("mine.yaml:1:9: `metric`: expected a list, found a number"), "{error}");
}
