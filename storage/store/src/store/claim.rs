//! Whose a table in a bucket is. Anybody with the address could write to it, and the lock of a directory does not reach so
//! far; so each directory has a number, and the table's log says which one writes.
//!
//! `PLACE (number, address) → newest version → may this directory go on? → a version that says so → everything else`
//!
//! That version comes before anything is removed or written: from then on a server that had the table is refused its next
//! commit, and a commit that was on its way when a process died cannot become a version any more. A directory whose log
//! has what the table has not is never mistaken for a new one. It does not know how points are kept.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use orzo_model::{SharedClock, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    delta::LOG,
    error::{At, StoreError},
    files::{
        Disk, Elsewhere, read_all,
        real::RealDisk,
        s3::BucketSettings,
        stage,
        tiered::{TierSettings, TieredDisk},
    },
    settings::StoreSettings,
    table::{
        CommitError, Table,
        action::{Action, Operation, Txn},
        snapshot::{HOME_APP, HOME_ID_MAX, Home, Snapshot},
    },
    wal,
};

/// The file that tells a directory whose table is elsewhere.
const PLACE: &str = "PLACE";
/// A file that no version names is somebody's unfinished work for so long; then it is removed at an opening.
const SWEEP_AFTER: Duration = Duration::from_secs(3600);
/// Commits that may come in between while a directory claims a table: of its own earlier life, on their way.
const CLAIM_TRIES: usize = 3;

/// What that file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// For people.
    url: String,
    /// The directory's own number.
    home: u64,
    /// The table's id, once this directory has a log of its points.
    store: Option<Uuid>,
    /// All records of the log up to this one are in the table; another directory may have written to it since.
    covered: u64,
}

/// What a directory does at opening, before its table is read.
pub(super) struct Claim {
    elsewhere: Elsewhere,
    path: PathBuf,
    place: Mutex<Place>,
    adopts: bool,
    wal_directory: PathBuf,
}

/// The disk of a store whose table is in a bucket.
pub(super) fn disk_of(
    bucket: &BucketSettings,
    settings: &StoreSettings,
    clock: SharedClock,
) -> Result<Arc<dyn Disk>, StoreError> {
    let invalid = |error: std::io::Error| StoreError::Invalid { reason: format!("{}: {error}", bucket.url) };
    let tier = TierSettings {
        cache_bytes_max: bucket.cache_bytes_max,
        // Copies are gone before appends would be refused.
        free_bytes_min: settings.disk_reserve_bytes.saturating_mul(2),
        sweep_after: SWEEP_AFTER,
    };
    let opened = bucket.open().map_err(invalid)?;
    let disk = TieredDisk::open(Arc::new(RealDisk), opened, &bucket.url, &settings.directory, tier, clock);
    Ok(Arc::new(disk.map_err(invalid)?))
}

/// The action that says who writes.
pub(super) fn action(home: Home, now: Timestamp) -> Action {
    Action::Txn(Txn { app_id: HOME_APP.to_owned(), version: home.version(), last_updated: now.micros() / 1000 })
}

impl Claim {
    /// Reads what this directory is, or makes it one whose table is elsewhere. `None` where the table is on this machine.
    pub(super) fn begin(
        disk: &dyn Disk,
        settings: &StoreSettings,
        wal_directory: &Path,
    ) -> Result<Option<Self>, StoreError> {
        let path = settings.directory.join(PLACE);
        let Some(elsewhere) = disk.elsewhere() else {
            return match read(disk, &path)? {
                Some(place) => Err(StoreError::Invalid {
                    reason: format!(
                        "the table of {} is in {}: set the store's url to open it; to keep it here instead, make a \
                         backup and restore that",
                        settings.directory.display(),
                        place.url
                    ),
                }),
                None => Ok(None),
            };
        };
        let local = &*elsewhere.local;
        let place = match read(local, &path)? {
            Some(place) => place,
            None => {
                let log = settings.directory.join("samples").join(LOG);
                if local.list(&log).is_ok_and(|entries| entries.iter().any(|entry| entry.name.ends_with(".json"))) {
                    return Err(StoreError::Invalid { reason: began_here(&settings.directory, &elsewhere.url) });
                }
                let (number, _) = Uuid::new_v4().as_u64_pair();
                // Above zero, which is nobody's.
                Place { url: elsewhere.url.clone(), home: (number % HOME_ID_MAX).max(1), store: None, covered: 0 }
            }
        };
        let place = Place { url: elsewhere.url.clone(), ..place };
        write(local, &path, &place)?;
        let refuses = disk.refuses_taken_names().at("write to", Path::new(&elsewhere.url))?;
        if !refuses {
            let reason = format!(
                "{} lets a put with `If-None-Match: *` replace an object: two servers could write over each other's \
                 versions of the table; use an object store that refuses it",
                elsewhere.url
            );
            return Err(StoreError::Invalid { reason });
        }
        let (adopts, wal_directory) = (settings.adopts, wal_directory.to_owned());
        Ok(Some(Self { elsewhere, path, place: Mutex::new(place), adopts, wal_directory }))
    }

