//! The collector between a bus and a store in memory that fails in every way a store can: before, after, and for good.
//! Every test ends by asserting that nothing vanished and nothing appeared.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use orzo_bus::{Bus, BusError, InProcessBus, Message, batch, topic};
use orzo_model::*;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::*;

/// A test that waits longer than this has failed.
const WAIT: Duration = Duration::from_secs(30);

/// A row's natural key: what is there is never added again.
type Key = (String, String, Timestamp);

/// A store in memory.
#[derive(Default)]
struct Store {
    rows: Mutex<BTreeMap<Key, f64>>,
    events: Mutex<BTreeMap<String, Event>>,
    /// So many calls fail before anything is stored.
    fails_before: AtomicUsize,
    /// So many calls are stored, but their answer is lost.
    fails_after: AtomicUsize,
    rejects: AtomicUsize,
    in_hand: AtomicUsize,
    in_hand_most: AtomicUsize,
    calls: AtomicU64,
    reads: AtomicU64,
}

fn one_less(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl SampleSink for Store {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let in_hand = self.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        self.in_hand_most.fetch_max(in_hand, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.in_hand.fetch_sub(1, Ordering::SeqCst);
        if one_less(&self.rejects) {
            return Err(SinkError::Rejected { reason: "never".to_owned() });
        }
        if one_less(&self.fails_before) {
            return Err(SinkError::unavailable("the disk is asleep"));
        }
        let mut receipt = Receipt::default();
        let mut count = |new: bool| if new { receipt.stored += 1 } else { receipt.repeated += 1 };
        for sample in batch.samples {
            let key = (sample.resource_id, sample.meter, sample.timestamp);
            count(self.rows.lock().insert(key, sample.value).is_none());
        }
        for event in batch.events {
            count(self.events.lock().insert(event.message_id.clone(), event).is_none());
        }
        if one_less(&self.fails_after) {
            return Err(SinkError::unavailable("the answer was lost"));
        }
        Ok(receipt)
    }
}

#[async_trait]
impl MeasureReader for Store {
    async fn read_resource(&self, _: &Scope, _: &ResourceRead) -> Result<Vec<Measure>, ReadError> {
        Err(ReadError::Invalid { reason: "not needed here".to_owned() })
    }

    async fn read_group(&self, _: &Scope, _: &GroupRead) -> Result<Vec<Measure>, ReadError> {
        Err(ReadError::Invalid { reason: "not needed here".to_owned() })
    }

    async fn last_before(&self, id: &str, metric: &str, before: Timestamp) -> Result<Option<Measure>, ReadError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let rows = self.rows.lock();
        let last =
            rows.range((id.to_owned(), metric.to_owned(), Timestamp::MIN)..(id.to_owned(), metric.to_owned(), before));
        Ok(last.last().map(|((_, _, timestamp), value)| Measure { timestamp: *timestamp, value: *value }))
    }
}

impl Store {
    fn value(&self, resource: &str, meter: &str, second: i64) -> Option<f64> {
        self.rows.lock().get(&(resource.to_owned(), meter.to_owned(), Timestamp::from_secs(second))).copied()
    }
}

