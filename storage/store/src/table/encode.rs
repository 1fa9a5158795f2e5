//! Points to a Parquet file. Pure: bytes in memory, no disk.
//!
//! `sorted points → row groups → columns → pages → zstd → Parquet, with our own index before its footer`
//!
//! Columns: `series`, `timestamp`, and a value in one of two forms: `number / divisor` where that is exact
//! ([`super::columns`]), else `other_value`. Pages are packed here and not by the parquet crate, because which bits a value
//! takes within a byte decides what zstd makes of it ([`super::packing`]); their headers and the footer are the crate's.

use std::{io::Write, sync::Arc};

use orzo_model::{Point, SeriesId};
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

use super::{
    columns,
    contents::{Contents, Row},
    file_index::{FileIndex, Packing, Page, Piece},
    packing,
    streams::{StreamPacker, ends},
};

mod group;
mod times;

use self::{
    group::{Group, GroupRun, cut, put_levels, take_parts},
    times::{TimePacker, Times},
};

/// What a dictionary of times can be shared by; also the most rows that are held while a file is made.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 20;
/// Series of a row group, at most: what is held for each of them while it is written is more than for a few rows.
const ROW_GROUP_SERIES: usize = 1 << 17;
/// Rows of a page of values: about 10 KB compressed, little to read for one series, enough to be packed well. Half of it
/// costs 2 to 5 % more space.
const VALUE_PAGE_ROWS: usize = 32_768;
/// Rows of a page of numbers that are noise: so few that what is like each other has a code of its own.
const NOISE_PAGE_ROWS: usize = 8192;
/// Rows of a page of times by dictionary, or of series: they repeat so well that a page stays small.
const REPEATING_PAGE_ROWS: usize = 524_288;
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

/// Makes one file of points that come sorted by series and time, no key twice.
pub(crate) struct Encoder {
    sink: TrackedWrite<Vec<u8>>,
    schema: Arc<SchemaDescriptor>,
    zstd: zstd::bulk::Compressor<'static>,
    streams: StreamPacker,
    times: TimePacker,
    groups: Vec<RowGroupMetaData>,
    index: FileIndex,
    contents: Contents,
    pending: Rows,
    /// What pages are put together in.
    body: Vec<u8>,
    group_rows: usize,
}

/// Rows that wait until a row group of them can be written.
#[derive(Default)]
struct Rows {
    /// Series with so many rows each, in order; one that comes in parts has them in one.
    series: Vec<(SeriesId, usize)>,
    times: Vec<i64>,
    /// The bits of doubles, which become numbers where they are: memory for a million of them is taken once.
    values: Vec<i64>,
}

impl Rows {
    fn push<T: Row>(&mut self, series: SeriesId, run: &[T]) {
        match self.series.last_mut() {
            Some((last, rows)) if *last == series => *rows += run.len(),
            _ if run.is_empty() => {}
            _ => self.series.push((series, run.len())),
        }
        self.times.extend(run.iter().map(Row::micros));
        self.values.extend(run.iter().map(|row| row.value().to_bits() as i64));
    }

    fn clear(&mut self) {
        self.series.clear();
        self.times.clear();
        self.values.clear();
    }
}

impl Encoder {
    /// One that room is made in for so many rows.
    pub(crate) fn new(rows_expected: usize) -> Result<Self> {
        Self::of_groups(ROW_GROUP_ROWS, rows_expected)
    }

    /// As [`Self::new`], with row groups of so many rows: they are held until the group is whole.
    pub(crate) fn of_groups(group_rows: usize, rows_expected: usize) -> Result<Self> {
        let group_rows = group_rows.clamp(1, ROW_GROUP_ROWS);
        let rows = rows_expected.min(group_rows);
        let mut sink = TrackedWrite::new(Vec::new());
        sink.write_all(b"PAR1")?;
        Ok(Self {
            sink,
            schema: Arc::new(SchemaDescriptor::new(Arc::new(parse_message_type(SCHEMA)?))),
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            streams: StreamPacker::new(ZSTD_LEVEL)?,
            times: TimePacker::default(),
            groups: Vec::new(),
            index: FileIndex::default(),
            contents: Contents::default(),
            pending: Rows { series: Vec::new(), times: Vec::with_capacity(rows), values: Vec::with_capacity(rows) },
            body: Vec::new(),
            group_rows,
        })
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.contents.rows
    }

