//! Resources and metrics in Gnocchi's JSON.

use std::{collections::BTreeMap, sync::Arc};

use orzo_index::{ArchivePolicy, Metric, Resource, ResourceType, created_by_project, created_by_user};
use orzo_model::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::archive_policies::policy_json;
use crate::{
    SharedApi,
    problem::Problem,
    wire::{Tree, write_json, write_text},
};

/// About what one resource takes in a list.
const RESOURCE_BYTES: usize = 600;

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
        for name in self.attributes(resource) {
            view[name] = resource.attributes.get(name).cloned().unwrap_or(Value::Null);
        }
        view
    }

    /// A list of them, of each only the `wanted` fields if some are named. Written without making a tree first: a list
    /// may be long.
    pub(super) fn resources(&self, resources: &[Resource], wanted: &[&str]) -> Tree {
        let mut out = String::with_capacity(2 + resources.len() * RESOURCE_BYTES);
        out.push('[');
        for (place, resource) in resources.iter().enumerate() {
            out.push_str(if place == 0 { "{" } else { ", {" });
            let mut fields = Fields { out: &mut out, wanted, is_first: true };
            fields.resource(resource);
            for name in self.attributes(resource) {
                let value = resource.attributes.get(name).unwrap_or(&Value::Null);
                fields.put(name, |out| write_json(value, out));
            }
            out.push('}');
        }
        out.push(']');
        Tree::Written(out)
    }

    /// The names of the attributes that are shown of it.
    fn attributes<'a>(&'a self, resource: &Resource) -> impl Iterator<Item = &'a String> + use<'a> {
        let kind = match self {
            Self::Common => None,
            Self::Type(kind) => Some(kind),
            Self::Own(types) => types.get(&resource.resource_type),
        };
        kind.into_iter().flat_map(|kind| kind.attributes.keys())
    }
}

/// Writes the fields of one object.
struct Fields<'a> {
    out: &'a mut String,
    wanted: &'a [&'a str],
    is_first: bool,
}

