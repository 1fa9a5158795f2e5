//! Resources and metrics in Gnocchi's JSON.

use std::collections::BTreeMap;

use orzo_index::{Metric, Resource, ResourceType, created_by_project, created_by_user};
use serde_json::{Value, json};

use super::archive_policies::policy_json;
use crate::{SharedApi, problem::Problem};

/// Which attributes a list of resources shows.
pub(super) enum Shown {
    /// Only what every resource has: `generic` without details.
    Common,
    /// Those of one type.
    Type(ResourceType),
    /// Those of each resource's own type: `generic` with details.
    Own(BTreeMap<String, ResourceType>),
}

impl Shown {
    /// What a request below this type shows; 404 if there is no such type.
    pub(super) async fn of_type(api: &SharedApi, kind: &str, details: bool) -> Result<Self, Problem> {
        match (kind, details) {
            ("generic", false) => Ok(Self::Common),
            ("generic", true) => {
                let types = api.index().resource_types().await?;
                Ok(Self::Own(types.into_iter().map(|kind| (kind.name.clone(), kind)).collect()))
            }
            _ => Ok(Self::Type(api.index().resource_type(kind).await?)),
        }
    }

    /// A resource with these attributes; what is not set is null.
    pub(super) fn resource(&self, resource: &Resource) -> Value {
        let mut view = resource_json(resource);
        let kind = match self {
            Self::Common => None,
            Self::Type(kind) => Some(kind),
            Self::Own(types) => types.get(&resource.resource_type),
        };
        for name in kind.iter().flat_map(|kind| kind.attributes.keys()) {
            view[name] = resource.attributes.get(name).cloned().unwrap_or(Value::Null);
        }
        view
    }
}

/// A resource without its type's attributes.
fn resource_json(resource: &Resource) -> Value {
    let metrics: serde_json::Map<String, Value> =
        resource.metrics.iter().map(|(name, id)| (name.clone(), id.to_string().into())).collect();
    json!({
        "id": resource.id.to_string(),
        "creator": resource.creator,
        "started_at": resource.started_at.isoformat(),
        "revision_start": resource.revision_start.isoformat(),
        "ended_at": resource.ended_at.map(|time| time.isoformat()),
        "user_id": resource.user_id,
        "project_id": resource.project_id,
        "original_resource_id": resource.original_resource_id,
        "type": resource.resource_type,
        "revision_end": resource.revision_end.map(|time| time.isoformat()),
        "metrics": metrics,
        "created_by_user_id": created_by_user(&resource.creator),
        "created_by_project_id": created_by_project(&resource.creator),
    })
}

/// A metric as lists show it: with its policy.
pub(super) fn metric_row(metric: &Metric) -> Value {
    let mut view = metric_base(metric);
    view["archive_policy"] = policy_json(&metric.archive_policy);
    view["resource_id"] = metric.resource_id.map(|id| id.to_string()).into();
    view
}

/// A metric as it is answered when it was made: with its policy's name.
pub(super) fn metric_created(metric: &Metric) -> Value {
    let mut view = metric_base(metric);
    view["archive_policy_name"] = metric.archive_policy.name.clone().into();
    view["resource_id"] = metric.resource_id.map(|id| id.to_string()).into();
    view
}

/// A metric as it is shown alone: with its policy and its resource.
pub(super) fn metric_full(metric: &Metric, resource: Option<&Resource>) -> Value {
    let mut view = metric_base(metric);
    view["archive_policy"] = policy_json(&metric.archive_policy);
    view["resource"] = resource.map_or(Value::Null, |resource| {
        let mut resource = resource_json(resource);
        if let Value::Object(fields) = &mut resource {
            fields.remove("metrics");
        }
        resource
    });
    view
}

fn metric_base(metric: &Metric) -> Value {
    json!({
        "id": metric.id.to_string(),
        "creator": metric.creator,
        "name": metric.name,
        "unit": metric.unit,
        "created_by_user_id": created_by_user(&metric.creator),
        "created_by_project_id": created_by_project(&metric.creator),
    })
}
