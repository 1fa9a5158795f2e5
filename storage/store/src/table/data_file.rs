//! What the table knows about one of its files, as the log says it. Pure.
//!
//! parquet writes no page checksums, so each file's entry in the log carries one for every block of 64 KiB: a read
//! checks the blocks that it touches, at the cost of a checksum instead of a whole file.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use orzo_model::{SeriesId, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    action::{Add, Remove},
    contents::Contents,
    day::Day,
    encode::Encoded,
    snapshot::{FORMAT, OLD_VALUE, OTHER_VALUE},
};

/// Says which layout a file has; files of formats 1 and 2 have no such tag.
const FORMAT_TAG: &str = "orzo.format";

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
    /// Rows whose value is a double and not a number; in files of format 1 all are.
    pub(crate) doubles: u64,
    /// Where the file's own index lies, offset and length; files of format 1 have none.
    pub(crate) index_place: Option<(u64, u64)>,
    /// Rows of series that were deleted up to this sequence of the log were left out when it was written.
    pub(crate) cleared: u64,
    /// Its layout: 1 to [`FORMAT`].
    pub(crate) format: u32,
}

/// Which rows are asked for: series sorted, times inclusive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) series: &'a [SeriesId],
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// Whether any of these sorted series lies in `min ..= max`.
pub(crate) fn holds_any(series: &[SeriesId], min: u64, max: u64) -> bool {
    let at = series.partition_point(|series| series.0 < min);
    series.get(at).is_some_and(|series| series.0 <= max)
}

/// A point's share of the order-independent hash: files hold the same points exactly when their sums agree.
#[inline]
pub(crate) fn point_hash(series: SeriesId, micros: i64, value: f64) -> u128 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&series.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&micros.to_le_bytes());
    bytes[16..].copy_from_slice(&value.to_bits().to_le_bytes());
    xxh3_128(&bytes)
}

fn block_sums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(BLOCK_BYTES).map(crc32c::crc32c).collect()
}

impl DataFile {
    /// Describes a file, whose rows are all of one day.
    pub(crate) fn describe(path: String, day: Day, generation: u64, encoded: &Encoded) -> Self {
        let Contents { rows, doubles, series_min, series_max, time_min, time_max, hash } = encoded.contents;
        Self {
            path,
            day,
            rows,
            bytes: encoded.bytes.len() as u64,
            series_min,
            series_max,
            time_min,
            time_max,
            generation,
            checksum: xxh3_128(&encoded.bytes),
            hash,
            blocks: block_sums(&encoded.bytes),
            doubles,
            index_place: Some(encoded.index_place),
            cleared: 0,
            format: FORMAT,
        }
    }

    /// A file without rows.
    #[cfg(test)]
    pub(crate) fn empty(path: String, day: Day, generation: u64) -> Self {
        let encoded = Encoded { bytes: Vec::new(), index_place: (0, 0), contents: Contents::default() };
        Self::describe(path, day, generation, &encoded)
    }

    /// What its rows must have in common.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            rows: self.rows,
            doubles: self.doubles,
            series_min: self.series_min,
            series_max: self.series_max,
            time_min: self.time_min,
            time_max: self.time_max,
            hash: self.hash,
        }
    }

    /// As the log says it.
    pub(crate) fn to_add(&self, at_ms: i64, data_change: bool) -> Add {
        let mut stats = serde_json::json!({
            "numRecords": self.rows,
            "minValues": {"series": self.series_min, "timestamp": self.time_min.zulu_micros()},
            "maxValues": {"series": self.series_max, "timestamp": self.time_max.zulu_micros()},
            "nullCount": {"series": 0, "timestamp": 0, "number": self.doubles},
        });
        let other_value = if self.format < 3 { OLD_VALUE } else { OTHER_VALUE };
        stats["nullCount"][other_value] = (self.rows - self.doubles).into();
        let blocks: Vec<u8> = self.blocks.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        let mut tags = vec![
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
        if let Some((at, length)) = self.index_place {
            tags.push(("orzo.index", format!("{at}+{length}")));
            tags.push(("orzo.doubles", self.doubles.to_string()));
        }
        if self.format >= 3 {
            tags.push((FORMAT_TAG, self.format.to_string()));
        }
        if self.cleared > 0 {
            tags.push(("orzo.cleared", self.cleared.to_string()));
        }
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
        let index_place = match tag("orzo.index") {
            Some(place) => {
                let (at, length) = place.split_once('+')?;
                Some((at.parse().ok()?, length.parse().ok()?))
            }
            None => None,
        };
        let format = match tag(FORMAT_TAG) {
            Some(format) => format.parse().ok().filter(|format| (3..=FORMAT).contains(format))?,
            // Earlier builds did not write it.
            None if index_place.is_some() => 2,
            None => 1,
        };
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
            doubles: if index_place.is_some() { number("orzo.doubles")? } else { number("orzo.rows")? },
            index_place,
            cleared: match tag("orzo.cleared") {
                Some(_) => number("orzo.cleared")?,
                None => 0,
            },
            format,
        };
        let is_inside =
            index_place.is_none_or(|(at, length)| at.checked_add(length).is_some_and(|end| end <= add.size));
        (is_inside && file.doubles <= file.rows && file.blocks.len() as u64 == file.bytes.div_ceil(BLOCK_BYTES as u64))
            .then_some(file)
    }

    /// Whether it can have wanted rows.
    pub(crate) fn may_hold(&self, wanted: &Wanted<'_>) -> bool {
        self.time_min <= wanted.last
            && self.time_max >= wanted.first
            && holds_any(wanted.series, self.series_min, self.series_max)
    }
}
