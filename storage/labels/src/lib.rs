//! Label sets and their series: `{__name__="up", job="node"}` → a [`SeriesId`] of the store.
//!
//! `labels → fingerprint → known? else: number → label log (one fdatasync for a group) → visible`
//!
//! Comes in: label sets of a project, and questions what labels must be. Goes out: series numbers whose labels are
//! durable, label sets, names, values. A known series costs one hash and one look-up. Projects are apart from the ground
//! up: each has its own book, and no question reaches into another's.
//!
//! It knows no points, no protocol and no caller. Numbers of series it is given ([`SeriesNumbers`]), from the same count
//! that numbers metrics.
//!
//! Invariants:
//! - A series is visible only when its labels are durable, so that no acknowledged point has a series without a name.
//! - A series number is given to one label set, once. Deleted label sets that come again get a new one.
//! - After a failed write or sync nothing new is taken; what is there is still answered.
#![forbid(unsafe_code)]

mod backup;
mod book;
mod error;
mod log;
mod matcher;
mod open;
pub mod set;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use orzo_model::{Scope, SeriesId, SharedClock, Timestamp};
use orzo_store::files::{Disk, LockGuard, real::RealDisk};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

pub use backup::back_up_closed;
pub use book::{Met, Version};
pub use error::LabelError;
pub use matcher::{Matcher, MatcherError};
pub use set::{LabelSets, METRIC_NAME, Refusal, SetLimits, write_label};

use book::{Book, SECRET_BYTES, Texts};
use write::{Request, Work};

/// Settings of the label index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelSettings {
    /// Where the log lies; made if it is not there.
    pub directory: PathBuf,
    /// How large one label set may be.
    pub set: SetLimits,
    /// Series that one project may have; about 300 bytes of memory each.
    pub project_series_max: u64,
    /// Series of all projects together, which bounds the memory.
    pub series_max: u64,
    /// New series that one project may make within a minute, so that none takes the others' room by mistake.
    pub new_series_per_minute_max: u64,
    /// New series are refused while less than this is free.
    pub disk_reserve_bytes: u64,
}

impl Default for LabelSettings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("./orzo-data/labels"),
            set: SetLimits::default(),
            project_series_max: 1_000_000,
            series_max: 2_000_000,
            new_series_per_minute_max: 1_000_000,
            disk_reserve_bytes: 512 << 20,
        }
    }
}

/// Bytes of label sets that may wait for the log at one time.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How long new series wait for room before they are refused as busy.
const WAIT: Duration = Duration::from_secs(5);
/// Numbers asked for at once: new series come in thousands, and what is left at the end is lost.
const NUMBERS_AT_ONCE: u64 = 16_384;

/// Where numbers of new series come from.
#[async_trait]
pub trait SeriesNumbers: Send + Sync + 'static {
    /// The first of `count` numbers in a row that nobody else gets, ever.
    async fn reserve(&self, count: u64) -> Result<u64, String>;
}

/// The label index. One per process and directory.
pub struct LabelIndex {
    shared: Arc<Shared>,
    numbers: tokio::sync::Mutex<Range<u64>>,
    source: Arc<dyn SeriesNumbers>,
    requests: Mutex<Option<std::sync::mpsc::Sender<Request>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What callers and the writer thread share.
struct Shared {
    settings: LabelSettings,
    clock: SharedClock,
    disk: Arc<dyn Disk>,
    secret: [u8; SECRET_BYTES],
    projects: RwLock<HashMap<Arc<str>, Arc<Project>>>,
    /// Live series of all projects.
    live: AtomicU64,
    /// Deleted series whose points may still be in the store, and since when.
    deleted: Mutex<BTreeMap<SeriesId, Timestamp>>,
    closed: RwLock<Option<String>>,
    waiting: Arc<Semaphore>,
    lock: Mutex<Option<LockGuard>>,
}

/// One project's labels.
struct Project {
    name: Arc<str>,
    book: RwLock<Book>,
    minute: Mutex<Minute>,
}

/// New series within a minute of the clock.
#[derive(Default)]
struct Minute {
    number: u64,
    made: u64,
}

/// A project's series, held still for many look-ups. Drop it before waiting for anything.
pub struct KnownSeries<'a>(Option<RwLockReadGuard<'a, Book>>);

