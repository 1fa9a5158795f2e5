//! The engine: writes through the index into the store, and reads aggregates from raw points.
//!
//! `batch → place → Index::resolve → Store::append → events`; `question → index (scope) → scan → buckets → answer`.
//!
//! It knows no HTTP, no tokens and no bus. Everything written is idempotent, so that a batch that is sent again after a
//! crash between any two steps is repaired by it (contract C2). Everything read goes through the index with a scope.
#![forbid(unsafe_code)]

mod aggregates;
mod buckets;
mod error;
mod instant;
mod labels;
mod method;
mod named;
mod native;
pub mod operations;
mod place;
mod points;
mod read;
mod reader;
mod retention;
mod rollups;
mod width;
mod windows;
mod write;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use orzo_definitions::ResourceDefinitions;
use orzo_index::{
    AddedAttribute, ArchivePolicy, Attribute, AttributeKind, Index, IndexError, PolicyItem, ResourceType,
    attribute::TEXT_CHARACTERS_MAX,
};
use orzo_model::{Arrivals, MetricMetadata, Room, SharedClock};
use serde::{Deserialize, Serialize};

pub use aggregates::{
    Aggregated, AggregatesAnswer, AggregatesQuery, AggregationQuery, Fill, MeasuredSeries, MetricGroup, References,
    Search, Top, TopBy,
};
pub use error::QueryError;
pub use instant::InstantReader;
pub use labels::{IndexNumbers, LabelledPoints, LabelledReceipt, LabelledTarget};
pub use method::{Change, Method, Reaggregation, Statistic};
pub use named::{NamedSeries, answers::Remembered};
pub use native::{WORDS_MAX, book_of, words};
/// The store's errors are a part of [`QueryError`], its figures an answer; who reads them needs no arrow to the store.
pub use orzo_store::{StoreError, StoreStats};
pub use points::PointStore;
pub use read::{AggregatedMeasure, MeasuresQuery};
pub use retention::{Keep, RetentionRule};
pub use width::{Calendar, Width};
pub use write::{MeasuresColumn, NamedMetric, PostedMeasures};

/// Settings of the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Creator of resources and metrics that the collector makes: `<user>:<project>` or a name.
    pub creator: String,
    /// Metrics that one aggregation over a group may read.
    pub metrics_max: usize,
    /// Resources that a search for an aggregation may find; about 1 KiB each while it is answered.
    pub resources_max: usize,
    /// Points (times × metrics) that the grid of one aggregation may have; 8 bytes each.
    pub grid_cells_max: usize,
    /// A sample must be this much newer than its resource's end to wake it: a guest that is being deleted is still
    /// polled for a moment.
    #[serde(with = "seconds")]
    pub wake_after: Duration,
    /// How long after its deletion a metric's points are removed: a request that had looked it up may still write to
    /// it. Until then the metric is listed with `status=delete`.
    #[serde(with = "seconds")]
    pub purge_after: Duration,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            creator: "orzo".into(),
            metrics_max: 200_000,
            resources_max: 200_000,
            grid_cells_max: 20_000_000,
            wake_after: Duration::from_secs(60),
            purge_after: Duration::from_secs(60),
        }
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}s", span.as_secs_f64()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        orzo_index::spans::parse_timespan(&text.as_str().into()).map_err(D::Error::custom)
    }
}

/// Writes and reads; one per process.
pub struct Engine {
    index: Arc<Index>,
    store: Arc<dyn PointStore>,
    definitions: ResourceDefinitions,
    room: Room,
    clock: SharedClock,
    settings: EngineSettings,
    labels: Option<Arc<orzo_labels::LabelIndex>>,
    /// What meters mean that this installation makes by itself, by name.
    meters: BTreeMap<String, MetricMetadata>,
    /// Held while deltas are added to what their series have.
    adding: tokio::sync::Mutex<()>,
    /// Labels of metrics that were asked for lately.
    named: named::memory::Memory,
    /// Answers to queries over ranges that were given lately.
    answers: named::answers::Answers,
    /// Told of what was written, once somebody listens.
    arrivals: OnceLock<Arc<dyn Arrivals>>,
    /// What measures were answered from.
    rows_read: rollups::RowsRead,
}

impl Engine {
    /// Puts the parts together and makes what the definitions bring along or name, if it is missing: archive policies,
    /// resource types and their attributes (as optional texts), as `ceilometer-upgrade` does.
    pub async fn new(
        index: Arc<Index>,
        store: Arc<dyn PointStore>,
        definitions: ResourceDefinitions,
        room: Room,
        clock: SharedClock,
        settings: EngineSettings,
    ) -> Result<Self, QueryError> {
        let engine = Self {
            index,
            store,
            definitions,
            room,
            clock,
            settings,
            labels: None,
            meters: BTreeMap::new(),
            adding: tokio::sync::Mutex::default(),
            named: named::memory::Memory::default(),
            answers: named::answers::Answers::default(),
            arrivals: OnceLock::new(),
            rows_read: rollups::RowsRead::new(),
        };
        // Whoever wants an empty index wants nothing of the definitions in it either.
        if engine.index.settings().create_defaults {
            engine.make_policies().await?;
            engine.make_types().await?;
        }
        Ok(engine)
    }

    /// From now on somebody is told of what is written. There is one listener; a second one is not heard.
    pub fn listen(&self, arrivals: Arc<dyn Arrivals>) {
        if self.arrivals.set(arrivals).is_err() {
            tracing::warn!("somebody listens to the engine already");
        }
    }

    /// The index that it writes and reads through.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Its settings.
    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    async fn make_policies(&self) -> Result<(), QueryError> {
        for policy in self.definitions.archive_policies() {
            let items = policy.definition.iter().map(|item| {
                let points = item.points.map(|points| i64::try_from(points).unwrap_or(i64::MAX));
                PolicyItem::new(item.granularity, points, item.timespan)
            });
            let methods = (!policy.aggregation_methods.is_empty()).then(|| policy.aggregation_methods.clone());
            let back_window = u32::try_from(policy.back_window).unwrap_or(u32::MAX);
            let policy = ArchivePolicy::new(
                &policy.name,
                back_window,
                items.collect::<Result<_, IndexError>>()?,
                methods,
                &self.index.settings().default_aggregation_methods,
            )?;
            match self.index.create_archive_policy(&policy).await {
                Ok(()) | Err(IndexError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn make_types(&self) -> Result<(), QueryError> {
        for (name, attributes) in self.definitions.resource_types() {
            if name == "generic" {
                continue;
            }
            let text = AttributeKind::String { min_length: 0, max_length: TEXT_CHARACTERS_MAX };
            let optional = |_: &str| Attribute { kind: text.clone(), required: false };
            let known = match self.index.resource_type(name).await {
                Ok(known) => known,
                Err(IndexError::NotFound { .. }) => {
                    let attributes = attributes.iter().map(|&name| (name.to_owned(), optional(name))).collect();
                    match self.index.create_resource_type(&ResourceType::new(name, attributes)?).await {
                        Ok(()) | Err(IndexError::Exists { .. }) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            let missing: BTreeMap<String, AddedAttribute> = attributes
                .iter()
                .filter(|&&name| !known.has(name))
                .map(|&name| (name.to_owned(), AddedAttribute { attribute: optional(name), fill: None }))
                .collect();
            if !missing.is_empty() {
                self.index.update_resource_type(name, &missing, &[]).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
