//! Samples and the batches they travel in.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Event, Timestamp};

/// How a meter's values relate to each other, as Ceilometer names it (`counter_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleKind {
    /// A level; each value stands alone.
    Gauge,
    /// A change since the last value.
    Delta,
    /// A counter that only grows, until its source restarts.
    Cumulative,
}

/// Metadata of a resource as its source tells it; shared by the samples of one poll.
pub type Metadata = Arc<BTreeMap<String, serde_json::Value>>;

/// One value of one meter of one resource at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The same measurement always has the same id ([`sample_id`]), whoever took it and however often it is sent.
    pub id: Uuid,
    /// Meter name, such as `cpu` or `disk.device.read.bytes`.
    pub meter: String,
    /// Gauge, delta or cumulative.
    pub kind: SampleKind,
    /// Unit as Ceilometer writes it: `ns`, `B`, `B/s`, `%`; may be empty.
    pub unit: String,
    /// The value. The collector refuses what is not finite.
    pub value: f64,
    /// When it was true; for polled samples the scheduled slot.
    pub timestamp: Timestamp,
    /// The resource's own name for itself: a UUID, or free text such as `<uuid>-vda`.
    pub resource_id: String,
    /// Owning project, if any.
    pub project_id: Option<String>,
    /// Owning user, if any.
    pub user_id: Option<String>,
    /// Where it comes from; `openstack` for Ceilometer's and our own agents.
    pub source: String,
    /// What the source says about the resource.
    pub metadata: Metadata,
}

/// What travels, is accepted and is acknowledged as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Same id when the same batch is sent again.
    pub id: Uuid,
    /// Who made it: `compute@host1`, `notifications@host1`.
    pub origin: String,
    /// Samples, in any order.
    pub samples: Vec<Sample>,
    /// Events, in any order.
    pub events: Vec<Event>,
}

impl Batch {
    /// How many things are in it.
    pub fn len(&self) -> usize {
        self.samples.len() + self.events.len()
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.events.is_empty()
    }
}

/// Namespace of sample ids: a random UUID that never changes.
const SAMPLE_NAMESPACE: Uuid = Uuid::from_u128(0x5b0c_8a52_5a2e_4cde_9a3b_7d1f_20c6_41e7);

/// The deterministic id of a measurement: two agents that poll the same slot make the same id, so one row.
///
/// The parts are length-prefixed, so that `("ab","c")` and `("a","bc")` differ.
pub fn sample_id(origin: &str, resource_id: &str, meter: &str, slot: Timestamp) -> Uuid {
    let mut name = Vec::with_capacity(64 + origin.len() + resource_id.len() + meter.len());
    for part in [origin, resource_id, meter] {
        name.extend_from_slice(&(part.len() as u64).to_le_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    name.extend_from_slice(&slot.micros().to_le_bytes());
    Uuid::new_v5(&SAMPLE_NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_ids_are_stable_and_their_parts_do_not_run_together() {
        let slot = Timestamp::from_secs(60);
        assert_eq!(sample_id("cpu", "r", "m", slot), sample_id("cpu", "r", "m", slot));
        assert_ne!(sample_id("ab", "c", "m", slot), sample_id("a", "bc", "m", slot));
        assert_ne!(sample_id("a", "b", "m", slot), sample_id("a", "b", "m", Timestamp::from_secs(61)));
    }
}
