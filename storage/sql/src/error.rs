//! Why a query has no answer, in the words of whoever asked.

use std::time::Duration;

use orzo_names::NamesError;
use serde::{Deserialize, Serialize};

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SqlError {
    /// The query is wrong, or asks for what queries may not do.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
        /// Line of the query, from 1, if it is known.
        line: Option<u64>,
        /// Column in that line, from 1.
        column: Option<u64>,
    },
    /// The text is longer than a query may be.
    #[error("the query has more than {bytes_max} bytes")]
    TooLong {
        /// How long it may be.
        bytes_max: usize,
    },
    /// The query, or its answer, has too much of something.
    #[error("more than {limit} {what}")]
    TooMuch {
        /// `rows in the answer`, `operators` ...
        what: String,
        /// How much there may be.
        limit: u64,
    },
    /// It cannot be computed: a division by zero, a text that is no number.
    #[error("{reason}")]
    Failed {
        /// What went wrong.
        reason: String,
    },
    /// It took longer than a query may.
    #[error("the query was stopped after {} s; ask for less, or a shorter time", limit.as_secs_f64())]
    Deadline {
        /// How long it may take.
        limit: Duration,
    },
    /// It needed more memory than a query may have.
    #[error("the query was stopped: it needs more than {bytes_max} bytes of memory; ask for less, or group by less")]
    Memory {
        /// How much it may have.
        bytes_max: u64,
    },
    /// Its process ended without an answer.
    #[error("the process of the query ended: {how}; the query is too deep or too large for it")]
    Died {
        /// Which signal or status.
        how: String,
    },
    /// As many queries as may run are running.
    #[error("{at_once_max} queries are running already, which is all that may run at once")]
    Busy {
        /// How many may run.
        at_once_max: usize,
    },
    /// Something on this side does not work for now.
    #[error("cannot answer now: {reason}")]
    Unavailable {
        /// What does not work.
        reason: String,
    },
}

impl SqlError {
    /// A wrong query whose place is not known.
    pub(crate) fn invalid(reason: impl ToString) -> Self {
        Self::Invalid { reason: reason.to_string(), line: None, column: None }
    }

    pub(crate) fn of_names(error: NamesError) -> Self {
        match error {
            NamesError::Index(error) => Self::unavailable(error),
            error => Self::unavailable(error),
        }
    }

    pub(crate) fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable { reason: reason.to_string() }
    }

    /// Whether the same query may be answered later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable { .. })
    }

    /// Short and stable, for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::TooLong { .. } => "too long",
            Self::TooMuch { .. } => "too much",
            Self::Failed { .. } => "failed",
            Self::Deadline { .. } => "deadline",
            Self::Memory { .. } => "memory",
            Self::Died { .. } => "died",
            Self::Busy { .. } => "busy",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}
