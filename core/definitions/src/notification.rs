//! A notification as the definitions see it: one JSON body in the shape that Ceilometer's paths are written for.

use orzo_model::Timestamp;
use serde_json::{Map, Value, json};

use crate::path::Datum;

/// How urgent the emitter found it; also the second half of its routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Something happened as it should.
    Info,
    /// Something failed.
    Error,
    /// Samples of a polling agent.
    Sample,
    /// `warn`, `debug`, `critical`, `audit`.
    Other,
}

/// A message that a cloud service sent when something happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The emitter's id: the natural key against repeats.
    pub message_id: String,
    /// `compute.instance.create.end` and the like.
    pub event_type: String,
    /// `service.host`.
    pub publisher_id: String,
    /// How urgent.
    pub priority: Priority,
    /// When it was sent, by the emitter.
    pub timestamp: Timestamp,
    body: Value,
}

impl Priority {
    /// From the word in a message, in any case.
    pub fn from_word(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "info" => Self::Info,
            "error" => Self::Error,
            "sample" => Self::Sample,
            _ => Self::Other,
        }
    }

    /// The word in routing keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Error => "error",
            Self::Sample => "sample",
            Self::Other => "other",
        }
    }
}

impl Notification {
    /// Puts a notification together. `context` has the `_context_` values without that prefix.
    pub fn new(
        message_id: String,
        event_type: String,
        publisher_id: String,
        priority: Priority,
        timestamp: Timestamp,
        payload: Value,
        context: Map<String, Value>,
    ) -> Self {
        let body = json!({
            "message_id": message_id,
            "event_type": event_type,
            "publisher_id": publisher_id,
            "priority": priority.word(),
            "timestamp": timestamp.isoformat(),
            "metadata": {"message_id": message_id, "timestamp": timestamp.isoformat()},
            "payload": payload,
            "ctxt": context,
        });
        Self { message_id, event_type, publisher_id, priority, timestamp, body }
    }

    /// What the emitter says about it.
    pub fn payload(&self) -> &Value {
        &self.body["payload"]
    }

    /// Who caused it: `request_id`, `project_id`, `user_id` ...; empty if the emitter does not say.
    pub fn context(&self) -> &Value {
        &self.body["ctxt"]
    }

    /// The whole, where paths start: `payload`, `ctxt`, `metadata`, `publisher_id`, `event_type`, `priority`.
    pub fn body(&self) -> &Value {
        &self.body
    }

    pub(crate) fn root(&self) -> Datum<'_> {
        Datum::Json(&self.body)
    }
}
