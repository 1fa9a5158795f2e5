//! The times of a row group, in the smallest of three ways: steps, steps in one page for all, or places in a dictionary.

use parquet::errors::Result;
use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::{
    super::packing,
    PackedPage, REPEATING_PAGE_ROWS, ZSTD_LEVEL,
    group::{GroupRun, cut},
};

/// Rows of a page of times as differences.
const DELTA_PAGE_ROWS: usize = 65_536;
/// Rows on which a dictionary of times is tried first.
const TRIAL_ROWS: usize = 131_072;
/// Times as differences that take less than one byte in this many rows before they are compressed are whole steps, but for
/// where a series begins.
const STEADY_ROWS: usize = 8;
/// Compressed times below one byte in this many rows cannot be bettered.
const TIMES_GOOD_ROWS: usize = 50;
/// A page of all times of a row group is taken only if it has no more than one in this many bytes of what smaller pages
/// have: whoever reads one series unpacks it whole.
const WHOLE_SHARE: usize = 2;
/// How far back it looks, and how many places it remembers: all of a row group's differences of four bytes.
const FAR_WINDOW_LOG: u32 = 23;
/// What it looks for: runs of so many bytes, tried at one in 2^6 places: times that series share are runs of kilobytes.
const FAR_BYTES_MIN: u32 = 32;
const FAR_HASH_RATE_LOG: u32 = 6;
/// A dictionary with more than one entry in this many rows does not pay.
const DICTIONARY_SHARE: usize = 8;

/// How times are packed.
pub(super) enum Times {
    Deltas(Vec<PackedPage>),
    Dictionary(Vec<i64>, Vec<PackedPage>),
}

/// What a trial of the first times showed.
enum Tried {
    /// Whole steps.
    Steady,
    /// Many series have the same times; a dictionary pays up to so many entries.
    Shared {
        entries_max: usize,
    },
    Other,
}

/// Packs the times of one row group after the other.
#[derive(Default)]
pub(super) struct TimePacker {
    /// One that looks far back; made when it is needed.
    far: Option<Compressor<'static>>,
    /// What pages are put together in.
    body: Vec<u8>,
}

impl TimePacker {
    /// Some of the times are packed in both ways, and all of them in the smaller one.
    pub(super) fn pack(&mut self, zstd: &mut Compressor<'_>, times: &[i64], runs: &[GroupRun]) -> Result<Times> {
        let (tried, bytes_expected) = self.try_both(zstd, times, runs)?;
        let page_rows = match tried {
            Tried::Shared { entries_max } => {
                // What grows with the rows is not shared by the series.
                if let Some(entries) = distinct(times, runs, entries_max) {
                    let pages = self.pack_indices(zstd, times, &entries, runs)?;
                    return Ok(Times::Dictionary(entries, pages));
                }
                DELTA_PAGE_ROWS
            }
            // A page of whole steps stays small, and what begins anew with each series is found again in it.
            Tried::Steady => REPEATING_PAGE_ROWS,
            Tried::Other => DELTA_PAGE_ROWS,
        };
        let is_good = |bytes: usize| bytes * TIMES_GOOD_ROWS <= times.len();
        let mut whole = None;
        if times.len() > page_rows && !is_good(bytes_expected) {
            let packed = self.pack_whole(times)?;
            // Where it is this good, smaller pages need not be made to know it; by the first rows, which may be worse than
            // the rest.
            if packed.packed.len() * WHOLE_SHARE <= bytes_expected {
                return Ok(Times::Deltas(vec![packed]));
            }
            whole = Some(packed);
        }
        let pages = self.pack_deltas(zstd, times, runs, page_rows)?;
        let bytes: usize = pages.iter().map(|page| page.packed.len()).sum();
        if pages.len() == 1 || is_good(bytes) {
            return Ok(Times::Deltas(pages));
        }
        let whole = match whole {
            Some(whole) => whole,
            None => self.pack_whole(times)?,
        };
        Ok(Times::Deltas(if whole.packed.len() * WHOLE_SHARE <= bytes { vec![whole] } else { pages }))
    }

    /// All times in one page, packed so that what is far apart in it is found again.
    fn pack_whole(&mut self, times: &[i64]) -> Result<PackedPage> {
        let mut body = Vec::new();
        packing::put_deltas(times, &mut body);
        let far = match &mut self.far {
            Some(far) => far,
            none => {
                let mut far = Compressor::new(ZSTD_LEVEL)?;
                far.set_parameter(CParameter::WindowLog(FAR_WINDOW_LOG))?;
                far.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
                far.set_parameter(CParameter::LdmMinMatch(FAR_BYTES_MIN))?;
                far.set_parameter(CParameter::LdmHashRateLog(FAR_HASH_RATE_LOG))?;
                none.insert(far)
            }
        };
        Ok(PackedPage { packed: far.compress(&body)?, plain_bytes: body.len(), rows: times.len() })
    }

