//! Groups by what resources were when they were measured (`use_history`), as CloudKitty asks for bills.
//!
//! Each revision of a resource is evaluated for the time in which it was true. A bucket that a revision covers only
//! partly counts for that fraction, and within a group values of the same bucket are added up. Gnocchi does the same,
//! but of several resources in one group it loses all but one, and adds only values that happen to be neighbours.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use orzo_index::{Filter, Resource, filter::Comparison};
use orzo_model::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Aggregated, AggregatesQuery, MeasuredSeries, Part, References, Search,
    found::{group_of, no_metric},
    grid::aggregated,
};
use crate::{Engine, QueryError, read::AggregatedMeasure, width::Width};

/// A revision and the time in which it counts.
struct Revision {
    resource: Resource,
    start: Option<Timestamp>,
    stop: Option<Timestamp>,
}

impl Engine {
    pub(super) async fn by_history(
        &self,
        query: &AggregatesQuery,
        search: &Search,
    ) -> Result<Vec<(Map<String, Value>, Aggregated)>, QueryError> {
        let filter = period_filter(&search.filter, query.start, query.stop);
        let mut found = self.found_revisions(query, search, filter, true).await?;
        self.index.fill_metrics(&mut found, None).await?;
        let groups = grouped(windows(found, query.start, query.stop), &query.groupby);
        let revisions: Vec<&[Resource]> =
            groups.iter().flat_map(|(_, revisions)| revisions).map(|r| std::slice::from_ref(&r.resource)).collect();
        let named = self.named(query, &revisions).await?;
        let all = groups.iter().flat_map(|(_, revisions)| revisions);
        let parts: Vec<Part> =
            named.into_iter().zip(all).map(|(named, r)| Part { named, start: r.start, stop: r.stop }).collect();
        let mut grids = self.evaluate(query, &parts).await?.into_iter();
        let mut parts = parts.into_iter();
        let mut answers = Vec::new();
        for (group, revisions) in groups {
            let mut sums: BTreeMap<(Reverse<Duration>, Timestamp), f64> = BTreeMap::new();
            let mut references = Vec::new();
            for ((revision, part), grids) in revisions.into_iter().zip(parts.by_ref()).zip(grids.by_ref()) {
                if part.named.is_empty() {
                    continue;
                }
                if grids.iter().any(|grid| !grid.is_aggregated) {
                    let reason = "with use_history the operations must come to one aggregated series";
                    return Err(QueryError::invalid("Operations is invalid", reason, Value::Null));
                }
                for measure in aggregated(&grids, query.fill()) {
                    let Width::Span(width) = measure.granularity else { continue };
                    let share = covered(measure.timestamp, width, revision.start, revision.stop);
                    *sums.entry((Reverse(width), measure.timestamp)).or_insert(0.0) += measure.value * share;
                }
                references.push(revision.resource);
            }
            if sums.is_empty() {
                continue;
            }
            let measures = sums.into_iter().map(|((Reverse(width), timestamp), value)| AggregatedMeasure {
                timestamp,
                granularity: Width::Span(width),
                value,
            });
            let measures = MeasuredSeries::Aggregated(measures.collect());
            answers.push((group, Aggregated { measures, references: References::Resources(references) }));
        }
        if answers.is_empty() { Err(no_metric(query)) } else { Ok(answers) }
    }
}

/// The search, and of its revisions those that were true at some time between start and stop, if both are given.
fn period_filter(filter: &Filter, start: Option<Timestamp>, stop: Option<Timestamp>) -> Filter {
    let (Some(start), Some(stop)) = (start, stop) else { return filter.clone() };
    let compare = |comparison, attribute: &str, value: Value| Filter::Compare {
        comparison,
        attribute: attribute.to_owned(),
        value,
    };
    let mut parts = vec![
        compare(Comparison::Less, "revision_start", stop.isoformat().into()),
        Filter::Or(vec![
            compare(Comparison::GreaterOrEqual, "revision_end", start.isoformat().into()),
            compare(Comparison::Equal, "revision_end", Value::Null),
        ]),
    ];
    if !filter.is_everything() {
        parts.push(filter.clone());
    }
    Filter::And(parts)
}

