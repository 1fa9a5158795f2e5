//! Prometheus remote write, messages 1.0 (`prometheus.WriteRequest`) and 2.0 (`io.prometheus.write.v2.Request`).
//!
//! A decompressed body comes in; each of its series goes to a visitor, with its labels as they stand on the wire (1.0)
//! or written in the same way from the symbol table (2.0). Labels are not looked into here: who knows them by their
//! bytes need not. What a series' labels mean, and whether they are fit to be kept, this file does not know.
//!
//! Most of a message 1.0 are labels of series that are known. Where a series ends as its one sample usually does, what
//! stands before is taken for its labels and looked up as it is; only what is not found is read label by label.

use orzo_labels::{METRIC_NAME, write_label};
use orzo_model::{MetricMetadata, SeriesId};

use super::{
    EXEMPLARS_MAX, IngestError, SAMPLES_MAX,
    histograms::{self, RawHistogram},
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

/// An exemplar as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RawExemplar {
    /// Names and values in the sender's order.
    pub(crate) labels: Vec<(String, String)>,
    /// What was observed.
    pub(crate) value: f64,
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
}

/// Bytes of an exemplar's labels that are read: one with more has more characters than an exemplar may have.
const EXEMPLAR_BYTES_MAX: usize = 4 * orzo_model::annotations::EXEMPLAR_CHARS_MAX;

impl RawExemplar {
    /// Adds a label; of one that is too long anyway only so much that this is still seen. A body may name a long text many
    /// times.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let before: usize = self.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if before <= EXEMPLAR_BYTES_MAX {
            let cut = |text: &str| text.chars().take(EXEMPLAR_BYTES_MAX).collect();
            self.labels.push((cut(name), cut(value)));
        }
    }
}

impl RawExemplar {
    /// With what was observed. One without a value is invalid in OTLP: it loses its time and is left out as one without.
    pub(crate) fn observing(self, value: Option<f64>) -> Self {
        match value {
            Some(value) => Self { value, ..self },
            None => Self { value: f64::NAN, at_ms: 0, ..self },
        }
    }

    /// Adds a trace's or a span's id, if there is one.
    pub(crate) fn name_id(&mut self, name: &str, id: &str) {
        if !id.is_empty() {
            self.push(name, id);
        }
    }
}

/// One series of a request.
#[derive(Clone, Debug)]
pub(crate) struct Incoming<'a> {
    /// The series that has these labels, if that was found while they were read.
    pub(crate) series: Option<SeriesId>,
    /// Its labels as message 1.0 writes them, in the sender's order.
    pub(crate) labels: &'a [u8],
    /// Its samples in the sender's order.
    pub(crate) samples: &'a [RawSample],
    /// When a counter began at 0 (2.0).
    pub(crate) created_ms: Option<i64>,
    /// Exemplars that came with it.
    pub(crate) exemplars: &'a [RawExemplar],
    /// Exemplars that came beyond what one request may bring.
    pub(crate) exemplars_beyond: u64,
    /// Its name, and what that means (2.0).
    pub(crate) metadata: Option<(&'a str, MetricMetadata)>,
    /// Native histograms that came with it.
    pub(crate) histograms: &'a [RawHistogram],
}

impl<'a> Incoming<'a> {
    /// Samples and nothing else.
    fn plain(series: Option<SeriesId>, labels: &'a [u8], samples: &'a [RawSample]) -> Self {
        Self {
            series,
            labels,
            samples,
            created_ms: None,
            exemplars: &[],
            exemplars_beyond: 0,
            metadata: None,
            histograms: &[],
        }
    }

    /// Whether it is samples and nothing else.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        !self.samples.is_empty()
            && self.created_ms.is_none()
            && self.exemplars.is_empty()
            && self.exemplars_beyond == 0
            && self.metadata.is_none()
            && self.histograms.is_empty()
    }
}

/// What is used again for each series.
#[derive(Default)]
struct Scratch {
    labels: Vec<u8>,
    samples: Vec<RawSample>,
    exemplars: Vec<RawExemplar>,
    histograms: Vec<RawHistogram>,
    references: Vec<u64>,
    samples_seen: usize,
    exemplars_seen: usize,
    /// Of this series.
    exemplars_beyond: u64,
}

