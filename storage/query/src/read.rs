//! Reading one or many metrics at their granularities from raw points.
//!
//! As Gnocchi answers: buckets aligned to the epoch; `start` is rounded down to the bucket, `stop` is exclusive and a
//! bucket that starts before it is whole; an archive policy's timespan counts back from the newest point of the
//! series, not from now; coarsest granularity first, then time.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use orzo_index::{Metric, PolicyItem};
use orzo_model::{Measure, SeriesId, Timestamp};
use orzo_store::StoreError;

use crate::{
    Engine, QueryError,
    buckets::{Buckets, SeriesBuckets, rebucket},
    method::Method,
    width::Width,
};

/// Series in one scan, so that the union of their ranges stays near to each one's own.
const SERIES_AT_ONCE: usize = 512;
/// Small questions (newest points) that are under way together.
const LOOKUPS_AT_ONCE: usize = 16;
/// The shortest range that a scan is cut into when the store says that there are too many points.
const RANGE_MIN: Duration = Duration::from_millis(1);

/// One bucket of one granularity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AggregatedMeasure {
    /// Start of the bucket.
    pub timestamp: Timestamp,
    /// Its width.
    pub granularity: Width,
    /// The aggregate.
    pub value: f64,
}

/// A question about one metric.
#[derive(Clone, Debug, Default)]
pub struct MeasuresQuery {
    /// Aggregation method.
    pub aggregation: String,
    /// Only this one; `None`: all of the archive policy.
    pub granularity: Option<Duration>,
    /// Not before the bucket that holds it.
    pub start: Option<Timestamp>,
    /// Before it.
    pub stop: Option<Timestamp>,
    /// Buckets aggregated again, into buckets of this width.
    pub resample: Option<Width>,
    /// Answers from the raw points whatever the archive policy says: any granularity, any method, and buckets older
    /// than the policy's timespan as long as raw points are kept.
    pub beyond_policy: bool,
}

/// What is wanted of one series.
#[derive(Clone, Debug)]
pub(crate) struct SeriesRead {
    pub(crate) series: SeriesId,
    pub(crate) method: Method,
    /// Bucket widths, each with how far back from the newest point it is answered.
    pub(crate) widths: Vec<(Duration, Option<Duration>)>,
    pub(crate) start: Option<Timestamp>,
    pub(crate) stop: Option<Timestamp>,
}

impl Engine {
    /// Aggregated measures of one metric, which the caller got from the index within a scope.
    pub async fn measures(&self, metric: &Metric, query: &MeasuresQuery) -> Result<Vec<AggregatedMeasure>, QueryError> {
        let aggregation = query.aggregation.as_str();
        if query.resample.is_some() && query.granularity.is_none() {
            return Err(QueryError::refused("A granularity must be specified to resample"));
        }
        let method = method_of(metric, aggregation, query.beyond_policy).ok_or_else(|| QueryError::Missing {
            cause: "Aggregation method does not exist for this metric".into(),
            reason: String::new(),
            detail: serde_json::json!({"metric": metric.id.to_string(), "aggregation_method": aggregation}),
        })?;
        let widths = widths_of(metric, query.granularity, query.beyond_policy)
            .map_err(|width| no_granularity(metric, aggregation, width))?;
        let by_width = self.read_series(vec![resampled_read(metric, method, widths.clone(), query)]).await?;
        let by_width = by_width.into_iter().next().unwrap_or_default();
        let mut answer = Vec::with_capacity(by_width.iter().map(Vec::len).sum());
        for ((width, _), measures) in widths.into_iter().zip(by_width) {
            let (granularity, measures) = match query.resample {
                Some(resample) => (resample, resampled(measures, resample, method, query)),
                None => (Width::Span(width), measures),
            };
            answer.extend(measures.into_iter().map(|measure| AggregatedMeasure {
                timestamp: measure.timestamp,
                granularity,
                value: measure.value,
            }));
        }
        Ok(answer)
    }

