//! NAT timeouts of flows by which devices wait for Connection Requests (TR-111 2.2.1.3, footnote 10): one table of nft
//! that gives marked flows a longer timeout, and what the connection tracker knows of such a flow.
//!
//! The program `lan_binding` sets the mark, the table's rule sees it while the flow is not confirmed yet, before anybody's
//! rules at priority mangle, and from then on every packet of the flow renews the longer timeout. A flow that is older than
//! the rule keeps the timeout it has: entries are never deleted. Tables of others are not touched. Of several gateways in
//! one network namespace, the first has the table.

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

/// A ruleset is changed in many messages: it is looked at once they have ended.
const SETTLED: Duration = Duration::from_millis(100);
/// How long to wait after an error of the socket, which may come again at once.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often the table is looked at where changes are not told.
const UNTOLD: Duration = Duration::from_secs(30);
/// How often it is tried to have a table that another gateway has.
const OWNED: Duration = Duration::from_secs(5);

/// Whether flows get the longer timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The operator switched it off.
    Off,
    /// There is no nft on this machine, or the kernel refuses the table.
    NoNft,
    /// The table is another gateway's.
    Owned(Owner),
    /// New flows get a longer timeout.
    On {
        /// The timeout.
        timeout: Duration,
        /// Since when, as far as this agent knows.
        since: BootTime,
    },
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "not extended (off)"),
            Self::NoNft => write!(f, "not extended (no nft)"),
            Self::Owned(owner) => {
                write!(f, "left to another gateway, {owner}, which has the nft table {}", table::TABLE)
            }
            Self::On { timeout, .. } => write!(f, "extended to {} s", timeout.as_secs()),
        }
    }
}

/// Keeps the table as the settings want it.
#[derive(Debug)]
pub struct Nat {
    wanted: watch::Sender<Option<Rule>>,
    extension: watch::Receiver<Extension>,
    conntrack: Option<Netlink>,
}

impl Nat {
    /// Starts to keep the table. Needs a tokio runtime.
    pub fn start(traffic: &Traffic) -> Self {
        let (wanted, asked) = watch::channel(Rule::new(traffic));
        let (tell, extension) = watch::channel(Extension::Off);
        essential::task("nft", keep(asked, tell));
        let conntrack = Netlink::netfilter()
            .inspect_err(|error| tracing::warn!(%error, "NAT bindings are not looked up: no ctnetlink"))
            .ok();
        Self { wanted, extension, conntrack }
    }

    /// Follows new settings.
    pub fn set(&self, traffic: &Traffic) {
        let rule = Rule::new(traffic);
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != rule;
            *wanted = rule;
            is_new
        });
    }

    /// Whether flows that begin now get the longer timeout.
    pub fn extension(&self) -> Extension {
        *self.extension.borrow()
    }

    /// The connection tracker, where it can be asked.
    pub fn conntrack(&self) -> Option<Netlink> {
        self.conntrack.clone()
    }
}

/// Puts the table where it belongs, and again whenever somebody flushed it, until nobody wants it any more.
async fn keep(mut asked: watch::Receiver<Option<Rule>>, tell: watch::Sender<Extension>) {
    let mut ruleset = RulesetChanges::open()
        .inspect_err(
            |error| tracing::warn!(%error, "changes of nft's ruleset are not told: it is looked at from time to time"),
        )
        .ok();
    let mut complaint = String::new();
    let mut ownership = None;
    // The rule that is in force, and since when.
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
            tracing::warn!("NAT timeouts are not extended: {said}");
        }
        complaint = said;
        tell.send_replace(extension);
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = ruleset_changed(ruleset.as_mut()) => {}
            () = sleep(OWNED), if matches!(extension, Extension::Owned(_)) => {}
        }
    }
}

/// What became of the table.
enum Applied {
    /// There is none.
    Off,
    /// It had the rule.
    Found(Rule),
    /// It has the rule now.
    Made(Rule),
}

/// Makes the table what `rule` wants, as its owner.
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
            tracing::info!(timeout = ?rule.timeout, "nft table made: new STUN bindings live longer");
            Ok(Applied::Made(rule))
        }
    });
    applied.await.unwrap_or_else(|error| Err(TableError::Refused(error.to_string())))
}

/// Comes when the ruleset changed, and has stayed as it is for a moment.
async fn ruleset_changed(changes: Option<&mut RulesetChanges>) {
    let Some(socket) = changes else { return sleep(UNTOLD).await };
    if socket.next().await.is_err() {
        // Messages were lost because too much changed at once, which is a change as well; or the socket is of no use.
        sleep(AFTER_FAILURE).await;
    }
    while matches!(timeout(SETTLED, socket.next()).await, Ok(Ok(()))) {}
}
