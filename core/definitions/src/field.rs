//! A field of a definition: where its value comes from, and the plugin that may work on it.
//!
//! `{fields: path or paths, plugin: name or {name, parameters}}`, a path alone, or a number.

use serde_json::Value;

use crate::{
    DefinitionError,
    path::{Datum, Found, Path},
    yaml::{Fields, Node, Place, Yaml},
};

/// Paths of one field at most.
const PATHS_MAX: usize = 100;
/// Entries of a `map` plugin and flags of a `bitfield` at most.
const PLUGIN_ENTRIES_MAX: usize = 10_000;

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    source: Source,
    plugin: Option<Plugin>,
}

#[derive(Clone, Debug)]
enum Source {
    Number(Value),
    Path(Path),
}

/// Ceilometer's plugins for traits and volumes.
#[derive(Clone, Debug)]
enum Plugin {
    /// A part of each text.
    Split { separator: String, segment: usize, splits_max: Option<usize> },
    /// One number whose bits say which paths matched (with which value).
    Bitfield { initial: u64, flags: Vec<Flag> },
    /// Seconds between two times.
    TimeDelta,
    /// Each value looked up in a table.
    Map { values: Vec<(String, Value)>, default: Option<Value>, case_sensitive: bool },
}

#[derive(Clone, Debug)]
struct Flag {
    path: String,
    bit: u32,
    value: Option<Value>,
}

impl Field {
    /// Reads a field; `extra` are further keys that the surrounding definition allows beside `fields` and `plugin`.
    pub(crate) fn read(node: &Node, place: &Place<'_>, extra: &[&str]) -> Result<Self, DefinitionError> {
        match &node.value {
            Yaml::Map(_) => {
                let known: Vec<&str> = ["fields", "plugin"].iter().chain(extra).copied().collect();
                let fields = node.fields(place, &known)?;
                let source = source(fields.need(place, "fields")?, &place.child("fields"))?;
                let plugin = fields.get("plugin").map(|node| plugin(node, &place.child("plugin"))).transpose()?;
                Ok(Self { source, plugin })
            }
            _ => Ok(Self { source: source(node, place)?, plugin: None }),
        }
    }

    /// From a path that is part of this program.
    pub(crate) fn constant(path: &str) -> Self {
        Self { source: Source::Path(Path::parse(path).expect("the path is constant and tested")), plugin: None }
    }

    /// The first value that is not null.
    pub(crate) fn first(&self, root: &Datum<'_>) -> Option<Value> {
        match (&self.source, &self.plugin) {
            (Source::Number(number), _) => Some(number.clone()),
            (Source::Path(path), None) => path.first(root),
            (Source::Path(_), Some(_)) => self.all(root).into_iter().next(),
        }
    }

    /// All values that are not null.
    pub(crate) fn all(&self, root: &Datum<'_>) -> Vec<Value> {
        match (&self.source, &self.plugin) {
            (Source::Number(number), _) => vec![number.clone()],
            (Source::Path(path), None) => path.find(root).into_iter().map(|found| found.value.into_owned()).collect(),
            (Source::Path(path), Some(plugin)) => plugin.apply(&path.find(root)),
        }
    }

    /// Whether it gives one value for all that its paths find together, so that it cannot be spread over samples.
    pub(crate) fn is_single(&self) -> bool {
        matches!(self.plugin, Some(Plugin::TimeDelta | Plugin::Bitfield { .. }))
    }
}

fn source(node: &Node, place: &Place<'_>) -> Result<Source, DefinitionError> {
    if let Yaml::Integer(_) | Yaml::Float(_) = node.value {
        return Ok(Source::Number(node.to_json()));
    }
    let texts = node.texts(place)?;
    if texts.is_empty() {
        return Err(place.error(node, "expected a path"));
    }
    if texts.len() > PATHS_MAX {
        return Err(place.error(node, format!("more than {PATHS_MAX} paths")));
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Path::parse_any(&texts).map(Source::Path).map_err(|error| place.error(node, error.to_string()))
}

fn plugin(node: &Node, place: &Place<'_>) -> Result<Plugin, DefinitionError> {
    let (name, parameters) = match &node.value {
        Yaml::Text(name) => (name.clone(), None),
        _ => {
            let fields = node.fields(place, &["name", "parameters"])?;
            (fields.need(place, "name")?.text(&place.child("name"))?, fields.get("parameters"))
        }
    };
    let empty = Node { line: node.line, column: node.column, value: Yaml::Map(Vec::new()) };
    let parameters = parameters.unwrap_or(&empty);
    let inside = place.child("parameters");
    match name.as_str() {
        "split" => split(parameters, &inside),
        "bitfield" => bitfield(parameters, &inside),
        "timedelta" => parameters.fields(&inside, &[]).map(|_| Plugin::TimeDelta),
        "map" => map(parameters, &inside),
        _ => Err(place.error(node, format!("unknown plugin `{name}`; known are split, bitfield, timedelta, map"))),
    }
}

fn split(parameters: &Node, place: &Place<'_>) -> Result<Plugin, DefinitionError> {
    let fields = parameters.fields(place, &["separator", "segment", "max_split"])?;
    let number = |fields: &Fields<'_>, name: &str| -> Result<Option<usize>, DefinitionError> {
        let count = fields.get(name).map(|node| node.count(&place.child(name))).transpose()?;
        Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    };
    let separator = fields.get("separator").map(|node| node.text(&place.child("separator"))).transpose()?;
    let separator = separator.unwrap_or_else(|| ".".to_owned());
    if separator.is_empty() {
        return Err(place.child("separator").error(parameters, "must not be empty"));
    }
    Ok(Plugin::Split {
        separator,
        segment: number(&fields, "segment")?.unwrap_or(0),
        splits_max: number(&fields, "max_split")?,
    })
}

