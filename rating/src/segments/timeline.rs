//! What a resource was like, from its beginning to its end. Events tell exactly; what polling has seen fills in where they
//! are silent; where the two disagree a rule decides and the disagreement is told.
//!
//! Rules, in this order:
//! 1. A resource lives from the earliest `launched_at` that any event tells (without one: `created_at`, the event of its
//!    creation, else the first that is known of it: event, history in the index, point) until the `deleted_at` that any event tells, or the event of its deletion.
//! 2. An event says what the resource is like from its own time on, whenever it arrived and however often.
//! 3. What polling saw counts before the first event, and after an event only where no later event contradicts: a change
//!    that polling saw and the next event confirms was a change whose own event was lost.
//! 4. Without any event, polling tells all; life ends with what the index says, or with the last sign of life.

use std::collections::{BTreeMap, BTreeSet};

use orzo_model::{Event, Timestamp, TraitValue};
use serde_json::Value;

use super::Finding;
use crate::{
    doors::{Evidence, Revision},
    usage::text_of,
};

/// A sample may still come so long after the end: a guest that is being deleted is polled for a moment.
const SEEN_AFTER_END_S: i64 = 600;
/// The last sign of life counts for so long: Ceilometer's default polling interval.
const SIGN_LASTS_S: i64 = 300;

/// What a resource was like for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// From, a whole second.
    pub begin: Timestamp,
    /// Until, a whole second.
    pub end: Timestamp,
    /// Owning project.
    pub project_id: Option<String>,
    /// Owning user.
    pub user_id: Option<String>,
    /// What else is known, by the name that the resource type gives it.
    pub attributes: BTreeMap<String, String>,
}

/// A resource's life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// Which resource.
    pub resource: String,
    /// Its type.
    pub resource_type: String,
    /// Its states, in order, without gaps and overlaps.
    pub states: Vec<State>,
    /// Whether events or polling tell when it began.
    pub has_known_birth: bool,
    /// What does not fit together.
    pub findings: Vec<Finding>,
}

impl Timeline {
    /// When it began.
    pub fn born(&self) -> Option<Timestamp> {
        self.states.first().map(|state| state.begin)
    }

    /// When it ended, or how far it is known.
    pub fn died(&self) -> Option<Timestamp> {
        self.states.last().map(|state| state.end)
    }
}

/// The attribute that a trait tells, where the two have different names.
fn attribute_of(name: &str) -> &str {
    match name {
        "instance_type" => "flavor_name",
        "instance_type_id" => "flavor_id",
        "type" => "volume_type",
        name => name,
    }
}

/// Traits that are no attributes: who says it, about whom, and when things were.
const NOT_ATTRIBUTES: [&str; 15] = [
    "service",
    "request_id",
    "project_id",
    "tenant_id",
    "user_id",
    "resource_id",
    "instance_id",
    "created_at",
    "launched_at",
    "deleted_at",
    "terminated_at",
    "old_state",
    "new_task_state",
    "audit_period_beginning",
    "audit_period_ending",
];

/// What is known at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    project_id: Option<String>,
    user_id: Option<String>,
    attributes: BTreeMap<String, String>,
}

impl Seen {
    fn of_event(event: &Event) -> Self {
        let text = |name: &str| event.text(name).filter(|text| !text.is_empty());
        let attributes = event
            .traits
            .iter()
            .filter(|own| !NOT_ATTRIBUTES.contains(&own.name.as_str()))
            .map(|own| (attribute_of(&own.name).to_owned(), own.value.to_text()))
            .collect();
        Self { project_id: text("project_id").or_else(|| text("tenant_id")), user_id: text("user_id"), attributes }
    }

    fn of_revision(revision: &Revision) -> Self {
        let known = revision.attributes.iter().filter(|(_, value)| !value.is_null());
        let attributes = known.map(|(name, value)| (name.clone(), plain(value))).collect();
        Self { project_id: revision.project_id.clone(), user_id: revision.user_id.clone(), attributes }
    }

