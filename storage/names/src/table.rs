//! The Delta table `series`: a row for each series that is alive, for engines that read `samples` and want names.
//!
//! `walk over all names → rows cut into files → those that the table has already stay → one commit for the others`
//!
//! A refresh remembers nothing about what changed. It walks over all names in their order and cuts them where the hash of a
//! series' number says so; a file is identified by its rows. What is the same as before is there already; a new, changed or deleted
//! series makes another file of some thousand rows, and one commit takes the old one out. So every version has each series once, and
//! whatever went wrong before is right afterwards. Where neither index has changed since the last walk, there is none.

mod columns;
mod disk;
mod log;

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use orzo_index::Index;
use orzo_labels::LabelIndex;
use orzo_model::SharedClock;
use orzo_store::files::Disk;
use xxhash_rust::xxh3::xxh3_64;

use self::{
    columns::Rows,
    disk::{Files, Opened},
    log::Entry,
};
use crate::{Named, Names, NamesError, NamesWanted, walk::projects};

/// Settings of the table.
#[derive(Clone, Debug)]
pub struct TableSettings {
    /// Its directory.
    pub directory: PathBuf,
    /// How long a file that left the table stays on disk, for readers of an older version.
    pub removed_grace: Duration,
    /// Nothing is written while less than this is free: it is kept for points.
    pub disk_reserve_bytes: u64,
    /// Rows of a file in the mean. Small ones are cheap to write again when one row changes, large ones are fewer to read.
    pub file_rows: u64,
    /// Commits between two checkpoints.
    pub checkpoint_commits: u64,
}

impl Default for TableSettings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("./orzo-data/store/series"),
            removed_grace: Duration::from_secs(3600),
            disk_reserve_bytes: 512 << 20,
            file_rows: 8192,
            checkpoint_commits: 100,
        }
    }
}

/// A file has so many times the mean rows at most.
const ROWS_MAX_FACTOR: u64 = 4;
/// Texts of a file: label sets may have tens of KiB each.
const FILE_BYTES_MAX: usize = 16 << 20;

/// What a refresh did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Version of the table.
    pub version: u64,
    /// Series in it.
    pub series: u64,
    /// Files that were written.
    pub added: u64,
    /// Files that were taken out.
    pub removed: u64,
    /// Whether names were walked over; `false`: nothing had changed.
    pub is_walked: bool,
}

/// The table. One per directory, in the process that has the store.
pub struct SeriesTable {
    files: Arc<Files>,
    index: Arc<Index>,
    labels: Option<Arc<LabelIndex>>,
    clock: SharedClock,
    settings: TableSettings,
    /// `None`: it is to be read from disk first.
    opened: Option<Opened>,
    /// As it was when the last walk began; `None`: there was none.
    seen: Option<Seen>,
}

/// How far the names had come, and what of the table is of which of them.
#[derive(Clone, PartialEq)]
struct Seen {
    metrics: u64,
    labels: Vec<(Arc<str>, Option<orzo_labels::Version>)>,
    /// Contents of files with metrics, and of those with label sets.
    contents: [HashSet<String>; 2],
}

impl SeriesTable {
    /// Of these names. Nothing is read or written before the first refresh.
    pub fn new(
        disk: Arc<dyn Disk>,
        index: Arc<Index>,
        labels: Option<Arc<LabelIndex>>,
        clock: SharedClock,
        settings: TableSettings,
    ) -> Self {
        let (root, checkpoint_commits) = (settings.directory.clone(), settings.checkpoint_commits);
        let files = Arc::new(Files { disk, root, checkpoint_commits });
        Self { files, index, labels, clock, settings, opened: None, seen: None }
    }

    /// Brings the table to where the names are, and removes files whose time is over. After an error the next one begins anew.
    pub async fn refresh(&mut self) -> Result<Refreshed, NamesError> {
        let outcome = self.try_refresh().await;
        if outcome.is_err() {
            // Whether a commit is on disk is not known then, and files that none names may be there: opening tells.
            (self.opened, self.seen) = (None, None);
        }
        outcome
    }

    async fn try_refresh(&mut self) -> Result<Refreshed, NamesError> {
        let (files, now) = (self.files.clone(), self.clock.now());
        let before_ms =
            now.micros() / 1000 - i64::try_from(self.settings.removed_grace.as_millis()).unwrap_or(i64::MAX);
        let opened = self.opened.take();
        let opened = blocking(move || {
            let mut opened = match opened {
                Some(opened) => opened,
                None => files.open(now)?,
            };
            files.vacuum(&mut opened, before_ms)?;
            Ok(opened)
        })
        .await?;
        let (metrics, labels) = (self.index.changes(), self.label_versions());
        let has_same_metrics = self.seen.as_ref().is_some_and(|seen| seen.metrics == metrics);
        let has_same_labels = self.seen.as_ref().is_some_and(|seen| seen.labels == labels);
        let is_walked = !has_same_metrics || !has_same_labels || !opened.damaged.is_empty();
        let mut refreshed = Refreshed { is_walked, ..Refreshed::default() };
        let opened = match is_walked {
            true => {
                let last = self.seen.take().filter(|_| opened.damaged.is_empty()).map(|seen| seen.contents);
                let kept = match (last, has_same_metrics, has_same_labels) {
                    (Some([metrics, _]), true, false) => [Some(metrics), None],
                    (Some([_, labels]), false, true) => [None, Some(labels)],
                    _ => [None, None],
                };
                let (opened, contents) = self.walk(opened, kept, &mut refreshed).await?;
                self.seen = Some(Seen { metrics, labels, contents });
                opened
            }
            false => opened,
        };
        refreshed.version = opened.version.number;
        refreshed.series = opened.version.files.values().map(|file| file.rows).sum();
        self.opened = Some(opened);
        Ok(refreshed)
    }

