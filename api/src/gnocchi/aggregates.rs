//! `POST /v1/aggregates`: dynamic aggregates over many metrics.
//!
//! Orzo's own parameters: `beyond_policy=true` answers from the raw points what archive policies did not foresee;
//! `top=N` or `bottom=N` keeps the largest or smallest of several series or groups, by `top_by=mean|max|min|sum|last`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use http::StatusCode;
use orzo_index::{Filter, IndexError, Metric};
use orzo_model::Scope;
use orzo_query::{
    Aggregated, AggregatesAnswer, AggregatesQuery, Fill, MeasuredSeries, QueryError, References, Search, Top, TopBy,
    operations::Operation,
};
use serde_json::{Map, Value, json};

use super::{
    answer::tree,
    fields::Fields,
    rows::{NotFinite, rows},
    views::{Shown, metric_full},
};
use crate::{
    SharedApi, authenticate::Asker, filter, parameters::Parameters, policy::Action, problem::Problem,
    request::OptionalJsonBody, wire::Tree,
};

/// `POST /v1/aggregates`. Parameters are looked at before the body, as Gnocchi does.
pub(super) async fn compute(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    not_finite: NotFinite,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let use_history = parameters.flag("use_history")?;
    let details = parameters.flag("details")?;
    let now = api.clock.now();
    let mut query = AggregatesQuery {
        scope: api.scope(Action::GetMetric, &caller),
        creator: Some(caller.creator()),
        groupby: groupby(&parameters),
        use_history,
        needed_overlap: parameters.number("needed_overlap")?,
        start: parameters.time("start", now)?,
        stop: parameters.time("stop", now)?,
        granularity: parameters.span("granularity")?,
        fill: fill(&parameters)?,
        beyond_policy: parameters.flag("beyond_policy")?,
        top: top(&parameters)?,
        details,
        ..AggregatesQuery::default()
    };
    let body = body.unwrap_or(Value::Null);
    let fields = Fields::of(&body)?;
    fields.only(&["operations", "resource_type", "search"])?;
    query.operation = Operation::parse(fields.required("operations")?)?;
    query.search = match (fields.get("search"), fields.get("resource_type")) {
        (None, None) => None,
        _ => {
            let resource_type = fields.required_text("resource_type")?.to_owned();
            let filter = match fields.required("search")? {
                Value::String(text) => Filter::parse(&filter::parse(text)?)?,
                json => Filter::parse(json)?,
            };
            query.scope = api.scope(Action::SearchResource, &caller);
            Some(Search { resource_type, filter })
        }
    };
    let kind = query.search.as_ref().map(|search| search.resource_type.as_str());
    let answer = match api.engine.aggregates(&query).await {
        // Of a type that is not there Gnocchi says here that the request is wrong.
        Err(QueryError::Index(IndexError::NotFound { what })) if what.starts_with("Resource type ") => {
            let name = what.trim_start_matches("Resource type ");
            let description = json!({"cause": "Resource type does not exist", "detail": name});
            return Err(Problem::new(StatusCode::BAD_REQUEST, description));
        }
        answer => answer?,
    };
    let answer = match answer {
        AggregatesAnswer::Single(one) => shown(&api, one, kind, details, not_finite).await?,
        AggregatesAnswer::Groups(groups) => {
            let mut parts = Vec::with_capacity(groups.len());
            for (group, one) in groups {
                parts.push(group_of(group, shown(&api, one, kind, details, not_finite).await?));
            }
            Tree::List(parts)
        }
    };
    Ok(tree(&answer))
}

/// The attributes to group by, each once.
pub(super) fn groupby(parameters: &Parameters) -> Vec<String> {
    let mut names: Vec<String> = parameters.all("groupby").map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// The parameter `fill`.
pub(super) fn fill(parameters: &Parameters) -> Result<Option<Fill>, Problem> {
    let read = |text: &str| {
        Fill::parse(text).ok_or_else(|| {
            Problem::argument(
                "fill",
                "Must be a float, 'dropna', 'null', 'ffill', 'bfill', 'full_ffill' or 'full_bfill'",
            )
        })
    };
    parameters.get("fill").map(read).transpose()
}

/// The parameters `top` or `bottom`, and `top_by`.
fn top(parameters: &Parameters) -> Result<Option<Top>, Problem> {
    let (name, text) = match (parameters.get("top"), parameters.get("bottom")) {
        (Some(text), None) => ("top", text),
        (None, Some(text)) => ("bottom", text),
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Problem::argument("bottom", "Cannot be asked for together with top")),
    };
    let count = text.trim().parse().ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| Problem::argument(name, "Must be a whole number above 0"))?;
    let by = match parameters.get("top_by") {
        None => TopBy::default(),
        Some(text) => TopBy::parse(text)
            .ok_or_else(|| Problem::argument("top_by", "Must be 'mean', 'max', 'min', 'sum' or 'last'"))?,
    };
    Ok(Some(Top { count, smallest: name == "bottom", by }))
}

/// One answer of `/v1/aggregates`.
async fn shown(
    api: &SharedApi,
    one: Aggregated,
    kind: Option<&str>,
    details: bool,
    not_finite: NotFinite,
) -> Result<Tree, Problem> {
    let mut parts = vec![("measures".to_owned(), measures_of(&one.measures, not_finite))];
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

async fn metric_views(api: &SharedApi, metrics: &[Arc<Metric>]) -> Result<Vec<Value>, Problem> {
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

fn measures_of(series: &MeasuredSeries, not_finite: NotFinite) -> Tree {
    match series {
        MeasuredSeries::Aggregated(measures) => {
            Tree::Object(vec![("aggregated".to_owned(), rows(measures, not_finite))])
        }
        MeasuredSeries::ByMetric(metrics) => {
            let mut tree: BTreeMap<String, Vec<(String, Tree)>> = BTreeMap::new();
            for (id, method, measures) in metrics {
                tree.entry(id.to_string()).or_default().push((method.clone(), rows(measures, not_finite)));
            }
            Tree::Object(tree.into_iter().map(|(id, methods)| (id, Tree::Object(methods))).collect())
        }
        MeasuredSeries::ByResource(metrics) => {
            let mut tree: BTreeMap<String, BTreeMap<String, Vec<(String, Tree)>>> = BTreeMap::new();
            for (resource, name, method, measures) in metrics {
                let methods = tree.entry(resource.to_string()).or_default().entry(name.clone()).or_default();
                methods.push((method.clone(), rows(measures, not_finite)));
            }
            let named = |metrics: BTreeMap<String, Vec<(String, Tree)>>| {
                Tree::Object(metrics.into_iter().map(|(name, methods)| (name, Tree::Object(methods))).collect())
            };
            Tree::Object(tree.into_iter().map(|(id, metrics)| (id, named(metrics))).collect())
        }
    }
}

pub(super) fn group_of(group: Map<String, Value>, measures: Tree) -> Tree {
    Tree::Object(vec![("group".to_owned(), Tree::Json(json!(group))), ("measures".to_owned(), measures)])
}