    /// The directory's number.
    pub(super) fn home(&self) -> u64 {
        self.place.lock().home
    }

    /// Whether this directory had a log.
    pub(super) fn has_log(&self) -> bool {
        self.place.lock().store.is_some()
    }

    /// The log has begun: from now on it is missed if it is not there.
    pub(super) fn log_begun(&self, store_id: Uuid) -> Result<(), StoreError> {
        let mut place = self.place.lock();
        place.store = Some(store_id);
        write(&*self.elsewhere.local, &self.path, &place)
    }

    /// Everything up to this record is in the table: the log has nothing that another directory would miss.
    pub(super) fn covered(&self, covered: u64) -> Result<(), StoreError> {
        let mut place = self.place.lock();
        place.covered = covered;
        write(&*self.elsewhere.local, &self.path, &place)
    }

    /// Refuses to make a table anew where this directory had one.
    pub(super) fn expect_table(&self, table: &Table) -> Result<(), StoreError> {
        let Some(id) = self.place.lock().store else { return Ok(()) };
        let log = table.log_directory();
        match table.disk.list(&log).at("list", &log)?.is_empty() {
            false => Ok(()),
            true => Err(StoreError::Invalid {
                reason: format!("there is no table at {}, but this directory's is {id}", self.elsewhere.url),
            }),
        }
    }

    /// Makes the version from which on this directory is the one that writes.
    pub(super) fn claim(&self, table: &Table, mut snapshot: Snapshot, now: Timestamp) -> Result<Snapshot, StoreError> {
        let action = [action(Home { id: self.home(), is_left: false }, now)];
        for _ in 0..CLAIM_TRIES {
            self.check(&snapshot)?;
            #[cfg(test)]
            if table.disk.planted() == Some(crate::files::Planted::NotClaimed) {
                return Ok(snapshot);
            }
            match table.commit(&snapshot, &action, Operation::Claim, now, &mut |_| false) {
                Ok(next) => return Ok(next),
                Err(CommitError::Taken(_)) => {
                    snapshot = table.replay()?.ok_or_else(|| self.refused("its log is gone"))?;
                }
                Err(error) => return Err(error.into_error()),
            }
        }
        Err(self.refused("another server is writing to it"))
    }

    /// Whether this directory may go on with this version.
    fn check(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let place = self.place.lock().clone();
        if let Some(id) = place.store.filter(|id| *id != snapshot.store_id) {
            return Err(self.refused(&format!("it is the table {}, and this directory's is {id}", snapshot.store_id)));
        }
        if snapshot.home.id == 0 || snapshot.home.id == place.home {
            return Ok(());
        }
        if !snapshot.home.is_left && !self.adopts {
            return Err(self.refused(
                "another directory writes to it, or did when its machine stopped, and may have points in its log that \
                 are not in the table; stop that server, which leaves the table to others, or, if that machine is gone \
                 for good, take the table over with `orzo store adopt`",
            ));
        }
        let last = wal::recovery::last_sequence(&*self.elsewhere.local, &self.wal_directory, snapshot.store_id)?;
        if last > place.covered {
            let wal = self.wal_directory.display();
            return Err(self.refused(&format!(
                "another directory has written to it since, and {wal} has points from before that are not in it; move that directory \
                 away to go on without what only it has"
            )));
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> StoreError {
        StoreError::Invalid { reason: format!("cannot open the table in {}: {why}", self.elsewhere.url) }
    }
}

/// What to do with a store that is on this machine when it is given an address.
fn began_here(directory: &Path, url: &str) -> String {
    format!(
        "the table of {directory} is on this machine, and the store's url is {url}: copy {directory}/samples, snapshots and \
         tombstones there with any tool for S3 while no server runs, then remove samples/_delta_log, snapshots and \
         tombstones here and start again",
        directory = directory.display()
    )
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Place>, StoreError> {
    let bytes = match read_all(disk, path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.at("read", path)?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::damaged(path, 0, error))
}

/// Durably, in place of what was there.
fn write(disk: &dyn Disk, path: &Path, place: &Place) -> Result<(), StoreError> {
    if read(disk, path)?.as_ref() == Some(place) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(path);
    let text = serde_json::to_vec(place).expect("plain data");
    let staged = stage(disk, directory, &text).at("write", directory)?;
    disk.replace(&staged, path).at("publish", path)?;
    disk.sync_directory(directory).at("sync", directory)
}
