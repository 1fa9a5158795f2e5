//! A disk in memory that fails, stops and forgets, for tests of everything that stands on a disk.
//!
//! Each call is counted, so that a test can break a run at every one of its operations in turn. What was not synced may
//! be lost at a power cut: any of the pending names, any 512-byte sector of pending writes, independently, as a seed
//! decides. After a failed `sync` of a file its pending writes are never written, although they can still be read and
//! the next `sync` succeeds, as Linux does it. It does not know what is in the files.
//!
//! What is on it is in `faults/state.rs`, what the store calls in `faults/disk.rs`; a bucket
//! that the machine reaches in `faults/bucket.rs`.

pub mod bucket;
mod disk;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use state::{Inode, Node, State};

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
    #[cfg(test)]
    pub(crate) planted: Option<crate::files::Planted>,
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
            #[cfg(test)]
            planted: None,
        }
    }
}

impl SimulatedDisk {
    /// The disk as a process sees it that starts now. After the next restart it fails, as that process is no more.
    pub fn booted(&self) -> Self {
        let boot = self.state.lock().boot;
        Self { boot, ..self.clone() }
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
