//! Dynamic aggregates: references found within the scope, read, put on a grid, evaluated; per group if asked.
//!
//! A question falls into parts: one, or one for each group, or one for each revision of a resource. All parts are read
//! together and each is evaluated on its own. Which metrics are meant is in `aggregates/found.rs`, the grid in
//! `aggregates/grid.rs`, revisions in `aggregates/history.rs`, the older question in `aggregates/older.rs`, the largest of many answers in `aggregates/top.rs`.

mod found;
mod grid;
mod history;
mod older;
mod top;

use std::{collections::HashSet, sync::Arc, time::Duration};

use orzo_index::{Filter, Metric, Resource};
use orzo_model::{Measure, Scope, SeriesId, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    Engine, QueryError,
    operations::{Grid, Operation, evaluate},
    read::{AggregatedMeasure, SeriesRead, method_of},
};

use found::{Named, group_of, names_of, no_metric};
use grid::{aggregated, by_series, checked_width, common_widths, cut_to_overlap, fill_grid, grid_of};
pub use older::{AggregationQuery, MetricGroup};
pub use top::{Top, TopBy};

/// Resources of small groups that are read together at least, and before it is known what they hold.
const RESOURCES_AT_ONCE: usize = 2000;
/// Resources that are read together at most: more of them would be in memory for nothing. Each round goes through the
/// same files, so that they are few.
const RESOURCES_AT_ONCE_MAX: usize = 20_000;
/// A round may have this part of what one question may, if its resources hold what those before them did; they may hold
/// so many times more before the question is refused.
const PART_AT_ONCE: usize = 10;

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
    /// Groups by what resources were at the time of the measures, not by what they are now.
    pub use_history: bool,
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
    /// Answers from the raw points whatever archive policies say.
    pub beyond_policy: bool,
    /// Only the largest, or smallest, of several series or groups.
    pub top: Option<Top>,
    /// Whether the answer says what it was made from; without, [`References`] of a search are empty.
    pub details: bool,
}

impl Default for AggregatesQuery {
    /// Nothing, within nothing.
    fn default() -> Self {
        Self {
            scope: Scope::Nothing,
            creator: None,
            operation: Operation::Metric(Vec::new()),
            search: None,
            groupby: Vec::new(),
            use_history: false,
            start: None,
            stop: None,
            granularity: None,
            fill: None,
            needed_overlap: None,
            beyond_policy: false,
            top: None,
            details: true,
        }
    }
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
    Metrics(Vec<Arc<Metric>>),
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

/// What is evaluated on its own.
struct Part {
    named: Vec<Named>,
    start: Option<Timestamp>,
    stop: Option<Timestamp>,
}

impl Engine {
    /// Answers a question about many metrics.
    pub async fn aggregates(&self, query: &AggregatesQuery) -> Result<AggregatesAnswer, QueryError> {
        let answer = match &query.search {
            None if query.groupby.is_empty() => AggregatesAnswer::Single(self.by_ids(query).await?),
            None => return Err(QueryError::refused("groupby is possible only together with a search")),
            Some(search) if query.groupby.is_empty() => {
                let resources = self.found(query, search).await?;
                AggregatesAnswer::Single(self.by_resources(query, resources).await?)
            }
            Some(search) if query.use_history => AggregatesAnswer::Groups(self.by_history(query, search).await?),
            Some(search) => AggregatesAnswer::Groups(self.by_groups(query, search).await?),
        };
        Ok(match query.top {
            Some(top) => top.of(answer),
            None => answer,
        })
    }

    /// The series of the metrics that a question with a search names.
    pub(crate) async fn series_named(&self, query: &AggregatesQuery) -> Result<Vec<SeriesId>, QueryError> {
        let search = query.search.as_ref().ok_or_else(|| QueryError::refused("a search is needed"))?;
        let mut resources = self.found(query, search).await?;
        self.index.fill_metrics(&mut resources, names_of(query).as_deref()).await?;
        let named = self.named(query, &[&resources]).await?;
        let series: Vec<SeriesId> = named.iter().flatten().map(|named| named.metric.series).collect();
        if series.is_empty() { Err(no_metric(query)) } else { Ok(series) }
    }

