//! The compute agent: asks the hypervisor at every slot, makes samples, hands them over.
//!
//! `Hypervisor::stats → pollsters → Sample → HandOver → SampleSink`
//!
//! One loop for each interval of the polling definition, one bulk call for each slot, whatever the number of meters.
//! A hypervisor that does not answer costs its slot, which is counted and told; no value is made up for it.

pub mod bench;

use std::{sync::Arc, time::Duration};

use orzo_hypervisor::{Hypervisor, HypervisorError};
use orzo_model::{Room, Rooms, Sample, SampleSink, SharedClock, Timestamp, by_meter};
use tokio_util::sync::CancellationToken;

use crate::{
    polling::{HandOver, Polling, Schedule, Ticker},
    pollsters::{POLLSTERS, PollContext, Pollster, poll},
};

/// Polls a hypervisor's guests.
pub struct ComputeAgent {
    hypervisor: Arc<dyn Hypervisor>,
    polling: Polling,
    hand_over: HandOver,
    clock: SharedClock,
    room: Room,
    slots: Room,
    host: String,
    report_stopped: bool,
    report_unowned: bool,
}

impl ComputeAgent {
    /// Counts samples in the room `compute` and slots in `compute.slots`.
    pub fn new(
        hypervisor: Arc<dyn Hypervisor>,
        polling: Polling,
        sink: Arc<dyn SampleSink>,
        clock: SharedClock,
        rooms: &Rooms,
        host: impl Into<String>,
    ) -> Self {
        let host = host.into();
        let room = rooms.room("compute");
        Self {
            hypervisor,
            polling,
            hand_over: HandOver::new(format!("compute@{host}"), sink, clock.clone(), room.clone()),
            clock,
            room,
            slots: rooms.room("compute.slots"),
            host,
            report_stopped: false,
            report_unowned: false,
        }
    }

    /// Ask guests that are off for all meters (see [`PollContext`]).
    pub fn report_stopped(self, report_stopped: bool) -> Self {
        Self { report_stopped, ..self }
    }

    /// Poll guests that no cloud made as well (see [`PollContext`]).
    pub fn report_unowned(self, report_unowned: bool) -> Self {
        Self { report_unowned, ..self }
    }

