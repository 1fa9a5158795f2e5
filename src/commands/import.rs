//! `orzo import`: what another system has kept becomes ours.

mod gnocchi;

use std::path::PathBuf;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use orzo_model::{SystemClock, Timestamp};
use serde_json::json;
use url::Url;

use super::output::{Format, Rows};
use crate::{
    client::Target,
    import::{self, Login, Peer, Plan},
};

/// What Prometheus keeps if nobody says otherwise.
const SPAN_DAYS: i64 = 15;
/// Where the source's password is read from.
const PASSWORD: &str = "ORZO_IMPORT_PASSWORD";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Samples of a Prometheus (or what speaks its remote read), bit for bit. Started again, it goes on where it stopped.
    #[command(
        after_help = "Example:\n  orzo import prometheus --from http://prometheus:9090 --start 2026-10-01T00:00:00Z --names 'node_.*'"
    )]
    Prometheus(Prometheus),
    /// What a Gnocchi keeps: policies, types, resources with their history, metrics with their ids, and points from its aggregates.
    Gnocchi(gnocchi::Gnocchi),
}

#[derive(clap::Args)]
struct Prometheus {
    /// Its URL; /api/v1/read is below it.
    #[arg(long, value_name = "URL")]
    from: Url,
    /// Only metrics with such names: a regular expression of the whole name.
    #[arg(long, default_value = ".+")]
    names: String,
    /// From when; 15 days ago if not given.
    #[arg(long)]
    start: Option<Timestamp>,
    /// Until when; now if not given. An import that goes on needs the same.
    #[arg(long)]
    end: Option<Timestamp>,
    /// User of HTTP Basic there; the password is read from ORZO_IMPORT_PASSWORD.
    #[arg(long, conflicts_with = "bearer_file")]
    user: Option<String>,
    /// A file with a token for `Authorization: Bearer` there.
    #[arg(long, value_name = "FILE")]
    bearer_file: Option<PathBuf>,
    /// What is done is noted here.
    #[arg(long, value_name = "FILE", default_value = "orzo-import.journal")]
    journal: PathBuf,
    /// Form of the comparison.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &arguments.command {
        Command::Prometheus(chosen) => runtime.block_on(prometheus(chosen)),
        Command::Gnocchi(chosen) => runtime.block_on(gnocchi::run(chosen)),
    }
}

async fn prometheus(chosen: &Prometheus) -> anyhow::Result<()> {
    let (start_ms, end_ms) = times(chosen)?;
    let there = Peer::new(chosen.from.clone(), login(chosen)?)?;
    let session = chosen.target.session()?;
    let project = session.project_id().await?.context("the credential has no project to import into")?;
    let mut base = session.endpoint("prometheus").await?;
    base.set_path(&format!("{}/project/{project}/", base.path().trim_end_matches('/')));
    let reader = Peer::new(base, Login::Session(session.clone()))?;
    let writer = Peer::new(session.endpoint("prometheus").await?, Login::Session(session))?;
    let plan = Plan { start_ms, end_ms, names: chosen.names.clone(), journal: chosen.journal.clone() };

    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{prefix:8} {bar:30} {percent}% {eta} {wide_msg}")?);
    bar.set_prefix("copy");
    let journal = import::copy(&plan, &there, &writer, &bar).await?;
    bar.set_prefix("compare");
    let compared = import::compare(&journal, &reader, &bar).await?;
    bar.finish_and_clear();

    let different = compared.iter().filter(|one| !one.is_equal).count();
    let samples: u64 = compared.iter().map(|one| one.read).sum();
    let row = |one: &import::Compared| {
        vec![
            json!(one.name),
            json!(one.read),
            json!(one.found),
            json!(if one.is_equal { "equal" } else { "DIFFERENT" }),
        ]
    };
    let shown = compared.iter().filter(|one| chosen.format != Format::Table || !one.is_equal || compared.len() <= 50);
    Rows { columns: vec!["metric", "samples there", "samples here", "bits"], rows: shown.map(row).collect() }
        .print(chosen.format)?;
    eprintln!("{samples} samples of {} metrics; {different} metrics differ", compared.len());
    match different {
        0 => Ok(()),
        _ => bail!("what differs may have samples of other writers, or the source has changed; nothing was removed"),
    }
}

/// An import that goes on must ask for the same time, so that of its end is noted with the first try.
fn times(chosen: &Prometheus) -> anyhow::Result<(i64, i64)> {
    let noted = import::Journal::times(&chosen.journal);
    let end = match (chosen.end, noted) {
        (Some(end), _) => end.micros() / 1000,
        (None, Some((_, end))) => end,
        (None, None) => SystemClock::shared().now().micros() / 1000,
    };
    let start = match (chosen.start, noted) {
        (Some(start), _) => start.micros() / 1000,
        (None, Some((start, _))) => start,
        (None, None) => end - SPAN_DAYS * 86_400_000,
    };
    if start > end {
        bail!("--start is after --end");
    }
    Ok((start, end))
}

fn login(chosen: &Prometheus) -> anyhow::Result<Login> {
    if let Some(user) = &chosen.user {
        let password = std::env::var(PASSWORD).with_context(|| format!("--user needs the password in {PASSWORD}"))?;
        return Ok(Login::Basic { user: user.clone(), password: password.into() });
    }
    let Some(file) = &chosen.bearer_file else { return Ok(Login::None) };
    let token = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Login::Bearer(token.trim().to_owned().into()))
}
