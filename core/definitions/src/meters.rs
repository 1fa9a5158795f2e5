//! `meters.yaml`: notification → samples.
//!
//! Every definition whose event type matches makes its samples. Definitions are merged by name over files: the first
//! file wins, and inside one file the last definition. A sample that lacks what it needs is skipped with a reason that
//! the caller counts. Rules: Ceilometer's `meter/notifications.py`, described in its administration guide.

mod read;
mod spread;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::{Metadata, Sample, SampleKind, Timestamp, sample_id};
use serde_json::Value;

use crate::{
    DefinitionError, Notification,
    field::{Field, text_of},
    path::Datum,
    pattern::Pattern,
};

/// Samples that one notification may make; Swift's and Magnum's lists have tens.
const SAMPLES_MAX: usize = 10_000;

/// Name and text of the shipped file.
pub(crate) const SHIPPED: (&str, &str) = ("meters.yaml", include_str!("../defaults/meters.yaml"));

/// The definitions of all meters that are made from notifications.
#[derive(Clone, Debug)]
pub struct MeterDefinitions {
    definitions: Vec<Arc<Definition>>,
    overridden: Vec<String>,
}

/// What came of a notification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metered {
    /// The samples.
    pub samples: Vec<Sample>,
    /// Samples that could not be made: meter and reason.
    pub skipped: Vec<(String, SkipReason)>,
}

/// Why a sample could not be made from a notification that its definition matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The volume is not in the notification (an image that has no size yet).
    NoVolume,
    /// The volume is there, but not a number.
    NotANumber,
    /// The resource is not in the notification.
    NoResource,
    /// The name, unit or type is a path that leads nowhere.
    NoName,
    /// The type is none of gauge, delta, cumulative.
    BadKind,
    /// The definition's own timestamp is there, but not a time.
    BadTimestamp,
    /// Lists that belong together have different lengths, or are too long.
    UnevenLists,
}

/// Which of a service's free metadata are kept as `user_metadata`, by Ceilometer's settings of the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMetadata {
    /// Prefixes; the rest of the key is kept (`reserved_metadata_namespace`).
    pub namespaces: Vec<String>,
    /// Whole keys (`reserved_metadata_keys`).
    pub keys: Vec<String>,
    /// Characters of a value (`reserved_metadata_length`).
    pub characters_max: usize,
}

#[derive(Debug)]
struct Definition {
    name: Text,
    kind: Text,
    unit: Text,
    event_types: Vec<Pattern>,
    volume: Field,
    resource_id: Field,
    user_id: Field,
    project_id: Field,
    user_id_fallback: Field,
    project_id_fallback: Field,
    timestamp: Option<Field>,
    metadata: Vec<(String, Field)>,
    user_metadata: Option<Field>,
    lookup: Vec<String>,
}

/// A text that may also be a path; what Ceilometer does with names, types and units.
#[derive(Clone, Debug)]
struct Text {
    literal: String,
    field: Option<Field>,
}

impl Default for UserMetadata {
    fn default() -> Self {
        Self { namespaces: vec!["metering.".to_owned()], keys: Vec::new(), characters_max: 256 }
    }
}

impl SkipReason {
    /// A few words, for counters.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoVolume => "no volume",
            Self::NotANumber => "volume is not a number",
            Self::NoResource => "no resource id",
            Self::NoName => "no meter name",
            Self::BadKind => "unknown meter type",
            Self::BadTimestamp => "bad timestamp",
            Self::UnevenLists => "uneven lists",
        }
    }
}

impl MeterDefinitions {
    /// The text of the definitions that this program ships.
    pub const SHIPPED: &str = include_str!("../defaults/meters.yaml");

    /// What this program ships.
    pub fn shipped() -> Self {
        Self::parse(&[("meters.yaml", Self::SHIPPED)]).expect("the shipped definitions are tested")
    }

