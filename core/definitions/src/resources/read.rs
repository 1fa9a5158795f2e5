//! `gnocchi_resources.yaml` → definitions.

use std::collections::HashMap;

use serde_json::Value;

use super::{ArchivePolicyDefinition, ArchivePolicyItem, Definition, ResourceDefinitions, Target};
use crate::{
    DefinitionError,
    field::Field,
    pattern::{self, Glob},
    timespan,
    yaml::{self, Fields, Node, Place, Yaml},
};

/// Definitions, metrics of one, attributes of one, and policies at most; Ceilometer ships 20, 26, 9 and 4.
const ENTRIES_MAX: usize = 10_000;

pub(super) fn read(file: &str, text: &str) -> Result<ResourceDefinitions, DefinitionError> {
    let document = yaml::parse(file, text)?;
    let place = Place::top(file);
    let fields = document.fields(&place, &["archive_policy_default", "archive_policies", "resources"])?;
    let archive_policy_default = text_field(&fields, &place, "archive_policy_default")?;
    let mut archive_policies = Vec::new();
    for (place, node) in elements(&fields, &place, "archive_policies")? {
        archive_policies.push(archive_policy(node, &place)?);
    }
    let mut definitions = Vec::new();
    let mut exact = HashMap::new();
    let mut globs = Vec::new();
    for (place, node) in elements(&fields, &place, "resources")? {
        let (definition, metrics) = definition(node, &place)?;
        for (metric, policy) in metrics {
            let archive_policy_name = policy.or_else(|| archive_policy_default.clone());
            let target = Target { definition: definitions.len(), archive_policy_name };
            if pattern::is_glob(&metric) {
                let glob = Glob::parse(&metric).map_err(|reason| place.child("metrics").error(node, reason))?;
                globs.push((glob, target));
            } else {
                exact.insert(metric, target);
            }
        }
        definitions.push(definition);
    }
    Ok(ResourceDefinitions { archive_policies, archive_policy_default, definitions, exact, globs })
}

fn archive_policy(node: &Node, place: &Place<'_>) -> Result<ArchivePolicyDefinition, DefinitionError> {
    let fields = node.fields(place, &["name", "aggregation_methods", "back_window", "definition"])?;
    let name = fields.need(place, "name")?.text(&place.child("name"))?;
    let methods = place.child("aggregation_methods");
    let aggregation_methods = fields.get("aggregation_methods").map(|node| node.texts(&methods)).transpose()?;
    let back_window = fields.get("back_window").map(|node| node.count(&place.child("back_window"))).transpose()?;
    let mut definition = Vec::new();
    for (place, node) in elements(&fields, place, "definition")? {
        let item = node.fields(&place, &["granularity", "timespan", "points"])?;
        let span = |name: &str| match item.get(name) {
            None => Ok(None),
            Some(node) => {
                let text = node.text(&place.child(name))?;
                let span = timespan(&text);
                span.map(Some)
                    .ok_or_else(|| place.child(name).error(node, format!("`{text}` is not a span such as `5 minutes`")))
            }
        };
        let (granularity, timespan) = (span("granularity")?, span("timespan")?);
        let points = item.get("points").map(|node| node.count(&place.child("points"))).transpose()?;
        if [granularity.is_some(), timespan.is_some(), points.is_some()].iter().filter(|is| **is).count() < 2 {
            return Err(place.error(node, "needs two of granularity, timespan, points"));
        }
        definition.push(ArchivePolicyItem { granularity, timespan, points });
    }
    if definition.is_empty() {
        return Err(place.child("definition").error(node, "needs at least one granularity"));
    }
    Ok(ArchivePolicyDefinition {
        name,
        aggregation_methods: aggregation_methods.unwrap_or_default(),
        back_window: back_window.unwrap_or(0),
        definition,
    })
}

type Metrics = Vec<(String, Option<String>)>;

