//! The tasks of the agent around the cores of `tr111-core`. In each role one task owns the state; other tasks send it
//! an [`Ask`].

#[cfg(feature = "acs")]
pub mod acs;
#[cfg(feature = "gateway")]
mod alarms;
#[cfg(feature = "gateway")]
pub mod association;
mod clock;
pub mod cpe;
mod describe;
#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "gateway")]
mod flows;
mod keeper;
mod kept;
#[cfg(feature = "gateway")]
mod kernel;
mod knobs;
#[cfg(feature = "gateway")]
mod lan;
#[cfg(feature = "device")]
pub mod link;
mod management;
mod network;
mod notifier;
mod parameters;
#[cfg(feature = "gateway")]
mod prober;
mod renewals;
mod replies;
#[cfg(feature = "gateway")]
mod search;
#[cfg(all(test, feature = "gateway"))]
mod tests;
mod timer;

use std::{net::SocketAddr, path::PathBuf};

use tokio::sync::oneshot;
use tr111_core::model::Notification;

#[cfg(feature = "gateway")]
pub use alarms::GatewayAlarm;
pub use clock::Clock;
pub use kept::{Kept, KeptCpe, open as open_store};
#[cfg(feature = "gateway")]
pub use kernel::{Events, Programs};
pub use knobs::Knobs;
#[cfg(feature = "gateway")]
pub use lan::{Lan, LanChange};
pub use network::{InterfaceState, NetworkChange, watch as watch_network};
pub use parameters::{Model, Written};
#[cfg(feature = "gateway")]
pub use prober::Prober;
#[cfg(feature = "gateway")]
pub use search::{Search, Sighting};

use crate::{
    config::Values,
    control::message::{Device, Event, Knob, NatBinding, Parameter, Status},
};

/// A request to the task that owns the role's state.
#[derive(Debug)]
pub enum Ask {
    /// Status of the agent.
    Status(oneshot::Sender<Status>),
    /// A page of rows with instance numbers above `after`, in ascending order; empty after the last row.
    Devices {
        /// Instance number.
        after: u32,
        /// Receives the rows.
        reply: oneshot::Sender<Vec<Device>>,
    },
    /// Reads parameters of the data model.
    Get {
        /// Full paths, or partial paths that end in a dot.
        paths: Vec<String>,
        /// Receives the parameters, or the fault of the first path that failed.
        reply: oneshot::Sender<Result<Vec<Parameter>, Fault>>,
    },
    /// Sets parameters of the data model: all of them, or none.
    Set {
        /// Pairs of path and value.
        parameters: Vec<(String, String)>,
        /// Whether the ACS sets them; the ACS is not notified of its own changes.
        by_acs: bool,
        /// Receives the result once the change is stored.
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    /// Sets the notification attribute of parameters.
    Notify {
        /// A full path, or a partial path that ends in a dot.
        path: String,
        /// The new attribute.
        attribute: Notification,
        /// Receives the result once the change is stored.
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    /// A page of unacknowledged notifications with sequence numbers above `after`, in ascending order; empty after the
    /// last one.
    Notifications {
        /// Sequence number.
        after: u64,
        /// Receives the notifications.
        reply: oneshot::Sender<Vec<Event>>,
    },
    /// Acknowledges all notifications up to and including `sequence`.
    Acknowledge {
        /// Sequence number.
        sequence: u64,
        /// Receives the result once the change is stored.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Lists the NAT bindings.
    Bindings(oneshot::Sender<Vec<NatBinding>>),
    /// News from the service that keeps the binding and receives UDP Connection Requests. No reply.
    Heard(cpe::News),
    /// A TCP Connection Request was accepted (UCR-2). No reply.
    Woken {
        /// The source of the request.
        from: SocketAddr,
        /// Number of refused requests before it that were not announced to watchers.
        omitted: u64,
    },
    /// A search found a silent device, or the holder of an address. No reply.
    #[cfg(feature = "gateway")]
    Sighted(Sighting),
    /// Lists the knobs.
    Knobs(oneshot::Sender<Vec<Knob>>),
    /// Changes knobs: all of them, or none.
    Tune {
        /// Pairs of key and value.
        settings: Vec<(String, String)>,
        /// Receives the result.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Detaches the programs and stops the agent.
    Detach {
        /// If set, only if the agent uses this pin directory.
        pin_dir: Option<PathBuf>,
        /// Receives the result.
        reply: oneshot::Sender<Result<(), String>>,
        /// Resolves when the client has received the reply.
        answered: oneshot::Receiver<()>,
    },
    /// The configuration file was read again; these are its values.
    Reload(Box<Values>),
    /// Stops the agent.
    Stop,
}

/// The outcome of a request.
#[derive(Debug)]
pub enum Answer<T> {
    /// The reply.
    Done(T),
    /// No reply arrived in time.
    Late,
}

/// A TR-069 fault and the path that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Fault code.
    pub code: u16,
    /// Name of the fault code.
    pub name: &'static str,
    /// The path that caused the fault.
    pub path: String,
}
