//! Measures of one metric: added and shown, by its UUID or by its name on a resource.

use axum::{
    extract::{Path, State},
    response::Response,
};
use orzo_index::Metric;
use orzo_model::Caller;
use orzo_query::{AggregatedMeasure, MeasuresQuery};

use super::{
    answer::tree,
    batch::post,
    body,
    metrics::{by_id, by_name},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    policy,
    problem::Problem,
    request::JsonBody,
    wire::{Row, Tree},
};

pub(super) async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    answer(&api, &by_id(&api, &caller, &id).await?, &parameters).await
}

pub(super) async fn show_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id, name)): Path<(String, String, String)>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    answer(&api, &by_name(&api, &caller, &kind, &id, &name).await?, &parameters).await
}

pub(super) async fn add(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let metric = by_id(&api, &caller, &id).await?;
    keep(&api, &caller, metric, &body).await
}

pub(super) async fn add_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id, name)): Path<(String, String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let metric = by_name(&api, &caller, &kind, &id, &name).await?;
    keep(&api, &caller, metric, &body).await
}

async fn keep(api: &SharedApi, caller: &Caller, metric: Metric, body: &serde_json::Value) -> Result<Response, Problem> {
    policy::creator_or_service(caller, &metric.creator)?;
    let measures = body::measures(body, api.clock.now())?;
    post(api, metric, measures).await
}

async fn answer(api: &SharedApi, metric: &Metric, parameters: &Parameters) -> Result<Response, Problem> {
    // Nothing waits to be computed, so a refresh has nothing to do; but the word must be one that Gnocchi knows.
    parameters.flag("refresh")?;
    let now = api.clock.now();
    let query = MeasuresQuery {
        aggregation: parameters.get("aggregation").unwrap_or("mean").to_owned(),
        granularity: parameters.span("granularity")?,
        start: parameters.time("start", now)?,
        stop: parameters.time("stop", now)?,
        resample: parameters.span("resample")?,
    };
    let measures = api.engine.measures(metric, &query).await?;
    Ok(tree(&Tree::Measures(rows(&measures))))
}

/// Measures as they are written.
pub(super) fn rows(measures: &[AggregatedMeasure]) -> Vec<Row> {
    measures
        .iter()
        .map(|measure| Row { timestamp: measure.timestamp, width: measure.granularity, value: measure.value })
        .collect()
}
