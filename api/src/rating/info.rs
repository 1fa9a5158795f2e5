//! What is rated (`metrics.yml`), and CloudKitty's old settings of collectors.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    book, must_be_admin, parts, problem_of,
    wsme::{Body, identified, known, query_text},
};
use crate::{SharedApi, authenticate::Asker, parameters::Parameters, problem::Problem, request::OptionalJsonBody};

pub(super) async fn config(State(api): State<SharedApi>, _asker: Asker) -> Result<Json<Value>, Problem> {
    Ok(Json(parts(&api)?.metrics.clone()))
}

pub(super) async fn metrics(State(api): State<SharedApi>, _asker: Asker) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({"metrics": described(&parts(&api)?.metrics)})))
}

pub(super) async fn metric(
    State(api): State<SharedApi>,
    _asker: Asker,
    Path(wanted): Path<String>,
) -> Result<Json<Value>, Problem> {
    let metrics = described(&parts(&api)?.metrics);
    let metric = metrics.into_iter().find(|metric| metric["metric_id"] == wanted.as_str());
    metric.map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, wanted))
}

/// The ratings of `metrics.yml`, by the names that rules know them by.
fn described(config: &Value) -> Vec<Value> {
    let mut metrics = Vec::new();
    for (name, ratings) in config["metrics"].as_object().into_iter().flatten() {
        for rating in ratings.as_array().map_or_else(|| std::slice::from_ref(ratings), Vec::as_slice) {
            let metadata = match &rating["metadata"] {
                Value::Array(names) => names.clone(),
                Value::Object(map) => map.keys().map(|key| json!(key)).collect(),
                _ => Vec::new(),
            };
            let name = rating["alt_name"].as_str().unwrap_or(name);
            metrics.push(json!({"metric_id": name, "unit": rating["unit"], "metadata": metadata}));
        }
    }
    metrics
}

pub(super) async fn collector_mappings(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    known(&parameters, &["collector"])?;
    let wanted = query_text(&parameters, "collector");
    let mappings = book(&api)?.collector_mappings(wanted.as_deref()).await.map_err(problem_of)?;
    let shown = mappings.iter().map(|own| json!({"service": own.service, "collector": own.collector}));
    Ok(Json(json!({"mappings": shown.collect::<Value>()})))
}

pub(super) async fn collector_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    Path(service): Path<String>,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let mappings = book(&api)?.collector_mappings(None).await.map_err(problem_of)?;
    let mapping = mappings.into_iter().find(|own| own.service == service);
    let mapping = mapping.ok_or_else(|| no_mapping(&service))?;
    Ok(Json(json!({"service": mapping.service, "collector": mapping.collector})))
}

fn no_mapping(service: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("No mapping for service: {service}"))
}

/// The two names are in the path, in the query, or in the body, as the real client sends them.
pub(super) async fn set_collector_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<(String, String)>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body.unwrap_or_else(|| json!({})), &["service", "collector"])?;
    let named = |name: &str| match query_text(&parameters, name) {
        Some(text) => Ok(text),
        None => body.needed_text(name),
    };
    let (collector, service) = match path {
        Some(Path(names)) => names,
        None => (named("collector")?, named("service")?),
    };
    let mapping = book(&api)?.set_collector_mapping(&service, &collector).await.map_err(problem_of)?;
    Ok(Json(json!({"service": mapping.service, "collector": mapping.collector})))
}

pub(super) async fn delete_collector_mapping(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<StatusCode, Problem> {
    must_be_admin(&caller)?;
    let body = body.map(|body| Body::read(body, &["service"])).transpose()?;
    let service = identified(path, &parameters, body.as_ref(), "service")?;
    match book(&api)?.delete_collector_mapping(&service).await.map_err(problem_of)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_mapping(&service)),
    }
}

pub(super) async fn collector_state(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let name = identified(path, &parameters, None, "name")?;
    let enabled = book(&api)?.collector_state(&name).await.map_err(problem_of)?;
    Ok(Json(json!({"name": name, "enabled": enabled})))
}

pub(super) async fn set_collector_state(
    State(api): State<SharedApi>,
    Asker(caller): Asker,
    path: Option<Path<String>>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, Problem> {
    must_be_admin(&caller)?;
    let body = Body::read(body.unwrap_or_else(|| json!({})), &["name", "enabled"])?;
    let name = identified(path, &parameters, Some(&body), "name")?;
    let enabled = body.flag("enabled")?;
    let enabled = enabled.ok_or_else(|| {
        Problem::bad("Invalid input for field/attribute enabled. Value: 'None'. Mandatory field missing.")
    })?;
    book(&api)?.set_collector_state(&name, enabled).await.map_err(problem_of)?;
    Ok(Json(json!({"name": name, "enabled": enabled})))
}
