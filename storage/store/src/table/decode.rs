//! Rows back from a file, by its own index: only the pages that hold what is wanted are read. Pure but for the function
//! that reads a piece of the file.
//!
//! A cursor keeps the page it is in and how far it was read, so that reading on costs nothing twice: a whole file is read by
//! the same code as an hour of one series of it.

use std::sync::Arc;

use bytes::Bytes;
use orzo_model::{SeriesId, Timestamp};
use parking_lot::Mutex;

use super::{
    columns::{Form, divisor},
    deltas::Deltas,
    file_index::{FileIndex, Packing, Page, Piece, Run},
    packing::{self, Unreadable},
    pages::{Pages, Unpacked},
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
    /// Room for the rows of one run.
    run: Rows,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    /// Where unpacked pages are kept, and under which file's checksum.
    kept: Option<(Arc<Mutex<Pages>>, u128)>,
}

/// Times and as many values.
#[derive(Default)]
struct Rows {
    times: Vec<i64>,
    values: Vec<f64>,
}

/// A page of times.
struct OpenTimes {
    page: Page,
    body: Arc<Unpacked>,
    /// How far it was read, if it is one of differences.
    deltas: Option<Deltas>,
}

/// A page of one form of values.
struct OpenValues {
    page: Page,
    body: Arc<Unpacked>,
    /// Where the values begin in the body.
    values_at: usize,
    /// For each run of levels: its first row, how many values stand before it, and whether its rows have values.
    levels: Vec<(u32, u32, bool)>,
    /// How far its numbers were read, if they were.
    deltas: Option<Deltas>,
}

impl Cursor {
    pub(crate) fn new(index: Arc<FileIndex>) -> Self {
        Self {
            index,
            times: None,
            dictionary: None,
            numbers: None,
            doubles: None,
            run: Rows::default(),
            zstd: None,
            kept: None,
        }
    }

    /// Keeps the pages that it unpacks, of the file with this checksum, for those who read them next.
    pub(crate) fn keeping(self, pages: Arc<Mutex<Pages>>, checksum: u128) -> Self {
        Self { kept: Some((pages, checksum)), ..self }
    }

    /// Appends the times of a run's rows that lie between two times, both inclusive; gives the row of the first of them.
    fn times(&mut self, fetch: &Fetch<'_>, run: &Run, (first, last): (i64, i64), out: &mut Vec<i64>) -> Result<usize> {
        let (mut row, before) = (run.first_row, out.len());
        let mut from = row;
        while from < run.end_row {
            if !self.times.as_ref().is_some_and(|open| open.reaches(from)) {
                let page = page_of(&self.index.times, from)?;
                let body = match self.times.take() {
                    Some(open) if open.page == page => open.body,
                    _ => self.unpack(fetch, &page)?,
                };
                let deltas = if page.packing == Packing::Deltas { Some(Deltas::new(body.bytes())?) } else { None };
                self.times = Some(OpenTimes { page, body, deltas });
            }
            let page = self.times.as_ref().expect("it was just opened").page;
            let (page_first, until) = (page.first_row as usize, run.end_row.min((page.first_row + page.rows) as usize));
            let skipped = match page.packing {
                Packing::Deltas => {
                    let is_kept = self.kept.is_some();
                    self.times.as_mut().expect("it is open").take(from, until, (first, last), is_kept, out)?
                }
                Packing::Dictionary(number) => {
                    self.entries(fetch, number)?;
                    let entries = self.dictionary.as_ref().map_or(&[][..], |(_, entries)| entries);
                    let body = &self.times.as_ref().expect("it is open").body;
                    let time = |row: usize| {
                        let index = body.index_at(row - page_first).and_then(|index| entries.get(index as usize));
                        index.copied().ok_or(Unreadable("an index is too high"))
                    };
                    let low = first_row_where(from, until, |row| Ok(time(row)? >= first))?;
                    let high = first_row_where(low, until, |row| Ok(time(row)? > last))?;
                    body.take_entries(low - page_first, high - page_first, entries, out)?;
                    low - from
                }
                Packing::Nothing | Packing::Split => return Err(Unreadable("times have no such packing").into()),
            };
            if row == from {
                row += skipped;
            }
            // Nothing is skipped but the beginning; less than the rest was taken only if the end was met.
            if row + out.len() - before < until {
                break;
            }
            from = until;
        }
        Ok(row)
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
                    let (divisor, is_kept) = (divisor(exponent), self.kept.is_some());
                    let open = self.numbers.as_mut().expect("it is open");
                    out.reserve(count);
                    open.numbers(first, count, is_kept, |numbers| match exponent {
                        0 => out.extend(numbers.iter().map(|number| *number as f64)),
                        _ => out.extend(numbers.iter().map(|number| *number as f64 / divisor)),
                    })?;
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
                    let is_kept = self.kept.is_some();
                    let numbers = self.open_numbers(fetch, from)?;
                    let (at, is_number) = numbers.rank(from);
                    if is_number {
                        let divisor = divisor(exponent);
                        let value = |number: &i64| *number as f64 / divisor;
                        numbers.numbers(at, 1, is_kept, |numbers| out.extend(numbers.iter().map(value)))?;
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

    fn unpack(&mut self, fetch: &Fetch<'_>, page: &Page) -> Result<Arc<Unpacked>> {
        let (rows, is_kept) = (page.values as usize, self.kept.is_some());
        self.unpack_piece(fetch, &page.piece, |bytes| match page.packing {
            Packing::Deltas => Unpacked::new(bytes, rows),
            Packing::Dictionary(_) if is_kept => Unpacked::of_indices(bytes, rows),
            _ => Unpacked::new(bytes, 0),
        })
    }

    fn unpack_piece(
        &mut self,
        fetch: &Fetch<'_>,
        piece: &Piece,
        body: impl FnOnce(Bytes) -> Unpacked,
    ) -> Result<Arc<Unpacked>> {
        if let Some((pages, checksum)) = &self.kept
            && let Some(page) = pages.lock().get(&(*checksum, piece.at))
        {
            return Ok(page);
        }
        let packed = fetch(piece.at, piece.bytes as usize)?;
        let broken = |_| Unreadable("a page is not zstd");
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(broken)?),
        };
        let bytes = Bytes::from(zstd.decompress(&packed, piece.plain_bytes as usize).map_err(broken)?);
        let page = Arc::new(body(bytes));
        if let Some((pages, checksum)) = &self.kept {
            pages.lock().keep((*checksum, piece.at), page.clone());
        }
        Ok(page)
    }

