//! Why a question has no answer; variants let the API print Gnocchi's status and text.

use orzo_index::IndexError;
use orzo_model::{ReadError, SinkError};
use orzo_store::StoreError;

/// Why the engine has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Not there, or not visible (404); one sentence.
    #[error("{text}")]
    NotFound {
        /// The whole sentence, as Gnocchi writes it.
        text: String,
    },
    /// Not there (404), in Gnocchi's structured form.
    #[error("{cause}: {detail}")]
    Missing {
        /// `Unknown metrics`, `Metrics with unknown aggregation`.
        cause: String,
        /// May be empty where Gnocchi sends none.
        reason: String,
        /// Which.
        detail: serde_json::Value,
    },
    /// The question is wrong (400); one sentence.
    #[error("{text}")]
    Refused {
        /// The whole sentence.
        text: String,
    },
    /// The question is wrong (400), in Gnocchi's structured form.
    #[error("{cause}: {reason}")]
    Invalid {
        /// `Metrics cannot be aggregated`, `Operations is invalid`.
        cause: String,
        /// What exactly.
        reason: String,
        /// Where.
        detail: serde_json::Value,
    },
    /// The index says no. Its variants carry Gnocchi's texts too.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The label index has no answer.
    #[error(transparent)]
    Labels(#[from] orzo_labels::LabelError),
}

impl QueryError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Index(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::Labels(error) => error.is_retryable(),
            Self::NotFound { .. } | Self::Missing { .. } | Self::Refused { .. } | Self::Invalid { .. } => false,
        }
    }

    /// Words of a histogram that are none.
    pub(crate) fn damaged(labels: &orzo_promql::Labels, millis: i64) -> Self {
        Self::Index(IndexError::Damaged {
            what: format!("the histogram of {labels} at {millis} ms"),
            reason: "its words do not fit together".to_owned(),
        })
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::Refused { text: text.into() }
    }

    pub(crate) fn invalid(cause: &str, reason: impl Into<String>, detail: serde_json::Value) -> Self {
        Self::Invalid { cause: cause.to_owned(), reason: reason.into(), detail }
    }

    pub(crate) fn cannot_aggregate(reason: impl Into<String>, detail: serde_json::Value) -> Self {
        Self::invalid("Metrics cannot be aggregated", reason, detail)
    }

    /// For the sink's door. What is broken now may be mended by an operator, so the batch waits; only what is wrong
    /// with the batch itself rejects it.
    pub(crate) fn into_sink(self) -> SinkError {
        match self {
            Self::Index(IndexError::Database(_) | IndexError::Damaged { .. }) => SinkError::unavailable(chain(&self)),
            Self::Store(StoreError::Invalid { reason }) => SinkError::Rejected { reason },
            Self::Store(_) | Self::Labels(_) => SinkError::unavailable(chain(&self)),
            other => SinkError::Rejected { reason: other.to_string() },
        }
    }

    /// For the reader's door.
    pub(crate) fn into_read(self) -> ReadError {
        let not_found = |text: String| ReadError::NotFound {
            what: text.strip_suffix(" does not exist").map(str::to_owned).unwrap_or(text),
        };
        match self {
            Self::NotFound { text } => not_found(text),
            Self::Missing { cause, detail, .. } => ReadError::NotFound { what: format!("{cause} {detail}") },
            Self::Index(IndexError::NotFound { what }) => ReadError::NotFound { what },
            Self::Index(IndexError::Database(_) | IndexError::Damaged { .. }) | Self::Store(_) => {
                ReadError::Unavailable { reason: chain(&self) }
            }
            other => ReadError::Invalid { reason: other.to_string() },
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
