//! Resources: made, shown, listed, searched, changed, removed; and their history.

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, header};
use orzo_index::{Filter, MetricSource, NewResource, Page, Resource, ResourceChange, ResourceQuery, Sort};
use orzo_model::{Caller, Scope, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    answer::{created, no_content, ok, set, tree},
    body,
    fields::Fields,
    precondition,
    views::Shown,
};
use crate::{
    SharedApi,
    authenticate::Asker,
    filter,
    parameters::{Paging, Parameters},
    policy::{self, Action, Target},
    problem::Problem,
    request::{JsonBody, Links, OptionalJsonBody},
};

/// The order of lists whose client names none.
const ORDER: [&str; 2] = ["revision_start:asc", "started_at:asc"];

pub(super) async fn create(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(kind): Path<String>,
    links: Links,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    policy::has_project(&caller)?;
    let fields = Fields::of(&body)?;
    let metrics = metrics(&fields, "metrics")?.unwrap_or_default();
    let id = fields.required_text("id")?;
    if id.contains('/') {
        return Err(fields.value_problem("'/' is not supported in resource id", "id"));
    }
    let creator = caller.creator();
    let project_id = fields.text_or_null("project_id")?.flatten();
    let user_id = fields.text_or_null("user_id")?.flatten();
    let mut target = vec![("id", id), ("resource_type", kind.as_str()), ("creator", creator.as_str())];
    target.extend(project_id.map(|project| ("project_id", project)));
    target.extend(user_id.map(|user| ("user_id", user)));
    api.allow(Action::CreateResource, &caller, Target::Fields(&target))?;
    let now = api.clock.now();
    let resource = api
        .index()
        .create_resource(&NewResource {
            id: id.to_owned(),
            resource_type: kind.clone(),
            creator: caller.creator(),
            project_id: project_id.map(str::to_owned),
            user_id: user_id.map(str::to_owned),
            started_at: time(&fields, "started_at", now)?.flatten(),
            ended_at: time(&fields, "ended_at", now)?.flatten(),
            attributes: attributes(&fields),
            metrics,
        })
        .await?;
    let shown = Shown::of_type(&api, &kind, false).await?;
    let location = links.to_metric(&["v1", "resource", &kind, &resource.id.to_string()]);
    Ok(with_tags(created(&location, shown.resource(&resource)), &resource))
}

pub(super) async fn show(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (resource, _) = read(&api, &caller, Action::GetResource, &kind, &id).await?;
    precondition::check(&headers, resource.id, resource.revision_start, true)?;
    let shown = Shown::of_type(&api, &kind, false).await?;
    Ok(with_tags(ok(shown.resource(&resource)), &resource))
}

pub(super) async fn update(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<JsonBody, Problem>,
) -> Result<Response, Problem> {
    // A service reads what it changes.
    let (old, scope) = read(&api, &caller, Action::SearchResource, &kind, &id).await?;
    api.allow(Action::UpdateResource, &caller, Target::Resource(&old))?;
    precondition::check(&headers, old.id, old.revision_start, false)?;
    // What is not there is said before what is wrong with the body.
    let JsonBody(body) = body?;
    let fields = Fields::of(&body)?;
    if fields.get("id").is_some() {
        return Err(fields.problem("extra keys not allowed", "id"));
    }
    let now = api.clock.now();
    let owned = |text: Option<Option<&str>>| text.map(|text| text.map(str::to_owned));
    let change = ResourceChange {
        project_id: owned(fields.text_or_null("project_id")?),
        user_id: owned(fields.text_or_null("user_id")?),
        started_at: time(&fields, "started_at", now)?.flatten(),
        ended_at: time(&fields, "ended_at", now)?,
        attributes: attributes(&fields),
        metrics: metrics(&fields, "metrics")?,
    };
    let is_tagged = change.metrics.is_some() || fields.iter().next().is_none();
    let (resource, changed) = api.index().update_resource(&scope, &kind, old.id, &change).await?;
    let shown = Shown::of_type(&api, &kind, false).await?;
    let response = ok(shown.resource(&resource));
    Ok(if changed || is_tagged { with_tags(response, &resource) } else { response })
}

