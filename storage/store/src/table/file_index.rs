//! Where a file's series and pages are: what our own reads use in place of Parquet's footer. Pure.
//!
//! Comes in: the runs of rows that belong to one series, and the place of every page of the columns that reads need.
//! Goes out: the same from bytes. With it the points of one series are two reads (a page of times, a page of values),
//! whatever else the file holds. It lies between the last column and Parquet's footer, where other readers do not look.

use super::{
    columns::Form,
    packing::{Unreadable, put_varint, take_varint},
};

/// Layout of these bytes.
const VERSION: u64 = 1;
/// zstd level 1: the index is numbers that repeat.
const ZSTD_LEVEL: i32 = 1;
/// No index may claim more bytes than this when it is read: 2^31 rows of different series take fewer.
const BYTES_MAX: u64 = 16 << 30;

/// A piece of the file, compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where its compressed bytes begin.
    pub(crate) at: u64,
    /// How many they are.
    pub(crate) bytes: u32,
    /// How many they become.
    pub(crate) plain_bytes: u32,
}

/// How a page's values are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// No values: all are null.
    Nothing,
    Deltas,
    /// Indices into this dictionary.
    Dictionary(u32),
    /// Split into their bytes: doubles, or numbers that are noise.
    Split,
}

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    /// Rows that are not null.
    pub(crate) values: u32,
    pub(crate) packing: Packing,
    pub(crate) piece: Piece,
}

/// The whole index of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileIndex {
    /// Runs of rows of one series each, in order; a series may have several in a row.
    series: Vec<u64>,
    /// Where each run ends.
    ends: Vec<u32>,
    forms: Vec<u8>,
    pub(crate) times: Vec<Page>,
    pub(crate) doubles: Vec<Page>,
    pub(crate) numbers: Vec<Page>,
    /// Of times: pieces and how many entries they have.
    pub(crate) dictionaries: Vec<(Piece, u32)>,
}

/// Rows of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) series: u64,
    pub(crate) first_row: usize,
    pub(crate) end_row: usize,
    pub(crate) form: Form,
}

impl FileIndex {
    pub(crate) fn push_run(&mut self, series: u64, rows: usize, form: Form) {
        let first = self.rows();
        self.series.push(series);
        self.ends.push(first + rows as u32);
        self.forms.push(form.to_byte());
    }

    /// Rows of all runs.
    pub(crate) fn rows(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(crate) fn runs_count(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn run(&self, at: usize) -> Option<Run> {
        let first_row = if at == 0 { 0 } else { *self.ends.get(at - 1)? as usize };
        Some(Run {
            series: *self.series.get(at)?,
            first_row,
            end_row: *self.ends.get(at)? as usize,
            form: Form::from_byte(*self.forms.get(at)?)?,
        })
    }

    /// The first run of this series or a later one, looking from run `from` on.
    pub(crate) fn find(&self, series: u64, from: usize) -> usize {
        let rest = self.series.get(from..).unwrap_or_default();
        from + rest.partition_point(|other| *other < series)
    }

    /// Memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let pages = self.times.len() + self.doubles.len() + self.numbers.len();
        self.series.len() * 13 + pages * size_of::<Page>() + self.dictionaries.len() * size_of::<(Piece, u32)>()
    }

    /// As it lies in the file.
    pub(crate) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        put_varint(VERSION, &mut out);
        put_varint(self.series.len() as u64, &mut out);
        let mut before = 0;
        for series in &self.series {
            put_varint(series - before, &mut out);
            before = *series;
        }
        let mut before = 0;
        for end in &self.ends {
            put_varint(u64::from(end - before), &mut out);
            before = *end;
        }
        out.extend_from_slice(&self.forms);
        for pages in [&self.times, &self.doubles, &self.numbers] {
            put_varint(pages.len() as u64, &mut out);
            for page in pages {
                put_varint(u64::from(page.rows), &mut out);
                put_varint(u64::from(page.values), &mut out);
                put_varint(
                    match page.packing {
                        Packing::Nothing => 0,
                        Packing::Deltas => 1,
                        Packing::Split => 2,
                        Packing::Dictionary(number) => 3 + u64::from(number),
                    },
                    &mut out,
                );
                put_piece(&page.piece, &mut out);
            }
        }
        put_varint(self.dictionaries.len() as u64, &mut out);
        for (piece, entries) in &self.dictionaries {
            put_varint(u64::from(*entries), &mut out);
            put_piece(piece, &mut out);
        }
        let mut bytes = (out.len() as u64).to_le_bytes().to_vec();
        bytes.extend(zstd::bulk::compress(&out, ZSTD_LEVEL)?);
        Ok(bytes)
    }