    /// The same of several metrics at several granularities, for a search over values: for each metric, in the order
    /// of the granularities.
    pub async fn measures_of_all(
        &self,
        metrics: &[&Metric],
        granularities: Option<&[Duration]>,
        query: &MeasuresQuery,
    ) -> Result<Vec<Vec<AggregatedMeasure>>, QueryError> {
        let aggregation = query.aggregation.as_str();
        let mut reads = Vec::with_capacity(metrics.len());
        for metric in metrics {
            let unknown = |width: Duration| {
                let detail = serde_json::json!({
                    "metric": metric.id.to_string(),
                    "aggregation_method": aggregation,
                    "granularity": width.as_secs_f64(),
                });
                QueryError::invalid("Aggregation does not exist", "", detail)
            };
            let mut widths = Vec::new();
            match granularities {
                None => widths = widths_of(metric, None, query.beyond_policy).unwrap_or_default(),
                Some(wanted) => {
                    for &width in wanted {
                        widths.extend(widths_of(metric, Some(width), query.beyond_policy).map_err(unknown)?);
                    }
                }
            }
            let finest = widths.last().map_or(Duration::ZERO, |(width, _)| *width);
            let method = method_of(metric, aggregation, query.beyond_policy).ok_or_else(|| unknown(finest))?;
            reads.push(SeriesRead { series: metric.series, method, widths, start: query.start, stop: query.stop });
        }
        let widths: Vec<Vec<Duration>> =
            reads.iter().map(|read| read.widths.iter().map(|(width, _)| *width).collect()).collect();
        let read = self.read_series(reads).await?;
        Ok(read
            .into_iter()
            .zip(widths)
            .map(|(by_width, widths)| {
                let rows = by_width.into_iter().zip(widths).flat_map(|(measures, width)| {
                    measures.into_iter().map(move |measure| AggregatedMeasure {
                        timestamp: measure.timestamp,
                        granularity: Width::Span(width),
                        value: measure.value,
                    })
                });
                rows.collect::<Vec<_>>()
            })
            .collect())
    }

    /// Reads series; the answer has, for each, the buckets of each width.
    pub(crate) async fn read_series(&self, reads: Vec<SeriesRead>) -> Result<Vec<Vec<Vec<Measure>>>, QueryError> {
        let mut wanted = self.prepare(&reads).await?;
        wanted.sort_by_key(|wanted| wanted.series);
        for chunk in wanted.chunks_mut(SERIES_AT_ONCE) {
            self.roll_into(chunk).await;
            // Those that lack the same are read together.
            chunk.sort_by_cached_key(|wanted| (wanted.shape(), wanted.series));
            for alike in chunk.chunk_by_mut(|a, b| a.shape() == b.shape()) {
                let gaps = alike.iter().map(|wanted| wanted.gaps.len()).max().unwrap_or(0);
                for gap in 0..gaps {
                    self.scan_into(alike, gap).await?;
                }
            }
        }
        wanted.sort_by_key(|wanted| wanted.place);
        Ok(wanted.into_iter().map(Wanted::finish).collect())
    }

