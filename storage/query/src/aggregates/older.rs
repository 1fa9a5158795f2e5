//! The older aggregation over metrics (`/v1/aggregation`), which Grafana still asks for: the same method within metrics
//! and over them, unless another is named; one metric alone is answered as it is.

use std::{sync::Arc, time::Duration};

use orzo_index::Metric;
use orzo_model::{Scope, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    AggregatesQuery, Fill, Part, Search, aggregated,
    found::{Named, group_of},
};
use crate::{
    Engine, QueryError,
    method::{Method, Reaggregation},
    operations::{Operation, Reference},
    read::{AggregatedMeasure, MeasuresQuery, method_of, no_granularity},
    width::Width,
};

/// An older question about metrics.
#[derive(Clone, Debug, Default)]
pub struct AggregationQuery {
    /// Method within metrics.
    pub aggregation: String,
    /// Method over them; `None`: the same.
    pub reaggregation: Option<String>,
    /// Only this one; `None`: all that every metric has.
    pub granularity: Option<Duration>,
    /// Not before the bucket that holds it.
    pub start: Option<Timestamp>,
    /// Before it.
    pub stop: Option<Timestamp>,
    /// Buckets of each metric aggregated again, before the metrics are.
    pub resample: Option<Width>,
    /// What stands where values are missing.
    pub fill: Option<Fill>,
    /// Percentage of times at which every metric must have a value; looked at only without `fill`.
    pub needed_overlap: f64,
}

/// Values of the attributes of `groupby`, and the metrics of the resources that have them.
pub type MetricGroup = (Map<String, Value>, Vec<Arc<Metric>>);

impl Engine {
    /// The metrics of a name of the resources that a search finds, by groups; one group without `groupby`.
    pub async fn groups_of_metric(
        &self,
        scope: &Scope,
        creator: &str,
        search: &Search,
        groupby: &[String],
        name: &str,
    ) -> Result<Vec<MetricGroup>, QueryError> {
        let query = AggregatesQuery {
            scope: scope.clone(),
            creator: Some(creator.to_owned()),
            // Without groups resources come by their ids, and so do their metrics.
            groupby: if groupby.is_empty() { vec!["id".to_owned()] } else { groupby.to_vec() },
            ..AggregatesQuery::default()
        };
        let mut groups: Vec<(Map<String, Value>, Vec<uuid::Uuid>)> = Vec::new();
        let mut resources = self.found(&query, search).await?;
        self.index.fill_metrics(&mut resources, Some(&[name.to_owned()])).await?;
        for resource in resources {
            let key = group_of(&resource, groupby);
            if groups.last().is_none_or(|(last, _)| *last != key) {
                groups.push((key, Vec::new()));
            }
            if let Some((_, ids)) = groups.last_mut() {
                ids.extend(resource.metrics.get(name));
            }
        }
        let mut answer = Vec::with_capacity(groups.len());
        for (key, ids) in groups {
            // The resources were found within the scope, and their metrics belong to them.
            let metrics = self.index.known_metrics(&Scope::All, &ids).await?;
            answer.push((key, metrics.into_iter().flatten().collect()));
        }
        Ok(answer)
    }

    /// One series of metrics, which the caller got from the index within a scope.
    pub async fn aggregation(
        &self,
        metrics: &[Arc<Metric>],
        query: &AggregationQuery,
    ) -> Result<Vec<AggregatedMeasure>, QueryError> {
        if query.resample.is_some() && query.granularity.is_none() {
            return Err(QueryError::refused("A granularity must be specified to resample"));
        }
        if metrics.len() > self.settings.metrics_max {
            return Err(self.too_many());
        }
        check_policies(metrics, query)?;
        match metrics {
            [] => Ok(Vec::new()),
            [metric] => {
                let asked = MeasuresQuery {
                    aggregation: query.aggregation.clone(),
                    granularity: query.granularity,
                    start: query.start,
                    stop: query.stop,
                    resample: query.resample,
                    beyond_policy: false,
                };
                self.measures(metric, &asked).await
            }
            metrics => self.aggregation_of_many(metrics, query).await,
        }
    }

    async fn aggregation_of_many(
        &self,
        metrics: &[Arc<Metric>],
        query: &AggregationQuery,
    ) -> Result<Vec<AggregatedMeasure>, QueryError> {
        let name = query.reaggregation.as_ref().unwrap_or(&query.aggregation);
        let over = Reaggregation::parse(name).ok_or_else(|| {
            QueryError::invalid(
                "Argument value error",
                format!("Metrics cannot be aggregated by '{name}'"),
                json!("reaggregation"),
            )
        })?;
        let reference =
            |metric: &Arc<Metric>| Reference { name: metric.id.to_string(), aggregation: query.aggregation.clone() };
        let mut operation = Operation::Metric(metrics.iter().map(reference).collect());
        if let (Some(width), Some(within)) = (query.resample, Method::parse(&query.aggregation)) {
            // A rate's buckets are rates already.
            operation = Operation::Resample(Method { change: None, ..within }, width, Box::new(operation));
        }
        let question = AggregatesQuery {
            operation: Operation::Aggregate(over, Box::new(operation)),
            granularity: query.granularity,
            start: query.start,
            stop: query.stop,
            fill: query.fill,
            needed_overlap: Some(query.needed_overlap),
            ..AggregatesQuery::default()
        };
        let named = metrics.iter().map(|metric| Named { metric: metric.clone(), reference: reference(metric) });
        let part = Part { named: named.collect(), start: query.start, stop: query.stop };
        let grids = self.evaluate(&question, &[part]).await?.pop().unwrap_or_default();
        Ok(aggregated(&grids, question.fill()))
    }
}

/// Whether all policies have a granularity in common, or the one asked for, and, if there are several, the method. Of
/// what a metric lacks, Gnocchi names the first.
fn check_policies(metrics: &[Arc<Metric>], query: &AggregationQuery) -> Result<(), QueryError> {
    let Some(first) = metrics.first() else { return Ok(()) };
    let lacks = |metric: &Metric, width: Duration| metric.archive_policy.item(width).is_none();
    match query.granularity {
        Some(width) => {
            if let Some(metric) = metrics.iter().find(|metric| lacks(metric, width)) {
                return Err(no_granularity(metric, &query.aggregation, width));
            }
        }
        None => {
            let mut widths = first.archive_policy.definition.iter().map(|item| item.granularity());
            if widths.all(|width| metrics.iter().any(|metric| lacks(metric, width))) {
                let detail: Vec<Value> = metrics.iter().map(|metric| json!([metric.id, query.aggregation])).collect();
                return Err(QueryError::cannot_aggregate("No granularity match", json!(detail)));
            }
        }
    }
    let mut several = metrics.iter().filter(|_| metrics.len() > 1);
    match several.find(|metric| method_of(metric, &query.aggregation, false).is_none()) {
        Some(metric) => {
            let width = metric.archive_policy.definition.first().map_or(Duration::ZERO, |item| item.granularity());
            Err(no_granularity(metric, &query.aggregation, width))
        }
        None => Ok(()),
    }
}
