//! A backup of everything that one installation keeps, made while it runs, and the way back.
//!
//! `points → labels → files → database → ledger → manifest`, in this order: what names points is copied after them, so that
//! every point of a backup has a name; the ledger after the database that says how far was rated, so that what is rated
//! again after a restore is there already or is added, and nothing is missing. Nothing that was deleted is purged meanwhile, so that a deletion is in the database's
//! copy, or its points are. A backup has its name only when it is whole; one that is not begins with a dot.
//!
//! Not in it: guests' disks (`instances/`), which are the hypervisor's, and a PostgreSQL database, which has tools of its
//! own; the manifest says so.

mod files;
mod manifest;
mod restore;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use orzo_database::Database;
use orzo_labels::LabelIndex;
use orzo_model::{SharedClock, Timestamp};
use orzo_store::Store;
use parking_lot::Mutex;

pub(crate) use manifest::Manifest;
pub(crate) use restore::restore;

/// Prefix of what is not whole.
const UNFINISHED: &str = ".unfinished-";
/// What of the data directory is copied as it is: one record or image is one file, written whole.
const PLAIN: &[&str] = &["quarantine", "spool", "images"];
/// Secrets and what `orzo` commands log in with.
const SECRET_ENDINGS: &[&str] = &[".secret", "openrc", "export.key"];
/// The ledger, below the data directory, and the log of its table.
const LEDGER: &str = "store/ledger";
const LOG: &str = "_delta_log";

/// The labels: of a running process, or of one that is not.
#[derive(Clone)]
pub(crate) enum Labels {
    Open(Arc<LabelIndex>),
    Closed(PathBuf),
}

/// What is copied, and where to.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) store: Arc<Store>,
    pub(crate) labels: Labels,
    pub(crate) database: Database,
    /// Held by whoever purges what was deleted.
    pub(crate) purging: Arc<tokio::sync::Mutex<()>>,
    pub(crate) data_directory: PathBuf,
    pub(crate) backups: PathBuf,
    pub(crate) clock: SharedClock,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Far {
    pub(crate) stage: &'static str,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: u64,
}

