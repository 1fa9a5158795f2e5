//! What is on the simulated disk: names and contents, now and durable, and what is pending between the two.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::Fault;

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Everything on the disk: names and contents as they are now, and as they would be after a power cut.
pub(super) struct State {
    pub(super) now: BTreeMap<PathBuf, Node>,
    pub(super) durable: BTreeMap<PathBuf, Node>,
    pub(super) pending: Vec<Change>,
    pub(super) inodes: Vec<Inode>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) operations: u64,
    pub(super) fault: Fault,
    pub(super) boot: u64,
    pub(super) free_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(usize),
}

/// A change of names in one directory; a rename is one change.
pub(super) struct Change {
    pub(super) directory: PathBuf,
    pub(super) unset: Option<PathBuf>,
    pub(super) set: Option<(PathBuf, Node)>,
}

#[derive(Default)]
pub(super) struct Inode {
    pub(super) now: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Write>,
}

pub(super) enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Longer(usize),
    Shorter(usize),
}

/// What the fault says about the operation at hand.
pub(super) enum Verdict {
    Works,
    Fails(io::Error),
    FailsButApplies(io::Error),
}

impl State {
    pub(super) fn verdict(&mut self) -> Verdict {
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

    pub(super) fn change(&mut self, directory: &Path, unset: Option<&Path>, set: Option<(PathBuf, Node)>) {
        if let Some(path) = unset {
            self.now.remove(path);
        }
        if let Some((path, node)) = &set {
            self.now.insert(path.clone(), *node);
        }
        self.pending.push(Change { directory: directory.to_owned(), unset: unset.map(Path::to_owned), set });
    }

    pub(super) fn harden(durable: &mut BTreeMap<PathBuf, Node>, change: Change) {
        if let Some(path) = change.unset {
            durable.remove(&path);
        }
        if let Some((path, node)) = change.set {
            durable.insert(path, node);
        }
    }

    pub(super) fn cut_power(&mut self, seed: u64) {
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

    pub(super) fn inode(&self, path: &Path) -> io::Result<usize> {
        match self.now.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

impl Inode {
    pub(super) fn write(contents: &mut Vec<u8>, write: &Write) {
        match write {
            Write::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
            Write::Longer(length) => {
                if contents.len() < *length {
                    contents.resize(*length, 0);
                }
            }
            Write::Shorter(length) => contents.truncate(*length),
        }
    }

    fn lose_some_of(&mut self, write: Write, chance: &mut Chance) {
        match write {
            Write::Longer(_) | Write::Shorter(_) => {
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
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// A number from 0 up to `bound`, without it.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 1) % bound.max(1)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
