//! Metrics: made, shown, listed, removed; free or by the name they have on a resource.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{StatusCode, header};
use orzo_index::{Metric, MetricQuery, NewMetric, resource_uuid};
use orzo_model::{Caller, Scope};
use serde_json::Value;
use uuid::Uuid;

use super::{
    answer::{created, no_content, ok, set, tree},
    body,
    fields::Fields,
    resources::{find, metric_sources, page_of, read},
    views::{metric_created, metric_full, metric_rows},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::{Paging, Parameters},
    policy::{self, Action, Target},
    problem::Problem,
    request::{JsonBody, Links},
};

/// The order of a list whose client names none.
const ORDER: &str = "id:asc";

pub(super) async fn list(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    links: Links,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let paging = Paging::read(&parameters, api.settings.limit_max)?;
    let filter = |name: &str| match parameters.all(name).count() {
        0 | 1 => Ok(parameters.get(name).map(str::to_owned)),
        _ => Err(Problem::bad(format!("Invalid input: expected str for dictionary value @ data['{name}']"))),
    };
    let ids = match filter("id")? {
        None => None,
        Some(id) => Some(vec![
            Uuid::try_parse(&id)
                .map_err(|_| Problem::bad("Invalid input: not a valid value for dictionary value @ data['id']"))?,
        ]),
    };
    let deleted = match filter("status")?.as_deref() {
        None | Some("active") => false,
        Some("delete") => true,
        Some(_) => return Err(Problem::bad("Invalid input: not a valid value for dictionary value @ data['status']")),
    };
    let query = MetricQuery {
        ids,
        name: filter("name")?,
        unit: filter("unit")?,
        creator: filter("creator")?,
        user_id: filter("user_id")?,
        project_id: filter("project_id")?,
        archive_policy_name: filter("archive_policy_name")?,
        deleted,
        page: page_of(&paging)?,
        ..MetricQuery::new(api.scope(Action::ListMetric, &caller))
    };
    let metrics = api.index().metrics(&query).await?;
    let mut response = tree(&metric_rows(&metrics));
    if let (true, Some(last)) = (metrics.len() >= paging.limit as usize, metrics.last()) {
        let order = if paging.sorts.is_empty() { vec![ORDER.to_owned()] } else { paging.sorts.clone() };
        let link = paging.next_link(&links.here_metric(), &parameters, &order, &last.id.to_string());
        set(&mut response, header::LINK, &link);
    }
    Ok(response)
}

pub(super) async fn create(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    policy::has_project(&caller)?;
    let fields = Fields::of(&body)?;
    fields.only(&["archive_policy_name", "name", "resource_id", "unit"])?;
    let mut new = NewMetric {
        creator: caller.creator(),
        name: fields.text_or_null("name")?.flatten().map(str::to_owned),
        unit: body::unit(&fields)?,
        resource_id: None,
        archive_policy_name: fields.text_or_null("archive_policy_name")?.flatten().map(str::to_owned),
    };
    if let Some(resource) = fields.text_or_null("resource_id")?.flatten() {
        resource_uuid(resource, &new.creator)
            .map_err(|error| fields.value_problem(&error.to_string(), "resource_id"))?;
        let (resource, _) = read(&api, &caller, Action::SearchResource, "generic", resource).await?;
        api.allow(Action::UpdateResource, &caller, Target::Resource(&resource))?;
        new.resource_id = Some(resource.id);
    }
    let mut target = vec![("creator", new.creator.as_str())];
    target.extend(new.archive_policy_name.as_deref().map(|name| ("archive_policy_name", name)));
    target.extend(new.name.as_deref().map(|name| ("name", name)));
    api.allow(Action::CreateMetric, &caller, Target::Fields(&target))?;
    let metric = api.index().create_metric(&new).await?;
    let location = links.to_metric(&["v1", "metric", &metric.id.to_string()]);
    Ok(created(&location, metric_created(&metric)))
}

pub(super) async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    full(&api, by_id(&api, &caller, Action::GetMetric, &id).await?).await
}

