//! Which metrics a question means: resources found within the scope, their metrics picked by name; and how resources
//! fall into groups.

use std::collections::BTreeMap;

use orzo_index::{Metric, MetricQuery, Page, Resource, ResourceQuery, Sort, policy::glob_matches};
use orzo_model::Scope;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{AggregatesQuery, Search};
use crate::{Engine, QueryError, operations::Reference};

/// A metric that an operand names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) metric: Metric,
    pub(crate) reference: Reference,
}

impl Engine {
    /// The resources of a search, sorted by the attributes of `groupby`.
    pub(super) async fn found(&self, query: &AggregatesQuery, search: &Search) -> Result<Vec<Resource>, QueryError> {
        let mut sort = Vec::new();
        for attribute in &query.groupby {
            sort.push(Sort { key: attribute.clone(), descending: false, nulls_first: None });
        }
        let wanted = ResourceQuery {
            scope: query.scope.clone(),
            resource_type: search.resource_type.clone(),
            filter: search.filter.clone(),
            creator: query.creator.clone(),
            history: false,
            page: Page { limit: None, marker: None, sort },
        };
        let resources = self.index.all_resources(&wanted, self.settings.metrics_max + 1).await?;
        if resources.len() > self.settings.metrics_max {
            return Err(self.too_many());
        }
        Ok(resources)
    }

    /// The metrics that a question with a search names.
    pub(crate) async fn find_named(&self, query: &AggregatesQuery) -> Result<Vec<Named>, QueryError> {
        match &query.search {
            Some(search) => {
                let resources = self.found(query, search).await?;
                self.named(query, &resources).await
            }
            None => Err(QueryError::refused("a search is needed")),
        }
    }

    /// The metrics of the resources that the operands name.
    pub(super) async fn named(
        &self,
        query: &AggregatesQuery,
        resources: &[Resource],
    ) -> Result<Vec<Named>, QueryError> {
        let references = query.operation.references();
        let mut wanted: Vec<(Uuid, &Reference)> = Vec::new();
        for &reference in &references {
            for resource in resources {
                for (name, id) in &resource.metrics {
                    if glob_matches(&reference.name, name) {
                        wanted.push((*id, reference));
                    }
                }
            }
        }
        if wanted.is_empty() {
            return Err(no_metric(query));
        }
        if wanted.len() > self.settings.metrics_max {
            return Err(self.too_many());
        }
        let mut metrics: BTreeMap<Uuid, Metric> = BTreeMap::new();
        // The resources were found within the scope, and their metrics belong to them.
        for chunk in wanted.chunks(1000) {
            let ids = chunk.iter().map(|(id, _)| *id).collect();
            let query = MetricQuery { ids: Some(ids), ..MetricQuery::new(Scope::All) };
            let found = self.index.all_metrics(&query, chunk.len()).await?;
            metrics.extend(found.into_iter().map(|metric| (metric.id, metric)));
        }
        let named: Vec<Named> = wanted
            .into_iter()
            .filter_map(|(id, reference)| {
                metrics.get(&id).map(|metric| Named { metric: metric.clone(), reference: reference.clone() })
            })
            .collect();
        if named.is_empty() { Err(no_metric(query)) } else { Ok(named) }
    }

    fn too_many(&self) -> QueryError {
        QueryError::refused(format!("more than {} metrics; search for fewer resources", self.settings.metrics_max))
    }
}

pub(super) fn no_metric(query: &AggregatesQuery) -> QueryError {
    let names: Vec<String> = query.operation.references().iter().map(|r| format!("'{}'", r.name)).collect();
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
