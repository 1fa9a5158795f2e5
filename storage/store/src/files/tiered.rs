//! A disk whose tables are in a bucket: the log, the lock and everything unfinished stay on this machine, what is published
//! has its home in the bucket.
//!
//! Comes in: the store's calls. Goes out: for names below the tables' directories, requests to the bucket; for all others, the
//! same call to this machine's disk. A name is given by a put that refuses a taken one, as a rename refuses it. Data files,
//! which never change and whose names are used once, are kept here, too, as long as there is room ([`cache`]); everything
//! else is read from the bucket each time, so that what another machine did is seen. It does not know what is in the files.

mod cache;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use orzo_model::SharedClock;
use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use self::cache::{Cache, Open};
use super::{Away, Disk, DiskFile, Elsewhere, Entry, LockGuard, TEMPORARY_PREFIX, bucket::Bucket};

/// Directories of a store whose files have their home in the bucket.
pub const TABLES: &[&str] = &["samples", "snapshots", "tombstones"];
/// Names that begin so are data files.
const DATA: &str = "samples/day=";
/// Files that are fetched at once; more would only share the same line, and the room on disk.
const FETCHES_MAX: usize = 8;

/// What a tiered disk is told.
#[derive(Clone, Copy, Debug)]
pub struct TierSettings {
    /// Bytes of data files that are kept on this machine.
    pub cache_bytes_max: u64,
    /// Copies go while less than this is free here: the log needs the room.
    pub free_bytes_min: u64,
    /// What no version names is removed from the bucket when it is this old: a younger file may be one that another
    /// machine is about to name.
    pub sweep_after: Duration,
}

/// The disk. Clones are one.
#[derive(Clone)]
pub struct TieredDisk {
    shared: Arc<Shared>,
    /// Whether copies are read and made.
    keeps: bool,
}

struct Shared {
    local: Arc<dyn Disk>,
    bucket: Bucket,
    url: String,
    /// The store's, above the tables' directories.
    directory: PathBuf,
    settings: TierSettings,
    clock: SharedClock,
    cache: Mutex<Cache>,
    /// Files that are on their way here.
    fetching: Mutex<HashSet<PathBuf>>,
    fetched: Condvar,
}

/// Where a path has its home.
enum Home {
    /// On this machine.
    Here,
    /// In the bucket, under this name.
    Bucket(String),
    /// In the bucket, under this name; it never changes.
    Data(String),
}

/// A copy that is open.
struct Copy {
    file: Arc<dyn DiskFile>,
    _open: Open,
}

/// An object in memory.
struct Held(Bytes);

/// Ends a fetch, however it ends.
struct Turn<'a> {
    shared: &'a Shared,
    path: &'a Path,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.fetching.lock().remove(self.path);
        self.shared.fetched.notify_all();
    }
}

impl TieredDisk {
    /// The tables of the store in `directory` are in `bucket`, which people know as `url`. Copies that are here are found.
    pub fn open(
        local: Arc<dyn Disk>,
        bucket: Bucket,
        url: &str,
        directory: &Path,
        settings: TierSettings,
        clock: SharedClock,
    ) -> io::Result<Self> {
        let mut cache = Cache::new(settings.cache_bytes_max);
        let samples = directory.join("samples");
        let entries = match local.list_below(&samples) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        // Names begin with the day and the generation: the newest is the last to go.
        for entry in entries.iter().filter(|entry| entry.name.starts_with("day=") && !is_temporary(&entry.name)) {
            cache.add(&samples.join(&entry.name), entry.length);
        }
        let shared = Shared {
            local,
            bucket,
            url: url.to_owned(),
            directory: directory.to_owned(),
            settings,
            clock,
            cache: Mutex::new(cache),
            fetching: Mutex::default(),
            fetched: Condvar::new(),
        };
        Ok(Self { shared: Arc::new(shared), keeps: true })
    }

    /// Bytes of copies on this machine.
    pub fn cached_bytes(&self) -> u64 {
        self.shared.cache.lock().bytes()
    }
}

impl Shared {
    fn home(&self, path: &Path) -> Home {
        let below = path.strip_prefix(&self.directory).ok().and_then(Path::to_str);
        let Some(name) = below.filter(|name| TABLES.contains(&name.split('/').next().unwrap_or_default())) else {
            return Home::Here;
        };
        match name {
            name if is_temporary(name) => Home::Here,
            name if name.starts_with(DATA) && name.matches('/').count() > 1 => Home::Data(name.to_owned()),
            name => Home::Bucket(name.to_owned()),
        }
    }

