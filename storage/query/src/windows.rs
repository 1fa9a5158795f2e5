//! Answers for who judges windows of many series ([`WindowReader`]), and for who follows events ([`EventFeed`]).
//!
//! A target is resolved once within a scope; its windows are then read often, many targets in one scan.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orzo_index::{Filter, MetricQuery};
use orzo_model::{
    Event, EventFeed, Measure, NumberedEvent, ReadError, Scope, SeriesId, Target, Timestamp, WindowRead, WindowReader,
};
use uuid::Uuid;

use crate::{
    Engine, Method, QueryError, Reaggregation,
    aggregates::{AggregatesQuery, Search},
    operations::{Operation, Reference},
    read::SeriesRead,
};

#[async_trait]
impl WindowReader for Engine {
    async fn find_series(&self, scope: &Scope, target: &Target) -> Result<Arc<[SeriesId]>, ReadError> {
        self.series_of(scope, target).await.map_err(QueryError::into_read)
    }

    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>> {
        let mut wanted = Vec::new();
        let mut places = Vec::with_capacity(reads.len());
        for read in reads {
            let (Some(method), Ok(over)) = (Method::parse(&read.aggregation), over(read)) else {
                places.push(None);
                continue;
            };
            let first = wanted.len();
            wanted.extend(read.series.iter().map(|&series| SeriesRead {
                series,
                method,
                widths: vec![(read.granularity, None)],
                start: Some(read.start),
                stop: Some(read.stop),
            }));
            places.push(Some((first..wanted.len(), over)));
        }
        let mut found: Vec<Vec<Measure>> = match self.read_series(wanted).await {
            Ok(found) => found.into_iter().map(first_width).collect(),
            Err(error) => {
                let reason = error.into_read().to_string();
                return reads.iter().map(|_| Err(ReadError::Unavailable { reason: reason.clone() })).collect();
            }
        };
        reads
            .iter()
            .zip(places)
            .map(|(read, place)| match place {
                None => {
                    let method = read.reaggregation.as_ref().unwrap_or(&read.aggregation);
                    Err(ReadError::Invalid { reason: format!("Unknown aggregation method '{method}'") })
                }
                Some((range, None)) => Ok(found[range].first_mut().map(std::mem::take).unwrap_or_default()),
                Some((range, Some(over))) => Ok(reaggregated(&found[range], over)),
            })
            .collect()
    }
}

#[async_trait]
impl EventFeed for Engine {
    async fn events_after(&self, number: i64, limit: usize) -> Result<Vec<NumberedEvent>, ReadError> {
        self.index().events_after(number, limit).await.map_err(|error| QueryError::from(error).into_read())
    }

    async fn newest_event(&self) -> Result<i64, ReadError> {
        self.index().newest_event().await.map_err(|error| QueryError::from(error).into_read())
    }

    async fn events_between(
        &self,
        project_id: &str,
        start: Timestamp,
        stop: Timestamp,
        limit: usize,
    ) -> Result<Vec<Event>, ReadError> {
        let found = self.index().events_between(project_id, start, stop, limit).await;
        found.map_err(|error| QueryError::from(error).into_read())
    }
}

impl Engine {
    async fn series_of(&self, scope: &Scope, target: &Target) -> Result<Arc<[SeriesId]>, QueryError> {
        match target {
            Target::Resource { resource_id, metric } => {
                let resource = self.index.find_resource(scope, "generic", &self.settings.creator, resource_id).await?;
                // The resource may be seen, so its metrics may.
                let metric = self.index.metric_of_resource(&Scope::All, resource.id, metric).await?;
                Ok(Arc::from([metric.series]))
            }
            Target::Metrics(ids) => {
                let not_found = |id: &str| QueryError::NotFound { text: format!("Metric {id} does not exist") };
                let mut wanted = Vec::new();
                for id in ids {
                    wanted.push(Uuid::parse_str(id).map_err(|_| not_found(id))?);
                }
                let query = MetricQuery { ids: Some(wanted.clone()), ..MetricQuery::new(scope.clone()) };
                let found = self.index.all_metrics(&query, wanted.len()).await?;
                for id in &wanted {
                    if !found.iter().any(|metric| metric.id == *id) {
                        return Err(not_found(&id.to_string()));
                    }
                }
                Ok(found.iter().map(|metric| metric.series).collect())
            }
            Target::Group { metric, resource_type, search } => {
                let search: serde_json::Value = serde_json::from_str(search)
                    .map_err(|error| QueryError::refused(format!("the search is not JSON: {error}")))?;
                let reference = Reference { name: metric.clone(), aggregation: "mean".to_owned() };
                let query = AggregatesQuery {
                    scope: scope.clone(),
                    creator: Some(self.settings.creator.clone()),
                    operation: Operation::Metric(vec![reference]),
                    search: Some(Search { resource_type: resource_type.clone(), filter: Filter::parse(&search)? }),
                    needed_overlap: Some(0.0),
                    beyond_policy: true,
                    ..AggregatesQuery::default()
                };
                let mut series = self.series_named(&query).await?;
                series.sort_unstable();
                series.dedup();
                Ok(series.into())
            }
        }
    }
}

/// An alarm can judge only numbers.
fn first_width(by_width: Vec<Vec<Measure>>) -> Vec<Measure> {
    let mut measures = by_width.into_iter().next().unwrap_or_default();
    measures.retain(|measure| !measure.value.is_nan());
    measures
}

fn over(read: &WindowRead) -> Result<Option<Reaggregation>, ()> {
    match &read.reaggregation {
        None => Ok(None),
        Some(method) => Reaggregation::parse(method).map(Some).ok_or(()),
    }
}

/// As the operation `aggregate` does it: at every time that any series has, over the values that there are; `rate:`
/// means the differences of successive results.
fn reaggregated(series: &[Vec<Measure>], over: Reaggregation) -> Vec<Measure> {
    let mut rows: BTreeMap<Timestamp, Vec<f64>> = BTreeMap::new();
    for measure in series.iter().flatten() {
        rows.entry(measure.timestamp).or_default().push(measure.value);
    }
    let mut scratch = Vec::new();
    let mut results: Vec<Measure> = rows
        .into_iter()
        .map(|(timestamp, values)| Measure { timestamp, value: over.kind.of(values.into_iter(), &mut scratch) })
        .collect();
    if over.is_rate {
        results = results
            .windows(2)
            .map(|pair| Measure { timestamp: pair[1].timestamp, value: pair[1].value - pair[0].value })
            .collect();
    }
    results.retain(|measure| !measure.value.is_nan());
    results
}
