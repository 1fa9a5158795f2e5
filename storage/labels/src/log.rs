//! The label log: what a new series waits for.
//!
//! Append-only segments, each record with its sequence and checksum, one `fdatasync` for a group. Comes in: encoded
//! records. Goes out: "durable", or an error after which the log takes nothing more: a failed write or sync is never
//! tried again. Every byte is described in `storage/FORMAT.md`. It does not know what labels mean.

pub(crate) mod content;
pub(crate) mod record;
pub(crate) mod recovery;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use orzo_store::files::{Disk, DiskFile};
use uuid::Uuid;

use self::{
    content::Packer,
    record::{HEADER_BYTES, Kind, Record, SegmentHeader, encode_header, encode_record, record_bytes},
};
use crate::backup::Mark;

/// Names that begin so are unfinished files; opening removes them.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";
/// Segments grow up to here; a group that does not fit any more begins a new one. It is read at a stretch when something
/// in it is damaged. Tests want many segments.
const SEGMENT_BYTES_MAX: u64 = if cfg!(test) { 2 << 10 } else { 32 << 20 };
/// The least room behind the last record, so that a few new series need not take any.
const SPARE_BYTES_MIN: u64 = if cfg!(test) { 256 } else { 8 << 10 };
/// Sequences to a new segment's name.
const NAME_ENDING: &str = ".labels";

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Nothing was written; there is no room for a new segment. It may be tried again.
    NoRoom,
    /// The log is of no use any more until it is opened again.
    Broken {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// Writes groups to the newest segment. One thread owns it.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    log_id: Uuid,
    epoch: u64,
    number: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    offset: u64,
    segment_bytes: u64,
    next_sequence: u64,
    synced: u64,
    pending: Vec<u8>,
    packer: Packer,
}

/// Where a log goes on.
pub(crate) struct Position {
    pub(crate) log_id: Uuid,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// The sequence of the first of `unproven`, or of the next record.
    pub(crate) next_sequence: u64,
    /// Records that nothing proves to be on disk, although they could be read: they are written once more.
    pub(crate) unproven: Vec<(Kind, Vec<u8>)>,
}

impl Writer {
    /// Begins a new segment for the records from a position on. What is unproven is in it before it has a name.
    pub(crate) fn begin(disk: Arc<dyn Disk>, directory: &Path, position: &Position) -> Result<Self, WriteError> {
        let synced = position.next_sequence - 1;
        let mut again = Vec::new();
        for ((kind, body), sequence) in position.unproven.iter().zip(position.next_sequence..) {
            let record = Record { kind: *kind, sequence, epoch: position.epoch, synced, body };
            encode_record(&record, position.log_id, &mut again);
        }
        let segment_bytes = HEADER_BYTES as u64 + again.len() as u64 + SPARE_BYTES_MIN;
        let packer = Packer::new().map_err(|source| broken("begin", directory, source))?;
        let header = SegmentHeader {
            log_id: position.log_id,
            number: position.number,
            epoch: position.epoch,
            first_sequence: position.next_sequence,
            is_base: false,
        };
        let (file, path) = new_segment(&*disk, directory, &header, &again, segment_bytes)?;
        let next_sequence = position.next_sequence + position.unproven.len() as u64;
        Ok(Self {
            disk,
            directory: directory.to_owned(),
            log_id: position.log_id,
            epoch: position.epoch,
            number: position.number,
            file,
            path,
            offset: (HEADER_BYTES + again.len()) as u64,
            segment_bytes,
            next_sequence,
            synced: next_sequence - 1,
            pending: Vec::new(),
            packer,
        })
    }

    /// Makes sure that records of so many bytes fit: the segment is made longer, or a new one is begun. Nothing must be
    /// pending.
    pub(crate) fn make_room(&mut self, bytes: usize) -> Result<(), WriteError> {
        debug_assert!(self.pending.is_empty());
        if self.offset + bytes as u64 <= self.segment_bytes {
            return Ok(());
        }
        let wanted = self.offset + bytes as u64;
        if wanted <= SEGMENT_BYTES_MAX {
            match self.file.preallocate(wanted) {
                Ok(()) => self.segment_bytes = wanted,
                Err(source) if source.kind() == io::ErrorKind::StorageFull => return Err(WriteError::NoRoom),
                Err(source) => return Err(broken("make longer", &self.path, source)),
            }
            return Ok(());
        }
        let segment_bytes = (HEADER_BYTES + bytes) as u64;
        let header = SegmentHeader {
            log_id: self.log_id,
            number: self.number + 1,
            epoch: self.epoch,
            first_sequence: self.next_sequence,
            is_base: false,
        };
        let (file, path) = new_segment(&*self.disk, &self.directory, &header, &[], segment_bytes)?;
        (self.file, self.path, self.number) = (file, path, header.number);
        (self.offset, self.segment_bytes) = (HEADER_BYTES as u64, segment_bytes);
        Ok(())
    }

