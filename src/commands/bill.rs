//! `orzo bill status|rate|rerate|close|explain|verify`: how far usage is rated, rating again with a report before anything is
//! written, closing, where a line comes from, and whether everything fits together.
//!
//! `status` also works beside a running server, and `explain --server` and `close --server` ask it. The others need its store and
//! work while none runs; a running server rates by itself and takes requests to rate again at CloudKitty's API
//! (`/v2/task/reprocesses`).

mod explain;
mod prices;
mod recount;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use orzo_database::Database;
use orzo_index::{Index, IndexSettings};
use orzo_ledger::LedgerTable;
use orzo_model::{Rooms, SystemClock, Timestamp};
use orzo_rating::{BigDecimal, Ledger, LineFilter, RatingBook, Report, RulesOf, ScopeFilter};
use orzo_session::ServiceRequest;
use orzo_store::{Store, files::real::RealDisk};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    output::{Format, Rows},
    store,
};
use crate::{
    client::Target,
    compose,
    rating::{self, Parts, Rating},
    settings::Settings,
};

/// Scopes listed.
const SCOPES_MAX: u32 = 100_000;
/// Differences printed; all are counted.
const CHANGES_PRINTED: usize = 50;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The settings file of the server whose bills they are.
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// How far each project is rated, what is closed, and what the ledger holds.
    Status,
    /// Rate everything that is over and was not rated yet.
    Rate,
    /// Rate a time again: reports what would change; with --commit appends the corrections.
    Rerate(Rerate),
    /// Close periods: from then on they get no lines, and what comes late is corrected in later ones.
    Close(Close),
    /// Where a line comes from: rules, usage, events and points, what corrected it, and whether they give the same again.
    Explain(explain::Explain),
    /// Read the whole ledger: every line against its id and its corrections, closed periods and exports against it; rate
    /// everything anew by the rules of the first time, and count usage, prices and sums once more by SQL over events, points and
    /// lines.
    Verify,
}

#[derive(clap::Args)]
struct Rerate {
    /// From then on (rounded down to a period).
    #[arg(long)]
    from: Timestamp,
    /// Until then.
    #[arg(long)]
    to: Timestamp,
    /// Of these projects; all by default.
    #[arg(long)]
    scope: Vec<String>,
    /// By the newest rules, or by those of the first time: then only what became known of usage since then differs.
    #[arg(long, value_enum, default_value_t)]
    rules: Rules,
    /// Write the corrections.
    #[arg(long)]
    commit: bool,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Rules {
    #[default]
    Now,
    Then,
}

#[derive(clap::Args)]
struct Close {
    /// From then on; from the end of what is closed by default.
    #[arg(long)]
    from: Option<Timestamp>,
    /// Until then, such as 2026-12-01.
    #[arg(long)]
    until: Timestamp,
    /// Of these projects; all by default.
    #[arg(long)]
    scope: Vec<String>,
    /// Let the running server do it, instead of opening the store of one that is stopped.
    #[arg(long)]
    server: bool,
    #[command(flatten)]
    target: Target,
}

/// All rooms that rating needs, in this process.
struct Open {
    store: Arc<Store>,
    index: Arc<Index>,
    rating: Rating,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        let settings = match &arguments.config {
            Some(file) => Settings::read(file)?,
            None => Settings::default(),
        };
        match &arguments.command {
            Command::Status => return status(&settings, arguments.format).await,
            Command::Explain(asked) => return explain::run(&settings, asked, arguments.format).await,
            Command::Close(chosen) if chosen.server => return close_at_server(chosen, arguments.format).await,
            _ => {}
        }
        let open = open(&settings).await?;
        let outcome = match &arguments.command {
            Command::Rate => rate(&open.rating, arguments.format).await,
            Command::Rerate(chosen) => rerate(&open.rating, chosen, arguments.format).await,
            Command::Close(chosen) => close(&open.rating, chosen, arguments.format).await,
            Command::Verify => verify(&open, &settings).await,
            Command::Status | Command::Explain(_) => Ok(()),
        };
        open.store.close().await.context("cannot close the store")?;
        outcome
    })
}

pub(super) async fn database(settings: &Settings) -> anyhow::Result<Database> {
    match &settings.database.url {
        Some(url) => Database::open(url.expose_secret()).await.context("cannot open the database (database.url)"),
        None => {
            let path = settings.server.data_directory.join("orzo.db");
            if !path.is_file() {
                bail!("there is no database in {}", settings.server.data_directory.display());
            }
            Database::open_file(&path).await.with_context(|| format!("cannot open {}", path.display()))
        }
    }
}

async fn open(settings: &Settings) -> anyhow::Result<Open> {
    let store = store::open(settings.store_settings()?).await.context(
        "a running server rates by itself; ask it to rate again by POST /v2/task/reprocesses of its rating API",
    )?;
    let clock = SystemClock::shared();
    let rooms = Rooms::new(&prometheus::Registry::new());
    let database = database(settings).await?;
    let index_settings = IndexSettings { create_defaults: false, ..IndexSettings::default() };
    let index = Index::open(database.clone(), clock.clone(), index_settings).await.context("cannot open the index")?;
    let (index, of_store) = (Arc::new(index), store.clone());
    let parts = Parts { settings, database, index: index.clone(), store: of_store, clock, rooms: &rooms };
    Ok(Open { store, index, rating: rating::open(parts).await? })
}

