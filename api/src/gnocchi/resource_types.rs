//! Resource types: what is said about a kind of resource.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use orzo_index::{AddedAttribute, Attribute, ResourceType};
use serde_json::{Value, json};

use super::{
    answer::{created, no_content, ok},
    fields::Fields,
};
use crate::{
    SharedApi,
    authenticate::Asker,
    policy::{Action, Target},
    problem::Problem,
    request::{JsonBody, Links, PatchBody},
};

/// Longest text that an attribute holds unless its type says otherwise; the default that Gnocchi answers with.
const TEXT_CHARACTERS_DEFAULT: u64 = 256;

pub(super) async fn list(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Response, Problem> {
    api.allow(Action::ListResourceType, &caller, Target::Nothing)?;
    let types = api.index().resource_types().await?;
    Ok(ok(types.iter().map(type_json).collect::<Vec<_>>().into()))
}

pub(super) async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    api.allow(Action::GetResourceType, &caller, Target::Fields(&[("name", &name)]))?;
    Ok(ok(type_json(&api.index().resource_type(&name).await?)))
}

pub(super) async fn create(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    api.allow(Action::CreateResourceType, &caller, Target::Nothing)?;
    let fields = Fields::of(&body)?;
    fields.only(&["name", "attributes"])?;
    let name = fields.required_text("name")?;
    let mut attributes = BTreeMap::new();
    if let Some(given) = fields.get("attributes") {
        let given = Fields::at(given, fields.path_of("attributes"))?;
        for (attribute, value) in given.iter() {
            let value = Fields::at(value, given.path_of(attribute))?;
            attributes.insert(attribute.to_owned(), attribute_of(&value, false)?);
        }
    }
    let kind = ResourceType::new(name, attributes)?;
    api.index().create_resource_type(&kind).await?;
    Ok(created(&links.to_metric(&["v1", "resource_type", name]), type_json(&kind)))
}

pub(super) async fn update(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
    PatchBody(body): PatchBody,
) -> Result<Response, Problem> {
    api.allow(Action::UpdateResourceType, &caller, Target::Nothing)?;
    let old = api.index().resource_type(&name).await?;
    let change = change_of(&body, &old)?;
    let kind = if change.added.is_empty() && change.removed.is_empty() {
        old
    } else {
        api.index().update_resource_type(&name, &change.added, &change.removed).await?
    };
    Ok(ok(type_json(&kind)))
}

pub(super) async fn delete(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    api.allow(Action::DeleteResourceType, &caller, Target::Nothing)?;
    api.index().delete_resource_type(&name).await?;
    Ok(no_content())
}

fn type_json(kind: &ResourceType) -> Value {
    json!({"name": kind.name, "attributes": kind.attributes, "state": "active"})
}

/// An attribute as a client describes it. `with_options`: it may carry `options`, which the caller reads.
fn attribute_of(fields: &Fields<'_>, with_options: bool) -> Result<Attribute, Problem> {
    let kind = fields.required_text("type")?;
    let mut names = vec!["type", "required"];
    match kind {
        "string" => names.extend(["min_length", "max_length"]),
        "number" => names.extend(["min", "max"]),
        "uuid" | "bool" | "datetime" => {}
        _ => return Err(fields.value_problem("not a valid value", "type")),
    }
    if with_options {
        names.push("options");
    }
    fields.only(&names)?;
    let mut object = serde_json::Map::new();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "options") {
        object.insert(name.to_owned(), value.clone());
    }
    if kind == "string" {
        object.entry("max_length").or_insert(TEXT_CHARACTERS_DEFAULT.into());
    }
    serde_json::from_value(Value::Object(object)).map_err(|_| fields.problem("not a valid value", "type"))
}

/// What a JSON Patch wants.
#[derive(Debug, Default, PartialEq)]
struct Change {
    added: BTreeMap<String, AddedAttribute>,
    removed: Vec<String>,
}