    /// The one series that a question with a search comes to.
    pub(crate) async fn aggregated(&self, query: &AggregatesQuery) -> Result<Vec<AggregatedMeasure>, QueryError> {
        let search = query.search.as_ref().ok_or_else(|| QueryError::refused("a search is needed"))?;
        let mut resources = self.found(query, search).await?;
        self.index.fill_metrics(&mut resources, names_of(query).as_deref()).await?;
        let mut named = self.named(query, &[resources.as_slice()]).await?;
        let named = named.pop().filter(|named| !named.is_empty()).ok_or_else(|| no_metric(query))?;
        let grids = self.evaluate(query, &[query.part(named)]).await?.pop().unwrap_or_default();
        Ok(aggregated(&grids, query.fill()))
    }

    async fn by_ids(&self, query: &AggregatesQuery) -> Result<Aggregated, QueryError> {
        let named = self.named_by_ids(query).await?;
        let part = query.part(named);
        let grids = self.evaluate(query, std::slice::from_ref(&part)).await?.pop().unwrap_or_default();
        let named = part.named;
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
        let mut metrics: Vec<Arc<Metric>> = named.into_iter().map(|named| named.metric).collect();
        metrics.sort_by_key(|metric| metric.id);
        metrics.dedup_by_key(|metric| metric.id);
        Ok(Aggregated { measures, references: References::Metrics(metrics) })
    }

    async fn by_resources(&self, query: &AggregatesQuery, resources: Vec<Resource>) -> Result<Aggregated, QueryError> {
        let count = resources.len();
        let mut answers = self.by_each(query, resources, vec![count]).await?;
        answers.pop().flatten().ok_or_else(|| no_metric(query))
    }

    async fn by_groups(
        &self,
        query: &AggregatesQuery,
        search: &Search,
    ) -> Result<Vec<(Map<String, Value>, Aggregated)>, QueryError> {
        let mut keys: Vec<Map<String, Value>> = Vec::new();
        let mut counts: Vec<usize> = Vec::new();
        let resources = self.found(query, search).await?;
        for resource in &resources {
            let key = group_of(resource, &query.groupby);
            match counts.last_mut() {
                Some(count) if keys.last() == Some(&key) => *count += 1,
                _ => {
                    keys.push(key);
                    counts.push(1);
                }
            }
        }
        let answers = self.by_each(query, resources, counts).await?;
        // A group without such a metric is left out.
        let answers: Vec<_> = keys.into_iter().zip(answers).filter_map(|(key, answer)| Some((key, answer?))).collect();
        if answers.is_empty() { Err(no_metric(query)) } else { Ok(answers) }
    }

    /// One answer for each group of resources, which stand one after the other, each `counts` long; `None` where no
    /// metric is meant. Many small groups are read some thousand resources at a time, so that what is in memory at once
    /// does not grow with their number.
    async fn by_each(
        &self,
        query: &AggregatesQuery,
        resources: Vec<Resource>,
        counts: Vec<usize>,
    ) -> Result<Vec<Option<Aggregated>>, QueryError> {
        let mut answers = Vec::with_capacity(counts.len());
        let mut resources = resources.into_iter();
        let mut counts = counts.into_iter().peekable();
        let mut at_once = RESOURCES_AT_ONCE;
        while counts.peek().is_some() {
            let mut round = Vec::new();
            let mut count = 0;
            while let Some(one) = counts.next_if(|one| round.is_empty() || count + one <= at_once) {
                count += one;
                round.push(one);
            }
            let resources = resources.by_ref().take(count).collect();
            let held = self.answer_round(query, resources, round, &mut answers).await?;
            at_once = resources_at_once(count, held, [self.settings.metrics_max, self.settings.grid_cells_max]);
        }
        Ok(answers)
    }

