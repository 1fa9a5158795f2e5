//! Everything that has points under the names of PromQL: label sets as they were written, and metrics of resources with
//! their resource as labels.
//!
//! A metric `disk.device.read.bytes` answers to that name and to `disk_device_read_bytes`, and is shown as the latter.
//! Its labels are the resource's id, type, owner and attributes. Only what the scopes allow is found; nothing else is
//! ever read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use orzo_index::{Filter, Metric, MetricQuery, Resource, ResourceQuery};
use orzo_labels::Matcher as LabelMatcher;
use orzo_model::{Exemplar, MetricMetadata, Scope, SeriesId, Timestamp};
use orzo_promql::{Labels, Matcher, MatcherGroup, Operator};

use crate::{Engine, QueryError};

pub(crate) mod answers;
pub(crate) mod memory;
mod select;
mod sets;
use memory::{Memory, Named, Reading};
use sets::Sets;

/// Resources that one question to the index names.
const NAMED_AT_ONCE: usize = 500;
/// Series that a question with times looks at one by one; with more it is about all time.
pub const ALIVE_LOOKED_AT_MAX: usize = 10_000;
/// The label with a metric's name.
const NAME: &str = "__name__";

/// Finds and reads series by matchers, within two scopes.
pub struct NamedSeries {
    engine: Arc<Engine>,
    /// How far metrics of resources are seen.
    metrics: Scope,
    /// Whose label sets are seen.
    labelled: Scope,
    /// What selectors of this query have found.
    selected: parking_lot::Mutex<Vec<answers::Known>>,
}

impl NamedSeries {
    /// For a caller who may see metrics within `metrics`, and label sets within `labelled`.
    pub fn new(engine: Arc<Engine>, metrics: Scope, labelled: Scope) -> Self {
        Self { engine, metrics, labelled, selected: parking_lot::Mutex::default() }
    }

