//! Remote read: points of series for another Prometheus, as one snappy block of samples (`SAMPLES`) or as a stream of
//! chunks (`STREAMED_XOR_CHUNKS`), whichever the request names first.
//!
//! `body → snappy → queries → series → messages`. A caller reads what PromQL would let it read.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use orzo_promql::{Histogram, Matcher, QueryError, RawSeries, ResetHint, Selection, SeriesSource, number_of};

use super::{
    Sender, chunks,
    query::named,
    wire::{write_double, write_field, write_number, write_sample, write_varint},
};
use crate::{
    SharedApi,
    ingest::{
        IngestError,
        protobuf::{Reader, Wire},
        snappy,
    },
    problem::Problem,
    request::body_bytes,
};

/// Queries of one request; Prometheus sends one for each selector.
const QUERIES_MAX: usize = 100;
/// Matchers of one query; more are a mistake.
const MATCHERS_MAX: usize = 100;
/// Series of one answer.
const SERIES_MAX: usize = 100_000;
/// Points of one answer: 10 to 20 bytes each, which are in memory twice.
const POINTS_MAX: usize = 5_000_000;

/// `POST /api/v1/read`; what is wrong is told as text.
pub(super) async fn read(Sender(caller): Sender, State(api): State<SharedApi>, body: Body) -> Response {
    let told = |problem: Problem| {
        let text = problem.description.as_str().unwrap_or("").to_owned();
        (problem.status, text).into_response()
    };
    let (selections, form) = match body_bytes(body).await.and_then(|body| asked(&body)) {
        Ok(asked) => asked,
        Err(problem) => return told(problem),
    };
    let source = named(&api, &caller);
    let (mut results, mut series, mut points) = (Vec::with_capacity(selections.len()), 0, 0);
    for selection in &selections {
        let mut found = match source.select(selection, SERIES_MAX - series, POINTS_MAX - points).await {
            Ok(found) => found,
            Err(error) => return told(problem_of(error)),
        };
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        series += found.len();
        points += found.iter().map(|one| one.times.len()).sum::<usize>();
        results.push(found);
    }
    // Chunks of histograms have encodings of their own; who takes chunks takes samples as well.
    let has_histograms = results.iter().flatten().any(|one| !one.histograms.is_empty());
    let form = if has_histograms { Form::Samples } else { form };
    let written = tokio::task::spawn_blocking(move || match form {
        Form::Samples => snap::raw::Encoder::new().compress_vec(&message(&results)).map_err(|error| error.to_string()),
        Form::Chunks => Ok(frames(&results)),
    });
    match written.await {
        Ok(Ok(frames)) if form == Form::Chunks => ([(header::CONTENT_TYPE, CHUNKED)], frames).into_response(),
        Ok(Ok(block)) => {
            let headers = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
            (headers, block).into_response()
        }
        Ok(Err(text)) => told(Problem::bad(text)),
        Err(_) => told(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")),
    }
}

fn problem_of(error: QueryError) -> Problem {
    match error {
        QueryError::Source(source) => {
            tracing::warn!(error = &*source as &dyn std::error::Error, "the points of a remote read could not be read");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the points could not be read")
        }
        other => Problem::bad(other.to_string()),
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One message of samples.
    Samples,
    /// Messages of chunks, each in a frame.
    Chunks,
}

impl Form {
    /// By its number in the protocol.
    fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Samples),
            1 => Some(Self::Chunks),
            _ => None,
        }
    }
}

