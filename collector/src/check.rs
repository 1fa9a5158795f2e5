//! What a sample and an event must be to go on. Pure.
//!
//! One wrong sample never costs the others: each is judged alone, and refused with a reason that is counted.

use std::time::Duration;

use orzo_model::{Event, Sample, Timestamp, TraitValue};
use serde_json::Value;

/// Names and ids, in characters: what Gnocchi's and Ceilometer's tables hold.
pub const NAME_MAX: usize = 255;
/// Units, in characters: Gnocchi's limit for a metric's unit.
pub const UNIT_MAX: usize = 31;
/// Metadata of one resource, in bytes of JSON, about. Nova's own, with all extra specs, is some 4 kB.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Nesting of metadata; flavors and images have two.
pub const METADATA_DEPTH_MAX: usize = 16;
/// Traits of an event; Ceilometer's definitions make some twenty.
pub const TRAITS_MAX: usize = 256;
/// A clock that runs ahead by more than this is wrong; what it stamps would hide real data (Gnocchi issue 307).
pub const FUTURE_MAX: Duration = Duration::from_secs(10 * 60);
/// Older than a year and a month is a mistake, or needs the import that is made for it.
pub const PAST_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// The limits that an operator can choose.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far ahead of our clock a timestamp may be.
    pub future_max: Duration,
    /// How far behind.
    pub past_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { future_max: FUTURE_MAX, past_max: PAST_MAX }
    }
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// NaN or infinite.
    NotFinite,
    /// A meter's name is empty, too long, or holds a slash or control characters.
    Meter,
    /// A resource's id is empty, too long, or holds control characters.
    Resource,
    /// Too long, or control characters.
    Unit,
    /// Too long, or control characters.
    Source,
    /// Project or user id too long, or control characters.
    Owner,
    /// Too far ahead of our clock.
    Future,
    /// Too far behind our clock.
    Past,
    /// Too large or too deep.
    Metadata,
    /// An event's message id is empty or too long.
    MessageId,
    /// An event's type is empty or too long.
    EventType,
    /// Too many traits, a trait's name or text too long, or a number that is not finite.
    Traits,
}

impl Refusal {
    /// As counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFinite => "value not finite",
            Self::Meter => "meter name",
            Self::Resource => "resource id",
            Self::Unit => "unit",
            Self::Source => "source",
            Self::Owner => "owner",
            Self::Future => "timestamp in the future",
            Self::Past => "timestamp too old",
            Self::Metadata => "metadata too large",
            Self::MessageId => "message id",
            Self::EventType => "event type",
            Self::Traits => "traits",
        }
    }
}

/// Judges a sample but for its metadata ([`check_metadata`], which samples share).
pub fn check_sample(sample: &Sample, now: Timestamp, limits: &Limits) -> Result<(), Refusal> {
    if !sample.value.is_finite() {
        return Err(Refusal::NotFinite);
    }
    // Gnocchi's paths are made of metric names, so it allows no slash.
    if !is_name(&sample.meter) || sample.meter.contains('/') {
        return Err(Refusal::Meter);
    }
    if !is_name(&sample.resource_id) {
        return Err(Refusal::Resource);
    }
    if !is_text(&sample.unit, UNIT_MAX) {
        return Err(Refusal::Unit);
    }
    if !is_text(&sample.source, NAME_MAX) {
        return Err(Refusal::Source);
    }
    if [&sample.project_id, &sample.user_id].into_iter().flatten().any(|owner| !is_text(owner, NAME_MAX)) {
        return Err(Refusal::Owner);
    }
    check_time(sample.timestamp, now, limits)
}

/// Judges a resource's metadata.
pub fn check_metadata(metadata: &std::collections::BTreeMap<String, Value>) -> Result<(), Refusal> {
    let mut bytes_left = METADATA_BYTES_MAX;
    for (key, value) in metadata {
        spend(&mut bytes_left, key.len() + 4)?;
        measure(value, METADATA_DEPTH_MAX, &mut bytes_left)?;
    }
    Ok(())
}

/// Judges an event.
pub fn check_event(event: &Event, now: Timestamp, limits: &Limits) -> Result<(), Refusal> {
    if !is_name(&event.message_id) {
        return Err(Refusal::MessageId);
    }
    if !is_name(&event.event_type) {
        return Err(Refusal::EventType);
    }
    let trait_fits = |value: &TraitValue| match value {
        TraitValue::Text(text) => text.len() <= METADATA_BYTES_MAX,
        TraitValue::Float(number) => number.is_finite(),
        TraitValue::Integer(_) | TraitValue::Datetime(_) => true,
    };
    if event.traits.len() > TRAITS_MAX || !event.traits.iter().all(|t| is_name(&t.name) && trait_fits(&t.value)) {
        return Err(Refusal::Traits);
    }
    check_time(event.generated_at, now, limits)
}