/// Ledger and book as a running server leaves them, for reading.
pub(super) async fn look(settings: &Settings) -> anyhow::Result<(LedgerTable, RatingBook)> {
    let clock = SystemClock::shared();
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    let directory = rating::ledger_directory(&settings.server.data_directory);
    let ledger = LedgerTable::open_to_read(Arc::new(RealDisk), &directory, clock.clone(), room)?;
    Ok((ledger, RatingBook::open(database(settings).await?, clock).await?))
}

fn bar(length: u64) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(length);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {wide_msg}")?);
    Ok(bar)
}

fn plain(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

async fn status(settings: &Settings, format: Format) -> anyhow::Result<()> {
    let (ledger, book) = look(settings).await?;
    let mut sums: HashMap<String, BTreeMap<String, (u64, BigDecimal)>> = HashMap::new();
    let mut lines = ledger.read(&LineFilter::default()).await?;
    while let Some(line) = lines.try_next().await? {
        let (count, sum) = sums.entry(line.scope).or_default().entry(line.currency).or_default();
        *count += 1;
        *sum += line.cost;
    }
    let mut rows = Vec::new();
    for scope in book.scopes(&ScopeFilter::default(), 0, SCOPES_MAX).await? {
        let closed = book.closed_periods(Some(&scope.scope_id), Timestamp::MIN, Timestamp::MAX).await?;
        let of_scope = sums.remove(&scope.scope_id).unwrap_or_default().into_iter();
        let mut each: Vec<_> = of_scope.map(|(currency, (count, sum))| (Some(currency), count, sum)).collect();
        if each.is_empty() {
            each.push((None, 0, BigDecimal::default()));
        }
        // A row for each currency.
        for (currency, count, sum) in each {
            rows.push(vec![
                json!(scope.scope_id),
                json!(scope.active),
                json!(scope.rated_until.zulu_secs()),
                json!(closed.iter().map(|own| own.end).max().map(Timestamp::zulu_secs)),
                json!(scope.held.as_ref().map(|held| &held.reason)),
                json!(count),
                json!(plain(&sum)),
                json!(currency),
            ]);
        }
    }
    let columns = vec!["project", "active", "rated until", "closed until", "held by", "lines", "cost", "currency"];
    Rows { columns, rows }.print(format)?;
    if format == Format::Table {
        let stats = ledger.stats();
        println!(
            "ledger: {} lines in {} files, {} bytes, version {}",
            stats.lines, stats.files, stats.bytes, stats.version
        );
    }
    Ok(())
}

async fn rate(rating: &Rating, format: Format) -> anyhow::Result<()> {
    rating.processor.discover().await?;
    let ready = rating.processor.settings().ready(SystemClock::shared().now());
    let period = rating.processor.settings().period.as_secs().max(1);
    let hours = |from: Timestamp| u64::try_from(ready.secs() - from.secs()).unwrap_or(0) / period;
    let scopes = rating.processor.scopes().await?;
    let mut left: HashMap<String, u64> = scopes
        .iter()
        .filter(|scope| scope.active)
        .map(|scope| (scope.scope_id.clone(), hours(scope.made_until())))
        .collect();
    let bar = bar(left.values().sum())?;
    let mut report = rating
        .processor
        .advance(|scope, until| {
            let now = hours(until);
            if let Some(before) = left.insert(scope.to_owned(), now) {
                bar.inc(before.saturating_sub(now));
            }
            bar.set_message(scope.to_owned());
        })
        .await?;
    report.add(rating.processor.catch_up().await?);
    bar.finish_and_clear();
    print(&report, format)
}

/// The projects that are meant: the rating must know them.
async fn chosen(rating: &Rating, scopes: &[String]) -> anyhow::Result<Vec<String>> {
    let all: Vec<String> = rating.processor.scopes().await?.into_iter().map(|scope| scope.scope_id).collect();
    if let Some(unknown) = scopes.iter().find(|scope| !all.contains(scope)) {
        bail!("there is no project `{unknown}` that is rated; `orzo bill status` lists them");
    }
    Ok(if scopes.is_empty() { all } else { scopes.to_vec() })
}

async fn verify(open: &Open, settings: &Settings) -> anyhow::Result<()> {
    let problems = verify::verify(open, settings, compose::sql_worker(settings)).await?;
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => bail!("{count} problems"),
    }
}

async fn again(
    rating: &Rating,
    scopes: &[String],
    (from, to): (Timestamp, Timestamp),
    by: RulesOf,
    is_written: bool,
) -> anyhow::Result<Report> {
    let mut times = Vec::new();
    for scope in scopes {
        // Nothing is rated here that was not due for the first time.
        let time = rating.processor.cut(scope, (from, to)).await?;
        times.extend(time.map(|time| (scope, time)));
    }
    let bar = bar(times.iter().map(|(_, time)| rating.processor.periods_in(*time)).sum())?;
    let mut whole = Report::default();
    for (scope, time) in times {
        bar.set_message(scope.clone());
        whole.add(rating.processor.rate_told(scope, time, by, is_written, |periods| bar.inc(periods)).await?);
    }
    bar.finish_and_clear();
    Ok(whole)
}