impl KnownSeries<'_> {
    /// The series of a label set, whose labels are sorted by name and written as [`write_label`] does.
    #[inline]
    pub fn look_up(&self, set: &[u8]) -> Option<SeriesId> {
        let book = self.0.as_ref()?;
        book.look_up(book.fingerprint(set))
    }

    /// As [`Self::look_up`], also of what was met in other bytes: labels that are not sorted, or some of them empty. The
    /// series that stands behind the one found last is found at once.
    #[inline]
    pub fn look_up_or_met(&self, set: &[u8], met: &mut Met) -> Option<SeriesId> {
        let book = self.0.as_ref()?;
        book.look_up_next(book.fingerprint(set), met)
    }

    /// Remembers the series of labels, if they are not found by their bytes.
    pub fn meet(&self, set: &[u8], series: SeriesId, met: &mut Met) {
        let Some(book) = self.0.as_ref() else { return };
        let fingerprint = book.fingerprint(set);
        if book.look_up(fingerprint).is_none() {
            met.insert(fingerprint, series);
        }
    }
}

/// A project's labels, for look-ups.
pub struct ProjectLabels(Option<Arc<Project>>);

impl ProjectLabels {
    /// Holds the project's series still.
    pub fn known(&self) -> KnownSeries<'_> {
        KnownSeries(self.0.as_ref().map(|project| project.book.read()))
    }
}

/// What became of new label sets, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// The series; `None` if it was refused.
    pub series: Vec<Option<SeriesId>>,
    /// Why, if any was.
    pub refusal: Option<Refusal>,
}

/// A series and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledSeries {
    /// Its number in the store.
    pub series: SeriesId,
    /// Names and values, by name.
    pub labels: Vec<(String, String)>,
}

/// Names and values of a series, by name, in texts that are shared.
pub type SharedLabels = Arc<[(Arc<str>, Arc<str>)]>;

/// Figures of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelStats {
    /// Projects that have series.
    pub projects: u64,
    /// Live series.
    pub series: u64,
    /// Bytes of memory, about.
    pub memory_bytes: u64,
    /// Deleted series whose points are still to be removed.
    pub deleted: u64,
}

impl LabelIndex {
    /// Opens the index in `settings.directory` and reads the log. Must be called in a tokio runtime.
    pub async fn open(
        settings: LabelSettings,
        numbers: Arc<dyn SeriesNumbers>,
        clock: SharedClock,
    ) -> Result<Self, LabelError> {
        Self::open_on(Arc::new(RealDisk), settings, numbers, clock).await
    }

