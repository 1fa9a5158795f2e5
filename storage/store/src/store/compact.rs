//! Merging small files of a day into larger ones. Nothing may appear or vanish: the hashes of what goes in and what comes
//! out are held against each other (contract C4).
//!
//! Where several files have the same key the newest generation wins, so only neighbours in the order of generations may
//! be merged, and all files of one generation go together. Files are read and written a series at a time, so the memory
//! that it takes does not grow with them; meanwhile appends, flushes and reads go on. A file that cannot be read is set
//! aside, with an error that says so, and the others are merged without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use orzo_model::{Point, SeriesId, Timestamp};
use parking_lot::MutexGuard;

use super::Shared;
use crate::{
    error::StoreError,
    files::Away,
    table::{
        action::{Action, Operation},
        data_file::{DataFile, point_hash},
        day::Day,
        output::Output,
        reader::{Layout, Reader, Stream},
    },
    tombstones::Tombstones,
};

/// Files that are merged at once; each keeps a page of times and a page of values in memory, at most about 9 MB.
const MERGED_FILES_MAX: usize = 64;

/// The files beside the largest of a day that is over are merged with it if they have one row in so many of its.
const PAIR_SHARE: u64 = 4;

/// What to merge next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// What is worth it while more is coming.
    Worthwhile,
    /// As few files as the limits allow, for days that are over.
    Thorough,
}

/// What a merge left out.
#[derive(Default)]
struct LeftOut {
    hash: u128,
    rows: u64,
    replaced: u64,
    /// Points that are not kept any longer were before this.
    expired_before: Option<Timestamp>,
}

/// Whether points of a series on a day are kept no longer.
type Expired<'a> = dyn Fn(u64, Day) -> bool + 'a;

impl Shared {
    /// Merges until nothing is worth it any more; gives how many files went in.
    pub(super) fn compact(&self, tidying: &MutexGuard<'_, ()>, effort: Effort) -> Result<u64, StoreError> {
        let mut merged = 0;
        loop {
            self.check_open()?;
            let snapshot = self.state.read().snapshot.clone();
            let limits =
                Limits { files_min: self.settings.compact_files_min, rows_max: self.settings.file_rows_max as u64 };
            let today = self.clock.now();
            let quarantined = self.quarantined.lock().keys().cloned().collect();
            let worth = |day: Day| match effort {
                Effort::Thorough if day.is_over(today) => Worth::Everything,
                Effort::Worthwhile if day.is_over(today) && self.is_quiet(day) => Worth::Pairs,
                _ => Worth::Many,
            };
            let Some(files) = pick(&snapshot.files, limits, &quarantined, worth) else {
                return Ok(merged);
            };
            match self.merge(tidying, &files)? {
                Merged::Done => merged += files.len() as u64,
                Merged::SetAside => {}
                Merged::Stopped => return Ok(merged),
            }
        }
    }

    /// Writes every file anew that has rows of deleted series, without them. Gives how many.
    pub(super) fn apply_deletions(&self, tidying: &MutexGuard<'_, ()>) -> Result<u64, StoreError> {
        self.check_open()?;
        let (snapshot, tombstones) = {
            let state = self.state.read();
            (state.snapshot.clone(), state.tombstones.clone())
        };
        let mut rewritten = 0;
        for file in &snapshot.files {
            if self.quarantined.lock().contains_key(&file.path) || !self.has_deleted(file, &tombstones)? {
                continue;
            }
            match self.merge(tidying, std::slice::from_ref(file))? {
                Merged::Done => rewritten += 1,
                Merged::SetAside => {}
                Merged::Stopped => break,
            }
        }
        Ok(rewritten)
    }

    /// Whether a file has rows that a tombstone hides.
    fn has_deleted(&self, file: &Arc<DataFile>, tombstones: &Tombstones) -> Result<bool, StoreError> {
        let mut hidden = tombstones.hidden_in(file).peekable();
        if hidden.peek().is_none() {
            return Ok(false);
        }
        let reader = match self.reader(file) {
            Ok(reader) => reader,
            Err(error) => {
                self.set_aside(&file.path, error)?;
                return Ok(false);
            }
        };
        Ok(match reader.layout() {
            // Without an index of its series it is taken to have them.
            Layout::Footer(_) => true,
            Layout::Index(index) => {
                hidden.any(|series| index.run(index.find(series, 0)).is_some_and(|run| run.series == series))
            }
        })
    }

    /// Whether a day got no points for a while.
    pub(super) fn is_quiet(&self, day: Day) -> bool {
        self.is_quiet_for(day, super::maintain::QUIET_AFTER)
    }