    /// Reads what `encode` wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (length, packed) = bytes.split_first_chunk::<8>().ok_or(Unreadable("the index is cut"))?;
        let length = u64::from_le_bytes(*length);
        // zstd packs at most about a thousand to one; more is not what was written.
        if length > BYTES_MAX || length > (packed.len() as u64 + 64) * 20_000 {
            return Err(Unreadable("the index claims too many bytes"));
        }
        let plain = zstd::bulk::decompress(packed, length as usize).map_err(|_| Unreadable("the index is not zstd"))?;
        let mut rest = &plain[..];
        let rest = &mut rest;
        if take_varint(rest)? != VERSION {
            return Err(Unreadable("the index has another version"));
        }
        let runs = take_count(rest)?;
        let mut index = Self { series: Vec::with_capacity(runs), ends: Vec::with_capacity(runs), ..Self::default() };
        let mut before = 0u64;
        for _ in 0..runs {
            before = before.checked_add(take_varint(rest)?).ok_or(Unreadable("a series is too high"))?;
            index.series.push(before);
        }
        let mut before = 0u32;
        for _ in 0..runs {
            before = u32::try_from(take_varint(rest)?)
                .ok()
                .and_then(|rows| before.checked_add(rows))
                .ok_or(Unreadable("too many rows"))?;
            index.ends.push(before);
        }
        let (forms, after) = rest.split_at_checked(runs).ok_or(Unreadable("the index is cut"))?;
        *rest = after;
        if forms.iter().any(|form| Form::from_byte(*form).is_none()) {
            return Err(Unreadable("a form that is never written"));
        }
        index.forms = forms.to_vec();
        index.times = take_pages(rest, before)?;
        index.doubles = take_pages(rest, before)?;
        index.numbers = take_pages(rest, before)?;
        for _ in 0..take_count(rest)? {
            let entries = take_u32(rest)?;
            index.dictionaries.push((take_piece(rest)?, entries));
        }
        Ok(index)
    }
}

fn put_piece(piece: &Piece, out: &mut Vec<u8>) {
    put_varint(piece.at, out);
    put_varint(u64::from(piece.bytes), out);
    put_varint(u64::from(piece.plain_bytes), out);
}

/// A count of things that take at least a byte each.
fn take_count(rest: &mut &[u8]) -> Result<usize, Unreadable> {
    let count = take_varint(rest)?;
    match usize::try_from(count) {
        Ok(count) if count <= rest.len() => Ok(count),
        _ => Err(Unreadable("a count is too large")),
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, Unreadable> {
    u32::try_from(take_varint(rest)?).map_err(|_| Unreadable("a number is too large"))
}

fn take_piece(rest: &mut &[u8]) -> Result<Piece, Unreadable> {
    Ok(Piece { at: take_varint(rest)?, bytes: take_u32(rest)?, plain_bytes: take_u32(rest)? })
}

fn take_pages(rest: &mut &[u8], rows_of_file: u32) -> Result<Vec<Page>, Unreadable> {
    let count = take_count(rest)?;
    let (mut pages, mut first_row) = (Vec::with_capacity(count), 0u32);
    for _ in 0..count {
        let (rows, values) = (take_u32(rest)?, take_u32(rest)?);
        let packing = match take_varint(rest)? {
            0 => Packing::Nothing,
            1 => Packing::Deltas,
            2 => Packing::Split,
            number => Packing::Dictionary((number - 3) as u32),
        };
        pages.push(Page { first_row, rows, values, packing, piece: take_piece(rest)? });
        first_row = first_row.checked_add(rows).ok_or(Unreadable("too many rows"))?;
    }
    if first_row != rows_of_file {
        return Err(Unreadable("pages and runs have different rows"));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FileIndex {
        let mut index = FileIndex::default();
        index.push_run(3, 10, Form::Decimal(2));
        index.push_run(3, 5, Form::Double);
        index.push_run(9_000_000_000, 1, Form::Mixed(0));
        let piece = |at| Piece { at, bytes: 100, plain_bytes: 300 };
        let page = |first_row, rows, packing, at| Page { first_row, rows, values: rows, packing, piece: piece(at) };
        index.times = vec![page(0, 16, Packing::Dictionary(0), 4)];
        index.doubles = vec![page(0, 10, Packing::Nothing, 104), page(10, 6, Packing::Split, 204)];
        index.numbers = vec![page(0, 16, Packing::Deltas, 304)];
        index.dictionaries = vec![(piece(404), 7)];
        index
    }

    #[test]
    fn an_index_comes_back() {
        let index = sample();
        assert_eq!(FileIndex::decode(&index.encode().expect("in memory")), Ok(index.clone()));
        assert_eq!(index.find(3, 0), 0);
        assert_eq!(index.find(4, 0), 2);
        assert_eq!(index.find(10_000_000_000, 0), 3);
        assert_eq!(index.run(1).map(|run| (run.first_row, run.end_row)), Some((10, 15)));
        assert_eq!(index.run(3), None);
    }

    #[test]
    fn cuts_are_refused() {
        let bytes = sample().encode().expect("in memory");
        for length in 0..bytes.len() {
            assert!(FileIndex::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
