//! Prometheus' remote write into Gnocchi's metrics, mapped as Gnocchi maps it: the resource is `job@instance` of type
//! `prometheus`, the metric is the series' name.
//!
//! So several series become one metric. With `?labels=name` each keeps its own: the metric is then called
//! `name{other="labels"}`. (All labels as labels are kept behind `/prometheus/api/v1/write`.)

use std::collections::BTreeMap;

use axum::{body::Body, extract::State, response::Response};
use orzo_index::{Attribute, AttributeKind, ResourceType, attribute::TEXT_CHARACTERS_MAX};
use orzo_model::{Measure, Timestamp};
use serde_json::{Map, Value};

use super::{
    answer::accepted,
    found::{Found, keep, type_or_make},
};
use crate::{
    SharedApi,
    authenticate::Asker,
    ingest::{remote_write, snappy},
    offered::Offered,
    parameters::Parameters,
    policy,
    problem::Problem,
    request::body_bytes,
};

/// The resource type that Gnocchi makes for it. (There its texts may be longer, but `job@instance` is an id and may not.)
const RESOURCE_TYPE: &str = "prometheus";

pub(super) async fn write(
    Asker(caller): Asker,
    State(api): State<SharedApi>,
    parameters: Parameters,
    body: Body,
) -> Result<Response, Problem> {
    policy::has_project(&caller)?;
    let keeps_labels = match parameters.get("labels") {
        None => false,
        Some("name") => true,
        Some(_) => return Err(Problem::argument("labels", "Must be `name` or absent")),
    };
    let body = body_bytes(body).await?;
    let found = read(&body, keeps_labels).inspect_err(|_| Offered::new(&api.room, 1).refused_all("malformed"))?;
    type_or_make(&api, RESOURCE_TYPE, || resource_type().map(Some)).await?;
    keep(&api, &caller, RESOURCE_TYPE, found).await?;
    Ok(accepted())
}

fn resource_type() -> Result<ResourceType, Problem> {
    let text = AttributeKind::String { min_length: 1, max_length: TEXT_CHARACTERS_MAX };
    let attribute = |name: &str| (name.to_owned(), Attribute { kind: text.clone(), required: true });
    Ok(ResourceType::new(RESOURCE_TYPE, BTreeMap::from([attribute("instance"), attribute("job")]))?)
}

fn read(body: &[u8], keeps_labels: bool) -> Result<Found, Problem> {
    let body = snappy::decode(body)?;
    let mut found = Found::default();
    let mut problem = None;
    remote_write::read_v1(
        &body,
        |_| None,
        |series| {
            let labels = remote_write::labels_of(series.labels)?;
            if series.samples.is_empty() {
                return Ok(());
            }
            let label = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
            let Some(name) = label("__name__") else {
                problem.get_or_insert_with(|| Problem::bad("a series has no label `__name__`"));
                return Ok(());
            };
            let (job, instance) = (label("job").unwrap_or("none"), label("instance").unwrap_or("none"));
            let metric = if keeps_labels { full_name(name, &labels) } else { name.to_owned() };
            let measures = series.samples.iter().map(|sample| Measure {
                timestamp: Timestamp::from_micros(sample.at_ms.saturating_mul(1000)),
                value: sample.value,
            });
            let attributes: Map<String, Value> = [("instance", instance), ("job", job)]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into_iter()
                .collect();
            found.add(format!("{job}@{instance}"), attributes, metric, measures);
            Ok(())
        },
    )?;
    match problem {
        Some(problem) => Err(problem),
        None => Ok(found),
    }
}

/// A series' name with the labels that tell it from others of its resource. `/` cannot stand in a metric's name.
fn full_name(name: &str, labels: &[(&str, &str)]) -> String {
    let mut rest: Vec<_> =
        labels.iter().filter(|(label, _)| !matches!(*label, "__name__" | "job" | "instance")).collect();
    if rest.is_empty() {
        return name.to_owned();
    }
    rest.sort();
    let text: Vec<String> = rest.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
    format!("{name}{{{}}}", text.join(",")).replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_in_the_name_where_that_is_asked_for() {
        let labels = [("__name__", "up"), ("job", "j"), ("path", "/a"), ("instance", "i"), ("le", "+Inf")];
        assert_eq!(full_name("up", &labels), "up{le=\"+Inf\",path=\"_a\"}");
        assert_eq!(full_name("up", &labels[..2]), "up");
    }
}
