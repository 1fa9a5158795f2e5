//! Writing. Samples: place → resolve → one append. Events: what they do to resources, then the events themselves.
//! Measures posted to metrics: one append.
//!
//! Each step is idempotent and `Ok` comes after the last one: a batch that is sent again after a crash between two
//! steps finds done what was done and does the rest.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use orzo_definitions::{ActionKind, ResourceAction};
use orzo_index::{Filter, IndexError, Metric, MetricSource, Page, ResourceQuery, ResourceWanted, resource_uuid};
use orzo_model::{Batch, Event, Measure, Point, Receipt, SampleSink, Scope, SeriesId, SinkError, Timestamp};
use orzo_store::{AppendReceipt, StoreError};
use serde_json::json;
use uuid::Uuid;

use crate::{Engine, QueryError, place::place};

/// Resources that one event may end together with its own; a guest has a few dozen disks and ports.
const ASSOCIATED_MAX: usize = 10_000;
/// Deleted metrics whose points are removed in one step.
const PURGED_AT_ONCE: usize = 1000;

/// Measures for one metric, which the caller got from the index within a scope and may write to.
#[derive(Clone, Debug)]
pub struct PostedMeasures {
    /// The metric.
    pub metric: Metric,
    /// In any order; the last of the same time wins.
    pub measures: Vec<Measure>,
}

/// Measures of many metrics in one column, as one request posts them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasuresColumn {
    /// All measures; of the same metric and time the last one wins.
    pub measures: Vec<Measure>,
    /// For each metric, where its measures end and the next one's begin.
    pub ends: Vec<usize>,
}

impl MeasuresColumn {
    /// The measures pushed since the last call belong to one metric.
    pub fn end_metric(&mut self) {
        self.ends.push(self.measures.len());
    }

    /// The measures of each metric.
    pub fn by_metric(&self) -> impl Iterator<Item = &[Measure]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| self.measures.get(start..end).unwrap_or_default())
    }
}

/// A metric of a resource that measures are posted for; it may have to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedMetric {
    /// The resource, as the client names it.
    pub resource: String,
    /// The metric's name.
    pub name: String,
    /// Policy if it is made.
    pub archive_policy_name: Option<String>,
    /// Unit if it is made.
    pub unit: Option<String>,
}

#[async_trait]
impl SampleSink for Engine {
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError> {
        let count = batch.len() as u64;
        self.room.received(count);
        let started = self.clock.monotonic();
        let outcome = self.write(&batch).await;
        self.room.took("accept", self.clock.monotonic().saturating_sub(started));
        match outcome {
            Ok((receipt, refused)) => {
                self.room.stored(receipt.stored);
                self.room.dropped("repeat", receipt.repeated);
                for (reason, count) in refused {
                    self.room.refused(reason, count);
                }
                Ok(receipt)
            }
            Err(error) => {
                let error = error.into_sink();
                if error.is_retryable() {
                    self.room.returned(count);
                } else {
                    self.room.refused("not acceptable", count);
                }
                Err(error)
            }
        }
    }
}

