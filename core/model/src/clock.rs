//! The only place that may ask the system for the time (clippy refuses it elsewhere).
//!
//! Everything that waits or stamps is handed a [`Clock`], so that a test can move time by hand.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::Timestamp;

/// Tells the time and waits.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Now, by the wall.
    fn now(&self) -> Timestamp;
    /// Time that only goes forward, since an arbitrary start; for intervals and deadlines.
    fn monotonic(&self) -> Duration;
    /// Waits for `duration` of this clock's time.
    async fn sleep(&self, duration: Duration);
}

/// A clock that many rooms share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock for the rooms of one process.
    #[allow(clippy::disallowed_methods)] // this is the one place
    #[allow(clippy::new_without_default)] // the time is handed in, never taken by default
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Ready to hand out.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // this is the one place
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
    start: Timestamp,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Arc<Self> {
        Arc::new(Self { now: watch::Sender::new(start), start })
    }

    /// Moves time forward and wakes who waited for it.
    pub fn advance(&self, duration: Duration) {
        self.now.send_modify(|now| *now = now.plus(duration));
    }

    /// Sets the wall clock; it may go back.
    pub fn set(&self, time: Timestamp) {
        self.now.send_replace(time);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn monotonic(&self) -> Duration {
        self.now.borrow().since(self.start)
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now().plus(duration);
        let mut seen = self.now.subscribe();
        // The sender lives as long as `self`, which is borrowed here, so the wait ends only by the condition.
        let _ = seen.wait_for(|now| *now >= until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_only_when_their_time_has_come() {
        let clock = ManualClock::new(Timestamp::from_secs(100));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.expect("the sleeper does not panic");
        assert_eq!(clock.now(), Timestamp::from_secs(110));
    }
}
