//! What goes wrong, as problem details (RFC 9457).

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, PartialSchema as _, ToSchema,
    openapi::{Content, RefOr, response},
};

use super::extract;
use crate::service::acs;

/// The media type of a problem.
const MEDIA_TYPE: &str = "application/problem+json";

/// Why something was not done (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    pub(super) fn request_timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub(super) fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    pub(super) fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }
}

impl From<acs::Error> for Problem {
    fn from(error: acs::Error) -> Self {
        use acs::Error as E;
        let status = match &error {
            E::Unknown => StatusCode::NOT_FOUND,
            // What is known of the CPE does not allow it, and may change.
            E::Taken
            | E::Full { .. }
            | E::NoDestination
            | E::NoCredentials
            | E::Unresolved { .. }
            | E::TooLong(_)
            | E::NotSent(_) => StatusCode::CONFLICT,
            E::Text { .. } | E::Association(_) => StatusCode::UNPROCESSABLE_ENTITY,
            E::Unreadable(_) | E::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, extract::json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Problems of these statuses, for the document.
fn responses<const N: usize>(statuses: [(StatusCode, &str); N]) -> BTreeMap<String, RefOr<response::Response>> {
    let describe = |(status, description): (StatusCode, &str)| {
        let content = Content::builder().schema(Some(Problem::schema())).build();
        let response = response::Response::builder().description(description).content(MEDIA_TYPE, content).build();
        (status.as_str().to_owned(), RefOr::T(response))
    };
    statuses.into_iter().map(describe).collect()
}

/// What may go wrong with every request.
pub(super) struct Always;

impl IntoResponses for Always {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([
            (StatusCode::BAD_REQUEST, "The request is not understood."),
            (StatusCode::UNAUTHORIZED, "The token is missing or wrong."),
            (
                StatusCode::FORBIDDEN,
                "A page of another origin asks; or no token is asked for, so the request has to be for this very machine.",
            ),
            (StatusCode::REQUEST_TIMEOUT, "The request came too slowly."),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "The store does not answer or cannot be read, or there are too many event streams.",
            ),
        ])
    }
}

/// What may go wrong with every body.
pub(super) struct WithBody;

impl IntoResponses for WithBody {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not said to be JSON."),
            (StatusCode::UNPROCESSABLE_ENTITY, "The body is JSON and does not hold what it should."),
        ])
    }
}

/// What may go wrong with something that has a name.
pub(super) struct Named;

impl IntoResponses for Named {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([(StatusCode::NOT_FOUND, "Nobody has this name.")])
    }
}

/// What may contradict what is known.
pub(super) struct Conflicting;

impl IntoResponses for Conflicting {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([(StatusCode::CONFLICT, "What is known contradicts, or is not enough.")])
    }
}

/// What may be more than is done at a time.
pub(super) struct TooMany;

impl IntoResponses for TooMany {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([(StatusCode::TOO_MANY_REQUESTS, "Too much is done already.")])
    }
}
