//! Opening: lock, table, tombstones, log. What only the log had is written to files before anything new is taken, so
//! that the log begins anew: nobody knows whether what a failed sync left in memory is on disk.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
};

use orzo_model::{Room, SharedClock};
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};

use super::{Shared, State, changed::Changed, claim::Claim, newest::Newest, rollups::Rollups, scan::Layouts};
use crate::{
    error::{At, StoreError},
    files::{Disk, TEMPORARY_PREFIX},
    head::Head,
    settings::StoreSettings,
    table::Table,
    tombstones::{self, Tombstones},
    wal::{self, Segment, WriteError, Writer},
};

/// One read takes no more of a large machine than this; others read, too.
const SCAN_THREADS_MAX: usize = 8;

pub(super) fn open(
    disk: Arc<dyn Disk>,
    settings: StoreSettings,
    room: Room,
    clock: SharedClock,
) -> Result<(Shared, Writer), StoreError> {
    if let Some(reason) = settings.problem() {
        return Err(StoreError::Invalid { reason });
    }
    let directory = settings.directory.clone();
    let lock = lock(&*disk, &directory)?;
    let (wal_directory, tombstones_directory) = (directory.join("wal"), directory.join("tombstones"));
    for path in [&wal_directory, &tombstones_directory] {
        disk.make_directory(path).at("make", path)?;
        sweep_unfinished(&*disk, path)?;
    }
    sweep_unfinished(&*disk, &directory)?;
    disk.sync_directory(&directory).at("sync", &directory)?;

    let table = Table { disk: disk.clone(), root: directory.join("samples"), snapshots: directory.join("snapshots") };
    let claim = Claim::begin(&*disk, &settings, &wal_directory)?;
    if let Some(claim) = &claim {
        claim.expect_table(&table)?;
    }
    let mut is_moved = false;
    let snapshot = table.open(clock.now(), |snapshot| match &claim {
        Some(claim) => {
            is_moved = snapshot.home.id != claim.home();
            claim.claim(&table, snapshot, clock.now())
        }
        None => Ok(snapshot),
    })?;
    let buried = Tombstones::read(&*disk, &tombstones_directory, snapshot.tombstones)?;
    tombstones::sweep(&*disk, &tombstones_directory, snapshot.tombstones);
    let recovered = wal::recovery::read(&*disk, &wal_directory, snapshot.store_id, snapshot.covered, None)?;
    let log_is_expected = match &claim {
        None => snapshot.version > 0,
        // A directory that goes on with another's table has no log yet.
        Some(claim) => claim.has_log() && !is_moved,
    };
    if recovered.segments.is_empty() && log_is_expected {
        let reason = "the log's segments are missing, and with them what was not in the table yet";
        return Err(StoreError::damaged(&wal_directory, 0, reason));
    }
    if recovered.torn_bytes > 0 {
        tracing::warn!(
            "the log ends in {} bytes that a stop left unfinished; nothing acknowledged was in them",
            recovered.torn_bytes
        );
    }

    let waiting_permits = settings.waiting_bytes_max.min(Semaphore::MAX_PERMITS);
    let (store_id, recovered_points) = (snapshot.store_id, recovered.records.len());
    let segment = |(path, header): &(std::path::PathBuf, wal::record::SegmentHeader)| Segment {
        path: path.clone(),
        first_sequence: header.first_sequence,
        bytes: 0,
    };
    let scan_threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(SCAN_THREADS_MAX));
    let shared = Shared {
        segments: Mutex::new(recovered.segments.iter().map(segment).collect()),
        state: RwLock::new(State {
            active: Head::default(),
            frozen: None,
            last_sequence: snapshot.covered,
            snapshot: Arc::new(snapshot),
            tombstones: Arc::new(buried),
            newest: Newest::default(),
            changed: Changed::default(),
        }),
        closed: RwLock::new(None),
        flushing: Mutex::new(()),
        tidying: Mutex::new(()),
        committing: Mutex::new(()),
        pausing: Mutex::default(),
        pause_ended: Condvar::new(),
        claim,
        backups: 0.into(),
        stopping: false.into(),
        waiting: Arc::new(Semaphore::new(waiting_permits)),
        flushed: Notify::new(),
        flush_due: Arc::new(Notify::new()),
        flushed_days: Mutex::default(),
        requests: Mutex::new(None),
        deleted_at: Mutex::new(clock.monotonic()),
        quarantined: Mutex::default(),
        layouts: Mutex::new(Layouts::default()),
        rollups: Rollups::open(&table.disk, &directory),
        pages: Arc::default(),
        scan_threads,
        scan_threads_left: AtomicUsize::new(scan_threads - 1),
        checkpointed: 0.into(),
        replaced: 0.into(),
        failures: 0.into(),
        lock: Mutex::new(Some(lock)),
        settings,
        room,
        clock,
        table,
        wal_directory,
        tombstones_directory,
    };
    shared.checkpointed.store(shared.table.checkpoint_version()?, std::sync::atomic::Ordering::Relaxed);
    #[cfg(test)]
    let again: Vec<_> = recovered.records.iter().map(|record| record.entry.clone()).collect();
    shared.put(recovered.records);
    shared.flush()?;
    #[cfg(test)]
    if shared.table.disk.planted() == Some(crate::files::Planted::ReplayedTwice) {
        let next = shared.state.read().last_sequence + 1;
        let record = |(entry, sequence)| wal::record::Record { sequence, epoch: 0, synced: 0, entry };
        shared.put(again.into_iter().zip(next..).map(record).collect());
        shared.flush()?;
    }

    let number = recovered.segments.last().map_or(1, |(_, header)| header.number + 1);
    let next = shared.state.read().last_sequence + 1;
    let begun = Writer::begin(
        disk,
        &shared.wal_directory,
        store_id,
        recovered.last_epoch + 1,
        number,
        next,
        shared.settings.wal_segment_bytes,
    );
    let (writer, segment) = begun.map_err(|error| match error {
        WriteError::NoRoom => StoreError::DiskFull {
            free_bytes: shared.table.disk.free_bytes(&shared.wal_directory).unwrap_or(0),
            reserve_bytes: shared.settings.disk_reserve_bytes,
        },
        WriteError::Broken { action, path, source } => StoreError::Io { action, path, source },
    })?;
    if let Some(claim) = &shared.claim {
        claim.log_begun(store_id)?;
    }
    shared.segments.lock().push(segment);
    shared.remove_segments(next - 1);
    tracing::info!(
        "store open in {}: {recovered_points} records recovered from the log",
        shared.settings.directory.display()
    );
    Ok((shared, writer))
}

fn lock(disk: &dyn Disk, directory: &Path) -> Result<crate::files::LockGuard, StoreError> {
    disk.make_directory(directory).at("make", directory)?;
    // Parents may be as new as the directory, or may have been when an earlier life of this process ended.
    for above in directory.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match disk.sync_directory(above) {
            // What we may not read we did not make.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => break,
            other => other.at("sync", above)?,
        }
    }
    let path = directory.join("LOCK");
    let lock = disk.lock(&path).at("lock", &path)?;
    lock.ok_or_else(|| StoreError::Locked { directory: directory.to_owned() })
}

fn sweep_unfinished(disk: &dyn Disk, directory: &Path) -> Result<(), StoreError> {
    for entry in disk.list(directory).at("list", directory)? {
        if entry.name.starts_with(TEMPORARY_PREFIX) {
            let path = directory.join(&entry.name);
            disk.remove(&path).at("remove", &path)?;
        }
    }
    Ok(())
}
