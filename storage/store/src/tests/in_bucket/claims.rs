//! One writer for a table that anybody can reach: a second server is refused, or the first one is.

use orzo_model::Clock;

use super::*;
use crate::faults::{Restart, bucket::Weather};

/// Another machine that reaches the same bucket, with an empty disk.
fn another(world: &World) -> World {
    let disk = SimulatedDisk::default();
    let bucket = world.bucket.reached_from(&disk);
    World::on(disk, bucket)
}

async fn refusal(world: &World) -> String {
    match world.open().await {
        Ok(_) => panic!("it opened"),
        Err(error) => {
            assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
            error.to_string()
        }
    }
}

#[tokio::test]
async fn a_table_that_was_left_is_gone_on_with_elsewhere() {
    let first = World::new();
    let second = another(&first);
    let mut expected = Vec::new();
    for (round, world) in [&first, &second, &first, &second].into_iter().enumerate() {
        let store = world.open().await.expect("it was left");
        assert_eq!(everything(&store, &[1]).await.expect("read"), rows(&expected));
        let new = vec![point(1, round as i64, 1.0), point(1, 86_400 + round as i64, 2.0)];
        store.append(new.clone()).await.expect("stored");
        expected.extend(new);
        expected.sort_by_key(|point| point.timestamp);
        store.close().await.expect("closed");
        assert!(store.append(vec![point(2, 0, 0.0)]).await.is_err());
    }
}

#[tokio::test]
async fn another_server_is_refused_until_it_is_told_to_take_over_and_then_the_first_one_is() {
    let first = World::new();
    let mut second = another(&first);
    let store = first.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    let files = second.objects().len();
    let reason = refusal(&second).await;
    assert!(reason.contains("s3://test") && reason.contains("orzo store adopt"), "{reason}");
    assert_eq!(second.objects().len(), files, "nothing was written, nothing removed");
    store.append(vec![point(1, 1, 1.0)]).await.expect("stored");
    store.flush().await.expect("nothing has changed for the one that has it");

    // In its log when the other takes over, and then appended without a doubt of it.
    store.append(vec![point(1, 2, 1.0)]).await.expect("stored");
    second.settings.adopts = true;
    let taken = second.open().await.expect("takes over");
    second.settings.adopts = false;
    assert_eq!(everything(&taken, &[1]).await.expect("read"), rows(&[point(1, 0, 1.0), point(1, 1, 1.0)]));
    taken.append(vec![point(2, 0, 9.0)]).await.expect("stored");
    taken.flush().await.expect("flushed");
    store.append(vec![point(1, 3, 1.0)]).await.expect("its log takes it");
    store.flush().await.expect_err("its version is there, and is not its own");
    let reason = store.closed_because().expect("closed");
    assert!(reason.contains("another server") && reason.contains("in its log"), "{reason}");
    assert!(matches!(store.append(vec![point(1, 4, 1.0)]).await, Err(StoreError::Closed { .. })));
    drop(store);
    first.disk.restart(Restart::Killed);
    assert!(refusal(&first).await.contains("another directory writes to it"));

    // What it did meanwhile harmed nobody.
    assert!(taken.verify().await.expect("read").is_sound());
    taken.close().await.expect("closed");
    let reason = refusal(&first).await;
    assert!(reason.contains("/store/wal has points from before"), "{reason}");
    let taken = second.open().await.expect("opens");
    let expected = rows(&[point(1, 0, 1.0), point(1, 1, 1.0), point(2, 0, 9.0)]);
    assert_eq!(everything(&taken, &[1, 2]).await.expect("read"), expected);
}

#[tokio::test]
async fn of_two_that_write_at_once_one_is_refused_and_tombstones_stay() {
    let first = World::new();
    let mut second = another(&first);
    let store = first.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0), point(2, 0, 1.0), point(3, 0, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    store.delete_series(&[SeriesId(1)]).await.expect("deleted");
    store.flush().await.expect("flushed");
    second.settings.adopts = true;
    let taken = second.open().await.expect("takes over");
    taken.delete_series(&[SeriesId(2)]).await.expect("deleted");
    taken.flush().await.expect("flushed");
    // The first one does not know yet: everything that it does before its commit is refused must not harm the table.
    store.delete_series(&[SeriesId(3)]).await.expect("its log takes it");
    assert!(store.flush().await.is_err());
    for outcome in [store.vacuum().await, store.checkpoint().await, store.apply_deletions().await.map(drop)] {
        assert!(matches!(outcome, Err(StoreError::Closed { .. })));
    }
    drop(taken);
    second.disk.restart(Restart::Killed);
    second.forget_copies();
    let taken = second.open().await.expect("opens");
    assert_eq!(everything(&taken, &[1, 2, 3]).await.expect("read"), rows(&[point(3, 0, 1.0)]));
    assert!(taken.verify().await.expect("read").is_sound());
}

