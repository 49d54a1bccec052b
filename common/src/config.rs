//! The runtime settings of the kernel programs: one record in the map `CONFIG`, written by the agent.

use crate::{headers::PORTS, identity::DSL_FORUM};

/// How sub-options of enterprise 3561 are read (requirement T-21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Dialect {
    /// TR-111, but a client message that carries code 4 without 5 and 6 is TR-124.
    #[default]
    Auto,
    /// TR-111 as written.
    Tr111,
    /// TR-124: 1 OUI, 2 class, 3 model, 4 serial number.
    Tr124,
}

/// What the programs are told at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Seed of the hash over client identifiers, so that nobody on the LAN can prepare a collision.
    pub seed: u64,
    /// What one hardware address may bring to the agent.
    pub budget: Rate,
    /// A [`Dialect`] as its number.
    pub dialect: u8,
    /// Not 0: accept an OUI of three raw bytes, or with separators (T-16).
    pub lenient_oui: u8,
    /// Which of the two entries of the map `GATEWAY` holds the Gateway Identity, so that it changes in one step.
    pub gateway_slot: u8,
    /// Not 0: replies of DHCP servers behind a port of a LAN bridge count (T-26).
    pub accept_foreign_server: u8,
    /// Always 0.
    pub reserved: [u8; 4],
    /// Accepted enterprise numbers; 0 for none (T-23).
    pub enterprises: [u32; 4],
    /// UDP ports on which STUN servers are expected, up to the first 0.
    pub stun_ports: [u16; PORTS],
    /// Bits of the packet mark that flows of Connection Requests get, under `mark_mask`.
    pub mark: u32,
    /// The bits that `mark` may change; 0: no flow is marked.
    pub mark_mask: u32,
    /// Nanoseconds in which one source on the WAN earns one Connection Request; 0: not policed.
    pub wan_connreq_interval: u64,
    /// Nanoseconds in which one Ethernet source earns one DHCP message; 0: not policed.
    pub lan_dhcp_interval: u64,
    /// What one relay may bring to the agent, and what passes of it where DHCP is policed.
    pub relay_budget: Rate,
}

/// How fast a sender may go: a token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds in which one message is earned; 0: no limit.
    pub interval: u64,
    /// Messages at once.
    pub burst: u32,
    /// Always 0.
    pub reserved: u32,
}

impl Rate {
    /// A rate of one message each `interval` nanoseconds and `burst` at once.
    #[inline(always)]
    pub const fn new(interval: u64, burst: u32) -> Self {
        Self { interval, burst, reserved: 0 }
    }
}

/// What a source that is policed may send at once, whatever its rate.
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
    /// Whether elements of `enterprise` are read.
    #[inline(always)]
    pub fn accepts(&self, enterprise: u32) -> bool {
        let [a, b, c, d] = self.enterprises;
        enterprise != 0 && (enterprise == a || enterprise == b || enterprise == c || enterprise == d)
    }

    /// The dialect; an unknown number reads as [`Dialect::Auto`].
    #[inline(always)]
    pub fn dialect(&self) -> Dialect {
        match self.dialect {
            1 => Dialect::Tr111,
            2 => Dialect::Tr124,
            _ => Dialect::Auto,
        }
    }
}
