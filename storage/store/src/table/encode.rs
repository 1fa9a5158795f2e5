//! Points to a Parquet file. Pure: bytes in memory, no disk.
//!
//! `sorted points → row groups → columns → pages → zstd → Parquet, with our own index before its footer`
//!
//! Columns: `series`, `timestamp`, and a value in one of two forms: `number / divisor` where that is exact
//! ([`super::columns`]), else `other_value`. Pages are packed here and not by the parquet crate, because which bits a value
//! takes within a byte decides what zstd makes of it ([`super::packing`]); their headers and the footer are the crate's.

use std::{io::Write, sync::Arc};

use orzo_model::{Point, Timestamp};
use parquet::{
    basic::{ColumnOrder, Compression, Encoding, SortOrder, ZstdLevel},
    column::page::{CompressedPage, Page as ParquetPage, PageWriter},
    errors::{ParquetError, Result},
    file::{
        metadata::{
            ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData, SortingColumn,
        },
        statistics::Statistics,
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::{parser::parse_message_type, types::SchemaDescriptor},
};

use zstd::zstd_safe::CParameter;

use super::{
    columns::{self, Form},
    data_file::point_hash,
    file_index::{FileIndex, Packing, Page, Piece},
    packing,
};

/// What a dictionary of times can be shared by; also the most rows that are held while a file is made.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 20;
/// Rows of a page of values: about 10 KB compressed, little to read for one series, enough to be packed well. Half of it
/// costs 2 to 5 % more space.
const VALUE_PAGE_ROWS: usize = 32_768;
/// Rows of a page of times as differences.
const DELTA_PAGE_ROWS: usize = 65_536;
/// Rows of a page of times by dictionary, or of series: they repeat so well that a page stays small.
const REPEATING_PAGE_ROWS: usize = 524_288;
/// Rows on which a dictionary of times is tried first.
const TRIAL_ROWS: usize = 131_072;
/// Compressed times below one byte in this many rows cannot be bettered.
const TIMES_GOOD_ROWS: usize = 50;
/// A page of all times of a row group is taken only if it has no more than one in this many bytes of what smaller pages
/// have: whoever reads one series unpacks it whole.
const WHOLE_SHARE: usize = 2;
/// How far back it looks, and how many places it remembers: all of a row group's differences of four bytes.
const FAR_WINDOW_LOG: u32 = 23;
/// What it looks for: runs of so many bytes, tried at one in 2^4 places.
const FAR_BYTES_MIN: u32 = 32;
const FAR_HASH_RATE_LOG: u32 = 4;
/// A dictionary with more than one entry in this many rows does not pay.
const DICTIONARY_SHARE: usize = 8;
/// Higher levels gain 1 to 2 % on these bytes for two to five times the work; on some data they lose.
const ZSTD_LEVEL: i32 = 1;

const SCHEMA: &str = "message samples {
    REQUIRED INT64 series;
    REQUIRED INT64 timestamp (TIMESTAMP(MICROS, true));
    OPTIONAL DOUBLE other_value;
    OPTIONAL INT64 number;
    REQUIRED DOUBLE divisor;
}";

const SERIES: usize = 0;
const TIMESTAMP: usize = 1;
const VALUE: usize = 2;
const NUMBER: usize = 3;
const DIVISOR: usize = 4;

/// A whole file and what is in it.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Where our index lies: offset and length.
    pub(crate) index_place: (u64, u64),
    pub(crate) contents: Contents,
}

/// What the rows of a file have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) rows: u64,
    /// Rows whose value is a double.
    pub(crate) doubles: u64,
    pub(crate) series_min: u64,
    pub(crate) series_max: u64,
    pub(crate) time_min: Timestamp,
    pub(crate) time_max: Timestamp,
    /// Sum of [`point_hash`].
    pub(crate) hash: u128,
}

impl Contents {
    /// One more row; rows come by series.
    pub(crate) fn take(&mut self, point: &Point) {
        if self.rows == 0 {
            (self.series_min, self.time_min, self.time_max) = (point.series.0, point.timestamp, point.timestamp);
        }
        self.rows += 1;
        self.series_max = point.series.0;
        self.time_min = self.time_min.min(point.timestamp);
        self.time_max = self.time_max.max(point.timestamp);
        self.hash = self.hash.wrapping_add(point_hash(point));
    }
}

