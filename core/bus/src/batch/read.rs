//! From bytes to a batch, trusting nothing.

use std::{collections::BTreeMap, sync::Arc};

use orzo_model::{Batch, Event, Sample, SampleKind, Timestamp, Trait, TraitValue, sample::Metadata};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    BatchError, COMPRESSION_ZSTD, ENCODED_BYTES_MAX, EVENTS_MAX, EXPANDED_BYTES_MAX, HEADER_BYTES, JSON_BYTES_MAX,
    MAGIC, PAYLOAD_BYTES_MAX, SAMPLES_MAX, TEXT_BYTES_MAX, TEXTS_MAX, TRAITS_MAX, VERSION, limit,
};

/// Reads a batch; anything that [`super::encode`] did not write is refused.
pub fn decode(frame: &[u8]) -> Result<Batch, BatchError> {
    limit("encoded bytes", frame.len(), ENCODED_BYTES_MAX)?;
    if frame.len() < HEADER_BYTES || frame[..4] != MAGIC {
        return Err(BatchError::NotABatch);
    }
    if frame[4] != VERSION {
        return Err(BatchError::UnknownVersion { found: frame[4] });
    }
    let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let compressed = &frame[HEADER_BYTES..];
    if crc32c::crc32c_append(crc32c::crc32c(&frame[..12]), compressed) != word(12) {
        return Err(BatchError::Damaged);
    }
    if frame[5] != COMPRESSION_ZSTD || frame[6..8] != [0, 0] {
        return Err(BatchError::Malformed { what: "unknown compression" });
    }
    let declared = word(8) as usize;
    limit("payload bytes", declared, PAYLOAD_BYTES_MAX)?;
    let payload = zstd::bulk::decompress(compressed, declared)
        .map_err(|_| BatchError::Malformed { what: "the payload does not decompress to its length" })?;
    if payload.len() != declared {
        return Err(BatchError::WrongLength);
    }
    let mut reader = Reader { rest: &payload, expanded: 0 };
    let batch = read_payload(&mut reader)?;
    if reader.rest.is_empty() { Ok(batch) } else { Err(BatchError::WrongLength) }
}

fn read_payload(reader: &mut Reader<'_>) -> Result<Batch, BatchError> {
    let text_count = reader.count("texts", TEXTS_MAX, 1)?;
    let map_count = reader.count("metadata maps", SAMPLES_MAX, 1)?;
    // A sample is at least 33 bytes in its columns, an event at least 5.
    let sample_count = reader.count("samples", SAMPLES_MAX, 33)?;
    let event_count = reader.count("events", EVENTS_MAX, 5)?;
    let id = Uuid::from_bytes(reader.array()?);
    let origin = reader.text("origin bytes", TEXT_BYTES_MAX)?.to_owned();
    let mut texts = Vec::with_capacity(text_count);
    for _ in 0..text_count {
        texts.push(reader.text("text bytes", TEXT_BYTES_MAX)?);
    }
    let mut maps: Vec<Metadata> = Vec::with_capacity(map_count);
    for _ in 0..map_count {
        let text = reader.text("metadata bytes", JSON_BYTES_MAX)?;
        let map: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|_| BatchError::Malformed { what: "metadata is not a JSON object" })?;
        maps.push(Arc::new(map));
    }
    let samples = read_samples(reader, sample_count, &texts, &maps)?;
    let mut events = Vec::with_capacity(event_count);
    for _ in 0..event_count {
        events.push(read_event(reader, &texts)?);
    }
    Ok(Batch { id, origin, samples, events })
}

fn read_samples(
    reader: &mut Reader<'_>,
    count: usize,
    texts: &[&str],
    maps: &[Metadata],
) -> Result<Vec<Sample>, BatchError> {
    let no_metadata = Metadata::default();
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        samples.push(Sample {
            id: Uuid::from_bytes(reader.array()?),
            meter: String::new(),
            kind: SampleKind::Gauge,
            unit: String::new(),
            value: 0.0,
            timestamp: Timestamp::EPOCH,
            resource_id: String::new(),
            project_id: None,
            user_id: None,
            source: String::new(),
            metadata: no_metadata.clone(),
        });
    }
    for sample in &mut samples {
        sample.meter = reader.looked_up(texts)?;
    }
    for sample in &mut samples {
        sample.kind = match reader.byte()? {
            0 => SampleKind::Gauge,
            1 => SampleKind::Delta,
            2 => SampleKind::Cumulative,
            _ => return Err(BatchError::Malformed { what: "unknown kind of sample" }),
        };
    }
    for sample in &mut samples {
        sample.unit = reader.looked_up(texts)?;
    }
    for sample in &mut samples {
        sample.value = reader.float()?;
    }
    let mut previous = 0i64;
    for sample in &mut samples {
        previous = previous
            .checked_add(reader.take::<i64>()?)
            .ok_or(BatchError::Malformed { what: "a timestamp is out of range" })?;
        sample.timestamp = time(previous)?;
    }
    for sample in &mut samples {
        sample.resource_id = reader.looked_up(texts)?;
    }
    for sample in &mut samples {
        sample.project_id = reader.optional(texts)?;
    }
    for sample in &mut samples {
        sample.user_id = reader.optional(texts)?;
    }
    for sample in &mut samples {
        sample.source = reader.looked_up(texts)?;
    }
    for sample in &mut samples {
        let number = reader.take::<u32>()? as usize;
        sample.metadata = maps.get(number).ok_or(BatchError::Malformed { what: "unknown metadata map" })?.clone();
    }
    Ok(samples)
}

