//! Points in the forms that other monitoring systems send: Prometheus remote write 1.0 and 2.0, InfluxDB line protocol,
//! OpenTelemetry (OTLP).
//!
//! Bodies come in; out come series and samples that borrow from them. Sizes that a body declares are held against the
//! limits here before any memory is taken for them. This room knows no series numbers, no store and no tenant.

use http::StatusCode;

use crate::problem::Problem;

pub(crate) mod admission;
pub(crate) mod histograms;
pub(crate) mod labelled;
pub(crate) mod line_protocol;
pub(crate) mod otlp;
pub(crate) mod protobuf;
pub(crate) mod remote_write;
pub(crate) mod snappy;

/// The most that a compressed body may become; Prometheus' own receiver stops at the same size, and 100,000 series of
/// ten labels fit.
pub(crate) const DECODED_BYTES_MAX: usize = 32 << 20;
/// Samples of one request: their points take 24 bytes each and must fit one record of the log.
pub(crate) const SAMPLES_MAX: usize = 500_000;

/// Exemplars of one request; Prometheus sends some hundreds.
pub(crate) const EXEMPLARS_MAX: usize = 10_000;

/// Why a body cannot be taken. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    /// It would become too large.
    #[error(
        "the body claims {claimed} bytes decompressed, at most {DECODED_BYTES_MAX} are taken; send smaller requests"
    )]
    ClaimsTooMuch {
        /// What its header says.
        claimed: usize,
    },
    /// It has too many samples.
    #[error("the body has more than {SAMPLES_MAX} samples; send smaller requests")]
    TooManySamples,
    /// It cannot be decompressed.
    #[error("the body is not a snappy block: {reason}")]
    NotSnappy {
        /// What is wrong.
        reason: String,
    },
    /// It is not what its format says.
    #[error("the body cannot be read at byte {at}: {what}")]
    Malformed {
        /// Where, in the decompressed body.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A field of it is something else than its format says.
    #[error("the body cannot be read: {place}: {what}")]
    Misformed {
        /// The path of the field.
        place: String,
        /// What is wrong there.
        what: &'static str,
    },
}

impl IngestError {
    /// The reason under which it is counted.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::ClaimsTooMuch { .. } | Self::TooManySamples => "too large",
            Self::NotSnappy { .. } | Self::Malformed { .. } | Self::Misformed { .. } => "malformed",
        }
    }

    /// The status that tells it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::ClaimsTooMuch { .. } | Self::TooManySamples => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotSnappy { .. } | Self::Malformed { .. } | Self::Misformed { .. } => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}
