//! Central agent: what services tell only when asked. Images, and volumes where there is a volume service.
//!
//! `identity catalog → service API, page by page → samples → Batch → SampleSink`, once per slot.
//!
//! Speaks to services through one [`Session`] (one token, cached and renewed). A service that the catalog does not
//! have is passed over with one line in the log. The timestamp of all samples is the scheduled slot, and their ids
//! are made from it, so that two agents make one row. This room knows no broker and no store.

mod images;
mod pages;
mod slots;
#[cfg(test)]
mod tests;
mod volumes;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use orzo_bus::Backoff;
use orzo_model::{Batch, Room, Sample, SampleSink, SharedClock, SinkError, Timestamp};
use orzo_session::{Session, SessionError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

pub use slots::Slots;

/// Samples of one batch; a batch is held in memory here and in the sink.
const BATCH_SAMPLES_MAX: usize = 1000;
/// First wait after the sink said "not now".
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Namespace of batch ids: a random UUID that never changes.
const BATCH_NAMESPACE: Uuid = Uuid::from_u128(0x1d7c_95b0_3e42_4f6f_8a51_c6e8_2b90_d733);

/// Polls services through their APIs.
pub struct CentralAgent {
    session: Arc<Session>,
    sink: Arc<dyn SampleSink>,
    interval: Duration,
    host: String,
    clock: SharedClock,
    room: Room,
    /// Pollsters that failed last time, so that the log has the change only.
    failing: Mutex<BTreeSet<&'static str>>,
}

/// What can be asked of a service.
#[derive(Clone, Copy, Debug)]
struct Pollster {
    /// Also the name of the meter.
    meter: &'static str,
    /// Types under which a catalog may list the service, in the order tried.
    service_types: &'static [&'static str],
    /// Where the first page is.
    path: &'static str,
    /// Name of the list in an answer.
    list: &'static str,
    /// One entry of the list → its sample, if it has a value.
    sample: fn(&serde_json::Value, Timestamp) -> Option<Sample>,
}

/// All pollsters. A new one is an entry here.
const POLLSTERS: [Pollster; 4] = [images::SIZE, volumes::SIZE, volumes::SNAPSHOT_SIZE, volumes::BACKUP_SIZE];

impl CentralAgent {
    /// An agent; nothing happens before [`Self::run`].
    pub fn new(
        session: Arc<Session>,
        sink: Arc<dyn SampleSink>,
        interval: Duration,
        host: String,
        clock: SharedClock,
        room: Room,
    ) -> Self {
        Self { session, sink, interval, host, clock, room, failing: Mutex::default() }
    }

    /// Polls at every slot until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let slots = Slots::new(self.interval, &self.host);
        info!(interval_s = self.interval.as_secs(), "polling services");
        let mut last = None;
        loop {
            let slot = slots.next(self.clock.now(), last);
            let wait = slot.since(self.clock.now());
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep(wait) => {}
            }
            if let Some(last) = last {
                let missed = slots.between(last, slot);
                if missed > 0 {
                    warn!(missed, "polls of services took too long; slots were missed");
                }
            }
            last = Some(slot);
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.poll(slot) => {}
            }
        }
        info!("no longer polling services");
    }

    /// Polls everything once, for the given slot, and hands on what it got.
    pub async fn poll(&self, slot: Timestamp) {
        for pollster in &POLLSTERS {
            let started = self.clock.monotonic();
            match self.ask(pollster, slot).await {
                Ok(samples) => {
                    self.note(pollster.meter, None);
                    self.room.took(pollster.meter, self.clock.monotonic().saturating_sub(started));
                    self.hand_on(pollster, slot, samples).await;
                }
                Err(error) => self.note(pollster.meter, Some(&error)),
            }
        }
    }

    /// All pages of a pollster's list.
    async fn ask(&self, pollster: &Pollster, slot: Timestamp) -> Result<Vec<Sample>, SessionError> {
        let service_type = self.service_type(pollster).await?;
        let mut samples = Vec::new();
        let mut entries = pages::Pages::new(pollster.path, pollster.list);
        while let Some(path) = entries.next_path() {
            let answer = self.session.get(service_type, &path).await?;
            for entry in entries.take(&answer) {
                samples.extend((pollster.sample)(entry, slot));
            }
        }
        if entries.is_cut() {
            warn!(meter = pollster.meter, "a service has more entries than we read; the rest is not measured");
        }
        Ok(samples)
    }

    async fn service_type(&self, pollster: &Pollster) -> Result<&'static str, SessionError> {
        let mut missing = None;
        for service_type in pollster.service_types {
            match self.session.endpoint(service_type).await {
                Ok(_) => return Ok(service_type),
                Err(error @ SessionError::NoEndpoint { .. }) => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(missing.unwrap_or(SessionError::NoEndpoint { service_type: pollster.meter.to_owned() }))
    }

    async fn hand_on(&self, pollster: &Pollster, slot: Timestamp, samples: Vec<Sample>) {
        self.room.received(samples.len() as u64);
        let deadline = self.clock.monotonic().saturating_add(self.interval);
        for (part, samples) in samples.chunks(BATCH_SAMPLES_MAX).enumerate() {
            let name = format!("{}/{}/{}/{part}", self.host, pollster.meter, slot.micros());
            let batch = Batch {
                id: Uuid::new_v5(&BATCH_NAMESPACE, name.as_bytes()),
                origin: format!("central@{}", self.host),
                samples: samples.to_vec(),
                events: Vec::new(),
            };
            self.offer(batch, deadline).await;
        }
    }

    /// Offers until taken; gives up when the next slot is due, and says so.
    async fn offer(&self, batch: Batch, deadline: Duration) {
        let count = batch.len() as u64;
        let mut settled = Unsettled { room: &self.room, count };
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            match self.sink.accept(batch.clone()).await {
                Ok(_) => {
                    settled.count = 0;
                    self.room.stored(count);
                    return;
                }
                Err(SinkError::Rejected { reason }) => {
                    settled.count = 0;
                    warn!(reason, count, "samples of services were rejected");
                    self.room.refused("rejected", count);
                    return;
                }
                Err(unavailable) => {
                    let pause = backoff.next_wait();
                    if self.clock.monotonic().saturating_add(pause) >= deadline {
                        warn!(error = %unavailable, count, "samples of services could not be handed on in time");
                        return;
                    }
                    self.clock.sleep(pause).await;
                }
            }
        }
    }

    /// Logs a change between working and failing.
    fn note(&self, meter: &'static str, error: Option<&SessionError>) {
        let mut failing = self.failing.lock();
        match error {
            None if failing.remove(meter) => info!(meter, "a service is polled again"),
            None => {}
            Some(SessionError::NoEndpoint { service_type }) if failing.insert(meter) => {
                info!(meter, service_type, "the catalog has no such service; it is passed over");
            }
            Some(error) if failing.insert(meter) => warn!(meter, error = %error, "a service cannot be polled"),
            Some(error) => debug!(meter, error = %error, "a service still cannot be polled"),
        }
    }
}

/// Counts samples as dropped if they are not settled otherwise, also when the poll is stopped half-way.
struct Unsettled<'a> {
    room: &'a Room,
    count: u64,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.room.dropped("not handed on in time", self.count);
    }
}