    /// What this is with another put over it.
    fn with(&self, newer: &Self) -> Self {
        let mut whole = self.clone();
        whole.attributes.extend(newer.attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
        whole.project_id = newer.project_id.clone().or(whole.project_id);
        whole.user_id = newer.user_id.clone().or(whole.user_id);
        whole
    }

    /// The first thing of `other` that this says otherwise; what only one of them says is no contradiction.
    fn contradiction(&self, other: &Self) -> Option<String> {
        let differs = |name: &str, a: Option<&String>, b: Option<&String>| match (a, b) {
            (Some(a), Some(b)) if a != b => Some(format!("{name} `{b}`, not `{a}`")),
            _ => None,
        };
        differs("project", self.project_id.as_ref(), other.project_id.as_ref()).or_else(|| {
            let shared = other.attributes.iter().map(|(name, value)| (name, Some(value)));
            shared.into_iter().find_map(|(name, value)| differs(name, self.attributes.get(name), value))
        })
    }
}

fn plain(value: &Value) -> String {
    text_of(value)
}

fn time_of(event: &Event, name: &str) -> Option<Timestamp> {
    event.traits.iter().find(|own| own.name == name).and_then(|own| match &own.value {
        TraitValue::Datetime(time) => Some(*time),
        TraitValue::Text(text) => text.parse().ok(),
        _ => None,
    })
}

fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_secs(time.secs())
}

/// Whether an event tells of the end.
fn ends(event: &Event) -> bool {
    event.event_type.ends_with("delete.end") || event.event_type == "image.delete"
}

/// Whether an event tells of the beginning.
fn begins(event: &Event) -> bool {
    event.event_type.ends_with("create.end") || matches!(event.event_type.as_str(), "image.create" | "image.upload")
}

/// Whether it was told only that something was going to happen, or failed.
fn is_preliminary(event: &Event) -> bool {
    event.event_type.ends_with(".start") || event.event_type.ends_with(".error")
}

/// A resource's life, as far as `known_until`.
pub fn timeline(evidence: &Evidence, known_until: Timestamp) -> Timeline {
    let mut life = Timeline {
        resource: evidence.resource.clone(),
        resource_type: evidence.resource_type.clone(),
        ..Timeline::default()
    };
    let mut events: Vec<&Event> = evidence.events.iter().filter(|event| !is_preliminary(event)).collect();
    events.sort_by(|a, b| (a.generated_at, &a.message_id).cmp(&(b.generated_at, &b.message_id)));
    let mut told = |at: Timestamp, reason: &'static str, detail: String| {
        life.findings.push(Finding { resource: evidence.resource.clone(), at, reason, detail });
    };
    // 1: from when to when.
    let earliest = |name: &str| evidence.events.iter().filter_map(|event| time_of(event, name)).min();
    let born_by_events = earliest("launched_at")
        .or_else(|| earliest("created_at"))
        .or_else(|| events.iter().find(|event| begins(event)).map(|event| event.generated_at));
    let died_by_events = earliest("deleted_at")
        .or_else(|| events.iter().find(|event| ends(event)).map(|event| event.generated_at))
        .or_else(|| {
            let announced = |event: &&Event| event.event_type.ends_with("delete.start");
            evidence.events.iter().find(announced).map(|event| event.generated_at)
        });
    let signs = evidence.measures.values().filter_map(|points| points.last());
    let last_point = signs.map(|point| point.timestamp).max();
    let first_seen = evidence.revisions.first().map_or(evidence.started_at, |revision| revision.from);
    let born = second(born_by_events.unwrap_or_else(|| {
        let first_event = events.first().map(|event| event.generated_at);
        // What was measured was there, even if nobody had told of it yet: points of an import, or of the first poll.
        let first_point =
            evidence.measures.values().filter_map(|points| points.first()).map(|point| point.timestamp).min();
        [Some(first_seen), first_event, first_point].into_iter().flatten().fold(evidence.started_at, Timestamp::min)
    }));
    let died = match (died_by_events, evidence.ended_at) {
        (Some(died), _) => died,
        (None, Some(ended)) => ended,
        // 2: an event tells the end, so without one it lives.
        (None, None) if !events.is_empty() => known_until,
        // 4: without events only signs of life tell.
        (None, None) => {
            let last = evidence.revisions.last().map_or(evidence.started_at, |revision| revision.from);
            let sign = last_point.map_or(last, |point| point.max(last));
            Timestamp::from_secs(sign.secs() + SIGN_LASTS_S).min(known_until)
        }
    };
    let died = second(died.min(known_until));
    if let (Some(died), Some(point)) = (died_by_events, last_point)
        && point.secs() > died.secs() + SEEN_AFTER_END_S
    {
        told(point, "seen after its end", format!("deleted at {died} by events, and still measured at {point}"));
    }
    // 2 and 3: what it was like.
    let mut marks: Vec<(Timestamp, Seen)> = Vec::new();
    for event in &events {
        let seen = Seen::of_event(event);
        let at = second(event.generated_at.max(born));
        let whole = marks.last().map_or_else(|| seen.clone(), |(_, last)| last.with(&seen));
        marks.push((at, whole));
    }
    let revisions: Vec<(Timestamp, Seen)> =
        evidence.revisions.iter().map(|own| (second(own.from), Seen::of_revision(own))).collect();
    let marks = match marks.is_empty() {
        true => revisions,
        false => {
            let (merged, disagreements) = merged(marks, &revisions);
            for (at, detail) in disagreements {
                told(at, "polling and events disagree", detail);
            }
            merged
        }
    };
    life.has_known_birth = born_by_events.is_some();
    life.states = states(&marks, born, died);
    life
}

