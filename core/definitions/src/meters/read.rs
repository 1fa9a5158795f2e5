//! Meter files → definitions.

use std::{collections::HashMap, sync::Arc};

use super::{Definition, MeterDefinitions, Text};
use crate::{
    DefinitionError,
    field::Field,
    pattern::Pattern,
    yaml::{self, Node, Place},
};

/// Definitions of all files at most; Ceilometer ships 62.
const DEFINITIONS_MAX: usize = 10_000;
/// Keys of a definition.
const KEYS: [&str; 12] = [
    "name",
    "event_type",
    "type",
    "unit",
    "volume",
    "resource_id",
    "user_id",
    "project_id",
    "timestamp",
    "metadata",
    "user_metadata",
    "lookup",
];
/// Fields that `lookup` may name.
const LOOKUP: [&str; 8] = ["name", "type", "volume", "unit", "timestamp", "user_id", "project_id", "resource_id"];

pub(super) fn read(files: &[(&str, &str)]) -> Result<MeterDefinitions, DefinitionError> {
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut definitions = Vec::new();
    let mut overridden = Vec::new();
    for (file, text) in files {
        let document = yaml::parse(file, text)?;
        if matches!(document.value, yaml::Yaml::Null) {
            continue;
        }
        let place = Place::top(file);
        let fields = document.fields(&place, &["metric"])?;
        let place = place.child("metric");
        let list = fields.get("metric").map(|node| node.list(&place)).transpose()?.unwrap_or_default();
        // From the bottom up, so that inside one file the last definition of a name wins.
        for (index, node) in list.iter().enumerate().rev() {
            let definition = definition(node, &place.element(index))?;
            let name = definition.name.literal.clone();
            let here = format!("{file}:{}", node.line);
            if let Some(there) = taken.get(&name) {
                overridden.push(format!("{here}: meter `{name}` is passed over, {there} defines it"));
                continue;
            }
            taken.insert(name, here);
            definitions.push(Arc::new(definition));
            if definitions.len() > DEFINITIONS_MAX {
                let file = (*file).to_owned();
                return Err(DefinitionError::TooMany { what: "meters", file, count_max: DEFINITIONS_MAX });
            }
        }
    }
    Ok(MeterDefinitions { definitions, overridden })
}

fn definition(node: &Node, place: &Place<'_>) -> Result<Definition, DefinitionError> {
    let fields = node.fields(place, &KEYS)?;
    let field = |name: &str| -> Result<Option<Field>, DefinitionError> {
        fields.get(name).map(|node| Field::read(node, &place.child(name), &[])).transpose()
    };
    let need = |name: &str| fields.need(place, name).and_then(|node| Field::read(node, &place.child(name), &[]));
    let lookup = fields.get("lookup").map(|node| node.texts(&place.child("lookup"))).transpose()?.unwrap_or_default();
    if let Some(unknown) = lookup.iter().find(|name| !LOOKUP.contains(&name.as_str())) {
        let reason = format!("`{unknown}` cannot be looked up; known are {}", LOOKUP.join(", "));
        return Err(place.child("lookup").error(node, reason));
    }
    let kind = text(fields.need(place, "type")?, &place.child("type"))?;
    if !lookup.iter().any(|name| name == "type")
        && !kind.literal.contains('$')
        && !["gauge", "delta", "cumulative"].contains(&kind.literal.as_str())
    {
        let reason = format!("`{}` is none of gauge, delta, cumulative", kind.literal);
        return Err(place.child("type").error(fields.need(place, "type")?, reason));
    }
    let event_type = fields.need(place, "event_type")?;
    let event_types = event_type.texts(&place.child("event_type"))?;
    let event_types: Result<Vec<Pattern>, String> = event_types.iter().map(|text| Pattern::parse(text)).collect();
    let event_types = event_types.map_err(|reason| place.child("event_type").error(event_type, reason))?;

    let volume = need("volume")?;
    if !lookup.is_empty() && volume.is_single() {
        let reason = "this plugin gives one value for all, which cannot be looked up";
        return Err(place.child("volume").error(node, reason));
    }
    let mut metadata = Vec::new();
    if let Some(node) = fields.get("metadata") {
        let place = place.child("metadata");
        for (name, node) in node.entries(&place)? {
            let field = Field::read(node, &place.child(&name), &[])?;
            metadata.push((name, field));
        }
    }
    let user_id_fallback = Field::constant("ctxt.(user_id|user)");
    let project_id_fallback = Field::constant("ctxt.(project_id|tenant_id)");
    Ok(Definition {
        name: text(fields.need(place, "name")?, &place.child("name"))?,
        kind,
        unit: unit(&fields, place)?,
        event_types,
        volume,
        resource_id: need("resource_id")?,
        user_id: field("user_id")?.unwrap_or_else(|| user_id_fallback.clone()),
        project_id: field("project_id")?.unwrap_or_else(|| project_id_fallback.clone()),
        user_id_fallback,
        project_id_fallback,
        timestamp: field("timestamp")?,
        metadata,
        user_metadata: field("user_metadata")?,
        lookup,
    })
}

/// The unit may be empty, but must be said.
fn unit(fields: &yaml::Fields<'_>, place: &Place<'_>) -> Result<Text, DefinitionError> {
    text(fields.need(place, "unit")?, &place.child("unit"))
}

fn text(node: &Node, place: &Place<'_>) -> Result<Text, DefinitionError> {
    let literal = node.text(place)?;
    match Field::read(node, place, &[]) {
        Ok(field) => Ok(Text { literal, field: Some(field) }),
        // A `%` is no path, but a good unit.
        Err(_) if !literal.contains('$') => Ok(Text { literal, field: None }),
        Err(error) => Err(error),
    }
}