/// The queries of a request, and the first form in it that is known here.
pub(crate) fn asked(block: &[u8]) -> Result<(Vec<Selection>, Form), Problem> {
    let body = snappy::decode(block)?;
    let mut reader = Reader::new(&body, 0);
    let (mut selections, mut form) = (Vec::new(), None);
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => {
                if selections.len() == QUERIES_MAX {
                    return Err(Problem::bad(format!("more than {QUERIES_MAX} queries")));
                }
                selections.push(selection(reader.message()?)?);
            }
            (2, Wire::Varint) => form = form.or(Form::of(reader.varint()?)),
            (2, Wire::Bytes) => {
                let mut packed = reader.message()?;
                while packed.place() < reader.place() {
                    form = form.or(Form::of(packed.varint()?));
                }
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    // Who names no form, or none that is known, is of the time when there was one.
    Ok((selections, form.unwrap_or(Form::Samples)))
}

fn selection(mut reader: Reader<'_>) -> Result<Selection, Problem> {
    let (mut start, mut end, mut matchers) = (0, 0, Vec::new());
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Varint) => start = reader.varint()?.cast_signed(),
            (2, Wire::Varint) => end = reader.varint()?.cast_signed(),
            (3, Wire::Bytes) => {
                if matchers.len() == MATCHERS_MAX {
                    return Err(Problem::bad(format!("more than {MATCHERS_MAX} matchers")));
                }
                matchers.push(matcher(reader.message()?)?);
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    // Points at the start belong to it.
    Ok(Selection { groups: vec![matchers], after_ms: start.saturating_sub(1), until_ms: end, newest_only: false })
}

fn matcher(mut reader: Reader<'_>) -> Result<Matcher, Problem> {
    let (mut kind, mut name, mut value) = (0, String::new(), String::new());
    let text = |reader: &mut Reader<'_>| -> Result<String, IngestError> {
        let bytes = reader.bytes()?;
        let text = std::str::from_utf8(bytes).map_err(|_| reader.malformed("a text that is not UTF-8"))?;
        Ok(text.to_owned())
    };
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Varint) => kind = reader.varint()?,
            (2, Wire::Bytes) => name = text(&mut reader)?,
            (3, Wire::Bytes) => value = text(&mut reader)?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    let operator = match kind {
        0 => "=",
        1 => "!=",
        2 => "=~",
        3 => "!~",
        other => return Err(Problem::bad(format!("a matcher of the unknown type {other}"))),
    };
    Matcher::new(name, operator, value).map_err(|error| Problem::bad(error.to_string()))
}

/// A `ReadResponse`: for each query its series with their samples, stale markers among them.
fn message(results: &[Vec<RawSeries>]) -> Vec<u8> {
    let mut out = Vec::new();
    for result in results {
        let mut series = Vec::new();
        for one in result {
            let mut message = Vec::with_capacity(64 + one.times.len() * 20);
            for (name, value) in one.labels.iter() {
                orzo_labels::write_label(&mut message, name.as_bytes(), value.as_bytes());
            }
            let mut is_after_histogram = false;
            for (time, value) in one.times.iter().zip(one.values.iter()) {
                let histogram = number_of(*value).and_then(|number| one.histograms.get(number));
                if let Some(histogram) = histogram {
                    write_field(&mut message, 4, &histogram_message(*time, histogram));
                    is_after_histogram = true;
                    continue;
                }
                if std::mem::take(&mut is_after_histogram) && value.to_bits() == STALE_BITS {
                    // A series of histograms ends with one whose sum is the marker.
                    let end = Histogram { sum: *value, ..Histogram::default() };
                    write_field(&mut message, 4, &histogram_message(*time, &end));
                    continue;
                }
                let mut sample = [0_u8; 20];
                let length = write_sample(&mut sample, *time, *value);
                write_field(&mut message, 2, &sample[..length]);
            }
            write_field(&mut series, 1, &message);
        }
        write_field(&mut out, 1, &series);
    }
    out
}

/// A `Histogram`: counts as doubles, since that is how they are kept.
pub(crate) fn histogram_message(time: i64, histogram: &Histogram) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + histogram.positive.len() * 12);
    let zigzag = |number: i64| (number << 1 ^ number >> 63).cast_unsigned();
    for (field, number) in
        [(2, histogram.count), (3, histogram.sum), (5, histogram.zero_threshold), (7, histogram.zero_count)]
    {
        write_double(&mut out, field, number);
    }
    write_number(&mut out, 4, zigzag(i64::from(histogram.schema)));
    for (spans, counts, buckets) in [(8, 10, &histogram.negative), (11, 13, &histogram.positive)] {
        let mut end = 0;
        let mut runs: Vec<(i64, u64)> = Vec::new();
        for (number, _) in buckets {
            let number = i64::from(*number);
            match runs.last_mut() {
                Some((_, length)) if number == end => *length += 1,
                _ => runs.push((number - end, 1)),
            }
            end = number + 1;
        }
        for (offset, length) in runs {
            let mut span = Vec::new();
            write_number(&mut span, 1, zigzag(offset));
            write_number(&mut span, 2, length);
            write_field(&mut out, spans, &span);
        }
        let packed: Vec<u8> = buckets.iter().flat_map(|(_, count)| count.to_le_bytes()).collect();
        write_field(&mut out, counts, &packed);
    }
    let hint = match histogram.hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::Gauge => 3,
    };
    write_number(&mut out, 14, hint);
    write_number(&mut out, 15, time.cast_unsigned());
    if !histogram.bounds.is_empty() {
        let packed: Vec<u8> = histogram.bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
        // Field 16 takes two bytes for its key.
        out.extend_from_slice(&[0x82, 0x01]);
        write_varint(&mut out, packed.len() as u64);
        out.extend(packed);
    }
    out
}

