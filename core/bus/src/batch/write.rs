//! From a batch to the payload's bytes. Knows no frame and no compression.

use std::{collections::HashMap, sync::Arc};

use orzo_model::{Batch, Event, Sample, SampleKind, TraitValue};
use serde::Serialize;

use super::{
    BatchError, EVENTS_MAX, EXPANDED_BYTES_MAX, JSON_BYTES_MAX, PAYLOAD_BYTES_MAX, SAMPLES_MAX, TEXT_BYTES_MAX,
    TEXTS_MAX, TRAITS_MAX, limit,
};

/// The payload of a batch.
pub(super) fn payload(batch: &Batch) -> Result<Vec<u8>, BatchError> {
    limit("samples", batch.samples.len(), SAMPLES_MAX as usize)?;
    limit("events", batch.events.len(), EVENTS_MAX as usize)?;
    let mut texts = Texts::default();
    let mut maps = Maps::default();
    let mut columns = Writer::default();
    write_samples(&batch.samples, &mut texts, &mut maps, &mut columns)?;
    for event in &batch.events {
        write_event(event, &mut texts, &mut columns)?;
    }
    limit("texts", texts.list.len(), TEXTS_MAX as usize)?;
    limit("bytes in memory", texts.expanded, EXPANDED_BYTES_MAX)?;

    let mut out = Writer::default();
    for count in [texts.list.len(), maps.list.len(), batch.samples.len(), batch.events.len()] {
        out.put(&(count as u32));
    }
    out.bytes.extend_from_slice(batch.id.as_bytes());
    limit("origin bytes", batch.origin.len(), TEXT_BYTES_MAX)?;
    out.put(&batch.origin.as_str());
    texts.list.iter().for_each(|text| out.put(text));
    maps.list.iter().for_each(|text| out.put(&text.as_str()));
    out.bytes.append(&mut columns.bytes);
    limit("payload bytes", out.bytes.len(), PAYLOAD_BYTES_MAX)?;
    Ok(out.bytes)
}

/// Column by column: like stands beside like, which zstd likes.
fn write_samples<'b>(
    samples: &'b [Sample],
    texts: &mut Texts<'b>,
    maps: &mut Maps,
    out: &mut Writer,
) -> Result<(), BatchError> {
    for sample in samples {
        out.bytes.extend_from_slice(sample.id.as_bytes());
    }
    for sample in samples {
        out.put(&texts.number(&sample.meter)?);
    }
    for sample in samples {
        out.bytes.push(kind_code(sample.kind));
    }
    for sample in samples {
        out.put(&texts.number(&sample.unit)?);
    }
    for sample in samples {
        out.bytes.extend_from_slice(&sample.value.to_bits().to_le_bytes());
    }
    let mut previous = 0;
    for sample in samples {
        let micros = sample.timestamp.micros();
        // Both are within +-2^58, so the difference does not overflow.
        out.put(&(micros - previous));
        previous = micros;
    }
    for sample in samples {
        out.put(&texts.number(&sample.resource_id)?);
    }
    for sample in samples {
        out.put(&texts.optional(sample.project_id.as_deref())?);
    }
    for sample in samples {
        out.put(&texts.optional(sample.user_id.as_deref())?);
    }
    for sample in samples {
        out.put(&texts.number(&sample.source)?);
    }
    for sample in samples {
        out.put(&maps.number(sample)?);
    }
    Ok(())
}

fn write_event<'b>(event: &'b Event, texts: &mut Texts<'b>, out: &mut Writer) -> Result<(), BatchError> {
    out.put(&texts.number(&event.message_id)?);
    out.put(&texts.number(&event.event_type)?);
    out.put(&event.generated_at.micros());
    limit("traits", event.traits.len(), TRAITS_MAX as usize)?;
    out.put(&(event.traits.len() as u32));
    for fact in &event.traits {
        out.put(&texts.number(&fact.name)?);
        match &fact.value {
            TraitValue::Text(text) => {
                out.bytes.push(1);
                out.put(&texts.number(text)?);
            }
            TraitValue::Integer(number) => {
                out.bytes.push(2);
                out.put(number);
            }
            TraitValue::Float(number) => {
                out.bytes.push(3);
                out.bytes.extend_from_slice(&number.to_bits().to_le_bytes());
            }
            TraitValue::Datetime(time) => {
                out.bytes.push(4);
                out.put(&time.micros());
            }
        }
    }
    match &event.raw {
        None => out.bytes.push(0),
        Some(raw) => {
            limit("raw notification bytes", raw.len(), JSON_BYTES_MAX)?;
            out.bytes.push(1);
            out.put(&raw.as_str());
        }
    }
    Ok(())
}

/// The number of a kind on the wire; never reused.
fn kind_code(kind: SampleKind) -> u8 {
    match kind {
        SampleKind::Gauge => 0,
        SampleKind::Delta => 1,
        SampleKind::Cumulative => 2,
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) {
        self.bytes = postcard::to_extend(value, std::mem::take(&mut self.bytes))
            .expect("numbers and texts always serialise into a growing vector");
    }
}

/// The dictionary, in order of first use.
#[derive(Default)]
struct Texts<'b> {
    list: Vec<&'b str>,
    numbers: HashMap<&'b str, u32>,
    expanded: usize,
}

impl<'b> Texts<'b> {
    fn number(&mut self, text: &'b str) -> Result<u32, BatchError> {
        limit("text bytes", text.len(), TEXT_BYTES_MAX)?;
        self.expanded += text.len();
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        let number = self.list.len() as u32;
        self.list.push(text);
        self.numbers.insert(text, number);
        Ok(number)
    }

    fn optional(&mut self, text: Option<&'b str>) -> Result<u32, BatchError> {
        text.map_or(Ok(0), |text| Ok(self.number(text)? + 1))
    }
}

/// Distinct metadata maps as JSON. Samples of one poll share their map, so most are found by address.
#[derive(Default)]
struct Maps {
    list: Vec<String>,
    by_address: HashMap<usize, u32>,
    by_text: HashMap<String, u32>,
}

impl Maps {
    fn number(&mut self, sample: &Sample) -> Result<u32, BatchError> {
        let address = Arc::as_ptr(&sample.metadata) as usize;
        if let Some(number) = self.by_address.get(&address) {
            return Ok(*number);
        }
        let text = serde_json::to_string(&*sample.metadata)
            .map_err(|_| BatchError::Malformed { what: "metadata is not JSON" })?;
        limit("metadata bytes", text.len(), JSON_BYTES_MAX)?;
        let number = match self.by_text.get(&text) {
            Some(number) => *number,
            None => {
                let number = self.list.len() as u32;
                self.by_text.insert(text.clone(), number);
                self.list.push(text);
                number
            }
        };
        self.by_address.insert(address, number);
        Ok(number)
    }
}
