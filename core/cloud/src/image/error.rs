//! What the image service refuses, in the shape that Glance's answers have.

use std::{io, path::PathBuf};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use orzo_database::{AsConflict, DatabaseError};
use serde_json::json;

use super::format::FormatRefusal;

/// An answer that is not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The request is wrong, or not allowed, or comes at the wrong time.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// For the user.
        message: String,
    },
    /// The data is not what it should be.
    #[error("the image data is refused: {0}")]
    Format(#[from] FormatRefusal),
    /// The database failed.
    #[error("the image database failed")]
    Database(#[from] DatabaseError),
    /// A file failed.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// `write`, `open`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    fn refused(status: StatusCode, message: impl Into<String>) -> Self {
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

    /// 404, the same for what is not there and for what the caller may not see.
    pub fn no_image(id: &str) -> Self {
        Self::refused(StatusCode::NOT_FOUND, format!("No image found with ID {id:.64}"))
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::NOT_FOUND, message)
    }

    /// 409
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::CONFLICT, message)
    }

    /// 410
    pub fn gone(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::GONE, message)
    }

    /// 413
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 416
    pub fn bad_range(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::RANGE_NOT_SATISFIABLE, message)
    }

    /// 503
    pub fn busy(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused { status, .. } => *status,
            // Glance's format inspection answers so.
            Self::Format(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Database(error) if error.is_refusal() => StatusCode::BAD_REQUEST,
            Self::Database(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) | Self::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }
}

impl AsConflict for ImageError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

impl IntoResponse for ImageError {
    fn into_response(self) -> Response {
        let status = self.status();
        let message = match &self {
            Self::Refused { .. } | Self::Format(_) => self.to_string(),
            Self::Database(error) if error.is_refusal() => format!("Invalid input: {error}."),
            // Here the error ends; the user gets no paths and no database words.
            Self::Database(_) | Self::File { .. } => {
                tracing::error!(error = &self as &dyn std::error::Error, "an image request failed");
                match status {
                    StatusCode::SERVICE_UNAVAILABLE => "The image service is busy; try again.".to_owned(),
                    _ => "The image service has failed to answer; its log says why.".to_owned(),
                }
            }
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let body = json!({"message": message, "code": format!("{} {reason}", status.as_u16()), "title": reason});
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Keystone"));
        }
        response
    }
}
