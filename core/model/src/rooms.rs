//! Conservation counters: each room counts what comes in and what becomes of it, so that
//! received = stored + refused + dropped + waiting can be asserted anywhere (contract C4).

use crate::{
    Timestamp,
    refusals::{Refusals, Refused, RefusedSample},
    seen::{Seen, SeenMeter},
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};

/// The counters of all rooms of a process, in one registry.
#[derive(Clone)]
pub struct Rooms {
    registry: Registry,
    received: IntCounterVec,
    stored: IntCounterVec,
    refused: IntCounterVec,
    dropped: IntCounterVec,
    waiting: IntGaugeVec,
    seconds: HistogramVec,
    lately: Refusals,
    seen: Seen,
}

/// The counters of one room. Cheap to clone.
#[derive(Clone)]
pub struct Room {
    name: &'static str,
    rooms: Rooms,
}

/// What a room has counted, for assertions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Came in.
    pub received: u64,
    /// Went on, or is durable here.
    pub stored: u64,
    /// Refused with a reason.
    pub refused: u64,
    /// Dropped with a reason (repeats among them).
    pub dropped: u64,
    /// Still inside.
    pub waiting: i64,
}

impl Balance {
    /// Nothing vanished and nothing appeared.
    pub fn is_conserved(&self) -> bool {
        i128::from(self.received)
            == i128::from(self.stored) + i128::from(self.refused) + i128::from(self.dropped) + i128::from(self.waiting)
    }
}

impl Rooms {
    /// Registers the counters in `registry`; once per registry.
    pub fn new(registry: &Registry) -> Self {
        fn registered<C: Collector + Clone + 'static>(
            registry: &Registry,
            collector: Result<C, prometheus::Error>,
        ) -> C {
            let collector = collector.expect("the names below are valid");
            registry.register(Box::new(collector.clone())).expect("Rooms::new is called once per registry");
            collector
        }
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        // From one fsync of a fast disk to a slow broker's timeout.
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        Self {
            received: counter("orzo_received_total", "Samples, events or notices that came into a room.", &["room"]),
            stored: counter(
                "orzo_stored_total",
                "What a room made durable or handed on with an acknowledgement.",
                &["room"],
            ),
            refused: counter("orzo_refused_total", "What a room refused, by reason.", &["room", "reason"]),
            dropped: counter(
                "orzo_dropped_total",
                "What a room dropped, by reason; repeats among them.",
                &["room", "reason"],
            ),
            waiting: registered(
                registry,
                IntGaugeVec::new(Opts::new("orzo_waiting", "What is inside a room now."), &["room"]),
            ),
            seconds: registered(
                registry,
                HistogramVec::new(
                    HistogramOpts::new("orzo_seconds", "How long a room's step takes.").buckets(buckets),
                    &["room", "step"],
                ),
            ),
            registry: registry.clone(),
            lately: Refusals::default(),
            seen: Seen::default(),
        }
    }

    /// Meters of which samples were refused lately, the newest first.
    pub fn refused_lately(&self) -> Vec<Refused> {
        self.lately.list()
    }

    /// What rooms know of the meters that are wanted, by room.
    pub fn seen(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<SeenMeter> {
        self.seen.list(is_wanted)
    }

    /// The counters of one room.
    pub fn room(&self, name: &'static str) -> Room {
        // Touch them, so that a room shows zero instead of nothing.
        self.received.with_label_values(&[name]);
        self.stored.with_label_values(&[name]);
        self.waiting.with_label_values(&[name]);
        Room { name, rooms: self.clone() }
    }

    /// Where further metrics can be registered, and what `/metrics` gathers.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Room {
    /// `count` things came in; they are waiting until told otherwise.
    pub fn received(&self, count: u64) {
        self.rooms.received.with_label_values(&[self.name]).inc_by(count);
        self.rooms.waiting.with_label_values(&[self.name]).add(count as i64);
    }

    /// `count` things are durable or handed on.
    pub fn stored(&self, count: u64) {
        self.rooms.stored.with_label_values(&[self.name]).inc_by(count);
        self.left(count);
    }

    /// `count` things were refused.
    pub fn refused(&self, reason: &str, count: u64) {
        if count > 0 {
            self.rooms.refused.with_label_values(&[self.name, reason]).inc_by(count);
            self.left(count);
        }
    }

    /// Remembers whose sample was refused, for whoever looks for it; counts nothing.
    pub fn note_refused(&self, reason: &'static str, sample: RefusedSample, now: Timestamp) {
        self.rooms.lately.note(self.name, reason, sample, now);
    }

    /// Remembers that so many samples of these meters went on, for whoever looks for them; counts nothing.
    pub fn note_passed<'a>(&self, meters: impl IntoIterator<Item = (&'a str, u64)>, now: Timestamp) {
        self.rooms.seen.passed(self.name, meters, now);
    }

    /// Remembers that these meters could not be had, and why; counts nothing.
    pub fn note_failed<'a>(&self, meters: impl IntoIterator<Item = &'a str>, reason: &str, now: Timestamp) {
        self.rooms.seen.failed(self.name, meters, reason, now);
    }

    /// `count` things were dropped.
    pub fn dropped(&self, reason: &str, count: u64) {
        if count > 0 {
            self.rooms.dropped.with_label_values(&[self.name, reason]).inc_by(count);
            self.left(count);
        }
    }

    /// `count` things were given back to the sender: they will come in again and be counted again.
    pub fn returned(&self, count: u64) {
        self.dropped("returned to sender", count);
    }

    /// A step took this long.
    pub fn took(&self, step: &str, duration: std::time::Duration) {
        self.rooms.seconds.with_label_values(&[self.name, step]).observe(duration.as_secs_f64());
    }

    /// What has been counted so far.
    pub fn balance(&self) -> Balance {
        let sum = |vector: &IntCounterVec| {
            vector
                .collect()
                .iter()
                .flat_map(|family| family.get_metric())
                .filter(|metric| metric.get_label().iter().any(|l| l.name() == "room" && l.value() == self.name))
                .map(|metric| metric.get_counter().get_value() as u64)
                .sum()
        };
        Balance {
            received: sum(&self.rooms.received),
            stored: sum(&self.rooms.stored),
            refused: sum(&self.rooms.refused),
            dropped: sum(&self.rooms.dropped),
            waiting: self.rooms.waiting.with_label_values(&[self.name]).get(),
        }
    }

    fn left(&self, count: u64) {
        self.rooms.waiting.with_label_values(&[self.name]).sub(count as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_conserves() {
        let rooms = Rooms::new(&Registry::new());
        let room = rooms.room("collector");
        room.received(10);
        room.stored(6);
        room.refused("not finite", 2);
        room.dropped("repeat", 1);
        let balance = room.balance();
        assert_eq!(balance, Balance { received: 10, stored: 6, refused: 2, dropped: 1, waiting: 1 });
        assert!(balance.is_conserved());
        assert!(!Balance { received: 1, ..Balance::default() }.is_conserved());
    }
}
