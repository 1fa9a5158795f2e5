//! The write-ahead log: what `append` waits for.
//!
//! Appends of many callers become one group, one write and one `fdatasync`. Comes in: encoded entries in the order of
//! their sequence. Goes out: "durable", or an error after which the log takes nothing more: a failed write or sync is
//! never tried again, because nobody knows what is on disk then. It does not know what the points mean.

pub(crate) mod record;
pub(crate) mod recovery;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use self::{
    record::{Entry, Record, SEGMENT_HEADER_BYTES, SegmentHeader, encode_record, encode_segment_header, record_bytes},
    recovery::segment_name,
};
use crate::files::{Disk, DiskFile, TEMPORARY_PREFIX, publish};

/// Length of the first segment after a start, or after everything went to files: an idle store's log is no larger.
pub(crate) const SEGMENT_BYTES_FIRST: u64 = 16 << 10;

/// A segment on disk and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first_sequence: u64,
    pub(crate) bytes: u64,
}

/// What of a group is durable: all of it, or its first entries if the disk had no room for another segment.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) records: Vec<Record>,
    pub(crate) begun: Vec<Segment>,
}

/// Why nothing of a group was written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Nothing was written; there is no room for a new segment. Appends may be tried again.
    NoRoom,
    /// The log is of no use any more until it is recovered.
    Broken { action: &'static str, path: PathBuf, source: std::io::Error },
}

/// Writes groups to the newest segment. One thread owns it.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    store_id: Uuid,
    epoch: u64,
    /// Of the newest segment; the next one has four times as much, up to the limit.
    segment_bytes: u64,
    segment_bytes_max: u64,
    number: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    offset: u64,
    next_sequence: u64,
    synced: u64,
    /// Kept from one group to the next: memory that is new each time costs more than what is written to it.
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a new segment for records from `next_sequence` on; all before are durable elsewhere.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        directory: &Path,
        store_id: Uuid,
        epoch: u64,
        number: u64,
        next_sequence: u64,
        segment_bytes_max: u64,
    ) -> Result<(Self, Segment), WriteError> {
        let segment_bytes = segment_bytes_max.min(SEGMENT_BYTES_FIRST);
        let header = SegmentHeader { store_id, number, epoch, first_sequence: next_sequence };
        let (file, path) = new_segment(&*disk, directory, &header, segment_bytes)?;
        let segment = Segment { path: path.clone(), first_sequence: next_sequence, bytes: segment_bytes };
        let writer = Self {
            disk,
            directory: directory.to_owned(),
            store_id,
            epoch,
            segment_bytes,
            segment_bytes_max,
            number,
            file,
            path,
            offset: SEGMENT_HEADER_BYTES as u64,
            next_sequence,
            synced: next_sequence - 1,
            bytes: Vec::new(),
        };
        Ok((writer, segment))
    }

    /// The largest entry that fits a segment, in bytes of its record.
    pub(crate) fn record_bytes_max(segment_bytes: u64) -> usize {
        (segment_bytes as usize).saturating_sub(SEGMENT_HEADER_BYTES)
    }

    /// Writes all entries and makes them durable, by one sync unless a segment ends between them. Entries get
    /// consecutive sequences in their order.
    pub(crate) fn write(&mut self, entries: Vec<Entry>) -> Result<Written, WriteError> {
        let mut written = Written::default();
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        for entry in entries {
            let room = self.segment_bytes - self.offset - bytes.len() as u64;
            if record_bytes(&entry) as u64 > room {
                self.put(&mut bytes)?;
                let wanted = (self.segment_bytes * 4).max((record_bytes(&entry) + SEGMENT_HEADER_BYTES) as u64);
                match self.rotate(wanted) {
                    Ok(segment) => written.begun.push(segment),
                    Err(WriteError::NoRoom) if !written.records.is_empty() => return Ok(written),
                    Err(error) => return Err(error),
                }
            }
            let record = Record { sequence: self.next_sequence, epoch: self.epoch, synced: self.synced, entry };
            encode_record(&record, self.store_id, &mut bytes);
            self.next_sequence += 1;
            written.records.push(record);
        }
        self.put(&mut bytes)?;
        self.bytes = bytes;
        Ok(written)
    }

    fn put(&mut self, bytes: &mut Vec<u8>) -> Result<(), WriteError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let broken = |action, source| WriteError::Broken { action, path: self.path.clone(), source };
        self.file.write_at(self.offset, bytes).map_err(|source| broken("write", source))?;
        let synced = self.file.sync();
        #[cfg(test)]
        let synced = match synced {
            Err(_) if self.disk.planted() == Some(crate::files::Planted::FailedSyncRetried) => self.file.sync(),
            other => other,
        };
        synced.map_err(|source| broken("sync", source))?;
        self.offset += bytes.len() as u64;
        self.synced = self.next_sequence - 1;
        bytes.clear();
        Ok(())
    }

    /// Begins a small segment if the newest is a large one: so that an idle store's log is small. What is in the old one
    /// must be in the table, or stay on disk.
    pub(crate) fn shrink(&mut self) -> Result<Option<Segment>, WriteError> {
        if self.segment_bytes <= SEGMENT_BYTES_FIRST {
            return Ok(None);
        }
        self.rotate(SEGMENT_BYTES_FIRST).map(Some)
    }

    fn rotate(&mut self, wanted: u64) -> Result<Segment, WriteError> {
        let segment_bytes = wanted.min(self.segment_bytes_max);
        let header = SegmentHeader {
            store_id: self.store_id,
            number: self.number + 1,
            epoch: self.epoch,
            first_sequence: self.next_sequence,
        };
        let (file, path) = new_segment(&*self.disk, &self.directory, &header, segment_bytes)?;
        self.segment_bytes = segment_bytes;
        self.file = file;
        self.path = path.clone();
        self.number += 1;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(Segment { path, first_sequence: self.next_sequence, bytes: self.segment_bytes })
    }
}

/// A new segment, durable under its name. It has its whole length before it has a name.
fn new_segment(
    disk: &dyn Disk,
    directory: &Path,
    header: &SegmentHeader,
    segment_bytes: u64,
) -> Result<(Arc<dyn DiskFile>, PathBuf), WriteError> {
    let staged = directory.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
    let path = directory.join(segment_name(header.number));
    let broken = |action, source| WriteError::Broken { action, path: path.clone(), source };
    let prepared = disk.create_log(&staged).and_then(|file| {
        file.preallocate(segment_bytes)?;
        file.write_at(0, &encode_segment_header(header))?;
        file.sync()?;
        Ok(file)
    });
    let file = match prepared {
        Ok(file) => file,
        Err(source) => {
            let _ = disk.remove(&staged);
            if source.kind() == std::io::ErrorKind::StorageFull {
                return Err(WriteError::NoRoom);
            }
            return Err(broken("begin", source));
        }
    };
    publish(disk, &staged, directory, &segment_name(header.number)).map_err(|source| broken("publish", source))?;
    Ok((file, path))
}

#[cfg(test)]
mod tests;
