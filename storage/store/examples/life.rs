//! A store's life for tests that break the machine below it: `tests/crash` kills it, cuts its power and fails its calls.
//!
//! `life live DIRECTORY SOCKET [--seed N] [--steps N] [--plant early-ack]` appends, deletes, flushes, merges and tidies at
//! random, and tells a datagram socket what it tries and what was acknowledged, so that the journal is outside of what
//! breaks. `life judge DIRECTORY JOURNAL` opens what is left, holds it against that journal, writes everything to files,
//! and prints what it found as JSON. It exits with 1 if something is lost, doubled, invented or wrong.
//!
//! Journal, a line each: `try BATCH SERIES SECOND COUNT`, `ok BATCH`, `delete SERIES`, `deleted SERIES`. Each second is
//! used once, so that a point is named by its second, and its value follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use orzo_model::{Point, Rooms, SeriesId, SystemClock, Timestamp};
use orzo_store::{Store, StoreError, StoreSettings};
use rand::{Rng, SeedableRng, rngs::StdRng};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Series that are used at a time; a deleted one is never used again.
const SERIES: u64 = 10;
/// Days over which points are spread.
const DAYS: i64 = 3;
const DAY: i64 = 86_400;
/// 2026-01-01.
const START: i64 = 1_767_225_600;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().skip_while(|own| *own != name).nth(1).cloned();
    let (Some(what), Some(directory), Some(journal)) = (arguments.first(), arguments.get(1), arguments.get(2)) else {
        return Err("life live DIRECTORY SOCKET | life judge DIRECTORY JOURNAL".into());
    };
    // Without the driver of sockets, which has writes of its own that are no disk's.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_time().build()?;
    let directory = PathBuf::from(directory);
    if what == "judge" {
        return runtime.block_on(judge(directory, &std::fs::read_to_string(journal)?));
    }
    let number = |name| option(name).map(|text| text.parse::<u64>()).transpose();
    let life = Life {
        chance: StdRng::seed_from_u64(number("--seed")?.unwrap_or(1)),
        journal: UnixDatagram::unbound()?,
        acknowledges_early: option("--plant").as_deref() == Some("early-ack"),
        next: number("--from")?.unwrap_or(0),
    };
    life.journal.connect(journal)?;
    runtime.block_on(life.live(directory, number("--steps")?.unwrap_or(u64::MAX)))
}

/// Everything small, so that segments, files and checkpoints end all the time.
fn settings(directory: PathBuf) -> StoreSettings {
    StoreSettings {
        directory,
        head_bytes_max: 64 << 10,
        flush_after: Duration::from_secs(1),
        wal_segment_bytes: 8192,
        file_rows_max: 2000,
        compact_files_min: 3,
        checkpoint_commits: 3,
        disk_reserve_bytes: 1 << 20,
        removed_grace: Duration::ZERO,
        ..StoreSettings::default()
    }
}

async fn open(directory: PathBuf) -> Result<Arc<Store>, StoreError> {
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    Store::open(settings(directory), room, SystemClock::shared()).await
}

/// The point of this second.
fn point(series: u64, second: u64) -> Point {
    let day = (second % DAYS as u64) as i64 * DAY;
    // Not round, so that a wrong byte shows.
    let value = second as f64 * 1.1;
    Point {
        series: SeriesId(series),
        timestamp: Timestamp::from_secs(START + day + (second / DAYS as u64) as i64),
        value,
    }
}

struct Life {
    chance: StdRng,
    journal: UnixDatagram,
    acknowledges_early: bool,
    /// The next second, batch or series that was never used, of a life that may have had earlier parts.
    next: u64,
}

impl Life {
    fn tell(&self, line: &str) -> Outcome<()> {
        self.journal.send(line.as_bytes())?;
        Ok(())
    }

    fn number(&mut self, count: u64) -> u64 {
        self.next += count;
        self.next - count
    }

