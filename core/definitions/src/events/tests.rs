//! Each rule of the language with a small file, and the shipped file with notifications in the services' shapes.

use orzo_model::TraitValue;
use serde_json::{Map, json};

use super::EventDefinitions;
use crate::{Notification, Priority, fixtures};

fn notification(event_type: &str) -> Notification {
    let payload = json!({
        "number": "42", "fraction": 2.75, "flag": true, "empty": "", "words": "a.b.c", "none": null,
        "when": "2026-01-02T03:04:05Z", "long": "x".repeat(300), "user_id": "u", "object": {"a": 1}
    });
    let context: Map<_, _> = json!({"project_id": "p", "request_id": "req-1"}).as_object().cloned().expect("an object");
    Notification::new(
        "m-1".to_owned(),
        event_type.to_owned(),
        "service.host".to_owned(),
        Priority::Info,
        "2026-11-21 20:04:19.088968".parse().expect("a time"),
        payload,
        context,
    )
}

fn traits(text: &str, event_type: &str) -> Vec<(String, TraitValue)> {
    let definitions = EventDefinitions::parse("e.yaml", text).expect(text);
    let event = definitions.event(&notification(event_type), false).expect("an event");
    event.traits.into_iter().map(|t| (t.name, t.value)).collect()
}

fn text(value: &str) -> TraitValue {
    TraitValue::Text(value.to_owned())
}

#[test]
fn every_event_has_the_default_traits() {
    let expected: Vec<(String, TraitValue)> = [
        ("project_id", "p"),
        ("request_id", "req-1"),
        ("service", "service.host"),
        ("tenant_id", "p"),
        ("user_id", "u"),
    ]
    .map(|(name, value)| (name.to_owned(), text(value)))
    .to_vec();
    assert_eq!(traits("[]", "anything.at.all"), expected);
    assert_eq!(traits("- {event_type: anything.*, traits: {}}", "anything.at.all"), expected);
}

#[test]
fn unmatched_notifications_are_dropped_only_if_told_so() {
    let definitions = EventDefinitions::parse("e.yaml", "- {event_type: a.*, traits: {}}").expect("fine");
    assert!(definitions.event(&notification("b.c"), false).is_some());
    let strict = definitions.with_drop_unmatched(true);
    assert!(strict.event(&notification("b.c"), false).is_none());
    assert!(strict.event(&notification("a.c"), false).is_some());
}

#[test]
fn the_last_definition_that_matches_is_used() {
    let file = "- event_type: '*'\n  traits: {which: {fields: payload.number}}\n\
                - event_type: [compute.*, '!compute.instance.*']\n  traits: {which: {fields: payload.words}}\n\
                - event_type: '!*.start'\n  traits: {other: {fields: payload.number}}\n";
    let which = |event_type| {
        let found = traits(file, event_type);
        found.into_iter().find(|(name, _)| name == "which" || name == "other")
    };
    assert_eq!(
        which("compute.node.end"),
        Some(("other".to_owned(), text("42"))),
        "only excludes means everything else"
    );
    assert_eq!(which("compute.node.start"), Some(("which".to_owned(), text("a.b.c"))));
    assert_eq!(which("compute.instance.start"), Some(("which".to_owned(), text("42"))));
}

#[test]
fn traits_have_types_and_what_does_not_convert_is_left_out() {
    let file = "- event_type: '*'\n  traits:\n    service: {fields: payload.words}\n".to_owned()
        + &[
            ("t_int", "int", "payload.number"),
            ("t_cut", "int", "payload.fraction"),
            ("t_float", "float", "payload.fraction"),
            ("t_flag", "text", "payload.flag"),
            ("t_when", "datetime", "payload.when"),
            ("t_long", "text", "payload.long"),
            ("t_empty_text", "text", "payload.empty"),
            ("x_empty_time", "datetime", "payload.empty"),
            ("x_not_int", "int", "payload.words"),
            ("x_not_time", "datetime", "payload.number"),
            ("x_null", "text", "payload.none"),
            ("x_missing", "text", "payload.missing"),
        ]
        .map(|(name, kind, path)| format!("    {name}: {{type: {kind}, fields: {path}}}\n"))
        .concat();
    let found = traits(&file, "a");
    let get = |name: &str| found.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    assert_eq!(get("service"), Some(text("a.b.c")), "a definition may replace a default trait");
    assert_eq!(get("t_int"), Some(TraitValue::Integer(42)));
    assert_eq!(get("t_cut"), Some(TraitValue::Integer(2)));
    assert_eq!(get("t_float"), Some(TraitValue::Float(2.75)));
    assert_eq!(get("t_flag"), Some(text("True")));
    assert_eq!(get("t_when").map(|v| v.to_text()), Some("2026-01-02T03:04:05".to_owned()));
    assert_eq!(get("t_long"), Some(text(&"x".repeat(255))));
    assert_eq!(get("t_empty_text"), Some(text("")));
    assert!(found.iter().all(|(name, _)| !name.starts_with("x_")), "{found:?}");
}

