//! What existence costs, counted once more by other code than the rating's: straight from the tables of events, resources and
//! rules, second by second of each resource's life, in whole numbers and fractions without rounding until a line's end.
//!
//! `events → what the resource was like at each of its changes → seconds of each hour → the rules' document → sums by resource
//! and period, beside the ledger's`
//!
//! It knows the plain case only: usage that is existence, told by events, priced by mappings. What else is there (polling that
//! contradicts, thresholds, expressions, levels and counters) it leaves to the rating anew, and counts as not comparable.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use anyhow::Context;
use orzo_index::{Index, Resource};
use orzo_model::{Event, Timestamp, TraitValue};
use orzo_rating::{BigDecimal, Metrics, RatedLine, UsageKind, cost_of, metrics::MetricDefinition};
use serde_json::Value;

use crate::rating::Rating;

/// Events of the resources of one project.
const EVENTS_MAX: usize = 5_000_000;
/// Resources of one project.
const RESOURCES_MAX: usize = 200_000;

/// What the count came to.
#[derive(Default)]
pub(super) struct Recount {
    /// Resources and periods that were counted again.
    pub(super) compared: u64,
    /// Those that this count knows nothing of.
    pub(super) left: u64,
    /// In words.
    pub(super) problems: Vec<String>,
}

/// A resource's life as its events tell it, each change with what it is like from then on.
struct Life {
    born: i64,
    died: i64,
    changes: Vec<(i64, BTreeMap<String, String>)>,
}

fn moment(event: &Event, name: &str) -> Option<i64> {
    let found = event.traits.iter().find(|own| own.name == name)?;
    match &found.value {
        TraitValue::Datetime(time) => Some(time.secs()),
        TraitValue::Text(text) => text.parse::<Timestamp>().ok().map(Timestamp::secs),
        _ => None,
    }
}

/// As `metrics.yml` calls what an event tells.
fn fact(name: &str) -> &str {
    match name {
        "instance_type" => "flavor_name",
        "instance_type_id" => "flavor_id",
        "type" => "volume_type",
        "tenant_id" => "project_id",
        name => name,
    }
}

fn life(events: &[Event]) -> Option<Life> {
    let first = |name: &str| events.iter().filter_map(|event| moment(event, name)).min();
    let of_kind = |ending: &str| events.iter().find(|event| event.event_type.ends_with(ending));
    let born = first("launched_at")
        .or_else(|| first("created_at"))
        .or_else(|| of_kind("create.end").map(|event| event.generated_at.secs()))?;
    let died = first("deleted_at").or_else(|| of_kind("delete.end").map(|event| event.generated_at.secs()));
    let mut changes: Vec<(i64, BTreeMap<String, String>)> = Vec::new();
    let mut told: Vec<&Event> = events.iter().collect();
    told.sort_by(|a, b| (a.generated_at, &a.message_id).cmp(&(b.generated_at, &b.message_id)));
    for event in told {
        if event.event_type.ends_with(".start") || event.event_type.ends_with(".error") {
            continue;
        }
        let mut known = changes.last().map(|(_, known)| known.clone()).unwrap_or_default();
        for own in &event.traits {
            let text = own.value.to_text();
            // Nobody owns what an event without an owner is about; it was somebody's before.
            if !(text.is_empty() && matches!(own.name.as_str(), "project_id" | "user_id")) {
                known.insert(fact(&own.name).to_owned(), text);
            }
        }
        // What the first event says holds from the beginning.
        let at = if changes.is_empty() { born } else { event.generated_at.secs().max(born) };
        changes.push((at, known));
    }
    (!changes.is_empty()).then_some(Life { born, died: died.unwrap_or(i64::MAX), changes })
}

/// The price of one, by a service's rules as they are written; `None`: there is more in them than mappings.
fn price(rules: &Value, scope: &str, known: &BTreeMap<String, String>) -> Option<BigDecimal> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |entry: &Value| entry["cost"].as_str().and_then(|text| text.parse::<BigDecimal>().ok());
    let mut groups: BTreeMap<String, (BigDecimal, BigDecimal)> = BTreeMap::new();
    let mut applied = |entries: Vec<Value>| {
        // What is written for a project replaces what is written for all, under the same value and group.
        let is_own = |entry: &Value| entry["tenant_id"] == scope;
        let key = |entry: &Value| (entry["group"].to_string(), entry["value"].to_string());
        let replaced: BTreeSet<_> = entries.iter().filter(|own| is_own(own)).map(key).collect();
        for entry in &entries {
            let is_general = entry["tenant_id"].is_null() && !replaced.contains(&key(entry));
            if !is_own(entry) && !is_general {
                continue;
            }
            let one = || (BigDecimal::from(0), BigDecimal::from(1));
            let (flat, rate) = groups.entry(entry["group"].to_string()).or_insert_with(one);
            let Some(cost) = number(entry) else { continue };
            match entry["type"].as_str() {
                Some("rate") => *rate *= cost,
                _ if cost > *flat => *flat = cost,
                _ => {}
            }
        }
    };
    if !list(&rules["thresholds"]).is_empty() {
        return None;
    }
    applied(list(&rules["mappings"]));
    for field in list(&rules["fields"]) {
        if !list(&field["thresholds"]).is_empty() {
            return None;
        }
        let Some(value) = field["name"].as_str().and_then(|name| known.get(name)) else { continue };
        applied(list(&field["mappings"]).into_iter().filter(|entry| entry["value"] == value.as_str()).collect());
    }
    Some(groups.into_values().map(|(flat, rate)| flat * rate).sum())
}

