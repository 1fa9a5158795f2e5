//! The table on disk: append, read, merge files. All disk work is done on blocking threads.

mod checkpoint;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orzo_model::{SharedClock, Timestamp, rooms::Room};
use orzo_rating::{Ledger, LedgerError, LineFilter, LineStream, RatedLine};
use orzo_store::{
    delta::{LOG, commit_name, decode_commit, encode_commit},
    files::{Disk, LockGuard, TEMPORARY_PREFIX, publish, read_all, stage},
};
use parking_lot::{Mutex, RwLock};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    columns::{arrow_schema, encode},
    known::Known,
    log::{FileEntry, Sum, Version, change, first_actions, month_of},
    merge::{Merge, ids_of},
};

/// Lines of one file at most; about 40 bytes each on disk.
const FILE_LINES_MAX: usize = 500_000;
/// Lines turned into columns at once.
const ENCODED_LINES: usize = 16_384;
/// Lines of one row group: who asks for a day of a month reads the groups of that day, and each group pays for dictionaries of
/// its own.
const GROUP_LINES: usize = 32_768;
/// A month with so many files is merged: a day's worth of hourly ones and some.
const FILES_MERGED_AT: usize = 32;
/// What left the table stays on disk for so long, for whoever reads an earlier version.
const REMOVED_KEPT_MS: i64 = 3_600_000;
/// Commits between two checkpoints: an hour's rating is one, so that opening reads some days of them.
const CHECKPOINT_COMMITS: u64 = 100;
/// Lines handed to a reader at once, and how many such parts wait for it.
const PART_LINES: usize = 1024;
const PARTS_WAITING: usize = 4;

/// Figures of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerStats {
    /// Version of the table.
    pub version: u64,
    /// Live files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
}

/// The ledger on disk. Clones share it.
#[derive(Clone)]
pub struct LedgerTable {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    clock: SharedClock,
    room: Room,
    /// What is readable now.
    version: RwLock<Arc<Version>>,
    /// Where copies of versions are, beside the table.
    snapshots: PathBuf,
    /// Version of the newest checkpoint.
    checkpointed: AtomicU64,
    checkpoint_commits: u64,
    /// One append or merge at a time.
    writing: Mutex<Writing>,
    /// Nobody else writes; `None`: only reads.
    lock: Option<LockGuard>,
}

#[derive(Default)]
struct Writing {
    known: Known,
    /// It is not known whether the last commit is on disk: the log is read again before the next.
    is_unsure: bool,
}

fn unavailable(action: &'static str, reason: impl ToString) -> LedgerError {
    LedgerError::Unavailable { action, reason: reason.to_string() }
}