    /// Whether a day got no points for so long.
    pub(super) fn is_quiet_for(&self, day: Day, span: Duration) -> bool {
        let since = self.flushed_days.lock().get(&day).copied();
        since.is_none_or(|since| self.clock.monotonic().saturating_sub(since) >= span)
    }

    fn merge(&self, tidying: &MutexGuard<'_, ()>, files: &[Arc<DataFile>]) -> Result<Merged, StoreError> {
        self.merge_without(tidying, files, &|_, _| false)
    }

    /// Merges files, without what is kept no longer.
    pub(super) fn merge_without(
        &self,
        _: &MutexGuard<'_, ()>,
        files: &[Arc<DataFile>],
        expired: &Expired<'_>,
    ) -> Result<Merged, StoreError> {
        let began = self.clock.monotonic();
        let (tombstones, cleared) = {
            let state = self.state.read();
            (state.tombstones.clone(), state.last_sequence)
        };
        let mut written = Vec::new();
        let outcome = self.merge_rows(files, &tombstones, expired, &mut written);
        let left_out = match outcome {
            Ok(Some(left_out)) => left_out,
            Ok(None) => {
                self.table.discard(&written);
                return Ok(Merged::Stopped);
            }
            Err(MergeError::Input(path, error)) => {
                self.table.discard(&written);
                self.set_aside(&path, error)?;
                return Ok(Merged::SetAside);
            }
            Err(MergeError::Output(error)) => {
                self.table.discard(&written);
                return Err(error);
            }
        };
        for file in &mut written {
            file.cleared = cleared;
        }
        if let Err(error) = self.commit_merge(files, &written, &left_out) {
            if self.check_open().is_ok() {
                self.table.discard(&written);
            }
            return Err(error);
        }
        self.count_replaced(left_out.replaced);
        self.room.took("compact", self.clock.monotonic().saturating_sub(began));
        Ok(Merged::Done)
    }

    /// Writes the rows that stay; `None` if the store is about to close.
    fn merge_rows(
        &self,
        files: &[Arc<DataFile>],
        tombstones: &Tombstones,
        expired: &Expired<'_>,
        written: &mut Vec<DataFile>,
    ) -> Result<Option<LeftOut>, MergeError> {
        let Some(first) = files.first() else { return Ok(Some(LeftOut::default())) };
        let input = |file: &DataFile, error| MergeError::Input(file.path.clone(), error);
        let mut streams: Vec<Stream> = Vec::with_capacity(files.len());
        for file in files {
            let reader = Reader::open(&self.table.disk, &self.table.root, file, None);
            streams.push(reader.map_err(|error| input(file, error))?.stream());
        }
        let generation = files.iter().map(|file| file.generation).max().unwrap_or(0);
        let rows_expected = files.iter().map(|file| file.rows).sum::<u64>() as usize;
        let mut output = Output::new(first.day, generation, self.settings.file_rows_max, rows_expected);
        let mut left_out = LeftOut::default();
        let mut rows = Vec::new();
        // What each file has next; a file that is at its end was what the log said.
        let mut next = Vec::with_capacity(files.len());
        for (stream, file) in streams.iter_mut().zip(files) {
            next.push(stream.next_series().map_err(|error| input(file, error))?);
        }
        while let Some(series) = next.iter().flatten().min().copied() {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
            rows.clear();
            for ((stream, next), file) in streams.iter_mut().zip(&mut next).zip(files) {
                let start = rows.len();
                while *next == Some(series) {
                    stream.take_series(&mut rows).map_err(|error| input(file, error))?;
                    *next = stream.next_series().map_err(|error| input(file, error))?;
                }
                if rows.len() > start && tombstones.hides(rows[start].series, file.generation) {
                    for point in rows.drain(start..) {
                        left_out.leave(&point);
                    }
                }
            }
            if expired(series, first.day) {
                rows.iter().for_each(|point| left_out.leave(point));
                rows.clear();
                left_out.expired_before = Some(first.day.end().plus(Duration::from_micros(1)));
            }
            resolve(&mut rows, &mut left_out);
            output.push(&self.table, SeriesId(series), &rows, written).map_err(MergeError::Output)?;
        }
        output.finish(&self.table, written).map_err(MergeError::Output)?;
        let hash_in = files.iter().fold(0u128, |sum, file| sum.wrapping_add(file.hash));
        let hash_written = written.iter().fold(0u128, |sum, file| sum.wrapping_add(file.hash));
        if hash_written.wrapping_add(left_out.hash) != hash_in {
            let reason = "merging files did not conserve their rows; the files stay as they are".to_owned();
            return Err(MergeError::Output(StoreError::Invalid { reason }));
        }
        Ok(Some(left_out))
    }