    pub(crate) fn push(&mut self, points: &[Point]) -> Result<()> {
        points.chunk_by(|a, b| a.series == b.series).try_for_each(|run| self.push_run(run[0].series, run))
    }

    /// Rows of one series; it may come in parts.
    pub(crate) fn push_run<T: Row>(&mut self, series: SeriesId, mut run: &[T]) -> Result<()> {
        self.contents.take_run(series, run);
        let is_next = self.pending.series.last().is_some_and(|(last, _)| *last != series);
        if is_next && self.pending.series.len() == ROW_GROUP_SERIES {
            self.write_group()?;
        }
        while self.pending.times.len() + run.len() >= self.group_rows {
            let (now, later) = run.split_at(self.group_rows - self.pending.times.len());
            self.pending.push(series, now);
            self.write_group()?;
            run = later;
        }
        self.pending.push(series, run);
        Ok(())
    }

    /// The file; there must be rows.
    pub(crate) fn finish(mut self) -> Result<Encoded> {
        if !self.pending.times.is_empty() {
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
        let mut rows = std::mem::take(&mut self.pending);
        let group = Group::of(&rows.series, std::mem::take(&mut rows.values));
        self.contents.doubles += group.doubles.len() as u64;
        let start = self.sink.bytes_written();
        let chunks = vec![
            self.write_series(&group)?,
            self.write_times(&group, &rows.times)?,
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
            .set_num_rows(rows.times.len() as i64)
            .set_total_byte_size(uncompressed)
            .set_file_offset(start as i64)
            .set_sorting_columns(Some(vec![sorted_by(SERIES as i32), sorted_by(TIMESTAMP as i32)]))
            .set_ordinal(self.groups.len() as i16)
            .set_column_metadata(chunks)
            .build()?;
        self.groups.push(metadata);
        rows.values = group.numbers;
        self.pending = rows;
        self.pending.clear();
        Ok(())
    }

    fn write_series(&mut self, group: &Group) -> Result<ColumnChunkMetaData> {
        let (mut chunk, mut body) = (Chunk::default(), std::mem::take(&mut self.body));
        let (mut runs, mut left, mut rest) = (group.runs.iter(), group.is_number.len(), None);
        while left > 0 {
            let rows = left.min(REPEATING_PAGE_ROWS);
            let mut room = rows;
            let of_page = std::iter::from_fn(|| {
                if room == 0 {
                    return None;
                }
                let (series, of_run) = rest.take().or_else(|| runs.next().map(|run| (run.series as i64, run.rows)))?;
                let now = of_run.min(room);
                rest = (of_run > now).then_some((series, of_run - now));
                room -= now;
                Some((series, now))
            });
            body.clear();
            packing::put_repeated(rows, of_page, &mut body);
            self.write_page(&mut chunk, &body, rows, Encoding::DELTA_BINARY_PACKED)?;
            left -= rows;
        }
        let bound = |run: Option<&GroupRun>| run.map(|run| run.series as i64);
        let (min, max) = (bound(group.runs.first()), bound(group.runs.last()));
        chunk.statistics = Some(Statistics::int64(min, max, None, Some(0), false));
        self.body = body;
        self.close_chunk(SERIES, chunk, group.is_number.len())
    }

    fn write_times(&mut self, group: &Group, times: &[i64]) -> Result<ColumnChunkMetaData> {
        let (mut chunk, mut first_row) = (Chunk::default(), self.index.rows());
        let pages = match self.times.pack(&mut self.zstd, times, &group.runs)? {
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
        self.close_chunk(TIMESTAMP, chunk, times.len())
    }

    fn write_doubles(&mut self, group: &Group) -> Result<ColumnChunkMetaData> {
        let mut chunk = Chunk::default();
        let pages =
            if group.doubles.is_empty() { vec![group.is_number.len()] } else { cut(&group.runs, VALUE_PAGE_ROWS) };
        let (mut at, mut taken, mut first_row) = (0, 0, self.index.rows());
        let mut body = std::mem::take(&mut self.body);
        for rows in pages {
            let is_number = &group.is_number[at..at + rows];
            let values = is_number.iter().filter(|is_number| !**is_number).count();
            put_levels(is_number, false, &mut body);
            let levels = body.len();
            packing::put_split(&group.doubles[taken..taken + values], &mut body);
            let (packing, encoding) = match values {
                0 => (Packing::Nothing, Encoding::PLAIN),
                _ => (Packing::Split, Encoding::BYTE_STREAM_SPLIT),
            };
            let packed = self.streams.pack(&body, ends(levels, values))?;
            let piece = self.write_packed_page(&mut chunk, packed, body.len(), rows, encoding)?;
            self.index.doubles.push(Page { first_row, rows: rows as u32, values: values as u32, packing, piece });
            (at, taken, first_row) = (at + rows, taken + values, first_row + rows as u32);
        }
        self.body = body;
        let nulls = (group.is_number.len() - group.doubles.len()) as u64;
        // Engines differ in what NaN does to the smallest and largest value.
        chunk.statistics = Some(Statistics::double(None, None, None, Some(nulls), false));
        self.close_chunk(VALUE, chunk, group.is_number.len())
    }

    fn write_numbers(&mut self, group: &Group) -> Result<ColumnChunkMetaData> {
        let mut chunk = Chunk::default();
        let (mut at, mut taken, mut first_row) = (0, 0, self.index.rows());
        let (mut widths, mut of_part) = (&group.widths[..], 0);
        let mut body = std::mem::take(&mut self.body);
        for alike in group.runs.chunk_by(|a, b| a.is_noise == b.is_noise) {
            let is_noise = alike[0].is_noise;
            for rows in cut(alike, if is_noise { NOISE_PAGE_ROWS } else { VALUE_PAGE_ROWS }) {
                let is_number = &group.is_number[at..at + rows];
                let values = is_number.iter().filter(|is_number| **is_number).count();
                let numbers = &group.numbers[taken..taken + values];
                let parts = take_parts(&mut widths, &mut of_part, values);
                put_levels(is_number, true, &mut body);
                let levels = body.len();
                let (packing, packed) = match (values, is_noise) {
                    (0, _) => (Packing::Nothing, self.zstd.compress(&body)?),
                    (_, false) => {
                        let ends = packing::put_deltas_in(parts, numbers, &mut body);
                        let packed =
                            if ends.len() > 1 { self.streams.pack(&body, ends)? } else { self.zstd.compress(&body)? };
                        (Packing::Deltas, packed)
                    }
                    (_, true) => {
                        packing::put_split_numbers(numbers, &mut body);
                        (Packing::Split, self.streams.pack(&body, ends(levels, values))?)
                    }
                };
                let encoding = match packing {
                    Packing::Deltas => Encoding::DELTA_BINARY_PACKED,
                    Packing::Split => Encoding::BYTE_STREAM_SPLIT,
                    _ => Encoding::PLAIN,
                };
                let piece = self.write_packed_page(&mut chunk, packed, body.len(), rows, encoding)?;
                self.index.numbers.push(Page { first_row, rows: rows as u32, values: values as u32, packing, piece });
                (at, taken, first_row) = (at + rows, taken + values, first_row + rows as u32);
            }
        }
        self.body = body;
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

#[cfg(test)]
mod tests;
