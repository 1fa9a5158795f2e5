//! A full pass over everything on disk, held against checksums, hashes and what is in memory.

use super::Shared;
use crate::{error::StoreError, table::check, tombstones::Tombstones, wal};

/// What a full pass found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records of the log that are not in the table yet.
    pub wal_records: u64,
    /// What does not match, for people; empty when all is well.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// How far a pass over the files is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes behind it.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// The file at hand, relative to the table.
    pub file: String,
}

impl Shared {
    pub(super) fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, StoreError> {
        // Nothing is merged or removed meanwhile; appends and flushes go on.
        let _tidying = self.tidying.lock();
        let snapshot = self.state.read().snapshot.clone();
        let elsewhere = self.table.disk.elsewhere();
        let mut report = VerifyReport::default();
        let bytes_total = snapshot.files.iter().map(|file| file.bytes).sum();
        for file in &snapshot.files {
            progress(Progress { bytes_done: report.bytes, bytes_total, file: file.path.clone() });
            report.files += 1;
            report.rows += file.rows;
            report.bytes += file.bytes;
            report.note(check::check(&self.table.disk, &self.table.root, file));
            if let Some(elsewhere) = &elsewhere {
                // Above it was perhaps a copy; this is what a new machine would get.
                report.note(check::check(&elsewhere.original, &self.table.root, file));
            }
        }
        let _flushing = self.flushing.lock();
        let (snapshot, written) = {
            let state = self.state.read();
            (state.snapshot.clone(), state.last_sequence)
        };
        let replayed = self.table.replay();
        if let Some(Some(replayed)) = report.note(replayed)
            && (replayed.version, &replayed.files, replayed.covered)
                != (snapshot.version, &snapshot.files, snapshot.covered)
        {
            report.problems.push("the table's log does not tell the version that is in use".to_owned());
        }
        report.note(Tombstones::read(&*self.table.disk, &self.tombstones_directory, snapshot.tombstones));
        let log = wal::recovery::read(
            &*self.table.disk,
            &self.wal_directory,
            snapshot.store_id,
            snapshot.covered,
            Some(written),
        );
        if let Some(log) = report.note(log) {
            report.wal_records = log.records.len() as u64;
            if log.last_sequence < written {
                report.problems.push(format!("the log ends at record {}, not {written}", log.last_sequence));
            }
        }
        Ok(report)
    }
}

impl VerifyReport {
    fn note<T>(&mut self, outcome: Result<T, StoreError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                self.problems.push(format!("{error}{cause}"));
                None
            }
        }
    }
}
