//! One read by several threads: series in shares of some thousand points, each read through all files and made into what
//! the caller wants before the next one, so that points stay in the processor's cache and their memory is used again.
//!
//! Each thread has a stretch of neighbouring shares, because neighbours lie in the same pages; one that has done its own
//! takes from the end of the longest that is left.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use orzo_model::{SeriesId, Timestamp};
use parking_lot::Mutex;

use super::{
    super::{
        Shared,
        gathered::{Columns, Found, Gathered},
    },
    Layout, View,
};
use crate::{
    error::StoreError,
    table::{
        data_file::{DataFile, Wanted},
        reader::Reader,
    },
};

/// More points than these are read by several threads; of fewer the threads would cost more than they save. In tests a few
/// are many, so that all of them go both ways.
const POINTS_ALONE_MAX: usize = if cfg!(test) { 8 } else { 100_000 };
/// Points of a share: their times and values stay in a core's cache.
const SHARE_POINTS: usize = if cfg!(test) { 4 } else { 16_384 };
/// Series of a share, where they have few points or nobody knows how many.
const SHARE_SERIES_MAX: usize = 256;
/// Files that each thread of a read keeps open, with a page of times and one of values, from one share to the next. More
/// are opened anew for each share, and the shares are larger.
const FILES_OPEN_MAX: usize = if cfg!(test) { 2 } else { 64 };
/// Points of a share then: 32 MiB for each thread.
const LARGE_SHARE_POINTS: usize = if cfg!(test) { 16 } else { 2 << 20 };

/// Makes something of a series' points and may take them; `None` ends the whole read.
pub(in super::super) type Make<G, R> = Box<dyn FnMut(SeriesId, &mut G) -> Option<R>>;

/// Gives each thread of a read its own [`Make`].
pub(in super::super) type Begin<'b, G, R> = dyn Fn() -> Make<G, R> + Sync + 'b;

/// Makes a few values of the points of one series; `None` ends the whole read.
pub type Reducer = Box<dyn FnMut(&mut Columns) -> Option<Vec<f64>>>;

/// Gives each thread of a read its own [`Reducer`]. A read may begin anew, so that it is asked twice about a series.
pub type Reduce = dyn Fn() -> Reducer + Send + Sync;

/// What was made of a series' points.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// Which series.
    pub series: SeriesId,
    /// How many points it had.
    pub points: usize,
    /// What was made of them.
    pub values: Vec<f64>,
}

/// What one thread reads next: its number among all shares, and what of its series is newer than all files.
struct Share<'a, G> {
    number: usize,
    newest: Found<'a, G>,
}

/// What all threads of one read look at.
struct Read<'r, 'a, 'b, G, R> {
    view: &'r View,
    wanted: &'r Wanted<'a>,
    files: &'r [&'r Arc<DataFile>],
    /// For each thread the shares that it has not begun.
    left: Mutex<Vec<VecDeque<Share<'a, G>>>>,
    points: AtomicUsize,
    points_max: usize,
    /// Somebody failed, or was told to end.
    ended: AtomicBool,
    begin: &'r Begin<'b, G, R>,
    /// Whether the disk must not be touched.
    in_memory: bool,
}

impl<'a, G, R> Read<'_, 'a, '_, G, R> {
    fn next(&self, thread: usize) -> Option<Share<'a, G>> {
        if self.ended.load(Ordering::Relaxed) {
            return None;
        }
        let mut left = self.left.lock();
        match left[thread].pop_front() {
            Some(own) => Some(own),
            None => left.iter_mut().max_by_key(|shares| shares.len())?.pop_back(),
        }
    }
}

/// Threads that a read has taken beyond its own, given back when it ends.
struct Helpers<'s> {
    left: &'s AtomicUsize,
    count: usize,
}

impl<'s> Helpers<'s> {
    fn take(left: &'s AtomicUsize, most: usize) -> Self {
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - most.min(left)));
        Self { left, count: taken.map_or(0, |before| most.min(before)) }
    }
}

impl Drop for Helpers<'_> {
    fn drop(&mut self) {
        self.left.fetch_add(self.count, Ordering::Relaxed);
    }
}

