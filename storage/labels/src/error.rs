//! What can go wrong with the label index.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the label index has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The disk said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// Something on disk is not what was written.
    #[error("{} is damaged at byte {at}: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// Another process has it open.
    #[error("another process has {} open", directory.display())]
    Locked {
        /// Where it lies.
        directory: PathBuf,
    },
    /// Too much waits; the same may be taken later.
    #[error("the label index is busy: {reason}")]
    Busy {
        /// With what.
        reason: String,
    },
    /// The disk is full; the same may be taken when there is room again.
    #[error("the disk has no room for new labels")]
    DiskFull,
    /// It takes nothing any more; what was acknowledged is on disk.
    #[error("the label index is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// No numbers for new series.
    #[error("there are no numbers for new series now: {reason}")]
    NoNumbers {
        /// Why.
        reason: String,
    },
}

impl LabelError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::DiskFull | Self::Closed { .. } | Self::NoNumbers { .. })
    }

    pub(crate) fn damaged(path: &Path, at: u64, reason: String) -> Self {
        Self::Damaged { path: path.to_owned(), at, reason }
    }

    pub(crate) fn closed(reason: impl ToString) -> Self {
        Self::Closed { reason: reason.to_string() }
    }

    /// The same for the next who waits.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::DiskFull => Self::DiskFull,
            Self::Closed { reason } => Self::closed(reason),
            other => Self::Busy { reason: other.to_string() },
        }
    }
}

/// Says what was done to which file when the disk said no.
pub(crate) trait At<T> {
    /// `Err` with action and path.
    fn at(self, action: &'static str, path: &Path) -> Result<T, LabelError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LabelError> {
        self.map_err(|source| LabelError::Io { action, path: path.to_owned(), source })
    }
}
