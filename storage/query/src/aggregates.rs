//! Dynamic aggregates: references found within the scope, read, put on a grid, evaluated; per group if asked.
//!
//! Which metrics are meant is in `aggregates/found.rs`, the grid in `aggregates/grid.rs`.

mod found;
mod grid;

use std::{collections::BTreeMap, time::Duration};

use orzo_index::{Filter, Metric, MetricQuery, Resource};
use orzo_model::{Measure, Scope, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    Engine, QueryError,
    method::Method,
    operations::{Grid, Operation, evaluate},
    read::{AggregatedMeasure, SeriesRead},
};

use found::{Named, group_of, no_metric};
pub(crate) use grid::aggregated;
use grid::{by_series, common_widths, cut_to_overlap, fill_grid, grid_of};

/// What stands where a series has no value at a time at which another has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// This number.
    Value(f64),
    /// Nothing; and what has no value in the end is left out.
    DropMissing,
    /// Nothing; and what has no value in the end is NaN.
    Null,
    /// The value before.
    Forward,
    /// The value after.
    Backward,
    /// The value before, or where there is none the one after.
    FullForward,
    /// The value after, or where there is none the one before.
    FullBackward,
}

impl Fill {
    /// Reads the parameter `fill`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "dropna" => Self::DropMissing,
            "null" => Self::Null,
            "ffill" => Self::Forward,
            "bfill" => Self::Backward,
            "full_ffill" => Self::FullForward,
            "full_bfill" => Self::FullBackward,
            number => Self::Value(number.parse().ok()?),
        })
    }
}

/// Which resources' metrics are meant.
#[derive(Clone, Debug)]
pub struct Search {
    /// Type searched.
    pub resource_type: String,
    /// Which of them.
    pub filter: Filter,
}

/// A question about many metrics.
#[derive(Clone, Debug)]
pub struct AggregatesQuery {
    /// How far it may look.
    pub scope: Scope,
    /// Whose transformation free ids in the search go through.
    pub creator: Option<String>,
    /// What is computed.
    pub operation: Operation,
    /// `None`: references are UUIDs; else wildcards over names of the metrics of what it finds.
    pub search: Option<Search>,
    /// Attributes; one answer for each combination of values. Needs a search.
    pub groupby: Vec<String>,
    /// Not before the bucket that holds it.
    pub start: Option<Timestamp>,
    /// Before it.
    pub stop: Option<Timestamp>,
    /// Only this one; `None`: all that every metric has.
    pub granularity: Option<Duration>,
    /// What stands where values are missing; `None` together with `needed_overlap` `None` means
    /// [`Fill::DropMissing`].
    pub fill: Option<Fill>,
    /// Percentage of times at which every series must have a value; looked at only without `fill`.
    pub needed_overlap: Option<f64>,
}

/// The measures of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum MeasuredSeries {
    /// One series came of several.
    Aggregated(Vec<AggregatedMeasure>),
    /// Each metric's own: metric, aggregation method, measures.
    ByMetric(Vec<(Uuid, String, Vec<AggregatedMeasure>)>),
    /// The same with a search: resource, metric name, aggregation method, measures.
    ByResource(Vec<(Uuid, String, String, Vec<AggregatedMeasure>)>),
}

/// What an answer was made from, for `details=true`.
#[derive(Clone, Debug, PartialEq)]
pub enum References {
    /// Without a search.
    Metrics(Vec<Metric>),
    /// With one.
    Resources(Vec<Resource>),
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregated {
    /// Measures.
    pub measures: MeasuredSeries,
    /// What they were made from.
    pub references: References,
}

/// One answer, or one for each group.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregatesAnswer {
    /// Without `groupby`.
    Single(Aggregated),
    /// With it: values of the attributes, and the answer; sorted by the values.
    Groups(Vec<(Map<String, Value>, Aggregated)>),
}

impl Engine {
    /// Answers a question about many metrics.
    pub async fn aggregates(&self, query: &AggregatesQuery) -> Result<AggregatesAnswer, QueryError> {
        match &query.search {
            None if query.groupby.is_empty() => Ok(AggregatesAnswer::Single(self.by_ids(query).await?)),
            None => Err(QueryError::refused("groupby is possible only together with a search")),
            Some(search) if query.groupby.is_empty() => {
                let resources = self.found(query, search).await?;
                Ok(AggregatesAnswer::Single(self.by_resources(query, resources).await?))
            }
            Some(search) => self.by_groups(query, search).await,
        }
    }

