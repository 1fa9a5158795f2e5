//! Everything that has points under the names of PromQL: label sets as they were written, and metrics of resources with
//! their resource as labels.
//!
//! A metric `disk.device.read.bytes` answers to that name and to `disk_device_read_bytes`, and is shown as the latter.
//! Its labels are the resource's id, type, owner and attributes. Only what the scopes allow is found; nothing else is
//! ever read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use orzo_index::{Filter, Metric, MetricQuery, Resource, ResourceQuery};
use orzo_labels::Matcher as LabelMatcher;
use orzo_model::{Measure, Scope, SeriesId, Timestamp};
use orzo_promql::{
    Labels, Matcher, MatcherGroup, Operator, QueryError as PromError, RawSeries, Selection, SeriesSource,
};

use crate::{Engine, QueryError};

/// Resources that one question to the index names.
const NAMED_AT_ONCE: usize = 500;
/// The label with a metric's name.
const NAME: &str = "__name__";

/// Finds and reads series by matchers, within two scopes.
pub struct NamedSeries {
    engine: Arc<Engine>,
    /// How far metrics of resources are seen.
    metrics: Scope,
    /// Whose label sets are seen.
    labelled: Scope,
}

impl NamedSeries {
    /// For a caller who may see metrics within `metrics`, and label sets within `labelled`.
    pub fn new(engine: Arc<Engine>, metrics: Scope, labelled: Scope) -> Self {
        Self { engine, metrics, labelled }
    }

    /// Series of which any group's matchers all hold, at most `limit`, in the order of their numbers.
    pub async fn find(&self, groups: &[MatcherGroup], limit: usize) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        let mut found: HashMap<SeriesId, Labels> = HashMap::new();
        for group in groups {
            if self.engine.labels.is_some() {
                let matchers = label_group(group)?;
                for one in self.engine.find_labelled(&self.labelled, &matchers, limit)? {
                    let labels = one.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                    found.insert(one.series, Labels::new(labels));
                }
            }
            self.find_metrics(group, limit, &mut found).await?;
            if found.len() > limit {
                break;
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(series, _)| *series);
        found.truncate(limit);
        Ok(found)
    }

    /// Names of labels; of all series if no group is given.
    pub async fn label_names(&self, groups: &[MatcherGroup], limit: usize) -> Result<BTreeSet<String>, QueryError> {
        let mut names = match &self.engine.labels {
            Some(labels) => labels.label_names(&self.labelled, &label_matchers(groups)?),
            None => BTreeSet::new(),
        };
        for metric in self.metrics(groups, limit).await? {
            names.extend(metric.iter().map(|(name, _)| name.to_string()));
        }
        Ok(names)
    }

    /// Values of a label; of all series if no group is given.
    pub async fn label_values(
        &self,
        name: &str,
        groups: &[MatcherGroup],
        limit: usize,
    ) -> Result<BTreeSet<String>, QueryError> {
        let mut values = match &self.engine.labels {
            Some(labels) => labels.label_values(&self.labelled, name, &label_matchers(groups)?),
            None => BTreeSet::new(),
        };
        if name == NAME && groups.is_empty() {
            let names = self.engine.index().metric_names(&self.metrics).await?;
            values.extend(names.iter().map(|name| shown_name(name)));
        } else {
            let metrics = self.metrics(groups, limit).await?;
            values.extend(metrics.iter().map(|labels| labels.get(name).to_owned()).filter(|value| !value.is_empty()));
        }
        Ok(values)
    }

    /// Names under which metrics of resources are shown, at most `limit`, with the unit of one metric of that name.
    pub async fn metric_units(&self, limit: usize) -> Result<BTreeMap<String, String>, QueryError> {
        let mut units = BTreeMap::new();
        for name in self.engine.index().metric_names(&self.metrics).await?.into_iter().take(limit) {
            let shown = shown_name(&name);
            let query = MetricQuery { name: Some(name), ..MetricQuery::new(self.metrics.clone()) };
            let metrics = self.engine.index().all_metrics(&query, 1).await?;
            let unit = metrics.into_iter().next().and_then(|metric| metric.unit).unwrap_or_default();
            units.entry(shown).or_insert(unit);
        }
        Ok(units)
    }

