//! From the head to the table: one file for each day, one commit for all, then the log is shorter.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use orzo_model::Timestamp;
use parking_lot::MutexGuard;

use super::{AppendReceipt, Frozen, Shared, State, claim};
use crate::{
    error::StoreError,
    table::{
        CommitError,
        action::{Action, Operation, Txn},
        data_file::DataFile,
        day::Day,
        output::Output,
        snapshot::{Home, Snapshot, TOMBSTONES_APP, WAL_APP},
    },
    tombstones,
    wal::record::{Entry, Record},
};

/// How long a commit waits before it is published again, where the table's place does not answer. Only the same commit
/// may be tried: nobody knows whether the one before is on its way.
const PUBLISH_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest such wait: so late the store goes on, at most, after a bucket came back.
const PUBLISH_PAUSE_MAX: Duration = Duration::from_secs(15);

impl Shared {
    /// Puts durable records into the head.
    pub(super) fn put(&self, records: Vec<Record>) -> Vec<AppendReceipt> {
        let now = self.clock.now();
        let mut state = self.state.write();
        let put = |record| state.put(record, now);
        let receipts: Vec<AppendReceipt> = records.into_iter().map(put).collect();
        drop(state);
        self.count_replaced(receipts.iter().map(|receipt| receipt.replaced).sum());
        receipts
    }

