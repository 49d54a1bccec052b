//! Threads and tasks that the agent cannot do without.
//!
//! One that panics ends alone: its work is not done any more, while all else goes on and looks healthy. So a panic of one that
//! is started here ends the agent, with an error that names it, and whoever supervises the agent starts it anew. Work for one
//! client after the other is done in [`Rounds`]: one round may panic, but not again and again.

use std::{
    any::Any,
    collections::VecDeque,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::LazyLock,
    task::Poll,
    thread::{self, Builder},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task};

/// Rounds that may panic within [`PERIOD`].
const TOLERATED: usize = 9;
/// How long a panic counts.
const PERIOD: Duration = Duration::from_mins(1);

/// What failed in this process, which is one agent.
static FAILURES: LazyLock<watch::Sender<Vec<Failure>>> = LazyLock::new(watch::Sender::default);

/// An essential thread or task ended by a panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} panicked ({reason}); the agent cannot do without it and ends")]
pub struct Failure {
    /// Which.
    pub name: &'static str,
    /// What the panic said.
    pub reason: String,
}

/// Starts a thread.
///
/// # Errors
/// The system has no thread.
pub fn thread(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(failure) = caught(name, work) {
            fail(failure);
        }
    })
}

/// Starts a task. Needs a tokio runtime.
pub fn task(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> task::JoinHandle<()> {
    tokio::spawn(watched(name, work))
}

/// What [`task`] starts, for those who start tasks of a runtime from elsewhere.
pub async fn watched(name: &'static str, work: impl Future<Output = ()>) {
    if let Err(failure) = caught_task(name, work).await {
        fail(failure);
    }
}

/// Waits for the first failure.
pub async fn failed() -> Failure {
    let mut failures = FAILURES.subscribe();
    loop {
        if let Some(first) = failures.borrow_and_update().first() {
            return first.clone();
        }
        // The sender is always there.
        let _ = failures.changed().await;
    }
}

/// Ends the agent.
pub fn fail(failure: Failure) {
    tracing::error!(name = failure.name, reason = failure.reason, "an essential part of the agent panicked");
    FAILURES.send_modify(|failures| failures.push(failure));
}

/// What failed in this process.
#[cfg(test)]
pub(crate) fn failures() -> Vec<Failure> {
    FAILURES.borrow().clone()
}

/// Does something, and catches its panic. Whoever goes on afterwards answers for what it left half done.
fn caught(name: &'static str, work: impl FnOnce()) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Failure { name, reason: said(&*panic) })
}

async fn caught_task(name: &'static str, work: impl Future<Output = ()>) -> Result<(), Failure> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let mut poll = Poll::Pending;
        match caught(name, || poll = work.as_mut().poll(context)) {
            Ok(()) => poll.map(Ok),
            Err(failure) => Poll::Ready(Err(failure)),
        }
    })
    .await
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// Rounds of the same work, of which some may panic.
#[derive(Debug)]
pub struct Rounds {
    name: &'static str,
    panics: VecDeque<Instant>,
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// By itself.
    Done,
    /// By a panic.
    Panicked(Failure),
    /// By a panic, after so many others that there is no use in going on.
    Hopeless(Failure),
}

impl Rounds {
    /// Rounds of the thread `name`.
    pub fn new(name: &'static str) -> Self {
        Self { name, panics: VecDeque::new() }
    }

    /// Does a round. Whoever goes on after a panic answers for what it left half done.
    pub fn run(&mut self, work: impl FnOnce()) -> Round {
        let Err(failure) = caught(self.name, work) else { return Round::Done };
        let now = Instant::now();
        self.panics.retain(|panic| now.duration_since(*panic) < PERIOD);
        self.panics.push_back(now);
        if self.panics.len() > TOLERATED { Round::Hopeless(failure) } else { Round::Panicked(failure) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(name: &'static str) -> Failure {
        Failure { name, reason: "out of cheese".to_owned() }
    }

    /// Who waits for a failure hears of a thread and of a task that panic, by name.
    #[tokio::test]
    async fn who_panics_is_named() {
        task("a good task", async {}).await.expect("no panic");
        thread("a good thread", || {}).expect("a thread").join().expect("no panic");
        // The task goes on after its first wait.
        let work = async {
            task::yield_now().await;
            panic!("out of {}", "cheese");
        };
        task("a task", work).await.expect("the panic is caught");
        thread("a thread", || panic!("out of cheese")).expect("a thread").join().expect("the panic is caught");
        // Others panic in this process of tests.
        let failures = failures();
        assert_eq!(failed().await, failures[0]);
        for name in ["a task", "a thread"] {
            assert!(failures.contains(&failure(name)), "{failures:?}");
        }
        assert!(!failures.iter().any(|failure| failure.name.starts_with("a good")), "{failures:?}");
        assert!(failure("a task").to_string().contains("a task panicked (out of cheese)"));
    }

    /// A round that panics leaves the others, until they panic again and again.
    #[test]
    fn rounds_go_on_until_they_panic_again_and_again() {
        let (mut rounds, mut done) = (Rounds::new("a thread"), 0);
        for _ in 0..TOLERATED {
            assert_eq!(rounds.run(|| done += 1), Round::Done);
            assert_eq!(rounds.run(|| panic!("out of cheese")), Round::Panicked(failure("a thread")));
        }
        assert_eq!(done, TOLERATED);
        assert_eq!(rounds.run(|| panic!("out of cheese")), Round::Hopeless(failure("a thread")));
        // Those of long ago do not count.
        let (mut rounds, long_ago) = (Rounds::new("a thread"), Instant::now().checked_sub(PERIOD * 2));
        rounds.panics = vec![long_ago.expect("this machine is up"); TOLERATED].into();
        assert_eq!(rounds.run(|| panic!("out of cheese")), Round::Panicked(failure("a thread")));
    }
}
