//! The writer thread: groups what waits, puts new series into their books unseen, makes them durable, shows them, answers.
//!
//! `request → room in the log → book (not visible) → record → one fdatasync → visible → answer`

use std::{
    collections::HashMap,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
};

use orzo_model::{SeriesId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    Created, LabelError, LabelSets, Project, Refusal, Shared,
    backup::Mark,
    book::{Added, Fingerprint, PairId},
    log::{
        WriteError, Writer,
        content::{SeriesBody, encode_gone, gone_body_bytes_max, series_body_bytes_max},
        record::Kind,
        room_for,
    },
    set::name_of,
};

/// A group takes no more once its sets are this large: a sync of more takes longer than the next group should wait.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// What is on its way to the log.
pub(crate) struct Request {
    pub(crate) work: Work,
    pub(crate) bytes: usize,
    pub(crate) _room: OwnedSemaphorePermit,
}

type Reply<T> = oneshot::Sender<Result<T, LabelError>>;

pub(crate) enum Work {
    /// Series of these sets, made where they are not there, with these numbers.
    Create { project: Arc<Project>, sets: LabelSets, numbers: Range<u64>, reply: Reply<Created> },
    /// These series are no more.
    Delete { project: Arc<Project>, series: Vec<SeriesId>, reply: Reply<u64> },
    /// The points of these deleted series are gone.
    Purged { series: Vec<SeriesId>, reply: Reply<()> },
    /// How far the log is durable.
    Mark { reply: Reply<Mark> },
}

impl Work {
    fn body_bytes_max(&self) -> usize {
        match self {
            Self::Create { project, sets, .. } => series_body_bytes_max(&project.name, sets),
            Self::Delete { project, series, .. } => gone_body_bytes_max(&project.name, series.len()),
            Self::Purged { series, .. } => gone_body_bytes_max("", series.len()),
            Self::Mark { .. } => 0,
        }
    }

    fn refuse(self, error: &LabelError) {
        // Whoever does not wait any more does not need to know.
        match self {
            Self::Create { reply, .. } => drop(reply.send(Err(error.again()))),
            Self::Delete { reply, .. } => drop(reply.send(Err(error.again()))),
            Self::Purged { reply, .. } => drop(reply.send(Err(error.again()))),
            Self::Mark { reply } => drop(reply.send(Err(error.again()))),
        }
    }
}

/// What is in the log's buffer and becomes true when it is durable.
enum Planned {
    Create { project: Arc<Project>, added: Vec<Added>, created: Created, reply: Reply<Created> },
    Delete { project: Arc<Project>, series: Vec<SeriesId>, at: Timestamp, reply: Reply<u64> },
    Purged { series: Vec<SeriesId>, reply: Reply<()> },
    Mark { reply: Reply<Mark> },
}

/// Ends with the last sender.
pub(crate) fn write_groups(shared: &Shared, mut writer: Writer, requests: &Receiver<Request>) {
    while let Ok(first) = requests.recv() {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES_MAX
            && let Ok(next) = requests.try_recv()
        {
            bytes += next.bytes;
            group.push(next);
        }
        write_group(shared, &mut writer, group);
    }
}

fn write_group(shared: &Shared, writer: &mut Writer, group: Vec<Request>) {
    let (work, rooms): (Vec<Work>, Vec<_>) = group.into_iter().map(|request| (request.work, request._room)).unzip();
    let room = room_for(work.iter().map(Work::body_bytes_max));
    let ready = shared.check_open().and_then(|()| check_free_bytes(shared, &shared.settings.directory));
    let ready = ready.and_then(|()| writer.make_room(room).map_err(|error| failed(shared, error)));
    if let Err(error) = ready {
        return work.into_iter().for_each(|work| work.refuse(&error));
    }
    let mut plan = Plan { shared, writer, pending: HashMap::new(), members: Vec::new() };
    let planned: Vec<Planned> = work.into_iter().map(|work| plan.plan(work)).collect();
    let outcome = writer.commit().map(|()| writer.mark()).map_err(|error| failed(shared, error));
    for planned in planned {
        planned.settle(shared, &outcome);
    }
    drop(rooms);
}

/// What a failed write means for who waits; after most of them the index takes nothing more.
fn failed(shared: &Shared, error: WriteError) -> LabelError {
    match error {
        WriteError::NoRoom => LabelError::DiskFull,
        WriteError::Broken { action, path, source } => {
            let reason = format!("cannot {action} {}: {source}", path.display());
            tracing::error!("the label index closes itself: {reason}");
            shared.close(&reason);
            LabelError::closed(reason)
        }
    }
}