impl Scratch {
    fn count_sample(&mut self) -> Result<(), IngestError> {
        self.samples_seen += 1;
        if self.samples_seen > SAMPLES_MAX {
            return Err(IngestError::TooManySamples);
        }
        Ok(())
    }

    /// Reads an exemplar; `label` reads one field of its labels and adds what it has.
    fn exemplar<'a>(
        &mut self,
        mut reader: Reader<'a>,
        mut label: impl FnMut(&mut Reader<'a>, Wire, &mut RawExemplar) -> Result<(), IngestError>,
    ) -> Result<(), IngestError> {
        self.count_sample()?;
        // What would be left out anyway takes no memory.
        self.exemplars_seen += 1;
        if self.exemplars_seen > EXEMPLARS_MAX {
            self.exemplars_beyond += 1;
            return Ok(());
        }
        let mut exemplar = RawExemplar::default();
        while let Some((field, wire)) = reader.key()? {
            match (field, wire) {
                (1, wire) => label(&mut reader, wire, &mut exemplar)?,
                (2, Wire::Fixed64) => exemplar.value = f64::from_bits(reader.fixed64()?),
                (3, Wire::Varint) => exemplar.at_ms = reader.varint()? as i64,
                (_, wire) => reader.skip(wire)?,
            }
        }
        self.exemplars.push(exemplar);
        Ok(())
    }

    fn histogram(&mut self, reader: Reader<'_>) -> Result<(), IngestError> {
        self.count_sample()?;
        self.histograms.push(histograms::read(reader)?);
        Ok(())
    }