    /// Polls until `stop`; what is being sent then is finished or counted.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        for ignored in &self.polling.ignored {
            tracing::warn!("{ignored}");
        }
        let loops = self.plan().into_iter().map(|(interval, pollsters)| {
            let schedule = Schedule::new(&self.host, interval);
            self.poll_at(schedule, pollsters, stop.clone())
        });
        futures::future::join_all(loops).await;
    }

    /// The pollsters of each interval.
    fn plan(&self) -> Vec<(Duration, Vec<&'static Pollster>)> {
        let names: Vec<&str> = POLLSTERS.iter().map(|pollster| pollster.meter).collect();
        let chosen = |meters: &[&str]| POLLSTERS.iter().filter(|p| meters.contains(&p.meter)).collect();
        self.polling.plan(&names).into_iter().map(|(interval, meters)| (interval, chosen(&meters))).collect()
    }

    async fn poll_at(&self, schedule: Schedule, pollsters: Vec<&'static Pollster>, stop: CancellationToken) {
        let mut ticker = Ticker::new("compute", schedule, self.clock.clone(), self.slots.clone());
        let part = schedule.interval().as_secs().to_string();
        let mut silent = false;
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => return,
                slot = ticker.tick() => slot,
            };
            match self.poll(&pollsters, slot).await {
                Ok(samples) => {
                    // What gave nothing was polled as well.
                    let mut counts = by_meter(&samples);
                    pollsters.iter().for_each(|pollster| _ = counts.entry(pollster.meter).or_default());
                    self.room.note_passed(counts, self.clock.now());
                    if std::mem::take(&mut silent) {
                        tracing::info!("the hypervisor answers again");
                    }
                    self.hand_over.send(samples, slot, &part, schedule.interval(), &stop).await;
                    self.slots.stored(1);
                }
                Err(error) => {
                    self.slots.dropped("hypervisor silent", 1);
                    let reason = format!("the hypervisor does not answer: {error}");
                    self.room.note_failed(pollsters.iter().map(|one| one.meter), &reason, self.clock.now());
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the hypervisor does not answer; its guests are not measured"
                        );
                    }
                }
            }
        }
    }

    /// One poll: all samples that `pollsters` make of all guests.
    async fn poll(&self, pollsters: &[&Pollster], slot: Timestamp) -> Result<Vec<Sample>, HypervisorError> {
        let started_at = self.clock.monotonic();
        let guests = self.hypervisor.stats().await?;
        let context = PollContext {
            host: &self.host,
            slot,
            report_stopped: self.report_stopped,
            report_unowned: self.report_unowned,
        };
        let samples: Vec<Sample> = guests.iter().flat_map(|guest| poll(guest, pollsters, &context)).collect();
        let took = self.clock.monotonic().saturating_sub(started_at);
        self.room.took("poll", took);
        tracing::debug!(guests = guests.len(), samples = samples.len(), ?took, "polled");
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use orzo_hypervisor::{GuestSpec, GuestStats, Node, PowerState, Simulated};
    use orzo_model::{Batch, ManualClock, Receipt, SinkError};
    use parking_lot::Mutex;
    use uuid::Uuid;

    use super::*;

    /// Keeps what it accepts.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Batch>>);

    #[async_trait]
    impl SampleSink for Kept {
        async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
            let stored = batch.len() as u64;
            self.0.lock().push(batch);
            Ok(Receipt { stored, ..Receipt::default() })
        }
    }

    /// Simulated guests behind a line that can be cut.
    struct Line {
        guests: Simulated,
        cut: AtomicBool,
    }

    #[async_trait]
    impl Hypervisor for Line {
        fn kind(&self) -> &'static str {
            "simulated"
        }
        async fn node(&self) -> Result<Node, HypervisorError> {
            self.guests.node().await
        }
        async fn stats(&self) -> Result<Vec<GuestStats>, HypervisorError> {
            if self.cut.load(Ordering::Relaxed) {
                return Err(HypervisorError::NotAvailable { reason: "cut".into() });
            }
            self.guests.stats().await
        }
        async fn create(&self, spec: &GuestSpec) -> Result<(), HypervisorError> {
            self.guests.create(spec).await
        }
        async fn start(&self, uuid: Uuid) -> Result<(), HypervisorError> {
            self.guests.start(uuid).await
        }
        async fn stop(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
            self.guests.stop(uuid, hard).await
        }
        async fn reboot(&self, uuid: Uuid, hard: bool) -> Result<(), HypervisorError> {
            self.guests.reboot(uuid, hard).await
        }
        async fn destroy(&self, uuid: Uuid) -> Result<(), HypervisorError> {
            self.guests.destroy(uuid).await
        }
        async fn state(&self, uuid: Uuid) -> Result<Option<PowerState>, HypervisorError> {
            self.guests.state(uuid).await
        }
    }

    struct Stage {
        clock: Arc<ManualClock>,
        line: Arc<Line>,
        kept: Arc<Kept>,
        rooms: Rooms,
        stop: CancellationToken,
        running: tokio::task::JoinHandle<()>,
    }

    fn stage(polling: &str) -> Stage {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_291_400));
        let guests = Simulated::new("simulated-host", 1, clock.clone());
        guests.populate(3);
        let line = Arc::new(Line { guests, cut: AtomicBool::new(false) });
        let kept = Arc::new(Kept::default());
        let rooms = Rooms::new(&prometheus::Registry::new());
        let polling = Polling::parse("polling.yaml", polling).unwrap();
        let agent = ComputeAgent::new(line.clone(), polling, kept.clone(), clock.clone(), &rooms, "node-1");
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::new(agent).run(stop.clone()));
        Stage { clock, line, kept, rooms, stop, running }
    }

    impl Stage {
        /// Lets `seconds` go by, with time for the agent at each tenth.
        async fn pass(&self, seconds: u32) {
            for _ in 0..seconds * 10 {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                self.clock.advance(Duration::from_millis(100));
            }
        }

        async fn end(self) -> Vec<Batch> {
            self.stop.cancel();
            self.running.await.unwrap();
            for room in ["compute", "compute.slots"] {
                let balance = self.rooms.room(room).balance();
                assert!(balance.is_conserved() && balance.waiting == 0, "{room}: {balance:?}");
            }
            std::mem::take(&mut *self.kept.0.lock())
        }
    }

    const TWO_INTERVALS: &str = "sources:\n  - {name: often, interval: 10, meters: [cpu, memory.usage]}\n  - {name: rarely, interval: 60, meters: [vcpus, cpu]}\n";

    #[tokio::test]
    async fn each_interval_polls_its_meters_at_its_slots() {
        let stage = stage(TWO_INTERVALS);
        stage.pass(121).await;
        let batches = stage.end().await;
        let meters = |batch: &Batch| {
            let mut meters: Vec<String> = batch.samples.iter().map(|sample| sample.meter.clone()).collect();
            meters.sort();
            meters.dedup();
            meters
        };
        let (rarely, often): (Vec<_>, Vec<_>) = batches.iter().partition(|b| meters(b).contains(&"vcpus".to_owned()));
        assert_eq!(rarely.len(), 2);
        assert_eq!(often.len(), 12);
        assert_eq!(meters(rarely[0]), ["cpu", "vcpus"]);
        assert_eq!(meters(often[0]), ["cpu", "memory.usage"]);
        assert!(often[0].samples.len() == 6 && often[0].origin == "compute@node-1");
        let slots: Vec<Timestamp> = often.iter().map(|batch| batch.samples[0].timestamp).collect();
        assert!(slots.windows(2).all(|pair| pair[1].since(pair[0]) == Duration::from_secs(10)));
        assert!(often[0].samples.iter().all(|sample| sample.timestamp == slots[0]));
    }

    #[tokio::test]
    async fn a_silent_hypervisor_costs_its_slots_and_nothing_else() {
        let stage = stage("sources:\n  - {name: all, interval: 10, meters: ['*']}\n");
        stage.pass(30).await;
        stage.line.cut.store(true, Ordering::Relaxed);
        stage.pass(30).await;
        stage.line.cut.store(false, Ordering::Relaxed);
        stage.pass(30).await;
        let slots = stage.rooms.room("compute.slots").balance();
        assert_eq!((slots.received, slots.stored, slots.dropped), (9, 6, 3));
        let batches = stage.end().await;
        assert_eq!(batches.len(), 6);
    }
}