/// The names that the rating looks at, as an event's facts have them.
fn rated_facts(
    definition: &MetricDefinition,
    resource: &str,
    known: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let names = definition.groupby.iter().chain(&definition.metadata);
    let value = |name: &String| match name.as_str() {
        "id" => resource.to_owned(),
        name => known.get(name).cloned().unwrap_or_default(),
    };
    names.map(|name| (name.clone(), value(name))).collect()
}

/// Whether polling says something that this count would have to weigh: other facts than the events at the same time, or facts
/// that events do not tell and that change.
fn is_contradicted(life: &Life, definition: &MetricDefinition, revisions: &[Resource]) -> bool {
    let names = definition.groupby.iter().chain(&definition.metadata);
    names.filter(|name| !matches!(name.as_str(), "id" | "user_id")).any(|name| {
        let mut polled = revisions.iter().filter_map(|own| {
            let value = match name.as_str() {
                "project_id" => own.project_id.clone(),
                name => own.attributes.get(name).and_then(Value::as_str).map(str::to_owned),
            };
            Some((own.revision_start.secs(), value?))
        });
        let told = |at: i64| {
            let next = life.changes.partition_point(|(from, _)| *from <= at);
            life.changes.get(next.saturating_sub(1)).and_then(|(_, known)| known.get(name))
        };
        match life.changes.iter().any(|(_, known)| known.contains_key(name)) {
            true => polled.any(|(at, value)| told(at).is_some_and(|told| *told != value)),
            false => polled.next().is_some(),
        }
    })
}

/// What a resource costs a project in one period; `None` where the rules are more than mappings.
fn cost_of_period(
    life: &Life,
    definition: &MetricDefinition,
    (scope, resource): (&str, &str),
    (begin, end): (i64, i64),
    rules: &Value,
) -> Option<BigDecimal> {
    // Stretches first: what nobody looks at does not cut a line.
    let mut stretches: Vec<(i64, i64, BTreeMap<String, String>, bool)> = Vec::new();
    for (place, (at, known)) in life.changes.iter().enumerate() {
        let next = life.changes.get(place + 1).map_or(i64::MAX, |(next, _)| *next);
        let (from, until) = ((*at).max(life.born).max(begin), next.min(life.died).min(end));
        if from >= until {
            continue;
        }
        let facts = rated_facts(definition, resource, known);
        let is_ours = known.get("project_id").is_some_and(|own| own == scope);
        match stretches.last_mut() {
            Some((_, last, own, ours)) if *last == from && *own == facts && *ours == is_ours => *last = until,
            _ => stretches.push((from, until, facts, is_ours)),
        }
    }
    let mut sum = BigDecimal::from(0);
    for (from, until, facts, _) in stretches.iter().filter(|(.., is_ours)| *is_ours) {
        sum += cost_of(&(price(rules, scope, facts)? * BigDecimal::from(until - from) / BigDecimal::from(end - begin)));
    }
    Some(sum)
}

