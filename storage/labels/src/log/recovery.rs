//! Reads the label log at start, and tells a torn tail, which a crash leaves and nobody was promised, from damage, which
//! is refused (contract C3).
//!
//! A record that cannot be read was possibly acknowledged if anything behind it shows that it was synced: a record
//! whose `synced` reaches it, or a segment that begins behind it. A base is whole or damaged.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use orzo_store::files::{Disk, DiskFile};
use uuid::Uuid;

use super::{
    TEMPORARY_PREFIX, number_of,
    record::{
        ALIGNMENT, HEADER_BYTES, Kind, RECORD_HEADER_BYTES, Record, SegmentHeader, claimed_bytes, decode_header,
        decode_record, u64_at,
    },
};
use crate::{LabelError, error::At};

/// Files are read in pieces of this size, or of one record.
const PIECE_BYTES: usize = 1 << 20;

/// What was found besides the records.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// `None` if there is no log yet.
    pub(crate) log_id: Option<Uuid>,
    /// The sequence of the next record.
    pub(crate) next_sequence: u64,
    /// The highest number and epoch that exist.
    pub(crate) last_number: u64,
    pub(crate) last_epoch: u64,
    /// Files that count.
    pub(crate) paths: Vec<PathBuf>,
    /// Segments behind the base.
    pub(crate) segments: usize,
    pub(crate) torn_bytes: u64,
    /// Records at the end that no later one shows to be synced. After a failed sync they can be read and are not on
    /// disk.
    pub(crate) unproven: Vec<(Kind, Vec<u8>)>,
}

struct Found {
    path: PathBuf,
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    length: u64,
}

/// Reads the log; each record goes to `apply`, which says what is wrong with it, if anything.
pub(crate) fn read(
    disk: &dyn Disk,
    directory: &Path,
    mut apply: impl FnMut(Kind, &[u8]) -> Result<(), String>,
) -> Result<Recovered, LabelError> {
    let mut files = headers(disk, directory)?;
    let mut recovered = Recovered { next_sequence: 1, ..Recovered::default() };
    let Some(last) = files.last() else { return Ok(recovered) };
    recovered.log_id = Some(last.header.log_id);
    recovered.last_number = last.header.number;
    recovered.last_epoch = files.iter().map(|file| file.header.epoch).max().unwrap_or(0);
    // A base stands for everything before it; what is still there was left by a crash.
    if let Some(base) = files.iter().rposition(|file| file.header.is_base) {
        for old in files.drain(..base) {
            disk.remove(&old.path).at("remove", &old.path)?;
        }
    }
    for (index, found) in files.iter().enumerate() {
        if found.header.is_base {
            read_base(found, &mut apply)?;
            recovered.next_sequence = found.header.first_sequence;
            recovered.unproven.clear();
        } else {
            let next = files.get(index + 1).map(|next| next.header.first_sequence);
            recovered.torn_bytes += read_segment(found, next, &mut recovered, &mut apply)?;
            recovered.segments += 1;
        }
    }
    recovered.paths = files.into_iter().map(|found| found.path).collect();
    Ok(recovered)
}

/// Headers of all files, by number; unfinished files are removed.
fn headers(disk: &dyn Disk, directory: &Path) -> Result<Vec<Found>, LabelError> {
    let mut files: Vec<Found> = Vec::new();
    for entry in disk.list(directory).at("list", directory)? {
        let path = directory.join(&entry.name);
        if entry.name.starts_with(TEMPORARY_PREFIX) {
            disk.remove(&path).at("remove", &path)?;
            continue;
        }
        let Some(number) = number_of(&entry.name) else { continue };
        let file = disk.open(&path).at("open", &path)?;
        let length = file.length().at("read", &path)?;
        let bytes = file.read_at(0, (length as usize).min(HEADER_BYTES)).at("read", &path)?;
        let header = decode_header(&bytes).map_err(|reason| LabelError::damaged(&path, 0, reason))?;
        if header.number != number {
            return Err(LabelError::damaged(&path, 32, format!("it is number {}", header.number)));
        }
        files.push(Found { path, header, file, length });
    }
    files.sort_by_key(|found| found.header.number);
    for pair in files.windows(2) {
        if pair[0].header.log_id != pair[1].header.log_id {
            return Err(LabelError::damaged(&pair[1].path, 16, "it belongs to another log".to_owned()));
        }
        if pair[0].header.number + 1 != pair[1].header.number && !pair[1].header.is_base {
            let reason = format!("segment {} before it is missing", pair[1].header.number - 1);
            return Err(LabelError::damaged(&pair[1].path, 0, reason));
        }
    }
    if let Some(first) = files.first().filter(|first| !first.header.is_base && first.header.first_sequence > 1) {
        return Err(LabelError::damaged(&first.path, 0, "the log before it is missing".to_owned()));
    }
    Ok(files)
}

/// Reads a file piece by piece.
struct Pieces<'a> {
    found: &'a Found,
    piece: Bytes,
    start: u64,
}

impl<'a> Pieces<'a> {
    fn new(found: &'a Found) -> Self {
        Self { found, piece: Bytes::new(), start: 0 }
    }

