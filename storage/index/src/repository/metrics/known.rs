//! Metrics from memory: who posts or reads measures names the same metrics again and again, and then no database is
//! asked.
//!
//! What is remembered carries the count of deletions at which it was read (see `resolve.rs`): whatever changes what a
//! metric is, or who may see it, adds to that count, and what was remembered before is read again. New metrics need
//! nothing: what is not remembered is looked up.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use moka::sync::Cache;
use orzo_model::{Scope, Timestamp};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Metric, MetricQuery, created_by_project};
use crate::{ArchivePolicy, Index, IndexError};

/// Metrics or resources named in one statement.
const NAMED_AT_ONCE: usize = 500;
/// Archive policies kept in their read form; more than anybody has, and small. Emptied when full.
const POLICIES_MAX: usize = 1000;

/// A resource's metrics by their names.
type ByName = HashMap<Box<str>, Arc<Metric>>;

/// What is remembered.
pub(crate) struct KnownMetrics {
    by_id: Cache<Uuid, Known<Metric>>,
    by_resource: Cache<Uuid, Known<ByName>>,
    /// Since when a resource has ended, if it has.
    ended: Cache<Uuid, Option<Timestamp>>,
    /// How often something was forgotten about a resource.
    forgotten: AtomicU64,
    /// Policies by their row: reading their JSON again for every metric of a list would cost more than the metric.
    policies: Mutex<HashMap<PolicyRow, Arc<ArchivePolicy>>>,
}

/// The texts of an archive policy's row.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PolicyRow {
    pub(crate) name: String,
    pub(crate) back_window: Option<i64>,
    pub(crate) definition: String,
    pub(crate) methods: String,
}

struct Known<T> {
    deletions: u64,
    what: Arc<T>,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self { deletions: self.deletions, what: self.what.clone() }
    }
}

impl KnownMetrics {
    pub(crate) fn new(metrics_max: u64, resources_max: u64) -> Self {
        Self {
            by_id: Cache::new(metrics_max),
            // Counted in metrics: of resources with ten each, as many as the other cache has metrics.
            by_resource: Cache::builder()
                .max_capacity(metrics_max)
                .weigher(|_, known: &Known<ByName>| u32::try_from(known.what.len()).unwrap_or(u32::MAX).max(1))
                .build(),
            ended: Cache::new(resources_max),
            forgotten: AtomicU64::new(0),
            policies: Mutex::new(HashMap::new()),
        }
    }

    /// Forgets what is remembered about a resource.
    pub(crate) fn forget_resource(&self, id: Uuid) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.by_resource.invalidate(&id);
        self.ended.invalidate(&id);
    }

    /// Since when a resource has ended; `None` if that is not remembered.
    pub(in crate::repository) fn ended(&self, id: &Uuid) -> Option<Option<Timestamp>> {
        self.ended.get(id)
    }

    /// To be taken before a resource is read that will be remembered.
    pub(in crate::repository) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Remembers since when a resource has ended, unless something was forgotten since it was read.
    pub(in crate::repository) fn remember_ended(&self, id: Uuid, ended_at: Option<Timestamp>, forgotten: u64) {
        self.ended.insert(id, ended_at);
        // Looked at after it was put in: who forgets it now, removes it.
        if self.forgotten() != forgotten {
            self.ended.invalidate(&id);
        }
    }

    /// The read form of a policy's row.
    pub(crate) fn policy(
        &self,
        row: PolicyRow,
        read: impl FnOnce(&PolicyRow) -> Result<ArchivePolicy, IndexError>,
    ) -> Result<Arc<ArchivePolicy>, IndexError> {
        if let Some(policy) = self.policies.lock().get(&row) {
            return Ok(policy.clone());
        }
        let policy = Arc::new(read(&row)?);
        let mut policies = self.policies.lock();
        if policies.len() >= POLICIES_MAX {
            policies.clear();
        }
        policies.insert(row, policy.clone());
        Ok(policy)
    }
}

impl Metric {
    /// Whether a scope sees it; the same rule that searches apply in the database.
    pub fn is_within(&self, scope: &Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Project(project) => self.is_made_by(project) || self.is_owned_by(project),
            Scope::Owner(project) => self.is_owned_by(project),
            Scope::Maker(project) => self.is_made_by(project),
            Scope::Creator(name) => self.creator == *name,
            Scope::Nothing => false,
        }
    }

    fn is_made_by(&self, project: &str) -> bool {
        created_by_project(&self.creator) == project
    }

    fn is_owned_by(&self, project: &str) -> bool {
        self.resource_project_id.as_deref() == Some(project)
    }
}

