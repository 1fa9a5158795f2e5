//! A copy of everything appended so far, in a directory of its own, while appends, flushes and compaction go on.
//!
//! Data files never change once they have their name, so a copy of one version's files, of that version's manifest and
//! an empty log are a whole store: it opens as any other, and other engines read its table. Comes in: an empty
//! directory, and perhaps an earlier copy, whose files are linked instead of written again. Every file is read and held
//! against its checksum on the way. It does not know names; who keeps them must copy them *after* the points, so that
//! every point of the copy has one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::{Progress, Shared};
use crate::{
    error::{At, StoreError},
    files::{Disk, DiskFile, TEMPORARY_PREFIX, publish, read_all, stage},
    table::{
        Table, commit_name,
        data_file::DataFile,
        snapshot::{Home, Snapshot},
    },
    wal::{WriteError, Writer},
};

/// What is read, checked and written at once.
const PIECE_BYTES: u64 = 4 << 20;

/// What a backup holds. Two stores hold the same files exactly when all figures but the last agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupReport {
    /// The store's id, the same in all its copies.
    pub store_id: String,
    /// The version of the table.
    pub table_version: u64,
    /// The last record of the log that is in it.
    pub sequence: u64,
    /// Files of the table.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sum of all rows' hashes whatever their order, 32 hexadecimal digits.
    pub hash: String,
    /// Of the bytes, those of files that an earlier backup had already and that were linked.
    pub linked_bytes: u64,
}

/// While it lives, no file of any version leaves the disk, and no commit.
struct Hold<'a>(&'a Shared);

