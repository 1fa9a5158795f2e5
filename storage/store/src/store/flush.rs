//! From the head to the table: one file for each day, one commit for all, then the log is shorter.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::Point;
use parking_lot::MutexGuard;

use super::{AppendReceipt, Frozen, Shared, State};
use crate::{
    error::StoreError,
    table::{
        CommitError,
        action::{Action, Operation, Txn},
        data_file::DataFile,
        day::Day,
        snapshot::{Snapshot, TOMBSTONES_APP, WAL_APP},
    },
    tombstones,
    wal::record::{Entry, Record},
};

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
    pub(super) fn flush(&self, maintenance: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        self.check_open()?;
        let until = self.state.read().last_sequence;
        while self.state.read().snapshot.covered < until {
            self.flush_once(maintenance)?;
        }
        Ok(())
    }

    fn flush_once(&self, _: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let began = self.clock.monotonic();
        let (frozen, snapshot, tombstones) = {
            let mut state = self.state.write();
            let frozen = state.freeze();
            (frozen, state.snapshot.clone(), state.tombstones.clone())
        };
        let mut written = Vec::new();
        let committed = self.write_days(&frozen, &mut written).and_then(|()| {
            let now = self.clock.now();
            let now_ms = now.micros() / 1000;
            let txn =
                |app_id: &str, version| Action::Txn(Txn { app_id: app_id.to_owned(), version, last_updated: now_ms });
            let mut actions: Vec<_> = written.iter().map(|file| Action::Add(file.to_add(now_ms, true))).collect();
            actions.push(txn(WAL_APP, frozen.generation));
            let needed = tombstones.needed(&snapshot);
            if needed.len() > 0 || snapshot.tombstones > 0 {
                // An attempt that failed may have left a file of that number.
                tombstones::sweep(&*self.table.disk, &self.tombstones_directory, snapshot.tombstones);
                let number = snapshot.tombstones + 1;
                needed.write(&*self.table.disk, &self.tombstones_directory, number)?;
                actions.push(txn(TOMBSTONES_APP, number));
            }
            self.commit(&snapshot, &actions, Operation::Flush)
        });
        let next = match committed {
            Ok(next) => next,
            Err(error) => {
                // After an unknown commit the store is closed, and the files may count.
                if self.check_open().is_ok() {
                    self.table.discard(&written);
                }
                return Err(error);
            }
        };
        let covered = next.covered;
        let number = next.tombstones;
        {
            let mut state = self.state.write();
            state.tombstones = Arc::new(state.tombstones.needed(&next));
            state.snapshot = Arc::new(next);
            state.frozen = None;
        }
        self.flushed.notify_waiters();
        self.remove_segments(covered);
        if number != snapshot.tombstones {
            tombstones::sweep(&*self.table.disk, &self.tombstones_directory, number);
        }
        self.room.took("flush", self.clock.monotonic().saturating_sub(began));
        Ok(())
    }

    fn write_days(&self, frozen: &Frozen, written: &mut Vec<DataFile>) -> Result<(), StoreError> {
        let mut days: BTreeMap<Day, Vec<Point>> = BTreeMap::new();
        for point in frozen.head.points() {
            days.entry(Day::of(point.timestamp)).or_default().push(point);
        }
        for (day, points) in days {
            for (ordinal, rows) in points.chunks(self.settings.file_rows_max).enumerate() {
                written.push(self.table.write_file(day, frozen.generation, ordinal, rows)?);
            }
        }
        Ok(())
    }

    /// Makes the next version of the table durable. A commit of which nobody knows whether it is there closes the
    /// store: opening it again reads what is.
    pub(super) fn commit(
        &self,
        snapshot: &Snapshot,
        actions: &[Action],
        operation: Operation,
    ) -> Result<Snapshot, StoreError> {
        match self.table.commit(snapshot, actions, operation, self.clock.now()) {
            Ok(next) => Ok(next),
            Err(CommitError::NotMade(error)) => Err(error),
            Err(CommitError::Unknown(error)) => {
                self.close(format!("{error}: whether the table has version {} is not known", snapshot.version + 1));
                Err(error)
            }
        }
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
                AppendReceipt { stored: points.len() as u64, replaced: self.active.put(&points, now) }
            }
            Entry::DeletedSeries(series) => {
                for series in &series {
                    self.active.remove_series(*series);
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