pub(super) async fn delete(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (resource, scope) = read(&api, &caller, Action::GetResource, &kind, &id).await?;
    api.allow(Action::DeleteResource, &caller, Target::Resource(&resource))?;
    precondition::check(&headers, resource.id, resource.revision_start, false)?;
    api.index().delete_resource(&scope, &kind, resource.id).await?;
    Ok(no_content())
}

pub(super) async fn list(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(kind): Path<String>,
    links: Links,
    parameters: Parameters,
) -> Result<Response, Problem> {
    page(&api, &caller, Action::ListResource, &kind, Filter::Everything, &links, &parameters).await
}

pub(super) async fn search(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(kind): Path<String>,
    links: Links,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let filter = filter_of(&parameters, body)?;
    page(&api, &caller, Action::SearchResource, &kind, filter, &links, &parameters).await
}

pub(super) async fn delete_found(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path(kind): Path<String>,
    parameters: Parameters,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    // An empty search is refused by the index.
    let filter = filter_of(&parameters, body)?;
    // Others' resources of a caller's project may be read, not removed.
    let query = ResourceQuery {
        scope: api.scope(Action::DeleteResources, &caller),
        resource_type: kind,
        filter,
        creator: Some(caller.creator()),
        history: false,
        page: Page::default(),
    };
    let deleted = api.index().delete_resources(&query).await?;
    Ok(ok(json!({"deleted": deleted})))
}

pub(super) async fn history(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    Path((kind, id)): Path<(String, String)>,
    links: Links,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let (resource, scope) = read(&api, &caller, Action::GetResource, &kind, &id).await?;
    let paging = Paging::read(&parameters, api.settings.limit_max)?;
    let shown = Shown::of_type(&api, &kind, parameters.flag("details")?).await?;
    let revisions = api.index().resource_history(&scope, &kind, resource.id, page_of(&paging)?).await?;
    let marker = revisions.last().map(|last| format!("{}@{}", last.id, last.revision));
    let answer = tree(&shown.resources(&revisions, &[]));
    Ok(with_link(answer, &paging, revisions.len(), marker, &links, &parameters))
}

/// One page of what a search finds.
async fn page(
    api: &SharedApi,
    caller: &Caller,
    action: Action,
    kind: &str,
    filter: Filter,
    links: &Links,
    parameters: &Parameters,
) -> Result<Response, Problem> {
    let paging = Paging::read(parameters, api.settings.limit_max)?;
    let history = parameters.flag("history")?;
    let shown = Shown::of_type(api, kind, parameters.flag("details")?).await?;
    let query = ResourceQuery {
        scope: api.scope(action, caller),
        resource_type: kind.to_owned(),
        filter,
        creator: Some(caller.creator()),
        history,
        page: page_of(&paging)?,
    };
    let resources = api.index().resources(&query).await?;
    let marker = resources.last().map(|last| match history {
        true => format!("{}@{}", last.id, last.revision),
        false => last.id.to_string(),
    });
    let wanted: Vec<&str> = parameters.all("attrs").collect();
    let answer = tree(&shown.resources(&resources, &wanted));
    Ok(with_link(answer, &paging, resources.len(), marker, links, parameters))
}

/// A resource that the policy lets the caller read, and how far it may look.
pub(super) async fn read(
    api: &SharedApi,
    caller: &Caller,
    action: Action,
    kind: &str,
    id: &str,
) -> Result<(Resource, Scope), Problem> {
    let scope = api.scope(action, caller);
    let resource = find(api, caller, &scope, kind, id).await?;
    Ok((resource, scope))
}

