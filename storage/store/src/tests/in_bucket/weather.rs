//! The line to the bucket breaks: requests are lost, answers are lost, puts arrive late, or nothing gets through for long.
//! Nothing is lost, nothing doubled, and the store goes on by itself.
//!
//! 60 lives by default; `ORZO_TEST_SEEDS=2000` for more, `ORZO_TEST_SEED=n` for that one alone.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{crash::Ledger, *};
use crate::{
    faults::{Restart, bucket::Weather},
    files::Planted,
};

const SEEDS: u64 = 60;
/// Lives in which a planted bug must be found.
const SEEDS_PLANTED: u64 = 2000;
const SERIES_MAX: u64 = 6;
/// Processes of one life.
const PROCESSES: usize = 4;
/// A process that cannot open is started again, so often in bad weather. Each may leave a commit that the next one reads, so
/// that in weather bad enough none would get through.
const OPENINGS_IN_BAD_WEATHER: usize = 20;
/// And so often once it is good: puts that are late may still come between.
const OPENINGS_MAX: usize = 40;

struct Life {
    chance: StdRng,
    world: World,
    ledger: Ledger,
    next_second: i64,
}

impl Life {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut world = World::new();
        world.disk.planted = planted;
        world.settings.checkpoint_commits = 3;
        world.settings.file_rows_max = 100;
        Self { chance: StdRng::seed_from_u64(seed), world, ledger: Ledger::default(), next_second: 0 }
    }

    fn weather(&mut self) {
        let mut some = || self.chance.random_range(0..80);
        let weather = Weather { lost: some(), unanswered: some(), late: some(), ..Weather::default() };
        self.world.bucket.set_weather(weather, self.chance.random());
    }

    async fn opened(&mut self) -> Result<Arc<Store>, String> {
        let mut last = String::new();
        for tries in 0..OPENINGS_MAX {
            if tries == OPENINGS_IN_BAD_WEATHER {
                self.world.bucket.set_weather(Weather::default(), 0);
            }
            match self.world.open().await {
                Ok(store) => return Ok(store),
                Err(error @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => return Err(error.to_string()),
                Err(error) => last = error.to_string(),
            }
            // Whoever starts it again is a new process.
            self.world.disk.restart(Restart::Killed);
        }
        Err(format!("it does not open any more: {last}"))
    }

    async fn process(&mut self) -> Result<(), String> {
        self.weather();
        let store = self.opened().await?;
        for _ in 0..self.chance.random_range(3..20) {
            let series = self.chance.random_range(1..=SERIES_MAX);
            match self.chance.random_range(0..12) {
                0..5 => {
                    let (start, count) = (self.next_second, self.chance.random_range(1..20));
                    self.next_second += count;
                    let day = self.chance.random_range(0..2) * 86_400;
                    let points = (start..start + count).map(|n| point(series, day + n, n as f64)).collect();
                    self.ledger.append(&store, points).await;
                }
                5 => self.ledger.delete(&store, series).await,
                6 | 7 => drop(store.flush().await),
                8 => drop(store.compact().await),
                9 => drop(store.apply_deletions().await),
                10 => drop(store.checkpoint().await),
                _ => drop(store.vacuum().await),
            }
            self.world.clock.advance(Duration::from_secs(self.chance.random_range(0..40_000)));
            if store.stats().quarantined > 0 {
                return Err("a file was set aside for the weather".to_owned());
            }
        }
        if self.chance.random_bool(0.5) {
            let _ = store.close().await;
        }
        drop(store);
        self.world.disk.restart(match self.chance.random_bool(0.5) {
            true => Restart::PowerCut { seed: self.chance.random() },
            false => Restart::Killed,
        });
        if self.chance.random_bool(0.5) {
            self.world.forget_copies();
        }
        Ok(())
    }

    async fn run(mut self) -> Result<(), String> {
        for _ in 0..PROCESSES {
            self.process().await?;
        }
        self.world.bucket.set_weather(Weather::default(), 0);
        let store = self.opened().await?;
        let told = |error: StoreError| error.to_string();
        let found = everything(&store, &Vec::from_iter(1..=SERIES_MAX)).await.map_err(told)?;
        self.ledger.judge(&found)?;
        let report = store.verify().await.map_err(told)?;
        report.problems.first().map_or(Ok(()), |problem| Err(problem.clone()))
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn a_broken_line_loses_and_doubles_nothing() {
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
async fn planted_bugs_of_the_line_are_found() {
    for bug in [Planted::UnansweredIsNotMade, Planted::UnansweredIsDone, Planted::NotClaimed] {
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
async fn while_the_bucket_is_away_appends_go_on_as_long_as_there_is_room_and_then_it_resumes() {
    let mut world = World::new();
    world.settings.head_bytes_max = 4000;
    world.settings.append_wait = Duration::from_millis(1);
    // Room for one file: the first gives way to the second.
    world.cache_bytes_max = 1;
    let store = world.open().await.expect("opens");
    for series in [1, 2] {
        store.append((0..50).map(|n| point(series, n, 1.5)).collect()).await.expect("stored");
        store.flush().await.expect("flushed");
    }
    world.bucket.set_weather(Weather { is_down: true, ..Weather::default() }, 0);
    let mut stored = 0;
    let refused = loop {
        match store.append((0..20).map(|n| point(3, stored + n, 1.0)).collect()).await {
            Ok(_) => stored += 20,
            Err(error) => break error,
        }
        assert!(stored < 100_000, "memory is not without end");
    };
    assert!(matches!(refused, StoreError::Busy { .. }) && refused.is_retryable(), "{refused}");
    assert!(stored > 100, "{stored}");
    assert!(store.flush().await.is_err() && store.compact().await.is_ok());
    assert_eq!(everything(&store, &[3]).await.expect("from memory").len(), stored as usize);
    assert_eq!(everything(&store, &[2]).await.expect("from the copy").len(), 50);
    let away = everything(&store, &[1]).await.expect_err("its copy went");
    assert!(away.is_retryable() && matches!(away, StoreError::Io { .. }), "{away}");
    assert_eq!((store.closed_because(), store.stats().quarantined), (None, 0));
    let failures = store.stats().upkeep_failures;
    wait_for(|| {
        world.clock.advance(Duration::from_secs(5));
        store.stats().upkeep_failures > failures + 1
    })
    .await;

    world.bucket.set_weather(Weather::default(), 0);
    wait_for(|| {
        world.clock.advance(Duration::from_secs(60));
        store.stats().head_points == 0
    })
    .await;
    store.append(vec![point(3, stored, 1.0)]).await.expect("takes more");
    assert_eq!(everything(&store, &[1, 2, 3]).await.expect("read").len(), 101 + stored as usize);
    store.close().await.expect("closed");
    world.forget_copies();
    let store = world.open().await.expect("opens");
    assert_eq!(
        (everything(&store, &[1, 2, 3]).await.expect("read").len(), store.stats().rows),
        (101 + stored as usize, 101 + stored as u64)
    );
    assert!(world.room.balance().is_conserved());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_tried_again_with_the_same_bytes() {
    for seed in 0..20 {
        let world = World::new();
        let store = world.open().await.expect("opens");
        store.append((0..50).map(|n| point(1, n, 1.5)).collect()).await.expect("stored");
        // Two of three requests fail; the flush goes on until one of each kind did not.
        world.bucket.set_weather(Weather { lost: 200, unanswered: 200, late: 200, ..Weather::default() }, seed);
        let mut failed = 0;
        while store.flush().await.is_err() {
            failed += 1;
            assert!(store.closed_because().is_none() && failed < 1000, "seed {seed}: {:?}", store.closed_because());
        }
        world.bucket.set_weather(Weather::default(), 0);
        assert_eq!((store.stats().rows, store.stats().files), (50, 1), "seed {seed}");
        assert!(store.verify().await.expect("read").is_sound(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_store_that_waits_for_its_bucket_can_be_closed() {
    let world = World::new();
    let store = world.open().await.expect("opens");
    store.append(vec![point(1, 0, 1.0)]).await.expect("stored");
    world.bucket.set_weather(Weather { is_down: true, ..Weather::default() }, 0);
    assert!(store.close().await.is_err(), "it says that the points are in the log only");
    drop(store);
    world.bucket.set_weather(Weather::default(), 0);
    world.disk.restart(Restart::Killed);
    let store = world.open().await.expect("opens");
    assert_eq!(everything(&store, &[1]).await.expect("read").len(), 1);
}
