//! Reading: head, head that is being written, files, in this order of age; of one key the newest wins.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use orzo_model::{Measure, SeriesId, Timestamp};
use parquet::file::metadata::ParquetMetaData;

use super::{Frozen, Shared};
use crate::{
    error::StoreError,
    head::Head,
    table::{
        data_file::{DataFile, Reader},
        encode::Wanted,
        snapshot::Snapshot,
    },
    tombstones::Tombstones,
};

/// Footers kept in memory; each takes about 1 KB for 65,536 rows.
const FOOTERS_MAX: usize = 1024;
/// How often a read begins anew because a file left the table while it read.
const READS_MAX: usize = 5;

/// Footers of files read before, by path; emptied when full, which is simple and rarely matters.
#[derive(Default)]
pub(super) struct Footers(HashMap<String, Arc<ParquetMetaData>>);

impl Footers {
    /// The file is gone.
    pub(super) fn forget(&mut self, path: &str) {
        self.0.remove(path);
    }
}

/// What one read sees.
struct View {
    snapshot: Arc<Snapshot>,
    frozen: Option<Arc<Frozen>>,
    tombstones: Arc<Tombstones>,
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
        let mut found = Found { series: BTreeMap::new(), points: 0, points_max: self.settings.scan_points_max };
        let mut newest = Found { series: BTreeMap::new(), points: 0, points_max: self.settings.scan_points_max };
        let view = self.view(|head| newest.take_head(head, wanted, |_| false))?;
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
        for (series, measures) in newest.series {
            for measure in measures {
                found.take(series, measure);
            }
        }
        if found.points > found.points_max || newest.points > newest.points_max {
            return Err(StoreError::TooManyPoints { points_max: found.points_max });
        }
        Ok(found.series.into_iter().map(|(series, measures)| (series, newest_by_time(measures))).collect())
    }

    pub(super) fn last(&self, series: SeriesId, until: Timestamp) -> Result<Option<Measure>, StoreError> {
        self.again_if_files_went(|| self.last_once(series, until))
    }

    fn last_once(&self, series: SeriesId, until: Timestamp) -> Result<Option<Measure>, StoreError> {
        let mut best: Option<Measure> = None;
        let view = self.view(|head| best = head.last(series, until))?;
        if let Some(frozen) = &view.frozen
            && !view.tombstones.hides(series, frozen.generation)
            && let Some(measure) = frozen.head.last(series, until)
            && best.is_none_or(|best| measure.timestamp > best.timestamp)
        {
            best = Some(measure);
        }
        // From new to old, so that of one time the newest stays.
        for file in view.snapshot.files.iter().rev() {
            if view.tombstones.hides(series, file.generation) {
                continue;
            }
            let mut first = file.time_min;
            if let Some(best) = best {
                first = first.max(Timestamp::from_micros(best.timestamp.micros().saturating_add(1)));
            }
            let wanted = Wanted { series: &[series], first, last: until };
            if first > until || !file.may_hold(&wanted) {
                continue;
            }
            self.reader(file)?.read(&wanted, &mut |point| {
                let measure = Measure { timestamp: point.timestamp, value: point.value };
                if best.is_none_or(|best| measure.timestamp > best.timestamp) {
                    best = Some(measure);
                }
                true
            })?;
        }
        Ok(best)
    }

    /// What is there now; the active head is read while it stands still.
    fn view(&self, read_active: impl FnOnce(&Head)) -> Result<View, StoreError> {
        // After a failed write reads go on; after `close` the directory is somebody else's.
        if self.lock.lock().is_none() {
            self.check_open()?;
        }
        let state = self.state.read();
        read_active(&state.active);
        Ok(View {
            snapshot: state.snapshot.clone(),
            frozen: state.frozen.clone(),
            tombstones: state.tombstones.clone(),
        })
    }

    fn reader(&self, file: &Arc<DataFile>) -> Result<Reader, StoreError> {
        let known = self.footers.lock().0.get(&file.path).cloned();
        let is_new = known.is_none();
        let reader = Reader::open(&*self.table.disk, &self.table.root, file, known)?;
        if is_new {
            let mut footers = self.footers.lock();
            if footers.0.len() >= FOOTERS_MAX {
                footers.0.clear();
            }
            footers.0.insert(file.path.clone(), reader.metadata().clone());
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
struct Found {
    series: BTreeMap<SeriesId, Vec<Measure>>,
    points: usize,
    points_max: usize,
}

impl Found {
    /// Takes one more; `false` once there are too many.
    fn take(&mut self, series: SeriesId, measure: Measure) -> bool {
        self.points += 1;
        if self.points > self.points_max {
            return false;
        }
        self.series.entry(series).or_default().push(measure);
        true
    }

    fn take_head(&mut self, head: &Head, wanted: &Wanted<'_>, hides: impl Fn(SeriesId) -> bool) {
        for series in wanted.series.iter().filter(|series| !hides(**series)) {
            for measure in head.read(*series, wanted.first, wanted.last) {
                if !self.take(*series, measure) {
                    return;
                }
            }
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
