//! Remote read and remote write 1.0 as a client speaks them: requests to send, answers to read.
//!
//! Prometheus' answer to a remote read and the body of a remote write have the same series in the same form, so what is read
//! of one server can be written to another without a loss: values are bits, stale markers among them. This file does no
//! input or output.

use crate::{
    ingest::protobuf::{Reader, Wire},
    prometheus::wire::{write_field, write_sample},
};

/// A matcher: `=`, `!=`, `=~` or `!~`, a label's name, a value.
pub type RemoteMatcher<'a> = (&'a str, &'a str, &'a str);

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Larger than was asked for.
    #[error("the answer would take {claimed} bytes, at most {max} are taken")]
    TooLarge {
        /// What it says of itself.
        claimed: usize,
        /// What the caller takes.
        max: usize,
    },
    /// Not what the protocol says.
    #[error("the answer is not one of remote read: {reason}")]
    Malformed {
        /// What is wrong, and where.
        reason: String,
    },
}

fn malformed(reason: impl ToString) -> RemoteError {
    RemoteError::Malformed { reason: reason.to_string() }
}

/// The body of a remote read for the samples from `start_ms` to `end_ms`, both included.
pub fn read_request(matchers: &[RemoteMatcher<'_>], start_ms: i64, end_ms: i64) -> Vec<u8> {
    let mut query = Vec::new();
    for (number, time) in [(1, start_ms), (2, end_ms)] {
        query.push(number << 3);
        write_varint(&mut query, time.cast_unsigned());
    }
    for (operator, name, value) in matchers {
        let kind = ["=", "!=", "=~", "!~"].iter().position(|known| known == operator).unwrap_or(0);
        let mut matcher = vec![1 << 3, kind as u8];
        write_field(&mut matcher, 2, name.as_bytes());
        write_field(&mut matcher, 3, value.as_bytes());
        write_field(&mut query, 3, &matcher);
    }
    let mut body = Vec::new();
    write_field(&mut body, 1, &query);
    compressed(&body)
}

fn write_varint(out: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn compressed(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).expect("what fits memory is shorter than 4 GiB")
}

/// A series of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteSeries {
    /// Names and values as they stand on the wire, sorted by name.
    pub labels: Vec<u8>,
    /// Milliseconds since the epoch, and the bits of the value.
    pub samples: Vec<(i64, u64)>,
}

/// Reads an answer of the form `SAMPLES`; each series goes to `visit`.
pub fn each_series(block: &[u8], bytes_max: usize, mut visit: impl FnMut(&RemoteSeries)) -> Result<(), RemoteError> {
    let claimed = snap::raw::decompress_len(block).map_err(malformed)?;
    if claimed > bytes_max {
        return Err(RemoteError::TooLarge { claimed, max: bytes_max });
    }
    let body = snap::raw::Decoder::new().decompress_vec(block).map_err(malformed)?;
    let mut answer = Reader::new(&body, 0);
    let mut series = RemoteSeries::default();
    while let Some((field, wire)) = answer.key().map_err(malformed)? {
        if (field, wire) != (1, Wire::Bytes) {
            answer.skip(wire).map_err(malformed)?;
            continue;
        }
        let mut result = answer.message().map_err(malformed)?;
        while let Some((field, wire)) = result.key().map_err(malformed)? {
            if (field, wire) != (1, Wire::Bytes) {
                result.skip(wire).map_err(malformed)?;
                continue;
            }
            read_series(result.message().map_err(malformed)?, &mut series)?;
            visit(&series);
        }
    }
    Ok(())
}

fn read_series(mut reader: Reader<'_>, series: &mut RemoteSeries) -> Result<(), RemoteError> {
    let mut labels: Vec<(&[u8], &[u8])> = Vec::new();
    series.samples.clear();
    while let Some((field, wire)) = reader.key().map_err(malformed)? {
        match (field, wire) {
            (1, Wire::Bytes) => {
                let mut label = reader.message().map_err(malformed)?;
                let (mut name, mut value): (&[u8], &[u8]) = (b"", b"");
                while let Some((field, wire)) = label.key().map_err(malformed)? {
                    match (field, wire) {
                        (1, Wire::Bytes) => name = label.bytes().map_err(malformed)?,
                        (2, Wire::Bytes) => value = label.bytes().map_err(malformed)?,
                        (_, wire) => label.skip(wire).map_err(malformed)?,
                    }
                }
                labels.push((name, value));
            }
            (2, Wire::Bytes) => {
                let mut sample = reader.message().map_err(malformed)?;
                let (mut time, mut bits) = (0, 0_f64.to_bits());
                while let Some((field, wire)) = sample.key().map_err(malformed)? {
                    match (field, wire) {
                        (1, Wire::Fixed64) => bits = sample.fixed64().map_err(malformed)?,
                        (2, Wire::Varint) => time = sample.varint().map_err(malformed)?.cast_signed(),
                        (_, wire) => sample.skip(wire).map_err(malformed)?,
                    }
                }
                series.samples.push((time, bits));
            }
            (_, wire) => reader.skip(wire).map_err(malformed)?,
        }
    }
    labels.sort_unstable();
    series.labels.clear();
    for (name, value) in labels {
        orzo_labels::write_label(&mut series.labels, name, value);
    }
    Ok(())
}