    fn sample(&mut self, mut reader: Reader<'_>) -> Result<(), IngestError> {
        self.count_sample()?;
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

/// Reads a message 1.0. `known` gives the series of a whole and well-formed list of labels, and nothing for other bytes.
/// Gives where the first metadata stand, if there are any, for [`read_metadata_v1`].
pub(crate) fn read_v1(
    body: &[u8],
    known: impl Fn(&[u8]) -> Option<SeriesId>,
    mut visit: impl FnMut(Incoming<'_>) -> Result<(), IngestError>,
) -> Result<Option<usize>, IngestError> {
    let mut reader = Reader::new(body, 0);
    let (mut scratch, mut metadata_at) = (Scratch::default(), None);
    loop {
        let at = reader.at();
        let Some((field, wire)) = reader.key()? else { return Ok(metadata_at) };
        match (field, wire) {
            (1, Wire::Bytes) => {
                let bytes = reader.bytes()?;
                if let Some((labels, sample)) = split_usual(bytes)
                    && let Some(series) = known(labels)
                {
                    scratch.count_sample()?;
                    let (series, samples) = (Some(series), std::slice::from_ref(&sample));
                    visit(Incoming::plain(series, labels, samples))?;
                    continue;
                }
                let series = Reader::new(bytes, reader.place() - bytes.len());
                series_v1(bytes, series, &mut scratch, &mut visit)?;
            }
            (1, _) => return Err(reader.malformed("a series has the wrong form")),
            (field, wire) => {
                if field == METADATA {
                    metadata_at.get_or_insert(at);
                }
                reader.skip(wire)?;
            }
        }
    }
}

/// The field of a message 1.0 that says what names mean.
const METADATA: u64 = 3;

/// Keys and lengths of a sample as senders write it: a message of so many bytes, a value, a time.
const SAMPLE_KEY: u8 = 0x12;
const VALUE_KEY: u8 = 0x09;
const TIME_KEY: u8 = 0x10;
/// Bytes of a time of the years 2004 to 2527, in milliseconds.
const TIME_BYTES: usize = 6;

/// What stands before a series' last bytes, if those look like the one sample that most series have. They may be something
/// else; but if what stands before is a whole list of labels, they are what follows it.
#[inline]
fn split_usual(series: &[u8]) -> Option<(&[u8], RawSample)> {
    if let Some((labels, [SAMPLE_KEY, 16, VALUE_KEY, rest @ ..])) = series.split_last_chunk::<18>()
        && let Some((value, [TIME_KEY, time @ ..])) = rest.split_first_chunk::<8>()
        && let Some(at_ms) = usual_time(time)
    {
        return Some((labels, RawSample { at_ms, value: f64::from_le_bytes(*value) }));
    }
    // A value of zero is not written.
    match series.split_last_chunk::<9>()? {
        (labels, [SAMPLE_KEY, 7, TIME_KEY, time @ ..]) => {
            Some((labels, RawSample { at_ms: usual_time(time)?, value: 0.0 }))
        }
        _ => None,
    }
}

/// A number of exactly six bytes of seven bits.
#[inline]
fn usual_time(bytes: &[u8]) -> Option<i64> {
    let bytes: &[u8; TIME_BYTES] = bytes.try_into().ok()?;
    let [all @ .., last] = bytes;
    if all.iter().any(|byte| *byte < 0x80) || *last >= 0x80 {
        return None;
    }
    Some(bytes.iter().rev().fold(0, |number, byte| number << 7 | i64::from(byte & 0x7f)))
}

fn series_v1(
    bytes: &[u8],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    visit: &mut impl FnMut(Incoming<'_>) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    scratch.samples.clear();
    scratch.labels.clear();
    scratch.exemplars.clear();
    scratch.exemplars_beyond = 0;
    scratch.histograms.clear();
    let (mut labels, mut is_scattered) = (0..0, false);
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
            (3, Wire::Bytes) => scratch.exemplar(reader.message()?, exemplar_label_v1)?,
            (4, Wire::Bytes) => scratch.histogram(reader.message()?)?,
            (1..=4, _) => return Err(reader.malformed("a series' field has the wrong form")),
            (_, wire) => reader.skip(wire)?,
        }
    }
    let labels = if is_scattered { scratch.labels.as_slice() } else { &bytes[labels] };
    let (samples, exemplars) = (scratch.samples.as_slice(), scratch.exemplars.as_slice());
    let (exemplars_beyond, histograms) = (scratch.exemplars_beyond, scratch.histograms.as_slice());
    visit(Incoming { exemplars, exemplars_beyond, histograms, ..Incoming::plain(None, labels, samples) })
}

fn exemplar_label_v1(reader: &mut Reader<'_>, wire: Wire, exemplar: &mut RawExemplar) -> Result<(), IngestError> {
    if wire != Wire::Bytes {
        return Err(reader.malformed("an exemplar's label has the wrong form"));
    }
    let (name, value) = label_of(reader.message()?)?;
    exemplar.push(name, value);
    Ok(())
}

/// Reads what a message 1.0 says of metrics' names, from a field that begins at `from`.
pub(crate) fn read_metadata_v1(
    body: &[u8],
    from: usize,
    mut visit: impl FnMut(&str, MetricMetadata),
) -> Result<(), IngestError> {
    let mut reader = Reader::new(&body[from..], from);
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (METADATA, Wire::Bytes) => {
                let mut about = reader.message()?;
                let (mut kind, mut name, mut help, mut unit) = (0, "", "", "");
                while let Some((field, wire)) = about.key()? {
                    match (field, wire) {
                        (1, Wire::Varint) => kind = about.varint()?,
                        (2, Wire::Bytes) => name = text(&mut about)?,
                        (4, Wire::Bytes) => help = text(&mut about)?,
                        (5, Wire::Bytes) => unit = text(&mut about)?,
                        (_, wire) => about.skip(wire)?,
                    }
                }
                visit(name, MetricMetadata::new(MetricMetadata::kind_of(kind), help, unit));
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, IngestError> {
    std::str::from_utf8(reader.bytes()?).map_err(|_| reader.malformed("a text is not UTF-8"))
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
    scratch.exemplars.clear();
    scratch.exemplars_beyond = 0;
    scratch.histograms.clear();
    let place = reader.place();
    let (mut created_ms, mut about) = (0, None);
    let symbol = |reference: u64| usize::try_from(reference).ok().and_then(|place| symbols.get(place).copied());
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
            (3, Wire::Bytes) => scratch.histogram(reader.message()?)?,
            (4, Wire::Bytes) => {
                let label = |reader: &mut Reader<'_>, wire, exemplar: &mut RawExemplar| {
                    exemplar_labels_v2(reader, wire, exemplar, &symbol)
                };
                scratch.exemplar(reader.message()?, label)?;
            }
            (5, Wire::Bytes) => about = Some(metadata_v2(reader.message()?)?),
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
        let (Some(name), Some(value)) = (symbol(pair[0]), symbol(pair[1])) else {
            return malformed("a label refers to a symbol that is not there");
        };
        // References are short and symbols may be long: what they become together is bounded like any body.
        if scratch.labels.len() + name.len() + value.len() > super::DECODED_BYTES_MAX {
            return malformed("the labels of one series are larger than a whole body may be");
        }
        write_label(&mut scratch.labels, name, value);
    }
    let is_counter = about.is_some_and(|about| about.kind == COUNTER);
    let created_ms = (created_ms != 0 && is_counter).then_some(created_ms);
    let name = scratch.references.chunks_exact(2).find(|pair| symbol(pair[0]) == Some(METRIC_NAME.as_bytes()));
    let told = |reference: u64| {
        let text = symbol(reference).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.ok_or(IngestError::Malformed { at: place, what: "metadata refers to a symbol that is not there" })
    };
    let metadata = match (name, about) {
        (Some(pair), Some(about)) if about.is_said() => {
            let kind = MetricMetadata::kind_of(about.kind);
            Some((told(pair[1])?, MetricMetadata::new(kind, told(about.help)?, told(about.unit)?)))
        }
        _ => None,
    };
    let (labels, samples) = (scratch.labels.as_slice(), scratch.samples.as_slice());
    let (exemplars, exemplars_beyond) = (scratch.exemplars.as_slice(), scratch.exemplars_beyond);
    let (histograms, plain) = (scratch.histograms.as_slice(), Incoming::plain(None, labels, samples));
    visit(Incoming { created_ms, exemplars, exemplars_beyond, metadata, histograms, ..plain })
}

/// A series' metadata in message 2.0; texts by their symbols.
#[derive(Clone, Copy, Default)]
struct MetadataV2 {
    kind: u64,
    help: u64,
    unit: u64,
}

impl MetadataV2 {
    /// Whether there is anything in it.
    fn is_said(&self) -> bool {
        self.kind != 0 || self.help != 0 || self.unit != 0
    }
}

fn metadata_v2(mut reader: Reader<'_>) -> Result<MetadataV2, IngestError> {
    let mut about = MetadataV2::default();
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Varint) => about.kind = reader.varint()?,
            (3, Wire::Varint) => about.help = reader.varint()?,
            (4, Wire::Varint) => about.unit = reader.varint()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(about)
}

fn exemplar_labels_v2<'s>(
    reader: &mut Reader<'_>,
    wire: Wire,
    exemplar: &mut RawExemplar,
    symbol: &impl Fn(u64) -> Option<&'s [u8]>,
) -> Result<(), IngestError> {
    const WRONG: &str = "an exemplar's labels have the wrong form";
    if wire != Wire::Bytes {
        return Err(reader.malformed(WRONG));
    }
    let mut packed = reader.message()?;
    let end = reader.place();
    while packed.place() < end {
        let pair = (symbol(packed.varint()?), symbol(packed.varint()?));
        let text = |bytes: Option<&'s [u8]>| {
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.ok_or_else(|| reader.malformed(WRONG))
        };
        exemplar.push(text(pair.0)?, text(pair.1)?);
    }
    Ok(())
}

/// The labels of a series as pairs, in the sender's order; refused if one is not text or repeats a name.
pub(crate) fn labels_of(labels: &[u8]) -> Result<Vec<(&str, &str)>, IngestError> {
    let mut reader = Reader::new(labels, 0);
    let mut pairs = Vec::new();
    while let Some(key) = reader.key()? {
        if key != (1, Wire::Bytes) {
            return Err(reader.malformed("a label has the wrong form"));
        }
        pairs.push(label_of(reader.message()?)?);
    }
    Ok(pairs)
}

fn label_of(mut label: Reader<'_>) -> Result<(&str, &str), IngestError> {
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
    Ok((name, value))
}

#[cfg(test)]
pub(crate) mod tests;
