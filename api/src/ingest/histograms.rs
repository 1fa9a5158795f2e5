//! Native histograms as remote write (both messages have the same form) and OTLP send them. What is wrong with one is told
//! and takes nothing from the others of a request.

use orzo_promql::{EXPONENTIAL_SCHEMAS, Histogram, ResetHint};
use orzo_query::WORDS_MAX;

use super::{
    IngestError,
    protobuf::{Reader, Wire},
};

/// The bits of the sum that says that a series has ended.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;
/// How far values around zero count as zero where a sender of OTLP does not say it, as in Prometheus' receiver.
const ZERO_THRESHOLD: f64 = 1e-128;

/// A histogram as it was sent; or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawHistogram {
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
    pub(crate) histogram: Result<Histogram, &'static str>,
}

/// Buckets of one side as they are on the wire.
#[derive(Default)]
struct Side {
    spans: Vec<(i64, u64)>,
    /// Differences of whole counts …
    deltas: Vec<i64>,
    /// … or counts.
    counts: Vec<f64>,
    is_too_long: bool,
}

impl Side {
    /// Keeps what a histogram may have; of what is too long only that it is.
    fn room<T>(list: &mut Vec<T>, is_too_long: &mut bool, one: T) {
        if list.len() < WORDS_MAX {
            list.push(one);
        } else {
            *is_too_long = true;
        }
    }

    fn buckets(self, is_whole: bool) -> Result<Vec<(i32, f64)>, &'static str> {
        if self.is_too_long {
            return Err("a histogram has too many buckets");
        }
        let counts = match is_whole {
            true => {
                let mut count = 0_i64;
                let whole = self.deltas.iter().map(|delta| {
                    count = count.saturating_add(*delta);
                    count as f64
                });
                whole.collect()
            }
            false => self.counts,
        };
        if counts.iter().any(|count| count.is_nan() || *count < 0.0) {
            return Err("a histogram has a bucket with less than nothing in it");
        }
        let (mut buckets, mut number) = (Vec::with_capacity(counts.len()), 0_i64);
        let mut counts = counts.into_iter();
        for (place, (offset, length)) in self.spans.into_iter().enumerate() {
            if place > 0 && offset < 0 {
                return Err("a histogram's runs of buckets overlap");
            }
            number += offset;
            for _ in 0..length {
                let Some(count) = counts.next() else { return Err("a histogram has fewer counts than buckets") };
                let own = i32::try_from(number).ok().filter(|own| own.unsigned_abs() < 1 << 30);
                buckets.push((own.ok_or("a histogram's bucket has a number out of range")?, count));
                number += 1;
            }
        }
        if counts.next().is_some() {
            return Err("a histogram has more counts than buckets");
        }
        Ok(buckets)
    }
}

