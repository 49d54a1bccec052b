//! What happens, as it happens.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::header,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;

use super::{
    Api,
    access::Session,
    problem::{Always, Problem},
};
use crate::http::Visit;

/// How often something is sent to a client to whom nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events as they happen
///
/// Server-sent events: each has in `data` an object as `tr111 watch --json` prints it, with `time` and `event`. A client
/// that is too slow misses some, and gets one of the name `lagged` whose `data` is how many. There are 32 streams at a
/// time, 16 of them of one address.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    responses((status = 200, description = "Events, until the client goes or the token is changed.", body = String, content_type = "text/event-stream"), Always)
)]
pub(super) async fn events(
    State(api): State<Api>,
    Extension(visit): Extension<Visit>,
    Extension(session): Extension<Session>,
) -> Result<impl IntoResponse, Problem> {
    visit.stream().map_err(|full| Problem::unavailable(full.to_string()))?;
    // Whoever has a token that is no longer in force hears nothing more.
    let ended = Box::pin(session.end());
    let events = stream::unfold((api.acs.events(), ended), async |(mut events, mut ended)| {
        let event = tokio::select! {
            () = &mut ended => return None,
            event = events.recv() => event,
        };
        let event = match event {
            // Plain data of our own always serialises.
            Ok(event) => Event::default().data(serde_json::to_string(&*event).unwrap_or_default()),
            Err(RecvError::Lagged(missed)) => Event::default().event("lagged").data(missed.to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok::<_, Infallible>(event), (events, ended)))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Its connection has the place of a stream, and is good for nothing else afterwards.
    Ok(([(header::CONNECTION, "close")], events))
}
