//! Making the rollups of one day: its raw files are read side by side, a series at a time, and what comes of each series goes
//! to a file for each layer; one commit for all of them.
//!
//! Memory does not grow with the day, appends and merges go on meanwhile: files that leave the table are still read, and if
//! they are gone the day is tried again. What the day was made of is noted, so that it is made once, and again when it has
//! changed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use orzo_model::{Point, Timestamp};

use super::{
    DayRolled, RollPlan, Rollups, by_day,
    table::Sheet,
    version::{RolledFile, Source, rolled},
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
    tombstones::Tombstones,
};

/// A day that was made before is made again when no points of it came for so long: each late batch alone would have the whole
/// day read again, and until then only the series of those points are answered from raw points.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// Layers that are made together at most; each holds the rows of a row group and of a file. What is beyond is answered from
/// raw points.
const LAYERS_MAX: usize = 32;

/// The raw points of a day: its files in the order of their generations, open, and what is deleted in them.
struct RawDay {
    day: Day,
    source: Source,
    files: Vec<Arc<DataFile>>,
    streams: Vec<Stream>,
    tombstones: Arc<Tombstones>,
}

impl Shared {
    /// The newest day that is over and of which rollups are to be made; its first moment.
    pub(in super::super) fn roll_due(&self) -> Option<Timestamp> {
        self.check_open().ok()?;
        if self.rollups.off.read().is_some() || self.is_short_of_disk() {
            return None;
        }
        let (snapshot, version) = (self.state.read().snapshot.clone(), self.rollups.version.read().clone());
        let now = self.clock.now();
        let (quarantined, failed) = (self.quarantined.lock(), self.rollups.failed.lock());
        let monotonic = self.clock.monotonic();
        let is_due = |(day, files): &(&Day, &Vec<Arc<DataFile>>)| {
            let known = version.rolled.get(*day);
            day.is_over(now)
                && known != Some(&Source::of(*files).number())
                && failed.get(*day).is_none_or(|at| monotonic.saturating_sub(*at) >= AGAIN_AFTER)
                && !files.iter().any(|file| quarantined.contains_key(&file.path))
                && match known {
                    // Nothing was ever noted as zero: it is what a file that could not be read leaves.
                    None | Some(0) => self.is_quiet(**day),
                    Some(_) => self.is_quiet_for(**day, AGAIN_AFTER),
                }
        };
        by_day(&snapshot).iter().rev().find(is_due).map(|(day, _)| day.start())
    }

    fn is_short_of_disk(&self) -> bool {
        let free = self.table.disk.free_bytes(&self.settings.directory);
        // What is derived leaves more of the disk to what is not.
        free.is_ok_and(|free| free < self.settings.disk_reserve_bytes.saturating_mul(2))
    }

    /// Makes the rollups of the day that begins here. A day that fails is not due for a while, so that others have their turn.
    pub(in super::super) fn roll_day(&self, day: Timestamp, plan: RollPlan) -> Result<DayRolled, StoreError> {
        let made = self.roll_one_day(day, plan);
        let mut failed = self.rollups.failed.lock();
        match &made {
            Ok(_) => failed.remove(&Day::of(day)),
            Err(_) => failed.insert(Day::of(day), self.clock.monotonic()),
        };
        made
    }

    fn roll_one_day(&self, day: Timestamp, mut plan: RollPlan) -> Result<DayRolled, StoreError> {
        let _rolling = self.rollups.rolling.lock();
        self.check_open()?;
        if let Some(reason) = &*self.rollups.off.read() {
            return Err(StoreError::Invalid { reason: format!("there are no rollups: {reason}") });
        }
        let began = self.clock.monotonic();
        let day = Day::of(day);
        // Once they are open they can be read, wherever their names go.
        let (files, streams, tombstones) = self.again_if_files_went(|| {
            let (snapshot, tombstones) = {
                let state = self.state.read();
                (state.snapshot.clone(), state.tombstones.clone())
            };
            let files = by_day(&snapshot).remove(&day).unwrap_or_default();
            let open = |file| Reader::open(&self.table.disk, &self.table.root, file, None).map(Reader::stream);
            let streams = files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
            Ok((files, streams, tombstones))
        })?;
        let source = Source::of(&files);
        if plan.layers.len() > LAYERS_MAX {
            let left = plan.layers.len() - LAYERS_MAX;
            tracing::warn!(
                "archive policies have {left} more combinations of granularity and method than the {LAYERS_MAX} that \
                 rollups can have; raw points answer them"
            );
        }
        let mut written = Vec::new();
        let raw = RawDay { day, source, files, streams, tombstones };
        let made = self.roll_rows(raw, &mut plan, &mut written);
        let points = match made {
            Ok(Some(points)) => points,
            Ok(None) => {
                self.rollups.discard(&written);
                return Err(StoreError::Stopped);
            }
            Err(error) => {
                self.rollups.discard(&written);
                return Err(error);
            }
        };
        let now = self.clock.now();
        let now_ms = now.micros() / 1000;
        let mut actions = self.broken_removed(now);
        actions.extend(written.iter().map(|file| Action::Add(file.to_add(now_ms))));
        actions.push(rolled(day, source.number(), now_ms));
        if let Err(error) = self.rollups.commit(actions, Operation::Flush, now) {
            if self.rollups.off.read().is_none() {
                self.rollups.discard(&written);
            }
            return Err(error);
        }
        let took = self.clock.monotonic().saturating_sub(began);
        self.room.took("rollups", took);
        Ok(DayRolled { points, rows: written.iter().map(|file| file.file.rows).sum(), took })
    }