    /// Adds a record to the group. There must be room for it.
    pub(crate) fn push(&mut self, kind: Kind, body: &[u8]) {
        let packed = (kind == Kind::Series).then(|| self.packer.pack(body)).flatten();
        let (kind, body) = packed.as_ref().map_or((kind, body), |packed| (Kind::Packed, packed));
        let record = Record { kind, sequence: self.next_sequence, epoch: self.epoch, synced: self.synced, body };
        encode_record(&record, self.log_id, &mut self.pending);
        self.next_sequence += 1;
        debug_assert!(self.offset + self.pending.len() as u64 <= self.segment_bytes);
    }

    /// How far the log is durable.
    pub(crate) fn mark(&self) -> Mark {
        Mark { number: self.number, offset: self.offset }
    }

    /// Writes the group and makes it durable.
    pub(crate) fn commit(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.write_at(self.offset, &self.pending).map_err(|source| broken("write", &self.path, source))?;
        self.file.sync().map_err(|source| broken("sync", &self.path, source))?;
        self.offset += self.pending.len() as u64;
        self.synced = self.next_sequence - 1;
        self.pending.clear();
        self.give_room_back();
        Ok(())
    }

    /// Room is taken before it is known how short the records are; what is left is mostly too much.
    fn give_room_back(&mut self) {
        let spare = (self.offset / 4).max(SPARE_BYTES_MIN);
        let wanted = self.offset + spare;
        if self.segment_bytes > wanted + spare {
            // A file that stays long costs nothing but room; how long it is now is not known.
            let is_shorter = self.file.shorten(wanted).is_ok();
            self.segment_bytes = if is_shorter { wanted } else { self.offset };
        }
    }
}

fn broken(action: &'static str, path: &Path, source: io::Error) -> WriteError {
    WriteError::Broken { action, path: path.to_owned(), source }
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}{NAME_ENDING}")
}

pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(NAME_ENDING)?.parse().ok()
}

/// A new segment, durable under its name. It has its whole length and its first records before it has a name.
fn new_segment(
    disk: &dyn Disk,
    directory: &Path,
    header: &SegmentHeader,
    records: &[u8],
    bytes: u64,
) -> Result<(Arc<dyn DiskFile>, PathBuf), WriteError> {
    let staged = directory.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
    let path = directory.join(segment_name(header.number));
    let prepared = disk.create(&staged).and_then(|file| {
        file.preallocate(bytes)?;
        file.write_at(0, &[&encode_header(header)[..], records].concat())?;
        file.sync()?;
        Ok(file)
    });
    let file = match prepared {
        Ok(file) => file,
        Err(source) => {
            // Best effort: opening removes it otherwise.
            let _ = disk.remove(&staged);
            if source.kind() == io::ErrorKind::StorageFull {
                return Err(WriteError::NoRoom);
            }
            return Err(broken("begin", &path, source));
        }
    };
    disk.rename(&staged, &path)
        .and_then(|()| disk.sync_directory(directory))
        .map_err(|source| broken("publish", &path, source))?;
    Ok((file, path))
}

/// Writes a whole log anew: one file that holds everything up to a sequence.
pub(crate) struct BaseWriter {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    staged: PathBuf,
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    offset: u64,
    records: u64,
    buffer: Vec<u8>,
    packer: Packer,
}

/// A base is written in pieces of this size.
const BASE_PIECE_BYTES: usize = 1 << 20;

impl BaseWriter {
    pub(crate) fn begin(disk: Arc<dyn Disk>, directory: &Path, header: SegmentHeader) -> io::Result<Self> {
        let staged = directory.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
        let file = disk.create(&staged)?;
        let buffer = encode_header(&header).to_vec();
        let (directory, packer) = (directory.to_owned(), Packer::new()?);
        Ok(Self { disk, directory, staged, header, file, offset: 0, records: 0, buffer, packer })
    }

    pub(crate) fn push(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let packed = (kind == Kind::Series).then(|| self.packer.pack(body)).flatten();
        let (kind, body) = packed.as_ref().map_or((kind, body), |packed| (Kind::Packed, packed));
        let record = Record { kind, sequence: self.records, epoch: self.header.epoch, synced: 0, body };
        encode_record(&record, self.header.log_id, &mut self.buffer);
        self.records += 1;
        if self.buffer.len() >= BASE_PIECE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends it and gives it its name, durably. Gives its length.
    pub(crate) fn publish(mut self) -> io::Result<u64> {
        let count = self.records;
        self.push(Kind::End, &count.to_le_bytes())?;
        self.write()?;
        self.file.sync()?;
        self.disk.rename(&self.staged, &self.directory.join(segment_name(self.header.number)))?;
        self.disk.sync_directory(&self.directory)?;
        Ok(self.offset)
    }
}

/// The room that records with bodies of so many bytes take, at most.
pub(crate) fn room_for(bodies: impl Iterator<Item = usize>) -> usize {
    bodies.map(record_bytes).sum()
}
