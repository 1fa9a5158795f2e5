//! What is said with the process of a query: the query goes, scans are answered, the answer comes in blocks.
//!
//! This side always reads, so that the other side's writes never wait for its own reads; each scan is a task that writes,
//! as far ahead as its reader has allowed.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
    task::JoinSet,
};

use super::Answer;
use crate::{
    error::SqlError,
    message::{self, Asked, Begin, FRAMES_UNDER_WAY, Frame, Told},
    source::{Source, Takes},
    tables::Wanted,
};

/// Scans of one query: a join of more tables than anybody writes.
const SCANS_MAX: usize = 64;
/// Bytes of an answer beyond the limit that a block may bring before the process itself sees it.
const ANSWER_BYTES_BESIDE: u64 = 1 << 20;

/// The writing side, and why something failed on this one.
struct Shared {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    failure: Mutex<Option<SqlError>>,
}

/// What a scan may send.
struct Credit {
    frames: Semaphore,
    under_way: AtomicUsize,
}

/// One query's conversation.
pub(super) struct Conversation {
    reader: BufReader<OwnedReadHalf>,
    shared: Arc<Shared>,
    source: Arc<Source>,
    credits: HashMap<u32, Arc<Credit>>,
    scans: JoinSet<()>,
    answer: BytesMut,
    answer_bytes_max: u64,
}

impl Conversation {
    pub(super) fn new(socket: UnixStream, source: Arc<Source>, answer_bytes_max: u64) -> Self {
        let (reader, writer) = socket.into_split();
        Self {
            reader: BufReader::new(reader),
            shared: Arc::new(Shared { writer: writer.into(), failure: Mutex::default() }),
            source,
            credits: HashMap::new(),
            scans: JoinSet::new(),
            answer: BytesMut::new(),
            answer_bytes_max,
        }
    }

    /// Gives the query and hears until its end; `None` if the other side has gone without one.
    pub(super) async fn hold(mut self, begin: &Begin) -> Result<Option<Result<Answer, SqlError>>, SqlError> {
        if self.shared.tell(&Told::Begin(begin.clone())).await.is_err() {
            return Ok(None);
        }
        loop {
            let frame = match message::receive::<Asked>(&mut self.reader).await {
                Ok(Some(frame)) => frame,
                // A process that dies may have left half a frame.
                Ok(None) | Err(_) => return Ok(None),
            };
            match frame {
                Frame::Block(part) => {
                    self.answer.extend_from_slice(&part);
                    if self.answer.len() as u64 > self.answer_bytes_max + ANSWER_BYTES_BESIDE {
                        let what = "bytes in the answer".to_owned();
                        return Err(SqlError::TooMuch { what, limit: self.answer_bytes_max });
                    }
                }
                Frame::Message(Asked::Scan { scan, wanted }) => self.scan(scan, wanted)?,
                Frame::Message(Asked::More { scan }) => {
                    if let Some(credit) = self.credits.get(&scan) {
                        credit.more();
                    }
                }
                Frame::Message(Asked::Stop { scan }) => {
                    if let Some(credit) = self.credits.remove(&scan) {
                        credit.frames.close();
                    }
                }
                Frame::Message(Asked::Done { rows }) => {
                    return Ok(Some(Ok(Answer { body: Bytes::from(self.answer), rows })));
                }
                Frame::Message(Asked::Failed(error)) => {
                    // What failed on this side says more than that it did.
                    let own = self.shared.failure.lock().take();
                    return Ok(Some(Err(own.unwrap_or(error))));
                }
            }
        }
    }

    fn scan(&mut self, scan: u32, wanted: Wanted) -> Result<(), SqlError> {
        while self.scans.try_join_next().is_some() {}
        if self.scans.len() >= SCANS_MAX {
            return Err(SqlError::TooMuch { what: "scans of one query at once".to_owned(), limit: SCANS_MAX as u64 });
        }
        let credit = Arc::new(Credit { frames: Semaphore::new(FRAMES_UNDER_WAY), under_way: AtomicUsize::new(0) });
        self.credits.insert(scan, credit.clone());
        let (shared, source) = (self.shared.clone(), self.source.clone());
        self.scans.spawn(async move {
            let mut to = ToProcess { shared: shared.clone(), credit };
            let end = match source.read(scan, &wanted, &mut to).await {
                Ok(()) => Told::End { scan },
                Err(error) => {
                    let reason = error.to_string();
                    shared.failure.lock().get_or_insert(error);
                    Told::Failed { scan, reason }
                }
            };
            // If nobody listens any more, nobody misses it.
            let _ = shared.tell(&end).await;
        });
        Ok(())
    }
}

impl Shared {
    async fn tell(&self, told: &Told) -> io::Result<()> {
        self.send(&message::message(told)?).await
    }

    async fn send(&self, frame: &[u8]) -> io::Result<()> {
        message::send(&mut *self.writer.lock().await, frame).await
    }
}

impl Credit {
    /// One more frame may come; no more than have gone.
    fn more(&self) {
        let less = |under_way: usize| under_way.checked_sub(1);
        if self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            self.frames.add_permits(1);
        }
    }
}

/// The way of a scan's blocks.
struct ToProcess {
    shared: Arc<Shared>,
    credit: Arc<Credit>,
}

impl Takes for ToProcess {
    async fn take(&mut self, frame: Vec<u8>) -> Result<bool, SqlError> {
        // Closed: the process wants no more of this scan.
        let Ok(place) = self.credit.frames.acquire().await else { return Ok(false) };
        place.forget();
        self.credit.under_way.fetch_add(1, Ordering::Relaxed);
        Ok(self.shared.send(&frame).await.is_ok())
    }
}