    /// Bytes at a place; `None` if the file ends before.
    fn get(&mut self, at: u64, length: usize) -> io::Result<Option<Bytes>> {
        if at + length as u64 > self.found.length {
            return Ok(None);
        }
        if at < self.start || at + length as u64 > self.start + self.piece.len() as u64 {
            let wanted = (length.max(PIECE_BYTES) as u64).min(self.found.length - at) as usize;
            self.piece = self.found.file.read_at(at, wanted)?;
            self.start = at;
        }
        let offset = (at - self.start) as usize;
        Ok(Some(self.piece.slice(offset..offset + length)))
    }

    /// The bytes of the record at a place, if they can be one.
    fn record(&mut self, at: u64) -> Result<Option<Bytes>, LabelError> {
        let path = &self.found.path;
        let Some(header) = self.get(at, RECORD_HEADER_BYTES).at("read", path)? else { return Ok(None) };
        let Some(length) = claimed_bytes(&header) else { return Ok(None) };
        self.get(at, length).at("read", path)
    }
}

fn read_base(found: &Found, apply: &mut impl FnMut(Kind, &[u8]) -> Result<(), String>) -> Result<(), LabelError> {
    let mut pieces = Pieces::new(found);
    let damaged = |at, reason: String| Err(LabelError::damaged(&found.path, at, reason));
    let (mut at, mut count) = (HEADER_BYTES as u64, 0);
    loop {
        let bytes = pieces.record(at)?;
        let Some(bytes) = bytes.as_ref() else { return damaged(at, "a record cannot be read".to_owned()) };
        let Some(record) = decode_record(bytes, found.header.log_id) else {
            return damaged(at, "a record's checksum does not match".to_owned());
        };
        if record.sequence != count || record.epoch != found.header.epoch {
            return damaged(at, format!("expected record {count}, found {}", record.sequence));
        }
        at += bytes.len() as u64;
        if record.kind == Kind::End {
            let is_whole = record.body.len() == 8 && u64_at(record.body, 0) == count && at == found.length;
            return if is_whole { Ok(()) } else { damaged(at, "it does not end where it says".to_owned()) };
        }
        if let Err(reason) = apply(record.kind, record.body) {
            return damaged(at, reason);
        }
        count += 1;
    }
}

/// Reads a segment; gives the bytes of its torn tail.
fn read_segment(
    found: &Found,
    next_segment: Option<u64>,
    recovered: &mut Recovered,
    apply: &mut impl FnMut(Kind, &[u8]) -> Result<(), String>,
) -> Result<u64, LabelError> {
    let header = &found.header;
    let Recovered { next_sequence: next, unproven, .. } = recovered;
    let damaged = |at, reason: String| Err(LabelError::damaged(&found.path, at, reason));
    if header.first_sequence != *next {
        return damaged(0, format!("expected record {next}, it begins with {}", header.first_sequence));
    }
    // A segment is begun when everything before it is synced, or in it once more.
    unproven.clear();
    let mut pieces = Pieces::new(found);
    let mut at = HEADER_BYTES as u64;
    // What the next segment has once more counts there.
    while next_segment.is_none_or(|first| *next < first)
        && let Some(bytes) = pieces.record(at)?
    {
        let Some(record) = decode_record(&bytes, header.log_id) else { break };
        if record.sequence != *next || record.epoch != header.epoch || record.kind == Kind::End {
            let reason = format!(
                "expected record {next} of epoch {}, found {} of {}",
                header.epoch, record.sequence, record.epoch
            );
            return damaged(at, reason);
        }
        if let Err(reason) = apply(record.kind, record.body) {
            return damaged(at, reason);
        }
        // Of the records that are kept, the last `sequence - synced - 1` may still be unsynced.
        let unsynced = usize::try_from((record.sequence - 1).saturating_sub(record.synced)).unwrap_or(usize::MAX);
        let proven = unproven.len().saturating_sub(unsynced);
        unproven.drain(..proven);
        unproven.push((record.kind, record.body.to_vec()));
        *next += 1;
        at += bytes.len() as u64;
    }
    match next_segment {
        Some(first) if first > *next => return damaged(at, format!("record {next} cannot be read")),
        Some(_) => return Ok(0),
        None => {}
    }
    let rest = found.file.read_at(at, (found.length - at) as usize).at("read", &found.path)?;
    if is_synced_behind(&rest, header, *next) {
        return damaged(at, format!("record {next} cannot be read, although it was synced"));
    }
    Ok(rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
}

/// Whether anything in the rest of a segment shows that record `sequence` was synced once.
fn is_synced_behind(rest: &[u8], header: &SegmentHeader, sequence: u64) -> bool {
    let shows = |bytes: &[u8]| {
        let is_later = |record: Record<'_>| record.epoch == header.epoch && record.synced >= sequence;
        decode_record(bytes, header.log_id).is_some_and(is_later)
    };
    (0..rest.len()).step_by(ALIGNMENT).any(|at| rest[at] != 0 && shows(&rest[at..]))
}