    /// (name, kind, unit) of every definition, for people; a path where the notification itself tells.
    pub fn listed(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.definitions
            .iter()
            .map(|own| (own.name.literal.as_str(), own.kind.literal.as_str(), own.unit.literal.as_str()))
    }

    /// Reads files, given as (name, text) in the order of their weight: a meter that an earlier file defines is not
    /// taken from a later one.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, DefinitionError> {
        read::read(files)
    }

    /// Definitions that were passed over because the name was taken, as sentences for the log.
    pub fn overridden(&self) -> &[String] {
        &self.overridden
    }

    /// Names (or, for meters named by the notification, the paths) of all meters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().map(|definition| definition.name.literal.as_str())
    }

    /// Makes the samples of a notification.
    pub fn samples(&self, notification: &Notification, user_metadata: &UserMetadata) -> Metered {
        let mut metered = Metered::default();
        // The whole payload is most meters' metadata; they share one copy of it.
        let mut whole_payload = None;
        for definition in &self.definitions {
            if definition.event_types.iter().any(|pattern| pattern.is_match(&notification.event_type)) {
                definition.measure(notification, user_metadata, &mut whole_payload, &mut metered);
            }
        }
        metered
    }
}

impl Definition {
    fn measure(
        &self,
        notification: &Notification,
        user_metadata: &UserMetadata,
        whole_payload: &mut Option<Metadata>,
        metered: &mut Metered,
    ) {
        let root = notification.root();
        let metadata = self.metadata(notification, user_metadata, whole_payload);
        if self.lookup.is_empty() {
            match self.reading(&root).and_then(|reading| reading.sample(notification, &metadata)) {
                Ok(sample) => metered.samples.push(sample),
                Err(reason) => metered.skipped.push((self.name.literal.clone(), reason)),
            }
            return;
        }
        match spread::readings(self, &root) {
            Ok(readings) => {
                for reading in readings {
                    let name = reading.name.as_ref().map_or_else(|| self.name.literal.clone(), text_of);
                    match reading.sample(notification, &metadata) {
                        Ok(sample) => metered.samples.push(sample),
                        Err(reason) => metered.skipped.push((name, reason)),
                    }
                }
            }
            Err(reason) => metered.skipped.push((self.name.literal.clone(), reason)),
        }
    }

    fn reading(&self, root: &Datum<'_>) -> Result<Reading, SkipReason> {
        Ok(Reading {
            name: self.name.first(root),
            kind: self.kind.first(root),
            unit: self.unit.first(root),
            volume: self.volume.first(root),
            resource_id: self.resource_id.first(root),
            user_id: self.user_id.first(root).or_else(|| self.user_id_fallback.first(root)),
            project_id: self.project_id.first(root).or_else(|| self.project_id_fallback.first(root)),
            timestamp: self.timestamp.as_ref().and_then(|field| field.first(root)),
        })
    }

    /// The chosen metadata, or the whole payload if none is chosen or found.
    fn metadata(
        &self,
        notification: &Notification,
        user_metadata: &UserMetadata,
        whole_payload: &mut Option<Metadata>,
    ) -> Metadata {
        let root = notification.root();
        let mut metadata = BTreeMap::new();
        for (name, field) in &self.metadata {
            if let Some(value) = field.first(&root).filter(crate::path::is_true) {
                metadata.insert(name.clone(), value);
            }
        }
        if let Some(Value::Object(source)) = self.user_metadata.as_ref().and_then(|field| field.first(&root))
            && !source.is_empty()
        {
            let kept = user_metadata.keep(&source, &metadata);
            metadata.insert("user_metadata".to_owned(), Value::Object(kept));
        }
        if !metadata.is_empty() {
            return Arc::new(metadata);
        }
        whole_payload
            .get_or_insert_with(|| {
                let mut metadata: BTreeMap<String, Value> = match notification.payload() {
                    Value::Object(payload) => payload.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
                    _ => BTreeMap::new(),
                };
                metadata.insert("event_type".to_owned(), notification.event_type.clone().into());
                metadata.insert("host".to_owned(), notification.publisher_id.clone().into());
                Arc::new(metadata)
            })
            .clone()
    }
}

