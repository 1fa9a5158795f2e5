//! From a poll's samples to the sink: cut into batches, each sent until it is accepted or its time is over.
//!
//! What comes in is counted in the agent's room, and so is what becomes of it.

use std::{sync::Arc, time::Duration};

use orzo_model::{Batch, Room, Sample, SampleSink, SharedClock, SinkError, Timestamp, by_meter, sample_id};
use tokio_util::sync::CancellationToken;

/// Samples of one batch: some hundred KiB before compression, so that a batch is one message.
const BATCH_SAMPLES_MAX: usize = 2_000;
/// First wait before a batch is sent again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between two tries: a sink that recovers is noticed soon.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Hands samples to a sink.
pub struct HandOver {
    origin: String,
    sink: Arc<dyn SampleSink>,
    clock: SharedClock,
    room: Room,
}

impl HandOver {
    /// `origin` names who polls: `compute@host1`. It makes batch ids, together with slot and part.
    pub fn new(origin: impl Into<String>, sink: Arc<dyn SampleSink>, clock: SharedClock, room: Room) -> Self {
        Self { origin: origin.into(), sink, clock, room }
    }

    /// Sends the samples of a poll; `part` tells apart polls of the same slot, such as by interval. A sink that is
    /// unavailable is asked again until `deadline` has passed or `stop` is called; then the samples are dropped and
    /// counted. (A [`crate::publish`] sink spools instead of being unavailable.) True if all were accepted.
    pub async fn send(
        &self,
        samples: Vec<Sample>,
        slot: Timestamp,
        part: &str,
        deadline: Duration,
        stop: &CancellationToken,
    ) -> bool {
        self.room.received(samples.len() as u64);
        let until = self.clock.monotonic() + deadline;
        let mut accepted = true;
        for (number, batch) in self.batches(samples, slot, part).into_iter().enumerate() {
            let count = batch.len() as u64;
            let meters: Vec<String> = by_meter(&batch.samples).into_keys().map(str::to_owned).collect();
            if let Err(reason) = self.send_batch(batch, until, stop).await {
                self.room.note_failed(meters.iter().map(String::as_str), &reason, self.clock.now());
                tracing::error!(origin = self.origin, %slot, number, samples = count, reason, "samples are lost");
                accepted = false;
            }
        }
        accepted
    }

    fn batches(&self, samples: Vec<Sample>, slot: Timestamp, part: &str) -> Vec<Batch> {
        let mut batches = Vec::with_capacity(samples.len() / BATCH_SAMPLES_MAX + 1);
        let mut samples = samples.into_iter().peekable();
        while samples.peek().is_some() {
            let id = sample_id(&self.origin, part, &batches.len().to_string(), slot);
            let samples = samples.by_ref().take(BATCH_SAMPLES_MAX).collect();
            batches.push(Batch { id, origin: self.origin.clone(), samples, events: Vec::new() });
        }
        batches
    }

