//! The collector's loop: from the queues to the core, and the acknowledgement back.

use std::{sync::Arc, time::Duration};

use orzo_bus::{Backoff, BusError, Delivery, QueueSpec, batch, topic};
use orzo_model::{SampleSink, SharedClock, SinkError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{Collector, CollectorCore, Quarantine};

/// First ceiling of the wait before a batch is offered to the sink again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Largest wait before a batch is offered again: the end of an outage is found within this.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A message that was delivered so often before is handled alone: if it is what brings us down, the others survive.
const SUSPICIOUS_REDELIVERIES: u32 = 3;
/// When stopping, batches in hand get this long to be stored; then they go back to the broker.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Bytes are counted in units of this size, because a semaphore counts in 32 bits.
const BYTES_UNIT: usize = 1024;

impl Collector {
    /// Consumes all shards until `stop`, then lets what is in hand finish. Returns when all is acknowledged or given
    /// back.
    pub async fn run(&self, stop: CancellationToken) {
        let shards =
            (0..self.settings.shards.max(1)).map(|shard| self.consume(topic::samples_queue(shard), stop.clone()));
        futures::future::join_all(shards).await;
    }

    async fn consume(&self, queue: QueueSpec, stop: CancellationToken) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut subscription = loop {
            let error = match self.bus.subscribe(&queue, self.settings.batches_max.max(1)).await {
                Ok(subscription) => break subscription,
                Err(BusError::Closed) => return,
                Err(error) => error,
            };
            if backoff.failures() == 0 {
                tracing::warn!(
                    queue = queue.name,
                    error = &error as &dyn std::error::Error,
                    "cannot consume, trying on"
                );
            }
            if !waited(&self.clock, backoff.next_wait(), &stop).await {
                return;
            }
        };
        let hands = Hands::new(self.settings.batches_max, self.settings.bytes_max);
        let mut tasks = JoinSet::new();
        loop {
            let delivery = tokio::select! {
                delivery = subscription.next() => delivery,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    self.count_lost(ended);
                    continue;
                }
                () = stop.cancelled() => break,
            };
            let Some(delivery) = delivery else { break };
            self.batches.received(1);
            let permits = tokio::select! {
                permits = hands.take(delivery.redeliveries, delivery.message.body.len()) => permits,
                () = stop.cancelled() => {
                    self.batches.returned(1);
                    break;
                }
            };
            let task = Task {
                core: self.core.clone(),
                quarantine: self.quarantine.clone(),
                clock: self.clock.clone(),
                queue: queue.name.clone(),
                hold_max: self.settings.hold_max,
                stop: stop.clone(),
            };
            let batches = self.batches.clone();
            tasks.spawn(async move {
                match task.handle(delivery).await {
                    Handled::Stored => batches.stored(1),
                    Handled::Quarantined(reason) => batches.refused(reason, 1),
                    Handled::Returned => batches.returned(1),
                }
                drop(permits);
            });
        }
        // Tasks stop waiting for the sink by themselves; what is inside `accept` now gets its time. The subscription
        // lives until then, so that acknowledgements still go out on its channel.
        let drained = async {
            while let Some(ended) = tasks.join_next().await {
                self.count_lost(ended);
            }
        };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            let in_hand = tasks.len() as u64;
            tracing::warn!(in_hand, "batches were not stored in time and go back to the bus");
            // A task that is aborted drops its delivery, which comes again.
            tasks.shutdown().await;
            self.batches.returned(in_hand);
        }
    }

    /// A task that panicked dropped its delivery, which comes again.
    fn count_lost(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a batch was not handled and goes back to the bus"
            );
            self.batches.returned(1);
        }
    }
}

/// Bounds what is in hand, in batches and in bytes.
struct Hands {
    batches: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    batches_max: u32,
    units_max: u32,
}

impl Hands {
    fn new(batches_max: u16, bytes_max: usize) -> Self {
        let batches_max = u32::from(batches_max.max(1));
        let units_max = u32::try_from(bytes_max / BYTES_UNIT).unwrap_or(u32::MAX >> 4).max(1);
        Self {
            batches: Arc::new(Semaphore::new(batches_max as usize)),
            bytes: Arc::new(Semaphore::new(units_max as usize)),
            batches_max,
            units_max,
        }
    }