    /// Parts of which a file could not be read leave the table, and their days are looked at again.
    pub(super) fn broken_removed(&self, now: Timestamp) -> Vec<Action> {
        let broken = std::mem::take(&mut *self.rollups.broken.lock());
        let version = self.rollups.version.read().clone();
        let mut actions = Vec::new();
        for bad in version.files.iter().filter(|file| broken.contains(&file.file.path)) {
            let same_part = |file: &&Arc<RolledFile>| (file.layer, file.part) == (bad.layer, bad.part);
            actions.extend(version.files.iter().filter(same_part).map(|file| Rollups::removal(file, now)));
            actions.extend(bad.days.iter().map(|(day, _)| rolled(*day, 0, now.micros() / 1000)));
        }
        actions
    }

    /// Gives how many points there were; `None` if the store is about to close.
    fn roll_rows(
        &self,
        raw: RawDay,
        plan: &mut RollPlan,
        written: &mut Vec<RolledFile>,
    ) -> Result<Option<u64>, StoreError> {
        plan.layers.truncate(LAYERS_MAX);
        let part = self.rollups.next_part();
        let days = vec![(raw.day, raw.source)];
        let mut sheets: Vec<Sheet> = plan.layers.iter().map(|layer| Sheet::new(*layer, part, days.clone())).collect();
        let mut rows: Vec<Vec<Point>> = sheets.iter().map(|_| Vec::new()).collect();
        let mut count = 0;
        let goes_on = self.each_series(raw, &mut |points| {
            count += points.len() as u64;
            rows.iter_mut().for_each(Vec::clear);
            (plan.make)(points, &mut rows);
            for (sheet, rows) in sheets.iter_mut().zip(&rows) {
                debug_assert!(rows.is_sorted_by(|a, b| a.timestamp < b.timestamp));
                sheet.push(&self.rollups, rows, written)?;
            }
            Ok(())
        })?;
        for sheet in &mut sheets {
            sheet.finish(&self.rollups, written)?;
        }
        Ok(goes_on.then_some(count))
    }

    /// Hands the points of each series to `take`: one value for each time, nothing deleted. `false` if the store is about to
    /// close.
    fn each_series(
        &self,
        raw: RawDay,
        take: &mut dyn FnMut(&[Point]) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let RawDay { files, mut streams, tombstones, .. } = raw;
        let mut next = streams.iter_mut().map(Stream::next_series).collect::<Result<Vec<_>, _>>()?;
        let mut points: Vec<Point> = Vec::new();
        while let Some(series) = next.iter().flatten().min().copied() {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            points.clear();
            for ((stream, next), file) in streams.iter_mut().zip(&mut next).zip(&files) {
                let start = points.len();
                while *next == Some(series) {
                    stream.take_series(&mut points)?;
                    *next = stream.next_series()?;
                }
                if points.len() > start && tombstones.hides(points[start].series, file.generation) {
                    points.truncate(start);
                }
            }
            if !points.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
                // Stable: of the same time the last file's is last.
                points.sort_by_key(|point| point.timestamp);
                points.dedup_by(|next, kept| {
                    let is_same = next.timestamp == kept.timestamp;
                    if is_same {
                        *kept = *next;
                    }
                    is_same
                });
            }
            if !points.is_empty() {
                take(&points)?;
            }
        }
        Ok(true)
    }
}
