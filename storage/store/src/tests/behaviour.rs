//! What a store does while nothing breaks, and how it refuses what it cannot do.

use std::sync::Arc;

use orzo_model::{Rooms, SystemClock};

use super::*;
use crate::{faults::Fault, files::Disk};

#[tokio::test]
async fn what_is_appended_is_read_from_the_head_from_files_and_after_reopening() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    let points = vec![point(1, 0, 1.0), point(1, 60, 2.0), point(2, 0, 3.0), point(2, 86_400, 4.0)];
    let receipt = store.append(points.clone()).await.expect("stored");
    assert_eq!((receipt.stored, receipt.replaced), (4, 0));
    assert_eq!(everything(&store, &[2, 1, 2, 9]).await.expect("read"), rows(&points));
    store.flush().await.expect("flushed");
    assert_eq!(store.stats().files, 2);
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), rows(&points));
    store.close().await.expect("closed");
    assert!(matches!(store.append(points.clone()).await, Err(StoreError::Closed { .. })));
    let store = world.open().await.expect("opens again");
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), rows(&points));
    assert!(store.verify().await.expect("read").is_sound());
    assert!(world.room.balance().is_conserved());
}

#[tokio::test]
async fn ranges_include_their_start_and_not_their_end() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append((0..10).map(|i| point(1, i, i as f64)).collect()).await.expect("stored");
    store.flush().await.expect("flushed");
    store.append((10..20).map(|i| point(1, i, i as f64)).collect()).await.expect("stored");
    let at = |second| Timestamp::from_secs(START + second);
    let values = |found: Vec<(SeriesId, Vec<Measure>)>| -> Vec<f64> {
        found.iter().flat_map(|(_, measures)| measures.iter().map(|m| m.value)).collect()
    };
    assert_eq!(values(store.scan(&[SeriesId(1)], at(8), at(12)).await.expect("read")), [8.0, 9.0, 10.0, 11.0]);
    assert!(store.scan(&[SeriesId(1)], at(8), at(8)).await.expect("read").is_empty());
    assert!(store.scan(&[SeriesId(1)], at(9), at(8)).await.expect("read").is_empty());
    for (before, value) in
        [(at(0), None), (at(1), Some(0.0)), (at(10), Some(9.0)), (at(11), Some(10.0)), (at(99), Some(19.0))]
    {
        let last = store.last_before(SeriesId(1), before).await.expect("read");
        assert_eq!(last.map(|m| m.value), value, "{before}");
    }
    assert_eq!(store.last(SeriesId(1)).await.expect("read").map(|m| m.value), Some(19.0));
    assert_eq!(store.last(SeriesId(2)).await.expect("read"), None);
}

#[tokio::test]
async fn the_last_value_wins_in_every_place() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0), point(1, 0, 2.0)]).await.expect("stored");
    let receipt = store.append(vec![point(1, 0, 3.0)]).await.expect("stored");
    assert_eq!((receipt.stored, receipt.replaced), (1, 1));
    store.flush().await.expect("flushed");
    for value in [4.0, 5.0, 6.0] {
        store.append(vec![point(1, 0, value), point(1, value as i64, value)]).await.expect("stored");
        assert_eq!(
            store.last_before(SeriesId(1), point(1, 1, 0.0).timestamp).await.expect("read").map(|m| m.value),
            Some(value)
        );
        store.flush().await.expect("flushed");
        assert_eq!(
            store.last_before(SeriesId(1), point(1, 1, 0.0).timestamp).await.expect("read").map(|m| m.value),
            Some(value)
        );
    }
    let expected = rows(&[point(1, 0, 6.0), point(1, 4, 4.0), point(1, 5, 5.0), point(1, 6, 6.0)]);
    assert_eq!(everything(&store, &[1]).await.expect("read"), expected);
    assert_eq!(store.compact().await.expect("merged"), 4);
    assert_eq!((store.stats().files, store.stats().rows), (1, 4));
    assert_eq!(everything(&store, &[1]).await.expect("read"), expected);
    assert!(store.verify().await.expect("read").is_sound());
}

