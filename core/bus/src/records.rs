//! A bounded directory of durable records: where messages wait that cannot travel (an agent's spool) or cannot be
//! understood (the collector's quarantine).
//!
//! One record is one file, written whole under a temporary name, synced, renamed, and the directory synced: a record
//! exists entirely or not at all, also after a power cut. A temporary file that a crash left behind was never
//! acknowledged and is removed at the next start. Names are numbers that only grow, so that order survives restarts.
//!
//! ```text
//! offset  bytes  meaning
//! 0       4      magic `ORZR`
//! 4       1      version, 1
//! 5       3      zero
//! 8       4      length of the note, little endian
//! 12      4      length of the body, little endian
//! 16      4      CRC32C of bytes 0..16 and of everything after this field
//! 20      ...    the note (JSON object with text values), then the body
//! ```
//!
//! A record whose bytes are not those that were written is never skipped in silence: reading it says so, and
//! [`Records::set_aside`] keeps it under another name for people.
//!
//! All calls block on the disk; callers on an async thread use `spawn_blocking`.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use bytes::Bytes;
use parking_lot::Mutex;

/// First bytes of every record.
const MAGIC: [u8; 4] = *b"ORZR";
/// The version that this program writes.
const VERSION: u8 = 1;
/// Frame before the note.
const HEADER_BYTES: usize = 20;
/// Largest note; it says where a record comes from, nothing more.
const NOTE_BYTES_MAX: usize = 64 << 10;
/// Largest body; the bus carries no larger one.
const BODY_BYTES_MAX: usize = crate::rabbit::BODY_BYTES_MAX;
/// What a file takes beyond its bytes: rounding up to blocks, and the directory entry.
const FILE_OVERHEAD_BYTES: u64 = 4096;

/// Number of a record; grows with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(u64);

/// What is remembered beside the body: where it came from, why it is here.
pub type Note = BTreeMap<String, String>;

/// The directory. Share it behind an `Arc`; only one process may use a directory at a time.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sizes: BTreeMap<RecordId, u64>,
    bytes: u64,
    next: u64,
}

/// Why a record cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The limit is reached: what is there stays, what is new is refused.
    #[error("{} is full: {bytes} of {bytes_max} bytes", directory.display())]
    Full {
        /// Where.
        directory: PathBuf,
        /// Taken already.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Larger than any record may be.
    #[error("a record of {bytes} bytes is too large")]
    TooLarge {
        /// How large.
        bytes: usize,
    },
    /// The bytes are not those that were written.
    #[error("record {id} is damaged: {reason}")]
    Damaged {
        /// Which.
        id: RecordId,
        /// What does not fit.
        reason: &'static str,
    },
    /// Removed, or never there.
    #[error("there is no record {id}")]
    NotFound {
        /// Which.
        id: RecordId,
    },
    /// The disk said no.
    #[error("cannot {what} {}", path.display())]
    Disk {
        /// `write`, `read`, `remove`.
        what: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// Its words.
        #[source]
        source: io::Error,
    },
}

impl RecordError {
    /// Whether the same may succeed later, when there is room or the disk is well again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Disk { .. })
    }
}