impl<'a> Hold<'a> {
    fn take(shared: &'a Shared) -> Self {
        // A vacuum or a checkpoint that is under way ends before anything is looked at.
        let _tidying = shared.tidying.lock();
        shared.backups.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.backups.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What of one moment has to be copied.
struct Moment {
    snapshot: Snapshot,
    commit: Bytes,
    tombstones: Option<Bytes>,
}

impl Shared {
    pub(super) fn back_up(
        &self,
        directory: &Path,
        earlier: Option<&Path>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<BackupReport, StoreError> {
        let disk = &self.table.disk;
        disk.make_directory(directory).at("make", directory)?;
        if !disk.list(directory).at("list", directory)?.is_empty() {
            return Err(StoreError::Invalid { reason: format!("{} is not empty", directory.display()) });
        }
        let _hold = Hold::take(self);
        let moment = self.moment()?;
        let mut report = report_of(&moment.snapshot);
        let table =
            Table { disk: disk.clone(), root: directory.join("samples"), snapshots: directory.join("snapshots") };
        for path in [&table.root, &table.log_directory(), &table.snapshots] {
            disk.make_directory(path).at("make", path)?;
        }
        let earlier = earlier.map(|earlier| earlier.join("samples"));
        let mut bytes_done = 0;
        for file in &moment.snapshot.files {
            progress(Progress { bytes_done, bytes_total: report.bytes, file: file.path.clone() });
            self.go_on()?;
            if self.copy_file(&table, earlier.as_deref(), file)? {
                report.linked_bytes += file.bytes;
            }
            bytes_done += file.bytes;
        }
        self.copy_manifest(&table, directory, &moment)?;
        progress(Progress { bytes_done, bytes_total: report.bytes, file: String::new() });
        Ok(report)
    }

    /// Everything appended until now is in its files.
    fn moment(&self) -> Result<Moment, StoreError> {
        let flushing = self.flushing.lock();
        self.flush_held(&flushing)?;
        // No flush replaces the tombstones while that lock is held, and no checkpoint removes this version's commit while
        // there is a hold.
        let mut snapshot = (*self.state.read().snapshot).clone();
        snapshot.removed.clear();
        // A copy is on this machine, wherever it was made from.
        snapshot.home = Home::default();
        let disk = &*self.table.disk;
        let path = self.table.log_directory().join(commit_name(snapshot.version));
        let commit = read_all(disk, &path).at("read", &path)?;
        let tombstones = match snapshot.tombstones {
            0 => None,
            number => {
                let path = self.tombstones_directory.join(commit_name(number));
                Some(read_all(disk, &path).at("read", &path)?)
            }
        };
        Ok(Moment { snapshot, commit, tombstones })
    }

    fn go_on(&self) -> Result<(), StoreError> {
        self.check_open()?;
        match self.stopping.load(Ordering::Relaxed) {
            true => Err(StoreError::closed("it is about to close; the backup is not whole")),
            false => Ok(()),
        }
    }

    /// Whether it could be linked.
    fn copy_file(&self, table: &Table, earlier: Option<&Path>, file: &DataFile) -> Result<bool, StoreError> {
        let disk = &*table.disk;
        let (target, name) = place(&table.root, &file.path);
        disk.make_directory(&target).at("make", &target)?;
        if let Some(earlier) = earlier {
            let from = earlier.join(&file.path);
            // Whatever is wrong with the earlier copy, there is the file itself.
            let is_whole = disk.open(&from).ok().is_some_and(|there| copy(&*there, None, file, &from).is_ok());
            if is_whole && disk.link(&from, &target.join(&name)).is_ok() {
                disk.sync_directory(&target).at("sync", &target)?;
                return Ok(true);
            }
        }
        let from = self.table.root.join(&file.path);
        let staged = target.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
        let here = disk.create(&staged).at("make", &staged)?;
        let copied = copy(&*disk.open(&from).at("open", &from)?, Some(&*here), file, &from);
        match copied {
            // What was read was a damaged copy of what is in a bucket.
            Err(StoreError::Damaged { .. }) if disk.forget_copy(&from) => {
                copy(&*disk.open(&from).at("open", &from)?, Some(&*here), file, &from)?;
            }
            other => other?,
        }
        here.sync().at("sync", &staged)?;
        publish(disk, &staged, &target, &name).at("publish", &target.join(&name))?;
        Ok(false)
    }

    /// Last: what makes a store of the files.
    fn copy_manifest(&self, table: &Table, directory: &Path, moment: &Moment) -> Result<(), StoreError> {
        let disk = &*table.disk;
        let put = |directory: &Path, name: &str, bytes: &[u8]| {
            let staged = stage(disk, directory, bytes).at("write", directory)?;
            publish(disk, &staged, directory, name).at("publish", &directory.join(name))
        };
        let snapshot = &moment.snapshot;
        let tombstones = directory.join("tombstones");
        disk.make_directory(&tombstones).at("make", &tombstones)?;
        if let Some(bytes) = &moment.tombstones {
            put(&tombstones, &commit_name(snapshot.tombstones), bytes)?;
        }
        put(&table.log_directory(), &commit_name(snapshot.version), &moment.commit)?;
        table.checkpoint(snapshot, self.clock.now(), snapshot.version)?;
        let wal = directory.join("wal");
        disk.make_directory(&wal).at("make", &wal)?;
        let begun = Writer::begin(
            disk_of(table),
            &wal,
            snapshot.store_id,
            1,
            1,
            snapshot.covered + 1,
            self.settings.wal_segment_bytes,
        );
        if let Err(error) = begun {
            return Err(match error {
                WriteError::NoRoom => {
                    StoreError::DiskFull { free_bytes: disk.free_bytes(&wal).unwrap_or(0), reserve_bytes: 0 }
                }
                WriteError::Broken { action, path, source } => StoreError::Io { action, path, source },
            });
        }
        for path in [&table.root, directory, directory.parent().unwrap_or(directory)] {
            disk.sync_directory(path).at("sync", path)?;
        }
        Ok(())
    }

    /// What a backup would say of the files as they are now.
    pub(super) fn report(&self) -> BackupReport {
        report_of(&self.state.read().snapshot)
    }
}

fn disk_of(table: &Table) -> Arc<dyn Disk> {
    table.disk.clone()
}

fn report_of(snapshot: &Snapshot) -> BackupReport {
    let files = &snapshot.files;
    let hash = files.iter().fold(0_u128, |sum, file| sum.wrapping_add(file.hash));
    BackupReport {
        store_id: snapshot.store_id.to_string(),
        table_version: snapshot.version,
        sequence: snapshot.covered,
        files: files.len() as u64,
        rows: files.iter().map(|file| file.rows).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        hash: format!("{hash:032x}"),
        linked_bytes: 0,
    }
}

/// Directory and name of a file of the table.
fn place(root: &Path, path: &str) -> (PathBuf, String) {
    match path.rsplit_once('/') {
        Some((directory, name)) => (root.join(directory), name.to_owned()),
        None => (root.to_owned(), path.to_owned()),
    }
}

/// Reads a data file, holds it against what the log says, and writes it where `to` is.
fn copy(from: &dyn DiskFile, to: Option<&dyn DiskFile>, entry: &DataFile, path: &Path) -> Result<(), StoreError> {
    let length = from.length().at("read", path)?;
    if length != entry.bytes {
        let reason = format!("it has {length} bytes, and the log says {}", entry.bytes);
        return Err(StoreError::damaged(path, 0, reason));
    }
    let (mut offset, mut hash) = (0, Xxh3::new());
    while offset < length {
        let piece = from.read_at(offset, (length - offset).min(PIECE_BYTES) as usize).at("read", path)?;
        hash.update(&piece);
        if let Some(to) = to {
            to.write_at(offset, &piece).at("write the copy of", path)?;
        }
        offset += piece.len() as u64;
    }
    match hash.digest128() == entry.checksum {
        true => Ok(()),
        false => Err(StoreError::damaged(path, 0, "its checksum does not match")),
    }
}
