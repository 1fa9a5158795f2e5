//! The table's files: opening, commits, checkpoints, removing. Everything here blocks.
//!
//! What is here can be made again from the names at any time. So nothing is repaired: a log that cannot be followed is removed with all
//! files, loudly, and a file that is not what its entry says is given up, so that its rows are written to another one.

use std::{
    collections::HashSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use orzo_model::Timestamp;
use orzo_store::{
    delta::{
        LAST_CHECKPOINT, LOG, checkpoint_name, checkpoint_pointer, commit_name, decode_commit, encode_checkpoint,
        encode_commit,
    },
    files::{Disk, TEMPORARY_PREFIX, publish, read_all, stage},
};
use serde_json::Value;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    columns::Rows,
    log::{Entry, Version, change, first_actions},
};
use crate::NamesError;

/// How many of our own copies of versions are kept: where the newest one is damaged, the one before is not.
const COPIES_KEPT: usize = 2;

/// Where the table lies.
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
    pub(crate) checkpoint_commits: u64,
}

/// The table as it is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) version: Version,
    /// Version of the newest checkpoint.
    pub(crate) checkpointed: u64,
    /// Live files that are not what the log says.
    pub(crate) damaged: HashSet<String>,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> NamesError {
    let path = path.to_owned();
    move |source| NamesError::Disk { action, path, source }
}