    /// Gives a copy up.
    fn forget(&self, path: &Path) -> bool {
        let was_here = self.cache.lock().forget(path);
        if was_here {
            let _ = self.local.remove(path);
        }
        was_here
    }

    /// Gives copies up until so many more bytes fit, within the limit and on the disk.
    fn make_room(&self, more: u64) {
        loop {
            let outdated = self.cache.lock().outdated(more);
            let outdated = outdated.or_else(|| {
                let free_bytes = self.local.free_bytes(&self.directory).ok()?;
                let is_short = free_bytes < self.settings.free_bytes_min.saturating_add(more);
                is_short.then(|| self.cache.lock().oldest())?
            });
            match outdated {
                Some(path) => self.forget(&path),
                None => return,
            };
        }
    }

    /// A copy that is here.
    fn copy(&self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let open = self.cache.lock().used(path)?;
        match self.local.open(path) {
            Ok(file) => Some(Arc::new(Copy { file, _open: open })),
            // Somebody tidied up.
            Err(_) => {
                self.cache.lock().forget(path);
                None
            }
        }
    }

    /// A data file: the copy that is here, or one that is fetched now. Of several who ask for one file one fetches it.
    fn data(&self, path: &Path, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            if let Some(copy) = self.copy(path) {
                return Ok(copy);
            }
            let mut fetching = self.fetching.lock();
            if !fetching.contains(path) && fetching.len() < FETCHES_MAX {
                fetching.insert(path.to_owned());
                break;
            }
            self.fetched.wait(&mut fetching);
        }
        let _turn = Turn { shared: self, path };
        self.fetch(path, name, true)
    }

    /// Fetches a file to this machine; with `keeps` it stays here under its name.
    fn fetch(&self, path: &Path, name: &str, keeps: bool) -> io::Result<Arc<dyn DiskFile>> {
        let length = self.bucket.length(name)?;
        self.make_room(length);
        let directory = path.parent().unwrap_or(&self.directory);
        let staged = directory.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
        let fetched = self.local.make_directory(directory).and_then(|()| {
            let file = self.local.create(&staged)?;
            self.bucket.get_pieces(name, length, |offset, bytes| file.write_at(offset, bytes))?;
            if !keeps {
                // It is read as long as it is open, and then gone.
                self.local.remove(&staged)?;
                return Ok(file);
            }
            // A copy under its name is whole, also after the power went.
            file.sync()?;
            self.local.replace(&staged, path)?;
            let open = self.cache.lock().add(path, length);
            Ok(Arc::new(Copy { file: self.local.open(path)?, _open: open }) as Arc<dyn DiskFile>)
        });
        fetched.map_err(|error| {
            let _ = self.local.remove(&staged);
            match error.kind() {
                io::ErrorKind::NotFound => error,
                _ if Away::is(&error) => error,
                // Nothing is wrong with the file itself, which has its home elsewhere.
                kind => Away::error(kind, format!("no copy of {name} can be made here: {error}")),
            }
        })
    }

    /// Gives a staged file its name in the bucket.
    fn publish(&self, staged: &Path, path: &Path, home: &Home) -> io::Result<()> {
        let file = self.local.open(staged)?;
        match home {
            Home::Here => return self.local.rename(staged, path),
            Home::Bucket(name) => self.bucket.put_new(name, whole(&*file)?)?,
            Home::Data(name) => {
                self.bucket.put_file(name, &*file)?;
                // From here on it is published; what becomes of the copy does not matter.
                let length = file.length()?;
                self.make_room(length);
                if self.local.rename(staged, path).is_ok() {
                    self.cache.lock().add(path, length);
                    return Ok(());
                }
            }
        }
        let _ = self.local.remove(staged);
        Ok(())
    }
}

fn is_temporary(name: &str) -> bool {
    name.rsplit('/').next().unwrap_or_default().starts_with(TEMPORARY_PREFIX)
}

