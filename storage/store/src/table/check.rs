//! Holds a whole file against what the log says of it, and its two readings against each other: ours by the index, and
//! Parquet's, which is what other engines see.

use std::{path::Path, sync::Arc};

use orzo_model::{Point, SeriesId, Timestamp};
use parquet::{
    column::reader::get_typed_column_reader,
    data_type::{DataType, DoubleType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        reader::{FileReader, RowGroupReader},
        serialized_reader::SerializedFileReader,
    },
};
use xxhash_rust::xxh3::xxh3_128;

use super::{data_file::DataFile, day::Day, reader::Reader};
use crate::{error::StoreError, files::Disk};

/// Reads everything: checksum, rows, order, ranges and hash, in both readings.
pub(crate) fn check(disk: &Arc<dyn Disk>, root: &Path, entry: &Arc<DataFile>) -> std::result::Result<(), StoreError> {
    let path = root.join(&entry.path);
    let problem = |reason: &str| Err(StoreError::damaged(&path, 0, reason));
    let reader = Reader::open(disk, root, entry, None)?;
    let bytes = reader.read_bytes()?;
    if xxh3_128(&bytes) != entry.checksum {
        return problem("its checksum does not match");
    }
    let parquet = SerializedFileReader::new(bytes).map_err(|error| StoreError::damaged(&path, 0, error))?;
    let (mut group, mut seen, mut at) = (0, Vec::new(), 0);
    let mut stream = reader.stream();
    let (mut points, mut last) = (Vec::new(), None);
    while stream.next_series()?.is_some() {
        points.clear();
        stream.take_series(&mut points)?;
        for point in &points {
            let key = (point.series, point.timestamp);
            if last.is_some_and(|last| last >= key) {
                return problem("its rows are not sorted, or a key is there twice");
            }
            last = Some(key);
            if Day::of(point.timestamp) != entry.day {
                return problem("it has a row of another day");
            }
            if at == seen.len() && group < parquet.num_row_groups() {
                seen = parquet
                    .get_row_group(group)
                    .and_then(|rows| read_rows(&*rows, entry.index_place.is_some()))
                    .map_err(|error| StoreError::damaged(&path, 0, error))?;
                (group, at) = (group + 1, 0);
            }
            let same = |other: &Point| {
                (other.series, other.timestamp) == key && other.value.to_bits() == point.value.to_bits()
            };
            if !seen.get(at).is_some_and(same) {
                return problem("other readers see other rows in it");
            }
            at += 1;
        }
    }
    if at != seen.len() || group != parquet.num_row_groups() {
        return problem("other readers see more rows in it");
    }
    Ok(())
}

/// A row group as any reader of Parquet sees it.
fn read_rows(group: &dyn RowGroupReader, has_numbers: bool) -> Result<Vec<Point>> {
    let series = column::<Int64Type>(group, 0)?;
    let times = column::<Int64Type>(group, 1)?;
    let doubles = column::<DoubleType>(group, 2)?;
    let (numbers, divisors) = match has_numbers {
        true => (column::<Int64Type>(group, 3)?, column::<DoubleType>(group, 4)?),
        false => (Vec::new(), Vec::new()),
    };
    let value = |row: usize| match (doubles.get(row).copied().flatten(), numbers.get(row).copied().flatten()) {
        (Some(double), None) => Some(double),
        (None, Some(number)) => Some(number as f64 / divisors.get(row).copied().flatten()?),
        _ => None,
    };
    (0..series.len())
        .map(|row| {
            let whole = || {
                let series = SeriesId(series[row]? as u64);
                let timestamp = Timestamp::from_micros(times.get(row).copied().flatten()?);
                Some(Point { series, timestamp, value: value(row)? })
            };
            whole().ok_or_else(|| ParquetError::General(format!("row {row} is not whole")))
        })
        .collect()
}

fn column<T: DataType>(group: &dyn RowGroupReader, at: usize) -> Result<Vec<Option<T::T>>> {
    let rows = group.metadata().num_rows() as usize;
    let descriptor = group.metadata().column(at).column_descr_ptr();
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(at)?);
    let (mut values, mut levels) = (Vec::with_capacity(rows), Vec::new());
    let is_optional = descriptor.max_def_level() > 0;
    let mut read = 0;
    while read < rows {
        let (records, _, _) =
            reader.read_records(rows - read, is_optional.then_some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::EOF("a column has fewer rows than its row group".to_owned()));
        }
        read += records;
    }
    if !is_optional {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect())
}

/// All rows of a file in memory, as any reader of Parquet sees them.
#[cfg(test)]
pub(crate) fn parquet_rows(bytes: Vec<u8>) -> Result<Vec<Point>> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
    let mut rows = Vec::new();
    for group in 0..reader.num_row_groups() {
        rows.extend(read_rows(&*reader.get_row_group(group)?, true)?);
    }
    Ok(rows)
}