impl Records {
    /// Opens the directory (made if missing); it will hold at most `bytes_max`.
    pub fn open(directory: &Path, bytes_max: u64) -> Result<Self, RecordError> {
        let directory = directory.to_owned();
        fs::create_dir_all(&directory).map_err(disk("make", &directory))?;
        let mut state = State::default();
        for entry in fs::read_dir(&directory).map_err(disk("read", &directory))? {
            let entry = entry.map_err(disk("read", &directory))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".tmp") {
                fs::remove_file(entry.path()).map_err(disk("remove", &entry.path()))?;
                continue;
            }
            let stem = name.strip_suffix(".damaged").unwrap_or(&name);
            let Some(id) = stem.strip_suffix(".record").and_then(|number| number.parse::<RecordId>().ok()) else {
                continue;
            };
            state.next = state.next.max(id.0 + 1);
            let size = entry.metadata().map_err(disk("read", &entry.path()))?.len() + FILE_OVERHEAD_BYTES;
            // What was set aside still takes its room, until a person removes it.
            state.bytes += size;
            if !name.ends_with(".damaged") {
                state.sizes.insert(id, size);
            }
        }
        Ok(Self { directory, bytes_max, state: Mutex::new(state) })
    }

    /// Keeps a record; durable when this returns `Ok`.
    pub fn keep(&self, note: &Note, body: &[u8]) -> Result<RecordId, RecordError> {
        let note = serde_json::to_vec(note).expect("a map of texts is JSON");
        if note.len() > NOTE_BYTES_MAX || body.len() > BODY_BYTES_MAX {
            return Err(RecordError::TooLarge { bytes: note.len() + body.len() });
        }
        let size = (HEADER_BYTES + note.len() + body.len()) as u64 + FILE_OVERHEAD_BYTES;
        let id = {
            let mut state = self.state.lock();
            if state.bytes + size > self.bytes_max {
                let (bytes, bytes_max) = (state.bytes, self.bytes_max);
                return Err(RecordError::Full { directory: self.directory.clone(), bytes, bytes_max });
            }
            // The room is taken before the file is written, so that writers at once do not pass the limit together.
            state.bytes += size;
            let id = RecordId(state.next);
            state.next += 1;
            id
        };
        let written = self.write(id, &frame(&note, body));
        let mut state = self.state.lock();
        match &written {
            Ok(()) => {
                state.sizes.insert(id, size);
            }
            Err(_) => state.bytes -= size,
        }
        written.map(|()| id)
    }

    /// The records, oldest first.
    pub fn list(&self) -> Vec<RecordId> {
        self.state.lock().sizes.keys().copied().collect()
    }

    /// The oldest record.
    pub fn first(&self) -> Option<RecordId> {
        self.state.lock().sizes.keys().next().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.lock().sizes.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Disk space taken, about.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Reads a record and verifies it.
    pub fn read(&self, id: RecordId) -> Result<(Note, Bytes), RecordError> {
        let path = self.path(id);
        let mut bytes = Vec::new();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RecordError::NotFound { id }),
            Err(error) => return Err(disk("read", &path)(error)),
        };
        let most = (HEADER_BYTES + NOTE_BYTES_MAX + BODY_BYTES_MAX) as u64;
        file.take(most + 1).read_to_end(&mut bytes).map_err(disk("read", &path))?;
        parse(&bytes).map_err(|reason| RecordError::Damaged { id, reason })
    }

    /// Removes a record.
    pub fn remove(&self, id: RecordId) -> Result<(), RecordError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RecordError::NotFound { id }),
            Err(error) => return Err(disk("remove", &path)(error)),
        }
        let mut state = self.state.lock();
        let size = state.sizes.remove(&id).unwrap_or(0);
        state.bytes = state.bytes.saturating_sub(size);
        drop(state);
        // Without this a power cut could bring the record back; it would only be sent again. Its error is ours to tell.
        self.sync_directory()
    }

    /// Takes a damaged record out of the way, under another name, for people to look at. It keeps taking room.
    pub fn set_aside(&self, id: RecordId) -> Result<PathBuf, RecordError> {
        let path = self.path(id);
        let aside = self.directory.join(format!("{id}.record.damaged"));
        fs::rename(&path, &aside).map_err(disk("rename", &path))?;
        self.state.lock().sizes.remove(&id);
        self.sync_directory()?;
        Ok(aside)
    }

    /// Where the records are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, id: RecordId) -> PathBuf {
        self.directory.join(format!("{id}.record"))
    }

    fn write(&self, id: RecordId, frame: &[u8]) -> Result<(), RecordError> {
        let temporary = self.directory.join(format!("{id}.tmp"));
        let path = self.path(id);
        let written = File::create_new(&temporary).and_then(|mut file| {
            file.write_all(frame)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // Leftovers are removed at the next start as well.
            let _ = fs::remove_file(&temporary);
            return Err(disk("write", &temporary)(error));
        }
        fs::rename(&temporary, &path).map_err(disk("rename", &temporary))?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<(), RecordError> {
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(disk("sync", &self.directory))
    }
}

impl fmt::Display for RecordId {
    /// Twenty digits, so that names sort as numbers do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

impl FromStr for RecordId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The last number is never given out, so that the next one exists.
        text.parse::<u64>().map(|number| Self(number.min(u64::MAX - 1)))
    }
}

