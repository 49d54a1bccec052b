//! Runtime settings of the kernel programs: one record in the map `CONFIG`, written by the agent.

use crate::{headers::PORTS, identity::DSL_FORUM};

/// Interpretation of the sub-options of enterprise 3561 (T-21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Dialect {
    /// TR-111, except that a client message with code 4 and without codes 5 and 6 follows TR-124.
    #[default]
    Auto,
    /// TR-111 only.
    Tr111,
    /// TR-124 only: 1 OUI, 2 product class, 3 model, 4 serial number.
    Tr124,
}

/// The settings. Flags are 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Seed of the hash over client identifiers. It is secret, so that LAN hosts cannot construct collisions.
    pub seed: u64,
    /// Rate of events to the agent per hardware address.
    pub budget: Rate,
    /// Number of a [`Dialect`].
    pub dialect: u8,
    /// Whether an OUI of three raw bytes or with separators is accepted (T-16).
    pub lenient_oui: u8,
    /// Index, 0 or 1, of the current Gateway Identity in the map `GATEWAY`. The agent writes the other entry and then
    /// changes the index, so that programs never read a half-written identity.
    pub gateway_slot: u8,
    /// Whether replies of DHCP servers behind a port of a LAN bridge are accepted (T-26).
    pub accept_foreign_server: u8,
    /// Always 0.
    pub reserved: [u8; 4],
    /// Accepted enterprise numbers; unused entries are 0 (T-23).
    pub enterprises: [u32; 4],
    /// UDP ports of STUN servers; the list ends at the first 0.
    pub stun_ports: [u16; PORTS],
    /// Packet mark for flows of Connection Requests; only the bits in `mark_mask` are used.
    pub mark: u32,
    /// Bits of the packet mark that `mark` may change; 0 disables marking.
    pub mark_mask: u32,
    /// Interval in nanoseconds at which a source on the WAN earns one Connection Request; 0 disables policing.
    pub wan_connreq_interval: u64,
    /// Interval in nanoseconds at which an Ethernet source earns one DHCP message; 0 disables policing.
    pub lan_dhcp_interval: u64,
    /// Rate of events to the agent per relay agent, and of its forwarded messages where DHCP is policed.
    pub relay_budget: Rate,
}

/// Parameters of a token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Interval in nanoseconds at which one message is earned; 0 for no limit.
    pub interval: u64,
    /// Size of the bucket, in messages.
    pub burst: u32,
    /// Always 0.
    pub reserved: u32,
}

impl Rate {
    /// A rate of one message per `interval` nanoseconds, with bursts of up to `burst` messages.
    #[inline(always)]
    pub const fn new(interval: u64, burst: u32) -> Self {
        Self { interval, burst, reserved: 0 }
    }
}

/// Bucket size of policed sources, in messages, whatever their rate.
pub const POLICE_BURST: u32 = 16;

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            budget: Rate::default(),
            dialect: Dialect::Auto as u8,
            lenient_oui: 0,
            gateway_slot: 0,
            accept_foreign_server: 0,
            reserved: [0; 4],
            enterprises: [DSL_FORUM, 0, 0, 0],
            stun_ports: [0; PORTS],
            mark: 0,
            mark_mask: 0,
            wan_connreq_interval: 0,
            lan_dhcp_interval: 0,
            relay_budget: Rate::default(),
        }
    }
}

impl Config {
    /// Whether elements of enterprise number `enterprise` are read.
    #[inline(always)]
    pub fn accepts(&self, enterprise: u32) -> bool {
        let [a, b, c, d] = self.enterprises;
        enterprise != 0 && (enterprise == a || enterprise == b || enterprise == c || enterprise == d)
    }

    /// The dialect; unknown numbers are read as [`Dialect::Auto`].
    #[inline(always)]
    pub fn dialect(&self) -> Dialect {
        match self.dialect {
            1 => Dialect::Tr111,
            2 => Dialect::Tr124,
            _ => Dialect::Auto,
        }
    }
}
