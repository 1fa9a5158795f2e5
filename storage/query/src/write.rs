//! Writing. Samples: place → resolve → one append. Events: what they do to resources, then the events themselves.
//! Measures posted to metrics: one append.
//!
//! Each step is idempotent and `Ok` comes after the last one: a batch that is sent again after a crash between two
//! steps finds done what was done and does the rest.

use std::{collections::BTreeMap, collections::HashSet};

use async_trait::async_trait;
use orzo_definitions::{ActionKind, ResourceAction};
use orzo_index::{
    Filter, IndexError, Metric, MetricQuery, MetricSource, Page, ResourceQuery, ResourceWanted, resource_uuid,
};
use orzo_model::{Batch, Event, Measure, Point, Receipt, SampleSink, Scope, SeriesId, SinkError, Timestamp};
use serde_json::json;
use uuid::Uuid;

use crate::{Engine, QueryError, place::place};

/// Resources that one event may end together with its own; a guest has a few dozen disks and ports.
const ASSOCIATED_MAX: usize = 10_000;
/// Deleted metrics whose points are removed in one step.
const PURGED_AT_ONCE: usize = 1000;
/// How long after its deletion a metric's points are removed: another process may write to it for another second.
const PURGE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Measures for one metric, which the caller got from the index within a scope and may write to.
#[derive(Clone, Debug)]
pub struct PostedMeasures {
    /// The metric.
    pub metric: Metric,
    /// In any order; the last of the same time wins.
    pub measures: Vec<Measure>,
}

/// Measures for a metric of a resource, which may have to be made.
#[derive(Clone, Debug, Default)]
pub struct ResourceMeasures {
    /// In any order.
    pub measures: Vec<Measure>,
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
            let appended = self.store.append(points).await?;
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
        Ok(self.index.insert_events(events).await?)
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
        let points: Vec<Point> = posted
            .iter()
            .flat_map(|posted| posted.measures.iter().map(|measure| point(posted.metric.series, measure)))
            .collect();
        if points.is_empty() {
            return Ok(());
        }
        let count = points.len() as u64;
        self.room.received(count);
        match self.store.append(points).await {
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
        let mut newest: BTreeMap<Uuid, Timestamp> = BTreeMap::new();
        for posted in posted {
            if let (Some(id), Some(time)) =
                (posted.metric.resource_id, posted.measures.iter().map(|measure| measure.timestamp).max())
            {
                let known = newest.entry(id).or_insert(time);
                *known = (*known).max(time);
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
        measures: BTreeMap<Uuid, Vec<Measure>>,
        may_write: impl Fn(&Metric) -> bool,
    ) -> Result<(), QueryError> {
        let query = MetricQuery { ids: Some(measures.keys().copied().collect()), ..MetricQuery::new(scope.clone()) };
        let found = self.index.all_metrics(&query, measures.len()).await?;
        let found: BTreeMap<Uuid, Metric> =
            found.into_iter().filter(|metric| may_write(metric)).map(|metric| (metric.id, metric)).collect();
        let unknown: Vec<String> =
            measures.keys().filter(|id| !found.contains_key(id)).map(|id| id.to_string()).collect();
        if !unknown.is_empty() {
            return Err(QueryError::refused(format!("Unknown metrics: {}", unknown.join(", "))));
        }
        let posted: Vec<PostedMeasures> = measures
            .into_iter()
            .filter_map(|(id, measures)| Some(PostedMeasures { metric: found.get(&id)?.clone(), measures }))
            .collect();
        self.post_measures(&posted).await
    }

    /// Keeps measures of metrics named by resource and name. `create_metrics`: metrics that are missing are made (and
    /// stay, should the rest fail). Measures are kept all or none.
    pub async fn post_by_resource(
        &self,
        scope: &Scope,
        creator: &str,
        measures: BTreeMap<String, BTreeMap<String, ResourceMeasures>>,
        create_metrics: bool,
        may_write: impl Fn(&Metric) -> bool,
    ) -> Result<(), QueryError> {
        let mut by_id: BTreeMap<Uuid, (String, BTreeMap<String, ResourceMeasures>)> = BTreeMap::new();
        for (text, metrics) in measures {
            let id = resource_uuid(&text, creator)?;
            by_id.entry(id).or_insert_with(|| (text, BTreeMap::new())).1.extend(metrics);
        }
        let ids: Vec<Uuid> = by_id.keys().copied().collect();
        if create_metrics {
            self.make_missing(scope, creator, &by_id).await?;
        }
        let mut known: BTreeMap<(Uuid, String), Metric> = BTreeMap::new();
        for metric in self.metrics_of(scope, &ids).await?.into_iter().filter(|metric| may_write(metric)) {
            if let (Some(resource), Some(name)) = (metric.resource_id, metric.name.clone()) {
                known.insert((resource, name), metric);
            }
        }
        let mut posted = Vec::new();
        let mut unknown = Vec::new();
        for (id, (text, metrics)) in by_id {
            for (name, given) in metrics {
                match known.remove(&(id, name.clone())) {
                    Some(metric) => posted.push(PostedMeasures { metric, measures: given.measures }),
                    None => unknown.push(format!("{text}/{name}")),
                }
            }
        }
        if !unknown.is_empty() {
            unknown.sort();
            return Err(QueryError::refused(format!("Unknown metrics: {}", unknown.join(", "))));
        }
        self.post_measures(&posted).await
    }

    async fn make_missing(
        &self,
        scope: &Scope,
        creator: &str,
        by_id: &BTreeMap<Uuid, (String, BTreeMap<String, ResourceMeasures>)>,
    ) -> Result<(), QueryError> {
        let mut resources = BTreeMap::new();
        let mut unknown = Vec::new();
        for (id, (text, _)) in by_id {
            match self.index.resource(scope, "generic", *id).await {
                Ok(resource) => {
                    resources.insert(*id, resource);
                }
                Err(IndexError::NotFound { .. }) => {
                    unknown.push(json!({"resource_id": id.to_string(), "original_resource_id": text}));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !unknown.is_empty() {
            // Ceilometer's publisher reads this and makes the resources.
            return Err(QueryError::invalid("Unknown resources", "", json!(unknown)));
        }
        for (id, (_, metrics)) in by_id {
            let missing: Vec<(String, MetricSource)> = metrics
                .iter()
                .filter(|(name, _)| !resources[id].metrics.contains_key(*name))
                .map(|(name, given)| {
                    let source = MetricSource::New {
                        archive_policy_name: given.archive_policy_name.clone(),
                        unit: given.unit.clone(),
                    };
                    (name.clone(), source)
                })
                .collect();
            if missing.is_empty() {
                continue;
            }
            match self.index.add_resource_metrics(scope, *id, creator, &missing).await {
                // Somebody else made one of them at the same time: it is there, which is what is wanted.
                Ok(_) | Err(IndexError::NamedMetricExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn metrics_of(&self, scope: &Scope, resources: &[Uuid]) -> Result<Vec<Metric>, QueryError> {
        let mut found = Vec::new();
        for chunk in resources.chunks(500) {
            let query = MetricQuery { resource_ids: Some(chunk.to_vec()), ..MetricQuery::new(scope.clone()) };
            found.extend(self.index.all_metrics(&query, usize::MAX).await?);
        }
        Ok(found)
    }

    /// Removes the points of deleted metrics from the store, then forgets the metrics. How many. To be called now and
    /// then; a crash between the two steps is repaired by the next call.
    pub async fn purge_deleted(&self) -> Result<u64, QueryError> {
        let mut count = 0;
        loop {
            let before = self.clock.now().minus(PURGE_AFTER);
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
