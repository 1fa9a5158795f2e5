//! Central agent: what services tell only when asked. Images, and volumes where there is a volume service.
//!
//! `identity catalog → service API, page by page → samples → HandOver → SampleSink`, once per slot of `polling.yaml`.
//!
//! Speaks to services through one [`Session`] (one token, cached and renewed). A service that the catalog does not
//! have is passed over with one line in the log. The timestamp of all samples is the slot, and their ids are made from
//! it, so that two agents make one row. This room knows no broker and no store.

mod images;
mod pages;
#[cfg(test)]
mod tests;
mod volumes;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use orzo_model::{Room, Rooms, Sample, SampleSink, SharedClock, Timestamp};
use orzo_session::{Session, SessionError};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::polling::{HandOver, Polling, Schedule, Ticker};

/// Polls services through their APIs.
pub struct CentralAgent {
    session: Arc<Session>,
    polling: Polling,
    hand_over: HandOver,
    clock: SharedClock,
    room: Room,
    slots: Room,
    host: String,
    /// Pollsters that failed last time, so that the log has the change only.
    failing: Mutex<BTreeSet<&'static str>>,
}

/// What can be asked of a service.
#[derive(Clone, Copy, Debug)]
struct Pollster {
    /// The meter, which is also the pollster's name.
    meter: &'static str,
    /// Type of the service in the catalog; the session knows its aliases.
    service_type: &'static str,
    /// Where the list is; with a query.
    path: &'static str,
    /// Name of the list in an answer.
    list: &'static str,
    /// One entry of the list → its sample, if it has a value.
    sample: fn(&serde_json::Value, Timestamp) -> Option<Sample>,
}

/// All pollsters. A new one is an entry here.
const POLLSTERS: [Pollster; 4] = [images::SIZE, volumes::SIZE, volumes::SNAPSHOT_SIZE, volumes::BACKUP_SIZE];

/// The meters of all pollsters, with their units; all are gauges.
pub const METERS: [(&str, &str); 4] =
    [("image.size", "B"), ("volume.size", "GiB"), ("volume.snapshot.size", "GiB"), ("volume.backup.size", "GiB")];

impl CentralAgent {
    /// Counts samples in the room `central` and slots in `central.slots`. Nothing happens before [`Self::run`].
    pub fn new(
        session: Arc<Session>,
        polling: Polling,
        sink: Arc<dyn SampleSink>,
        clock: SharedClock,
        rooms: &Rooms,
        host: impl Into<String>,
    ) -> Self {
        let host = host.into();
        let room = rooms.room("central");
        Self {
            session,
            polling,
            hand_over: HandOver::new(format!("central@{host}"), sink, clock.clone(), room.clone()),
            clock,
            room,
            slots: rooms.room("central.slots"),
            host,
            failing: Mutex::default(),
        }
    }

    /// Polls at every slot until `stop`; one loop for each interval of the polling definition.
    pub async fn run(&self, stop: CancellationToken) {
        let names: Vec<&str> = POLLSTERS.iter().map(|pollster| pollster.meter).collect();
        let loops = self.polling.plan(&names).into_iter().map(|(interval, meters)| {
            let pollsters = POLLSTERS.iter().filter(|pollster| meters.contains(&pollster.meter)).collect();
            self.run_interval(interval, pollsters, &stop)
        });
        futures::future::join_all(loops).await;
    }

    async fn run_interval(&self, interval: Duration, pollsters: Vec<&Pollster>, stop: &CancellationToken) {
        let schedule = Schedule::new(&self.host, interval);
        let mut ticker = Ticker::new("central", schedule, self.clock.clone(), self.slots.clone());
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => return,
                slot = ticker.tick() => slot,
            };
            match self.poll(&pollsters, slot, interval, stop).await {
                true => self.slots.stored(1),
                false => self.slots.dropped("a service could not be polled", 1),
            }
        }
    }

    /// Asks everything once. True if every service that is there answered and the sink has its samples.
    async fn poll(
        &self,
        pollsters: &[&Pollster],
        slot: Timestamp,
        interval: Duration,
        stop: &CancellationToken,
    ) -> bool {
        let mut complete = true;
        for pollster in pollsters {
            let started = self.clock.monotonic();
            let asked = tokio::select! {
                () = stop.cancelled() => return false,
                asked = self.ask(pollster, slot) => asked,
            };
            self.room.took(pollster.meter, self.clock.monotonic().saturating_sub(started));
            self.note(pollster, asked.as_ref().err());
            let now = self.clock.now();
            match &asked {
                Ok(samples) => self.room.note_passed([(pollster.meter, samples.len() as u64)], now),
                Err(error) => self.room.note_failed([pollster.meter], &error.to_string(), now),
            }
            complete &= match asked {
                Ok(samples) => {
                    let part = format!("{}@{}", pollster.meter, interval.as_millis());
                    self.hand_over.send(samples, slot, &part, interval, stop).await
                }
                Err(SessionError::NoEndpoint { .. }) => true,
                Err(_) => false,
            };
        }
        complete
    }

    /// All pages of a pollster's list.
    async fn ask(&self, pollster: &Pollster, slot: Timestamp) -> Result<Vec<Sample>, SessionError> {
        let mut samples = Vec::new();
        let mut pages = pages::Pages::new(pollster.path, pollster.list);
        while let Some(path) = pages.next_path() {
            let answer = self.session.get(pollster.service_type, &path).await?;
            samples.extend(pages.take(&answer).iter().filter_map(|entry| (pollster.sample)(entry, slot)));
        }
        if pages.is_cut() {
            warn!(meter = pollster.meter, "a service has more entries than we read; the rest is not measured");
        }
        Ok(samples)
    }

    /// Logs a change between working and failing.
    fn note(&self, pollster: &Pollster, error: Option<&SessionError>) {
        let meter = pollster.meter;
        let mut failing = self.failing.lock();
        match error {
            None if failing.remove(meter) => info!(meter, "a service is polled again"),
            None => {}
            Some(SessionError::NoEndpoint { service_type }) if failing.insert(meter) => {
                info!(meter, service_type, "the catalog has no such service; it is passed over");
            }
            Some(error) if failing.insert(meter) => warn!(meter, %error, "a service cannot be polled"),
            Some(error) => debug!(meter, %error, "a service still cannot be polled"),
        }
    }
}
