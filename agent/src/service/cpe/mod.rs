//! The CPE side of TR-111 Part 2: receives UDP Connection Requests and keeps the NAT binding through which they arrive
//! (2.2.1).
//!
//! One task around two cores, [`tr111_core::binding`] and [`tr111_core::connreq`]. It runs in devices and in gateways,
//! because a gateway can be behind a NAT too (CPE-6). The task owns the sockets and no part of the data model:
//! [`Handle`] passes settings to it, and it sends [`News`] to the owner of the role, which stores the state.
//!
//! Connection Requests and STUN share a socket. A flood on the socket must not block the rest of the agent, so batches
//! are bounded, and the task yields after each batch.

mod local;
mod refused;
mod socket;
mod task;
mod tcp;

use std::{io, net::SocketAddrV4, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, watch};
use tr111_core::{
    binding::{Binding, Memory, Report},
    connreq::LastAccepted,
    time::BootTime,
};

use self::{refused::Refused, task::Task};
pub use self::{
    socket::{BindError, Udp},
    tcp::Tcp,
};
use super::{Ask, Clock, KeptCpe, management::Demands};
use crate::{
    config,
    control::message::{Event, NatBinding, Transport},
    essential,
    telemetry::CpeMetrics,
};

/// State that must survive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last accepted Connection Request (UCR-7).
    pub last: LastAccepted,
    /// What was learned about the NAT, and what the ACS was told of it.
    pub memory: Memory,
}

/// News for the owner of the role.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// When it happened.
    pub time: BootTime,
    /// What happened.
    pub what: What,
    /// The state to be stored.
    pub state: State,
}

/// The kinds of news.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// `UDPConnectionRequestAddress` or `NATDetected` changed.
    Changed {
        /// The new values.
        report: Report,
        /// The address at which Connection Requests are received.
        local: Option<SocketAddrV4>,
        /// Whether the values are based on a STUN response, or on STUN being off. Otherwise they are provisional.
        is_determined: bool,
    },
    /// The ACS must be notified of the address, if it asked for that (CPE-39 to CPE-41).
    Due,
    /// The keep-alive period was learned.
    Learned,
    /// A Connection Request was accepted (UCR-14).
    Requested {
        /// The source of the request.
        from: SocketAddrV4,
        /// Number of refused requests before it that were not announced to watchers.
        omitted: u64,
    },
}

/// The agent's own binding, for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    username: String,
    report: Report,
    binding: Option<Binding>,
    period: Option<Duration>,
}

/// What the task needs.
#[derive(Debug)]
pub struct Parts {
    /// The socket that receives Connection Requests and sends Binding Requests.
    pub socket: Udp,
    /// The listener for TCP Connection Requests; `None` if another process listens for them.
    pub tcp: Option<Tcp>,
    /// The stored state.
    pub kept: KeptCpe,
    /// The knobs.
    pub knobs: config::Cpe,
    /// Random seed of the transaction ids. It must be secret.
    pub seed: [u64; 2],
    /// The owner of the role.
    pub owner: mpsc::Sender<Ask>,
    /// The event stream, for refused requests.
    pub events: broadcast::Sender<Arc<Event>>,
    /// The metrics.
    pub metrics: CpeMetrics,
}

/// Handle to the task, which ends when the handle is dropped.
#[derive(Debug)]
pub struct Handle {
    knobs: watch::Sender<config::Cpe>,
    own: watch::Receiver<Own>,
}

impl Handle {
    /// Starts the task, which follows `demands`. Returns the initial state, to be stored.
    pub(super) fn start(mut parts: Parts, demands: watch::Receiver<Demands>) -> io::Result<(Self, State)> {
        if let Some(tcp) = parts.tcp.take() {
            let refused = Refused::new(Transport::Tcp, parts.events.clone());
            let served = tcp.serve(demands.clone(), parts.owner.clone(), parts.metrics.clone(), refused);
            essential::task("tcp connection requests", served);
        }
        let mut state = parts.kept.state;
        state.last = state.last.restored(parts.kept.is_same_boot, parts.knobs.keep_over_reboot);
        let (knobs, obeyed) = watch::channel(parts.knobs.clone());
        let (told, own) = watch::channel(Own::default());
        essential::task("connection requests", Task::new(parts, state, (demands, obeyed), told)?.run());
        Ok((Self { knobs, own }, state))
    }

    pub(super) fn set_knobs(&self, knobs: config::Cpe) {
        self.knobs.send_replace(knobs);
    }

    /// The agent's own binding, for clients; empty without an address.
    pub(super) fn bindings(&self, clock: &Clock) -> Vec<NatBinding> {
        let own = self.own.borrow();
        let binding = |address: SocketAddrV4| NatBinding {
            username: Some(own.username.clone()).filter(|username| !username.is_empty()),
            address: address.to_string(),
            authenticated: own.binding.is_some_and(|binding| binding.is_authenticated),
            changed: own.binding.map(|binding| clock.rfc3339(binding.since)),
            last_seen: own.binding.map(|binding| clock.rfc3339(binding.seen)),
            period_s: own.period.map(|period| period.as_secs()),
            ..NatBinding::default()
        };
        own.report.address.map(binding).into_iter().collect()
    }
}
