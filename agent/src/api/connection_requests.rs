//! Connection Requests, one or very many.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tr111_core::connreq::COPIES;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Body, InPath, InQuery, json},
    problem::{Always, Conflicting, Named, Problem, TooMany, WithBody},
};
use crate::{
    control::message::{BulkProgress, BulkSummary, SentRequest},
    service::acs::{Bulk, Selection},
};

/// Most jobs that run at a time.
const RUNNING: usize = 4;
/// Most jobs that are remembered; of those that ended, the oldest is forgotten for a new one.
const REMEMBERED: usize = 64;

/// How often it is sent.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Often {
    /// Identical copies, spaced (UCR-22).
    #[param(minimum = 1, maximum = 3, default = 3)]
    copies: Option<usize>,
}

/// Who is to be woken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkOrder {
    /// `STUNUsername`s; `null`: every CPE.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    cpes: Option<Vec<String>>,
    /// CPEs a second.
    #[schema(minimum = 1, maximum = 1_000_000)]
    rate: u32,
    /// Identical copies to each, spaced (UCR-22).
    #[serde(default = "every_copy")]
    #[schema(minimum = 1, maximum = 3, default = 3)]
    copies: usize,
}

fn every_copy() -> usize {
    COPIES.len()
}

/// A bulk of Connection Requests.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Job {
    /// Its number.
    id: u64,
    /// `running`, `finished`, or `failed` where the agent could not go on.
    state: &'static str,
    /// How far it is.
    progress: BulkProgress,
    /// What became of it; `null` until it is finished.
    #[schema(required)]
    summary: Option<BulkSummary>,
}

/// Bulks of Connection Requests.
#[derive(Serialize, ToSchema)]
pub(super) struct JobList {
    /// Those that run and the latest that ended.
    jobs: Vec<Job>,
}

/// All jobs; every copy is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    last: u64,
    jobs: BTreeMap<u64, Tracked>,
}

#[derive(Debug)]
struct Tracked {
    job: Job,
    /// Dropped, it ends the job. Nothing once that ended.
    cancel: Option<oneshot::Sender<()>>,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a job that `start` starts, unless there are too many.
    fn follow(&self, cpes: u64, start: impl FnOnce() -> mpsc::Receiver<Bulk>) -> Result<Job, Problem> {
        let mut known = self.lock();
        if known.jobs.values().filter(|tracked| tracked.cancel.is_some()).count() >= RUNNING {
            return Err(Problem::too_many_requests("four jobs run already; wait, or cancel one"));
        }
        if known.jobs.len() >= REMEMBERED {
            let oldest = known.jobs.iter().find(|(_, tracked)| tracked.cancel.is_none()).map(|(id, _)| *id);
            oldest.and_then(|id| known.jobs.remove(&id));
        }
        known.last += 1;
        let id = known.last;
        let (cancel, cancelled) = oneshot::channel();
        let job = Job { id, state: "running", progress: BulkProgress { done: 0, cpes }, summary: None };
        known.jobs.insert(id, Tracked { job: job.clone(), cancel: Some(cancel) });
        tokio::spawn(self.clone().track(id, start(), cancelled));
        Ok(job)
    }

    async fn track(self, id: u64, mut steps: mpsc::Receiver<Bulk>, mut cancelled: oneshot::Receiver<()>) {
        loop {
            // Who cancels drops the sender, and with this function the bulk's receiver goes, which ends the bulk.
            let step = tokio::select! {
                step = steps.recv() => step,
                _ = &mut cancelled => None,
            };
            let mut known = self.lock();
            let Some(tracked) = known.jobs.get_mut(&id) else { return };
            match step {
                Some(Bulk::Progress(progress)) => tracked.job.progress = progress,
                Some(Bulk::Finished(summary)) => {
                    tracked.job.progress = BulkProgress { done: summary.cpes, cpes: summary.cpes };
                    tracked.job.summary = Some(summary);
                    tracked.job.state = "finished";
                    tracked.cancel = None;
                    return;
                }
                None => {
                    tracked.job.state = "failed";
                    tracked.cancel = None;
                    return;
                }
            }
        }
    }
}

/// Wake a CPE
///
/// Sends a UDP Connection Request from the address and port of the STUN server to where the CPE is known to be, and
/// answers when the last copy has left.
#[utoipa::path(
    post, path = "/v1/cpes/{name}/connection-requests", tag = "connection requests",
    params(("name" = String, Path, description = "STUNUsername."), Often),
    responses((status = 200, description = "It left.", body = SentRequest), Always, Named, Conflicting)
)]
pub(super) async fn send(
    State(api): State<Api>,
    InPath(name): InPath<String>,
    InQuery(often): InQuery<Often>,
) -> Result<Response, Problem> {
    let copies = copies(often.copies.unwrap_or_else(every_copy)).map_err(Problem::bad_request)?;
    Ok(json(&api.acs.send(&name, copies).await?))
}

/// Wake many CPEs
///
/// Starts a job, which goes on by itself; its path is in `Location`.
#[utoipa::path(
    post, path = "/v1/connection-requests", tag = "connection requests", request_body = BulkOrder,
    responses(
        (status = 202, description = "It has begun.", body = Job, headers(("Location" = String, description = "Its path."))),
        Always, WithBody, TooMany
    )
)]
pub(super) async fn start(State(api): State<Api>, Body(order): Body<BulkOrder>) -> Result<Response, Problem> {
    let BulkOrder { cpes, rate, copies: often } = order;
    let often = copies(often).map_err(Problem::unprocessable)?;
    if !(1..=1_000_000).contains(&rate) {
        return Err(Problem::unprocessable("rate is 1 to 1000000"));
    }
    let (count, selection) = match cpes {
        Some(names) => (names.len() as u64, Selection::Names(names)),
        None => (api.acs.size().cpes, Selection::All),
    };
    let job = api.jobs.follow(count, || api.acs.send_many(selection, rate, often))?;
    let location = format!("/v1/connection-requests/{}", job.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], json(&job)).into_response())
}

/// Jobs that wake many CPEs
#[utoipa::path(
    get, path = "/v1/connection-requests", tag = "connection requests",
    responses((status = 200, description = "They.", body = JobList), Always)
)]
pub(super) async fn jobs(State(api): State<Api>) -> Response {
    json(&JobList { jobs: api.jobs.lock().jobs.values().map(|tracked| tracked.job.clone()).collect() })
}

/// One of them
#[utoipa::path(
    get, path = "/v1/connection-requests/{id}", tag = "connection requests",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "It.", body = Job), Always, Named)
)]
pub(super) async fn job(State(api): State<Api>, InPath(id): InPath<u64>) -> Result<Response, Problem> {
    let job = api.jobs.lock().jobs.get(&id).map(|tracked| tracked.job.clone());
    Ok(json(&job.ok_or_else(no_job)?))
}

/// Cancel and forget one of them
///
/// CPEs whose first copy has left get the others.
#[utoipa::path(
    delete, path = "/v1/connection-requests/{id}", tag = "connection requests",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 204, description = "It is gone."), Always, Named)
)]
pub(super) async fn cancel(State(api): State<Api>, InPath(id): InPath<u64>) -> Result<StatusCode, Problem> {
    api.jobs.lock().jobs.remove(&id).ok_or_else(no_job)?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_job() -> Problem {
    Problem::not_found("there is no job of this number, or it was forgotten")
}

fn copies(asked: usize) -> Result<usize, String> {
    let most = COPIES.len();
    if (1..=most).contains(&asked) { Ok(asked) } else { Err(format!("copies is 1 to {most}, not {asked}")) }
}
