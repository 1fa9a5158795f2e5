//! Reading: head, head that is being written, files, in this order of age; of one key the newest wins.

use std::{collections::HashMap, sync::Arc};

use orzo_model::{Measure, SeriesId, Timestamp};

use super::{Frozen, Shared};
use crate::{
    error::StoreError,
    head::Head,
    table::{
        data_file::{DataFile, Wanted},
        reader::{Layout, Reader},
        snapshot::Snapshot,
    },
    tombstones::Tombstones,
};

/// Memory for what is known about where things are in files: some hundred files of ten thousand series each.
const LAYOUT_BYTES_MAX: usize = 64 << 20;
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

    fn keep(&mut self, path: &str, layout: &Layout) {
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
    pub(super) fn scan(
        &self,
        mut series: Vec<SeriesId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError> {
        series.sort_unstable();
        series.dedup();
        let last = if to == Timestamp::MAX { to } else { Timestamp::from_micros(to.micros().saturating_sub(1)) };
        if from > last || to <= from && to != Timestamp::MAX {
            return Ok(Vec::new());
        }
        let wanted = Wanted { series: &series, first: from, last };
        self.again_if_files_went(|| self.scan_once(&wanted))
    }

    fn scan_once(&self, wanted: &Wanted<'_>) -> Result<Vec<(SeriesId, Vec<Measure>)>, StoreError> {
        let points_max = self.settings.scan_points_max;
        let mut found = Found::new(wanted.series, points_max);
        let mut newest = Found::new(wanted.series, points_max);
        let view = self.view(|state| newest.take_head(&state.active, wanted, |_| false))?;
        for file in view.snapshot.files.iter().filter(|file| file.may_hold(wanted)) {
            let reader = self.reader(file)?;
            reader.read(wanted, &mut |point| {
                let measure = Measure { timestamp: point.timestamp, value: point.value };
                view.tombstones.hides(point.series, file.generation) || found.take(point.series, measure)
            })?;
        }
        if let Some(frozen) = &view.frozen {
            found.take_head(&frozen.head, wanted, |series| view.tombstones.hides(series, frozen.generation));
        }
        found.append(newest);
        if found.points > points_max {
            return Err(StoreError::TooManyPoints { points_max });
        }
        #[cfg(test)]
        if self.table.disk.planted() == Some(crate::files::Planted::NotDeduplicated) {
            let all = wanted.series.iter().copied().zip(found.measures);
            return Ok(all.filter(|(_, measures)| !measures.is_empty()).collect());
        }
        let all = wanted.series.iter().copied().zip(found.measures);
        Ok(all.filter(|(_, m)| !m.is_empty()).map(|(series, measures)| (series, newest_by_time(measures))).collect())
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
        Ok(self.again_if_files_went(|| self.last_once(&[series], until))?[0])
    }

    /// The newest point of each of these series, in their order. Files are read once for all of them.
    pub(super) fn last_of(&self, series: &[SeriesId]) -> Result<Vec<Option<Measure>>, StoreError> {
        let mut sorted = series.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let found = self.again_if_files_went(|| self.last_once(&sorted, Timestamp::MAX))?;
        let place = |series: &SeriesId| sorted.partition_point(|other| other < series);
        Ok(series.iter().map(|series| found[place(series)]).collect())
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

    /// The newest points of sorted series not after `until`.
    fn last_once(&self, series: &[SeriesId], until: Timestamp) -> Result<Vec<Option<Measure>>, StoreError> {
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
                let of_this = after.unwrap_or(file.time_min).max(file.time_min);
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
            self.reader(file)?.read(&wanted, &mut |point| {
                // Points come by series.
                if series.get(place) != Some(&point.series) {
                    place = series.partition_point(|other| *other < point.series);
                }
                if let Some(best) = best.get_mut(place)
                    && best.is_none_or(|best| point.timestamp > best.timestamp)
                {
                    *best = Some(Measure { timestamp: point.timestamp, value: point.value });
                    learnt[place] = true;
                }
                true
            })?;
        }
        if until == Timestamp::MAX && learnt.contains(&true) {
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

    pub(super) fn reader(&self, file: &Arc<DataFile>) -> Result<Reader, StoreError> {
        let known = self.layouts.lock().by_path.get(&file.path).cloned();
        let is_new = known.is_none();
        let reader = Reader::open(&*self.table.disk, &self.table.root, file, known)?;
        if is_new {
            self.layouts.lock().keep(&file.path, reader.layout());
        }
        Ok(reader)
    }

    /// A file may leave the table, and the disk, while it is read; then the read begins anew with a newer version.
    fn again_if_files_went<T>(&self, read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
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

/// Points by series, older sources first.
struct Found<'a> {
    series: &'a [SeriesId],
    measures: Vec<Vec<Measure>>,
    /// Which series the last point was of: points come by series.
    at: usize,
    points: usize,
    points_max: usize,
}

impl<'a> Found<'a> {
    fn new(series: &'a [SeriesId], points_max: usize) -> Self {
        Self { series, measures: vec![Vec::new(); series.len()], at: 0, points: 0, points_max }
    }

    /// Takes one more; `false` once there are too many.
    fn take(&mut self, series: SeriesId, measure: Measure) -> bool {
        self.points += 1;
        if self.points > self.points_max {
            return false;
        }
        if self.series.get(self.at) != Some(&series) {
            self.at = self.series.partition_point(|other| *other < series);
        }
        if let Some(measures) = self.measures.get_mut(self.at) {
            measures.push(measure);
        }
        true
    }

    fn take_head(&mut self, head: &Head, wanted: &Wanted<'_>, hides: impl Fn(SeriesId) -> bool) {
        for series in wanted.series.iter().filter(|series| !hides(**series)) {
            let mut goes_on = true;
            head.read(*series, wanted.first, wanted.last, &mut |measure| {
                goes_on = goes_on && self.take(*series, measure);
            });
            if !goes_on {
                return;
            }
        }
    }

    /// Takes what another found, as newer.
    fn append(&mut self, other: Found<'a>) {
        self.points += other.points;
        for (measures, mut more) in self.measures.iter_mut().zip(other.measures) {
            measures.append(&mut more);
        }
    }
}

/// Sorted by time; of one time the last taken stays.
fn newest_by_time(mut measures: Vec<Measure>) -> Vec<Measure> {
    if !measures.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        measures.sort_by_key(|measure| measure.timestamp);
        measures.dedup_by(|next, kept| {
            let is_same = next.timestamp == kept.timestamp;
            if is_same {
                *kept = *next;
            }
            is_same
        });
    }
    measures
}
