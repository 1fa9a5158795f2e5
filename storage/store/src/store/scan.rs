//! Reading: head, head that is being written, files, in this order of age; of one key the newest wins.
//!
//! The same read gives measures or columns, whichever its caller computes with ([`Gathered`]).

use std::{collections::HashMap, sync::Arc};

use orzo_model::{Measure, SeriesId, Timestamp};

use super::{
    Frozen, Shared,
    gathered::{Columns, Gathered},
};
mod shares;
use self::shares::Make;
pub use self::shares::{Reduce, Reduced, Reducer};
use crate::{
    error::StoreError,
    table::{
        data_file::{DataFile, Wanted},
        reader::{Layout, Reader},
        snapshot::Snapshot,
    },
    tombstones::Tombstones,
};

/// Memory for what is known about where things are in files: some hundred files of ten thousand series each.
const LAYOUT_BYTES_MAX: usize = 64 << 20;
/// Points that are given on the caller's own thread, if they are in memory: a tenth of a millisecond, which is what handing
/// the read to another thread and back costs under load.
const BRIEF_POINTS_MAX: usize = 5_000;
/// How often a read begins anew because a file left the table while it read.
const READS_MAX: usize = 5;

/// Where things are in files read before, by path; emptied when full, which is simple and rarely matters.
#[derive(Default)]
pub(super) struct Layouts {
    by_path: HashMap<String, Layout>,
    bytes: usize,
}

impl Layouts {
    /// The file is gone.
    pub(super) fn forget(&mut self, path: &str) {
        if let Some(layout) = self.by_path.remove(path) {
            self.bytes -= layout.memory_bytes();
        }
    }

    /// What is known of this file.
    pub(super) fn by_path(&self, path: &str) -> Option<Layout> {
        self.by_path.get(path).cloned()
    }

    pub(super) fn keep(&mut self, path: &str, layout: &Layout) {
        self.forget(path);
        let bytes = layout.memory_bytes();
        if self.bytes + bytes > LAYOUT_BYTES_MAX {
            *self = Self::default();
        }
        if bytes <= LAYOUT_BYTES_MAX {
            self.bytes += bytes;
            self.by_path.insert(path.to_owned(), layout.clone());
        }
    }
}

/// What a read with an end that is not included asks for; `None` if there is no such time.
fn wanted(series: &[SeriesId], from: Timestamp, to: Timestamp) -> Option<Wanted<'_>> {
    debug_assert!(series.is_sorted_by(|a, b| a < b));
    let last = if to == Timestamp::MAX { to } else { Timestamp::from_micros(to.micros().saturating_sub(1)) };
    let is_empty = from > last || to <= from && to != Timestamp::MAX;
    (!is_empty).then_some(Wanted { series, first: from, last })
}

/// Gives the points as they are.
fn taking<G: Gathered>() -> Make<G, (SeriesId, G)> {
    Box::new(|series, points| Some((series, std::mem::take(points))))
}

fn reducing(reduce: &Reduce) -> Make<Columns, Reduced> {
    let mut reducer = reduce();
    Box::new(move |series, columns| {
        let points = columns.times.len();
        Some(Reduced { series, points, values: reducer(columns)? })
    })
}

/// What one read sees.
struct View {
    snapshot: Arc<Snapshot>,
    frozen: Option<Arc<Frozen>>,
    tombstones: Arc<Tombstones>,
}

impl View {
    /// What the head that is being written knows.
    fn frozen_last(&self, series: SeriesId, until: Timestamp) -> Option<Measure> {
        let frozen = self.frozen.as_ref().filter(|frozen| !self.tombstones.hides(series, frozen.generation))?;
        frozen.head.last(series, until)
    }
}

