//! `orzo query`: PromQL over everything that is kept, as a table, CSV, JSON or a plot.

use anyhow::{Context, bail};
use orzo_model::{SystemClock, Timestamp};
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use super::{
    output::{self, Format, Rows},
    plot,
    prometheus::{self, Answer, Series},
    screen,
};
use crate::client::Target;

/// Columns of the small plot in a table.
const BLOCKS: usize = 40;
/// Points that a plot asks for, and one for each column of a terminal that has more.
const PLOT_POINTS: usize = 120;
/// Narrower terminals show the last value of each series, and not the lowest and highest.
const NUMBERS_WIDTH: usize = 60;

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
        let mut answer = prometheus::answer(&session, "query", &parameters).await?;
        shorten(&mut answer.series, arguments.format);
        return rows(&answer).print(arguments.format);
    }
    let terminal = screen::size().filter(|_| arguments.plot && arguments.format == Format::Table);
    let (start, end) = range(arguments, SystemClock::shared().now().secs_f64())?;
    let step = match &arguments.step {
        Some(step) => step.clone(),
        None => {
            let points = terminal.map_or(0, |(width, _)| width).max(PLOT_POINTS);
            format!("{}", ((end - start) / points as f64).ceil().max(1.0))
        }
    };
    let (start_text, end_text) = (start.to_string(), end.to_string());
    let parameters = [query, ("start", &start_text), ("end", &end_text), ("step", &step)];
    let mut series = prometheus::ask(&session, "query_range", &parameters).await?;
    if let Some((width, _)) = terminal {
        return output::write(&(plotted(&series, (start, end), width).join("\n") + "\n"));
    }
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
    if common.is_empty() {
        return;
    }
    match screen::size() {
        Some((width, _)) => {
            let parts: Vec<String> =
                std::iter::once(format!("all: {}", common[0])).chain(common[1..].to_vec()).collect();
            screen::wrapped(&parts, width).iter().for_each(|line| println!("{line}"));
        }
        None => println!("all: {}", common.join(", ")),
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

/// Points of a range in time have their own times; values at one time have that of the query.
fn rows(answer: &Answer) -> Rows {
    if answer.has_times { points(&answer.series) } else { instants(&answer.series) }
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

/// A plot for a terminal: a chart of one series, a line of blocks for each of several.
fn plotted(series: &[Series], (start, end): (f64, f64), width: usize) -> Vec<String> {
    let times = [format!("from {}", shown_time(start)), format!("to {}", shown_time(end))];
    let labels = |labels: &[(String, String)]| -> Vec<String> {
        labels.iter().filter(|(name, _)| name != "__name__").map(|(name, value)| format!("{name}={value:?}")).collect()
    };
    let mut lines = Vec::new();
    match series {
        [] => lines.push(screen::fit("no series", width)),
        [one] => {
            if !one.label("__name__").is_empty() {
                lines.push(screen::fit(one.label("__name__"), width));
            }
            lines.extend(screen::wrapped(&labels(&one.labels), width));
            lines.extend(charted(one, width));
            lines.extend(screen::wrapped(&times, width));
        }
        [first, rest @ ..] => {
            let is_common = |label: &&(String, String)| rest.iter().all(|one| one.labels.contains(label));
            let common: Vec<(String, String)> = first.labels.iter().filter(is_common).cloned().collect();
            let (apart, names) = prometheus::told_apart(series);
            let metric = common.iter().find(|(name, _)| name == "__name__").map_or("series", |(_, value)| value);
            lines.push(screen::fit(&format!("{metric} by {}", apart.join(", ")), width));
            lines.extend(screen::wrapped(&labels(&common), width));
            lines.extend(screen::wrapped(&times, width));
            lines.extend(sketched(series, &names, (start, end), width));
        }
    }
    lines
}

/// A line for each series: its name, its course and its numbers. Names that would take the room of the courses stand on
/// lines of their own.
fn sketched(series: &[Series], names: &[String], (start, end): (f64, f64), width: usize) -> Vec<String> {
    let titles: &[&str] = if width < NUMBERS_WIDTH { &["last"] } else { &["lowest", "highest", "last"] };
    let numbers: Vec<Vec<String>> = series
        .iter()
        .map(|one| {
            let known = || one.points.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
            let low = known().reduce(f64::min).unwrap_or(f64::NAN);
            let high = known().reduce(f64::max).unwrap_or(f64::NAN);
            let last = one.points.last().map_or(f64::NAN, |(_, value)| *value);
            let all = [low, high, last].map(screen::short);
            all[all.len() - titles.len()..].to_vec()
        })
        .collect();
    let wide = |place: usize| {
        let cells = numbers.iter().map(|row| row[place].as_str()).chain([titles[place]]);
        cells.map(UnicodeWidthStr::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(wide).collect();
    let told = |row: &[&str]| -> String {
        row.iter()
            .zip(&widths)
            .map(|(cell, width)| " ".repeat(screen::GAP) + &screen::padded(cell, *width, true))
            .collect()
    };
    let rest = width.saturating_sub(widths.iter().map(|width| width + screen::GAP).sum());
    let longest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let beside = (longest <= rest / 3).then_some(longest + screen::GAP);
    let gaps = series.iter().flat_map(|one| one.points.windows(2).map(|pair| pair[1].0 - pair[0].0));
    // Of a grid with fewer times than columns each has one column.
    let step = gaps.reduce(f64::min).filter(|step| *step > 0.0).unwrap_or(end - start).max(1e-3);
    let span = end - start + step;
    let columns = rest.saturating_sub(beside.unwrap_or(0)).min((span / step).round() as usize).max(1);
    let head = screen::padded("", beside.unwrap_or(0) + columns, false) + &told(titles);
    let mut lines = vec![head];
    for ((one, name), numbers) in series.iter().zip(names).zip(&numbers) {
        let course = screen::padded(&plot::course(&one.points, start, span, columns), columns, false);
        let numbers = told(&numbers.iter().map(String::as_str).collect::<Vec<_>>());
        match beside {
            Some(beside) => lines.push(screen::padded(name, beside, false) + &course + &numbers),
            None => lines.extend([screen::fit(name, width), course + &numbers]),
        }
    }
    lines
}

/// The chart of a series, its scale at the right.
fn charted(series: &Series, width: usize) -> Vec<String> {
    let known: Vec<_> = series.points.iter().filter(|(_, value)| value.is_finite()).collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else {
        return vec![screen::fit("no values", width)];
    };
    let values = || known.iter().map(|(_, value)| *value);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let line: Vec<(f32, f32)> = known.iter().map(|(time, value)| ((time - first.0) as f32, *value as f32)).collect();
    let (low, high) = (screen::short(low), screen::short(high));
    let scale = low.width().max(high.width()) + 1;
    let mut lines = plot::chart_lines(&line, (last.0 - first.0) as f32, width.saturating_sub(scale));
    if let [top, .., bottom] = lines.as_mut_slice() {
        top.push_str(&format!(" {high}"));
        bottom.push_str(&format!(" {low}"));
    }
    lines
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

    #[test]
    fn a_query_of_a_range_lost_its_times() {
        let points = vec![(1_700_000_000.0, 1.0), (1_700_000_060.0, 2.5)];
        let series = || vec![Series { labels: vec![("__name__".into(), "cpu".into())], points: points.clone() }];
        let matrix = rows(&Answer { series: series(), has_times: true });
        assert_eq!(matrix.columns, ["series", "time", "value"]);
        assert_eq!(matrix.rows[1], [json!("cpu"), json!("2023-11-14T22:14:20+00:00"), json!(2.5)]);
        let vector = rows(&Answer { series: series(), has_times: false });
        assert_eq!(vector.columns, ["series", "value"]);
        assert_eq!(vector.rows[0], [json!("cpu"), json!(1.0)]);
    }

    /// An hour by the half minute; what differs between the series is `name` and what follows from it.
    fn guest(number: usize, name: &str) -> Series {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        // Ten steps up, so that means of neighbours reach the highest value.
        let value = |at: u32| 1e6 * (number + 1) as f64 * f64::from(at / 12);
        let points = (0..120).map(|at| (1_700_000_000.0 + 30.0 * f64::from(at), value(at)));
        Series {
            labels: vec![
                label("__name__", "disk_device_read_bytes"),
                label("display_name", name),
                label("flavor_id", "9f1c8f0a-33c4-4b7f-9b6c-0d5a6c1b2e3f"),
                label("project_id", "0a2f6b3c4d5e6f708192a3b4c5d6e7f8"),
                label("resource_id", &format!("{number:08}-2f5c-4d7e-8c3f-0123456789ab")),
            ],
            points: points.collect(),
        }
    }

    #[test]
    fn a_plot_took_twenty_lines_a_series_and_its_course_thirteen_columns() {
        let range = (1_700_000_000.0, 1_700_003_600.0);
        let long = "a-guest-with-a-name-that-is-longer-than-the-terminal-of-anybody-who-ever-reads-it";
        for width in [40, 80, 120, 200] {
            for names in [["web-1", "web-2", "db"], [long, "web", "データベース"]] {
                let series: Vec<Series> = names.iter().enumerate().map(|(place, name)| guest(place, name)).collect();
                let lines = plotted(&series, range, width);
                for line in &lines {
                    assert!(line.width() <= width, "{width}: {line}");
                }
                let body: Vec<&String> = lines.iter().filter(|line| line.contains('█')).collect();
                assert_eq!(body.len(), names.len(), "{lines:#?}");
                let after: Vec<&String> =
                    lines.iter().skip_while(|line| !line.trim_end().ends_with("last")).skip(1).collect();
                assert!(after.len() <= 2 * names.len(), "{lines:#?}");
                for name in names {
                    let start: String = name.chars().take(6).collect();
                    assert!(after.iter().any(|line| line.starts_with(&start)), "{width} {name}: {lines:#?}");
                }
                let blocks = |line: &str| line.chars().filter(|c| ('▁'..='█').contains(c)).count();
                let least = if width == 40 { 20 } else { width * 2 / 5 };
                assert!(body.iter().all(|line| blocks(line) >= least), "{width}: {lines:#?}");
            }
            let one = plotted(&[guest(0, long)], range, width);
            assert!(one.iter().all(|line| line.width() <= width), "{width}: {one:#?}");
            let drawn = one.iter().map(|line| line.width()).max().unwrap_or(0);
            assert!(drawn >= width - 8, "the chart takes the width: {width} {one:#?}");
            assert_eq!(plotted(&[], range, width), ["no series"]);
        }
    }
}