fn bitfield(parameters: &Node, place: &Place<'_>) -> Result<Plugin, DefinitionError> {
    let fields = parameters.fields(place, &["initial_bitfield", "flags"])?;
    let initial =
        fields.get("initial_bitfield").map(|node| node.count(&place.child("initial_bitfield"))).transpose()?;
    let mut flags = Vec::new();
    if let Some(list) = fields.get("flags") {
        let place = place.child("flags");
        for (index, node) in list.list(&place)?.iter().enumerate().take(PLUGIN_ENTRIES_MAX) {
            let place = place.element(index);
            let flag = node.fields(&place, &["path", "bit", "value"])?;
            let bit = flag.need(&place, "bit")?;
            let number = bit.count(&place.child("bit"))?;
            // Traits are signed 64-bit integers.
            let bit = u32::try_from(number).ok().filter(|bit| *bit < 63);
            let bit = bit.ok_or_else(|| place.child("bit").error(node, "a bit is 0 to 62"))?;
            let path = flag.need(&place, "path")?.text(&place.child("path"))?;
            flags.push(Flag { path, bit, value: flag.get("value").map(Node::to_json) });
        }
    }
    Ok(Plugin::Bitfield { initial: initial.unwrap_or(0), flags })
}

fn map(parameters: &Node, place: &Place<'_>) -> Result<Plugin, DefinitionError> {
    let fields = parameters.fields(place, &["values", "default", "case_sensitive"])?;
    let case_sensitive = fields.get("case_sensitive").map(|node| node.boolean(&place.child("case_sensitive")));
    let case_sensitive = case_sensitive.transpose()?.unwrap_or(true);
    let entries = fields.need(place, "values")?.entries(&place.child("values"))?;
    if entries.is_empty() || entries.len() > PLUGIN_ENTRIES_MAX {
        return Err(place.child("values").error(parameters, format!("needs 1 to {PLUGIN_ENTRIES_MAX} entries")));
    }
    let fold = |key: String| if case_sensitive { key } else { key.to_lowercase() };
    let values = entries.into_iter().map(|(key, node)| (fold(key), node.to_json())).collect();
    Ok(Plugin::Map { values, default: fields.get("default").map(Node::to_json), case_sensitive })
}

impl Plugin {
    fn apply(&self, found: &[Found<'_>]) -> Vec<Value> {
        match self {
            Self::Split { separator, segment, splits_max } => found
                .iter()
                .filter_map(|found| {
                    let text = text_of(&found.value);
                    let part = match splits_max {
                        Some(splits) => text.splitn(splits.saturating_add(1), separator.as_str()).nth(*segment),
                        None => text.split(separator.as_str()).nth(*segment),
                    };
                    part.map(Value::from)
                })
                .collect(),
            Self::Bitfield { initial, flags } => {
                let is_set = |flag: &&Flag| {
                    let found = found.iter().find(|found| found.path == flag.path);
                    found.is_some_and(|found| flag.value.as_ref().is_none_or(|value| *value == *found.value))
                };
                let bits = flags.iter().filter(is_set).fold(*initial, |bits, flag| bits | 1 << flag.bit);
                vec![bits.into()]
            }
            Self::TimeDelta => time_delta(found).into_iter().collect(),
            Self::Map { values, default, case_sensitive } => found
                .iter()
                .filter_map(|found| {
                    let key = text_of(&found.value);
                    let key = if *case_sensitive { key } else { key.to_lowercase() };
                    values.iter().find(|(name, _)| *name == key).map(|(_, value)| value).or(default.as_ref()).cloned()
                })
                .filter(|value| !value.is_null())
                .collect(),
        }
    }
}

/// Seconds between exactly two times, whichever is first.
fn time_delta(found: &[Found<'_>]) -> Option<Value> {
    let [one, other] = found else { return None };
    let time = |found: &Found<'_>| found.value.as_str()?.parse::<orzo_model::Timestamp>().ok();
    let (one, other) = (time(one)?, time(other)?);
    let micros = one.micros().abs_diff(other.micros());
    serde_json::Number::from_f64(micros as f64 / 1e6).map(Value::Number)
}

/// A value as Python's `str()` prints it, as far as scalars go; lists and maps as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}
