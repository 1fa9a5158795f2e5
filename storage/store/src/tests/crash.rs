//! The script is broken at every one of its disk operations, in every way that a disk can break. Whatever was
//! acknowledged is there exactly once afterwards, with its last value; the rest is there or not, but never in part.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::faults::{Fault, Restart};

type Key = (u64, i64);

/// What may be there after a crash.
#[derive(Default)]
pub(super) struct Ledger {
    /// For each key the values that may be there; `None` is absence.
    allowed: BTreeMap<Key, BTreeSet<Option<u64>>>,
    /// Batches that were not answered with success: all of a batch is there, or nothing.
    open_batches: Vec<Vec<Point>>,
}

impl Ledger {
    pub(super) async fn append(&mut self, store: &Store, points: Vec<Point>) {
        let outcome = store.append(points.clone()).await;
        self.note(points, outcome.is_ok());
    }

    /// What came of an append.
    pub(super) fn note(&mut self, points: Vec<Point>, is_acknowledged: bool) {
        for point in &points {
            let key = (point.series.0, point.timestamp.micros());
            let allowed = self.allowed.entry(key).or_insert_with(|| [None].into());
            if is_acknowledged {
                allowed.clear();
            }
            allowed.insert(Some(point.value.to_bits()));
        }
        if !is_acknowledged {
            self.open_batches.push(points);
        }
    }

    pub(super) async fn delete(&mut self, store: &Store, series: u64) {
        let outcome = store.delete_series(&[SeriesId(series)]).await;
        for ((of, _), allowed) in &mut self.allowed {
            if *of == series {
                if outcome.is_ok() {
                    allowed.clear();
                }
                allowed.insert(None);
            }
        }
    }

    async fn retain(&mut self, store: &Store, before: Timestamp) {
        let _ = store.retain(before).await;
        for ((_, micros), allowed) in &mut self.allowed {
            if *micros < before.micros() {
                allowed.insert(None);
            }
        }
    }

    pub(super) fn check(&self, found: &[(u64, i64, u64)], what: &str) {
        self.judge(found).unwrap_or_else(|problem| panic!("{what}: {problem}"));
    }

    /// What is wrong with what was found.
    pub(super) fn judge(&self, found: &[(u64, i64, u64)]) -> Result<(), String> {
        let found_map: BTreeMap<Key, u64> =
            found.iter().map(|(series, time, bits)| ((*series, *time), *bits)).collect();
        if found_map.len() != found.len() {
            return Err("a key is there twice".to_owned());
        }
        for (key, allowed) in &self.allowed {
            let value = found_map.get(key).copied();
            if !allowed.contains(&value) {
                return Err(format!("{key:?} is {value:?}, allowed are {allowed:?}"));
            }
        }
        for key in found_map.keys() {
            if !self.allowed.contains_key(key) {
                return Err(format!("{key:?} was never appended"));
            }
        }
        for batch in &self.open_batches {
            let is_there = |point: &&Point| {
                found_map.get(&(point.series.0, point.timestamp.micros())) == Some(&point.value.to_bits())
            };
            // Later appends do not touch the keys of the batches that the script makes of one kind.
            let count = batch.iter().filter(is_there).count();
            if count != 0 && count != batch.len() {
                return Err("half a batch is there".to_owned());
            }
        }
        Ok(())
    }
}

/// Everything that a store does, in one life. Errors are part of it.
async fn script(store: &Store, ledger: &mut Ledger) {
    let batch =
        |series: u64, from: i64, value: f64| (from..from + 30).map(|i| point(series, i, value)).collect::<Vec<_>>();
    ledger.append(store, batch(1, 0, 1.0)).await;
    ledger.append(store, batch(2, 0, 2.0)).await;
    let _ = store.flush().await;
    ledger.append(store, vec![point(1, 5, 1.5)]).await;
    ledger.append(store, batch(3, 86_400, 3.0)).await;
    ledger.append(store, batch(4, 0, 3.5)).await;
    let _ = store.flush().await;
    ledger.delete(store, 2).await;
    ledger.append(store, vec![point(1, 5, 1.75), point(1, 999, 4.0)]).await;
    let _ = store.flush().await;
    let _ = store.compact().await;
    for series in 10..14 {
        // Enough for the log to begin new segments.
        ledger.append(store, batch(series, 0, 5.0)).await;
    }
    ledger.retain(store, Timestamp::from_secs(START - 1)).await;
    let _ = store.flush().await;
    let _ = store.checkpoint().await;
    let _ = store.vacuum().await;
    ledger.append(store, vec![point(1, 1000, 6.0)]).await;
    let _ = store.close().await;
}

const SERIES: [u64; 8] = [1, 2, 3, 4, 10, 11, 12, 13];

/// Opens, runs the script, and gives what must be true. An error at opening is no promise.
async fn live(world: &World, ledger: &mut Ledger) {
    if let Ok(store) = world.open().await {
        script(&store, ledger).await;
    }
}

