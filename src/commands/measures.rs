//! `orzo measures show`: measures of one metric, from a running Orzo or any Gnocchi.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    output::{Format, Rows},
    plot,
};
use crate::client::Target;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the measures of a resource's metric.
    Show(Show),
}

#[derive(clap::Args)]
struct Show {
    /// Resource: a UUID, or the name it was made with (such as a host's name).
    resource: String,
    /// Metric name, such as cpu_util.
    metric: String,
    /// Aggregation method, such as mean, max, rate:mean.
    #[arg(long, default_value = "mean")]
    aggregation: String,
    /// Bucket width in seconds; all that are kept if not given.
    #[arg(long)]
    granularity: Option<String>,
    /// From when: a time, or a span before now such as `-1 hour`.
    #[arg(long, allow_hyphen_values = true)]
    start: Option<String>,
    /// Until when.
    #[arg(long, allow_hyphen_values = true)]
    stop: Option<String>,
    /// Draw it.
    #[arg(long)]
    plot: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Command::Show(show) = arguments.command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measures = runtime.block_on(fetch(&show))?;
    if show.plot {
        return draw(&show, &measures);
    }
    let rows = measures.iter().map(|(time, granularity, value)| vec![json!(time), json!(granularity), json!(value)]);
    Rows { columns: vec!["timestamp", "granularity", "value"], rows: rows.collect() }.print(show.format)
}

/// (timestamp, granularity in seconds, value), as Gnocchi orders them.
type Measures = Vec<(String, f64, f64)>;

async fn fetch(show: &Show) -> anyhow::Result<Measures> {
    let session = show.target.session()?;
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let mut path = format!(
        "v1/resource/generic/{}/metric/{}/measures?aggregation={}",
        encoded(&show.resource),
        encoded(&show.metric),
        encoded(&show.aggregation)
    );
    for (name, value) in [("granularity", &show.granularity), ("start", &show.start), ("stop", &show.stop)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    let answer = session.get("metric", &path).await.context("cannot read the measures")?;
    let Value::Array(rows) = answer else { bail!("the server's answer is not a list of measures") };
    rows.iter()
        .map(|row| {
            let time = row.get(0).and_then(Value::as_str);
            let granularity = row.get(1).and_then(Value::as_f64);
            let value = row.get(2).and_then(Value::as_f64);
            match (time, granularity, value) {
                (Some(time), Some(granularity), Some(value)) => Ok((time.to_owned(), granularity, value)),
                _ => bail!("the server's answer has a row that is no measure: {row}"),
            }
        })
        .collect()
}

/// Draws the finest granularity.
fn draw(show: &Show, measures: &Measures) -> anyhow::Result<()> {
    let finest = measures.iter().map(|(_, granularity, _)| *granularity).fold(f64::INFINITY, f64::min);
    let points: Vec<(&str, f32)> = measures
        .iter()
        .filter(|(_, granularity, value)| *granularity == finest && value.is_finite())
        .map(|(time, _, value)| (time.as_str(), *value as f32))
        .collect();
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        println!("no measures of {} {}", show.resource, show.metric);
        return Ok(());
    };
    let start: orzo_model::Timestamp = first.parse()?;
    let line: Vec<(f32, f32)> = points
        .iter()
        .map(|(time, value)| Ok((time.parse::<orzo_model::Timestamp>()?.since(start).as_secs_f32(), *value)))
        .collect::<Result<_, orzo_model::TimeError>>()?;
    println!("{} of {} ({} per {finest} s)", show.metric, show.resource, show.aggregation);
    plot::chart(&line, line.last().map_or(0.0, |(x, _)| *x));
    println!("{first}  to  {last}");
    Ok(())
}