#[tokio::test]
async fn every_float_and_every_time_comes_back_bit_by_bit() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    let values = [
        f64::NAN,
        f64::from_bits(0xfff8_0000_0000_1234),
        f64::from_bits(0x7ff0_0000_0000_0001),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        f64::MIN_POSITIVE / 2.0,
        f64::MAX,
    ];
    let times = [Timestamp::MIN, Timestamp::from_micros(-1), Timestamp::EPOCH, Timestamp::MAX];
    let mut points = Vec::new();
    for (series, value) in values.into_iter().enumerate() {
        points.extend(times.map(|timestamp| Point { series: SeriesId(series as u64), timestamp, value }));
    }
    points.push(Point { series: SeriesId(i64::MAX as u64), timestamp: Timestamp::MAX, value: 1.0 });
    store.append(points.clone()).await.expect("stored");
    let series: Vec<u64> = (0..8).chain([i64::MAX as u64]).collect();
    assert_eq!(everything(&store, &series).await.expect("read"), rows(&points));
    store.flush().await.expect("flushed");
    assert_eq!(everything(&store, &series).await.expect("read"), rows(&points));
    assert!(store.verify().await.expect("read").is_sound());
    let too_high = Point { series: SeriesId(u64::MAX), timestamp: Timestamp::EPOCH, value: 1.0 };
    assert!(matches!(store.append(vec![too_high]).await, Err(StoreError::Invalid { .. })));
    assert_eq!(world.room.balance().refused, 1);
}

#[tokio::test]
async fn deleted_series_are_gone_at_once_and_for_ever_and_can_be_written_again() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0), point(2, 0, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    store.append(vec![point(1, 1, 1.0), point(2, 1, 1.0)]).await.expect("stored");
    store.delete_series(&[SeriesId(1)]).await.expect("deleted");
    let left = rows(&[point(2, 0, 1.0), point(2, 1, 1.0)]);
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), left);
    assert_eq!(store.last(SeriesId(1)).await.expect("read"), None);
    drop(store);
    world.disk.restart(crate::faults::Restart::Killed);
    let store = world.open().await.expect("opens");
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), left, "after the log was read again");
    store.append(vec![point(1, 0, 7.0), point(2, 2, 1.0)]).await.expect("stored");
    store.close().await.expect("closed");
    let store = world.open().await.expect("opens");
    let left = rows(&[point(1, 0, 7.0), point(2, 0, 1.0), point(2, 1, 1.0), point(2, 2, 1.0)]);
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), left, "after tombstones were read from their file");
    assert_eq!((store.stats().tombstones, store.stats().files), (1, 3));
    // From here on upkeep may merge them as well, before or after.
    world.clock.advance(Duration::from_secs(3 * 86_400));
    store.compact().await.expect("merged");
    assert_eq!(store.stats().files, 1);
    store.append(vec![point(3, 0, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    assert_eq!((store.stats().tombstones, store.stats().rows), (0, 5));
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), left);
}

#[tokio::test]
async fn retention_removes_whole_files_and_vacuum_waits_for_readers() {
    let mut world = World::new();
    world.settings.removed_grace = Duration::from_secs(100);
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0), point(1, 86_400, 2.0), point(1, 86_401, 3.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    assert_eq!(store.retain(point(1, 86_401, 0.0).timestamp).await.expect("removed"), 1);
    assert_eq!(everything(&store, &[1]).await.expect("read"), rows(&[point(1, 86_400, 2.0), point(1, 86_401, 3.0)]));
    let parquet = || world.files().iter().filter(|(path, _)| path.extension() == Some("parquet".as_ref())).count();
    store.vacuum().await.expect("works");
    assert_eq!(parquet(), 2, "too early");
    world.clock.advance(Duration::from_secs(100));
    store.vacuum().await.expect("works");
    assert_eq!(parquet(), 1);
}

