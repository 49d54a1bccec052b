//! NAT timeouts of the flows through which devices receive Connection Requests (TR-111 2.2.1.3, footnote 10): an nft
//! table that gives marked flows a longer timeout, and the data of such a flow in the connection tracker.
//!
//! The program `lan_binding` sets the mark. The table's rule sees it before the flow is confirmed and before other
//! rules at priority mangle. From then on every packet of the flow renews the longer timeout. A flow that is older than
//! the rule keeps its timeout, because entries are never deleted. Tables of other programs are not changed. If several
//! gateways run in one network namespace, the first one owns the table.

mod owner;
mod table;

use std::{fmt, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use tr111_core::time::BootTime;

use self::owner::Ownership;
pub use self::{
    owner::Owner,
    table::{Ends, MEMORY, Rule, TableError, marked, remove},
};
use crate::{
    config::Traffic,
    essential,
    os::netlink::{Netlink, RulesetChanges},
    service::Clock,
};

/// A change of a ruleset causes many messages. The table is checked when no message has arrived for this time.
const SETTLED: Duration = Duration::from_millis(100);
/// Pause after an error of the socket, because the error may be repeated at once.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Interval between two checks of the table if changes are not reported.
const UNTOLD: Duration = Duration::from_secs(30);
/// Interval between two attempts to take over a table that another gateway owns.
const OWNED: Duration = Duration::from_secs(5);

/// Whether flows get the longer timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The operator has turned the extension off.
    Off,
    /// nft is not installed, or the kernel rejects the table.
    NoNft,
    /// Another gateway owns the table.
    Owned(Owner),
    /// New flows get a longer timeout.
    On {
        /// The timeout.
        timeout: Duration,
        /// When the rule came into force, as far as this agent knows.
        since: BootTime,
    },
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "not extended (off)"),
            Self::NoNft => write!(f, "not extended (no nft)"),
            Self::Owned(owner) => {
                write!(f, "left to another gateway, {owner}, which owns the nft table {}", table::TABLE)
            }
            Self::On { timeout, .. } => write!(f, "extended to {} s", timeout.as_secs()),
        }
    }
}

/// Keeps the nft table in line with the settings.
#[derive(Debug)]
pub struct Nat {
    wanted: watch::Sender<Option<Rule>>,
    extension: watch::Receiver<Extension>,
    conntrack: Option<Netlink>,
}

impl Nat {
    /// Starts the task that keeps the table. Must be called in a tokio runtime.
    pub fn start(traffic: &Traffic) -> Self {
        let (wanted, asked) = watch::channel(Rule::new(traffic));
        let (tell, extension) = watch::channel(Extension::Off);
        essential::task("nft", keep(asked, tell));
        let conntrack = Netlink::netfilter()
            .inspect_err(|error| tracing::warn!(%error, "cannot open ctnetlink; NAT bindings are not looked up"))
            .ok();
        Self { wanted, extension, conntrack }
    }

    /// Applies new settings.
    pub fn set(&self, traffic: &Traffic) {
        let rule = Rule::new(traffic);
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != rule;
            *wanted = rule;
            is_new
        });
    }

    /// Whether new flows get the longer timeout.
    pub fn extension(&self) -> Extension {
        *self.extension.borrow()
    }

    /// Access to the connection tracker; `None` if it cannot be opened.
    pub fn conntrack(&self) -> Option<Netlink> {
        self.conntrack.clone()
    }
}

/// Installs the table, and installs it again if it was flushed, until the settings' sender is dropped.
async fn keep(mut asked: watch::Receiver<Option<Rule>>, tell: watch::Sender<Extension>) {
    let mut ruleset = RulesetChanges::open()
        .inspect_err(|error| tracing::warn!(%error, "cannot watch the nft ruleset; checking it periodically"))
        .ok();
    let mut complaint = String::new();
    let mut ownership = None;
    // The rule in force, and since when.
    let mut in_force: Option<(Rule, BootTime)> = None;
    loop {
        let rule = *asked.borrow_and_update();
        let applied = apply(rule, &mut ownership).await;
        let extension = match &applied {
            Ok(Applied::Off) => Extension::Off,
            Ok(Applied::Made(rule)) => Extension::On { timeout: rule.timeout, since: Clock::now() },
            Ok(Applied::Found(rule)) => {
                let known = in_force.filter(|(known, _)| known == rule);
                Extension::On { timeout: rule.timeout, since: known.map_or_else(Clock::now, |(_, since)| since) }
            }
            Err(TableError::Owned(owner)) => Extension::Owned(*owner),
            Err(_) => Extension::NoNft,
        };
        in_force = match extension {
            Extension::On { since, .. } => rule.map(|rule| (rule, since)),
            _ => None,
        };
        let said = applied.err().map(|error| error.to_string()).unwrap_or_default();
        if said != complaint && !said.is_empty() {
            tracing::warn!("cannot extend NAT timeouts: {said}");
        }
        complaint = said;
        tell.send_replace(extension);
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = ruleset_changed(ruleset.as_mut()) => {}
            () = sleep(OWNED), if matches!(extension, Extension::Owned(_)) => {}
            () = async { if let Some(ownership) = &ownership { ownership.answer().await } }, if ownership.is_some() => {}
        }
    }
}

/// The state of the table.
enum Applied {
    /// The table was removed.
    Off,
    /// The table already had the rule.
    Found(Rule),
    /// The rule was installed.
    Made(Rule),
}

/// Brings the table in line with `rule`, as its owner.
async fn apply(rule: Option<Rule>, ownership: &mut Option<Ownership>) -> Result<Applied, TableError> {
    if rule.is_none() {
        *ownership = None;
    } else if ownership.is_none() {
        *ownership = Some(Ownership::take()?);
    }
    let applied = tokio::task::spawn_blocking(move || match rule {
        None => match table::remove() {
            Ok(_) | Err(TableError::NoNft | TableError::Owned(_)) => Ok(Applied::Off),
            Err(error) => Err(error),
        },
        Some(rule) if rule.is_in_force() => Ok(Applied::Found(rule)),
        Some(rule) => {
            rule.install()?;
            tracing::info!(timeout = ?rule.timeout, "nft table installed; timeouts of new bindings are extended");
            Ok(Applied::Made(rule))
        }
    });
    applied.await.unwrap_or_else(|error| Err(TableError::Refused(error.to_string())))
}

/// Waits until the ruleset has changed and no further message arrives for a moment.
async fn ruleset_changed(changes: Option<&mut RulesetChanges>) {
    let Some(socket) = changes else { return sleep(UNTOLD).await };
    if socket.next().await.is_err() {
        // Messages were lost because of too many changes, which also counts as a change, or the socket has failed.
        sleep(AFTER_FAILURE).await;
    }
    while matches!(timeout(SETTLED, socket.next()).await, Ok(Ok(()))) {}
}
