//! The one door to the disk: nothing else in the store opens, writes, renames or removes a file.
//!
//! Comes in: what the store wants done. Goes out: the same to a real disk ([`real::RealDisk`]) or to a simulated one
//! that fails, stops and loses what was not synced ([`crate::faults`]). It does not know what is in the files.

pub mod real;

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name within the directory.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub length: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// A file system, as little of it as the store needs.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents; nothing happens if it is there.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// What a directory holds, sorted by name.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a new file; fails if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file a new name in the same directory; fails if that name is taken.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// As [`Self::rename`], in place of what has that name.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails if that name is taken, or on a disk that cannot.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of this file, made if it is not there, until the guard is dropped. `None` if another
    /// has it.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
    /// Bytes that may still be written where `path` is.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// A bug that the store has on this disk, to show that the tests would find it.
    #[cfg(test)]
    fn planted(&self) -> Option<Planted> {
        None
    }
}

/// Bugs that stores have had.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Contents are never made durable.
    SyncSkipped,
    /// Names are never made durable.
    DirectorySyncSkipped,
    /// Appends are answered before they are written.
    AcknowledgedBeforeWritten,
    /// Recovery applies the log to the table, and then once more.
    ReplayedTwice,
    /// A sync that failed is tried again, and believed.
    FailedSyncRetried,
    /// Of a point that is in several places, all are given.
    NotDeduplicated,
}

/// Keeps a lock as long as it lives.
pub type LockGuard = Box<dyn Send + Sync>;

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all bytes at an offset.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads exactly `length` bytes at an offset.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;
    /// Makes the file `length` bytes long and takes the space for it now. New bytes are zero.
    fn preallocate(&self, length: u64) -> io::Result<()>;
    /// Makes contents and length durable (`fdatasync`). After an error nothing may be assumed about what was written
    /// before, not even if a second call succeeds.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// Names that begin so are unfinished files; recovery removes them.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The whole of a file.
pub fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let file = disk.open(path)?;
    let length = usize::try_from(file.length()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    file.read_at(0, length)
}

/// Writes a new file under a temporary name, durably, and gives that name. It becomes a file of the store only by
/// [`publish`].
pub fn stage(disk: &dyn Disk, directory: &Path, bytes: &[u8]) -> io::Result<std::path::PathBuf> {
    let path = directory.join(format!("{TEMPORARY_PREFIX}{}", uuid::Uuid::new_v4()));
    let written = disk.create(&path).and_then(|file| {
        file.write_at(0, bytes)?;
        file.sync()
    });
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            // Best effort: recovery removes it otherwise.
            let _ = disk.remove(&path);
            Err(error)
        }
    }
}

/// Gives a staged file its name, durably. After an error it is not known which of the two names is on disk.
pub fn publish(disk: &dyn Disk, staged: &Path, directory: &Path, name: &str) -> io::Result<()> {
    disk.rename(staged, &directory.join(name))?;
    disk.sync_directory(directory)
}
