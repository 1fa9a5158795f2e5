//! Upkeep: a task that wakes by time and by need, and what it does on a blocking thread.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use orzo_model::{SharedClock, Timestamp};
use parking_lot::MutexGuard;
use tokio::sync::Notify;

use super::{Shared, append::Request, compact::Effort, stats::StoreStats};
use crate::{
    error::StoreError,
    table::{
        action::{Action, Operation},
        data_file::DataFile,
    },
};

/// How often upkeep looks what is due; the precision of `flush_after`, `deleted_within` and `retention`.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After failures upkeep looks at half the pace each time, down to this many halvings: every 40 s.
const PAUSE_DOUBLINGS_MAX: u32 = 4;
/// A past day that got no points for so long is merged into as few files as possible: sooner, each late batch would have
/// all of it written again.
pub(super) const QUIET_AFTER: Duration = Duration::from_secs(60);

/// Writes the head to files when that is due, until the store is gone or closed. Nothing else holds this up.
pub(super) async fn keep_flushing(shared: Weak<Shared>, clock: SharedClock, flush_due: Arc<Notify>) {
    keep(shared, clock, flush_due, Shared::flush_what_is_due).await;
}

/// Merges, deletes and cleans up, until the store is gone or closed.
pub(super) async fn keep_tidy(shared: Weak<Shared>, clock: SharedClock) {
    // Nothing of this is urgent.
    keep(shared, clock, Arc::default(), Shared::tidy_what_is_due).await;
}

async fn keep(shared: Weak<Shared>, clock: SharedClock, due: Arc<Notify>, work: fn(&Shared) -> bool) {
    let mut failed = 0;
    loop {
        match failed {
            0 => tokio::select! {
                () = clock.sleep(LOOK_EVERY) => {}
                () = due.notified() => {}
            },
            // However much it is wanted: trying costs as much as doing.
            _ => clock.sleep(LOOK_EVERY * 2_u32.pow(failed.min(PAUSE_DOUBLINGS_MAX) - 1)).await,
        }
        let Some(shared) = shared.upgrade() else { return };
        if shared.check_open().is_err() {
            return;
        }
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(true) => failed = 0,
            Ok(false) => failed += 1,
            Err(_) => {
                // The panic was printed by its hook; the next look tries again.
                tracing::error!("the store's upkeep died and begins anew");
                failed += 1;
            }
        }
    }
}

impl Shared {
    /// Whether all went well.
    fn flush_what_is_due(&self) -> bool {
        let mut is_well = true;
        if self.is_flush_due() || self.state.read().frozen.is_some() {
            let flushed = self.flush();
            is_well = self.tell("write the head to files", flushed);
        }
        self.ask_to_shrink();
        is_well
    }

    /// Whether all went well.
    fn tidy_what_is_due(&self) -> bool {
        let tidying = self.tidying.lock();
        let merged = self.compact(&tidying, Effort::Worthwhile);
        let mut is_well = self.tell("merge files", merged);
        if let Some(retention) = self.settings.retention {
            let removed = self.retain(&tidying, self.clock.now().minus(retention));
            is_well &= self.tell("remove old files", removed);
        }
        let now = self.clock.monotonic();
        let is_due = now.saturating_sub(*self.deleted_at.lock()) >= self.settings.deleted_within / 2;
        if is_due && self.state.read().tombstones.len() > 0 {
            let deleted = self.apply_deletions(&tidying);
            if deleted.is_ok() {
                *self.deleted_at.lock() = now;
            }
            is_well &= self.tell("write files without deleted series", deleted);
        }
        let vacuumed = self.vacuum(&tidying);
        is_well &= self.tell("remove files that left the table", vacuumed);
        let version = self.state.read().snapshot.version;
        if version >= self.checkpointed.load(Ordering::Relaxed) + self.settings.checkpoint_commits {
            let checkpointed = self.checkpoint(&tidying);
            is_well &= self.tell("write a checkpoint", checkpointed);
        }
        is_well
    }

