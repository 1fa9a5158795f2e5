//! The deliverer's loop: drains the outbox until every notice has had its 2xx or is parked.
//!
//! `outbox → take (with a lease, fairly) → try → delivered | again later, with full jitter | parked`
//!
//! A notice is leased while it is tried; if this process dies, the lease runs out and it is tried again, with the same
//! id. Receivers do not wait for each other: the book gives out only a few notices for one receiver and for one project
//! at a time, and none for a receiver that has failed too often, but for one probe.

pub(crate) mod action;
mod alertmanager;
mod deliver;
mod doors;
mod heat;
pub(crate) mod outcome;

use std::{sync::Arc, time::Duration};

use orzo_model::{Room, SharedClock};
use rand::Rng;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::outcome::next_try;
pub use self::{
    deliver::Deliverer,
    doors::{CloudDoor, CloudRequest, DoorError, TopicDoor},
    outcome::{Failure, NotifierSettings, Outcome},
};
use crate::book::{AlarmBook, BookError, Notice, Setback};

/// Tries under way at once, over all receivers.
const IN_FLIGHT_MAX: usize = 64;
/// Longer than a try can take.
const LEASE: Duration = Duration::from_secs(120);
/// Delivered notices are kept so long, to answer "was it sent?".
const DELIVERED_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Parked notices are kept so long, to be looked at and replayed.
const PARKED_KEPT: Duration = Duration::from_secs(90 * 86_400);
/// A trust that no alarm names yet may belong to one that is being made.
pub(crate) const TRUST_GRACE: Duration = Duration::from_secs(120);
/// Trusts ended at one tidying; the others wait for the next.
const TRUSTS_ENDED_MAX: u32 = 100;

/// A notice that was delivered and is to be marked so, with its place among the tries under way.
struct Done {
    notice: Notice,
    #[expect(dead_code, reason = "held until the notice is marked")]
    place: OwnedSemaphorePermit,
}

/// Delivers notices.
pub struct Notifier {
    book: AlarmBook,
    deliverer: Arc<Deliverer>,
    settings: NotifierSettings,
    clock: SharedClock,
    room: Room,
    wake: Arc<Notify>,
}

