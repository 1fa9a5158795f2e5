//! `orzo top`: the guests that use most, as a table that is drawn again every few seconds.

use std::{collections::BTreeMap, time::Duration};

use orzo_model::SystemClock;
use orzo_session::Session;
use serde_json::{Value, json};

use super::{
    output::{self, Format, Rows},
    prometheus, screen,
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

/// Titles in a terminal, where each number says its own unit.
const SHORT_TITLES: [&str; COLUMNS.len()] = ["cpu %", "memory", "read/s", "write/s", "in/s", "out/s"];
/// Of a guest's name and of a project's at least so much is shown in a narrow terminal.
const GUEST_LEAST: usize = 10;
const PROJECT_LEAST: usize = 8;
/// Lines of a screen that no guest stands in: time, titles, and the cursor's.
const LINES_TAKEN: usize = 3;

impl Column {
    /// A value as a terminal shows it.
    fn shown(self, value: f64) -> String {
        match self {
            Self::Cpu => format!("{value:.*}", if value.abs() < 99.95 { 1 } else { 0 }),
            Self::Memory => screen::bytes(value * 1024.0 * 1024.0),
            Self::Read | Self::Write | Self::Received | Self::Sent => screen::bytes(value),
        }
    }

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
    let (sort, pause) = (arguments.sort, Duration::from_secs(arguments.interval.max(INTERVAL_SECONDS_MIN)));
    if arguments.format != Format::Table || screen::size().is_none() {
        return rows(busiest(guests(&session).await?, sort, arguments.count)).print(arguments.format);
    }
    let projects = project_names(&session).await;
    // The terminal may have become another size, or none.
    while let Some((width, height)) = screen::size() {
        let count = if arguments.once { usize::MAX } else { height.saturating_sub(LINES_TAKEN) };
        let guests = busiest(guests(&session).await?, sort, arguments.count.min(count));
        let table = lines(&guests, &projects, sort, width).join("\n");
        if arguments.once {
            return output::write(&format!("{table}\n"));
        }
        let head = format!("{}  every {} s, Ctrl-C stops", SystemClock::shared().now(), pause.as_secs());
        // Clears the screen and goes to its first line.
        output::write(&format!("\x1b[2J\x1b[H{}\n{table}\n", screen::fit(&head, width)))?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// Names of projects by their ids, as many as the caller may list; where that is none, ids are shown.
async fn project_names(session: &Session) -> BTreeMap<String, String> {
    // The catalog may name the service's root or its version.
    for path in ["projects", "v3/projects", "auth/projects", "v3/auth/projects"] {
        if let Ok(answer) = session.get("identity", path).await
            && let Some(projects) = answer["projects"].as_array()
        {
            let named =
                |project: &Value| Some((project["id"].as_str()?.to_owned(), project["name"].as_str()?.to_owned()));
            return projects.iter().filter_map(named).collect();
        }
    }
    BTreeMap::new()
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

/// The guests that come first, with their ids.
fn busiest(guests: BTreeMap<String, Guest>, sort: Column, count: usize) -> Vec<(String, Guest)> {
    let place = COLUMNS.iter().position(|(column, _)| *column == sort).unwrap_or_default();
    let mut guests: Vec<(String, Guest)> = guests.into_iter().collect();
    let key = |guest: &Guest| guest.values[place].filter(|value| value.is_finite()).unwrap_or(f64::NEG_INFINITY);
    guests.sort_by(|(_, a), (_, b)| key(b).total_cmp(&key(a)));
    guests.truncate(count);
    guests
}

/// A line for each guest under a line of titles.
fn lines(guests: &[(String, Guest)], projects: &BTreeMap<String, String>, sort: Column, width: usize) -> Vec<String> {
    let numbers = COLUMNS.iter().zip(SHORT_TITLES).enumerate().map(|(place, ((column, _), title))| screen::Column {
        title,
        // The project goes before the first two of the numbers, which without a choice are processor and memory.
        rank: match place {
            _ if *column == sort => 1,
            0 | 1 => 2 + place,
            _ => 3 + place,
        },
        text_least: None,
    });
    let who = [("guest", 0, GUEST_LEAST), ("project", 4, PROJECT_LEAST)].map(|(title, rank, least)| screen::Column {
        title,
        rank,
        text_least: Some(least),
    });
    let columns: Vec<screen::Column> = who.into_iter().chain(numbers).collect();
    let ids: Vec<&str> = guests.iter().map(|(_, guest)| guest.project.as_str()).collect();
    let rows = guests.iter().zip(screen::short_ids(&ids)).map(|((id, guest), short)| {
        let name = if guest.name.is_empty() { id } else { &guest.name };
        let project = projects.get(&guest.project).cloned().unwrap_or(short);
        let number = |place: usize| match guest.values[place].filter(|value| value.is_finite()) {
            Some(value) => COLUMNS[place].0.shown(value),
            None => "-".to_owned(),
        };
        [name.clone(), project].into_iter().chain((0..COLUMNS.len()).map(number)).collect()
    });
    screen::table(&columns, &rows.collect::<Vec<Vec<String>>>(), width)
}

fn rows(guests: Vec<(String, Guest)>) -> Rows {
    let number = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => json!((value * 10.0).round() / 10.0),
        _ => Value::Null,
    };
    let rows = guests.into_iter().map(|(id, guest)| {
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
        let guests = guests.into_iter().map(|(id, guest)| (id.to_owned(), guest)).collect();
        let rows = rows(busiest(guests, Column::Cpu, 3));
        let shown: Vec<(Value, Value)> = rows.rows.iter().map(|row| (row[0].clone(), row[2].clone())).collect();
        assert_eq!(shown, [(json!("2"), json!(7.0)), (json!("a"), json!(1.3)), (json!("c"), Value::Null)]);
    }

    /// Guests with names short, long, wide and missing, in two projects.
    fn guests() -> Vec<(String, Guest)> {
        let guest = |id: &str, name: &str, project: &str, values: [f64; 6]| {
            (id.to_owned(), Guest { name: name.to_owned(), project: project.to_owned(), values: values.map(Some) })
        };
        let (demo, other) = ("0a2f6b3c4d5e6f708192a3b4c5d6e7f8", "0a2f6b3c9d5e6f708192a3b4c5d6e7f8");
        let busy = [1_600.123_456, 524_288.0, 1.234_567e9, 9.876_543e8, 123_456.789, 999.4];
        vec![
            guest("1", "web", demo, [12.345_678, 512.25, 0.0, 1.5, 2048.0, 812.0]),
            guest("2", "a-guest-with-a-name-that-is-longer-than-the-terminal-of-anybody-who-reads-it", other, busy),
            guest("3", "データベース・サーバー", demo, [f64::NAN; 6]),
            guest("b1946ac9-2f5c-4d7e-8c3f-0123456789ab", "", other, busy.map(|value| -value)),
        ]
    }

    #[test]
    fn a_guest_took_five_lines_of_a_terminal() {
        use unicode_width::UnicodeWidthStr;
        let projects = BTreeMap::from([("0a2f6b3c4d5e6f708192a3b4c5d6e7f8".to_owned(), "demo".to_owned())]);
        for width in [40, 80, 120, 200] {
            let guests = guests();
            for sort in COLUMNS.map(|(column, _)| column) {
                let lines = lines(&guests, &projects, sort, width);
                assert_eq!(lines.len(), 1 + guests.len(), "{lines:#?}");
                for line in &lines {
                    assert!(line.width() <= width, "{width}: {line}");
                }
                let title = SHORT_TITLES[COLUMNS.iter().position(|(column, _)| *column == sort).expect("a column")];
                assert!(lines[0].contains("guest") && lines[0].contains(title), "{width}: {}", lines[0]);
                assert!(lines[1].starts_with("web ") && lines[2].starts_with("a-guest-"), "{width}: {lines:#?}");
                assert!(lines[4].starts_with("b1946ac9"), "{width}: {lines:#?}");
            }
            let shown = lines(&guests, &projects, Column::Cpu, width);
            let all = SHORT_TITLES.iter().all(|title| shown[0].contains(title));
            assert_eq!(all, width >= 80, "{width}: {}", shown[0]);
        }
        let shown = lines(&guests(), &projects, Column::Cpu, 80);
        let words = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&shown[1]), ["demo", "12.3", "512MiB", "0B", "2B", "2.0KiB", "812B"]);
        assert_eq!(words(&shown[2]), ["0a2f6b3c9", "1600", "512GiB", "1.1GiB", "942MiB", "121KiB", "999B"]);
        assert_eq!(words(&shown[3])[1..], ["-"; 6]);
    }
}
