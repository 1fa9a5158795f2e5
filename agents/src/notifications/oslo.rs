//! oslo.messaging's notification format → [`Notification`]. Pure.
//!
//! Two wrappings are in use: the envelope 2.0 (`{"oslo.version": "2.0", "oslo.message": "<JSON text>"}`, driver
//! `messagingv2`) and the bare dictionary (driver `messaging`).

use orzo_definitions::{Notification, Priority};
use orzo_model::Timestamp;
use serde_json::{Map, Value};

/// A message at most. Nova's have about 5 kB, a polling agent's with 50 samples about 60 kB.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Characters of ids, event types and publishers; they become index keys.
const WORD_BYTES_MAX: usize = 1024;
/// What an operator's context keys begin with.
const CONTEXT_PREFIX: &str = "_context_";

/// A message that is not a notification. Sending it again would not help.
#[derive(Debug, thiserror::Error)]
pub enum OsloError {
    /// Larger than we read.
    #[error("the message has {bytes} bytes, more than {MESSAGE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or nested too deeply.
    #[error("the message is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// An envelope of a version that we do not know.
    #[error("the envelope has version `{version}`, known is 2")]
    UnknownVersion {
        /// What it says.
        version: String,
    },
    /// A field is missing, or is not what it should be.
    #[error("`{field}` is {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// `missing`, `not a text` ...
        problem: &'static str,
    },
}

/// Reads a message body.
pub fn decode(body: &[u8]) -> Result<Notification, OsloError> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(OsloError::TooLarge { bytes: body.len() });
    }
    let mut fields = unwrap(object(body)?)?;
    let message_id = match word(&mut fields, "message_id") {
        Err(_) if fields.contains_key("_unique_id") => word(&mut fields, "_unique_id")?,
        found => found?,
    };
    let event_type = word(&mut fields, "event_type")?;
    let publisher_id =
        if fields.contains_key("publisher_id") { word(&mut fields, "publisher_id")? } else { String::new() };
    let priority = match fields.get("priority").and_then(Value::as_str) {
        Some(text) => Priority::from_word(text),
        None => return Err(OsloError::Field { field: "priority", problem: "missing" }),
    };
    let timestamp = timestamp(&fields)?;
    let payload = fields.remove("payload").ok_or(OsloError::Field { field: "payload", problem: "missing" })?;
    let context: Map<String, Value> = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(CONTEXT_PREFIX)?.to_owned(), value)))
        .collect();
    Ok(Notification::new(message_id, event_type, publisher_id, priority, timestamp, payload, context))
}

fn object(text: &[u8]) -> Result<Map<String, Value>, OsloError> {
    match serde_json::from_slice(text).map_err(OsloError::NotJson)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(OsloError::Field { field: "message", problem: "not an object" }),
    }
}

fn unwrap(mut outer: Map<String, Value>) -> Result<Map<String, Value>, OsloError> {
    let Some(version) = outer.get("oslo.version") else { return Ok(outer) };
    let version = version.as_str().unwrap_or_default();
    if version.split('.').next() != Some("2") {
        return Err(OsloError::UnknownVersion { version: version.chars().take(20).collect() });
    }
    match outer.remove("oslo.message") {
        Some(Value::String(inner)) => object(inner.as_bytes()),
        Some(Value::Object(inner)) => Ok(inner),
        Some(_) => Err(OsloError::Field { field: "oslo.message", problem: "not a text" }),
        None => Err(OsloError::Field { field: "oslo.message", problem: "missing" }),
    }
}

fn word(fields: &mut Map<String, Value>, field: &'static str) -> Result<String, OsloError> {
    match fields.remove(field) {
        Some(Value::String(text)) if text.is_empty() => Err(OsloError::Field { field, problem: "empty" }),
        Some(Value::String(text)) if text.len() > WORD_BYTES_MAX => {
            Err(OsloError::Field { field, problem: "too long" })
        }
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(OsloError::Field { field, problem: "not a text" }),
        None => Err(OsloError::Field { field, problem: "missing" }),
    }
}

/// oslo writes `2026-11-21 20:04:19.088968`, without a zone, meaning UTC.
fn timestamp(fields: &Map<String, Value>) -> Result<Timestamp, OsloError> {
    let bad = |problem| OsloError::Field { field: "timestamp", problem };
    let text = fields.get("timestamp").or_else(|| fields.get("_context_timestamp")).ok_or(bad("missing"))?;
    text.as_str().and_then(|text| text.parse().ok()).ok_or(bad("not a time"))
}