fn read_event(reader: &mut Reader<'_>, texts: &[&str]) -> Result<Event, BatchError> {
    let message_id = reader.looked_up(texts)?;
    let event_type = reader.looked_up(texts)?;
    let generated_at = time(reader.take::<i64>()?)?;
    let trait_count = reader.count("traits", TRAITS_MAX, 3)?;
    let mut traits = Vec::with_capacity(trait_count);
    for _ in 0..trait_count {
        let name = reader.looked_up(texts)?;
        let value = match reader.byte()? {
            1 => TraitValue::Text(reader.looked_up(texts)?),
            2 => TraitValue::Integer(reader.take::<i64>()?),
            3 => TraitValue::Float(reader.float()?),
            4 => TraitValue::Datetime(time(reader.take::<i64>()?)?),
            _ => return Err(BatchError::Malformed { what: "unknown type of trait" }),
        };
        traits.push(Trait { name, value });
    }
    let raw = match reader.byte()? {
        0 => None,
        1 => Some(reader.text("raw notification bytes", JSON_BYTES_MAX)?.to_owned()),
        _ => return Err(BatchError::Malformed { what: "unknown flag" }),
    };
    Ok(Event { message_id, event_type, generated_at, traits, raw })
}

/// A time is never clamped on the way: what is out of range was not written by us.
fn time(micros: i64) -> Result<Timestamp, BatchError> {
    let time = Timestamp::from_micros(micros);
    if time.micros() == micros { Ok(time) } else { Err(BatchError::Malformed { what: "a timestamp is out of range" }) }
}

struct Reader<'p> {
    rest: &'p [u8],
    expanded: usize,
}

impl<'p> Reader<'p> {
    fn take<T: Deserialize<'p>>(&mut self) -> Result<T, BatchError> {
        let (value, rest) = postcard::take_from_bytes(self.rest)
            .map_err(|_| BatchError::Malformed { what: "a number or text is cut off or invalid" })?;
        self.rest = rest;
        Ok(value)
    }

    /// How many follow, refused if they could not fit in what is left (each takes `bytes_min` at least).
    fn count(&mut self, what: &'static str, most: u32, bytes_min: usize) -> Result<usize, BatchError> {
        let count = self.take::<u32>()? as usize;
        limit(what, count, most as usize)?;
        if count.saturating_mul(bytes_min) > self.rest.len() { Err(BatchError::WrongLength) } else { Ok(count) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(BatchError::WrongLength)?;
        self.rest = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, BatchError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn float(&mut self) -> Result<f64, BatchError> {
        self.array().map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)))
    }

    fn text(&mut self, what: &'static str, bytes_max: usize) -> Result<&'p str, BatchError> {
        let text = self.take::<&'p str>()?;
        limit(what, text.len(), bytes_max)?;
        Ok(text)
    }

    fn looked_up(&mut self, texts: &[&str]) -> Result<String, BatchError> {
        let number = self.take::<u32>()? as usize;
        self.spelled(texts, number)
    }

    fn optional(&mut self, texts: &[&str]) -> Result<Option<String>, BatchError> {
        match self.take::<u32>()? as usize {
            0 => Ok(None),
            number => self.spelled(texts, number - 1).map(Some),
        }
    }

    fn spelled(&mut self, texts: &[&str], number: usize) -> Result<String, BatchError> {
        let text = texts.get(number).ok_or(BatchError::Malformed { what: "unknown text" })?;
        self.expanded += text.len();
        limit("bytes in memory", self.expanded, EXPANDED_BYTES_MAX)?;
        Ok((*text).to_owned())
    }
}
