//! UDP Connection Requests, to one CPE or in bulk.

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

/// Maximum jobs that run at a time.
const RUNNING: usize = 4;
/// Maximum jobs that are remembered. A new job replaces the oldest one that has ended.
const REMEMBERED: usize = 64;

/// Number of copies.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Often {
    /// Identical copies of the request, sent 0, 200 and 600 ms after the first (UCR-22).
    #[param(minimum = 1, maximum = 3, default = 3)]
    copies: Option<usize>,
}

/// An order to send Connection Requests to many CPEs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkOrder {
    /// STUNUsername of each CPE. `null`: all CPEs.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    cpes: Option<Vec<String>>,
    /// CPEs per second.
    #[schema(minimum = 1, maximum = 1_000_000)]
    rate: u32,
    /// Identical copies of each request, sent 0, 200 and 600 ms after the first (UCR-22).
    #[serde(default = "every_copy")]
    #[schema(minimum = 1, maximum = 3, default = 3)]
    copies: usize,
}

fn every_copy() -> usize {
    COPIES.len()
}

/// A job that sends Connection Requests to many CPEs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Job {
    /// Number of the job.
    id: u64,
    /// `running`, `finished`, or `failed` if the agent could not continue.
    state: &'static str,
    /// Progress of the job.
    progress: BulkProgress,
    /// Result of the job; `null` until it is finished.
    #[schema(required)]
    summary: Option<BulkSummary>,
}

/// Jobs that send Connection Requests to many CPEs.
#[derive(Serialize, ToSchema)]
pub(super) struct JobList {
    /// Running jobs and the most recently ended ones.
    jobs: Vec<Job>,
}

/// All jobs. Clones share them.
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
    /// Dropping the sender cancels the job. `None` after the job has ended.
    cancel: Option<oneshot::Sender<()>>,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a job with `start` and tracks it, unless [`RUNNING`] jobs are running.
    fn follow(&self, cpes: u64, start: impl FnOnce() -> mpsc::Receiver<Bulk>) -> Result<Job, Problem> {
        let mut known = self.lock();
        if known.jobs.values().filter(|tracked| tracked.cancel.is_some()).count() >= RUNNING {
            return Err(Problem::too_many_requests("four jobs are running; wait, or cancel one"));
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
            // `cancel` drops the sender. This function then returns and drops `steps`, which cancels the bulk.
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

/// Send a Connection Request to a CPE
///
/// Sends a UDP Connection Request from the address and port of the STUN server to the address of the CPE. The response
/// is sent after the last copy.
#[utoipa::path(
    post, path = "/v1/cpes/{name}/connection-requests", tag = "connection requests",
    params(("name" = String, Path, description = "STUNUsername."), Often),
    responses((status = 200, description = "The request was sent.", body = SentRequest), Always, Named, Conflicting)
)]
pub(super) async fn send(
    State(api): State<Api>,
    InPath(name): InPath<String>,
    InQuery(often): InQuery<Often>,
) -> Result<Response, Problem> {
    let copies = copies(often.copies.unwrap_or_else(every_copy)).map_err(Problem::bad_request)?;
    Ok(json(&api.acs.send(&name, copies).await?))
}

/// Send Connection Requests to many CPEs
///
/// Starts a job that runs in the background. `Location` has its path.
#[utoipa::path(
    post, path = "/v1/connection-requests", tag = "connection requests", request_body = BulkOrder,
    responses(
        (
            status = 202, description = "The job was started.", body = Job,
            headers(("Location" = String, description = "Path of the job."))
        ),
        Always, WithBody, TooMany
    )
)]
pub(super) async fn start(State(api): State<Api>, Body(order): Body<BulkOrder>) -> Result<Response, Problem> {
    let BulkOrder { cpes, rate, copies: often } = order;
    let often = copies(often).map_err(Problem::unprocessable)?;
    if !(1..=1_000_000).contains(&rate) {
        return Err(Problem::unprocessable("rate must be 1 to 1000000"));
    }
    let (count, selection) = match cpes {
        Some(names) => (names.len() as u64, Selection::Names(names)),
        None => (api.acs.size().cpes, Selection::All),
    };
    let job = api.jobs.follow(count, || api.acs.send_many(selection, rate, often))?;
    let location = format!("/v1/connection-requests/{}", job.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], json(&job)).into_response())
}

/// List jobs
#[utoipa::path(
    get, path = "/v1/connection-requests", tag = "connection requests",
    responses((status = 200, description = "The jobs.", body = JobList), Always)
)]
pub(super) async fn jobs(State(api): State<Api>) -> Response {
    json(&JobList { jobs: api.jobs.lock().jobs.values().map(|tracked| tracked.job.clone()).collect() })
}

/// Read a job
#[utoipa::path(
    get, path = "/v1/connection-requests/{id}", tag = "connection requests",
    params(("id" = u64, Path, description = "Number of the job.")),
    responses((status = 200, description = "The job.", body = Job), Always, Named)
)]
pub(super) async fn job(State(api): State<Api>, InPath(id): InPath<u64>) -> Result<Response, Problem> {
    let job = api.jobs.lock().jobs.get(&id).map(|tracked| tracked.job.clone());
    Ok(json(&job.ok_or_else(no_job)?))
}

/// Cancel and forget a job
///
/// Remaining copies of requests whose first copy was sent are still sent.
#[utoipa::path(
    delete, path = "/v1/connection-requests/{id}", tag = "connection requests",
    params(("id" = u64, Path, description = "Number of the job.")),
    responses((status = 204, description = "The job was cancelled and forgotten."), Always, Named)
)]
pub(super) async fn cancel(State(api): State<Api>, InPath(id): InPath<u64>) -> Result<StatusCode, Problem> {
    api.jobs.lock().jobs.remove(&id).ok_or_else(no_job)?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_job() -> Problem {
    Problem::not_found("no job has this number, or it was forgotten")
}

fn copies(asked: usize) -> Result<usize, String> {
    let most = COPIES.len();
    if (1..=most).contains(&asked) { Ok(asked) } else { Err(format!("copies must be 1 to {most}, not {asked}")) }
}