/// Makes one file of points that come sorted by series and time, no key twice.
pub(crate) struct Encoder {
    sink: TrackedWrite<Vec<u8>>,
    schema: Arc<SchemaDescriptor>,
    zstd: zstd::bulk::Compressor<'static>,
    /// One that looks far back; made when it is needed.
    zstd_far: Option<zstd::bulk::Compressor<'static>>,
    groups: Vec<RowGroupMetaData>,
    index: FileIndex,
    contents: Contents,
    pending: Vec<Point>,
    group_rows: usize,
}

impl Encoder {
    pub(crate) fn new() -> Result<Self> {
        Self::of_groups(ROW_GROUP_ROWS)
    }

    /// As [`Self::new`], with row groups of so many rows: they are held until the group is whole.
    pub(crate) fn of_groups(group_rows: usize) -> Result<Self> {
        let mut sink = TrackedWrite::new(Vec::new());
        sink.write_all(b"PAR1")?;
        Ok(Self {
            sink,
            schema: Arc::new(SchemaDescriptor::new(Arc::new(parse_message_type(SCHEMA)?))),
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            zstd_far: None,
            groups: Vec::new(),
            index: FileIndex::default(),
            contents: Contents::default(),
            pending: Vec::new(),
            group_rows: group_rows.clamp(1, ROW_GROUP_ROWS),
        })
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.contents.rows
    }

    pub(crate) fn push(&mut self, mut points: &[Point]) -> Result<()> {
        for point in points {
            self.contents.take(point);
        }
        while self.pending.len() + points.len() >= self.group_rows {
            let (now, later) = points.split_at(self.group_rows - self.pending.len());
            self.pending.extend_from_slice(now);
            self.write_group()?;
            points = later;
        }
        self.pending.extend_from_slice(points);
        Ok(())
    }

