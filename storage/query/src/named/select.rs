//! Points of selectors: which series they are is asked of the indexes, what they have of the store, once for all selectors of
//! a query that look at the same times in the same way. What a plan folds is folded by the thread that reads it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicBool},
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use orzo_model::{SeriesId, Timestamp};
use orzo_promql::{
    Fold, FoldedSeries, Folding, Labels, Limits, Plan, QueryError as PromError, RawSeries, Selected, Selection,
    SeriesSource, Taken,
};
use orzo_store::{Columns, Reduce, Reducer, StoreError};

use super::{NamedSeries, answers};
use crate::{QueryError, native};

/// Reads of one query that go on at the same time: as many as keep two or four cores busy, and what they hold beyond the
/// query's limits before that is seen is a few times one read's.
const READ_AT_ONCE: usize = 4;

/// Selections that are one read: of the same times, folded in the same way.
struct Together<'p> {
    selection: &'p Selection,
    fold: Option<&'p Arc<Fold>>,
    /// Their places in the plan.
    members: Vec<usize>,
    /// All their series, sorted, none twice.
    series: Vec<SeriesId>,
    /// Whether some of them are of several members.
    is_shared: bool,
}

/// What one read gave, by series.
enum Read {
    Points(Vec<(SeriesId, Points)>),
    Folded(Vec<(SeriesId, (usize, Vec<f64>))>),
}

/// Times in milliseconds, and as many values.
type Points = (Arc<[i64]>, Vec<f64>);

fn failed(error: QueryError) -> PromError {
    PromError::Source(Box::new(error))
}

/// What the store does not give at once is too much for one query, whoever set the limit.
fn unread(error: StoreError) -> PromError {
    match error {
        StoreError::TooManyPoints { points_max } => PromError::TooMuch { what: "points", limit: points_max },
        other => failed(other.into()),
    }
}

/// Whole milliseconds after the one and up to the other, in the store's microseconds.
fn times_of(selection: &Selection) -> (Timestamp, Timestamp) {
    let micros = |millis: i64| Timestamp::from_micros(millis.saturating_add(1).saturating_mul(1000));
    (micros(selection.after_ms), micros(selection.until_ms))
}

#[async_trait]
impl SeriesSource for NamedSeries {
    async fn select(
        &self,
        selection: &Selection,
        series_max: usize,
        points_max: usize,
    ) -> Result<Vec<RawSeries>, PromError> {
        let found = self.found(selection, series_max).await?;
        self.points_of(selection, &found, points_max).await
    }