fn check_time(time: Timestamp, now: Timestamp, limits: &Limits) -> Result<(), Refusal> {
    if time > now.plus(limits.future_max) {
        return Err(Refusal::Future);
    }
    if time < now.minus(limits.past_max) {
        return Err(Refusal::Past);
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && is_text(text, NAME_MAX)
}

fn is_text(text: &str, chars_max: usize) -> bool {
    // Bytes first: counting characters of a megabyte is work for nothing.
    text.len() <= chars_max * 4 && text.chars().count() <= chars_max && !text.chars().any(char::is_control)
}

fn measure(value: &Value, depth_left: usize, bytes_left: &mut usize) -> Result<(), Refusal> {
    let Some(depth_left) = depth_left.checked_sub(1) else { return Err(Refusal::Metadata) };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => spend(bytes_left, 8),
        Value::String(text) => spend(bytes_left, text.len() + 2),
        Value::Array(values) => values.iter().try_for_each(|value| {
            spend(bytes_left, 1)?;
            measure(value, depth_left, bytes_left)
        }),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            spend(bytes_left, key.len() + 4)?;
            measure(value, depth_left, bytes_left)
        }),
    }
}

fn spend(bytes_left: &mut usize, bytes: usize) -> Result<(), Refusal> {
    *bytes_left = bytes_left.checked_sub(bytes).ok_or(Refusal::Metadata)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use orzo_model::{SampleKind, Trait};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const NOW: i64 = 1_795_000_000;

    fn sample() -> Sample {
        Sample {
            id: Uuid::nil(),
            meter: "disk.device.read.bytes".to_owned(),
            kind: SampleKind::Cumulative,
            unit: "B".to_owned(),
            value: 1.0,
            timestamp: Timestamp::from_secs(NOW),
            resource_id: "ad24-vda".to_owned(),
            project_id: Some("p".to_owned()),
            user_id: None,
            source: "openstack".to_owned(),
            metadata: Default::default(),
        }
    }

    fn judged(change: impl FnOnce(&mut Sample)) -> Result<(), Refusal> {
        let mut sample = sample();
        change(&mut sample);
        check_sample(&sample, Timestamp::from_secs(NOW), &Limits::default())
    }

    #[test]
    fn each_rule_refuses_what_it_is_for_and_nothing_more() {
        assert_eq!(judged(|_| {}), Ok(()));
        assert_eq!(judged(|s| s.value = f64::NAN), Err(Refusal::NotFinite));
        assert_eq!(judged(|s| s.value = f64::NEG_INFINITY), Err(Refusal::NotFinite));
        assert_eq!(judged(|s| s.value = f64::MAX), Ok(()));
        assert_eq!(judged(|s| s.meter = String::new()), Err(Refusal::Meter));
        assert_eq!(judged(|s| s.meter = "a/b".to_owned()), Err(Refusal::Meter));
        assert_eq!(judged(|s| s.meter = "a\nb".to_owned()), Err(Refusal::Meter));
        assert_eq!(judged(|s| s.meter = "x".repeat(255)), Ok(()));
        assert_eq!(judged(|s| s.meter = "x".repeat(256)), Err(Refusal::Meter));
        assert_eq!(judged(|s| s.meter = "ü".repeat(255)), Ok(()));
        assert_eq!(judged(|s| s.resource_id = " ".to_owned()), Err(Refusal::Resource));
        assert_eq!(judged(|s| s.resource_id = "host:/dev/sda1".to_owned()), Ok(()));
        assert_eq!(judged(|s| s.unit = "x".repeat(32)), Err(Refusal::Unit));
        assert_eq!(judged(|s| s.unit = String::new()), Ok(()));
        assert_eq!(judged(|s| s.source = "x".repeat(256)), Err(Refusal::Source));
        assert_eq!(judged(|s| s.user_id = Some("x".repeat(256))), Err(Refusal::Owner));
        assert_eq!(judged(|s| s.timestamp = Timestamp::from_secs(NOW + 600)), Ok(()));
        assert_eq!(judged(|s| s.timestamp = Timestamp::from_secs(NOW + 601)), Err(Refusal::Future));
        assert_eq!(judged(|s| s.timestamp = Timestamp::EPOCH), Err(Refusal::Past));
    }

    #[test]
    fn metadata_is_bounded_in_size_and_depth() {
        let of = |value: Value| BTreeMap::from([("key".to_owned(), value)]);
        assert_eq!(check_metadata(&of(json!({"flavor": {"vcpus": 1, "extra_specs": {"a": [1, 2]}}}))), Ok(()));
        assert_eq!(check_metadata(&of(json!("x".repeat(60_000)))), Ok(()));
        assert_eq!(check_metadata(&of(json!("x".repeat(70_000)))), Err(Refusal::Metadata));
        let deep = (0..20).fold(json!(1), |value, _| json!([value]));
        assert_eq!(check_metadata(&of(deep)), Err(Refusal::Metadata));
    }

    #[test]
    fn events_are_judged_too() {
        let event = Event {
            message_id: "m".to_owned(),
            event_type: "compute.instance.create.end".to_owned(),
            generated_at: Timestamp::from_secs(NOW),
            traits: vec![Trait { name: "state".to_owned(), value: TraitValue::Text("active".to_owned()) }],
            raw: None,
        };
        let judged = |event: &Event| check_event(event, Timestamp::from_secs(NOW), &Limits::default());
        assert_eq!(judged(&event), Ok(()));
        assert_eq!(judged(&Event { message_id: String::new(), ..event.clone() }), Err(Refusal::MessageId));
        assert_eq!(judged(&Event { event_type: String::new(), ..event.clone() }), Err(Refusal::EventType));
        assert_eq!(
            judged(&Event { traits: vec![event.traits[0].clone(); 300], ..event.clone() }),
            Err(Refusal::Traits)
        );
        assert_eq!(judged(&Event { generated_at: Timestamp::MAX, ..event }), Err(Refusal::Future));
    }
}
