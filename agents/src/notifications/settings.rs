//! What the listener can be told.

use orzo_bus::{QueueKind, QueueSpec};
use orzo_definitions::{Priority, UserMetadata};
use serde::Deserialize;

/// Exchanges that Ceilometer's notification agent listens to by default (`notification_control_exchanges`).
pub const EXCHANGES: [&str; 14] = [
    "nova",
    "glance",
    "neutron",
    "cinder",
    "heat",
    "keystone",
    "trove",
    "zaqar",
    "swift",
    "ceilometer",
    "magnum",
    "dns",
    "ironic",
    "aodh",
];
/// Messages in a queue of the in-process bus; oslo's own queues have no limit.
const QUEUE_MESSAGES_MAX: u32 = 100_000;

/// Settings of the notification listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotificationSettings {
    /// Control exchanges of the services.
    pub exchanges: Vec<String>,
    /// Topics: first halves of the routing keys.
    pub topics: Vec<String>,
    /// Priorities: second halves of the routing keys.
    pub priorities: Vec<String>,
    /// One queue of this name for everything (oslo's *pool*), so that another consumer, such as a real Ceilometer,
    /// keeps its own copy. Without it the queues are oslo's own, `<topic>.<priority>`, and consumers compete.
    pub queue: Option<String>,
    /// Who we are; becomes the batches' origin `notifications@<host>`.
    pub host: String,
    /// Keep the whole notification in events of these priorities (Ceilometer's `store_raw`).
    pub store_raw: Vec<String>,
    /// Prefixes of services' free metadata that samples keep (`reserved_metadata_namespace`).
    pub reserved_metadata_namespace: Vec<String>,
    /// Whole keys that samples keep (`reserved_metadata_keys`).
    pub reserved_metadata_keys: Vec<String>,
    /// Characters of such a value (`reserved_metadata_length`).
    pub reserved_metadata_length: usize,
}

impl Default for NotificationSettings {
    fn default() -> Self {
        let kept = UserMetadata::default();
        Self {
            exchanges: EXCHANGES.map(str::to_owned).to_vec(),
            topics: vec!["notifications".to_owned()],
            priorities: ["info", "error", "sample"].map(str::to_owned).to_vec(),
            queue: None,
            host: "localhost".to_owned(),
            store_raw: Vec::new(),
            reserved_metadata_namespace: kept.namespaces,
            reserved_metadata_keys: kept.keys,
            reserved_metadata_length: kept.characters_max,
        }
    }
}

impl NotificationSettings {
    /// The queues to consume, as oslo.messaging would declare them.
    pub fn queues(&self) -> Vec<QueueSpec> {
        let keys = || self.topics.iter().flat_map(|topic| self.priorities.iter().map(move |p| format!("{topic}.{p}")));
        let bindings = |key: &str| self.exchanges.iter().map(|e| (e.clone(), key.to_owned())).collect::<Vec<_>>();
        let queue = |name: String, bindings| QueueSpec {
            name,
            kind: QueueKind::OsloClassic,
            bindings,
            // Classic queues do not count deliveries.
            delivery_limit: 0,
            length_max: QUEUE_MESSAGES_MAX,
        };
        match &self.queue {
            Some(name) => vec![queue(name.clone(), keys().flat_map(|key| bindings(&key)).collect())],
            None => keys().map(|key| queue(key.clone(), bindings(&key))).collect(),
        }
    }

    /// Which free metadata samples keep.
    pub(crate) fn user_metadata(&self) -> UserMetadata {
        UserMetadata {
            namespaces: self.reserved_metadata_namespace.clone(),
            keys: self.reserved_metadata_keys.clone(),
            characters_max: self.reserved_metadata_length,
        }
    }

    /// Whether events of this priority keep the notification.
    pub(crate) fn keeps_raw(&self, priority: Priority) -> bool {
        self.store_raw.iter().any(|word| Priority::from_word(word) == priority)
    }
}
