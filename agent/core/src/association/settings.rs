use std::time::Duration;

use tr111_common::{abi, config::Config};

use super::Deny;

/// Settings of the association core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Greatest number of rows. A full table refuses new devices and keeps the existing ones (SEC-8). There may be
    /// twice as many bindings.
    pub max_rows: u32,
    /// Devices that get no row (GW-16). Existing rows of these devices are removed.
    pub deny: Vec<Deny>,
    /// Greatest number of identities per hardware address (SEC-8).
    pub max_identities_per_mac: u32,
    /// Greatest number of bindings in a row (SEC-8). A full row refuses new bindings and keeps the existing ones.
    ///
    /// A row is stored and reported as a whole, so each change costs as much as the row has bindings. The default is
    /// far more than a device needs for its interfaces, VLANs, boot loader and virtual machines, and than a household
    /// has devices of a production batch with identical serial numbers.
    pub max_bindings_per_row: u32,
    /// Grace period of a row after a NAK, in which the client may obtain a new lease (T-8).
    pub nak_grace: Duration,
    /// Time for which a row is kept after its lease has expired, in case the renewal is delayed (T-31).
    pub expiry_guard: Duration,
    /// Time after which a row from an INFORM is removed without a new INFORM (T-6); `None` keeps it while the device is
    /// present.
    pub inform_maximum_age: Option<Duration>,
    /// Time of silence after which a station is probed (GW-11), and duration of the search after lost probes. Zero
    /// disables probing.
    pub probe_interval: Duration,
    /// Number of lost probes, one second apart, after which other signs of life are searched for. The holder of a
    /// claimed address is asked as often.
    pub probe_count: u32,
    /// Whether ACKs of DHCP servers other than this gateway create rows (T-26).
    pub accept_foreign_server: bool,
    /// Bucket size of a client's changes: RELEASE, DECLINE, another identity, another address. Each change is written
    /// to disk. An Ethernet source has a bucket of eight times this size.
    pub change_burst: u32,
    /// Interval at which a client earns one change; zero for no limit. A client without a change left waits for its
    /// next row, or for the row of its next identity.
    pub change_interval: Duration,
    /// Greatest number of requests that wait for their reply; the oldest is discarded first.
    pub max_exchanges: u32,
    /// Time for which a request waits for its reply.
    pub exchange_age: Duration,
    /// Settings of the kernel programs. The seed also keys the core's hashes, and must not change.
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