/// Each revision with its time within start and stop. The first revision that is found of a resource counts from the
/// start on: its measures may be older than its registration.
fn windows(mut found: Vec<Resource>, start: Option<Timestamp>, stop: Option<Timestamp>) -> Vec<Revision> {
    found.sort_by(|a, b| {
        let key = |r: &Resource| (r.id, r.revision_start);
        a.original_resource_id.cmp(&b.original_resource_id).then_with(|| key(a).cmp(&key(b)))
    });
    let mut last: Option<Uuid> = None;
    let mut revisions = Vec::with_capacity(found.len());
    for resource in found {
        let is_first = last.replace(resource.id) != Some(resource.id);
        let begins = match (is_first, start) {
            (true, start) => start,
            (false, Some(start)) => Some(resource.revision_start.max(start)),
            (false, None) => Some(resource.revision_start),
        };
        let ends = match (resource.revision_end, stop) {
            (Some(end), Some(stop)) => Some(end.min(stop)),
            (end, stop) => end.or(stop),
        };
        if begins.zip(ends).is_none_or(|(begins, ends)| begins < ends) {
            revisions.push(Revision { resource, start: begins, stop: ends });
        }
    }
    revisions
}

/// Groups in the order of their values as texts, as Python writes them: what is null, false, zero or empty comes first
/// and is alike; of groups alike, the one comes first whose revision does.
fn grouped(revisions: Vec<Revision>, groupby: &[String]) -> Vec<(Map<String, Value>, Vec<Revision>)> {
    let text = |group: &Map<String, Value>| -> Vec<String> {
        groupby.iter().map(|name| group.get(name).map(text_of).unwrap_or_default()).collect()
    };
    type Group = (Map<String, Value>, Vec<Revision>);
    let mut groups: BTreeMap<Vec<String>, Vec<Group>> = BTreeMap::new();
    for revision in revisions {
        let group = group_of(&revision.resource, groupby);
        let alike = groups.entry(text(&group)).or_default();
        match alike.iter_mut().find(|(known, _)| *known == group) {
            Some((_, revisions)) => revisions.push(revision),
            None => alike.push((group, vec![revision])),
        }
    }
    groups.into_values().flatten().collect()
}

/// What Python's `str(value or "")` says.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(number) if number != 0.0 => format!("{number:?}"),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// The fraction of a bucket that lies within a window.
fn covered(bucket: Timestamp, width: Duration, start: Option<Timestamp>, stop: Option<Timestamp>) -> f64 {
    let next = bucket.plus(width);
    let begins = start.map_or(bucket, |start| start.max(bucket));
    let ends = stop.map_or(next, |stop| stop.min(next));
    ends.since(begins).as_secs_f64() / width.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn revision(id: u128, attribute: Value) -> Revision {
        let resource = Resource {
            id: Uuid::from_u128(id),
            resource_type: "vm".into(),
            original_resource_id: format!("vm-{id}"),
            creator: "u:p".into(),
            project_id: None,
            user_id: None,
            started_at: Timestamp::EPOCH,
            ended_at: None,
            revision_start: Timestamp::EPOCH,
            revision_end: None,
            revision: -1,
            attributes: Map::from_iter([("a".to_owned(), attribute)]),
            metrics: BTreeMap::new(),
        };
        Revision { resource, start: None, stop: None }
    }

    /// Gnocchi sorts by `str(value or '')`: false, zero and the empty text were sorted after or merged with null.
    #[test]
    fn groups_of_a_history_come_in_the_order_of_pythons_texts_and_none_is_merged() {
        for (values, expected) in [
            (vec![json!(true), json!(false), Value::Null], vec![json!(false), Value::Null, json!(true)]),
            (vec![json!("b"), Value::Null, json!(""), Value::Null], vec![Value::Null, json!(""), json!("b")]),
            (vec![json!(2.5), json!(100), json!(0), json!(-3)], vec![json!(0), json!(-3), json!(100), json!(2.5)]),
        ] {
            let revisions = values.into_iter().zip(1..).map(|(value, id)| revision(id, value)).collect();
            let groups = grouped(revisions, &["a".to_owned()]);
            let found: Vec<Value> = groups.into_iter().map(|(group, _)| group["a"].clone()).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_bucket_counts_for_the_fraction_that_a_revision_covers() {
        let at = Timestamp::from_secs;
        let hour = Duration::from_secs(3600);
        assert_eq!(covered(at(3600), hour, None, None), 1.0);
        assert_eq!(covered(at(3600), hour, Some(at(0)), Some(at(5400))), 0.5);
        assert_eq!(covered(at(3600), hour, Some(at(4500)), Some(at(90_000))), 0.75);
        assert_eq!(covered(at(3600), hour, Some(at(4500)), Some(at(5400))), 0.25);
    }
}