    /// Finds out which points the series need.
    async fn prepare(&self, reads: &[SeriesRead]) -> Result<Vec<Wanted>, QueryError> {
        // A timespan counts back from the newest point; without one nobody needs to know it.
        let is_counted = |read: &&SeriesRead| read.widths.iter().any(|(_, timespan)| timespan.is_some());
        let counted: Vec<SeriesId> = reads.iter().filter(is_counted).map(|read| read.series).collect();
        let mut newest = self.store.last_of(&counted).await?.into_iter();
        let mut wanted = Vec::with_capacity(reads.len());
        for (place, read) in reads.iter().enumerate() {
            let newest = if is_counted(&read) { newest.next().flatten() } else { None };
            let widths = read.widths.iter().map(|&(width, timespan)| {
                let kept = timespan.zip(newest.map(|point| point.timestamp));
                let (from, to) = bucket_range(width, kept, read.start, read.stop);
                Buckets::new(width.into(), read.method.statistic, from, to)
            });
            let buckets = SeriesBuckets::new(read.method, None, widths.collect());
            wanted.push(Wanted::new(place, read.series, buckets));
        }
        if reads.iter().all(|read| read.method.change.is_none()) {
            return Ok(wanted);
        }
        let is_change: Vec<bool> = reads.iter().map(|read| read.method.change.is_some()).collect();
        stream::iter(wanted.into_iter().zip(is_change))
            .map(|(wanted, is_change)| self.with_before(wanted, is_change))
            .buffered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Finds the point before the first one that a series needs, if changes between points are wanted.
    async fn with_before(&self, wanted: Wanted, is_change: bool) -> Result<Wanted, QueryError> {
        let (from, to) = wanted.buckets.range();
        if !is_change || from >= to || from <= Timestamp::EPOCH {
            return Ok(wanted);
        }
        let before = self.store.last_before(wanted.series, from).await?.map(|measure| measure.value);
        Ok(Wanted { buckets: wanted.buckets.after(before), ..wanted })
    }

    /// Scans one of the gaps of series (sorted) and feeds it in time order; a scan that is too large is cut in two.
    async fn scan_into(&self, wanted: &mut [Wanted], gap: usize) -> Result<(), QueryError> {
        let ranges = wanted.iter().filter_map(|wanted| wanted.gaps.get(gap).copied());
        let Some((from, to)) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Ok(()) };
        let mut pieces = vec![(0..wanted.len(), from, to)];
        while let Some((places, from, to)) = pieces.pop() {
            let mut series: Vec<SeriesId> = wanted[places.clone()]
                .iter()
                .filter(|wanted| wanted.gaps.get(gap).is_some_and(|own| own.0 < to && from < own.1))
                .map(|wanted| wanted.series)
                .collect();
            series.dedup();
            if series.is_empty() {
                continue;
            }
            match self.store.scan(&series, from, to).await {
                Ok(found) => {
                    self.rows_read.raw(found.iter().map(|(_, points)| points.len()).sum());
                    feed(&mut wanted[places], &found, gap);
                }
                Err(StoreError::TooManyPoints { .. }) if places.len() > 1 => {
                    let middle = places.start + places.len() / 2;
                    pieces.push((middle..places.end, from, to));
                    pieces.push((places.start..middle, from, to));
                }
                Err(StoreError::TooManyPoints { .. }) if to == Timestamp::MAX => {
                    // Halves of all time to come would be empty for long.
                    let newest = self.store.last_of(&series).await?.into_iter().flatten().map(|point| point.timestamp);
                    let end = newest.max().map_or(from, |newest| newest.plus(RANGE_MIN));
                    pieces.push((places, from, end.min(Timestamp::from_micros(Timestamp::MAX.micros() - 1))));
                }
                Err(StoreError::TooManyPoints { .. }) if to.since(from) > RANGE_MIN => {
                    // The earlier half is pushed last, so that it is fed first.
                    let middle = Timestamp::from_micros(from.micros() + (to.micros() - from.micros()) / 2);
                    pieces.push((places.clone(), middle, to));
                    pieces.push((places, from, middle));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Gives the points found to every wanted series of the same number (sorted; several if it is read by two methods).
fn feed(wanted: &mut [Wanted], found: &[(SeriesId, Vec<Measure>)], gap: usize) {
    for (series, points) in found {
        let first = wanted.partition_point(|wanted| wanted.series < *series);
        for wanted in wanted[first..].iter_mut().take_while(|wanted| wanted.series == *series) {
            wanted.feed(points, gap);
        }
    }
}

/// A series that is being read.
pub(crate) struct Wanted {
    /// Where it stands in the answer.
    place: usize,
    pub(crate) series: SeriesId,
    pub(crate) buckets: SeriesBuckets,
    /// What is read from raw points, in order: all of it but for what rollups have.
    pub(crate) gaps: Vec<(Timestamp, Timestamp)>,
    /// For each width the buckets that came from rollups; none of them has a point in a gap.
    pub(crate) rolled: Vec<Vec<Measure>>,
}

impl Wanted {
    fn new(place: usize, series: SeriesId, buckets: SeriesBuckets) -> Self {
        let (from, to) = buckets.range();
        let gaps = if from < to { vec![(from, to)] } else { Vec::new() };
        Self { place, series, buckets, gaps, rolled: Vec::new() }
    }

    /// Its gaps, but for where all of its time begins and ends: policies count back from each series' own newest point.
    fn shape(&self) -> Vec<(Timestamp, Timestamp)> {
        let (from, to) = self.buckets.range();
        let open = |gap: &(Timestamp, Timestamp)| {
            (if gap.0 == from { Timestamp::MIN } else { gap.0 }, if gap.1 == to { Timestamp::MAX } else { gap.1 })
        };
        self.gaps.iter().map(open).collect()
    }

    fn feed(&mut self, points: &[Measure], gap: usize) {
        let Some((from, to)) = self.gaps.get(gap).copied() else { return };
        let first = points.partition_point(|point| point.timestamp < from);
        let last = points.partition_point(|point| point.timestamp < to);
        self.buckets.feed(points.get(first..last).unwrap_or_default());
    }

    /// The buckets of each width, from points and from rollups.
    fn finish(self) -> Vec<Vec<Measure>> {
        let mut by_width = self.buckets.finish();
        for (measures, rolled) in by_width.iter_mut().zip(self.rolled) {
            if !rolled.is_empty() {
                measures.extend(rolled);
                measures.sort_by_key(|measure| measure.timestamp);
            }
        }
        by_width
    }
}

/// Which points the buckets of a width need. `kept`: so long before the newest point of the series.
fn bucket_range(
    width: Duration,
    kept: Option<(Duration, Timestamp)>,
    start: Option<Timestamp>,
    stop: Option<Timestamp>,
) -> (Timestamp, Timestamp) {
    // Kept are the buckets after (newest bucket - timespan).
    let oldest =
        kept.map_or(Timestamp::EPOCH, |(span, newest)| newest.floor(width).minus(span).floor(width).plus(width));
    let from = start.map_or(Timestamp::EPOCH, |start| start.floor(width)).max(oldest);
    let to = stop.map_or(Timestamp::MAX, |stop| Width::Span(width).ceiling(stop));
    (from, to)
}

/// The method of this name, if the metric's policy has it or nobody asks the policy. Orzo's own methods are in no
/// policy: whoever names one has opted in.
pub(crate) fn method_of(metric: &Metric, name: &str, beyond_policy: bool) -> Option<Method> {
    Method::parse(name).filter(|method| beyond_policy || method.is_own() || metric.archive_policy.has_method(name))
}

/// Bucket widths with how far back each is answered, coarsest first. `Err` is a width that the policy does not have.
pub(crate) fn widths_of(
    metric: &Metric,
    wanted: Option<Duration>,
    beyond_policy: bool,
) -> Result<Vec<(Duration, Option<Duration>)>, Duration> {
    let timespan = |item: &PolicyItem| item.timespan().filter(|_| !beyond_policy);
    match wanted {
        None => {
            let items = metric.archive_policy.coarse_first();
            Ok(items.iter().map(|item| (item.granularity(), timespan(item))).collect())
        }
        Some(width) => match metric.archive_policy.item(width) {
            Some(item) => Ok(vec![(width, timespan(&item))]),
            None if beyond_policy => Ok(vec![(width, None)]),
            None => Err(width),
        },
    }
}

/// What Gnocchi says of a granularity that a policy does not have.
pub(crate) fn no_granularity(metric: &Metric, aggregation: &str, width: Duration) -> QueryError {
    QueryError::NotFound {
        text: format!(
            "Aggregation method '{aggregation}' at granularity '{:?}' for metric {} does not exist",
            width.as_secs_f64(),
            metric.id
        ),
    }
}

/// A read that has all of the buckets that resampled ones are made of.
fn resampled_read(
    metric: &Metric,
    method: Method,
    widths: Vec<(Duration, Option<Duration>)>,
    query: &MeasuresQuery,
) -> SeriesRead {
    let (start, stop) = match query.resample {
        Some(width) => (query.start.map(|start| width.floor(start)), query.stop.map(|stop| width.ceiling(stop))),
        None => (query.start, query.stop),
    };
    SeriesRead { series: metric.series, method, widths, start, stop }
}

/// Buckets aggregated again into wider ones, by the same method (a rate's are rates already, where Gnocchi makes rates
/// of the rates).
fn resampled(measures: Vec<Measure>, width: Width, method: Method, query: &MeasuresQuery) -> Vec<Measure> {
    let first = query.start.map_or(Timestamp::MIN, |start| width.floor(start));
    let measures = measures.into_iter().filter(|measure| measure.timestamp >= first);
    rebucket(measures, width, Method { change: None, ..method })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_rounded_down_stop_is_exclusive_and_retention_counts_from_the_newest_point() {
        let at = Timestamp::from_secs;
        let minute = Duration::from_secs(60);
        let range = |timespan: Option<Duration>, start, stop| {
            bucket_range(minute, timespan.map(|span| (span, at(630))), start, stop)
        };
        assert_eq!(range(None, None, None), (at(0), Timestamp::MAX));
        assert_eq!(range(None, Some(at(119)), Some(at(120))), (at(60), at(120)));
        assert_eq!(range(None, None, Some(at(121))), (at(0), at(180)));
        assert_eq!(range(Some(Duration::from_secs(120)), None, None), (at(540), Timestamp::MAX));
        assert_eq!(range(Some(Duration::from_secs(120)), Some(at(600)), None), (at(600), Timestamp::MAX));
    }
}