impl Files {
    fn log(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Beside the table, so that other engines do not see it.
    fn copies_directory(&self) -> PathBuf {
        self.root.with_extension("snapshots")
    }

    /// Opens the table; makes it where there is none, or none that can be read.
    pub(crate) fn open(&self, now: Timestamp) -> Result<Opened, NamesError> {
        self.make_directories()?;
        for directory in [self.root.clone(), self.log(), self.copies_directory()] {
            self.sweep(&directory)?;
        }
        let found = match self.replay()? {
            Ok(found) => found,
            Err(reason) => {
                tracing::error!(reason, "THE TABLE series IS DAMAGED: it is removed and made again from the names");
                self.remove_all()?;
                None
            }
        };
        let (version, checkpointed) = match found {
            Some(found) => found,
            None => {
                let actions = first_actions(now);
                self.write_commit(0, &actions, "CREATE TABLE", now)?;
                let made = Version::default().apply(&self.log(), 0, &actions);
                tracing::info!(directory = %self.root.display(), "the table series is made from the names");
                (made.expect("our own actions"), 0)
            }
        };
        let damaged = self.check(&version)?;
        Ok(Opened { version, checkpointed, damaged })
    }

    fn make_directories(&self) -> Result<(), NamesError> {
        for directory in [self.log(), self.copies_directory()] {
            self.disk.make_directory(&directory).map_err(failed("make", &directory))?;
        }
        let parent = self.root.parent().unwrap_or(&self.root);
        for directory in [&*self.root, parent] {
            self.disk.sync_directory(directory).map_err(failed("sync", directory))?;
        }
        Ok(())
    }

    /// Removes what was not finished, and makes names durable that a crash may have left in memory only.
    fn sweep(&self, directory: &Path) -> Result<(), NamesError> {
        for entry in self.disk.list(directory).map_err(failed("list", directory))? {
            if entry.name.starts_with(TEMPORARY_PREFIX) {
                self.remove(&directory.join(entry.name))?;
            }
        }
        self.disk.sync_directory(directory).map_err(failed("sync", directory))
    }

    fn numbers(&self, directory: &Path) -> Result<Vec<u64>, NamesError> {
        let entries = self.disk.list(directory).map_err(failed("list", directory))?;
        let mut numbers: Vec<u64> =
            entries.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn decode(&self, path: &Path) -> Result<Result<Vec<Value>, String>, NamesError> {
        let bytes = read_all(&*self.disk, path).map_err(failed("read", path))?;
        Ok(decode_commit(path, &bytes).map_err(|error| error.to_string()))
    }

    /// The newest version and that of the newest copy, `None` without a table; or why the log cannot be followed.
    #[allow(clippy::type_complexity)]
    fn replay(&self) -> Result<Result<Option<(Version, u64)>, String>, NamesError> {
        let log = self.log();
        let (commits, mut copies) = (self.numbers(&log)?, self.numbers(&self.copies_directory())?);
        let mut version = None;
        let newest_copy = copies.last().copied().unwrap_or(0);
        while let Some(number) = copies.pop() {
            let path = self.copies_directory().join(commit_name(number));
            match self.decode(&path)?.and_then(|actions| Version::default().apply(&path, number, &actions)) {
                Ok(copy) => {
                    version = Some(copy);
                    break;
                }
                Err(reason) => tracing::warn!(reason, "a copy of the log of the table series is passed over"),
            }
        }
        if version.is_none() && commits.is_empty() {
            let entries = self.disk.list(&self.root).map_err(failed("list", &self.root))?;
            let has_files = entries.iter().any(|entry| entry.name.ends_with(".parquet"));
            return Ok(if has_files { Err(format!("{} is empty", log.display())) } else { Ok(None) });
        }
        let first = version.as_ref().map_or(0, |version: &Version| version.number + 1);
        let mut version = version.unwrap_or_default();
        for (next, number) in (first..).zip(commits.into_iter().filter(|number| *number >= first)) {
            if number != next {
                return Ok(Err(format!("commit {next} is missing in {}", log.display())));
            }
            let path = log.join(commit_name(number));
            let applied = self.decode(&path)?.and_then(|actions| version.apply(&path, number, &actions));
            version = match applied {
                Ok(version) => version,
                Err(reason) => return Ok(Err(reason)),
            };
        }
        Ok(Ok(Some((version, newest_copy))))
    }

    /// Removes files that no version names; says which live ones are not what the log says.
    fn check(&self, version: &Version) -> Result<HashSet<String>, NamesError> {
        let entries = self.disk.list(&self.root).map_err(failed("list", &self.root))?;
        for entry in entries.iter().filter(|entry| entry.name.ends_with(".parquet")) {
            if !version.files.contains_key(&entry.name) && !version.removed.contains_key(&entry.name) {
                self.remove(&self.root.join(&entry.name))?;
            }
        }
        let mut damaged = HashSet::new();
        for file in version.files.values() {
            let path = self.root.join(&file.path);
            let is_whole = match read_all(&*self.disk, &path) {
                Ok(bytes) => format!("{:032x}", xxh3_128(&bytes)) == file.checksum,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(failed("read", &path)(error)),
            };
            if !is_whole {
                tracing::error!(
                    file = %path.display(),
                    "A FILE OF THE TABLE series IS MISSING OR DAMAGED: its rows are written again from the names"
                );
                damaged.insert(file.path.clone());
            }
        }
        Ok(damaged)
    }

    /// Removes the whole table. The log goes first, its newest commits before older ones: what a crash leaves is an earlier version, or none.
    fn remove_all(&self) -> Result<(), NamesError> {
        for directory in [self.copies_directory(), self.log(), self.root.clone()] {
            let entries = self.disk.list(&directory).map_err(failed("list", &directory))?;
            for entry in entries.iter().rev().filter(|entry| !entry.is_directory) {
                self.remove(&directory.join(&entry.name))?;
            }
            self.disk.sync_directory(&directory).map_err(failed("sync", &directory))?;
        }
        Ok(())
    }

    /// Removes a file; one that is not there is removed.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), NamesError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes a file of rows. No version names it yet.
    pub(crate) fn write(&self, rows: Rows) -> Result<Entry, NamesError> {
        let (count, series, content) = (rows.count() as u64, rows.range(), rows.content());
        let bytes = rows.parquet()?;
        let path = format!("{}.parquet", Uuid::new_v4());
        self.put(&self.root, &path, &bytes)?;
        let checksum = format!("{:032x}", xxh3_128(&bytes));
        Ok(Entry { path, rows: count, bytes: bytes.len() as u64, series, checksum, content })
    }

    /// Puts files in and takes others out, in one commit. After an error it is not known whether it is on disk: open again.
    pub(crate) fn commit(
        &self,
        opened: &Opened,
        added: &[Entry],
        removed: &[Entry],
        now: Timestamp,
    ) -> Result<Opened, NamesError> {
        let number = opened.version.number + 1;
        let actions = change(added, removed, now);
        let version = opened.version.clone().apply(&self.log(), number, &actions).expect("our own actions");
        self.write_commit(number, &actions, "WRITE", now)?;
        let mut next = Opened { version, checkpointed: opened.checkpointed, damaged: opened.damaged.clone() };
        next.damaged.retain(|path| next.version.files.contains_key(path));
        if number >= next.checkpointed + self.checkpoint_commits {
            match self.checkpoint(&next.version, now) {
                Ok(()) => next.checkpointed = number,
                // What it stands for is durable already; the next commit tries again.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, version = number, "no checkpoint of the table series was written");
                }
            }
        }
        Ok(next)
    }

    /// Removes files that left the table before this time; gives the version that does not name them any more.
    pub(crate) fn vacuum(&self, opened: &mut Opened, before_ms: i64) -> Result<(), NamesError> {
        let due: Vec<String> =
            opened.version.removed.iter().filter(|(_, at)| **at <= before_ms).map(|(path, _)| path.clone()).collect();
        for path in due {
            self.remove(&self.root.join(&path))?;
            opened.version.removed.remove(&path);
        }
        Ok(())
    }

    fn write_commit(&self, number: u64, actions: &[Value], operation: &str, now: Timestamp) -> Result<(), NamesError> {
        let bytes = encode_commit(actions, operation, now.micros() / 1000);
        self.put(&self.log(), &commit_name(number), &bytes)
    }

    fn put(&self, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), NamesError> {
        let written =
            stage(&*self.disk, directory, bytes).and_then(|staged| publish(&*self.disk, &staged, directory, name));
        written.map_err(failed("write", &directory.join(name)))
    }

    /// Writes both copies of a version, Delta's and ours, and removes commits that only older copies need.
    fn checkpoint(&self, version: &Version, now: Timestamp) -> Result<(), NamesError> {
        let (log, copies) = (self.log(), self.copies_directory());
        let actions = version.actions(now);
        let bytes = encode_checkpoint(&actions).map_err(NamesError::Encode)?;
        let name = checkpoint_name(version.number);
        // What an attempt that failed later has left.
        self.remove(&log.join(&name))?;
        self.put(&log, &name, &bytes)?;
        let pointer = checkpoint_pointer(version.number, actions.len(), bytes.len(), version.files.len());
        let replaced = stage(&*self.disk, &log, pointer.as_bytes()).and_then(|staged| {
            self.disk.replace(&staged, &log.join(LAST_CHECKPOINT))?;
            self.disk.sync_directory(&log)
        });
        replaced.map_err(failed("write", &log.join(LAST_CHECKPOINT)))?;
        let own = encode_commit(&actions, "SNAPSHOT", now.micros() / 1000);
        self.remove(&copies.join(commit_name(version.number)))?;
        self.put(&copies, &commit_name(version.number), &own)?;
        let numbers = self.numbers(&copies)?;
        let Some(oldest) = numbers.iter().rev().nth(COPIES_KEPT - 1) else { return Ok(()) };
        for number in numbers.iter().filter(|number| *number < oldest) {
            self.remove(&copies.join(commit_name(*number)))?;
        }
        for entry in self.disk.list(&log).map_err(failed("list", &log))? {
            let number = entry.name.split('.').next().and_then(|number| number.parse::<u64>().ok());
            if number.is_some_and(|number| number < *oldest) {
                self.remove(&log.join(&entry.name))?;
            }
        }
        Ok(())
    }
}
