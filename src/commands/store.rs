//! `orzo store verify|inspect|stats|compact|adopt|backup|restore|export`: looks after what is kept.
//!
//! All but the last three need a store that is not running. Each opens the store, which recovers what a crash left, and lets it go again. A store that is in use is refused: its
//! server verifies and merges by itself, and its figures are at `/metrics`.

mod export;
mod manifest;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use orzo_model::{Rooms, SystemClock};
use orzo_store::{Store, StoreSettings};
use serde_json::{Value, json};

use super::{
    backup,
    output::{Format, Rows},
};
use crate::settings::Settings;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The settings file of the server whose store it is.
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    /// The store's directory, if not the one that the settings say.
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Shown {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read every byte and hold it against checksums, hashes and the log. Fails if anything is wrong.
    Verify,
    /// List the files: day, rows, bytes, series and times.
    Inspect(Shown),
    /// Show how much there is.
    Stats(Shown),
    /// Go on with a table in a bucket whose machine is gone: points that only its log had are lost. For a new data
    /// directory; a server that still has the table is refused its next commit.
    Adopt,
    /// Merge files into as few as possible, write those with deleted series anew, and remove what is not needed.
    Compact,
    /// Copy everything that is kept: points, labels, database, images, secrets. A running server does it while it works.
    Backup(backup::Backup),
    /// Make a data directory of a backup, and read every byte of it again.
    Restore(backup::Restore),
    /// Write points with their names to Parquet or CSV files, a file for each day.
    Export(export::Export),
}

/// How often a bar is drawn while nothing is known to move.
const TICK: Duration = Duration::from_millis(120);

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        match &arguments.command {
            Command::Backup(chosen) => return backup::back_up(chosen, &settings(&arguments)?).await,
            Command::Restore(chosen) => return backup::restore(chosen).await,
            Command::Export(chosen) => return export::run(chosen, &settings(&arguments)?).await,
            Command::Verify | Command::Inspect(_) | Command::Stats(_) | Command::Compact | Command::Adopt => {}
        }
        let mut own = settings(&arguments)?.store_settings()?;
        if let Some(directory) = &arguments.directory {
            own.directory.clone_from(directory);
        }
        own.adopts = matches!(arguments.command, Command::Adopt);
        if own.adopts && own.bucket.is_none() {
            bail!("store.url is not set: only a table in a bucket can be taken over");
        }
        let store = open(own).await?;
        let outcome = look_after(&store, &arguments).await;
        store.close().await.context("cannot close the store")?;
        outcome
    })
}

fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    match &arguments.config {
        Some(file) => Settings::read(file),
        None => Ok(Settings::default()),
    }
}

/// Opens a store that nobody else has open.
pub(super) async fn open(settings: StoreSettings) -> anyhow::Result<Arc<Store>> {
    if !settings.adopts && !settings.directory.join("samples").is_dir() {
        bail!("there is no store in {}", settings.directory.display());
    }
    // Where it is, and nothing of what a server does there: a command removes nothing for its age.
    let StoreSettings { directory, bucket, adopts, .. } = settings;
    let settings = StoreSettings { directory, bucket, adopts, ..StoreSettings::default() };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    Store::open(settings, room, SystemClock::shared()).await.context("cannot open the store")
}

async fn look_after(store: &Arc<Store>, arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Verify => verify(store).await,
        Command::Adopt => adopted(store),
        Command::Inspect(shown) => inspect(store, shown.format),
        Command::Stats(shown) => stats(store, shown.format),
        Command::Compact => compact(store).await,
        // These have opened what they need themselves.
        Command::Backup(_) | Command::Restore(_) | Command::Export(_) => Ok(()),
    }
}

fn adopted(store: &Store) -> anyhow::Result<()> {
    let stats = store.stats();
    println!("taken over with {} rows in {} files; orzo serve can start", stats.rows, stats.files);
    Ok(())
}

async fn verify(store: &Arc<Store>) -> anyhow::Result<()> {
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}")?);
    let moving = bar.clone();
    let report = store
        .verify_with(move |progress| {
            moving.set_length(progress.bytes_total);
            moving.set_position(progress.bytes_done);
            moving.set_message(progress.file);
        })
        .await
        .context("cannot verify the store")?;
    bar.finish_and_clear();
    println!(
        "{} files, {} rows, {} bytes, {} records of the log read",
        report.files, report.rows, report.bytes, report.wal_records
    );
    for problem in &report.problems {
        println!("{problem}");
    }
    match report.problems.len() {
        0 => Ok(()),
        count => bail!("{count} problems; restore what is named from a backup"),
    }
}

fn inspect(store: &Arc<Store>, format: Format) -> anyhow::Result<()> {
    let row = |file: orzo_store::FileStats| {
        vec![
            json!(file.path),
            json!(file.rows),
            json!(file.bytes),
            json!(format!("{:.3}", file.bytes as f64 / file.rows.max(1) as f64)),
            json!(file.double_rows),
            json!(format!("{}..{}", file.series_first, file.series_last)),
            json!(file.oldest.zulu_micros()),
            json!(file.newest.zulu_micros()),
            json!(file.format),
        ]
    };
    let columns = vec!["file", "rows", "bytes", "bytes per row", "doubles", "series", "oldest", "newest", "format"];
    Rows { columns, rows: store.files().into_iter().map(row).collect() }.print(format)
}

fn stats(store: &Arc<Store>, format: Format) -> anyhow::Result<()> {
    let Value::Object(figures) = serde_json::to_value(store.stats())? else { bail!("figures are an object") };
    let rows = figures.into_iter().map(|(name, figure)| vec![json!(name), figure]).collect();
    Rows { columns: vec!["figure", "value"], rows }.print(format)
}

async fn compact(store: &Arc<Store>) -> anyhow::Result<()> {
    let before = store.stats();
    let bar = ProgressBar::new_spinner().with_message(format!("merging {} files", before.files));
    bar.enable_steady_tick(TICK);
    let merged = store.compact().await.context("cannot merge files")?;
    let rewritten = store.apply_deletions().await.context("cannot write files without deleted series")?;
    store.checkpoint().await.context("cannot write a checkpoint")?;
    store.vacuum().await.context("cannot remove old files")?;
    bar.finish_and_clear();
    let after = store.stats();
    println!(
        "{merged} files merged, {rewritten} written anew: {} files with {} bytes became {} with {}",
        before.files, before.file_bytes, after.files, after.file_bytes
    );
    match after.quarantined {
        0 => Ok(()),
        count => bail!("{count} files cannot be read; `orzo store verify` says why"),
    }
}
