//! What can go wrong, in variants that let the API print the status and text that Gnocchi's clients know.

use orzo_database::{AsConflict, DatabaseError};

/// Why the index has no answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not there, or not visible for this scope; they look the same. `Metric 1234 does not exist`
    #[error("{what} does not exist")]
    NotFound {
        /// `Metric 1234`, `Resource type x`.
        what: String,
    },
    /// The name is taken. `Archive policy low already exists`
    #[error("{what} already exists")]
    Exists {
        /// `Archive policy low`.
        what: String,
    },
    /// Others refer to it. `Archive policy low is still in use`
    #[error("{what} is still in use")]
    InUse {
        /// `Archive policy low`.
        what: String,
    },
    /// The request is wrong; one sentence.
    #[error("{text}")]
    Refused {
        /// The whole sentence, as Gnocchi writes it.
        text: String,
    },
    /// The request is wrong; Gnocchi's structured form.
    #[error("{cause}: {reason}")]
    Invalid {
        /// `Invalid input`, `Attribute value error`.
        cause: String,
        /// What exactly; may be empty where Gnocchi sends none.
        reason: String,
        /// Where: a name or a path.
        detail: serde_json::Value,
    },
    /// A name is taken that belongs to a resource's metric (409). Gnocchi: `Named metric cpu already exists`.
    #[error("Named metric {name} already exists")]
    NamedMetricExists {
        /// The metric's name.
        name: String,
    },
    /// The database has no answer.
    #[error("the index's database has no answer")]
    Database(#[source] DatabaseError),
    /// The database holds something that this program cannot read.
    #[error("the index holds something unreadable in {what}: {reason}")]
    Damaged {
        /// Table and row.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl IndexError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::Refused { text: text.into() }
    }

    pub(crate) fn invalid_input(reason: impl Into<String>, path: &[&str]) -> Self {
        Self::Invalid { cause: "Invalid input".into(), reason: reason.into(), detail: serde_json::json!(path) }
    }

    pub(crate) fn damaged(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Damaged { what: what.into(), reason: reason.to_string() }
    }

    /// A key was violated: someone else made the same thing at the same time.
    pub(crate) fn is_constraint(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_constraint())
    }
}

impl From<DatabaseError> for IndexError {
    fn from(error: DatabaseError) -> Self {
        // What can never be stored is the asker's to mend, not the operator's.
        if error.is_refusal() { Self::refused(format!("Invalid input: {error}")) } else { Self::Database(error) }
    }
}

impl AsConflict for IndexError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}
