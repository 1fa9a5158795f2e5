//! The machine's own disk.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustix::fs::{FallocateFlags, RenameFlags};

use super::{
    Disk, DiskFile, Entry, LockGuard,
    direct::{BLOCK_BYTES, DirectFile, aligned, write_blocks},
};

/// Linux's file system calls.
#[derive(Debug, Default)]
pub struct RealDisk;

pub(super) struct RealFile(pub(super) File);

/// Zeros that are written at once where a file system cannot allocate.
const FILL_BYTES: usize = 1 << 20;

/// How often a lock is tried, and how long it is waited each time: a second in all.
const LOCK_TRIES: usize = 50;
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// Opens a file, or makes it, and locks it as long as it is open. `None`: another process has it.
///
/// A process that has just been started holds what its parent had open until it runs its own program: so a lock may outlive
/// for a moment who had it, and is tried for a second.
pub fn locked(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

impl Disk for RealDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let is_directory = metadata.is_dir();
            let length = if is_directory { 0 } else { metadata.len() };
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), length, is_directory });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).create_new(true).open(path)?)))
    }

    fn create_log(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(DirectFile::create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag; a hard link refuses a taken name as well.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            other => Ok(other?),
        }
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        Ok(locked(path)?.map(|file| Box::new(file) as LockGuard))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl RealFile {
    /// Writes zeros up to a length, in whole blocks if that is a multiple of them.
    pub(super) fn fill(&self, length: u64) -> io::Result<()> {
        let zeros = vec![0; FILL_BYTES + BLOCK_BYTES];
        let zeros = &zeros[aligned(&zeros)..][..FILL_BYTES];
        let mut offset = self.0.metadata()?.len();
        while offset < length {
            let count = zeros.len().min((length - offset) as usize);
            write_blocks(&self.0, offset, &zeros[..count])?;
            offset += count as u64;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.freeze())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // A file system without it: zeros take the space as well.
            Err(rustix::io::Errno::OPNOTSUPP) => self.fill(length),
            other => Ok(other?),
        }
    }

    fn shorten(&self, length: u64) -> io::Result<()> {
        if self.0.metadata()?.len() > length { self.0.set_len(length) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test found by chance: a child that another thread was starting had the lock for a moment longer.
    #[test]
    fn a_lock_that_a_child_still_has_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("LOCK");
        let first = locked(&path).expect("works").expect("free");
        let of_child = first.try_clone().expect("a second descriptor");
        drop(first);
        let child = std::thread::spawn(move || {
            std::thread::sleep(LOCK_WAIT * 3);
            drop(of_child);
        });
        assert!(locked(&path).expect("works").is_some());
        child.join().expect("a thread");
    }
}
