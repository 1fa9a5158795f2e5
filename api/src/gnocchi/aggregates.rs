//! Aggregates over many metrics: `/v1/aggregates`, and the older `/v1/aggregation/...` that Grafana still asks.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use orzo_index::{Filter, Metric};
use orzo_model::{Caller, Scope};
use orzo_query::{
    Aggregated, AggregatesAnswer, AggregatesQuery, Fill, MeasuredSeries, QueryError, Reaggregation, References, Search,
    operations::{Operation, Reference},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    answer::tree,
    fields::Fields,
    measures::rows,
    resources::filter_of,
    views::{Shown, metric_full},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    filter,
    parameters::Parameters,
    policy,
    problem::Problem,
    request::{JsonBody, OptionalJsonBody},
    wire::Tree,
};

/// Metrics in one question of the older kind at most; each is read.
const METRICS_MAX: usize = 1000;
/// The overlap that the older questions ask for unless they say otherwise, in percent.
const OVERLAP_DEFAULT: f64 = 100.0;

/// `POST /v1/aggregates`.
pub(super) async fn compute(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    if parameters.flag("use_history")? {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "use_history is not supported yet: the answer would be by today's attributes, which may be wrong",
        ));
    }
    let details = parameters.flag("details")?;
    let fields = Fields::of(&body)?;
    fields.only(&["operations", "resource_type", "search"])?;
    let search = match (fields.get("search"), fields.get("resource_type")) {
        (None, None) => None,
        _ => {
            let resource_type = fields.required_text("resource_type")?.to_owned();
            let filter = match fields.required("search")? {
                Value::String(text) => Filter::parse(&filter::parse(text)?)?,
                json => Filter::parse(json)?,
            };
            Some(Search { resource_type, filter })
        }
    };
    let operation = Operation::parse(fields.required("operations")?)?;
    let kind = search.as_ref().map(|search| search.resource_type.clone());
    let query = question(&api, &caller, &parameters, operation, search)?;
    let answer = match api.engine.aggregates(&query).await? {
        AggregatesAnswer::Single(one) => shown(&api, one, kind.as_deref(), details).await?,
        AggregatesAnswer::Groups(groups) => {
            let mut parts = Vec::new();
            for (group, one) in groups {
                parts.push(group_of(group, shown(&api, one, kind.as_deref(), details).await?));
            }
            Tree::List(parts)
        }
    };
    Ok(tree(&answer))
}

/// `GET /v1/aggregation/metric?metric=...`.
pub(super) async fn over_metrics(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let ids = parameters.all("metric").map(str::to_owned).collect();
    aggregate_metrics(&api, &caller, &parameters, ids).await
}

/// `POST /v1/aggregation/metric` with a list of UUIDs.
pub(super) async fn over_metrics_of_body(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let ids = body.as_array().ok_or_else(|| Problem::input("expected a list", &[]))?;
    let ids = ids.iter().map(|id| id.as_str().map(str::to_owned).ok_or_else(|| Problem::input("expected str", &[])));
    let ids = ids.collect::<Result<_, _>>()?;
    aggregate_metrics(&api, &caller, &parameters, ids).await
}

/// `POST /v1/aggregation/resource/{type}/metric/{name}`.
pub(super) async fn over_resources(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, name)): Path<(String, String)>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let search = Search { resource_type: kind, filter: filter_of(&parameters, body)? };
    let operation = older_operation(&parameters, vec![name])?;
    let query = older_question(&api, &caller, &parameters, operation, Some(search))?;
    let answer = match api.engine.aggregates(&query).await? {
        AggregatesAnswer::Single(one) => series_of(&one),
        AggregatesAnswer::Groups(groups) => {
            Tree::List(groups.into_iter().map(|(group, one)| group_of(group, series_of(&one))).collect())
        }
    };
    Ok(tree(&answer))
}

async fn aggregate_metrics(
    api: &SharedApi,
    caller: &Caller,
    parameters: &Parameters,
    ids: Vec<String>,
) -> Result<Response, Problem> {
    if ids.is_empty() {
        return Ok(tree(&Tree::Measures(Vec::new())));
    }
    if ids.len() > METRICS_MAX {
        return Err(Problem::bad(format!("more than {METRICS_MAX} metrics in one question")));
    }
    if let Some(id) = ids.iter().find(|id| Uuid::try_parse(id).is_err()) {
        return Err(Problem::missing(format!("Metric {id}")));
    }
    let operation = older_operation(parameters, ids)?;
    let query = older_question(api, caller, parameters, operation, None)?;
    match api.engine.aggregates(&query).await {
        Ok(AggregatesAnswer::Single(one)) => Ok(tree(&series_of(&one))),
        Ok(AggregatesAnswer::Groups(_)) => Err(Problem::bad("Invalid groupby attribute")),
        // The older question says which one, as its clients expect.
        Err(QueryError::Missing { cause, detail, .. }) if cause == "Unknown metrics" => {
            Err(Problem::missing(format!("Metric {}", detail.get(0).and_then(Value::as_str).unwrap_or("?"))))
        }
        Err(error) => Err(error.into()),
    }
}