    /// Waits for room; a suspicious message waits until it is alone, and one larger than all room takes all of it.
    async fn take(&self, redeliveries: u32, bytes: usize) -> (OwnedSemaphorePermit, OwnedSemaphorePermit) {
        let batches = if redeliveries >= SUSPICIOUS_REDELIVERIES { self.batches_max } else { 1 };
        let units = u32::try_from(bytes / BYTES_UNIT).unwrap_or(u32::MAX).clamp(1, self.units_max);
        let batches = self.batches.clone().acquire_many_owned(batches).await;
        let bytes = self.bytes.clone().acquire_many_owned(units).await;
        (batches.expect("the semaphore is never closed"), bytes.expect("the semaphore is never closed"))
    }
}

enum Handled {
    Stored,
    Quarantined(&'static str),
    Returned,
}

/// What one delivery needs.
struct Task {
    core: Arc<CollectorCore>,
    quarantine: Arc<Quarantine>,
    clock: SharedClock,
    queue: String,
    hold_max: Duration,
    stop: CancellationToken,
}

impl Task {
    async fn handle(self, delivery: Delivery) -> Handled {
        let started = self.clock.monotonic();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            // Decoded anew for each try: trying again is rare, and the sink keeps what it is given.
            let outcome = match batch::decode(&delivery.message.body) {
                Ok(batch) => self.core.accept(batch).await,
                Err(error) => return self.quarantine(delivery, "not a batch", &error.to_string()).await,
            };
            let (reason, retry_after) = match outcome {
                Ok(_) => {
                    // If the acknowledgement does not arrive the batch comes again, and its ids are known.
                    if let Err(error) = delivery.receipt.ack().await {
                        tracing::debug!(error = &error as &dyn std::error::Error, "an acknowledgement did not arrive");
                    }
                    return Handled::Stored;
                }
                Err(SinkError::Rejected { reason }) => return self.quarantine(delivery, "rejected", &reason).await,
                Err(SinkError::Unavailable { reason, retry_after }) => (reason, retry_after),
            };
            let held = self.clock.monotonic().saturating_sub(started);
            if backoff.failures() == 0 {
                tracing::warn!(queue = self.queue, reason, "the store takes nothing for now, holding batches");
            }
            let wait = backoff.next_wait().max(retry_after.unwrap_or_default().min(RETRY_MAX));
            if held + wait > self.hold_max || !waited(&self.clock, wait, &self.stop).await {
                return self.give_back(delivery).await;
            }
        }
    }

    /// Durable first, then the acknowledgement. If the quarantine takes nothing the message stays with the broker.
    async fn quarantine(&self, delivery: Delivery, counted: &'static str, reason: &str) -> Handled {
        let message = &delivery.message;
        let origin = match message.headers.get("origin") {
            Some(origin) => format!("{} from {origin}", self.queue),
            None => self.queue.clone(),
        };
        let started = self.clock.monotonic();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            match self.quarantine.keep(&origin, reason, &message.content_type, message.body.clone()).await {
                Ok(_) => {
                    if let Err(error) = delivery.receipt.ack().await {
                        tracing::debug!(error = &error as &dyn std::error::Error, "an acknowledgement did not arrive");
                    }
                    return Handled::Quarantined(counted);
                }
                Err(error) => {
                    if backoff.failures() == 0 {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "poison cannot be put into quarantine, it stays on the bus");
                    }
                }
            }
            let held = self.clock.monotonic().saturating_sub(started);
            if held > self.hold_max || !waited(&self.clock, backoff.next_wait(), &self.stop).await {
                return self.give_back(delivery).await;
            }
        }
    }

    async fn give_back(&self, delivery: Delivery) -> Handled {
        if let Err(error) = delivery.receipt.reject(true).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a batch could not be given back, it comes again anyway"
            );
        }
        Handled::Returned
    }
}

/// `false` if stopped meanwhile.
async fn waited(clock: &SharedClock, wait: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = clock.sleep(wait) => true,
        () = stop.cancelled() => false,
    }
}
