//! `orzo export run|invoices|check|push|deliver|deliveries|replay|key|profiles`: rated lines as files that finance imports, signed;
//! invoices; whether what lies there is what was written; and runs on their way to billing systems and stores.
//!
//! All work beside a running server: they read the ledger as it was committed last.

mod deliveries;
mod push;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use orzo_export::{Catalogue, Invoice, Language, Manifest, Profile, Request, SigningKey, check, export, invoices};
use orzo_model::Timestamp;
use orzo_rating::{Ledger, LineFilter, RatingBook};
use serde_json::json;

use super::{
    bill,
    output::{Format, Rows},
};
use crate::{rating::EXPORT_KEY, settings::Settings};

/// Longest name of a file made of a project's id.
const FILE_NAME_MAX: usize = 120;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  orzo export run focus-1.2-csv --month 2026-10
  orzo export invoices --month 2026-10 --project PROJECT --language zh
  orzo export check exports/focus-1.2-csv-5d3…")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The settings file of the server whose ledger it is.
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    /// Form of what is printed.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write lines of a time in a format, with a manifest and its signature.
    Run(RunArguments),
    /// Write the invoices of a time: a page and a JSON file for each project.
    Invoices(InvoiceArguments),
    /// Hold a run's files against its manifest, and that against its signature.
    Check {
        /// A run's directory.
        directory: PathBuf,
        /// The public key, taken from elsewhere than the manifest (`orzo export key`).
        #[arg(long, value_name = "BASE64")]
        key: Option<String>,
    },
    /// Post a run's events to a billing system (OpenMeter, Stripe, Lago); begun again it goes on where it was.
    Push(push::Push),
    /// Send a run to a target of the settings: the running server does, until it has it.
    Deliver {
        /// A run's directory.
        directory: PathBuf,
        /// Name of the target (`rating.deliveries`).
        target: String,
    },
    /// What waits to be sent to targets, and what became of what was sent.
    Deliveries {
        /// In this state only: waiting, delivered or parked.
        #[arg(long)]
        state: Option<String>,
    },
    /// Give a delivery that was given up a new start where it was.
    Replay {
        /// Its id.
        delivery: String,
    },
    /// The public key that this installation's exports are checked with.
    Key,
    /// The formats.
    Profiles,
}

#[derive(clap::Args)]
struct Time {
    /// A calendar month (UTC), such as 2026-10.
    #[arg(long, value_name = "YYYY-MM", conflicts_with_all = ["from", "to"], required_unless_present_all = ["from", "to"])]
    month: Option<String>,
    /// Rating periods from then on.
    #[arg(long, requires = "to")]
    from: Option<Timestamp>,
    /// Rating periods before then.
    #[arg(long, requires = "from")]
    to: Option<Timestamp>,
}

#[derive(clap::Args)]
struct RunArguments {
    /// The format: see `orzo export profiles`.
    profile: String,
    #[command(flatten)]
    time: Time,
    /// Of these projects only; of all by default.
    #[arg(long, value_name = "ID")]
    project: Vec<String>,
    /// Where to put the run's directory; by default `exports` in the data directory.
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// Lines rated until then only: an earlier run's watermark, to get its bytes again.
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
    /// Lines rated later than that only: an earlier run's watermark, for what it has not.
    #[arg(long, value_name = "TIME")]
    rated_after: Option<Timestamp>,
    /// Names of projects, categories of services, customers of other systems (TOML).
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
}

#[derive(clap::Args)]
struct InvoiceArguments {
    #[command(flatten)]
    time: Time,
    /// Of these projects only; of all by default.
    #[arg(long, value_name = "ID")]
    project: Vec<String>,
    /// Where to put them; by default `invoices` in the data directory.
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// `en` or `zh`.
    #[arg(long, default_value = "en")]
    language: String,
    /// A page of your own instead of ours (Jinja; it gets `invoice`, `say` and `language`).
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Names and addresses of projects (TOML).
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
}

impl Time {
    fn bounds(&self) -> anyhow::Result<(Timestamp, Timestamp)> {
        if let Some(month) = &self.month {
            return month_of(month).with_context(|| format!("--month {month}: YYYY-MM is expected, such as 2026-10"));
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) if from < to => Ok((from, to)),
            _ => bail!("--from must be before --to"),
        }
    }
}