impl LedgerTable {
    /// Opens the table for writing, or makes it; another process that has it is an error.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, clock: SharedClock, room: Room) -> Result<Self, LedgerError> {
        Self::open_with(disk, root, clock, room, CHECKPOINT_COMMITS)
    }

    pub(crate) fn open_with(
        disk: Arc<dyn Disk>,
        root: &Path,
        clock: SharedClock,
        room: Room,
        checkpoint_commits: u64,
    ) -> Result<Self, LedgerError> {
        let (log, snapshots) = (root.join(LOG), root.with_extension("snapshots"));
        let made = disk.make_directory(&log).and_then(|()| {
            disk.make_directory(&snapshots)?;
            disk.sync_directory(root)?;
            disk.sync_directory(root.parent().unwrap_or(root))
        });
        made.map_err(|error| unavailable("open", error))?;
        let lock = disk.lock(&root.with_extension("lock")).map_err(|error| unavailable("open", error))?;
        let Some(lock) = lock else {
            return Err(unavailable("open", format!("{} is open in another process", root.display())));
        };
        let inner = Inner {
            disk,
            root: root.to_owned(),
            clock,
            room,
            version: RwLock::default(),
            snapshots,
            checkpointed: AtomicU64::default(),
            checkpoint_commits,
            writing: Mutex::default(),
            lock: Some(lock),
        };
        inner.sweep(&log)?;
        inner.sweep(&inner.snapshots)?;
        if !inner.replay()? {
            let actions = first_actions(Uuid::new_v4(), inner.clock.now());
            inner.write_commit(0, &actions, "CREATE TABLE")?;
            inner.replay()?;
        }
        inner.sweep_orphans()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens a table that another process may be writing, for reading only. Each read sees what was committed before it.
    pub fn open_to_read(disk: Arc<dyn Disk>, root: &Path, clock: SharedClock, room: Room) -> Result<Self, LedgerError> {
        let inner = Inner {
            disk,
            root: root.to_owned(),
            clock,
            room,
            version: RwLock::default(),
            snapshots: root.with_extension("snapshots"),
            checkpointed: AtomicU64::default(),
            checkpoint_commits: CHECKPOINT_COMMITS,
            writing: Mutex::default(),
            lock: None,
        };
        if !inner.replay()? {
            return Err(unavailable("open", format!("there is no ledger in {}", root.display())));
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Figures.
    pub fn stats(&self) -> LedgerStats {
        let version = self.inner.version.read().clone();
        LedgerStats {
            version: version.number,
            files: version.files.len() as u64,
            bytes: version.files.values().map(|file| file.bytes).sum(),
            lines: version.files.values().map(|file| file.rows).sum(),
        }
    }

    /// The files that count now.
    pub fn files(&self) -> Vec<FileEntry> {
        self.inner.version.read().files.values().cloned().collect()
    }

    /// Merges the files of months that have many, and removes what left the table long ago. Says how many files were
    /// merged.
    pub async fn compact(&self) -> Result<u64, LedgerError> {
        let inner = self.inner.clone();
        blocking("compact", move || inner.compact(FILES_MERGED_AT)).await
    }

    /// Reads every byte and holds it against the log; the problems that there are.
    pub async fn verify(&self) -> Result<Vec<String>, LedgerError> {
        let inner = self.inner.clone();
        blocking("verify", move || inner.verify()).await
    }

    #[cfg(test)]
    pub(crate) fn balance(&self) -> orzo_model::rooms::Balance {
        self.inner.room.balance()
    }

    #[cfg(test)]
    pub(crate) async fn compact_at(&self, files: usize) -> Result<u64, LedgerError> {
        let inner = self.inner.clone();
        blocking("compact", move || inner.compact(files)).await
    }
}

async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(action, error))?
}

#[async_trait]
impl Ledger for LedgerTable {
    async fn append(&self, lines: Vec<RatedLine>) -> Result<u64, LedgerError> {
        let (inner, count) = (self.inner.clone(), lines.len() as u64);
        self.inner.room.received(count);
        let outcome = blocking("append", move || inner.append(lines)).await;
        let room = &self.inner.room;
        match &outcome {
            Ok(new) => {
                room.stored(*new);
                room.dropped("repeat", count - new);
            }
            Err(LedgerError::Invalid { .. }) => room.refused("invalid", count),
            Err(_) => room.returned(count),
        }
        outcome
    }

    async fn read(&self, filter: &LineFilter) -> Result<LineStream, LedgerError> {
        let (inner, filter) = (self.inner.clone(), filter.clone());
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<RatedLine>, LedgerError>>(PARTS_WAITING);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.read(&filter, |part| sender.blocking_send(Ok(part)).is_ok()) {
                // Who asked may have gone; then nobody waits for the error.
                let _ = sender.blocking_send(Err(error));
            }
        });
        let parts = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let lines = parts.flat_map(|part| match part {
            Ok(lines) => stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        Ok(lines.boxed())
    }
}

