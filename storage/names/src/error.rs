//! Why names cannot be read, or their table not be written.

use std::{io, path::PathBuf};

use orzo_index::IndexError;
use orzo_store::StoreError;

/// Why names cannot be read, or their table not be written.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The index does not answer.
    #[error("cannot read names")]
    Index(#[from] IndexError),
    /// The store does not answer.
    #[error("cannot read points")]
    Store(#[from] StoreError),
    /// A stream of points is not whole.
    #[error("the stream of points is not whole: {reason}")]
    Frames {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of the table cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is left of the disk is for points.
    #[error("{free} bytes of disk are free; the table of names is written when there are {reserve} again")]
    NoRoom {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be.
        reserve: u64,
    },
    /// Rows cannot be put into a file.
    #[error("cannot encode names")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The runtime is being shut down.
    #[error("cannot write names: {reason}")]
    Ended {
        /// What the runtime says.
        reason: String,
    },
}

impl NamesError {
    pub(crate) fn encode(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Encode(Box::new(error))
    }
}
