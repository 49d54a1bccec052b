//! INFORM mode: another DHCP client obtains the address (RFC 2131 4.4.3, DEV-10).

use std::{net::Ipv4Addr, time::Duration};

use tr111_common::dhcp4::MessageType;

use super::{GatewayInfo, Input, station::Station};
use crate::time::BootTime;

/// Times to wait for a reply. After the last one, the device waits for the next INFORM.
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(64),
];

/// Time for which a device that starts without an address waits for the DHCP client, before the stored gateway identity
/// is discarded (DEV-9).
const FIRST_ADDRESS: Duration = Duration::from_mins(2);

#[derive(Debug)]
pub(super) struct Inform {
    interval: Duration,
    link: bool,
    address: Option<Ipv4Addr>,
    /// Whether there was no address yet.
    is_new: bool,
    /// Transaction identifier of the running exchange, and the number of messages sent.
    exchange: Option<(u32, usize)>,
    deadline: BootTime,
}

impl Inform {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, link: false, address: None, is_new: true, exchange: None, deadline: BootTime::NEVER }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline
    }

    pub(super) fn handle(&mut self, now: BootTime, input: Input<'_>, station: &mut Station) {
        match input {
            Input::Link(link) if link != self.link => {
                self.link = link;
                self.start(now, station);
            }
            Input::Address(address) if address != self.address => {
                self.address = address;
                self.is_new = false;
                self.start(now, station);
                if address.is_none() {
                    // The DHCP client released the address, or its lease expired (DEV-9).
                    station.set_info(GatewayInfo::default());
                }
            }
            Input::Address(None) if self.is_new && station.info != GatewayInfo::default() => {
                self.deadline = self.deadline.min(now + FIRST_ADDRESS);
            }
            Input::Frame(frame) => self.receive(now, frame, station),
            Input::Tick if self.is_new && now >= self.deadline => {
                self.is_new = false;
                self.deadline = BootTime::NEVER;
                station.set_info(GatewayInfo::default());
            }
            Input::Tick if now >= self.deadline => match self.exchange {
                Some((_, asked)) if asked == BACK_OFF.len() => self.rest(now, station),
                Some(exchange) => self.ask(now, exchange, station),
                None => self.start(now, station),
            },
            Input::Link(_) | Input::Address(_) | Input::Tick => {}
            // The address belongs to the other DHCP client, so nothing is released.
            Input::Release => {
                self.link = false;
                self.start(now, station);
            }
        }
    }

    /// Starts an exchange, if there are a link and an address.
    fn start(&mut self, now: BootTime, station: &mut Station) {
        self.exchange = None;
        self.deadline = BootTime::NEVER;
        let exchange = (station.new_xid(), 0);
        self.ask(now, exchange, station);
    }

    fn ask(&mut self, now: BootTime, (xid, asked): (u32, usize), station: &mut Station) {
        let (true, Some(address)) = (self.link, self.address) else { return };
        station.transmit(station.identified(MessageType::Inform, xid).ciaddr(address));
        self.exchange = Some((xid, asked + 1));
        self.deadline = now + station.jittered(BACK_OFF[asked]);
    }

    fn rest(&mut self, now: BootTime, station: &mut Station) {
        self.exchange = None;
        self.deadline = now + station.jittered(self.interval);
    }

    fn receive(&mut self, now: BootTime, frame: &[u8], station: &mut Station) {
        let Some((xid, _)) = self.exchange else { return };
        let Some(reply) = station.reply(frame, xid).filter(|reply| reply.message_type == MessageType::Ack) else {
            return;
        };
        let info = station.gateway_in(&reply).unwrap_or_default();
        station.set_info(info);
        self.rest(now, station);
    }
}
