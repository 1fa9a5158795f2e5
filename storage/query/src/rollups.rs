//! Rollups: which buckets are worth keeping, how they are made, and how they answer.
//!
//! `a day that is over → its points, series by series, with their archive policies → buckets by the very functions that answer
//! questions → the store's rollups`, and `a question → what rollups have of it → gaps, which raw points answer`.
//!
//! A bucket's value is made here by [`Statistic::of`] from the same values in the same order as it would be when it is asked
//! for, and the store tells only days that are still true, so an answer has the same bits with and without. Answered from
//! rollups: all methods but changes (`rate:`, `increase:`), which need the point before the day, at widths of whole seconds
//! that divide a day. A mean is kept as sum and count, which pack several times better than means.

use std::{collections::BTreeMap, sync::Arc};

use orzo_index::ArchivePolicy;
use orzo_model::{Measure, Point, SeriesId, Timestamp};
use orzo_store::{Aggregate, DayRolled, Layer, RollPlan, Rolled, StoreError};
use prometheus::{IntCounterVec, Opts};

use crate::{
    Engine, QueryError,
    method::{Method, Statistic},
    read::Wanted,
    width::Width,
};

/// A bucket is kept if the series has so many points for each of its buckets of that day: with fewer, reading the points
/// costs no more.
const POINTS_MIN: usize = 4;
/// Metrics whose policies are read at once.
const METRICS_AT_ONCE: usize = 10_000;
/// Widths must divide it, so that no bucket has points of two days.
const DAY_SECS: u32 = 86_400;
const DAY_MICROS: i64 = DAY_SECS as i64 * 1_000_000;

/// What measures were answered from.
pub(crate) struct RowsRead(IntCounterVec);

impl RowsRead {
    pub(crate) fn new() -> Self {
        let what = "What measures were made from: rows of rollups, raw points.";
        Self(IntCounterVec::new(Opts::new("orzo_rows_read_total", what), &["source"]).expect("the name is valid"))
    }

    pub(crate) fn raw(&self, count: usize) {
        self.0.with_label_values(&["raw"]).inc_by(count as u64);
    }

    fn rolled(&self, count: usize) {
        self.0.with_label_values(&["rollups"]).inc_by(count as u64);
    }
}

/// The layers that a width's buckets are answered from; `None` if none can.
fn layers_for(method: Method, width: Width) -> Option<Vec<Layer>> {
    let Width::Span(span) = width else { return None };
    let width_secs = u32::try_from(span.as_secs())
        .ok()
        .filter(|secs| span.subsec_nanos() == 0 && *secs > 0 && DAY_SECS.is_multiple_of(*secs))?;
    let aggregates: &[Aggregate] = match (method.change, method.statistic) {
        (Some(_), _) | (None, Statistic::Variance) => return None,
        (None, Statistic::Mean) => &[Aggregate::Sum, Aggregate::Count],
        (None, Statistic::Sum) => &[Aggregate::Sum],
        (None, Statistic::Last) => &[Aggregate::Last],
        (None, Statistic::Max) => &[Aggregate::Max],
        (None, Statistic::Min) => &[Aggregate::Min],
        (None, Statistic::Std) => &[Aggregate::Std],
        (None, Statistic::Median) => &[Aggregate::Median],
        (None, Statistic::First) => &[Aggregate::First],
        (None, Statistic::Count) => &[Aggregate::Count],
        (None, Statistic::Percentile(percentage)) => &[Aggregate::Percentile(percentage)],
    };
    Some(aggregates.iter().map(|&aggregate| Layer { width_secs, aggregate }).collect())
}

/// How what is kept is made of a bucket's values.
fn statistic_of(aggregate: Aggregate) -> Statistic {
    match aggregate {
        Aggregate::Count => Statistic::Count,
        Aggregate::Sum => Statistic::Sum,
        Aggregate::Min => Statistic::Min,
        Aggregate::Max => Statistic::Max,
        Aggregate::First => Statistic::First,
        Aggregate::Last => Statistic::Last,
        Aggregate::Std => Statistic::Std,
        Aggregate::Median => Statistic::Median,
        Aggregate::Percentile(percentage) => Statistic::Percentile(percentage),
    }
}

/// What is made of the points of a policy's metrics: for each width what is kept, and its place in the plan.
#[derive(Clone, Debug, Default)]
struct Recipe(Vec<(u32, Vec<(usize, Statistic)>)>);

