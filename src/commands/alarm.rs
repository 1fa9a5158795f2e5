//! `orzo alarm`: alarms and what became of their notices, of a running Orzo; `list` and `show` of any Aodh as well.

use anyhow::{Context, bail};
use orzo_session::{ServiceRequest, Session};
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
    /// List alarms, newest change first.
    List {
        /// Only those in this state: ok, alarm, "insufficient data".
        #[arg(long)]
        state: Option<String>,
        /// Of all projects (administrators only).
        #[arg(long)]
        all_projects: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show an alarm with everything that it says.
    Show {
        /// Id of the alarm.
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// List notices: those that wait, were delivered, or were given up (parked).
    Notices {
        /// Only those in this state: waiting, delivered, parked.
        #[arg(long)]
        state: Option<String>,
        /// Only those of this alarm.
        #[arg(long)]
        alarm: Option<String>,
        /// Of all projects (administrators only).
        #[arg(long)]
        all_projects: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give parked notices a new start: one, those of an alarm, or all of the project.
    Replay {
        /// Id of a notice.
        notice: Option<String>,
        /// Those of this alarm.
        #[arg(long, conflicts_with = "notice")]
        alarm: Option<String>,
        /// All of the project.
        #[arg(long, conflicts_with_all = ["notice", "alarm"])]
        all: bool,
        /// All of all projects (administrators only).
        #[arg(long, conflicts_with_all = ["notice", "alarm", "all"])]
        all_projects: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Try a rule on past data: when would it have fired? Nothing is kept and nobody is told.
    Test(Test),
    /// Send a test notice to a URL, by the way of every notice.
    Call {
        /// An action, such as https://example.org/hook.
        action: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show the keys that receivers of this project verify signatures with.
    Keys {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args)]
struct Common {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Args)]
struct Test {
    /// File with an alarm as JSON, as the API takes it; `-` reads it from standard input.
    #[arg(required_unless_present = "alarm")]
    file: Option<String>,
    /// The rule of an alarm that is there.
    #[arg(long, conflicts_with = "file", value_name = "ID")]
    alarm: Option<String>,
    /// From when: a time, or a span before now such as `-1 hour`.
    #[arg(long, allow_hyphen_values = true)]
    start: Option<String>,
    /// Until when.
    #[arg(long, allow_hyphen_values = true)]
    stop: Option<String>,
    /// Draw the values, and below them when the alarm would have been on.
    #[arg(long)]
    plot: bool,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(arguments.command))
}

async fn answer(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { state, all_projects, common } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            if all_projects {
                query.append_pair("q.field", "all_projects").append_pair("q.value", "true");
            }
            if let Some(state) = state {
                query.append_pair("q.field", "state").append_pair("q.value", &state);
            }
            let columns = ["alarm_id", "type", "name", "state", "severity", "enabled", "state_timestamp"];
            let list = get(&common, &format!("v2/alarms?{}", query.finish())).await?;
            table(&columns, &list)?.print(common.format)
        }
        Command::Show { id, common } => {
            let alarm = get(&common, &format!("v2/alarms/{}", segment(&id))).await?;
            fields(&alarm)?.print(common.format)
        }
        Command::Notices { state, alarm, all_projects, common } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for (name, value) in [("state", state), ("alarm_id", alarm)] {
                if let Some(value) = value {
                    query.append_pair(name, &value);
                }
            }
            if all_projects {
                query.append_pair("all_projects", "true");
            }
            let columns = ["notice_id", "alarm_id", "action", "state", "created_at", "attempts", "next_at", "failure"];
            let list = get(&common, &format!("v2/notices?{}", query.finish())).await?;
            table(&columns, &list)?.print(common.format)
        }
        Command::Replay { notice, alarm, all, all_projects, common } => {
            if notice.is_none() && alarm.is_none() && !all && !all_projects {
                bail!("name a notice, an alarm (--alarm), or --all");
            }
            let mut body = json!({"all_projects": all_projects});
            for (name, value) in [("notice_id", notice), ("alarm_id", alarm)] {
                if let Some(value) = value {
                    body[name] = value.into();
                }
            }
            let done = post(&common, "v2/notices/replay", &body).await?;
            fields(&done)?.print(common.format)
        }
        Command::Test(test) => try_rule(&test).await,
        Command::Call { action, common } => {
            let done = post(&common, "v2/notices/test", &json!({"action": action})).await?;
            fields(&done)?.print(common.format)?;
            match done["delivered"].as_bool() {
                Some(true) => Ok(()),
                _ => bail!("the test notice was not delivered"),
            }
        }
        Command::Keys { common } => {
            let keys = get(&common, "v2/notices/signing_keys").await?;
            let keys = keys["signing_keys"].as_array().context("the server's answer has no keys")?.clone();
            let rows = keys.into_iter().enumerate().map(|(place, key)| {
                let name = if place == 0 { "current" } else { "previous" };
                vec![json!(name), key]
            });
            Rows { columns: vec!["key", "value"], rows: rows.collect() }.print(common.format)
        }
    }
}

