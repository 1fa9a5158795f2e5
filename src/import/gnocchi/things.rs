//! What has names in a Gnocchi, made here: policies, types, resources with their history, metrics. Each step leaves what is here as it is, so
//! that it can be repeated.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, bail};
use orzo_index::{ImportedMetric, ImportedResource, ImportedRevision, spans};
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Ends, Made, Peer, list, measures::Grain};

/// Resources of one request here, and revisions of them.
const RESOURCES_AT_ONCE: usize = 200;
const REVISIONS_AT_ONCE: usize = 2000;
/// What every resource has; the rest are attributes of its type.
const COMMON: [&str; 13] = [
    "id",
    "creator",
    "started_at",
    "revision_start",
    "ended_at",
    "user_id",
    "project_id",
    "original_resource_id",
    "type",
    "revision_end",
    "metrics",
    "created_by_user_id",
    "created_by_project_id",
];
const JSON: &str = "application/json";

/// A metric there.
#[derive(Clone, Debug)]
pub(super) struct MetricThere {
    pub(super) id: Uuid,
    pub(super) name: Option<String>,
    unit: Option<String>,
    creator: String,
    resource_id: Option<Uuid>,
    policy: String,
    /// What the policy keeps.
    pub(super) methods: Vec<String>,
    /// Finest first.
    pub(super) grains: Vec<Grain>,
}

