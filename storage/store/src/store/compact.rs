//! Merging small files of a day into one. Nothing may appear or vanish: the hashes of what goes in and what comes out
//! are held against each other (contract C4).
//!
//! Where several files have the same key the newest generation wins, so only neighbours in the order of generations may
//! be merged, and all files of one generation go together.

use std::sync::Arc;

use orzo_model::Point;
use parking_lot::MutexGuard;

use super::Shared;
use crate::{
    error::StoreError,
    table::{
        action::{Action, Operation},
        data_file::{DataFile, Reader, point_hash, points_hash},
        day::Day,
    },
    tombstones::Tombstones,
};

impl Shared {
    /// Merges until nothing is worth it any more; gives how many files went in.
    pub(super) fn compact(&self, maintenance: &MutexGuard<'_, ()>) -> Result<u64, StoreError> {
        let mut merged = 0;
        loop {
            self.check_open()?;
            let (snapshot, tombstones) = {
                let state = self.state.read();
                (state.snapshot.clone(), state.tombstones.clone())
            };
            let limits =
                Limits { files_min: self.settings.compact_files_min, rows_max: self.settings.file_rows_max as u64 };
            let today = self.clock.now();
            let Some(files) = pick(&snapshot.files, limits, |day| day.is_over(today)) else {
                return Ok(merged);
            };
            merged += files.len() as u64;
            self.merge(maintenance, &files, &tombstones)?;
        }
    }

    fn merge(
        &self,
        _: &MutexGuard<'_, ()>,
        files: &[Arc<DataFile>],
        tombstones: &Tombstones,
    ) -> Result<(), StoreError> {
        let began = self.clock.monotonic();
        let mut rows = Vec::new();
        let mut hash_in = 0u128;
        for (order, file) in files.iter().enumerate() {
            let reader = Reader::open(&*self.table.disk, &self.table.root, file, None)?;
            let points = reader.read_all()?;
            if points_hash(&points) != file.hash {
                let path = self.table.root.join(&file.path);
                return Err(StoreError::damaged(path, 0, "its rows are not those that the log describes"));
            }
            hash_in = hash_in.wrapping_add(file.hash);
            rows.extend(points.into_iter().map(|point| (order, point)));
        }
        let (kept, left_out, replaced) = resolve(rows, files, tombstones);
        if points_hash(&kept).wrapping_add(left_out) != hash_in {
            let reason = "merging files did not conserve their rows; the files stay as they are".to_owned();
            return Err(StoreError::Invalid { reason });
        }

        let generation = files.iter().map(|file| file.generation).max().unwrap_or(0);
        let snapshot = self.state.read().snapshot.clone();
        let mut written = Vec::new();
        let committed = files.first().map_or(Ok(()), |first| {
            for (ordinal, rows) in kept.chunks(self.settings.file_rows_max).enumerate() {
                written.push(self.table.write_file(first.day, generation, ordinal, rows)?);
            }
            Ok(())
        });
        let committed = committed.and_then(|()| {
            let now_ms = self.clock.now().micros() / 1000;
            // Readers that follow changes need not look at the same rows again.
            let data_change = left_out != 0;
            let removes = files.iter().map(|file| Action::Remove(file.to_remove(now_ms, data_change)));
            let adds = written.iter().map(|file| Action::Add(file.to_add(now_ms, data_change)));
            self.commit(&snapshot, &removes.chain(adds).collect::<Vec<_>>(), Operation::Compact)
        });
        match committed {
            Ok(next) => {
                self.state.write().snapshot = Arc::new(next);
                self.count_replaced(replaced);
                self.room.took("compact", self.clock.monotonic().saturating_sub(began));
                Ok(())
            }
            Err(error) => {
                if self.check_open().is_ok() {
                    self.table.discard(&written);
                }
                Err(error)
            }
        }
    }
}