/// Bodies of remote write, filled one after the other.
#[derive(Debug)]
pub struct WriteBodies {
    samples_max: usize,
    body: Vec<u8>,
    samples: usize,
}

/// A body is sent once it has this many bytes.
const BODY_BYTES: usize = 1 << 20;

impl WriteBodies {
    /// With so many samples in each at most.
    pub fn new(samples_max: usize) -> Self {
        Self { samples_max: samples_max.max(1), body: Vec::new(), samples: 0 }
    }

    /// Adds a series; full bodies, compressed, go to `full`, with their samples.
    pub fn push(&mut self, series: &RemoteSeries, mut full: impl FnMut(Vec<u8>, usize)) {
        let mut rest = series.samples.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.samples_max - self.samples));
            let mut message = series.labels.clone();
            for (time, bits) in now {
                let mut sample = [0; 20];
                let length = write_sample(&mut sample, *time, f64::from_bits(*bits));
                write_field(&mut message, 2, &sample[..length]);
            }
            write_field(&mut self.body, 1, &message);
            self.samples += now.len();
            if self.samples == self.samples_max || self.body.len() >= BODY_BYTES {
                full(compressed(&self.body), self.samples);
                self.body.clear();
                self.samples = 0;
            }
            rest = later;
        }
    }

    /// What is left, if anything.
    pub fn finish(self) -> Option<(Vec<u8>, usize)> {
        (self.samples > 0).then(|| (compressed(&self.body), self.samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], samples: &[(i64, u64)]) -> RemoteSeries {
        let mut series = RemoteSeries { samples: samples.to_vec(), ..RemoteSeries::default() };
        for (name, value) in labels {
            orzo_labels::write_label(&mut series.labels, name.as_bytes(), value.as_bytes());
        }
        series
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let stale = 0x7ff0_0000_0000_0002;
        let all = [
            series(&[("__name__", "up"), ("a", "1")], &[(-5, 1.5_f64.to_bits()), (7, stale)]),
            series(&[("__name__", "up"), ("a", "2")], &(0..25).map(|n| (n, n as u64)).collect::<Vec<_>>()),
        ];
        let mut bodies = WriteBodies::new(10);
        let mut sent = Vec::new();
        for one in &all {
            bodies.push(one, |body, samples| sent.push((body, samples)));
        }
        sent.extend(bodies.finish());
        assert_eq!(sent.iter().map(|(_, samples)| *samples).collect::<Vec<_>>(), [10, 10, 7]);
        let mut found: Vec<RemoteSeries> = Vec::new();
        for (body, _) in sent {
            // A write's body is what stands in a result of an answer.
            let mut answer = Vec::new();
            write_field(&mut answer, 1, &snap::raw::Decoder::new().decompress_vec(&body).expect("whole"));
            let taken = each_series(&compressed(&answer), 1 << 20, |one| match found.last_mut() {
                Some(last) if last.labels == one.labels => last.samples.extend(&one.samples),
                _ => found.push(one.clone()),
            });
            taken.expect("read");
        }
        assert_eq!(found, all);
    }

    #[test]
    fn hostile_answers_are_refused() {
        let mut bomb = Vec::new();
        write_varint(&mut bomb, 3 << 30);
        assert!(matches!(each_series(&bomb, 1 << 20, |_| ()), Err(RemoteError::TooLarge { .. })));
        assert!(matches!(each_series(b"<html>", 1 << 20, |_| ()), Err(RemoteError::Malformed { .. })));
        let whole = {
            let mut answer = Vec::new();
            let mut result = Vec::new();
            let mut message = series(&[("__name__", "up")], &[]).labels;
            write_field(&mut message, 2, &[0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 5]);
            write_field(&mut result, 1, &message);
            write_field(&mut answer, 1, &result);
            answer
        };
        for end in 1..whole.len() {
            // Cut anywhere, it is refused or shorter, and nothing panics.
            let _ = each_series(&compressed(&whole[..end]), 1 << 20, |_| ());
        }
    }

    #[test]
    fn a_request_is_what_our_own_server_reads() {
        let body = read_request(&[("=", "__name__", "up"), ("!~", "job", "a.*")], -1, 5);
        let read = crate::prometheus::remote_read::asked(&body).expect("queries").0;
        assert_eq!((read[0].after_ms, read[0].until_ms, read[0].groups[0].len()), (-2, 5, 2));
        assert!(read[0].groups[0][1].is_match("b") && !read[0].groups[0][1].is_match("abc"));
    }
}
