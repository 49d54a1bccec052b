//! The tasks around the cores. One task owns the association table; everybody else asks it.

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

/// A question to the task that owns the association table.
#[derive(Debug)]
pub enum Ask {
    /// The state of the agent.
    Status(oneshot::Sender<Status>),
    /// Some rows with instance numbers above `after`, in their order; none when there are no more.
    Devices {
        /// Instance number.
        after: u32,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Device>>,
    },
    /// Parameters of the data model.
    Get {
        /// Full paths, or partial ones that end in a dot.
        paths: Vec<String>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Vec<Parameter>, Fault>>,
    },
    /// Sets parameters of the data model, all or none.
    Set {
        /// Pairs of path and value.
        parameters: Vec<(String, String)>,
        /// The ACS does it, and is not told of what it knows.
        by_acs: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    /// Sets the notification attribute of parameters.
    Notify {
        /// A full path, or a partial one that ends in a dot.
        path: String,
        /// The attribute.
        attribute: Notification,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    /// Some notifications that nobody acknowledged, above `after`, in order; none when there are no more.
    Notifications {
        /// Sequence number.
        after: u64,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Event>>,
    },
    /// The ACS has a notification and all before it.
    Acknowledge {
        /// Sequence number.
        sequence: u64,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// NAT bindings.
    Bindings(oneshot::Sender<Vec<NatBinding>>),
    /// No question: the CPE has news.
    Heard(cpe::News),
    /// No question: an accepted TCP Connection Request (UCR-2).
    Woken {
        /// Where it came from.
        from: SocketAddr,
        /// Refused ones before it that no watcher was told of.
        omitted: u64,
    },
    /// No question: a search for a silent device, or for the holder of an address, found somebody.
    #[cfg(feature = "gateway")]
    Sighted(Sighting),
    /// The knobs.
    Knobs(oneshot::Sender<Vec<Knob>>),
    /// Changes knobs, all or none.
    Tune {
        /// Pairs of key and value.
        settings: Vec<(String, String)>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Takes the programs off and stops the agent.
    Detach {
        /// Only if the agent works with this directory.
        pin_dir: Option<PathBuf>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), String>>,
        /// Comes when the client has its answer.
        answered: oneshot::Receiver<()>,
    },
    /// The configuration was read again.
    Reload(Box<Values>),
    /// Stops the agent.
    Stop,
}

/// What came of a question.
#[derive(Debug)]
pub enum Answer<T> {
    /// The answer.
    Done(T),
    /// None in time.
    Late,
}

/// A fault of TR-069 and the path that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number.
    pub code: u16,
    /// Its name.
    pub name: &'static str,
    /// The path.
    pub path: String,
}