    async fn select_all(
        &self,
        plan: &Plan,
        limits: &Limits,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<Selected>, PromError> {
        let (selections, mut all) = (plan.selections(), Vec::new());
        let mut found = Vec::with_capacity(selections.len());
        for selection in selections {
            found.push(self.found(selection, limits.series_max).await?);
            all.push(Selected::Points(Vec::new()));
        }
        for (place, selection) in selections.iter().enumerate() {
            if !found[place].natives.is_empty() {
                let both = std::mem::take(&mut found[place]);
                all[place] = Selected::Points(self.points_of(selection, &both, limits.points_max).await?);
            }
        }
        let reads = together(selections, plan.folds(), &found).into_iter();
        let reads: Vec<_> = reads.map(|one| self.read(one, limits, cancelled)).collect();
        let mut reads = stream::iter(reads).buffered(READ_AT_ONCE);
        while let Some((one, read)) = reads.try_next().await? {
            let of_members: Vec<_> = one.members.iter().map(|place| &found[*place].numbers[..]).collect();
            let selected: Vec<Selected> = match read {
                Read::Points(read) => handed_out(&of_members, read, one.is_shared)
                    .into_iter()
                    .map(|series| Selected::Points(series.into_iter().map(raw).collect()))
                    .collect(),
                Read::Folded(read) => handed_out(&of_members, read, one.is_shared)
                    .into_iter()
                    .map(|series| Selected::Folded(series.into_iter().map(folded).collect()))
                    .collect(),
            };
            for (place, selected) in one.members.into_iter().zip(selected) {
                all[place] = selected;
            }
        }
        let mut taken = Taken::new(limits.series_max, limits.points_max);
        all.iter().try_for_each(|selected| taken.take(selected))?;
        Ok(all)
    }
}

fn raw((labels, (times, values)): (Labels, Points)) -> RawSeries {
    RawSeries { labels, times, values, histograms: Vec::new() }
}

fn folded((labels, (points, values)): (Labels, (usize, Vec<f64>))) -> FoldedSeries {
    FoldedSeries { labels, points, values }
}

/// Which selections are read together.
fn together<'p>(
    selections: &'p [Selection],
    folds: &'p [Option<Arc<Fold>>],
    found: &[Arc<answers::Selected>],
) -> Vec<Together<'p>> {
    let mut all: Vec<Together<'p>> = Vec::new();
    for (place, (selection, fold)) in selections.iter().zip(folds).enumerate() {
        let times = |one: &Selection| (one.after_ms, one.until_ms, one.newest_only);
        let is_same = |one: &&mut Together<'p>| {
            times(one.selection) == times(selection) && one.fold.map(|fold| &**fold) == fold.as_deref()
        };
        let series = found[place].numbers.iter().map(|(series, _)| *series);
        match all.iter_mut().find(is_same) {
            _ if found[place].numbers.is_empty() => {}
            Some(one) => {
                one.members.push(place);
                one.series.extend(series);
            }
            None => {
                let (members, series, fold) = (vec![place], series.collect(), fold.as_ref());
                all.push(Together { selection, fold, members, series, is_shared: false });
            }
        }
    }
    for one in &mut all {
        let count = one.series.len();
        one.series.sort_unstable();
        one.series.dedup();
        one.is_shared = one.series.len() < count;
    }
    all
}

/// What was read, to each member by its series; both are by number.
fn handed_out<T: Clone + Default>(
    members: &[&[(SeriesId, Labels)]],
    mut read: Vec<(SeriesId, T)>,
    is_shared: bool,
) -> Vec<Vec<(Labels, T)>> {
    let of_member = |found: &&[(SeriesId, Labels)]| {
        let (mut handed, mut at) = (Vec::with_capacity(found.len()), 0);
        for (series, labels) in *found {
            at += read[at..].partition_point(|(other, _)| other < series);
            if let Some((_, one)) = read.get_mut(at).filter(|(other, _)| other == series) {
                handed.push((labels.clone(), if is_shared { one.clone() } else { std::mem::take(one) }));
            }
        }
        handed
    };
    members.iter().map(of_member).collect()
}

impl NamedSeries {
    async fn found(&self, selection: &Selection, series_max: usize) -> Result<Arc<answers::Selected>, PromError> {
        let found = self.selected(&selection.groups, series_max + 1).await.map_err(failed)?;
        match found.numbers.len() + found.natives.len() > series_max {
            true => Err(PromError::TooMuch { what: "series", limit: series_max }),
            false => Ok(found),
        }
    }

    async fn read<'p>(
        &self,
        one: Together<'p>,
        limits: &Limits,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<(Together<'p>, Read), PromError> {
        let Some(fold) = one.fold else {
            let points = self.numbers_of(one.selection, &one.series, limits.points_max).await?;
            return Ok((one, Read::Points(points)));
        };
        let folding = Arc::new(Folding::new(fold.clone(), limits.cells_max, cancelled.clone()));
        let reduce = reducing(folding.clone());
        let (times, brief) = (times_of(one.selection), fold.brief_points(one.series.len()));
        let read = self.engine.store.scan_reduced(&one.series, times, limits.points_max, brief, reduce).await;
        let read = read.map_err(|error| match error {
            StoreError::Stopped => folding.problem(),
            other => unread(other),
        })?;
        let with_values = read.into_iter().filter(|one| !one.values.is_empty());
        Ok((one, Read::Folded(with_values.map(|one| (one.series, (one.points, one.values))).collect())))
    }