async fn rerate(rating: &Rating, chosen_by: &Rerate, format: Format) -> anyhow::Result<()> {
    if chosen_by.from >= chosen_by.to {
        bail!("--from must be before --to");
    }
    let scopes = chosen(rating, &chosen_by.scope).await?;
    let by = match chosen_by.rules {
        Rules::Now => RulesOf::Now,
        Rules::Then => RulesOf::Then,
    };
    let report = again(rating, &scopes, (chosen_by.from, chosen_by.to), by, chosen_by.commit).await?;
    print(&report, format)?;
    if !chosen_by.commit && !report.changes.is_empty() && format == Format::Table {
        println!("nothing was written; --commit appends these corrections");
    }
    Ok(())
}

fn print(report: &Report, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let change = |own: &orzo_rating::processor::Change| {
        let cost = |cost: &Option<BigDecimal>| json!(cost.as_ref().map(plain));
        vec![
            json!(own.scope),
            json!(own.service),
            json!(own.resource),
            json!(own.begin.zulu_secs()),
            cost(&own.cost_before),
            cost(&own.cost_after),
        ]
    };
    let rows: Vec<_> = report.changes.iter().take(CHANGES_PRINTED).map(change).collect();
    let columns = vec!["project", "service", "resource", "used from", "cost before", "cost after"];
    Rows { columns, rows }.print(format)?;
    if format == Format::Table {
        for (service, after) in &report.after {
            let before = report.before.get(service).cloned().unwrap_or_default();
            println!("{service}: {} before, {} after", plain(&before), plain(after));
        }
        for found in report.findings.iter().take(CHANGES_PRINTED) {
            println!("{} {} at {}: {}", found.resource, found.reason, found.at.zulu_secs(), found.detail);
        }
        for own in report.incomplete.iter().take(CHANGES_PRINTED) {
            println!("{} {}: {} of {} slots polled", own.resource, own.metric, own.present, own.expected);
        }
        println!(
            "{} periods: {} lines, {} appended, {} of them take others back, {} disagreements, {} incomplete",
            report.periods,
            report.lines,
            report.appended,
            report.reversed,
            report.findings.len(),
            report.incomplete.len()
        );
        if report.unpriced > 0 {
            println!("{} charges have no price: they are not charged, and what stands of them stays", report.unpriced);
        }
    }
    Ok(())
}

async fn close(rating: &Rating, chosen_by: &Close, format: Format) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for scope in chosen(rating, &chosen_by.scope).await? {
        let closed = rating.book.closed_periods(Some(&scope), Timestamp::MIN, chosen_by.until).await?;
        let after = closed.iter().map(|own| own.end).max();
        let from = chosen_by.from.or(after).unwrap_or(Timestamp::EPOCH);
        if let Some(own) = rating.processor.close(&scope, from, chosen_by.until, "orzo bill close").await? {
            for (currency, total) in &own.totals {
                rows.push(vec![
                    json!(own.scope_id),
                    json!(own.begin.zulu_secs()),
                    json!(own.end.zulu_secs()),
                    json!(own.lines),
                    json!(plain(total)),
                    json!(currency),
                    json!(own.rule_version),
                ]);
            }
        }
    }
    let columns = vec!["project", "from", "until", "lines", "total", "currency", "rule version"];
    Rows { columns, rows }.print(format)
}

/// The same, by the server's API.
async fn close_at_server(chosen_by: &Close, format: Format) -> anyhow::Result<()> {
    let scopes = if chosen_by.scope.is_empty() { vec!["ALL".to_owned()] } else { chosen_by.scope.clone() };
    let mut body = json!({"scope_ids": scopes, "end": chosen_by.until});
    if let Some(from) = chosen_by.from {
        body["begin"] = json!(from);
    }
    let request = ServiceRequest {
        service_type: "rating",
        method: "POST".parse().context("a method")?,
        path: "v2/periods",
        headers: &[],
        body: Some(&body),
    };
    let session = chosen_by.target.session()?;
    let answer = session.request(&request, None).await.context("the rating API does not answer as it should")?;
    let names = ["scope_id", "begin", "end", "lines", "total", "currency", "rule_version"];
    let periods = answer["periods"].as_array().context("the server's answer has no periods")?;
    let mut rows = Vec::new();
    for own in periods {
        for (currency, total) in own["totals"].as_object().into_iter().flatten() {
            let cell = |name: &&str| match *name {
                "total" => total.clone(),
                "currency" => json!(currency),
                other => own[other].clone(),
            };
            rows.push(names.iter().map(cell).collect());
        }
    }
    let columns = vec!["project", "from", "until", "lines", "total", "currency", "rule version"];
    Rows { columns, rows }.print(format)
}