    /// The file; there must be rows.
    pub(crate) fn finish(mut self) -> Result<Encoded> {
        if !self.pending.is_empty() {
            self.write_group()?;
        }
        let index = self.index.encode()?;
        let index_place = (self.sink.bytes_written() as u64, index.len() as u64);
        self.sink.write_all(&index)?;
        let orders = vec![ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::SIGNED); self.schema.num_columns()];
        let created_by = Some(concat!("orzo ", env!("CARGO_PKG_VERSION")).to_owned());
        let file = FileMetaData::new(1, self.contents.rows as i64, created_by, None, self.schema.clone(), Some(orders));
        let metadata = ParquetMetaData::new(file, std::mem::take(&mut self.groups));
        let mut bytes = self.sink.into_inner()?;
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &metadata).finish()?;
        bytes.extend_from_slice(&footer);
        Ok(Encoded { bytes, index_place, contents: self.contents })
    }

    fn write_group(&mut self) -> Result<()> {
        let points = std::mem::take(&mut self.pending);
        let group = Group::of(&points);
        self.contents.doubles += group.doubles.len() as u64;
        let start = self.sink.bytes_written();
        let chunks = vec![
            self.write_series(&points)?,
            self.write_times(&group, &points)?,
            self.write_doubles(&group)?,
            self.write_numbers(&group)?,
            self.write_divisors(&group)?,
        ];
        for run in &group.runs {
            self.index.push_run(run.series, run.rows, run.form);
        }
        let sorted_by = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
        let uncompressed = chunks.iter().map(ColumnChunkMetaData::uncompressed_size).sum();
        let metadata = RowGroupMetaData::builder(self.schema.clone())
            .set_num_rows(points.len() as i64)
            .set_total_byte_size(uncompressed)
            .set_file_offset(start as i64)
            .set_sorting_columns(Some(vec![sorted_by(SERIES as i32), sorted_by(TIMESTAMP as i32)]))
            .set_ordinal(self.groups.len() as i16)
            .set_column_metadata(chunks)
            .build()?;
        self.groups.push(metadata);
        self.pending = points;
        self.pending.clear();
        Ok(())
    }

    fn write_series(&mut self, points: &[Point]) -> Result<ColumnChunkMetaData> {
        let mut chunk = Chunk::default();
        let mut series = Vec::new();
        for rows in points.chunks(REPEATING_PAGE_ROWS) {
            series.clear();
            series.extend(rows.iter().map(|point| point.series.0 as i64));
            let mut body = Vec::new();
            packing::put_deltas(&series, &mut body);
            self.write_page(&mut chunk, &body, rows.len(), Encoding::DELTA_BINARY_PACKED)?;
        }
        let bound = |point: Option<&Point>| point.map(|point| point.series.0 as i64);
        chunk.statistics = Some(Statistics::int64(bound(points.first()), bound(points.last()), None, Some(0), false));
        self.close_chunk(SERIES, chunk, points.len())
    }

    fn write_times(&mut self, group: &Group, points: &[Point]) -> Result<ColumnChunkMetaData> {
        let times: Vec<i64> = points.iter().map(|point| point.timestamp.micros()).collect();
        let (mut chunk, mut first_row) = (Chunk::default(), self.index.rows());
        let pages = match self.choose_times(&times, &group.runs)? {
            Times::Deltas(pages) => pages,
            Times::Dictionary(entries, pages) => {
                let plain: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                let piece = self.write_dictionary(&mut chunk, &plain, entries.len())?;
                self.index.dictionaries.push((piece, entries.len() as u32));
                pages
            }
        };
        let (packing, encoding) = match chunk.dictionary_at {
            Some(_) => (Packing::Dictionary(self.index.dictionaries.len() as u32 - 1), Encoding::RLE_DICTIONARY),
            None => (Packing::Deltas, Encoding::DELTA_BINARY_PACKED),
        };
        for page in pages {
            let piece = self.write_packed_page(&mut chunk, page.packed, page.plain_bytes, page.rows, encoding)?;
            let rows = page.rows as u32;
            self.index.times.push(Page { first_row, rows, values: rows, packing, piece });
            first_row += rows;
        }
        let (min, max) = (times.iter().min().copied(), times.iter().max().copied());
        chunk.statistics = Some(Statistics::int64(min, max, None, Some(0), false));
        self.close_chunk(TIMESTAMP, chunk, points.len())
    }

    /// Some of the times are packed in both ways, and all of them in the smaller one.
    fn choose_times(&mut self, times: &[i64], runs: &[GroupRun]) -> Result<Times> {
        if let Some(tried) = self.dictionary_pays(times)? {
            let entries = distinct(times);
            // What grows with the rows is not shared by the series.
            if entries.len() <= tried * 2 {
                let pages = self.pack_indices(times, &entries, runs)?;
                return Ok(Times::Dictionary(entries, pages));
            }
        }
        let pages = self.pack_deltas(times, runs)?;
        let bytes: usize = pages.iter().map(|page| page.packed.len()).sum();
        if pages.len() == 1 || bytes * TIMES_GOOD_ROWS <= times.len() {
            return Ok(Times::Deltas(pages));
        }
        let whole = self.pack_whole(times)?;
        Ok(Times::Deltas(if whole.packed.len() * WHOLE_SHARE <= bytes { vec![whole] } else { pages }))
    }

    /// All times in one page, packed so that what is far apart in it is found again.
    fn pack_whole(&mut self, times: &[i64]) -> Result<PackedPage> {
        let mut body = Vec::new();
        packing::put_deltas(times, &mut body);
        let far = match &mut self.zstd_far {
            Some(far) => far,
            none => {
                let mut far = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
                far.set_parameter(CParameter::WindowLog(FAR_WINDOW_LOG))?;
                far.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
                far.set_parameter(CParameter::LdmMinMatch(FAR_BYTES_MIN))?;
                far.set_parameter(CParameter::LdmHashRateLog(FAR_HASH_RATE_LOG))?;
                none.insert(far)
            }
        };
        Ok(PackedPage { packed: far.compress(&body)?, plain_bytes: body.len(), rows: times.len() })
    }

    /// Tries both on the first rows; gives how many entries the dictionary had, if it was smaller. Its entries are counted
    /// as if all rows shared them.
    fn dictionary_pays(&mut self, all: &[i64]) -> Result<Option<usize>> {
        let times = &all[..all.len().min(TRIAL_ROWS)];
        let mut body = Vec::new();
        packing::put_deltas(times, &mut body);
        let deltas_bytes = self.zstd.compress(&body)?.len();
        if deltas_bytes * TIMES_GOOD_ROWS <= times.len() {
            return Ok(None);
        }
        let entries = distinct(times);
        if entries.len() * DICTIONARY_SHARE > times.len() {
            return Ok(None);
        }
        body.clear();
        packing::put_indices(&indices_of(times, &entries), packing::index_bytes(entries.len()), &mut body);
        let plain: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let entries_bytes = self.zstd.compress(&plain)?.len() * times.len() / all.len();
        Ok((self.zstd.compress(&body)?.len() + entries_bytes < deltas_bytes).then_some(entries.len()))
    }

    fn pack_deltas(&mut self, times: &[i64], runs: &[GroupRun]) -> Result<Vec<PackedPage>> {
        let (mut pages, mut at, mut body) = (Vec::new(), 0, Vec::new());
        for rows in cut(runs, DELTA_PAGE_ROWS) {
            body.clear();
            packing::put_deltas(&times[at..at + rows], &mut body);
            pages.push(PackedPage { packed: self.zstd.compress(&body)?, plain_bytes: body.len(), rows });
            at += rows;
        }
        Ok(pages)
    }

    fn pack_indices(&mut self, times: &[i64], entries: &[i64], runs: &[GroupRun]) -> Result<Vec<PackedPage>> {
        let indices = indices_of(times, entries);
        let width = packing::index_bytes(entries.len());
        let (mut pages, mut at, mut body) = (Vec::new(), 0, Vec::new());
        for rows in cut(runs, REPEATING_PAGE_ROWS) {
            body.clear();
            packing::put_indices(&indices[at..at + rows], width, &mut body);
            pages.push(PackedPage { packed: self.zstd.compress(&body)?, plain_bytes: body.len(), rows });
            at += rows;
        }
        Ok(pages)
    }

    fn write_doubles(&mut self, group: &Group) -> Result<ColumnChunkMetaData> {
        let mut chunk = Chunk::default();
        let pages =
            if group.doubles.is_empty() { vec![group.is_number.len()] } else { cut(&group.runs, VALUE_PAGE_ROWS) };
        let (mut at, mut taken, mut first_row, mut body) = (0, 0, self.index.rows(), Vec::new());
        for rows in pages {
            let is_number = &group.is_number[at..at + rows];
            let values = is_number.iter().filter(|is_number| !**is_number).count();
            put_levels(is_number, false, &mut body);
            packing::put_split(&group.doubles[taken..taken + values], &mut body);
            let (packing, encoding) = match values {
                0 => (Packing::Nothing, Encoding::PLAIN),
                _ => (Packing::Split, Encoding::BYTE_STREAM_SPLIT),
            };
            let piece = self.write_page(&mut chunk, &body, rows, encoding)?;
            self.index.doubles.push(Page { first_row, rows: rows as u32, values: values as u32, packing, piece });
            (at, taken, first_row) = (at + rows, taken + values, first_row + rows as u32);
        }
        let nulls = (group.is_number.len() - group.doubles.len()) as u64;
        // Engines differ in what NaN does to the smallest and largest value.
        chunk.statistics = Some(Statistics::double(None, None, None, Some(nulls), false));
        self.close_chunk(VALUE, chunk, group.is_number.len())
    }

    fn write_numbers(&mut self, group: &Group) -> Result<ColumnChunkMetaData> {
        let mut chunk = Chunk::default();
        let (mut at, mut taken, mut first_row, mut body) = (0, 0, self.index.rows(), Vec::new());
        for rows in cut(&group.runs, VALUE_PAGE_ROWS) {
            let is_number = &group.is_number[at..at + rows];
            let values = is_number.iter().filter(|is_number| **is_number).count();
            put_levels(is_number, true, &mut body);
            let (packing, encoding) = match values {
                0 => (Packing::Nothing, Encoding::PLAIN),
                _ => (Packing::Deltas, Encoding::DELTA_BINARY_PACKED),
            };
            if values > 0 {
                packing::put_deltas(&group.numbers[taken..taken + values], &mut body);
            }
            let piece = self.write_page(&mut chunk, &body, rows, encoding)?;
            self.index.numbers.push(Page { first_row, rows: rows as u32, values: values as u32, packing, piece });
            (at, taken, first_row) = (at + rows, taken + values, first_row + rows as u32);
        }
        chunk.statistics = Some(Statistics::int64(None, None, None, Some(group.doubles.len() as u64), false));
        self.close_chunk(NUMBER, chunk, group.is_number.len())
    }

    fn write_divisors(&mut self, group: &Group) -> Result<ColumnChunkMetaData> {
        let mut chunk = Chunk::default();
        let mut exponents: Vec<u8> = group.runs.iter().map(|run| run.form.exponent()).collect();
        exponents.sort_unstable();
        exponents.dedup();
        let plain: Vec<u8> = exponents.iter().flat_map(|exponent| columns::divisor(*exponent).to_le_bytes()).collect();
        self.write_dictionary(&mut chunk, &plain, exponents.len())?;
        let index_of = |run: &GroupRun| exponents.partition_point(|exponent| *exponent < run.form.exponent()) as u8;
        let mut runs: Vec<(usize, u8)> = Vec::new();
        for run in &group.runs {
            match runs.last_mut() {
                Some((rows, index)) if *index == index_of(run) => *rows += run.rows,
                _ => runs.push((run.rows, index_of(run))),
            }
        }
        let mut body = vec![8];
        packing::put_runs(runs, &mut body);
        self.write_page(&mut chunk, &body, group.is_number.len(), Encoding::RLE_DICTIONARY)?;
        chunk.statistics = Some(Statistics::double(None, None, None, Some(0), false));
        self.close_chunk(DIVISOR, chunk, group.is_number.len())
    }

    fn write_page(&mut self, chunk: &mut Chunk, body: &[u8], rows: usize, encoding: Encoding) -> Result<Piece> {
        let packed = self.zstd.compress(body)?;
        self.write_packed_page(chunk, packed, body.len(), rows, encoding)
    }

    fn write_packed_page(
        &mut self,
        chunk: &mut Chunk,
        packed: Vec<u8>,
        plain_bytes: usize,
        rows: usize,
        encoding: Encoding,
    ) -> Result<Piece> {
        let page = ParquetPage::DataPage {
            buf: packed.into(),
            num_values: rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        chunk.note(encoding);
        chunk.note(Encoding::RLE);
        let at = self.sink.bytes_written();
        chunk.data_at.get_or_insert(at);
        self.put_page(chunk, page, plain_bytes)
    }

    fn write_dictionary(&mut self, chunk: &mut Chunk, plain: &[u8], entries: usize) -> Result<Piece> {
        let buf = self.zstd.compress(plain)?.into();
        let page =
            ParquetPage::DictionaryPage { buf, num_values: entries as u32, encoding: Encoding::PLAIN, is_sorted: true };
        chunk.note(Encoding::PLAIN);
        chunk.dictionary_at = Some(self.sink.bytes_written());
        self.put_page(chunk, page, plain.len())
    }

    fn put_page(&mut self, chunk: &mut Chunk, page: ParquetPage, plain_bytes: usize) -> Result<Piece> {
        let page = CompressedPage::new(page, plain_bytes);
        let bytes = page.compressed_size();
        let written = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        chunk.bytes += written.bytes_written as i64;
        chunk.plain_bytes += written.uncompressed_size as i64;
        let fits = |bytes: usize| u32::try_from(bytes).map_err(|_| ParquetError::General("a page is too large".into()));
        let at = (self.sink.bytes_written() - bytes) as u64;
        Ok(Piece { at, bytes: fits(bytes)?, plain_bytes: fits(plain_bytes)? })
    }

    fn close_chunk(&self, column: usize, chunk: Chunk, rows: usize) -> Result<ColumnChunkMetaData> {
        let mut builder = ColumnChunkMetaData::builder(self.schema.column(column))
            .set_encodings(chunk.encodings)
            .set_num_values(rows as i64)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_total_compressed_size(chunk.bytes)
            .set_total_uncompressed_size(chunk.plain_bytes)
            .set_data_page_offset(chunk.data_at.unwrap_or(0) as i64)
            .set_dictionary_page_offset(chunk.dictionary_at.map(|at| at as i64));
        if let Some(statistics) = chunk.statistics {
            builder = builder.set_statistics(statistics);
        }
        builder.build()
    }
}