    /// Points of series of numbers, those that have any.
    async fn numbers_of(
        &self,
        selection: &Selection,
        series: &[SeriesId],
        points_max: usize,
    ) -> Result<Vec<(SeriesId, Points)>, PromError> {
        let (from, to) = times_of(selection);
        let points: Vec<(SeriesId, Columns)> = if selection.newest_only && from < to {
            let last = Timestamp::from_micros(to.micros() - 1);
            let newest = self.engine.store.newest_between(series, from, last).await;
            newest.map_err(unread)?.into_iter().map(|(series, one)| (series, vec![one].into())).collect()
        } else {
            self.engine.store.scan_columns(series, from, to).await.map_err(unread)?
        };
        if points.iter().map(|(_, columns)| columns.times.len()).sum::<usize>() > points_max {
            return Err(PromError::TooMuch { what: "points", limit: points_max });
        }
        let mut shared = SharedTimes::default();
        let with_points = points.into_iter().filter(|(_, columns)| !columns.times.is_empty());
        Ok(with_points.map(|(series, columns)| (series, shared.in_millis(columns))).collect())
    }

    /// Points of series of numbers and of histograms.
    async fn points_of(
        &self,
        selection: &Selection,
        found: &answers::Selected,
        points_max: usize,
    ) -> Result<Vec<RawSeries>, PromError> {
        let series: Vec<SeriesId> = found.numbers.iter().map(|(series, _)| *series).collect();
        let numbers = self.numbers_of(selection, &series, points_max).await?;
        let mut named: Vec<RawSeries> =
            handed_out(&[&found.numbers[..]], numbers, false).into_iter().flatten().map(raw).collect();
        if !found.natives.is_empty() {
            let (from, to) = times_of(selection);
            let series: Vec<SeriesId> = found.natives.iter().map(|(series, _)| *series).collect();
            let words = self.engine.store.scan_columns(&series, from, to).await.map_err(unread)?;
            let left = points_max.saturating_sub(named.iter().map(|one| one.times.len()).sum());
            if words.iter().map(|(_, columns)| columns.times.len()).sum::<usize>() > left {
                return Err(PromError::TooMuch { what: "points", limit: points_max });
            }
            let labels: HashMap<SeriesId, Labels> = found.natives.iter().cloned().collect();
            add_histograms(&mut named, words, &labels).map_err(failed)?;
        }
        Ok(named)
    }
}

/// Folds each series' points, with times in milliseconds.
fn reducing(folding: Arc<Folding>) -> Arc<Reduce> {
    Arc::new(move || -> Reducer {
        let (folding, mut millis) = (folding.clone(), Millis::default());
        Box::new(move |columns| {
            let (times, values) = millis.of(columns);
            folding.of(times, values)
        })
    })
}

/// Adds what was read of series of histograms; a series of numbers with the same labels has both.
fn add_histograms(
    named: &mut Vec<RawSeries>,
    words: Vec<(SeriesId, Columns)>,
    labels: &HashMap<SeriesId, Labels>,
) -> Result<(), QueryError> {
    let mut places: HashMap<Labels, usize> =
        named.iter().enumerate().map(|(place, one)| (one.labels.clone(), place)).collect();
    for (series, columns) in words {
        let Some(labels) = labels.get(&series).filter(|_| !columns.times.is_empty()) else { continue };
        let read =
            native::read(&columns.times, &columns.values).map_err(|millis| QueryError::damaged(labels, millis))?;
        let native::Read { times, values, histograms } = read;
        match places.get(labels) {
            None => {
                places.insert(labels.clone(), named.len());
                named.push(RawSeries { labels: labels.clone(), times: times.into(), values, histograms });
            }
            Some(place) => {
                let one = &mut named[*place];
                // At one time the histogram counts.
                let numbers = one.times.iter().copied().zip(one.values.iter().copied());
                let mut both: BTreeMap<i64, f64> = numbers.collect();
                both.extend(times.into_iter().zip(values));
                one.times = both.keys().copied().collect();
                one.values = both.into_values().collect();
                one.histograms = histograms;
            }
        }
    }
    Ok(())
}