impl Fields<'_> {
    /// What [`resource_json`] says.
    fn resource(&mut self, resource: &Resource) {
        let mut id = Uuid::encode_buffer();
        self.id("id", Some(resource.id));
        self.text("creator", Some(&resource.creator));
        self.time("started_at", Some(resource.started_at));
        self.time("revision_start", Some(resource.revision_start));
        self.time("ended_at", resource.ended_at);
        self.text("user_id", resource.user_id.as_deref());
        self.text("project_id", resource.project_id.as_deref());
        self.text("original_resource_id", Some(&resource.original_resource_id));
        self.text("type", Some(&resource.resource_type));
        self.time("revision_end", resource.revision_end);
        self.put("metrics", |out| {
            out.push('{');
            for (place, (name, metric)) in resource.metrics.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                write_text(name, out);
                out.push_str(": \"");
                out.push_str(metric.hyphenated().encode_lower(&mut id));
                out.push('"');
            }
            out.push('}');
        });
        self.text("created_by_user_id", Some(created_by_user(&resource.creator)));
        self.text("created_by_project_id", Some(created_by_project(&resource.creator)));
    }

    fn id(&mut self, name: &str, id: Option<Uuid>) {
        let mut text = Uuid::encode_buffer();
        self.text(name, id.map(|id| &*id.hyphenated().encode_lower(&mut text)));
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        self.put(name, |out| match text {
            Some(text) => write_text(text, out),
            None => out.push_str("null"),
        });
    }

    fn time(&mut self, name: &str, time: Option<Timestamp>) {
        self.put(name, |out| match time {
            Some(time) => write_text(&time.isoformat(), out),
            None => out.push_str("null"),
        });
    }

    fn put(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        if self.wanted.is_empty() || self.wanted.contains(&name) {
            self.out.push_str(if self.is_first { "" } else { ", " });
            self.is_first = false;
            write_text(name, self.out);
            self.out.push_str(": ");
            write(self.out);
        }
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

/// Metrics as lists show them: each with its policy. Written without making a tree first, and a policy's text once: a
/// list may be long, and its policies are few.
pub(super) fn metric_rows<'m>(metrics: impl IntoIterator<Item = &'m Metric>) -> Tree {
    let mut out = String::from("[");
    let mut policies: Vec<(&Arc<ArchivePolicy>, String)> = Vec::new();
    for metric in metrics {
        out.push_str(if out.len() == 1 { "{" } else { ", {" });
        let known = policies.iter().position(|(policy, _)| Arc::ptr_eq(policy, &metric.archive_policy));
        let place = known.unwrap_or_else(|| {
            let mut text = String::new();
            write_json(&policy_json(&metric.archive_policy), &mut text);
            policies.push((&metric.archive_policy, text));
            policies.len() - 1
        });
        let mut fields = Fields { out: &mut out, wanted: &[], is_first: true };
        fields.id("id", Some(metric.id));
        fields.text("creator", Some(&metric.creator));
        fields.text("name", metric.name.as_deref());
        fields.text("unit", metric.unit.as_deref());
        fields.text("created_by_user_id", Some(created_by_user(&metric.creator)));
        fields.text("created_by_project_id", Some(created_by_project(&metric.creator)));
        fields.put("archive_policy", |out| out.push_str(&policies[place].1));
        fields.id("resource_id", metric.resource_id);
        out.push('}');
    }
    out.push(']');
    Tree::Written(out)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orzo_index::PolicyItem;

    use super::*;

    #[test]
    fn a_list_shows_what_each_resource_shows() {
        let kind = |name: &str| {
            let attributes =
                json!({"host": {"type": "string", "required": false}, "size": {"type": "number", "required": false}});
            ResourceType::new(name, serde_json::from_value(attributes).expect("attributes")).expect("a type")
        };
        let full = Resource {
            id: Uuid::from_u128(7),
            resource_type: "machine".into(),
            original_resource_id: "a \"quoted\" näme\n\u{7f}".into(),
            creator: "user:project".into(),
            project_id: Some("p".into()),
            user_id: None,
            started_at: Timestamp::from_micros(1_577_836_800_500_000),
            ended_at: None,
            revision_start: Timestamp::from_micros(1_577_836_800_000_000),
            revision_end: Some(Timestamp::from_micros(1_577_836_801_000_000)),
            revision: 1,
            attributes: serde_json::from_value(json!({"host": "h", "other": 1})).expect("an object"),
            metrics: [("cpu".to_owned(), Uuid::from_u128(8)), ("disk".to_owned(), Uuid::from_u128(9))].into(),
        };
        let bare = Resource { creator: "me".into(), metrics: BTreeMap::new(), ..full.clone() };
        let resources = [full, bare];
        let own = [("machine".to_owned(), kind("machine"))].into();
        for shown in [Shown::Common, Shown::Type(kind("machine")), Shown::Own(own), Shown::Own(BTreeMap::new())] {
            let each: Vec<Value> = resources.iter().map(|resource| shown.resource(resource)).collect();
            let text = shown.resources(&resources, &[]).to_text();
            assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), Value::from(each), "{text}");
            let text = shown.resources(&resources, &["type", "user_id", "none"]).to_text();
            assert_eq!(text, r#"[{"user_id": null, "type": "machine"}, {"user_id": null, "type": "machine"}]"#);
        }
        assert_eq!(Shown::Common.resources(&[], &[]).to_text(), "[]");
    }

    #[test]
    fn a_list_of_metrics_shows_each_with_its_own_policy() {
        let policy = |name: &str, points| {
            let item = PolicyItem::new(Some(Duration::from_secs(60)), Some(points), None).expect("an item");
            Arc::new(ArchivePolicy::new(name, 0, vec![item], None, &["mean".to_owned()]).expect("a policy"))
        };
        let (low, high) = (policy("low", 10), policy("h\"igh", 20));
        let metric = |id, name: Option<&str>, resource: Option<u128>, policy: &Arc<ArchivePolicy>| Metric {
            id: Uuid::from_u128(id),
            series: orzo_model::SeriesId(1),
            name: name.map(str::to_owned),
            unit: name.map(|_| "%".to_owned()),
            creator: "user:project".into(),
            archive_policy: Arc::clone(policy),
            resource_id: resource.map(Uuid::from_u128),
            resource_project_id: None,
        };
        let metrics = [
            metric(1, Some("n\u{e4}me"), Some(9), &low),
            metric(2, None, None, &high),
            metric(3, Some("cpu"), None, &policy("low", 30)),
        ];
        let text = metric_rows(&metrics).to_text();
        let expected: Vec<Value> = metrics
            .iter()
            .map(|metric| {
                json!({
                    "id": metric.id.to_string(),
                    "creator": "user:project",
                    "name": metric.name,
                    "unit": metric.unit,
                    "created_by_user_id": "user",
                    "created_by_project_id": "project",
                    "archive_policy": policy_json(&metric.archive_policy),
                    "resource_id": metric.resource_id.map(|id| id.to_string()),
                })
            })
            .collect();
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), Value::from(expected), "{text}");
        assert_eq!(metric_rows(&[]).to_text(), "[]");
    }
}