/// Recipes of all policies, and the layers that they fill.
fn recipes_of(policies: &[ArchivePolicy]) -> (BTreeMap<String, Arc<Recipe>>, Vec<Layer>) {
    let mut layers: Vec<Layer> = Vec::new();
    let mut recipes = BTreeMap::new();
    for policy in policies {
        let mut recipe = Recipe::default();
        for item in policy.coarse_first() {
            let methods = policy.aggregation_methods.iter().filter_map(|method| Method::parse(method));
            let mut own: Vec<Layer> =
                methods.filter_map(|method| layers_for(method, item.granularity().into())).flatten().collect();
            own.sort_unstable();
            own.dedup();
            let mut kept = Vec::new();
            for layer in own {
                let place = layers.iter().position(|known| *known == layer).unwrap_or_else(|| {
                    layers.push(layer);
                    layers.len() - 1
                });
                kept.push((place, statistic_of(layer.aggregate)));
            }
            if let Ok(width) = u32::try_from(item.granularity().as_secs())
                && !kept.is_empty()
            {
                recipe.0.push((width, kept));
            }
        }
        recipes.insert(policy.name.clone(), Arc::new(recipe));
    }
    (recipes, layers)
}

impl Recipe {
    /// Makes the rows of one series on one day.
    fn make(&self, points: &[Point], scratch: &mut Scratch, rows: &mut [Vec<Point>]) {
        scratch.values.clear();
        scratch.values.extend(points.iter().map(|point| point.value));
        for (width, kept) in &self.0 {
            let width = i64::from(*width) * 1_000_000;
            let bucket = |point: &Point| point.timestamp.micros().div_euclid(width);
            let buckets = points.chunk_by(|a, b| bucket(a) == bucket(b));
            if points.len() < buckets.clone().count() * POINTS_MIN {
                continue;
            }
            let mut from = 0;
            for points in buckets {
                let Some(first) = points.first() else { continue };
                let timestamp = Timestamp::from_micros(bucket(first) * width);
                for (place, statistic) in kept {
                    scratch.bucket.clear();
                    scratch.bucket.extend_from_slice(&scratch.values[from..from + points.len()]);
                    // What the plan has no room for is not kept.
                    if let (Some(value), Some(rows)) = (statistic.of(&mut scratch.bucket), rows.get_mut(*place)) {
                        rows.push(Point { series: first.series, timestamp, value });
                    }
                }
                from += points.len();
            }
        }
    }
}

#[derive(Default)]
struct Scratch {
    values: Vec<f64>,
    /// A copy: some statistics sort it.
    bucket: Vec<f64>,
}

impl Engine {
    /// How many rows of rollups and how many raw points measures were made from, by `source`; for whoever shows figures.
    pub fn rows_read(&self) -> &IntCounterVec {
        &self.rows_read.0
    }

    /// Makes the rollups of one day if one is due, else merges some of their files. `None`: there was nothing to do. To be
    /// called now and then, with pauses: it reads a day's points each time.
    pub async fn roll_up(&self) -> Result<Option<DayRolled>, QueryError> {
        let Some(day) = self.store.roll_due() else {
            let merged = self.store.tidy_rollups().await?;
            return Ok((merged > 0).then(DayRolled::default));
        };
        let plan = self.roll_plan().await?;
        Ok(Some(self.store.roll_day(day, plan).await?))
    }

    /// What is made of which series: 16 bytes of memory for each metric of a policy that has something to keep.
    async fn roll_plan(&self) -> Result<RollPlan, QueryError> {
        let (recipes, layers) = recipes_of(&self.index.archive_policies().await?);
        let mut wanted: Vec<(SeriesId, Arc<Recipe>)> = Vec::new();
        let mut after = None;
        loop {
            let page = self.index.policies_page(after, METRICS_AT_ONCE).await?;
            let is_last = page.len() < METRICS_AT_ONCE;
            after = page.last().map(|(series, _)| *series);
            let with_recipe = page.into_iter().filter_map(|(series, policy)| {
                let recipe = recipes.get(&policy).filter(|recipe| !recipe.0.is_empty())?;
                Some((series, recipe.clone()))
            });
            wanted.extend(with_recipe);
            if is_last {
                break;
            }
        }
        let (mut place, mut scratch) = (0, Scratch::default());
        let make = move |points: &[Point], rows: &mut [Vec<Point>]| {
            let Some(series) = points.first().map(|point| point.series) else { return };
            // Series come in order.
            place += wanted[place..].partition_point(|(other, _)| *other < series);
            if let Some((_, recipe)) = wanted.get(place).filter(|(other, _)| *other == series) {
                recipe.make(points, &mut scratch, rows);
            }
        };
        Ok(RollPlan { layers, make: Box::new(make) })
    }

