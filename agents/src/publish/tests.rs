//! The publisher: what waits on disk, in which order it goes, what is refused; and shards, sizes and the bus's promise.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use orzo_bus::{Bus, InProcessBus, batch, topic};
use orzo_model::{Sample, SampleKind, SystemClock, Timestamp};
use prometheus::Registry;
use uuid::Uuid;

use super::*;

/// A test that waits longer than this has failed.
const WAIT: Duration = Duration::from_secs(20);

/// Takes parcels while it is up.
#[derive(Default)]
struct Switch {
    up: AtomicBool,
    rejects: AtomicBool,
    taken: Mutex<Vec<Parcel>>,
    changed: Notify,
}

#[async_trait]
impl Outlet for Switch {
    async fn send(&self, parcel: &Parcel) -> Result<(), OutletError> {
        if self.rejects.load(Ordering::SeqCst) {
            return Err(OutletError::Rejected { reason: "no".to_owned() });
        }
        if !self.up.load(Ordering::SeqCst) {
            return Err(OutletError::Unavailable { reason: "down".to_owned() });
        }
        self.taken.lock().unwrap().push(parcel.clone());
        self.changed.notify_waiters();
        Ok(())
    }
}

impl Switch {
    async fn has_taken(&self, count: usize) -> Vec<Parcel> {
        tokio::time::timeout(WAIT, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.taken.lock().unwrap().len() >= count {
                    return self.taken.lock().unwrap().clone();
                }
                changed.await;
            }
        })
        .await
        .expect("the parcels are sent in time")
    }
}

fn batch(number: u128, samples: u32) -> Batch {
    let sample = |index: u32| Sample {
        id: Uuid::from_u128(number << 32 | u128::from(index)),
        meter: "cpu".to_owned(),
        kind: SampleKind::Cumulative,
        unit: "ns".to_owned(),
        value: f64::from(index),
        timestamp: Timestamp::from_secs(60),
        resource_id: format!("guest-{index}"),
        project_id: None,
        user_id: None,
        source: "openstack".to_owned(),
        metadata: Default::default(),
    };
    Batch {
        id: Uuid::from_u128(number),
        origin: "compute@host1".to_owned(),
        samples: (0..samples).map(sample).collect(),
        events: Vec::new(),
    }
}

fn publisher(outlet: Arc<dyn Outlet>, directory: &Path, bytes_max: u64) -> (Arc<Publisher>, Rooms) {
    let rooms = Rooms::new(&Registry::new());
    let spool = Arc::new(Records::open(directory, bytes_max).unwrap());
    (Publisher::new(outlet, spool, 1, &rooms, SystemClock::shared()), rooms)
}

fn assert_conserved(rooms: &Rooms) {
    for room in ["publisher", "spool"] {
        let balance = rooms.room(room).balance();
        assert!(balance.is_conserved(), "{room}: {balance:?}");
    }
}

async fn drained(publisher: &Publisher) {
    tokio::time::timeout(WAIT, async {
        while publisher.spooled_batches() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the spool empties");
}

#[tokio::test]
async fn while_nobody_answers_batches_wait_on_disk_and_go_in_order_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let outlet = Arc::new(Switch::default());
    let (before, rooms) = publisher(outlet.clone(), directory.path(), 1 << 20);
    for number in 0..3 {
        assert_eq!(before.accept(batch(number, 2)).await.unwrap().stored, 2);
    }
    assert_eq!(before.spooled_batches(), 3);
    assert_eq!(rooms.room("spool").balance().waiting, 6);
    assert_conserved(&rooms);
    drop(before);

    // Another process finds them, and a half-written one that was never acknowledged.
    std::fs::write(directory.path().join("00000000000000000003.tmp"), b"half").unwrap();
    let (after, rooms) = publisher(outlet.clone(), directory.path(), 1 << 20);
    assert_eq!(rooms.room("spool").balance().waiting, 6);
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (after, stop) = (after.clone(), stop.clone());
        async move { after.run(stop).await }
    });
    // Joins the queue on disk, so that it does not overtake.
    after.accept(batch(3, 2)).await.unwrap();
    outlet.up.store(true, Ordering::SeqCst);
    let parcels = outlet.has_taken(4).await;
    let ids: Vec<u128> = parcels.iter().map(|parcel| parcel.id.as_u128()).collect();
    assert_eq!(ids, [0, 1, 2, 3]);
    assert_eq!(batch::decode(&parcels[1].body).unwrap(), batch(1, 2));
    drained(&after).await;
    after.accept(batch(4, 2)).await.unwrap();
    assert_eq!(after.spooled_batches(), 0, "sent straight away again");
    stop.cancel();
    task.await.unwrap();
    assert_eq!(rooms.room("spool").balance().stored, 8);
    assert_conserved(&rooms);
}

