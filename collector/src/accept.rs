//! The collector without a bus: a sink that checks, drops repeats, derives, and hands on to the next sink.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use orzo_model::{
    Batch, Event, Measure, MeasureReader, ReadError, Receipt, RefusedSample, Room, Rooms, Sample, SampleSink,
    SharedClock, SinkError, by_meter,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    CollectorSettings, Limits,
    check::{self, Refusal},
    derive::{self, Counter, Derived},
    generations::Generations,
};

/// Ids remembered against repeats, in each of two generations: at a thousand samples a second the last ten minutes or
/// more, in some 40 MB at most. What is older is still told apart in the store, by series and time.
const SEEN_MAX: usize = 500_000;
/// Counters whose last value is remembered, in each of two generations; the others are read from the store.
const COUNTERS_MAX: usize = 250_000;
/// Reads of counters' last values at once: after a restart every counter is read once.
const READS_MAX: usize = 32;
/// Batches of one origin go one after the other, so that a counter's values meet in order; other origins do not wait.
/// So many origins can go at once.
const TURNS: usize = 64;
/// Namespace of events' ids in the window; a random UUID that never changes.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x3fa1_97c4_02f9_4a0e_8e7c_51f3_64d2_a8b1);

/// Checks, drops repeats, derives and hands on. A sink, so that HTTP and in-memory callers need no bus.
pub struct CollectorCore {
    sink: Arc<dyn SampleSink>,
    reader: Arc<dyn MeasureReader>,
    clock: SharedClock,
    limits: Limits,
    derive: bool,
    room: Room,
    derive_room: Room,
    memory: Mutex<Memory>,
    turns: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
}

/// What is remembered of batches that were stored; advances only after the sink's `Ok`.
struct Memory {
    seen: Generations<Uuid, ()>,
    counters: Generations<Counter, Measure>,
}