fn month_of(month: &str) -> Option<(Timestamp, Timestamp)> {
    let (year, number) = month.split_once('-')?;
    let (year, number): (u16, u8) = (year.parse().ok()?, number.parse().ok()?);
    if !(1..=12).contains(&number) || month.len() != 7 {
        return None;
    }
    let first = |year: u16, month: u8| format!("{year:04}-{month:02}-01T00:00:00Z").parse::<Timestamp>().ok();
    let next = if number == 12 { first(year + 1, 1)? } else { first(year, number + 1)? };
    Some((first(year, number)?, next))
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let settings = match &arguments.config {
        Some(file) => Settings::read(file)?,
        None => Settings::default(),
    };
    let format = arguments.format;
    match &arguments.command {
        Command::Run(chosen) => runtime.block_on(run_export(&settings, chosen, format)),
        Command::Push(chosen) => runtime.block_on(push::push(chosen, format)),
        Command::Deliver { directory, target } => {
            runtime.block_on(deliveries::deliver(&settings, directory, target, format))
        }
        Command::Deliveries { state } => runtime.block_on(deliveries::list(&settings, state.as_deref(), format)),
        Command::Replay { delivery } => runtime.block_on(deliveries::replay(&settings, delivery, format)),
        Command::Invoices(chosen) => runtime.block_on(run_invoices(&settings, chosen, format)),
        Command::Check { directory, key } => {
            let manifest = check(directory, key.as_deref())?;
            print(&manifest, directory, format)?;
            if format == Format::Table {
                let by = if key.is_some() { "the key that was given" } else { "the key in the manifest" };
                println!("sound: every file is what was written, signed by {by}");
            }
            Ok(())
        }
        Command::Key => {
            println!("{}", key(&settings)?.public());
            Ok(())
        }
        Command::Profiles => {
            let rows = Profile::ALL.iter().map(|profile| vec![json!(profile.name())]).collect();
            Rows { columns: vec!["profile"], rows }.print(format)
        }
    }
}

fn key(settings: &Settings) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::open(&settings.server.data_directory.join(EXPORT_KEY))?)
}

fn catalogue(file: Option<&Path>) -> anyhow::Result<Catalogue> {
    Ok(file.map(Catalogue::read).transpose()?.unwrap_or_default())
}

fn scopes(projects: &[String]) -> Option<Vec<String>> {
    (!projects.is_empty()).then(|| projects.to_vec())
}

async fn run_export(settings: &Settings, chosen: &RunArguments, format: Format) -> anyhow::Result<()> {
    let (begin, end) = chosen.time.bounds()?;
    let profile = Profile::named(&chosen.profile)?;
    let catalogue = catalogue(chosen.catalogue.as_deref())?;
    let (ledger, book) = bill::look(settings).await?;
    for project in &chosen.project {
        if !orzo_rating::processor::is_known(&book, &ledger, project).await? {
            bail!("neither the rating nor the ledger knows a project `{project}`");
        }
    }
    let into = chosen.into.clone().unwrap_or_else(|| settings.server.data_directory.join("exports"));
    let bar = ProgressBar::new(ledger.stats().lines);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos} of at most {len} lines {per_sec} {elapsed}")?);
    let request = Request {
        profile,
        begin,
        end,
        scopes: scopes(&chosen.project),
        as_of: chosen.as_of,
        rated_after: chosen.rated_after,
    };
    let progress = |lines| bar.set_position(lines);
    let run = export(&ledger, &request, &catalogue, &key(settings)?, &into, &progress).await;
    bar.finish_and_clear();
    let run = run?;
    print(&run.manifest, &run.directory, format)?;
    if format == Format::Table && run.was_there {
        println!("it was there already, with the same bytes");
    }
    Ok(())
}