/// Of one time the newest stays: the active head's, then the other head's, then the files'.
fn newer(a: Option<Measure>, b: Option<Measure>) -> Option<Measure> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.timestamp > a.timestamp { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// What memory knows about a newest point.
enum InMemory {
    /// This is it.
    Answer(Option<Measure>),
    /// Files may have a newer one.
    InFiles,
}

impl Shared {
    pub(super) fn scan<G: Gathered>(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, G)>, StoreError> {
        let Some(wanted) = wanted(series, from, to) else { return Ok(Vec::new()) };
        self.again_if_files_went(|| self.scan_once(&wanted, self.settings.scan_points_max, &taking))
    }

    /// As [`Self::scan`], if it is brief and in memory.
    pub(super) fn scan_brief<G: Gathered>(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<(SeriesId, G)>>, StoreError> {
        let Some(wanted) = wanted(series, from, to) else { return Ok(Some(Vec::new())) };
        self.scan_in_memory(&wanted, BRIEF_POINTS_MAX.min(self.settings.scan_points_max), &taking)
    }

    pub(super) fn scan_reduced(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
        points_max: usize,
        reduce: &Reduce,
    ) -> Result<Vec<Reduced>, StoreError> {
        let Some(wanted) = wanted(series, from, to) else { return Ok(Vec::new()) };
        self.again_if_files_went(|| self.scan_once(&wanted, points_max, &|| reducing(reduce)))
    }

    /// As [`Self::scan_reduced`], if it is no more than `brief` points and in memory.
    pub(super) fn scan_reduced_brief(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        to: Timestamp,
        brief: usize,
        reduce: &Reduce,
    ) -> Result<Option<Vec<Reduced>>, StoreError> {
        let Some(wanted) = wanted(series, from, to) else { return Ok(Some(Vec::new())) };
        self.scan_in_memory(&wanted, brief, &|| reducing(reduce))
    }

    /// The newest point of a series not after `until`, if memory alone can tell.
    pub(super) fn last_in_memory(
        &self,
        series: SeriesId,
        until: Timestamp,
    ) -> Result<Option<Option<Measure>>, StoreError> {
        Ok(match self.look_in_memory(series, until)? {
            InMemory::Answer(answer) => Some(answer),
            InMemory::InFiles => None,
        })
    }

    pub(super) fn last(&self, series: SeriesId, until: Timestamp) -> Result<Option<Measure>, StoreError> {
        Ok(self.again_if_files_went(|| self.last_once(&[series], Timestamp::MIN, until))?[0])
    }

    /// The newest point of each of these series, in their order. Files are read once for all of them.
    pub(super) fn last_of(&self, series: &[SeriesId]) -> Result<Vec<Option<Measure>>, StoreError> {
        let mut sorted = series.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let found = self.again_if_files_went(|| self.last_once(&sorted, Timestamp::MIN, Timestamp::MAX))?;
        let place = |series: &SeriesId| sorted.partition_point(|other| other < series);
        Ok(series.iter().map(|series| found[place(series)]).collect())
    }

    /// The newest point of each series between two times, both inclusive; those without one are left out.
    pub(super) fn newest_between(
        &self,
        mut series: Vec<SeriesId>,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<Vec<(SeriesId, Measure)>, StoreError> {
        series.sort_unstable();
        series.dedup();
        let found = self.again_if_files_went(|| self.last_once(&series, first, last))?;
        let inside = |measure: &Measure| measure.timestamp >= first;
        Ok(series.into_iter().zip(found).filter_map(|(one, found)| Some((one, found.filter(inside)?))).collect())
    }

    fn look_in_memory(&self, series: SeriesId, until: Timestamp) -> Result<InMemory, StoreError> {
        let (mut active, mut in_files) = (None, None);
        let view = self.view(|state| {
            active = state.active.last(series, until);
            in_files = state.newest.get(series);
        })?;
        let best = newer(active, view.frozen_last(series, until));
        Ok(match in_files {
            Some(known) if known.timestamp <= until => InMemory::Answer(newer(best, Some(known))),
            _ => InMemory::InFiles,
        })
    }

    /// The newest points of sorted series not after `until`; of those that have none from `from` on, perhaps an older one.
    fn last_once(
        &self,
        series: &[SeriesId],
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Option<Measure>>, StoreError> {
        let mut best = Vec::with_capacity(series.len());
        let mut unknown = Vec::new();
        let view = self.view(|state| {
            for (place, &series) in series.iter().enumerate() {
                let in_files = state.newest.get(series).filter(|known| known.timestamp <= until);
                if in_files.is_none() {
                    unknown.push(place);
                }
                best.push((state.active.last(series, until), in_files));
            }
        })?;
        let mut best: Vec<Option<Measure>> = (best.into_iter().zip(series))
            .map(|((active, in_files), &series)| newer(newer(active, view.frozen_last(series, until)), in_files))
            .collect();
        let mut learnt = vec![false; series.len()];
        // From new to old, so that of one time the newest stays.
        for file in view.snapshot.files.iter().rev() {
            let mut first = Timestamp::MAX;
            let mut wanted = Vec::new();
            for &place in unknown.iter().filter(|place| !view.tombstones.hides(series[**place], file.generation)) {
                let after = best[place].map(|best| Timestamp::from_micros(best.timestamp.micros().saturating_add(1)));
                let of_this = after.unwrap_or(from).max(from).max(file.time_min);
                if of_this <= until && of_this <= file.time_max {
                    first = first.min(of_this);
                    wanted.push(series[place]);
                }
            }
            let wanted = Wanted { series: &wanted, first, last: until };
            if wanted.series.is_empty() || !file.may_hold(&wanted) {
                continue;
            }
            let mut place = 0;
            let mut reader = self.reader(file)?;
            reader.read(&wanted, &mut |of, times, values| {
                // Points come by series.
                if series.get(place) != Some(&of) {
                    place = series.partition_point(|other| *other < of);
                }
                if let (Some(best), Some(time), Some(value)) = (best.get_mut(place), times.last(), values.last())
                    && best.is_none_or(|best| *time > best.timestamp.micros())
                {
                    *best = Some(Measure { timestamp: Timestamp::from_micros(*time), value: *value });
                    learnt[place] = true;
                }
                true
            })?;
        }
        // What was found is the newest of all only if no file has anything later.
        if learnt.contains(&true) && view.snapshot.files.iter().all(|file| file.time_max <= until) {
            let mut state = self.state.write();
            // Only if what was read is still what there is.
            if state.snapshot.version == view.snapshot.version && Arc::ptr_eq(&state.tombstones, &view.tombstones) {
                for (place, best) in best.iter().enumerate().filter(|(place, _)| learnt[*place]) {
                    if let Some(best) = best {
                        state.newest.learn(series[place], *best);
                    }
                }
            }
        }
        Ok(best)
    }

    /// What is there now; what changes is read while it stands still.
    fn view(&self, read: impl FnOnce(&super::State)) -> Result<View, StoreError> {
        // After a failed write reads go on; after `close` the directory is somebody else's.
        if self.lock.lock().is_none() {
            self.check_open()?;
        }
        let state = self.state.read();
        read(&state);
        Ok(View {
            snapshot: state.snapshot.clone(),
            frozen: state.frozen.clone(),
            tombstones: state.tombstones.clone(),
        })
    }

    /// A reader that never asks the disk. What is known of a file may be forgotten at any time: the file may have left the table
    /// since it was looked for, and be gone from disk.
    fn reader_in_memory(&self, file: &Arc<DataFile>) -> Result<Reader, StoreError> {
        let known = self.layouts.lock().by_path.get(&file.path).cloned().ok_or(StoreError::NotInMemory)?;
        let reader = Reader::open(&self.table.disk, &self.table.root, file, Some(known))?;
        Ok(reader.keeping(self.pages.clone()).in_memory())
    }

    pub(super) fn reader(&self, file: &Arc<DataFile>) -> Result<Reader, StoreError> {
        let known = self.layouts.lock().by_path.get(&file.path).cloned();
        let is_new = known.is_none();
        let reader = Reader::open(&self.table.disk, &self.table.root, file, known)?;
        if is_new {
            self.layouts.lock().keep(&file.path, reader.layout());
        }
        Ok(reader.keeping(self.pages.clone()))
    }

    /// A file may leave the table, and the disk, while it is read; then the read begins anew with a newer version.
    pub(super) fn again_if_files_went<T>(&self, read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        for _ in 1..READS_MAX {
            let version = self.state.read().snapshot.version;
            match read() {
                Err(StoreError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound
                        && self.state.read().snapshot.version != version => {}
                other => return other,
            }
        }
        read()
    }
}