    /// Deletes label sets of which any group's matchers all hold; metrics of resources are deleted elsewhere.
    pub async fn delete(&self, groups: &[MatcherGroup]) -> Result<(), QueryError> {
        for matchers in label_matchers(groups)? {
            self.engine.delete_labelled(&self.labelled, &matchers).await?;
        }
        Ok(())
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
        for name in self.names(group).await? {
            let query = MetricQuery { name: Some(name), ..MetricQuery::new(self.metrics.clone()) };
            let metrics = self.engine.index().all_metrics(&query, limit + 1).await?;
            let resources = self.resources_of(&metrics).await?;
            for metric in metrics {
                let Some(resource) = metric.resource_id.and_then(|id| resources.get(&id)) else { continue };
                let labels = labels_of(&metric, resource);
                // The name was judged in both its forms; what is shown is only one of them.
                let holds = |matcher: &Matcher| matcher.name == NAME || matcher.is_match(labels.get(&matcher.name));
                if group.iter().all(holds) {
                    found.insert(metric.series, labels);
                }
                if found.len() > limit {
                    return Ok(());
                }
            }
        }
        Ok(())
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
        let mut names = self.engine.index().metric_names(&self.metrics).await?;
        names.retain(|name| {
            let shown = shown_name(name);
            of_name.iter().all(|matcher| match matcher.operator {
                Operator::Equal | Operator::Matches(_) => matcher.is_match(name) || matcher.is_match(&shown),
                Operator::NotEqual | Operator::MatchesNot(_) => matcher.is_match(name) && matcher.is_match(&shown),
            })
        });
        Ok(names)
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
            for resource in self.engine.index().all_resources(&query, some.len()).await? {
                resources.insert(resource.id, resource);
            }
        }
        Ok(resources)
    }
}

#[async_trait]
impl SeriesSource for NamedSeries {
    async fn select(
        &self,
        selection: &Selection,
        series_max: usize,
        points_max: usize,
    ) -> Result<Vec<RawSeries>, PromError> {
        let failed = |error: QueryError| PromError::Source(Box::new(error));
        let found = self.find(&selection.groups, series_max + 1).await.map_err(failed)?;
        if found.len() > series_max {
            return Err(PromError::TooMuch { what: "series", limit: series_max });
        }
        let series: Vec<SeriesId> = found.iter().map(|(series, _)| *series).collect();
        // Whole milliseconds after the one and up to the other, in the store's microseconds.
        let micros = |millis: i64| Timestamp::from_micros(millis.saturating_add(1).saturating_mul(1000));
        let (from, to) = (micros(selection.after_ms), micros(selection.until_ms));
        let points = self.engine.store.scan(&series, from, to).await.map_err(|error| failed(error.into()))?;
        if points.iter().map(|(_, measures)| measures.len()).sum::<usize>() > points_max {
            return Err(PromError::TooMuch { what: "points", limit: points_max });
        }
        let mut labels: HashMap<SeriesId, Labels> = found.into_iter().collect();
        let named = points.into_iter().filter_map(|(series, measures)| {
            let labels = labels.remove(&series)?;
            (!measures.is_empty()).then(|| raw(labels, &measures))
        });
        Ok(named.collect())
    }
}

/// Times cut to milliseconds; of several points in one the last counts.
fn raw(labels: Labels, measures: &[Measure]) -> RawSeries {
    let mut times: Vec<i64> = Vec::with_capacity(measures.len());
    let mut values: Vec<f64> = Vec::with_capacity(measures.len());
    for measure in measures {
        let time = measure.timestamp.micros().div_euclid(1000);
        if times.last() == Some(&time) {
            times.pop();
            values.pop();
        }
        times.push(time);
        values.push(measure.value);
    }
    RawSeries { labels, times: times.into(), values: values.into() }
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
