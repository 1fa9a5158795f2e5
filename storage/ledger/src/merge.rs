//! Sorted files to one sorted stream, with the memory of the files whose periods overlap where the reading is.

use std::{cmp::Ordering, collections::BinaryHeap, path::Path};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use orzo_model::Timestamp;
use orzo_rating::{LedgerError, LineFilter, RatedLine};
use orzo_store::files::{Disk, read_all};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        statistics::Statistics,
    },
};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    columns::Lines,
    known::{Bucket, bucket_of},
    log::FileEntry,
};

/// Rows decoded at once.
const BATCH_ROWS: usize = 4096;

fn damaged(path: &str, reason: impl ToString) -> LedgerError {
    LedgerError::Damaged { reason: format!("{path}: {}", reason.to_string()) }
}

/// A file's bytes, held against the log.
fn checked(disk: &dyn Disk, root: &Path, file: &FileEntry) -> Result<Bytes, LedgerError> {
    let bytes = read_all(disk, &root.join(&file.path)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => damaged(&file.path, "it is missing"),
        _ => LedgerError::Unavailable { action: "read", reason: format!("{}: {error}", file.path) },
    })?;
    if format!("{:032x}", xxh3_128(&bytes)) != file.checksum {
        return Err(damaged(&file.path, "its checksum is not that of the log"));
    }
    Ok(bytes)
}

/// The ids in a file, of the buckets that are wanted.
pub(crate) fn ids_of(
    disk: &dyn Disk,
    root: &Path,
    file: &FileEntry,
    is_wanted: impl Fn(&Bucket) -> bool,
) -> Result<Vec<(Bucket, Uuid)>, LedgerError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(checked(disk, root, file)?)
        .map_err(|error| damaged(&file.path, error))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["id", "scope", "begin"]);
    let reader = builder.with_projection(mask).build().map_err(|error| damaged(&file.path, error))?;
    let mut found = Vec::new();
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|error| damaged(&file.path, error))?;
        let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let begins = batch.column_by_name("begin").and_then(|own| own.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(ids), Some(scopes), Some(begins)) = (text("id"), text("scope"), begins) else {
            return Err(damaged(&file.path, "it has no ids, or they are no texts"));
        };
        for row in 0..batch.num_rows() {
            let bucket = bucket_of(scopes.value(row), Timestamp::from_micros(begins.value(row)));
            if is_wanted(&bucket) {
                found.push((bucket, ids.value(row).parse().map_err(|error| damaged(&file.path, error))?));
            }
        }
    }
    Ok(found)
}

/// The row groups that may have lines that are asked for, by the times that they say they have.
fn groups_of(metadata: &ParquetMetaData, filter: &LineFilter) -> Vec<usize> {
    let range = |group: &RowGroupMetaData, name: &str| {
        let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
        match column.statistics()? {
            Statistics::Int64(times) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    };
    let may_hold = |group: &RowGroupMetaData| {
        let asked = [("begin", filter.used_from, filter.used_before), ("period", filter.begin, filter.end)];
        // Later than that, to the microsecond.
        let after = filter.rated_after.map(|after| Timestamp::from_micros(after.micros().saturating_add(1)));
        asked.into_iter().chain([("rated_at", after, None)]).all(|(name, from, until)| {
            range(group, name).is_none_or(|(first, last)| {
                from.is_none_or(|from| last >= from.micros()) && until.is_none_or(|until| first < until.micros())
            })
        })
    };
    let groups = metadata.row_groups().iter().enumerate();
    groups.filter(|(_, group)| may_hold(group)).map(|(place, _)| place).collect()
}

/// A file that is being read.
struct Cursor {
    path: String,
    reader: ParquetRecordBatchReader,
    lines: Option<Lines>,
    row: usize,
    head: RatedLine,
}

impl Cursor {
    /// At its first line that is asked for; `None` without one.
    fn open(disk: &dyn Disk, root: &Path, file: &FileEntry, filter: &LineFilter) -> Result<Option<Self>, LedgerError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(checked(disk, root, file)?)
            .and_then(|builder| {
                let groups = groups_of(builder.metadata(), filter);
                builder.with_row_groups(groups).with_batch_size(BATCH_ROWS).build()
            })
            .map_err(|error| damaged(&file.path, error))?;
        let (path, mut reader) = (file.path.clone(), reader);
        let (mut lines, mut row) = (None, 0);
        Ok(next(&path, &mut reader, &mut lines, &mut row, filter)?.map(|head| Self { path, reader, lines, row, head }))
    }

    /// To the next line; gives the one where it was, and whether there is a next.
    fn step(&mut self, filter: &LineFilter) -> Result<(RatedLine, bool), LedgerError> {
        match next(&self.path, &mut self.reader, &mut self.lines, &mut self.row, filter)? {
            Some(line) => Ok((std::mem::replace(&mut self.head, line), true)),
            None => Ok((self.head.clone(), false)),
        }
    }
}