/// A column of a row group while it is written.
#[derive(Default)]
struct Chunk {
    data_at: Option<usize>,
    dictionary_at: Option<usize>,
    bytes: i64,
    plain_bytes: i64,
    encodings: Vec<Encoding>,
    statistics: Option<Statistics>,
}

impl Chunk {
    fn note(&mut self, encoding: Encoding) {
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
    }
}

/// A compressed page that is not yet written.
struct PackedPage {
    packed: Vec<u8>,
    plain_bytes: usize,
    rows: usize,
}

/// How times are packed.
enum Times {
    Deltas(Vec<PackedPage>),
    Dictionary(Vec<i64>, Vec<PackedPage>),
}

/// A row group's values in their two forms.
struct Group {
    runs: Vec<GroupRun>,
    is_number: Vec<bool>,
    numbers: Vec<i64>,
    doubles: Vec<f64>,
}

struct GroupRun {
    series: u64,
    rows: usize,
    form: Form,
}

impl Group {
    fn of(points: &[Point]) -> Self {
        let mut group = Self {
            runs: Vec::new(),
            is_number: Vec::with_capacity(points.len()),
            numbers: Vec::with_capacity(points.len()),
            doubles: Vec::new(),
        };
        let (mut values, mut split) = (Vec::new(), Vec::new());
        for run in points.chunk_by(|a, b| a.series == b.series) {
            values.clear();
            values.extend(run.iter().map(|point| point.value));
            let form = columns::split(&values, &mut split);
            for (value, number) in values.iter().zip(&split) {
                group.is_number.push(number.is_some());
                match number {
                    Some(number) => group.numbers.push(*number),
                    None => group.doubles.push(*value),
                }
            }
            group.runs.push(GroupRun { series: run[0].series.0, rows: run.len(), form });
        }
        group
    }
}

