//! Keeps opening short: every so many commits a copy of the whole version, so that neither we nor outside readers read all commits from
//! the first one.
//!
//! Two copies, as the store of samples has them: Delta's checkpoint in the log, which we never read, and one of our own beside the
//! table: actions with a checksum, as a commit has them, and which commit they were made after. Commits stay, so that a copy is never needed: one
//! that is damaged or of another table is passed over, with a warning, and what opens is what the commits say.

use std::{io::ErrorKind, path::Path, sync::atomic::Ordering};

use orzo_rating::LedgerError;
use orzo_store::{
    delta::{
        LAST_CHECKPOINT, LOG, checkpoint_name, checkpoint_pointer, commit_name, decode_commit, encode_checkpoint,
        encode_commit,
    },
    files::{publish, read_all, stage},
};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::{Inner, Version, unavailable};

/// How many of our own copies are kept: where the newest one is damaged, the one before is not.
const COPIES_KEPT: usize = 2;
/// The first action of a copy: which version it is of, and the checksum of that version's commit.
const SNAPSHOT: &str = "snapshot";

impl Inner {
    /// Writes a checkpoint if enough commits have come since the last one. What it stands for is durable already, so that a failure is
    /// none of the commit: the next commit tries again.
    pub(super) fn checkpoint_if_due(&self, version: &Version) {
        let last = self.checkpointed.load(Ordering::Relaxed);
        if version.number < last + self.checkpoint_commits {
            return;
        }
        match self.checkpoint(version) {
            Ok(()) => self.checkpointed.store(version.number, Ordering::Relaxed),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, version = version.number, "no checkpoint of the ledger was written");
            }
        }
    }

    fn checkpoint(&self, version: &Version) -> Result<(), LedgerError> {
        let (log, now) = (self.root.join(LOG), self.clock.now());
        let mut actions = version.actions(now);
        let bytes = encode_checkpoint(&actions).map_err(|error| unavailable("encode", error))?;
        self.put(&log, &checkpoint_name(version.number), &bytes)?;
        let pointer = checkpoint_pointer(version.number, actions.len(), bytes.len(), version.files.len());
        let replaced = stage(&*self.disk, &log, pointer.as_bytes()).and_then(|staged| {
            self.disk.replace(&staged, &log.join(LAST_CHECKPOINT))?;
            self.disk.sync_directory(&log)
        });
        replaced.map_err(|error| unavailable("write a checkpoint", error))?;
        let commit = self.commit_checksum(version.number)?;
        actions.insert(0, json!({SNAPSHOT: {"version": version.number, "commit": commit}}));
        let own = encode_commit(&actions, "SNAPSHOT", now.micros() / 1000);
        self.put(&self.snapshots, &commit_name(version.number), &own)?;
        self.trim(&log)
    }

    /// The newest copy that is whole and of a commit of this log; `None` without one. `numbers` are the commits that are there.
    pub(super) fn newest_copy(&self, numbers: &[u64]) -> Result<Option<Version>, LedgerError> {
        let mut copies = self.copies()?;
        while let Some(number) = copies.pop() {
            if numbers.last().is_none_or(|last| *last < number) {
                let (log, copies) = (self.root.join(LOG), self.snapshots.display());
                let reason = format!("commit {number} is missing in {}, and {copies} has a copy of it", log.display());
                return Err(LedgerError::Damaged { reason });
            }
            let path = self.snapshots.join(commit_name(number));
            let bytes = read_all(&*self.disk, &path).map_err(|error| unavailable("read", error))?;
            match version_of(&path, number, &bytes, &self.commit_checksum(number)?) {
                Ok(version) => return Ok(Some(version)),
                Err(reason) => tracing::warn!(reason, "a copy of the ledger's log is passed over"),
            }
        }
        Ok(None)
    }

    /// Versions that there are copies of, oldest first.
    fn copies(&self) -> Result<Vec<u64>, LedgerError> {
        let entries = match self.disk.list(&self.snapshots) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| unavailable("read", error))?,
        };
        let mut copies: Vec<u64> =
            entries.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok()).collect();
        copies.sort_unstable();
        Ok(copies)
    }

    fn commit_checksum(&self, number: u64) -> Result<String, LedgerError> {
        let bytes = read_all(&*self.disk, &self.root.join(LOG).join(commit_name(number)));
        Ok(format!("{:032x}", xxh3_128(&bytes.map_err(|error| unavailable("read", error))?)))
    }

    /// Writes a file in place of one of that name, which an attempt that failed later has left.
    fn put(&self, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let written = match self.disk.remove(&directory.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => stage(&*self.disk, directory, bytes).and_then(|staged| publish(&*self.disk, &staged, directory, name)),
        };
        written.map_err(|error| unavailable("write a checkpoint", error))
    }

    /// Removes the copies that newer ones make superfluous.
    fn trim(&self, log: &Path) -> Result<(), LedgerError> {
        let copies = self.copies()?;
        for number in copies.iter().rev().skip(COPIES_KEPT) {
            for path in [log.join(checkpoint_name(*number)), self.snapshots.join(commit_name(*number))] {
                match self.disk.remove(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(unavailable("remove a file", error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Reads a copy; the error says why it is none of this log.
fn version_of(path: &Path, number: u64, bytes: &[u8], commit: &str) -> Result<Version, String> {
    let mut actions: Vec<Value> = decode_commit(path, bytes).map_err(|error| error.to_string())?;
    let expected = json!({SNAPSHOT: {"version": number, "commit": commit}});
    if actions.is_empty() || actions.remove(0) != expected {
        return Err(format!("{}: it was not made after this log's commit {number}", path.display()));
    }
    Version::of(path, number, actions)
}
