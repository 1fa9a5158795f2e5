//! Measures as text: `[["2015-03-06T14:33:00+00:00", 60.0, 43.1], ...]`, straight from the engine's columns. Pure.
//!
//! JSON knows no NaN, but Gnocchi writes it so, and Python's clients read it so. A client that cannot asks for
//! `Accept: application/json; nan=null` and gets `null` for everything that is not finite.

use std::{convert::Infallible, fmt::Write};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use orzo_model::Timestamp;
use orzo_query::{AggregatedMeasure, Width};

use crate::wire::Tree;

/// About what one measure takes.
const ROW_BYTES: usize = 52;
/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// How numbers are written that JSON does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NotFinite {
    /// `NaN`, `Infinity`: Gnocchi's.
    #[default]
    Bare,
    /// `null`.
    Null,
}

impl NotFinite {
    fn asked(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let parameters = accepted.flat_map(|text| text.split([',', ';'])).map(str::trim);
        let mut asked = parameters.filter_map(|parameter| parameter.split_once('='));
        let is_null = asked.any(|(name, value)| name.trim().eq_ignore_ascii_case("nan") && value.trim() == "null");
        if is_null { Self::Null } else { Self::Bare }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NotFinite {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::asked(&parts.headers))
    }
}

/// Measures as a part of an answer.
pub(super) fn rows(measures: &[AggregatedMeasure], not_finite: NotFinite) -> Tree {
    let mut out = String::with_capacity(2 + measures.len() * ROW_BYTES);
    out.push('[');
    let mut day = Day::default();
    let mut width: Option<(Width, String)> = None;
    for (index, measure) in measures.iter().enumerate() {
        out.push_str(if index == 0 { "[\"" } else { ", [\"" });
        day.write(measure.timestamp, &mut out);
        out.push_str("\", ");
        if width.as_ref().is_none_or(|(known, _)| *known != measure.granularity) {
            width = Some((measure.granularity, width_text(measure.granularity)));
        }
        out.push_str(width.as_ref().map_or("", |(_, text)| text));
        out.push_str(", ");
        write_number(measure.value, not_finite, &mut out);
        out.push(']');
    }
    out.push(']');
    Tree::Written(out)
}

/// A width as answers carry it: float seconds, or the letter of a calendar part.
fn width_text(width: Width) -> String {
    match width {
        Width::Span(span) => format!("{:?}", span.as_secs_f64()),
        Width::Calendar(part) => format!("\"{}\"", part.letter()),
    }
}

/// The text of the day that was written last: most rows are of the same.
#[derive(Default)]
struct Day {
    text: String,
    start_s: i64,
}

impl Day {
    /// Whole seconds, as Gnocchi prints them: a finer bucket loses its fraction.
    fn write(&mut self, time: Timestamp, out: &mut String) {
        let second = time.secs() - self.start_s;
        if self.text.is_empty() || !(0..DAY_S).contains(&second) {
            self.text = time.to_chrono().format("%Y-%m-%dT").to_string();
            self.start_s = time.secs().div_euclid(DAY_S) * DAY_S;
        }
        let second = time.secs() - self.start_s;
        let two = |number: i64| [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8].map(char::from);
        out.push_str(&self.text);
        out.extend(two(second / 3600));
        out.push(':');
        out.extend(two(second / 60 % 60));
        out.push(':');
        out.extend(two(second % 60));
        out.push_str("+00:00");
    }
}

/// Finite numbers as the shortest text that reads back the same.
fn write_number(number: f64, not_finite: NotFinite, out: &mut String) {
    let _ = match number {
        n if n.is_finite() => write!(out, "{n:?}"),
        _ if not_finite == NotFinite::Null => out.write_str("null"),
        n if n.is_nan() => out.write_str("NaN"),
        n if n > 0.0 => out.write_str("Infinity"),
        _ => out.write_str("-Infinity"),
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn measures_are_written_as_gnocchi_writes_them() {
        let minute = Width::Span(Duration::from_secs(60));
        let row = |micros, granularity, value| AggregatedMeasure {
            timestamp: Timestamp::from_micros(micros),
            granularity,
            value,
        };
        let first = 1_577_836_800_500_000;
        let measures = [
            row(first, minute, 1.5),
            row(first + 86_399_000_000, minute, f64::NAN),
            row(first + 86_400_000_000, Width::Calendar(orzo_query::Calendar::Month), f64::NEG_INFINITY),
            row(-1_000_000, minute, 1e22),
            row(first, minute, -0.0),
        ];
        let expected = |nan: &str, infinity: &str| {
            format!(
                "[[\"2020-01-01T00:00:00+00:00\", 60.0, 1.5], [\"2020-01-01T23:59:59+00:00\", 60.0, {nan}], \
                 [\"2020-01-02T00:00:00+00:00\", \"M\", {infinity}], [\"1969-12-31T23:59:59+00:00\", 60.0, 1e22], \
                 [\"2020-01-01T00:00:00+00:00\", 60.0, -0.0]]"
            )
        };
        assert_eq!(rows(&measures, NotFinite::Bare).to_text(), expected("NaN", "-Infinity"));
        assert_eq!(rows(&measures, NotFinite::Null).to_text(), expected("null", "null"));
        assert_eq!(rows(&[], NotFinite::Bare).to_text(), "[]");
    }

    #[test]
    fn null_is_written_only_for_who_asks() {
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(text));
            NotFinite::asked(&headers)
        };
        assert_eq!(asked("application/json; nan=null"), NotFinite::Null);
        assert_eq!(asked("text/html, application/json;NaN=null;q=0.9"), NotFinite::Null);
        assert_eq!(asked("application/json"), NotFinite::Bare);
        assert_eq!(asked("application/json; nan=bare"), NotFinite::Bare);
        assert_eq!(NotFinite::asked(&HeaderMap::new()), NotFinite::Bare);
    }
}