/// Counts the lines of a project again that are there now (`lines`: all of its lines of usage, in any order).
pub(super) async fn recount(
    rating: &Rating,
    index: &Index,
    scope: &str,
    lines: &[RatedLine],
    metrics: &Metrics,
) -> anyhow::Result<Recount> {
    let mut found = Recount::default();
    let period = rating.processor.settings().period;
    for definition in metrics.definitions.iter().filter(|own| own.usage == UsageKind::Existence) {
        let rule = format!("hashmap/{}/{}", definition.service, definition.number);
        let types = [definition.collecting.resource_type.clone()];
        // Those that the ledger charges, and those that it does not and perhaps should.
        let mut names: BTreeSet<String> =
            lines.iter().filter(|line| line.rule == rule).map(|line| line.resource.clone()).collect();
        let owned = index.owned_since(scope, &types, Timestamp::MIN, RESOURCES_MAX).await.context("resources")?;
        names.extend(owned.iter().filter_map(|revisions| revisions.last()).map(|own| own.original_resource_id.clone()));
        let names: Vec<String> = names.into_iter().collect();
        let mut events: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in index.events_of(&names, EVENTS_MAX).await.context("events")? {
            if let Some(name) = event.text("resource_id") {
                events.entry(name).or_default().push(event);
            }
        }
        // What the ledger says, by resource and period of use, with the rules that priced it.
        let mut told: BTreeMap<(&str, i64), (BigDecimal, u64)> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.rule == rule) {
            let begin = line.begin.floor(period).secs();
            let (sum, version) = told.entry((line.resource.as_str(), begin)).or_default();
            *sum += &line.cost;
            *version = (*version).max(line.rule_version);
        }
        let mut documents: BTreeMap<(u64, i64), Value> = BTreeMap::new();
        for ((resource, begin), (said, version)) in told {
            let of_resource =
                |revisions: &&Vec<Resource>| revisions.last().is_some_and(|own| own.original_resource_id == resource);
            let revisions = owned.iter().find(of_resource).map(Vec::as_slice).unwrap_or_default();
            let told_by_events = events.get(resource).and_then(|events| life(events));
            let Some(life) = told_by_events.filter(|life| !is_contradicted(life, definition, revisions)) else {
                found.left += 1;
                continue;
            };
            if let Entry::Vacant(place) = documents.entry((version, begin)) {
                let set = rating.book.rules_of(version, Timestamp::from_secs(begin)).await?;
                let has_expressions = set.documents.iter().any(|own| own.kind == "expression");
                let services = set.document["services"].as_array().cloned().unwrap_or_default();
                let own = services.into_iter().find(|own| own["name"] == definition.service.as_str());
                let rules =
                    if has_expressions { serde_json::json!({"thresholds": [true]}) } else { own.unwrap_or_default() };
                place.insert(rules);
            }
            let end = begin + i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
            let rules = &documents[&(version, begin)];
            match cost_of_period(&life, definition, (scope, resource), (begin, end), rules) {
                None => found.left += 1,
                Some(counted) if counted == said => found.compared += 1,
                Some(counted) => {
                    found.compared += 1;
                    found.problems.push(format!(
                        "{scope} {} {resource} in the period from {}: counted again from events it is {}, the ledger says {}",
                        definition.service,
                        Timestamp::from_secs(begin),
                        counted.normalized().to_plain_string(),
                        said.normalized().to_plain_string()
                    ));
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use orzo_model::Trait;
    use serde_json::json;

    use super::*;

    fn event(kind: &str, at: i64, flavor: &str, project: &str) -> Event {
        let text = |name: &str, text: &str| Trait { name: name.to_owned(), value: TraitValue::Text(text.to_owned()) };
        Event {
            message_id: format!("{kind}{at}"),
            event_type: format!("compute.instance.{kind}"),
            generated_at: Timestamp::from_secs(at),
            traits: vec![
                text("project_id", project),
                text("instance_type", flavor),
                Trait { name: "launched_at".to_owned(), value: TraitValue::Datetime(Timestamp::from_secs(600)) },
            ],
            raw: None,
        }
    }

    #[test]
    fn a_life_is_counted_by_the_second() {
        let metrics = Metrics::shipped();
        let definition = metrics.definitions.iter().find(|own| own.service == "instance").expect("shipped");
        let rules = json!({"mappings": [], "thresholds": [], "fields": [{"name": "flavor_name", "thresholds": [], "mappings": [
            {"value": "tiny", "type": "flat", "cost": "1.2"}, {"value": "big", "type": "flat", "cost": "3.6"},
            {"value": "big", "type": "flat", "cost": "7.2", "tenant_id": "q"}]}]});
        let events = [
            event("resize.start", 700, "huge", "p"),
            event("create.end", 603, "tiny", "p"),
            event("resize.end", 1800, "big", "p"),
            event("exists", 2000, "big", "p"),
            event("update", 5400, "big", "q"),
            event("delete.end", 7000, "big", "q"),
        ];
        let life = life(&events).expect("a life");
        let counted = |scope: &str, begin: i64| {
            let period = (begin, begin + 3600);
            let cost = cost_of_period(&life, definition, (scope, "r"), period, &rules).expect("mappings only");
            cost.normalized().to_plain_string()
        };
        assert_eq!((life.born, life.died), (600, 7000));
        assert_eq!(counted("p", 0), "2.2", "1200 s at 1.2, 1800 s at 3.6");
        assert_eq!(counted("p", 3600), "1.8");
        assert_eq!(counted("q", 3600), "3.2", "1600 s at its own price");
        assert_eq!(counted("q", 7200), "0");
        let thresholds = json!({"thresholds": [{"level": "1", "type": "flat", "cost": "1"}]});
        assert_eq!(cost_of_period(&life, definition, ("p", "r"), (0, 3600), &thresholds), None, "not known here");
    }
}