fn text(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

fn given(value: &Value, field: &str) -> anyhow::Result<String> {
    text(value, field).with_context(|| format!("the answer has something without `{field}`"))
}

fn by_name(list: &[Value]) -> HashMap<&str, &Value> {
    list.iter().filter_map(|one| Some((one["name"].as_str()?, one))).collect()
}

/// Archive policies that are not here.
pub(super) async fn policies(ends: &Ends, made: &mut Made) -> anyhow::Result<()> {
    let there = list(&ends.there.page("v1/archive_policy", "").await?.0)?;
    let here = list(&ends.here.page("v1/archive_policy", "").await?.0)?;
    let here = by_name(&here);
    for policy in &there {
        let name = given(policy, "name")?;
        match here.get(name.as_str()) {
            None => {
                ends.here.submit(Method::POST, "v1/archive_policy", JSON, serde_json::to_vec(policy)?).await?;
            }
            Some(own) if own["definition"] != policy["definition"] => {
                made.notes.push(format!("archive policy {name} is another one here; it stays as it is"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Resource types that are not here, and attributes that theirs have and ours have not; gives the names of all of theirs.
pub(super) async fn types(ends: &Ends, made: &mut Made) -> anyhow::Result<Vec<String>> {
    let there = list(&ends.there.page("v1/resource_type", "").await?.0)?;
    let here = list(&ends.here.page("v1/resource_type", "").await?.0)?;
    let (here, nothing) = (by_name(&here), Map::new());
    let mut names = Vec::new();
    for kind in &there {
        let name = given(kind, "name")?;
        let attributes = kind["attributes"].as_object().unwrap_or(&nothing);
        match here.get(name.as_str()) {
            None => {
                let body = json!({"name": name, "attributes": attributes});
                ends.here.submit(Method::POST, "v1/resource_type", JSON, serde_json::to_vec(&body)?).await?;
            }
            Some(own) => {
                let missing = attributes.iter().filter(|(name, _)| own["attributes"].get(name.as_str()).is_none());
                let patch: Vec<Value> = missing
                    .map(|(name, attribute)| {
                        let mut attribute = attribute.clone();
                        // Resources that are here have no value for it.
                        attribute["required"] = json!(false);
                        json!({"op": "add", "path": format!("/attributes/{name}"), "value": attribute})
                    })
                    .collect();
                if !patch.is_empty() {
                    made.notes.push(format!("resource type {name} has {} attributes more now", patch.len()));
                    let path = format!("v1/resource_type/{name}");
                    let kind = "application/json-patch+json";
                    ends.here.submit(Method::PATCH, &path, kind, serde_json::to_vec(&patch)?).await?;
                }
            }
        }
        names.push(name);
    }
    Ok(names)
}

/// Resources of a type, with their history.
pub(super) async fn resources(ends: &Ends, kind: &str, made: &mut Made) -> anyhow::Result<()> {
    let path = format!("v1/resource/{kind}");
    let mut query = Some("history=true&details=true&sort=id:asc&sort=revision_start:asc&limit=1000".to_owned());
    let (mut whole, mut open): (Vec<ImportedResource>, Option<ImportedResource>) = (Vec::new(), None);
    while let Some(asked) = query {
        let (answer, next) = ends.there.page(&path, &asked).await?;
        if next.as_ref() == Some(&asked) {
            bail!("the next page is this one again");
        }
        query = next;
        // `generic` lists all; those of other types come with their own attributes.
        for revision in list(&answer)?.iter().filter(|revision| revision["type"] == kind) {
            let revision = resource_of(revision)?;
            match &mut open {
                Some(last) if last.id == revision.id => last.revisions.extend(revision.revisions),
                _ => whole.extend(open.replace(revision)),
            }
        }
        let revisions: usize = whole.iter().map(|resource| resource.revisions.len()).sum();
        if whole.len() >= RESOURCES_AT_ONCE || revisions >= REVISIONS_AT_ONCE {
            import_resources(ends, &mut whole, made).await?;
        }
    }
    whole.extend(open);
    import_resources(ends, &mut whole, made).await
}

async fn import_resources(ends: &Ends, whole: &mut Vec<ImportedResource>, made: &mut Made) -> anyhow::Result<()> {
    for part in whole.chunks(RESOURCES_AT_ONCE) {
        let answer = ends
            .store
            .submit(Method::POST, "v1/import", JSON, serde_json::to_vec(&json!({"resources": part}))?)
            .await?;
        made.resources += count(&answer, "resources")?;
    }
    whole.clear();
    Ok(())
}

fn count(answer: &[u8], field: &str) -> anyhow::Result<u64> {
    let answer: Value = serde_json::from_slice(answer).context("the answer is not JSON")?;
    answer[field].as_u64().with_context(|| format!("the answer does not say how many {field}"))
}

fn resource_of(value: &Value) -> anyhow::Result<ImportedResource> {
    let time = |field: &str| -> anyhow::Result<_> { given(value, field)?.parse().with_context(|| field.to_owned()) };
    let attributes = value.as_object().into_iter().flatten();
    let attributes = attributes.filter(|(name, value)| !COMMON.contains(&name.as_str()) && !value.is_null());
    let id = given(value, "id")?;
    Ok(ImportedResource {
        id: id.parse().with_context(|| format!("`{id}` is no UUID"))?,
        resource_type: given(value, "type")?,
        original_resource_id: text(value, "original_resource_id").unwrap_or(id),
        creator: given(value, "creator")?,
        revisions: vec![ImportedRevision {
            project_id: text(value, "project_id"),
            user_id: text(value, "user_id"),
            started_at: time("started_at")?,
            ended_at: if value["ended_at"].is_null() { None } else { Some(time("ended_at")?) },
            revision_start: time("revision_start")?,
            attributes: attributes.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }],
    })
}

/// The list of metrics, page by page.
pub(super) struct MetricPages(Option<String>);

impl MetricPages {
    pub(super) fn new() -> Self {
        Self(Some("sort=id:asc&limit=1000".to_owned()))
    }

    /// The next page; `None` after the last.
    pub(super) async fn next(&mut self, there: &Peer) -> anyhow::Result<Option<Vec<MetricThere>>> {
        let Some(query) = self.0.take() else { return Ok(None) };
        let (answer, next) = there.page("v1/metric", &query).await?;
        if next.as_ref() == Some(&query) {
            bail!("the next page is this one again");
        }
        self.0 = next;
        list(&answer)?.iter().map(metric_of).collect::<anyhow::Result<_>>().map(Some)
    }
}

fn metric_of(value: &Value) -> anyhow::Result<MetricThere> {
    let policy = &value["archive_policy"];
    let methods = policy["aggregation_methods"].as_array().into_iter().flatten();
    let definition = policy["definition"].as_array().context("a metric has no archive policy")?;
    let mut grains = definition.iter().map(grain_of).collect::<anyhow::Result<Vec<_>>>()?;
    grains.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let uuid = |text: &str| text.parse::<Uuid>().with_context(|| format!("`{text}` is no UUID"));
    Ok(MetricThere {
        id: uuid(&given(value, "id")?)?,
        name: text(value, "name"),
        unit: text(value, "unit"),
        creator: given(value, "creator")?,
        resource_id: text(value, "resource_id").map(|id| uuid(&id)).transpose()?,
        policy: given(policy, "name")?,
        methods: methods.filter_map(|method| method.as_str().map(str::to_owned)).collect(),
        grains,
    })
}

fn grain_of(item: &Value) -> anyhow::Result<Grain> {
    let text = given(item, "granularity")?;
    let span: Duration =
        spans::parse_timespan(&item["granularity"]).ok().with_context(|| format!("`{text}` is no granularity"))?;
    let seconds = span.as_secs_f64();
    Ok(Grain { text: format!("{seconds}"), seconds, points: item["points"].as_u64() })
}

/// Metrics that are not here.
pub(super) async fn metrics(ends: &Ends, page: &[MetricThere], made: &mut Made) -> anyhow::Result<()> {
    let metrics = page.iter().map(|metric| ImportedMetric {
        id: metric.id,
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        creator: metric.creator.clone(),
        resource_id: metric.resource_id,
        archive_policy_name: metric.policy.clone(),
    });
    let body = json!({"metrics": metrics.collect::<Vec<_>>()});
    let answer = ends.store.submit(Method::POST, "v1/import", JSON, serde_json::to_vec(&body)?).await?;
    made.metrics += count(&answer, "metrics")?;
    Ok(())
}
