//! The rollups' table on disk: opening, commits, files. What cannot be read is dropped, with a word in the log.

use std::{collections::HashSet, path::Path, sync::Arc};

use orzo_model::{Point, Timestamp};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::{
    Rollups,
    version::{Layer, RolledFile, Source, Version, first_actions, partition},
};
use crate::{
    error::{At, StoreError},
    files::{Disk, publish, read_all, stage},
    table::{
        CommitError, Table,
        action::{Action, Operation, Remove, decode_commit},
        commit_name,
        data_file::DataFile,
        day::Day,
        encode::Encoder,
    },
};

/// Rows of a row group of rollups, which are held until it is whole: for each layer that is made 3 MB.
const GROUP_ROWS: usize = 1 << 17;
/// Rows of one file: it is in memory until it is written, at 1 to 8 bytes for each row and for each layer.
const FILE_ROWS_MAX: u64 = if cfg!(test) { 64 } else { 2 << 20 };
/// Commits between two checkpoints: opening reads no more than twice as many.
const CHECKPOINT_COMMITS: u64 = if cfg!(test) { 5 } else { 200 };

impl Rollups {
    /// Reads what is there; nothing is made before there is something to write. Never fails: without rollups raw points
    /// answer.
    pub(in super::super) fn open(disk: &Arc<dyn Disk>, directory: &Path) -> Self {
        let table = Table {
            disk: disk.clone(),
            root: directory.join("rollups"),
            snapshots: directory.join("rollups.snapshots"),
        };
        let (mut version, mut off) = (Version::default(), None);
        match replay(&table).and_then(|version| sweep(&table, &version).map(|()| version)) {
            Ok(read) => version = read,
            Err(error @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => {
                tracing::warn!("{error}; all rollups are dropped and made again from the raw points");
                if let Err(error) = wipe(&table) {
                    off = Some(error.to_string());
                }
            }
            Err(error) => off = Some(error.to_string()),
        }
        if let Some(reason) = &off {
            tracing::warn!("{reason}; there are no rollups until the next start, raw points answer");
        }
        Self {
            table,
            version: RwLock::new(Arc::new(version)),
            rolling: Mutex::new(()),
            off: RwLock::new(off),
            broken: Mutex::default(),
            failed: Mutex::default(),
            cleaned_at: Mutex::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.table.root
    }

    /// Makes the next version durable; whoever calls holds `rolling`.
    pub(super) fn commit(&self, actions: Vec<Action>, operation: Operation, now: Timestamp) -> Result<(), StoreError> {
        let mut version = Version::clone(&self.version.read());
        let log = self.table.log_directory();
        if version.number.is_none() {
            // Where there is a log there is all of it.
            for directory in [&self.table.root, &self.table.snapshots, &log] {
                self.table.disk.make_directory(directory).at("make", directory)?;
                let parent = directory.parent().unwrap_or(directory);
                self.table.disk.sync_directory(parent).at("sync", parent)?;
            }
            let first = first_actions(Uuid::new_v4(), now);
            version = self.write(&version, 0, &first, Operation::Create, now)?;
        }
        let number = version.number.map_or(0, |number| number + 1);
        self.write(&version, number, &actions, operation, now)?;
        if number.is_multiple_of(CHECKPOINT_COMMITS) {
            let version = self.version.read().clone();
            let actions = version.actions(now);
            let keep_from = number.saturating_sub(CHECKPOINT_COMMITS);
            let written = self.table.checkpoint_of(number, &actions, version.files.len(), now, keep_from);
            if let Err(error) = written {
                tracing::warn!("no checkpoint of the rollups was written: {error}");
            }
        }
        Ok(())
    }

    fn write(
        &self,
        version: &Version,
        number: u64,
        actions: &[Action],
        operation: Operation,
        now: Timestamp,
    ) -> Result<Version, StoreError> {
        let path = self.table.log_directory().join(commit_name(number));
        let next = version.apply(&path, number, actions)?;
        match self.table.write_commit(number, actions, operation, now, &mut |_| false) {
            Ok(()) => {}
            Err(CommitError::NotMade(error)) => return Err(error),
            Err(CommitError::Unknown(error) | CommitError::Taken(error)) => {
                // Whether it is there only reading the log again tells, at the next start.
                *self.off.write() = Some(error.to_string());
                *self.version.write() = Arc::new(Version::default());
                return Err(error);
            }
        }
        *self.version.write() = Arc::new(next.clone());
        Ok(next)
    }

    /// The action that takes a file out of the table.
    pub(super) fn removal(file: &RolledFile, now: Timestamp) -> Action {
        Action::Remove(Remove {
            path: file.file.path.clone(),
            deletion_timestamp: now.micros() / 1000,
            data_change: true,
            extended_file_metadata: true,
            partition_values: partition(file.layer),
            size: file.file.bytes,
        })
    }

    /// Removes from disk what left the table before a time; best effort, what stays goes at the next start.
    pub(super) fn vacuum(&self, until: Timestamp) {
        let version = self.version.read().clone();
        for path in version.removed.iter().filter(|(_, at)| **at <= until).map(|(path, _)| path) {
            if self.table.remove_file(path).is_ok() {
                Arc::make_mut(&mut self.version.write()).removed.remove(path);
            }
        }
    }

    /// Removes files that no commit names.
    pub(super) fn discard(&self, files: &[RolledFile]) {
        for file in files {
            let _ = self.table.disk.remove(&self.table.root.join(&file.file.path));
        }
    }

    /// The number of the part that the next commit makes.
    pub(super) fn next_part(&self) -> u64 {
        // The first commit of all makes the table.
        self.version.read().number.map_or(1, |number| number + 1)
    }
}

/// Rows of one layer on their way to files.
pub(super) struct Sheet {
    layer: Layer,
    part: u64,
    days: Arc<Vec<(Day, Source)>>,
    ordinal: usize,
    encoder: Option<Encoder>,
}

impl Sheet {
    pub(super) fn new(layer: Layer, part: u64, days: Vec<(Day, Source)>) -> Self {
        Self { layer, part, days: Arc::new(days), ordinal: 0, encoder: None }
    }

    /// Takes rows on, sorted by series and time; a file that is full is written.
    pub(super) fn push(
        &mut self,
        rollups: &Rollups,
        rows: &[Point],
        written: &mut Vec<RolledFile>,
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::of_groups(GROUP_ROWS, 0).map_err(|error| self.failed(rollups, error))?,
        };
        encoder.push(rows).map_err(|error| self.failed(rollups, error))?;
        let is_full = encoder.rows() >= FILE_ROWS_MAX;
        self.encoder = Some(encoder);
        // A series is never in two files of a part.
        if is_full { self.finish(rollups, written) } else { Ok(()) }
    }

    /// Writes what is left.
    pub(super) fn finish(&mut self, rollups: &Rollups, written: &mut Vec<RolledFile>) -> Result<(), StoreError> {
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        let Some((day, _)) = self.days.first().copied() else { return Ok(()) };
        let encoded = encoder.finish().map_err(|error| self.failed(rollups, error))?;
        let (table, below) = (&rollups.table, self.layer.directory());
        let name = format!("{day}-{:020}-{:04}-{}.parquet", self.part, self.ordinal, Uuid::new_v4());
        let directory = table.root.join(&below);
        table.disk.make_directory(&directory).at("make", &directory)?;
        for above in directory.ancestors().skip(1).take(2).chain(table.root.parent()) {
            table.disk.sync_directory(above).at("sync", above)?;
        }
        let staged = stage(&*table.disk, &directory, &encoded.bytes).at("write", &directory)?;
        publish(&*table.disk, &staged, &directory, &name).at("publish", &directory.join(&name))?;
        let file = DataFile::describe(format!("{below}/{name}"), day, self.part, &encoded);
        let (layer, part, days) = (self.layer, self.part, self.days.clone());
        written.push(RolledFile { layer, part, days, file: Arc::new(file) });
        self.ordinal += 1;
        Ok(())
    }

    fn failed(&self, rollups: &Rollups, error: parquet::errors::ParquetError) -> StoreError {
        StoreError::Io {
            action: "encode",
            path: rollups.table.root.join(self.layer.directory()),
            source: std::io::Error::other(error),
        }
    }
}

/// The newest version that the log tells; an empty one without a log.
fn replay(table: &Table) -> Result<Version, StoreError> {
    let log = table.log_directory();
    let names = match table.disk.list(&log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Version::default()),
        other => other.at("list", &log)?,
    };
    let mut numbers: Vec<u64> =
        (names.iter()).filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut version = Version::default();
    let copy = table.checkpoint_version()?;
    if copy > 0 {
        let path = table.snapshots.join(commit_name(copy));
        let actions = decode_commit(&path, &read_all(&*table.disk, &path).at("read", &path)?)?;
        version = version.apply(&path, copy, &actions)?;
    }
    for number in numbers {
        if version.number.is_some_and(|known| number <= known) {
            continue;
        }
        let path = log.join(commit_name(number));
        let expected = version.number.map_or(0, |known| known + 1);
        if number != expected {
            return Err(StoreError::damaged(log.join(commit_name(expected)), 0, "this commit is missing"));
        }
        let actions = decode_commit(&path, &read_all(&*table.disk, &path).at("read", &path)?)?;
        version = version.apply(&path, number, &actions)?;
    }
    Ok(version)
}

