//! `orzo import gnocchi`: names, history and points of another Gnocchi.

use std::path::PathBuf;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use orzo_model::{SystemClock, Timestamp};
use serde_json::json;
use url::Url;

use super::PASSWORD;
use crate::{
    client::Target,
    commands::output::{Format, Rows},
    import::{
        Login, Peer,
        gnocchi::{self, Compared, Ends, Plan},
    },
};

/// What is asked for if nobody says otherwise: longer than policies keep.
const SPAN_DAYS: i64 = 5 * 366;
/// Differences that are shown; JSON and CSV have all metrics.
const SHOWN: usize = 50;

#[derive(clap::Args)]
#[command(
    after_help = "Gnocchi keeps aggregates and no points. Each bucket of the finest granularity becomes one point at its begin, with the
aggregate as its value; older buckets come from coarser granularities. What Orzo computes of them afterwards: a mean
over times that have points of one granularity is that of Gnocchi where each bucket had as many points; counts count
buckets; minimum and maximum are those of the imported method, not of the points that were there. Import --aggregation
last for counters. Granularities below a second are left out: Gnocchi's answers cut their times.

The credential there must see everything (an administrator); that of --openrc must be an administrator's, too. Started
again with the same journal it goes on where it stopped.

Examples:
  orzo import gnocchi --from http://gnocchi:8041 --user admin
  orzo import gnocchi --from https://metric.example.org --token-file token --aggregation last"
)]
pub(super) struct Gnocchi {
    /// Its URL; /v1 is below it.
    #[arg(long, value_name = "URL")]
    from: Url,
    /// User of HTTP Basic there; the password is read from ORZO_IMPORT_PASSWORD, and may be empty.
    #[arg(long, conflicts_with = "token_file", required_unless_present = "token_file")]
    user: Option<String>,
    /// A file with a token of the identity service there.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Which aggregate becomes the points' values; where a policy does not keep it: mean, last, median, max or min.
    #[arg(long, default_value = "mean")]
    aggregation: String,
    /// Measures from this time on; five years ago if not given.
    #[arg(long)]
    start: Option<Timestamp>,
    /// Measures before this time; now if not given.
    #[arg(long)]
    end: Option<Timestamp>,
    /// What is done is noted here.
    #[arg(long, value_name = "FILE", default_value = "orzo-import-gnocchi.journal")]
    journal: PathBuf,
    /// Form of the comparison.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(chosen: &Gnocchi) -> anyhow::Result<()> {
    let now = SystemClock::shared().now();
    let end = chosen.end.unwrap_or(now);
    let start = chosen.start.unwrap_or_else(|| Timestamp::from_secs((now.secs() - SPAN_DAYS * 86_400).max(0)));
    if start >= end {
        bail!("--start is not before --end");
    }
    let session = chosen.target.session()?;
    let mut store = session.endpoint("prometheus").await?;
    // Catalogs know of no store; it is beside the Prometheus face, in the same process.
    let path = store.path().trim_end_matches('/').trim_end_matches("/prometheus").to_owned();
    store.set_path(&format!("{path}/store/"));
    let ends = Ends {
        there: Peer::new(chosen.from.clone(), login(chosen)?)?,
        here: Peer::new(session.endpoint("metric").await?, Login::Session(session.clone()))?,
        store: Peer::new(store, Login::Session(session))?,
    };
    let plan = Plan { aggregation: chosen.aggregation.clone(), start, end, journal: chosen.journal.clone() };
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{prefix:8} {bar:30} {pos}/{len} metrics {eta} {wide_msg}")?);
    let (journal, made) = gnocchi::copy(&plan, &ends, &bar).await?;
    bar.set_prefix("compare");
    let compared = gnocchi::compare(&journal, &ends.here, &bar).await?;
    bar.finish_and_clear();
    for note in &made.notes {
        eprintln!("note: {note}");
    }
    print(&compared, chosen.format)?;
    let points: u64 = compared.iter().map(|one| one.done.points).sum();
    let different = compared.iter().filter(|one| !one.is_equal).count();
    eprintln!(
        "{} resources and {} metrics made; {points} points of {} metrics; {different} metrics differ",
        made.resources,
        made.metrics,
        compared.len()
    );
    match different {
        0 => Ok(()),
        _ => bail!("what differs may have points of other writers, or the source has changed; nothing was removed"),
    }
}

fn print(compared: &[Compared], format: Format) -> anyhow::Result<()> {
    let row = |one: &Compared| {
        vec![
            json!(one.done.id),
            json!(one.done.name),
            json!(one.done.method),
            json!(one.done.points),
            json!(one.found),
            json!(one.done.sum),
            json!(if one.sum.is_finite() { Some(one.sum) } else { None }),
            json!(if one.is_equal { "equal" } else { "DIFFERENT" }),
        ]
    };
    let shown = compared.iter().filter(|one| format != Format::Table || !one.is_equal || compared.len() <= SHOWN);
    let columns = vec!["metric", "name", "method", "points there", "points here", "sum there", "sum here", "result"];
    Rows { columns, rows: shown.map(row).collect() }.print(format)
}

fn login(chosen: &Gnocchi) -> anyhow::Result<Login> {
    if let Some(user) = &chosen.user {
        // Gnocchi's own basic mode does not look at it.
        let password = std::env::var(PASSWORD).unwrap_or_default();
        return Ok(Login::Basic { user: user.clone(), password: password.into() });
    }
    let file = chosen.token_file.as_ref().context("--user or --token-file is needed")?;
    let token = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Login::Token(token.trim().to_owned().into()))
}