    /// Tries both on the first rows. A dictionary's entries are counted as if all rows shared them. Also gives the bytes that
    /// all rows would take as differences, if they were like the first.
    fn try_both(&mut self, zstd: &mut Compressor<'_>, all: &[i64], runs: &[GroupRun]) -> Result<(Tried, usize)> {
        let (times, body) = (&all[..all.len().min(TRIAL_ROWS)], &mut self.body);
        body.clear();
        packing::put_deltas(times, body);
        let deltas_bytes = zstd.compress(body)?.len();
        let bytes_expected = deltas_bytes * all.len() / times.len().max(1);
        if deltas_bytes * TIMES_GOOD_ROWS <= times.len() {
            let is_steady = body.len() * STEADY_ROWS <= times.len();
            return Ok((if is_steady { Tried::Steady } else { Tried::Other }, bytes_expected));
        }
        let Some(entries) = distinct(times, runs, times.len() / DICTIONARY_SHARE) else {
            return Ok((Tried::Other, bytes_expected));
        };
        body.clear();
        packing::put_indices(times.len(), indices_of(times, &entries), packing::index_bytes(entries.len()), body);
        let plain: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let entries_bytes = zstd.compress(&plain)?.len() * times.len() / all.len();
        let is_smaller = zstd.compress(body)?.len() + entries_bytes < deltas_bytes;
        let tried = if is_smaller { Tried::Shared { entries_max: entries.len() * 2 } } else { Tried::Other };
        Ok((tried, bytes_expected))
    }

    fn pack_deltas(
        &mut self,
        zstd: &mut Compressor<'_>,
        times: &[i64],
        runs: &[GroupRun],
        page_rows: usize,
    ) -> Result<Vec<PackedPage>> {
        let (mut pages, mut at, body) = (Vec::new(), 0, &mut self.body);
        for rows in cut(runs, page_rows) {
            body.clear();
            packing::put_deltas(&times[at..at + rows], body);
            pages.push(PackedPage { packed: zstd.compress(body)?, plain_bytes: body.len(), rows });
            at += rows;
        }
        Ok(pages)
    }

    fn pack_indices(
        &mut self,
        zstd: &mut Compressor<'_>,
        times: &[i64],
        entries: &[i64],
        runs: &[GroupRun],
    ) -> Result<Vec<PackedPage>> {
        let width = packing::index_bytes(entries.len());
        let (mut pages, mut at, body) = (Vec::new(), 0, &mut self.body);
        for rows in cut(runs, REPEATING_PAGE_ROWS) {
            body.clear();
            packing::put_indices(rows, indices_of(&times[at..at + rows], entries), width, body);
            pages.push(PackedPage { packed: zstd.compress(body)?, plain_bytes: body.len(), rows });
            at += rows;
        }
        Ok(pages)
    }
}

/// Where each time stands among the entries.
fn indices_of(times: &[i64], entries: &[i64]) -> impl Iterator<Item = u32> {
    let mut next = 0;
    times.iter().map(move |time| {
        // Most often it is the entry behind the one before.
        let at = if entries.get(next) == Some(time) { next } else { entries.partition_point(|entry| entry < time) };
        next = at + 1;
        at as u32
    })
}

/// New times that wait to be put among the entries, at least.
const NEW_ENTRIES_MIN: usize = 256;

/// All different times of these runs, sorted; `None` if there are more than so many. The times of a run rise.
fn distinct(times: &[i64], runs: &[GroupRun], entries_max: usize) -> Option<Vec<i64>> {
    let (mut entries, mut new, mut rest) = (Vec::new(), Vec::new(), times);
    for run in runs {
        let (of_run, later) = rest.split_at(run.rows.min(rest.len()));
        rest = later;
        let mut next = 0;
        for time in of_run {
            // Series that are asked together have the same times one after the other.
            if entries.get(next) == Some(time) {
                next += 1;
            } else {
                match entries.binary_search(time) {
                    Ok(at) => next = at + 1,
                    Err(at) => {
                        next = at;
                        new.push(*time);
                    }
                }
            }
        }
        // What few series have is looked up in vain until it is here, so it is not put here for each of them.
        if new.len() > NEW_ENTRIES_MIN.max(entries.len() / 4) || entries.is_empty() {
            merge_entries(&mut entries, &mut new);
        }
        if entries.len() > entries_max {
            return None;
        }
    }
    merge_entries(&mut entries, &mut new);
    (entries.len() <= entries_max).then_some(entries)
}

fn merge_entries(entries: &mut Vec<i64>, new: &mut Vec<i64>) {
    entries.append(new);
    // Stable sorting merges what is sorted already.
    entries.sort();
    entries.dedup();
}