/// Times cut to milliseconds, whose room is used again, as are the times themselves if the next series has the same.
#[derive(Default)]
struct Millis {
    micros: Vec<i64>,
    millis: Vec<i64>,
}

impl Millis {
    /// Times in milliseconds and values of one series; of several points in one millisecond the last counts.
    fn of<'a>(&'a mut self, columns: &'a mut Columns) -> (&'a [i64], &'a [f64]) {
        let Columns { times: micros, values, .. } = columns;
        if *micros != self.micros {
            self.millis.clear();
            self.millis.extend(micros.iter().map(|micros| micros.div_euclid(1000)));
            if self.millis.is_sorted_by(|a, b| a < b) {
                std::mem::swap(&mut self.micros, micros);
            } else {
                last_of_each(&mut self.millis, values);
                self.micros.clear();
            }
        }
        (&self.millis, values)
    }
}

/// Keeps the last point of each time.
fn last_of_each(times: &mut Vec<i64>, values: &mut Vec<f64>) {
    let is_last = |at: &usize| times.get(at + 1) != Some(&times[*at]);
    let kept: Vec<usize> = (0..times.len()).filter(is_last).collect();
    *values = kept.iter().map(|at| values[*at]).collect();
    *times = kept.iter().map(|at| times[*at]).collect();
}

/// The times of the series before: one scrape gives many series the same ones.
#[derive(Default)]
struct SharedTimes {
    micros: Vec<i64>,
    millis: Option<Arc<[i64]>>,
}

impl SharedTimes {
    /// Times cut to milliseconds, and the values; of several points in one the last counts.
    fn in_millis(&mut self, columns: Columns) -> (Arc<[i64]>, Vec<f64>) {
        let Columns { times: micros, mut values, .. } = columns;
        if let Some(millis) = self.millis.as_ref().filter(|_| micros == self.micros) {
            return (millis.clone(), values);
        }
        let mut millis: Vec<i64> = micros.iter().map(|micros| micros.div_euclid(1000)).collect();
        if !millis.is_sorted_by(|a, b| a < b) {
            last_of_each(&mut millis, &mut values);
            return (millis.into(), values);
        }
        let millis: Arc<[i64]> = millis.into();
        *self = Self { micros, millis: Some(millis.clone()) };
        (millis, values)
    }
}

#[cfg(test)]
mod tests {
    use orzo_model::Measure;

    use super::*;

    #[test]
    fn times_are_shared_and_of_one_millisecond_the_last_point_counts() {
        let mut shared = SharedTimes::default();
        let columns = |times: &[i64]| {
            let measure =
                |(time, n): (&i64, i32)| Measure { timestamp: Timestamp::from_micros(*time), value: f64::from(n) };
            Columns::from(times.iter().zip(1..).map(measure).collect::<Vec<_>>())
        };
        let (first, _) = shared.in_millis(columns(&[-1, 1500, 2000]));
        assert_eq!(*first, [-1, 1, 2]);
        let (second, values) = shared.in_millis(columns(&[-1, 1500, 2000]));
        assert!(Arc::ptr_eq(&first, &second) && values == [1.0, 2.0, 3.0]);
        let (crowded, values) = shared.in_millis(columns(&[1000, 1500, 1999, 2000, 2001]));
        assert_eq!((&*crowded, &*values), (&[1, 2][..], &[3.0, 5.0][..]));
        assert!(Arc::ptr_eq(&first, &shared.in_millis(columns(&[-1, 1500, 2000])).0));
        // What is folded has the same.
        let mut millis = Millis::default();
        for times in [&[-1, 1500, 2000][..], &[-1, 1500, 2000], &[1000, 1500, 1999, 2000, 2001], &[0], &[0], &[0, 1]] {
            let (expected_times, expected) = SharedTimes::default().in_millis(columns(times));
            let mut columns = columns(times);
            assert_eq!(millis.of(&mut columns), (&*expected_times, &*expected), "{times:?}");
        }
    }
}
