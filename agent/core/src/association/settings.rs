use std::time::Duration;

use tr111_common::{abi, config::Config};

use super::Deny;

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most rows. A full table refuses newcomers and keeps who is in it (SEC-8). Bindings may be twice as many.
    pub max_rows: u32,
    /// Who gets no row (GW-16). Rows that are there go.
    pub deny: Vec<Deny>,
    /// Most identities from one hardware address (SEC-8).
    pub max_identities_per_mac: u32,
    /// Most bindings of one row (SEC-8). A full row refuses newcomers and keeps who is in it.
    ///
    /// A row is kept as one record and told as one, so each change costs as much as the row has bindings. The preset
    /// is far above what a device needs for its interfaces, its VLANs, its boot loader and its virtual machines, and
    /// what a household has of a series that left the factory with one serial number.
    pub max_bindings_per_row: u32,
    /// How long a row outlives a NAK, so that a client that asks anew keeps it (T-8).
    pub nak_grace: Duration,
    /// How long a row outlives its lease, against the race with a renewal (T-31).
    pub expiry_guard: Duration,
    /// How long a row that came by INFORM lives without a new INFORM (T-6); without, as long as the device is there.
    pub inform_maximum_age: Option<Duration>,
    /// How long a station may be silent before it is probed (GW-11), and how long one that does not answer is searched
    /// for; zero: nobody is probed.
    pub probe_interval: Duration,
    /// Unanswered probes, a second apart, after which other signs of life are searched for. The holder of a claimed
    /// address is asked as often.
    pub probe_count: u32,
    /// Let ACKs of DHCP servers that are not this gateway's make rows (T-26).
    pub accept_foreign_server: bool,
    /// Changes that a client may make at once: a RELEASE, a DECLINE, another identity, another address. Each of them
    /// is written to the disk. Its Ethernet source may make eight times as many.
    pub change_burst: u32,
    /// The time in which it earns one more; zero: there is no limit. A client that has used up its changes waits for
    /// its next row, or for the row of its next identity.
    pub change_interval: Duration,
    /// Most requests that wait for their answer; the oldest goes first.
    pub max_exchanges: u32,
    /// How long a request waits for its answer.
    pub exchange_age: Duration,
    /// What the kernel programs are told. The seed keys the core's own hashes too, and must stay while the core lives.
    pub kernel: Config,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_rows: 65_536,
            deny: Vec::new(),
            max_identities_per_mac: 16,
            max_bindings_per_row: 32,
            nak_grace: Duration::from_secs(10),
            expiry_guard: Duration::from_secs(1),
            inform_maximum_age: None,
            probe_interval: Duration::ZERO,
            probe_count: 3,
            accept_foreign_server: false,
            change_burst: 8,
            change_interval: Duration::from_mins(1),
            max_exchanges: abi::EXCHANGES_MAXIMUM,
            exchange_age: Duration::from_mins(1),
            kernel: Config::default(),
        }
    }
}