fn whole(file: &dyn DiskFile) -> io::Result<Bytes> {
    let length = usize::try_from(file.length()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    file.read_at(0, length)
}

/// What is not there is empty.
fn or_nothing(listed: io::Result<Vec<Entry>>) -> io::Result<Vec<Entry>> {
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

impl Disk for TieredDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        // Buckets have none; unfinished files and copies need them here.
        self.shared.local.make_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let Home::Bucket(name) = self.shared.home(directory) else { return self.shared.local.list(directory) };
        let mut entries = self.shared.bucket.list(&name)?;
        let here = or_nothing(self.shared.local.list(directory))?;
        entries.extend(here.into_iter().filter(|entry| is_temporary(&entry.name)));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn list_below(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let Home::Bucket(name) = self.shared.home(directory) else { return self.shared.local.list_below(directory) };
        let mut entries = self.shared.bucket.list_below(&name)?;
        // Copies of what is not there any more, or not with that length, are of no use.
        let lengths: std::collections::HashMap<PathBuf, u64> =
            entries.iter().map(|entry| (directory.join(&entry.name), entry.length)).collect();
        let copies = self.shared.cache.lock().below(directory);
        for path in copies {
            if lengths.get(&path).copied() != self.shared.cache.lock().length(&path) {
                self.shared.forget(&path);
            }
        }
        let here = or_nothing(self.shared.local.list_below(directory))?;
        entries.extend(here.into_iter().filter(|entry| is_temporary(&entry.name)));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match self.shared.home(path) {
            Home::Here => self.shared.local.create(path),
            Home::Bucket(_) | Home::Data(_) => {
                let reason = "a file in a bucket is written under another name first";
                Err(io::Error::new(io::ErrorKind::Unsupported, reason))
            }
        }
    }

    fn create_log(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match self.shared.home(path) {
            Home::Here => self.shared.local.create_log(path),
            Home::Bucket(_) | Home::Data(_) => self.create(path),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match self.shared.home(path) {
            Home::Here => self.shared.local.open(path),
            Home::Bucket(name) => Ok(Arc::new(Held(self.shared.bucket.get(&name)?))),
            Home::Data(name) if self.keeps => self.shared.data(path, &name),
            Home::Data(name) => self.shared.fetch(path, &name, false),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let published = self.shared.publish(from, to, &self.shared.home(to));
        #[cfg(test)]
        if published.as_ref().is_err_and(Away::is) && self.planted() == Some(super::Planted::UnansweredIsDone) {
            return Ok(());
        }
        published
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.shared.home(to) {
            Home::Here => self.shared.local.replace(from, to),
            Home::Bucket(name) | Home::Data(name) => {
                let file = self.shared.local.open(from)?;
                self.shared.bucket.put(&name, whole(&*file)?)?;
                let _ = self.shared.local.remove(from);
                Ok(())
            }
        }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match (self.shared.home(from), self.shared.home(to)) {
            (Home::Here, Home::Here) => self.shared.local.link(from, to),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.shared.home(path) {
            Home::Here => self.shared.local.remove(path),
            Home::Bucket(name) => self.shared.bucket.remove(&name),
            Home::Data(name) => {
                self.shared.bucket.remove(&name)?;
                self.shared.forget(path);
                Ok(())
            }
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match self.shared.home(path) {
            Home::Here => self.shared.local.sync_directory(path),
            // A put that was answered is durable. Names of copies need not be.
            Home::Bucket(_) | Home::Data(_) => Ok(()),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.shared.local.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.shared.local.free_bytes(path)
    }

    fn sweep(&self, path: &Path) -> io::Result<()> {
        let (Home::Bucket(name) | Home::Data(name)) = self.shared.home(path) else { return self.remove(path) };
        let sweep_after = self.shared.settings.sweep_after;
        if !sweep_after.is_zero() {
            let age_s = self.shared.clock.now().micros() / 1_000_000 - self.shared.bucket.put_at(&name)?;
            if age_s < sweep_after.as_secs() as i64 {
                return Ok(());
            }
        }
        self.remove(path)
    }

    fn forget_copy(&self, path: &Path) -> bool {
        self.keeps && matches!(self.shared.home(path), Home::Data(_)) && self.shared.forget(path)
    }

    fn refuses_taken_names(&self) -> io::Result<bool> {
        let name = format!("probe-{}", Uuid::new_v4());
        self.shared.bucket.put_new(&name, Bytes::from_static(b"first"))?;
        let second = self.shared.bucket.put_new(&name, Bytes::from_static(b"second"));
        let _ = self.shared.bucket.remove(&name);
        match second {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        Some(Elsewhere {
            url: self.shared.url.clone(),
            local: self.shared.local.clone(),
            original: Arc::new(Self { keeps: false, ..self.clone() }),
        })
    }

    #[cfg(test)]
    fn planted(&self) -> Option<super::Planted> {
        self.shared.local.planted()
    }
}

impl DiskFile for Copy {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.file.read_at(offset, length)
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

impl DiskFile for Held {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let end = (offset as usize).checked_add(length).filter(|end| *end <= self.0.len());
        end.map(|end| self.0.slice(offset as usize..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
