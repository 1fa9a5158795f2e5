//! Why a meter is missing: what each room knows of it, from who makes it to who may see it.
//!
//! In: a meter's name, and perhaps a resource. Out: facts, in the order of the rooms; the page puts them into words. A
//! caller hears of its own project only: of a meter in another one it is told what it is told of one that is nowhere.

use std::sync::Arc;

use axum::{Json, extract::State};
use orzo_labels::LabelIndex;
use orzo_model::{Scope, Timestamp};
use orzo_promql::{Matcher, MatcherGroup, Operator};
use orzo_query::book_of;
use serde_json::{Value, json};

use super::pipeline::{KnownMeter, refused_json, seconds};
use crate::{
    SharedApi,
    authenticate::Asker,
    parameters::Parameters,
    policy::{self, Action},
    problem::Problem,
    prometheus::query::named,
};

/// Series whose newest point is looked for.
const SERIES_MAX: usize = 5_000;
/// Series that are shown, those that have been silent for longest.
const SHOWN_MAX: usize = 20;
/// Names that may have been meant.
const SIMILAR_MAX: usize = 8;
/// Longer than any name.
const TEXT_BYTES_MAX: usize = 1024;

/// `GET /page/v1/missing?meter=cpu_util&resource=ID`
pub(super) async fn missing(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    let given = |name: &str| parameters.get(name).map(str::trim).filter(|text| !text.is_empty());
    let Some(meter) = given("meter") else { return Err(Problem::argument("meter", "a meter's name is needed")) };
    let resource = given("resource");
    if meter.len() > TEXT_BYTES_MAX || resource.is_some_and(|id| id.len() > TEXT_BYTES_MAX) {
        return Err(Problem::argument("meter", format!("longer than {TEXT_BYTES_MAX} bytes")));
    }
    let is_operator = policy::operator(&caller).is_ok();
    let names = named(&api, &caller);
    let found = names.find(&groups(meter, resource), SERIES_MAX).await?;
    let series: Vec<_> = found.iter().map(|(series, _)| *series).collect();
    let last_at = names.last_times(&series).await?;
    let newest = last_at.iter().flatten().max().copied();
    let mut rows: Vec<_> = found.iter().map(|(_, labels)| labels).zip(&last_at).collect();
    rows.sort_by_key(|(_, at)| at.unwrap_or(Timestamp::MIN));
    let shown: Vec<Value> = rows
        .iter()
        .take(SHOWN_MAX)
        .map(|(labels, at)| {
            let name = ["display_name", "host_name", "name"].map(|label| labels.get(label));
            json!({
                "resource_id": labels.get("resource_id"), "type": labels.get("type"),
                "name": name.iter().find(|name| !name.is_empty()), "last_at": at.map(seconds),
            })
        })
        .collect();
    let resource_row = match resource {
        Some(id) => {
            let scope = api.scope(Action::GetResource, &caller);
            let creator = caller.creator();
            let resource = api.index().find_resource(&scope, "generic", &creator, id).await;
            resource.ok().map(|one| {
                json!({
                    "id": one.id.to_string(), "type": one.resource_type, "project_id": one.project_id,
                    "started_at": seconds(one.started_at), "ended_at": one.ended_at.map(seconds),
                })
            })
        }
        None => None,
    };
    let is_own = |project: Option<&str>| is_operator || (project.is_some() && project == caller.project_id.as_deref());
    let fits = |name: &str| name == meter || underscored(name) == underscored(meter);
    let refused: Vec<Value> = api
        .rooms
        .refused_lately()
        .iter()
        .filter(|one| fits(&one.last.meter) && is_own(one.last.project_id.as_deref()))
        .filter(|one| resource.is_none_or(|id| one.last.resource_id == id || one.last.resource_id.contains(id)))
        .map(refused_json)
        .collect();
    let seen: Vec<Value> = api
        .rooms
        .seen(fits)
        .iter()
        // What others send is not told; how the cloud's own agents fare is, but not in what words it failed.
        .filter(|one| is_operator || POLLING.contains(&one.room))
        .map(|one| {
            let failure = one.failure.as_ref();
            json!({
                "room": one.room, "meter": one.meter,
                "passed": is_operator.then_some(one.passed), "passed_at": one.passed_at.map(seconds),
                "failed": is_operator.then_some(one.failed), "failed_at": failure.map(|(at, _)| seconds(*at)),
                "failure": failure.filter(|_| is_operator).map(|(_, reason)| reason),
            })
        })
        .collect();
    let quarantined = match api.pipeline.as_ref().filter(|_| is_operator) {
        Some(pipeline) => pipeline.quarantined(0).await.1,
        None => 0,
    };
    // An operator sees everybody's metrics, but only its own project's label sets.
    let elsewhere = match api.engine.labels() {
        Ok(labels) if is_operator => of_other_projects(labels, meter, caller.project_id.as_deref()).len(),
        _ => 0,
    };
    let meters = api.pipeline.as_ref().map_or(&[][..], |pipeline| pipeline.meters());
    let known: Vec<&KnownMeter> = meters.iter().filter(|one| fits(&one.name)).collect();
    let similar = match found.is_empty() && known.is_empty() {
        true => similar(meter, meters.iter().map(|one| one.name.as_str())),
        false => Vec::new(),
    };
    Ok(Json(json!({
        "now": seconds(api.clock.now()),
        "known": known,
        "seen": seen,
        "refused": refused,
        "quarantined": quarantined,
        "elsewhere": elsewhere,
        "series": found.len(),
        "is_cut": found.len() >= SERIES_MAX,
        "newest_at": newest.map(seconds),
        "oldest_shown": shown,
        "resource": resource_row,
        "similar": similar,
        "is_operator": is_operator,
    })))
}

