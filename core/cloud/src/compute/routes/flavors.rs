//! Requests about flavors.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{Answer, Parameters, Service, Who, parameter, read_json};
use crate::compute::{Compute, ComputeError, Flavor, NewFlavor};

pub(super) fn routes() -> Router<Arc<Compute>> {
    Router::new()
        .route("/flavors", get(list).post(create))
        .route("/flavors/detail", get(list_detail))
        .route("/flavors/{id}", get(show).put(describe).delete(delete))
        .route("/flavors/{id}/action", post(act))
        .route("/flavors/{id}/os-flavor-access", get(access))
        .route("/flavors/{id}/os-extra_specs", get(specs).post(add_specs))
        .route("/flavors/{id}/os-extra_specs/{key}", get(spec).put(set_spec).delete(remove_spec))
}

const EDIT_RULE: &str = "os_compute_api:os-flavor-manage";

/// Filters and pages; the table is small and bounded, so that this is done here.
async fn page(
    compute: &Compute,
    who: &Who,
    parameters: &[(String, String)],
) -> Result<(Vec<Flavor>, bool), ComputeError> {
    let is_public = match parameter(parameters, "is_public").map(str::to_ascii_lowercase).as_deref() {
        Some("none") => None,
        Some("false" | "0" | "f" | "no") => Some(false),
        _ => Some(true),
    };
    let number = |name: &str| -> Result<Option<u64>, ComputeError> {
        parameter(parameters, name)
            .map(|text| {
                text.parse().map_err(|_| ComputeError::bad_request(format!("Invalid {name} filter [{text:.20}]")))
            })
            .transpose()
    };
    let (min_disk, min_ram, limit) = (number("minDisk")?, number("minRam")?, number("limit")?);
    let mut flavors = compute.flavors(who.caller(), is_public).await?;
    flavors.retain(|flavor| {
        min_disk.is_none_or(|least| flavor.disk_gib >= least) && min_ram.is_none_or(|least| flavor.memory_mib >= least)
    });
    match parameter(parameters, "sort_key") {
        Some("name") => flavors.sort_by(|a, b| a.name.cmp(&b.name)),
        Some("memory_mb") => flavors.sort_by_key(|flavor| flavor.memory_mib),
        Some("vcpus") => flavors.sort_by_key(|flavor| flavor.vcpus),
        Some("root_gb") => flavors.sort_by_key(|flavor| flavor.disk_gib),
        _ => {}
    }
    if parameter(parameters, "sort_dir") == Some("desc") {
        flavors.reverse();
    }
    if let Some(marker) = parameter(parameters, "marker") {
        let place = flavors.iter().position(|flavor| flavor.id == marker);
        let place = place.ok_or_else(|| ComputeError::bad_request(format!("marker [{marker:.64}] not found")))?;
        flavors.drain(..=place);
    }
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let more = limit.is_some_and(|limit| flavors.len() > limit);
    flavors.truncate(limit.unwrap_or(usize::MAX));
    Ok((flavors, more))
}

fn body(key: &str, items: Vec<Value>, next: Option<String>) -> Json<Value> {
    let mut body = json!({key: items});
    if let Some(href) = next {
        body[format!("{key}_links")] = json!([{"rel": "next", "href": href}]);
    }
    Json(body)
}

fn next_link(compute: &Compute, path: &str, parameters: &[(String, String)], last: Option<&Flavor>) -> Option<String> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter(|(name, _)| name != "marker"));
    query.append_pair("marker", &last?.id);
    Some(format!("{}/{path}?{}", compute.settings.url, query.finish()))
}

async fn list(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    let (flavors, more) = page(&compute, &who, &parameters).await?;
    let frame = who.frame(&compute);
    let next = if more { next_link(&compute, "flavors", &parameters, flavors.last()) } else { None };
    Ok(body("flavors", flavors.iter().map(|flavor| frame.flavor_reference(flavor)).collect(), next))
}

async fn list_detail(State(compute): Service, who: Who, Query(parameters): Parameters) -> Answer {
    let (flavors, more) = page(&compute, &who, &parameters).await?;
    let frame = who.frame(&compute);
    let next = if more { next_link(&compute, "flavors/detail", &parameters, flavors.last()) } else { None };
    Ok(body("flavors", flavors.iter().map(|flavor| frame.flavor(flavor)).collect(), next))
}

async fn show(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    let flavor = compute.flavor(who.caller(), &id).await?;
    Ok(Json(json!({"flavor": who.frame(&compute).flavor(&flavor)})))
}

async fn create(State(compute): Service, who: Who, body: Bytes) -> Answer {
    who.check_admin(EDIT_RULE)?;
    let flavor = compute.create_flavor(NewFlavor::parse(&read_json(&body)?)?).await?;
    Ok(Json(json!({"flavor": who.frame(&compute).flavor(&flavor)})))
}

