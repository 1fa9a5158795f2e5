//! Doors for rooms that watch what is written: alarms are judged by windows of many series, as soon as these close.
//!
//! `find_series` (once, within a scope) → `read_windows` (often, many at once); [`Arrivals`] says when again.
//!
//! [`wire`] is the same between two processes.

pub mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Event, Measure, Point, ReadError, Scope, SeriesId, Timestamp};

/// Which series a question is about, without times and methods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One metric of one resource.
    Resource {
        /// UUID, or the free text that the resource was created with.
        resource_id: String,
        /// Metric name.
        metric: String,
    },
    /// Metrics by their ids.
    Metrics(Vec<String>),
    /// One metric of all resources that a search finds.
    Group {
        /// Metric name.
        metric: String,
        /// Resource type searched.
        resource_type: String,
        /// Gnocchi's search grammar, JSON form, as text.
        search: String,
    },
}

/// A question about series that were found within a scope before.
#[derive(Clone, Debug)]
pub struct WindowRead {
    /// The series.
    pub series: Arc<[SeriesId]>,
    /// Aggregation method within each series: `mean`, `rate:mean`, `95pct` ...
    pub aggregation: String,
    /// Method over the series; `None` for the one series of a resource.
    pub reaggregation: Option<String>,
    /// Width of a window.
    pub granularity: Duration,
    /// Start of the first window.
    pub start: Timestamp,
    /// End of the last window.
    pub stop: Timestamp,
}

/// Reads windows of many series at once.
#[async_trait]
pub trait WindowReader: Send + Sync {
    /// The series that a target means, as far as the scope may look. Whoever holds the answer may read it.
    async fn find_series(&self, scope: &Scope, target: &Target) -> Result<Arc<[SeriesId]>, ReadError>;

    /// Aggregated measures for each question, in time order.
    async fn read_windows(&self, reads: &[WindowRead]) -> Vec<Result<Vec<Measure>, ReadError>>;
}

/// Is told of what was written. Called after it is durable and readable, on the writer's way: it must not wait.
pub trait Arrivals: Send + Sync {
    /// These points can be read now.
    fn points(&self, points: &[Point]);

    /// Events can be read now.
    fn events(&self);
}

/// Answers instant queries in PromQL.
#[async_trait]
pub trait InstantQueries: Send + Sync {
    /// The values of a query at a time, in the order of the answer. Only series that the scope may see are read.
    async fn instant(&self, scope: &Scope, query: &str, at: Timestamp) -> Result<Vec<f64>, ReadError>;
}

/// An event with its place in the order in which events were committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// Grows with each event; without gaps for who reads in order.
    pub number: i64,
    /// When it was kept.
    pub stored_at: Timestamp,
    /// The event.
    pub event: Event,
}

/// Events in the order in which they were committed, so that none is missed over a restart.
#[async_trait]
pub trait EventFeed: Send + Sync {
    /// Events with a larger number, in order, at most `limit`.
    async fn events_after(&self, number: i64, limit: usize) -> Result<Vec<NumberedEvent>, ReadError>;

    /// The largest number; 0 if there is none.
    async fn newest_event(&self) -> Result<i64, ReadError>;

    /// A project's events of a time (by when they were generated), oldest first, at most `limit`.
    async fn events_between(
        &self,
        project_id: &str,
        start: Timestamp,
        stop: Timestamp,
        limit: usize,
    ) -> Result<Vec<Event>, ReadError>;
}
