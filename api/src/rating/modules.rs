//! Modules of rating, quotes, and the scripts that there are none of.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bigdecimal::BigDecimal;
use http::{StatusCode, header};
use orzo_rating::{ModuleState, Usage};
use serde_json::{Value, json};

use super::{
    book,
    costs::moved,
    must_be_admin, problem_of,
    wsme::{Body, decimal_of},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    problem::Problem,
    request::{JsonBody, Links},
};

/// Resources of one quote; more are asked for in several.
const QUOTED_MAX: usize = 10_000;

fn first(module: &ModuleState) -> Value {
    json!({"module_id": module.name, "description": module.description, "enabled": module.enabled,
           "hot-config": module.hot_config, "priority": module.priority})
}

fn second(module: &ModuleState) -> Value {
    json!({"module_id": module.name, "description": module.description, "enabled": module.enabled,
           "hot_config": module.hot_config, "priority": module.priority})
}

async fn find(api: &SharedApi, name: &str) -> Result<Option<ModuleState>, Problem> {
    let modules = book(api)?.modules().await.map_err(problem_of)?;
    Ok(modules.into_iter().find(|module| module.name == name))
}

pub(super) async fn list(State(api): State<SharedApi>, Asker(caller): Asker) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let modules = book(&api)?.modules().await.map_err(problem_of)?;
    Ok(Json(json!({"modules": modules.iter().map(first).collect::<Value>()})))
}

pub(super) async fn show(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let module = find(&api, &name).await?;
    module.as_ref().map(first).map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "Module not found."))
}

pub(super) async fn set(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    must_be_admin(&caller)?;
    let known = ["module_id", "description", "enabled", "hot-config", "priority"];
    let body = Body::read(body, &known)?;
    if find(&api, &name).await?.is_none() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "Module not found."));
    }
    let (enabled, priority) = (body.flag("enabled")?, body.integer("priority")?);
    let is_changed = book(&api)?.set_module(&name, enabled, priority).await.map_err(problem_of)?;
    Ok(moved(&links, is_changed))
}

pub(super) async fn reload(Asker(caller): Asker) -> Result<StatusCode, Problem> {
    // Rules are read anew for each period: there is nothing to be loaded again.
    must_be_admin(&caller)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list2(State(api): State<SharedApi>, Asker(caller): Asker) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let modules = book(&api)?.modules().await.map_err(problem_of)?;
    Ok(Json(json!({"modules": modules.iter().map(second).collect::<Value>()})))
}

pub(super) async fn show2(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let module = find(&api, &name).await?;
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("Module '{name}' not found"));
    module.as_ref().map(second).map(Json).ok_or_else(none)
}

pub(super) async fn set2(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body, &["enabled", "priority"])?;
    let priority = body.integer("priority")?;
    if priority.is_some_and(|priority| priority < 1) {
        return Err(Problem::bad("Invalid data : value must be at least 1 (path: '['priority']')"));
    }
    book(&api)?.set_module(&name, body.flag("enabled")?, priority).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What resources would cost now, under the rules for everybody.
pub(super) async fn quote(
    State(api): State<SharedApi>,
    _asker: Asker,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let usages = usages_of(&mut Body::read(body, &["resources"])?)?;
    let book = book(&api)?;
    let version = book.rule_version().await.map_err(problem_of)?;
    let rules = book.rules_of(version, book.now()).await.map_err(problem_of)?;
    let is_on = find(&api, "hashmap").await?.is_some_and(|module| module.enabled);
    let prices = rules.hashmap.for_tenant(None);
    let mut sum = BigDecimal::from(0);
    for usage in usages.iter().filter(|_| is_on) {
        sum += prices.price(usage).map_err(|error| Problem::bad(error.to_string()))?;
    }
    let text = sum.normalized().to_plain_string();
    let text = if text.contains('.') { text } else { format!("{text}.0") };
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The described resources of a quote.
pub(super) fn usages_of(body: &mut Body) -> Result<Vec<Usage>, Problem> {
    let resources = match body.any("resources") {
        Some(Value::Array(resources)) => resources,
        _ => return Err(Problem::bad("Invalid input for field/attribute resources. Value not a valid list")),
    };
    if resources.len() > QUOTED_MAX {
        return Err(Problem::bad(format!("more than {QUOTED_MAX} resources; ask for several quotes")));
    }
    resources.into_iter().map(usage_of).collect()
}

/// A described resource. Older clients write the description flat, CloudKitty's own code reads `groupby` and `metadata`.
fn usage_of(resource: Value) -> Result<Usage, Problem> {
    let mut resource = Body::read(resource, &["service", "desc", "volume"])?;
    let service = resource.needed_text("service")?;
    let quantity = resource.any("volume").map(|volume| decimal_of("volume", &volume)).transpose()?;
    let mut description = BTreeMap::new();
    if let Some(Value::Object(desc)) = resource.any("desc") {
        for (name, value) in desc {
            match value {
                Value::Object(inner) if name == "groupby" || name == "metadata" => description.extend(inner),
                value => {
                    description.insert(name, value);
                }
            }
        }
    }
    Ok(Usage { service, quantity: quantity.unwrap_or_else(|| BigDecimal::from(0)), description })
}

pub(super) async fn scripts(Asker(caller): Asker) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    Ok(Json(json!({"scripts": []})))
}

pub(super) async fn script(Asker(caller): Asker, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    Err(Problem::new(StatusCode::NOT_FOUND, format!("No such script: None (UUID: {id})")))
}

pub(super) async fn no_script(Asker(caller): Asker) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    Err(Problem::bad(
        "pyscripts run any Python inside the server, so there are none here; write the price as an expression instead \
         (PUT /v2/prices/expression/NAME)",
    ))
}
