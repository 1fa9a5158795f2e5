//! Points to Parquet and back. Pure: bytes in memory, no disk.
//!
//! Sorted points → row groups of [`ROW_GROUP_ROWS`] → columns `series` (int64), `timestamp` (microseconds UTC), `value`
//! (double), zstd. The encodings of `timestamp` and `value` are chosen for each file by trial on its beginning, because
//! none is best for both regular and jittered times, or for both repeating and noisy values.

use std::sync::Arc;

use bytes::Bytes;
use orzo_model::{Point, SeriesId, Timestamp};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    column::reader::ColumnReaderImpl,
    data_type::{DataType, DoubleType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
        reader::{ChunkReader, Length},
        serialized_reader::SerializedPageReader,
        statistics::Statistics,
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

/// Small enough that one series of many is found without reading much, large enough to compress.
const ROW_GROUP_ROWS: usize = 65_536;
/// A page is the least that is decoded.
const PAGE_ROWS: usize = 8_192;
/// Above 3, zstd gains 3 to 5 % for half the speed.
const ZSTD_LEVEL: i32 = 3;

const SCHEMA: &str = "message samples {
    REQUIRED INT64 series;
    REQUIRED INT64 timestamp (TIMESTAMP(MICROS, true));
    REQUIRED DOUBLE value;
}";

const SERIES: usize = 0;
const TIMESTAMP: usize = 1;
const VALUE: usize = 2;

/// How a file's columns are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Encodings {
    timestamp: Encoding,
    value: Encoding,
}

/// A Parquet file of these points, which are sorted by series and time.
pub(crate) fn encode(points: &[Point]) -> Result<Vec<u8>> {
    let (bytes, _) = encode_with(points, choose_encodings(&points[..points.len().min(ROW_GROUP_ROWS)])?)?;
    Ok(bytes)
}

/// The smallest of the candidates, each column for itself.
fn choose_encodings(points: &[Point]) -> Result<Encodings> {
    // `PLAIN` stands for a dictionary, which falls back to plain values where it does not pay. Splitting the bytes of
    // timestamps would be smaller on jittered ones, but DuckDB 1.5 reads that for floats only.
    let candidates = [
        Encodings { timestamp: Encoding::DELTA_BINARY_PACKED, value: Encoding::BYTE_STREAM_SPLIT },
        Encodings { timestamp: Encoding::PLAIN, value: Encoding::PLAIN },
    ];
    let mut best = candidates[0];
    let (mut timestamp_bytes, mut value_bytes) = (i64::MAX, i64::MAX);
    for candidate in candidates {
        let (_, metadata) = encode_with(points, candidate)?;
        let size = |column| metadata.row_groups().iter().map(|group| group.column(column).compressed_size()).sum();
        let sizes: (i64, i64) = (size(TIMESTAMP), size(VALUE));
        if sizes.0 < timestamp_bytes {
            (timestamp_bytes, best.timestamp) = (sizes.0, candidate.timestamp);
        }
        if sizes.1 < value_bytes {
            (value_bytes, best.value) = (sizes.1, candidate.value);
        }
    }
    Ok(best)
}

