//! NAT timeouts of flows by which devices wait for Connection Requests (TR-111 2.2.1.3, footnote 10): one table of nft
//! that gives marked flows a longer timeout, and what the connection tracker knows of such a flow.
//!
//! The program `lan_binding` sets the mark, the table's rule sees it while the flow is not confirmed yet (priority
//! mangle), and from then on every packet of the flow renews the longer timeout. A flow that is older than the rule
//! keeps the timeout it has: entries are never deleted. Tables of others are not touched.

mod table;

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

pub use self::table::{Rule, TableError, remove};
use crate::{
    config::Traffic,
    os::netlink::{Netlink, RulesetChanges},
};

/// A ruleset is changed in many messages: it is looked at once they have ended.
const SETTLED: Duration = Duration::from_millis(100);
/// How long to wait after an error of the socket, which may come again at once.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often the table is looked at where changes are not told.
const UNTOLD: Duration = Duration::from_secs(30);

/// Whether flows get the longer timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The operator switched it off.
    Off,
    /// There is no nft on this machine, or the kernel refuses the table.
    NoNft,
    /// New flows get this timeout.
    On(Duration),
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
        tokio::spawn(keep(asked, tell));
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
    loop {
        let rule = *asked.borrow_and_update();
        let extension = match apply(rule).await {
            Ok(extension) => {
                complaint.clear();
                extension
            }
            Err(error) => {
                let said = error.to_string();
                if said != complaint {
                    tracing::warn!(%error, "NAT timeouts are not extended");
                    complaint = said;
                }
                Extension::NoNft
            }
        };
        tell.send_replace(extension);
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = ruleset_changed(ruleset.as_mut()) => {}
        }
    }
}

/// Makes the table what `rule` wants.
async fn apply(rule: Option<Rule>) -> Result<Extension, TableError> {
    let applied = tokio::task::spawn_blocking(move || match rule {
        None => table::remove().map(|_| Extension::Off),
        Some(rule) if rule.is_in_force() => Ok(Extension::On(rule.timeout)),
        Some(rule) => {
            rule.install()?;
            tracing::info!(timeout = ?rule.timeout, "nft table made: new STUN bindings live longer");
            Ok(Extension::On(rule.timeout))
        }
    });
    match applied.await {
        Ok(Err(TableError::NoNft)) if rule.is_none() => Ok(Extension::Off),
        Ok(applied) => applied,
        Err(error) => Err(TableError::Refused(error.to_string())),
    }
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