    /// Writes what was appended so far to files. The head stays readable all the while; if it fails, what could not be
    /// written stays in the log and in memory, and the next flush begins with it.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let flushing = self.flushing.lock();
        self.flush_held(&flushing)
    }

    pub(super) fn flush_held(&self, flushing: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        self.check_open()?;
        let until = self.state.read().last_sequence;
        while self.state.read().snapshot.covered < until {
            self.flush_once(flushing)?;
        }
        Ok(())
    }

    fn flush_once(&self, _: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let began = self.clock.monotonic();
        let frozen = self.state.write().freeze();
        let mut written = Vec::new();
        let committed = self.write_days(&frozen, &mut written).and_then(|()| self.commit_flush(&frozen, &written));
        let (covered, buried) = match committed {
            Ok(committed) => committed,
            Err(error) => {
                // After an unknown commit the store is closed, and the files may count.
                if self.check_open().is_ok() {
                    self.table.discard(&written);
                }
                return Err(error);
            }
        };
        self.flushed.notify_waiters();
        self.remove_segments(covered);
        if let Some(number) = buried {
            tombstones::sweep(&*self.table.disk, &self.tombstones_directory, number);
        }
        let now = self.clock.monotonic();
        let mut days = self.flushed_days.lock();
        days.extend(written.iter().map(|file| (file.day, now)));
        drop(days);
        self.room.took("flush", now.saturating_sub(began));
        Ok(())
    }

    /// Gives the sequence that the table covers now, and the number of a new file of tombstones.
    fn commit_flush(&self, frozen: &Frozen, written: &[DataFile]) -> Result<(u64, Option<u64>), StoreError> {
        let committing = self.committing.lock();
        let (snapshot, tombstones) = {
            let state = self.state.read();
            (state.snapshot.clone(), state.tombstones.clone())
        };
        let now_ms = self.clock.now().micros() / 1000;
        let txn = |app_id: &str, version| Action::Txn(Txn { app_id: app_id.to_owned(), version, last_updated: now_ms });
        let mut actions: Vec<_> = written.iter().map(|file| Action::Add(file.to_add(now_ms, true))).collect();
        actions.push(txn(WAL_APP, frozen.generation));
        let needed = tombstones.needed(&snapshot);
        let mut buried = None;
        if needed.len() > 0 || snapshot.tombstones > 0 {
            let (disk, directory) = (&*self.table.disk, &self.tombstones_directory);
            let number = tombstones::next_number(disk, directory, snapshot.tombstones)?;
            needed.write(disk, directory, number)?;
            actions.push(txn(TOMBSTONES_APP, number));
            buried = Some(number);
        }
        let next = self.commit(&committing, &snapshot, &actions, Operation::Flush)?;
        let covered = next.covered;
        let before = snapshot.files.iter().map(|file| file.time_max).max();
        let mut state = self.state.write();
        let state = &mut *state;
        state.newest.flushed(&frozen.head, frozen.generation, &state.tombstones, before);
        state.tombstones = Arc::new(state.tombstones.needed(&next));
        state.snapshot = Arc::new(next);
        state.frozen = None;
        Ok((covered, buried))
    }

    fn write_days(&self, frozen: &Frozen, written: &mut Vec<DataFile>) -> Result<(), StoreError> {
        let mut days: BTreeMap<Day, Output> = BTreeMap::new();
        frozen.head.for_each_run(|series, mut run| {
            while let Some((first, _)) = run.first() {
                let day = Day::of(Timestamp::from_micros(*first));
                let end = day.end().micros();
                let (of_day, later) = run.split_at(run.partition_point(|(micros, _)| *micros <= end));
                // Most heads are of one day, or of two.
                let expected = if days.len() < 2 { frozen.head.len() } else { 0 };
                let new = || Output::new(day, frozen.generation, self.settings.file_rows_max, expected);
                days.entry(day).or_insert_with(new).push(&self.table, series, of_day, written)?;
                run = later;
            }
            Ok(())
        })?;
        for output in days.values_mut() {
            output.finish(&self.table, written)?;
        }
        Ok(())
    }

    /// Makes the next version of the table durable. A commit of which nobody knows whether it is there closes the
    /// store: opening it again reads what is.
    pub(super) fn commit(
        &self,
        _: &MutexGuard<'_, ()>,
        snapshot: &Snapshot,
        actions: &[Action],
        operation: Operation,
    ) -> Result<Snapshot, StoreError> {
        let version = snapshot.version + 1;
        let mut pause = PUBLISH_PAUSE_FIRST;
        let mut again = |error: &std::io::Error| {
            tracing::warn!("version {version} of the table is not published yet, and will be tried again: {error}");
            let goes_on = self.pause(pause);
            pause = (pause * 2).min(PUBLISH_PAUSE_MAX);
            goes_on
        };
        match self.table.commit(snapshot, actions, operation, self.clock.now(), &mut again) {
            Ok(next) => Ok(next),
            Err(CommitError::NotMade(error)) => Err(error),
            Err(CommitError::Unknown(error)) => {
                self.close(format!("{error}: whether the table has version {version} is not known"));
                Err(error)
            }
            Err(CommitError::Taken(error)) => {
                let reason = format!(
                    "{error}: another server made version {version} of the table; what this one took since is in its \
                     log, and nowhere else"
                );
                tracing::error!("the store closes itself: {reason}");
                self.close(reason);
                Err(error)
            }
        }
    }

    /// Waits; whether to go on then. Not if the store is about to close.
    fn pause(&self, pause: Duration) -> bool {
        let mut waiting = self.pausing.lock();
        let is_stopping = || self.stopping.load(Ordering::Relaxed) || self.check_open().is_err();
        if !is_stopping() {
            self.pause_ended.wait_for(&mut waiting, pause);
        }
        !is_stopping()
    }

    /// Says in the table that everything is in it, so that another directory may go on with it.
    pub(super) fn leave(&self, _: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let committing = self.committing.lock();
        self.check_open()?;
        let snapshot = {
            let state = self.state.read();
            if state.snapshot.covered != state.last_sequence {
                return Ok(());
            }
            state.snapshot.clone()
        };
        claim.covered(snapshot.covered)?;
        let action = claim::action(Home { id: claim.home(), is_left: true }, self.clock.now());
        let next = self.commit(&committing, &snapshot, &[action], Operation::Claim)?;
        self.state.write().snapshot = Arc::new(next);
        Ok(())
    }

    /// Removes segments that the table covers, oldest first; the newest stays.
    pub(super) fn remove_segments(&self, covered: u64) {
        loop {
            let oldest = {
                let segments = self.segments.lock();
                match segments.as_slice() {
                    [oldest, next, ..] if next.first_sequence <= covered + 1 => oldest.path.clone(),
                    _ => return,
                }
            };
            match self.table.disk.remove(&oldest) {
                Ok(()) => {
                    self.segments.lock().remove(0);
                }
                Err(error) => {
                    tracing::warn!("cannot remove the log segment {}: {error}", oldest.display());
                    return;
                }
            }
        }
    }

    /// Whether the head waits long enough, or is large enough, to be written to files.
    pub(super) fn is_flush_due(&self) -> bool {
        let state = self.state.read();
        let waited =
            state.active.since().is_some_and(|since| self.clock.now().since(since) >= self.settings.flush_after);
        state.active.bytes() >= self.settings.head_bytes_max || waited
    }

    /// Whether the head must be written to files before anything more is taken.
    pub(super) fn head_is_full(&self) -> bool {
        let state = self.state.read();
        let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.head.bytes());
        state.active.bytes() + frozen >= self.settings.head_bytes_max.saturating_mul(2)
    }
}

impl State {
    /// Puts a durable record into the head.
    pub(super) fn put(&mut self, record: Record, now: orzo_model::Timestamp) -> AppendReceipt {
        debug_assert_eq!(record.sequence, self.last_sequence + 1, "records come in order");
        self.last_sequence = record.sequence;
        match record.entry {
            Entry::Points(points) => {
                self.changed.points(&points);
                AppendReceipt { stored: points.len() as u64, replaced: self.active.put(&points, now) }
            }
            Entry::DeletedSeries(series) => {
                self.changed.everything();
                for series in &series {
                    self.active.remove_series(*series);
                    self.newest.forget(*series);
                }
                Arc::make_mut(&mut self.tombstones).insert(&series, record.sequence);
                AppendReceipt::default()
            }
        }
    }

    /// The head to be written: what an earlier attempt left, or all of the active one.
    fn freeze(&mut self) -> Arc<Frozen> {
        let generation = self.last_sequence;
        let active = &mut self.active;
        self.frozen.get_or_insert_with(|| Arc::new(Frozen { head: std::mem::take(active), generation })).clone()
    }
}
