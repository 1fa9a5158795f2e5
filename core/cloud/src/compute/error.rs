//! What the compute service refuses, in the shape that Nova's answers have: `{"itemNotFound": {"code": 404, ...}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use orzo_database::{AsConflict, DatabaseError};
use orzo_hypervisor::HypervisorError;
use serde_json::json;

use crate::image::ImageError;

/// An answer that is not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The request is wrong, or not allowed, or comes at the wrong time.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// For the user.
        message: String,
    },
    /// The database failed.
    #[error("the compute database failed")]
    Database(#[from] DatabaseError),
    /// The hypervisor failed.
    #[error("the hypervisor failed")]
    Hypervisor(#[from] HypervisorError),
    /// The image service said no.
    #[error("the image service failed")]
    Image(#[from] ImageError),
    /// A disk could not be made or removed.
    #[error("cannot {action} the disk of a server")]
    Disk {
        /// `copy`, `remove`.
        action: &'static str,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

impl ComputeError {
    /// An answer with this status.
    pub fn refused(status: StatusCode, message: impl Into<String>) -> Self {
        Self::Refused { status, message: message.into() }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::refused(StatusCode::UNAUTHORIZED, "The request you have made requires authentication.")
    }

    /// 403
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::FORBIDDEN, message)
    }

    /// 403, in the words of Nova's policy.
    pub fn policy(rule: &str) -> Self {
        Self::forbidden(format!("Policy doesn't allow {rule} to be performed."))
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::NOT_FOUND, message)
    }

    /// 404, the same for what is not there and for what the caller may not see.
    pub fn no_server(id: &str) -> Self {
        Self::not_found(format!("Instance {id:.64} could not be found."))
    }

    /// 409
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::CONFLICT, message)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused { status, .. } => *status,
            Self::Database(error) if error.is_refusal() => StatusCode::BAD_REQUEST,
            Self::Database(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Image(error) => error.status(),
            Self::Database(_) | Self::Hypervisor(_) | Self::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Hypervisor(error) => {
                matches!(error, HypervisorError::NotAvailable { .. } | HypervisorError::Deadline { .. })
            }
            _ => self.status() == StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl AsConflict for ComputeError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

impl IntoResponse for ComputeError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::UNAUTHORIZED {
            // keystonemiddleware answers here, not Nova, and in its own shape.
            let body = json!({"error": {"code": 401, "title": "Unauthorized", "message": self.to_string()}});
            let mut response = (status, Json(body)).into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Keystone"));
            return response;
        }
        let message = match &self {
            Self::Refused { .. } => self.to_string(),
            Self::Database(error) if error.is_refusal() => format!("Invalid input: {error}."),
            Self::Image(error) if status.is_client_error() => error.to_string(),
            _ => {
                // Here the error ends; the user gets no paths and no database words.
                tracing::error!(error = &self as &dyn std::error::Error, "a compute request failed");
                match status {
                    StatusCode::SERVICE_UNAVAILABLE => "The compute service is busy; try again.".to_owned(),
                    _ => "Unexpected API Error; the service's log says why.".to_owned(),
                }
            }
        };
        let name = match status {
            StatusCode::BAD_REQUEST => "badRequest",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "itemNotFound",
            StatusCode::METHOD_NOT_ALLOWED => "badMethod",
            StatusCode::CONFLICT => "conflictingRequest",
            StatusCode::PAYLOAD_TOO_LARGE => "overLimit",
            StatusCode::NOT_IMPLEMENTED => "notImplemented",
            StatusCode::SERVICE_UNAVAILABLE => "serviceUnavailable",
            _ => "computeFault",
        };
        let mut body = serde_json::Map::new();
        body.insert(name.to_owned(), json!({"code": status.as_u16(), "message": message}));
        (status, Json(body)).into_response()
    }
}
