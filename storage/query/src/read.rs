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
    buckets::{Buckets, SeriesBuckets},
    method::Method,
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
    pub granularity: Duration,
    /// The aggregate.
    pub value: f64,
}

/// A question about one metric.
#[derive(Clone, Debug, Default)]
pub struct MeasuresQuery {
    /// Aggregation method; empty: `mean`.
    pub aggregation: String,
    /// Only this one; `None`: all of the archive policy.
    pub granularity: Option<Duration>,
    /// Not before the bucket that holds it.
    pub start: Option<Timestamp>,
    /// Before it.
    pub stop: Option<Timestamp>,
    /// Buckets aggregated again, into buckets of this width.
    pub resample: Option<Duration>,
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
        let aggregation = if query.aggregation.is_empty() { "mean" } else { &query.aggregation };
        let method = Method::parse(aggregation).filter(|_| metric.archive_policy.has_method(aggregation));
        let method = method.ok_or_else(|| QueryError::Missing {
            cause: "Aggregation method does not exist for this metric".into(),
            reason: String::new(),
            detail: serde_json::json!({"metric": metric.id.to_string(), "aggregation_method": aggregation}),
        })?;
        let items = self.items(metric, aggregation, query.granularity)?;
        if query.resample.is_some() && query.granularity.is_none() {
            return Err(QueryError::refused("A granularity must be specified to resample"));
        }
        let read = SeriesRead {
            series: metric.series,
            method,
            widths: items.iter().map(|item| (item.granularity(), item.timespan())).collect(),
            start: query.start,
            stop: query.stop,
        };
        let by_width = self.read_series(vec![read]).await?.pop().unwrap_or_default();
        let mut answer = Vec::new();
        for (item, measures) in items.iter().zip(by_width) {
            let (width, measures) = match query.resample {
                Some(width) => (width, resampled(&measures, width, method)),
                None => (item.granularity(), measures),
            };
            answer.extend(measures.into_iter().map(|measure| AggregatedMeasure {
                timestamp: measure.timestamp,
                granularity: width,
                value: measure.value,
            }));
        }
        Ok(answer)
    }

    fn items(
        &self,
        metric: &Metric,
        aggregation: &str,
        wanted: Option<Duration>,
    ) -> Result<Vec<PolicyItem>, QueryError> {
        match wanted {
            None => Ok(metric.archive_policy.coarse_first()),
            Some(granularity) => match metric.archive_policy.item(granularity) {
                Some(item) => Ok(vec![item]),
                None => Err(QueryError::NotFound {
                    text: format!(
                        "Aggregation method '{aggregation}' at granularity '{:?}' for metric {} does not exist",
                        granularity.as_secs_f64(),
                        metric.id
                    ),
                }),
            },
        }
    }

    /// Reads series; the answer has, for each, the buckets of each width.
    pub(crate) async fn read_series(&self, reads: Vec<SeriesRead>) -> Result<Vec<Vec<Vec<Measure>>>, QueryError> {
        let mut wanted: Vec<Wanted> = stream::iter(reads.into_iter().enumerate())
            .map(|(place, read)| self.prepare(place, read))
            .buffered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await?;
        wanted.sort_by_key(|wanted| wanted.series);
        for chunk in wanted.chunks_mut(SERIES_AT_ONCE) {
            self.scan_into(chunk).await?;
        }
        wanted.sort_by_key(|wanted| wanted.place);
        Ok(wanted.into_iter().map(|wanted| wanted.buckets.finish()).collect())
    }

    /// Finds out which points a series needs.
    async fn prepare(&self, place: usize, read: SeriesRead) -> Result<Wanted, QueryError> {
        let series = read.series;
        let Some(newest) = self.store.last(read.series).await? else {
            let buckets = SeriesBuckets::new(read.method, None, Vec::new());
            return Ok(Wanted { place, series, buckets });
        };
        let widths = read.widths.iter().map(|&(width, timespan)| {
            let (from, to) = bucket_range(width, timespan, newest.timestamp, read.start, read.stop);
            Buckets::new(width, read.method.statistic, from, to)
        });
        let widths: Vec<Buckets> = widths.collect();
        let buckets = SeriesBuckets::new(read.method, None, widths);
        if !read.method.is_rate {
            return Ok(Wanted { place, series, buckets });
        }
        let (from, to) = buckets.range();
        let before = if from < to { self.store.last_before(read.series, from).await? } else { None };
        let before = before.map(|measure| measure.value).filter(|value| !value.is_nan());
        Ok(Wanted { place, series, buckets: buckets.after(before) })
    }

    /// Scans what the series (sorted) need and feeds it in time order; a scan that is too large is cut in two.
    async fn scan_into(&self, wanted: &mut [Wanted]) -> Result<(), QueryError> {
        let ranges = wanted.iter().map(|wanted| wanted.buckets.range()).filter(|(from, to)| from < to);
        let Some((from, to)) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Ok(()) };
        let mut pieces = vec![(0..wanted.len(), from, to)];
        while let Some((places, from, to)) = pieces.pop() {
            let mut series: Vec<SeriesId> = wanted[places.clone()]
                .iter()
                .filter(|wanted| wanted.buckets.range().0 < to && from < wanted.buckets.range().1)
                .map(|wanted| wanted.series)
                .collect();
            series.dedup();
            if series.is_empty() {
                continue;
            }
            match self.store.scan(&series, from, to).await {
                Ok(found) => feed(&mut wanted[places], &found),
                Err(StoreError::TooManyPoints { .. }) if places.len() > 1 => {
                    let middle = places.start + places.len() / 2;
                    pieces.push((middle..places.end, from, to));
                    pieces.push((places.start..middle, from, to));
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
fn feed(wanted: &mut [Wanted], found: &[(SeriesId, Vec<Measure>)]) {
    for (series, points) in found {
        let first = wanted.partition_point(|wanted| wanted.series < *series);
        for wanted in wanted[first..].iter_mut().take_while(|wanted| wanted.series == *series) {
            wanted.buckets.feed(points);
        }
    }
}

/// A series that is being read.
struct Wanted {
    /// Where it stands in the answer.
    place: usize,
    series: SeriesId,
    buckets: SeriesBuckets,
}

/// Which points the buckets of a width need.
fn bucket_range(
    width: Duration,
    timespan: Option<Duration>,
    newest: Timestamp,
    start: Option<Timestamp>,
    stop: Option<Timestamp>,
) -> (Timestamp, Timestamp) {
    let newest_bucket = newest.floor(width);
    // Kept are the buckets after (newest bucket - timespan).
    let kept = timespan.map_or(Timestamp::MIN, |span| newest_bucket.minus(span).floor(width).plus(width));
    let from = start.map_or(Timestamp::EPOCH, |start| start.floor(width)).max(kept);
    let end = newest_bucket.plus(width);
    let to = match stop {
        Some(stop) if stop.floor(width) == stop => stop.min(end),
        Some(stop) => stop.floor(width).plus(width).min(end),
        None => end,
    };
    (from, to)
}

/// Buckets aggregated again into wider ones, by the same method (a rate's are rates already).
fn resampled(measures: &[Measure], width: Duration, method: Method) -> Vec<Measure> {
    let mut buckets = Buckets::new(width, method.statistic, Timestamp::MIN, Timestamp::MAX);
    for measure in measures {
        buckets.push(measure.timestamp, measure.value);
    }
    buckets.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_rounded_down_stop_is_exclusive_and_retention_counts_from_the_newest_point() {
        let at = Timestamp::from_secs;
        let minute = Duration::from_secs(60);
        let range = |timespan, start, stop| bucket_range(minute, timespan, at(630), start, stop);
        assert_eq!(range(None, None, None), (at(0), at(660)));
        assert_eq!(range(None, Some(at(119)), Some(at(120))), (at(60), at(120)));
        assert_eq!(range(None, None, Some(at(121))), (at(0), at(180)));
        assert_eq!(range(Some(Duration::from_secs(120)), None, None), (at(540), at(660)));
        assert_eq!(range(Some(Duration::from_secs(120)), Some(at(600)), None), (at(600), at(660)));
    }
}
