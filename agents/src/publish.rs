//! The sink of all agents: hands batches to the bus or to Orzo's API, and keeps them on disk while neither answers.
//!
//! ```text
//! Batch → encode, by shard → outlet: bus or HTTP ──── confirmed → Ok
//!                               └ no answer → spool on disk (synced) → Ok
//!                                                └ drain: oldest first, until confirmed, then removed
//! ```
//!
//! `Ok` means that the batch is safe: confirmed by the other side, or on this machine's disk. While anything waits in
//! the spool, new batches join it, so that an agent does not wait for a dead bus at every poll. The spool is bounded:
//! what no longer fits is refused with a count and a loud warning, and what is in it stays.
//!
//! This room does not know what a sample means, nor who consumes.

mod outlet;
mod parcel;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use orzo_bus::{Backoff, RecordError, RecordId, Records};
use orzo_model::{Batch, Receipt, Room, Rooms, SampleSink, SharedClock, SinkError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use outlet::{BusOutlet, HttpOutlet, Outlet, OutletError};
pub use parcel::Parcel;

/// Disk space for the spool unless the settings say otherwise: at 20 bytes a sample days of a busy host.
pub const SPOOL_BYTES_DEFAULT: u64 = 1 << 30;
/// How long a new batch waits for the other side before it goes to the disk: a poll must not be held up.
pub const SEND_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a spooled batch waits for its confirmation: nobody waits behind it but the spool.
pub const DRAIN_WAIT_MAX: Duration = Duration::from_secs(40);
/// First ceiling of the wait before the spool is tried again.
pub const DRAIN_FIRST: Duration = Duration::from_millis(200);
/// Largest wait before the spool is tried again: an outage's end is found within half a minute.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// The agents' sink.
pub struct Publisher {
    outlet: Arc<dyn Outlet>,
    spool: Arc<Records>,
    shards: u16,
    clock: SharedClock,
    room: Room,
    spool_room: Room,
    spooled: Notify,
    /// The other side did not answer last time; told when it changes.
    troubled: AtomicBool,
    /// The spool was full last time; told when it changes.
    full: AtomicBool,
}

impl Publisher {
    /// A publisher to `outlet` that keeps in `spool` what the outlet does not take. What is in the spool from before is
    /// sent by [`Self::run`]. Counts in the rooms `publisher` and `spool`.
    pub fn new(
        outlet: Arc<dyn Outlet>,
        spool: Arc<Records>,
        shards: u16,
        rooms: &Rooms,
        clock: SharedClock,
    ) -> Arc<Self> {
        let spool_room = rooms.room("spool");
        let left_over = spool.list();
        for id in &left_over {
            // A record that cannot be read now is counted as one thing when its turn comes, and told then.
            let things = spool.read(*id).map_or(1, |(note, _)| parcel::things(&note));
            spool_room.received(things);
        }
        if !left_over.is_empty() {
            tracing::info!(batches = left_over.len(), "the spool holds batches from before, sending them");
        }
        Arc::new(Self {
            outlet,
            spool,
            shards: shards.max(1),
            clock,
            room: rooms.room("publisher"),
            spool_room,
            spooled: Notify::new(),
            troubled: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }

    /// Sends what is in the spool, oldest first, until stopped. One task runs this.
    pub async fn run(&self, stop: CancellationToken) {
        let mut backoff = Backoff::new(DRAIN_FIRST, DRAIN_MAX);
        loop {
            let drained = self.drain_one(&stop).await;
            match drained {
                Drained::Sent => backoff.succeeded(),
                Drained::Empty => {
                    if self.troubled.swap(false, Ordering::Relaxed) {
                        tracing::info!("samples are published again, the spool is empty");
                    }
                    tokio::select! {
                        () = self.spooled.notified() => {}
                        () = stop.cancelled() => return,
                    }
                }
                Drained::Stuck => {
                    let wait = backoff.next_wait();
                    tokio::select! {
                        () = self.clock.sleep(wait) => {}
                        () = stop.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Batches that wait on disk.
    pub fn spooled_batches(&self) -> usize {
        self.spool.len()
    }

    async fn drain_one(&self, stop: &CancellationToken) -> Drained {
        let Some(id) = self.spool.first() else { return Drained::Empty };
        let (note, body) = match self.on_disk(move |spool| spool.read(id)).await {
            Ok(record) => record,
            Err(error @ RecordError::Damaged { .. }) => {
                return self.set_aside(id, 1, "damaged", &error).await;
            }
            Err(error) => {
                self.trouble(&error);
                return Drained::Stuck;
            }
        };
        let things = parcel::things(&note);
        let parcel = match Parcel::from_record(&note, body) {
            Some(parcel) => parcel,
            None => {
                let error = RecordError::Damaged { id, reason: "its note does not name a batch" };
                return self.set_aside(id, things, "damaged", &error).await;
            }
        };
        // Only the waiting is cut short: what happens to the file is always counted.
        let sent = tokio::select! {
            sent = self.send(&parcel, DRAIN_WAIT_MAX) => sent,
            () = stop.cancelled() => return Drained::Stuck,
        };
        match sent {
            Ok(()) => {}
            Err(error @ OutletError::Rejected { .. }) => return self.set_aside(id, things, "rejected", &error).await,
            Err(error) => {
                self.trouble(&error);
                return Drained::Stuck;
            }
        }
        // If the removal fails the batch is sent again later, which changes nothing on the other side.
        match self.on_disk(move |spool| spool.remove(id)).await {
            Ok(()) => {
                self.spool_room.stored(things);
                Drained::Sent
            }
            Err(error) => {
                self.trouble(&error);
                Drained::Stuck
            }
        }
    }

    /// A batch that can never be delivered stays on disk for people, out of the way of the others.
    async fn set_aside(
        &self,
        id: RecordId,
        things: u64,
        reason: &str,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> Drained {
        match self.on_disk(move |spool| spool.set_aside(id)).await {
            Ok(path) => {
                tracing::error!(error, file = %path.display(), "a spooled batch cannot be delivered, it is set aside");
                self.spool_room.dropped(reason, things);
                Drained::Sent
            }
            Err(error) => {
                self.trouble(&error);
                Drained::Stuck
            }
        }
    }

    async fn send(&self, parcel: &Parcel, wait: Duration) -> Result<(), OutletError> {
        let started = self.clock.monotonic();
        let outcome = match tokio::time::timeout(wait, self.outlet.send(parcel)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(OutletError::Unavailable { reason: format!("no answer within {wait:?}") }),
        };
        self.room.took("send", self.clock.monotonic().saturating_sub(started));
        outcome
    }

    /// Puts a parcel somewhere safe.
    async fn deliver(&self, parcel: Parcel) -> Result<(), SinkError> {
        let things = parcel.things;
        let received = Waiting::of(&self.room, things);
        if self.spool.is_empty() {
            match self.send(&parcel, SEND_WAIT_MAX).await {
                Ok(()) => {
                    received.settle(|room| room.stored(things));
                    return Ok(());
                }
                Err(OutletError::Rejected { reason }) => {
                    received.settle(|room| room.refused("rejected", things));
                    return Err(SinkError::Rejected { reason });
                }
                Err(error) => self.trouble(&error),
            }
        }
        let note = parcel.note();
        match self.on_disk(move |spool| spool.keep(&note, &parcel.body)).await {
            Ok(_) => {
                if self.full.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the spool has room again");
                }
                self.spool_room.received(things);
                received.settle(|room| room.stored(things));
                self.spooled.notify_one();
                Ok(())
            }
            Err(error) => {
                let reason = if matches!(error, RecordError::Full { .. }) { "spool full" } else { "spool failed" };
                if !self.full.swap(true, Ordering::Relaxed) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "samples are being lost: nobody takes them and they cannot be kept on disk");
                }
                received.settle(|room| room.refused(reason, things));
                Err(SinkError::unavailable(error))
            }
        }
    }

    /// Told when it begins; [`Self::run`] tells when it has ended.
    fn trouble(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) {
        if !self.troubled.swap(true, Ordering::Relaxed) {
            tracing::warn!(error, "cannot publish samples, keeping them on disk until it works again");
        }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T, RecordError> {
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || work(&spool)).await.expect("disk work does not panic and is not aborted")
    }
}

#[async_trait]
impl SampleSink for Publisher {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        let things = batch.len() as u64;
        let parcels = match parcel::pack(batch, self.shards) {
            Ok(parcels) => parcels,
            Err(error) => {
                self.room.received(things);
                self.room.refused("too large", things);
                return Err(SinkError::Rejected { reason: error.to_string() });
            }
        };
        // If a later parcel fails, the caller sends the whole batch again: same ids, so the first ones change nothing.
        for parcel in parcels {
            self.deliver(parcel).await?;
        }
        Ok(Receipt { stored: things, ..Receipt::default() })
    }
}

enum Drained {
    Sent,
    Empty,
    Stuck,
}

/// Counted as received until settled; given back if its task is cancelled, so that the room still balances.
struct Waiting<'r> {
    room: Option<&'r Room>,
    things: u64,
}

impl<'r> Waiting<'r> {
    fn of(room: &'r Room, things: u64) -> Self {
        room.received(things);
        Self { room: Some(room), things }
    }

    fn settle(mut self, count: impl FnOnce(&Room)) {
        if let Some(room) = self.room.take() {
            count(room);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            room.returned(self.things);
        }
    }
}