    fn open_numbers(&mut self, fetch: &Fetch<'_>, row: usize) -> Result<&mut OpenValues> {
        if !self.numbers.as_ref().is_some_and(|open| holds(&open.page, row)) {
            let page = page_of(&self.index.numbers, row)?;
            self.numbers = Some(OpenValues::new(page, self.unpack(fetch, &page)?)?);
        }
        Ok(self.numbers.as_mut().expect("it was just opened"))
    }

    fn open_doubles(&mut self, fetch: &Fetch<'_>, row: usize) -> Result<&mut OpenValues> {
        if !self.doubles.as_ref().is_some_and(|open| holds(&open.page, row)) {
            let page = page_of(&self.index.doubles, row)?;
            self.doubles = Some(OpenValues::new(page, self.unpack(fetch, &page)?)?);
        }
        Ok(self.doubles.as_mut().expect("it was just opened"))
    }

    fn entries(&mut self, fetch: &Fetch<'_>, number: u32) -> Result<&[i64]> {
        if self.dictionary.as_ref().is_none_or(|(open, _)| *open != number) {
            let (piece, _) =
                self.index.dictionaries.get(number as usize).ok_or(Unreadable("a dictionary is missing"))?;
            let piece = *piece;
            let plain = self.unpack_piece(fetch, &piece, |bytes| Unpacked::new(bytes, 0))?;
            let entry = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            self.dictionary = Some((number, plain.bytes().chunks_exact(8).map(entry).collect()));
        }
        Ok(self.dictionary.as_ref().map_or(&[], |(_, entries)| entries))
    }
}