impl Inner {
    /// Reads commits that are not known yet, at first from the newest copy on; false if there is no table.
    fn replay(&self) -> Result<bool, LedgerError> {
        let log = self.root.join(LOG);
        let entries = match self.disk.list(&log) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unavailable("read", error)),
        };
        let mut numbers: Vec<u64> =
            entries.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        let mut held = self.version.write();
        let mut version = (**held).clone();
        if version == Version::default()
            && let Some(copy) = self.newest_copy(&numbers)?
        {
            self.checkpointed.store(copy.number, Ordering::Relaxed);
            version = copy;
        }
        let first = if version == Version::default() { 0 } else { version.number + 1 };
        let is_there = first > 0 || !numbers.is_empty();
        for (next, number) in (first..).zip(numbers.into_iter().filter(|number| *number >= first)) {
            let path = log.join(commit_name(number));
            let damaged = |reason: String| LedgerError::Damaged { reason };
            if number != next {
                return Err(damaged(format!("commit {next} is missing in {}", log.display())));
            }
            let bytes = read_all(&*self.disk, &path).map_err(|error| unavailable("read", error))?;
            let actions: Vec<Value> = decode_commit(&path, &bytes).map_err(|error| damaged(error.to_string()))?;
            version = version.apply(&path, number, &actions).map_err(damaged)?;
        }
        *held = Arc::new(version);
        Ok(is_there)
    }

    fn write_commit(&self, number: u64, actions: &[Value], operation: &str) -> Result<(), LedgerError> {
        let log = self.root.join(LOG);
        let bytes = encode_commit(actions, operation, self.clock.now().micros() / 1000);
        let staged = stage(&*self.disk, &log, &bytes).map_err(|error| unavailable("append", error))?;
        publish(&*self.disk, &staged, &log, &commit_name(number)).map_err(|error| unavailable("append", error))
    }

    /// Commits files in place of others. After an error it is not known whether it is on disk.
    fn commit(
        &self,
        writing: &mut Writing,
        added: &[FileEntry],
        replaced: &[FileEntry],
        operation: &str,
    ) -> Result<(), LedgerError> {
        let current = self.version.read().clone();
        let number = current.number + 1;
        let actions = change(added, replaced, self.clock.now());
        let path = self.root.join(LOG).join(commit_name(number));
        let next =
            (*current).clone().apply(&path, number, &actions).map_err(|reason| LedgerError::Damaged { reason })?;
        writing.is_unsure = true;
        self.write_commit(number, &actions, operation)?;
        writing.is_unsure = false;
        let next = Arc::new(next);
        *self.version.write() = next.clone();
        self.checkpoint_if_due(&next);
        Ok(())
    }

    /// The right to write, with the log read anew where it may be ahead of what is known.
    fn write(&self) -> Result<parking_lot::MutexGuard<'_, Writing>, LedgerError> {
        if self.lock.is_none() {
            return Err(unavailable("append", "it is open for reading only"));
        }
        let mut writing = self.writing.lock();
        if writing.is_unsure {
            writing.known.forget();
            // A name that a failed sync left in memory only is made durable before anything is built on it.
            let log = self.root.join(LOG);
            self.disk.sync_directory(&log).map_err(|error| unavailable("append", error))?;
            self.replay()?;
            writing.is_unsure = false;
        }
        Ok(writing)
    }

    fn append(&self, mut lines: Vec<RatedLine>) -> Result<u64, LedgerError> {
        if let Some(line) = lines.iter().find(|line| line.identity() != line.id) {
            return Err(LedgerError::Invalid { id: line.id, reason: "its id is not that of its contents".to_owned() });
        }
        let mut writing = self.write()?;
        let version = self.version.read().clone();
        lines = writing.known.new_of(lines, |missing| {
            let mut found = Vec::new();
            for file in version.files.values().filter(|file| missing.may_be_in(file.begins, &file.scopes)) {
                found.extend(ids_of(&*self.disk, &self.root, file, |bucket| missing.has(bucket))?);
            }
            Ok::<_, LedgerError>(found)
        })?;
        if lines.is_empty() {
            return Ok(0);
        }
        // A line is some hundred bytes: its place is moved and not the line.
        let mut sorted: Vec<&RatedLine> = lines.iter().collect();
        sorted.sort_by(|a, b| a.place().cmp(&b.place()));
        let files = self.write_files(&sorted)?;
        self.commit(&mut writing, &files, &[], "WRITE")?;
        writing.known.add(&lines);
        Ok(lines.len() as u64)
    }

    /// Sorted lines to files, one or more for each month.
    fn write_files(&self, lines: &[&RatedLine]) -> Result<Vec<FileEntry>, LedgerError> {
        let mut files = Vec::new();
        // Most lines are of the same period as the one before; the calendar is asked where they are not.
        let is_same = |a: &&RatedLine, b: &&RatedLine| a.period == b.period || month_of(a.period) == month_of(b.period);
        for of_month in lines.chunk_by(is_same) {
            for part in of_month.chunks(FILE_LINES_MAX) {
                files.push(self.write_file(part)?);
            }
        }
        Ok(files)
    }

    fn write_file(&self, lines: &[&RatedLine]) -> Result<FileEntry, LedgerError> {
        let (bytes, costs) = parquet_of(lines)?;
        let month = month_of(lines.first().map_or(Timestamp::EPOCH, |line| line.period));
        let directory = format!("month={month}");
        let name = format!("{}.parquet", Uuid::new_v4());
        let within = self.root.join(&directory);
        let written = self.disk.make_directory(&within).and_then(|()| {
            self.disk.sync_directory(&self.root)?;
            let staged = stage(&*self.disk, &within, &bytes)?;
            publish(&*self.disk, &staged, &within, &name)
        });
        written.map_err(|error| unavailable("append", error))?;
        Ok(FileEntry::describe(format!("{directory}/{name}"), lines, costs.into_iter(), &bytes))
    }

    fn read(&self, filter: &LineFilter, mut take: impl FnMut(Vec<RatedLine>) -> bool) -> Result<(), LedgerError> {
        if self.lock.is_none() {
            self.replay()?;
        }
        let version = self.version.read().clone();
        let mut part = Vec::with_capacity(PART_LINES);
        for line in Merge::new(&*self.disk, &self.root, version.files.values(), filter) {
            part.push(line?);
            if part.len() == PART_LINES && !take(std::mem::replace(&mut part, Vec::with_capacity(PART_LINES))) {
                return Ok(());
            }
        }
        if !part.is_empty() {
            take(part);
        }
        Ok(())
    }

    fn compact(&self, files_merged_at: usize) -> Result<u64, LedgerError> {
        let mut writing = self.write()?;
        let version = self.version.read().clone();
        let mut months: BTreeMap<&str, Vec<FileEntry>> = BTreeMap::new();
        for file in version.files.values().filter(|file| (file.rows as usize) < FILE_LINES_MAX) {
            months.entry(&file.month).or_default().push(file.clone());
        }
        let mut merged = 0;
        for replaced in months.into_values().filter(|files| files.len() >= files_merged_at) {
            let everything = LineFilter::default();
            let (mut added, mut part) = (Vec::new(), Vec::new());
            for line in Merge::new(&*self.disk, &self.root, replaced.iter(), &everything) {
                part.push(line?);
                if part.len() == FILE_LINES_MAX {
                    added.push(self.write_file(&part.iter().collect::<Vec<_>>())?);
                    part.clear();
                }
            }
            if !part.is_empty() {
                added.push(self.write_file(&part.iter().collect::<Vec<_>>())?);
            }
            let sum = |files: &[FileEntry]| files.iter().filter_map(FileEntry::sum).fold(Sum::default(), Sum::and);
            if sum(&added) != sum(&replaced) {
                let reason = format!("merging {} files would not conserve their lines", replaced.len());
                return Err(LedgerError::Damaged { reason });
            }
            self.commit(&mut writing, &added, &replaced, "OPTIMIZE")?;
            merged += replaced.len() as u64;
        }
        let now_ms = self.clock.now().micros() / 1000;
        for (path, _) in version.removed.iter().filter(|(_, at)| now_ms - **at > REMOVED_KEPT_MS) {
            match self.disk.remove(&self.root.join(path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(unavailable("remove a file", error));
                }
                _ => {}
            }
        }
        Ok(merged)
    }

    fn verify(&self) -> Result<Vec<String>, LedgerError> {
        if self.lock.is_none() {
            self.replay()?;
        }
        let version = self.version.read().clone();
        let everything = LineFilter::default();
        let mut problems = Vec::new();
        let mut ids = HashSet::new();
        for file in version.files.values() {
            let mut lines = Vec::new();
            for line in Merge::new(&*self.disk, &self.root, std::iter::once(file), &everything) {
                match line {
                    Ok(line) => lines.push(line),
                    Err(error) => problems.push(error.to_string()),
                }
            }
            for line in &lines {
                if line.identity() != line.id {
                    problems.push(format!("{}: line {} has not the id of its contents", file.path, line.id));
                }
                if !ids.insert(line.id) {
                    problems.push(format!("{}: line {} is there twice", file.path, line.id));
                }
            }
            let borrowed: Vec<&RatedLine> = lines.iter().collect();
            let (_, costs) = parquet_of(&borrowed)?;
            let found = FileEntry::describe(file.path.clone(), &borrowed, costs.into_iter(), &[]);
            if (found.rows, found.ids, found.cost) != (file.rows, file.ids.clone(), file.cost.clone()) {
                problems.push(format!("{}: its lines are not those that the log says", file.path));
            }
        }
        Ok(problems)
    }

    /// Unfinished files that a crash left.
    fn sweep(&self, directory: &Path) -> Result<(), LedgerError> {
        for entry in self.disk.list(directory).map_err(|error| unavailable("open", error))? {
            if entry.name.starts_with(TEMPORARY_PREFIX) {
                self.disk.remove(&directory.join(entry.name)).map_err(|error| unavailable("open", error))?;
            }
        }
        // What a crash left as a name only in memory is made durable before anything is built on it.
        self.disk.sync_directory(directory).map_err(|error| unavailable("open", error))
    }

    /// Every live file is there with its length; files that no version names are removed.
    fn sweep_orphans(&self) -> Result<(), LedgerError> {
        let version = self.version.read().clone();
        let list = |directory: &Path| self.disk.list(directory).map_err(|error| unavailable("open", error));
        let mut missing: HashSet<&str> = version.files.keys().map(String::as_str).collect();
        for directory in list(&self.root)?.into_iter().filter(|entry| entry.name.starts_with("month=")) {
            let within = self.root.join(&directory.name);
            for entry in list(&within)? {
                let path = format!("{}/{}", directory.name, entry.name);
                match version.files.get(&path) {
                    Some(file) if file.bytes == entry.length => {
                        missing.remove(path.as_str());
                    }
                    Some(_) => {}
                    None if version.removed.contains_key(&path) => {}
                    None => {
                        self.disk.remove(&self.root.join(&path)).map_err(|error| unavailable("open", error))?;
                    }
                }
            }
        }
        match missing.iter().next() {
            Some(path) => Err(LedgerError::Damaged {
                reason: format!("{path} is missing or has not the length that the log says"),
            }),
            None => Ok(()),
        }
    }
}

/// Sorted lines as a file's bytes, with the costs as the table keeps them.
fn parquet_of(lines: &[&RatedLine]) -> Result<(Vec<u8>, Vec<i128>), LedgerError> {
    use arrow::{array::AsArray, datatypes::Decimal128Type};
    let failed = |error: parquet::errors::ParquetError| unavailable("encode", error);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(failed)?))
        // Each id is there once.
        .set_column_dictionary_enabled("id".into(), false)
        .set_column_dictionary_enabled("corrects".into(), false)
        .set_max_row_group_row_count(Some(GROUP_LINES))
        .build();
    let mut bytes = Vec::new();
    let mut costs = Vec::with_capacity(lines.len());
    let mut writer = ArrowWriter::try_new(&mut bytes, arrow_schema(), Some(properties)).map_err(failed)?;
    for part in lines.chunks(ENCODED_LINES) {
        let batch = encode(part)?;
        if let Some(column) = batch.column_by_name("cost") {
            costs.extend(column.as_primitive::<Decimal128Type>().values().iter().copied());
        }
        writer.write(&batch).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok((bytes, costs))
}