/// A resource by its UUID or the text that it was created with, if the caller may see it.
pub(super) async fn find(
    api: &SharedApi,
    caller: &Caller,
    scope: &Scope,
    kind: &str,
    id: &str,
) -> Result<Resource, Problem> {
    Ok(api.index().find_resource(scope, kind, &caller.creator(), id).await?)
}

/// The search of a request: `filter=`, or the body, or everything.
pub(super) fn filter_of(parameters: &Parameters, body: Option<Value>) -> Result<Filter, Problem> {
    let json = match (parameters.get("filter"), body) {
        (Some(text), _) => filter::parse(text)?,
        (None, Some(body)) => body,
        (None, None) => json!({}),
    };
    Ok(Filter::parse(&json)?)
}

pub(super) fn page_of(paging: &Paging) -> Result<Page, Problem> {
    Ok(Page {
        limit: Some(paging.limit as usize),
        marker: paging.marker.clone(),
        sort: paging.sorts.iter().map(|sort| Sort::parse(sort)).collect::<Result<_, _>>()?,
    })
}

fn with_link(
    mut response: Response,
    paging: &Paging,
    count: usize,
    marker: Option<String>,
    links: &Links,
    parameters: &Parameters,
) -> Response {
    if let (true, Some(marker)) = (count >= paging.limit as usize, marker) {
        let order: Vec<String> = match paging.sorts.is_empty() {
            true => ORDER.iter().map(|&sort| sort.to_owned()).collect(),
            false => paging.sorts.clone(),
        };
        let link = paging.next_link(&links.here_metric(), parameters, &order, &marker);
        set(&mut response, header::LINK, &link);
    }
    response
}

fn with_tags(mut response: Response, resource: &Resource) -> Response {
    set(&mut response, header::ETAG, &precondition::entity_tag(resource.id, resource.revision_start));
    set(&mut response, header::LAST_MODIFIED, &precondition::last_modified(resource.revision_start));
    response
}

/// A time of a body; `Some(None)` is null.
fn time(fields: &Fields<'_>, name: &str, now: Timestamp) -> Result<Option<Option<Timestamp>>, Problem> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match orzo_index::spans::parse_time(value, now) {
            Ok(time) => Ok(Some(Some(time))),
            Err(_) => Err(fields.value_problem("Must be a datetime or a timestamp", name)),
        },
    }
}

/// The attributes of the resource's type: all that is not common to every resource. The index checks them.
fn attributes(fields: &Fields<'_>) -> Map<String, Value> {
    const COMMON: [&str; 6] = ["id", "project_id", "user_id", "started_at", "ended_at", "metrics"];
    fields
        .iter()
        .filter(|(name, _)| !COMMON.contains(name))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
}

/// `{name: {"archive_policy_name", "unit"} or the UUID of a metric}`.
fn metrics(fields: &Fields<'_>, name: &str) -> Result<Option<Vec<(String, MetricSource)>>, Problem> {
    fields.get(name).map(|value| metric_sources(&Fields::at(value, fields.path_of(name))?)).transpose()
}

/// The metrics that a body names.
pub(super) fn metric_sources(fields: &Fields<'_>) -> Result<Vec<(String, MetricSource)>, Problem> {
    let mut sources = Vec::new();
    for (name, value) in fields.iter() {
        body::metric_name(name).map_err(Problem::bad)?;
        let source = match value {
            Value::String(id) => {
                let id = Uuid::try_parse(id).map_err(|_| fields.problem("not a valid value", name))?;
                MetricSource::Existing(id)
            }
            _ => {
                let inner = Fields::at(value, fields.path_of(name))?;
                inner.only(&["archive_policy_name", "unit", "name"])?;
                MetricSource::New {
                    archive_policy_name: inner.text_or_null("archive_policy_name")?.flatten().map(str::to_owned),
                    unit: body::unit(&inner)?,
                }
            }
        };
        sources.push((name.to_owned(), source));
    }
    Ok(sources)
}