/// The first of some rows, of which all before fail a condition and all behind fulfil it.
fn first_row_where(mut low: usize, mut high: usize, holds: impl Fn(usize) -> Result<bool>) -> Result<usize> {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Times that are taken before it is seen whether more are wanted.
const TIMES_AT_ONCE: usize = 256;
/// Numbers that are put together from their bytes at once.
const NUMBERS_AT_ONCE: usize = 256;
/// To go over fewer values than these it is not worth making marks for a whole page.
const MARKS_FROM: usize = 1024;

impl OpenTimes {
    /// Whether a row can be read without beginning anew.
    fn reaches(&self, row: usize) -> bool {
        let is_ahead = |deltas: &Deltas| self.page.first_row as usize + deltas.position() <= row;
        holds(&self.page, row) && self.deltas.as_ref().is_none_or(is_ahead)
    }

    /// Appends those of rows `from .. until` that lie between two times; gives how many stand before them.
    fn take(
        &mut self,
        from: usize,
        until: usize,
        (first, last): (i64, i64),
        is_kept: bool,
        out: &mut Vec<i64>,
    ) -> Result<usize> {
        let no_such = Unreadable("times have no such packing");
        let (body, deltas) = (self.body.bytes(), self.deltas.as_mut().ok_or(no_such)?);
        let (place, rows) = (from - self.page.first_row as usize, until - from);
        let is_far = place > deltas.position() + MARKS_FROM || rows > MARKS_FROM;
        let marks = if is_kept && is_far { self.body.marks(0) } else { None };
        if let Some(marks) = marks {
            deltas.jump(marks, place);
        }
        deltas.skip(body, place - deltas.position())?;
        let mut skipped = marks.map_or(0, |marks| deltas.jump_below(marks, first, rows));
        skipped += deltas.skip_below(body, first, rows - skipped)?;
        let mut left = rows - skipped;
        let sure = match marks {
            Some(marks) => deltas.surely_below(marks, last.saturating_add(1), left),
            None if last == i64::MAX => left,
            None => 0,
        };
        out.reserve(sure + (left - sure).min(TIMES_AT_ONCE));
        deltas.take(body, sure, out)?;
        left -= sure;
        while left > 0 {
            let (before, now) = (out.len(), left.min(TIMES_AT_ONCE));
            deltas.take(body, now, out)?;
            left -= now;
            if out.last().is_some_and(|time| *time > last) {
                out.truncate(before + out[before..].partition_point(|time| *time <= last));
                break;
            }
        }
        Ok(skipped)
    }
}

impl OpenValues {
    fn new(page: Page, body: Arc<Unpacked>) -> Result<Self> {
        let (length, rest) = body.bytes().split_first_chunk::<4>().ok_or(Unreadable("a page has no levels"))?;
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
        Ok(Self { page, body, values_at: 4 + length, levels, deltas: None })
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

    /// Hands out numbers from a place on.
    fn numbers(&mut self, from: usize, count: usize, is_kept: bool, mut take: impl FnMut(&[i64])) -> Result<()> {
        let body = self.body.bytes().get(self.values_at..).unwrap_or_default();
        if self.page.packing == Packing::Split {
            let (mut at, mut numbers) = (from, [0; NUMBERS_AT_ONCE]);
            while at < from + count {
                let some = &mut numbers[..NUMBERS_AT_ONCE.min(from + count - at)];
                packing::take_split_numbers(body, self.page.values as usize, at, some)?;
                take(some);
                at += some.len();
            }
            return Ok(());
        }
        let deltas = match &mut self.deltas {
            Some(deltas) if deltas.position() <= from => deltas,
            other => other.insert(Deltas::new(body)?),
        };
        if is_kept
            && from > deltas.position() + MARKS_FROM
            && let Some(marks) = self.body.marks(self.values_at)
        {
            deltas.jump(marks, from);
        }
        deltas.skip(body, from - deltas.position())?;
        Ok(deltas.take_each(body, count, take)?)
    }

    fn doubles(&self, from: usize, to: usize, out: &mut Vec<f64>) -> Result<()> {
        let body = self.body.bytes().get(self.values_at..).unwrap_or_default();
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

/// Takes points of a series, in the order of their times, no time twice; may take the lists themselves. Answers whether to
/// go on.
pub(crate) type Take<'a> = dyn FnMut(SeriesId, &mut Vec<i64>, &mut Vec<f64>) -> bool + 'a;

/// Hands the rows of this run between two times, both inclusive, to `take`; gives whether to go on.
pub(crate) fn read_run(
    cursor: &mut Cursor,
    fetch: &Fetch<'_>,
    run: &Run,
    first: Timestamp,
    last: Timestamp,
    take: &mut Take<'_>,
) -> Result<bool> {
    let mut rows = std::mem::take(&mut cursor.run);
    rows.times.clear();
    rows.values.clear();
    let from = cursor.times(fetch, run, (first.micros(), last.micros()), &mut rows.times)?;
    let mut goes_on = true;
    if !rows.times.is_empty() {
        rows.values.reserve(rows.times.len());
        cursor.values(fetch, run.form, from, from + rows.times.len(), &mut rows.values)?;
        slice(&rows.values, 0, rows.times.len())?;
        rows.values.truncate(rows.times.len());
        goes_on = take(SeriesId(run.series), &mut rows.times, &mut rows.values);
    }
    cursor.run = rows;
    Ok(goes_on)
}
