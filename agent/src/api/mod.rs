//! The HTTP API of `tr111 run acs`: JSON for the ACS that runs next to it.
//!
//! | module | does |
//! | --- | --- |
//! | `listener` | address, TLS, and limits on connections, bytes and time (`crate::http`) |
//! | `access`, `token` | access control: by the token, or without a token by the loopback address |
//! | `extract`, `problem` | parsing of requests, and errors as problem details (RFC 9457) |
//! | `cpes`, `connection_requests`, `associations`, `events` | the routes |
//! | `document` | the OpenAPI document, generated from the routes |

mod access;
mod associations;
mod connection_requests;
mod cpes;
mod document;
mod events;
mod extract;
mod listener;
mod problem;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

pub(crate) use cpes::escape;
pub use listener::{Error, Listening, Renewal, Settings};
pub use token::{FILE as TOKEN_FILE, Token};

use self::{access::Access, connection_requests::Jobs, problem::Problem};
use crate::service::acs::Acs;

/// Maximum bytes of a request's body. A table of 65,536 rows fits.
const BODY: usize = 16 << 20;

/// State that all routes share.
#[derive(Clone, Debug)]
struct Api {
    acs: Acs,
    jobs: Jobs,
    /// The OpenAPI document.
    document: axum::body::Bytes,
}

/// All routes.
fn router(acs: Acs, access: Access) -> Router {
    let (routes, document) = document::routes().split_for_parts();
    // The document always serialises.
    let document = document.to_json().unwrap_or_default().into();
    routes
        .fallback(async |uri: Uri| Problem::not_found(format!("there is no resource {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::method_not_allowed(format!("{} does not support the method {method}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(listener::AT_WORK)), listener::in_time))
        .layer(middleware::from_fn_with_state(acs.clone(), readable))
        .layer(middleware::from_fn_with_state(access, access::check))
        .with_state(Api { acs, jobs: Jobs::default(), document })
}

/// Refuses all requests except for the OpenAPI document while the registry cannot be read.
async fn readable(State(acs): State<Acs>, request: Request, next: Next) -> Response {
    match acs.readable() {
        Err(error) if request.uri().path() != document::PATH => Problem::from(error).into_response(),
        _ => next.run(request).await,
    }
}