fn disk<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> RecordError + 'p {
    move |source| RecordError::Disk { what, path: path.to_owned(), source }
}

fn frame(note: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + note.len() + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, 0, 0, 0]);
    frame.extend_from_slice(&(note.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let checksum = [note, body].into_iter().fold(crc32c::crc32c(&frame), crc32c::crc32c_append);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(note);
    frame.extend_from_slice(body);
    frame
}

fn parse(bytes: &[u8]) -> Result<(Note, Bytes), &'static str> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
        return Err("it does not begin like a record");
    }
    if bytes[4] != VERSION {
        return Err("it has a format version that this program does not know");
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let rest = &bytes[HEADER_BYTES..];
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), rest) != word(16) {
        return Err("its checksum does not match");
    }
    let note_length = word(8) as usize;
    if note_length.checked_add(word(12) as usize) != Some(rest.len()) {
        return Err("its length does not match");
    }
    let (note, body) = rest.split_at(note_length);
    let note = serde_json::from_slice(note).map_err(|_| "its note is not JSON")?;
    Ok((note, Bytes::copy_from_slice(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(reason: &str) -> Note {
        Note::from([("reason".to_owned(), reason.to_owned())])
    }

    #[test]
    fn records_survive_a_restart_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path(), 1 << 20).unwrap();
        let first = records.keep(&note("a"), b"one").unwrap();
        let second = records.keep(&note("b"), b"two").unwrap();
        let third = records.keep(&note("c"), b"three").unwrap();
        records.remove(second).unwrap();
        let bytes = records.bytes();
        drop(records);
        fs::write(directory.path().join("00000000000000000009.tmp"), b"torn").unwrap();
        let records = Records::open(directory.path(), 1 << 20).unwrap();
        assert_eq!(records.list(), [first, third]);
        assert_eq!(records.bytes(), bytes);
        assert_eq!(records.read(third).unwrap(), (note("c"), Bytes::from_static(b"three")));
        assert!(matches!(records.read(second), Err(RecordError::NotFound { .. })));
        assert!(records.keep(&note("d"), b"four").unwrap() > third, "numbers only grow");
        assert!(!directory.path().join("00000000000000000009.tmp").exists());
    }

    #[test]
    fn a_full_directory_refuses_and_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path(), 10_000).unwrap();
        let first = records.keep(&note("a"), &[7; 2000]).unwrap();
        assert!(matches!(records.keep(&note("b"), &[7; 2000]), Err(RecordError::Full { .. })));
        assert_eq!(records.list(), [first]);
        records.remove(first).unwrap();
        assert_eq!(records.bytes(), 0);
        records.keep(&note("b"), &[7; 2000]).unwrap();
    }

    #[test]
    fn damage_is_told_and_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path(), 1 << 20).unwrap();
        let id = records.keep(&note("a"), b"some body").unwrap();
        let path = directory.path().join(format!("{id}.record"));
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(records.read(id), Err(RecordError::Damaged { .. })), "byte {at}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(records.read(id), Err(RecordError::Damaged { .. })), "cut at {length}");
        }
        let aside = records.set_aside(id).unwrap();
        assert!(aside.exists() && records.is_empty());
        let records = Records::open(directory.path(), 1 << 20).unwrap();
        assert!(records.is_empty());
        assert!(records.keep(&note("b"), b"").unwrap() > id);
    }
}
