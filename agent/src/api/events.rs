//! The event stream.

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

/// Interval of keep-alive comments while there are no events.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Stream events
///
/// Server-sent events. The `data` of each is the JSON object that `tr111 watch --json` prints, with `time` and `event`.
/// A client that reads too slowly loses events and gets an event named `lagged`, whose `data` is the number of lost
/// events. At most 32 streams are open at a time, at most 16 of them from one address.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    responses(
        (
            status = 200, description = "Events, until the client disconnects or the token changes.", body = String,
            content_type = "text/event-stream"
        ),
        Always
    )
)]
pub(super) async fn events(
    State(api): State<Api>,
    Extension(visit): Extension<Visit>,
    Extension(session): Extension<Session>,
) -> Result<impl IntoResponse, Problem> {
    visit.stream().map_err(|full| Problem::unavailable(full.to_string()))?;
    // End the stream when the token changes.
    let ended = Box::pin(session.end());
    let events = stream::unfold((api.acs.events(), ended), async |(mut events, mut ended)| {
        let event = tokio::select! {
            () = &mut ended => return None,
            event = events.recv() => event,
        };
        let event = match event {
            // Events always serialise.
            Ok(event) => Event::default().data(serde_json::to_string(&*event).unwrap_or_default()),
            Err(RecvError::Lagged(missed)) => Event::default().event("lagged").data(missed.to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok::<_, Infallible>(event), (events, ended)))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // The connection counts as a stream, so it is not reused for other requests.
    Ok(([(header::CONNECTION, "close")], events))
}
