//! What the table knows about one of its files, and reading from it with every byte checked.
//!
//! parquet writes no page checksums, so each file's entry in the log carries one for every block of 64 KiB: a read
//! checks the blocks that it touches, at the cost of a checksum instead of a whole file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use orzo_model::{Point, Timestamp};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    action::{Add, Remove},
    day::Day,
    encode::{self, Part, Wanted},
};
use crate::{
    error::{At, StoreError},
    files::{Disk, DiskFile},
};

/// What is checked at once.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// One live file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataFile {
    /// Relative to the table.
    pub(crate) path: String,
    pub(crate) day: Day,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) series_min: u64,
    pub(crate) series_max: u64,
    pub(crate) time_min: Timestamp,
    pub(crate) time_max: Timestamp,
    /// The last sequence of the log that is in it; where two files have the same key, the higher generation wins.
    pub(crate) generation: u64,
    /// xxh3-128 of the whole file.
    pub(crate) checksum: u128,
    /// Sum over its points, whatever their order ([`point_hash`]).
    pub(crate) hash: u128,
    /// crc32c of each [`BLOCK_BYTES`].
    pub(crate) blocks: Vec<u32>,
}

/// A point's share of the order-independent hash: files hold the same points exactly when their sums agree.
pub(crate) fn point_hash(point: &Point) -> u128 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&point.series.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&point.timestamp.micros().to_le_bytes());
    bytes[16..].copy_from_slice(&point.value.to_bits().to_le_bytes());
    xxh3_128(&bytes)
}

/// The sum over points.
pub(crate) fn points_hash(points: &[Point]) -> u128 {
    points.iter().fold(0, |sum, point| sum.wrapping_add(point_hash(point)))
}

fn block_sums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(BLOCK_BYTES).map(crc32c::crc32c).collect()
}

impl DataFile {
    /// Describes a file of these points, which are sorted, not empty, and all of one day.
    pub(crate) fn describe(path: String, day: Day, generation: u64, points: &[Point], bytes: &[u8]) -> Self {
        let times = || points.iter().map(|point| point.timestamp);
        Self {
            path,
            day,
            rows: points.len() as u64,
            bytes: bytes.len() as u64,
            series_min: points.first().map_or(0, |point| point.series.0),
            series_max: points.last().map_or(0, |point| point.series.0),
            time_min: times().min().unwrap_or_default(),
            time_max: times().max().unwrap_or_default(),
            generation,
            checksum: xxh3_128(bytes),
            hash: points_hash(points),
            blocks: block_sums(bytes),
        }
    }