impl CollectorCore {
    /// A core that hands on to `sink`; `reader` tells counters' last stored values.
    pub fn new(
        settings: &CollectorSettings,
        sink: Arc<dyn SampleSink>,
        reader: Arc<dyn MeasureReader>,
        rooms: &Rooms,
        clock: SharedClock,
    ) -> Self {
        Self {
            sink,
            reader,
            clock,
            limits: settings.limits,
            derive: settings.derive,
            room: rooms.room("collector"),
            derive_room: rooms.room("derive"),
            memory: Mutex::new(Memory { seen: Generations::new(SEEN_MAX), counters: Generations::new(COUNTERS_MAX) }),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// What was stored lately is dropped; also what comes twice in this batch.
    fn drop_repeats(&self, sifted: &mut Sifted) -> u64 {
        let before = sifted.samples.len() + sifted.events.len();
        let memory = self.memory.lock();
        let mut here = HashSet::with_capacity(before);
        let mut is_new = |id: Uuid| !memory.seen.contains(&id) && here.insert(id);
        sifted.samples.retain(|sample| is_new(sample.id));
        sifted.events.retain(|event| is_new(event_id(event)));
        (before - sifted.samples.len() - sifted.events.len()) as u64
    }

    /// The value before each counter's earliest sample: from memory if that is the newest before it, else from the store.
    async fn previous(&self, samples: &[Sample]) -> Result<HashMap<Counter, Measure>, SinkError> {
        let mut previous = HashMap::new();
        let mut unknown = Vec::new();
        {
            let memory = self.memory.lock();
            for (counter, time) in derive::earliest(samples) {
                match memory.counters.get(&counter) {
                    Some(last) if last.timestamp < time => {
                        previous.insert(counter, *last);
                    }
                    // Not known, or newer than a sample that comes late.
                    _ => unknown.push((counter, time)),
                }
            }
        }
        let reads = stream::iter(unknown).map(|(counter, time)| async move {
            match self.reader.last_before(&counter.resource_id, &counter.meter, time).await {
                Ok(last) => Ok(last.map(|last| (counter, last))),
                Err(ReadError::NotFound { .. } | ReadError::Invalid { .. }) => Ok(None),
                // Deriving without it would lose a rate for ever; the batch comes again.
                Err(error @ ReadError::Unavailable { .. }) => Err(SinkError::unavailable(error)),
            }
        });
        let read: Vec<_> = reads.buffer_unordered(READS_MAX).try_collect().await?;
        previous.extend(read.into_iter().flatten());
        Ok(previous)
    }

    fn remember(&self, samples: Vec<Uuid>, newest: Vec<(Counter, Measure)>) {
        let mut memory = self.memory.lock();
        for id in samples {
            memory.seen.insert(id, ());
        }
        for (counter, last) in newest {
            if derive::is_later(last, memory.counters.get(&counter)) {
                memory.counters.insert(counter, last);
            }
        }
    }

    async fn accept_counted(&self, batch: Batch, arrival: &mut Arrival<'_>) -> Result<Receipt, SinkError> {
        let Batch { id, origin, samples, events } = batch;
        let turn = self.hasher.hash_one(&origin) as usize % TURNS;
        let _turn = self.turns[turn].lock().await;
        let now = self.clock.now();
        let mut sifted = sift(samples, events, now, &self.limits);
        for (reason, sample) in std::mem::take(&mut sifted.examples) {
            self.room.note_refused(reason.as_str(), sample, now);
        }
        let refused = sifted.refused.values().sum::<u64>();
        let repeated = self.drop_repeats(&mut sifted);
        let fresh = (sifted.samples.len() + sifted.events.len()) as u64;
        let mut receipt = Receipt::default();
        let mut derived_count = 0;
        if fresh > 0 {
            let derived = if self.derive {
                derive::derive(&sifted.samples, &self.previous(&sifted.samples).await?)
            } else {
                Derived::default()
            };
            let ids: Vec<Uuid> =
                sifted.samples.iter().map(|sample| sample.id).chain(sifted.events.iter().map(event_id)).collect();
            derived_count = derived.samples.len() as u64;
            let mut samples = sifted.samples;
            samples.extend(derived.samples);
            let seen: Vec<(String, u64)> =
                by_meter(&samples).into_iter().map(|(meter, count)| (meter.to_owned(), count)).collect();
            let started = self.clock.monotonic();
            receipt = self.sink.accept(Batch { id, origin, samples, events: sifted.events }).await?;
            self.room.took("sink", self.clock.monotonic().saturating_sub(started));
            self.room.note_passed(seen.iter().map(|(meter, count)| (meter.as_str(), *count)), now);
            self.remember(ids, derived.newest);
        }
        let (own, made) = share(receipt, fresh, derived_count);
        arrival.settle(|room| {
            for (reason, count) in &sifted.refused {
                room.refused(reason.as_str(), *count);
            }
            room.refused("refused by the store", own.refused);
            room.dropped("repeat", repeated + own.repeated);
            room.stored(own.stored);
        });
        self.derive_room.received(derived_count);
        self.derive_room.refused("refused by the store", made.refused);
        self.derive_room.dropped("repeat", made.repeated);
        self.derive_room.stored(made.stored);
        Ok(Receipt { stored: own.stored, repeated: repeated + own.repeated, refused: refused + own.refused })
    }
}

#[async_trait]
impl SampleSink for CollectorCore {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        let mut arrival = Arrival::of(&self.room, batch.len() as u64);
        let outcome = self.accept_counted(batch, &mut arrival).await;
        if let Err(SinkError::Rejected { .. }) = &outcome {
            let count = arrival.count;
            arrival.settle(|room| room.refused("batch rejected by the store", count));
        }
        outcome
    }
}

/// What passed the checks, and what did not.
struct Sifted {
    samples: Vec<Sample>,
    events: Vec<Event>,
    refused: BTreeMap<Refusal, u64>,
    /// Some of the refused samples, for whoever looks for them.
    examples: Vec<(Refusal, RefusedSample)>,
}

/// Refused samples of one batch that are remembered by name; a batch with more is all wrong in the same way.
const EXAMPLES_MAX: usize = 64;

/// Longer names are why a sample is refused; their beginning says which it was.
fn beginning(text: &str) -> String {
    text.chars().take(check::NAME_MAX).collect()
}

fn sift(samples: Vec<Sample>, events: Vec<Event>, now: orzo_model::Timestamp, limits: &Limits) -> Sifted {
    let mut refused: BTreeMap<Refusal, u64> = BTreeMap::new();
    // Samples of one poll share their metadata; each map is judged once.
    let mut judged_maps: HashMap<usize, Result<(), Refusal>> = HashMap::new();
    let mut examples = Vec::new();
    let mut passes = |verdict: Result<(), Refusal>| match verdict {
        Ok(()) => true,
        Err(reason) => {
            *refused.entry(reason).or_default() += 1;
            false
        }
    };
    let samples = samples
        .into_iter()
        .filter(|sample| {
            let address = Arc::as_ptr(&sample.metadata) as usize;
            let mut metadata =
                || *judged_maps.entry(address).or_insert_with(|| check::check_metadata(&sample.metadata));
            let verdict = check::check_sample(sample, now, limits).and_then(|()| metadata());
            if let Err(reason) = verdict
                && examples.len() < EXAMPLES_MAX
            {
                let refused = RefusedSample {
                    meter: beginning(&sample.meter),
                    resource_id: beginning(&sample.resource_id),
                    project_id: sample.project_id.as_deref().map(beginning),
                };
                examples.push((reason, refused));
            }
            passes(verdict)
        })
        .collect();
    let events = events.into_iter().filter(|event| passes(check::check_event(event, now, limits))).collect();
    Sifted { samples, events, refused, examples }
}

/// Shares the sink's receipt between what came in and what was derived; the sink does not say which was which, but a
/// repeated counter has a repeated rate, so they are shared in proportion. Sums are exact.
fn share(receipt: Receipt, own: u64, derived: u64) -> (Receipt, Receipt) {
    let total = own + derived;
    if total == 0 {
        return (Receipt::default(), Receipt::default());
    }
    let part = |count: u64| (u128::from(count) * u128::from(derived) / u128::from(total)) as u64;
    let made_repeated = part(receipt.repeated);
    let own_repeated = receipt.repeated - made_repeated;
    // Rounding must not give either side more than it has.
    let least = receipt.refused.saturating_sub(own.saturating_sub(own_repeated));
    let made_refused = part(receipt.refused).max(least).min(derived - made_repeated);
    let own_refused = receipt.refused - made_refused;
    let side = |count: u64, repeated: u64, refused: u64| Receipt {
        stored: count.saturating_sub(repeated + refused),
        repeated,
        refused,
    };
    (side(own, own_repeated, own_refused), side(derived, made_repeated, made_refused))
}

fn event_id(event: &Event) -> Uuid {
    Uuid::new_v5(&EVENT_NAMESPACE, event.message_id.as_bytes())
}

/// Counted as received until settled; given back to the sender otherwise, also if its task is cancelled.
struct Arrival<'r> {
    room: Option<&'r Room>,
    count: u64,
}

impl<'r> Arrival<'r> {
    fn of(room: &'r Room, count: u64) -> Self {
        room.received(count);
        Self { room: Some(room), count }
    }

    fn settle(&mut self, count: impl FnOnce(&Room)) {
        if let Some(room) = self.room.take() {
            count(room);
        }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            room.returned(self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_receipt_adds_up() {
        for own in 0..8 {
            for derived in 0..8 {
                for repeated in 0..=(own + derived) {
                    for refused in 0..=(own + derived - repeated) {
                        let receipt = Receipt { stored: own + derived - repeated - refused, repeated, refused };
                        let (kept, made) = share(receipt, own, derived);
                        assert_eq!(kept.stored + kept.repeated + kept.refused, own, "{receipt:?}");
                        assert_eq!(made.stored + made.repeated + made.refused, derived, "{receipt:?}");
                        assert_eq!(kept.stored + made.stored, receipt.stored);
                    }
                }
            }
        }
    }
}