fn check_free_bytes(shared: &Shared, directory: &Path) -> Result<(), LabelError> {
    match shared.disk.free_bytes(directory) {
        Ok(free_bytes) if free_bytes < shared.settings.disk_reserve_bytes => Err(LabelError::DiskFull),
        // A disk that cannot say how much is free may still take the write, or refuse it for good.
        _ => Ok(()),
    }
}

/// Turns a group's work into records and changes of books that nobody sees yet.
struct Plan<'a> {
    shared: &'a Shared,
    writer: &'a mut Writer,
    /// Series that this group makes, by project and fingerprint.
    pending: HashMap<(Arc<str>, Fingerprint), SeriesId>,
    members: Vec<PairId>,
}

impl Plan<'_> {
    fn plan(&mut self, work: Work) -> Planned {
        match work {
            Work::Create { project, sets, numbers, reply } => {
                let (added, created) = self.create(&project, &sets, numbers);
                Planned::Create { project, added, created, reply }
            }
            Work::Delete { project, series, reply } => {
                let at = self.shared.clock.now();
                self.writer.push(Kind::Deleted, &encode_gone(&project.name, at, &series));
                Planned::Delete { project, series, at, reply }
            }
            Work::Purged { series, reply } => {
                self.writer.push(Kind::Purged, &encode_gone("", self.shared.clock.now(), &series));
                Planned::Purged { series, reply }
            }
            Work::Mark { reply } => Planned::Mark { reply },
        }
    }

    fn create(&mut self, project: &Project, sets: &LabelSets, mut numbers: Range<u64>) -> (Vec<Added>, Created) {
        let (mut added, mut body) = (Vec::new(), SeriesBody::new());
        let mut created = Created { series: Vec::with_capacity(sets.len()), refusal: None };
        let minute = self.shared.minute();
        let mut book = project.book.write();
        for set in sets.iter() {
            let fingerprint = book.fingerprint(set);
            let key = (project.name.clone(), fingerprint);
            if let Some(series) = book.look_up(fingerprint).or_else(|| self.pending.get(&key).copied()) {
                created.series.push(Some(series));
                continue;
            }
            if let Err(refusal) = self.shared.check_room(project, &book) {
                created.refusal.get_or_insert(refusal);
                created.series.push(None);
                continue;
            }
            let count = numbers.next().expect("there is a number for each set");
            let series = SeriesId::of_meter(count, name_of(set));
            match book.add(set, series, &mut self.members, |name, value| body.pair(name, value)) {
                Ok(one) => {
                    body.series(series, &self.members);
                    added.push(one);
                    self.pending.insert(key, series);
                    self.shared.live.fetch_add(1, Ordering::Relaxed);
                    project.made_one(minute);
                    created.series.push(Some(series));
                }
                Err(_) => {
                    let max = book.live() as u64;
                    created.refusal.get_or_insert(Refusal::TooManySeries { max });
                    created.series.push(None);
                }
            }
        }
        drop(book);
        if !body.is_empty() {
            self.writer.push(Kind::Series, &body.encode(&project.name));
        }
        (added, created)
    }
}

impl Planned {
    fn settle(self, shared: &Shared, outcome: &Result<Mark, LabelError>) {
        // Whoever does not wait any more does not need to know.
        match self {
            Self::Create { project, added, created, reply } => {
                let answer = outcome.as_ref().map_err(LabelError::again).map(|_| {
                    project.book.write().show(added.into_iter());
                    created
                });
                drop(reply.send(answer));
            }
            Self::Delete { project, series, at, reply } => {
                let answer = outcome.as_ref().map_err(LabelError::again).map(|_| {
                    let series = series.into_iter().collect();
                    let mut book = project.book.write();
                    let places = book.places_of(&series);
                    let buried = book.bury(&places) as u64;
                    shared.live.fetch_sub(buried, Ordering::Relaxed);
                    shared.deleted.lock().extend(series.into_iter().map(|series| (series, at)));
                    buried
                });
                drop(reply.send(answer));
            }
            Self::Purged { series, reply } => {
                let answer = outcome.as_ref().map_err(LabelError::again).map(|_| {
                    let mut deleted = shared.deleted.lock();
                    for series in &series {
                        deleted.remove(series);
                    }
                });
                drop(reply.send(answer));
            }
            Self::Mark { reply } => drop(reply.send(outcome.as_ref().copied().map_err(LabelError::again))),
        }
    }
}