/// A name for a backup that begins now, such as `20261122T104500Z`.
pub(crate) fn name_of(now: Timestamp) -> String {
    let text = now.zulu_micros();
    let seconds = text.split('.').next().unwrap_or(&text).trim_end_matches('Z');
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

/// Makes one. Gives its directory and what is in it.
pub(crate) async fn make(
    source: &Source,
    name: &str,
    told: impl Fn(Far) + Clone + Send + 'static,
) -> anyhow::Result<(PathBuf, Manifest)> {
    let backups = &source.backups;
    std::fs::create_dir_all(backups).with_context(|| format!("cannot make {}", backups.display()))?;
    files::remove_unfinished(backups)?;
    let earlier = files::newest(backups)?;
    let directory = backups.join(format!("{UNFINISHED}{name}"));
    files::make_private(&directory)?;
    let made = fill(source, name, directory.clone(), earlier, told).await;
    if made.is_err() {
        // What failed for want of room must not keep the room. If this fails as well, the next backup tries again.
        let _ = std::fs::remove_dir_all(&directory);
    }
    made
}

/// Copies everything into `directory` and gives it its name.
async fn fill(
    source: &Source,
    name: &str,
    directory: PathBuf,
    earlier: Option<files::Earlier>,
    told: impl Fn(Far) + Clone + Send + 'static,
) -> anyhow::Result<(PathBuf, Manifest)> {
    let finished = source.backups.join(name);
    let _purging = source.purging.lock().await;

    let far = Arc::new(Mutex::new(Far { stage: "points", ..Far::default() }));
    let moving = {
        let (far, told) = (far.clone(), told.clone());
        move |progress: orzo_store::Progress| {
            let mut far = far.lock();
            (far.bytes_done, far.bytes_total) = (progress.bytes_done, progress.bytes_total);
            told(far.clone());
        }
    };
    let next = |stage| {
        let mut far = far.lock();
        far.stage = stage;
        told(far.clone());
    };
    let earlier = earlier.map(Arc::new);
    let earlier_store = earlier.as_ref().map(|earlier| earlier.directory.join("store"));
    let points = source.store.back_up(&directory.join("store"), earlier_store.as_deref(), moving).await;
    let points = points.context("cannot copy the points")?;
    next("labels");
    let labels = directory.join("labels");
    match &source.labels {
        Labels::Open(index) => index.back_up(&labels).await.map(|_| ()),
        Labels::Closed(from) if from.is_dir() => {
            let (from, labels) = (from.clone(), labels.clone());
            tokio::task::spawn_blocking(move || orzo_labels::back_up_closed(&from, &labels)).await?.map(|_| ())
        }
        Labels::Closed(_) => Ok(()),
    }
    .context("cannot copy the labels")?;
    next("files");
    let mut contents = {
        let (data, directory, earlier) = (source.data_directory.clone(), directory.clone(), earlier.clone());
        tokio::task::spawn_blocking(move || plain_files(&data, &directory, earlier.as_deref())).await??
    };
    next("database");
    let file = directory.join("orzo.db");
    let has_database = source.database.back_up(&file).await.context("cannot copy the database")?;
    next("ledger");
    contents.extend({
        let (data, directory) = (source.data_directory.clone(), directory.clone());
        tokio::task::spawn_blocking(move || ledger_files(&data, &directory, earlier.as_deref())).await??
    });
    let mut notes = Vec::new();
    if !has_database {
        notes.push(
            "the database is PostgreSQL and not in this backup: make its dump now, after this backup (pg_dump), and \
             restore both"
                .to_owned(),
        );
    }
    if source.data_directory.join("instances").is_dir() {
        notes.push("the disks of the embedded cloud's guests (instances/) are not in this backup".to_owned());
    }
    let manifest = Manifest {
        format: manifest::FORMAT,
        orzo: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: source.clock.now().zulu_micros(),
        database: source.database.kind().to_owned(),
        points,
        files: Vec::new(),
        notes,
    };
    let manifest = tokio::task::spawn_blocking(move || {
        contents.extend(files::described(&directory, &directory.join("labels"))?);
        if has_database {
            contents.extend(files::described(&directory, &directory.join("orzo.db"))?);
        }
        contents.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest { files: contents, ..manifest };
        manifest.write(&directory)?;
        files::sync_tree(&directory)?;
        std::fs::rename(&directory, &finished).with_context(|| format!("cannot make {}", finished.display()))?;
        files::sync_directory(finished.parent().unwrap_or(&finished))?;
        anyhow::Ok((finished, manifest))
    });
    manifest.await?
}

/// Copies what is copied as it is.
fn plain_files(data: &Path, directory: &Path, earlier: Option<&files::Earlier>) -> anyhow::Result<Vec<manifest::File>> {
    let mut copied = Vec::new();
    for below in PLAIN {
        files::copy_tree(data, Path::new(below), directory, earlier, &mut copied)?;
    }
    for entry in files::entries(data)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending)) && entry.path().is_file() {
            files::copy_file(data, Path::new(&name), directory, earlier, &mut copied)?;
        }
    }
    Ok(copied)
}

/// Copies the ledger: the commits that are there, then the files that they name. Nothing in it ever changes; what left its
/// table stays on disk for an hour. Files of later commits come along, and opening the copy removes them.
fn ledger_files(
    data: &Path,
    directory: &Path,
    earlier: Option<&files::Earlier>,
) -> anyhow::Result<Vec<manifest::File>> {
    let mut copied = Vec::new();
    let log = Path::new(LEDGER).join(LOG);
    let commits = files::entries(&data.join(&log))?.into_iter().map(|entry| entry.file_name());
    let commits = commits.filter(|name| name.to_string_lossy().ends_with(".json"));
    for (number, name) in (0..).zip(commits) {
        if name.to_string_lossy() != orzo_store::delta::commit_name(number) {
            // Made while the directory was listed, without the one before it.
            break;
        }
        files::copy_file(data, &log.join(name), directory, earlier, &mut copied)?;
    }
    for entry in files::entries(&data.join(LEDGER))? {
        let name = entry.file_name();
        if entry.path().is_dir() && name != LOG {
            files::copy_tree(data, &Path::new(LEDGER).join(name), directory, earlier, &mut copied)?;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests;
