//! Errors as problem details (RFC 9457).

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

const MEDIA_TYPE: &str = "application/problem+json";

/// Problem details (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status is the kind of the problem.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Reason phrase of the status.
    title: &'static str,
    /// HTTP status code.
    status: u16,
    /// Explanation for this request.
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

/// Responses with these statuses, for the OpenAPI document.
fn responses<const N: usize>(statuses: [(StatusCode, &str); N]) -> BTreeMap<String, RefOr<response::Response>> {
    let describe = |(status, description): (StatusCode, &str)| {
        let content = Content::builder().schema(Some(Problem::schema())).build();
        let response = response::Response::builder().description(description).content(MEDIA_TYPE, content).build();
        (status.as_str().to_owned(), RefOr::T(response))
    };
    statuses.into_iter().map(describe).collect()
}

/// Errors of all requests.
pub(super) struct Always;

impl IntoResponses for Always {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([
            (StatusCode::BAD_REQUEST, "The request is malformed."),
            (StatusCode::UNAUTHORIZED, "The token is missing or wrong."),
            (
                StatusCode::FORBIDDEN,
                "A web page of another origin sent the request, or without a token its Host is not a loopback name.",
            ),
            (StatusCode::REQUEST_TIMEOUT, "The request was not received in time."),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "The registry does not answer or cannot be read, or there are too many event streams.",
            ),
        ])
    }
}

/// Errors of requests with a body.
pub(super) struct WithBody;

impl IntoResponses for WithBody {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The Content-Type of the body is not application/json."),
            (StatusCode::UNPROCESSABLE_ENTITY, "The body is JSON, but has an invalid form or value."),
        ])
    }
}

/// Errors of requests for one named resource.
pub(super) struct Named;

impl IntoResponses for Named {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([(StatusCode::NOT_FOUND, "There is no such resource.")])
    }
}

/// Errors of requests that depend on the state of a CPE.
pub(super) struct Conflicting;

impl IntoResponses for Conflicting {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([(StatusCode::CONFLICT, "The state of the CPE does not allow the request, or the name is taken.")])
    }
}

/// Errors of requests that start jobs.
pub(super) struct TooMany;

impl IntoResponses for TooMany {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        responses([(StatusCode::TOO_MANY_REQUESTS, "The maximum number of jobs is running.")])
    }
}
