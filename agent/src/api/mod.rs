//! The HTTP interface of the ACS: JSON for the ACS beside which it runs.
//!
//! | module | does |
//! | --- | --- |
//! | `listener` | the address, TLS, and what clients may take: connections, bytes and time (`crate::http`) |
//! | `access`, `token` | who may ask: the holder of the token, or without one whoever is on this machine |
//! | `extract`, `problem` | what comes in, and what goes wrong (RFC 9457) |
//! | `cpes`, `connection_requests`, `associations`, `events` | what may be asked |
//! | `document` | the OpenAPI document, made of the same functions as the routes |

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

/// Most bytes of a request's body: a table of 65,536 rows fits.
const BODY: usize = 16 << 20;

/// What every request works with.
#[derive(Clone, Debug)]
struct Api {
    acs: Acs,
    jobs: Jobs,
    /// The OpenAPI document.
    document: axum::body::Bytes,
}

/// Everything that may be asked.
fn router(acs: Acs, access: Access) -> Router {
    let (routes, document) = document::routes().split_for_parts();
    // Plain data of our own always serialises.
    let document = document.to_json().unwrap_or_default().into();
    routes
        .fallback(async |uri: Uri| Problem::not_found(format!("there is nothing at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::method_not_allowed(format!("{} cannot be asked with {method}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(listener::AT_WORK)), listener::in_time))
        .layer(middleware::from_fn_with_state(acs.clone(), readable))
        .layer(middleware::from_fn_with_state(access, access::check))
        .with_state(Api { acs, jobs: Jobs::default(), document })
}

/// Refuses everything but the document while the registry cannot be read.
async fn readable(State(acs): State<Acs>, request: Request, next: Next) -> Response {
    match acs.readable() {
        Err(error) if request.uri().path() != document::PATH => Problem::from(error).into_response(),
        _ => next.run(request).await,
    }
}
