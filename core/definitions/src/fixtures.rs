//! Notifications in the real services' shapes, for tests: texts of our own in `fixtures/*.json`, each the inner message
//! of oslo's envelope.

use serde_json::{Map, Value};

use crate::{Notification, Priority};

/// Reads a fixture as the listener would.
pub(crate) fn notification(text: &str) -> Notification {
    let fields: Map<String, Value> = serde_json::from_str(text).expect("fixtures are JSON");
    let word = |key: &str| fields[key].as_str().expect(key).to_owned();
    let context = fields
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("_context_")?.to_owned(), value.clone())))
        .collect();
    Notification::new(
        word("message_id"),
        word("event_type"),
        word("publisher_id"),
        Priority::from_word(&word("priority")),
        word("timestamp").parse().expect("fixtures have a time"),
        fields["payload"].clone(),
        context,
    )
}

pub(crate) fn instance_created() -> Notification {
    notification(include_str!("fixtures/instance_create_end.json"))
}

pub(crate) fn image_uploaded() -> Notification {
    notification(include_str!("fixtures/image_upload.json"))
}

pub(crate) fn authenticated() -> Notification {
    notification(include_str!("fixtures/identity_authenticate.json"))
}

pub(crate) fn node_metrics() -> Notification {
    notification(include_str!("fixtures/compute_metrics.json"))
}

pub(crate) fn object_request() -> Notification {
    notification(include_str!("fixtures/objectstore_request.json"))
}

pub(crate) fn volume_created() -> Notification {
    notification(include_str!("fixtures/volume_create_end.json"))
}