/// The store opens, is sound, has what the ledger says, and works.
async fn judge(world: &World, ledger: &Ledger, what: &str) {
    let store = match world.open().await {
        Ok(store) => store,
        Err(error) => panic!("{what}: {error}, {:?}", std::error::Error::source(&error).map(|e| e.to_string())),
    };
    let found = everything(&store, &SERIES).await.expect(what);
    ledger.check(&found, what);
    let report = store.verify().await.expect(what);
    assert!(report.is_sound(), "{what}: {:?}", report.problems);
    store.append(vec![point(99, 0, 1.0)]).await.expect(what);
    store.close().await.expect(what);
    // Nothing may be in copies alone.
    world.forget_copies();
    let store = world.open().await.expect(what);
    assert_eq!(everything(&store, &SERIES).await.expect(what), found, "{what}: another opening changes nothing");
    assert_eq!(everything(&store, &[99]).await.expect(what).len(), 1, "{what}");
    store.close().await.expect(what);
}

async fn operations_of_the_script() -> u64 {
    let world = World::new();
    let mut ledger = Ledger::default();
    live(&world, &mut ledger).await;
    assert!(ledger.open_batches.is_empty());
    let operations = world.disk.operations();
    judge(&world, &ledger, "nothing broken").await;
    assert!(operations > 150, "{operations}");
    operations
}

#[tokio::test]
async fn the_process_is_killed_at_every_operation() {
    for operation in 0..operations_of_the_script().await {
        let world = World::new();
        let mut ledger = Ledger::default();
        world.disk.set_fault(Fault::Stop { operation });
        live(&world, &mut ledger).await;
        world.disk.restart(Restart::Killed);
        judge(&world, &ledger, &format!("killed at operation {operation}")).await;
    }
}

#[tokio::test]
async fn the_power_goes_at_every_operation() {
    for operation in 0..operations_of_the_script().await {
        for seed in 0..4 {
            let world = World::new();
            let mut ledger = Ledger::default();
            world.disk.set_fault(Fault::Stop { operation });
            live(&world, &mut ledger).await;
            world.disk.restart(Restart::PowerCut { seed: operation * 1000 + seed });
            judge(&world, &ledger, &format!("power cut at operation {operation}, seed {seed}")).await;
        }
    }
}

#[tokio::test]
async fn every_operation_fails_once_and_the_power_goes_later() {
    for operation in 0..operations_of_the_script().await {
        for (applied, kind) in [
            (false, std::io::ErrorKind::Other),
            (true, std::io::ErrorKind::Other),
            (false, std::io::ErrorKind::StorageFull),
        ] {
            let world = World::new();
            let mut ledger = Ledger::default();
            world.disk.set_fault(Fault::FailOnce { operation, kind, applied });
            live(&world, &mut ledger).await;
            let what = format!("operation {operation} failed once with {kind}, applied: {applied}");
            // The same machine goes on; then its power goes.
            let copy_of_ledger = &ledger;
            world.disk.restart(Restart::Killed);
            if operation % 2 == 0 {
                judge(&world, copy_of_ledger, &what).await;
            }
            world.disk.restart(Restart::PowerCut { seed: operation });
            judge(&world, copy_of_ledger, &format!("{what}, and a power cut")).await;
        }
    }
}

#[tokio::test]
async fn recovery_itself_is_broken_at_every_operation() {
    let crashed = World::new();
    let mut ledger = Ledger::default();
    let store = crashed.open().await.expect("opens");
    for series in [1, 2, 3, 10] {
        ledger.append(&store, (0..30).map(|i| point(series, i, 1.0)).collect()).await;
    }
    store.flush().await.expect("flushed");
    ledger.delete(&store, 2).await;
    for series in [4, 11, 12, 13] {
        ledger.append(&store, (0..30).map(|i| point(series, i, 1.0)).collect()).await;
    }
    drop(store);
    crashed.disk.restart(Restart::PowerCut { seed: 1 });
    let whole = crashed.copy();
    whole.open().await.expect("opens");
    for operation in 0..whole.disk.operations() {
        for seed in 0..4 {
            let world = crashed.copy();
            world.disk.set_fault(Fault::Stop { operation });
            drop(world.open().await);
            world.disk.restart(if seed == 0 { Restart::Killed } else { Restart::PowerCut { seed } });
            judge(&world, &ledger, &format!("recovery stopped at operation {operation}, seed {seed}")).await;
        }
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_until_it_is_opened_again() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    // An append asks for free bytes, writes, syncs.
    let at = world.disk.operations() + 2;
    world.disk.set_fault(Fault::FailOnce { operation: at, kind: std::io::ErrorKind::Other, applied: false });
    let error = store.append(vec![point(1, 1, 1.0)]).await.expect_err("the sync failed");
    assert!(
        matches!(error, StoreError::Closed { .. }) && error.is_retryable() && error.to_string().contains("sync"),
        "{error}"
    );
    assert!(matches!(store.append(vec![point(1, 2, 1.0)]).await, Err(StoreError::Closed { .. })));
    assert!(store.flush().await.is_err());
    assert!(store.closed_because().is_some());
    assert_eq!(everything(&store, &[1]).await.expect("reads go on").len(), 1);
    let _ = store.close().await;
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 3, 1.0)]).await.expect("stored");
    assert!(world.room.balance().is_conserved());
}