impl Index {
    /// Active metrics by their ids, in the order asked for; `None` where there is none within the scope.
    pub async fn known_metrics(&self, scope: &Scope, ids: &[Uuid]) -> Result<Vec<Option<Arc<Metric>>>, IndexError> {
        let deletions = self.deletions().await?;
        let mut answers: Vec<Option<Arc<Metric>>> = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for (place, id) in ids.iter().enumerate() {
            let known = self.metrics_known.by_id.get(id).filter(|known| known.deletions == deletions);
            if known.is_none() {
                missing.push(place);
            }
            answers.push(known.map(|known| known.what));
        }
        for places in missing.chunks(NAMED_AT_ONCE) {
            let ids_missing = places.iter().map(|&place| ids[place]).collect();
            let query = MetricQuery { ids: Some(ids_missing), ..MetricQuery::new(Scope::All) };
            let mut found = HashMap::new();
            for metric in self.all_metrics(&query, places.len()).await? {
                found.insert(metric.id, self.remember(metric, deletions));
            }
            for &place in places {
                answers[place] = found.get(&ids[place]).cloned();
            }
        }
        for answer in &mut answers {
            if answer.as_ref().is_some_and(|metric| !metric.is_within(scope)) {
                *answer = None;
            }
        }
        Ok(answers)
    }

    /// One active metric by its id.
    pub async fn known_metric(&self, scope: &Scope, id: Uuid) -> Result<Arc<Metric>, IndexError> {
        let mut found = self.known_metrics(scope, &[id]).await?;
        found.pop().flatten().ok_or_else(|| super::no_metric(id))
    }

    /// Active metrics by resource and name, in the order asked for; `None` where there is none within the scope.
    pub async fn known_metrics_of(
        &self,
        scope: &Scope,
        wanted: &[(Uuid, &str)],
    ) -> Result<Vec<Option<Arc<Metric>>>, IndexError> {
        let deletions = self.deletions().await?;
        let mut answers: Vec<Option<Arc<Metric>>> = Vec::with_capacity(wanted.len());
        let mut missing = Vec::new();
        let mut last: Option<(Uuid, Arc<ByName>)> = None;
        for (resource, name) in wanted {
            if last.as_ref().is_none_or(|(id, _)| id != resource) {
                let known = self.metrics_known.by_resource.get(resource).filter(|known| known.deletions == deletions);
                last = known.map(|known| (*resource, known.what));
            }
            let answer = last.as_ref().and_then(|(_, names)| names.get(*name).cloned());
            if answer.is_none() && missing.last() != Some(resource) {
                missing.push(*resource);
            }
            answers.push(answer);
        }
        missing.sort_unstable();
        missing.dedup();
        for resources in missing.chunks(NAMED_AT_ONCE) {
            let query = MetricQuery { resource_ids: Some(resources.to_vec()), ..MetricQuery::new(Scope::All) };
            let mut found: HashMap<Uuid, HashMap<Box<str>, Arc<Metric>>> = HashMap::new();
            for metric in self.all_metrics(&query, usize::MAX).await? {
                let metric = self.remember(metric, deletions);
                if let (Some(resource), Some(name)) = (metric.resource_id, &metric.name) {
                    found.entry(resource).or_default().insert(name.as_str().into(), metric.clone());
                }
            }
            for ((resource, name), answer) in wanted.iter().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
                *answer = found.get(resource).and_then(|names| names.get(*name)).cloned();
            }
            for (resource, names) in found {
                self.metrics_known.by_resource.insert(resource, Known { deletions, what: Arc::new(names) });
            }
        }
        for answer in &mut answers {
            if answer.as_ref().is_some_and(|metric| !metric.is_within(scope)) {
                *answer = None;
            }
        }
        Ok(answers)
    }

    fn remember(&self, metric: Metric, deletions: u64) -> Arc<Metric> {
        let metric = Arc::new(metric);
        self.metrics_known.by_id.insert(metric.id, Known { deletions, what: metric.clone() });
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_by_resource_are_bounded_by_their_number_not_by_that_of_resources() {
        let known = KnownMetrics::new(100, 1000);
        let policy = Arc::new(ArchivePolicy {
            name: "p".into(),
            back_window: 0,
            definition: Vec::new(),
            given_methods: Vec::new(),
            aggregation_methods: Vec::new(),
        });
        let names = |resource: u128| -> ByName {
            let metric = |n: u128| Metric {
                id: Uuid::from_u128(resource * 100 + n),
                series: orzo_model::SeriesId(0),
                name: None,
                unit: None,
                creator: String::new(),
                archive_policy: policy.clone(),
                resource_id: None,
                resource_project_id: None,
            };
            (0..10).map(|n| (format!("m{n}").into(), Arc::new(metric(n)))).collect()
        };
        for resource in 0..50 {
            let what = Arc::new(names(resource));
            known.by_resource.insert(Uuid::from_u128(resource), Known { deletions: 0, what });
        }
        known.by_resource.run_pending_tasks();
        assert!(known.by_resource.weighted_size() <= 100, "{}", known.by_resource.weighted_size());
        assert!(known.by_resource.entry_count() > 0);
    }
}