impl Shared {
    /// All of it, on as many threads as it is worth.
    pub(super) fn scan_once<G: Gathered, R: Send + 'static>(
        &self,
        wanted: &Wanted<'_>,
        points_max: usize,
        begin: &Begin<'_, G, R>,
    ) -> Result<Vec<R>, StoreError> {
        let mut newest = Found::new(wanted.series, points_max);
        let view = self.view(|state| newest.take_head(&state.active, wanted, |_| false))?;
        let files: Vec<_> = view.snapshot.files.iter().filter(|file| file.may_hold(wanted)).collect();
        let (points, _) = self.points_about(&files, wanted);
        let share_points = if files.len() > FILES_OPEN_MAX { LARGE_SHARE_POINTS } else { SHARE_POINTS };
        let of_one = (points / wanted.series.len().max(1)).max(1);
        let shares = newest.split((share_points / of_one).clamp(1, SHARE_SERIES_MAX));
        let most =
            if points < POINTS_ALONE_MAX { 0 } else { (self.scan_threads - 1).min(shares.len().saturating_sub(1)) };
        let helpers = Helpers::take(&self.scan_threads_left, most);
        let threads = helpers.count + 1;
        let each = shares.len().div_ceil(threads).max(1);
        let mut shares = shares.into_iter().enumerate().map(|(number, newest)| Share { number, newest });
        let left = (0..threads).map(|_| shares.by_ref().take(each).collect()).collect();
        let read = Read {
            view: &view,
            wanted,
            files: &files,
            left: Mutex::new(left),
            points: AtomicUsize::new(0),
            points_max,
            ended: AtomicBool::new(false),
            begin,
            in_memory: false,
        };
        let mut made = std::thread::scope(|scope| {
            let read = &read;
            let others: Vec<_> =
                (1..threads).map(|thread| scope.spawn(move || self.read_shares(read, thread))).collect();
            let mut made = self.read_shares(read, 0);
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                made = made.and_then(|mut made| {
                    made.extend(other?);
                    Ok(made)
                });
            }
            made
        })?;
        made.sort_unstable_by_key(|(number, _)| *number);
        Ok(made.into_iter().flat_map(|(_, made)| made).collect())
    }

    /// All of it, if that is no more than `brief` points, which are in memory.
    pub(super) fn scan_in_memory<G: Gathered, R: 'static>(
        &self,
        wanted: &Wanted<'_>,
        brief: usize,
        begin: &Begin<'_, G, R>,
    ) -> Result<Option<Vec<R>>, StoreError> {
        if wanted.series.len() > brief {
            return Ok(None);
        }
        let mut newest = Found::new(wanted.series, brief);
        let view = self.view(|state| newest.take_head(&state.active, wanted, |_| false))?;
        let files: Vec<_> = view.snapshot.files.iter().filter(|file| file.may_hold(wanted)).collect();
        let (points, is_known) = self.points_about(&files, wanted);
        if !is_known || points + newest.points > brief {
            return Ok(None);
        }
        let left = vec![VecDeque::from([Share { number: 0, newest }])];
        let read = Read {
            view: &view,
            wanted,
            files: &files,
            left: Mutex::new(left),
            points: AtomicUsize::new(0),
            // It was an estimate.
            points_max: brief * 4,
            ended: AtomicBool::new(false),
            begin,
            in_memory: true,
        };
        match self.read_shares(&read, 0) {
            Ok(made) => Ok(Some(made.into_iter().flat_map(|(_, made)| made).collect())),
            Err(StoreError::NotInMemory | StoreError::TooManyPoints { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Reads shares until none is left; gives what was made of each.
    fn read_shares<G: Gathered, R: 'static>(
        &self,
        read: &Read<'_, '_, '_, G, R>,
        thread: usize,
    ) -> Result<Vec<(usize, Vec<R>)>, StoreError> {
        let outcome = self.read_shares_until_one_fails(read, thread);
        if outcome.is_err() {
            read.ended.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn read_shares_until_one_fails<G: Gathered, R: 'static>(
        &self,
        read: &Read<'_, '_, '_, G, R>,
        thread: usize,
    ) -> Result<Vec<(usize, Vec<R>)>, StoreError> {
        let mut readers = Vec::with_capacity(read.files.len());
        for file in read.files {
            readers.push((*file, if read.in_memory { self.reader_in_memory(file)? } else { self.reader(file)? }));
        }
        let (mut make, mut found, mut all) = ((read.begin)(), Found::new(&[], read.points_max), Vec::new());
        while let Some(Share { number, newest }) = read.next(thread) {
            found.renew(newest.series());
            self.read_share(read, &mut readers, &mut found, newest)?;
            let before = read.points.fetch_add(found.points, Ordering::Relaxed);
            if before + found.points > read.points_max {
                return Err(StoreError::TooManyPoints { points_max: read.points_max });
            }
            let mut made = Vec::with_capacity(found.series().len());
            for (series, points) in found.all() {
                if self.is_deduplicated() {
                    points.newest_by_time();
                }
                made.push(make(series, points).ok_or(StoreError::Stopped)?);
            }
            all.push((number, made));
        }
        Ok(all)
    }

    fn read_share<'a, G: Gathered, R>(
        &self,
        read: &Read<'_, 'a, '_, G, R>,
        readers: &mut [(&Arc<DataFile>, Reader)],
        found: &mut Found<'a, G>,
        newest: Found<'a, G>,
    ) -> Result<(), StoreError> {
        let (wanted, tombstones) = (Wanted { series: newest.series(), ..*read.wanted }, &read.view.tombstones);
        let count = readers.len();
        for (number, (file, reader)) in readers.iter_mut().enumerate() {
            reader.read(&wanted, &mut |series, times, values| {
                tombstones.hides(series, file.generation) || found.take(count - number, series, times, values)
            })?;
            if count > FILES_OPEN_MAX {
                reader.rest();
            }
        }
        if let Some(frozen) = &read.view.frozen {
            found.take_head(&frozen.head, &wanted, |series| tombstones.hides(series, frozen.generation));
        }
        found.append(newest);
        if found.points > read.points_max {
            return Err(StoreError::TooManyPoints { points_max: read.points_max });
        }
        Ok(())
    }

    /// About how many points a read will find in files of which that is known, and whether it is of all.
    fn points_about(&self, files: &[&Arc<DataFile>], wanted: &Wanted<'_>) -> (usize, bool) {
        let layouts = self.layouts.lock();
        let micros = |first: Timestamp, last: Timestamp| last.micros().saturating_sub(first.micros()).max(1) as f64;
        let (mut points, mut is_known) = (0, true);
        for file in files {
            let Some(Layout::Index(index)) = layouts.by_path.get(&file.path) else {
                is_known = false;
                continue;
            };
            let (first, last) = (wanted.first.max(file.time_min), wanted.last.min(file.time_max));
            let share = micros(first, last) / micros(file.time_min, file.time_max);
            let rows_of_one = file.rows as f64 / (index.runs_count() as f64).max(1.0);
            points += (rows_of_one * wanted.series.len() as f64 * share) as usize;
        }
        (points, is_known)
    }

    /// Always, but where a test wants to see that it is noticed.
    fn is_deduplicated(&self) -> bool {
        #[cfg(test)]
        if self.table.disk.planted() == Some(crate::files::Planted::NotDeduplicated) {
            return false;
        }
        true
    }
}