#[test]
fn fields_are_tried_in_their_order_and_plugins_see_them() {
    let file = "- event_type: '*'\n  traits:\n    \
                first: {fields: [payload.missing, payload.none, payload.number]}\n    \
                simple: payload.number\n    \
                part: {fields: payload.words, plugin: {name: split, parameters: {segment: 1, max_split: 1}}}\n    \
                mapped: {type: int, fields: payload.number, plugin: {name: map, parameters: {values: {42: 7}}}}\n";
    let found = traits(file, "a");
    let get = |name: &str| found.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    assert_eq!(get("first"), Some(text("42")));
    assert_eq!(get("simple"), Some(text("42")));
    assert_eq!(get("part"), Some(text("b.c")));
    assert_eq!(get("mapped"), Some(TraitValue::Integer(7)));
}

#[test]
fn the_message_id_is_the_events_and_the_notification_is_kept_on_request() {
    let definitions = EventDefinitions::shipped();
    let event = definitions.event(&fixtures::image_uploaded(), true).expect("an event");
    assert_eq!(event.message_id, "a1b2c3d4-0001-4000-8000-00000000cafe");
    assert_eq!(event.generated_at.isoformat(), "2026-11-21T20:04:20.376601+00:00");
    let raw: serde_json::Value = serde_json::from_str(&event.raw.expect("kept")).expect("JSON");
    assert_eq!(raw["payload"]["name"], "debian-13");
    assert!(definitions.event(&fixtures::image_uploaded(), false).expect("an event").raw.is_none());
}

#[test]
fn the_shipped_definitions_know_the_services() {
    let definitions = EventDefinitions::shipped();
    let check = |notification: Notification, expected: &[(&str, &str)]| {
        let event = definitions.event(&notification, false).expect("an event");
        for (name, value) in expected {
            assert_eq!(event.text(name).as_deref(), Some(*value), "{} {name}", event.event_type);
        }
    };
    check(
        fixtures::instance_created(),
        &[
            ("instance_id", "0d9c8b7a-6f5e-4d3c-2b1a-0f9e8d7c6b5a"),
            ("host", "node-7.example.org"),
            ("service", "compute"),
            ("project_id", "11aa22bb33cc44dd55ee66ff77008899"),
            ("instance_type", "m1.small"),
            ("vcpus", "2"),
            ("os_architecture", "x86_64"),
            ("request_id", "req-1111aaaa"),
        ],
    );
    check(fixtures::image_uploaded(), &[("resource_id", "5f6e7d8c-9b0a-4c1d-8e2f-3a4b5c6d7e8f"), ("size", "65536")]);
    check(
        fixtures::authenticated(),
        &[("outcome", "failure"), ("initiator_host_addr", "192.0.2.10"), ("eventTime", "2026-11-21T20:04:19.088633")],
    );
    check(
        fixtures::volume_created(),
        &[("resource_id", "77777777-aaaa-4bbb-8ccc-dddddddddddd"), ("image_id", "5f6e7d8c"), ("size", "40")],
    );
}

#[test]
fn a_wrong_file_is_refused_with_file_line_and_field() {
    let error = |text: &str| EventDefinitions::parse("e.yaml", text).expect_err(text).to_string();
    assert_eq!(error("- {traits: {}}"), "e.yaml:1:3: `[0].event_type`: required, but missing");
    assert!(
        error("- event_type: a\n  traits: {t: {type: colour, fields: a}}").contains("e.yaml:2:22: `[0].traits.t.type`")
    );
    assert!(error("- event_type: a\n  traits: {t: {field: a}}").contains("`[0].traits.t.field`: unknown key"));
    assert!(error("- event_type: a\n  traits: {t: {fields: 'a['}}").contains("is not a path"));
    assert!(error("event_type: a").contains("expected a list"));
}
