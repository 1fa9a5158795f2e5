//! The loops of a process in the order in which they are stopped, and the time that a stop may take in all.
//!
//! A stage that does not end in time gives the next one its turn: the later ones have a share of their own, so that a
//! client that stalls its upload does not take the time in which the collector finishes and the store closes.

use std::{future::Future, time::Duration};

use orzo_model::SharedClock;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// By this share of `server.drain` the sources are over: clients' requests are what takes longest.
pub(super) const SOURCES_SHARE: f64 = 0.5;
/// By this share the sinks are over: each finishes the batch in its hands.
const SINKS_SHARE: f64 = 0.75;
/// By this share the readers are over. The rest is for closing: the store writes its head to files, and what it does not
/// write is in its log.
const READERS_SHARE: f64 = 0.85;

/// The loops of a process, in the order in which they are stopped.
#[derive(Default)]
pub(super) struct Stages {
    /// What brings new things in.
    pub(super) sources: Stage,
    /// What finishes what was brought.
    pub(super) sinks: Stage,
    /// Alarms and what else only reads.
    pub(super) readers: Stage,
}

/// Loops that stop together.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// A stop under way.
pub(super) struct Stopping {
    clock: SharedClock,
    begun_at: Duration,
    limit: Duration,
}

/// So much of the whole.
pub(super) fn share(limit: Duration, share: f64) -> Duration {
    limit.mul_f64(share)
}

impl Stages {
    /// Ends one stage after the other, whether the one before has ended or not.
    pub(super) async fn end(&self, stopping: &Stopping) {
        for (name, stage, until) in [
            ("sources", &self.sources, SOURCES_SHARE),
            ("sinks", &self.sinks, SINKS_SHARE),
            ("readers", &self.readers, READERS_SHARE),
        ] {
            stage.stop.cancel();
            stage.tasks.close();
            if stopping.within(until, stage.tasks.wait()).await.is_none() {
                tracing::warn!(stage = name, "did not end in time");
            }
        }
    }
}

impl Stopping {
    /// From now on it takes `limit` at most.
    pub(super) fn begin(clock: SharedClock, limit: Duration) -> Self {
        Self { begun_at: clock.monotonic(), clock, limit }
    }

    /// The last step, with what is left of the time.
    pub(super) async fn close(&self, closing: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        self.within(1.0, closing).await.unwrap_or_else(|| {
            tracing::warn!("not everything could be closed in time; the next start reads the rest from the logs");
            Ok(())
        })
    }

    /// What comes of it, unless that share of the time is over first.
    async fn within<T>(&self, until: f64, step: impl Future<Output = T>) -> Option<T> {
        let over = (self.begun_at + share(self.limit, until)).saturating_sub(self.clock.monotonic());
        tokio::select! {
            // A step that is done already is done, however late it is.
            biased;
            outcome = step => Some(outcome),
            () = self.clock.sleep(over) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use orzo_model::{ManualClock, Timestamp};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    /// Only a bug is waited for so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Lets everything run that can.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn stages_that_all_hang_take_the_limit_once_and_not_each() {
        let clock = ManualClock::new(Timestamp::EPOCH);
        let (stages, closed) = (Stages::default(), Arc::new(AtomicBool::new(false)));
        for stage in [&stages.sources, &stages.sinks, &stages.readers] {
            stage.tasks.spawn(pending::<()>());
        }
        let all = tokio::spawn({
            let (stopping, closed) = (Stopping::begin(clock.clone(), LIMIT), closed.clone());
            async move {
                stages.end(&stopping).await;
                closed.store(true, Ordering::Relaxed);
                stopping.close(pending()).await
            }
        });
        // The last stage has its turn, and closing some time of its own.
        clock.advance(share(LIMIT, READERS_SHARE) - Duration::from_millis(1));
        settle().await;
        assert!(!closed.load(Ordering::Relaxed), "the readers have their time");
        clock.advance(Duration::from_millis(2));
        settle().await;
        assert!(closed.load(Ordering::Relaxed), "closing began");
        assert!(!all.is_finished());
        clock.advance(LIMIT - share(LIMIT, READERS_SHARE));
        tokio::time::timeout(PATIENCE, all).await.expect("the limit is over").expect("no panic").expect("told only");
    }

    #[tokio::test]
    async fn stages_that_end_are_not_waited_for_and_stop_in_order() {
        let clock = ManualClock::new(Timestamp::EPOCH);
        let stages = Stages::default();
        let order = Arc::new(std::sync::Mutex::new(Vec::<&str>::new()));
        for (name, stage) in [("readers", &stages.readers), ("sources", &stages.sources), ("sinks", &stages.sinks)] {
            let (stop, order) = (stage.stop.clone(), order.clone());
            stage.tasks.spawn(async move {
                stop.cancelled().await;
                order.lock().expect("not poisoned").push(name);
            });
        }
        let stopping = Stopping::begin(clock, LIMIT);
        tokio::time::timeout(PATIENCE, stages.end(&stopping)).await.expect("nothing to wait for");
        assert_eq!(*order.lock().expect("not poisoned"), ["sources", "sinks", "readers"]);
        let failed = stopping.close(async { anyhow::bail!("the disk is gone") });
        assert_eq!(failed.await.expect_err("passed on").to_string(), "the disk is gone");
    }
}
