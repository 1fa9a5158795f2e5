//! Prometheus remote write, messages 1.0 (`prometheus.WriteRequest`) and 2.0 (`io.prometheus.write.v2.Request`).
//!
//! A decompressed body comes in; each of its series goes to a visitor, with its labels as they stand on the wire (1.0)
//! or written in the same way from the symbol table (2.0). Labels are not looked into here: who knows them by their
//! bytes need not. What a series' labels mean, and whether they are fit to be kept, this file does not know.

use orzo_labels::write_label;

use super::{
    IngestError, SAMPLES_MAX,
    protobuf::{Reader, Wire},
};

/// The metric type `counter` of message 2.0: its series begin at 0.
const COUNTER: u64 = 1;

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RawSample {
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
    /// Bits are kept: some NaNs mean "stale".
    pub(crate) value: f64,
}

/// One series of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    /// Its labels as message 1.0 writes them, in the sender's order.
    pub(crate) labels: &'a [u8],
    /// Its samples in the sender's order.
    pub(crate) samples: &'a [RawSample],
    /// When a counter began at 0 (2.0).
    pub(crate) created_ms: Option<i64>,
    /// Exemplars that came with it.
    pub(crate) exemplars: u64,
    /// Native histograms that came with it.
    pub(crate) histograms: u64,
}

/// What is used again for each series.
#[derive(Default)]
struct Scratch {
    labels: Vec<u8>,
    samples: Vec<RawSample>,
    references: Vec<u64>,
    samples_seen: usize,
}

impl Scratch {
    fn sample(&mut self, mut reader: Reader<'_>) -> Result<(), IngestError> {
        self.samples_seen += 1;
        if self.samples_seen > SAMPLES_MAX {
            return Err(IngestError::TooManySamples);
        }
        let mut sample = RawSample { at_ms: 0, value: 0.0 };
        while let Some((field, wire)) = reader.key()? {
            match (field, wire) {
                (1, Wire::Fixed64) => sample.value = f64::from_bits(reader.fixed64()?),
                (2, Wire::Varint) => sample.at_ms = reader.varint()? as i64,
                (1 | 2, _) => return Err(reader.malformed("a sample's field has the wrong form")),
                (_, wire) => reader.skip(wire)?,
            }
        }
        self.samples.push(sample);
        Ok(())
    }
}