    /// Tells how many metrics and cells the resources held.
    async fn answer_round(
        &self,
        query: &AggregatesQuery,
        mut resources: Vec<Resource>,
        counts: Vec<usize>,
        answers: &mut Vec<Option<Aggregated>>,
    ) -> Result<[usize; 2], QueryError> {
        let names = names_of(query).filter(|_| !query.details);
        self.index.fill_metrics(&mut resources, names.as_deref()).await?;
        let mut rest = resources.as_slice();
        let mut lists: Vec<&[Resource]> = Vec::with_capacity(counts.len());
        for &count in &counts {
            let (list, after) = rest.split_at(count);
            lists.push(list);
            rest = after;
        }
        let named = self.named(query, &lists).await?;
        let parts: Vec<Part> = named.into_iter().map(|named| query.part(named)).collect();
        let grids = self.evaluate(query, &parts).await?;
        let mut resources = resources.into_iter();
        let mut held = [0, 0];
        for ((count, part), grids) in counts.into_iter().zip(parts).zip(grids) {
            let group: Vec<Resource> = resources.by_ref().take(count).collect();
            let named = part.named;
            held[0] += named.len();
            held[1] += named.len() * grids.iter().map(|grid| grid.times.len()).sum::<usize>();
            answers.push((!named.is_empty()).then(|| answer_of(query, group, &named, &grids)));
        }
        Ok(held)
    }

