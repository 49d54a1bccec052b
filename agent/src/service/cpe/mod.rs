//! The CPE of TR-111 Part 2: it hears UDP Connection Requests, and keeps the NAT binding by which they come (2.2.1).
//!
//! One task around two cores, [`tr111_core::binding`] and [`tr111_core::connreq`], in devices and in gateways, which may
//! be behind a NAT themselves (CPE-6). It owns the sockets and nothing of the data model: [`Handle`] tells it what to
//! do, and it sends [`News`] to the owner of the role, who keeps what has to outlive the agent.
//!
//! Connection Requests and STUN share a socket, and whoever floods it must not keep others from their turn: a batch is
//! bounded, and the task yields after each.

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

/// What has to outlive the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last accepted Connection Request (UCR-7).
    pub last: LastAccepted,
    /// What was learned of the NAT, and told of it.
    pub memory: Memory,
}

/// Something that the owner of the role has to know.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// When.
    pub time: BootTime,
    /// What.
    pub what: What,
    /// What is to be kept from now on.
    pub state: State,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// `UDPConnectionRequestAddress` or `NATDetected` is another.
    Changed {
        /// They are this now.
        report: Report,
        /// Where Connection Requests are heard.
        local: Option<SocketAddrV4>,
        /// They are not merely what holds until a first answer comes.
        is_determined: bool,
    },
    /// The ACS is to be told of the address, if it asked for that (CPE-39 to CPE-41).
    Due,
    /// The keep-alive period was learned.
    Learned,
    /// A Connection Request was accepted (UCR-14).
    Requested {
        /// Where it came from.
        from: SocketAddrV4,
        /// Ignored ones before it that no watcher was told of.
        omitted: u64,
    },
}

/// The agent's own binding, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    username: String,
    report: Report,
    binding: Option<Binding>,
    period: Option<Duration>,
}

/// What the task works with.
#[derive(Debug)]
pub struct Parts {
    /// Hears Connection Requests; STUN leaves from here.
    pub socket: Udp,
    /// Hears TCP Connection Requests, unless another process does.
    pub tcp: Option<Tcp>,
    /// What an earlier agent left.
    pub kept: KeptCpe,
    /// The knobs.
    pub knobs: config::Cpe,
    /// Transaction ids come from it: random, and a secret.
    pub seed: [u64; 2],
    /// The owner of the role.
    pub owner: mpsc::Sender<Ask>,
    /// Where watchers hear of what was refused.
    pub events: broadcast::Sender<Arc<Event>>,
    /// The metrics.
    pub metrics: CpeMetrics,
}

/// The way to the task, which ends with it.
#[derive(Debug)]
pub struct Handle {
    knobs: watch::Sender<config::Cpe>,
    own: watch::Receiver<Own>,
}

impl Handle {
    /// Starts the task, which obeys `demands`. Gives what it starts with, to be kept.
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

    /// Takes other knobs.
    pub(super) fn set_knobs(&self, knobs: config::Cpe) {
        self.knobs.send_replace(knobs);
    }

    /// The agent's own binding, for clients; none without an address.
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
