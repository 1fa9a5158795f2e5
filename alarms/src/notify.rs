//! The deliverer: drains the outbox until every notice has had its 2xx or is parked.
//!
//! `outbox → take (with a lease) → try → delivered | again later, with full jitter | parked`
//!
//! A notice is leased while it is tried; if this process dies, the lease runs out and it is tried again, with the same
//! id. Receivers do not wait for each other: each host has its own few places.

use std::{collections::HashMap, sync::Arc, time::Duration};

use orzo_model::{Room, SharedClock, Timestamp};
use parking_lot::Mutex;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alarm::Action,
    book::{AlarmBook, BookError, Notice},
    webhook::{Outcome, Webhook},
};

/// Tries under way at once, over all receivers.
const IN_FLIGHT_MAX: usize = 64;
/// Tries under way at once to one host, so that a slow one does not hold the others' places.
const IN_FLIGHT_PER_HOST_MAX: usize = 4;
/// Longer than a try can take, waiting for a place included.
const LEASE: Duration = Duration::from_secs(120);
/// A try that found no place within this time gives its notice back.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Delivered notices are kept so long, to answer "was it sent?".
const DELIVERED_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Deadlines and patience.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifierSettings {
    /// First wait after a failure, in milliseconds; doubles with each, with full jitter.
    pub backoff_first_ms: u64,
    /// Longest wait, in milliseconds.
    pub backoff_max_ms: u64,
    /// After so long without success a notice is parked, in seconds.
    pub give_up_after_s: u64,
    /// How often the outbox is looked at when nothing says that there is something, in milliseconds.
    pub poll_ms: u64,
}

impl Default for NotifierSettings {
    /// 5 s doubling to 2 h, for 27 h: a weekend night is survived, a dead receiver is noticed on Monday.
    fn default() -> Self {
        Self { backoff_first_ms: 5_000, backoff_max_ms: 7_200_000, give_up_after_s: 97_200, poll_ms: 1_000 }
    }
}

/// Delivers notices.
pub struct Notifier {
    book: AlarmBook,
    webhook: Webhook,
    settings: NotifierSettings,
    clock: SharedClock,
    room: Room,
    wake: Arc<Notify>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Notifier {
    /// A deliverer for the notices in `book`; `wake` is notified when there are new ones.
    pub fn new(
        book: AlarmBook,
        webhook: Webhook,
        settings: NotifierSettings,
        clock: SharedClock,
        room: Room,
        wake: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self { book, webhook, settings, clock, room, wake, hosts: Mutex::default() })
    }

