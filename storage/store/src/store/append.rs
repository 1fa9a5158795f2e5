//! Appending: from a caller's points to a durable record and the head.
//!
//! `append → room for its bytes → writer thread → group → log → head → receipt`

use std::sync::mpsc::Receiver;

use orzo_model::{Point, Room, SeriesId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use crate::{
    error::StoreError,
    wal::{
        SEGMENT_BYTES_FIRST, WriteError, Writer,
        record::{Entry, record_bytes},
    },
};

/// A group takes no more once it is this large: a sync of more takes longer than the next group should wait.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendReceipt {
    /// Points that are durable.
    pub stored: u64,
    /// Those of them that replaced a value of the same (series, timestamp) in the head. Values that are replaced in
    /// files are found when the files are merged ([`crate::StoreStats::replaced`]).
    pub replaced: u64,
}

/// What the log's thread is asked.
pub(super) enum Request {
    Write(Write),
    /// Everything is in files: begin a small segment.
    Shrink,
}

/// An entry on its way to the log.
pub(super) struct Write {
    entry: Entry,
    counted: Counted,
    reply: oneshot::Sender<Result<AppendReceipt, StoreError>>,
    _room: OwnedSemaphorePermit,
}

/// Points that came in and have not been settled; if nobody does, they went back to the sender.
struct Counted {
    room: Room,
    waiting: u64,
}

impl Counted {
    fn new(room: &Room, count: u64) -> Self {
        room.received(count);
        Self { room: room.clone(), waiting: count }
    }

    fn stored(mut self) {
        self.room.stored(std::mem::take(&mut self.waiting));
    }

    fn failed(mut self, error: &StoreError) {
        let count = std::mem::take(&mut self.waiting);
        if error.is_retryable() {
            self.room.returned(count);
        } else {
            self.room.refused(error.kind(), count);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.waiting > 0 {
            self.room.returned(self.waiting);
        }
    }
}

pub(super) async fn append(shared: &Shared, points: Vec<Point>) -> Result<AppendReceipt, StoreError> {
    if points.is_empty() {
        return Ok(AppendReceipt::default());
    }
    let counted = Counted::new(&shared.room, points.len() as u64);
    let entry = Entry::Points(points);
    if let Err(error) = check(shared, &entry) {
        counted.failed(&error);
        return Err(error);
    }
    send(shared, entry, counted).await
}

pub(super) async fn delete_series(shared: &Shared, series: Vec<SeriesId>) -> Result<(), StoreError> {
    if series.is_empty() {
        return Ok(());
    }
    let entry = Entry::DeletedSeries(series);
    check(shared, &entry)?;
    send(shared, entry, Counted::new(&shared.room, 0)).await.map(drop)
}

/// What can never be stored.
fn check(shared: &Shared, entry: &Entry) -> Result<(), StoreError> {
    let bytes_max = Writer::record_bytes_max(shared.settings.wal_segment_bytes);
    let bytes = record_bytes(entry);
    if bytes > bytes_max {
        let reason = format!("one append takes {bytes} bytes, a log segment holds {bytes_max}; send smaller batches");
        return Err(StoreError::Invalid { reason });
    }
    // The table's integers are signed.
    let out_of_range = |series: &SeriesId| i64::try_from(series.0).is_err();
    let wrong = match entry {
        Entry::Points(points) => points.iter().map(|point| point.series).find(out_of_range),
        Entry::DeletedSeries(series) => series.iter().copied().find(out_of_range),
    };
    match wrong {
        Some(series) => Err(StoreError::Invalid { reason: format!("series {} is above the highest number", series.0) }),
        None => Ok(()),
    }
}

async fn send(shared: &Shared, entry: Entry, counted: Counted) -> Result<AppendReceipt, StoreError> {
    let permit = match tokio::time::timeout(shared.settings.append_wait, room_for(shared, record_bytes(&entry))).await {
        Ok(Ok(permit)) => permit,
        Ok(Err(error)) => {
            counted.failed(&error);
            return Err(error);
        }
        Err(_) => {
            let reason = "too much waits for the log or to be written to files".to_owned();
            let error = StoreError::Busy { reason };
            counted.failed(&error);
            return Err(error);
        }
    };
    let (reply, answer) = oneshot::channel();
    let request = Request::Write(Write { entry, counted, reply, _room: permit });
    let gone = || StoreError::closed("it was closed");
    // What cannot be sent is dropped here, which counts it as returned.
    let sent = shared.requests.lock().as_ref().is_some_and(|requests| requests.send(request).is_ok());
    if !sent {
        shared.check_open()?;
        return Err(gone());
    }
    answer.await.unwrap_or_else(|_| Err(gone()))
}

/// Waits until the head and the queue to the log have room.
async fn room_for(shared: &Shared, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
    loop {
        let flushed = shared.flushed.notified();
        tokio::pin!(flushed);
        // From here on no notice is missed.
        flushed.as_mut().enable();
        shared.check_open()?;
        if !shared.head_is_full() {
            break;
        }
        shared.flush_due.notify_one();
        flushed.await;
    }
    let bytes = bytes.min(shared.settings.waiting_bytes_max);
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    shared.waiting.clone().acquire_many_owned(permits).await.map_err(StoreError::closed)
}

/// The writer thread: groups what waits, writes it, puts it into the head, answers. Ends with the last sender.
pub(super) fn write_groups(shared: &Shared, mut writer: Writer, requests: &Receiver<Request>) -> Writer {
    let mut waiting = None;
    while let Some(request) = waiting.take().or_else(|| requests.recv().ok()) {
        let Request::Write(first) = request else {
            shared.shrink(&mut writer);
            continue;
        };
        let mut bytes = record_bytes(&first.entry);
        let mut group = vec![first];
        while bytes < GROUP_BYTES_MAX
            && let Ok(next) = requests.try_recv()
        {
            match next {
                Request::Write(next) => {
                    bytes += record_bytes(&next.entry);
                    group.push(next);
                }
                Request::Shrink => {
                    waiting = Some(Request::Shrink);
                    break;
                }
            }
        }
        write_group(shared, &mut writer, group);
    }
    writer
}

impl Shared {
    /// Begins a small segment of the log if everything is in files, so that the large ones go.
    pub(super) fn shrink(&self, writer: &mut Writer) {
        let covered = {
            let state = self.state.read();
            (state.snapshot.covered == state.last_sequence).then_some(state.last_sequence)
        };
        let Some(covered) = covered.filter(|_| self.check_open().is_ok()) else { return };
        match writer.shrink() {
            Ok(begun) => {
                self.segments.lock().extend(begun);
                self.remove_segments(covered);
            }
            // The large one goes on.
            Err(WriteError::NoRoom) => {}
            Err(WriteError::Broken { action, path, source }) => {
                let reason = format!("cannot {action} {}: {source}", path.display());
                tracing::error!("the store closes itself: {reason}");
                self.close(&reason);
            }
        }
    }