pub(super) async fn delete(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    remove(&api, &caller, by_id(&api, &caller, Action::GetMetric, &id).await?).await
}

pub(super) async fn list_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (resource, _) = read(&api, &caller, Action::GetResource, &kind, &id).await?;
    let metrics = all_of_resource(&api, resource.id).await?;
    Ok(tree(&metric_rows(&metrics)))
}

pub(super) async fn add_to_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let (resource, scope) = read(&api, &caller, Action::SearchResource, &kind, &id).await?;
    api.allow(Action::UpdateResource, &caller, Target::Resource(&resource))?;
    let sources = metric_sources(&Fields::of(&body)?)?;
    api.index().add_resource_metrics(&scope, resource.id, &caller.creator(), &sources).await?;
    let mut metrics = all_of_resource(&api, resource.id).await?;
    // The new ones first: the command line client shows the first of the list as the one that it has made.
    let is_new = |metric: &Metric| sources.iter().any(|(name, _)| Some(name) == metric.name.as_ref());
    metrics.sort_by_key(|metric| !is_new(metric));
    Ok(tree(&metric_rows(&metrics)))
}

pub(super) async fn show_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    full(&api, by_name(&api, &caller, Action::GetMetric, &kind, &id, &name).await?).await
}

pub(super) async fn delete_of_resource(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id, name)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    remove(&api, &caller, by_name(&api, &caller, Action::GetMetric, &kind, &id, &name).await?).await
}

/// A metric by its UUID, if the caller may see it; `action` is what for.
pub(super) async fn by_id(api: &SharedApi, caller: &Caller, action: Action, id: &str) -> Result<Arc<Metric>, Problem> {
    let uuid = Uuid::try_parse(id).map_err(|_| Problem::missing(format!("Metric {id}")))?;
    Ok(api.index().known_metric(&api.scope(action, caller), uuid).await?)
}

/// A metric by its name on a resource, if the caller may see both.
pub(super) async fn by_name(
    api: &SharedApi,
    caller: &Caller,
    action: Action,
    kind: &str,
    id: &str,
    name: &str,
) -> Result<Arc<Metric>, Problem> {
    let scope = api.scope(action, caller);
    if let Ok(resource) = resource_uuid(id, &caller.creator())
        && let Some(metric) = api.index().known_metrics_of(&scope, &[(resource, name)]).await?.pop().flatten()
    {
        return Ok(metric);
    }
    // It may be a resource that somebody else made under this text; if not, this says what is missing.
    let resource = find(api, caller, &scope, kind, id).await?;
    Ok(Arc::new(api.index().metric_of_resource(&scope, resource.id, name).await?))
}

/// All metrics of a resource that the caller may see; who sees a resource sees its metrics.
async fn all_of_resource(api: &SharedApi, resource_id: Uuid) -> Result<Vec<Metric>, Problem> {
    let query = MetricQuery { resource_ids: Some(vec![resource_id]), ..MetricQuery::new(Scope::All) };
    Ok(api.index().all_metrics(&query, RESOURCE_METRICS_MAX).await?)
}

/// A resource has some dozens of metrics; more than this in one answer would only be an accident.
const RESOURCE_METRICS_MAX: usize = 10_000;

async fn full(api: &SharedApi, metric: Arc<Metric>) -> Result<Response, Problem> {
    let resource = match metric.resource_id {
        // Who sees a metric sees what it belongs to.
        Some(id) => Some(api.index().resource(&Scope::All, "generic", id).await?),
        None => None,
    };
    let view: Value = metric_full(&metric, resource.as_ref());
    Ok(ok(view))
}

async fn remove(api: &SharedApi, caller: &Caller, metric: Arc<Metric>) -> Result<StatusCode, Problem> {
    api.allow(Action::DeleteMetric, caller, Target::Metric(&metric))?;
    api.index().delete_metric(&api.scope(Action::GetMetric, caller), metric.id).await?;
    Ok(no_content())
}
