//! How many series there are, by project, by type of resource and by meter: whose names grow, and where.
//!
//! Metrics of resources are counted in the index, within what the caller may see; label sets (remote write, line protocol)
//! are those of the caller's own project, as everywhere.

use std::{cmp::Reverse, collections::HashMap};

use axum::{Json, extract::State};
use http::StatusCode;
use orzo_index::MetricCount;
use orzo_model::Scope;
use serde_json::{Value, json};

use crate::{SharedApi, authenticate::Asker, policy::Action, problem::Problem};

/// Different triples of project, type and name that are counted.
const GROUPS_MAX: usize = 100_000;
/// Label sets that are counted; with more, the figures are of these.
const LABELLED_MAX: usize = 200_000;
/// Rows of each table.
const ROWS_MAX: usize = 200;

/// `GET /page/v1/cardinality`
pub(super) async fn cardinality(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Json<Value>, Problem> {
    let scope = api.scope(Action::GetMeasures, &caller);
    let mut counts = api.index().metric_counts(&scope, GROUPS_MAX).await?;
    let is_cut = counts.len() >= GROUPS_MAX;
    if let (Ok(labels), Some(project)) = (api.engine.labels(), caller.project_id.clone()) {
        let labels = labels.clone();
        let counted = tokio::task::spawn_blocking(move || {
            let found = labels.find(&Scope::Project(project.clone()), &[], LABELLED_MAX);
            let mut names: HashMap<String, u64> = HashMap::new();
            for one in &found {
                let name = one.labels.iter().find(|(name, _)| name.as_str() == "__name__");
                *names.entry(name.map(|(_, value)| value.as_str().to_owned()).unwrap_or_default()).or_default() += 1;
            }
            let count = |(name, count)| MetricCount {
                project_id: Some(project.clone()),
                resource_type: Some(LABELLED.to_owned()),
                name: Some(name),
                count,
            };
            names.into_iter().map(count).collect::<Vec<_>>()
        });
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
        counts.extend(counted.await.map_err(failed)?);
    }
    Ok(Json(told(&counts, is_cut)))
}

/// What stands for a type of resource where there is no resource.
const LABELLED: &str = "label sets";

fn told(counts: &[MetricCount], is_cut: bool) -> Value {
    let by = |key: &dyn Fn(&MetricCount) -> Option<&str>| {
        let mut sums: HashMap<&str, (u64, HashMap<&str, u64>)> = HashMap::new();
        for one in counts {
            let entry = sums.entry(key(one).unwrap_or("")).or_default();
            entry.0 += one.count;
            *entry.1.entry(one.name.as_deref().unwrap_or("")).or_default() += one.count;
        }
        let different = sums.len();
        let mut rows: Vec<_> = sums.into_iter().map(|(name, (count, names))| (name, count, names.len())).collect();
        rows.sort_unstable_by_key(|(name, count, _)| (Reverse(*count), *name));
        let rows: Vec<Value> = rows
            .into_iter()
            .take(ROWS_MAX)
            .map(|(name, count, meters)| json!({"name": name, "series": count, "meters": meters}))
            .collect();
        json!({"rows": rows, "different": different})
    };
    json!({
        "series": counts.iter().map(|one| one.count).sum::<u64>(),
        "is_cut": is_cut,
        "by_project": by(&|one| one.project_id.as_deref()),
        "by_type": by(&|one| one.resource_type.as_deref()),
        "by_meter": by(&|one| one.name.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_project_type_and_meter() {
        let count = |project: &str, kind: &str, name: &str, count| MetricCount {
            project_id: Some(project.to_owned()),
            resource_type: Some(kind.to_owned()),
            name: Some(name.to_owned()),
            count,
        };
        let counts = [
            count("a", "instance", "cpu", 3),
            count("a", "instance_disk", "disk.device.usage", 5),
            count("b", "instance", "cpu", 4),
        ];
        let told = told(&counts, false);
        assert_eq!(told["series"], 12);
        assert_eq!(told["by_project"]["rows"][0], json!({"name": "a", "series": 8, "meters": 2}));
        assert_eq!(told["by_type"]["rows"][0], json!({"name": "instance", "series": 7, "meters": 1}));
        assert_eq!(told["by_meter"]["different"], 2);
    }
}
