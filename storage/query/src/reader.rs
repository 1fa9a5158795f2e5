//! Answers for alarms and for the collector ([`MeasureReader`]).
//!
//! Other than the API, which answers as Gnocchi does, these answers need no archive policy to have foreseen the
//! granularity or method: raw points are there, so an alarm on any granularity works.

use async_trait::async_trait;
use orzo_index::{Filter, IndexError};
use orzo_model::{GroupRead, Measure, MeasureReader, ReadError, ResourceRead, Scope, Timestamp};

use crate::{
    Engine, Method, QueryError, Reaggregation,
    aggregates::{AggregatesQuery, Search},
    operations::{Operation, Reference},
    read::SeriesRead,
};

#[async_trait]
impl MeasureReader for Engine {
    async fn read_resource(&self, scope: &Scope, read: &ResourceRead) -> Result<Vec<Measure>, ReadError> {
        self.answer_resource(scope, read).await.map_err(QueryError::into_read)
    }

    async fn read_group(&self, scope: &Scope, read: &GroupRead) -> Result<Vec<Measure>, ReadError> {
        self.answer_group(scope, read).await.map_err(QueryError::into_read)
    }

    async fn last_before(
        &self,
        resource_id: &str,
        metric: &str,
        before: Timestamp,
    ) -> Result<Option<Measure>, ReadError> {
        self.answer_last(resource_id, metric, before).await.map_err(QueryError::into_read)
    }
}

impl Engine {
    async fn answer_resource(&self, scope: &Scope, read: &ResourceRead) -> Result<Vec<Measure>, QueryError> {
        let resource = self.index.find_resource(scope, "generic", &self.settings.creator, &read.resource_id).await?;
        // The resource may be seen, so its metrics may.
        let metric = self.index.metric_of_resource(&Scope::All, resource.id, &read.metric).await?;
        let read = SeriesRead {
            series: metric.series,
            method: method(&read.aggregation)?,
            widths: vec![(read.granularity, None)],
            start: Some(read.start),
            stop: Some(read.stop),
        };
        let mut answer = self.read_series(vec![read]).await?;
        let mut measures = answer.pop().and_then(|mut by_width| by_width.pop()).unwrap_or_default();
        // An alarm can judge only numbers.
        measures.retain(|measure| !measure.value.is_nan());
        Ok(measures)
    }

    async fn answer_group(&self, scope: &Scope, read: &GroupRead) -> Result<Vec<Measure>, QueryError> {
        method(&read.aggregation)?;
        let reaggregation = Reaggregation::parse(&read.reaggregation).ok_or_else(|| unknown(&read.reaggregation))?;
        let reference = Reference { name: read.metric.clone(), aggregation: read.aggregation.clone() };
        let query = AggregatesQuery {
            scope: scope.clone(),
            creator: Some(self.settings.creator.clone()),
            operation: Operation::Aggregate(reaggregation, Box::new(Operation::Metric(vec![reference.clone()]))),
            search: Some(Search { resource_type: read.resource_type.clone(), filter: Filter::parse(&read.search)? }),
            start: Some(read.start),
            stop: Some(read.stop),
            granularity: Some(read.granularity),
            needed_overlap: Some(0.0),
            beyond_policy: true,
            ..AggregatesQuery::default()
        };
        let measures = self.aggregated(&query).await?.into_iter().filter(|measure| !measure.value.is_nan());
        Ok(measures.map(|measure| Measure { timestamp: measure.timestamp, value: measure.value }).collect())
    }

    async fn answer_last(&self, id: &str, name: &str, before: Timestamp) -> Result<Option<Measure>, QueryError> {
        let found = match self.index.find_resource(&Scope::All, "generic", &self.settings.creator, id).await {
            Ok(resource) => self.index.metric_of_resource(&Scope::All, resource.id, name).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(metric) => Ok(self.store.last_before(metric.series, before).await?),
            Err(IndexError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn method(text: &str) -> Result<Method, QueryError> {
    Method::parse(text).ok_or_else(|| unknown(text))
}

fn unknown(method: &str) -> QueryError {
    QueryError::refused(format!("Unknown aggregation method '{method}'"))
}
