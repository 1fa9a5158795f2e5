//! Reading rollups: of each layer and series the days that are still true, and their rows.
//!
//! A damaged file fails nothing: a day that cannot be read, or of which it is not sure that it is true, is not told, and whoever asks
//! reads raw points. What is looked at is one moment's table, tombstones and heads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use orzo_model::{SeriesId, Timestamp};

use super::{
    Layer, Rolled, by_day,
    version::{RolledFile, Source, Version},
};
use crate::{
    error::StoreError,
    head::Head,
    store::Shared,
    table::{
        data_file::{DataFile, Wanted},
        day::Day,
        reader::{Layout, Reader},
    },
    tombstones::Tombstones,
};

/// A layer, and the times that are asked for: from, and before.
pub type LayerWanted = (Layer, Timestamp, Timestamp);

/// What a read sees of the raw points.
struct Raw {
    days: BTreeMap<Day, Vec<Arc<DataFile>>>,
    tombstones: Arc<Tombstones>,
    /// Days of which a head has points, for each series.
    in_head: Vec<BTreeSet<Day>>,
    /// Where things are in files that came after a day was made; `None` if that cannot be read.
    layouts: HashMap<String, Option<Layout>>,
}

/// Rows of one series on one day.
struct DayRows {
    day: Day,
    part: u64,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Shared {
    /// Whether there can be anything for these layers and times: to ask is nearly free.
    pub(in super::super) fn may_have_rolled(&self, wanted: &[LayerWanted]) -> bool {
        let version = self.rollups.version.read();
        let reaches = |(layer, from, to): &LayerWanted| {
            version
                .files
                .iter()
                .any(|file| file.layer == *layer && file.file.time_max >= *from && file.file.time_min < *to)
        };
        wanted.iter().any(reaches)
    }

    /// For each layer, for each series (sorted, none twice) in their order. Rows of whole days, also where only a part of a
    /// day is asked for. More rows than a scan may give are refused.
    pub(in super::super) fn rolled(
        &self,
        wanted: &[LayerWanted],
        series: &[SeriesId],
    ) -> Result<Vec<Vec<Rolled>>, StoreError> {
        debug_assert!(series.is_sorted_by(|a, b| a < b));
        let version = self.rollups.version.read().clone();
        let Some(mut raw) = self.raw_of(&version, wanted, series) else { return Ok(Vec::new()) };
        let mut rows_left = self.settings.scan_points_max;
        let layer = |wanted: &LayerWanted| self.rolled_layer(&version, &mut raw, *wanted, series, &mut rows_left);
        wanted.iter().map(layer).collect()
    }

    /// `None` if nothing of it matters.
    fn raw_of(&self, version: &Version, wanted: &[LayerWanted], series: &[SeriesId]) -> Option<Raw> {
        let of_layers = |file: &&Arc<RolledFile>| wanted.iter().any(|(layer, ..)| *layer == file.layer);
        let days = version.files.iter().filter(of_layers).flat_map(|file| file.days.iter().map(|(day, _)| *day));
        let (first, last) = days.fold(None, |known: Option<(Day, Day)>, day| {
            Some(known.map_or((day, day), |(first, last)| (first.min(day), last.max(day))))
        })?;
        let from = wanted.iter().map(|(_, from, _)| *from).min()?.max(first.start());
        let to = wanted.iter().map(|(_, _, to)| *to).max()?.min(last.end());
        // Whole days are told.
        let (from, to) = (Day::of(from).start(), Day::of(to).end());
        let mut in_head = vec![BTreeSet::new(); series.len()];
        let mut look = |head: &Head| {
            for (place, series) in series.iter().enumerate() {
                let days = &mut in_head[place];
                head.read(*series, from, to, &mut |measure| {
                    days.insert(Day::of(measure.timestamp));
                });
            }
        };
        let state = self.state.read();
        look(&state.active);
        // What a tombstone hides there is looked at for nothing, which is rare.
        if let Some(frozen) = &state.frozen {
            look(&frozen.head);
        }
        let (snapshot, tombstones) = (state.snapshot.clone(), state.tombstones.clone());
        drop(state);
        Some(Raw { days: by_day(&snapshot), tombstones, in_head, layouts: HashMap::new() })
    }

    fn rolled_layer(
        &self,
        version: &Version,
        raw: &mut Raw,
        (layer, from, to): LayerWanted,
        series: &[SeriesId],
        rows_left: &mut usize,
    ) -> Result<Vec<Rolled>, StoreError> {
        let mut days: BTreeMap<Day, (u64, Source)> = BTreeMap::new();
        for (day, (part, source)) in version.days(layer) {
            let is_wanted = day.start() < to && day.end() >= from;
            if is_wanted && raw.days.get(&day).is_some_and(|files| source.is_met_by(files)) {
                days.insert(day, (part, source));
            }
        }
        let mut found: Vec<Vec<DayRows>> = series.iter().map(|_| Vec::new()).collect();
        let mut unread = BTreeSet::new();
        for rolled in version.files.iter().filter(|file| file.layer == layer) {
            match self.read_rolled(rolled, &days, series, &mut found, rows_left) {
                Ok(()) => {}
                Err(error @ StoreError::TooManyPoints { .. }) => return Err(error),
                Err(error) => {
                    self.note_broken(rolled, &error);
                    unread.insert(rolled.part);
                }
            }
        }
        let told = found.into_iter().enumerate().map(|(place, mut found)| {
            found.retain(|rows| {
                !unread.contains(&rows.part)
                    && days
                        .get(&rows.day)
                        .is_some_and(|(_, source)| self.is_true(raw, rows.day, *source, place, series[place]))
            });
            found.sort_unstable_by_key(|rows| rows.day);
            rolled_of(found)
        });
        Ok(told.collect())
    }

    /// Whether a day's rows are all that there is of a series on that day.
    fn is_true(&self, raw: &mut Raw, day: Day, source: Source, place: usize, series: SeriesId) -> bool {
        if raw.in_head[place].contains(&day) || raw.tombstones.hides(series, source.generation) {
            return false;
        }
        let Raw { days, layouts, .. } = raw;
        let late = days.get(&day).into_iter().flatten().filter(|file| file.generation > source.generation);
        for file in late {
            if !(file.series_min..=file.series_max).contains(&series.0) {
                continue;
            }
            let layout = layouts
                .entry(file.path.clone())
                .or_insert_with(|| self.reader(file).ok().map(|reader| reader.layout().clone()));
            match layout {
                Some(Layout::Index(index)) => {
                    if index.run(index.find(series.0, 0)).is_some_and(|run| run.series == series.0) {
                        return false;
                    }
                }
                // Nobody knows without reading it.
                Some(Layout::Footer(_)) | None => return false,
            }
        }
        true
    }

    /// Adds the rows of those days for which this file's part counts.
    fn read_rolled(
        &self,
        rolled: &RolledFile,
        days: &BTreeMap<Day, (u64, Source)>,
        series: &[SeriesId],
        found: &mut [Vec<DayRows>],
        rows_left: &mut usize,
    ) -> Result<(), StoreError> {
        let counts = |day: &Day| days.get(day).is_some_and(|(part, _)| *part == rolled.part);
        let mut own = rolled.days.iter().map(|(day, _)| *day).filter(counts);
        let Some(first) = own.next() else { return Ok(()) };
        let last = own.next_back().unwrap_or(first);
        let wanted = Wanted { series, first: first.start(), last: last.end() };
        if !rolled.file.may_hold(&wanted) {
            return Ok(());
        }
        let known = self.layouts.lock().by_path(&rolled.file.path);
        let is_new = known.is_none();
        let reader = Reader::open(&self.table.disk, self.rollups.root(), &rolled.file, known)?;
        if is_new {
            self.layouts.lock().keep(&rolled.file.path, reader.layout());
        }
        let mut reader = reader.keeping(self.pages.clone());
        let (mut place, mut is_too_much) = (0, false);
        reader.read(&wanted, &mut |of, times, values| {
            if series.get(place) != Some(&of) {
                place = series.partition_point(|other| *other < of);
            }
            is_too_much = times.len() > *rows_left;
            if is_too_much {
                return false;
            }
            *rows_left -= times.len();
            let mut from = 0;
            while let Some(time) = times.get(from) {
                let day = Day::of(Timestamp::from_micros(*time));
                let end = day.end().micros();
                let until = from + times[from..].partition_point(|time| *time <= end);
                if counts(&day) && series.get(place) == Some(&of) {
                    let (times, values) = (&times[from..until], &values[from..until]);
                    match found[place].last_mut().filter(|rows| rows.day == day && rows.part == rolled.part) {
                        Some(rows) => {
                            rows.times.extend_from_slice(times);
                            rows.values.extend_from_slice(values);
                        }
                        None => found[place].push(DayRows {
                            day,
                            part: rolled.part,
                            times: times.to_vec(),
                            values: values.to_vec(),
                        }),
                    }
                }
                from = until;
            }
            true
        })?;
        match is_too_much {
            true => Err(StoreError::TooManyPoints { points_max: self.settings.scan_points_max }),
            false => Ok(()),
        }
    }

    /// Tells once that a file cannot be read; the next upkeep drops it. One that has left the table meanwhile is none.
    pub(super) fn note_broken(&self, rolled: &RolledFile, error: &StoreError) {
        let is_live = self.rollups.version.read().files.iter().any(|file| file.file.path == rolled.file.path);
        if is_live && self.rollups.broken.lock().insert(rolled.file.path.clone()) {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            tracing::warn!("{error}{cause}; this rollup is dropped and made again, raw points answer meanwhile");
        }
    }
}

fn rolled_of(found: Vec<DayRows>) -> Rolled {
    let mut rolled = Rolled::default();
    for rows in found {
        let (start, next) = (rows.day.start(), Timestamp::from_micros(rows.day.end().micros() + 1));
        match rolled.days.last_mut() {
            Some((_, end)) if *end == start => *end = next,
            _ => rolled.days.push((start, next)),
        }
        rolled.times.extend(rows.times);
        rolled.values.extend(rows.values);
    }
    rolled
}
