//! `orzo top`: the guests that use most, as a table that is drawn again every few seconds.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use orzo_model::SystemClock;
use orzo_session::Session;
use serde_json::{Value, json};

use super::{
    output::{Format, Rows},
    prometheus,
};
use crate::client::Target;

/// Over how long a counter's rate is taken: some polls, so that one that is missed does not matter.
const RATE: &str = "2m";
/// The shortest pause between two tables.
const INTERVAL_SECONDS_MIN: u64 = 1;

/// What is shown of a guest.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Column {
    /// Processor use in percent of one processor.
    Cpu,
    /// Memory in use, MiB.
    Memory,
    /// Bytes read from disks per second.
    Read,
    /// Bytes written to disks per second.
    Write,
    /// Bytes received per second.
    Received,
    /// Bytes sent per second.
    Sent,
}

const COLUMNS: [(Column, &str); 6] = [
    (Column::Cpu, "cpu %"),
    (Column::Memory, "memory MiB"),
    (Column::Read, "read B/s"),
    (Column::Write, "write B/s"),
    (Column::Received, "in B/s"),
    (Column::Sent, "out B/s"),
];

impl Column {
    /// One value for each guest. Disks and interfaces are resources of their own, which name their guest.
    fn query(self) -> String {
        let of_parts = |name: &str| format!("sum by (instance_id) (rate({name}[{RATE}]))");
        match self {
            // Nanoseconds of processor time, so that guests show up after their second sample.
            Self::Cpu => format!("sum by (resource_id, display_name, project_id) (rate(cpu[{RATE}])) / 1e7"),
            Self::Memory => "sum by (resource_id, display_name, project_id) (memory_usage)".to_owned(),
            Self::Read => of_parts("disk_device_read_bytes"),
            Self::Write => of_parts("disk_device_write_bytes"),
            Self::Received => of_parts("network_incoming_bytes"),
            Self::Sent => of_parts("network_outgoing_bytes"),
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What decides the order, largest first.
    #[arg(long, value_enum, default_value = "cpu")]
    sort: Column,
    /// How many guests.
    #[arg(short = 'n', long, default_value_t = 20)]
    count: usize,
    /// Seconds between two tables.
    #[arg(long, default_value_t = 5)]
    interval: u64,
    /// One table, then stop; so it is without a terminal, too.
    #[arg(long)]
    once: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Default)]
struct Guest {
    name: String,
    project: String,
    values: [Option<f64>; COLUMNS.len()],
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(&arguments))
}

async fn show(arguments: &Arguments) -> anyhow::Result<()> {
    let session = arguments.target.session()?;
    let is_once = arguments.once || arguments.format != Format::Table || !std::io::stdout().is_terminal();
    let pause = Duration::from_secs(arguments.interval.max(INTERVAL_SECONDS_MIN));
    loop {
        let guests = guests(&session).await?;
        let rows = rows(guests, arguments.sort, arguments.count);
        if is_once {
            return rows.print(arguments.format);
        }
        // Clears the screen and goes to its first line.
        println!("\x1b[2J\x1b[H{}  every {} s, Ctrl-C stops", SystemClock::shared().now(), pause.as_secs());
        rows.print(arguments.format)?;
        tokio::time::sleep(pause).await;
    }
}

async fn guests(session: &Session) -> anyhow::Result<BTreeMap<String, Guest>> {
    let mut guests: BTreeMap<String, Guest> = BTreeMap::new();
    for (place, (column, _)) in COLUMNS.iter().enumerate() {
        for series in prometheus::ask(session, "query", &[("query", &column.query())]).await? {
            let id = match series.label("resource_id") {
                "" => series.label("instance_id"),
                id => id,
            };
            if id.is_empty() {
                continue;
            }
            let guest = guests.entry(id.to_owned()).or_default();
            for (own, label) in [(&mut guest.name, "display_name"), (&mut guest.project, "project_id")] {
                if own.is_empty() {
                    *own = series.label(label).to_owned();
                }
            }
            guest.values[place] = series.points.last().map(|(_, value)| *value);
        }
    }
    Ok(guests)
}

fn rows(guests: BTreeMap<String, Guest>, sort: Column, count: usize) -> Rows {
    let place = COLUMNS.iter().position(|(column, _)| *column == sort).unwrap_or_default();
    let mut guests: Vec<(String, Guest)> = guests.into_iter().collect();
    let key = |guest: &Guest| guest.values[place].filter(|value| value.is_finite()).unwrap_or(f64::NEG_INFINITY);
    guests.sort_by(|(_, a), (_, b)| key(b).total_cmp(&key(a)));
    let number = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => json!((value * 10.0).round() / 10.0),
        _ => Value::Null,
    };
    let rows = guests.into_iter().take(count).map(|(id, guest)| {
        let who = [json!(if guest.name.is_empty() { id } else { guest.name }), json!(guest.project)];
        who.into_iter().chain(guest.values.map(number)).collect()
    });
    let columns = ["guest", "project"].into_iter().chain(COLUMNS.map(|(_, title)| title));
    Rows { columns: columns.collect(), rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_come_first_and_unknown_values_last() {
        let guest = |name: &str, cpu: Option<f64>| {
            let mut guest = Guest { name: name.to_owned(), ..Guest::default() };
            guest.values[0] = cpu;
            guest
        };
        let guests = [
            ("1", guest("a", Some(1.26))),
            ("2", guest("", Some(7.0))),
            ("3", guest("c", None)),
            ("4", guest("d", Some(f64::NAN))),
        ];
        let rows = rows(guests.into_iter().map(|(id, guest)| (id.to_owned(), guest)).collect(), Column::Cpu, 3);
        let shown: Vec<(Value, Value)> = rows.rows.iter().map(|row| (row[0].clone(), row[2].clone())).collect();
        assert_eq!(shown, [(json!("2"), json!(7.0)), (json!("a"), json!(1.3)), (json!("c"), Value::Null)]);
    }
}