impl UserMetadata {
    /// The kept part of `source`: prefixes are cut off, dots become underscores, long texts are cut, and what the
    /// sample's metadata has already is left out.
    pub fn keep(
        &self,
        source: &serde_json::Map<String, Value>,
        taken: &BTreeMap<String, Value>,
    ) -> serde_json::Map<String, Value> {
        let mut kept = serde_json::Map::new();
        for (key, value) in source {
            let rest = self.namespaces.iter().find_map(|prefix| key.strip_prefix(prefix.as_str()));
            let Some(rest) = rest.or_else(|| self.keys.contains(key).then_some(key.as_str())) else { continue };
            let name = rest.replace('.', "_");
            if taken.contains_key(&name) {
                continue;
            }
            let value = match value {
                Value::String(text) => Value::String(text.chars().take(self.characters_max).collect()),
                other => other.clone(),
            };
            kept.insert(name, value);
        }
        kept
    }
}

impl Text {
    fn first(&self, root: &Datum<'_>) -> Option<Value> {
        self.field.as_ref().and_then(|field| field.first(root)).or_else(|| self.as_literal())
    }

    /// The text itself, unless it can only be meant as a path.
    fn as_literal(&self) -> Option<Value> {
        (!self.literal.contains('$')).then(|| self.literal.clone().into())
    }
}

/// What a definition found for one sample, before it is checked.
#[derive(Clone, Debug, Default)]
struct Reading {
    name: Option<Value>,
    kind: Option<Value>,
    unit: Option<Value>,
    volume: Option<Value>,
    resource_id: Option<Value>,
    user_id: Option<Value>,
    project_id: Option<Value>,
    timestamp: Option<Value>,
}

impl Reading {
    fn sample(self, notification: &Notification, metadata: &Metadata) -> Result<Sample, SkipReason> {
        let text = |value: Option<Value>| value.as_ref().map(text_of).filter(|text| !text.is_empty());
        let meter = text(self.name).ok_or(SkipReason::NoName)?;
        let kind = match text(self.kind).as_deref() {
            Some("gauge") => SampleKind::Gauge,
            Some("delta") => SampleKind::Delta,
            Some("cumulative") => SampleKind::Cumulative,
            _ => return Err(SkipReason::BadKind),
        };
        let unit = self.unit.as_ref().map(text_of).ok_or(SkipReason::NoName)?;
        let resource_id = text(self.resource_id).ok_or(SkipReason::NoResource)?;
        let value = volume(self.volume.as_ref())?;
        let timestamp = match self.timestamp.filter(crate::path::is_true) {
            None => notification.timestamp,
            Some(Value::String(text)) => text.parse().map_err(|_| SkipReason::BadTimestamp)?,
            Some(Value::Number(seconds)) => {
                seconds.as_f64().and_then(Timestamp::from_secs_f64).ok_or(SkipReason::BadTimestamp)?
            }
            Some(_) => return Err(SkipReason::BadTimestamp),
        };
        Ok(Sample {
            id: sample_id(&notification.message_id, &resource_id, &meter, timestamp),
            meter,
            kind,
            unit,
            value,
            timestamp,
            resource_id,
            project_id: text(self.project_id),
            user_id: text(self.user_id),
            source: "openstack".to_owned(),
            metadata: metadata.clone(),
        })
    }
}

/// Python's `float()` of what a volume can be.
fn volume(value: Option<&Value>) -> Result<f64, SkipReason> {
    let number = match value {
        None | Some(Value::Null) => return Err(SkipReason::NoVolume),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Bool(value)) => Some(f64::from(u8::from(*value))),
        Some(_) => None,
    };
    number.filter(|number| number.is_finite()).ok_or(SkipReason::NotANumber)
}