/// Reads a message 1.0.
pub(crate) fn read_v1(
    body: &[u8],
    mut visit: impl FnMut(Incoming<'_>) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let mut reader = Reader::new(body, 0);
    let mut scratch = Scratch::default();
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => {
                let bytes = reader.bytes()?;
                let series = Reader::new(bytes, reader.place() - bytes.len());
                series_v1(bytes, series, &mut scratch, &mut visit)?;
            }
            (1, _) => return Err(reader.malformed("a series has the wrong form")),
            // Metadata: types, helps and units, which say nothing about points.
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

fn series_v1(
    bytes: &[u8],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    visit: &mut impl FnMut(Incoming<'_>) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    scratch.samples.clear();
    scratch.labels.clear();
    let (mut labels, mut is_scattered) = (0..0, false);
    let (mut exemplars, mut histograms) = (0, 0);
    loop {
        let start = reader.at();
        let Some((field, wire)) = reader.key()? else { break };
        match (field, wire) {
            (1, Wire::Bytes) => {
                reader.bytes()?;
                let this = start..reader.at();
                if is_scattered {
                    scratch.labels.extend_from_slice(&bytes[this]);
                } else if labels.is_empty() {
                    labels = this;
                } else if labels.end == start {
                    labels.end = this.end;
                } else {
                    // Labels on both sides of samples are unusual but a valid message.
                    is_scattered = true;
                    scratch.labels.extend_from_slice(&bytes[labels.clone()]);
                    scratch.labels.extend_from_slice(&bytes[this]);
                }
            }
            (2, Wire::Bytes) => scratch.sample(reader.message()?)?,
            (3, Wire::Bytes) => {
                reader.bytes()?;
                exemplars += 1;
            }
            (4, Wire::Bytes) => {
                reader.bytes()?;
                histograms += 1;
            }
            (1..=4, _) => return Err(reader.malformed("a series' field has the wrong form")),
            (_, wire) => reader.skip(wire)?,
        }
    }
    let labels = if is_scattered { scratch.labels.as_slice() } else { &bytes[labels] };
    visit(Incoming { labels, samples: &scratch.samples, created_ms: None, exemplars, histograms })
}

/// Reads a message 2.0.
pub(crate) fn read_v2(
    body: &[u8],
    mut visit: impl FnMut(Incoming<'_>) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    // Series may stand before the symbols that they refer to.
    let mut symbols: Vec<&[u8]> = Vec::new();
    let mut reader = Reader::new(body, 0);
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (4, Wire::Bytes) => symbols.push(reader.bytes()?),
            (4 | 5, wire) if wire != Wire::Bytes => return Err(reader.malformed("a field has the wrong form")),
            (_, wire) => reader.skip(wire)?,
        }
    }
    if symbols.first().is_some_and(|first| !first.is_empty()) {
        return Err(IngestError::Malformed { at: 0, what: "the first symbol is not the empty one" });
    }
    let mut reader = Reader::new(body, 0);
    let mut scratch = Scratch::default();
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (5, Wire::Bytes) => series_v2(&symbols, reader.message()?, &mut scratch, &mut visit)?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

fn series_v2(
    symbols: &[&[u8]],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    visit: &mut impl FnMut(Incoming<'_>) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    scratch.samples.clear();
    scratch.labels.clear();
    scratch.references.clear();
    let place = reader.place();
    let (mut exemplars, mut histograms, mut created_ms, mut kind) = (0, 0, 0, 0);
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => {
                let mut packed = reader.message()?;
                let end = reader.place();
                while packed.place() < end {
                    scratch.references.push(packed.varint()?);
                }
            }
            (1, Wire::Varint) => scratch.references.push(reader.varint()?),
            (2, Wire::Bytes) => scratch.sample(reader.message()?)?,
            (3, Wire::Bytes) => {
                reader.bytes()?;
                histograms += 1;
            }
            (4, Wire::Bytes) => {
                reader.bytes()?;
                exemplars += 1;
            }
            (5, Wire::Bytes) => kind = metadata_kind(reader.message()?)?,
            (6, Wire::Varint) => created_ms = reader.varint()? as i64,
            (1..=6, _) => return Err(reader.malformed("a series' field has the wrong form")),
            (_, wire) => reader.skip(wire)?,
        }
    }
    let malformed = |what| Err(IngestError::Malformed { at: place, what });
    if !scratch.references.len().is_multiple_of(2) {
        return malformed("a label has a name and no value");
    }
    for pair in scratch.references.chunks_exact(2) {
        let symbol = |reference: u64| usize::try_from(reference).ok().and_then(|place| symbols.get(place).copied());
        let (Some(name), Some(value)) = (symbol(pair[0]), symbol(pair[1])) else {
            return malformed("a label refers to a symbol that is not there");
        };
        // References are short and symbols may be long: what they become together is bounded like any body.
        if scratch.labels.len() + name.len() + value.len() > super::DECODED_BYTES_MAX {
            return malformed("the labels of one series are larger than a whole body may be");
        }
        write_label(&mut scratch.labels, name, value);
    }
    let created_ms = (created_ms != 0 && kind == COUNTER).then_some(created_ms);
    visit(Incoming { labels: &scratch.labels, samples: &scratch.samples, created_ms, exemplars, histograms })
}

fn metadata_kind(mut reader: Reader<'_>) -> Result<u64, IngestError> {
    let mut kind = 0;
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Varint) => kind = reader.varint()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(kind)
}

/// The labels of a series as pairs, in the sender's order; refused if one is not text or repeats a name.
pub(crate) fn labels_of(labels: &[u8]) -> Result<Vec<(&str, &str)>, IngestError> {
    let mut reader = Reader::new(labels, 0);
    let mut pairs = Vec::new();
    while let Some(key) = reader.key()? {
        if key != (1, Wire::Bytes) {
            return Err(reader.malformed("a label has the wrong form"));
        }
        let mut label = reader.message()?;
        let (mut name, mut value) = ("", "");
        while let Some((field, wire)) = label.key()? {
            match (field, wire) {
                (1 | 2, Wire::Bytes) => {
                    let text = std::str::from_utf8(label.bytes()?);
                    let text = text.map_err(|_| label.malformed("a label is not UTF-8 text"))?;
                    *(if field == 1 { &mut name } else { &mut value }) = text;
                }
                (1 | 2, _) => return Err(label.malformed("a label's field has the wrong form")),
                (_, wire) => label.skip(wire)?,
            }
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

#[cfg(test)]
pub(crate) mod tests;
