//! Usage as the rating wants it, from where it is kept: resources with their history and events from the index, points from
//! the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orzo_index::{Index, IndexError, Resource};
use orzo_model::{Event, Measure, Scope, SeriesId, Timestamp};
use orzo_rating::doors::{Evidence, Revision, UsageReadError, UsageReader, Wanted};
use orzo_store::{Store, StoreError};

/// Resources of one project and time; about 20 KiB each while they are rated.
const RESOURCES_MAX: usize = 200_000;
/// Events of them, over their whole life.
const EVENTS_MAX: usize = 5_000_000;
/// Events of a project in the time that is rated, looked through for resources that the index does not know.
const EVENTS_LOOKED_AT: usize = 1_000_000;
/// Points are read a little beyond the time, so that a resource that goes on is seen to.
const BEYOND: Duration = Duration::from_secs(7200);

/// Reads usage.
pub(super) struct StoredUsage {
    index: Arc<Index>,
    store: Arc<Store>,
}

fn of_index(error: &IndexError) -> UsageReadError {
    UsageReadError::Unavailable { reason: chain(error) }
}

fn of_store(error: &StoreError) -> UsageReadError {
    UsageReadError::Unavailable { reason: chain(error) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The type of the resource that an event is about.
fn resource_type_of(event: &Event) -> Option<&'static str> {
    match event.event_type.split('.').next() {
        Some("compute") if event.event_type.starts_with("compute.instance.") => Some("instance"),
        Some("volume" | "snapshot" | "backup") => Some("volume"),
        Some("image") => Some("image"),
        Some("floatingip") => Some("network"),
        _ => None,
    }
}

impl StoredUsage {
    pub(super) fn new(index: Arc<Index>, store: Arc<Store>) -> Self {
        Self { index, store }
    }

    /// All points that are wanted of resources: of the time and a little beyond, the last one before, and the newest.
    async fn points(
        &self,
        resources: &[Vec<Resource>],
        wanted: &[Wanted],
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<BTreeMap<(uuid::Uuid, String), Vec<Measure>>, UsageReadError> {
        let mut names = Vec::new();
        for revisions in resources {
            let Some(resource) = revisions.last() else { continue };
            for own in wanted.iter().filter(|own| own.resource_type == resource.resource_type) {
                names.push((resource.id, own.metric.as_str()));
            }
        }
        let known = self.index.known_metrics_of(&Scope::All, &names).await.map_err(|error| of_index(&error))?;
        let mut whose: BTreeMap<SeriesId, (uuid::Uuid, String)> = BTreeMap::new();
        for ((resource, name), metric) in names.iter().zip(known) {
            if let Some(metric) = metric {
                whose.insert(metric.series, (*resource, (*name).to_owned()));
            }
        }
        let series: Vec<SeriesId> = whose.keys().copied().collect();
        let mut found: BTreeMap<SeriesId, Vec<Measure>> = self
            .store
            .scan(&series, begin, end.plus(BEYOND))
            .await
            .map_err(|error| of_store(&error))?
            .into_iter()
            .collect();
        let newest = self.store.last_of(&series).await.map_err(|error| of_store(&error))?;
        for (series, newest) in series.iter().zip(newest) {
            let Some(newest) = newest else { continue };
            let points = found.entry(*series).or_default();
            if newest.timestamp < begin {
                points.insert(0, newest);
                continue;
            }
            if let Some(before) = self.store.last_before(*series, begin).await.map_err(|error| of_store(&error))? {
                points.insert(0, before);
            }
            if points.last().is_none_or(|last| last.timestamp < newest.timestamp) {
                points.push(newest);
            }
        }
        Ok(found.into_iter().filter_map(|(series, points)| Some((whose.remove(&series)?, points))).collect())
    }
}

#[async_trait]
impl UsageReader for StoredUsage {
    async fn scopes(&self, begin: Timestamp, _end: Timestamp) -> Result<Vec<String>, UsageReadError> {
        self.index.projects_since(begin).await.map_err(|error| of_index(&error))
    }

    async fn first(&self, scope: &str) -> Result<Option<Timestamp>, UsageReadError> {
        self.index.first_of_project(scope).await.map_err(|error| of_index(&error))
    }

    async fn late(
        &self,
        after: Option<i64>,
        begin: Timestamp,
    ) -> Result<(Vec<(String, Timestamp)>, i64), UsageReadError> {
        self.index.events_since(after, begin).await.map_err(|error| of_index(&error))
    }

    async fn evidence(
        &self,
        scope: &str,
        begin: Timestamp,
        end: Timestamp,
        wanted: &[Wanted],
    ) -> Result<Vec<Evidence>, UsageReadError> {
        let types: BTreeSet<String> = wanted.iter().map(|own| own.resource_type.clone()).collect();
        let types: Vec<String> = types.into_iter().collect();
        let mut owned =
            self.index.owned_since(scope, &types, begin, RESOURCES_MAX).await.map_err(|error| of_index(&error))?;
        let mut names: BTreeSet<String> = owned
            .iter()
            .filter_map(|revisions| revisions.last())
            .map(|resource| resource.original_resource_id.clone())
            .collect();
        // Something may have happened to what polling never saw, or saw in other hands only.
        let lately =
            self.index.events_between(scope, begin, end, EVENTS_LOOKED_AT).await.map_err(|error| of_index(&error))?;
        let mut only_told: BTreeMap<String, &'static str> = BTreeMap::new();
        for event in &lately {
            let kind = resource_type_of(event).filter(|kind| types.iter().any(|own| own == kind));
            if let (Some(name), Some(kind)) = (event.text("resource_id"), kind)
                && !names.contains(&name)
            {
                only_told.insert(name, kind);
            }
        }
        drop(lately);
        let told: Vec<String> = only_told.keys().cloned().collect();
        let others = self.index.known_as(told).await.map_err(|error| of_index(&error))?;
        for revisions in others {
            if let Some(resource) = revisions.last().filter(|resource| types.contains(&resource.resource_type)) {
                only_told.remove(&resource.original_resource_id);
                names.insert(resource.original_resource_id.clone());
                owned.push(revisions);
            }
        }
        if owned.len() + only_told.len() > RESOURCES_MAX {
            let reason = format!("project {scope} has more than {RESOURCES_MAX} resources");
            return Err(UsageReadError::TooMuch { reason });
        }
        names.extend(only_told.keys().cloned());
        let names: Vec<String> = names.into_iter().collect();
        let mut events: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let all = self.index.events_of(&names, EVENTS_MAX).await.map_err(|error| of_index(&error))?;
        if all.len() > EVENTS_MAX {
            let reason = format!("resources of project {scope} have more than {EVENTS_MAX} events");
            return Err(UsageReadError::TooMuch { reason });
        }
        for event in all {
            if let Some(name) = event.text("resource_id") {
                events.entry(name).or_default().push(event);
            }
        }
        let mut points = self.points(&owned, wanted, begin, end).await?;
        let mut evidence = Vec::with_capacity(owned.len() + only_told.len());
        for revisions in owned {
            let Some(resource) = revisions.last() else { continue };
            let measures = wanted
                .iter()
                .filter(|own| own.resource_type == resource.resource_type)
                .filter_map(|own| Some((own.metric.clone(), points.remove(&(resource.id, own.metric.clone()))?)))
                .collect();
            evidence.push(Evidence {
                resource: resource.original_resource_id.clone(),
                resource_type: resource.resource_type.clone(),
                started_at: resource.started_at,
                ended_at: resource.ended_at,
                events: events.remove(&resource.original_resource_id).unwrap_or_default(),
                measures,
                revisions: revisions.iter().map(revision).collect(),
            });
        }
        for (resource, kind) in only_told {
            let events = events.remove(&resource).unwrap_or_default();
            let started_at = events.first().map_or(begin, |event| event.generated_at);
            evidence.push(Evidence {
                resource,
                resource_type: kind.to_owned(),
                started_at,
                ended_at: None,
                revisions: Vec::new(),
                events,
                measures: BTreeMap::new(),
            });
        }
        Ok(evidence)
    }
}

fn revision(resource: &Resource) -> Revision {
    Revision {
        from: resource.revision_start,
        until: resource.revision_end,
        project_id: resource.project_id.clone(),
        user_id: resource.user_id.clone(),
        attributes: resource.attributes.clone(),
    }
}