#[tokio::test]
async fn a_full_spool_refuses_what_is_new_and_counts_it() {
    let directory = tempfile::tempdir().unwrap();
    let (publisher, rooms) = publisher(Arc::new(Switch::default()), directory.path(), 12_000);
    publisher.accept(batch(0, 3)).await.unwrap();
    publisher.accept(batch(1, 3)).await.unwrap();
    let refused = publisher.accept(batch(2, 3)).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert_eq!(publisher.spooled_batches(), 2);
    assert_eq!(rooms.room("publisher").balance().refused, 3);
    assert_conserved(&rooms);
}

#[tokio::test]
async fn what_can_never_be_delivered_does_not_block_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let outlet = Arc::new(Switch::default());
    let (publisher, rooms) = publisher(outlet.clone(), directory.path(), 1 << 20);
    publisher.accept(batch(0, 2)).await.unwrap();
    publisher.accept(batch(1, 2)).await.unwrap();
    // One record's bytes change on the disk.
    let damaged = directory.path().join("00000000000000000000.record");
    let mut bytes = std::fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    outlet.up.store(true, Ordering::SeqCst);
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (publisher, stop) = (publisher.clone(), stop.clone());
        async move { publisher.run(stop).await }
    });
    assert_eq!(outlet.has_taken(1).await[0].id, Uuid::from_u128(1));
    drained(&publisher).await;
    stop.cancel();
    task.await.unwrap();
    assert!(directory.path().join("00000000000000000000.record.damaged").exists());
    let balance = rooms.room("spool").balance();
    assert_eq!(balance.stored, 2);
    assert!(balance.dropped >= 1);

    outlet.rejects.store(true, Ordering::SeqCst);
    assert!(!publisher.accept(batch(5, 2)).await.unwrap_err().is_retryable());
    assert!(rooms.room("publisher").balance().is_conserved());
}

#[tokio::test]
async fn shards_keep_a_resource_together_and_ids_stable() {
    let parcels = parcel::pack(batch(9, 100), 4).unwrap();
    assert_eq!(parcels, parcel::pack(batch(9, 100), 4).unwrap());
    assert_eq!(parcels.iter().map(|parcel| parcel.things).sum::<u64>(), 100);
    assert!(parcels.len() > 1);
    let mut seen = BTreeMap::new();
    for parcel in &parcels {
        for sample in batch::decode(&parcel.body).unwrap().samples {
            assert!(seen.insert(sample.resource_id, parcel.shard).is_none());
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_travels_in_parts() {
    let mut large = batch(9, 4);
    for sample in &mut large.samples {
        sample.metadata = Arc::new(BTreeMap::from([("text".to_owned(), "x".repeat(900_000).into())]));
    }
    let many: Vec<Sample> = (0..30)
        .map(|index: u32| Sample {
            // Not compressible and not shared, so that the payload's limit is met.
            metadata: Arc::new(BTreeMap::from([("text".to_owned(), format!("{index}{}", "y".repeat(900_000)).into())])),
            ..large.samples[0].clone()
        })
        .collect();
    let parcels = parcel::pack(Batch { samples: many, ..large }, 1).unwrap();
    assert!(parcels.len() > 1);
    assert_eq!(parcels.iter().map(|parcel| parcel.things).sum::<u64>(), 30);
}

#[tokio::test]
async fn over_the_bus_ok_means_that_a_consumer_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new(SystemClock::shared()));
    let (publisher, rooms) = publisher(Arc::new(BusOutlet::new(bus.clone(), 1)), directory.path(), 1 << 20);
    let mut subscription = bus.subscribe(&topic::samples_queue(0), 10).await.unwrap();
    let accepted = tokio::spawn(async move { publisher.accept(batch(1, 5)).await });
    let delivery = tokio::time::timeout(WAIT, subscription.next()).await.unwrap().unwrap();
    assert!(!accepted.is_finished());
    assert_eq!(batch::decode(&delivery.message.body).unwrap(), batch(1, 5));
    assert_eq!(delivery.message.content_type, batch::CONTENT_TYPE);
    delivery.receipt.ack().await.unwrap();
    assert_eq!(accepted.await.unwrap().unwrap().stored, 5);
    assert_eq!(rooms.room("publisher").balance().stored, 5);
    assert_conserved(&rooms);
}