    /// Whether the log takes much more room than it needs.
    pub(super) fn is_log_too_large(&self) -> bool {
        let bytes: u64 = self.segments.lock().iter().map(|segment| segment.bytes).sum();
        let state = self.state.read();
        bytes > SEGMENT_BYTES_FIRST && state.snapshot.covered == state.last_sequence
    }
}

fn write_group(shared: &Shared, writer: &mut Writer, group: Vec<Write>) {
    if let Err(error) = shared.check_open().and_then(|()| check_free_bytes(shared)) {
        return refuse(group, |_| error_again(&error));
    }
    let began = shared.clock.monotonic();
    #[cfg(test)]
    let group = acknowledge_too_early(shared, group);
    let (entries, mut waiting): (Vec<_>, Vec<_>) =
        group.into_iter().map(|request| (request.entry, (request.counted, request.reply, request._room))).unzip();
    let written = match writer.write(entries) {
        Ok(written) => written,
        Err(WriteError::NoRoom) => return refuse_waiting(waiting, &no_room(shared)),
        Err(WriteError::Broken { action, path, source }) => {
            let reason = format!("cannot {action} {}: {source}", path.display());
            tracing::error!("the store closes itself: {reason}");
            shared.close(&reason);
            return refuse_waiting(waiting, &StoreError::Closed { reason });
        }
    };
    shared.room.took("fsync", shared.clock.monotonic().saturating_sub(began));
    shared.segments.lock().extend(written.begun);
    let unwritten = waiting.split_off(written.records.len());
    let receipts = shared.put(written.records);
    for ((counted, reply, _), receipt) in waiting.into_iter().zip(receipts) {
        counted.stored();
        // Whoever does not wait any more does not need to know.
        let _ = reply.send(Ok(receipt));
    }
    if !unwritten.is_empty() {
        refuse_waiting(unwritten, &no_room(shared));
    }
    if shared.is_flush_due() {
        shared.flush_due.notify_one();
    }
}

/// What a store does that does not wait for its disk.
#[cfg(test)]
fn acknowledge_too_early(shared: &Shared, group: Vec<Write>) -> Vec<Write> {
    if shared.table.disk.planted() != Some(crate::files::Planted::AcknowledgedBeforeWritten) {
        return group;
    }
    let early = |write: Write| {
        let stored = match &write.entry {
            Entry::Points(points) => points.len() as u64,
            Entry::DeletedSeries(_) => 0,
        };
        let _ = write.reply.send(Ok(AppendReceipt { stored, replaced: 0 }));
        Write { reply: oneshot::channel().0, ..write }
    };
    group.into_iter().map(early).collect()
}

type Waiting = (Counted, oneshot::Sender<Result<AppendReceipt, StoreError>>, OwnedSemaphorePermit);

fn refuse(group: Vec<Write>, error: impl Fn(&Write) -> StoreError) {
    for request in group {
        let error = error(&request);
        request.counted.failed(&error);
        let _ = request.reply.send(Err(error));
    }
}

fn refuse_waiting(waiting: Vec<Waiting>, error: &StoreError) {
    for (counted, reply, _) in waiting {
        counted.failed(error);
        let _ = reply.send(Err(error_again(error)));
    }
}

/// The same error for the next of a group.
fn error_again(error: &StoreError) -> StoreError {
    match error {
        StoreError::DiskFull { free_bytes, reserve_bytes } => {
            StoreError::DiskFull { free_bytes: *free_bytes, reserve_bytes: *reserve_bytes }
        }
        StoreError::Closed { reason } => StoreError::closed(reason),
        other => StoreError::Busy { reason: other.to_string() },
    }
}

fn no_room(shared: &Shared) -> StoreError {
    let free_bytes = shared.table.disk.free_bytes(&shared.wal_directory).unwrap_or(0);
    StoreError::DiskFull { free_bytes, reserve_bytes: shared.settings.disk_reserve_bytes }
}

fn check_free_bytes(shared: &Shared) -> Result<(), StoreError> {
    let reserve_bytes = shared.settings.disk_reserve_bytes;
    match shared.table.disk.free_bytes(&shared.wal_directory) {
        Ok(free_bytes) if free_bytes < reserve_bytes => Err(StoreError::DiskFull { free_bytes, reserve_bytes }),
        // A disk that cannot say how much is free may still take the write, or refuse it for good.
        _ => Ok(()),
    }
}