/// Every file of the table, by its path below it.
fn files_on_disk(table: &Table) -> Result<Vec<String>, StoreError> {
    let mut files = Vec::new();
    let directories = |path: &Path| -> Result<Vec<String>, StoreError> {
        let entries = match table.disk.list(path) {
            // There never was one.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.at("list", path)?,
        };
        Ok(entries.into_iter().filter(|entry| entry.is_directory).map(|entry| entry.name).collect())
    };
    for width in directories(&table.root)?.into_iter().filter(|name| name.starts_with("granularity=")) {
        for statistic in directories(&table.root.join(&width))? {
            let below = format!("{width}/{statistic}");
            let path = table.root.join(&below);
            let entries = table.disk.list(&path).at("list", &path)?;
            files.extend(entries.into_iter().map(|entry| format!("{below}/{}", entry.name)));
        }
    }
    Ok(files)
}

/// Removes what a stop left, and what left the table.
fn sweep(table: &Table, version: &Version) -> Result<(), StoreError> {
    if version.number.is_some() {
        table.sweep_unfinished(&table.log_directory())?;
        table.sweep_unfinished(&table.snapshots)?;
    }
    let live: HashSet<&str> = version.files.iter().map(|file| file.file.path.as_str()).collect();
    for path in files_on_disk(table)? {
        if !live.contains(path.as_str()) && !version.removed.contains_key(&path) {
            table.remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes everything: first the log, so that nothing of it counts any more.
fn wipe(table: &Table) -> Result<(), StoreError> {
    let log = table.log_directory();
    // From the newest to the oldest, so that what a crash leaves is a log that can be read.
    for directory in [&table.snapshots, &log] {
        let entries = match table.disk.list(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.at("list", directory)?,
        };
        for entry in entries.iter().rev() {
            let path = directory.join(&entry.name);
            table.disk.remove(&path).at("remove", &path)?;
        }
        table.disk.sync_directory(directory).at("sync", directory)?;
    }
    for path in files_on_disk(table)? {
        table.remove_file(&path)?;
    }
    Ok(())
}