    /// Reads the metrics of all parts and evaluates the operations of each at each granularity, coarsest first. Of
    /// several parts with different faults, the first one's is told.
    async fn evaluate(&self, query: &AggregatesQuery, parts: &[Part]) -> Result<Vec<Vec<Grid>>, QueryError> {
        let mut reads = Vec::new();
        let mut widths = Vec::with_capacity(parts.len());
        let mut wrong = None;
        for part in parts {
            match reads_of(query, part, &mut reads) {
                Ok(of_part) => widths.push(of_part),
                Err(error) => {
                    // Those before it may have faults that are found only in what is read.
                    wrong = Some(error);
                    break;
                }
            }
        }
        let mut read = self.read_series(reads).await?.into_iter();
        let mut answers = Vec::with_capacity(parts.len());
        let mut cells = 0_usize;
        for (part, widths) in parts.iter().zip(widths) {
            let by_series: Vec<Vec<Vec<Measure>>> = read.by_ref().take(part.named.len()).collect();
            let mut grids = Vec::with_capacity(widths.len());
            for (place, width) in widths.into_iter().enumerate() {
                let series: Vec<&[Measure]> =
                    by_series.iter().map(|by_width| by_width.get(place).map_or(&[][..], Vec::as_slice)).collect();
                let cells_left = self.settings.grid_cells_max.saturating_sub(cells);
                let mut grid = grid_of(width, &part.named, &series, query.fill(), cells_left)?;
                cells += grid.times.len() * grid.columns.len();
                match query.fill() {
                    Some(fill) => fill_grid(&mut grid, fill),
                    None => cut_to_overlap(&mut grid, query)?,
                }
                grids.push(evaluate(&query.operation, &grid)?);
            }
            answers.push(grids);
        }
        match wrong {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }
}

/// How many resources to read together next, if so many `held` so much, and one question may have `most` of it.
fn resources_at_once(resources: usize, held: [usize; 2], most: [usize; 2]) -> usize {
    let fitting = held.iter().zip(most).map(|(held, most)| resources * (most / PART_AT_ONCE) / (*held).max(1));
    fitting.min().unwrap_or(0).clamp(RESOURCES_AT_ONCE, RESOURCES_AT_ONCE_MAX)
}

/// The answer that the grids of a group of resources come to.
fn answer_of(query: &AggregatesQuery, resources: Vec<Resource>, named: &[Named], grids: &[Grid]) -> Aggregated {
    let mut shown: HashSet<(Uuid, &str)> = HashSet::new();
    let measures = match grids.iter().any(|grid| grid.is_aggregated) {
        true => MeasuredSeries::Aggregated(aggregated(grids, query.fill())),
        // A metric that two wildcards find is shown once.
        false => MeasuredSeries::ByResource(
            by_series(grids, query.fill())
                .into_iter()
                .filter(|(place, _)| {
                    let Named { metric, reference } = &named[*place];
                    shown.insert((metric.id, reference.aggregation.as_str()))
                })
                .map(|(place, measures)| {
                    let Named { metric, reference } = &named[place];
                    let resource = metric.resource_id.unwrap_or_default();
                    let name = metric.name.clone().unwrap_or_default();
                    (resource, name, reference.aggregation.clone(), measures)
                })
                .collect(),
        ),
    };
    let used: HashSet<Uuid> = named.iter().filter_map(|named| named.metric.resource_id).collect();
    let is_shown = |resource: &Resource| query.details && used.contains(&resource.id);
    let references = resources.into_iter().filter(is_shown).collect();
    Aggregated { measures, references: References::Resources(references) }
}

/// What has to be read for a part, and its granularities.
fn reads_of(query: &AggregatesQuery, part: &Part, reads: &mut Vec<SeriesRead>) -> Result<Vec<Duration>, QueryError> {
    if part.named.is_empty() {
        return Ok(Vec::new());
    }
    let method = |named: &Named| method_of(&named.metric, &named.reference.aggregation, query.beyond_policy);
    // In the order in which Gnocchi finds what is wrong; of unknown methods it names the first.
    let common = match query.granularity {
        None => Some(common_widths(&part.named)?),
        Some(_) => None,
    };
    if let Some(named) = part.named.iter().find(|named| method(named).is_none()) {
        return Err(QueryError::Missing {
            cause: "Metrics with unknown aggregation".into(),
            reason: String::new(),
            detail: json!([[named.metric.id.to_string(), named.reference.aggregation]]),
        });
    }
    let widths = match (common, query.granularity) {
        (None, Some(width)) => vec![checked_width(&part.named, width, query.beyond_policy)?],
        (common, _) => common.unwrap_or_default(),
    };
    for named in &part.named {
        let policy = &named.metric.archive_policy;
        let timespan = |width: Duration| policy.item(width).and_then(|item| item.timespan());
        let timespan = |width: Duration| timespan(width).filter(|_| !query.beyond_policy);
        let Some(method) = method(named) else { continue };
        reads.push(SeriesRead {
            series: named.metric.series,
            method,
            widths: widths.iter().map(|&width| (width, timespan(width))).collect(),
            start: part.start,
            stop: part.stop,
        });
    }
    Ok(widths)
}

impl AggregatesQuery {
    fn fill(&self) -> Option<Fill> {
        match (self.fill, self.needed_overlap) {
            (None, None) => Some(Fill::DropMissing),
            (fill, _) => fill,
        }
    }

    /// A part that covers all of the time asked for.
    fn part(&self, named: Vec<Named>) -> Part {
        Part { named, start: self.start, stop: self.stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_grow_while_resources_hold_little() {
        let most = [200_000, 20_000_000];
        assert_eq!(resources_at_once(2000, [2000, 6000], most), RESOURCES_AT_ONCE_MAX);
        assert_eq!(resources_at_once(2000, [0, 0], most), RESOURCES_AT_ONCE_MAX);
        assert_eq!(resources_at_once(2000, [10_000, 10_000], most), 4000);
        assert_eq!(resources_at_once(2000, [2000, 400_000], most), 10_000);
        assert_eq!(resources_at_once(2000, [2000, 40_000_000], most), RESOURCES_AT_ONCE);
    }
}