#[tokio::test]
async fn retention_does_not_bring_back_a_replaced_value() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0), point(1, 60, 2.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    store.append(vec![point(1, 0, 1.5)]).await.expect("stored");
    store.flush().await.expect("flushed");
    assert_eq!(store.retain(point(1, 60, 0.0).timestamp).await.expect("looked"), 0, "both files go together");
    assert_eq!(everything(&store, &[1]).await.expect("read"), rows(&[point(1, 0, 1.5), point(1, 60, 2.0)]));
    assert_eq!(store.retain(point(1, 61, 0.0).timestamp).await.expect("removed"), 2);
    assert_eq!(everything(&store, &[1]).await.expect("read"), []);
}

#[tokio::test]
async fn upkeep_flushes_by_age_and_by_size() {
    let mut world = World::new();
    world.settings.head_bytes_max = 4000;
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    // More than once: upkeep may begin to wait only after the first.
    wait_for(|| {
        world.clock.advance(world.settings.flush_after);
        store.stats().files == 1
    })
    .await;
    for i in 0..10 {
        store.append((0..50).map(|j| point(1, i * 50 + j, 1.0)).collect()).await.expect("stored, or waits for room");
    }
    // What is left is smaller than what would have to be written.
    wait_for(|| store.stats().head_bytes < 4000).await;
    assert_eq!(everything(&store, &[1]).await.expect("read").len(), 500);
}

/// Waits for what happens on other threads, with a limit that a slow machine does not meet.
async fn wait_for(condition: impl Fn() -> bool) {
    let seen = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it happens");
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_stops_appends_not_reads_until_there_is_room() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    world.disk.set_free_bytes(999);
    let error = store.append(vec![point(1, 1, 1.0)]).await.expect_err("full");
    assert!(matches!(error, StoreError::DiskFull { free_bytes: 999, reserve_bytes: 1000 }) && error.is_retryable());
    assert_eq!(everything(&store, &[1]).await.expect("read").len(), 1);
    store.flush().await.expect("the reserve is for files");
    world.disk.set_free_bytes(1000);
    store.append(vec![point(1, 1, 1.0)]).await.expect("stored");
    assert!(world.room.balance().is_conserved());
}

#[tokio::test]
async fn a_segment_that_finds_no_room_refuses_but_does_not_close() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    let batch = |from: i64| (from..from + 50).map(|i| point(1, i, 1.0)).collect::<Vec<_>>();
    for from in [0, 50, 100] {
        store.append(batch(from)).await.expect("stored");
    }
    // The next append begins a segment: it asks for free bytes, then creates and preallocates.
    let at = world.disk.operations() + 2;
    world.disk.set_fault(Fault::FailOnce { operation: at, kind: std::io::ErrorKind::StorageFull, applied: false });
    assert!(matches!(store.append(batch(150)).await, Err(StoreError::DiskFull { .. })));
    store.append(batch(150)).await.expect("stored");
    assert_eq!(everything(&store, &[1]).await.expect("read").len(), 200);
}

#[tokio::test]
async fn many_appends_at_once_share_syncs_and_are_all_there() {
    let mut world = World::new();
    world.settings.wal_segment_bytes = 1 << 20;
    let store = world.open().await.expect("opens");
    let before = world.disk.operations();
    let appends: Vec<_> = (0..500)
        .map(|series| {
            let store = store.clone();
            tokio::spawn(async move { store.append(vec![point(series, 0, 1.0)]).await })
        })
        .collect();
    for append in appends {
        append.await.expect("no panic").expect("stored");
    }
    let operations = world.disk.operations() - before;
    assert!(operations < 1500, "{operations} operations for 500 appends: three for each would be no group");
    assert_eq!(everything(&store, &Vec::from_iter(0..500)).await.expect("read").len(), 500);
    assert_eq!(world.room.balance().stored, 500);
}

#[tokio::test]
async fn limits_are_refused_with_what_to_do() {
    let mut world = World::new();
    world.settings.scan_points_max = 10;
    let store = world.open().await.expect("opens");
    let error = store.append((0..1000).map(|i| point(1, i, 0.0)).collect()).await.expect_err("larger than a segment");
    assert!(!error.is_retryable() && error.to_string().contains("smaller batches"), "{error}");
    store.append((0..11).map(|i| point(1, i, 0.0)).collect()).await.expect("stored");
    for _ in 0..2 {
        let error = store.scan(&[SeriesId(1)], Timestamp::MIN, Timestamp::MAX).await.expect_err("too many");
        assert!(matches!(error, StoreError::TooManyPoints { points_max: 10 }));
        store.flush().await.expect("flushed");
    }
    store.append(vec![]).await.expect("nothing is fine");
}

