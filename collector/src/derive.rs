//! Meters that are made from counters: `cpu_util` and the `.rate` meters. Pure.
//!
//! Ceilometer derived them in its pipeline until Rocky (`rate_of_change` in its default pipeline.yaml) and dropped them
//! afterwards, which is still one of its users' first complaints. Names, units, scale and clamping are as they were:
//! `cpu_util = 100 * Δns / (10^9 * Δs * cpu_number)`, at most 100. A counter that went back means that its source
//! restarted; then the new value alone is what has certainly been counted since, and no rate is ever negative.
//!
//! A derived sample has a deterministic id, its counter's timestamp, owner and metadata, and travels in the same batch,
//! so that counter and rate are stored together or not at all.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use orzo_model::{Measure, Sample, SampleKind, Timestamp, sample_id};
use serde_json::Value;

/// No rate is made over a longer gap: the mean of more than a day says nothing about its last moment.
pub const GAP_MAX: Duration = Duration::from_secs(24 * 3600);
/// Origin in the ids of derived samples.
const ORIGIN: &str = "derive";
/// Counters that get a meter `<counter>.rate`, with its unit.
pub const RATES: &[(&str, &str)] = &[
    ("disk.device.read.bytes", "B/s"),
    ("disk.device.write.bytes", "B/s"),
    ("network.incoming.bytes", "B/s"),
    ("network.outgoing.bytes", "B/s"),
    ("hardware.disk.read.bytes", "B/s"),
    ("hardware.disk.write.bytes", "B/s"),
    ("hardware.network.incoming.bytes", "B/s"),
    ("hardware.network.outgoing.bytes", "B/s"),
    ("disk.device.read.requests", "request/s"),
    ("disk.device.write.requests", "request/s"),
    ("hardware.disk.read.requests", "request/s"),
    ("hardware.disk.write.requests", "request/s"),
    ("network.incoming.packets", "packet/s"),
    ("network.outgoing.packets", "packet/s"),
    ("hardware.network.incoming.packets", "packet/s"),
    ("hardware.network.outgoing.packets", "packet/s"),
    ("hardware.network.incoming.errors", "packet/s"),
    ("hardware.network.outgoing.errors", "packet/s"),
    ("hardware.network.incoming.drop", "packet/s"),
    ("hardware.network.outgoing.drop", "packet/s"),
];
/// Nanoseconds in a second, as the `cpu` meter counts.
const NANOSECONDS: f64 = 1e9;

/// A counter of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    /// Which resource.
    pub resource_id: String,
    /// Which meter.
    pub meter: String,
}

/// What is made of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// `cpu_util`, in percent of all processors of the guest.
    CpuUtil,
    /// `<meter>.rate`, in this unit.
    Rate(&'static str),
}

/// What [`derive()`] made.
#[derive(Debug, Default, PartialEq)]
pub struct Derived {
    /// The new samples.
    pub samples: Vec<Sample>,
    /// The newest value of each counter seen, to be remembered once all is stored.
    pub newest: Vec<(Counter, Measure)>,
}

/// The counter that a sample is a value of, if something is derived from it.
pub fn counter_of(sample: &Sample) -> Option<Counter> {
    rule(sample)?;
    Some(Counter { resource_id: sample.resource_id.clone(), meter: sample.meter.clone() })
}

/// Derives what can be derived from `samples`, in any order. `previous` holds, for each counter, the newest value before
/// the counter's earliest sample here.
pub fn derive(samples: &[Sample], previous: &HashMap<Counter, Measure>) -> Derived {
    let mut courses: BTreeMap<Counter, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        if let Some(counter) = counter_of(sample) {
            courses.entry(counter).or_default().push(sample);
        }
    }
    let mut derived = Derived::default();
    for (counter, mut course) in courses {
        course.sort_by_key(|sample| sample.timestamp);
        let mut last = previous.get(&counter).copied();
        for sample in course {
            let now = Measure { timestamp: sample.timestamp, value: sample.value };
            if let Some(last) = last {
                derived.samples.extend(derived_sample(sample, last));
                // Two values at one time: the first counts, as in the store.
                if last.timestamp >= now.timestamp {
                    continue;
                }
            }
            last = Some(now);
        }
        derived.newest.extend(last.map(|last| (counter, last)));
    }
    derived
}

fn derived_sample(sample: &Sample, last: Measure) -> Option<Sample> {
    let gap = sample.timestamp.since(last.timestamp);
    if gap.is_zero() || gap > GAP_MAX {
        return None;
    }
    let grown = if sample.value < last.value { sample.value } else { sample.value - last.value };
    let per_second = grown / gap.as_secs_f64();
    let (meter, unit, value) = match rule(sample)? {
        Rule::CpuUtil => {
            let percent = 100.0 * per_second / (NANOSECONDS * processors(sample));
            ("cpu_util".to_owned(), "%", percent.clamp(0.0, 100.0))
        }
        Rule::Rate(unit) => (format!("{}.rate", sample.meter), unit, per_second),
    };
    // A counter below zero is nobody's counter; and nothing that is not finite goes on.
    if !value.is_finite() || value < 0.0 {
        return None;
    }
    Some(Sample {
        id: sample_id(ORIGIN, &sample.resource_id, &meter, sample.timestamp),
        meter,
        kind: SampleKind::Gauge,
        unit: unit.to_owned(),
        value,
        timestamp: sample.timestamp,
        resource_id: sample.resource_id.clone(),
        project_id: sample.project_id.clone(),
        user_id: sample.user_id.clone(),
        source: sample.source.clone(),
        metadata: sample.metadata.clone(),
    })
}

/// What is derived from what.
fn rule(sample: &Sample) -> Option<Rule> {
    if sample.kind != SampleKind::Cumulative {
        return None;
    }
    if sample.meter == "cpu" {
        return Some(Rule::CpuUtil);
    }
    RATES.iter().find(|(meter, _)| *meter == sample.meter).map(|(_, unit)| Rule::Rate(unit))
}

/// The guest's processors as its metadata says, one if it does not.
fn processors(sample: &Sample) -> f64 {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        // Nova writes it as text in older versions.
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let metadata = &sample.metadata;
    let flavor = || metadata.get("flavor").and_then(|flavor| flavor.get("vcpus"));
    ["cpu_number", "vcpus"]
        .iter()
        .find_map(|key| metadata.get(*key).and_then(number))
        .or_else(|| flavor().and_then(number))
        .filter(|number| *number >= 1.0)
        .unwrap_or(1.0)
}

/// Whether `newer` is the later of two values of a counter.
pub(crate) fn is_later(newer: Measure, than: Option<&Measure>) -> bool {
    than.is_none_or(|known| newer.timestamp > known.timestamp)
}

/// The earliest time of each counter among the samples: what comes before it must be known to derive.
pub fn earliest(samples: &[Sample]) -> BTreeMap<Counter, Timestamp> {
    let mut earliest = BTreeMap::new();
    for sample in samples {
        if let Some(counter) = counter_of(sample) {
            let time = earliest.entry(counter).or_insert(sample.timestamp);
            *time = sample.timestamp.min(*time);
        }
    }
    earliest
}

#[cfg(test)]
mod tests;
