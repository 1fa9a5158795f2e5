//! `orzo store backup` and `orzo store restore`.
//!
//! A running server makes the backup itself, in the directory that `store.backup_directory` names on its machine; of one
//! that does not run (`--stopped`) this process makes it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use orzo_api::BackupState;
use orzo_database::Database;
use orzo_model::SystemClock;
use orzo_session::{ServiceRequest, Session};
use secrecy::ExposeSecret;

use crate::{
    backup::{self, Far, Labels, Manifest, Source},
    client::Target,
    settings::Settings,
};

/// How often a running server is asked how far it is.
const LOOK: Duration = Duration::from_millis(300);

#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The server does not run: copy its files without it.
    #[arg(long)]
    stopped: bool,
    /// Where to put it, with --stopped; by default what the settings say.
    #[arg(long, value_name = "DIRECTORY", requires = "stopped")]
    to: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Args)]
pub(crate) struct Restore {
    /// A backup: a directory such as backups/20261122T104500Z.
    backup: PathBuf,
    /// The data directory to make of it; must not be there, or be empty.
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
}

fn bar() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{msg:9} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?);
    Ok(bar)
}

pub(crate) async fn back_up(arguments: &Backup, settings: &Settings) -> anyhow::Result<()> {
    match arguments.stopped {
        true => of_stopped(arguments, settings).await,
        false => of_running(&arguments.target).await,
    }
}

async fn of_running(target: &Target) -> anyhow::Result<()> {
    let session = target.session()?;
    let mut state = ask(&session, "POST", "v1/backups")
        .await
        .context("the server did not begin a backup; if it does not run, --stopped copies its files without it")?;
    let bar = bar()?;
    while state.state == "running" {
        bar.set_message(state.stage.clone());
        bar.set_length(state.bytes_total);
        bar.set_position(state.bytes_done);
        tokio::time::sleep(LOOK).await;
        state = ask(&session, "GET", &format!("v1/backups/{}", state.name)).await?;
    }
    bar.finish_and_clear();
    match (&state.path, &state.error) {
        (Some(path), _) => {
            println!("{path} on the server");
            tell(&state.notes);
            Ok(())
        }
        (None, error) => bail!("the backup failed: {}", error.as_deref().unwrap_or("the server does not say why")),
    }
}

async fn ask(session: &Session, method: &str, path: &str) -> anyhow::Result<BackupState> {
    let method = method.parse().context("a method")?;
    // Catalogs know of no store; it is beside the Prometheus face, in the same process.
    let path = &format!("../store/{path}");
    let request = ServiceRequest { service_type: "prometheus", method, path, headers: &[], body: None };
    let answer = session.request(&request, None).await?;
    serde_json::from_value(answer).context("the server's answer is not a backup's state")
}

async fn of_stopped(arguments: &Backup, settings: &Settings) -> anyhow::Result<()> {
    let data = settings.server.data_directory.clone();
    let store = super::store::open(settings.store_settings()?).await?;
    let database = match &settings.database.url {
        Some(url) => Database::open(url.expose_secret()).await,
        None if data.join("orzo.db").is_file() => Database::open_file(&data.join("orzo.db")).await,
        None => bail!("there is no database in {}", data.display()),
    };
    let clock = SystemClock::shared();
    let source = Source {
        store: store.clone(),
        labels: Labels::Closed(data.join("labels")),
        database: database.context("cannot open the database")?,
        purging: Default::default(),
        backups: arguments.to.clone().unwrap_or_else(|| settings.backup_directory()),
        data_directory: data,
        clock: clock.clone(),
    };
    let bar = bar()?;
    let moving = bar.clone();
    let told = move |far: Far| {
        moving.set_message(far.stage);
        moving.set_length(far.bytes_total);
        moving.set_position(far.bytes_done);
    };
    let made = backup::make(&source, &backup::name_of(clock.now()), told).await;
    source.database.close().await;
    store.close().await.context("cannot close the store")?;
    let (path, manifest) = made?;
    bar.finish_and_clear();
    println!("{}", path.display());
    describe(&manifest);
    Ok(())
}

fn describe(manifest: &Manifest) {
    let points = &manifest.points;
    println!(
        "{} rows in {} files, {} bytes ({} shared with the backup before), hash {}; {} other files",
        points.rows,
        points.files,
        points.bytes,
        points.linked_bytes,
        points.hash,
        manifest.files.len()
    );
    tell(&manifest.notes);
}

fn tell(notes: &[String]) {
    for note in notes {
        println!("note: {note}");
    }
}

pub(crate) async fn restore(arguments: &Restore) -> anyhow::Result<()> {
    let bar = bar()?;
    let moving = bar.clone();
    let told = move |stage: &'static str, done: u64, total: u64| {
        moving.set_message(stage);
        moving.set_length(total);
        moving.set_position(done);
    };
    let restored = backup::restore(&arguments.backup, &arguments.to, told).await?;
    bar.finish_and_clear();
    println!("{} rows read again and verified", restored.rows_verified);
    describe(&restored.manifest);
    println!("start it: orzo serve --data {}", arguments.to.display());
    Ok(())
}
