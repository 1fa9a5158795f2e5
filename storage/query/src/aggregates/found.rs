//! Which metrics a question means: resources found within the scope, their metrics picked by name; and how resources
//! fall into groups.

use std::sync::Arc;

use orzo_index::{Filter, Metric, Page, Resource, ResourceQuery, Sort, policy::glob_matches};
use orzo_model::Scope;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{AggregatesQuery, Search};
use crate::{Engine, QueryError, operations::Reference};

/// A metric that an operand names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) metric: Arc<Metric>,
    pub(crate) reference: Reference,
}

impl Named {
    /// What errors call it: its name on a resource, or its id.
    pub(super) fn shown_name(&self) -> String {
        match (&self.metric.resource_id, &self.metric.name) {
            (Some(_), Some(name)) if self.reference.name != self.metric.id.to_string() => name.clone(),
            _ => self.metric.id.to_string(),
        }
    }
}

impl Engine {
    /// The resources of a search, sorted by the attributes of `groupby`; without their metrics.
    pub(super) async fn found(&self, query: &AggregatesQuery, search: &Search) -> Result<Vec<Resource>, QueryError> {
        self.found_revisions(query, search, search.filter.clone(), false).await
    }

    /// The same with another filter; `history`: every revision of them.
    pub(super) async fn found_revisions(
        &self,
        query: &AggregatesQuery,
        search: &Search,
        filter: Filter,
        history: bool,
    ) -> Result<Vec<Resource>, QueryError> {
        let mut sort = Vec::new();
        for attribute in &query.groupby {
            sort.push(Sort::ascending(attribute));
        }
        let wanted = ResourceQuery {
            scope: query.scope.clone(),
            resource_type: search.resource_type.clone(),
            filter,
            creator: query.creator.clone(),
            history,
            page: Page { limit: None, marker: None, sort },
        };
        let resources = self.index.bare_resources(&wanted, self.settings.resources_max + 1).await?;
        if resources.len() > self.settings.resources_max {
            let reason = format!("more than {} resources; search for fewer", self.settings.resources_max);
            return Err(QueryError::refused(reason));
        }
        Ok(resources)
    }

    /// The metrics that a question without a search names.
    pub(super) async fn named_by_ids(&self, query: &AggregatesQuery) -> Result<Vec<Named>, QueryError> {
        let references = query.operation.references();
        let mut ids = Vec::with_capacity(references.len());
        for reference in &references {
            ids.push(Uuid::parse_str(&reference.name).map_err(|_| {
                let detail = json!(references.iter().map(|r| json!([r.name, r.aggregation])).collect::<Vec<_>>());
                QueryError::invalid("Invalid metric references", "badly formed hexadecimal UUID string", detail)
            })?);
        }
        if ids.len() > self.settings.metrics_max {
            return Err(self.too_many());
        }
        let found = self.index.known_metrics(&query.scope, &ids).await?;
        let mut unknown: Vec<String> =
            ids.iter().zip(&found).filter(|(_, metric)| metric.is_none()).map(|(id, _)| id.to_string()).collect();
        if !unknown.is_empty() {
            unknown.sort();
            unknown.dedup();
            return Err(QueryError::Missing {
                cause: "Unknown metrics".into(),
                reason: "Provided metrics don't exists".into(),
                detail: json!(unknown),
            });
        }
        let named = found.into_iter().flatten().zip(&references);
        Ok(named.map(|(metric, &reference)| Named { metric, reference: reference.clone() }).collect())
    }

    /// The metrics that the operands name, of each list of resources: by resource, then by operand, then in the order
    /// in which they were made (as Gnocchi's table has them; of several columns an operation between two shows the first).
    pub(super) async fn named(
        &self,
        query: &AggregatesQuery,
        lists: &[&[Resource]],
    ) -> Result<Vec<Vec<Named>>, QueryError> {
        let references = query.operation.references();
        let mut wanted: Vec<Vec<(Uuid, usize, &Reference)>> = Vec::with_capacity(lists.len());
        let mut count = 0;
        for resources in lists {
            let mut list = Vec::new();
            let operands = resources.iter().flat_map(|resource| references.iter().map(move |&named| (resource, named)));
            for (place, (resource, reference)) in operands.enumerate() {
                let named = resource.metrics.iter().filter(|(name, _)| glob_matches(&reference.name, name));
                list.extend(named.map(|(_, id)| (*id, place, reference)));
            }
            count += list.len();
            wanted.push(list);
        }
        if count > self.settings.metrics_max {
            return Err(self.too_many());
        }
        // The resources were found within the scope, and their metrics belong to them.
        let ids: Vec<Uuid> = wanted.iter().flatten().map(|(id, ..)| *id).collect();
        let mut metrics = self.index.known_metrics(&Scope::All, &ids).await?.into_iter();
        let mut answer = Vec::with_capacity(wanted.len());
        for list in wanted {
            let mut found: Vec<_> = (list.into_iter().zip(metrics.by_ref()))
                .filter_map(|((_, place, reference), metric)| Some((place, metric?, reference)))
                .collect();
            found.sort_by_key(|(place, metric, _)| (*place, metric.series));
            answer.push(
                found
                    .into_iter()
                    .map(|(_, metric, reference)| Named { metric, reference: reference.clone() })
                    .collect(),
            );
        }
        Ok(answer)
    }

    pub(super) fn too_many(&self) -> QueryError {
        QueryError::refused(format!("more than {} metrics; search for fewer resources", self.settings.metrics_max))
    }
}

/// The names that the operands mean; `None` if one has a wildcard.
pub(super) fn names_of(query: &AggregatesQuery) -> Option<Vec<String>> {
    let references = query.operation.references();
    let is_plain = |name: &str| !name.contains(['*', '?', '[']);
    let plain = references.iter().all(|reference| is_plain(&reference.name));
    let mut names: Vec<String> = references.into_iter().filter(|_| plain).map(|one| one.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    plain.then_some(names)
}

pub(super) fn no_metric(query: &AggregatesQuery) -> QueryError {
    let mut names: Vec<String> = query.operation.references().iter().map(|r| format!("'{}'", r.name)).collect();
    names.sort();
    names.dedup();
    QueryError::NotFound { text: format!("Metric [{}] does not exist", names.join(", ")) }
}

pub(super) fn group_of(resource: &Resource, groupby: &[String]) -> Map<String, Value> {
    groupby.iter().map(|name| (name.clone(), attribute(resource, name))).collect()
}

/// A resource's attribute as the API shows it.
fn attribute(resource: &Resource, name: &str) -> Value {
    match name {
        "id" => json!(resource.id.to_string()),
        "type" => json!(resource.resource_type),
        "original_resource_id" => json!(resource.original_resource_id),
        "creator" => json!(resource.creator),
        "created_by_user_id" => json!(orzo_index::created_by_user(&resource.creator)),
        "created_by_project_id" => json!(orzo_index::created_by_project(&resource.creator)),
        "project_id" => json!(resource.project_id),
        "user_id" => json!(resource.user_id),
        "started_at" => json!(resource.started_at),
        "ended_at" => json!(resource.ended_at),
        "revision_start" => json!(resource.revision_start),
        name => resource.attributes.get(name).cloned().unwrap_or(Value::Null),
    }
}