    /// As the log says it.
    pub(crate) fn to_add(&self, at_ms: i64, data_change: bool) -> Add {
        let stats = serde_json::json!({
            "numRecords": self.rows,
            "minValues": {"series": self.series_min, "timestamp": self.time_min.zulu_micros()},
            "maxValues": {"series": self.series_max, "timestamp": self.time_max.zulu_micros()},
            "nullCount": {"series": 0, "timestamp": 0, "value": 0},
        });
        let blocks: Vec<u8> = self.blocks.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        let tags = [
            ("orzo.rows", self.rows.to_string()),
            ("orzo.generation", self.generation.to_string()),
            ("orzo.seriesMin", self.series_min.to_string()),
            ("orzo.seriesMax", self.series_max.to_string()),
            ("orzo.timeMin", self.time_min.micros().to_string()),
            ("orzo.timeMax", self.time_max.micros().to_string()),
            ("orzo.checksum", format!("{:032x}", self.checksum)),
            ("orzo.hash", format!("{:032x}", self.hash)),
            ("orzo.blocks", BASE64.encode(blocks)),
        ];
        Add {
            path: self.path.clone(),
            partition_values: [("day".to_owned(), self.day.to_string())].into(),
            size: self.bytes,
            modification_time: at_ms,
            data_change,
            stats: stats.to_string(),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    /// As the log says that it is gone.
    pub(crate) fn to_remove(&self, at_ms: i64, data_change: bool) -> Remove {
        Remove {
            path: self.path.clone(),
            deletion_timestamp: at_ms,
            data_change,
            extended_file_metadata: true,
            partition_values: [("day".to_owned(), self.day.to_string())].into(),
            size: self.bytes,
        }
    }

    /// Reads what the log says; `None` if a part is missing or not what it should be.
    pub(crate) fn from_add(add: &Add) -> Option<Self> {
        let tag = |name: &str| add.tags.get(name);
        let number = |name: &str| tag(name)?.parse::<u64>().ok();
        let time = |name: &str| tag(name)?.parse::<i64>().ok().map(Timestamp::from_micros);
        let hash = |name: &str| u128::from_str_radix(tag(name)?, 16).ok();
        let blocks = BASE64.decode(tag("orzo.blocks")?).ok()?;
        let file = Self {
            path: add.path.clone(),
            day: add.partition_values.get("day")?.parse().ok()?,
            rows: number("orzo.rows")?,
            bytes: add.size,
            series_min: number("orzo.seriesMin")?,
            series_max: number("orzo.seriesMax")?,
            time_min: time("orzo.timeMin")?,
            time_max: time("orzo.timeMax")?,
            generation: number("orzo.generation")?,
            checksum: hash("orzo.checksum")?,
            hash: hash("orzo.hash")?,
            blocks: blocks.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        };
        (file.blocks.len() as u64 == file.bytes.div_ceil(BLOCK_BYTES as u64)).then_some(file)
    }

    /// Whether it can have wanted rows.
    pub(crate) fn may_hold(&self, wanted: &Wanted<'_>) -> bool {
        self.time_min <= wanted.last
            && self.time_max >= wanted.first
            && encode::holds_any(wanted.series, self.series_min, self.series_max)
    }
}

/// A live file, open.
pub(crate) struct Reader {
    path: PathBuf,
    entry: Arc<DataFile>,
    file: Arc<dyn DiskFile>,
    metadata: Arc<ParquetMetaData>,
}

impl Reader {
    /// Opens a file and reads its footer, unless `metadata` is known.
    pub(crate) fn open(
        disk: &dyn Disk,
        root: &Path,
        entry: &Arc<DataFile>,
        metadata: Option<Arc<ParquetMetaData>>,
    ) -> Result<Self, StoreError> {
        let path = root.join(&entry.path);
        let file = disk.open(&path).at("open", &path)?;
        let metadata = match metadata {
            Some(metadata) => metadata,
            None => Arc::new(read_footer(&path, entry, &*file)?),
        };
        Ok(Self { path, entry: entry.clone(), file, metadata })
    }

    /// What the footer says, to keep for the next time.
    pub(crate) fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.metadata
    }

    /// Calls `take` for every wanted row, sorted by series and time, until it answers `false`.
    pub(crate) fn read(&self, wanted: &Wanted<'_>, take: &mut dyn FnMut(Point) -> bool) -> Result<(), StoreError> {
        let mut goes_on = true;
        for (index, group) in self.metadata.row_groups().iter().enumerate() {
            if encode::may_hold(group, wanted) {
                let part = self.part(encode::group_range(group))?;
                encode::read_group(&part, &self.metadata, index, wanted, &mut |point| {
                    goes_on = take(point);
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

    /// All rows.
    pub(crate) fn read_all(&self) -> Result<Vec<Point>, StoreError> {
        let mut points = Vec::with_capacity(self.entry.rows as usize);
        for (index, group) in self.metadata.row_groups().iter().enumerate() {
            let part = self.part(encode::group_range(group))?;
            encode::read_whole_group(&part, &self.metadata, index, &mut points)
                .map_err(|error| StoreError::damaged(&self.path, part.start, error))?;
        }
        if points.len() as u64 != self.entry.rows {
            let reason = format!("it has {} rows, the log says {}", points.len(), self.entry.rows);
            return Err(StoreError::damaged(&self.path, 0, reason));
        }
        Ok(points)
    }

    /// Reads everything and holds it against the log's entry: checksum, rows, order, ranges and hash.
    pub(crate) fn verify(&self) -> Result<(), StoreError> {
        let whole = read_checked(&self.path, &self.entry, &*self.file, 0, self.entry.bytes as usize)?;
        let problem = |reason: &str| Err(StoreError::damaged(&self.path, 0, reason));
        if xxh3_128(&whole) != self.entry.checksum {
            return problem("its checksum does not match");
        }
        let points = self.read_all()?;
        let key = |point: &Point| (point.series, point.timestamp);
        if !points.is_sorted_by(|a, b| key(a) < key(b)) {
            return problem("its rows are not sorted, or a key is there twice");
        }
        if points.iter().any(|point| Day::of(point.timestamp) != self.entry.day) {
            return problem("it has a row of another day");
        }
        let (path, day) = (self.entry.path.clone(), self.entry.day);
        if DataFile::describe(path, day, self.entry.generation, &points, &whole) != *self.entry {
            return problem("its rows are not those that the log describes");
        }
        Ok(())
    }

    fn part(&self, (start, length): (u64, usize)) -> Result<Arc<Part>, StoreError> {
        let bytes = read_checked(&self.path, &self.entry, &*self.file, start, length)?;
        Ok(Arc::new(Part { start, bytes }))
    }
}

fn read_footer(path: &Path, entry: &DataFile, file: &dyn DiskFile) -> Result<ParquetMetaData, StoreError> {
    let broken = |reason: &str| StoreError::damaged(path, 0, reason);
    let last_at = entry.bytes.checked_sub(8).ok_or_else(|| broken("it is too short to be a Parquet file"))?;
    let last = read_checked(path, entry, file, last_at, 8)?;
    let length = encode::footer_bytes(&last).filter(|length| *length <= entry.bytes);
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
    let skip = (start - from) as usize;
    Ok(bytes.slice(skip..skip + length))
}