/// The content type of a stream of chunks.
const CHUNKED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
/// The bits of the NaN with which Prometheus marks the end of a series.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Bytes of chunks in one frame: Prometheus takes no frame above 50 MB, and one series is rarely more than this.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// `Chunk.Encoding.XOR`
const XOR: u8 = 1;

/// `ChunkedReadResponse`s, one for each series, each behind its length (a varint) and its CRC-32C (big-endian).
fn frames(results: &[Vec<RawSeries>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (query, result) in results.iter().enumerate() {
        for one in result {
            let mut labels = Vec::new();
            for (name, value) in one.labels.iter() {
                orzo_labels::write_label(&mut labels, name.as_bytes(), value.as_bytes());
            }
            let mut series = labels.clone();
            for chunk in chunks::chunks(&one.times, &one.values) {
                if series.len() + chunk.bytes.len() > FRAME_BYTES_MAX {
                    write_frame(&mut out, &series, query);
                    series.clone_from(&labels);
                }
                let mut message = Vec::with_capacity(chunk.bytes.len() + 32);
                write_number(&mut message, 1, chunk.first_ms.cast_unsigned());
                write_number(&mut message, 2, chunk.last_ms.cast_unsigned());
                write_number(&mut message, 3, u64::from(XOR));
                write_field(&mut message, 4, &chunk.bytes);
                write_field(&mut series, 2, &message);
            }
            write_frame(&mut out, &series, query);
        }
    }
    out
}

fn write_frame(out: &mut Vec<u8>, series: &[u8], query: usize) {
    let mut message = Vec::with_capacity(series.len() + 16);
    write_field(&mut message, 1, series);
    write_number(&mut message, 2, query as u64);
    write_varint(out, message.len() as u64);
    out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A body with queries of matchers (kind, name, value) between two times in milliseconds.
    pub(crate) fn request(queries: &[&[(u8, &str, &str)]], start_ms: i64, end_ms: i64) -> Vec<u8> {
        let mut body = Vec::new();
        for matchers in queries {
            let mut query = Vec::new();
            for (key, time) in [(0x08, start_ms), (0x10, end_ms)] {
                query.push(key);
                let mut sample = [0_u8; 20];
                let length = write_sample(&mut sample, time, 0.0);
                query.extend_from_slice(&sample[10..length]);
            }
            for (kind, name, value) in *matchers {
                let mut one = vec![0x08, *kind];
                write_field(&mut one, 2, name.as_bytes());
                write_field(&mut one, 3, value.as_bytes());
                write_field(&mut query, 3, &one);
            }
            write_field(&mut body, 1, &query);
        }
        snap::raw::Encoder::new().compress_vec(&body).expect("compressed")
    }

    #[test]
    fn queries_are_read() {
        let selections = |block: &[u8]| asked(block).map(|(selections, _)| selections);
        let read = selections(&request(&[&[(0, "__name__", "up"), (3, "job", "a.*")], &[]], -1, 5)).expect("queries");
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].after_ms, read[0].until_ms, read[0].groups[0].len()), (-2, 5, 2));
        assert!(read[0].groups[0][1].is_match("b") && !read[0].groups[0][1].is_match("abc"));
        for wrong in [&[(4, "a", "b")][..], &[(2, "a", "(")]] {
            assert_eq!(selections(&request(&[wrong], -1, 5)).expect_err("refused").status, StatusCode::BAD_REQUEST);
        }
        let many: Vec<&[(u8, &str, &str)]> = vec![&[]; QUERIES_MAX + 1];
        assert!(selections(&request(&many, -1, 5)).is_err());
        let whole = request(&[&[(0, "__name__", "up")]], -1, 5);
        for end in 0..whole.len() {
            // Cut anywhere, it is refused or shorter, and nothing panics.
            let _ = selections(&whole[..end]);
        }
    }

    #[test]
    fn the_first_form_that_is_known_is_answered() {
        for (forms, form) in [
            (&b""[..], Form::Samples),
            (b"\x10\x01\x10\x00", Form::Chunks),
            (b"\x12\x02\x01\x00", Form::Chunks),
            (b"\x12\x02\x00\x01", Form::Samples),
            (b"\x12\x02\x07\x01", Form::Chunks),
        ] {
            let block = snap::raw::Encoder::new().compress_vec(forms).expect("compressed");
            assert_eq!(asked(&block).expect("read").1, form, "{forms:?}");
        }
    }

    #[test]
    fn each_series_is_a_frame_of_chunks_with_its_checksum() {
        let times: Vec<i64> = (0..200).map(|at| at * 15_000).collect();
        let values: Vec<f64> = (0..200).map(f64::from).collect();
        let labels = orzo_promql::Labels::new([("__name__", "up")]);
        let series = RawSeries { labels, times: times.into(), values, histograms: Vec::new() };
        let framed = frames(&[vec![], vec![series]]);
        let mut reader = Reader::new(&framed, 0);
        let length = reader.varint().expect("a length") as usize;
        let (checksum, message) = framed[reader.at()..].split_at(4);
        assert_eq!((message.len(), checksum), (length, &crc32c::crc32c(message).to_be_bytes()[..]));
        let mut response = Reader::new(message, 0);
        assert_eq!(response.key().expect("a key"), Some((1, Wire::Bytes)));
        let mut series = response.message().expect("a series");
        assert_eq!(response.key().expect("a key"), Some((2, Wire::Varint)));
        assert_eq!(response.varint(), Ok(1), "the second query");
        let (mut labels, mut read) = (0, Vec::new());
        while let Some((field, wire)) = series.key().expect("a field") {
            let mut one = series.message().expect("a message");
            match (field, wire) {
                (1, Wire::Bytes) => labels += 1,
                (2, Wire::Bytes) => {
                    while let Some((field, wire)) = one.key().expect("a field") {
                        match (field, wire) {
                            (4, Wire::Bytes) => read.extend(chunks::tests::decoded(one.bytes().expect("a chunk"))),
                            (3, Wire::Varint) => assert_eq!(one.varint(), Ok(1)),
                            (_, wire) => one.skip(wire).expect("skipped"),
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((labels, read.len(), read[199]), (1, 200, (199 * 15_000, 199.0_f64.to_bits())));
    }

    #[test]
    fn a_series_of_histograms_ends_with_a_histogram() {
        let stale = f64::from_bits(STALE_BITS);
        let series = RawSeries {
            labels: orzo_promql::Labels::new([("__name__", "took_seconds")]),
            times: vec![1, 2, 3].into(),
            values: vec![orzo_promql::marked(0), stale, stale],
            histograms: vec![Histogram { count: 7.0, ..Histogram::default() }.into()],
        };
        let answer = message(&[vec![series]]);
        let mut reader = Reader::new(&answer, 0);
        assert_eq!(reader.key(), Ok(Some((1, Wire::Bytes))));
        let mut result = reader.message().expect("a result");
        assert_eq!(result.key(), Ok(Some((1, Wire::Bytes))));
        let mut series = result.message().expect("a series");
        let mut fields = Vec::new();
        while let Some((field, _)) = series.key().expect("a field") {
            let bytes = series.bytes().expect("a message");
            let has_marker = bytes.windows(8).any(|part| part == stale.to_le_bytes());
            fields.push((field, has_marker));
        }
        // A label, a histogram, its end; a number's end is a number.
        assert_eq!(fields, [(1, false), (4, false), (4, true), (2, true)]);
    }

    #[test]
    fn an_answer_is_a_message_of_the_same_form_as_a_write() {
        let series = RawSeries {
            labels: orzo_promql::Labels::new([("__name__", "up")]),
            times: vec![-1, 300].into(),
            values: vec![1.0, f64::NAN],
            histograms: Vec::new(),
        };
        let answer = message(&[vec![series], vec![]]);
        let mut reader = Reader::new(&answer, 0);
        assert_eq!(reader.key().expect("a key"), Some((1, Wire::Bytes)));
        let result = reader.bytes().expect("a result");
        let written =
            crate::ingest::remote_write::tests::write_v1(&[(&[("__name__", "up")], &[(-1, 1.0), (300, f64::NAN)])]);
        assert_eq!(result, written);
        assert_eq!(reader.key().expect("a key"), Some((1, Wire::Bytes)));
        assert_eq!(reader.bytes().expect("a result"), b"");
    }
}
