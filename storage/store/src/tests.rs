//! Behaviours of the whole store, on the simulated disk and on the real one.

mod backup;
mod behaviour;
mod crash;
mod damage;
mod expiry;
mod golden;
mod in_bucket;
mod model;
mod reading;
mod rollups;
mod simulation;

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{ObjectStore, ObjectStoreExt, path::Path as Name};

use orzo_model::{ManualClock, Measure, Point, Room, Rooms, SeriesId, Timestamp};

use crate::{
    Store, StoreError, StoreSettings,
    faults::{SimulatedDisk, bucket::SimulatedBucket},
    files::{
        Disk,
        bucket::Bucket,
        tiered::{TABLES, TierSettings, TieredDisk},
    },
};

/// 2026-01-01, the beginning of most tests.
const START: i64 = 1_767_225_600;

/// Where a world's tables are. Most tests are run with both.
trait Place: 'static {
    const IS_BUCKET: bool;
}

struct Here;
struct InBucket;

impl Place for Here {
    const IS_BUCKET: bool = false;
}

impl Place for InBucket {
    const IS_BUCKET: bool = true;
}

type World = WorldOf<Here>;

/// A store on a simulated disk, with a clock that stands still: upkeep runs only when asked for.
struct WorldOf<P> {
    disk: SimulatedDisk,
    bucket: SimulatedBucket,
    clock: Arc<ManualClock>,
    settings: StoreSettings,
    cache_bytes_max: u64,
    sweep_after: Duration,
    room: Room,
    _place: PhantomData<P>,
}

/// What all objects' names begin with.
const PREFIX: &str = "somewhere/orzo";

impl<P: Place> WorldOf<P> {
    fn new() -> Self {
        let disk = SimulatedDisk::default();
        let bucket = SimulatedBucket::new(&disk);
        Self::on(disk, bucket)
    }

    fn on(disk: SimulatedDisk, bucket: SimulatedBucket) -> Self {
        let settings = StoreSettings {
            directory: PathBuf::from("/store"),
            wal_segment_bytes: 4096,
            file_rows_max: 1000,
            compact_files_min: 3,
            disk_reserve_bytes: 1000,
            removed_grace: Duration::ZERO,
            ..StoreSettings::default()
        };
        let room = Rooms::new(&prometheus::Registry::new()).room("store");
        let clock = ManualClock::new(Timestamp::from_secs(START));
        let sweep_after = Duration::ZERO;
        Self { disk, bucket, clock, settings, cache_bytes_max: 1 << 20, sweep_after, room, _place: PhantomData }
    }

    /// The same disk and bucket, as they are now, of another machine that shares nothing.
    fn copy(&self) -> Self {
        let disk = self.disk.copy();
        let bucket = self.bucket.copy(&disk);
        Self::on(disk, bucket)
    }

    fn tier(&self) -> std::io::Result<TieredDisk> {
        let bucket = Bucket::new(Arc::new(self.bucket.booted()), PREFIX)?;
        let settings =
            TierSettings { cache_bytes_max: self.cache_bytes_max, free_bytes_min: 0, sweep_after: self.sweep_after };
        let local = Arc::new(self.disk.booted());
        TieredDisk::open(local, bucket, "s3://test", &self.settings.directory, settings, self.clock.clone())
    }

    async fn open(&self) -> Result<Arc<Store>, StoreError> {
        self.open_in(self.settings.clone(), self.room.clone()).await
    }

    async fn open_in(&self, settings: StoreSettings, room: Room) -> Result<Arc<Store>, StoreError> {
        let disk: Arc<dyn Disk> = match P::IS_BUCKET && settings.directory == self.settings.directory {
            false => Arc::new(self.disk.booted()),
            true => match self.tier() {
                Ok(tier) => Arc::new(tier),
                Err(source) => {
                    return Err(StoreError::Io { action: "list", path: settings.directory, source });
                }
            },
        };
        Store::open_on(disk, settings, room, self.clock.clone()).await
    }

    /// The name of a file that is in the bucket.
    fn name(&self, path: &Path) -> Option<Name> {
        let below = path.strip_prefix(&self.settings.directory).ok()?.to_str()?;
        let is_table = P::IS_BUCKET && TABLES.contains(&below.split('/').next()?);
        is_table.then(|| Name::from(format!("{PREFIX}/{below}")))
    }

    /// Every file where it has its home, and its contents.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = self.disk.files();
        files.retain(|(path, _)| self.name(path).is_none());
        for (name, bytes) in self.objects() {
            let below = name.as_ref().strip_prefix(PREFIX).expect("nothing else is there").trim_start_matches('/');
            files.push((self.settings.directory.join(below), bytes));
        }
        files.sort();
        files
    }

    fn objects(&self) -> Vec<(Name, Vec<u8>)> {
        use futures::{TryStreamExt, executor::block_on};
        let objects = self.bucket.objects();
        let all: Vec<_> = block_on(objects.list(None).try_collect()).expect("in memory");
        let whole = |name: Name| {
            let bytes = block_on(async { objects.get(&name).await?.bytes().await }).expect("in memory");
            (name, bytes.to_vec())
        };
        all.into_iter().map(|object| whole(object.location)).collect()
    }

    /// Replaces a file behind the store's back, where it has its home; a copy of it is gone.
    fn put(&self, path: &Path, contents: Vec<u8>) {
        match self.name(path) {
            None => self.disk.put(path, contents),
            Some(name) => {
                self.disk.take_away(path);
                let put = async { self.bucket.objects().put(&name, contents.into()).await };
                futures::executor::block_on(put).expect("in memory");
            }
        }
    }

    /// Removes a file behind the store's back, and a copy of it.
    fn take_away(&self, path: &Path) {
        self.disk.take_away(path);
        if let Some(name) = self.name(path) {
            let deleted = async { self.bucket.objects().delete(&name).await };
            futures::executor::block_on(deleted).expect("in memory");
        }
    }

    /// Removes what is only a copy: the log, its lock and the bucket are left.
    fn forget_copies(&self) {
        if P::IS_BUCKET {
            for (path, _) in self.disk.files() {
                if self.name(&path).is_some() {
                    self.disk.take_away(&path);
                }
            }
        }
    }
}

fn point(series: u64, second: i64, value: f64) -> Point {
    Point { series: SeriesId(series), timestamp: Timestamp::from_secs(START + second), value }
}

/// Everything of these series, with values as bits so that NaN can be compared.
async fn everything(store: &Store, series: &[u64]) -> Result<Vec<(u64, i64, u64)>, StoreError> {
    let series: Vec<_> = series.iter().map(|series| SeriesId(*series)).collect();
    let found = store.scan(&series, Timestamp::MIN, Timestamp::MAX).await?;
    let row = |series: SeriesId, measure: Measure| (series.0, measure.timestamp.micros(), measure.value.to_bits());
    Ok(found.into_iter().flat_map(|(series, measures)| measures.into_iter().map(move |m| row(series, m))).collect())
}

fn rows(points: &[Point]) -> Vec<(u64, i64, u64)> {
    points.iter().map(|point| (point.series.0, point.timestamp.micros(), point.value.to_bits())).collect()
}