/// Reads a `Histogram` of remote write.
pub(crate) fn read(mut reader: Reader<'_>) -> Result<RawHistogram, IngestError> {
    let (mut at_ms, mut whole_count, mut hint) = (0, None, ResetHint::Unknown);
    let mut histogram = Histogram::default();
    let (mut whole_zeros, mut negative, mut positive) = (0_u64, Side::default(), Side::default());
    let mut bounds_too_long = false;
    while let Some((field, wire)) = reader.key()? {
        let side = if field < 11 { &mut negative } else { &mut positive };
        match (field, wire) {
            (1, Wire::Varint) => whole_count = Some(reader.varint()?),
            (2, Wire::Fixed64) => histogram.count = f64::from_bits(reader.fixed64()?),
            (3, Wire::Fixed64) => histogram.sum = f64::from_bits(reader.fixed64()?),
            (4, Wire::Varint) => histogram.schema = i32::try_from(unzigzag(reader.varint()?)).unwrap_or(i32::MAX),
            (5, Wire::Fixed64) => histogram.zero_threshold = f64::from_bits(reader.fixed64()?),
            (6, Wire::Varint) => whole_zeros = reader.varint()?,
            (7, Wire::Fixed64) => histogram.zero_count = f64::from_bits(reader.fixed64()?),
            (8 | 11, Wire::Bytes) => {
                let span = read_span(reader.message()?)?;
                Side::room(&mut side.spans, &mut side.is_too_long, span);
            }
            (9 | 12, Wire::Varint) => {
                Side::room(&mut side.deltas, &mut side.is_too_long, unzigzag(reader.varint()?));
            }
            (9 | 12, Wire::Bytes) => {
                let mut packed = reader.message()?;
                while packed.place() < reader.place() {
                    Side::room(&mut side.deltas, &mut side.is_too_long, unzigzag(packed.varint()?));
                }
            }
            (10 | 13, Wire::Fixed64) => {
                Side::room(&mut side.counts, &mut side.is_too_long, f64::from_bits(reader.fixed64()?));
            }
            (10 | 13, Wire::Bytes) => {
                let mut packed = reader.message()?;
                while packed.place() < reader.place() {
                    Side::room(&mut side.counts, &mut side.is_too_long, f64::from_bits(packed.fixed64()?));
                }
            }
            (14, Wire::Varint) => {
                // Whether it goes on (2) is compared anyway.
                hint = match reader.varint()? {
                    1 => ResetHint::Reset,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                };
            }
            (15, Wire::Varint) => at_ms = reader.varint()?.cast_signed(),
            (16, Wire::Fixed64) => {
                Side::room(&mut histogram.bounds, &mut bounds_too_long, f64::from_bits(reader.fixed64()?));
            }
            (16, Wire::Bytes) => {
                let mut packed = reader.message()?;
                while packed.place() < reader.place() {
                    Side::room(&mut histogram.bounds, &mut bounds_too_long, f64::from_bits(packed.fixed64()?));
                }
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    if let Some(count) = whole_count {
        (histogram.count, histogram.zero_count) = (count as f64, whole_zeros as f64);
    }
    histogram.hint = hint;
    positive.is_too_long |= bounds_too_long;
    let sides =
        positive.buckets(whole_count.is_some()).and_then(|above| Ok((above, negative.buckets(whole_count.is_some())?)));
    let histogram = sides.and_then(|(above, below)| {
        (histogram.positive, histogram.negative) = (above, below);
        checked(histogram, whole_count.is_some())
    });
    Ok(RawHistogram { at_ms, histogram })
}

fn read_span(mut reader: Reader<'_>) -> Result<(i64, u64), IngestError> {
    let mut span = (0, 0);
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Varint) => span.0 = i64::from(unzigzag(reader.varint()?) as i32),
            (2, Wire::Varint) => span.1 = reader.varint()?.min(WORDS_MAX as u64 + 1),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(span)
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What Prometheus checks before it keeps one.
fn checked(histogram: Histogram, is_whole: bool) -> Result<Histogram, &'static str> {
    if histogram.sum.to_bits() == STALE_BITS {
        return Ok(Histogram { sum: histogram.sum, ..Histogram::default() });
    }
    if histogram.is_custom() {
        let is_sorted = histogram.bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if !is_sorted || histogram.bounds.iter().any(|bound| !bound.is_finite()) {
            return Err("a histogram's bounds do not grow");
        }
        let is_within = |number: i32| usize::try_from(number).is_ok_and(|number| number <= histogram.bounds.len());
        if !histogram.positive.iter().all(|(number, _)| is_within(*number)) {
            return Err("a histogram has more buckets than bounds");
        }
        if histogram.zero_count != 0.0 || histogram.zero_threshold != 0.0 || !histogram.negative.is_empty() {
            return Err("a histogram with bounds of its own has a zero bucket or buckets below zero");
        }
    } else if !EXPONENTIAL_SCHEMAS.contains(&histogram.schema) {
        return Err("a histogram has a schema that is not known");
    } else if !histogram.bounds.is_empty() {
        return Err("a histogram with growing bounds has bounds of its own too");
    }
    let is_number = |number: f64| !number.is_nan() && number >= 0.0;
    if !is_number(histogram.count) || !is_number(histogram.zero_count) || !is_number(histogram.zero_threshold) {
        return Err("a histogram has a count that is none");
    }
    let filled = histogram.positive.iter().chain(&histogram.negative).map(|(_, count)| count).sum::<f64>();
    let all = filled + histogram.zero_count;
    // NaN is counted and is in no bucket.
    let fits = if histogram.sum.is_nan() { all <= histogram.count } else { all == histogram.count };
    if is_whole && !fits {
        return Err("a histogram's buckets do not add up to its count");
    }
    Ok(histogram)
}

/// An exponential histogram of OTLP.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) scale: i32,
    pub(crate) zero_count: u64,
    pub(crate) zero_threshold: f64,
    /// Number of the first bucket, and counts.
    pub(crate) positive: (i32, Vec<u64>),
    pub(crate) negative: (i32, Vec<u64>),
}

impl Exponential {
    /// As Prometheus' own receiver takes it: finer scales than its finest become that.
    pub(crate) fn histogram(&self) -> Result<Histogram, &'static str> {
        let (finest, coarsest) = (*EXPONENTIAL_SCHEMAS.end(), *EXPONENTIAL_SCHEMAS.start());
        if self.scale < coarsest {
            return Err("an exponential histogram is coarser than any that is kept");
        }
        let by = u32::try_from(self.scale - finest.min(self.scale)).unwrap_or(0);
        let side = |(offset, counts): &(i32, Vec<u64>)| -> Result<Vec<(i32, f64)>, &'static str> {
            let mut buckets: Vec<(i32, f64)> = Vec::new();
            for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                // Theirs begin at a power, ours end there; beyond 32 bits of difference all is one bucket.
                let number = ((i64::from(*offset) + place as i64) >> by.min(62)) + 1;
                let number = i32::try_from(number).ok().filter(|own| own.unsigned_abs() < 1 << 30);
                let number = number.ok_or("a histogram's bucket has a number out of range")?;
                match buckets.last_mut() {
                    Some(last) if last.0 == number => last.1 += *count as f64,
                    _ => buckets.push((number, *count as f64)),
                }
            }
            Ok(buckets)
        };
        let threshold = Some(self.zero_threshold).filter(|threshold| *threshold > 0.0).unwrap_or(ZERO_THRESHOLD);
        let histogram = Histogram {
            schema: self.scale.min(finest),
            hint: ResetHint::Unknown,
            zero_threshold: threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum.unwrap_or(0.0),
            positive: side(&self.positive)?,
            negative: side(&self.negative)?,
            bounds: Vec::new(),
        };
        checked(histogram, false)
    }
}

/// What says that a series of histograms has ended.
pub(crate) fn stale() -> Histogram {
    Histogram { sum: f64::from_bits(STALE_BITS), ..Histogram::default() }
}
