//! What can be wrong with a query.

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not PromQL.
    #[error("invalid parameter \"query\": {0}")]
    Syntax(String),
    /// What was asked for besides the query is wrong or too much.
    #[error("{0}")]
    Refused(String),
    /// It is PromQL, but something that is not evaluated here.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// It cannot be evaluated over this data.
    #[error("{0}")]
    Execution(String),
    /// It would cost more than one query may.
    #[error("the query needs more than {limit} {what}; narrow the selectors, shorten the range or widen the step")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// Other queries hold what there is.
    #[error("{0}")]
    Busy(String),
    /// Whoever asked has gone, or its time is up.
    #[error("the query was cancelled")]
    Cancelled,
    /// The source of points failed.
    #[error("the points could not be read")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl QueryError {
    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }

    /// The `errorType` that Prometheus would give.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Syntax(_) | Self::Refused(_) => "bad_data",
            Self::Busy(_) => "unavailable",
            Self::Unsupported(_) | Self::Execution(_) | Self::TooMuch { .. } => "execution",
            Self::Cancelled => "canceled",
            Self::Source(_) => "internal",
        }
    }
}
