//! `lookup`: one notification with lists, one sample per element.
//!
//! Fields named in `lookup` (and always the name) give a list; all lists must be as long as the list of names. A
//! single value of a field that is not in `lookup` is repeated. Any other mismatch drops the notification's samples of
//! this meter.

use serde_json::Value;

use super::{Definition, Reading, SAMPLES_MAX, SkipReason};
use crate::path::Datum;

/// One reading per element; none if the notification has no such elements.
pub(super) fn readings(definition: &Definition, root: &Datum<'_>) -> Result<Vec<Reading>, SkipReason> {
    let all = |field: Option<&crate::field::Field>| field.map(|field| field.all(root)).unwrap_or_default();
    let mut names = all(definition.name.field.as_ref());
    if names.is_empty() {
        names.extend(definition.name.as_literal());
    }
    let count = names.len();
    if count > SAMPLES_MAX {
        return Err(SkipReason::UnevenLists);
    }
    let column = |name: &str, found: Vec<Value>, fallback: Option<Value>| {
        let looked_up = definition.lookup.iter().any(|field| field == name);
        let values = if found.is_empty() && !looked_up { fallback.into_iter().collect() } else { found };
        match values.len() {
            length if length == count => Ok(values.into_iter().map(Some).collect()),
            0 if !looked_up => Ok(vec![None; count]),
            1 if !looked_up => Ok(vec![values.into_iter().next(); count]),
            _ => Err(SkipReason::UnevenLists),
        }
    };
    let kinds: Vec<Option<Value>> = column("type", all(definition.kind.field.as_ref()), definition.kind.as_literal())?;
    let units: Vec<Option<Value>> = column("unit", all(definition.unit.field.as_ref()), definition.unit.as_literal())?;
    let volumes: Vec<Option<Value>> = column("volume", definition.volume.all(root), None)?;
    let resources: Vec<Option<Value>> = column("resource_id", definition.resource_id.all(root), None)?;
    let users: Vec<Option<Value>> =
        column("user_id", definition.user_id.all(root), definition.user_id_fallback.first(root))?;
    let projects: Vec<Option<Value>> =
        column("project_id", definition.project_id.all(root), definition.project_id_fallback.first(root))?;
    let timestamps: Vec<Option<Value>> = column("timestamp", all(definition.timestamp.as_ref()), None)?;
    let readings = names.into_iter().enumerate().map(|(index, name)| Reading {
        name: Some(name),
        kind: kinds[index].clone(),
        unit: units[index].clone(),
        volume: volumes[index].clone(),
        resource_id: resources[index].clone(),
        user_id: users[index].clone(),
        project_id: projects[index].clone(),
        timestamp: timestamps[index].clone(),
    });
    Ok(readings.collect())
}