    /// Runs until `stop`; then waits for tries under way.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        while !stop.is_cancelled() {
            let free = places.available_permits() as u32;
            let taken = if free == 0 { Ok(Vec::new()) } else { self.book.take_notices(free, LEASE).await };
            let count = match taken {
                Ok(notices) => {
                    let count = notices.len();
                    for notice in notices {
                        self.room.received(1);
                        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                        let notifier = self.clone();
                        tasks.spawn(async move {
                            notifier.deliver(notice).await;
                            drop(place);
                        });
                    }
                    count
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the outbox of notices");
                    0
                }
            };
            if count == 0 {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.wake.notified() => {}
                    () = self.clock.sleep(Duration::from_millis(self.settings.poll_ms)) => {}
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Forgets what was delivered long ago; called now and then by whoever runs the loops.
    pub async fn tidy(&self) -> Result<u64, BookError> {
        self.book.forget_delivered(self.clock.now().minus(DELIVERED_KEPT)).await
    }

    async fn deliver(&self, notice: Notice) {
        let started = self.clock.monotonic();
        let outcome = match Action::parse(&notice.action) {
            Ok(Action::Log) => {
                tracing::info!(alarm = notice.alarm_id, body = notice.body, "alarm notice");
                Outcome::Delivered
            }
            Ok(Action::Webhook(url)) => {
                let host = url.host_str().unwrap_or_default().to_owned();
                let host_places = self.host_places(&host);
                let Ok(Ok(_place)) = tokio::time::timeout(PLACE_WAIT_MAX, host_places.acquire()).await else {
                    // The lease runs out by itself and the notice is taken again.
                    self.room.returned(1);
                    return;
                };
                self.webhook.send(&url, &notice).await
            }
            Err(reason) => Outcome::Hopeless { reason },
        };
        self.room.took("try", self.clock.monotonic().saturating_sub(started));
        let written = match outcome {
            Outcome::Delivered => {
                let written = self.book.delivered(&notice).await;
                // What cannot be marked is sent again, with the same id, when its lease runs out.
                if written.is_ok() {
                    self.room.stored(1)
                } else {
                    self.room.returned(1)
                }
                written
            }
            Outcome::Failed { reason, retry_after } => {
                let next_at = next_try(&self.settings, &notice, retry_after, self.clock.now(), jitter());
                if next_at.is_none() {
                    tracing::warn!(notice = notice.notice_id, reason, "notice parked: its receiver did not accept it");
                    self.room.dropped("parked", 1);
                } else {
                    tracing::debug!(notice = notice.notice_id, reason, "notice will be tried again");
                    self.room.returned(1);
                }
                self.book.failed(&notice, &reason, next_at).await
            }
            Outcome::Hopeless { reason } => {
                tracing::warn!(notice = notice.notice_id, reason, "notice parked");
                self.room.dropped("parked", 1);
                self.book.failed(&notice, &reason, None).await
            }
        };
        if let Err(error) = written {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot write what became of a notice");
        }
    }

    fn host_places(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        // Forget hosts that nobody is talking to, so that the map stays as small as the talk.
        hosts.retain(|_, places| Arc::strong_count(places) > 1);
        hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(IN_FLIGHT_PER_HOST_MAX))).clone()
    }
}

/// From 0 to 1, evenly.
fn jitter() -> f64 {
    rand::rng().random()
}

/// When to try again; `None` when patience is over. Full jitter: anywhere between now and the doubled wait, so that
/// notices that failed together do not come back together.
fn next_try(
    settings: &NotifierSettings,
    notice: &Notice,
    retry_after: Option<Duration>,
    now: Timestamp,
    jitter: f64,
) -> Option<Timestamp> {
    if now.since(notice.created_at) >= Duration::from_secs(settings.give_up_after_s) {
        return None;
    }
    let doubled =
        settings.backoff_first_ms.saturating_mul(1u64.checked_shl(notice.attempts.min(40)).unwrap_or(u64::MAX));
    let wait = Duration::from_millis(doubled.min(settings.backoff_max_ms)).mul_f64(jitter);
    Some(now.plus(wait.max(retry_after.unwrap_or_default())))
}

#[cfg(test)]
mod delivery_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(attempts: u32) -> Notice {
        Notice {
            notice_id: "n".into(),
            alarm_id: "a".into(),
            project_id: "p".into(),
            action: "http://h/".into(),
            body: "{}".into(),
            created_at: Timestamp::from_secs(1000),
            attempts,
            next_at: Timestamp::from_secs(1000),
            last_error: None,
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_honour_retry_after() {
        let settings = NotifierSettings::default();
        let now = Timestamp::from_secs(1000);
        let wait = |attempts, retry_after, jitter| {
            next_try(&settings, &notice(attempts), retry_after, now, jitter).expect("patient").since(now).as_secs()
        };
        assert_eq!(wait(0, None, 1.0), 5);
        assert_eq!(wait(1, None, 1.0), 10);
        assert_eq!(wait(1, None, 0.0), 0);
        assert_eq!(wait(60, None, 1.0), 7200);
        assert_eq!(wait(0, Some(Duration::from_secs(90)), 1.0), 90);
    }

    #[test]
    fn patience_ends() {
        let settings = NotifierSettings::default();
        let late = Timestamp::from_secs(1000 + 97_200);
        assert_eq!(next_try(&settings, &notice(3), None, late, 0.5), None);
    }
}