    /// Series of which any group's matchers all hold, at most `limit`, in the order of their numbers.
    pub async fn find(&self, groups: &[MatcherGroup], limit: usize) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        self.find_alive(groups, limit, None).await
    }

    /// As [`Self::find`], only those that have a point between two times, both inclusive; of more than
    /// [`ALIVE_LOOKED_AT_MAX`] series all.
    pub async fn find_alive(
        &self,
        groups: &[MatcherGroup],
        limit: usize,
        between: Option<(Timestamp, Timestamp)>,
    ) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        let found = self.find_numbers(groups, limit).await?;
        let mut found = self.alive(found, between).await?;
        let natives = self.alive(self.find_natives(groups, limit)?, between).await?;
        if !natives.is_empty() {
            // A series that had both numbers and histograms is one.
            let known: HashSet<Labels> = found.iter().map(|(_, labels)| labels.clone()).collect();
            found.extend(natives.into_iter().filter(|(_, labels)| !known.contains(labels)));
            found.truncate(limit);
        }
        Ok(found)
    }

    async fn alive(
        &self,
        mut found: Vec<(SeriesId, Labels)>,
        between: Option<(Timestamp, Timestamp)>,
    ) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        let Some((first, last)) = between.filter(|_| !found.is_empty() && found.len() <= ALIVE_LOOKED_AT_MAX) else {
            return Ok(found);
        };
        let series: Vec<SeriesId> = found.iter().map(|(series, _)| *series).collect();
        let newest = self.engine.store.newest_between(&series, first, last).await?;
        let alive: HashSet<SeriesId> = newest.into_iter().map(|(series, _)| series).collect();
        found.retain(|(series, _)| alive.contains(series));
        Ok(found)
    }

    /// Labels of the series that have a point between two times; `None` if there are too many series to look at.
    async fn labels_alive(
        &self,
        groups: &[MatcherGroup],
        between: Option<(Timestamp, Timestamp)>,
    ) -> Result<Option<Vec<Labels>>, QueryError> {
        if between.is_none() {
            return Ok(None);
        }
        let everything = [MatcherGroup::new()];
        let groups = if groups.is_empty() { &everything } else { groups };
        let count = self.find(groups, ALIVE_LOOKED_AT_MAX + 1).await?.len();
        if count > ALIVE_LOOKED_AT_MAX {
            return Ok(None);
        }
        let found = self.find_alive(groups, ALIVE_LOOKED_AT_MAX, between).await?;
        Ok(Some(found.into_iter().map(|(_, labels)| labels).collect()))
    }

    /// Series of native histograms.
    fn find_natives(&self, groups: &[MatcherGroup], limit: usize) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        let Some(sets) = self.sets() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for group in groups {
            found.extend(sets.find_native(group, limit.saturating_sub(found.len()))?);
        }
        if groups.len() > 1 {
            found.sort_by_key(|(series, _)| *series);
            found.dedup_by_key(|(series, _)| *series);
        }
        Ok(found)
    }

    /// Series of numbers.
    async fn find_numbers(&self, groups: &[MatcherGroup], limit: usize) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        let mut found: Vec<(SeriesId, Labels)> = Vec::new();
        for group in groups {
            if let Some(sets) = self.sets() {
                found.extend(sets.find(group, limit)?);
            }
            let mut metrics = HashMap::new();
            self.find_metrics(group, limit, &mut metrics).await?;
            found.extend(metrics);
            found.sort_by_key(|(series, _)| *series);
            found.dedup_by_key(|(series, _)| *series);
            if found.len() > limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Names of labels; of all series if no group is given. Of series that have no point between the times only if there
    /// are more than [`ALIVE_LOOKED_AT_MAX`].
    pub async fn label_names(
        &self,
        groups: &[MatcherGroup],
        limit: usize,
        between: Option<(Timestamp, Timestamp)>,
    ) -> Result<BTreeSet<String>, QueryError> {
        if let Some(alive) = self.labels_alive(groups, between).await? {
            return Ok(alive.iter().flat_map(Labels::iter).map(|(name, _)| name.to_string()).collect());
        }
        let mut names = self.sets().map_or_else(|| Ok(BTreeSet::new()), |sets| sets.names(groups))?;
        for metric in self.metrics(groups, limit).await? {
            names.extend(metric.iter().map(|(name, _)| name.to_string()));
        }
        Ok(names)
    }

    /// Values of a label; of which series, as [`Self::label_names`].
    pub async fn label_values(
        &self,
        name: &str,
        groups: &[MatcherGroup],
        limit: usize,
        between: Option<(Timestamp, Timestamp)>,
    ) -> Result<BTreeSet<String>, QueryError> {
        if let Some(alive) = self.labels_alive(groups, between).await? {
            let values = alive.iter().map(|labels| labels.get(name).to_owned());
            return Ok(values.filter(|value| !value.is_empty()).collect());
        }
        let mut values = self.sets().map_or_else(|| Ok(BTreeSet::new()), |sets| sets.values(name, groups))?;
        if name == NAME && groups.is_empty() {
            let names = self.engine.index().metric_names(&self.metrics).await?;
            values.extend(names.iter().map(|name| shown_name(name)));
        } else {
            let metrics = self.metrics(groups, limit).await?;
            values.extend(metrics.iter().map(|labels| labels.get(name).to_owned()).filter(|value| !value.is_empty()));
        }
        Ok(values)
    }

    /// What names mean: of label sets what their senders said, of metrics of resources what their meter is, or at least
    /// their unit. `name` is one of either form, and the answer's. At most `limit` names of metrics are looked up.
    pub async fn metadata(
        &self,
        name: Option<&str>,
        limit: usize,
    ) -> Result<BTreeMap<String, BTreeSet<MetricMetadata>>, QueryError> {
        let mut found = self.engine.index().metadata(&self.labelled, name).await?;
        let names = self.engine.index().metric_names(&self.metrics).await?;
        let is_wanted = |own: &String| name.is_none_or(|name| name == own || name == shown_name(own));
        for own in names.into_iter().filter(is_wanted).take(limit) {
            let shown = name.map_or_else(|| shown_name(&own), str::to_owned);
            let about = self.about(own).await?;
            found.entry(shown).or_default().insert(about);
        }
        Ok(found)
    }

    /// What a metric's name means: the meter's words, and the unit of one metric of that name.
    async fn about(&self, name: String) -> Result<MetricMetadata, QueryError> {
        let known = self.engine.meters.get(&name).cloned();
        let query = MetricQuery { name: Some(name), ..MetricQuery::new(self.metrics.clone()) };
        let metrics = self.engine.index().all_metrics(&query, 1).await?;
        let unit = metrics.into_iter().next().and_then(|metric| metric.unit).filter(|unit| !unit.is_empty());
        Ok(match (known, unit) {
            (Some(known), None) => known,
            (Some(known), Some(unit)) => MetricMetadata::new(&known.kind, &known.help, &unit),
            (None, unit) => MetricMetadata::new("unknown", "", &unit.unwrap_or_default()),
        })
    }

    /// Exemplars of the label sets of which any group's matchers all hold, from one time to another, both inclusive.
    pub async fn exemplars(
        &self,
        groups: &[MatcherGroup],
        from: Timestamp,
        to: Timestamp,
        series_max: usize,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, QueryError> {
        let Some(sets) = self.sets() else { return Ok(Vec::new()) };
        let mut labels: HashMap<SeriesId, Labels> = HashMap::new();
        for group in groups {
            labels.extend(sets.find(group, series_max.saturating_sub(labels.len()))?);
            labels.extend(sets.find_native(group, series_max.saturating_sub(labels.len()))?);
        }
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for (series, exemplar) in self.engine.index().exemplars(&self.labelled, from, to).await? {
            if let Some(labels) = labels.get(&series) {
                found.entry(labels.clone()).or_default().push(exemplar);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The newest point's time of each series, in their order.
    pub async fn last_times(&self, series: &[SeriesId]) -> Result<Vec<Option<Timestamp>>, QueryError> {
        let points = self.engine.store.last_of(series).await?;
        Ok(points.into_iter().map(|point| point.map(|point| point.timestamp)).collect())
    }

    /// Deletes label sets of which any group's matchers all hold; metrics of resources are deleted elsewhere.
    pub async fn delete(&self, groups: &[MatcherGroup]) -> Result<(), QueryError> {
        let scopes = self.sets().map(|sets| sets.scopes()).unwrap_or_default();
        for matchers in label_matchers(groups)? {
            for scope in &scopes {
                self.engine.delete_labelled(scope, &matchers).await?;
            }
        }
        Ok(())
    }

    /// The label sets that are seen; `None` where there are none at all.
    fn sets(&self) -> Option<Sets<'_>> {
        self.engine.labels.as_ref().map(|labels| Sets { labels, scope: &self.labelled, memory: &self.engine.named })
    }

    /// Labels of metrics alone, without label sets; of all metrics if no group is given.
    async fn metrics(&self, groups: &[MatcherGroup], limit: usize) -> Result<Vec<Labels>, QueryError> {
        let everything = [MatcherGroup::new()];
        let mut found = HashMap::new();
        for group in if groups.is_empty() { &everything } else { groups } {
            self.find_metrics(group, limit, &mut found).await?;
        }
        Ok(found.into_values().take(limit).collect())
    }

    async fn find_metrics(
        &self,
        group: &MatcherGroup,
        limit: usize,
        found: &mut HashMap<SeriesId, Labels>,
    ) -> Result<(), QueryError> {
        // Nothing has a name with the character that databases do not take.
        let names = self.names(group).await?;
        for name in names.into_iter().filter(|name| !name.contains('\0')) {
            for (series, labels) in self.metrics_named(name, limit).await?.iter() {
                // The name was judged in both its forms; what is shown is only one of them.
                let holds = |matcher: &Matcher| matcher.name == NAME || matcher.is_match(labels.get(&matcher.name));
                if group.iter().all(holds) {
                    found.insert(*series, labels.clone());
                }
                if found.len() > limit {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Metrics of a name with their labels, from memory if it is still true; cut at more than `limit`.
    async fn metrics_named(&self, name: String, limit: usize) -> Result<Named, QueryError> {
        let reading = self.reading();
        if let Some(named) = self.engine.named.metrics(&name, &self.metrics, reading) {
            return Ok(named);
        }
        let query = MetricQuery { name: Some(name.clone()), ..MetricQuery::new(self.metrics.clone()) };
        let metrics = self.engine.index().all_metrics(&query, limit.saturating_add(1)).await?;
        let is_whole = metrics.len() <= limit;
        let resources = self.resources_of(&metrics).await?;
        let labelled = metrics.iter().filter_map(|metric| {
            let resource = resources.get(&metric.resource_id?)?;
            Some((metric.series, labels_of(metric, resource)))
        });
        let named: Named = Arc::new(labelled.collect());
        if is_whole {
            self.engine.named.keep_metrics(&name, &self.metrics, named.clone(), reading);
        }
        Ok(named)
    }

    /// Names of metrics, from memory if it is still true.
    async fn all_names(&self) -> Result<Arc<Vec<String>>, QueryError> {
        let reading = self.reading();
        if let Some(names) = self.engine.named.names(&self.metrics, reading) {
            return Ok(names);
        }
        let names = Arc::new(self.engine.index().metric_names(&self.metrics).await?);
        self.engine.named.keep_names(&self.metrics, names.clone(), reading);
        Ok(names)
    }

    fn reading(&self) -> Reading {
        Memory::reading(self.engine.index().changes(), self.engine.clock.monotonic())
    }

    /// Names of metrics that the matchers of `__name__` accept, as they are or with underscores.
    async fn names(&self, group: &MatcherGroup) -> Result<Vec<String>, QueryError> {
        let of_name: Vec<&Matcher> = group.iter().filter(|matcher| matcher.name == NAME).collect();
        let equal = of_name.iter().find(|matcher| matches!(matcher.operator, Operator::Equal));
        if let Some(matcher) = equal.filter(|matcher| !matcher.value.contains('_'))
            && of_name.len() == 1
        {
            // Nothing else could be shown under a name without an underscore.
            return Ok(vec![matcher.value.clone()]);
        }
        let all = self.all_names().await?;
        let is_wanted = |name: &&String| {
            let shown = shown_name(name);
            of_name.iter().all(|matcher| match matcher.operator {
                Operator::Equal | Operator::Matches(_) => matcher.is_match(name) || matcher.is_match(&shown),
                Operator::NotEqual | Operator::MatchesNot(_) => matcher.is_match(name) && matcher.is_match(&shown),
            })
        };
        Ok(all.iter().filter(is_wanted).cloned().collect())
    }

    async fn resources_of(&self, metrics: &[Metric]) -> Result<HashMap<uuid::Uuid, Resource>, QueryError> {
        let mut ids: Vec<uuid::Uuid> = metrics.iter().filter_map(|metric| metric.resource_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut resources = HashMap::with_capacity(ids.len());
        for some in ids.chunks(NAMED_AT_ONCE) {
            let query = ResourceQuery {
                scope: self.metrics.clone(),
                resource_type: "generic".to_owned(),
                filter: Filter::In {
                    attribute: "id".to_owned(),
                    values: some.iter().map(|id| id.to_string().into()).collect(),
                },
                creator: None,
                history: false,
                page: orzo_index::Page::default(),
            };
            for resource in self.engine.index().bare_resources(&query, some.len()).await? {
                resources.insert(resource.id, resource);
            }
        }
        Ok(resources)
    }
}

fn label_matchers(groups: &[MatcherGroup]) -> Result<Vec<Vec<LabelMatcher>>, QueryError> {
    groups.iter().map(label_group).collect()
}

fn label_group(group: &MatcherGroup) -> Result<Vec<LabelMatcher>, QueryError> {
    group.iter().map(label_matcher).collect()
}

fn label_matcher(matcher: &Matcher) -> Result<LabelMatcher, QueryError> {
    let (name, value) = (matcher.name.as_str(), matcher.value.as_str());
    let made = match &matcher.operator {
        Operator::Equal => Ok(LabelMatcher::equal(name, value)),
        Operator::NotEqual => Ok(LabelMatcher::not_equal(name, value)),
        Operator::Matches(_) => LabelMatcher::matching(name, value),
        Operator::MatchesNot(_) => LabelMatcher::not_matching(name, value),
    };
    made.map_err(|error| QueryError::refused(error.to_string()))
}

/// A name as Prometheus' classic names allow it.
fn shown_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    let shown: String = name.chars().map(allowed).collect();
    if shown.starts_with(|c: char| c.is_ascii_digit()) { format!("_{shown}") } else { shown }
}

/// A metric's labels: where it is from, and what its resource is.
fn labels_of(metric: &Metric, resource: &Resource) -> Labels {
    let name = shown_name(metric.name.as_deref().unwrap_or(""));
    let mut labels: Vec<(String, String)> = resource
        .attributes
        .iter()
        .filter_map(|(name, value)| {
            let text = match value {
                serde_json::Value::Null => return None,
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some((shown_name(name), text))
        })
        .collect();
    // After the attributes, so that no attribute can pretend to be one of these.
    labels.push(("type".into(), resource.resource_type.clone()));
    labels.push(("resource_id".into(), resource.id.to_string()));
    labels.push(("project_id".into(), resource.project_id.clone().unwrap_or_default()));
    labels.push(("user_id".into(), resource.user_id.clone().unwrap_or_default()));
    if resource.original_resource_id != resource.id.to_string() {
        labels.push(("original_resource_id".into(), resource.original_resource_id.clone()));
    }
    labels.push((NAME.into(), name));
    Labels::new(labels)
}
