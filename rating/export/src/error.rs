//! What can go wrong with an export.

use std::path::{Path, PathBuf};

use orzo_rating::LedgerError;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `write`, `make` ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something that this profile cannot say.
    #[error("line {line} cannot be exported: {reason}")]
    Line {
        /// Id of the line.
        line: uuid::Uuid,
        /// What is wrong with it.
        reason: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Request(String),
    /// Nothing was rated since the run before.
    #[error("nothing was rated since the last run")]
    Nothing,
    /// The catalogue.
    #[error("the catalogue {}: {reason}", path.display())]
    Catalogue {
        /// Its file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// What is there is not what its manifest says.
    #[error("{0}")]
    Changed(String),
}

impl ExportError {
    /// Of a file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
