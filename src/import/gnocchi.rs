//! What a Gnocchi keeps becomes ours: policies, types, resources with their history, metrics under the same ids, and of its aggregates the
//! points that `measures.rs` chooses. Resumable, compared at the end.
//!
//! `policies → types → resources, page by page → metrics, page by page → measures of each, some at once → journal`, then `compare`.
//! What is made here under the ids that it has there is made once, so that the first steps are repeated when an import goes on; metrics
//! whose points are in the journal are not read again.

mod journal;
mod measures;
mod things;

use std::path::PathBuf;

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use orzo_model::Timestamp;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::journal::{Done, Head, Journal};
use self::{
    measures::{Grain, Point},
    things::MetricThere,
};
use super::Peer;

/// Metrics whose measures are read at once: more is no faster for one Gnocchi's database.
const METRICS_AT_ONCE: usize = 4;
/// Buckets of one answer: about 25 MiB.
const WINDOW_BUCKETS: u64 = 500_000;
/// Points of one request here: an eighth of what the server takes.
const BODY_POINTS: usize = 20_000;
/// Finer than this Gnocchi's answers do not say when a bucket begins.
const GRAIN_SECONDS_MIN: f64 = 1.0;
/// One bucket for everything: ten years, so that a comparison reads a few of them.
const WHOLE_SECONDS: u32 = 315_360_000;
/// Sums of the same numbers in another order differ by so much of their size for each of them, at most.
const SUM_ERROR: f64 = 1e-15;

/// What is imported.
pub(crate) struct Plan {
    /// The method that is read, where a policy has it.
    pub(crate) aggregation: String,
    /// Measures from this time on.
    pub(crate) start: Timestamp,
    /// Measures before this time.
    pub(crate) end: Timestamp,
    pub(crate) journal: PathBuf,
}

/// Who is asked and told.
pub(crate) struct Ends {
    pub(crate) there: Peer,
    /// Our metric API.
    pub(crate) here: Peer,
    /// Our store's own API.
    pub(crate) store: Peer,
}

/// What was made, and what is to be told.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) resources: u64,
    pub(crate) metrics: u64,
    pub(crate) notes: Vec<String>,
}

/// How a metric compares.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compared {
    pub(crate) done: Done,
    pub(crate) found: u64,
    pub(crate) sum: f64,
    pub(crate) is_equal: bool,
}

/// Reads there and writes here.
pub(crate) async fn copy(plan: &Plan, ends: &Ends, bar: &ProgressBar) -> anyhow::Result<(Journal, Made)> {
    let head = Head { source: ends.there.url().to_owned(), aggregation: plan.aggregation.clone() };
    let mut journal = Journal::open(&plan.journal, &head)?;
    let mut made = Made::default();
    bar.set_prefix("names");
    things::policies(ends, &mut made).await.context("archive policies")?;
    let types = things::types(ends, &mut made).await.context("resource types")?;
    for kind in &types {
        bar.set_message(kind.clone());
        things::resources(ends, kind, &mut made).await.with_context(|| format!("resources of type {kind}"))?;
    }
    bar.set_prefix("measures");
    let mut pages = things::MetricPages::new();
    while let Some(page) = pages.next(&ends.there).await.context("metrics")? {
        things::metrics(ends, &page, &mut made).await.context("metrics")?;
        bar.inc_length(page.len() as u64);
        let left = page.into_iter().filter(|metric| !journal.has(metric.id)).collect::<Vec<_>>();
        let mut copied =
            futures::stream::iter(left.iter().map(|metric| of_metric(plan, ends, metric))).buffered(METRICS_AT_ONCE);
        while let Some(done) = copied.try_next().await? {
            if done.method.is_none() {
                made.notes
                    .push(format!("metric {}: its policy keeps nothing that stands for values; no points", done.id));
            }
            bar.set_message(done.name.clone().unwrap_or_default());
            journal.note(done)?;
            bar.set_position(journal.done.len() as u64);
        }
    }
    journal.sync()?;
    Ok((journal, made))
}

