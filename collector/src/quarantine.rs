//! Where what cannot be understood is kept, durably, with the reason: poison that must neither be lost nor block a queue.
//!
//! It comes in as raw bytes with their origin and the reason, and stays until a person removes it or replays it. The
//! directory is bounded; when it is full nothing is taken, so that the sender is not acknowledged.
//!
//! This room does not know why something is wrong, only what it was told.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use orzo_bus::{RecordError, RecordId, Records, batch, batch::BatchError, records::Note};
use orzo_model::{Receipt, Room, Rooms, SampleSink, SharedClock, SinkError, Timestamp};

/// Disk space for the quarantine unless the settings say otherwise: a day of a talkative service's bad messages.
pub const QUARANTINE_BYTES_DEFAULT: u64 = 256 << 20;
/// Reasons are cut to this many characters: they may quote what was wrong.
const REASON_MAX: usize = 1000;

/// The quarantine. Share it behind an `Arc`.
pub struct Quarantine {
    records: Arc<Records>,
    room: Room,
    clock: SharedClock,
}

/// What is known about something in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QuarantineEntry {
    /// Its number, as text.
    pub id: String,
    /// Since when.
    pub kept_at: Option<Timestamp>,
    /// Which queue or agent it came from.
    pub origin: String,
    /// What was wrong.
    pub reason: String,
    /// Of the body, as the sender said.
    pub content_type: String,
    /// Length of the body.
    pub bytes: usize,
}

/// What can go wrong with the quarantine.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The directory.
    #[error("the quarantine cannot do it")]
    Record(#[from] RecordError),
    /// It is not the number of an entry.
    #[error("`{id}` is not an entry of the quarantine")]
    NotAnId {
        /// What was given, at most 64 characters of it.
        id: String,
    },
    /// It cannot be replayed: it is still not a batch.
    #[error("the entry still cannot be decoded")]
    NotABatch(#[from] BatchError),
    /// It cannot be replayed: the sink does not take it.
    #[error("the entry is still not accepted")]
    NotAccepted(#[from] SinkError),
}

impl QuarantineError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Record(error) => error.is_retryable(),
            Self::NotAccepted(error) => error.is_retryable(),
            Self::NotAnId { .. } | Self::NotABatch(_) => false,
        }
    }
}

impl Quarantine {
    /// Opens the directory (made if missing), which will hold at most `bytes_max`. What is in it from before is told.
    /// Counts messages in the room `quarantine`.
    pub fn open(directory: &Path, bytes_max: u64, rooms: &Rooms, clock: SharedClock) -> Result<Self, QuarantineError> {
        let records = Records::open(directory, bytes_max)?;
        let room = rooms.room("quarantine");
        room.received(records.len() as u64);
        if !records.is_empty() {
            tracing::warn!(messages = records.len(), directory = %directory.display(), "the quarantine is not empty");
        }
        Ok(Self { records: Arc::new(records), room, clock })
    }

    /// Keeps a message; durable when this returns `Ok`, and only then may the sender be acknowledged.
    pub async fn keep(
        &self,
        origin: &str,
        reason: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<RecordId, QuarantineError> {
        let cut = |text: &str| text.chars().take(REASON_MAX).collect::<String>();
        let note: Note = [
            ("origin", cut(origin)),
            ("reason", cut(reason)),
            ("content_type", cut(content_type)),
            ("kept_at", self.clock.now().to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let id = self.on_disk(move |records| records.keep(&note, &body)).await?;
        self.room.received(1);
        // Someone must look at it, so this is an error; the reason is the sender's fault, not ours.
        tracing::error!(origin, reason, entry = %id, "a message was put into quarantine");
        Ok(id)
    }

    /// What is in it, oldest first, from after the entry `after`, at most `limit`. Damaged entries are listed as such.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<QuarantineEntry>, QuarantineError> {
        let after = after.map(parse).transpose()?;
        self.on_disk(move |records| {
            let listed = records.list().into_iter().filter(|id| after.is_none_or(|after| *id > after)).take(limit);
            Ok(listed.map(|id| entry(id, records.read(id))).collect())
        })
        .await
    }

    /// One entry with its body.
    pub async fn read(&self, id: &str) -> Result<(QuarantineEntry, Bytes), QuarantineError> {
        let id = parse(id)?;
        self.on_disk(move |records| {
            let (note, body) = records.read(id)?;
            Ok((entry(id, Ok((note, body.clone()))), body))
        })
        .await
    }

    /// Removes an entry for good.
    pub async fn remove(&self, id: &str) -> Result<(), QuarantineError> {
        let id = parse(id)?;
        self.on_disk(move |records| records.remove(id)).await?;
        self.room.dropped("removed", 1);
        Ok(())
    }

    /// Tries an entry that is a batch again, for example after an update, and removes it once the sink has it.
    pub async fn replay(&self, id: &str, sink: &dyn SampleSink) -> Result<Receipt, QuarantineError> {
        let (_, body) = self.read(id).await?;
        let receipt = sink.accept(batch::decode(&body)?).await?;
        let id = parse(id)?;
        self.on_disk(move |records| records.remove(id)).await?;
        self.room.stored(1);
        Ok(receipt)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T, QuarantineError> {
        let records = self.records.clone();
        let done = tokio::task::spawn_blocking(move || work(&records)).await;
        Ok(done.expect("disk work does not panic and is not aborted")?)
    }
}

fn parse(id: &str) -> Result<RecordId, QuarantineError> {
    id.parse().map_err(|_| QuarantineError::NotAnId { id: id.chars().take(64).collect() })
}

fn entry(id: RecordId, record: Result<(Note, Bytes), RecordError>) -> QuarantineEntry {
    match record {
        Ok((mut note, body)) => {
            let mut field = |name: &str| note.remove(name).unwrap_or_default();
            QuarantineEntry {
                id: id.to_string(),
                kept_at: field("kept_at").parse().ok(),
                origin: field("origin"),
                reason: field("reason"),
                content_type: field("content_type"),
                bytes: body.len(),
            }
        }
        Err(error) => QuarantineEntry {
            id: id.to_string(),
            kept_at: None,
            origin: String::new(),
            reason: error.to_string(),
            content_type: String::new(),
            bytes: 0,
        },
    }
}
