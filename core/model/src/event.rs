//! Events: what happened, with typed traits, made from notifications by definition files.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A trait's value with its type; the numbers in comments are Ceilometer's trait types on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum TraitValue {
    /// 1: text, at most 255 characters.
    Text(String),
    /// 2: integer.
    Integer(i64),
    /// 3: floating point.
    Float(f64),
    /// 4: a time.
    Datetime(Timestamp),
}

/// One named fact about an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trait {
    /// Name from the event definition.
    pub name: String,
    /// Typed value.
    pub value: TraitValue,
}

/// Something that happened in the cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The emitter's message id: the natural key against repeats.
    pub message_id: String,
    /// `compute.instance.create.end` and the like.
    pub event_type: String,
    /// When it happened, by the emitter.
    pub generated_at: Timestamp,
    /// Facts picked out by the definition.
    pub traits: Vec<Trait>,
    /// The notification as it came, if the settings keep it; JSON text, so that a batch can travel in a compact form.
    pub raw: Option<String>,
}

impl Event {
    /// The value of a trait as text, if it is there.
    pub fn text(&self, name: &str) -> Option<String> {
        self.traits.iter().find(|t| t.name == name).map(|t| t.value.to_text())
    }
}

impl TraitValue {
    /// As Panko's API prints it: everything is text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Datetime(time) => time.naive(),
        }
    }

    /// `string`, `integer`, `float` or `datetime`, as Panko's API names the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Integer(_) => "integer",
            Self::Float(_) => "float",
            Self::Datetime(_) => "datetime",
        }
    }
}