#[tokio::test]
async fn checkpoints_replace_the_commits_before_them() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    let mut points = Vec::new();
    for second in 0..12 {
        points.push(point(1, second, 1.0));
        store.append(vec![point(1, second, 1.0)]).await.expect("stored");
        store.flush().await.expect("flushed");
        if second % 4 == 3 {
            store.checkpoint().await.expect("written");
        }
    }
    let commits = || {
        let is_commit = |path: &std::path::Path| {
            path.parent().is_some_and(|p| p.ends_with("_delta_log")) && path.extension() == Some("json".as_ref())
        };
        world.files().into_iter().filter(|(path, _)| is_commit(path)).count()
    };
    assert_eq!(commits(), 5, "from the checkpoint before the last one on");
    assert!(store.verify().await.expect("read").is_sound());
    store.close().await.expect("closed");
    let store = world.open().await.expect("opens from the checkpoint");
    assert_eq!(everything(&store, &[1]).await.expect("read"), rows(&points));
}

#[tokio::test]
async fn two_stores_cannot_share_a_directory_on_a_real_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings =
        StoreSettings { directory: directory.path().join("store"), disk_reserve_bytes: 0, ..StoreSettings::default() };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let open = || Store::open(settings.clone(), room.clone(), SystemClock::shared());
    let store = open().await.expect("opens");
    let points: Vec<_> = (0..1000).map(|i| point(i % 7, i as i64, i as f64)).collect();
    store.append(points.clone()).await.expect("stored");
    let error = open().await.err().expect("locked");
    assert!(matches!(error, StoreError::Locked { .. }) && error.to_string().contains("another process"), "{error}");
    store.close().await.expect("closed");
    let store = open().await.expect("free again");
    assert_eq!(everything(&store, &Vec::from_iter(0..7)).await.expect("read").len(), 1000);
    store.append(vec![point(1, 5000, 1.0)]).await.expect("stored");
    store.checkpoint().await.expect("written");
    assert!(store.verify().await.expect("read").is_sound());
}

#[tokio::test]
async fn a_real_disk_refuses_taken_names_as_the_simulated_one_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let disks: [(Arc<dyn Disk>, PathBuf); 2] = [
        (Arc::new(crate::files::real::RealDisk), directory.path().to_owned()),
        (Arc::new(SimulatedDisk::default()), PathBuf::from("/d")),
    ];
    for (disk, root) in disks {
        disk.make_directory(&root).expect("works");
        let (a, b) = (root.join("a"), root.join("b"));
        disk.create(&a).expect("new").write_at(0, b"a").expect("works");
        disk.create(&b).expect("new").preallocate(10).expect("works");
        assert_eq!(disk.create(&a).err().map(|e| e.kind()), Some(std::io::ErrorKind::AlreadyExists));
        assert_eq!(disk.rename(&a, &b).err().map(|e| e.kind()), Some(std::io::ErrorKind::AlreadyExists));
        assert_eq!(disk.open(&root.join("c")).err().map(|e| e.kind()), Some(std::io::ErrorKind::NotFound));
        assert_eq!(
            disk.open(&b).expect("there").read_at(0, 11).err().map(|e| e.kind()),
            Some(std::io::ErrorKind::UnexpectedEof)
        );
        assert_eq!(disk.open(&b).expect("there").length().expect("works"), 10);
        disk.replace(&a, &b).expect("works");
        assert_eq!(disk.list(&root).expect("works").len(), 1);
        let lock = disk.lock(&root.join("LOCK")).expect("works").expect("free");
        assert!(disk.lock(&root.join("LOCK")).expect("works").is_none());
        drop(lock);
        assert!(disk.lock(&root.join("LOCK")).expect("works").is_some());
        assert!(disk.free_bytes(&root).expect("works") > 0);
    }
}
