//! What can go wrong in the store, in the reader's words.

use std::{io, path::PathBuf};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process (or another store in this one) has the directory.
    #[error("{directory} is open in another process; stop that one first")]
    Locked {
        /// The store's directory.
        directory: PathBuf,
    },
    /// The disk refused.
    #[error("cannot {action} {path}")]
    Io {
        /// `write`, `open` ...
        action: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What is on disk is not what was written (contract C3). Nothing is skipped: restore the file from a backup.
    #[error("{path} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not match.
        reason: String,
    },
    /// Written by a newer version, or not by Orzo.
    #[error("{path} has a format that this version does not know: {reason}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is unknown.
        reason: String,
    },
    /// A write or a sync failed, or the store was closed: it takes nothing until it is opened again, which recovers.
    #[error("the store is closed: {reason}")]
    Closed {
        /// What closed it.
        reason: String,
    },
    /// Too much is waiting.
    #[error("the store is busy: {reason}")]
    Busy {
        /// What is full.
        reason: String,
    },
    /// Free space has reached the reserve that files and recovery need. Reads go on; so do appends once there is room.
    #[error("the disk is nearly full: {free_bytes} bytes free, {reserve_bytes} are kept in reserve")]
    DiskFull {
        /// Free now.
        free_bytes: u64,
        /// Kept free, `disk_reserve_bytes`.
        reserve_bytes: u64,
    },
    /// The question or the points are wrong; asking again does not help.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The answer is larger than a scan may be.
    #[error("the answer has more than {points_max} points; ask for fewer series or a shorter time")]
    TooManyPoints {
        /// `scan_points_max`, or what the caller allowed.
        points_max: usize,
    },
    /// A read that was to look into memory only would have needed the disk.
    #[error("what is asked for is not in memory")]
    NotInMemory,
    /// Whoever asked wants no more ([`crate::Reducer`]).
    #[error("the read was stopped by whoever asked for it")]
    Stopped,
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Closed { .. } | Self::Busy { .. } | Self::DiskFull { .. } => true,
            Self::Locked { .. }
            | Self::Damaged { .. }
            | Self::Format { .. }
            | Self::Invalid { .. }
            | Self::TooManyPoints { .. }
            | Self::NotInMemory
            | Self::Stopped => false,
        }
    }

    pub(crate) fn closed(reason: impl ToString) -> Self {
        Self::Closed { reason: reason.to_string() }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, offset: u64, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), offset, reason: reason.to_string() }
    }

    /// Short and stable, for counters.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "locked",
            Self::Io { .. } => "disk error",
            Self::Damaged { .. } => "damaged",
            Self::Format { .. } => "unknown format",
            Self::Closed { .. } => "closed",
            Self::Busy { .. } => "busy",
            Self::DiskFull { .. } => "disk full",
            Self::Invalid { .. } => "invalid",
            Self::TooManyPoints { .. } => "too many points",
            Self::NotInMemory => "not in memory",
            Self::Stopped => "stopped",
        }
    }
}

/// Adds what was being done, and to which file, to an error of the disk.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { action, path: path.to_owned(), source })
    }
}
