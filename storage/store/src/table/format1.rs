//! Reading files of format 1, which builds of 2026-11 wrote and which stay until they are merged. Pure.
//!
//! Columns `series`, `timestamp`, `value` (a double); no index of our own, so a row group is read to find a series in it.

use std::sync::Arc;

use bytes::Bytes;
use orzo_model::{Point, SeriesId, Timestamp};
use parquet::{
    column::reader::ColumnReaderImpl,
    data_type::{DataType, DoubleType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        reader::{ChunkReader, Length},
        serialized_reader::SerializedPageReader,
        statistics::Statistics,
    },
};

use super::data_file::{Wanted, holds_any};

const SERIES: usize = 0;
const TIMESTAMP: usize = 1;
const VALUE: usize = 2;

/// Where a file's footer begins, from its last eight bytes.
pub(crate) fn footer_bytes(last: &[u8]) -> Option<u64> {
    let (length, magic) = last.split_at_checked(4)?;
    (magic == b"PAR1").then(|| u64::from(u32::from_le_bytes(length.try_into().expect("four bytes"))) + 8)
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