/// Everything a collector is made of.
struct House {
    bus: Arc<dyn Bus>,
    store: Arc<Store>,
    rooms: Rooms,
    quarantine: Arc<Quarantine>,
    _directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self::with_quarantine(1 << 20)
    }

    fn with_quarantine(bytes_max: u64) -> Self {
        let rooms = Rooms::new(&Registry::new());
        let directory = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(directory.path(), bytes_max, &rooms, SystemClock::shared()).unwrap();
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new(SystemClock::shared()));
        Self { bus, store: Arc::default(), rooms, quarantine: Arc::new(quarantine), _directory: directory }
    }

    fn core(&self) -> CollectorCore {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        CollectorCore::new(&CollectorSettings::default(), self.store.clone(), self.store.clone(), &self.rooms, clock)
    }

    /// A running collector; stop it by the token and wait for it by the handle.
    fn run(&self, settings: CollectorSettings) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let limits = Limits { past_max: Duration::from_secs(100 * 365 * 24 * 3600), ..Limits::default() };
        let collector = Collector::new(
            CollectorSettings { limits, ..settings },
            self.bus.clone(),
            self.store.clone(),
            self.store.clone(),
            self.quarantine.clone(),
            &self.rooms,
            SystemClock::shared(),
        );
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        (stop, tokio::spawn(async move { collector.run(stopped).await }))
    }

    fn publish(&self, id: &str, body: Bytes) -> tokio::task::JoinHandle<Result<(), BusError>> {
        let message = Message {
            exchange: topic::ORZO_EXCHANGE.to_owned(),
            routing_key: topic::samples_key(0),
            message_id: id.to_owned(),
            content_type: batch::CONTENT_TYPE.to_owned(),
            headers: BTreeMap::from([("origin".to_owned(), "compute@host1".to_owned())]),
            body,
        };
        let bus = self.bus.clone();
        tokio::spawn(async move { bus.publish(message).await })
    }

    fn publish_batch(&self, batch: &Batch) -> tokio::task::JoinHandle<Result<(), BusError>> {
        self.publish(&batch.id.to_string(), batch::encode(batch).unwrap())
    }

    fn balance(&self, room: &'static str) -> orzo_model::rooms::Balance {
        self.rooms.room(room).balance()
    }

    /// Nothing vanished and nothing appeared; and nothing is left inside but what is in quarantine.
    fn assert_conserved(&self) {
        for room in ["collector", "derive", "batches", "quarantine"] {
            let balance = self.balance(room);
            assert!(balance.is_conserved(), "{room}: {balance:?}");
            let left = if room == "quarantine" { self.quarantine.len() as i64 } else { 0 };
            assert_eq!(balance.waiting, left, "{room}: {balance:?}");
        }
    }
}

fn sample(meter: &str, second: i64, value: f64) -> Sample {
    let timestamp = Timestamp::from_secs(second);
    Sample {
        id: sample_id("compute", "guest", meter, timestamp),
        meter: meter.to_owned(),
        kind: SampleKind::Cumulative,
        unit: "ns".to_owned(),
        value,
        timestamp,
        resource_id: "guest".to_owned(),
        project_id: Some("p".to_owned()),
        user_id: None,
        source: "openstack".to_owned(),
        metadata: Default::default(),
    }
}

fn batch_of(id: u128, samples: Vec<Sample>) -> Batch {
    Batch { id: Uuid::from_u128(id), origin: "compute@host1".to_owned(), samples, events: Vec::new() }
}

fn receipt(stored: u64, repeated: u64, refused: u64) -> Receipt {
    Receipt { stored, repeated, refused }
}

#[tokio::test]
async fn a_counter_becomes_a_rate_and_both_are_stored_together() {
    let house = House::new();
    let core = house.core();
    core.accept(batch_of(1, vec![sample("cpu", 600, 0.0)])).await.unwrap();
    assert_eq!(house.store.value("guest", "cpu_util", 600), None);
    let taken = core.accept(batch_of(2, vec![sample("cpu", 610, 5e9)])).await.unwrap();
    assert_eq!(taken, receipt(1, 0, 0));
    assert_eq!(house.store.value("guest", "cpu_util", 610), Some(50.0));
    assert_eq!(house.balance("collector").stored, 2);
    assert_eq!(house.balance("derive").stored, 1);
    house.assert_conserved();
}

#[tokio::test]
async fn one_wrong_sample_does_not_cost_the_others() {
    let house = House::new();
    let mut samples = vec![
        sample("cpu", 600, 1.0),
        sample("cpu", 601, f64::NAN),
        sample("memory/usage", 600, 1.0),
        sample("cpu", 1000 + 3600, 1.0),
    ];
    samples[1].resource_id = "other".to_owned();
    let mut batch = batch_of(1, samples);
    let event = Event {
        message_id: "m".to_owned(),
        event_type: "e".to_owned(),
        generated_at: Timestamp::from_secs(600),
        traits: vec![],
        raw: None,
    };
    batch.events = vec![event.clone(), Event { message_id: String::new(), ..event }];
    assert_eq!(house.core().accept(batch).await.unwrap(), receipt(2, 0, 4));
    let balance = house.balance("collector");
    assert_eq!((balance.received, balance.stored, balance.refused), (6, 2, 4));
    // Whose they were is remembered, too.
    let mut refused: Vec<_> =
        house.rooms.refused_lately().into_iter().map(|one| (one.reason, one.last.meter)).collect();
    refused.sort();
    let wanted = [("meter name", "memory/usage"), ("timestamp in the future", "cpu"), ("value not finite", "cpu")];
    assert_eq!(refused, wanted.map(|(reason, meter)| (reason, meter.to_owned())));
    house.assert_conserved();
}