    /// Takes from rollups what they have of series (sorted), and leaves the rest as gaps; what is too much at once is asked
    /// for in halves.
    pub(crate) async fn roll_into(&self, wanted: &mut [Wanted]) {
        let mut pieces = Vec::from([(0, wanted.len())]);
        while let Some((first, end)) = pieces.pop() {
            let (layers, series) = asked_of(&wanted[first..end]);
            if series.is_empty() {
                continue;
            }
            let asked = layers.iter().map(|(layer, (from, to))| (*layer, *from, *to)).collect();
            match self.store.rolled(asked, series.clone()).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    let found: BTreeMap<Layer, Vec<Rolled>> = layers.into_keys().zip(found).collect();
                    let mut rows = 0;
                    for wanted in &mut wanted[first..end] {
                        let Ok(place) = series.binary_search(&wanted.series) else { continue };
                        rows += take_rolled(wanted, |layer| found.get(&layer).and_then(|layer| layer.get(place)));
                    }
                    self.rows_read.rolled(rows);
                }
                Err(StoreError::TooManyPoints { .. }) if end - first > 1 => {
                    let middle = usize::midpoint(first, end);
                    pieces.extend([(first, middle), (middle, end)]);
                }
                // Raw points answer, or say what is wrong.
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "rollups are passed over"),
            }
        }
    }
}

/// Layers with the times that are needed of them, and series, each once.
fn asked_of(wanted: &[Wanted]) -> (BTreeMap<Layer, (Timestamp, Timestamp)>, Vec<SeriesId>) {
    let mut layers: BTreeMap<Layer, (Timestamp, Timestamp)> = BTreeMap::new();
    let mut series = Vec::new();
    for wanted in wanted {
        let mut is_any = false;
        for (width, from, to) in wanted.buckets.ranges().filter(|(_, from, to)| from < to) {
            for layer in layers_for(wanted.buckets.method(), width).into_iter().flatten() {
                let range = layers.entry(layer).or_insert((from, to));
                *range = (range.0.min(from), range.1.max(to));
                is_any = true;
            }
        }
        if is_any {
            series.push(wanted.series);
        }
    }
    series.dedup();
    (layers, series)
}

/// Splits what a series needs into buckets from rollups and gaps; gives how many rows were used.
fn take_rolled<'a>(wanted: &mut Wanted, rolled: impl Fn(Layer) -> Option<&'a Rolled>) -> usize {
    let method = wanted.buckets.method();
    let mut gaps: Vec<(i64, i64)> = Vec::new();
    let mut by_width: Vec<Option<Bucketed>> = Vec::new();
    for (width, from, to) in wanted.buckets.ranges() {
        let own = layers_for(method, width).and_then(|layers| {
            let layers: Vec<&Rolled> = layers.into_iter().map(&rolled).collect::<Option<_>>()?;
            Bucketed::of(&layers, (from.micros(), to.micros()))
        });
        let days = own.as_ref().map_or(&[][..], |own| &own.days);
        if from < to {
            gaps.extend(lacking((from.micros(), to.micros()), days));
        }
        by_width.push(own);
    }
    let gaps = joined(gaps);
    let (first, last) = wanted.buckets.range();
    if gaps.first().is_some_and(|(from, to)| *from <= first.micros() && last.micros() <= *to) {
        return 0;
    }
    let is_rolled = |time: i64| {
        let place = gaps.partition_point(|(_, to)| *to <= time);
        gaps.get(place).is_none_or(|(from, _)| time < *from)
    };
    let mut rows = 0;
    wanted.rolled = by_width
        .into_iter()
        .map(|own| {
            let Some(own) = own else { return Vec::new() };
            let kept: Vec<Measure> =
                own.measures.into_iter().filter(|measure| is_rolled(measure.timestamp.micros())).collect();
            rows += kept.len() * own.rows_each;
            kept
        })
        .collect();
    let cut = |(from, to): (i64, i64)| {
        (Timestamp::from_micros(from.max(first.micros())), Timestamp::from_micros(to.min(last.micros())))
    };
    wanted.gaps = gaps.into_iter().map(cut).filter(|(from, to)| from < to).collect();
    rows
}

/// The buckets of one width, and the days of which they are all.
struct Bucketed {
    days: Vec<(i64, i64)>,
    measures: Vec<Measure>,
    /// Rows that one bucket is made of.
    rows_each: usize,
}

