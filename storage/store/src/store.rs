//! The store: one directory, one process, append and scan.
//!
//! `append` waits for the writer thread, which owns the log. Reads look at one moment's head, the head that is being
//! written to files, and a version of the table. Maintenance (flush, compaction, retention, checkpoints) is one at a
//! time, on a blocking thread; a task wakes it by size and age. It knows series by number only.

mod append;
mod backup;
mod changed;
mod claim;
mod compact;
mod expire;
mod flush;
mod gathered;
mod maintain;
mod newest;
mod open;
mod rollups;
mod scan;
pub mod stats;
pub mod verify;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use orzo_model::{Measure, Point, Room, SeriesId, SharedClock, Timestamp};
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

pub use self::{
    append::AppendReceipt,
    backup::BackupReport,
    gathered::Columns,
    rollups::{Aggregate, DayRolled, Layer, LayerWanted, RollMaker, RollPlan, Rolled},
    scan::{Reduce, Reduced, Reducer},
    verify::Progress,
};
use self::{
    append::Request,
    changed::Changed,
    claim::Claim,
    compact::Effort,
    gathered::Gathered,
    newest::Newest,
    rollups::Rollups,
    stats::{FileStats, StoreStats},
    verify::VerifyReport,
};
use crate::{
    error::StoreError,
    files::{Disk, LockGuard, real::RealDisk},
    head::Head,
    settings::StoreSettings,
    table::{Table, day::Day, pages::Pages, snapshot::Snapshot},
    tombstones::Tombstones,
    wal::{Segment, Writer},
};

/// An open store. Dropping it stops it; what was acknowledged is durable in any case.
pub struct Store {
    shared: Arc<Shared>,
    writer: Mutex<Option<std::thread::JoinHandle<Writer>>>,
    upkeep: [JoinHandle<()>; 2],
}

/// What callers, the writer thread and maintenance share.
struct Shared {
    settings: StoreSettings,
    room: Room,
    clock: SharedClock,
    table: Table,
    /// To the log's thread, which ends when this is taken.
    requests: Mutex<Option<std::sync::mpsc::Sender<Request>>>,
    wal_directory: PathBuf,
    tombstones_directory: PathBuf,
    state: RwLock<State>,
    segments: Mutex<Vec<Segment>>,
    /// Why nothing is taken any more.
    closed: RwLock<Option<String>>,
    /// Held by whoever writes the head to files.
    flushing: Mutex<()>,
    /// Held by whoever merges files, or removes what is not needed any more.
    tidying: Mutex<()>,
    /// Held, for a moment, by whoever makes a version of the table. It is taken last.
    committing: Mutex<()>,
    /// Backups under way; while there are any, no file leaves the disk.
    backups: AtomicUsize,
    /// Long work gives up: the store is about to close.
    stopping: AtomicBool,
    /// Held by a commit that waits for the table's place to answer.
    pausing: Mutex<()>,
    /// Ends that wait.
    pause_ended: Condvar,
    /// By what right this directory writes, if the table is in a bucket.
    claim: Option<Claim>,
    /// Bytes that may still wait for the log.
    waiting: Arc<Semaphore>,
    /// A head was written to files.
    flushed: Notify,
    /// A flush is due before the next tick.
    flush_due: Arc<Notify>,
    /// When days last got points.
    flushed_days: Mutex<HashMap<Day, Duration>>,
    /// When deleted series were last taken out of files.
    deleted_at: Mutex<Duration>,
    /// Files that cannot be read, and why.
    quarantined: Mutex<BTreeMap<String, String>>,
    layouts: Mutex<scan::Layouts>,
    rollups: Rollups,
    pages: Arc<Mutex<Pages>>,
    /// Threads that one large read may use.
    scan_threads: usize,
    /// Threads that large reads may still take beyond their own: all reads together have one for each core.
    scan_threads_left: AtomicUsize,
    checkpointed: AtomicU64,
    replaced: AtomicU64,
    failures: AtomicU64,
    lock: Mutex<Option<LockGuard>>,
}

/// What a read looks at, of one moment.
struct State {
    active: Head,
    frozen: Option<Arc<Frozen>>,
    snapshot: Arc<Snapshot>,
    tombstones: Arc<Tombstones>,
    newest: Newest,
    changed: Changed,
    /// The last sequence that is in the log and in `active`, or before.
    last_sequence: u64,
}

