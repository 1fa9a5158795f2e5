//! Puts the rating's rooms together: ledger, book, processor, and the reader of usage over store and index. For the server
//! and for the command line, which does the same while no server runs.

mod costs;
mod usage;

use std::{path::Path, sync::Arc};

use anyhow::Context;
use orzo_api::Exports;
use orzo_database::Database;
use orzo_delivery::Outbox;
use orzo_export::{Catalogue, SigningKey, sweep};
use orzo_index::Index;
use orzo_ledger::LedgerTable;
use orzo_model::{Rooms, SharedClock};
use orzo_rating::{Metrics, Processor, RatingBook};
use orzo_store::{Store, files::real::RealDisk};

use crate::settings::Settings;
pub(crate) use costs::CostMeters;
use usage::StoredUsage;

/// Name of the installation's key for exports, in its data directory.
pub(crate) const EXPORT_KEY: &str = "export.key";

/// The rating's rooms.
pub(crate) struct Rating {
    pub(crate) ledger: LedgerTable,
    pub(crate) book: Arc<RatingBook>,
    pub(crate) processor: Arc<Processor>,
    pub(crate) exports: Arc<orzo_api::Exports>,
}

/// What the rating stands on.
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) database: Database,
    pub(crate) index: Arc<Index>,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: SharedClock,
    pub(crate) rooms: &'a Rooms,
}

/// Where the ledger is below a data directory: beside the store's other tables.
pub(crate) fn ledger_directory(data: &Path) -> std::path::PathBuf {
    data.join("store").join("ledger")
}

/// Names and categories for exports and invoices, by the operator's file or as shipped.
fn catalogue(settings: &Settings) -> anyhow::Result<Catalogue> {
    match &settings.rating.catalogue_file {
        Some(path) => Catalogue::read(path).context("rating.catalogue_file"),
        None => Ok(Catalogue::default()),
    }
}

/// What is charged, by the operator's file or as shipped.
pub(crate) fn metrics(settings: &Settings) -> anyhow::Result<Metrics> {
    let (text, file) = metrics_text(settings)?;
    Ok(Metrics::parse(&text, &file)?)
}

/// The same as it stands there, for who asks the API for it.
fn metrics_document(settings: &Settings) -> anyhow::Result<serde_json::Value> {
    let (text, file) = metrics_text(settings)?;
    serde_saphyr::from_str(&text).with_context(|| file)
}

fn metrics_text(settings: &Settings) -> anyhow::Result<(String, String)> {
    let Some(path) = &settings.rating.metrics_file else {
        return Ok((orzo_rating::metrics::DEFAULT.to_owned(), "metrics.yml (shipped)".to_owned()));
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {} (rating.metrics_file)", path.display()))?;
    Ok((text, path.display().to_string()))
}

impl Rating {
    /// What the API shows of it.
    pub(crate) fn shown(&self, settings: &Settings) -> anyhow::Result<orzo_api::RatingParts> {
        Ok(orzo_api::RatingParts {
            book: (*self.book).clone(),
            ledger: Arc::new(self.ledger.clone()),
            period: self.processor.settings().period,
            metrics: metrics_document(settings)?,
            catalogue: catalogue(settings)?,
            exports: Some(self.exports.clone()),
            processor: Some(self.processor.clone()),
        })
    }
}

/// Opens the ledger for writing, the book, and the processor on them.
pub(crate) async fn open(parts: Parts<'_>) -> anyhow::Result<Rating> {
    let Parts { settings, database, index, store, clock, rooms } = parts;
    let directory = ledger_directory(&settings.server.data_directory);
    let (clock_of_ledger, room) = (clock.clone(), rooms.room("ledger"));
    let opened = move || LedgerTable::open(Arc::new(RealDisk), &directory, clock_of_ledger, room);
    let ledger = tokio::task::spawn_blocking(opened).await?.context("cannot open the ledger")?;
    let book = RatingBook::open(database.clone(), clock.clone()).await.context("cannot open the book of rating")?;
    let book = Arc::new(book);
    let usage = Arc::new(StoredUsage::new(index, store));
    let outbox = Outbox::open(database, clock.clone()).await.context("cannot open the outbox of exports")?;
    let processor = Processor::new(
        Arc::new(ledger.clone()),
        book.clone(),
        usage,
        metrics(settings)?,
        clock,
        rooms.room("rating"),
        settings.rating.processor_settings(),
    );
    let data = &settings.server.data_directory;
    let key = SigningKey::open(&data.join(EXPORT_KEY)).context("cannot open the key of exports")?;
    let directory = data.join("exports");
    // What killed exports have left.
    sweep(&directory).context("cannot sweep the directory of exports")?;
    let exports = Exports::new(directory, key, catalogue(settings)?, Arc::new(ledger.clone()));
    let exports = exports.with_deliveries(outbox, settings.rating.targets()?);
    Ok(Rating { ledger, book, processor: Arc::new(processor), exports: Arc::new(exports) })
}