/// The points of one metric; `Ok`: they are durable here.
async fn of_metric(plan: &Plan, ends: &Ends, metric: &MetricThere) -> anyhow::Result<Done> {
    let in_context = || format!("metric {}", metric.id);
    let method = measures::method_of(&plan.aggregation, &metric.methods);
    let mut done = Done {
        id: metric.id,
        name: metric.name.clone(),
        points: 0,
        sum: 0.0,
        not_numbers: 0,
        times: None,
        method: method.clone(),
    };
    let Some(method) = method else { return Ok(done) };
    for grain in metric.grains.iter().filter(|grain| grain.seconds >= GRAIN_SECONDS_MIN) {
        let before = done.times.map(|(first, _)| first);
        for (start, stop) in windows(plan, grain) {
            let query = format!(
                "aggregation={}&granularity={}&start={}&stop={}",
                escaped(&method),
                grain.text,
                start.naive(),
                stop.naive()
            );
            let path = format!("v1/metric/{}/measures", metric.id);
            let (answer, _) = ends.there.page(&path, &query).await.with_context(in_context)?;
            let points = measures::read(&answer).with_context(in_context)?;
            let chosen = measures::older_than(&points, grain.seconds, before);
            // `start` is rounded down by Gnocchi: the bucket before it has come with the window before, or was not asked for.
            let chosen = &chosen[chosen.partition_point(|(time, _)| *time < start.micros())..];
            for part in chosen.chunks(BODY_POINTS) {
                ends.here
                    .submit(Method::POST, &path, "application/json", measures::body(part))
                    .await
                    .with_context(in_context)?;
            }
            count(&mut done, chosen);
        }
    }
    Ok(done)
}

fn count(done: &mut Done, points: &[Point]) {
    for (time, value) in points {
        match value.is_finite() {
            true => done.sum += value,
            false => done.not_numbers += 1,
        }
        let (first, last) = done.times.unwrap_or((*time, *time));
        done.times = Some((first.min(*time), last.max(*time)));
    }
    done.points += points.len() as u64;
}

/// The times of which one answer has not too many buckets. Where the policy bounds them there is one.
fn windows(plan: &Plan, grain: &Grain) -> Vec<(Timestamp, Timestamp)> {
    if grain.points.is_some_and(|points| points <= WINDOW_BUCKETS) {
        return vec![(plan.start, plan.end)];
    }
    // Whole buckets, so that none lies in two windows.
    let step = ((grain.seconds * 1e6) as i64).max(1).saturating_mul(WINDOW_BUCKETS as i64);
    let (mut windows, mut from) = (Vec::new(), plan.start.micros());
    while from < plan.end.micros() {
        let until = (from.div_euclid(step) + 1).saturating_mul(step).min(plan.end.micros());
        windows.push((Timestamp::from_micros(from), Timestamp::from_micros(until)));
        from = until;
    }
    windows
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Holds what was read there against what our API says.
pub(crate) async fn compare(journal: &Journal, here: &Peer, bar: &ProgressBar) -> anyhow::Result<Vec<Compared>> {
    let done: Vec<&Done> = journal.done.iter().collect();
    bar.set_length(done.len() as u64);
    bar.set_position(0);
    let mut asked = futures::stream::iter(done.into_iter().map(|done| of_done(done, here))).buffered(METRICS_AT_ONCE);
    let mut compared = Vec::new();
    while let Some(one) = asked.try_next().await? {
        compared.push(one);
        bar.inc(1);
    }
    Ok(compared)
}

async fn of_done(done: &Done, here: &Peer) -> anyhow::Result<Compared> {
    let Some((first, last)) = done.times else {
        return Ok(Compared { done: done.clone(), found: 0, sum: 0.0, is_equal: true });
    };
    let (found, sum) =
        (whole(here, done.id, "count", first, last).await?, whole(here, done.id, "sum", first, last).await?);
    let found = found as u64;
    let tolerance = SUM_ERROR * done.points as f64 * done.sum.abs().max(sum.abs()).max(1.0);
    // A sum with something in it that is no number says nothing.
    let is_same_sum = done.not_numbers > 0 || (sum - done.sum).abs() <= tolerance;
    Ok(Compared { done: done.clone(), found, sum, is_equal: found == done.points && is_same_sum })
}

/// One aggregate over all points between two times, both included.
async fn whole(here: &Peer, id: Uuid, method: &str, first: i64, last: i64) -> anyhow::Result<f64> {
    let (start, stop) = (Timestamp::from_micros(first), Timestamp::from_micros(last.saturating_add(1)));
    let query = format!(
        "aggregation={method}&granularity={WHOLE_SECONDS}&beyond_policy=true&start={}&stop={}",
        start.naive(),
        stop.naive()
    );
    let (answer, _) =
        here.page(&format!("v1/metric/{id}/measures"), &query).await.with_context(|| format!("metric {id}"))?;
    Ok(measures::read(&answer)?.iter().map(|(_, value)| value).sum())
}

fn list(answer: &[u8]) -> anyhow::Result<Vec<Value>> {
    match serde_json::from_slice(answer).context("the answer is not JSON")? {
        Value::Array(list) => Ok(list),
        _ => bail!("the answer is no list"),
    }
}
