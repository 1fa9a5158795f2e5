//! Dynamic aggregates: references found within the scope, read, put on a grid, evaluated; per group if asked.

use std::{collections::BTreeMap, time::Duration};

use orzo_index::{Filter, Metric, MetricQuery, Page, Resource, ResourceQuery, Sort, policy::glob_matches};
use orzo_model::{Measure, Scope, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    Engine, QueryError,
    method::Method,
    operations::{Column, Grid, Operation, Reference, evaluate},
    read::{AggregatedMeasure, SeriesRead},
};

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

/// A metric that an operand names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) metric: Metric,
    pub(crate) reference: Reference,
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

    /// The resources of a search, sorted by the attributes of `groupby`.
    async fn found(&self, query: &AggregatesQuery, search: &Search) -> Result<Vec<Resource>, QueryError> {
        let mut sort = Vec::new();
        for attribute in &query.groupby {
            sort.push(Sort { key: attribute.clone(), descending: false, nulls_first: None });
        }
        let wanted = ResourceQuery {
            scope: query.scope.clone(),
            resource_type: search.resource_type.clone(),
            filter: search.filter.clone(),
            creator: query.creator.clone(),
            history: false,
            page: Page { limit: None, marker: None, sort },
        };
        let resources = self.index.all_resources(&wanted, self.settings.metrics_max + 1).await?;
        if resources.len() > self.settings.metrics_max {
            return Err(self.too_many());
        }
        Ok(resources)
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

    /// The metrics that a question with a search names.
    pub(crate) async fn find_named(&self, query: &AggregatesQuery) -> Result<Vec<Named>, QueryError> {
        match &query.search {
            Some(search) => {
                let resources = self.found(query, search).await?;
                self.named(query, &resources).await
            }
            None => Err(QueryError::refused("a search is needed")),
        }
    }

    /// The metrics of the resources that the operands name.
    async fn named(&self, query: &AggregatesQuery, resources: &[Resource]) -> Result<Vec<Named>, QueryError> {
        let references = query.operation.references();
        let mut wanted: Vec<(Uuid, &Reference)> = Vec::new();
        for &reference in &references {
            for resource in resources {
                for (name, id) in &resource.metrics {
                    if glob_matches(&reference.name, name) {
                        wanted.push((*id, reference));
                    }
                }
            }
        }
        if wanted.is_empty() {
            return Err(no_metric(query));
        }
        if wanted.len() > self.settings.metrics_max {
            return Err(self.too_many());
        }
        let mut metrics: BTreeMap<Uuid, Metric> = BTreeMap::new();
        // The resources were found within the scope, and their metrics belong to them.
        for chunk in wanted.chunks(1000) {
            let ids = chunk.iter().map(|(id, _)| *id).collect();
            let query = MetricQuery { ids: Some(ids), ..MetricQuery::new(Scope::All) };
            let found = self.index.all_metrics(&query, chunk.len()).await?;
            metrics.extend(found.into_iter().map(|metric| (metric.id, metric)));
        }
        let named: Vec<Named> = wanted
            .into_iter()
            .filter_map(|(id, reference)| {
                metrics.get(&id).map(|metric| Named { metric: metric.clone(), reference: reference.clone() })
            })
            .collect();
        if named.is_empty() { Err(no_metric(query)) } else { Ok(named) }
    }

    fn too_many(&self) -> QueryError {
        QueryError::refused(format!("more than {} metrics; search for fewer resources", self.settings.metrics_max))
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

fn no_metric(query: &AggregatesQuery) -> QueryError {
    let names: Vec<String> = query.operation.references().iter().map(|r| format!("'{}'", r.name)).collect();
    QueryError::NotFound { text: format!("Metric [{}] does not exist", names.join(", ")) }
}

fn group_of(resource: &Resource, groupby: &[String]) -> Map<String, Value> {
    groupby.iter().map(|name| (name.clone(), attribute(resource, name))).collect()
}

/// A resource's attribute as the API shows it.
fn attribute(resource: &Resource, name: &str) -> Value {
    match name {
        "id" => json!(resource.id.to_string()),
        "type" => json!(resource.resource_type),
        "original_resource_id" => json!(resource.original_resource_id),
        "creator" => json!(resource.creator),
        "created_by_user_id" => json!(orzo_index::created_by_user(&resource.creator)),
        "created_by_project_id" => json!(orzo_index::created_by_project(&resource.creator)),
        "project_id" => json!(resource.project_id),
        "user_id" => json!(resource.user_id),
        "started_at" => json!(resource.started_at),
        "ended_at" => json!(resource.ended_at),
        "revision_start" => json!(resource.revision_start),
        name => resource.attributes.get(name).cloned().unwrap_or(Value::Null),
    }
}

/// Granularities that every metric has, coarsest first.
fn common_widths(named: &[Named], wanted: Option<Duration>) -> Result<Vec<Duration>, QueryError> {
    if let Some(width) = wanted {
        let missing: Vec<Value> = named
            .iter()
            .filter(|named| named.metric.archive_policy.item(width).is_none())
            .map(|named| json!([named.reference.name, named.reference.aggregation, width.as_secs_f64()]))
            .collect();
        if !missing.is_empty() {
            return Err(QueryError::cannot_aggregate("Granularities are missing", json!(missing)));
        }
        return Ok(vec![width]);
    }
    let mut widths: Vec<Duration> = named
        .first()
        .map(|first| first.metric.archive_policy.coarse_first().iter().map(|item| item.granularity()).collect())
        .unwrap_or_default();
    widths.retain(|&width| named.iter().all(|named| named.metric.archive_policy.item(width).is_some()));
    if widths.is_empty() {
        let detail: Vec<Value> = named.iter().map(|n| json!([n.reference.name, n.reference.aggregation])).collect();
        return Err(QueryError::cannot_aggregate("No granularity match", json!(detail)));
    }
    Ok(widths)
}

/// Series at the union of their times; NaN where one has no value.
fn grid_of(width: Duration, named: &[Named], series: &[&[Measure]], cells_max: usize) -> Result<Grid, QueryError> {
    let mut times: Vec<Timestamp> = series.iter().flat_map(|measures| measures.iter().map(|m| m.timestamp)).collect();
    times.sort_unstable();
    times.dedup();
    if times.len().saturating_mul(named.len()) > cells_max {
        return Err(QueryError::refused(format!(
            "the aggregation needs more than {cells_max} values; ask for a shorter time, a coarser granularity or fewer metrics"
        )));
    }
    let columns = named.iter().zip(series).enumerate().map(|(place, (named, measures))| {
        let mut values = vec![f64::NAN; times.len()];
        let mut row = 0;
        for measure in *measures {
            while times[row] < measure.timestamp {
                row += 1;
            }
            values[row] = measure.value;
        }
        Column { reference: named.reference.clone(), series: place, values }
    });
    Ok(Grid { granularity: width, columns: columns.collect(), times, is_aggregated: false })
}

fn fill_grid(grid: &mut Grid, fill: Fill) {
    for column in &mut grid.columns {
        match fill {
            Fill::DropMissing | Fill::Null => {}
            Fill::Value(number) => {
                for value in column.values.iter_mut().filter(|value| value.is_nan()) {
                    *value = number;
                }
            }
            Fill::Forward => carry(column.values.iter_mut()),
            Fill::Backward => carry(column.values.iter_mut().rev()),
            Fill::FullForward => {
                carry(column.values.iter_mut());
                carry(column.values.iter_mut().rev());
            }
            Fill::FullBackward => {
                carry(column.values.iter_mut().rev());
                carry(column.values.iter_mut());
            }
        }
    }
}

fn carry<'a>(values: impl Iterator<Item = &'a mut f64>) {
    let mut last = f64::NAN;
    for value in values {
        if value.is_nan() {
            *value = last;
        } else {
            last = *value;
        }
    }
}

/// Without `fill`: enough times must have a value of every series; where start or stop are open, times outside the
/// first and last such are cut away.
fn cut_to_overlap(grid: &mut Grid, query: &AggregatesQuery) -> Result<(), QueryError> {
    let needed = query.needed_overlap.unwrap_or(0.0);
    let detail =
        || json!(grid.columns.iter().map(|c| json!([c.reference.name, c.reference.aggregation])).collect::<Vec<_>>());
    let is_full = |row: usize| grid.columns.iter().all(|column| !column.values[row].is_nan());
    let full: Vec<usize> = (0..grid.times.len()).filter(|&row| is_full(row)).collect();
    let (Some(&first), Some(&last)) = (full.first(), full.last()) else {
        return if needed > 0.0 { Err(QueryError::cannot_aggregate("No overlap", detail())) } else { Ok(()) };
    };
    let from = if query.start.is_none() { first } else { 0 };
    let to = if query.stop.is_none() { last + 1 } else { grid.times.len() };
    let share = full.len() as f64 * 100.0 / (to - from) as f64;
    if share < needed {
        let reason = format!("Less than {needed:.6}% of datapoints overlap in this timespan ({share:.2}%)");
        return Err(QueryError::cannot_aggregate(reason, detail()));
    }
    grid.times = grid.times[from..to].to_vec();
    for column in &mut grid.columns {
        column.values = column.values[from..to].to_vec();
    }
    Ok(())
}

/// Whether a value belongs in the answer.
fn is_shown(value: f64, fill: Option<Fill>) -> bool {
    match fill {
        Some(Fill::Null | Fill::Value(_)) | None => true,
        Some(_) => value.is_finite(),
    }
}

fn measures_of<'a>(
    grid: &'a Grid,
    column: &'a Column,
    fill: Option<Fill>,
) -> impl Iterator<Item = AggregatedMeasure> + 'a {
    let pairs = grid.times.iter().zip(&column.values);
    pairs.filter(move |(_, value)| is_shown(**value, fill)).map(|(&timestamp, &value)| AggregatedMeasure {
        timestamp,
        granularity: grid.granularity,
        value,
    })
}

pub(crate) fn aggregated(grids: &[Grid], fill: Option<Fill>) -> Vec<AggregatedMeasure> {
    grids
        .iter()
        .flat_map(|grid| grid.columns.first().into_iter().flat_map(move |c| measures_of(grid, c, fill)))
        .collect()
}

/// Measures of each series, by its place.
fn by_series(grids: &[Grid], fill: Option<Fill>) -> BTreeMap<usize, Vec<AggregatedMeasure>> {
    let mut found: BTreeMap<usize, Vec<AggregatedMeasure>> = BTreeMap::new();
    for grid in grids {
        for column in &grid.columns {
            found.entry(column.series).or_default().extend(measures_of(grid, column, fill));
        }
    }
    found
}