/// A head that is being written to files.
struct Frozen {
    head: Head,
    /// The last sequence in it.
    generation: u64,
}

impl Store {
    /// Opens the store in `settings.directory`, made if it is not there; recovers what a crash left. Must be called in
    /// a tokio runtime. Refuses a directory that another process has open, and anything damaged. With `settings.bucket` the
    /// table is there.
    pub async fn open(settings: StoreSettings, room: Room, clock: SharedClock) -> Result<Arc<Self>, StoreError> {
        let disk: Arc<dyn Disk> = match &settings.bucket {
            None => Arc::new(RealDisk),
            Some(bucket) => {
                let (bucket, settings, clock) = (bucket.clone(), settings.clone(), clock.clone());
                blocking(move || claim::disk_of(&bucket, &settings, clock)).await?
            }
        };
        Self::open_on(disk, settings, room, clock).await
    }

    /// As [`Self::open`], on another disk.
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        settings: StoreSettings,
        room: Room,
        clock: SharedClock,
    ) -> Result<Arc<Self>, StoreError> {
        let (shared, writer) = blocking(move || open::open(disk, settings, room, clock)).await?;
        let shared = Arc::new(shared);
        let (requests, receiver) = std::sync::mpsc::channel();
        *shared.requests.lock() = Some(requests);
        let thread = std::thread::Builder::new().name("orzo-store-log".to_owned()).spawn({
            let shared = shared.clone();
            move || append::write_groups(&shared, writer, &receiver)
        });
        let thread = thread.map_err(|source| StoreError::Io {
            action: "start the log's thread for",
            path: shared.settings.directory.clone(),
            source,
        })?;
        let weak = || Arc::downgrade(&shared);
        let upkeep = [
            tokio::spawn(maintain::keep_flushing(weak(), shared.clock.clone(), shared.flush_due.clone())),
            tokio::spawn(maintain::keep_tidy(weak(), shared.clock.clone())),
        ];
        Ok(Arc::new(Self { shared, writer: Mutex::new(Some(thread)), upkeep }))
    }

    /// Makes points durable, all or none. Appending the same points again changes nothing; of several values for one
    /// (series, timestamp) the last one appended is kept.
    pub async fn append(&self, points: Vec<Point>) -> Result<AppendReceipt, StoreError> {
        append::append(&self.shared, points).await
    }

    /// Deletes series with everything written so far, durably; reads see that at once. Their rows leave the files when
    /// those are rewritten or removed.
    pub async fn delete_series(&self, series: &[SeriesId]) -> Result<(), StoreError> {
        append::delete_series(&self.shared, series.to_vec()).await
    }

    /// Points of these series with `from <= timestamp < to` (`to` of [`Timestamp::MAX`] includes it): for each series
    /// that has any, in ascending order, its points in time order.
    pub async fn scan(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError> {
        self.scan_gathered(series, from, to).await
    }

    /// As [`Self::scan`], as columns.
    pub async fn scan_columns(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Columns)>, StoreError> {
        self.scan_gathered(series, from, to).await
    }

    async fn scan_gathered<G: Gathered>(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, G)>, StoreError> {
        let (shared, series) = (self.shared.clone(), sorted(series));
        if let Some(found) = shared.scan_brief(&series, from, to)? {
            return Ok(found);
        }
        blocking(move || shared.scan(&series, from, to)).await
    }

    /// As [`Self::scan_columns`], but each series' points are reduced by the thread that read them, so that memory is
    /// taken for few series at a time; so `points_max`, not `scan_points_max`, is how many there may be. No more than
    /// `brief` points are read and reduced on the caller's own thread, if they are in memory.
    pub async fn scan_reduced(
        &self,
        series: &[SeriesId],
        (from, to): (Timestamp, Timestamp),
        points_max: usize,
        brief: usize,
        reduce: Arc<Reduce>,
    ) -> Result<Vec<Reduced>, StoreError> {
        let (shared, series) = (self.shared.clone(), sorted(series));
        if let Some(reduced) = shared.scan_reduced_brief(&series, from, to, brief.min(points_max), &*reduce)? {
            return Ok(reduced);
        }
        blocking(move || shared.scan_reduced(&series, from, to, points_max, &*reduce)).await
    }

    /// The newest point of each of these series between two times, both inclusive; those without one are left out.
    pub async fn newest_between(
        &self,
        series: &[SeriesId],
        first: Timestamp,
        last: Timestamp,
    ) -> Result<Vec<(SeriesId, Measure)>, StoreError> {
        let (shared, series) = (self.shared.clone(), series.to_vec());
        blocking(move || shared.newest_between(series, first, last)).await
    }

    /// The newest point of a series strictly before `before`.
    pub async fn last_before(&self, series: SeriesId, before: Timestamp) -> Result<Option<Measure>, StoreError> {
        if before == Timestamp::MIN {
            return Ok(None);
        }
        self.last_until(series, Timestamp::from_micros(before.micros() - 1)).await
    }

    /// The newest point of a series.
    pub async fn last(&self, series: SeriesId) -> Result<Option<Measure>, StoreError> {
        self.last_until(series, Timestamp::MAX).await
    }

    /// The newest point of each of these series, in their order.
    pub async fn last_of(&self, series: &[SeriesId]) -> Result<Vec<Option<Measure>>, StoreError> {
        let (shared, series) = (self.shared.clone(), series.to_vec());
        blocking(move || shared.last_of(&series)).await
    }

    async fn last_until(&self, series: SeriesId, until: Timestamp) -> Result<Option<Measure>, StoreError> {
        if let Some(answer) = self.shared.last_in_memory(series, until)? {
            return Ok(answer);
        }
        let shared = self.shared.clone();
        blocking(move || shared.last(series, until)).await
    }

    /// Writes everything appended so far to files of the table.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.flush()).await
    }

    /// Merges files where that is worth it, until it is not any more. Gives how many files were merged.
    pub async fn compact(&self) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.compact(&shared.tidying.lock(), Effort::Thorough)).await
    }

    /// Does all upkeep now that would be done sooner or later: the head to files, files merged, deleted series taken out,
    /// files removed that left the table longer ago than `removed_grace`, a checkpoint, a small log. What is appended
    /// meanwhile waits for the next time. Gives what is there then.
    pub async fn settle(&self) -> Result<StoreStats, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.settle()).await
    }

    /// Writes files with rows of deleted series anew, without them; upkeep does it within `deleted_within`. Gives how many.
    pub async fn apply_deletions(&self) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.apply_deletions(&shared.tidying.lock())).await
    }

    /// Removes whole files whose newest point is before `before`. Gives how many.
    pub async fn retain(&self, before: Timestamp) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.retain(&shared.tidying.lock(), before)).await
    }

    /// Takes points out of the files that are older than their series' limits (sorted by series): of each series the days that
    /// ended before its limit. Gives how many files were written anew or removed. From disk they go `removed_grace` later.
    pub async fn expire(&self, limits: Vec<(SeriesId, Timestamp)>) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.expire(&limits)).await
    }

    /// Removes from disk what left the table longer ago than `removed_grace`.
    pub async fn vacuum(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.vacuum(&shared.tidying.lock())).await
    }

    /// Writes a checkpoint of the table's log.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.checkpoint(&shared.tidying.lock())).await
    }

    /// The newest day, by its first moment, that is over and of which rollups are to be made ([`Self::roll_day`]).
    pub fn roll_due(&self) -> Option<Timestamp> {
        self.shared.roll_due()
    }

    /// Makes the rollups of the day that begins at `day` from its raw points, as the plan says. Appends, merges and reads go
    /// on meanwhile.
    pub async fn roll_day(&self, day: Timestamp, plan: RollPlan) -> Result<DayRolled, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.roll_day(day, plan)).await
    }

    /// Merges small files of rollups into larger ones, a few at a time; gives how many, 0 if there is nothing to do.
    pub async fn tidy_rollups(&self) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.tidy_rollups()).await
    }

    /// For each layer, for each of these series (sorted, none twice), the days of which rollups are still all that there is,
    /// and their rows. What is not told is to be read from raw points; nothing is an answer, too. The only error are more than
    /// `scan_points_max` rows: ask for fewer series.
    pub async fn rolled(
        &self,
        wanted: Vec<LayerWanted>,
        series: Vec<SeriesId>,
    ) -> Result<Vec<Vec<Rolled>>, StoreError> {
        if !self.shared.may_have_rolled(&wanted) {
            return Ok(Vec::new());
        }
        let shared = self.shared.clone();
        blocking(move || shared.rolled(&wanted, &series)).await
    }

    /// A moment of the store: what is read after it was taken has everything that changed before.
    pub fn moment(&self) -> u64 {
        self.shared.state.read().changed.moment()
    }

    /// Which times have changed after a [`Self::moment`] between two times, both inclusive: ranges from first to last, in
    /// order. More may be told than really changed, never less.
    pub fn changed_since(&self, moment: u64, first: Timestamp, last: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        self.shared.state.read().changed.since(moment, first, last)
    }

    /// Figures of this moment.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// The files of the table, from the oldest to the newest.
    pub fn files(&self) -> Vec<FileStats> {
        self.shared.files()
    }

    /// Reads everything on disk and holds it against its checksums and hashes.
    pub async fn verify(&self) -> Result<VerifyReport, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.verify(&mut |_| {})).await
    }

    /// As [`Self::verify`], telling how far it is.
    pub async fn verify_with(
        &self,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<VerifyReport, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.verify(&mut progress)).await
    }

    /// Copies everything appended so far into `directory`, which must be empty; appends and upkeep go on. Files that the
    /// `earlier` backup has already are linked, if both are on one disk. What comes out opens as a store. Names are kept
    /// elsewhere and must be copied after this returned.
    pub async fn back_up(
        &self,
        directory: &Path,
        earlier: Option<&Path>,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<BackupReport, StoreError> {
        let (shared, directory) = (self.shared.clone(), directory.to_owned());
        let earlier = earlier.map(Path::to_owned);
        blocking(move || shared.back_up(&directory, earlier.as_deref(), &mut progress)).await
    }

    /// What a backup of the files would report now; what is not in files yet is not in it.
    pub fn contents(&self) -> BackupReport {
        self.shared.report()
    }

    /// Why nothing is taken any more; `None` while all is well.
    pub fn closed_because(&self) -> Option<String> {
        self.shared.closed.read().clone()
    }

    /// Where the Delta table is, for readers such as DuckDB and Spark.
    pub fn table_directory(&self) -> PathBuf {
        self.shared.table.root.clone()
    }

    /// Takes nothing more, writes the head to files and lets the directory go. If that fails nothing is lost: the log
    /// has it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.shared.requests.lock().take();
        self.shared.stop();
        self.upkeep.iter().for_each(JoinHandle::abort);
        let (shared, writer) = (self.shared.clone(), self.writer.lock().take());
        blocking(move || {
            let writer = writer.and_then(|writer| match writer.join() {
                Ok(writer) => Some(writer),
                Err(_) => {
                    shared.close("the log's thread died");
                    None
                }
            });
            let flushing = shared.flushing.lock();
            let answer = match shared.lock.lock().is_some() {
                true => shared.flush_held(&flushing).and_then(|()| shared.leave(&flushing)),
                false => Ok(()),
            };
            // What merges must not commit once the directory is somebody else's.
            let _tidying = shared.tidying.lock();
            let _rolling = shared.rollups.waited();
            if let Some(mut writer) = writer {
                shared.shrink(&mut writer);
            }
            shared.close("it was closed");
            shared.lock.lock().take();
            answer
        })
        .await
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.requests.lock().take();
        self.shared.stop();
        self.upkeep.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// Long work gives up from now on.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _pausing = self.pausing.lock();
        self.pause_ended.notify_all();
    }

    /// Takes nothing more from now on; the first reason stays.
    fn close(&self, reason: impl ToString) {
        self.closed.write().get_or_insert(reason.to_string());
        self.flushed.notify_waiters();
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match &*self.closed.read() {
            Some(reason) => Err(StoreError::closed(reason)),
            None => Ok(()),
        }
    }

    fn count_replaced(&self, count: u64) {
        self.replaced.fetch_add(count, Ordering::Relaxed);
    }
}

/// In ascending order, none twice.
fn sorted(series: &[SeriesId]) -> Vec<SeriesId> {
    let mut series = series.to_vec();
    series.sort_unstable();
    series.dedup();
    series
}

/// Runs on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(StoreError::closed(error)),
        },
    }
}
