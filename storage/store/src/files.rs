//! The one door to the disk: nothing else in the store opens, writes, renames or removes a file.
//!
//! Comes in: what the store wants done. Goes out: the same to a real disk ([`real::RealDisk`]), to one whose tables are
//! in a bucket ([`tiered::TieredDisk`]), or to a simulated one that fails, stops and loses what was not synced
//! ([`crate::faults`]). It does not know what is in the files.

pub mod bucket;
mod direct;
pub mod real;
pub mod s3;
pub mod tiered;

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
    /// Makes a new file that is written from its beginning on, each write where the one before ended, and synced after each.
    /// It may be longer than is asked for, by zeros.
    fn create_log(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path)
    }
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
    /// The files of a directory and of the directories in it, by their names within it; no directories.
    fn list_below(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut below = Vec::new();
        for entry in self.list(directory)? {
            if !entry.is_directory {
                below.push(entry);
                continue;
            }
            for inner in self.list(&directory.join(&entry.name))?.into_iter().filter(|inner| !inner.is_directory) {
                below.push(Entry { name: format!("{}/{}", entry.name, inner.name), ..inner });
            }
        }
        Ok(below)
    }
    /// Removes a file that nobody names. Where others may write, too, it stays as long as it is new: they may be about to
    /// name it.
    fn sweep(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }
    /// Gives up a copy that turned out to be damaged; whether the file can be read anew from where it is kept.
    fn forget_copy(&self, _path: &Path) -> bool {
        false
    }
    /// Whether a name that is taken is refused, shown by trying it: without that two machines could each believe to own a
    /// table elsewhere.
    fn refuses_taken_names(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// Where the tables are, if they are not on this machine.
    fn elsewhere(&self) -> Option<Elsewhere> {
        None
    }
    /// A bug that the store has on this disk, to show that the tests would find it.
    #[cfg(test)]
    fn planted(&self) -> Option<Planted> {
        None
    }
}

/// Tables that are kept away from this machine, where other machines reach them, too.
pub struct Elsewhere {
    /// For people: where, such as `s3://bucket/prefix`.
    pub url: String,
    /// This machine's disk without them: the log, the lock, and copies.
    pub local: Arc<dyn Disk>,
    /// The same disk, but every file is read from where it is kept, whatever copies there are.
    pub original: Arc<dyn Disk>,
}

/// Why a place elsewhere did not answer. What was asked of it may have been done all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

impl Away {
    /// As an error of a disk.
    pub fn error(kind: io::ErrorKind, text: impl ToString) -> io::Error {
        io::Error::new(kind, Self(text.to_string()))
    }

    /// Whether this error is one: asking again may help, and a write may have taken effect.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
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
    /// A commit without an answer is taken for one that was not made.
    UnansweredIsNotMade,
    /// A put without an answer is taken for one that was done.
    UnansweredIsDone,
    /// A table in a bucket is written without a claim to it.
    NotClaimed,
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
    /// Makes the file at most `length` bytes long and gives the space behind them back. The next sync makes it durable.
    fn shorten(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
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

/// Gives a staged file its name, durably. After an error it is not known whether it has it; its staged name is gone, if that
/// can be.
pub fn publish(disk: &dyn Disk, staged: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let published = disk.rename(staged, &directory.join(name)).and_then(|()| disk.sync_directory(directory));
    if published.is_err() {
        // What is tried again and again must not fill the disk.
        let _ = disk.remove(staged);
    }
    published
}