    /// `Err` with the reason if the batch was lost; counted either way.
    async fn send_batch(&self, batch: Batch, until: Duration, stop: &CancellationToken) -> Result<(), String> {
        let count = batch.len() as u64;
        let mut wait = RETRY_FIRST;
        loop {
            match self.sink.accept(batch.clone()).await {
                Ok(receipt) => {
                    self.room.stored(receipt.stored);
                    self.room.dropped("repeat", receipt.repeated);
                    self.room.refused("by the sink", receipt.refused);
                    debug_assert_eq!(receipt.stored + receipt.repeated + receipt.refused, count);
                    return Ok(());
                }
                Err(error @ SinkError::Rejected { .. }) => {
                    self.room.refused("batch rejected by the sink", count);
                    return Err(error.to_string());
                }
                Err(error @ SinkError::Unavailable { retry_after, .. }) => {
                    let pause = retry_after.unwrap_or(wait).clamp(RETRY_FIRST, RETRY_MAX);
                    if stop.is_cancelled() || self.clock.monotonic() + pause > until {
                        self.room.dropped("sink unavailable", count);
                        return Err(error.to_string());
                    }
                    tokio::select! {
                        () = self.clock.sleep(pause) => {}
                        () = stop.cancelled() => {}
                    }
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use orzo_model::{ManualClock, Receipt, Rooms, SampleKind};
    use parking_lot::Mutex;
    use uuid::Uuid;

    use super::*;

    /// Answers as scripted, then accepts.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<Vec<Result<Receipt, SinkError>>>,
        seen: Mutex<Vec<(Uuid, usize)>>,
    }

    #[async_trait]
    impl SampleSink for Scripted {
        async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
            self.seen.lock().push((batch.id, batch.len()));
            let stored = Receipt { stored: batch.len() as u64, ..Receipt::default() };
            self.answers.lock().pop().unwrap_or(Ok(stored))
        }
    }

    fn samples(count: usize) -> Vec<Sample> {
        let slot = Timestamp::from_secs(100);
        let sample = |n: usize| Sample {
            id: sample_id("test", &n.to_string(), "cpu", slot),
            meter: "cpu".into(),
            kind: SampleKind::Gauge,
            unit: String::new(),
            value: 1.0,
            timestamp: slot,
            resource_id: n.to_string(),
            project_id: None,
            user_id: None,
            source: "openstack".into(),
            metadata: Arc::default(),
        };
        (0..count).map(sample).collect()
    }

    struct Stage {
        clock: Arc<ManualClock>,
        sink: Arc<Scripted>,
        room: Room,
        hand_over: HandOver,
    }

    fn stage(answers: Vec<Result<Receipt, SinkError>>) -> Stage {
        let clock = ManualClock::new(Timestamp::from_secs(100));
        let sink = Arc::new(Scripted { answers: Mutex::new(answers), ..Scripted::default() });
        let room = Rooms::new(&prometheus::Registry::new()).room("compute");
        let hand_over = HandOver::new("compute@host", sink.clone(), clock.clone(), room.clone());
        Stage { clock, sink, room, hand_over }
    }

    #[tokio::test]
    async fn a_large_poll_goes_in_batches_with_ids_that_stay_the_same() {
        let stage = stage(Vec::new());
        let slot = Timestamp::from_secs(100);
        let stop = CancellationToken::new();
        for _ in 0..2 {
            let sent = samples(2 * BATCH_SAMPLES_MAX + 1);
            assert!(stage.hand_over.send(sent, slot, "10", Duration::from_secs(10), &stop).await);
        }
        let seen = stage.sink.seen.lock().clone();
        assert_eq!(seen.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2000, 2000, 1, 2000, 2000, 1]);
        assert_eq!(seen[..3], seen[3..]);
        assert!(seen[0].0 != seen[1].0);
        assert!(stage.room.balance().is_conserved());
    }

    #[tokio::test]
    async fn an_unavailable_sink_is_asked_again_with_the_same_batch() {
        let stage = stage(vec![Err(SinkError::unavailable("busy")), Err(SinkError::unavailable("busy"))]);
        let stop = CancellationToken::new();
        let send = stage.hand_over.send(samples(3), Timestamp::EPOCH, "10", Duration::from_secs(10), &stop);
        let advance = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
                stage.clock.advance(Duration::from_millis(100));
            }
        };
        let (sent, ()) = tokio::join!(send, advance);
        assert!(sent);
        let seen = stage.sink.seen.lock().clone();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|one| *one == seen[0]));
        let balance = stage.room.balance();
        assert_eq!((balance.received, balance.stored, balance.waiting), (3, 3, 0));
    }

    #[tokio::test]
    async fn what_cannot_be_delivered_is_dropped_and_counted() {
        let stage = stage((0..100).map(|_| Err(SinkError::unavailable("down"))).collect());
        let stop = CancellationToken::new();
        let send = stage.hand_over.send(samples(3), Timestamp::EPOCH, "10", Duration::from_secs(1), &stop);
        let advance = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
                stage.clock.advance(Duration::from_millis(100));
            }
        };
        let (sent, ()) = tokio::join!(send, advance);
        assert!(!sent);
        let balance = stage.room.balance();
        assert_eq!((balance.received, balance.dropped, balance.waiting), (3, 3, 0));

        let rejecting = self::stage(vec![Err(SinkError::Rejected { reason: "no".into() })]);
        let stop = CancellationToken::new();
        assert!(!rejecting.hand_over.send(samples(2), Timestamp::EPOCH, "10", Duration::from_secs(1), &stop).await);
        assert_eq!(rejecting.room.balance().refused, 2);
    }
}
