//! The compact, versioned encoding in which batches travel and wait (on the bus, in the agents' spool).
//!
//! `Batch → dictionary + columns → zstd → frame`, and back.
//!
//! ```text
//! offset  bytes  meaning
//! 0       4      magic `ORZB`
//! 4       1      version, 1
//! 5       1      compression: 1 = zstd
//! 6       2      zero
//! 8       4      length of the payload before compression, little endian
//! 12      4      CRC32C of bytes 0..12 and of everything after this field, little endian
//! 16      ...    the compressed payload
//! ```
//!
//! The payload is a sequence of postcard primitives (varints, length-prefixed text): four counts (texts, metadata,
//! samples, events), batch id, origin, the dictionary of texts, the distinct metadata maps as JSON text, then the
//! samples column by column, then the events. A column refers to the dictionary by index, so that a meter's name
//! travels once in a batch. Optional texts are index + 1, zero for none.
//!
//! Reading trusts nothing: every count and length is checked against a limit before memory is taken for it, and a
//! payload that would expand beyond [`EXPANDED_BYTES_MAX`] is refused.

mod read;
mod write;

use bytes::Bytes;
use orzo_model::Batch;
use uuid::Uuid;

pub use read::decode;

/// Content type of an encoded batch, on the bus and over HTTP.
pub const CONTENT_TYPE: &str = "application/vnd.orzo.batch";
/// First bytes of every encoded batch.
pub const MAGIC: [u8; 4] = *b"ORZB";
/// The version that this program writes.
pub const VERSION: u8 = 1;
/// Frame before the payload.
const HEADER_BYTES: usize = 16;
/// The payload is zstd.
const COMPRESSION_ZSTD: u8 = 1;
/// Fast enough to be invisible beside a poll; higher levels gain a few percent only.
const ZSTD_LEVEL: i32 = 3;

/// An encoded batch is at most this long: well below any broker's message limit, and an API body's.
pub const ENCODED_BYTES_MAX: usize = 8 << 20;
/// The payload before compression is at most this long; bounds what a small hostile message can make us allocate.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The texts of all samples and events together, each counted as often as it is used: what a batch may take in memory.
pub const EXPANDED_BYTES_MAX: usize = 64 << 20;
/// Samples in a batch; an agent sends a few thousand.
pub const SAMPLES_MAX: u32 = 100_000;
/// Events in a batch.
pub const EVENTS_MAX: u32 = 20_000;
/// Distinct texts in a batch: one resource, project, user, id per sample and some more.
pub const TEXTS_MAX: u32 = 400_000;
/// Traits of one event; Ceilometer's definitions make some twenty.
pub const TRAITS_MAX: u32 = 1_000;
/// One text: names, ids, trait values.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// One metadata map, or one raw notification, as JSON.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// Why bytes are not a batch, or a batch cannot be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Not our format at all.
    #[error("this is not an Orzo batch")]
    NotABatch,
    /// Written by a newer program.
    #[error("the batch has format version {found}, this program knows up to {VERSION}: use a newer program")]
    UnknownVersion {
        /// In the frame.
        found: u8,
    },
    /// The bytes are not those that were written.
    #[error("the batch is damaged: its checksum does not match")]
    Damaged,
    /// Shorter than it says, or longer.
    #[error("the batch is cut off or has trailing bytes")]
    WrongLength,
    /// Beyond one of the limits above.
    #[error("the batch is too large: {what} {found}, at most {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much may be.
        limit: usize,
    },
    /// The checksum is right and the content still makes no sense.
    #[error("the batch is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a batch. [`BatchError::TooLarge`] says that it must be split ([`split`]).
pub fn encode(batch: &Batch) -> Result<Bytes, BatchError> {
    let payload = write::payload(batch)?;
    let compressed = zstd::bulk::compress(&payload, ZSTD_LEVEL)
        .map_err(|_| BatchError::Malformed { what: "the payload cannot be compressed" })?;
    limit("encoded bytes", compressed.len() + HEADER_BYTES, ENCODED_BYTES_MAX)?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + compressed.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, COMPRESSION_ZSTD, 0, 0]);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame), &compressed);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(&compressed);
    Ok(frame.into())
}

/// Two halves of a batch that is too large, with ids made from the whole's, so that sending it again makes the same
/// halves. `None` if there is only one thing in it.
pub fn split(batch: Batch) -> Option<(Batch, Batch)> {
    if batch.len() < 2 {
        return None;
    }
    let Batch { id, origin, mut samples, mut events } = batch;
    let part = |name: &[u8]| Uuid::new_v5(&id, name);
    // Both kinds are halved, rounding so that a single sample and a single event part.
    let later_samples = samples.split_off(samples.len().div_ceil(2));
    let later_events = events.split_off(events.len() / 2);
    let first = Batch { id: part(b"first"), origin: origin.clone(), samples, events };
    let second = Batch { id: part(b"second"), origin, samples: later_samples, events: later_events };
    Some((first, second))
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), BatchError> {
    if found > limit { Err(BatchError::TooLarge { what, found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