    /// Everything that upkeep does, at once.
    pub(super) fn settle(&self) -> Result<StoreStats, StoreError> {
        self.flush()?;
        let tidying = self.tidying.lock();
        self.compact(&tidying, Effort::Thorough)?;
        self.apply_deletions(&tidying)?;
        self.checkpoint(&tidying)?;
        self.vacuum(&tidying)?;
        drop(tidying);
        self.ask_to_shrink();
        Ok(self.stats())
    }

    /// If the log is much larger than what is in it.
    fn ask_to_shrink(&self) {
        if self.is_log_too_large()
            && let Some(requests) = &*self.requests.lock()
        {
            // If the thread is gone the store closes.
            let _ = requests.send(Request::Shrink);
        }
    }

    /// Whether it went well.
    fn tell<T>(&self, what: &str, outcome: Result<T, StoreError>) -> bool {
        if let Err(error) = &outcome {
            self.failures.fetch_add(1, Ordering::Relaxed);
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            tracing::error!("the store could not {what}, and will try again: {error}{cause}");
        }
        outcome.is_ok()
    }

    /// Takes files out of the table whose newest point is before `before`.
    pub(super) fn retain(&self, _: &MutexGuard<'_, ()>, before: Timestamp) -> Result<u64, StoreError> {
        let committing = self.committing.lock();
        self.check_open()?;
        let snapshot = self.state.read().snapshot.clone();
        let now_ms = self.clock.now().micros() / 1000;
        let outdated = outdated(&snapshot.files, before);
        let removes: Vec<_> = outdated.into_iter().map(|file| Action::Remove(file.to_remove(now_ms, true))).collect();
        if removes.is_empty() {
            return Ok(0);
        }
        let next = self.commit(&committing, &snapshot, &removes, Operation::Retain)?;
        let mut state = self.state.write();
        state.snapshot = Arc::new(next);
        state.newest.forget_before(before);
        state.changed.before(before);
        Ok(removes.len() as u64)
    }

    /// Removes from disk what left the table long enough ago for outside readers to have gone on.
    pub(super) fn vacuum(&self, _: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        self.check_open()?;
        if self.backups.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let until = self.clock.now().minus(self.settings.removed_grace);
        let snapshot = self.state.read().snapshot.clone();
        for path in snapshot.removed.iter().filter(|(_, at)| **at <= until).map(|(path, _)| path) {
            self.table.remove_file(path)?;
            self.layouts.lock().forget(path);
            self.quarantined.lock().remove(path);
            let _committing = self.committing.lock();
            Arc::make_mut(&mut self.state.write().snapshot).removed.remove(path);
        }
        Ok(())
    }

    /// Writes a checkpoint of the table's log; commits before the one before it are removed.
    pub(super) fn checkpoint(&self, _: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        self.check_open()?;
        if self.backups.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let snapshot = self.state.read().snapshot.clone();
        let last = self.checkpointed.load(Ordering::Relaxed);
        let now = self.clock.now();
        self.table.checkpoint(&snapshot, now, last)?;
        self.checkpointed.store(snapshot.version, Ordering::Relaxed);
        Ok(())
    }
}

/// The files whose newest point is before `before`; `files` are in order of generation. One that may have replaced a
/// row in an older file stays as long as that file does: without it, the replaced value would come back.
fn outdated(files: &[Arc<DataFile>], before: Timestamp) -> Vec<&DataFile> {
    let mut stay: Vec<&DataFile> = Vec::new();
    let mut outdated = Vec::new();
    for file in files {
        if file.time_max < before && !stay.iter().any(|older| may_replace(file, older)) {
            outdated.push(&**file);
        } else {
            stay.push(file);
        }
    }
    outdated
}

/// Whether `newer` may have a key that is in `older` too.
fn may_replace(newer: &DataFile, older: &DataFile) -> bool {
    newer.generation > older.generation
        && newer.time_min <= older.time_max
        && older.time_min <= newer.time_max
        && newer.series_min <= older.series_max
        && older.series_min <= newer.series_max
}
