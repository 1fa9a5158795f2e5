//! Fewer and longer files of rollups: a question about a series in months reads a page of a file for each of them, not for
//! each day.
//!
//! Parts of one layer and one stretch of days are merged when that is worth it: none is larger than all others together. Of
//! each day the part that counts goes in; days that are not true any more stay out.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use orzo_model::{Point, SeriesId};

use super::{
    Layer, Rollups, by_day,
    table::Sheet,
    version::{RolledFile, Source, Version},
};
use crate::{
    error::StoreError,
    store::Shared,
    table::{
        action::{Action, Operation},
        data_file::DataFile,
        day::Day,
        reader::{Reader, Stream},
    },
};

/// Days that may be in one file. More would be written again for each late point of any of them.
const STRETCH_DAYS: i64 = 32;
/// Parts that are merged at least, unless one has days that do not count any more.
const PARTS_MIN: usize = 4;

/// A part of a layer: its files, its days that count, and how many others it has.
#[derive(Clone, Debug)]
struct Part {
    number: u64,
    days: Vec<(Day, Source)>,
    dead_days: usize,
    files: Vec<Arc<RolledFile>>,
}

impl Shared {
    /// Merges and cleans one layer's parts where that is worth it, and removes files that left the table long enough ago.
    /// Gives how many parts were merged or dropped; to be called again as long as that is not zero.
    pub(in super::super) fn tidy_rollups(&self) -> Result<u64, StoreError> {
        let _rolling = self.rollups.rolling.lock();
        self.check_open()?;
        if self.rollups.off.read().is_some() {
            return Ok(0);
        }
        let now = self.clock.now();
        self.rollups.vacuum(now.minus(self.settings.removed_grace));
        let broken = self.broken_removed(now);
        if !broken.is_empty() {
            let count = broken.len() as u64;
            self.rollups.commit(broken, Operation::Retain, now)?;
            return Ok(count);
        }
        let snapshot = self.state.read().snapshot.clone();
        let (version, raw) = (self.rollups.version.read().clone(), by_day(&snapshot));
        let monotonic = self.clock.monotonic();
        let is_cleaning = monotonic.saturating_sub(*self.rollups.cleaned_at.lock()) >= self.settings.deleted_within / 2;
        for layer in version.layers() {
            if let Some(parts) =
                parts_of(&version, layer, &raw).into_values().find_map(|parts| worth(parts, is_cleaning))
            {
                return match self.merge_parts(layer, &parts) {
                    // The next call drops what could not be read.
                    Err(error) if self.rollups.broken.lock().is_empty() => Err(error),
                    _ => Ok(parts.len() as u64),
                };
            }
        }
        if is_cleaning {
            *self.rollups.cleaned_at.lock() = monotonic;
        }
        Ok(0)
    }

    fn merge_parts(&self, layer: Layer, parts: &[Part]) -> Result<(), StoreError> {
        let mut days: Vec<(Day, Source)> = parts.iter().flat_map(|part| part.days.iter().copied()).collect();
        days.sort_unstable_by_key(|(day, _)| *day);
        let mut sheet = Sheet::new(layer, self.rollups.next_part(), days);
        let mut written = Vec::new();
        let merged = self.merge_rolled(parts, &mut sheet, &mut written);
        if let Err(error) = merged {
            self.rollups.discard(&written);
            return Err(error);
        }
        let now = self.clock.now();
        let gone = parts.iter().flat_map(|part| part.files.iter()).map(|file| Rollups::removal(file, now));
        let made = written.iter().map(|file| Action::Add(file.to_add(now.micros() / 1000)));
        let actions = gone.chain(made).collect();
        let committed = self.rollups.commit(actions, Operation::Compact, now);
        if committed.is_err() && self.rollups.off.read().is_none() {
            self.rollups.discard(&written);
        }
        committed
    }