async fn describe(State(compute): Service, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    who.check_admin(EDIT_RULE)?;
    let body = read_json(&body)?;
    let description = body["flavor"]["description"].as_str().map(str::to_owned);
    let flavor = compute
        .edit_flavor(&id, move |flavor| {
            flavor.description.clone_from(&description);
            Ok(())
        })
        .await?;
    Ok(Json(json!({"flavor": who.frame(&compute).flavor(&flavor)})))
}

async fn delete(State(compute): Service, who: Who, Path(id): Path<String>) -> Result<StatusCode, ComputeError> {
    who.check_admin(EDIT_RULE)?;
    compute.delete_flavor(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn act(State(compute): Service, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    who.check_admin(EDIT_RULE)?;
    compute.flavor(who.caller(), &id).await?;
    let body = read_json(&body)?;
    let (granted, wish) = match (body.get("addTenantAccess"), body.get("removeTenantAccess")) {
        (Some(wish), None) => (true, wish),
        (None, Some(wish)) => (false, wish),
        _ => return Err(ComputeError::bad_request("There is no such action.")),
    };
    let project = wish["tenant"].as_str().ok_or_else(|| ComputeError::bad_request("The body names no \"tenant\"."))?;
    compute.grant_flavor(&id, project, granted).await?;
    granted_projects(&compute, &id).await
}

async fn access(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    who.check_admin("os_compute_api:os-flavor-access")?;
    if compute.flavor(who.caller(), &id).await?.is_public {
        return Err(ComputeError::not_found("Access list not available for public flavors."));
    }
    granted_projects(&compute, &id).await
}

async fn granted_projects(compute: &Compute, id: &str) -> Answer {
    let projects = compute.flavor_projects(id).await?;
    let list: Vec<Value> = projects.iter().map(|project| json!({"flavor_id": id, "tenant_id": project})).collect();
    Ok(Json(json!({"flavor_access": list})))
}

async fn specs(State(compute): Service, who: Who, Path(id): Path<String>) -> Answer {
    Ok(Json(json!({"extra_specs": compute.flavor(who.caller(), &id).await?.extra_specs})))
}

async fn spec(State(compute): Service, who: Who, Path((id, key)): Path<(String, String)>) -> Answer {
    let flavor = compute.flavor(who.caller(), &id).await?;
    let value = flavor.extra_specs.get(&key).ok_or_else(|| no_spec(&id, &key))?;
    Ok(Json(json!({key: value})))
}

async fn add_specs(State(compute): Service, who: Who, Path(id): Path<String>, body: Bytes) -> Answer {
    who.check_admin(EDIT_RULE)?;
    let wanted = texts(read_json(&body)?.get("extra_specs"))?;
    let flavor = compute
        .edit_flavor(&id, move |flavor| {
            flavor.extra_specs.extend(wanted.clone());
            Ok(())
        })
        .await?;
    Ok(Json(json!({"extra_specs": flavor.extra_specs})))
}

async fn set_spec(State(compute): Service, who: Who, Path((id, key)): Path<(String, String)>, body: Bytes) -> Answer {
    who.check_admin(EDIT_RULE)?;
    let wanted = texts(Some(&read_json(&body)?))?;
    let value = wanted.get(&key).cloned().ok_or_else(|| ComputeError::bad_request("Request body and URI mismatch"))?;
    let told = json!({key.as_str(): value});
    compute
        .edit_flavor(&id, move |flavor| {
            flavor.extra_specs.insert(key.clone(), value.clone());
            Ok(())
        })
        .await?;
    Ok(Json(told))
}

async fn remove_spec(
    State(compute): Service,
    who: Who,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ComputeError> {
    who.check_admin(EDIT_RULE)?;
    let flavor = id.clone();
    compute
        .edit_flavor(&id, move |found| found.extra_specs.remove(&key).map(drop).ok_or_else(|| no_spec(&flavor, &key)))
        .await?;
    Ok(StatusCode::OK)
}

fn no_spec(id: &str, key: &str) -> ComputeError {
    ComputeError::not_found(format!("Flavor {id:.64} has no extra specs with key {key:.64}."))
}

/// Extra specs: keys and values are short texts; numbers are taken as texts.
fn texts(value: Option<&Value>) -> Result<BTreeMap<String, String>, ComputeError> {
    let wrong = || ComputeError::bad_request("Invalid input for field/attribute extra_specs.");
    let map = value.and_then(Value::as_object).ok_or_else(wrong)?;
    map.iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(wrong()),
            };
            let fits = (1..=255).contains(&key.len()) && value.len() <= 255;
            if fits { Ok((key.clone(), value)) } else { Err(wrong()) }
        })
        .collect()
}
