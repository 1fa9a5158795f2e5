//! A copy of the log while it is written to.
//!
//! The writer thread says how far the log is durable between two groups; files up to there never change any more, so
//! they are copied without holding anybody up. What comes out is read as any log is.

use std::{path::Path, sync::Arc};

use orzo_store::files::{Disk, DiskFile, real::RealDisk};

use crate::{
    LabelError,
    error::At,
    log::{TEMPORARY_PREFIX, number_of},
    open::lock,
};

/// What is read and written at once.
const PIECE_BYTES: u64 = 1 << 20;

/// How far the log is durable: within the segment of this number, so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) offset: u64,
}

/// Copies the log of an index that nobody has open. `directory` must be empty. Gives the bytes.
pub fn back_up_closed(from: &Path, directory: &Path) -> Result<u64, LabelError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let _lock = lock(&*disk, from)?;
    copy(&*disk, from, directory, None)
}

/// Copies the files up to the mark, or all. Gives the bytes.
pub(crate) fn copy(disk: &dyn Disk, from: &Path, directory: &Path, until: Option<Mark>) -> Result<u64, LabelError> {
    disk.make_directory(directory).at("make", directory)?;
    if !disk.list(directory).at("list", directory)?.is_empty() {
        let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        return Err(LabelError::Io { action: "copy the labels to", path: directory.to_owned(), source });
    }
    let mut bytes = 0;
    for entry in disk.list(from).at("list", from)? {
        let Some(number) = number_of(&entry.name) else { continue };
        let written = match until {
            Some(mark) if number > mark.number => continue,
            Some(mark) if number == mark.number => mark.offset,
            _ => entry.length,
        };
        let (there, here) = (from.join(&entry.name), directory.join(&entry.name));
        let file = disk.open(&there).at("open", &there)?;
        let staged = directory.join(format!("{TEMPORARY_PREFIX}{}", entry.name));
        let copied = disk.create(&staged).at("make", &staged)?;
        copied.preallocate(entry.length).at("make", &staged)?;
        copy_bytes(&*file, &*copied, written.min(entry.length)).at("copy", &there)?;
        copied.sync().at("sync", &staged)?;
        disk.rename(&staged, &here).at("publish", &here)?;
        bytes += entry.length;
    }
    disk.sync_directory(directory).at("sync", directory)?;
    Ok(bytes)
}

fn copy_bytes(from: &dyn DiskFile, to: &dyn DiskFile, length: u64) -> std::io::Result<()> {
    let mut offset = 0;
    while offset < length {
        let piece = from.read_at(offset, (length - offset).min(PIECE_BYTES) as usize)?;
        to.write_at(offset, &piece)?;
        offset += piece.len() as u64;
    }
    Ok(())
}