/// Rooms of agents that poll.
const POLLING: [&str; 3] = ["compute", "central", "host"];

/// Other projects that have label sets of this name.
fn of_other_projects(labels: &LabelIndex, meter: &str, own: Option<&str>) -> Vec<Arc<str>> {
    let matchers = [orzo_labels::Matcher::equal("__name__", meter)];
    let has = |project: &Arc<str>| !labels.find(&Scope::Project(project.to_string()), &matchers, 1).is_empty();
    let is_own = |project: &Arc<str>| own.is_some_and(|own| **project == *own || **project == *book_of(own));
    labels.projects().into_iter().filter(|project| !is_own(project)).filter(has).collect()
}

/// The meter itself, or of a resource by any of the labels that name one.
fn groups(meter: &str, resource: Option<&str>) -> Vec<MatcherGroup> {
    let equal =
        |name: &str, value: &str| Matcher { name: name.to_owned(), operator: Operator::Equal, value: value.to_owned() };
    match resource {
        None => vec![vec![equal("__name__", meter)]],
        Some(id) => ["resource_id", "original_resource_id", "instance_id"]
            .iter()
            .map(|label| vec![equal("__name__", meter), equal(label, id)])
            .collect(),
    }
}

fn underscored(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Names that share a part with the one that nobody knows.
fn similar<'a>(meter: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = underscored(meter);
    let parts: Vec<&str> = wanted.split('_').filter(|part| part.len() > 2).collect();
    let shared = |name: &str| {
        let name = underscored(name);
        parts.iter().filter(|part| name.contains(**part)).count()
    };
    let mut found: Vec<(usize, &str)> =
        names.map(|name| (shared(name), name)).filter(|(count, _)| *count > 0).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.len().cmp(&b.1.len())).then(a.1.cmp(b.1)));
    found.dedup_by(|a, b| a.1 == b.1);
    found.into_iter().take(SIMILAR_MAX).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_share_most_parts_are_offered_first() {
        let names = ["disk.device.read.bytes", "disk.device.read.bytes.rate", "cpu", "network.incoming.bytes"];
        assert_eq!(similar("disk.read.bytes", names.into_iter())[..2], names[..2]);
        assert_eq!(similar("cpu_utils", names.into_iter()), ["cpu"]);
        assert_eq!(similar("x", names.into_iter()), [""; 0]);
    }

    #[test]
    fn dots_and_underscores_are_the_same_name() {
        assert_eq!(underscored("disk.device.READ"), underscored("disk_device_read"));
    }
}