fn definition(node: &Node, place: &Place<'_>) -> Result<(Definition, Metrics), DefinitionError> {
    let fields = node.fields(
        place,
        &[
            "resource_type",
            "metrics",
            "attributes",
            "event_create",
            "event_update",
            "event_delete",
            "event_attributes",
            "event_associated_resources",
            "archive_policy",
        ],
    )?;
    let resource_type = fields.need(place, "resource_type")?.text(&place.child("resource_type"))?;
    // The spelling of older files: one policy for all metrics of the definition.
    let policy = text_field(&fields, place, "archive_policy")?;
    let metrics = metrics(fields.need(place, "metrics")?, &place.child("metrics"), policy.as_ref())?;

    let mut attributes = Vec::new();
    if let Some(node) = fields.get("attributes") {
        let place = place.child("attributes");
        for (name, node) in bounded(node, &place)? {
            let field = Field::read(node, &place.child(&name), &[])?;
            attributes.push((name, field));
        }
    }
    let globs = |name: &str| -> Result<Vec<Glob>, DefinitionError> {
        let Some(node) = fields.get(name) else { return Ok(Vec::new()) };
        let place = place.child(name);
        let globs: Result<Vec<Glob>, String> = node.texts(&place)?.iter().map(|text| Glob::parse(text)).collect();
        globs.map_err(|reason| place.error(node, reason))
    };
    let (event_create, event_update, event_delete) =
        (globs("event_create")?, globs("event_update")?, globs("event_delete")?);
    let mut event_attributes = Vec::new();
    if let Some(node) = fields.get("event_attributes") {
        let place = place.child("event_attributes");
        for (attribute, node) in bounded(node, &place)? {
            let name = node.text(&place.child(&attribute))?;
            event_attributes.push((attribute, name));
        }
    }
    let has_events = !(event_create.is_empty() && event_update.is_empty() && event_delete.is_empty());
    if has_events && !event_attributes.iter().any(|(attribute, _)| attribute == "id") {
        return Err(place.child("event_attributes").error(node, "needs `id`, the trait that names the resource"));
    }
    let mut associated = Vec::new();
    if let Some(node) = fields.get("event_associated_resources") {
        let place = place.child("event_associated_resources");
        for (resource_type, node) in bounded(node, &place)? {
            let search = search(node, &place.child(&resource_type))?;
            associated.push((resource_type, search));
        }
    }
    let definition = Definition {
        resource_type,
        attributes,
        event_create,
        event_update,
        event_delete,
        event_attributes,
        associated,
    };
    Ok((definition, metrics))
}

/// `metrics` as a map (with an archive policy or nothing) or as a list of names.
fn metrics(node: &Node, place: &Place<'_>, policy: Option<&String>) -> Result<Metrics, DefinitionError> {
    if let Yaml::List(_) = node.value {
        return Ok(node.texts(place)?.into_iter().map(|name| (name, policy.cloned())).collect());
    }
    let mut metrics = Vec::new();
    for (name, node) in bounded(node, place)? {
        let place = place.child(&name);
        let own = match node.value {
            Yaml::Null => None,
            _ => text_field(&node.fields(&place, &["archive_policy_name"])?, &place, "archive_policy_name")?,
        };
        metrics.push((name, own.or_else(|| policy.cloned())));
    }
    Ok(metrics)
}

/// A search is JSON in a text, with `%s` where the id goes.
fn search(node: &Node, place: &Place<'_>) -> Result<Value, DefinitionError> {
    let text = node.text(place)?;
    let search: Value =
        serde_json::from_str(&text).map_err(|error| place.error(node, format!("not a search in JSON: {error}")))?;
    if !search.is_object() || !text.contains("%s") {
        return Err(place.error(node, "expected a search such as {\"=\": {\"instance_id\": \"%s\"}}"));
    }
    Ok(search)
}

fn text_field(fields: &Fields<'_>, place: &Place<'_>, name: &str) -> Result<Option<String>, DefinitionError> {
    fields.get(name).map(|node| node.text(&place.child(name))).transpose()
}

fn elements<'a, 'p>(
    fields: &Fields<'a>,
    place: &Place<'p>,
    name: &str,
) -> Result<Vec<(Place<'p>, &'a Node)>, DefinitionError> {
    let Some(node) = fields.get(name) else { return Ok(Vec::new()) };
    let place = place.child(name);
    let list = node.list(&place)?;
    if list.len() > ENTRIES_MAX {
        return Err(place.error(node, format!("more than {ENTRIES_MAX} entries")));
    }
    Ok(list.iter().enumerate().map(|(index, node)| (place.element(index), node)).collect())
}

fn bounded<'a>(node: &'a Node, place: &Place<'_>) -> Result<Vec<(String, &'a Node)>, DefinitionError> {
    let entries = node.entries(place)?;
    if entries.len() > ENTRIES_MAX {
        return Err(place.error(node, format!("more than {ENTRIES_MAX} entries")));
    }
    Ok(entries)
}