fn next(
    path: &str,
    reader: &mut ParquetRecordBatchReader,
    lines: &mut Option<Lines>,
    row: &mut usize,
    filter: &LineFilter,
) -> Result<Option<RatedLine>, LedgerError> {
    loop {
        if let Some(lines) = lines {
            while *row < lines.rows() {
                let at = *row;
                *row += 1;
                // What is decoded costs; the project decides most.
                if filter.scopes.as_ref().is_some_and(|scopes| !scopes.iter().any(|scope| scope == lines.scope(at))) {
                    continue;
                }
                let line = lines.line(at).map_err(|reason| damaged(path, reason))?;
                if filter.takes(&line) {
                    return Ok(Some(line));
                }
            }
        }
        let Some(batch) = reader.next() else { return Ok(None) };
        let batch = batch.map_err(|error| damaged(path, error))?;
        *lines = Some(Lines::new(&batch).map_err(|reason| damaged(path, reason))?);
        *row = 0;
    }
}

// The heap gives the greatest first; the smallest place is wanted.
impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        other.head.place().cmp(&self.head.place()).then_with(|| other.path.cmp(&self.path))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cursor {}

/// Reads files as one sorted list.
pub(crate) struct Merge<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
    filter: &'a LineFilter,
    /// Not opened yet, the latest first.
    waiting: Vec<FileEntry>,
    open: BinaryHeap<Cursor>,
}

/// Whether a file may hold what is asked for.
fn may_hold(file: &FileEntry, filter: &LineFilter) -> bool {
    filter.begin.is_none_or(|begin| file.periods.1 >= begin.micros())
        && filter.end.is_none_or(|end| file.periods.0 < end.micros())
        && filter.used_from.is_none_or(|begin| file.begins.1 >= begin.micros())
        && filter.used_before.is_none_or(|end| file.begins.0 < end.micros())
        && filter.rated_after.is_none_or(|after| file.rated.is_none_or(|(_, last)| last > after.micros()))
        && filter
            .scopes
            .as_ref()
            .is_none_or(|scopes| scopes.iter().any(|scope| (&file.scopes.0..=&file.scopes.1).contains(&scope)))
}

impl<'a> Merge<'a> {
    pub(crate) fn new<'f>(
        disk: &'a dyn Disk,
        root: &'a Path,
        files: impl Iterator<Item = &'f FileEntry>,
        filter: &'a LineFilter,
    ) -> Self {
        let mut waiting: Vec<FileEntry> = files.filter(|file| may_hold(file, filter)).cloned().collect();
        waiting.sort_by(|a, b| (b.periods.0, &b.path).cmp(&(a.periods.0, &a.path)));
        Self { disk, root, filter, waiting, open: BinaryHeap::new() }
    }

    /// Opens the files that may have the next line.
    fn admit(&mut self) -> Result<(), LedgerError> {
        loop {
            let is_due = match (self.waiting.last(), self.open.peek()) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(file), Some(cursor)) => file.periods.0 <= cursor.head.period.micros(),
            };
            if !is_due {
                return Ok(());
            }
            if let Some(file) = self.waiting.pop()
                && let Some(cursor) = Cursor::open(self.disk, self.root, &file, self.filter)?
            {
                self.open.push(cursor);
            }
        }
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<RatedLine, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.admit() {
            self.waiting.clear();
            self.open.clear();
            return Some(Err(error));
        }
        let mut cursor = self.open.pop()?;
        match cursor.step(self.filter) {
            Ok((line, has_next)) => {
                if has_next {
                    self.open.push(cursor);
                }
                Some(Ok(line))
            }
            Err(error) => {
                self.waiting.clear();
                self.open.clear();
                Some(Err(error))
            }
        }
    }
}