/// What was seen, from when on.
type Marks = Vec<(Timestamp, Seen)>;

/// Events with what polling adds. Rule 3.
fn merged(marks: Marks, revisions: &[(Timestamp, Seen)]) -> (Marks, Vec<(Timestamp, String)>) {
    let told: BTreeSet<String> = marks.iter().flat_map(|(_, seen)| seen.attributes.keys().cloned()).collect();
    let mut all = marks.clone();
    let mut disagreements = Vec::new();
    for (at, seen) in revisions {
        let next = marks.partition_point(|(time, _)| time <= at);
        let Some((_, before)) = next.checked_sub(1).and_then(|last| marks.get(last)) else {
            // Before the first event polling is all there is; what the event says holds from its own time on.
            all.push((*at, seen.clone()));
            continue;
        };
        let Some(contradiction) = before.contradiction(seen) else { continue };
        let is_stale = marks[..next - 1].iter().any(|(_, earlier)| earlier.contradiction(seen).is_none());
        let is_confirmed = marks.get(next).is_some_and(|(_, after)| after.contradiction(seen).is_none());
        if is_confirmed || (next == marks.len() && !is_stale) {
            disagreements.push((*at, format!("an event was lost: polling saw {contradiction}")));
            all.push((*at, before.with(seen)));
        } else {
            disagreements.push((*at, format!("events are taken: polling saw {contradiction}")));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    // What no event ever tells comes from polling, at all times.
    let mut times: Vec<Timestamp> = all.iter().chain(revisions).map(|(at, _)| *at).collect();
    times.sort_unstable();
    times.dedup();
    let holding = |list: &[(Timestamp, Seen)], at: Timestamp| {
        let next = list.partition_point(|(time, _)| *time <= at);
        list.get(next.saturating_sub(1)).map(|(_, seen)| seen.clone())
    };
    let whole = |at: Timestamp| {
        let mut seen = holding(&all, at).unwrap_or_default();
        if let Some(polled) = holding(revisions, at) {
            seen.attributes.retain(|name, _| told.contains(name));
            let only_polled = polled.attributes.into_iter().filter(|(name, _)| !told.contains(name));
            seen.attributes.extend(only_polled);
            seen.project_id = seen.project_id.or(polled.project_id);
            seen.user_id = seen.user_id.or(polled.user_id);
        }
        (at, seen)
    };
    (times.into_iter().map(whole).collect(), disagreements)
}

/// What holds from each mark on, between two times; the first holds from the beginning.
fn states(marks: &[(Timestamp, Seen)], born: Timestamp, died: Timestamp) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for (number, (at, seen)) in marks.iter().enumerate() {
        let begin = if states.is_empty() { born } else { (*at).max(born) };
        let end = marks.get(number + 1).map_or(died, |(next, _)| (*next).max(born)).min(died);
        if begin >= end {
            continue;
        }
        let state = State {
            begin,
            end,
            project_id: seen.project_id.clone(),
            user_id: seen.user_id.clone(),
            attributes: seen.attributes.clone(),
        };
        match states.last_mut() {
            Some(last)
                if last.attributes == state.attributes
                    && last.project_id == state.project_id
                    && last.user_id == state.user_id =>
            {
                last.end = end;
            }
            _ => states.push(state),
        }
    }
    if states.is_empty() && marks.is_empty() && born < died {
        states.push(State { begin: born, end: died, project_id: None, user_id: None, attributes: BTreeMap::new() });
    }
    states
}
