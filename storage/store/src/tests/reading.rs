//! What a read costs, in bytes and calls of the disk: it follows the answer, not the history.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;

use super::*;
use crate::{
    Reduce, Reduced,
    files::{Disk, DiskFile, Entry, LockGuard},
};

/// A disk that counts what is read from it.
#[derive(Clone)]
struct CountingDisk {
    disk: SimulatedDisk,
    read: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    bytes: AtomicU64,
}

struct CountingFile(Arc<dyn DiskFile>, Arc<Counts>);

impl CountingDisk {
    fn new() -> Self {
        Self { disk: SimulatedDisk::default(), read: Arc::default() }
    }

    fn counted(&self) -> (u64, u64) {
        (self.read.calls.swap(0, Ordering::Relaxed), self.read.bytes.swap(0, Ordering::Relaxed))
    }

    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountingFile(file?, self.read.clone())))
    }
}

impl Disk for CountingDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.make_directory(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(directory)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.disk.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.disk.open(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.replace(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.disk.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

impl DiskFile for CountingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.1.calls.fetch_add(1, Ordering::Relaxed);
        self.1.bytes.fetch_add(length as u64, Ordering::Relaxed);
        self.0.read_at(offset, length)
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.0.preallocate(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

const SERIES: u64 = 40;
/// A point every five minutes.
const STEP: i64 = 300;
const DAY: i64 = 86_400;

async fn opened(world: &World, disk: &CountingDisk) -> Arc<Store> {
    let settings = StoreSettings { file_rows_max: 10_000_000, wal_segment_bytes: 64 << 20, ..world.settings.clone() };
    Store::open_on(Arc::new(disk.clone()), settings, world.room.clone(), world.clock.clone()).await.unwrap()
}

/// A store with this many days in merged files.
async fn with_days(days: i64) -> (World, CountingDisk, Arc<Store>) {
    let world = World::new();
    let disk = CountingDisk::new();
    world.clock.advance(Duration::from_secs(40 * DAY as u64));
    let store = opened(&world, &disk).await;
    // The same last day in both: the read is of its last hour.
    for day in 31 - days..31 {
        for half in 0..2 {
            let points = (1..=SERIES).flat_map(|series| {
                let seconds = (0..DAY / 2).step_by(STEP as usize);
                seconds.map(move |second| {
                    let second = day * DAY + half * DAY / 2 + second;
                    point(series, second, (second * series as i64 % 977) as f64 / 10.0)
                })
            });
            store.append(points.collect()).await.unwrap();
            store.flush().await.unwrap();
        }
    }
    store.compact().await.unwrap();
    (world, disk, store)
}

/// Found by the model: a brief read of what is in memory opened a file that had just been merged and removed, and failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_merged_and_removed_meanwhile_are_no_error_of_brief_reads() {
    let world = World::new();
    let store = world.open().await.unwrap();
    store.append(vec![point(1, 0, 0.0)]).await.unwrap();
    store.flush().await.unwrap();
    let merging = tokio::spawn({
        let store = store.clone();
        async move {
            for second in 1..2000 {
                store.append(vec![point(1, second, 0.0)]).await.unwrap();
                store.flush().await.unwrap();
                if second % 3 == 0 {
                    store.compact().await.unwrap();
                    store.vacuum().await.unwrap();
                }
            }
        }
    });
    let (mut reads, mut most) = (0, 0);
    while !merging.is_finished() {
        let found = store.scan(&[SeriesId(1)], Timestamp::MIN, Timestamp::MAX).await.expect("read");
        assert!(found[0].1.len() >= most, "what was there is there");
        (reads, most) = (reads + 1, found[0].1.len());
        tokio::task::yield_now().await;
    }
    merging.await.unwrap();
    assert!(reads > 100, "only {reads} reads meanwhile");
}

#[tokio::test]
async fn after_a_start_the_last_points_of_many_series_cost_little_more_reads_than_that_of_one() {
    let (world, disk, store) = with_days(2).await;
    store.close().await.unwrap();
    let store = opened(&world, &disk).await;
    disk.counted();
    store.last(SeriesId(1)).await.unwrap();
    let (one, _) = disk.counted();
    // One that is not there, one twice, in no order.
    let mut all: Vec<_> = (1..=SERIES + 1).map(SeriesId).rev().collect();
    all.push(SeriesId(5));
    let found = store.last_of(&all).await.unwrap();
    let (many, _) = disk.counted();
    assert!(one > 0 && many <= 2 * one, "{many} reads, {one} for one");
    for (series, last) in all.iter().zip(&found) {
        let newest = point(0, 31 * DAY - STEP, 0.0).timestamp;
        assert_eq!(last.map(|last| last.timestamp), (series.0 <= SERIES).then_some(newest), "{series:?}");
        assert_eq!(*last, store.last(*series).await.unwrap());
    }
    // Those that were found are known now.
    disk.counted();
    store.last_of(&all[1..]).await.unwrap();
    assert_eq!(disk.counted(), (0, 0));
}

#[tokio::test]
async fn the_last_hour_of_a_series_costs_the_same_with_thirty_times_the_history() {
    let mut costs = Vec::new();
    for days in [1, 30] {
        let (_, disk, store) = with_days(days).await;
        let (from, to) = (point(0, 31 * DAY - 3600, 0.0).timestamp, Timestamp::MAX);
        disk.counted();
        let found = store.scan(&[SeriesId(17)], from, to).await.unwrap();
        assert_eq!(found[0].1.len(), 12);
        let cold = disk.counted();
        store.scan(&[SeriesId(18)], from, to).await.unwrap();
        let warm = disk.counted();
        assert!(warm.0 <= 2, "a page of times and a page of values: {warm:?}");
        costs.push((cold, warm));
    }
    let [small, large] = costs[..] else { panic!("two") };
    assert_eq!(small.0.0, large.0.0, "reads of the first question: {costs:?}");
    assert_eq!(small.1.0, large.1.0, "reads of the next one: {costs:?}");
    // Sizes differ by a few bytes of packing.
    assert!(large.0.1 <= small.0.1 + small.0.1 / 10 && large.1.1 <= small.1.1 + small.1.1 / 10, "{costs:?}");
}

#[tokio::test]
async fn the_last_point_of_a_live_series_reads_no_file() {
    let (_, disk, store) = with_days(2).await;
    disk.counted();
    let all: Vec<_> = (1..=SERIES).map(SeriesId).collect();
    for last in store.last_of(&all).await.unwrap() {
        assert_eq!(last.unwrap().timestamp, point(0, 31 * DAY - STEP, 0.0).timestamp);
    }
    let before = point(0, 32 * DAY, 0.0).timestamp;
    assert!(store.last_before(SeriesId(5), before).await.unwrap().is_some());
    assert_eq!(disk.counted(), (0, 0));
    // A late point does not become the last one; a new one does.
    store.append(vec![point(5, 0, 1.0), point(6, 31 * DAY, 2.0)]).await.unwrap();
    store.flush().await.unwrap();
    disk.counted();
    assert_eq!(store.last(SeriesId(5)).await.unwrap().unwrap().timestamp, point(0, 31 * DAY - STEP, 0.0).timestamp);
    assert_eq!(store.last(SeriesId(6)).await.unwrap().map(|last| last.value), Some(2.0));
    store.delete_series(&[SeriesId(6)]).await.unwrap();
    assert_eq!(store.last(SeriesId(6)).await.unwrap(), None);
}

#[tokio::test]
async fn several_threads_read_what_one_reads() {
    let mut world = World::new();
    world.settings.wal_segment_bytes = 1 << 16;
    let store = world.open().await.expect("a store");
    let series: Vec<u64> = (0..40).map(|number| number * 3).collect();
    let points = |from: i64, value: f64| -> Vec<Point> {
        series.iter().flat_map(|series| (from..from + 20).map(|at| point(*series, at, value + at as f64))).collect()
    };
    store.append(points(0, 0.5)).await.expect("durable");
    store.flush().await.expect("in a file");
    store.append(points(10, 100.5)).await.expect("durable");
    store.flush().await.expect("in a file");
    store.append(points(25, 200.5)).await.expect("durable");
    let mut expected = std::collections::BTreeMap::new();
    for point in [points(0, 0.5), points(10, 100.5), points(25, 200.5)].concat() {
        expected.insert((point.series.0, point.timestamp.micros()), point.value.to_bits());
    }
    let expected: Vec<_> = expected.into_iter().map(|((series, at), value)| (series, at, value)).collect();
    // The first read learns where things are, the second one knows how many there will be.
    for _ in 0..2 {
        assert_eq!(everything(&store, &series).await.expect("all"), expected);
        assert_eq!(everything(&store, &series[..1]).await.expect("one"), expected[..45]);
    }
}

#[tokio::test]
async fn what_is_reduced_while_it_is_read_is_what_is_read() {
    let mut world = World::new();
    world.settings.wal_segment_bytes = 1 << 16;
    world.settings.scan_points_max = 700;
    let store = world.open().await.expect("a store");
    let series: Vec<SeriesId> = (0..30).map(|number| SeriesId(number * 3)).collect();
    // More files than are kept open, the same times again in some, and points in the head.
    for (round, from) in [0, 100, 10, 200, 150].into_iter().enumerate() {
        let mut points = Vec::new();
        for one in &series {
            points.extend((from..from + 6).map(|at| point(one.0, at, (round * 1000) as f64 + at as f64)));
        }
        store.append(points).await.expect("durable");
        if round < 4 {
            store.flush().await.expect("in a file");
        }
    }
    let all = (Timestamp::MIN, Timestamp::MAX);
    assert!(store.scan_columns(&series, all.0, all.1).await.is_err(), "more than one answer may have");
    let mut expected = Vec::new();
    for one in &series {
        let found = store.scan_columns(&[*one], all.0, all.1).await.expect("a series");
        expected.extend(found.into_iter().map(|(series, columns)| {
            let (points, bits) = (columns.times.len(), |time: &i64| f64::from_bits(*time as u64));
            Reduced { series, points, values: columns.times.iter().map(bits).chain(columns.values.clone()).collect() }
        }));
    }
    let whole: Arc<Reduce> = Arc::new(|| {
        let bits = |time: &i64| f64::from_bits(*time as u64);
        Box::new(move |columns| Some(columns.times.iter().map(bits).chain(columns.values.clone()).collect()))
    });
    // The first read learns where things are, the second one knows how many there will be.
    for _ in 0..2 {
        let reduced = store.scan_reduced(&series, all, 1000, 0, whole.clone()).await.expect("reduced");
        assert_eq!(reduced, expected);
    }
    let error = store.scan_reduced(&series, all, 800, 0, whole.clone()).await.expect_err("too many");
    assert!(matches!(error, StoreError::TooManyPoints { points_max: 800 }), "{error}");
    // What is brief and in memory is read here, and gives the same.
    let here = std::thread::current().id();
    let threads: Arc<Reduce> =
        Arc::new(move || Box::new(move |_| Some(vec![f64::from(u8::from(std::thread::current().id() == here))])));
    for (brief, is_here) in [(1000, 1.0), (100, 0.0)] {
        let reduced = store.scan_reduced(&series, all, 1000, brief, threads.clone()).await.expect("reduced");
        assert!(reduced.iter().all(|one| one.values == [is_here]), "{brief}");
    }
    let reduced = store.scan_reduced(&series, all, 1000, 1000, whole).await.expect("reduced");
    assert_eq!(reduced, expected);
    let asked = Arc::new(AtomicUsize::new(0));
    let some: Arc<Reduce> = Arc::new({
        let asked = asked.clone();
        move || {
            let asked = asked.clone();
            Box::new(move |_| (asked.fetch_add(1, Ordering::Relaxed) < 5).then(Vec::new))
        }
    });
    let error = store.scan_reduced(&series, all, 1000, 0, some).await.expect_err("stopped");
    assert!(matches!(error, StoreError::Stopped), "{error}");
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    assert!(asked.load(Ordering::Relaxed) <= 5 + cores, "nobody goes on");
}
