//! Retention by series: points of days that ended before a series' own limit leave the files, as deleted ones do.
//!
//! Comes in: series and the time before which their points are not kept. A file has rows of one day, so it is written anew
//! without a series when that whole day is before the series' limit: once for each, and not with each minute that goes by; where
//! nothing stays the file leaves the table. Who is meant by a rule, and what must be kept for a bill, others know.

use std::{collections::BTreeSet, sync::Arc};

use orzo_model::{SeriesId, Timestamp};

use super::{Shared, compact::Merged};
use crate::{
    error::StoreError,
    table::{data_file::DataFile, day::Day, reader::Layout},
};

impl Shared {
    /// Writes every file anew that has rows of days before their series' limits (sorted by series), without those rows. Gives
    /// how many files. Between two files others have their turn.
    pub(super) fn expire(&self, limits: &[(SeriesId, Timestamp)]) -> Result<u64, StoreError> {
        debug_assert!(limits.is_sorted_by_key(|(series, _)| *series));
        let Some(newest) = limits.iter().map(|(_, limit)| Day::of(*limit)).max() else { return Ok(0) };
        let is_expired = |series: u64, day: Day| {
            let place = limits.partition_point(|(other, _)| other.0 < series);
            limits.get(place).is_some_and(|(other, limit)| other.0 == series && day < Day::of(*limit))
        };
        let files = self.state.read().snapshot.files.clone();
        let mut rewritten = 0;
        // Of a key the newest file's value counts: a file waits for the older ones of its day, else what it replaced there
        // would come back.
        let mut waiting: BTreeSet<Day> = BTreeSet::new();
        for file in files.iter().filter(|file| file.day < newest) {
            let tidying = self.tidying.lock();
            self.check_open()?;
            let is_live = self.state.read().snapshot.files.iter().any(|live| live.path == file.path);
            if !is_live || self.quarantined.lock().contains_key(&file.path) {
                // It was merged meanwhile, or cannot be read; the next time sees what there is then.
                waiting.insert(file.day);
            }
            if waiting.contains(&file.day) || !self.has_expired(file, limits)? {
                continue;
            }
            match self.merge_without(&tidying, std::slice::from_ref(file), &is_expired)? {
                Merged::Done => rewritten += 1,
                Merged::SetAside => {
                    waiting.insert(file.day);
                }
                Merged::Stopped => break,
            }
        }
        Ok(rewritten)
    }

    /// Whether a file has rows before their series' limits.
    fn has_expired(&self, file: &Arc<DataFile>, limits: &[(SeriesId, Timestamp)]) -> Result<bool, StoreError> {
        let first = limits.partition_point(|(series, _)| series.0 < file.series_min);
        let last = limits.partition_point(|(series, _)| series.0 <= file.series_max);
        let mut inside = limits[first..last].iter().filter(|(_, limit)| file.day < Day::of(*limit)).peekable();
        if inside.peek().is_none() {
            return Ok(false);
        }
        let reader = match self.reader(file) {
            Ok(reader) => reader,
            Err(error) => {
                self.set_aside(&file.path, error)?;
                return Ok(false);
            }
        };
        let Layout::Index(index) = reader.layout() else {
            // Without an index of its series it is taken to have them; written anew it has one.
            return Ok(true);
        };
        let mut at = 0;
        Ok(inside.any(|(series, _)| {
            at = index.find(series.0, at);
            index.run(at).is_some_and(|run| run.series == series.0)
        }))
    }
}
