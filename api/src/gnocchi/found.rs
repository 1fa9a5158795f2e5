//! Measures that other protocols bring, on resources and metrics that are made when they are first named.
//!
//! Reading a body makes a [`Found`]; [`keep`] makes what is missing and keeps the measures, within what the caller may
//! do.

use std::collections::BTreeMap;

use http::StatusCode;
use orzo_index::{IndexError, Metric, MetricSource, NewResource, ResourceType, resource_uuid};
use orzo_model::{Caller, Measure};
use orzo_query::{MeasuresColumn, NamedMetric};
use serde_json::{Map, Value, json};

use crate::{
    SharedApi,
    offered::Offered,
    policy::{Action, Target},
    problem::Problem,
};

/// What a body brings, by resource and metric.
#[derive(Default)]
pub(super) struct Found {
    resources: BTreeMap<String, FoundResource>,
}

#[derive(Default)]
struct FoundResource {
    attributes: Map<String, Value>,
    metrics: BTreeMap<String, Vec<Measure>>,
}

impl Found {
    /// More measures of a metric.
    pub(super) fn add(
        &mut self,
        resource: String,
        attributes: Map<String, Value>,
        metric: String,
        measures: impl Iterator<Item = Measure>,
    ) {
        let resource = self.resources.entry(resource).or_default();
        resource.attributes = attributes;
        resource.metrics.entry(metric).or_default().extend(measures);
    }

    #[cfg(test)]
    pub(super) fn metrics_of(&self, resource: &str) -> Vec<&str> {
        self.resources[resource].metrics.keys().map(String::as_str).collect()
    }
}

/// The resource type, made if it is not there and `kind` gives one.
pub(super) async fn type_or_make(
    api: &SharedApi,
    name: &str,
    kind: impl FnOnce() -> Result<Option<ResourceType>, Problem>,
) -> Result<(), Problem> {
    match api.index().resource_type(name).await {
        Ok(_) => Ok(()),
        Err(error @ IndexError::NotFound { .. }) => match kind()? {
            Some(kind) => match api.index().create_resource_type(&kind).await {
                Ok(()) | Err(IndexError::Exists { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Makes resources and metrics that are missing and keeps the measures, all or none of them.
pub(super) async fn keep(api: &SharedApi, caller: &Caller, resource_type: &str, found: Found) -> Result<(), Problem> {
    let (mut metrics, mut column) = (Vec::new(), MeasuresColumn::default());
    for (text, resource) in found.resources {
        make(api, caller, resource_type, &text, &resource).await?;
        for (name, measures) in resource.metrics {
            metrics.push(NamedMetric { resource: text.clone(), name, ..NamedMetric::default() });
            column.measures.extend(measures);
            column.end_metric();
        }
    }
    let offered = Offered::new(&api.room, column.measures.len() as u64);
    let (scope, creator) = (api.scope(Action::GetMetric, caller), caller.creator());
    let may_write = |metric: &Metric| api.allow(Action::PostMeasures, caller, Target::Metric(metric)).is_ok();
    match api.engine.post_by_resource(&scope, &creator, &metrics, &column, true, may_write).await {
        Ok(()) => {
            offered.stored_all();
            Ok(())
        }
        // Given back: the same request may succeed later.
        Err(error) if error.is_retryable() => Err(error.into()),
        Err(error) => {
            offered.refused_all("not acceptable");
            Err(error.into())
        }
    }
}

async fn make(
    api: &SharedApi,
    caller: &Caller,
    resource_type: &str,
    text: &str,
    found: &FoundResource,
) -> Result<(), Problem> {
    let id = resource_uuid(text, &caller.creator())?;
    let scope = api.scope(Action::SearchResource, caller);
    match api.index().resource(&scope, resource_type, id).await {
        Ok(resource) => return api.allow(Action::UpdateResource, caller, Target::Resource(&resource)),
        Err(IndexError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let creator = caller.creator();
    let target = [("id", text), ("resource_type", resource_type), ("creator", creator.as_str())];
    api.allow(Action::CreateResource, caller, Target::Fields(&target))?;
    let source = MetricSource::New { archive_policy_name: None, unit: None };
    let new = NewResource {
        id: text.to_owned(),
        resource_type: resource_type.to_owned(),
        creator: caller.creator(),
        project_id: None,
        user_id: None,
        started_at: None,
        ended_at: None,
        attributes: found.attributes.clone(),
        metrics: found.metrics.keys().map(|name| (name.clone(), source.clone())).collect(),
    };
    match api.index().create_resource(&new).await {
        Ok(_) => Ok(()),
        Err(IndexError::Exists { .. }) => {
            // Of another type, of somebody else, or made by another request a moment ago; only then it is ours now.
            if api.index().resource(&scope, resource_type, id).await.is_ok() {
                return Ok(());
            }
            let description = json!({"cause": "Resource already exists", "detail": id.to_string()});
            Err(Problem::new(StatusCode::CONFLICT, description))
        }
        Err(error) => Err(error.into()),
    }
}