    fn commit_merge(
        &self,
        files: &[Arc<DataFile>],
        written: &[DataFile],
        left_out: &LeftOut,
    ) -> Result<(), StoreError> {
        let committing = self.committing.lock();
        self.check_open()?;
        let snapshot = self.state.read().snapshot.clone();
        let live: BTreeSet<&str> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
        if !files.iter().all(|file| live.contains(file.path.as_str())) {
            let reason = "files left the table while they were merged".to_owned();
            return Err(StoreError::Busy { reason });
        }
        let now_ms = self.clock.now().micros() / 1000;
        // Readers that follow changes need not look at the same rows again.
        let data_change = left_out.rows != 0;
        let removes = files.iter().map(|file| Action::Remove(file.to_remove(now_ms, data_change)));
        let adds = written.iter().map(|file| Action::Add(file.to_add(now_ms, data_change)));
        let next = self.commit(&committing, &snapshot, &removes.chain(adds).collect::<Vec<_>>(), Operation::Compact)?;
        let mut state = self.state.write();
        state.snapshot = Arc::new(next);
        if let Some(before) = left_out.expired_before {
            state.newest.forget_before(before);
            state.changed.before(before);
        }
        Ok(())
    }

    /// A file that cannot be read is not merged any more and said so, once; reading its rows goes on failing. Only what
    /// the file itself is the reason for: anything else is an error of the merge.
    pub(super) fn set_aside(&self, path: &str, error: StoreError) -> Result<(), StoreError> {
        let is_away = matches!(&error, StoreError::Io { source, .. } if Away::is(source));
        let is_its_own =
            matches!(error, StoreError::Damaged { .. } | StoreError::Format { .. } | StoreError::Io { .. });
        if is_away || !is_its_own {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::error!(
            "{path} is set aside and will not be merged: {error}{cause}; reads of its rows fail until it is restored from a backup"
        );
        self.quarantined.lock().insert(path.to_owned(), format!("{error}{cause}"));
        Ok(())
    }
}

/// How a merge ended.
pub(super) enum Merged {
    Done,
    /// A file could not be read.
    SetAside,
    /// The store is about to close.
    Stopped,
}

/// Whose fault it was.
enum MergeError {
    /// This file's.
    Input(String, StoreError),
    Output(StoreError),
}

impl LeftOut {
    fn leave(&mut self, point: &Point) {
        self.rows += 1;
        self.hash = self.hash.wrapping_add(point_hash(point.series, point.timestamp.micros(), point.value));
    }
}

/// One row for each time of a series, whose rows come file by file: the last file's that has it.
fn resolve(rows: &mut Vec<Point>, left_out: &mut LeftOut) {
    if rows.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        return;
    }
    // Stable: of the same time the last file's is last.
    rows.sort_by_key(|point| point.timestamp);
    rows.dedup_by(|next, kept| {
        let is_same = next.timestamp == kept.timestamp;
        if is_same {
            left_out.leave(kept);
            left_out.replaced += 1;
            *kept = *next;
        }
        is_same
    });
}

/// When merging is worth it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    files_min: usize,
    rows_max: u64,
}

/// Which runs of files of a day are worth merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// Only many: more will come.
    Many,
    /// Two are enough, unless one is tiny beside the other: the day is over.
    Pairs,
    /// Any two.
    Everything,
}

/// The files to merge next, oldest generation first. Files are sorted by generation.
///
/// A run is worth it when no file in it is larger than all others together: then each row is written again only about
/// as often as its file doubles. Days that are over get fewer files than the day at hand: there the others need be a quarter
/// of the largest only, because a day that arrived in two parts would stay in two for ever, and every read of it would open
/// both. Files that were set aside stay where they are, and nothing is merged across them.
fn pick(
    files: &[Arc<DataFile>],
    limits: Limits,
    quarantined: &BTreeSet<String>,
    worth: impl Fn(Day) -> Worth,
) -> Option<Vec<Arc<DataFile>>> {
    let mut days: BTreeMap<Day, Vec<Vec<Arc<DataFile>>>> = BTreeMap::new();
    for file in files {
        let generations = days.entry(file.day).or_default();
        match generations.last_mut() {
            Some(last) if last[0].generation == file.generation => last.push(file.clone()),
            _ => generations.push(vec![file.clone()]),
        }
    }
    let is_aside = |generation: &Vec<Arc<DataFile>>| generation.iter().any(|file| quarantined.contains(&file.path));
    days.into_iter()
        .find_map(|(day, generations)| generations.split(is_aside).find_map(|part| pick_run(part, limits, worth(day))))
}

