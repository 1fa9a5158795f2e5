//! A disk in memory that fails, stops and forgets, for tests of everything that stands on a disk.
//!
//! Each call is counted, so that a test can break a run at every one of its operations in turn. What was not synced may
//! be lost at a power cut: any of the pending names, any 512-byte sector of pending writes, independently, as a seed
//! decides. After a failed `sync` of a file its pending writes are never written, although they can still be read and
//! the next `sync` succeeds, as Linux does it. It does not know what is in the files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::files::{Disk, DiskFile, Entry, LockGuard};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, and when. Operations are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This operation fails with an error of this kind; the next ones work.
    FailOnce {
        /// Which.
        operation: u64,
        /// With what.
        kind: io::ErrorKind,
        /// Whether it takes effect all the same (an answer that was lost).
        applied: bool,
    },
    /// This operation and all that follow fail, until [`SimulatedDisk::restart`].
    Stop {
        /// Which is the first.
        operation: u64,
    },
}

/// How the machine comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Only the process died: everything written is there.
    Killed,
    /// The power went: what was not synced is there or not, as the seed decides.
    PowerCut {
        /// Chooses what survives.
        seed: u64,
    },
}

/// The disk. Clones share it; each works until the machine restarts ([`SimulatedDisk::booted`]).
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    boot: u64,
}

struct State {
    now: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
    inodes: Vec<Inode>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    fault: Fault,
    boot: u64,
    free_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

/// A change of names in one directory; a rename is one change.
struct Change {
    directory: PathBuf,
    unset: Option<PathBuf>,
    set: Option<(PathBuf, Node)>,
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// What the fault says about the operation at hand.
enum Verdict {
    Works,
    Fails(io::Error),
    FailsButApplies(io::Error),
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        Self {
            state: Arc::new(Mutex::new(State {
                now: root.clone(),
                durable: root,
                pending: Vec::new(),
                inodes: Vec::new(),
                locks: BTreeSet::new(),
                operations: 0,
                fault: Fault::None,
                boot: 0,
                free_bytes: u64::MAX,
            })),
            boot: 0,
        }
    }
}

impl SimulatedDisk {
    /// The disk as a process sees it that starts now. After the next restart it fails, as that process is no more.
    pub fn booted(&self) -> Self {
        Self { state: self.state.clone(), boot: self.state.lock().boot }
    }

    /// How many operations there have been.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Says what goes wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.state.lock().fault = fault;
    }

    /// What `free_bytes` answers.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state.lock().free_bytes = bytes;
    }

    /// Brings the machine back without faults; open files of before are of no use any more.
    pub fn restart(&self, restart: Restart) {
        let mut state = self.state.lock();
        state.fault = Fault::None;
        state.boot += 1;
        state.locks.clear();
        if let Restart::PowerCut { seed } = restart {
            state.cut_power(seed);
        }
    }

    /// Every file and its contents now, for tests that look or damage.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state.lock();
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::Directory => None,
            Node::File(inode) => Some((path.clone(), state.inodes[*inode].now.clone())),
        };
        state.now.iter().filter_map(file).collect()
    }

    /// Replaces a file's contents behind the store's back; makes the file if it is not there.
    pub fn put(&self, path: &Path, contents: Vec<u8>) {
        let mut state = self.state.lock();
        let node = state.now.get(path).copied();
        let inode = match node {
            Some(Node::File(inode)) => inode,
            _ => {
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.now.insert(path.to_owned(), Node::File(inode));
                state.durable.insert(path.to_owned(), Node::File(inode));
                inode
            }
        };
        state.inodes[inode] = Inode { durable: contents.clone(), now: contents, pending: Vec::new() };
    }

    /// Removes a file behind the store's back.
    pub fn take_away(&self, path: &Path) {
        let mut state = self.state.lock();
        state.now.remove(path);
        state.durable.remove(path);
    }

    /// A copy that shares nothing with this one.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        {
            let (from, mut to) = (self.state.lock(), copy.state.lock());
            to.now = from.now.clone();
            to.durable = from.now.clone();
            to.inodes = from
                .inodes
                .iter()
                .map(|inode| Inode { now: inode.now.clone(), durable: inode.now.clone(), pending: Vec::new() })
                .collect();
            to.free_bytes = from.free_bytes;
        }
        copy
    }
}

impl State {
    fn verdict(&mut self) -> Verdict {
        let operation = self.operations;
        self.operations += 1;
        match self.fault {
            Fault::FailOnce { operation: at, kind, applied } if at == operation => {
                let error = io::Error::new(kind, "injected");
                if applied { Verdict::FailsButApplies(error) } else { Verdict::Fails(error) }
            }
            Fault::Stop { operation: at } if at == operation => {
                Verdict::FailsButApplies(io::Error::other("the machine stops"))
            }
            Fault::Stop { operation: at } if at < operation => Verdict::Fails(io::Error::other("the machine is off")),
            _ => Verdict::Works,
        }
    }

    fn change(&mut self, directory: &Path, unset: Option<&Path>, set: Option<(PathBuf, Node)>) {
        if let Some(path) = unset {
            self.now.remove(path);
        }
        if let Some((path, node)) = &set {
            self.now.insert(path.clone(), *node);
        }
        self.pending.push(Change { directory: directory.to_owned(), unset: unset.map(Path::to_owned), set });
    }

    fn harden(durable: &mut BTreeMap<PathBuf, Node>, change: Change) {
        if let Some(path) = change.unset {
            durable.remove(&path);
        }
        if let Some((path, node)) = change.set {
            durable.insert(path, node);
        }
    }

    fn cut_power(&mut self, seed: u64) {
        let mut chance = Chance(seed);
        for change in std::mem::take(&mut self.pending) {
            if chance.flip() {
                Self::harden(&mut self.durable, change);
            }
        }
        // A name below a directory that was lost is lost with it.
        let durable = self.durable.clone();
        self.durable.retain(|path, _| path.ancestors().skip(1).all(|above| durable.contains_key(above)));
        self.now = self.durable.clone();
        for inode in &mut self.inodes {
            for write in std::mem::take(&mut inode.pending) {
                inode.lose_some_of(write, &mut chance);
            }
            inode.now = inode.durable.clone();
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        match self.now.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

impl Inode {
    fn write(contents: &mut Vec<u8>, write: &Write) {
        match write {
            Write::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
            Write::Length(length) => {
                if contents.len() < *length {
                    contents.resize(*length, 0);
                }
            }
        }
    }

    fn lose_some_of(&mut self, write: Write, chance: &mut Chance) {
        match write {
            Write::Length(_) => {
                if chance.flip() {
                    Self::write(&mut self.durable, &write);
                }
            }
            Write::Bytes { offset, bytes } => {
                let mut start = 0;
                while start < bytes.len() {
                    let end = (start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES).min(bytes.len());
                    if chance.flip() {
                        let sector = Write::Bytes { offset: offset + start, bytes: bytes[start..end].to_vec() };
                        Self::write(&mut self.durable, &sector);
                    }
                    start = end;
                }
            }
        }
    }
}

/// Splitmix64: enough chance for a test, from a seed.
struct Chance(u64);

impl Chance {
    fn flip(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

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
            let write = Write::Length(length as usize);
            Inode::write(&mut inode.now, &write);
            inode.pending.push(write);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
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
