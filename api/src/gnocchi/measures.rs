//! Measures of one metric: added and shown, by its UUID or by its name on a resource.
//!
//! `beyond_policy=true` (Orzo's own) answers from the raw points what the archive policy did not foresee: any
//! granularity, any method, and buckets older than its timespans.

use axum::{
    extract::{Path, State},
    response::Response,
};
use orzo_index::{
    Metric,
    spans::{SpanError, parse_timespan},
};
use orzo_model::Caller;
use orzo_query::{Calendar, MeasuresQuery, Width};

use super::{
    answer::tree,
    batch::post,
    metrics::{by_id, by_name},
    posted::{self, PostedBody},
    rows::{NotFinite, rows},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    policy::{Action, Target},
    problem::Problem,
};

pub(super) async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
    not_finite: NotFinite,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let metric = by_id(&api, &caller, Action::GetMeasures, &id).await?;
    answer(&api, &metric, &parameters, not_finite).await
}

pub(super) async fn show_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id, name)): Path<(String, String, String)>,
    not_finite: NotFinite,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let metric = by_name(&api, &caller, Action::GetMeasures, &kind, &id, &name).await?;
    answer(&api, &metric, &parameters, not_finite).await
}

pub(super) async fn add(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
    body: PostedBody,
) -> Result<Response, Problem> {
    let metric = by_id(&api, &caller, Action::GetMetric, &id).await?;
    keep(&api, &caller, &metric, &body).await
}

pub(super) async fn add_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id, name)): Path<(String, String, String)>,
    body: PostedBody,
) -> Result<Response, Problem> {
    let metric = by_name(&api, &caller, Action::GetMetric, &kind, &id, &name).await?;
    keep(&api, &caller, &metric, &body).await
}

async fn keep(api: &SharedApi, caller: &Caller, metric: &Metric, body: &PostedBody) -> Result<Response, Problem> {
    api.allow(Action::PostMeasures, caller, Target::Metric(metric))?;
    let measures = posted::measures(body, api.clock.now())?;
    post(api, metric, &measures).await
}

async fn answer(
    api: &SharedApi,
    metric: &Metric,
    parameters: &Parameters,
    not_finite: NotFinite,
) -> Result<Response, Problem> {
    let now = api.clock.now();
    // In the order in which Gnocchi finds what is wrong.
    let query = MeasuresQuery {
        resample: resample(parameters)?,
        start: parameters.time("start", now)?,
        stop: parameters.time("stop", now)?,
        granularity: parameters.span("granularity")?,
        aggregation: parameters.get("aggregation").unwrap_or("mean").to_owned(),
        beyond_policy: parameters.flag("beyond_policy")?,
    };
    let measures = api.engine.measures(metric, &query).await?;
    // Nothing waits to be computed, so a refresh has nothing to do; but the word must be one that Gnocchi knows.
    parameters.flag("refresh")?;
    Ok(tree(&rows(&measures, not_finite)))
}

/// The parameter `resample`: a timespan, or a letter of a calendar part. It needs a granularity.
pub(super) fn resample(parameters: &Parameters) -> Result<Option<Width>, Problem> {
    let Some(text) = parameters.get("resample").filter(|text| !text.is_empty()) else { return Ok(None) };
    if parameters.get("granularity").is_none_or(str::is_empty) {
        return Err(Problem::bad("A granularity must be specified to resample"));
    }
    match Calendar::parse(text) {
        Some(part) => Ok(Some(Width::Calendar(part))),
        None => match parse_timespan(&text.into()) {
            Ok(span) => Ok(Some(Width::Span(span))),
            Err(error @ SpanError::TooLong) => Err(Problem::argument("resample", error.to_string())),
            Err(error) => Err(Problem::bad(error.to_string())),
        },
    }
}
