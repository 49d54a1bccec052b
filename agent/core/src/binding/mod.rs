//! STUN client of a CPE: learns and keeps the NAT binding through which UDP Connection Requests arrive (TR-111 2.2.1).
//!
//! The CPE asks a STUN server for the public address of its socket. It reports the address to the ACS by attributes in
//! these requests and by parameters of the data model, and refreshes the binding before it expires in the NAT. The
//! keep-alive period is learned from the NAT.
//!
//! | type | purpose |
//! | --- | --- |
//! | [`Cpe`] | the STUN client: server, session and reports to the ACS |
//! | [`Parameters`], [`Settings`] | parameters of the ACS, settings of the operator |
//! | [`Bounds`] | limits of the keep-alive period |
//! | [`Search`] | search for the longest period that the binding survives |
//! | [`Binding`] | the address of the listener that the server sees |
//! | [`Report`] | `UDPConnectionRequestAddress` and `NATDetected` |
//!
//! There are two sockets. The primary one receives Connection Requests, and every request from it carries
//! CONNECTION-REQUEST-BINDING (CPE-28). The secondary one sends the tests of the binding with RESPONSE-ADDRESS, and
//! never that attribute (CPE-29).
//!
//! After an error 420, RFC 3489 repeats the request without the attributes that the server does not understand. TR-111
//! requires USERNAME and CONNECTION-REQUEST-BINDING in every request, so nothing can be omitted and nothing is
//! repeated.

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
    /// The socket that receives UDP Connection Requests.
    Primary,
    /// The socket that tests the binding.
    Secondary,
}

/// Inputs of the STUN client.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Parameters changed; all current values.
    Parameters(Parameters),
    /// Local address and port of datagrams from the primary socket to the server, never 0.0.0.0 (T-43). `None` at
    /// first.
    Local(Option<SocketAddrV4>),
    /// The reply to [`Output::Resolve`]; without addresses if it failed.
    Resolved {
        /// The name that was resolved.
        host: &'a str,
        /// Its addresses, in the resolver's order.
        addresses: &'a [Ipv4Addr],
    },
    /// A STUN message was received: a datagram whose first byte is 0 or 1 (UCR-17).
    Received {
        /// The receiving socket.
        socket: Socket,
        /// Source of the datagram.
        source: SocketAddrV4,
        /// The datagram.
        datagram: &'a [u8],
    },
    /// Another datagram was received on the primary socket. It may have refreshed the binding (T-47).
    Heard,
    /// Whether the ACS requests notifications: it set Active on `UDPConnectionRequestAddress`. `true` at first.
    /// [`Output::Notify`] is produced in either case, but the limit counts from the last notification to the ACS
    /// (CPE-40).
    Asked(bool),
    /// The operator changed settings. The seed is not changed.
    Settings(Settings),
    /// Time has passed.
    Tick,
}

/// Outputs of the STUN client, in the order in which they have to be performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// The sending socket.
        socket: Socket,
        /// Destination of the datagram.
        to: SocketAddrV4,
        /// The datagram.
        datagram: Vec<u8>,
    },
    /// Resolve a name, and reply by [`Input::Resolved`].
    Resolve {
        /// The name.
        host: String,
    },
    /// The values in the data model changed.
    Changed(Report),
    /// Notify the ACS of the values, if it requested that. Limit and damping have passed (CPE-39 to CPE-41).
    Notify(Report),
    /// An alarm was raised. It is not repeated before [`Output::Cleared`].
    Alarm(Alarm),
    /// An alarm was cleared.
    Cleared(Alarm),
    /// The keep-alive period was learned, and [`Cpe::memory`] changed.
    Learned {
        /// The longest period that the binding survives.
        period: Duration,
    },
}
