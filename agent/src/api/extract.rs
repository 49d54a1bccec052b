//! Parsing of requests and writing of responses.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{BODY, problem::Problem};

const JSON: &str = "application/json";

/// A response with a JSON body.
pub(super) fn json(value: &impl Serialize) -> Response {
    // The types of this API always serialise.
    let body = serde_json::to_vec(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// The JSON body of a request.
#[derive(Debug)]
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type(format!("send the body with Content-Type: {JSON}")));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(format!("the body has more than {BODY} bytes")),
                _ => Problem::bad_request("the body is incomplete"),
            }
        })?;
        let body = serde_json::from_slice(&body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Problem::unprocessable(error.to_string()),
            _ => Problem::bad_request(format!("the body is not JSON: {error}")),
        })?;
        Ok(Self(body))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(JSON))
}

/// Parameters in the path.
#[derive(Debug)]
pub(super) struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(path)| Self(path)).map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// Parameters in the query.
#[derive(Debug)]
pub(super) struct InQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// Checks the size of a page; the default is 100.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(100) {
        limit @ 1..=1_000 => Ok(limit),
        limit => Err(Problem::bad_request(format!("limit must be 1 to 1000, not {limit}"))),
    }
}
