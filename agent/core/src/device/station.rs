//! Parts that both DHCP modes use: frames, transaction identifiers, delays, and `GatewayInfo`.

use std::{net::Ipv4Addr, time::Duration};

use tr111_common::{
    config::Config,
    dhcp4::{MessageType, option},
    headers::find_arp,
};

use super::{GatewayInfo, Output, Outputs, Settings};
use crate::{
    arp::ArpRequest,
    dhcp::{Builder, HardwareAddress, Message},
};

/// Greatest random change of a delay, in both directions (RFC 2131 4.1).
const JITTER: Duration = Duration::from_secs(1);

/// Requested options: subnet mask, router, DNS, domain, lease time, T1, T2, server identifier and option 125.
const PARAMETERS: [u8; 9] = [1, 3, 6, 15, 51, 54, 58, 59, option::VENDOR_IDENTIFYING];

#[derive(Debug)]
pub(super) struct Station {
    pub(super) info: GatewayInfo,
    pub(super) outputs: Outputs,
    mac: [u8; 6],
    identity: Vec<u8>,
    random: u64,
    config: Config,
}

impl Station {
    pub(super) fn new(settings: &Settings, info: GatewayInfo) -> Self {
        Self {
            info,
            outputs: Outputs::new(),
            mac: settings.mac,
            identity: settings.identity.encode(),
            random: settings.seed,
            config: Config::default(),
        }
    }

    /// A broadcast message without an address, with the Device Identity (DEV-1, DEV-2).
    pub(super) fn identified(&self, message_type: MessageType, xid: u32) -> Builder {
        Builder::request(message_type, self.mac, xid)
            .option(option::PARAMETER_LIST, &PARAMETERS)
            .option(option::VENDOR_IDENTIFYING, &self.identity)
    }

    /// A message without the Device Identity, for RELEASE and DECLINE (DEV-2, RFC 2131 table 5).
    pub(super) fn plain(&self, message_type: MessageType, xid: u32) -> Builder {
        Builder::request(message_type, self.mac, xid)
    }

    pub(super) fn transmit(&mut self, message: Builder) {
        self.outputs.push_back(Output::Transmit(message.build()));
    }

    /// Sends an ARP Probe for `address` (RFC 5227 2.1.1).
    pub(super) fn probe(&mut self, address: Ipv4Addr) {
        self.ask_for(Ipv4Addr::UNSPECIFIED, address);
    }

    /// Sends an ARP Announcement of `address` (RFC 5227 2.3).
    pub(super) fn announce(&mut self, address: Ipv4Addr) {
        self.ask_for(address, address);
    }

    fn ask_for(&mut self, sender: Ipv4Addr, target: Ipv4Addr) {
        let request = ArpRequest { sender: (self.mac, sender), target };
        self.outputs.push_back(Output::Arp(request.to_everybody()));
    }

    /// Whether `frame` shows that another station has `address` or probes for it (RFC 5227 2.1.1).
    pub(super) fn is_claimed(&self, frame: &[u8], address: Ipv4Addr) -> bool {
        let Some(other) = find_arp(frame, None).filter(|sender| sender.mac != self.mac) else { return false };
        let takes = |request: ArpRequest| request.sender.1.is_unspecified() && request.target == address;
        Ipv4Addr::from(other.ip) == address || ArpRequest::parse(frame).is_some_and(takes)
    }

    /// Parses a server's reply to this station in the transaction `xid`.
    pub(super) fn reply<'a>(&self, frame: &'a [u8], xid: u32) -> Option<Message<'a>> {
        let message = Message::parse_reply(frame, None).ok()?;
        let mine = message.fixed.xid == xid && message.hardware_address() == HardwareAddress::from(self.mac);
        // The first fragment of a reply may lack options, so it is ignored.
        (mine && !message.fragment).then_some(message)
    }

    pub(super) fn gateway_in(&self, reply: &Message<'_>) -> Option<GatewayInfo> {
        GatewayInfo::of(reply, &self.config)
    }

    /// Sets the gateway identity, after an exchange or the loss of a lease.
    pub(super) fn set_info(&mut self, new: GatewayInfo) {
        if new != self.info {
            let old = std::mem::replace(&mut self.info, new.clone());
            self.outputs.push_back(Output::GatewayInfoChanged { old, new });
        }
    }

    pub(super) fn new_xid(&mut self) -> u32 {
        (self.draw() >> 32) as u32
    }

    /// `delay`, changed by up to one second in either direction.
    pub(super) fn jittered(&mut self, delay: Duration) -> Duration {
        let span = 2 * JITTER.as_nanos() as u64;
        (delay + Duration::from_nanos(self.draw() % span)).saturating_sub(JITTER)
    }

    /// The generator `SplitMix64`, which accepts any seed.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