    fn label_versions(&self) -> Vec<(Arc<str>, Option<orzo_labels::Version>)> {
        let Some(labels) = &self.labels else { return Vec::new() };
        projects(labels).map(|project| (project.clone(), labels.version(&project))).collect()
    }

    /// Walks over metrics and label sets but those whose files are kept, and commits what is different.
    async fn walk(
        &self,
        opened: Opened,
        kept: [Option<HashSet<String>>; 2],
        refreshed: &mut Refreshed,
    ) -> Result<(Opened, [HashSet<String>; 2]), NamesError> {
        let known = opened.version.files.values().filter(|file| !opened.damaged.contains(&file.path));
        let known: Arc<HashSet<String>> = Arc::new(known.map(|file| file.content.clone()).collect());
        let mut cutter = Cutter::new(self.files.clone(), known, &self.settings);
        let everything = NamesWanted::default();
        let [metrics_kept, labels_kept] = kept;
        let labels = self.labels.as_deref().filter(|_| labels_kept.is_none());
        let mut names = match metrics_kept {
            Some(_) => Names::of_labels(labels, &everything),
            None => Names::new(&self.index, labels, &everything),
        };
        let mut of_metrics = metrics_kept;
        while let Some(page) = names.next().await? {
            // The first page of label sets begins a file of its own, so that each file is of one kind.
            let ends_metrics = of_metrics.is_none() && matches!(page.first(), Some(Named::Labelled { .. }));
            cutter = blocking(move || {
                if ends_metrics {
                    cutter.end_file()?;
                }
                Ok(cutter)
            })
            .await?;
            if ends_metrics {
                of_metrics = Some(std::mem::take(&mut cutter.contents));
            }
            cutter = blocking(move || cutter.take(&page).map(|()| cutter)).await?;
        }
        debug_assert!(names.is_past_metrics(), "a walk ends with label sets");
        let mut cutter = blocking(move || cutter.end_file().map(|()| cutter)).await?;
        let rest = std::mem::take(&mut cutter.contents);
        let contents = match (of_metrics, labels_kept) {
            (Some(metrics), Some(labels)) => [metrics, labels],
            (Some(metrics), None) => [metrics, rest],
            (None, labels) => [rest, labels.unwrap_or_default()],
        };
        self.commit(opened, &contents, cutter.added, refreshed).await.map(|opened| (opened, contents))
    }

    async fn commit(
        &self,
        opened: Opened,
        contents: &[HashSet<String>; 2],
        added: Vec<Entry>,
        refreshed: &mut Refreshed,
    ) -> Result<Opened, NamesError> {
        let is_kept = |file: &Entry| {
            !opened.damaged.contains(&file.path) && contents.iter().any(|contents| contents.contains(&file.content))
        };
        let removed: Vec<Entry> = opened.version.files.values().filter(|file| !is_kept(file)).cloned().collect();
        (refreshed.added, refreshed.removed) = (added.len() as u64, removed.len() as u64);
        if added.is_empty() && removed.is_empty() {
            return Ok(opened);
        }
        let (files, now) = (self.files.clone(), self.clock.now());
        blocking(move || files.commit(&opened, &added, &removed, now)).await
    }
}

/// Cuts rows into files, and writes those that the table does not have.
struct Cutter {
    files: Arc<Files>,
    known: Arc<HashSet<String>>,
    file_rows: u64,
    disk_reserve_bytes: u64,
    rows: Rows,
    /// Contents of the files so far.
    contents: HashSet<String>,
    added: Vec<Entry>,
    /// Metrics so far, about 16 bytes each: one that gets another name while the walk goes on would come again.
    metrics: HashSet<u64>,
}

impl Cutter {
    fn new(files: Arc<Files>, known: Arc<HashSet<String>>, settings: &TableSettings) -> Self {
        let (file_rows, disk_reserve_bytes) = (settings.file_rows.max(1), settings.disk_reserve_bytes);
        let (rows, contents, added) = (Rows::new(), HashSet::new(), Vec::new());
        Self { files, known, file_rows, disk_reserve_bytes, rows, contents, added, metrics: HashSet::new() }
    }

    fn take(&mut self, page: &[Named]) -> Result<(), NamesError> {
        for named in page {
            // The name that it has now comes with the next refresh: whatever renames it is a change.
            if matches!(named, Named::Metric(_)) && !self.metrics.insert(named.series().0) {
                continue;
            }
            self.rows.add(named)?;
            // A cut after a row depends on that row only: what comes and goes elsewhere does not move it.
            let is_cut = xxh3_64(&named.series().0.to_le_bytes()).is_multiple_of(self.file_rows);
            let is_full =
                self.rows.count() as u64 >= self.file_rows * ROWS_MAX_FACTOR || self.rows.bytes() >= FILE_BYTES_MAX;
            if is_cut || is_full {
                self.end_file()?;
            }
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), NamesError> {
        if self.rows.count() == 0 {
            return Ok(());
        }
        let rows = std::mem::replace(&mut self.rows, Rows::new());
        let content = rows.content();
        if !self.known.contains(&content) {
            let reserve = self.disk_reserve_bytes;
            let free = self.files.disk.free_bytes(&self.files.root).unwrap_or(u64::MAX);
            if free < reserve {
                return Err(NamesError::NoRoom { free, reserve });
            }
            self.added.push(self.files.write(rows)?);
        }
        self.contents.insert(content);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NamesError> + Send + 'static,
) -> Result<T, NamesError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| NamesError::Ended { reason: error.to_string() })?
}