#[tokio::test]
async fn what_comes_twice_is_dropped_and_only_what_is_stored_counts_as_seen() {
    let house = House::new();
    let core = house.core();
    let batch = batch_of(1, vec![sample("cpu", 600, 1.0), sample("cpu", 610, 2.0), sample("cpu", 600, 1.0)]);
    house.store.fails_before.store(1, Ordering::SeqCst);
    assert!(core.accept(batch.clone()).await.unwrap_err().is_retryable());
    assert_eq!(core.accept(batch.clone()).await.unwrap(), receipt(2, 1, 0));
    assert_eq!(core.accept(batch).await.unwrap(), receipt(0, 3, 0));
    assert_eq!(house.store.calls.load(Ordering::SeqCst), 2, "a batch of repeats does not reach the store");
    let balance = house.balance("collector");
    assert_eq!((balance.received, balance.stored, balance.dropped), (9, 2, 3 + 1 + 3));
    house.assert_conserved();
}

#[tokio::test]
async fn after_a_lost_answer_and_a_restart_the_same_rows_come_out() {
    let house = House::new();
    house.core().accept(batch_of(1, vec![sample("cpu", 600, 1e9)])).await.unwrap();
    // Stored, but the answer is lost; the batch comes again to a collector that knows nothing.
    let batch = batch_of(2, vec![sample("cpu", 610, 3e9)]);
    house.store.fails_after.store(1, Ordering::SeqCst);
    house.core().accept(batch.clone()).await.unwrap_err();
    let after_first = house.store.rows.lock().clone();
    assert_eq!(house.core().accept(batch).await.unwrap(), receipt(0, 1, 0));
    assert_eq!(*house.store.rows.lock(), after_first);
    assert_eq!(house.store.value("guest", "cpu_util", 610), Some(20.0));
    house.assert_conserved();
}

#[tokio::test]
async fn a_late_sample_is_measured_against_what_came_before_it() {
    let house = House::new();
    let core = house.core();
    for (id, second, value) in [(1, 600, 0.0), (2, 620, 10e9), (3, 610, 2e9), (4, 630, 11e9)] {
        core.accept(batch_of(id, vec![sample("cpu", second, value)])).await.unwrap();
    }
    assert_eq!(house.store.value("guest", "cpu_util", 620), Some(50.0));
    assert_eq!(house.store.value("guest", "cpu_util", 610), Some(20.0), "against 600, not against 620");
    assert_eq!(house.store.value("guest", "cpu_util", 630), Some(10.0), "the memory did not go back");
    house.assert_conserved();
}

