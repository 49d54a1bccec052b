//! The NAT binding on which the CPE hears UDP Connection Requests (TR-111 2.2.1).
//!
//! The CPE asks a STUN server under which public address its own socket is seen, tells the ACS by attributes in those
//! requests and by parameters of the data model, and asks again before the NAT forgets. How long that may take is
//! learned from the NAT itself.
//!
//! | type | is |
//! | --- | --- |
//! | [`Cpe`] | the machine: server, session and what the ACS is told |
//! | [`Parameters`], [`Settings`] | what the ACS and the operator set |
//! | [`Bounds`] | the ACS's minimum and maximum period |
//! | [`Search`] | the longest period that the binding survives |
//! | [`Binding`] | as what the server sees the listener |
//! | [`Report`] | `UDPConnectionRequestAddress` and `NATDetected` |
//!
//! There are two sockets. The primary one hears Connection Requests, and every request from it carries
//! CONNECTION-REQUEST-BINDING (CPE-28). The secondary one sends the tests of the binding, with RESPONSE-ADDRESS, and
//! never that attribute (CPE-29).
//!
//! Where TR-111 says that every such request has USERNAME and CONNECTION-REQUEST-BINDING, RFC 3489's repetition
//! without attributes that the server does not understand (420) has nothing to leave out, so there is none.

mod alarm;
mod answer;
mod context;
mod exchange;
mod keepalive;
mod machine;
mod report;
mod search;
mod server;
mod session;
mod settings;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

pub use alarm::Alarm;
pub use context::Counts;
pub use keepalive::Bounds;
pub use machine::{Cpe, Memory};
pub use report::Report;
pub use search::{Phase, Search, Verdict};
pub use session::Binding;
pub use settings::{Parameters, Settings};

/// A socket of the CPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// The one that hears UDP Connection Requests.
    Primary,
    /// The one that tests the binding.
    Secondary,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The ACS, or whoever else may, set parameters: all of them, as they are now.
    Parameters(Parameters),
    /// The address and port that datagrams of the primary socket leave with towards the server: a real one, never
    /// 0.0.0.0 (T-43). At first there is none.
    Local(Option<SocketAddrV4>),
    /// The answer to [`Output::Resolve`]; without addresses where it failed.
    Resolved {
        /// The host that was asked for.
        host: &'a str,
        /// Its addresses, in the resolver's order.
        addresses: &'a [Ipv4Addr],
    },
    /// A datagram of STUN came in: its first byte is 0 or 1 (UCR-17).
    Received {
        /// Where.
        socket: Socket,
        /// Where from.
        source: SocketAddrV4,
        /// All of it.
        datagram: &'a [u8],
    },
    /// Another datagram came in on the primary socket. It may have refreshed the binding (T-47).
    Heard,
    /// Whether the ACS wants to be told of the address: it set Active on `UDPConnectionRequestAddress`. At first it does.
    /// [`Output::Notify`] comes anyway, but the limit counts from what the ACS was told (CPE-40).
    Asked(bool),
    /// The operator changed settings. The seed stays as it was.
    Settings(Settings),
    /// Time went by.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// From where.
        socket: Socket,
        /// Where to.
        to: SocketAddrV4,
        /// All of it.
        datagram: Vec<u8>,
    },
    /// Look this name up, and hand in [`Input::Resolved`].
    Resolve {
        /// The name.
        host: String,
    },
    /// The values of the data model changed.
    Changed(Report),
    /// The ACS is to be told of the values, if it asked for that: limit and damping are over (CPE-39 to CPE-41).
    Notify(Report),
    /// Something is wrong. It is not said again until it was [`Output::Cleared`].
    Alarm(Alarm),
    /// It is not any more.
    Cleared(Alarm),
    /// The longest period that the binding survives is known. [`Cpe::memory`] changed.
    Learned {
        /// The period.
        period: Duration,
    },
}
