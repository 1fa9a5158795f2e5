//! The collector: takes batches from the bus, or straight from a caller, refines them and hands them on.
//!
//! ```text
//! bus queue → decode → check → drop repeats → derive → SampleSink → ack
//!               └ not a batch, or rejected for good → quarantine (durable) → ack
//! ```
//!
//! A message is acknowledged strictly after the sink's `Ok` (contract C1), or after the quarantine has it on disk. While
//! the sink is not available nothing is taken from the bus beyond what is in hand, so that the broker holds and memory
//! does not grow. What comes twice is dropped by its id, and what is refused is counted by reason while the rest of its
//! batch goes on.
//!
//! This room does not know how anything is stored, what an alarm is, or where a batch comes from.
#![forbid(unsafe_code)]

mod accept;
pub mod check;
mod consume;
pub mod derive;
mod generations;
pub mod quarantine;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use orzo_bus::{Bus, topic};
use orzo_model::{MeasureReader, Rooms, SampleSink, SharedClock};

pub use accept::CollectorCore;
pub use check::Limits;
pub use quarantine::{Quarantine, QuarantineEntry, QuarantineError};

/// Batches in hand at once: enough to share one group commit, few enough to hold in memory.
pub const BATCHES_MAX: u16 = 16;
/// Encoded bytes in hand at once, beyond one batch; decoded they take some ten times as much.
pub const BYTES_MAX: usize = 16 << 20;

/// What an operator can choose.
#[derive(Clone, Debug)]
pub struct CollectorSettings {
    /// Queues that samples are spread over; the agents' publishers must agree.
    pub shards: u16,
    /// What a sample may be.
    pub limits: Limits,
    /// Whether `cpu_util` and the `.rate` meters are made.
    pub derive: bool,
    /// Batches in hand at once.
    pub batches_max: u16,
    /// Encoded bytes in hand at once, beyond one batch.
    pub bytes_max: usize,
    /// A batch that the sink does not take for so long goes back to the broker, for another collector. Far below
    /// RabbitMQ's own limit of 30 minutes, after which it would close the channel.
    pub hold_max: Duration,
}

impl Default for CollectorSettings {
    fn default() -> Self {
        Self {
            shards: topic::SHARDS_DEFAULT,
            limits: Limits::default(),
            derive: true,
            batches_max: BATCHES_MAX,
            bytes_max: BYTES_MAX,
            hold_max: Duration::from_secs(10 * 60),
        }
    }
}

/// Consumes the samples' queues until stopped.
pub struct Collector {
    core: Arc<CollectorCore>,
    bus: Arc<dyn Bus>,
    quarantine: Arc<Quarantine>,
    settings: CollectorSettings,
    clock: SharedClock,
    batches: orzo_model::Room,
}

impl Collector {
    /// A collector that hands on to `sink`. `reader` answers what a counter's last stored value was, after a restart.
    /// Counts samples and events in the room `collector`, derived samples in `derive`, messages in `batches`.
    pub fn new(
        settings: CollectorSettings,
        bus: Arc<dyn Bus>,
        sink: Arc<dyn SampleSink>,
        reader: Arc<dyn MeasureReader>,
        quarantine: Arc<Quarantine>,
        rooms: &Rooms,
        clock: SharedClock,
    ) -> Self {
        let core = CollectorCore::new(&settings, sink, reader, rooms, clock.clone());
        Self { core: Arc::new(core), bus, quarantine, settings, clock, batches: rooms.room("batches") }
    }

    /// The part that checks and refines, as a sink: for callers in this process that need no bus.
    pub fn core(&self) -> Arc<CollectorCore> {
        self.core.clone()
    }
}
