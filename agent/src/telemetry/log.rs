//! The log, on stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Changes what is logged while the agent runs.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts the log. The directives are the key `agent.log`, checked by the configuration.
    pub fn start(directives: &str) -> Self {
        let (filter, handle) = reload::Layer::new(filter(directives));
        let text = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        // Another subscriber exists only in a process that started two agents; the first one's log serves both.
        let _ = tracing_subscriber::registry().with(filter).with(text).try_init();
        Self { filter: handle }
    }

    /// Logs by other directives from now on.
    pub fn set(&self, directives: &str) {
        if let Err(error) = self.filter.reload(filter(directives)) {
            tracing::warn!(%error, "the log stays as it was");
        }
    }
}

/// The configuration has checked the directives.
fn filter(directives: &str) -> Targets {
    directives.parse().unwrap_or_default()
}
