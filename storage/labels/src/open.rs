//! Opening: lock, log, books. A log of many pieces, or with much that is deleted, is written anew, in one file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use orzo_model::{SeriesId, SharedClock, Timestamp};
use orzo_store::files::{Disk, LockGuard};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    LabelError, LabelSettings, Project, Shared, WAITING_BYTES_MAX,
    book::{Book, PairId, SECRET_BYTES},
    error::At,
    log::{
        BaseWriter, Position, WriteError, Writer,
        content::{SeriesBody, TakeSeries, encode_gone, read_gone, read_project, read_series, unpack},
        record::{Kind, SegmentHeader},
        recovery::{self, Recovered},
    },
};

/// So many segments make a start slow: each was allocated whole.
const SEGMENTS_MAX: usize = 8;
/// Series in one record of a rewritten log.
const SERIES_AT_ONCE: usize = 1024;

/// What the log says.
struct Content {
    secret: [u8; SECRET_BYTES],
    books: HashMap<Arc<str>, Book>,
    buried: HashMap<Arc<str>, HashSet<SeriesId>>,
    deleted: BTreeMap<SeriesId, Timestamp>,
    set: Vec<u8>,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    settings: LabelSettings,
    clock: SharedClock,
) -> Result<(Shared, Writer), LabelError> {
    let directory = settings.directory.clone();
    let lock = lock(&*disk, &directory)?;
    let mut content = Content {
        secret: new_secret(),
        books: HashMap::new(),
        buried: HashMap::new(),
        deleted: BTreeMap::new(),
        set: Vec::new(),
    };
    let mut recovered = recovery::read(&*disk, &directory, |kind, body| content.apply(kind, body))?;
    if recovered.torn_bytes > 0 {
        let bytes = recovered.torn_bytes;
        tracing::warn!(
            "the label log ends in {bytes} bytes that a stop left unfinished; nothing acknowledged was in them"
        );
    }
    content.bury();
    let dead: usize = content.books.values().map(Book::dead).sum();
    let live: usize = content.books.values().map(Book::live).sum();
    let log_id = recovered.log_id.unwrap_or_else(Uuid::new_v4);
    let mut position = Position {
        log_id,
        epoch: recovered.last_epoch + 1,
        number: recovered.last_number + 1,
        next_sequence: recovered.next_sequence - recovered.unproven.len() as u64,
        unproven: std::mem::take(&mut recovered.unproven),
    };
    if recovered.segments >= SEGMENTS_MAX || dead > live {
        // A base is synced whole, with what was unproven in it.
        position.next_sequence = recovered.next_sequence;
        position.unproven.clear();
        content.rewrite(&disk, &directory, &position, &recovered)?;
        position.number += 1;
    }
    let writer = Writer::begin(disk.clone(), &directory, &position).map_err(|error| match error {
        WriteError::NoRoom => LabelError::DiskFull,
        WriteError::Broken { action, path, source } => LabelError::Io { action, path, source },
    })?;
    tracing::info!("label index open in {}: {live} series", directory.display());
    let projects = content.books.into_iter().map(|(name, book)| (name.clone(), Arc::new(Project::new(name, book))));
    let shared = Shared {
        projects: RwLock::new(projects.collect()),
        secret: content.secret,
        live: AtomicU64::new(live as u64),
        deleted: Mutex::new(content.deleted),
        closed: RwLock::new(None),
        waiting: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
        lock: Mutex::new(Some(lock)),
        settings,
        clock,
        disk,
    };
    Ok((shared, writer))
}

/// Puts what the log says into a book.
struct Restore<'a> {
    book: &'a mut Book,
    set: &'a mut Vec<u8>,
}

impl TakeSeries for Restore<'_> {
    fn pair(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.book.restore_pair(name, value)
    }

    fn series(&mut self, series: SeriesId, members: &[PairId]) -> bool {
        self.book.restore_series(series, members, self.set)
    }
}

impl Content {
    fn apply(&mut self, kind: Kind, body: &[u8]) -> Result<(), String> {
        let unreadable = || "a record's content is not as it must be".to_owned();
        match kind {
            Kind::Packed => self.apply(Kind::Series, &unpack(body).ok_or_else(unreadable)?),
            Kind::Series => {
                let mut body = body;
                let project = read_project(&mut body).ok_or_else(unreadable)?;
                if !self.books.contains_key(project) {
                    self.books.insert(project.into(), Book::new(self.secret));
                }
                let book = self.books.get_mut(project).expect("it was put there if it was not there");
                read_series(body, &mut Restore { book, set: &mut self.set }).ok_or_else(unreadable)
            }
            Kind::Deleted => {
                let (project, at, series) = read_gone(body).ok_or_else(unreadable)?;
                self.deleted.extend(series.iter().map(|series| (*series, at)));
                self.buried.entry(project.into()).or_default().extend(series);
                Ok(())
            }
            Kind::Purged => {
                let (_, _, series) = read_gone(body).ok_or_else(unreadable)?;
                for series in &series {
                    self.deleted.remove(series);
                }
                Ok(())
            }
            Kind::End => Err("an end in the middle".to_owned()),
        }
    }

    fn bury(&mut self) {
        for (project, series) in self.buried.drain() {
            if let Some(book) = self.books.get_mut(&project) {
                let places = book.places_of(&series);
                book.bury(&places);
            }
        }
    }

    /// Writes everything that is live into one file, makes that the log, and gives memory of what is dead back.
    fn rewrite(
        &mut self,
        disk: &Arc<dyn Disk>,
        directory: &Path,
        position: &Position,
        recovered: &Recovered,
    ) -> Result<(), LabelError> {
        let header = SegmentHeader {
            log_id: position.log_id,
            number: position.number,
            epoch: position.epoch,
            first_sequence: position.next_sequence,
            is_base: true,
        };
        let mut base = BaseWriter::begin(disk.clone(), directory, header).at("begin a base in", directory)?;
        for (name, book) in &mut self.books {
            let mut fresh = Book::new(self.secret);
            let (mut body, mut count, mut members) = (SeriesBody::new(), 0, Vec::new());
            let mut failure = None;
            book.each_live(|series, set| {
                if failure.is_some() {
                    return;
                }
                let added = fresh.add(set, series, &mut members, |name, value| body.pair(name, value));
                fresh.show(added.into_iter());
                body.series(series, &members);
                count += 1;
                if count % SERIES_AT_ONCE == 0 {
                    failure = base.push(Kind::Series, &body.encode(name)).err();
                    body = SeriesBody::new();
                }
            });
            if failure.is_none() && !body.is_empty() {
                failure = base.push(Kind::Series, &body.encode(name)).err();
            }
            if let Some(source) = failure {
                return Err(source).at("write a base in", directory);
            }
            *book = fresh;
        }
        self.books.retain(|_, book| book.live() > 0);
        for (series, at) in &self.deleted {
            base.push(Kind::Deleted, &encode_gone("", *at, &[*series])).at("write a base in", directory)?;
        }
        base.publish().at("publish a base in", directory)?;
        for path in &recovered.paths {
            disk.remove(path).at("remove", path)?;
        }
        Ok(())
    }
}

/// Random: nobody outside can find two label sets with one fingerprint.
fn new_secret() -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    for piece in secret.chunks_exact_mut(16) {
        piece.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    secret
}

pub(crate) fn lock(disk: &dyn Disk, directory: &Path) -> Result<LockGuard, LabelError> {
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
    lock.ok_or_else(|| LabelError::Locked { directory: directory.to_owned() })
}
