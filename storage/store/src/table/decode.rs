//! Rows back from a file, by its own index: only the pages that hold what is wanted are read. Pure but for the function
//! that reads a piece of the file.
//!
//! A cursor keeps the page it is in, so that reading on costs nothing twice: a whole file is read by the same code as one
//! series of it.

use std::sync::Arc;

use bytes::Bytes;
use orzo_model::{Point, SeriesId, Timestamp};

use super::{
    columns::{Form, divisor},
    file_index::{FileIndex, Packing, Page, Piece, Run},
    packing::{self, Unreadable},
};
use crate::error::StoreError;

/// Reads a checked piece of the file: offset, length.
pub(crate) type Fetch<'a> = dyn Fn(u64, usize) -> Result<Bytes, StoreError> + 'a;

/// Why rows could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Store(StoreError),
    /// The bytes are what was written, and yet make no sense.
    Unreadable(Unreadable),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unreadable> for ReadError {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

type Result<T, E = ReadError> = std::result::Result<T, E>;

/// Reads rows of one file, best in ascending order.
pub(crate) struct Cursor {
    index: Arc<FileIndex>,
    times: Option<OpenTimes>,
    dictionary: Option<(u32, Vec<i64>)>,
    numbers: Option<OpenValues>,
    doubles: Option<OpenValues>,
}

/// A page of times.
struct OpenTimes {
    page: Page,
    body: Vec<u8>,
    /// The first of them, as far as they were needed.
    decoded: Vec<i64>,
}

/// A page of one form of values.
struct OpenValues {
    page: Page,
    body: Vec<u8>,
    /// Where the values begin in the body.
    values_at: usize,
    /// For each run of levels: its first row, how many values stand before it, and whether its rows have values.
    levels: Vec<(u32, u32, bool)>,
    numbers: Vec<i64>,
}

impl Cursor {
    pub(crate) fn new(index: Arc<FileIndex>) -> Self {
        Self { index, times: None, dictionary: None, numbers: None, doubles: None }
    }

    /// Appends the times of these rows.
    pub(crate) fn times(&mut self, fetch: &Fetch<'_>, mut from: usize, to: usize, out: &mut Vec<i64>) -> Result<()> {
        while from < to {
            if !self.times.as_ref().is_some_and(|open| holds(&open.page, from)) {
                let page = page_of(&self.index.times, from)?;
                let body = unpack(fetch, &page.piece)?;
                self.times = Some(OpenTimes { page, body, decoded: Vec::new() });
            }
            let open = self.times.as_mut().expect("it was just opened");
            let (first, end) = (open.page.first_row as usize, (open.page.first_row + open.page.rows) as usize);
            let until = to.min(end);
            match open.page.packing {
                Packing::Deltas => {
                    if open.decoded.len() < until - first {
                        // Whoever reads on will read to the end.
                        let count = if open.decoded.is_empty() { until - first } else { end - first };
                        open.decoded.clear();
                        packing::take_deltas(&open.body, count, &mut open.decoded)?;
                    }
                    out.extend_from_slice(slice(&open.decoded, from - first, until - first)?);
                }
                Packing::Dictionary(number) => {
                    let mut indices = Vec::with_capacity(until - from);
                    packing::take_indices(&open.body, from - first, until - first, &mut indices)?;
                    let entries = self.entries(fetch, number)?;
                    for index in indices {
                        out.push(*entries.get(index as usize).ok_or(Unreadable("an index is too high"))?);
                    }
                }
                Packing::Nothing | Packing::Split => return Err(Unreadable("times have no such packing").into()),
            }
            from = until;
        }
        Ok(())
    }

    /// Appends the values of these rows, all of one run.
    pub(crate) fn values(
        &mut self,
        fetch: &Fetch<'_>,
        form: Form,
        mut from: usize,
        to: usize,
        out: &mut Vec<f64>,
    ) -> Result<()> {
        while from < to {
            match form {
                Form::Decimal(exponent) => {
                    let open = self.open_numbers(fetch, from)?;
                    let until = to.min((open.page.first_row + open.page.rows) as usize);
                    let (first, count) = (open.rank(from).0, until - from);
                    let divisor = divisor(exponent);
                    out.extend(open.numbers(first, first + count)?.iter().map(|number| *number as f64 / divisor));
                    from = until;
                }
                Form::Double => {
                    let open = self.open_doubles(fetch, from)?;
                    let until = to.min((open.page.first_row + open.page.rows) as usize);
                    let first = open.rank(from).0;
                    open.doubles(first, first + (until - from), out)?;
                    from = until;
                }
                Form::Mixed(exponent) => {
                    let numbers = self.open_numbers(fetch, from)?;
                    let (at, is_number) = numbers.rank(from);
                    if is_number {
                        out.push(slice(numbers.numbers(at, at + 1)?, 0, 1)?[0] as f64 / divisor(exponent));
                    } else {
                        let doubles = self.open_doubles(fetch, from)?;
                        let (at, is_double) = doubles.rank(from);
                        if !is_double {
                            return Err(Unreadable("a row has no value").into());
                        }
                        doubles.doubles(at, at + 1, out)?;
                    }
                    from += 1;
                }
            }
        }
        Ok(())
    }

    fn open_numbers(&mut self, fetch: &Fetch<'_>, row: usize) -> Result<&mut OpenValues> {
        if !self.numbers.as_ref().is_some_and(|open| holds(&open.page, row)) {
            let page = page_of(&self.index.numbers, row)?;
            self.numbers = Some(OpenValues::new(page, unpack(fetch, &page.piece)?)?);
        }
        Ok(self.numbers.as_mut().expect("it was just opened"))
    }

    fn open_doubles(&mut self, fetch: &Fetch<'_>, row: usize) -> Result<&mut OpenValues> {
        if !self.doubles.as_ref().is_some_and(|open| holds(&open.page, row)) {
            let page = page_of(&self.index.doubles, row)?;
            self.doubles = Some(OpenValues::new(page, unpack(fetch, &page.piece)?)?);
        }
        Ok(self.doubles.as_mut().expect("it was just opened"))
    }

    fn entries(&mut self, fetch: &Fetch<'_>, number: u32) -> Result<&[i64]> {
        if self.dictionary.as_ref().is_none_or(|(open, _)| *open != number) {
            let (piece, _) =
                self.index.dictionaries.get(number as usize).ok_or(Unreadable("a dictionary is missing"))?;
            let plain = unpack(fetch, piece)?;
            let entry = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            self.dictionary = Some((number, plain.chunks_exact(8).map(entry).collect()));
        }
        Ok(self.dictionary.as_ref().map_or(&[], |(_, entries)| entries))
    }
}

fn unpack(fetch: &Fetch<'_>, piece: &Piece) -> Result<Vec<u8>> {
    let packed = fetch(piece.at, piece.bytes as usize)?;
    let plain = zstd::bulk::decompress(&packed, piece.plain_bytes as usize);
    plain.map_err(|_| Unreadable("a page is not zstd").into())
}

impl OpenValues {
    fn new(page: Page, body: Vec<u8>) -> Result<Self> {
        let (length, rest) = body.split_first_chunk::<4>().ok_or(Unreadable("a page has no levels"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let runs = packing::take_runs(rest.get(..length).ok_or(Unreadable("levels are cut"))?, page.rows as usize)?;
        let (mut levels, mut row, mut values) = (Vec::with_capacity(runs.len()), page.first_row, 0);
        for (rows, level) in runs {
            levels.push((row, values, level == 1));
            row += rows as u32;
            values += if level == 1 { rows as u32 } else { 0 };
        }
        if values != page.values {
            return Err(Unreadable("levels and values differ in number").into());
        }
        Ok(Self { page, body, values_at: 4 + length, levels, numbers: Vec::new() })
    }

    /// How many values stand before this row, and whether it has one.
    fn rank(&self, row: usize) -> (usize, bool) {
        let at = self.levels.partition_point(|(first, _, _)| *first as usize <= row).saturating_sub(1);
        match self.levels.get(at) {
            Some((first, before, true)) => (*before as usize + row - *first as usize, true),
            Some((_, before, false)) => (*before as usize, false),
            None => (0, false),
        }
    }

    fn numbers(&mut self, from: usize, to: usize) -> Result<&[i64]> {
        if self.numbers.len() < to {
            // Whoever reads on will read to the end.
            let count = if self.numbers.is_empty() { to } else { self.page.values as usize };
            self.numbers.clear();
            let body = self.body.get(self.values_at..).unwrap_or_default();
            packing::take_deltas(body, count, &mut self.numbers)?;
        }
        slice(&self.numbers, from, to)
    }

    fn doubles(&self, from: usize, to: usize, out: &mut Vec<f64>) -> Result<()> {
        let body = self.body.get(self.values_at..).unwrap_or_default();
        Ok(packing::take_split(body, self.page.values as usize, from, to, out)?)
    }
}

fn slice<T>(values: &[T], from: usize, to: usize) -> Result<&[T]> {
    values.get(from..to).ok_or(ReadError::Unreadable(Unreadable("a page has too few values")))
}

fn holds(page: &Page, row: usize) -> bool {
    let first = page.first_row as usize;
    (first..first + page.rows as usize).contains(&row)
}

fn page_of(pages: &[Page], row: usize) -> Result<Page> {
    let at = pages.partition_point(|page| page.first_row as usize <= row);
    let page = at.checked_sub(1).and_then(|at| pages.get(at)).filter(|page| holds(page, row));
    page.copied().ok_or(ReadError::Unreadable(Unreadable("no page has this row")))
}

/// Calls `take` for every row of this run between two times, both inclusive, in order, until it answers `false`; gives
/// whether to go on.
pub(crate) fn read_run(
    cursor: &mut Cursor,
    fetch: &Fetch<'_>,
    run: &Run,
    first: Timestamp,
    last: Timestamp,
    take: &mut dyn FnMut(Point) -> bool,
) -> Result<bool> {
    let mut times = Vec::with_capacity(run.end_row - run.first_row);
    cursor.times(fetch, run.first_row, run.end_row, &mut times)?;
    let from = times.partition_point(|time| *time < first.micros());
    let to = times.partition_point(|time| *time <= last.micros());
    if from >= to {
        return Ok(true);
    }
    let mut values = Vec::with_capacity(to - from);
    cursor.values(fetch, run.form, run.first_row + from, run.first_row + to, &mut values)?;
    for (time, value) in times[from..to].iter().zip(values) {
        let point = Point { series: SeriesId(run.series), timestamp: Timestamp::from_micros(*time), value };
        if !take(point) {
            return Ok(false);
        }
    }
    Ok(true)
}