async fn try_rule(test: &Test) -> anyhow::Result<()> {
    let mut body = match (&test.alarm, test.file.as_deref()) {
        (Some(id), _) => json!({"alarm_id": id}),
        (None, Some("-")) => serde_json::from_reader(std::io::stdin()).context("standard input is not JSON")?,
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))?
        }
        (None, None) => bail!("name a file, or an alarm with --alarm"),
    };
    if !body.is_object() {
        bail!("an alarm is a JSON object");
    }
    for (name, value) in [("start", &test.start), ("stop", &test.stop)] {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    let timeline = post(&test.common, "v2/alarms/test", &body).await?;
    if test.plot {
        draw(&timeline)?;
    }
    let columns = ["timestamp", "previous", "current", "reason"];
    table(&columns, &timeline["transitions"])?.print(test.common.format)
}

/// The newest value of each window, and a bar below for the windows in which the alarm would have been on.
fn draw(timeline: &Value) -> anyhow::Result<()> {
    let windows = timeline["windows"].as_array().context("the server's answer has no windows")?;
    let time = |window: &Value| -> anyhow::Result<orzo_model::Timestamp> {
        Ok(window["end"].as_str().context("a window has no end")?.parse()?)
    };
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
        println!("no window closes in that time");
        return Ok(());
    };
    let (start, end) = (time(first)?, time(last)?);
    let mut line: Vec<(f32, f32)> = Vec::new();
    for window in windows {
        if let Some(value) = window["value"].as_f64() {
            line.push((time(window)?.since(start).as_secs_f32(), value as f32));
        }
    }
    plot::chart(&line, end.since(start).as_secs_f32());
    let columns = (plot::PLOT_DOTS.0 / 2) as usize;
    let bar: String = (0..columns)
        .map(|column| {
            let own = &windows[column * windows.len() / columns];
            match own["state"].as_str() {
                Some("alarm") => '#',
                Some("ok") => '.',
                _ => '?',
            }
        })
        .collect();
    println!("{bar}  # alarm, . ok, ? insufficient data");
    println!("{} to {}", first["end"].as_str().unwrap_or_default(), last["end"].as_str().unwrap_or_default());
    Ok(())
}

async fn get(common: &Common, path: &str) -> anyhow::Result<Value> {
    let session = common.target.session()?;
    session.get("alarming", path).await.context("the alarm API does not answer as it should")
}

async fn post(common: &Common, path: &str, body: &Value) -> anyhow::Result<Value> {
    let session: std::sync::Arc<Session> = common.target.session()?;
    let request = ServiceRequest {
        service_type: "alarming",
        method: "POST".parse().context("a method")?,
        path,
        headers: &[],
        body: Some(body),
    };
    session.request(&request, None).await.context("the alarm API does not answer as it should")
}

/// One row for each object of a list.
fn table(columns: &[&'static str], list: &Value) -> anyhow::Result<Rows> {
    let Value::Array(list) = list else { bail!("the server's answer is not a list") };
    let rows = list.iter().map(|item| columns.iter().map(|column| item[*column].clone()).collect()).collect();
    Ok(Rows { columns: columns.to_vec(), rows })
}

/// One row for each field of an object.
fn fields(object: &Value) -> anyhow::Result<Rows> {
    let Value::Object(object) = object else { bail!("the server's answer is not an object") };
    let rows = object.iter().map(|(name, value)| vec![json!(name), value.clone()]).collect();
    Ok(Rows { columns: vec!["field", "value"], rows })
}

/// An id as one segment of a path.
fn segment(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}
