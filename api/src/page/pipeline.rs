//! What the rooms have counted, for operators: conservation, refusals with their reasons, durations, the quarantine.
//!
//! In: nothing but who asks. Out: the counters of `/metrics` as rows of rooms, and what only compose knows (through
//! [`Pipeline`]). Durations are shares of a histogram, so they are bounds and not exact.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::{Json, extract::State};
use orzo_model::{Refused, Timestamp};
use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{SharedApi, authenticate::Asker, policy, problem::Problem};

/// Entries of the quarantine that are listed; who looks for more has the command line.
const QUARANTINED_MAX: usize = 50;
/// Refused meters that are listed.
const REFUSED_MAX: usize = 100;

/// A meter that some part of this process can make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownMeter {
    /// As Ceilometer names it.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// `compute`, `host`, `central`, `notifications` or `derived`.
    pub origin: &'static str,
    /// The meter that it is derived from.
    pub derived_from: Option<String>,
    /// How often this process polls it, in seconds; `None` if it does not, or if nothing polls it.
    pub every_s: Option<u64>,
    /// Whether the part that makes it runs in this process.
    pub is_made_here: bool,
}

/// Something that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Since when.
    pub kept_at: Option<String>,
    /// Where it came from.
    pub origin: String,
    /// What was wrong.
    pub reason: String,
    /// How long it is.
    pub bytes: usize,
}

/// What only compose knows of the rooms before the API.
#[async_trait]
pub trait Pipeline: Send + Sync + 'static {
    /// Every meter that is known.
    fn meters(&self) -> &[KnownMeter];
    /// What is in the quarantine, the oldest first, and how many there are.
    async fn quarantined(&self, limit: usize) -> (Vec<Quarantined>, usize);
}

/// `GET /page/v1/rooms`
pub(super) async fn rooms(Asker(caller): Asker, State(api): State<SharedApi>) -> Result<Json<Value>, Problem> {
    policy::operator(&caller)?;
    let (quarantined, quarantined_count) = match &api.pipeline {
        Some(pipeline) => pipeline.quarantined(QUARANTINED_MAX).await,
        None => (Vec::new(), 0),
    };
    let refused: Vec<Value> = api.rooms.refused_lately().iter().take(REFUSED_MAX).map(refused_json).collect();
    Ok(Json(json!({
        "now": seconds(api.clock.now()),
        "rooms": counted(&api.rooms.registry().gather()).into_values().collect::<Vec<_>>(),
        "readiness": api.readiness.rooms().await,
        "refused": refused,
        "quarantined": quarantined,
        "quarantined_count": quarantined_count,
    })))
}

pub(super) fn seconds(at: Timestamp) -> f64 {
    at.micros() as f64 / 1e6
}

pub(super) fn refused_json(one: &Refused) -> Value {
    json!({
        "room": one.room, "reason": one.reason, "count": one.count, "last_at": seconds(one.last_at),
        "meter": one.last.meter, "resource_id": one.last.resource_id, "project_id": one.last.project_id,
    })
}

/// What a room has counted.
#[derive(Debug, Default, Serialize, PartialEq)]
struct Counted {
    room: String,
    received: u64,
    stored: u64,
    refused: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    waiting: i64,
    /// received = stored + refused + dropped + waiting
    is_conserved: bool,
    steps: Vec<Step>,
}

/// How long a step of a room takes.
#[derive(Debug, Serialize, PartialEq)]
struct Step {
    step: String,
    count: u64,
    mean_s: f64,
    /// 99 of 100 take at most this; `None` if that is beyond the last bound.
    p99_s: Option<f64>,
}

fn counted(families: &[MetricFamily]) -> BTreeMap<String, Counted> {
    let mut rooms: BTreeMap<String, Counted> = BTreeMap::new();
    for family in families {
        for metric in family.get_metric() {
            let label = |name: &str| metric.get_label().iter().find(|l| l.name() == name).map(|l| l.value().to_owned());
            let Some(name) = label("room") else { continue };
            let room = rooms.entry(name.clone()).or_insert_with(|| Counted { room: name, ..Counted::default() });
            let count = metric.get_counter().get_value() as u64;
            let reason = || label("reason").unwrap_or_default();
            match family.name() {
                "orzo_received_total" => room.received = count,
                "orzo_stored_total" => room.stored = count,
                "orzo_refused_total" => *room.refused.entry(reason()).or_default() += count,
                "orzo_dropped_total" => *room.dropped.entry(reason()).or_default() += count,
                "orzo_waiting" => room.waiting = metric.get_gauge().get_value() as i64,
                "orzo_seconds" => room.steps.extend(step(label("step").unwrap_or_default(), metric)),
                _ => {}
            }
        }
    }
    for room in rooms.values_mut() {
        let out = room.stored + room.refused.values().sum::<u64>() + room.dropped.values().sum::<u64>();
        room.is_conserved = i128::from(room.received) == i128::from(out) + i128::from(room.waiting);
    }
    rooms
}

fn step(step: String, metric: &Metric) -> Option<Step> {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count();
    if count == 0 {
        return None;
    }
    let enough = count - count / 100;
    let bound = histogram.get_bucket().iter().find(|bucket| bucket.cumulative_count() >= enough);
    let p99_s = bound.map(prometheus::proto::Bucket::upper_bound).filter(|bound| bound.is_finite());
    Some(Step { step, count, mean_s: histogram.get_sample_sum() / count as f64, p99_s })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orzo_model::Rooms;

    use super::*;

    #[test]
    fn counters_become_rows_of_rooms() {
        let rooms = Rooms::new(&prometheus::Registry::new());
        let room = rooms.room("collector");
        room.received(10);
        room.stored(6);
        room.refused("unit", 2);
        room.dropped("repeat", 1);
        for _ in 0..99 {
            room.took("sink", Duration::from_millis(2));
        }
        room.took("sink", Duration::from_secs(60));
        let counted = counted(&rooms.registry().gather());
        let row = &counted["collector"];
        assert_eq!((row.received, row.stored, row.waiting, row.is_conserved), (10, 6, 1, true));
        assert_eq!((row.refused["unit"], row.dropped["repeat"]), (2, 1));
        assert_eq!((row.steps[0].count, row.steps[0].p99_s), (100, Some(0.0025)));
    }
}
