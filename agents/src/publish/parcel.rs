//! A batch ready to travel: encoded, small enough, for one shard. Pure.

use bytes::Bytes;
use orzo_bus::{
    batch::{self, BatchError},
    records::Note,
};
use orzo_model::Batch;
use uuid::Uuid;

/// One encoded batch, or part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Same when the same samples are sent again.
    pub id: Uuid,
    /// Who made the batch.
    pub origin: String,
    /// Which queue.
    pub shard: u16,
    /// Samples and events in it.
    pub things: u64,
    /// As [`batch::encode`] writes.
    pub body: Bytes,
}

impl Parcel {
    /// What the spool remembers beside the body.
    pub(super) fn note(&self) -> Note {
        [
            ("batch", self.id.to_string()),
            ("origin", self.origin.clone()),
            ("shard", self.shard.to_string()),
            ("things", self.things.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// From the spool.
    pub(super) fn from_record(note: &Note, body: Bytes) -> Option<Self> {
        Some(Self {
            id: note.get("batch")?.parse().ok()?,
            origin: note.get("origin")?.clone(),
            shard: note.get("shard")?.parse().ok()?,
            things: note.get("things")?.parse().ok()?,
            body,
        })
    }
}

/// How many samples and events a spooled record holds; one if it does not say.
pub(super) fn things(note: &Note) -> u64 {
    note.get("things").and_then(|things| things.parse().ok()).unwrap_or(1)
}

/// Encodes a batch, in parts if it is for several shards or too large for one message. The parts' ids are made from
/// the whole's, so that packing again makes the same parcels.
pub(super) fn pack(batch: Batch, shards: u16) -> Result<Vec<Parcel>, BatchError> {
    let mut parcels = Vec::new();
    for (shard, part) in by_shard(batch, shards) {
        pack_part(part, shard, &mut parcels)?;
    }
    Ok(parcels)
}

fn pack_part(batch: Batch, shard: u16, parcels: &mut Vec<Parcel>) -> Result<(), BatchError> {
    match batch::encode(&batch) {
        Ok(body) => {
            let things = batch.len() as u64;
            parcels.push(Parcel { id: batch.id, origin: batch.origin, shard, things, body });
            Ok(())
        }
        Err(error @ BatchError::TooLarge { .. }) => {
            // Ends, as halves only get smaller; a single thing that is too large has no half.
            let (first, second) = batch::split(batch).ok_or(error)?;
            pack_part(first, shard, parcels)?;
            pack_part(second, shard, parcels)
        }
        Err(error) => Err(error),
    }
}

/// All samples of a resource go to one shard, so that one collector sees a counter's whole course.
fn by_shard(batch: Batch, shards: u16) -> Vec<(u16, Batch)> {
    if shards <= 1 {
        return vec![(0, batch)];
    }
    let Batch { id, origin, samples, events } = batch;
    let mut parts: Vec<Batch> = (0..shards)
        .map(|shard| Batch {
            id: Uuid::new_v5(&id, &shard.to_le_bytes()),
            origin: origin.clone(),
            samples: Vec::new(),
            events: Vec::new(),
        })
        .collect();
    for sample in samples {
        parts[usize::from(shard_of(&sample.resource_id, shards))].samples.push(sample);
    }
    for event in events {
        parts[usize::from(shard_of(&event.message_id, shards))].events.push(event);
    }
    (0..shards).zip(parts).filter(|(_, part)| !part.is_empty()).collect()
}

/// CRC32C: the same on every machine and in every version, unlike the standard library's hash.
fn shard_of(key: &str, shards: u16) -> u16 {
    (crc32c::crc32c(key.as_bytes()) % u32::from(shards)) as u16
}
