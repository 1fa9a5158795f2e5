//! The simulated disk as the store sees it: each call is one operation under the fault.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Fault, SimulatedDisk,
    state::{Change, Inode, Node, State, Verdict, Write},
};
use crate::files::{Disk, DiskFile, Entry, LockGuard};

impl SimulatedDisk {
    /// Runs one operation under the fault.
    fn operation<T>(&self, apply: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("the machine restarted"));
        }
        match state.verdict() {
            Verdict::Works => apply(&mut state),
            Verdict::Fails(error) => Err(error),
            Verdict::FailsButApplies(error) => {
                let lost = apply(&mut state);
                // A lock that nobody gets is let go, which needs the state.
                drop(state);
                drop(lost);
                Err(error)
            }
        }
    }

    fn handle(&self, state: &State, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), inode, boot: state.boot })
    }
}

impl Disk for SimulatedDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.operation(|state| {
            let mut missing: Vec<_> = path.ancestors().filter(|above| !state.now.contains_key(*above)).collect();
            missing.reverse();
            for directory in missing {
                state.change(&parent(directory), None, Some((directory.to_owned(), Node::Directory)));
            }
            Ok(())
        })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.operation(|state| {
            if state.now.get(directory) != Some(&Node::Directory) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            let mut entries = Vec::new();
            for (path, node) in &state.now {
                if path.parent() == Some(directory) {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let (length, is_directory) = match node {
                        Node::Directory => (0, true),
                        Node::File(inode) => (state.inodes[*inode].now.len() as u64, false),
                    };
                    entries.push(Entry { name, length, is_directory });
                }
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.operation(|state| {
            if state.now.contains_key(path) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            if state.now.get(&parent(path)) != Some(&Node::Directory) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            let inode = state.inodes.len();
            state.inodes.push(Inode::default());
            state.change(&parent(path), None, Some((path.to_owned(), Node::File(inode))));
            Ok(self.handle(state, inode))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.operation(|state| {
            let inode = state.inode(path)?;
            Ok(self.handle(state, inode))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation(|state| {
            let inode = state.inode(from)?;
            if state.now.contains_key(to) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            state.change(&parent(from), Some(from), Some((to.to_owned(), Node::File(inode))));
            Ok(())
        })
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation(|state| {
            let inode = state.inode(from)?;
            state.change(&parent(from), Some(from), Some((to.to_owned(), Node::File(inode))));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation(|state| {
            state.inode(path)?;
            state.change(&parent(path), Some(path), None);
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        if self.planted == Some(crate::files::Planted::DirectorySyncSkipped) {
            return self.operation(|_| Ok(()));
        }
        self.operation(|state| {
            if state.now.get(path) != Some(&Node::Directory) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            let (synced, pending) =
                std::mem::take(&mut state.pending).into_iter().partition(|change: &Change| change.directory == path);
            state.pending = pending;
            for change in Vec::from_iter::<Vec<Change>>(synced) {
                State::harden(&mut state.durable, change);
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.operation(|state| {
            if !state.locks.insert(path.to_owned()) {
                return Ok(None);
            }
            let lock = SimulatedLock { disk: self.clone(), path: path.to_owned(), boot: state.boot };
            Ok(Some(Box::new(lock) as LockGuard))
        })
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.operation(|state| Ok(state.free_bytes))
    }

    #[cfg(test)]
    fn planted(&self) -> Option<crate::files::Planted> {
        self.planted
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
    boot: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    inode: usize,
    boot: u64,
}

impl SimulatedFile {
    fn operation<T>(&self, apply: impl FnOnce(&mut Inode) -> io::Result<T>) -> io::Result<T> {
        self.disk.operation(|state| {
            if state.boot != self.boot {
                return Err(io::Error::other("the file was open before the restart"));
            }
            apply(&mut state.inodes[self.inode])
        })
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("the file was open before the restart"));
        }
        let verdict = state.verdict();
        let (written, answer) = match verdict {
            Verdict::Works => (bytes, Ok(())),
            // A write that fails may have written some of it.
            Verdict::Fails(error) if matches!(state.fault, Fault::FailOnce { .. }) => {
                (&bytes[..bytes.len() / 2], Err(error))
            }
            Verdict::Fails(error) => (&bytes[..0], Err(error)),
            Verdict::FailsButApplies(error) => (bytes, Err(error)),
        };
        let write = Write::Bytes { offset: offset as usize, bytes: written.to_vec() };
        let inode = &mut state.inodes[self.inode];
        Inode::write(&mut inode.now, &write);
        inode.pending.push(write);
        answer
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.operation(|inode| {
            let start = offset as usize;
            let bytes = inode.now.get(start..start.saturating_add(length));
            bytes.map(Bytes::copy_from_slice).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        })
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.operation(|inode| {
            let write = Write::Longer(length as usize);
            Inode::write(&mut inode.now, &write);
            inode.pending.push(write);
            Ok(())
        })
    }

    fn shorten(&self, length: u64) -> io::Result<()> {
        self.operation(|inode| {
            let write = Write::Shorter(length as usize);
            Inode::write(&mut inode.now, &write);
            inode.pending.push(write);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.disk.planted == Some(crate::files::Planted::SyncSkipped) {
            return self.operation(|_| Ok(()));
        }
        let mut state = self.disk.state.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("the file was open before the restart"));
        }
        let verdict = state.verdict();
        let stopped = matches!(state.fault, Fault::Stop { .. });
        let inode = &mut state.inodes[self.inode];
        match verdict {
            Verdict::Works => {
                for write in std::mem::take(&mut inode.pending) {
                    Inode::write(&mut inode.durable, &write);
                }
                Ok(())
            }
            Verdict::FailsButApplies(error) => {
                for write in std::mem::take(&mut inode.pending) {
                    Inode::write(&mut inode.durable, &write);
                }
                Err(error)
            }
            Verdict::Fails(error) => {
                if !stopped {
                    // The pages are marked clean although they were not written.
                    inode.pending.clear();
                }
                Err(error)
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        self.operation(|inode| Ok(inode.now.len() as u64))
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}
