//! Remote read: samples of series for another Prometheus, as one snappy block (the form `SAMPLES`; who asks for streamed
//! chunks takes this too, as the specification says).
//!
//! `body → snappy → queries → series → message → snappy`. A caller reads what PromQL would let it read.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use orzo_promql::{Matcher, QueryError, RawSeries, Selection, SeriesSource};

use super::{Sender, query::named};
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
    let selections = match body_bytes(body).await.and_then(|body| selections(&body)) {
        Ok(selections) => selections,
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
    let written = tokio::task::spawn_blocking(move || {
        snap::raw::Encoder::new().compress_vec(&message(&results)).map_err(|error| error.to_string())
    });
    match written.await {
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

/// The queries of a request.
fn selections(block: &[u8]) -> Result<Vec<Selection>, Problem> {
    let body = snappy::decode(block)?;
    let mut reader = Reader::new(&body, 0);
    let mut selections = Vec::new();
    while let Some((field, wire)) = reader.key()? {
        match (field, wire) {
            (1, Wire::Bytes) => {
                if selections.len() == QUERIES_MAX {
                    return Err(Problem::bad(format!("more than {QUERIES_MAX} queries")));
                }
                selections.push(selection(reader.message()?)?);
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(selections)
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
    Ok(Selection { groups: vec![matchers], after_ms: start.saturating_sub(1), until_ms: end })
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
            for (time, value) in one.times.iter().zip(one.values.iter()) {
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

/// A value and its time; the bytes that it took of 20.
fn write_sample(out: &mut [u8; 20], time: i64, value: f64) -> usize {
    out[0] = 0x09;
    out[1..9].copy_from_slice(&value.to_le_bytes());
    out[9] = 0x10;
    let (mut at, mut rest) = (10, time.cast_unsigned());
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

fn write_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut rest = bytes.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(queries: &[&[(u8, &str, &str)]]) -> Vec<u8> {
        let mut body = Vec::new();
        for matchers in queries {
            // From -1 ms to 5 ms.
            let mut query = vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x10, 5];
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
        let read = selections(&request(&[&[(0, "__name__", "up"), (3, "job", "a.*")], &[]])).expect("queries");
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].after_ms, read[0].until_ms, read[0].groups[0].len()), (-2, 5, 2));
        assert!(read[0].groups[0][1].is_match("b") && !read[0].groups[0][1].is_match("abc"));
        for wrong in [&[(4, "a", "b")][..], &[(2, "a", "(")]] {
            assert_eq!(selections(&request(&[wrong])).expect_err("refused").status, StatusCode::BAD_REQUEST);
        }
        let many: Vec<&[(u8, &str, &str)]> = vec![&[]; QUERIES_MAX + 1];
        assert!(selections(&request(&many)).is_err());
        let whole = request(&[&[(0, "__name__", "up")]]);
        for end in 0..whole.len() {
            // Cut anywhere, it is refused or shorter, and nothing panics.
            let _ = selections(&whole[..end]);
        }
    }

    #[test]
    fn an_answer_is_a_message_of_the_same_form_as_a_write() {
        let series = RawSeries {
            labels: orzo_promql::Labels::new([("__name__", "up")]),
            times: vec![-1, 300].into(),
            values: vec![1.0, f64::NAN].into(),
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