fn question(
    api: &SharedApi,
    caller: &Caller,
    parameters: &Parameters,
    operation: Operation,
    search: Option<Search>,
) -> Result<AggregatesQuery, Problem> {
    let now = api.clock.now();
    let fill = parameters.get("fill").map(|text| {
        Fill::parse(text).ok_or_else(|| {
            Problem::argument(
                "fill",
                "Must be a float, 'dropna', 'null', 'ffill', 'bfill', 'full_ffill' or 'full_bfill'",
            )
        })
    });
    Ok(AggregatesQuery {
        scope: policy::service_scope(caller),
        creator: Some(caller.creator()),
        operation,
        search,
        groupby: parameters.all("groupby").map(str::to_owned).collect(),
        start: parameters.time("start", now)?,
        stop: parameters.time("stop", now)?,
        granularity: parameters.span("granularity")?,
        fill: fill.transpose()?,
        needed_overlap: parameters.number("needed_overlap")?,
    })
}

fn older_question(
    api: &SharedApi,
    caller: &Caller,
    parameters: &Parameters,
    operation: Operation,
    search: Option<Search>,
) -> Result<AggregatesQuery, Problem> {
    parameters.flag("refresh")?;
    let mut query = question(api, caller, parameters, operation, search)?;
    query.needed_overlap = query.needed_overlap.or(Some(OVERLAP_DEFAULT));
    Ok(query)
}

/// What the older questions mean in the language of the newer ones.
fn older_operation(parameters: &Parameters, names: Vec<String>) -> Result<Operation, Problem> {
    let aggregation = parameters.get("aggregation").unwrap_or("mean");
    let reaggregation = parameters.get("reaggregation").unwrap_or(aggregation);
    let method = Reaggregation::parse(reaggregation)
        .ok_or_else(|| Problem::bad(format!("'{reaggregation}' is not a method to aggregate metrics with")))?;
    let reference = |name| Reference { name, aggregation: aggregation.to_owned() };
    let mut operation = Operation::Metric(names.into_iter().map(reference).collect());
    if let Some(width) = parameters.span("resample")? {
        operation = Operation::Resample(method, width, Box::new(operation));
    }
    Ok(Operation::Aggregate(method, Box::new(operation)))
}

/// One answer of `/v1/aggregates`.
async fn shown(api: &SharedApi, one: Aggregated, kind: Option<&str>, details: bool) -> Result<Tree, Problem> {
    let mut parts = vec![("measures".to_owned(), measures_of(&one.measures))];
    if details {
        let references = match &one.references {
            References::Metrics(metrics) => metric_views(api, metrics).await?,
            References::Resources(resources) => {
                let shown = Shown::of_type(api, kind.unwrap_or("generic"), false).await?;
                resources.iter().map(|resource| shown.resource(resource)).collect()
            }
        };
        parts.push(("references".to_owned(), Tree::Json(references.into())));
    }
    Ok(Tree::Object(parts))
}

async fn metric_views(api: &SharedApi, metrics: &[Metric]) -> Result<Vec<Value>, Problem> {
    let mut views = Vec::new();
    for metric in metrics {
        let resource = match metric.resource_id {
            // Who sees a metric sees what it belongs to.
            Some(id) => Some(api.index().resource(&Scope::All, "generic", id).await?),
            None => None,
        };
        views.push(metric_full(metric, resource.as_ref()));
    }
    Ok(views)
}

fn measures_of(series: &MeasuredSeries) -> Tree {
    match series {
        MeasuredSeries::Aggregated(measures) => {
            Tree::Object(vec![("aggregated".to_owned(), Tree::Measures(rows(measures)))])
        }
        MeasuredSeries::ByMetric(metrics) => {
            let mut tree: BTreeMap<String, Vec<(String, Tree)>> = BTreeMap::new();
            for (id, method, measures) in metrics {
                tree.entry(id.to_string()).or_default().push((method.clone(), Tree::Measures(rows(measures))));
            }
            Tree::Object(tree.into_iter().map(|(id, methods)| (id, Tree::Object(methods))).collect())
        }
        MeasuredSeries::ByResource(metrics) => {
            let mut tree: BTreeMap<String, BTreeMap<String, Vec<(String, Tree)>>> = BTreeMap::new();
            for (resource, name, method, measures) in metrics {
                let methods = tree.entry(resource.to_string()).or_default().entry(name.clone()).or_default();
                methods.push((method.clone(), Tree::Measures(rows(measures))));
            }
            let named = |metrics: BTreeMap<String, Vec<(String, Tree)>>| {
                Tree::Object(metrics.into_iter().map(|(name, methods)| (name, Tree::Object(methods))).collect())
            };
            Tree::Object(tree.into_iter().map(|(id, metrics)| (id, named(metrics))).collect())
        }
    }
}

/// The one series of an older question.
fn series_of(one: &Aggregated) -> Tree {
    match &one.measures {
        MeasuredSeries::Aggregated(measures) => Tree::Measures(rows(measures)),
        other => measures_of(other),
    }
}

fn group_of(group: Map<String, Value>, measures: Tree) -> Tree {
    Tree::Object(vec![("group".to_owned(), Tree::Json(json!(group))), ("measures".to_owned(), measures)])
}
