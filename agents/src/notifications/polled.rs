//! Meter messages → samples: what Ceilometer's polling agents send as `telemetry.polling`, and its notifier publisher
//! as `metering`. Pure.
//!
//! A message's own `message_id` is the sample's id, so that a redelivery repeats nothing. Signatures are not checked:
//! Ceilometer 27 does not check them either, and who can write to the broker can do worse.

use std::{collections::BTreeMap, sync::Arc};

use orzo_definitions::Notification;
use orzo_model::{Sample, SampleKind, sample_id};
use serde_json::Value;
use uuid::Uuid;

/// Event types whose payload is a list of meter messages.
const EVENT_TYPES: [&str; 2] = ["telemetry.polling", "metering"];

/// The meter messages in a notification, if it is one that carries them.
pub(super) fn messages(notification: &Notification) -> Option<&[Value]> {
    if !EVENT_TYPES.contains(&notification.event_type.as_str()) {
        return None;
    }
    let payload = notification.payload();
    let list = payload.get("samples").unwrap_or(payload);
    Some(list.as_array().map(Vec::as_slice).unwrap_or_default())
}

/// One meter message as a sample; the error is a few words for a counter.
pub(super) fn sample(message: &Value) -> Result<Sample, &'static str> {
    let text = |key: &str| message[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let meter = text("counter_name").ok_or("no meter name")?;
    let kind = match message["counter_type"].as_str() {
        Some("gauge") => SampleKind::Gauge,
        Some("delta") => SampleKind::Delta,
        Some("cumulative") => SampleKind::Cumulative,
        _ => return Err("unknown meter type"),
    };
    let value = match &message["counter_volume"] {
        Value::Null => return Err("no volume"),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    };
    let value = value.filter(|value: &f64| value.is_finite()).ok_or("volume is not a number")?;
    let resource_id = text("resource_id").ok_or("no resource id")?;
    let timestamp = message["timestamp"].as_str().and_then(|text| text.parse().ok()).ok_or("bad timestamp")?;
    let metadata: BTreeMap<String, Value> = match &message["resource_metadata"] {
        Value::Object(metadata) => metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        _ => BTreeMap::new(),
    };
    let source = text("source").unwrap_or_else(|| "openstack".to_owned());
    let id = message["message_id"].as_str().and_then(|text| Uuid::try_parse(text).ok());
    Ok(Sample {
        id: id.unwrap_or_else(|| sample_id(&source, &resource_id, &meter, timestamp)),
        meter,
        kind,
        unit: text("counter_unit").unwrap_or_default(),
        value,
        timestamp,
        resource_id,
        project_id: text("project_id"),
        user_id: text("user_id"),
        source,
        metadata: Arc::new(metadata),
    })
}