    async fn live(mut self, directory: PathBuf, steps: u64) -> Outcome<()> {
        let mut store = open(directory.clone()).await?;
        let mut series: Vec<u64> = (0..SERIES).map(|_| self.number(1) + 1).collect();
        for _ in 0..steps {
            match self.chance.random_range(0..20) {
                0..12 => {
                    // Several callers share a group.
                    let mut batches = Vec::new();
                    for _ in 0..self.chance.random_range(1..4) {
                        let of = series[self.chance.random_range(0..series.len())];
                        let count = self.chance.random_range(1..60);
                        let (batch, second) = (self.number(1), self.number(count));
                        self.tell(&format!("try {batch} {of} {second} {count}"))?;
                        let points: Vec<_> = (second..second + count).map(|second| point(of, second)).collect();
                        if self.acknowledges_early {
                            self.tell(&format!("ok {batch}"))?;
                        }
                        let store = store.clone();
                        batches.push((batch, tokio::spawn(async move { store.append(points).await.is_ok() })));
                    }
                    for (batch, appended) in batches {
                        if appended.await? && !self.acknowledges_early {
                            self.tell(&format!("ok {batch}"))?;
                        }
                    }
                }
                12 => {
                    let place = self.chance.random_range(0..series.len());
                    let gone = std::mem::replace(&mut series[place], self.number(1) + 1);
                    self.tell(&format!("delete {gone}"))?;
                    if store.delete_series(&[SeriesId(gone)]).await.is_ok() {
                        self.tell(&format!("deleted {gone}"))?;
                    }
                }
                13..16 => drop(store.flush().await),
                16 => drop(store.compact().await),
                17 => drop(store.apply_deletions().await),
                18 => drop(store.checkpoint().await),
                _ => drop(store.vacuum().await),
            }
            if store.closed_because().is_some() {
                // As a server that is started again.
                let _ = store.close().await;
                drop(store);
                store = open(directory.clone()).await?;
            }
        }
        store.close().await?;
        Ok(())
    }
}

/// What the journal says of a point.
#[derive(Default)]
struct Promises {
    /// (series, microsecond) → value, and whether it was acknowledged.
    points: BTreeMap<(u64, i64), (u64, bool)>,
    /// Series whose deletion was tried → whether it was acknowledged.
    deletions: BTreeMap<u64, bool>,
}

impl Promises {
    fn of(journal: &str) -> Outcome<Self> {
        let acknowledged: BTreeSet<&str> = journal.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
        let mut promises = Self::default();
        for line in journal.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["try", batch, series, second, count] => {
                    let (series, second, count): (u64, u64, u64) = (series.parse()?, second.parse()?, count.parse()?);
                    for second in second..second + count {
                        let point = point(series, second);
                        let key = (series, point.timestamp.micros());
                        promises.points.insert(key, (point.value.to_bits(), acknowledged.contains(batch)));
                    }
                }
                ["delete", series] => drop(promises.deletions.insert(series.parse()?, false)),
                ["deleted", series] => drop(promises.deletions.insert(series.parse()?, true)),
                _ => {}
            }
        }
        Ok(promises)
    }
}

async fn judge(directory: PathBuf, journal: &str) -> Outcome<()> {
    let promises = Promises::of(journal)?;
    let store = open(directory).await?;
    let series: BTreeSet<u64> = promises.points.keys().map(|(series, _)| *series).collect();
    let series: Vec<SeriesId> = series.into_iter().map(SeriesId).collect();
    let mut found = BTreeMap::new();
    let (mut doubled, mut sum) = (0, 0.0);
    for (series, measures) in store.scan(&series, Timestamp::MIN, Timestamp::MAX).await? {
        for measure in measures {
            sum += measure.value;
            let key = (series.0, measure.timestamp.micros());
            doubled += usize::from(found.insert(key, measure.value.to_bits()).is_some());
        }
    }
    let (mut acknowledged, mut lost, mut wrong, mut recovered, mut undead) = (0, 0, 0, 0, 0);
    for (key, (value, is_acknowledged)) in &promises.points {
        let deletion = promises.deletions.get(&key.0);
        acknowledged += usize::from(*is_acknowledged);
        match found.get(key) {
            Some(_) if deletion == Some(&true) => undead += 1,
            Some(own) if own != value => wrong += 1,
            Some(_) => recovered += usize::from(!is_acknowledged),
            None => lost += usize::from(*is_acknowledged && deletion.is_none()),
        }
    }
    let phantom = found.keys().filter(|key| !promises.points.contains_key(key)).count();
    let problems = store.verify().await?.problems;
    // For other engines: everything in files, what was deleted gone from them.
    store.settle().await?;
    store.apply_deletions().await?;
    let rows = store.stats().rows;
    store.close().await?;
    // A key twice in files is a point that other engines count twice.
    doubled += (rows as usize).saturating_sub(found.len());
    let verdict = serde_json::json!({
        "acknowledged": acknowledged, "attempted": promises.points.len(), "recovered": recovered, "lost": lost,
        "doubled": doubled, "phantom": phantom, "wrong": wrong, "undead": undead, "problems": problems,
        "keys": found.len(), "rows": rows, "sum": sum,
    });
    println!("{verdict}");
    let is_clean = lost + doubled + phantom + wrong + undead == 0 && problems.is_empty();
    if is_clean { Ok(()) } else { Err("the store does not keep what it acknowledged".into()) }
}
