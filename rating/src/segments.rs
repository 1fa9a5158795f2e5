//! Usage: what a resource was like, and for how long. From what happened (events), what was seen (history, points) and the
//! definition of a metric to segments: stretches of time, cut exactly where something changes that is rated.
//!
//! `evidence → timeline (states) → segments of one metric → quantities`
//!
//! Pure. Times are cut to whole seconds, all in the same way, so that segments tile the time.

mod measures;
mod timeline;

use std::{collections::BTreeMap, sync::Arc};

use bigdecimal::BigDecimal;
use orzo_model::Timestamp;

use crate::{
    doors::Evidence,
    line::Facts,
    metrics::{MetricDefinition, UsageKind},
};

pub use measures::{collected, exact, increase, level};
pub use timeline::{State, Timeline, timeline};

/// Something that the reader of a bill should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// Which resource.
    pub resource: String,
    /// When.
    pub at: Timestamp,
    /// Short and stable, for counting.
    pub reason: &'static str,
    /// In words.
    pub detail: String,
}

/// A stretch in which nothing changed that is rated.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// From.
    pub begin: Timestamp,
    /// Until.
    pub end: Timestamp,
    /// Owning project.
    pub project_id: Option<String>,
    /// What it is told apart by.
    pub groupby: Facts,
    /// What else is known.
    pub metadata: Facts,
    /// The size that lasts, if an event tells it; else points do.
    pub level: Option<BigDecimal>,
}

impl Segment {
    /// Whole seconds.
    pub fn seconds(&self) -> i64 {
        self.end.secs() - self.begin.secs()
    }

    /// What of it lies in a time.
    pub fn within(&self, begin: Timestamp, end: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let (from, until) = (self.begin.max(begin), self.end.min(end));
        (from < until).then_some((from, until))
    }
}

/// The attribute that has a metric's value where events tell it.
fn level_attribute(metric: &str) -> Option<&'static str> {
    match metric {
        "volume" | "volume.size" | "image.size" => Some("size"),
        "vcpus" => Some("vcpus"),
        "memory" => Some("memory_mb"),
        "disk.root.size" => Some("root_gb"),
        "disk.ephemeral.size" => Some("ephemeral_gb"),
        _ => None,
    }
}

/// The stretches of a resource's life that a metric's definition tells apart.
pub fn segments(timeline: &Timeline, definition: &MetricDefinition) -> Vec<Segment> {
    let facts = |state: &State, names: &[String]| -> BTreeMap<String, String> {
        names.iter().map(|name| (name.clone(), value_of(timeline, state, name))).collect()
    };
    let level_name = level_attribute(&definition.metric).filter(|_| definition.usage == UsageKind::Level);
    let mut segments: Vec<Segment> = Vec::new();
    for state in &timeline.states {
        let (groupby, metadata) = (facts(state, &definition.groupby), facts(state, &definition.metadata));
        let told = level_name.and_then(|name| state.attributes.get(name));
        let level = told.and_then(|text| crate::decimal::decimal(text).ok());
        if let Some(last) = segments.last_mut()
            && last.end == state.begin
            && *last.groupby == groupby
            && *last.metadata == metadata
            && last.level == level
            && last.project_id == state.project_id
        {
            last.end = state.end;
            continue;
        }
        segments.push(Segment {
            begin: state.begin,
            end: state.end,
            project_id: state.project_id.clone(),
            groupby: Arc::new(groupby),
            metadata: Arc::new(metadata),
            level,
        });
    }
    segments
}

/// What a state says under a name of `groupby` or `metadata`; empty where nothing is known, as CloudKitty has it.
fn value_of(timeline: &Timeline, state: &State, name: &str) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    match name {
        "id" | "original_resource_id" => timeline.resource.clone(),
        "project_id" => text(&state.project_id),
        "user_id" => text(&state.user_id),
        "type" => timeline.resource_type.clone(),
        name => state.attributes.get(name).cloned().unwrap_or_default(),
    }
}

/// How completely a resource's life in a time was polled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Completeness {
    /// Which resource.
    pub resource: String,
    /// Which metric.
    pub metric: String,
    /// Slots of the time in which it was alive.
    pub expected: u64,
    /// Those with at least one point.
    pub present: u64,
    /// Stretches of slots without a point: first slot's begin, last slot's end.
    pub missing: Vec<(Timestamp, Timestamp)>,
}

impl Completeness {
    /// Adds what of the same resource and metric is known of a time that follows.
    pub(crate) fn add(&mut self, later: Self) {
        self.expected += later.expected;
        self.present += later.present;
        for (from, until) in later.missing {
            match self.missing.last_mut() {
                Some((_, last)) if *last == from => *last = until,
                _ => self.missing.push((from, until)),
            }
        }
    }
}

/// Holds points against slots of a width. A slot in which the resource was alive for a part only is not expected.
pub fn completeness(
    evidence: &Evidence,
    timeline: &Timeline,
    metric: &str,
    (begin, end): (Timestamp, Timestamp),
    slot: std::time::Duration,
) -> Completeness {
    let points = evidence.measures.get(metric).map(Vec::as_slice).unwrap_or_default();
    let (mut expected, mut present, mut missing) = (0, 0, Vec::<(Timestamp, Timestamp)>::new());
    let mut at = begin.floor(slot);
    if at < begin {
        at = at.plus(slot);
    }
    while at.plus(slot) <= end && slot.as_micros() > 0 {
        let until = at.plus(slot);
        let is_alive = timeline.states.iter().any(|state| state.begin <= at && state.end >= until)
            || timeline.born().zip(timeline.died()).is_some_and(|(born, died)| born <= at && died >= until);
        if is_alive {
            expected += 1;
            let first = points.partition_point(|point| point.timestamp < at);
            if points.get(first).is_some_and(|point| point.timestamp < until) {
                present += 1;
            } else {
                match missing.last_mut() {
                    Some((_, last)) if *last == at => *last = until,
                    _ => missing.push((at, until)),
                }
            }
        }
        at = until;
    }
    Completeness { resource: evidence.resource.clone(), metric: metric.to_owned(), expected, present, missing }
}

#[cfg(test)]
mod tests;