impl Notifier {
    /// A loop for the notices in `book`; `wake` is notified when there are new ones.
    pub fn new(
        book: AlarmBook,
        deliverer: Arc<Deliverer>,
        settings: NotifierSettings,
        room: Room,
        wake: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self { book, clock: deliverer.clock().clone(), deliverer, settings, room, wake })
    }

    /// Runs until `stop`; then waits for tries under way.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        match self.book.regain_notices().await {
            Ok(0) => {}
            Ok(notices) => {
                tracing::info!(notices, "notices that were under way at the end of the last run are sent now")
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "notices that were under way wait for their leases"
                );
            }
        }
        // Never full: each message holds a place.
        let (done, mut dones) = mpsc::channel::<Done>(IN_FLIGHT_MAX);
        let mut settling: Vec<Done> = Vec::new();
        while !stop.is_cancelled() {
            while let Ok(done) = dones.try_recv() {
                settling.push(done);
            }
            let free = places.available_permits() + settling.len();
            let taken = self.settle_and_take(&mut settling, free as u32).await;
            let is_idle = taken.is_empty();
            for notice in taken {
                self.room.received(1);
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                let (notifier, done) = (self.clone(), done.clone());
                tasks.spawn(async move {
                    match notifier.deliver(notice).await {
                        // Marked together with others, while the next are taken.
                        Some(notice) => done.send(Done { notice, place }).await.expect("the loop waits for its tasks"),
                        None => {
                            drop(place);
                            // There may be more for the same receiver.
                            notifier.wake.notify_one();
                        }
                    }
                });
            }
            if is_idle {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.wake.notified() => {}
                    Some(done) = dones.recv() => settling.push(done),
                    () = self.clock.sleep(Duration::from_millis(self.settings.poll_ms)) => {}
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        while let Ok(done) = dones.try_recv() {
            settling.push(done);
        }
        self.settle_and_take(&mut settling, 0).await;
        self.room.returned(settling.len() as u64);
    }

    /// Marks what was delivered and takes what is due. What cannot be marked now stays for the next time; if this process
    /// ends before, it is sent again, with the same id.
    async fn settle_and_take(&self, settling: &mut Vec<Done>, limit: u32) -> Vec<Notice> {
        if settling.is_empty() && limit == 0 {
            return Vec::new();
        }
        let delivered: Vec<Notice> = settling.iter().map(|done| done.notice.clone()).collect();
        match self.book.settle_and_take(&delivered, limit, LEASE).await {
            Ok(taken) => {
                self.room.stored(settling.len() as u64);
                settling.clear();
                taken
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot read or write the outbox of notices");
                Vec::new()
            }
        }
    }

    /// Forgets what was delivered or parked long ago; called now and then by whoever runs the loops.
    pub async fn tidy(&self) -> Result<u64, BookError> {
        let now = self.clock.now();
        self.book.forget_notices(now.minus(DELIVERED_KEPT), now.minus(PARKED_KEPT)).await
    }

    /// Ends trusts that neither an alarm nor a waiting notice names any more; gives how many.
    pub async fn end_trusts(&self) -> Result<u64, BookError> {
        let Some(cloud) = self.deliverer.cloud() else { return Ok(0) };
        let mut ended = 0;
        for trust_id in self.book.unused_trusts(self.clock.now().minus(TRUST_GRACE), TRUSTS_ENDED_MAX).await? {
            match cloud.end_trust(&trust_id).await {
                Ok(()) => {
                    self.book.forget_trust(&trust_id).await?;
                    ended += 1;
                }
                Err(DoorError::Refused { reason }) => {
                    // Asking again would not help; it ends with its maker's role at the latest.
                    tracing::warn!(trust_id, reason, "a trust that is not used any more cannot be ended");
                    self.book.forget_trust(&trust_id).await?;
                }
                Err(DoorError::Unavailable { reason }) => {
                    tracing::debug!(reason, "trusts that are not used any more are ended later");
                    break;
                }
            }
        }
        Ok(ended)
    }

    /// One try; the notice again if it was delivered, which is yet to be marked.
    async fn deliver(&self, notice: Notice) -> Option<Notice> {
        let started = self.clock.monotonic();
        if notice.leased_until.is_some_and(|until| until <= self.clock.now()) {
            // This process stood still for so long that somebody else has the notice by now.
            tracing::warn!(notice = notice.notice_id, "a notice is left to who has taken it since");
            self.room.returned(1);
            return None;
        }
        let outcome = match notice.is_receiver_gone {
            // It said so to an earlier notice; a replay, or a delivered test, opens it again.
            true => Outcome::hopeless(Failure::Gone, "the receiver answered an earlier notice with 410"),
            false => self.deliverer.deliver(&notice).await,
        };
        self.room.took("try", self.clock.monotonic().saturating_sub(started));
        let written = match outcome {
            Outcome::Delivered => return Some(notice),
            Outcome::Failed { failure, reason, retry_after } => {
                let next_at = next_try(&self.settings, &notice, retry_after, self.clock.now(), jitter());
                if next_at.is_none() {
                    tracing::warn!(notice = notice.notice_id, reason, "notice parked: its receiver did not accept it");
                    self.room.dropped("parked", 1);
                } else {
                    tracing::debug!(notice = notice.notice_id, reason, "notice will be tried again");
                    self.room.returned(1);
                }
                self.book.failed(&notice, Setback { failure, reason: &reason, next_at, retry_after }).await
            }
            Outcome::Hopeless { failure, reason } => {
                tracing::warn!(notice = notice.notice_id, reason, "notice parked");
                self.room.dropped("parked", 1);
                self.book.parked(&notice, failure, &reason).await
            }
        };
        if let Err(error) = written {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot write what became of a notice");
        }
        None
    }
}

/// From 0 to 1, evenly.
fn jitter() -> f64 {
    rand::rng().random()
}

#[cfg(test)]
pub(crate) mod delivery_tests;