/// One row for each key: the last file's that has it; none of a deleted series. Gives the rows, the hash of what was left
/// out, and how many rows were replaced by a newer one.
fn resolve(mut rows: Vec<(usize, Point)>, files: &[Arc<DataFile>], tombstones: &Tombstones) -> (Vec<Point>, u128, u64) {
    let key = |row: &(usize, Point)| (row.1.series, row.1.timestamp, row.0);
    rows.sort_unstable_by_key(key);
    let (mut kept, mut left_out, mut replaced) = (Vec::with_capacity(rows.len()), 0u128, 0);
    for (index, (order, point)) in rows.iter().enumerate() {
        let next = rows.get(index + 1).map(|(_, next)| (next.series, next.timestamp));
        let is_replaced = next == Some((point.series, point.timestamp));
        if is_replaced || tombstones.hides(point.series, files[*order].generation) {
            left_out = left_out.wrapping_add(point_hash(point));
            replaced += u64::from(is_replaced);
        } else {
            kept.push(*point);
        }
    }
    (kept, left_out, replaced)
}

/// When merging is worth it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    files_min: usize,
    rows_max: u64,
}

/// The files to merge next, oldest generation first. Files are sorted by generation.
///
/// A run is worth it when no file in it is larger than all others together: then each row is written again only about
/// as often as its file doubles. Days that are over get fewer files than the day at hand.
fn pick(files: &[Arc<DataFile>], limits: Limits, is_over: impl Fn(Day) -> bool) -> Option<Vec<Arc<DataFile>>> {
    let mut days: std::collections::BTreeMap<Day, Vec<Vec<Arc<DataFile>>>> = Default::default();
    for file in files {
        let generations = days.entry(file.day).or_default();
        match generations.last_mut() {
            Some(last) if last[0].generation == file.generation => last.push(file.clone()),
            _ => generations.push(vec![file.clone()]),
        }
    }
    days.into_iter().find_map(|(day, generations)| pick_run(&generations, limits, is_over(day)))
}

fn pick_run(generations: &[Vec<Arc<DataFile>>], limits: Limits, is_over: bool) -> Option<Vec<Arc<DataFile>>> {
    let mut best: Option<(usize, usize)> = None;
    for start in 0..generations.len() {
        let (mut rows, mut largest) = (0, 0);
        for (end, generation) in generations.iter().enumerate().skip(start) {
            let more: u64 = generation.iter().map(|file| file.rows).sum();
            rows += more;
            largest = largest.max(more);
            if rows > limits.rows_max {
                break;
            }
            let count = end + 1 - start;
            let is_balanced = largest * 2 <= rows;
            let is_worth_it = match is_over {
                true => count >= 2 && (is_balanced || count >= limits.files_min),
                false => count >= limits.files_min && (is_balanced || count >= limits.files_min * 4),
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
    use orzo_model::Timestamp;

    use super::*;

    const LIMITS: Limits = Limits { files_min: 3, rows_max: 1000 };

    fn file(day: i64, generation: u64, rows: u64) -> Arc<DataFile> {
        let day = Day::of(Timestamp::from_secs(day * 86_400));
        let mut file = DataFile::describe(format!("{generation}-{rows}"), day, generation, &[], &[]);
        file.rows = rows;
        Arc::new(file)
    }

    fn picked(files: &[Arc<DataFile>], is_over: bool) -> Option<Vec<u64>> {
        pick(files, LIMITS, |_| is_over).map(|files| files.iter().map(|file| file.generation).collect())
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
    }

    #[test]
    fn files_too_large_to_merge_stay_and_a_generation_stays_together() {
        assert_eq!(picked(&[file(1, 1, 600), file(1, 2, 600), file(1, 3, 600)], true), None);
        let split = [file(1, 1, 300), file(1, 2, 600), file(1, 2, 500), file(1, 3, 300)];
        assert_eq!(picked(&split, true), None, "1 and 3 are not neighbours, and 2 is too large");
    }
}