#[tokio::test]
async fn a_table_that_is_gone_is_not_made_anew_and_a_lost_log_is_missed() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    store.close().await.expect("closed");
    let log: Vec<_> = world.disk.files().into_iter().filter(|(path, _)| path.starts_with("/store/wal")).collect();
    for (path, _) in &log {
        world.disk.take_away(path);
    }
    let error = world.open().await.err().expect("refused");
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("/store/wal"), "{error}");
    for (path, bytes) in log {
        world.disk.put(&path, bytes);
    }
    world.open().await.expect("opens").close().await.expect("closed");
    let empty = SimulatedBucket::new(&world.disk);
    let moved = World::on(world.disk.clone(), empty);
    assert!(refusal(&moved).await.contains("there is no table at s3://test"));
    assert!(moved.objects().is_empty());
}

#[tokio::test]
async fn a_bucket_that_overwrites_is_refused() {
    let world = World::new();
    world.bucket.set_weather(Weather { overwrites: true, ..Weather::default() }, 0);
    let reason = refusal(&world).await;
    assert!(reason.contains("If-None-Match"), "{reason}");
    assert!(world.objects().is_empty(), "{:?}", world.objects());
}

#[tokio::test]
async fn a_store_that_began_here_is_moved_by_copying_and_not_in_silence() {
    let local = super::super::World::new();
    let store = local.open().await.expect("opens");
    let mut points: Vec<_> = (0..50).map(|n| point(1, n * 5000, n as f64)).collect();
    store.append(points.clone()).await.expect("stored");
    store.flush().await.expect("flushed");
    store.checkpoint().await.expect("written");
    store.append(vec![point(2, 0, 7.0)]).await.expect("stored");
    points.push(point(2, 0, 7.0));
    drop(store);
    // With this point in its log only.
    local.disk.restart(Restart::Killed);
    let moved = World::on(local.disk.clone(), SimulatedBucket::new(&local.disk));
    let reason = refusal(&moved).await;
    assert!(reason.contains("copy /store/samples") && reason.contains("s3://test"), "{reason}");
    assert!(moved.objects().is_empty());

    for (path, bytes) in local.files() {
        if moved.name(&path).is_some() {
            if !path.to_string_lossy().contains("day=") {
                local.disk.take_away(&path);
            }
            let name = moved.name(&path).expect("looked");
            moved.bucket.objects().put(&name, bytes.into()).await.expect("in memory");
        }
    }
    let store = moved.open().await.expect("opens");
    assert_eq!(everything(&store, &[1, 2]).await.expect("read"), rows(&points));
    assert!(store.verify().await.expect("read").is_sound());
    store.close().await.expect("closed");
    let error = local.open().await.err().expect("its table is elsewhere");
    assert!(error.to_string().contains("set the store's url"), "{error}");
}

#[tokio::test]
async fn unfinished_work_of_others_stays_while_it_is_young() {
    let mut world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    store.close().await.expect("closed");
    let stray = PathBuf::from("/store/samples/day=2026-01-01/00000000000000000009-0000-stray.parquet");
    world.put(&stray, b"not named by any version".to_vec());
    let is_there = |world: &World| world.files().iter().any(|(path, _)| *path == stray);
    world.sweep_after = Duration::from_secs(3600);
    // Times of objects are the bucket's own, of today.
    let now = orzo_model::SystemClock::shared().now();
    world.clock.advance(now.since(world.clock.now()) + Duration::from_secs(1800));
    world.open().await.expect("opens").close().await.expect("closed");
    assert!(is_there(&world));
    world.clock.advance(Duration::from_secs(3600));
    world.open().await.expect("opens").close().await.expect("closed");
    assert!(!is_there(&world));
}