    fn merge_rolled(&self, parts: &[Part], sheet: &mut Sheet, written: &mut Vec<RolledFile>) -> Result<(), StoreError> {
        let mut streams: Vec<(Stream, &Part, &Arc<RolledFile>)> = Vec::new();
        for (part, rolled) in parts.iter().flat_map(|part| part.files.iter().map(move |rolled| (part, rolled))) {
            let reader = Reader::open(&self.table.disk, self.rollups.root(), &rolled.file, None);
            streams.push((reader.inspect_err(|error| self.note_broken(rolled, error))?.stream(), part, rolled));
        }
        let mut next = Vec::with_capacity(streams.len());
        for (stream, _, rolled) in &mut streams {
            next.push(stream.next_series().inspect_err(|error| self.note_broken(rolled, error))?);
        }
        let (mut rows, mut kept): (Vec<Point>, Vec<Point>) = (Vec::new(), Vec::new());
        while let Some(series) = next.iter().flatten().min().copied() {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped);
            }
            kept.clear();
            for ((stream, part, rolled), next) in streams.iter_mut().zip(&mut next) {
                while *next == Some(series) {
                    rows.clear();
                    stream.take_series(&mut rows).inspect_err(|error| self.note_broken(rolled, error))?;
                    *next = stream.next_series().inspect_err(|error| self.note_broken(rolled, error))?;
                    let counts = |row: &&Point| part.days.iter().any(|(day, _)| *day == Day::of(row.timestamp));
                    kept.extend(rows.iter().filter(counts));
                }
            }
            debug_assert!(kept.iter().all(|row| row.series == SeriesId(series)));
            kept.sort_unstable_by_key(|row| row.timestamp);
            sheet.push(&self.rollups, &kept, written)?;
        }
        sheet.finish(&self.rollups, written)
    }
}

/// The parts of a layer by stretches of days, each with the days for which it counts and that are still true.
fn parts_of(version: &Version, layer: Layer, raw: &BTreeMap<Day, Vec<Arc<DataFile>>>) -> BTreeMap<i64, Vec<Part>> {
    let counting = version.days(layer);
    let counts = |number: u64, day: &Day, source: &Source| {
        counting.get(day).is_some_and(|(part, _)| *part == number)
            && raw.get(day).is_some_and(|files| source.is_met_by(files))
    };
    let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
    for file in version.files.iter().filter(|file| file.layer == layer) {
        let part = parts.entry(file.part).or_insert_with(|| {
            let days: Vec<_> =
                file.days.iter().filter(|(day, source)| counts(file.part, day, source)).copied().collect();
            Part { number: file.part, dead_days: file.days.len() - days.len(), days, files: Vec::new() }
        });
        part.files.push(file.clone());
    }
    let mut stretches: BTreeMap<i64, Vec<Part>> = BTreeMap::new();
    for part in parts.into_values() {
        let day = part.files.first().and_then(|file| file.days.first()).map_or(0, |(day, _)| day.number());
        stretches.entry(day.div_euclid(STRETCH_DAYS)).or_default().push(part);
    }
    stretches
}

/// Which parts of a stretch to merge, if any: those without a day that counts are dropped, those that have days that do not
/// count are written anew now and then, and many small ones become one.
fn worth(mut parts: Vec<Part>, is_cleaning: bool) -> Option<Vec<Part>> {
    let empty: Vec<Part> = parts.iter().filter(|part| part.days.is_empty()).cloned().collect();
    if !empty.is_empty() {
        return Some(empty);
    }
    parts.sort_by_key(|part| (part.days.len(), part.number));
    let mut sum = 0;
    let mut many = 0;
    for (place, part) in parts.iter().enumerate() {
        if place + 1 >= PARTS_MIN && part.days.len() <= sum {
            many = place + 1;
        }
        sum += part.days.len();
    }
    if many > 0 {
        parts.truncate(many);
        return Some(parts);
    }
    let dead = parts.into_iter().find(|part| is_cleaning && part.dead_days > 0)?;
    Some(vec![dead])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, days: i64, dead_days: usize) -> Part {
        let days = (0..days).map(|day| (Day::from_number(day), Source::default())).collect();
        Part { number, days, dead_days, files: Vec::new() }
    }

    fn chosen(parts: Vec<Part>, is_cleaning: bool) -> Option<Vec<u64>> {
        worth(parts, is_cleaning).map(|parts| parts.iter().map(|part| part.number).collect())
    }

    #[test]
    fn parts_are_merged_when_no_one_outweighs_the_others() {
        let single = |numbers: std::ops::Range<u64>| numbers.map(|number| part(number, 1, 0)).collect::<Vec<_>>();
        assert_eq!(chosen(single(0..3), true), None);
        assert_eq!(chosen(single(0..4), false), Some(vec![0, 1, 2, 3]));
        let mut grown = single(0..3);
        grown.push(part(9, 16, 0));
        assert_eq!(chosen(grown.clone(), true), None);
        grown.push(part(4, 1, 0));
        assert_eq!(chosen(grown, true), Some(vec![0, 1, 2, 4]), "the large one stays");
        assert_eq!(chosen(vec![part(1, 0, 3), part(2, 5, 0)], false), Some(vec![1]), "nothing of it counts");
        assert_eq!(chosen(vec![part(1, 9, 1)], false), None);
        assert_eq!(chosen(vec![part(1, 9, 1)], true), Some(vec![1]));
    }
}
