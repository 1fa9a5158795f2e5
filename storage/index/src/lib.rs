//! What is measured, under which names and by which rules: archive policies, resource types, resources and their
//! history, metrics with their series numbers, and events; on SQLite and PostgreSQL.
//!
//! In come requests with a [`Scope`](orzo_model::Scope); out go things that this scope may see. The scope is enforced
//! here, below every query: what is not visible looks as if it were not there. This room knows no points, no HTTP and
//! no definition files.
//!
//! Invariants:
//! - A [`SeriesId`](orzo_model::SeriesId) is given to one metric, once, and never again.
//! - An active metric's name is unique within its resource (a partial unique index says so on both databases).
//! - A resource gets a new revision exactly when something about it (other than its metrics) really changed.
#![forbid(unsafe_code)]

pub mod attribute;
mod defaults;
mod error;
pub mod filter;
mod numbers;
pub mod policy;
mod repository;
mod resolve;
pub mod spans;
mod sql;
mod tables;

use std::sync::atomic::{AtomicU64, Ordering};

use orzo_database::Database;
use orzo_model::SharedClock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use attribute::{Attribute, AttributeKind, ResourceType};
pub use error::IndexError;
pub use filter::Filter;
pub use policy::{ArchivePolicy, ArchivePolicyRule, PolicyItem};
pub use repository::{
    annotations::{EXEMPLARS_MAX, METADATA_NAMES_MAX},
    events::{EventQuery, EventTypeTrait, TraitFilter, TraitOperator},
    metrics::{
        Metric, MetricCount, MetricQuery, NewMetric,
        catalog::{Catalog, CatalogRow, CatalogWanted},
    },
    paging::{Page, Sort},
    policies::Rebuild,
    resources::{
        MetricSource, NewResource, Resource, ResourceChange, ResourceQuery, created_by_project, created_by_user,
        imports::{ImportedMetric, ImportedResource, ImportedRevision},
        resource_uuid,
    },
    types::AddedAttribute,
    walks::{EventPlace, EventsWanted, KeptMetric, RevisionsWanted},
};
pub use resolve::{MetricWanted, Resolved, ResourceWanted};

/// Settings of the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexSettings {
    /// Fill an empty database with Gnocchi's and Ceilometer's archive policies and Ceilometer's resource types.
    pub create_defaults: bool,
    /// Resources kept in memory with the series of their metrics; about 1.5 KiB each. What does not fit is read again.
    pub resources_cached_max: u64,
    /// Metrics kept in memory for who posts or reads their measures; about 0.5 KiB each.
    pub metrics_cached_max: u64,
    /// Most things on one page of a list (Gnocchi's `api.max_limit`).
    pub page_max: usize,
    /// Default aggregation methods of an archive policy that names none (Gnocchi's `default_aggregation_methods`).
    pub default_aggregation_methods: Vec<String>,
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self {
            create_defaults: true,
            resources_cached_max: 50_000,
            metrics_cached_max: 200_000,
            page_max: 1000,
            default_aggregation_methods: policy::DEFAULT_METHODS.iter().map(|&m| m.to_owned()).collect(),
        }
    }
}

/// The index. One per process; several processes may share one PostgreSQL.
pub struct Index {
    database: Database,
    clock: SharedClock,
    settings: IndexSettings,
    known: resolve::Cache,
    metrics_known: repository::metrics::known::KnownMetrics,
    /// Deletions that this process knows of; what was remembered before the newest is not trusted any more.
    deletions_seen: AtomicU64,
    /// Changes of metrics and resources that this process has made.
    changes: AtomicU64,
    /// Series numbers that were taken from the count and given to nobody yet.
    series_left: Mutex<std::ops::Range<u64>>,
    /// Metadata and exemplars of label sets.
    annotations: repository::annotations::Annotations,
    /// Monotonic time of the last look at the database's count of deletions.
    deletions_read_at: Mutex<Option<std::time::Duration>>,
}

impl Index {
    /// Brings the tables up to date and, on an empty database, creates the defaults.
    pub async fn open(database: Database, clock: SharedClock, settings: IndexSettings) -> Result<Self, IndexError> {
        database.migrate("index", tables::MIGRATIONS).await?;
        let known = resolve::new_cache(settings.resources_cached_max);
        let metrics_known =
            repository::metrics::known::KnownMetrics::new(settings.metrics_cached_max, settings.resources_cached_max);
        let index = Self {
            database,
            clock,
            settings,
            known,
            metrics_known,
            deletions_seen: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            series_left: Mutex::new(0..0),
            annotations: repository::annotations::Annotations::default(),
            deletions_read_at: Mutex::new(None),
        };
        let (policies, types) = defaults::needed(&index).await?;
        if index.settings.create_defaults {
            defaults::create(&index, policies, types).await?;
        }
        Ok(index)
    }

    /// The settings that it was opened with.
    pub fn settings(&self) -> &IndexSettings {
        &self.settings
    }

    /// Grows with every change of a metric or a resource that this process makes: what was read before is not to be
    /// trusted after. Read it before reading what is to be remembered.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Counts a change when it is dropped: after the commit, and also if nobody knows whether there was one.
    fn change(&self) -> Change<'_> {
        Change(&self.changes)
    }

    fn saw_deletions(&self, count: u64) {
        self.deletions_seen.fetch_max(count, Ordering::AcqRel);
    }
}

/// See [`Index::change`].
struct Change<'i>(&'i AtomicU64);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
