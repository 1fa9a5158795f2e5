//! `POST /store/v1/import`: resources with their history and metrics as another Gnocchi has them, with its ids; for administrators.
//!
//! In: `{"resources": [...], "metrics": [...]}`. Out: how many of each were made; those that are here already stay as they are. Policies and
//! types are made over Gnocchi's own API before, points come by it after.

use axum::{Json, Router, extract::State, routing::post};
use orzo_index::{ImportedMetric, ImportedResource};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem, request::JsonBody};

/// What is to be made.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Imported {
    resources: Vec<ImportedResource>,
    metrics: Vec<ImportedMetric>,
}

/// The routes below the mount.
pub(crate) fn router() -> Router<SharedApi> {
    Router::new().route("/v1/import", post(import))
}

async fn import(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    policy::admin(&caller)?;
    let wanted: Imported = serde_json::from_value(body).map_err(|error| Problem::bad(error.to_string()))?;
    let resources = api.index().import_resources(&wanted.resources).await?;
    let metrics = api.index().import_metrics(&wanted.metrics).await?;
    Ok(Json(json!({"resources": resources, "metrics": metrics})))
}