fn print(manifest: &Manifest, directory: &Path, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(manifest)?);
        return Ok(());
    }
    let row = |file: &orzo_export::FileEntry| {
        vec![json!(file.name), json!(file.lines), json!(file.bytes), json!(file.sha256)]
    };
    let columns = vec!["file", "lines", "bytes", "SHA-256"];
    Rows { columns, rows: manifest.files.iter().map(row).collect() }.print(format)?;
    if format == Format::Table {
        if manifest.files.is_empty() {
            println!("nothing was rated between {} and {}", manifest.begin, manifest.end);
        }
        for (currency, total) in &manifest.totals {
            println!("total: {total} {currency}");
        }
        if manifest.left_out > 0 {
            println!("{} lines are no usage and cannot be said in this format", manifest.left_out);
        }
        if let Some(watermark) = manifest.watermark {
            println!("watermark: {watermark} (--as-of brings these bytes back)");
        }
        println!("{}", directory.display());
    }
    Ok(())
}

/// Whether lines of the time may still come, for any of these projects.
async fn is_open(book: &RatingBook, project: &str, begin: Timestamp, end: Timestamp) -> anyhow::Result<bool> {
    let mut until = begin;
    let mut closed = book.closed_periods(Some(project), begin, end).await?;
    closed.sort_by_key(|period| period.begin);
    for period in closed {
        if period.begin <= until {
            until = until.max(period.end);
        }
    }
    Ok(until < end)
}

async fn run_invoices(settings: &Settings, chosen: &InvoiceArguments, format: Format) -> anyhow::Result<()> {
    let (begin, end) = chosen.time.bounds()?;
    let language = Language::named(&chosen.language)
        .with_context(|| format!("--language {}: there are `en` and `zh`", chosen.language))?;
    let catalogue = catalogue(chosen.catalogue.as_deref())?;
    let (ledger, book) = bill::look(settings).await?;
    let into = chosen.into.clone().unwrap_or_else(|| settings.server.data_directory.join("invoices"));
    std::fs::create_dir_all(&into).with_context(|| format!("cannot make {}", into.display()))?;
    let ledger: &dyn Ledger = &ledger;
    let mut rows = Vec::new();
    let made = invoices(ledger, begin, end, scopes(&chosen.project), true, &catalogue).await?;
    for invoice in made {
        let is_provisional = is_open(&book, &invoice.project, begin, end).await?;
        let invoice = Invoice { is_provisional, ..invoice };
        let name = file_name(&invoice.number);
        let page = into.join(format!("{name}.html"));
        let files = [
            (page.clone(), invoice.html(language, chosen.template.as_deref())?),
            (into.join(format!("{name}.json")), serde_json::to_string_pretty(&invoice)? + "\n"),
        ];
        for (path, text) in files {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        for part in &invoice.currencies {
            rows.push(vec![
                json!(invoice.project_name),
                json!(invoice.number),
                json!(invoice.lines),
                json!(part.total),
                json!(part.currency),
                json!(if is_provisional { "provisional" } else { "closed" }),
                json!(page.display().to_string()),
            ]);
        }
    }
    if rows.is_empty() && format == Format::Table {
        println!("nothing was rated between {begin} and {end}{}", hint(ledger).await?);
        return Ok(());
    }
    Rows { columns: vec!["project", "number", "lines", "total", "currency", "state", "page"], rows }.print(format)
}

/// Where there is something, if there is nothing here.
async fn hint(ledger: &dyn Ledger) -> anyhow::Result<String> {
    use futures::TryStreamExt;
    let first = ledger.read(&LineFilter::default()).await?.try_next().await?;
    Ok(first.map_or("; the ledger is empty".to_owned(), |line| format!("; the first lines are of {}", line.period)))
}

/// A project's id is anybody's text; a file's name is not.
fn file_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    text.chars().map(plain).take(FILE_NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_and_anything_else_is_not() {
        let (begin, end) = month_of("2026-12").expect("a month");
        assert_eq!(
            (begin.zulu_secs().as_str(), end.zulu_secs().as_str()),
            ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
        );
        for text in ["2026", "2026-13", "2026-0", "2026-1", "26-10", "2026-10-01", "x-y", ""] {
            assert!(month_of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_files_name_leads_nowhere_else() {
        assert_eq!(file_name("2026-10-../../etc/x"), "2026-10-______etc_x");
    }
}
