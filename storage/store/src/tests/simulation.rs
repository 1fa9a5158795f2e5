//! Seeded lives of a store: appends from several callers, deletions, flushes, merges, with errors, torn, lost and reordered
//! writes, kills and power cuts at random moments, recovery included. After each crash the ledger is held against what
//! is there. The same seed is the same schedule, but for which callers share a group.
//!
//! 200 lives by default; `ORZO_TEST_SEEDS=2000` for more, `ORZO_TEST_SEED=n` for that one alone. Bugs are planted to show
//! that these lives would find them.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{crash::Ledger, *};
use crate::{
    faults::{Fault, Restart},
    files::Planted,
};

const SEEDS: u64 = 200;
/// Lives in which a planted bug must be found. One of them shows only if a sync fails and the power goes before the next
/// one, and which callers share a group is not the seed's to say: 200 missed it once under load.
const SEEDS_PLANTED: u64 = 5000;
/// Crashes of one life.
const CRASHES: usize = 4;
const SERIES_MAX: u64 = 12;

/// A schedule and what it knows.
struct Life {
    chance: StdRng,
    world: World,
    ledger: Ledger,
    /// Each point has a key of its own, as polled samples have, so that rows can be counted too.
    next_second: i64,
    /// Whether values are replaced and series deleted; without that, rows in files are as many as keys.
    replaces: bool,
}

impl Life {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        world.disk.planted = planted;
        world.settings.file_rows_max = chance.random_range(20..300);
        world.settings.checkpoint_commits = 3;
        let replaces = chance.random_bool(0.5);
        Self { chance, world, ledger: Ledger::default(), next_second: 0, replaces }
    }

    fn points(&mut self) -> Vec<Point> {
        let series = self.chance.random_range(1..=SERIES_MAX);
        let count = self.chance.random_range(1..40);
        let start = self.next_second;
        self.next_second += count;
        // Some come late: the second of a day before.
        let day = self.chance.random_range(0..3) * 86_400;
        let mut points: Vec<Point> =
            (start..start + count).map(|second| point(series, day + second, (second % 50) as f64 / 10.0)).collect();
        if self.chance.random_bool(0.3) {
            points.reverse();
        }
        points
    }

    /// Lives until a crash or the end of a short script.
    async fn live(&mut self, fault_at: u64) -> Result<(), StoreError> {
        let store = self.world.open().await?;
        let mut earlier: Vec<Point> = Vec::new();
        for _ in 0..self.chance.random_range(3..25) {
            match self.chance.random_range(0..20) {
                0..9 => {
                    // Several callers at once share a group.
                    let batches: Vec<_> = (0..self.chance.random_range(1..4)).map(|_| self.points()).collect();
                    let appends = batches.iter().map(|points| {
                        let (store, points) = (store.clone(), points.clone());
                        tokio::spawn(async move { store.append(points).await.is_ok() })
                    });
                    let appends: Vec<_> = appends.collect();
                    for (append, points) in appends.into_iter().zip(batches) {
                        earlier.extend(points.first());
                        self.ledger.note(points, append.await.expect("no panic"));
                    }
                }
                9..11 if self.replaces && !earlier.is_empty() => {
                    let mut again = earlier[self.chance.random_range(0..earlier.len())];
                    again.value += 1000.0;
                    self.ledger.append(&store, vec![again]).await;
                }
                11 if self.replaces => {
                    let series = self.chance.random_range(1..=SERIES_MAX);
                    self.ledger.delete(&store, series).await;
                    earlier.retain(|point| point.series.0 != series);
                }
                12..15 => drop(store.flush().await),
                15 | 16 => drop(store.compact().await),
                17 => drop(store.apply_deletions().await),
                18 => drop(store.checkpoint().await),
                _ => drop(store.vacuum().await),
            }
            self.world.clock.advance(Duration::from_secs(self.chance.random_range(0..40_000)));
            // Often the power goes soon after the first sign of trouble.
            if self.world.disk.operations() > fault_at && self.chance.random_bool(0.4) {
                return Ok(());
            }
        }
        if self.chance.random_bool(0.3) {
            let _ = store.close().await;
        }
        Ok(())
    }

    /// What is wrong after the machine came back.
    async fn judge(&mut self) -> Result<(), String> {
        let told = |error: StoreError| {
            format!("{error}, {:?}", std::error::Error::source(&error).map(|cause| cause.to_string()))
        };
        let store = self.world.open().await.map_err(told)?;
        let series = Vec::from_iter(1..=SERIES_MAX);
        let found = everything(&store, &series).await.map_err(told)?;
        self.ledger.judge(&found)?;
        if !self.replaces && store.stats().rows != found.len() as u64 {
            return Err(format!("{} rows in files for {} keys", store.stats().rows, found.len()));
        }
        let newest: BTreeMap<u64, i64> = found.iter().map(|(series, micros, _)| (*series, *micros)).collect();
        for series in series {
            let last = store.last(SeriesId(series)).await.map_err(told)?.map(|last| last.timestamp.micros());
            if last != newest.get(&series).copied() {
                return Err(format!("the last point of {series} is {last:?}, not {:?}", newest.get(&series)));
            }
        }
        let report = store.verify().await.map_err(told)?;
        match report.problems.first() {
            Some(problem) => Err(problem.clone()),
            None => store.close().await.map_err(told),
        }
    }

    async fn run(mut self) -> Result<(), String> {
        for _ in 0..CRASHES {
            // A life of this many operations, give or take; some crash in recovery, some not at all.
            let at = self.world.disk.operations() + self.chance.random_range(0..250);
            let kind = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull][self.chance.random_range(0..2)];
            self.world.disk.set_fault(match self.chance.random_range(0..3) {
                0 => Fault::FailOnce { operation: at, kind, applied: self.chance.random_bool(0.3) },
                _ => Fault::Stop { operation: at },
            });
            // An error at opening is no promise.
            let _ = self.live(at).await;
            let restart = match self.chance.random_bool(0.7) {
                true => Restart::PowerCut { seed: self.chance.random() },
                false => Restart::Killed,
            };
            self.world.disk.restart(restart);
            self.judge().await?;
        }
        if self.world.room.balance().is_conserved() { Ok(()) } else { Err("the room does not add up".to_owned()) }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn no_seed_loses_doubles_or_invents_a_point() {
    let seeds = match number("ORZO_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ORZO_TEST_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(problem) = Life::new(seed, None).run().await {
            panic!("ORZO_TEST_SEED={seed}: {problem}");
        }
    }
}

#[tokio::test]
async fn planted_bugs_are_found() {
    let planted = [
        Planted::SyncSkipped,
        Planted::DirectorySyncSkipped,
        Planted::AcknowledgedBeforeWritten,
        Planted::ReplayedTwice,
        Planted::FailedSyncRetried,
        Planted::NotDeduplicated,
    ];
    for bug in planted {
        let mut found = None;
        for seed in 0..SEEDS_PLANTED {
            if let Err(problem) = Life::new(seed, Some(bug)).run().await {
                found = Some((seed, problem));
                break;
            }
        }
        let (seed, problem) = found.unwrap_or_else(|| panic!("{bug:?} was not found by {SEEDS_PLANTED} seeds"));
        eprintln!("{bug:?} found by seed {seed}: {problem}");
    }
}