fn pick_run(generations: &[Vec<Arc<DataFile>>], limits: Limits, worth: Worth) -> Option<Vec<Arc<DataFile>>> {
    let mut best: Option<(usize, usize)> = None;
    for start in 0..generations.len() {
        let (mut rows, mut largest, mut files) = (0, 0, 0);
        for (end, generation) in generations.iter().enumerate().skip(start) {
            let more: u64 = generation.iter().map(|file| file.rows).sum();
            rows += more;
            files += generation.len();
            largest = largest.max(more);
            if rows > limits.rows_max || files > MERGED_FILES_MAX {
                break;
            }
            let count = end + 1 - start;
            let is_balanced = largest * 2 <= rows;
            let is_matched = (rows - largest) * PAIR_SHARE >= largest;
            let is_worth_it = match worth {
                Worth::Everything => count >= 2,
                Worth::Pairs => count >= 2 && (is_matched || count >= limits.files_min),
                Worth::Many => count >= limits.files_min && (is_balanced || count >= limits.files_min * 4),
            };
            if is_worth_it && best.is_none_or(|(from, to)| count > to + 1 - from) {
                best = Some((start, end));
            }
        }
    }
    best.map(|(from, to)| generations[from..=to].iter().flatten().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { files_min: 3, rows_max: 1000 };

    fn file(day: i64, generation: u64, rows: u64) -> Arc<DataFile> {
        let day = Day::of(Timestamp::from_secs(day * 86_400));
        Arc::new(DataFile { rows, ..DataFile::empty(format!("{generation}-{rows}"), day, generation) })
    }

    fn picked(files: &[Arc<DataFile>], is_over: bool) -> Option<Vec<u64>> {
        let worth = if is_over { Worth::Pairs } else { Worth::Many };
        pick(files, LIMITS, &BTreeSet::new(), |_| worth).map(|files| files.iter().map(|file| file.generation).collect())
    }

    #[test]
    fn small_neighbours_of_one_day_are_merged_when_there_are_enough() {
        assert_eq!(picked(&[file(1, 1, 10), file(1, 2, 10)], false), None);
        assert_eq!(picked(&[file(1, 1, 10), file(1, 2, 10), file(1, 3, 10)], false), Some(vec![1, 2, 3]));
        assert_eq!(picked(&[file(1, 1, 10), file(2, 2, 10), file(1, 3, 10)], false), None);
        assert_eq!(picked(&[file(1, 1, 10), file(1, 2, 10)], true), Some(vec![1, 2]));
    }

    #[test]
    fn a_large_file_waits_until_the_small_ones_outweigh_it() {
        let mut files = vec![file(1, 1, 100)];
        files.extend((2..5).map(|generation| file(1, generation, 10)));
        assert_eq!(picked(&files, false), Some(vec![2, 3, 4]));
        files.extend((5..12).map(|generation| file(1, generation, 10)));
        assert_eq!(picked(&files, false), Some((1..12).collect()));
        let unlike = [file(1, 1, 100), file(1, 2, 1)];
        assert_eq!(picked(&unlike, true), None, "a late point does not have a whole day written again");
        assert!(pick(&unlike, LIMITS, &BTreeSet::new(), |_| Worth::Everything).is_some(), "unless that is asked for");
    }

    #[test]
    fn a_day_that_came_in_two_unlike_parts_becomes_one_file() {
        let parts = [file(1, 1, 113), file(1, 2, 100)];
        assert_eq!(picked(&parts, true), Some(vec![1, 2]));
        assert_eq!(picked(&parts, false), None, "more will come");
        assert_eq!(picked(&[file(1, 1, 100), file(1, 2, 24)], true), None);
    }

    #[test]
    fn nothing_is_merged_across_a_file_that_was_set_aside() {
        let files: Vec<_> = (1..8).map(|generation| file(1, generation, 10)).collect();
        let aside = BTreeSet::from(["4-10".to_owned()]);
        let picked = pick(&files, LIMITS, &aside, |_| Worth::Pairs).expect("three files before it");
        assert_eq!(picked.iter().map(|file| file.generation).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(pick(&files[2..5], LIMITS, &aside, |_| Worth::Pairs).is_none(), "one on either side");
    }

    #[test]
    fn files_too_large_to_merge_stay_and_a_generation_stays_together() {
        assert_eq!(picked(&[file(1, 1, 600), file(1, 2, 600), file(1, 3, 600)], true), None);
        let split = [file(1, 1, 300), file(1, 2, 600), file(1, 2, 500), file(1, 3, 300)];
        assert_eq!(picked(&split, true), None, "1 and 3 are not neighbours, and 2 is too large");
    }
}
