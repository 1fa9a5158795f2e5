//! From a backup to a data directory that `orzo serve` starts with.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use orzo_ledger::LedgerTable;
use orzo_model::{Rooms, SystemClock};
use orzo_store::{BackupReport, Progress, Store, StoreSettings, files::real::RealDisk};

use super::{Manifest, files};

/// What was restored and held against the manifest.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) manifest: Manifest,
    pub(crate) rows_verified: u64,
}

/// Copies a backup to `target`, which must not be there or be empty, and reads all of it again: every byte against its
/// checksum, every row against the hashes. The directory has its name only when all of that agrees.
pub(crate) async fn restore(
    backup: &Path,
    target: &Path,
    mut told: impl FnMut(&'static str, u64, u64) + Clone + Send + 'static,
) -> anyhow::Result<Restored> {
    let manifest = Manifest::read(backup)?;
    if target.exists() && (!target.is_dir() || !files::entries(target)?.is_empty()) {
        bail!("{} is not empty: a backup is restored to a directory of its own", target.display());
    }
    let staged = staged(target)?;
    if staged.exists() {
        fs::remove_dir_all(&staged).with_context(|| format!("cannot remove {}", staged.display()))?;
    }
    files::make_private(&staged)?;
    let copying = {
        let (backup, staged, manifest, mut told) = (backup.to_owned(), staged.clone(), manifest.clone(), told.clone());
        move || copy(&backup, &staged, &manifest, &mut told)
    };
    tokio::task::spawn_blocking(copying).await??;

    let settings = StoreSettings { directory: staged.join("store"), ..StoreSettings::default() };
    let room = Rooms::new(&prometheus::Registry::new()).room("store");
    let store = Store::open(settings, room, SystemClock::shared()).await.context("the copy does not open")?;
    let outcome = check(&store, &manifest, move |progress| told("verify", progress.bytes_done, progress.bytes_total));
    let outcome = outcome.await;
    store.close().await.context("cannot close the copy")?;
    let rows_verified = outcome?;
    check_ledger(&staged.join(super::LEDGER)).await?;
    files::sync_tree(&staged)?;
    if target.is_dir() {
        fs::remove_dir(target).with_context(|| format!("cannot replace {}", target.display()))?;
    }
    fs::rename(&staged, target).with_context(|| format!("cannot make {}", target.display()))?;
    files::sync_directory(&parent(target))?;
    Ok(Restored { manifest, rows_verified })
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn staged(target: &Path) -> anyhow::Result<PathBuf> {
    let name = target.file_name().with_context(|| format!("{} is no directory to restore to", target.display()))?;
    Ok(parent(target).join(format!(".restoring-{}", name.to_string_lossy())))
}

fn copy(
    backup: &Path,
    staged: &Path,
    manifest: &Manifest,
    told: &mut impl FnMut(&'static str, u64, u64),
) -> anyhow::Result<()> {
    let total = manifest.points.bytes + manifest.files.iter().map(|file| file.bytes).sum::<u64>();
    let mut done = 0;
    let mut copied = Vec::new();
    for file in &manifest.files {
        let path = relative(&file.path)?;
        let in_context = || format!("cannot copy {}", backup.join(path).display());
        files::copy_file(backup, path, staged, None, &mut copied).with_context(in_context)?;
        if copied.last() != Some(file) {
            bail!("{} is damaged: it is not what the manifest says", backup.join(path).display());
        }
        done += file.bytes;
        told("copy", done, total);
    }
    // The points' files are held against the table's log below.
    let mut points = Vec::new();
    for below in ["samples", "snapshots", "tombstones", "wal"] {
        let below = Path::new("store").join(below);
        files::make_private(&staged.join(&below))?;
        files::copy_tree(backup, &below, staged, None, &mut points)?;
        told("copy", done + points.iter().map(|file| file.bytes).sum::<u64>().min(manifest.points.bytes), total);
    }
    Ok(())
}

/// A manifest is a file like any other: what it names must lie below the backup.
fn relative(path: &str) -> anyhow::Result<&Path> {
    let path = Path::new(path);
    let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !is_plain || path.as_os_str().is_empty() {
        bail!("the manifest names {}, which is not below it", path.display());
    }
    Ok(path)
}

/// Every line of the ledger, where there is one.
async fn check_ledger(directory: &Path) -> anyhow::Result<()> {
    if !directory.join(super::LOG).is_dir() {
        return Ok(());
    }
    let room = Rooms::new(&prometheus::Registry::new()).room("ledger");
    let ledger = LedgerTable::open_to_read(Arc::new(RealDisk), directory, SystemClock::shared(), room);
    match ledger.context("the copy of the ledger does not open")?.verify().await?.as_slice() {
        [] => Ok(()),
        problems => bail!("the backup's ledger is damaged: {}", problems.join("; ")),
    }
}

async fn check(
    store: &Arc<Store>,
    manifest: &Manifest,
    progress: impl FnMut(Progress) + Send + 'static,
) -> anyhow::Result<u64> {
    let found = BackupReport { linked_bytes: manifest.points.linked_bytes, ..store.contents() };
    if found != manifest.points {
        bail!("the copy holds {found:?}, and the manifest says {:?}", manifest.points);
    }
    let report = store.verify_with(progress).await.context("cannot verify the copy")?;
    match report.problems.as_slice() {
        [] => Ok(report.rows),
        problems => bail!("the backup is damaged: {}", problems.join("; ")),
    }
}
