//! The older aggregation over metrics, `/v1/aggregation/...`, which Grafana still asks for.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::{Path, State},
    response::Response,
};
use orzo_index::{IndexError, Metric};
use orzo_model::Caller;
use orzo_query::{AggregatedMeasure, AggregationQuery, QueryError, Search};
use uuid::Uuid;

use super::{
    aggregates::{fill, group_of, groupby},
    answer::tree,
    measures::resample,
    resources::filter_of,
    rows::{NotFinite, rows},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    policy::Action,
    problem::Problem,
    request::{JsonBody, OptionalJsonBody},
    wire::Tree,
};

/// Metrics in one question at most; each is read.
const METRICS_MAX: usize = 1000;
/// The overlap that is needed unless the question says otherwise, in percent.
const OVERLAP_DEFAULT: f64 = 100.0;

/// `GET /v1/aggregation/metric?metric=...`.
pub(super) async fn over_metrics(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    not_finite: NotFinite,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let read = |(place, id): (usize, &str)| {
        let wrong = || Problem::bad(format!("Invalid input: not a valid value @ data[{place}]"));
        Uuid::try_parse(id).map_err(|_| wrong())
    };
    let ids = parameters.all("metric").enumerate().map(read).collect::<Result<_, _>>()?;
    aggregate_metrics(&api, &caller, &parameters, ids, not_finite).await
}

/// `POST /v1/aggregation/metric` with a list of UUIDs.
pub(super) async fn over_metrics_of_body(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    not_finite: NotFinite,
    parameters: Parameters,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let ids = body.as_array().ok_or_else(|| Problem::input("expected a list", &[]))?;
    let read = |(place, id): (usize, &serde_json::Value)| {
        let id = id.as_str().and_then(|id| Uuid::try_parse(id).ok());
        id.ok_or_else(|| Problem::input("not a valid value", &[&place.to_string()]))
    };
    let ids = ids.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    aggregate_metrics(&api, &caller, &parameters, ids, not_finite).await
}

async fn aggregate_metrics(
    api: &SharedApi,
    caller: &Caller,
    parameters: &Parameters,
    ids: BTreeSet<Uuid>,
    not_finite: NotFinite,
) -> Result<Response, Problem> {
    if ids.len() > METRICS_MAX {
        return Err(Problem::bad(format!("more than {METRICS_MAX} metrics in one question")));
    }
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let found = api.index().known_metrics(&api.scope(Action::GetMetric, caller), &ids).await?;
    if let Some((id, _)) = ids.iter().zip(&found).find(|(_, metric)| metric.is_none()) {
        return Err(Problem::missing(format!("Metric {id}")));
    }
    let metrics: Vec<Arc<Metric>> = found.into_iter().flatten().collect();
    let measures = api.engine.aggregation(&metrics, &question(api, parameters)?).await?;
    parameters.flag("refresh")?;
    Ok(tree(&rows(&measures, not_finite)))
}

/// `POST /v1/aggregation/resource/{type}/metric/{name}`.
pub(super) async fn over_resources(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, name)): Path<(String, String)>,
    not_finite: NotFinite,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let scope = api.scope(Action::SearchResource, &caller);
    let search = Search { resource_type: kind, filter: filter_of(&parameters, body)? };
    let groupby = groupby(&parameters);
    let creator = caller.creator();
    let groups = match api.engine.groups_of_metric(&scope, &creator, &search, &groupby, &name).await {
        Err(QueryError::Index(IndexError::Refused { text })) if text.starts_with("Invalid pagination") => {
            return Err(Problem::bad("Invalid groupby attribute"));
        }
        groups => groups?,
    };
    let question = question(&api, &parameters)?;
    if groupby.is_empty() {
        let metrics: Vec<Arc<Metric>> = groups.into_iter().flat_map(|(_, metrics)| metrics).collect();
        let measures = api.engine.aggregation(&metrics, &question).await?;
        parameters.flag("refresh")?;
        return Ok(tree(&rows(&measures, not_finite)));
    }
    let mut parts = Vec::with_capacity(groups.len());
    for (group, metrics) in groups {
        let measures: Vec<AggregatedMeasure> = api.engine.aggregation(&metrics, &question).await?;
        parameters.flag("refresh")?;
        parts.push(group_of(group, rows(&measures, not_finite)));
    }
    Ok(tree(&Tree::List(parts)))
}

fn question(api: &SharedApi, parameters: &Parameters) -> Result<AggregationQuery, Problem> {
    let now = api.clock.now();
    Ok(AggregationQuery {
        needed_overlap: parameters.number("needed_overlap")?.unwrap_or(OVERLAP_DEFAULT),
        start: parameters.time("start", now)?,
        stop: parameters.time("stop", now)?,
        granularity: parameters.span("granularity")?,
        fill: fill(parameters)?,
        resample: resample(parameters)?,
        aggregation: parameters.get("aggregation").unwrap_or("mean").to_owned(),
        reaggregation: parameters.get("reaggregation").map(str::to_owned),
    })
}