    async fn by_ids(&self, query: &AggregatesQuery) -> Result<Aggregated, QueryError> {
        let references = query.operation.references();
        let mut ids = Vec::new();
        for reference in &references {
            ids.push(Uuid::parse_str(&reference.name).map_err(|_| {
                let detail = json!(references.iter().map(|r| json!([r.name, r.aggregation])).collect::<Vec<_>>());
                QueryError::invalid("Invalid metric references", "badly formed hexadecimal UUID string", detail)
            })?);
        }
        let wanted = MetricQuery { ids: Some(ids.clone()), ..MetricQuery::new(query.scope.clone()) };
        let found: BTreeMap<Uuid, Metric> = self
            .index
            .all_metrics(&wanted, self.settings.metrics_max)
            .await?
            .into_iter()
            .map(|metric| (metric.id, metric))
            .collect();
        let mut unknown: Vec<String> = ids.iter().filter(|id| !found.contains_key(id)).map(Uuid::to_string).collect();
        if !unknown.is_empty() {
            unknown.sort();
            unknown.dedup();
            return Err(QueryError::Missing {
                cause: "Unknown metrics".into(),
                reason: "Provided metrics don't exists".into(),
                detail: json!(unknown),
            });
        }
        let named: Vec<Named> = ids
            .iter()
            .zip(&references)
            .map(|(id, &reference)| Named { metric: found[id].clone(), reference: reference.clone() })
            .collect();
        let grids = self.evaluate(query, &named).await?;
        let measures = match grids.iter().any(|grid| grid.is_aggregated) {
            true => MeasuredSeries::Aggregated(aggregated(&grids, query.fill())),
            false => MeasuredSeries::ByMetric(
                by_series(&grids, query.fill())
                    .into_iter()
                    .map(|(place, measures)| {
                        (named[place].metric.id, named[place].reference.aggregation.clone(), measures)
                    })
                    .collect(),
            ),
        };
        Ok(Aggregated { measures, references: References::Metrics(found.into_values().collect()) })
    }

    async fn by_resources(&self, query: &AggregatesQuery, resources: Vec<Resource>) -> Result<Aggregated, QueryError> {
        let named = self.named(query, &resources).await?;
        let grids = self.evaluate(query, &named).await?;
        let measures = match grids.iter().any(|grid| grid.is_aggregated) {
            true => MeasuredSeries::Aggregated(aggregated(&grids, query.fill())),
            false => MeasuredSeries::ByResource(
                by_series(&grids, query.fill())
                    .into_iter()
                    .map(|(place, measures)| {
                        let Named { metric, reference } = &named[place];
                        let resource = metric.resource_id.unwrap_or_default();
                        (resource, metric.name.clone().unwrap_or_default(), reference.aggregation.clone(), measures)
                    })
                    .collect(),
            ),
        };
        let used = |resource: &Resource| named.iter().any(|named| named.metric.resource_id == Some(resource.id));
        let references = resources.into_iter().filter(used).collect();
        Ok(Aggregated { measures, references: References::Resources(references) })
    }

    async fn by_groups(&self, query: &AggregatesQuery, search: &Search) -> Result<AggregatesAnswer, QueryError> {
        let mut groups: Vec<(Map<String, Value>, Vec<Resource>)> = Vec::new();
        for resource in self.found(query, search).await? {
            let key = group_of(&resource, &query.groupby);
            match groups.last_mut() {
                Some((last, resources)) if *last == key => resources.push(resource),
                _ => groups.push((key, vec![resource])),
            }
        }
        let mut answers = Vec::new();
        for (group, resources) in groups {
            match self.by_resources(query, resources).await {
                // A group without such a metric is left out.
                Err(QueryError::NotFound { .. }) => {}
                outcome => answers.push((group, outcome?)),
            }
        }
        if answers.is_empty() {
            return Err(no_metric(query));
        }
        Ok(AggregatesAnswer::Groups(answers))
    }

    /// Reads all metrics and evaluates the operations at each granularity, coarsest first.
    async fn evaluate(&self, query: &AggregatesQuery, named: &[Named]) -> Result<Vec<Grid>, QueryError> {
        let unknown: Vec<Value> = named
            .iter()
            .filter(|named| !named.metric.archive_policy.has_method(&named.reference.aggregation))
            .map(|named| json!([named.metric.id.to_string(), named.reference.aggregation]))
            .collect();
        if !unknown.is_empty() {
            return Err(QueryError::Missing {
                cause: "Metrics with unknown aggregation".into(),
                reason: String::new(),
                detail: json!(unknown),
            });
        }
        let widths = common_widths(named, query.granularity)?;
        self.evaluate_at(query, named, &widths, true).await
    }

    /// The same at given widths; `keeps_timespans`: as far back as archive policies say.
    pub(crate) async fn evaluate_at(
        &self,
        query: &AggregatesQuery,
        named: &[Named],
        widths: &[Duration],
        keeps_timespans: bool,
    ) -> Result<Vec<Grid>, QueryError> {
        let mut reads = Vec::new();
        for Named { metric, reference } in named {
            let method = Method::parse(&reference.aggregation).ok_or_else(|| {
                QueryError::refused(format!("Unknown aggregation method '{}'", reference.aggregation))
            })?;
            let timespan = |width: Duration| {
                metric.archive_policy.item(width).filter(|_| keeps_timespans).and_then(|item| item.timespan())
            };
            let widths = widths.iter().map(|&width| (width, timespan(width))).collect();
            reads.push(SeriesRead { series: metric.series, method, widths, start: query.start, stop: query.stop });
        }
        let read = self.read_series(reads).await?;
        let mut grids = Vec::new();
        for (place, &width) in widths.iter().enumerate() {
            let series: Vec<&[Measure]> =
                read.iter().map(|by_width| by_width.get(place).map_or(&[][..], Vec::as_slice)).collect();
            let mut grid = grid_of(width, named, &series, self.settings.grid_cells_max)?;
            match query.fill() {
                Some(fill) => fill_grid(&mut grid, fill),
                None => cut_to_overlap(&mut grid, query)?,
            }
            grids.push(evaluate(&query.operation, &grid)?);
        }
        Ok(grids)
    }
}

impl AggregatesQuery {
    fn fill(&self) -> Option<Fill> {
        match (self.fill, self.needed_overlap) {
            (None, None) => Some(Fill::DropMissing),
            (fill, _) => fill,
        }
    }
}
