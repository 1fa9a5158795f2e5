//! The table: sorted Parquet files, and the log that says which of them count.
//!
//! Comes in: points of a day, actions to commit. Goes out: versions ([`Snapshot`]). One commit is one new file in
//! `_delta_log`, whole and durable before it has its name, and never written over: that is the store's only manifest.
//! It does not know the write-ahead log, except for the sequence that a commit covers.

pub(crate) mod action;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod columns;
mod contents;
pub(crate) mod data_file;
pub(crate) mod day;
pub(crate) mod decode;
pub(crate) mod deltas;
pub(crate) mod encode;
pub(crate) mod file_index;
pub(crate) mod format1;
mod noise;
pub(crate) mod output;
pub(crate) mod packing;
pub(crate) mod pages;
pub(crate) mod reader;
pub(crate) mod snapshot;
mod stairs;
mod streams;
mod widths;

/// Name of a commit's file, and of our copy of that version.
pub(crate) use crate::delta::commit_name;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use orzo_model::Timestamp;
use uuid::Uuid;

use self::{
    action::{Action, Operation, decode_commit, encode_commit},
    data_file::DataFile,
    day::Day,
    encode::Encoded,
    snapshot::{FORMAT, Snapshot, first_actions, metadata},
};
use crate::{
    delta::LOG,
    error::{At, StoreError},
    files::{Away, Disk, TEMPORARY_PREFIX, publish, read_all, stage},
};

/// The table's place on disk.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory that readers are given.
    pub(crate) root: PathBuf,
    /// Where our own copies of whole versions are.
    pub(crate) snapshots: PathBuf,
}

/// Why a commit was not made.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Nothing changed; it may be tried again.
    NotMade(StoreError),
    /// It is on disk or not; only reading the log again tells.
    Unknown(StoreError),
    /// Somebody else made this version.
    Taken(StoreError),
}

impl CommitError {
    /// What happened, whatever it means for the next commit.
    pub(crate) fn into_error(self) -> StoreError {
        match self {
            Self::NotMade(error) | Self::Unknown(error) | Self::Taken(error) => error,
        }
    }
}

/// Asked when the place of the log did not answer: whether to publish the same commit once more.
pub(crate) type Again<'a> = dyn FnMut(&std::io::Error) -> bool + 'a;

impl Table {
    /// Reads the newest version, or makes a new table if there is none. `claim` may make a version of it before anything is
    /// removed.
    pub(crate) fn open(
        &self,
        now: Timestamp,
        claim: impl FnOnce(Snapshot) -> Result<Snapshot, StoreError>,
    ) -> Result<Snapshot, StoreError> {
        let log = self.log_directory();
        for directory in [&self.root, &log, &self.snapshots] {
            self.disk.make_directory(directory).at("make", directory)?;
            let parent = directory.parent().unwrap_or(directory);
            self.disk.sync_directory(parent).at("sync", parent)?;
        }
        self.sweep_unfinished(&log)?;
        self.sweep_unfinished(&self.snapshots)?;
        // What a crash left as a name only in memory is made durable before anything is built on it.
        self.disk.sync_directory(&log).at("sync", &log)?;
        let snapshot = match self.replay()? {
            Some(snapshot) => snapshot,
            None => {
                let actions = first_actions(Uuid::new_v4(), now);
                self.write_commit(0, &actions, Operation::Create, now, &mut |_| false)
                    .map_err(CommitError::into_error)?;
                Snapshot::first(&log, 0, actions)?
            }
        };
        let snapshot = claim(snapshot)?;
        self.check_files(&snapshot)?;
        self.upgrade(snapshot, now)
    }

    /// A table of an earlier format gets the columns of today's; its files stay as they are until they are merged. When the
    /// last of them is gone the column goes that only they have.
    fn upgrade(&self, snapshot: Snapshot, now: Timestamp) -> Result<Snapshot, StoreError> {
        let has_old_files = snapshot.has_old_files();
        if snapshot.format == FORMAT && snapshot.has_old_value == has_old_files {
            return Ok(snapshot);
        }
        let actions = [Action::MetaData(metadata(snapshot.store_id, now, has_old_files))];
        self.commit(&snapshot, &actions, Operation::Upgrade, now, &mut |_| false).map_err(CommitError::into_error)
    }

