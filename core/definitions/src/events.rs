//! `event_definitions.yaml`: notification → event with typed traits.
//!
//! Event types are globs, `!` excludes; of all definitions that match, the **last** one is used. Every event has the
//! default traits as well; a notification that no definition matches still makes an event with those, unless the
//! settings say to drop it. A trait whose value does not convert is left out. Rules: Ceilometer's
//! `event/converter.py`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use orzo_model::{Event, Timestamp, Trait, TraitValue};
use serde_json::Value;

use crate::{
    DefinitionError, Notification,
    field::{Field, text_of},
    pattern::Glob,
    yaml::{self, Node, Place},
};

/// Definitions of a file at most; Ceilometer ships 47.
const DEFINITIONS_MAX: usize = 10_000;
/// Traits of one definition at most.
const TRAITS_MAX: usize = 1000;
/// Characters of a text trait; the rest is cut, as Ceilometer does.
const TEXT_CHARACTERS_MAX: usize = 255;
/// Traits that every event has if its notification says so.
const DEFAULT_TRAITS: [(&str, &str); 5] = [
    ("service", "publisher_id"),
    ("request_id", "ctxt.request_id"),
    ("project_id", "(payload.tenant_id)|(ctxt.project_id)"),
    ("user_id", "(payload.user_id)|(ctxt.user_id)"),
    ("tenant_id", "(payload.tenant_id)|(ctxt.project_id)"),
];

/// Which traits are picked out of which notifications.
#[derive(Clone, Debug)]
pub struct EventDefinitions {
    definitions: Vec<Definition>,
    default_traits: BTreeMap<String, TraitDefinition>,
    drop_unmatched: bool,
}

#[derive(Clone, Debug)]
struct Definition {
    included: Vec<Glob>,
    excluded: Vec<Glob>,
    traits: BTreeMap<String, TraitDefinition>,
}

#[derive(Clone, Debug)]
struct TraitDefinition {
    kind: TraitKind,
    field: Field,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TraitKind {
    Text,
    Integer,
    Float,
    Datetime,
}

impl EventDefinitions {
    /// What this program ships.
    pub fn shipped() -> Self {
        let text = include_str!("../defaults/event_definitions.yaml");
        Self::parse("event_definitions.yaml", text).expect("the shipped definitions are tested")
    }

    /// Reads a file's text; the name is for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DefinitionError> {
        let document = yaml::parse(file, text)?;
        let place = Place::top(file);
        let list = document.list(&place)?;
        if list.len() > DEFINITIONS_MAX {
            let file = file.to_owned();
            return Err(DefinitionError::TooMany { what: "event definitions", file, count_max: DEFINITIONS_MAX });
        }
        let definitions: Result<Vec<Definition>, _> =
            list.iter().enumerate().map(|(index, node)| definition(node, &place.element(index))).collect();
        Ok(Self { definitions: definitions?, default_traits: default_traits(), drop_unmatched: false })
    }

    /// Whether notifications that no definition matches make no event (Ceilometer's `drop_unmatched_notifications`).
    pub fn with_drop_unmatched(mut self, drop_unmatched: bool) -> Self {
        self.drop_unmatched = drop_unmatched;
        self
    }

    /// Makes the event of a notification. `None` only if no definition matches and such are dropped.
    pub fn event(&self, notification: &Notification, keep_raw: bool) -> Option<Event> {
        let definition = self.definitions.iter().rev().find(|d| d.is_for(&notification.event_type));
        let traits = match definition {
            Some(definition) => &definition.traits,
            None if self.drop_unmatched => return None,
            None => &self.default_traits,
        };
        Some(Event {
            message_id: notification.message_id.clone(),
            event_type: notification.event_type.clone(),
            generated_at: notification.timestamp,
            traits: traits
                .iter()
                .filter_map(|(name, definition)| {
                    Some(Trait { name: name.clone(), value: definition.value(notification)? })
                })
                .collect(),
            raw: keep_raw.then(|| notification.body().to_string()),
        })
    }
}

impl Definition {
    fn is_for(&self, event_type: &str) -> bool {
        self.included.iter().any(|glob| glob.is_match(event_type))
            && !self.excluded.iter().any(|glob| glob.is_match(event_type))
    }
}