impl Engine {
    async fn write(&self, batch: &Batch) -> Result<(Receipt, Vec<(&'static str, u64)>), QueryError> {
        let placed = place(&batch.samples, &self.definitions, &self.settings.creator, self.settings.wake_after);
        let resolved = self.index.resolve(&placed.resources).await?;
        let points = placed.points(&resolved);
        let mut receipt = Receipt::default();
        if !points.is_empty() {
            let count = points.len() as u64;
            let appended = self.append(points).await?;
            // A repeat that is in the files already cannot be told from a new point here; the store finds it when it
            // merges them, and answers are right at once.
            receipt.repeated += appended.replaced.min(count);
            receipt.stored += count - appended.replaced.min(count);
        }
        let new = self.write_events(&batch.events).await?;
        receipt.stored += new;
        receipt.repeated += batch.events.len() as u64 - new;
        let refused: Vec<_> = placed.refused.into_iter().collect();
        receipt.refused = refused.iter().map(|(_, count)| count).sum();
        Ok((receipt, refused))
    }

    /// Applies and keeps events that are not kept yet; how many were new.
    async fn write_events(&self, events: &[Event]) -> Result<u64, QueryError> {
        if events.is_empty() {
            return Ok(0);
        }
        let ids: Vec<&str> = events.iter().map(|event| event.message_id.as_str()).collect();
        let known: HashSet<String> = self.index.known_events(&ids).await?;
        for event in events.iter().filter(|event| !known.contains(&event.message_id)) {
            for action in self.definitions.actions(event) {
                self.apply(&action).await?;
            }
        }
        let new = self.index.insert_events(events).await?;
        if let Some(arrivals) = self.arrivals.get().filter(|_| new > 0) {
            arrivals.events();
        }
        Ok(new)
    }

    /// Makes points durable, then tells who listens.
    async fn append(&self, points: Vec<Point>) -> Result<AppendReceipt, StoreError> {
        let Some(arrivals) = self.arrivals.get() else { return self.store.append(points).await };
        let told = points.clone();
        let receipt = self.store.append(points).await?;
        arrivals.points(&told);
        Ok(receipt)
    }

    async fn apply(&self, action: &ResourceAction) -> Result<(), QueryError> {
        let Ok(id) = resource_uuid(&action.resource_id, &self.settings.creator) else {
            tracing::warn!(resource_type = action.resource_type, "an event names a resource that cannot be one");
            return Ok(());
        };
        match action.kind {
            ActionKind::Create | ActionKind::Update => {
                let is_update = action.kind == ActionKind::Update;
                // An update of something unknown tells too little to make it of. Nova sends updates while it deletes:
                // only a creation, or samples, wake what has ended.
                if is_update && !self.is_known(id).await? {
                    return Ok(());
                }
                let wanted = ResourceWanted {
                    creator: self.settings.creator.clone(),
                    id: action.resource_id.clone(),
                    resource_type: action.resource_type.clone(),
                    project_id: action.project_id.clone(),
                    user_id: action.user_id.clone(),
                    attributes: action.attributes.clone().into_iter().collect(),
                    first_at: action.at,
                    last_at: if is_update { Timestamp::MIN } else { action.at },
                    metrics: Vec::new(),
                };
                self.index.resolve(&[wanted]).await?;
            }
            ActionKind::Delete => {
                let mut ids = vec![id];
                for associated in &action.associated {
                    ids.extend(self.associated(&associated.resource_type, &associated.search).await?);
                }
                self.index.end_resources(&ids, action.at).await?;
            }
        }
        Ok(())
    }

    async fn is_known(&self, id: Uuid) -> Result<bool, QueryError> {
        match self.index.resource(&Scope::All, "generic", id).await {
            Ok(_) => Ok(true),
            Err(IndexError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Resources that a definition's search finds. A search that is wrong is the operator's to mend; the event is kept.
    async fn associated(&self, resource_type: &str, search: &serde_json::Value) -> Result<Vec<Uuid>, QueryError> {
        let filter = match Filter::parse(search) {
            Ok(filter) if !filter.is_everything() => filter,
            _ => {
                tracing::warn!(resource_type, %search, "a definition's search for associated resources is not one");
                return Ok(Vec::new());
            }
        };
        let query = ResourceQuery {
            scope: Scope::All,
            resource_type: resource_type.to_owned(),
            filter,
            creator: Some(self.settings.creator.clone()),
            history: false,
            page: Page::default(),
        };
        match self.index.all_resources(&query, ASSOCIATED_MAX).await {
            Ok(found) => Ok(found.into_iter().map(|resource| resource.id).collect()),
            Err(error @ (IndexError::NotFound { .. } | IndexError::Refused { .. })) => {
                tracing::warn!(resource_type, %error, "cannot search for associated resources");
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps measures of metrics, all or none. Resources that ended before their measures are alive again.
    pub async fn post_measures(&self, posted: &[PostedMeasures]) -> Result<(), QueryError> {
        let posted: Vec<_> = posted.iter().map(|posted| (&posted.metric, posted.measures.as_slice())).collect();
        self.keep(&posted).await
    }

    /// The same of one metric.
    pub async fn post_to_metric(&self, metric: &Metric, measures: &[Measure]) -> Result<(), QueryError> {
        self.keep(&[(metric, measures)]).await
    }

    async fn keep(&self, posted: &[(&Metric, &[Measure])]) -> Result<(), QueryError> {
        let count = posted.iter().map(|(_, measures)| measures.len()).sum();
        if count == 0 {
            return Ok(());
        }
        let mut points: Vec<Point> = Vec::with_capacity(count);
        let mut newest: HashMap<Uuid, Timestamp> = HashMap::new();
        for &(metric, measures) in posted {
            points.extend(measures.iter().map(|measure| point(metric.series, measure)));
            if let (Some(id), Some(time)) = (metric.resource_id, measures.iter().map(|m| m.timestamp).max()) {
                let known = newest.entry(id).or_insert(time);
                *known = (*known).max(time);
            }
        }
        let count = points.len() as u64;
        self.room.received(count);
        match self.append(points).await {
            Ok(appended) => {
                let repeated = appended.replaced.min(count);
                self.room.stored(count - repeated);
                self.room.dropped("repeat", repeated);
            }
            Err(error) => {
                self.room.returned(count);
                return Err(error.into());
            }
        }
        let newest: Vec<_> = newest.into_iter().collect();
        self.index.wake_resources(&newest).await?;
        Ok(())
    }

    /// Keeps measures of metrics named by their ids, all or none. `may_write` is the caller's policy; a metric that it
    /// refuses looks as if it were not there.
    pub async fn post_by_metric(
        &self,
        scope: &Scope,
        ids: &[Uuid],
        column: &MeasuresColumn,
        may_write: impl Fn(&Metric) -> bool,
    ) -> Result<(), QueryError> {
        let mut found = self.index.known_metrics(scope, ids).await?;
        for metric in &mut found {
            if metric.as_ref().is_some_and(|metric| !may_write(metric)) {
                *metric = None;
            }
        }
        let mut unknown: Vec<&Uuid> =
            ids.iter().zip(&found).filter(|(_, metric)| metric.is_none()).map(|(id, _)| id).collect();
        if !unknown.is_empty() {
            unknown.sort();
            let unknown: Vec<String> = unknown.into_iter().map(Uuid::to_string).collect();
            return Err(QueryError::refused(format!("Unknown metrics: {}", unknown.join(", "))));
        }
        let posted: Vec<(&Metric, &[Measure])> =
            found.iter().flatten().map(|metric| &**metric).zip(column.by_metric()).collect();
        self.keep(&posted).await
    }

    /// Keeps measures of metrics named by resource and name. `create_metrics`: metrics that are missing are made (and
    /// stay, should the rest fail). Measures are kept all or none.
    pub async fn post_by_resource(
        &self,
        scope: &Scope,
        creator: &str,
        metrics: &[NamedMetric],
        column: &MeasuresColumn,
        create_metrics: bool,
        may_write: impl Fn(&Metric) -> bool,
    ) -> Result<(), QueryError> {
        let mut wanted: Vec<(Uuid, &str)> = Vec::with_capacity(metrics.len());
        for metric in metrics {
            // What belongs to one resource comes together.
            let id = match wanted.len().checked_sub(1).map(|last| (&metrics[last], wanted[last])) {
                Some((before, (id, _))) if before.resource == metric.resource => id,
                _ => resource_uuid(&metric.resource, creator)?,
            };
            wanted.push((id, &metric.name));
        }
        let mut found = self.index.known_metrics_of(scope, &wanted).await?;
        if create_metrics && found.iter().any(Option::is_none) {
            let missing = wanted.iter().zip(metrics).zip(&found).filter(|(_, known)| known.is_none());
            let missing: Vec<_> = missing.map(|((&(id, _), metric), _)| (id, metric)).collect();
            self.make_missing(scope, creator, &missing).await?;
            found = self.index.known_metrics_of(scope, &wanted).await?;
        }
        for metric in &mut found {
            if metric.as_ref().is_some_and(|metric| !may_write(metric)) {
                *metric = None;
            }
        }
        let missing = wanted.iter().zip(&found).filter(|(_, metric)| metric.is_none());
        let mut unknown: Vec<String> = missing.map(|((id, name), _)| format!("{id}/{name}")).collect();
        if !unknown.is_empty() {
            unknown.sort();
            return Err(QueryError::refused(format!("Unknown metrics: {}", unknown.join(", "))));
        }
        let posted: Vec<(&Metric, &[Measure])> =
            found.iter().flatten().map(|metric| &**metric).zip(column.by_metric()).collect();
        self.keep(&posted).await
    }

    async fn make_missing(
        &self,
        scope: &Scope,
        creator: &str,
        missing: &[(Uuid, &NamedMetric)],
    ) -> Result<(), QueryError> {
        let mut by_resource: BTreeMap<Uuid, Vec<&NamedMetric>> = BTreeMap::new();
        for &(id, metric) in missing {
            by_resource.entry(id).or_default().push(metric);
        }
        // A metric that no rule has a policy for could not be made on any resource; Gnocchi says that first.
        let mut judged: HashSet<&str> = HashSet::new();
        for (_, metric) in missing.iter().filter(|(_, metric)| metric.archive_policy_name.is_none()) {
            if judged.insert(&metric.name) {
                self.index.policy_for_metric(&metric.name).await?;
            }
        }
        let mut unknown = Vec::new();
        for (id, metrics) in &by_resource {
            match self.index.resource(scope, "generic", *id).await {
                Ok(_) => {}
                Err(IndexError::NotFound { .. }) => {
                    let original = metrics.first().map_or("", |metric| &metric.resource);
                    unknown.push(json!({"resource_id": id.to_string(), "original_resource_id": original}));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !unknown.is_empty() {
            // Ceilometer's publisher reads this and makes the resources.
            return Err(QueryError::invalid("Unknown resources", "", json!(unknown)));
        }
        for (id, metrics) in by_resource {
            let mut sources: Vec<(String, MetricSource)> = Vec::with_capacity(metrics.len());
            for metric in metrics {
                let source = MetricSource::New {
                    archive_policy_name: metric.archive_policy_name.clone(),
                    unit: metric.unit.clone(),
                };
                if sources.iter().all(|(name, _)| *name != metric.name) {
                    sources.push((metric.name.clone(), source));
                }
            }
            match self.index.add_resource_metrics(scope, id, creator, &sources).await {
                Ok(_) => {}
                // Somebody else made one of them at the same time: each is tried alone, and one that is there is what
                // is wanted.
                Err(IndexError::NamedMetricExists { .. }) => {
                    for source in &sources {
                        match self.index.add_resource_metrics(scope, id, creator, std::slice::from_ref(source)).await {
                            Ok(_) | Err(IndexError::NamedMetricExists { .. }) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the points of deleted metrics from the store, then forgets the metrics. How many. To be called now and
    /// then; a crash between the two steps is repaired by the next call.
    pub async fn purge_deleted(&self) -> Result<u64, QueryError> {
        let mut count = 0;
        loop {
            let before = self.clock.now().minus(self.settings.purge_after);
            let series: Vec<SeriesId> = self.index.deleted_metrics(before, PURGED_AT_ONCE).await?;
            if series.is_empty() {
                return Ok(count);
            }
            self.store.delete_series(&series).await?;
            self.index.purge_metrics(&series).await?;
            count += series.len() as u64;
        }
    }
}

fn point(series: SeriesId, measure: &Measure) -> Point {
    Point { series, timestamp: measure.timestamp, value: measure.value }
}