/// Only `add` and `remove` below `/attributes` mean something here; `add` of a name that is there changes it.
fn change_of(body: &Value, old: &ResourceType) -> Result<Change, Problem> {
    let operations = body.as_array().ok_or_else(|| Problem::input("expected a list", &[]))?;
    let mut change = Change::default();
    for (index, operation) in operations.iter().enumerate() {
        let fields = Fields::at(operation, vec![index.to_string()])?;
        fields.only(&["op", "path", "value"])?;
        if fields.get("op").is_none() {
            return Err(Problem::bad("Operation does not contain 'op' member"));
        }
        let op = fields.required_text("op")?;
        let path = fields.required_text("path")?;
        let name = path
            .strip_prefix("/attributes/")
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .ok_or_else(|| fields.value_problem("not a valid value", "path"))?
            // RFC 6901 escapes.
            .replace("~1", "/")
            .replace("~0", "~");
        match op {
            "add" => {
                let value = Fields::at(fields.required("value")?, fields.path_of("value"))?;
                // What the type would become is checked as a whole, and told as one sentence.
                let attribute = attribute_of(&value, true)
                    .map_err(|problem| Problem::bad(format!("Invalid input: {}", said(&problem.description))))?;
                let fill =
                    value.get("options").and_then(|options| options.get("fill")).filter(|f| !f.is_null()).cloned();
                // What is there already stays as it is; what changes must say what resources get. A change to another
                // type is refused by the index, whatever else it lacks.
                let is_same_type = |old: &Attribute| {
                    std::mem::discriminant(&old.kind) == std::mem::discriminant(&attribute.kind) && *old != attribute
                };
                if attribute.required && fill.is_none() && old.attributes.get(&name).is_none_or(is_same_type) {
                    return Err(Problem::bad(format!(
                        "Invalid input: Option 'fill' of resource attribute {name} is invalid: must not be empty if \
                         required=True"
                    )));
                }
                change.removed.retain(|removed| *removed != name);
                change.added.insert(name, AddedAttribute { attribute, fill });
            }
            "remove" if change.added.remove(&name).is_some() && !old.has(&name) => {}
            "remove" if !old.has(&name) || change.removed.contains(&name) => {
                return Err(Problem::bad(format!("can't remove a non-existent object '{name}'")));
            }
            "remove" => change.removed.push(name),
            _ => return Err(fields.value_problem("not a valid value", "op")),
        }
    }
    Ok(change)
}

/// The reason of a problem.
fn said(description: &Value) -> &str {
    description["reason"].as_str().or(description.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> ResourceType {
        let attribute = serde_json::from_value(json!({"type": "string"})).expect("an attribute");
        ResourceType::new("t", [("old".to_owned(), attribute)].into()).expect("a type")
    }

    #[test]
    fn patches_add_change_and_remove() {
        let change = change_of(
            &json!([
                {"op": "add", "path": "/attributes/a", "value": {"type": "string", "required": true, "options": {"fill": "x"}}},
                {"op": "add", "path": "/attributes/old", "value": {"type": "string", "max_length": 9, "required": false}},
                {"op": "add", "path": "/attributes/gone", "value": {"type": "bool", "required": false}},
                {"op": "remove", "path": "/attributes/gone"},
            ]),
            &kind(),
        )
        .expect("a change");
        assert_eq!(change.added.keys().collect::<Vec<_>>(), ["a", "old"]);
        assert_eq!(change.added["a"].fill, Some(json!("x")));
        assert!(change.removed.is_empty());
        assert_eq!(
            serde_json::to_value(&change.added["a"].attribute).expect("json"),
            json!({"type": "string", "required": true, "min_length": 0, "max_length": 256})
        );
    }

    /// A change to another type was refused for the value that it does not say, as if there were a remedy.
    #[test]
    fn another_type_is_not_refused_for_lack_of_a_value() {
        let longer = json!([{"op": "add", "path": "/attributes/old", "value": {"type": "string", "min_length": 1}}]);
        assert!(
            change_of(&longer, &kind()).is_err(),
            "required, changed, and no value for the resources that are there"
        );
        let number = json!([{"op": "add", "path": "/attributes/old", "value": {"type": "number", "required": true}}]);
        assert!(change_of(&number, &kind()).is_ok(), "which the index refuses by its name");
    }

    #[test]
    fn patches_that_mean_nothing_are_refused() {
        for body in [
            json!({}),
            json!([{"op": "replace", "path": "/attributes/old", "value": {"type": "bool"}}]),
            json!([{"op": "add", "path": "/name", "value": {"type": "bool"}}]),
            json!([{"op": "add", "path": "/attributes/a/b", "value": {"type": "bool"}}]),
            json!([{"op": "add", "path": "/attributes/a", "value": {"type": "bool"}}]),
            json!([{"op": "add", "path": "/attributes/a", "value": {"type": "bool", "min": 1, "required": false}}]),
            json!([{"op": "add", "path": "/attributes/a", "value": {"type": "what"}}]),
            json!([{"op": "remove", "path": "/attributes/a"}]),
            json!([{}]),
            // What changes and is required says what resources get.
            json!([{"op": "add", "path": "/attributes/old", "value": {"type": "string", "max_length": 9}}]),
            json!([{"op": "remove", "path": "/attributes/old"}, {"op": "remove", "path": "/attributes/old"}]),
        ] {
            assert!(change_of(&body, &kind()).is_err(), "{body}");
        }
    }
}
