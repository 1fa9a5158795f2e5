//! Reading from a live file, with every byte checked that is read.
//!
//! Comes in: which series and times, or "all of it, series by series". Goes out: points in order. Files of both formats
//! are read; which one a file has, its entry in the log says.

use std::{
    cell::RefCell,
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use orzo_model::{Point, SeriesId, Timestamp};
use parking_lot::Mutex;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{
    contents::Contents,
    data_file::{BLOCK_BYTES, DataFile, Wanted},
    decode::{Cursor, ReadError, Take, read_run},
    file_index::FileIndex,
    format1::{self, Part},
    pages::Pages,
};
use crate::{
    error::{At, StoreError},
    files::{Disk, DiskFile},
};

/// Where things are in a file: kept in memory from one read to the next.
#[derive(Clone)]
pub(crate) enum Layout {
    /// Parquet's footer of a file of format 1.
    Footer(Arc<ParquetMetaData>),
    Index(Arc<FileIndex>),
}

impl Layout {
    /// Memory that it takes, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Footer(metadata) => metadata.memory_size(),
            Self::Index(index) => index.memory_bytes(),
        }
    }
}

/// A live file, open.
pub(crate) struct Reader {
    path: PathBuf,
    entry: Arc<DataFile>,
    disk: Arc<dyn Disk>,
    /// Open once something is read of it; pages that are kept need none of that.
    file: RefCell<Option<Arc<dyn DiskFile>>>,
    layout: Layout,
    /// The last pieces that were read and checked, and where they begin: pages are smaller than blocks, so that one block
    /// has several, of two columns in turn.
    recent: RefCell<VecDeque<(u64, Bytes)>>,
    /// Where pages are kept that may be asked for again.
    pages: Option<Arc<Mutex<Pages>>>,
    /// Whether it must not touch the disk.
    in_memory: bool,
    /// Where the last read ended, and the run there: the next one mostly goes on behind it.
    reached: Option<(Cursor, usize)>,
}

/// Pieces that are kept by a reader.
const RECENT_MAX: usize = 3;
/// Larger pieces are not kept.
const RECENT_BYTES_MAX: usize = 4 * BLOCK_BYTES;

