//! `orzo query`: PromQL over everything that is kept, as a table, CSV, JSON or a plot.

use anyhow::{Context, bail};
use orzo_model::{SystemClock, Timestamp};
use serde_json::json;

use super::{
    output::{Format, Rows},
    plot,
    prometheus::{self, Series},
};
use crate::client::Target;

/// Columns of the small plot in a table.
const BLOCKS: usize = 40;
/// Points that a plot asks for; a terminal cannot show more.
const PLOT_POINTS: f64 = 120.0;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  orzo query 'topk(5, cpu_util)'\n  orzo query 'sum by (project_id) (rate(cpu[5m]))' --last 1h --plot"
)]
pub(crate) struct Arguments {
    /// What is asked, in PromQL. Dots of a meter's name become underscores: memory_usage.
    query: String,
    /// At one time: RFC 3339 or seconds since the epoch; now, if nothing else is said.
    #[arg(long, conflicts_with_all = ["start", "last"])]
    at: Option<String>,
    /// From when, for a range.
    #[arg(long)]
    start: Option<String>,
    /// Until when; now if not given.
    #[arg(long)]
    end: Option<String>,
    /// The range of the last while, such as 90s, 15m, 6h, 7d.
    #[arg(long, value_name = "SPAN", conflicts_with = "start")]
    last: Option<String>,
    /// Seconds (or a span such as 5m) between the times of a range.
    #[arg(long)]
    step: Option<String>,
    /// Draw it: a chart of one series, a line of blocks for each of several. The last hour if no range is given.
    #[arg(long)]
    plot: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(&arguments))
}

async fn answer(arguments: &Arguments) -> anyhow::Result<()> {
    let session = arguments.target.session()?;
    let query = ("query", arguments.query.as_str());
    let is_range = arguments.start.is_some() || arguments.last.is_some() || arguments.plot;
    if !is_range {
        let at = arguments.at.as_deref().map(|at| ("time", at));
        let parameters: Vec<_> = [Some(query), at].into_iter().flatten().collect();
        let mut series = prometheus::ask(&session, "query", &parameters).await?;
        shorten(&mut series, arguments.format);
        return instants(&series).print(arguments.format);
    }
    let (start, end) = range(arguments, SystemClock::shared().now().secs_f64())?;
    let step = match &arguments.step {
        Some(step) => step.clone(),
        None => format!("{}", ((end - start) / PLOT_POINTS).ceil().max(1.0)),
    };
    let (start, end) = (start.to_string(), end.to_string());
    let parameters = [query, ("start", &start), ("end", &end), ("step", &step)];
    let mut series = prometheus::ask(&session, "query_range", &parameters).await?;
    shorten(&mut series, arguments.format);
    match (arguments.plot, series.as_slice()) {
        (true, []) => println!("no series"),
        (true, [one]) => draw(one),
        (true, many) => return lines(many).print(arguments.format),
        (false, series) => return points(series).print(arguments.format),
    }
    Ok(())
}

/// In a table for people, what all series have in common is said once, above it.
fn shorten(series: &mut [Series], format: Format) {
    if format != Format::Table {
        return;
    }
    let common: Vec<String> =
        prometheus::take_common(series).iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    if !common.is_empty() {
        println!("all: {}", common.join(", "));
    }
}

/// Start and end in seconds since the epoch.
fn range(arguments: &Arguments, now: f64) -> anyhow::Result<(f64, f64)> {
    let end = arguments.end.as_deref().map_or(Ok(now), time_of).context("--end")?;
    let start = match (&arguments.start, &arguments.last) {
        (Some(start), _) => time_of(start).context("--start")?,
        (None, Some(last)) => end - span_of(last).context("--last")?,
        (None, None) => end - 3600.0,
    };
    if start > end {
        bail!("--start is after --end");
    }
    Ok((start, end))
}

fn time_of(text: &str) -> anyhow::Result<f64> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok(seconds);
    }
    let time: Timestamp = text.parse().with_context(|| format!("`{text}` is no time such as 2026-01-31T12:00:00Z"))?;
    Ok(time.secs_f64())
}

pub(super) fn span_of(text: &str) -> anyhow::Result<f64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let factor = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => bail!("`{text}` is no span such as 90s, 15m, 6h or 7d"),
    };
    let count: f64 = text[..text.len() - unit.len()].parse().with_context(|| format!("`{text}` has no number"))?;
    Ok(count * factor)
}

fn shown_time(seconds: f64) -> String {
    Timestamp::from_secs_f64(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// NaN and infinities have no form in JSON.
fn shown_value(value: f64) -> serde_json::Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

fn instants(series: &[Series]) -> Rows {
    let rows = series
        .iter()
        .flat_map(|one| one.points.iter().map(move |(_, value)| vec![json!(one.name()), shown_value(*value)]));
    Rows { columns: vec!["series", "value"], rows: rows.collect() }
}

fn points(series: &[Series]) -> Rows {
    let rows = series.iter().flat_map(|one| {
        one.points
            .iter()
            .map(move |(time, value)| vec![json!(one.name()), json!(shown_time(*time)), shown_value(*value)])
    });
    Rows { columns: vec!["series", "time", "value"], rows: rows.collect() }
}

fn lines(series: &[Series]) -> Rows {
    let row = |one: &Series| {
        let values: Vec<f64> = one.points.iter().map(|(_, value)| *value).collect();
        let known = || values.iter().copied().filter(|value| value.is_finite());
        let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
        let last = values.last().copied().unwrap_or(f64::NAN);
        vec![
            json!(one.name()),
            shown_value(low),
            shown_value(high),
            shown_value(last),
            json!(plot::blocks(&values, BLOCKS)),
        ]
    };
    Rows { columns: vec!["series", "lowest", "highest", "last", "course"], rows: series.iter().map(row).collect() }
}

fn draw(series: &Series) {
    let known: Vec<_> = series.points.iter().filter(|(_, value)| value.is_finite()).collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else {
        println!("{}: no values", series.name());
        return;
    };
    let line: Vec<(f32, f32)> = known.iter().map(|(time, value)| ((time - first.0) as f32, *value as f32)).collect();
    println!("{}", series.name());
    plot::chart(&line, (last.0 - first.0) as f32);
    println!("{}  to  {}", shown_time(first.0), shown_time(last.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read_or_named() {
        assert_eq!(time_of("1700000000.5").expect("a time"), 1_700_000_000.5);
        assert_eq!(time_of("2023-11-14T22:13:20Z").expect("a time"), 1_700_000_000.0);
        assert!(time_of("noon").expect_err("no time").to_string().contains("`noon`"));
        assert_eq!(span_of("1.5h").expect("a span"), 5400.0);
        for wrong in ["", "h", "5", "5 m", "-1h"] {
            assert!(span_of(wrong).is_err(), "{wrong}");
        }
    }
}