    /// As [`Self::open`], on another disk.
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        settings: LabelSettings,
        source: Arc<dyn SeriesNumbers>,
        clock: SharedClock,
    ) -> Result<Self, LabelError> {
        let (shared, writer) = blocking(move || open::open(disk, settings, clock)).await?;
        let shared = Arc::new(shared);
        let (requests, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("orzo-labels-log".to_owned()).spawn({
            let shared = shared.clone();
            move || write::write_groups(&shared, writer, &receiver)
        });
        let thread = thread.map_err(|source| LabelError::Io {
            action: "start the log's thread for",
            path: shared.settings.directory.clone(),
            source,
        })?;
        Ok(Self {
            shared,
            numbers: tokio::sync::Mutex::new(0..0),
            source,
            requests: Mutex::new(Some(requests)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Its settings.
    pub fn settings(&self) -> &LabelSettings {
        &self.shared.settings
    }

    /// A project's labels, for look-ups of known series.
    pub fn project(&self, project: &str) -> ProjectLabels {
        ProjectLabels(self.shared.projects.read().get(project).cloned())
    }

    /// Series of label sets, made where they are not there. `Ok` means: their labels are durable.
    pub async fn create(&self, project: &str, sets: LabelSets) -> Result<Created, LabelError> {
        if sets.is_empty() {
            return Ok(Created::default());
        }
        self.shared.check_open()?;
        let project = self.shared.project(project);
        // What is full stays full however often it is asked: no number and no place in the queue is spent on it.
        if let Some(created) = self.shared.without_room(&project, &sets) {
            return Ok(created);
        }
        let bytes = sets.bytes();
        let numbers = self.take_numbers(sets.len() as u64).await?;
        let (reply, answer) = oneshot::channel();
        self.send(bytes, Work::Create { project, sets, numbers, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(LabelError::closed("it was closed")))
    }

    /// Deletes series by their labels: they are no more from now on, durably. Their points are to be removed later
    /// ([`Self::deleted`]). Gives how many.
    pub async fn delete(&self, scope: &Scope, matchers: &[Matcher]) -> Result<u64, LabelError> {
        let mut count = 0;
        for project in self.shared.visible(scope) {
            let series: Vec<SeriesId> = {
                let book = project.book.read();
                book.find(matchers).into_iter().map(|place| book.series_at(place)).collect()
            };
            if !series.is_empty() {
                let (reply, answer) = oneshot::channel();
                self.send(series.len() * 10, Work::Delete { project, series, reply }).await?;
                count += answer.await.unwrap_or_else(|_| Err(LabelError::closed("it was closed")))?;
            }
        }
        Ok(count)
    }

    /// Series that were deleted before a time and whose points may still be there, at most `limit`.
    pub fn deleted(&self, before: Timestamp, limit: usize) -> Vec<SeriesId> {
        let deleted = self.shared.deleted.lock();
        deleted.iter().filter(|(_, at)| **at < before).map(|(series, _)| *series).take(limit).collect()
    }

    /// Forgets deleted series whose points are gone, durably.
    pub async fn purged(&self, series: Vec<SeriesId>) -> Result<(), LabelError> {
        if series.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.send(series.len() * 10, Work::Purged { series, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(LabelError::closed("it was closed")))
    }

    /// Copies the log as it is durable now into `directory`, which must be empty, while it is written to. Opens as an
    /// index with every series that was there before the call. Gives the bytes.
    pub async fn back_up(&self, directory: &Path) -> Result<u64, LabelError> {
        let (reply, answer) = oneshot::channel();
        self.send(0, Work::Mark { reply }).await?;
        let mark = answer.await.unwrap_or_else(|_| Err(LabelError::closed("it was closed")))?;
        let (shared, directory) = (self.shared.clone(), directory.to_owned());
        blocking(move || backup::copy(&*shared.disk, &shared.settings.directory, &directory, Some(mark))).await
    }

    /// Projects that have, or had, label sets; by name.
    pub fn projects(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.shared.projects.read().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Series whose labels are accepted by all matchers, by number, at most `limit`.
    pub fn find(&self, scope: &Scope, matchers: &[Matcher], limit: usize) -> Vec<LabelledSeries> {
        let mut found = Vec::new();
        for project in self.shared.visible(scope) {
            let book = project.book.read();
            let places = book.find(matchers);
            let left = limit - found.len();
            let series = places.into_iter().take(left);
            found.extend(
                series.map(|place| LabelledSeries { series: book.series_at(place), labels: book.labels_at(place) }),
            );
        }
        found.sort_by_key(|found| found.series);
        found
    }

    /// As [`Self::find`], with texts that the series of the answer share.
    pub fn find_shared(&self, scope: &Scope, matchers: &[Matcher], limit: usize) -> Vec<(SeriesId, SharedLabels)> {
        let mut found = Vec::new();
        for project in self.shared.visible(scope) {
            let book = project.book.read();
            let mut texts = Texts::default();
            let places = book.find(matchers).into_iter().take(limit - found.len());
            found.extend(places.map(|place| (book.series_at(place), book.texts_at(place, &mut texts))));
        }
        found.sort_by_key(|(series, _)| *series);
        found
    }

    /// A page of a project's series whose labels are accepted by all matchers and that somebody wants by their numbers: from
    /// this place on, at most `limit`; and the place where the next page begins, if there is one.
    pub fn find_page(
        &self,
        project: &str,
        matchers: &[Matcher],
        is_wanted: impl Fn(SeriesId) -> bool,
        from: u32,
        limit: usize,
    ) -> (Vec<(SeriesId, SharedLabels)>, Option<u32>) {
        let Some(project) = self.shared.projects.read().get(project).cloned() else { return (Vec::new(), None) };
        let book = project.book.read();
        let mut places = book.find(matchers);
        places.retain(|place| *place >= from && is_wanted(book.series_at(*place)));
        places.sort_unstable();
        let next = places.get(limit).copied();
        let mut texts = Texts::default();
        let series = places.into_iter().take(limit);
        (series.map(|place| (book.series_at(place), book.texts_at(place, &mut texts))).collect(), next)
    }

    /// How far a project's series had come; `None` if it has none. As long as this is the same, so is every answer about it.
    pub fn version(&self, project: &str) -> Option<Version> {
        let project = self.shared.projects.read().get(project).cloned()?;
        let book = project.book.read();
        Some(book.version())
    }

    /// Names of labels, of all series or of those that one of these lists of matchers accepts.
    pub fn label_names(&self, scope: &Scope, any_of: &[Vec<Matcher>]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.each_choice(scope, any_of, |book, places| book.names(places, &mut names));
        names
    }

    /// Values of a label, of all series or of those that one of these lists of matchers accepts.
    pub fn label_values(&self, scope: &Scope, name: &str, any_of: &[Vec<Matcher>]) -> BTreeSet<String> {
        let mut values = BTreeSet::new();
        self.each_choice(scope, any_of, |book, places| book.values(name, places, &mut values));
        values
    }

    fn each_choice(&self, scope: &Scope, any_of: &[Vec<Matcher>], mut each: impl FnMut(&Book, Option<&[u32]>)) {
        for project in self.shared.visible(scope) {
            let book = project.book.read();
            match any_of {
                [] => each(&book, None),
                any_of => any_of.iter().for_each(|matchers| each(&book, Some(&book.find(matchers)))),
            }
        }
    }

    /// Figures of this moment.
    pub fn stats(&self) -> LabelStats {
        let projects: Vec<_> = self.shared.projects.read().values().cloned().collect();
        LabelStats {
            projects: projects.len() as u64,
            series: self.shared.live.load(Ordering::Relaxed),
            memory_bytes: projects.iter().map(|project| project.book.read().memory_bytes() as u64).sum(),
            deleted: self.shared.deleted.lock().len() as u64,
        }
    }

    /// Why nothing is taken any more; `None` while all is well.
    pub fn closed_because(&self) -> Option<String> {
        self.shared.closed.read().clone()
    }

    /// Takes nothing more and lets the directory go.
    pub async fn close(&self) -> Result<(), LabelError> {
        self.requests.lock().take();
        let (shared, writer) = (self.shared.clone(), self.writer.lock().take());
        blocking(move || {
            if let Some(writer) = writer
                && writer.join().is_err()
            {
                shared.close("the log's thread died");
            }
            shared.close("it was closed");
            shared.lock.lock().take();
            Ok(())
        })
        .await
    }

    async fn take_numbers(&self, count: u64) -> Result<Range<u64>, LabelError> {
        let mut pool = self.numbers.lock().await;
        if pool.end - pool.start < count {
            let wanted = count.max(NUMBERS_AT_ONCE);
            let first = self.source.reserve(wanted).await.map_err(|reason| LabelError::NoNumbers { reason })?;
            *pool = first..first + wanted;
        }
        let numbers = pool.start..pool.start + count;
        pool.start = numbers.end;
        Ok(numbers)
    }

    async fn send(&self, bytes: usize, work: Work) -> Result<(), LabelError> {
        let permits = u32::try_from(bytes.min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(WAIT, self.shared.waiting.clone().acquire_many_owned(permits)).await;
        let room = match room {
            Ok(Ok(room)) => room,
            Ok(Err(error)) => return Err(LabelError::closed(error)),
            Err(_) => return Err(LabelError::Busy { reason: "too many new series wait for the log".to_owned() }),
        };
        let request = Request { work, bytes, _room: room };
        let sent = self.requests.lock().as_ref().is_some_and(|requests| requests.send(request).is_ok());
        if sent {
            return Ok(());
        }
        self.shared.check_open()?;
        Err(LabelError::closed("it was closed"))
    }
}

impl Shared {
    /// Takes nothing more from now on; the first reason stays.
    fn close(&self, reason: impl ToString) {
        self.closed.write().get_or_insert(reason.to_string());
    }

    fn check_open(&self) -> Result<(), LabelError> {
        match &*self.closed.read() {
            Some(reason) => Err(LabelError::closed(reason)),
            None => Ok(()),
        }
    }

    /// The project of a name, made if nothing is known of it.
    fn project(&self, name: &str) -> Arc<Project> {
        if let Some(project) = self.projects.read().get(name) {
            return project.clone();
        }
        let mut projects = self.projects.write();
        if let Some(project) = projects.get(name) {
            return project.clone();
        }
        let project = Arc::new(Project::new(name.into(), Book::new(self.secret)));
        projects.insert(project.name.clone(), project.clone());
        project
    }

    /// The projects that a scope may see.
    fn visible(&self, scope: &Scope) -> Vec<Arc<Project>> {
        match scope {
            Scope::All => self.projects.read().values().cloned().collect(),
            // Who writes a series owns it.
            Scope::Project(name) | Scope::Owner(name) | Scope::Maker(name) => {
                self.projects.read().get(name.as_str()).cloned().into_iter().collect()
            }
            // A series belongs to a project and remembers no user.
            Scope::Creator(_) | Scope::Nothing => Vec::new(),
        }
    }

    /// Whether one more series of a project is taken now.
    fn check_room(&self, project: &Project, book: &Book) -> Result<(), Refusal> {
        let LabelSettings { project_series_max, series_max, new_series_per_minute_max, .. } = self.settings;
        if book.live() as u64 >= project_series_max {
            return Err(Refusal::TooManySeries { max: project_series_max });
        }
        if self.live.load(Ordering::Relaxed) >= series_max {
            return Err(Refusal::Full { max: series_max });
        }
        let minute = project.minute.lock();
        if minute.number == self.minute() && minute.made >= new_series_per_minute_max {
            return Err(Refusal::TooFast { max: new_series_per_minute_max });
        }
        Ok(())
    }

    /// The answer if no more series are taken: those that are known after all, and nothing for the others.
    fn without_room(&self, project: &Project, sets: &LabelSets) -> Option<Created> {
        let book = project.book.read();
        let refusal = self.check_room(project, &book).err()?;
        let series: Vec<_> = sets.iter().map(|set| book.look_up(book.fingerprint(set))).collect();
        let refusal = series.contains(&None).then_some(refusal);
        Some(Created { series, refusal })
    }

    fn minute(&self) -> u64 {
        self.clock.monotonic().as_secs() / 60
    }
}

impl Project {
    fn new(name: Arc<str>, book: Book) -> Self {
        Self { name, book: RwLock::new(book), minute: Mutex::new(Minute::default()) }
    }

    /// One more new series in this minute.
    fn made_one(&self, now: u64) {
        let mut minute = self.minute.lock();
        if minute.number != now {
            *minute = Minute { number: now, made: 0 };
        }
        minute.made += 1;
    }
}

/// Runs on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LabelError> + Send + 'static,
) -> Result<T, LabelError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(LabelError::closed(error)),
        },
    }
}

#[cfg(test)]
mod tests;