#[tokio::test]
async fn counters_come_from_memory_once_they_are_known() {
    let house = House::new();
    let core = house.core();
    for step in 0..10 {
        core.accept(batch_of(step, vec![sample("cpu", 600 + step as i64 * 10, 0.0)])).await.unwrap();
    }
    assert_eq!(house.store.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_batch_rejected_for_good_is_refused_whole() {
    let house = House::new();
    house.store.rejects.store(1, Ordering::SeqCst);
    let error = house.core().accept(batch_of(1, vec![sample("cpu", 600, 1.0)])).await.unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(house.balance("collector").refused, 1);
    house.assert_conserved();
}

#[tokio::test]
async fn a_cancelled_call_leaves_no_trace_in_the_counters() {
    let house = House::new();
    let core = house.core();
    let batch = batch_of(1, vec![sample("cpu", 600, 1.0)]);
    // The store yields once, so the call is inside it when it is dropped.
    tokio::select! {
        biased;
        _ = core.accept(batch) => panic!("the store yields first"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(house.balance("collector").dropped, 1);
    house.assert_conserved();
}

#[tokio::test]
async fn a_message_is_acknowledged_when_the_store_has_it() {
    let house = House::new();
    let (stop, running) = house.run(CollectorSettings::default());
    house.bus.declare(&topic::samples_queue(0)).await.unwrap();
    // Twice not available, then stored with a lost answer, then stored again: one row.
    house.store.fails_before.store(2, Ordering::SeqCst);
    house.store.fails_after.store(1, Ordering::SeqCst);
    let published = house.publish_batch(&batch_of(1, vec![sample("cpu", 600, 1.0)]));
    tokio::time::timeout(WAIT, published).await.unwrap().unwrap().unwrap();
    assert_eq!(house.store.rows.lock().len(), 1);
    assert_eq!(house.store.calls.load(Ordering::SeqCst), 4);
    stop.cancel();
    running.await.unwrap();
    house.assert_conserved();
}

#[tokio::test]
async fn poison_goes_to_quarantine_and_can_be_replayed() {
    let house = House::new();
    let (stop, running) = house.run(CollectorSettings::default());
    house.bus.declare(&topic::samples_queue(0)).await.unwrap();
    house.store.rejects.store(1, Ordering::SeqCst);
    let good = batch_of(1, vec![sample("cpu", 600, 1.0)]);
    for published in [house.publish_batch(&good), house.publish("garbage", Bytes::from_static(b"{}"))] {
        tokio::time::timeout(WAIT, published).await.unwrap().unwrap().unwrap();
    }
    stop.cancel();
    running.await.unwrap();
    let mut entries = house.quarantine.list(None, 10).await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.kept_at.is_some() && entry.origin.ends_with("compute@host1")));
    entries.sort_by_key(|entry| entry.bytes);
    let (garbage, rejected) = (&entries[0], &entries[1]);
    assert_eq!(garbage.reason, "this is not an Orzo batch");
    assert_eq!(rejected.reason, "never");
    assert_eq!(house.quarantine.read(&garbage.id).await.unwrap().1, Bytes::from_static(b"{}"));
    assert_eq!(
        house.quarantine.list(Some(&garbage.id), 10).await.unwrap().len()
            + house.quarantine.list(Some(&rejected.id), 10).await.unwrap().len(),
        1
    );

    // The store has learnt better; garbage stays garbage.
    assert_eq!(house.quarantine.replay(&rejected.id, &house.core()).await.unwrap(), receipt(1, 0, 0));
    assert!(matches!(house.quarantine.replay(&garbage.id, &house.core()).await, Err(QuarantineError::NotABatch(_))));
    house.quarantine.remove(&garbage.id).await.unwrap();
    assert!(matches!(house.quarantine.read("x").await, Err(QuarantineError::NotAnId { .. })));
    assert!(house.quarantine.is_empty());
    house.assert_conserved();
}

#[tokio::test]
async fn poison_that_no_quarantine_takes_stays_on_the_bus() {
    let house = House::with_quarantine(10);
    let (stop, running) = house.run(CollectorSettings::default());
    house.bus.declare(&topic::samples_queue(0)).await.unwrap();
    let garbage = house.publish("garbage", Bytes::from_static(b"{}"));
    // The poison blocks nobody else.
    let good = house.publish_batch(&batch_of(1, vec![sample("cpu", 600, 1.0)]));
    tokio::time::timeout(WAIT, good).await.unwrap().unwrap().unwrap();
    stop.cancel();
    running.await.unwrap();
    assert!(!garbage.is_finished(), "not acknowledged");
    let mut subscription = house.bus.subscribe(&topic::samples_queue(0), 1).await.unwrap();
    let again = subscription.next().await.unwrap();
    assert_eq!(again.message.message_id, "garbage");
    // How often it came back meanwhile is the race between it and the stop.
    assert!(again.redeliveries >= 1);
    house.assert_conserved();
}

#[tokio::test]
async fn a_store_that_sleeps_makes_the_bus_hold() {
    let house = House::new();
    house.store.fails_before.store(usize::MAX >> 1, Ordering::SeqCst);
    let (stop, running) = house.run(CollectorSettings { batches_max: 3, ..CollectorSettings::default() });
    house.bus.declare(&topic::samples_queue(0)).await.unwrap();
    let published: Vec<_> = (0..20)
        .map(|number| {
            let mut batch = batch_of(number, vec![sample("cpu", 600 + number as i64, 1.0)]);
            batch.samples[0].resource_id = format!("guest-{number}");
            batch.origin = format!("compute@host{number}");
            house.publish_batch(&batch)
        })
        .collect();
    while house.store.calls.load(Ordering::SeqCst) < 10 {
        tokio::task::yield_now().await;
    }
    assert!(house.store.rows.lock().is_empty());
    assert_eq!(house.balance("batches").waiting, 3, "no more in hand than allowed");
    house.store.fails_before.store(0, Ordering::SeqCst);
    for published in published {
        tokio::time::timeout(WAIT, published).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(house.store.rows.lock().len(), 20);
    assert!(house.store.in_hand_most.load(Ordering::SeqCst) <= 3);
    stop.cancel();
    running.await.unwrap();
    house.assert_conserved();
}

#[tokio::test]
async fn a_stopped_collector_gives_back_what_it_could_not_store() {
    let house = House::new();
    house.store.fails_before.store(usize::MAX >> 1, Ordering::SeqCst);
    let (stop, running) = house.run(CollectorSettings::default());
    house.bus.declare(&topic::samples_queue(0)).await.unwrap();
    let published = house.publish_batch(&batch_of(1, vec![sample("cpu", 600, 1.0)]));
    while house.store.calls.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    tokio::time::timeout(WAIT, running).await.unwrap().unwrap();
    assert!(!published.is_finished());
    house.assert_conserved();

    // Another collector finds it.
    house.store.fails_before.store(0, Ordering::SeqCst);
    let (stop, running) = house.run(CollectorSettings::default());
    tokio::time::timeout(WAIT, published).await.unwrap().unwrap().unwrap();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(house.store.rows.lock().len(), 1);
    house.assert_conserved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_every_trouble_each_sample_is_stored_exactly_once() {
    const BATCHES: u128 = 300;
    const SAMPLES: i64 = 20;
    let house = House::new();
    let mut expected = HashMap::new();
    let mut published = Vec::new();
    let (mut stop, mut running) = house.run(CollectorSettings::default());
    house.bus.declare(&topic::samples_queue(0)).await.unwrap();
    for number in 0..BATCHES {
        let samples: Vec<Sample> = (0..SAMPLES)
            .map(|index| {
                let mut sample = sample("memory.usage", 600 + index, number as f64);
                sample.resource_id = format!("guest-{number}");
                sample.id = sample_id("compute", &sample.resource_id, &sample.meter, sample.timestamp);
                expected.insert((sample.resource_id.clone(), sample.meter.clone(), sample.timestamp), sample.value);
                sample
            })
            .collect();
        let mut batch = batch_of(number, samples);
        batch.origin = format!("compute@host{}", number % 7);
        // Every third is sent twice, as after a lost confirmation.
        for copy in 0..=u128::from(number % 3 == 0) {
            published.push(house.publish(&format!("{number}-{copy}"), batch::encode(&batch).unwrap()));
        }
        if number % 30 == 0 {
            house.store.fails_before.fetch_add(2, Ordering::SeqCst);
            house.store.fails_after.fetch_add(2, Ordering::SeqCst);
        }
        if number % 100 == 50 {
            // Replaced, with batches in hand, by another that remembers nothing.
            stop.cancel();
            running.await.unwrap();
            (stop, running) = house.run(CollectorSettings::default());
        }
        if number % 30 == 29 {
            for published in published.drain(..) {
                tokio::time::timeout(WAIT, published).await.unwrap().unwrap().unwrap();
            }
        }
    }
    stop.cancel();
    running.await.unwrap();
    let rows: HashMap<Key, f64> = house.store.rows.lock().clone().into_iter().collect();
    assert_eq!(rows, expected);
    house.assert_conserved();
}