    /// The newest version that the log tells; `None` without a log.
    pub(crate) fn replay(&self) -> Result<Option<Snapshot>, StoreError> {
        let log = self.log_directory();
        let names = self.disk.list(&log).at("list", &log)?;
        let versions: Vec<u64> = names
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(".json"))
            .filter_map(|name| name.parse().ok())
            .collect();
        let mut snapshot = self.newest_snapshot()?;
        if let Some(snapshot) = &snapshot
            && versions.last().is_none_or(|last| *last < snapshot.version)
        {
            let path = log.join(commit_name(snapshot.version));
            return Err(StoreError::damaged(path, 0, "the newest commits are missing"));
        }
        for version in versions {
            if snapshot.as_ref().is_some_and(|snapshot| version <= snapshot.version) {
                continue;
            }
            let path = log.join(commit_name(version));
            let expected = snapshot.as_ref().map_or(0, |snapshot| snapshot.version + 1);
            if version != expected {
                return Err(StoreError::damaged(log.join(commit_name(expected)), 0, "this commit is missing"));
            }
            let actions = decode_commit(&path, &read_all(&*self.disk, &path).at("read", &path)?)?;
            snapshot = Some(match snapshot {
                None => Snapshot::first(&path, version, actions)?,
                Some(snapshot) => snapshot.apply(&path, version, &actions)?,
            });
        }
        Ok(snapshot)
    }

    fn newest_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let version = self.checkpoint_version()?;
        if version == 0 {
            return Ok(None);
        }
        let path = self.snapshots.join(commit_name(version));
        let actions = decode_commit(&path, &read_all(&*self.disk, &path).at("read", &path)?)?;
        Snapshot::first(&path, version, actions).map(Some)
    }

    /// Makes a version durable. Only one commit may be under way at a time.
    pub(crate) fn commit(
        &self,
        snapshot: &Snapshot,
        actions: &[Action],
        operation: Operation,
        now: Timestamp,
        again: &mut Again<'_>,
    ) -> Result<Snapshot, CommitError> {
        let version = snapshot.version + 1;
        let path = self.log_directory().join(commit_name(version));
        let next = snapshot.apply(&path, version, actions).map_err(CommitError::NotMade)?;
        self.write_commit(version, actions, operation, now, again)?;
        Ok(next)
    }

    /// Writes a commit of which somebody else knows what it means.
    pub(crate) fn write_commit(
        &self,
        version: u64,
        actions: &[Action],
        operation: Operation,
        now: Timestamp,
        again: &mut Again<'_>,
    ) -> Result<(), CommitError> {
        let log = self.log_directory();
        let bytes = encode_commit(actions, operation, now.micros() / 1000);
        let staged = stage(&*self.disk, &log, &bytes).at("write", &log).map_err(CommitError::NotMade)?;
        let path = log.join(commit_name(version));
        loop {
            // The same bytes each time: whichever try is the one that counts, the version is the same.
            let error = match self.disk.rename(&staged, &path).and_then(|()| self.disk.sync_directory(&log)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            #[cfg(test)]
            if Away::is(&error) && self.disk.planted() == Some(crate::files::Planted::UnansweredIsNotMade) {
                return Err(CommitError::NotMade(StoreError::Io { action: "publish", path, source: error }));
            }
            if Away::is(&error) && again(&error) {
                continue;
            }
            let _ = self.disk.remove(&staged);
            let is_taken = error.kind() == std::io::ErrorKind::AlreadyExists && !Away::is(&error);
            let error = StoreError::Io { action: "publish", path, source: error };
            return Err(if is_taken { CommitError::Taken(error) } else { CommitError::Unknown(error) });
        }
    }

    /// Writes a data file, durably. It counts once a commit names it.
    pub(crate) fn write_file(
        &self,
        day: Day,
        generation: u64,
        ordinal: usize,
        encoded: &Encoded,
    ) -> Result<DataFile, StoreError> {
        let name = format!("{generation:020}-{ordinal:04}-{}.parquet", Uuid::new_v4());
        let path = format!("{}/{name}", day.directory());
        let directory = self.root.join(day.directory());
        self.disk.make_directory(&directory).at("make", &directory)?;
        self.disk.sync_directory(&self.root).at("sync", &self.root)?;
        let staged = stage(&*self.disk, &directory, &encoded.bytes).at("write", &directory)?;
        publish(&*self.disk, &staged, &directory, &name).at("publish", &directory.join(&name))?;
        Ok(DataFile::describe(path, day, generation, encoded))
    }

    /// Removes files that no commit names. Best effort: what stays is swept at the next start.
    pub(crate) fn discard(&self, files: &[DataFile]) {
        for file in files {
            let _ = self.disk.remove(&self.root.join(&file.path));
        }
    }

    /// Removes a file that left the table long enough ago.
    pub(crate) fn remove_file(&self, path: &str) -> Result<(), StoreError> {
        let path = self.root.join(path);
        match self.disk.remove(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.at("remove", &path),
        }
    }

    /// Every live file is there with its length; whatever no version names is removed.
    fn check_files(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut missing: HashMap<&str, u64> =
            snapshot.files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
        let live: HashSet<&str> = missing.keys().copied().collect();
        for entry in self.disk.list_below(&self.root).at("list", &self.root)? {
            let is_data = entry.name.starts_with("day=") && entry.name.contains('/');
            if live.contains(entry.name.as_str()) {
                if missing.get(entry.name.as_str()) == Some(&entry.length) {
                    missing.remove(entry.name.as_str());
                }
            } else if is_data && !snapshot.removed.contains_key(&entry.name) {
                let path = self.root.join(&entry.name);
                self.disk.sweep(&path).at("remove", &path)?;
            }
        }
        match missing.iter().next() {
            Some((path, bytes)) => {
                let reason = format!("it is missing or has not the {bytes} bytes that the log says");
                Err(StoreError::damaged(self.root.join(path), 0, reason))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn sweep_unfinished(&self, directory: &Path) -> Result<(), StoreError> {
        for entry in self.disk.list(directory).at("list", directory)? {
            if entry.name.starts_with(TEMPORARY_PREFIX) {
                let path = directory.join(&entry.name);
                self.disk.remove(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn log_directory(&self) -> PathBuf {
        self.root.join(LOG)
    }
}