impl Bucketed {
    /// From the layers that a method needs; those of a mean must have the same buckets.
    fn of(layers: &[&Rolled], (from, to): (i64, i64)) -> Option<Self> {
        let micros = |days: &[(Timestamp, Timestamp)]| -> Vec<(i64, i64)> {
            days.iter().map(|(from, to)| (from.micros(), to.micros())).collect()
        };
        let (first, rest) = layers.split_first()?;
        let days = rest.iter().fold(micros(&first.days), |days, other| common(&days, &micros(&other.days)));
        let rows = |rolled: &'_ Rolled| -> Vec<(i64, f64)> {
            let is_inside = |time: i64| {
                let place = days.partition_point(|(_, end)| *end <= time);
                from <= time && time < to && days.get(place).is_some_and(|(start, _)| *start <= time)
            };
            let rows = rolled.times.iter().copied().zip(rolled.values.iter().copied());
            rows.filter(|(time, _)| is_inside(*time)).collect()
        };
        let measure = |time, value| Measure { timestamp: Timestamp::from_micros(time), value };
        let measures = match *layers {
            [one] => rows(one).into_iter().map(|(time, value)| measure(time, value)).collect(),
            [sums, counts] => {
                let (sums, counts) = (rows(sums), rows(counts));
                if sums.len() != counts.len() || sums.iter().zip(&counts).any(|(sum, count)| sum.0 != count.0) {
                    return None;
                }
                // As `Statistic::Mean` divides.
                sums.iter().zip(&counts).map(|(sum, count)| measure(sum.0, sum.1 / count.1)).collect()
            }
            _ => return None,
        };
        Some(Self { days, measures, rows_each: layers.len() })
    }
}

/// What two lists of ranges have in common; both in order, from and before.
fn common(a: &[(i64, i64)], b: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(one), Some(other)) = (a.peek(), b.peek()) {
        let (from, to) = (one.0.max(other.0), one.1.min(other.1));
        if from < to {
            both.push((from, to));
        }
        if one.1 < other.1 {
            a.next()
        } else {
            b.next()
        };
    }
    both
}

/// What of a range days in order do not have, in whole days: no bucket is read in two parts.
fn lacking((from, to): (i64, i64), days: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut left = Vec::new();
    let mut at = from.div_euclid(DAY_MICROS) * DAY_MICROS;
    let end = to.saturating_add(DAY_MICROS - 1).div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS);
    for &(start, next) in days.iter().filter(|(start, next)| *next > from && *start < to) {
        if at < start {
            left.push((at, start));
        }
        at = at.max(next);
    }
    if at < end {
        left.push((at, end));
    }
    left
}

/// Ranges in order, those that touch as one.
fn joined(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = (*end).max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_whole_days_that_rollups_lack() {
        let day = |from: i64, to: i64| (from * DAY_MICROS, to * DAY_MICROS);
        let half = DAY_MICROS / 2;
        assert_eq!(lacking(day(1, 5), &[day(1, 5)]), []);
        assert_eq!(lacking(day(1, 5), &[]), [day(1, 5)]);
        assert_eq!(lacking((half, 3 * DAY_MICROS + 1), &[day(1, 2)]), [day(0, 1), day(2, 4)]);
        assert_eq!(lacking((DAY_MICROS + half, 2 * DAY_MICROS), &[day(0, 1), day(1, 2), day(9, 10)]), []);
        assert_eq!(common(&[day(0, 3), day(5, 9)], &[day(2, 6), day(8, 20)]), [day(2, 3), day(5, 6), day(8, 9)]);
        assert_eq!(joined(vec![day(4, 5), day(0, 2), day(2, 3), day(1, 2)]), [day(0, 3), day(4, 5)]);
    }

    #[test]
    fn only_widths_that_divide_a_day_and_methods_over_points_are_kept() {
        let method = |name: &str| Method::parse(name).expect("a method");
        let width = |millis: u64| Width::Span(std::time::Duration::from_millis(millis));
        assert!(layers_for(method("mean"), width(3_600_000)).is_some_and(|layers| layers.len() == 2));
        assert!(layers_for(method("95pct"), width(86_400_000)).is_some());
        for (name, millis) in [("mean", 7_000_000), ("mean", 500), ("mean", 172_800_000), ("rate:mean", 3_600_000)] {
            assert!(layers_for(method(name), width(millis)).is_none(), "{name} {millis}");
        }
        assert!(layers_for(method("mean"), Width::Calendar(crate::Calendar::Month)).is_none());
    }
}
