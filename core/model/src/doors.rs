//! The doors between the rooms.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Batch, Measure, Scope, Timestamp};

/// What a sink did with an accepted batch. Everything in the batch is in exactly one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Durable on the other side.
    pub stored: u64,
    /// Seen before; its first copy is stored.
    pub repeated: u64,
    /// Refused, with a counted reason; sending it again would not help.
    pub refused: u64,
}

/// Why a batch was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Busy or broken for now. Nothing is acknowledged; send the same batch again later.
    #[error("cannot accept the batch now: {reason}")]
    Unavailable {
        /// What is wrong, in the reader's words.
        reason: String,
        /// When to try again, if the sink can tell.
        retry_after: Option<Duration>,
    },
    /// The batch as a whole can never be accepted.
    #[error("the batch is not acceptable: {reason}")]
    Rejected {
        /// What is wrong, in the reader's words.
        reason: String,
    },
}

impl SinkError {
    /// Busy or broken for now.
    pub fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable { reason: reason.to_string(), retry_after: None }
    }

    /// Whether sending the same batch again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Takes batches. `Ok` means: durable on the other side (contract C1). Publisher, collector and engine are all
/// sinks, so a pipeline can be chained in memory.
#[async_trait]
pub trait SampleSink: Send + Sync {
    /// Accepts the whole batch or nothing of it. Accepting the same batch again changes nothing.
    async fn accept(&self, batch: Batch) -> Result<Receipt, SinkError>;
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadError {
    /// The resource, metric or aggregate is not there (or not for this scope: they look the same).
    #[error("{what} does not exist")]
    NotFound {
        /// `Metric cpu`, `Resource 1234`.
        what: String,
    },
    /// The question itself is wrong.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Broken or busy for now.
    #[error("cannot read now: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
    },
}

/// A question about one metric of one resource.
#[derive(Clone, Debug)]
pub struct ResourceRead {
    /// UUID, or the free text that the resource was created with.
    pub resource_id: String,
    /// Metric name.
    pub metric: String,
    /// Aggregation method: `mean`, `rate:mean`, `95pct` ...
    pub aggregation: String,
    /// Bucket width.
    pub granularity: Duration,
    /// First time, inclusive (rounded down to the bucket).
    pub start: Timestamp,
    /// Last time, exclusive.
    pub stop: Timestamp,
}

/// A question about one metric of all resources that a search finds, re-aggregated over them.
#[derive(Clone, Debug)]
pub struct GroupRead {
    /// Metric name.
    pub metric: String,
    /// Resource type searched.
    pub resource_type: String,
    /// Gnocchi's search grammar, JSON form.
    pub search: serde_json::Value,
    /// Aggregation method within each metric.
    pub aggregation: String,
    /// Method over the metrics: `mean`, `sum` ...
    pub reaggregation: String,
    /// Bucket width.
    pub granularity: Duration,
    /// First time, inclusive (rounded down to the bucket).
    pub start: Timestamp,
    /// Last time, exclusive.
    pub stop: Timestamp,
}

/// Answers questions about stored series. The engine implements it in process; an HTTP client can implement it for
/// rooms that run elsewhere.
#[async_trait]
pub trait MeasureReader: Send + Sync {
    /// Aggregated measures of one metric, in time order.
    async fn read_resource(&self, scope: &Scope, read: &ResourceRead) -> Result<Vec<Measure>, ReadError>;

    /// Aggregated measures over a group of resources, in time order.
    async fn read_group(&self, scope: &Scope, read: &GroupRead) -> Result<Vec<Measure>, ReadError>;

    /// The newest raw point of a resource's metric strictly before `before`; for deriving rates across restarts.
    /// `None` if there is none (also if resource or metric are unknown).
    async fn last_before(
        &self,
        resource_id: &str,
        metric: &str,
        before: Timestamp,
    ) -> Result<Option<Measure>, ReadError>;
}