/// Cuts runs into pages of about `rows` rows; a run of fewer rows than half of that again lies in one page.
fn cut(runs: &[GroupRun], rows: usize) -> Vec<usize> {
    let rows_max = rows + rows / 2;
    let (mut pages, mut page) = (Vec::new(), 0);
    for run in runs {
        if page > 0 && page + run.rows > rows_max {
            pages.push(page);
            page = 0;
        }
        page += run.rows;
        while page > rows_max {
            pages.push(rows);
            page -= rows;
        }
    }
    if page > 0 {
        pages.push(page);
    }
    pages
}

/// Parquet's definition levels: which rows have a value in a column.
fn put_levels(is_number: &[bool], of_numbers: bool, body: &mut Vec<u8>) {
    body.clear();
    body.extend_from_slice(&[0; 4]);
    let runs = is_number.chunk_by(|a, b| a == b).map(|run| (run.len(), u8::from(run[0] == of_numbers)));
    packing::put_runs(runs, body);
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
}

/// Where each time stands among the entries.
fn indices_of(times: &[i64], entries: &[i64]) -> Vec<u32> {
    let mut next = 0;
    let index = |time: &i64| {
        // Most often it is the entry behind the one before.
        let at = if entries.get(next) == Some(time) { next } else { entries.partition_point(|entry| entry < time) };
        next = at + 1;
        at as u32
    };
    times.iter().map(index).collect()
}

/// All different times, sorted.
fn distinct(times: &[i64]) -> Vec<i64> {
    let mut times = times.to_vec();
    // Stable sorting merges what is sorted already, and each series is.
    times.sort();
    times.dedup();
    times
}

#[cfg(test)]
mod tests;
