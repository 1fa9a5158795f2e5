//! What of a metric's aggregates becomes its points. Pure.
//!
//! Gnocchi keeps aggregates and no points. Of the finest granularity each bucket becomes a point at the bucket's begin; of the next coarser one
//! those buckets that end before the finer ones begin, and so on: every time is told once, by the finest that is left of it.

use anyhow::{Context, bail};
use orzo_model::Timestamp;
use serde::Deserialize;

/// A point: microseconds and the value.
pub(super) type Point = (i64, f64);

/// Methods of which an aggregate stands for the values that it was made of, in the order in which they are taken where the wanted one is
/// not kept.
const STANDING: [&str; 5] = ["mean", "last", "median", "max", "min"];

/// One granularity of an archive policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grain {
    /// As requests name it.
    pub(super) text: String,
    pub(super) seconds: f64,
    /// How many buckets there may be; `None`: any number.
    pub(super) points: Option<u64>,
}

/// The method that is read of a policy with these methods; `None`: it has none that stands for values.
pub(super) fn method_of(wanted: &str, methods: &[String]) -> Option<String> {
    let mut choices = std::iter::once(wanted).chain(STANDING);
    choices.find(|choice| methods.iter().any(|method| method == choice)).map(str::to_owned)
}

/// Buckets of one granularity as points; `before` is where finer ones begin.
pub(super) fn older_than(points: &[Point], seconds: f64, before: Option<i64>) -> &[Point] {
    let Some(before) = before else { return points };
    let width = (seconds * 1e6).round() as i64;
    &points[..points.partition_point(|(time, _)| time.saturating_add(width) <= before)]
}

/// A number, or one of the words that Gnocchi writes where JSON has no number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(f64),
    Word(String),
}

/// Reads an answer of `measures`: `[["2026-11-01T00:00:00+00:00", 300.0, 1.5], ...]`, in the order of time.
pub(super) fn read(answer: &[u8]) -> anyhow::Result<Vec<Point>> {
    let text = std::str::from_utf8(answer).context("the answer is no UTF-8")?;
    // Bare words where numbers should be; there are no other words in such an answer.
    let quoted =
        ["-Infinity", "Infinity", "NaN"].iter().fold(text.to_owned(), |text, word| match text.contains(word) {
            true => text
                .replace(&format!(" {word}"), &format!(" \"{word}\""))
                .replace(&format!(",{word}"), &format!(",\"{word}\"")),
            false => text,
        });
    let rows: Vec<(Timestamp, f64, Option<Number>)> =
        serde_json::from_str(&quoted).context("the answer is no list of measures")?;
    let mut points = Vec::with_capacity(rows.len());
    for (time, _, value) in rows {
        let value = match value {
            Some(Number::Plain(value)) => value,
            None => f64::NAN,
            Some(Number::Word(word)) => match word.as_str() {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                _ => bail!("`{word}` is no value"),
            },
        };
        points.push((time.micros(), value));
    }
    if !points.is_sorted_by(|(one, _), (next, _)| one < next) {
        bail!("the measures are not in the order of time, or have a time twice");
    }
    Ok(points)
}

/// The body of a request that posts points: a number that means the same double for each.
pub(super) fn body(points: &[Point]) -> Vec<u8> {
    let mut text = String::with_capacity(points.len() * 64);
    text.push('[');
    for (place, (time, value)) in points.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let value = match value {
            value if value.is_nan() => "NaN".to_owned(),
            value if value.is_infinite() => if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
            value => format!("{value:?}"),
        };
        text.push_str(&format!("{{\"timestamp\":\"{}\",\"value\":{value}}}", Timestamp::from_micros(*time).naive()));
    }
    text.push(']');
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_told_once_by_the_finest_that_is_left() {
        let hour = 3_600_000_000;
        let coarse: Vec<Point> = (0..5).map(|n| (n * hour, n as f64)).collect();
        // Finer ones begin in the middle of an hour: that hour is told by them, the part before them is not told twice.
        assert_eq!(older_than(&coarse, 3600.0, Some(2 * hour + 60_000_000)), &coarse[..2]);
        assert_eq!(older_than(&coarse, 3600.0, Some(2 * hour)), &coarse[..2]);
        assert_eq!(older_than(&coarse, 3600.0, Some(0)), &[]);
        assert_eq!(older_than(&coarse, 3600.0, None), &coarse[..]);
    }

    #[test]
    fn what_is_kept_decides_what_is_read() {
        let methods = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        assert_eq!(method_of("mean", &methods(&["count", "mean"])).as_deref(), Some("mean"));
        assert_eq!(method_of("last", &methods(&["max", "last", "mean"])).as_deref(), Some("last"));
        assert_eq!(method_of("mean", &methods(&["min", "max"])).as_deref(), Some("max"));
        assert_eq!(method_of("mean", &methods(&["count", "rate:mean"])), None, "a count is no value");
    }

    #[test]
    fn measures_come_and_go_bit_for_bit_with_gnocchis_words() {
        let answer =
            br#"[["2026-11-01T00:00:00+00:00", 300.0, 0.30000000000000004], ["2026-11-01T00:05:00+00:00", 300.0, NaN],
            ["2026-11-01T00:10:00+00:00", 300.0, -Infinity], ["2026-11-01T00:15:00+00:00", 300.0, 1e+300]]"#;
        let points = read(answer).expect("measures");
        assert_eq!(points[0], (1_793_491_200_000_000, 0.1 + 0.2));
        assert!(points[1].1.is_nan() && points[2].1 == f64::NEG_INFINITY && points[3].1 == 1e300);
        let text = String::from_utf8(body(&points[..3])).expect("text");
        assert!(text.starts_with(r#"[{"timestamp":"2026-11-01T00:00:00","value":0.30000000000000004},"#), "{text}");
        assert!(text.ends_with(r#""value":-Infinity}]"#), "{text}");
        assert!(
            read(br#"[["2026-11-01T00:05:00+00:00", 300.0, 1], ["2026-11-01T00:00:00+00:00", 300.0, 1]]"#).is_err()
        );
        assert!(read(br#"[["2026-11-01T00:05:00+00:00", 300.0, "abc"]]"#).is_err());
    }
}