fn encode_with(points: &[Point], encodings: Encodings) -> Result<(Vec<u8>, ParquetMetaData)> {
    let column = |name: &str| ColumnPath::from(name);
    let sorted_by = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    let properties = WriterProperties::builder()
        .set_created_by(concat!("orzo ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_sorting_columns(Some(vec![sorted_by(SERIES as i32), sorted_by(TIMESTAMP as i32)]))
        .set_dictionary_enabled(false)
        .set_column_encoding(column("series"), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(column("timestamp"), encodings.timestamp)
        .set_column_encoding(column("value"), encodings.value)
        .set_column_dictionary_enabled(column("timestamp"), encodings.timestamp == Encoding::PLAIN)
        .set_column_dictionary_enabled(column("value"), encodings.value == Encoding::PLAIN)
        .set_statistics_enabled(EnabledStatistics::Page)
        // Engines differ in what NaN does to the smallest and largest value.
        .set_column_statistics_enabled(column("value"), EnabledStatistics::None)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, Arc::new(parse_message_type(SCHEMA)?), Arc::new(properties))?;
    for rows in points.chunks(ROW_GROUP_ROWS) {
        let mut group = writer.next_row_group()?;
        let series: Vec<i64> = rows.iter().map(|point| point.series.0 as i64).collect();
        write_column::<Int64Type>(&mut group, &series)?;
        let timestamps: Vec<i64> = rows.iter().map(|point| point.timestamp.micros()).collect();
        write_column::<Int64Type>(&mut group, &timestamps)?;
        let values: Vec<f64> = rows.iter().map(|point| point.value).collect();
        write_column::<DoubleType>(&mut group, &values)?;
        group.close()?;
    }
    let metadata = writer.close()?;
    Ok((bytes, metadata))
}

fn write_column<T: DataType>(
    group: &mut parquet::file::writer::SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
) -> Result<()> {
    let mut column =
        group.next_column()?.ok_or_else(|| ParquetError::General("the schema has three columns".into()))?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

/// Where a file's footer begins, from its last eight bytes.
pub(crate) fn footer_bytes(last: &[u8]) -> Option<u64> {
    let (length, magic) = last.split_at_checked(4)?;
    (magic == b"PAR1").then(|| u64::from(u32::from_le_bytes(length.try_into().expect("four bytes"))) + 8)
}

/// Which rows are asked for: series sorted, times inclusive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) series: &'a [SeriesId],
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// Whether a row group can have wanted rows, by its statistics.
pub(crate) fn may_hold(group: &RowGroupMetaData, wanted: &Wanted<'_>) -> bool {
    let range = |column: usize| match group.column(column).statistics() {
        Some(Statistics::Int64(statistics)) => statistics.min_opt().copied().zip(statistics.max_opt().copied()),
        _ => None,
    };
    let times = range(TIMESTAMP).is_none_or(|(min, max)| min <= wanted.last.micros() && max >= wanted.first.micros());
    times && range(SERIES).is_none_or(|(min, max)| holds_any(wanted.series, min as u64, max as u64))
}

/// Whether any of these sorted series lies in `min ..= max`.
pub(crate) fn holds_any(series: &[SeriesId], min: u64, max: u64) -> bool {
    let at = series.partition_point(|series| series.0 < min);
    series.get(at).is_some_and(|series| series.0 <= max)
}

/// The bytes that a row group's columns take in the file: start and length.
pub(crate) fn group_range(group: &RowGroupMetaData) -> (u64, usize) {
    let ranges = || group.columns().iter().map(|column| column.byte_range());
    let start = ranges().map(|(start, _)| start).min().unwrap_or(0);
    let end = ranges().map(|(start, length)| start + length).max().unwrap_or(0);
    (start, (end - start) as usize)
}

/// A part of a file in memory, under the file's own offsets.
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

impl Part {
    fn slice(&self, start: u64, length: Option<usize>) -> Result<Bytes> {
        let outside = || ParquetError::EOF("a column reaches out of its row group".to_owned());
        let from = usize::try_from(start.checked_sub(self.start).ok_or_else(outside)?).map_err(|_| outside())?;
        let to = length.map_or(Some(self.bytes.len()), |length| from.checked_add(length)).ok_or_else(outside)?;
        if from > to || to > self.bytes.len() {
            return Err(outside());
        }
        Ok(self.bytes.slice(from..to))
    }
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Part {
    type T = std::io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(std::io::Cursor::new(self.slice(start, None)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.slice(start, Some(length))
    }
}

/// Calls `take` for every wanted row of a row group, in order. `take` answers whether to go on.
pub(crate) fn read_group(
    part: &Arc<Part>,
    metadata: &ParquetMetaData,
    group: usize,
    wanted: &Wanted<'_>,
    take: &mut dyn FnMut(Point) -> bool,
) -> Result<()> {
    let rows = metadata.row_group(group).num_rows() as usize;
    let series = read_rows::<Int64Type>(part, metadata, group, SERIES, &[(0, rows)])?;
    let mut runs = Vec::new();
    let mut at = 0;
    for wanted in wanted.series {
        let start = at + series[at..].partition_point(|series| (*series as u64) < wanted.0);
        let end = start + series[start..].partition_point(|series| *series as u64 == wanted.0);
        if start < end {
            runs.push((start, end));
        }
        at = end;
        if at == rows {
            break;
        }
    }
    let timestamps = read_rows::<Int64Type>(part, metadata, group, TIMESTAMP, &runs)?;
    // Only the wanted times of a run: they are sorted.
    let mut narrowed = Vec::with_capacity(runs.len());
    let mut kept = Vec::new();
    let mut offset = 0;
    for (start, end) in &runs {
        let times = &timestamps[offset..offset + (end - start)];
        let first = times.partition_point(|time| *time < wanted.first.micros());
        let last = times.partition_point(|time| *time <= wanted.last.micros());
        if first < last {
            narrowed.push((start + first, start + last));
            kept.extend_from_slice(&times[first..last]);
        }
        offset += end - start;
    }
    let values = read_rows::<DoubleType>(part, metadata, group, VALUE, &narrowed)?;
    let rows = narrowed.iter().flat_map(|(start, end)| *start..*end);
    for ((row, micros), value) in rows.zip(kept).zip(values) {
        let series = SeriesId(series[row] as u64);
        if !take(Point { series, timestamp: Timestamp::from_micros(micros), value }) {
            break;
        }
    }
    Ok(())
}

/// All rows of a row group, in order.
pub(crate) fn read_whole_group(
    part: &Arc<Part>,
    metadata: &ParquetMetaData,
    group: usize,
    out: &mut Vec<Point>,
) -> Result<()> {
    let all = [(0, metadata.row_group(group).num_rows() as usize)];
    let series = read_rows::<Int64Type>(part, metadata, group, SERIES, &all)?;
    let timestamps = read_rows::<Int64Type>(part, metadata, group, TIMESTAMP, &all)?;
    let values = read_rows::<DoubleType>(part, metadata, group, VALUE, &all)?;
    for ((series, micros), value) in series.into_iter().zip(timestamps).zip(values) {
        out.push(Point { series: SeriesId(series as u64), timestamp: Timestamp::from_micros(micros), value });
    }
    Ok(())
}

/// The values of these row ranges, which are sorted and do not overlap.
fn read_rows<T: DataType>(
    part: &Arc<Part>,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    ranges: &[(usize, usize)],
) -> Result<Vec<T::T>> {
    let rows: usize = ranges.iter().map(|(start, end)| end - start).sum();
    let mut values = Vec::with_capacity(rows);
    if rows == 0 {
        return Ok(values);
    }
    let chunk = metadata.row_group(group).column(column);
    let total = metadata.row_group(group).num_rows() as usize;
    let pages = SerializedPageReader::new(part.clone(), chunk, total, None)?;
    let mut reader = ColumnReaderImpl::<T>::new(chunk.column_descr_ptr(), Box::new(pages));
    let mut at = 0;
    for (start, end) in ranges {
        if reader.skip_records(start - at)? != start - at {
            return Err(ParquetError::EOF("a column has fewer rows than its row group".to_owned()));
        }
        let mut missing = end - start;
        while missing > 0 {
            let (read, _, _) = reader.read_records(missing, None, None, &mut values)?;
            if read == 0 {
                return Err(ParquetError::EOF("a column has fewer rows than its row group".to_owned()));
            }
            missing -= read;
        }
        at = *end;
    }
    Ok(values)
}
