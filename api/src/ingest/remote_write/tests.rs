//! Messages are written here by hand, read, cut at every byte and spoilt.

use super::*;

fn write_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A series: labels, samples (milliseconds, value).
pub(crate) type Written<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    write_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn sample(at_ms: i64, value: f64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend_from_slice(&value.to_le_bytes());
    out.push(0x10);
    let mut at = at_ms as u64;
    while at >= 0x80 {
        out.push(at as u8 | 0x80);
        at >>= 7;
    }
    out.push(at as u8);
    out
}

/// A message 1.0.
pub(crate) fn write_v1(series: &[Written<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (labels, samples) in series {
        let mut message = Vec::new();
        for (name, value) in *labels {
            write_label(&mut message, name.as_bytes(), value.as_bytes());
        }
        for (at_ms, value) in *samples {
            field(&mut message, 2, &sample(*at_ms, *value));
        }
        field(&mut body, 1, &message);
    }
    body
}

/// A message 2.0; every series is a counter that began at `created_ms`.
pub(crate) fn write_v2(series: &[Written<'_>], created_ms: Option<u32>) -> Vec<u8> {
    let mut symbols = vec![""];
    let mut rest = Vec::new();
    for (labels, samples) in series {
        let mut references = Vec::new();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let place = symbols.iter().position(|symbol| symbol == text).unwrap_or_else(|| {
                symbols.push(text);
                symbols.len() - 1
            });
            write_varint(&mut references, place);
        }
        let mut message = Vec::new();
        field(&mut message, 1, &references);
        for (at_ms, value) in *samples {
            field(&mut message, 2, &sample(*at_ms, *value));
        }
        if let Some(created_ms) = created_ms {
            field(&mut message, 5, &[0x08, 1]);
            message.push(6 << 3);
            write_varint(&mut message, created_ms as usize);
        }
        field(&mut rest, 5, &message);
    }
    let mut body = Vec::new();
    for symbol in symbols {
        field(&mut body, 4, symbol.as_bytes());
    }
    body.extend(rest);
    body
}

type Read = Vec<(Vec<(String, String)>, Vec<(i64, u64)>, Option<i64>)>;

fn collect<T>(
    read: impl FnOnce(&mut dyn FnMut(Incoming<'_>) -> Result<(), IngestError>) -> Result<T, IngestError>,
) -> Result<Read, IngestError> {
    let mut found = Vec::new();
    read(&mut |series| {
        let labels = labels_of(series.labels)?;
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let samples = series.samples.iter().map(|sample| (sample.at_ms, sample.value.to_bits())).collect();
        found.push((labels, samples, series.created_ms));
        Ok(())
    })?;
    Ok(found)
}

fn expected(series: &[Written<'_>], created_ms: Option<i64>) -> Read {
    let own = |(labels, samples): &Written<'_>| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        (labels, samples.iter().map(|(at, value)| (*at, value.to_bits())).collect(), created_ms)
    };
    series.iter().map(own).collect()
}

/// The NaN that Prometheus sends when a series has ended.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

fn example() -> [Written<'static>; 3] {
    [
        (&[("__name__", "up"), ("job", "node")], &[(1_700_000_000_123, 1.0), (1_700_000_015_123, -0.0)]),
        (&[("__name__", "up"), ("job", "ünï")], &[(-5, STALE)]),
        (&[("__name__", "empty")], &[]),
    ]
}

#[test]
fn both_messages_are_read_bit_by_bit() {
    let (v1, v2) = (write_v1(&example()), write_v2(&example(), Some(77)));
    assert_eq!(collect(|visit| read_v1(&v1, |_| None, visit)).expect("read"), expected(&example(), None));
    assert_eq!(collect(|visit| read_v2(&v2, visit)).expect("read"), expected(&example(), Some(77)));
    assert_eq!(collect(|visit| read_v1(&[], |_| None, visit)).expect("nothing"), Vec::new());
}

#[test]
fn labels_of_both_messages_are_the_same_bytes() {
    type Take<'a> = dyn FnMut(Incoming<'_>) -> Result<(), IngestError> + 'a;
    let of = |read: &dyn Fn(&mut Take<'_>)| {
        let mut found = Vec::new();
        read(&mut |series| {
            found.push(series.labels.to_vec());
            Ok(())
        });
        found
    };
    let (v1, v2) = (write_v1(&example()), write_v2(&example(), None));
    assert_eq!(
        of(&|visit| {
            let _ = read_v1(&v1, |_| None, visit).expect("read");
        }),
        of(&|visit| read_v2(&v2, visit).expect("read"))
    );
}

#[test]
fn labels_around_samples_belong_together() {
    let mut message = Vec::new();
    write_label(&mut message, b"__name__", b"up");
    field(&mut message, 2, &sample(1, 2.0));
    write_label(&mut message, b"job", b"x");
    write_label(&mut message, b"zone", b"y");
    let mut body = Vec::new();
    field(&mut body, 1, &message);
    let expected = expected(&[(&[("__name__", "up"), ("job", "x"), ("zone", "y")], &[(1, 2.0)])], None);
    assert_eq!(collect(|visit| read_v1(&body, |_| None, visit)).expect("read"), expected);
}

#[test]
fn a_body_cut_anywhere_never_reads_as_more_than_it_is() {
    let (v1, v2) = (write_v1(&example()), write_v2(&example(), Some(5)));
    for end in 0..v1.len() {
        // At the end of a series the rest is a shorter message; HTTP's own length tells that apart.
        if let Ok(read) = collect(|visit| read_v1(&v1[..end], |_| None, visit)) {
            assert_eq!(read, expected(&example(), None)[..read.len()], "{end}");
        }
    }
    let mut whole = 0;
    for end in 0..v2.len() {
        whole += usize::from(collect(|visit| read_v2(&v2[..end], visit)).is_ok());
    }
    assert!(whole < 12, "{whole}");
}

#[test]
fn wrong_forms_and_references_are_refused_where_they_stand() {
    let refused = |read: &dyn Fn() -> Result<Read, IngestError>| {
        let error = read().expect_err("refused");
        assert_eq!((error.reason(), error.status()), ("malformed", http::StatusCode::BAD_REQUEST));
        error.to_string()
    };
    // A series that is a number; a sample that is a number; a value that is a number of 7 bits a byte.
    for body in [&[0x08, 1][..], &[0x0a, 2, 0x10, 1], &[0x0a, 4, 0x12, 2, 0x08, 1], &[0x0a, 200]] {
        assert!(refused(&|| collect(|visit| read_v1(body, |_| None, visit))).contains("at byte"));
    }
    // A symbol that is not there, a name without a value, a first symbol that is not empty, symbols as numbers.
    let series = |references: &[u8]| {
        let mut message = Vec::new();
        field(&mut message, 1, references);
        let mut body = vec![4 << 3 | 2, 0];
        field(&mut body, 5, &message);
        body
    };
    assert!(refused(&|| collect(|visit| read_v2(&series(&[0, 9]), visit))).contains("symbol that is not there"));
    assert!(refused(&|| collect(|visit| read_v2(&series(&[0]), visit))).contains("no value"));
    refused(&|| collect(|visit| read_v2(&[4 << 3 | 2, 1, b'x'], visit)));
    refused(&|| collect(|visit| read_v2(&[4 << 3, 1], visit)));
    // Labels that are not text.
    let mut labels = Vec::new();
    write_label(&mut labels, b"\xff", b"x");
    assert!(labels_of(&labels).is_err());
}

#[test]
fn more_samples_than_are_taken_are_refused_while_they_are_read() {
    let empty: Vec<u8> = [0x12, 0].repeat(SAMPLES_MAX + 1);
    let mut body = Vec::new();
    field(&mut body, 1, &empty);
    assert_eq!(collect(|visit| read_v1(&body, |_| None, visit)), Err(IngestError::TooManySamples));
}

#[test]
fn long_names_and_values_keep_their_lengths() {
    let long = "x".repeat(300);
    let written: [Written<'_>; 1] = [(&[("__name__", &long), ("a", &long)], &[(1, 1.0)])];
    let body = write_v1(&written);
    assert_eq!(collect(|visit| read_v1(&body, |_| None, visit)).expect("read"), expected(&written, None));
}

/// A label set, and times and bits of values.
type ReadKnowing = (Vec<u8>, Vec<(i64, u64)>);

/// Reads `series` with and without knowing the labels that are in `known`; gives what was read and how many were found.
fn read_knowing(body: &[u8], known: &[&[u8]]) -> (Vec<ReadKnowing>, usize) {
    let (mut read, mut found) = (Vec::new(), 0);
    let find = |labels: &[u8]| known.iter().position(|known| *known == labels).map(|at| SeriesId(at as u64));
    let visit = |one: Incoming<'_>| {
        found += usize::from(one.series.is_some());
        assert!(one.series.is_none() || one.series == find(one.labels));
        let samples = one.samples.iter().map(|sample| (sample.at_ms, sample.value.to_bits())).collect();
        read.push((one.labels.to_vec(), samples));
        Ok(())
    };
    read_v1(body, find, visit).expect("read");
    (read, found)
}

#[test]
fn known_series_are_read_as_unknown_ones_are() {
    const NOW: i64 = 1_795_289_903_442;
    let labels: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    let mut set = Vec::new();
    labels.iter().for_each(|(name, value)| write_label(&mut set, name.as_bytes(), value.as_bytes()));
    // Times of another length, several samples and none are read the long way.
    let samples: [&[(i64, f64)]; 8] = [
        &[(NOW, 1.5)],
        &[(NOW, 0.0)],
        &[(NOW, f64::NAN)],
        &[(1 << 35, -0.0)],
        &[((1 << 35) - 1, 1.0)],
        &[(1 << 42, 1.0)],
        &[(-1, 2.0)],
        &[(NOW, 1.0), (NOW + 1, 2.0)],
    ];
    let written: Vec<Written<'_>> = samples.iter().map(|samples| (labels, *samples)).collect();
    let mut body = write_v1(&written);
    // A value of zero is not written by other senders.
    let mut short = set.clone();
    let time = &sample(NOW, 0.0)[9..];
    field(&mut short, 2, time);
    field(&mut body, 1, &short);
    // Labels behind the sample, and an exemplar there.
    let mut scattered = Vec::new();
    field(&mut scattered, 2, &sample(NOW, 3.0));
    scattered.extend_from_slice(&set);
    field(&mut body, 1, &scattered);
    let mut followed = set.clone();
    field(&mut followed, 2, &sample(NOW, 3.0));
    field(&mut followed, 3, &[]);
    field(&mut body, 1, &followed);
    let (unknown, found) = read_knowing(&body, &[]);
    assert_eq!(found, 0);
    let (known, found) = read_knowing(&body, &[&set]);
    assert_eq!((found, known), (5, unknown));
}

#[test]
fn a_label_that_ends_as_a_sample_does_is_a_label() {
    const NOW: i64 = 1_795_289_903_442;
    // The value of the last label is a whole sample; nothing follows it.
    let mut inside = Vec::new();
    field(&mut inside, 2, &sample(NOW, 7.0));
    let mut message = Vec::new();
    write_label(&mut message, b"__name__", b"up");
    let first = message.clone();
    write_label(&mut message, b"job", &inside);
    let mut body = Vec::new();
    field(&mut body, 1, &message);
    let (read, found) = read_knowing(&body, &[&first, &message]);
    assert_eq!((read, found), (vec![(message, Vec::new())], 0));
}