impl Reader {
    /// Opens a file and reads where things are in it, unless that is known; then it is opened when it is needed.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        root: &Path,
        entry: &Arc<DataFile>,
        known: Option<Layout>,
    ) -> Result<Self, StoreError> {
        let path = root.join(&entry.path);
        let (disk, file) = (disk.clone(), RefCell::default());
        if let Some(layout) = known {
            return Ok(Self {
                path,
                entry: entry.clone(),
                disk,
                file,
                layout,
                recent: RefCell::default(),
                pages: None,
                in_memory: false,
                reached: None,
            });
        }
        let mut opened = disk.open(&path).at("open", &path)?;
        let layout = match read_layout(&path, entry, &*opened) {
            Err(StoreError::Damaged { .. }) if disk.forget_copy(&path) => {
                opened = disk.open(&path).at("open", &path)?;
                read_layout(&path, entry, &*opened)?
            }
            other => other?,
        };
        let file = RefCell::new(Some(opened));
        let recent = RefCell::default();
        let entry = entry.clone();
        Ok(Self { path, entry, disk, file, layout, recent, pages: None, in_memory: false, reached: None })
    }

    /// Keeps nothing open and nothing in memory for the next read but where things are.
    pub(crate) fn rest(&mut self) {
        self.file.take();
        self.recent.get_mut().clear();
        self.reached = None;
    }

    fn file(&self) -> Result<Arc<dyn DiskFile>, StoreError> {
        let mut file = self.file.borrow_mut();
        match &*file {
            Some(file) => Ok(file.clone()),
            None => {
                let opened = self.disk.open(&self.path).at("open", &self.path)?;
                Ok(file.insert(opened).clone())
            }
        }
    }

    /// Keeps pages for those who read next.
    pub(crate) fn keeping(self, pages: Arc<Mutex<Pages>>) -> Self {
        Self { pages: Some(pages), ..self }
    }

    /// Fails with [`StoreError::NotInMemory`] where it would have to read from the disk.
    pub(crate) fn in_memory(self) -> Self {
        Self { in_memory: true, ..self }
    }

    /// Where things are, to keep for the next time.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Hands every wanted row to `take`, sorted by series and time, until it answers `false`.
    pub(crate) fn read(&mut self, wanted: &Wanted<'_>, take: &mut Take<'_>) -> Result<(), StoreError> {
        match self.layout.clone() {
            Layout::Footer(metadata) => self.read_by_footer(&metadata, wanted, take),
            Layout::Index(index) => {
                let (mut cursor, mut at) = self.reached.take().unwrap_or_else(|| (self.cursor(&index), 0));
                let read = self.read_by_index(&index, (&mut cursor, &mut at), wanted, take);
                self.reached = Some((cursor, at));
                read
            }
        }
    }

    fn cursor(&self, index: &Arc<FileIndex>) -> Cursor {
        let cursor = Cursor::new(index.clone());
        match &self.pages {
            Some(pages) => cursor.keeping(pages.clone(), self.entry.checksum),
            None => cursor,
        }
    }

    fn read_by_index(
        &self,
        index: &FileIndex,
        (cursor, reached): (&mut Cursor, &mut usize),
        wanted: &Wanted<'_>,
        take: &mut Take<'_>,
    ) -> Result<(), StoreError> {
        let is_behind = |first: &SeriesId| index.run(*reached).is_some_and(|run| run.series <= first.0);
        let mut at = if wanted.series.first().is_some_and(is_behind) { *reached } else { 0 };
        for series in wanted.series {
            at = index.find(series.0, at);
            *reached = at;
            while let Some(run) = index.run(at).filter(|run| run.series == series.0) {
                let goes_on =
                    read_run(cursor, &|at, length| self.piece(at, length), &run, wanted.first, wanted.last, take)
                        .map_err(|error| self.told(error))?;
                if !goes_on {
                    return Ok(());
                }
                at += 1;
            }
            if at >= index.runs_count() {
                break;
            }
        }
        Ok(())
    }

    fn read_by_footer(
        &self,
        metadata: &ParquetMetaData,
        wanted: &Wanted<'_>,
        take: &mut Take<'_>,
    ) -> Result<(), StoreError> {
        let mut goes_on = true;
        for (index, group) in metadata.row_groups().iter().enumerate() {
            if format1::may_hold(group, wanted) {
                let part = self.part(format1::group_range(group))?;
                format1::read_group(&part, metadata, index, wanted, &mut |point| {
                    goes_on = take(point.series, &mut vec![point.timestamp.micros()], &mut vec![point.value]);
                    goes_on
                })
                .map_err(|error| StoreError::damaged(&self.path, part.start, error))?;
            }
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// All of it, series by series.
    pub(crate) fn stream(self) -> Stream {
        let state = match &self.layout {
            Layout::Footer(_) => State::Groups { next: 0, points: Vec::new(), at: 0 },
            Layout::Index(index) => State::Runs { next: 0, cursor: Box::new(Cursor::new(index.clone())) },
        };
        Stream { reader: self, state, seen: Contents::default() }
    }

    /// The whole file's bytes, every block checked.
    pub(crate) fn read_bytes(&self) -> Result<Bytes, StoreError> {
        self.piece(0, self.entry.bytes as usize)
    }

    fn piece(&self, at: u64, length: usize) -> Result<Bytes, StoreError> {
        if self.in_memory {
            return Err(StoreError::NotInMemory);
        }
        let end = at + length as u64;
        let mut recent = self.recent.borrow_mut();
        if let Some((start, bytes)) =
            recent.iter().find(|(start, bytes)| *start <= at && end <= start + bytes.len() as u64)
        {
            let skip = (at - start) as usize;
            return Ok(bytes.slice(skip..skip + length));
        }
        let (start, bytes) = match read_blocks(&self.path, &self.entry, &*self.file()?, at, length) {
            // Only a copy was damaged.
            Err(StoreError::Damaged { .. }) if self.disk.forget_copy(&self.path) => {
                self.file.take();
                read_blocks(&self.path, &self.entry, &*self.file()?, at, length)?
            }
            other => other?,
        };
        let skip = (at - start) as usize;
        if bytes.len() <= RECENT_BYTES_MAX {
            recent.truncate(RECENT_MAX - 1);
            recent.push_front((start, bytes.clone()));
        }
        Ok(bytes.slice(skip..skip + length))
    }

    fn part(&self, (start, length): (u64, usize)) -> Result<Arc<Part>, StoreError> {
        Ok(Arc::new(Part { start, bytes: self.piece(start, length)? }))
    }

    fn told(&self, error: ReadError) -> StoreError {
        match error {
            ReadError::Store(error) => error,
            ReadError::Unreadable(error) => StoreError::damaged(&self.path, 0, error),
        }
    }
}

/// A file that is read from its beginning to its end, all points of a series at a time. At the end what was seen is held
/// against the log's entry.
pub(crate) struct Stream {
    reader: Reader,
    state: State,
    seen: Contents,
}

enum State {
    /// A row group of a file of format 1 and how far it was taken.
    Groups {
        next: usize,
        points: Vec<Point>,
        at: usize,
    },
    Runs {
        next: usize,
        cursor: Box<Cursor>,
    },
}

impl Stream {
    /// The series that comes next; `None` at the end, where everything must have been what the log says.
    pub(crate) fn next_series(&mut self) -> Result<Option<u64>, StoreError> {
        let series = match (&mut self.state, &self.reader.layout) {
            (State::Runs { next, .. }, Layout::Index(index)) => index.run(*next).map(|run| run.series),
            (State::Groups { next, points, at }, Layout::Footer(metadata)) => {
                while *at == points.len() && *next < metadata.row_groups().len() {
                    let part = self.reader.part(format1::group_range(metadata.row_group(*next)))?;
                    points.clear();
                    *at = 0;
                    format1::read_whole_group(&part, metadata, *next, points)
                        .map_err(|error| StoreError::damaged(&self.reader.path, part.start, error))?;
                    *next += 1;
                }
                points.get(*at).map(|point| point.series.0)
            }
            _ => None,
        };
        if series.is_none() {
            self.check_seen()?;
        }
        Ok(series)
    }

    /// Appends all points of the series that comes next, or as many as are read at once.
    pub(crate) fn take_series(&mut self, out: &mut Vec<Point>) -> Result<(), StoreError> {
        let first = out.len();
        match (&mut self.state, &self.reader.layout) {
            (State::Runs { next, cursor }, Layout::Index(index)) => {
                if let Some(run) = index.run(*next) {
                    let reader = &self.reader;
                    let mut take = |series, times: &mut Vec<i64>, values: &mut Vec<f64>| {
                        out.extend(times.iter().zip(values.iter()).map(|(time, value)| Point {
                            series,
                            timestamp: Timestamp::from_micros(*time),
                            value: *value,
                        }));
                        true
                    };
                    let (from, to) = (Timestamp::MIN, Timestamp::MAX);
                    read_run(cursor, &|at, length| reader.piece(at, length), &run, from, to, &mut take)
                        .map_err(|error| reader.told(error))?;
                    *next += 1;
                }
            }
            (State::Groups { points, at, .. }, _) => {
                if let Some(series) = points.get(*at).map(|point| point.series) {
                    let length = points[*at..].partition_point(|point| point.series == series);
                    out.extend_from_slice(&points[*at..*at + length]);
                    *at += length;
                }
            }
            _ => {}
        }
        if let Some(point) = out.get(first) {
            self.seen.take_run(point.series, &out[first..]);
        }
        Ok(())
    }

    fn check_seen(&self) -> Result<(), StoreError> {
        let expected = Contents { doubles: 0, ..self.reader.entry.contents() };
        if self.seen == expected {
            return Ok(());
        }
        Err(StoreError::damaged(&self.reader.path, 0, "its rows are not those that the log describes"))
    }
}

fn read_layout(path: &Path, entry: &DataFile, file: &dyn DiskFile) -> Result<Layout, StoreError> {
    let Some((at, length)) = entry.index_place else {
        return Ok(Layout::Footer(Arc::new(read_footer(path, entry, file)?)));
    };
    let bytes = read_checked(path, entry, file, at, length as usize)?;
    let index = FileIndex::decode(&bytes).map_err(|error| StoreError::damaged(path, at, error))?;
    if u64::from(index.rows()) != entry.rows {
        return Err(StoreError::damaged(path, at, "its index has another number of rows than the log"));
    }
    Ok(Layout::Index(Arc::new(index)))
}

fn read_footer(path: &Path, entry: &DataFile, file: &dyn DiskFile) -> Result<ParquetMetaData, StoreError> {
    let broken = |reason: &str| StoreError::damaged(path, 0, reason);
    let last_at = entry.bytes.checked_sub(8).ok_or_else(|| broken("it is too short to be a Parquet file"))?;
    let last = read_checked(path, entry, file, last_at, 8)?;
    let length = format1::footer_bytes(&last).filter(|length| *length <= entry.bytes);
    let length = length.ok_or_else(|| broken("it does not end as a Parquet file does"))?;
    let footer = read_checked(path, entry, file, entry.bytes - length, length as usize - 8)?;
    ParquetMetaDataReader::decode_metadata(&footer)
        .map_err(|error| StoreError::damaged(path, entry.bytes - length, error))
}

/// Reads a range after checking every block that it touches.
fn read_checked(
    path: &Path,
    entry: &DataFile,
    file: &dyn DiskFile,
    start: u64,
    length: usize,
) -> Result<Bytes, StoreError> {
    let (from, bytes) = read_blocks(path, entry, file, start, length)?;
    let skip = (start - from) as usize;
    Ok(bytes.slice(skip..skip + length))
}

/// Reads and checks the blocks that a range touches; gives where they begin.
fn read_blocks(
    path: &Path,
    entry: &DataFile,
    file: &dyn DiskFile,
    start: u64,
    length: usize,
) -> Result<(u64, Bytes), StoreError> {
    let end = start + length as u64;
    if end > entry.bytes {
        return Err(StoreError::damaged(path, start, "a range reaches behind the end"));
    }
    let block = BLOCK_BYTES as u64;
    let (first, behind) = (start / block, end.div_ceil(block));
    let from = first * block;
    let to = (behind * block).min(entry.bytes);
    let bytes = match file.read_at(from, (to - from) as usize) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(StoreError::damaged(path, from, "it is shorter than the log says"));
        }
        other => other.at("read", path)?,
    };
    for (index, chunk) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let number = first as usize + index;
        if entry.blocks.get(number) != Some(&crc32c::crc32c(chunk)) {
            let at = number as u64 * block;
            return Err(StoreError::damaged(path, at, "the checksum of this block does not match"));
        }
    }
    Ok((from, bytes))
}
