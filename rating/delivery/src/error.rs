//! What can go wrong on the way.

use orzo_database::{AsConflict, DatabaseError};

/// Why something could not be delivered, or the outbox not be read.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The outbox's database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A run on disk.
    #[error(transparent)]
    Export(#[from] orzo_export::ExportError),
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read`, `write` ...
        action: &'static str,
        /// Which.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Refused(String),
    /// There is none.
    #[error("{0}")]
    NotFound(String),
    /// It did not work this time; the text holds no address and no secret.
    #[error("{reason}")]
    Again {
        /// Why.
        reason: String,
        /// What the receiver asked for.
        retry_after: Option<std::time::Duration>,
    },
    /// It will never work as it is.
    #[error("{0}")]
    Hopeless(String),
    /// Another process has taken the delivery over.
    #[error("delivery {0} was taken over by another process")]
    TakenOver(String),
}

impl DeliveryError {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// To be tried again, without a time that somebody asked for.
    pub(crate) fn again(reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), retry_after: None }
    }

    /// A request that had no answer.
    pub(crate) fn request(error: reqwest::Error) -> Self {
        use std::error::Error;
        // The address may hold a secret.
        let error = error.without_url();
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::again(format!("{error}{cause}"))
    }
}

impl AsConflict for DeliveryError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}