impl TraitDefinition {
    fn value(&self, notification: &Notification) -> Option<TraitValue> {
        let value = self.field.first(&notification.root())?;
        convert(self.kind, &value)
    }
}

/// Python's conversions; what does not convert gives no trait. Nova sends `''` for times that are not set.
fn convert(kind: TraitKind, value: &Value) -> Option<TraitValue> {
    if kind != TraitKind::Text && value.as_str() == Some("") {
        return None;
    }
    match kind {
        TraitKind::Text => Some(TraitValue::Text(text_of(value).chars().take(TEXT_CHARACTERS_MAX).collect())),
        TraitKind::Integer => {
            let number = match value {
                Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
                Value::String(text) => text.trim().parse().ok(),
                Value::Bool(value) => Some(i64::from(*value)),
                _ => None,
            };
            number.map(TraitValue::Integer)
        }
        TraitKind::Float => {
            let number = match value {
                Value::Number(number) => number.as_f64(),
                Value::String(text) => text.trim().parse().ok(),
                Value::Bool(value) => Some(f64::from(u8::from(*value))),
                _ => None,
            };
            number.filter(|number: &f64| number.is_finite()).map(TraitValue::Float)
        }
        TraitKind::Datetime => value.as_str()?.parse::<Timestamp>().ok().map(TraitValue::Datetime),
    }
}

/// The whole part, if 64 bits hold it.
fn whole(number: f64) -> Option<i64> {
    // 2^63 is a float; the largest i64 is not.
    let limit = 9_223_372_036_854_775_808.0;
    (number >= -limit && number < limit).then_some(number.trunc() as i64)
}

fn default_traits() -> BTreeMap<String, TraitDefinition> {
    DEFAULT_TRAITS
        .iter()
        .map(|(name, path)| {
            ((*name).to_owned(), TraitDefinition { kind: TraitKind::Text, field: Field::constant(path) })
        })
        .collect()
}

fn definition(node: &Node, place: &Place<'_>) -> Result<Definition, DefinitionError> {
    let fields = node.fields(place, &["event_type", "traits"])?;
    let event_type = fields.need(place, "event_type")?;
    let (mut included, mut excluded) = (Vec::new(), Vec::new());
    for text in event_type.texts(&place.child("event_type"))? {
        let (list, text) = text.strip_prefix('!').map_or((&mut included, text.as_str()), |rest| (&mut excluded, rest));
        list.push(Glob::parse(text).map_err(|reason| place.child("event_type").error(event_type, reason))?);
    }
    if included.is_empty() && !excluded.is_empty() {
        included.push(Glob::parse("*").expect("the glob is constant"));
    }
    let mut traits = default_traits();
    let traits_place = place.child("traits");
    // `traits: {}` and `traits:` are both "only the defaults".
    if let Some(node) = fields.get("traits") {
        let entries = node.entries(&traits_place)?;
        if entries.len() > TRAITS_MAX {
            return Err(traits_place.error(node, format!("more than {TRAITS_MAX} traits")));
        }
        for (name, node) in entries {
            let definition = trait_definition(node, &traits_place.child(&name))?;
            traits.insert(name, definition);
        }
    }
    Ok(Definition { included, excluded, traits })
}

fn trait_definition(node: &Node, place: &Place<'_>) -> Result<TraitDefinition, DefinitionError> {
    let field = Field::read(node, place, &["type"])?;
    let kind = match &node.value {
        yaml::Yaml::Map(_) => {
            let fields = node.fields(place, &["fields", "plugin", "type"])?;
            match fields.get("type") {
                None => TraitKind::Text,
                Some(node) => match node.text(&place.child("type"))?.as_str() {
                    "text" => TraitKind::Text,
                    "int" => TraitKind::Integer,
                    "float" => TraitKind::Float,
                    "datetime" => TraitKind::Datetime,
                    other => {
                        let reason = format!("`{other}` is none of text, int, float, datetime");
                        return Err(place.child("type").error(node, reason));
                    }
                },
            }
        }
        _ => TraitKind::Text,
    };
    Ok(TraitDefinition { kind, field })
}
