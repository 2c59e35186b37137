//! Why a request has no answer: the error, and what to do. Programs get it as RFC 9457 has it, people as a page.

use super::access::Denied;
use crate::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// The error and what to do, in words.
    pub(super) detail: String,
}

/// What most handlers return.
pub(super) type OrProblem<T> = Result<T, Problem>;

impl Problem {
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, detail: detail.into() }
    }

    /// The request says something that cannot be.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into() }
    }

    /// The state of things does not allow it.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, detail: detail.into() }
    }

    /// The answer would take too long now.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail: detail.into() }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let status = if denied == Denied::Unknown { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        Self { status, detail: denied.words().to_owned() }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = if error.is_transient() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            tracing::warn!(error = %error, "a page or an answer of the API could not be made");
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self { status, detail: error.to_string() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = Json(json!({ "title": title, "status": self.status.as_u16(), "detail": self.detail }));
        let mut response = (self.status, body).into_response();
        // By this the dashboard makes a page of it.
        response.extensions_mut().insert(self.clone());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
