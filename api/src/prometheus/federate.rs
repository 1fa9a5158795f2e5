//! `GET /federate`: the last sample of each series that is asked for, with its time, in Prometheus' text format.

use std::fmt::Write;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use orzo_promql::{LOOKBACK_MS, Labels, Limits, RawSeries, Selection, SeriesSource, number_of, number_text};

use super::{
    Refused, Sender,
    query::{failed, named},
    series::groups,
};
use crate::{SharedApi, parameters::Parameters};

/// The bits of the value that says that a series has ended.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Series of one answer; more are not scraped at once.
const SERIES_MAX: usize = 100_000;

pub(super) async fn federate(
    Sender(caller): Sender,
    State(api): State<SharedApi>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Refused> {
    let groups = match groups(&parameters) {
        Ok(groups) => groups,
        Err(error) => return Ok((StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()),
    };
    let now = api.clock.now().micros().div_euclid(1000);
    let selection = Selection { groups, after_ms: now - LOOKBACK_MS, until_ms: now, newest_only: true };
    let found = named(&api, &caller).select(&selection, SERIES_MAX, Limits::default().points_max).await;
    let mut found = match found {
        Ok(found) => found,
        Err(error) => return Ok(failed(&error)),
    };
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    let accepted = headers.get(header::ACCEPT).and_then(|text| text.to_str().ok()).unwrap_or("");
    let takes_any_name = accepted.contains("allow-utf-8");
    let kind = match takes_any_name {
        true => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    Ok(([(header::CONTENT_TYPE, kind)], exposed(&found, takes_any_name)).into_response())
}

/// The text: a type for each name, then a line for each series. Series must be sorted.
fn exposed(found: &[RawSeries], takes_any_name: bool) -> String {
    let mut out = String::new();
    let mut before: Option<&str> = None;
    for series in found {
        let (Some(time), Some(value)) = (series.times.last(), series.values.last()) else { continue };
        // The text format has no native histograms, and Prometheus leaves them out of it as well.
        let is_histogram = number_of(*value).is_some() && !series.histograms.is_empty();
        if value.to_bits() == STALE_BITS || is_histogram {
            continue;
        }
        let name = series.labels.get("__name__");
        if before != Some(name) {
            let shown = if takes_any_name { quoted_name(name) } else { classic(name) };
            let _ = writeln!(out, "# TYPE {shown} untyped");
            before = Some(name);
        }
        write_labels(&mut out, name, &series.labels, takes_any_name);
        let _ = writeln!(out, " {} {time}", number_text(*value));
    }
    out
}

fn write_labels(out: &mut String, name: &str, labels: &Labels, takes_any_name: bool) {
    let is_quoted = takes_any_name && classic(name) != name;
    let mut parts = Vec::with_capacity(labels.iter().len());
    if is_quoted {
        parts.push(quoted_name(name));
    } else {
        out.push_str(&classic(name));
    }
    for (name, value) in labels.iter().filter(|(name, _)| &**name != "__name__") {
        let name = if takes_any_name { quoted_name(name) } else { classic(name) };
        parts.push(format!("{name}=\"{}\"", escaped(value)));
    }
    let _ = write!(out, "{{{}}}", parts.join(","));
}

/// A name of letters, digits, `_` and `:`.
fn classic(name: &str) -> String {
    let allowed = |(at, c): (usize, char)| {
        let is_fine = c.is_ascii_alphabetic() || c == '_' || c == ':' || (at > 0 && c.is_ascii_digit());
        if is_fine { c } else { '_' }
    };
    name.chars().enumerate().map(allowed).collect()
}

fn quoted_name(name: &str) -> String {
    if classic(name) == name { name.to_owned() } else { format!("\"{}\"", escaped(name)) }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sample_is_exposed_with_its_time() {
        let series = |labels: &[(&str, &str)], values: &[f64]| RawSeries {
            labels: Labels::new(labels.iter().copied()),
            times: (1..=values.len() as i64).map(|at| at * 1000).collect(),
            values: values.into(),
            histograms: Vec::new(),
        };
        let found = [
            series(&[("__name__", "disk.read"), ("dc.name", "a\"b\n")], &[1.0, 2.5]),
            series(&[("__name__", "gone")], &[1.0, f64::from_bits(STALE_BITS)]),
            series(&[("__name__", "up"), ("job", "x")], &[f64::NAN]),
            series(&[("__name__", "up"), ("job", "y")], &[1.0]),
        ];
        assert_eq!(
            exposed(&found, true),
            "# TYPE \"disk.read\" untyped\n{\"disk.read\",\"dc.name\"=\"a\\\"b\\n\"} 2.5 2000\n\
             # TYPE up untyped\nup{job=\"x\"} NaN 1000\nup{job=\"y\"} 1 1000\n"
        );
        assert!(exposed(&found, false).starts_with("# TYPE disk_read untyped\ndisk_read{dc_name="));
    }
}
