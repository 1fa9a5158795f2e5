//! Reads the log at start: gives every record that the table does not cover yet, and tells a torn tail, which a crash
//! leaves and nobody was promised, from damage in the middle, which is refused (contract C3).
//!
//! A record that cannot be read was possibly acknowledged if anything behind it shows that it was synced: a record
//! whose `synced` reaches it, or a segment that begins behind it. Then it is damage. Otherwise the crash cut the last
//! group, and all of that group is dropped: its appends were never answered with success.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::record::{ALIGNMENT, Record, SEGMENT_HEADER_BYTES, SegmentHeader, decode_record, decode_segment_header};
use crate::{
    error::{At, StoreError},
    files::{Disk, read_all},
};

/// What the log holds.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Records behind what the table covers, in order, without gaps.
    pub(crate) records: Vec<Record>,
    /// The last sequence that exists anywhere.
    pub(crate) last_sequence: u64,
    /// The highest epoch seen; 0 without segments.
    pub(crate) last_epoch: u64,
    /// All segments on disk, by number.
    pub(crate) segments: Vec<(PathBuf, SegmentHeader)>,
    /// Bytes of a torn tail that were not used.
    pub(crate) torn_bytes: u64,
}

/// Name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// Reads all segments. `covered` is the last sequence in the table's files; with `readable_to` a log that is being
/// written is read only to that sequence.
pub(crate) fn read(
    disk: &dyn Disk,
    directory: &Path,
    store_id: Uuid,
    covered: u64,
    readable_to: Option<u64>,
) -> Result<Recovered, StoreError> {
    let segments = read_headers(disk, directory, store_id)?;
    let mut recovered = Recovered {
        last_sequence: covered,
        last_epoch: segments.iter().map(|(_, header)| header.epoch).max().unwrap_or(0),
        ..Recovered::default()
    };
    for (index, (path, header)) in segments.iter().enumerate() {
        let next = segments.get(index + 1).map(|(_, header)| header);
        if next.is_some_and(|next| next.first_sequence <= covered + 1) {
            continue;
        }
        if header.first_sequence > recovered.last_sequence + 1 {
            let reason = format!(
                "records {} to {} are missing before it",
                recovered.last_sequence + 1,
                header.first_sequence - 1
            );
            return Err(StoreError::damaged(path, 0, reason));
        }
        let bytes = read_all(disk, path).at("read", path)?;
        let (end, missing) = read_segment(path, &bytes, header, covered, readable_to, &mut recovered)?;
        if readable_to.is_some_and(|to| recovered.last_sequence >= to) {
            break;
        }
        if next.is_some_and(|next| next.first_sequence > missing) {
            return Err(StoreError::damaged(path, end as u64, format!("record {missing} cannot be read")));
        }
        if is_synced_behind(&bytes[end..], header, missing) {
            let reason = format!("record {missing} cannot be read, although it was synced");
            return Err(StoreError::damaged(path, end as u64, reason));
        }
        recovered.torn_bytes += torn_bytes(&bytes[end..]);
    }
    recovered.segments = segments;
    Ok(recovered)
}

/// The last record that any segment has; 0 without one.
pub(crate) fn last_sequence(disk: &dyn Disk, directory: &Path, store_id: Uuid) -> Result<u64, StoreError> {
    let mut last = 0;
    for (path, _) in read_headers(disk, directory, store_id)? {
        let bytes = read_all(disk, &path).at("read", &path)?;
        let mut rest = bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
        while let Some((record, length)) = decode_record(rest, store_id) {
            last = last.max(record.sequence);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    Ok(last)
}

fn read_headers(
    disk: &dyn Disk,
    directory: &Path,
    store_id: Uuid,
) -> Result<Vec<(PathBuf, SegmentHeader)>, StoreError> {
    let mut segments = Vec::new();
    for entry in disk.list(directory).at("list", directory)? {
        let path = directory.join(&entry.name);
        let Some(number) = entry.name.strip_suffix(".wal").and_then(|name| name.parse::<u64>().ok()) else {
            continue;
        };
        let file = disk.open(&path).at("open", &path)?;
        let length = (entry.length as usize).min(SEGMENT_HEADER_BYTES);
        let bytes = file.read_at(0, length).at("read", &path)?;
        let header = decode_segment_header(&bytes).map_err(|reason| StoreError::damaged(&path, 0, reason))?;
        if header.store_id != store_id {
            return Err(StoreError::damaged(&path, 16, format!("it belongs to the store {}", header.store_id)));
        }
        if header.number != number {
            return Err(StoreError::damaged(&path, 32, format!("it is number {}", header.number)));
        }
        segments.push((path, header));
    }
    segments.sort_by_key(|(_, header)| header.number);
    Ok(segments)
}

/// Reads records from the beginning as long as they are whole and in order; gives where that ends, and which record
/// would have been the next.
fn read_segment(
    path: &Path,
    bytes: &[u8],
    header: &SegmentHeader,
    covered: u64,
    readable_to: Option<u64>,
    recovered: &mut Recovered,
) -> Result<(usize, u64), StoreError> {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut expected = header.first_sequence;
    while let Some((record, length)) = decode_record(bytes.get(at..).unwrap_or_default(), header.store_id) {
        if readable_to.is_some_and(|to| record.sequence > to) {
            break;
        }
        if record.sequence != expected || record.epoch != header.epoch {
            let reason = format!(
                "expected record {expected} of epoch {}, found {} of {}",
                header.epoch, record.sequence, record.epoch
            );
            return Err(StoreError::damaged(path, at as u64, reason));
        }
        recovered.last_sequence = recovered.last_sequence.max(record.sequence);
        expected += 1;
        at += length;
        if record.sequence > covered {
            recovered.records.push(record);
        }
    }
    Ok((at.min(bytes.len()), expected))
}

/// Whether anything in the rest of the segment shows that record `sequence` was synced once.
fn is_synced_behind(rest: &[u8], header: &SegmentHeader, sequence: u64) -> bool {
    let shows = |bytes| {
        decode_record(bytes, header.store_id)
            .is_some_and(|(record, _)| record.epoch == header.epoch && record.synced >= sequence)
    };
    (0..rest.len()).step_by(ALIGNMENT).any(|at| rest[at] != 0 && shows(&rest[at..]))
}

/// Bytes up to the last that is not zero.
fn torn_bytes(rest: &[u8]) -> u64 {
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}
