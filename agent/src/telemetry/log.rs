//! The log, which is written to stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::{Registry, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Changes the filter of the log at run time.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts the log. `directives` is the value of `agent.log`, which the configuration has checked.
    pub fn start(directives: &str) -> Self {
        let (filter, handle) = reload::Layer::new(filter(directives));
        let text = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        // This fails only in a process that started two agents, such as a test. The first one's log serves both.
        let _ = tracing_subscriber::registry().with(filter).with(text).try_init();
        Self { filter: handle }
    }

    /// Replaces the filter directives.
    pub fn set(&self, directives: &str) {
        if let Err(error) = self.filter.reload(filter(directives)) {
            tracing::warn!(%error, "cannot change the log filter");
        }
    }
}

/// Parses directives that the configuration has checked.
fn filter(directives: &str) -> Targets {
    directives.parse().unwrap_or_default()
}
