//! The simulated devices as state machines: no socket, no clock. Frames and times go in, frames come out.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tr111_common::dhcp4::MessageType;
use tr111_core::arp::ArpRequest;

use super::frames::{BROADCAST, Mac, Reply, Request, device_identity};

/// First wait for an answer; each further one is twice as long, up to [`RETRANSMIT_MAXIMUM`] (RFC 2131 4.1 starts at
/// 4 s, which suits people more than tests).
const RETRANSMIT_FIRST: Duration = Duration::from_secs(1);
const RETRANSMIT_MAXIMUM: Duration = Duration::from_secs(16);
/// Wait after a NAK.
const NAK_PAUSE: Duration = Duration::from_millis(500);

/// What the devices are like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of devices.
    pub count: u32,
    /// Number of the first one; it goes into MAC address and serial number.
    pub first: u32,
    /// Devices that start, or release, per second.
    pub rate: u32,
    /// Manufacturer OUI.
    pub oui: String,
    /// The serial number is this and six digits.
    pub serial_prefix: String,
    /// Product class; empty to leave it out.
    pub product_class: String,
    /// Send option 125.
    pub identify: bool,
    /// Ask for replies by broadcast.
    pub broadcast_replies: bool,
    /// INFORM instead of DISCOVER: the address of the first device, the others follow.
    pub inform_from: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Selecting,
    Requesting,
    Informing,
    Bound,
    Renewing,
    Released,
}

#[derive(Clone, Debug)]
struct Device {
    number: u32,
    state: State,
    /// Counts exchanges, so that each has its own transaction.
    round: u32,
    attempts: u32,
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    server_mac: Mac,
    lease: Option<Duration>,
    /// Numbers the timers, so that an old one does nothing.
    timer: u32,
}

/// All devices of one run.
#[derive(Debug)]
pub struct Fleet {
    plan: Plan,
    devices: Vec<Device>,
    by_address: HashMap<Ipv4Addr, usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    outbox: Vec<Vec<u8>>,
    bound: usize,
    releasing: bool,
}

impl Fleet {
    /// Devices that start one after the other from `now` on.
    pub fn new(plan: Plan, now: Instant) -> Self {
        let devices = (0..plan.count)
            .map(|index| Device {
                number: plan.first + index,
                state: State::Idle,
                round: 0,
                attempts: 0,
                address: Ipv4Addr::UNSPECIFIED,
                server: None,
                server_mac: BROADCAST,
                lease: None,
                timer: 0,
            })
            .collect();
        let mut fleet = Self {
            plan,
            devices,
            by_address: HashMap::new(),
            timers: BinaryHeap::new(),
            outbox: Vec::new(),
            bound: 0,
            releasing: false,
        };
        for index in 0..fleet.devices.len() {
            fleet.arm(index, fleet.turn(index, now));
        }
        fleet
    }

    /// Devices that have what they asked for.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// When [`Fleet::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((time, ..))| *time)
    }

    /// Frames to send, in order.
    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    /// Lets every bound device release its lease, at the rate of the plan.
    pub fn release(&mut self, now: Instant) {
        self.releasing = true;
        self.timers.clear();
        let mut turn = 0;
        for index in 0..self.devices.len() {
            if matches!(self.devices[index].state, State::Bound | State::Renewing) {
                self.arm(index, self.turn(turn, now));
                turn += 1;
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        while let Some(&Reverse((time, index, timer))) = self.timers.peek() {
            if time > now {
                break;
            }
            self.timers.pop();
            if self.devices[index].timer == timer {
                self.on_timer(index, now);
            }
        }
    }

    /// Takes one frame of the interface.
    pub fn handle(&mut self, frame: &[u8], now: Instant) {
        if let Some(request) = ArpRequest::parse(frame) {
            if let Some(&index) = self.by_address.get(&request.target) {
                self.outbox.push(request.reply(mac(self.devices[index].number)));
            }
        } else if let Some(reply) = Reply::parse(frame) {
            self.on_reply(&reply, now);
        }
    }

    fn on_timer(&mut self, index: usize, now: Instant) {
        if self.releasing {
            return self.send_release(index);
        }
        let device = &mut self.devices[index];
        match device.state {
            State::Idle => {
                device.round += 1;
                device.attempts = 0;
                if let Some(first) = self.plan.inform_from {
                    device.address = Ipv4Addr::from(u32::from(first) + index as u32);
                    device.state = State::Informing;
                    self.by_address.insert(device.address, index);
                } else {
                    device.state = State::Selecting;
                }
            }
            State::Bound => {
                device.round += 1;
                device.attempts = 0;
                device.state = State::Renewing;
            }
            State::Requesting if device.attempts >= 4 => {
                device.state = State::Selecting;
                device.round += 1;
                device.attempts = 0;
            }
            State::Selecting | State::Requesting | State::Informing | State::Renewing => {}
            State::Released => return,
        }
        self.transmit(index, now);
    }

    fn on_reply(&mut self, reply: &Reply, now: Instant) {
        let Some(index) = self.index_of(reply.mac).filter(|_| !self.releasing) else { return };
        let device = &mut self.devices[index];
        if reply.xid != xid(device) {
            return;
        }
        match (device.state, reply.message) {
            (State::Selecting, MessageType::Offer) => {
                device.address = reply.address;
                device.server = reply.server;
                device.state = State::Requesting;
                device.attempts = 0;
                self.transmit(index, now);
            }
            (State::Requesting | State::Renewing, MessageType::Ack) => {
                device.address = reply.address;
                device.server = reply.server.or(device.server);
                device.server_mac = reply.server_mac;
                device.lease = reply.lease.map(|seconds| Duration::from_secs(seconds.into()));
                self.by_address.insert(reply.address, index);
                self.set_bound(index, now);
            }
            (State::Informing, MessageType::Ack) => {
                device.server = reply.server;
                device.server_mac = reply.server_mac;
                self.set_bound(index, now);
            }
            (State::Requesting | State::Renewing, MessageType::Nak) => {
                if device.state == State::Renewing {
                    self.bound -= 1;
                }
                self.by_address.remove(&device.address);
                device.address = Ipv4Addr::UNSPECIFIED;
                device.state = State::Idle;
                self.arm(index, now + NAK_PAUSE);
            }
            _ => {}
        }
    }

    fn set_bound(&mut self, index: usize, now: Instant) {
        let device = &mut self.devices[index];
        if device.state != State::Renewing {
            self.bound += 1;
        }
        device.state = State::Bound;
        device.timer += 1;
        // T1 is half of the lease (RFC 2131 4.4.5).
        if let Some(lease) = device.lease {
            self.arm(index, now + lease / 2);
        }
    }

    /// Sends the message of the device's state and sets the timer for the next try.
    fn transmit(&mut self, index: usize, now: Instant) {
        let device = &mut self.devices[index];
        let everyone = (BROADCAST, Ipv4Addr::BROADCAST);
        let server = (device.server_mac, device.server.unwrap_or(Ipv4Addr::BROADCAST));
        let (message, to, address, requested, named) = match device.state {
            State::Selecting => (MessageType::Discover, everyone, Ipv4Addr::UNSPECIFIED, None, None),
            State::Requesting => {
                (MessageType::Request, everyone, Ipv4Addr::UNSPECIFIED, Some(device.address), device.server)
            }
            State::Informing => (MessageType::Inform, everyone, device.address, None, None),
            State::Renewing => (MessageType::Request, server, device.address, None, None),
            State::Idle | State::Bound | State::Released => return,
        };
        let wait = RETRANSMIT_FIRST.saturating_mul(1 << device.attempts.min(8)).min(RETRANSMIT_MAXIMUM);
        device.attempts += 1;
        self.outbox.push(request(&self.plan, device, message, to, address, requested, named));
        // Spread, so that devices that lost together do not all ask again together.
        let spread = wait / 4 * (index as u32 % 64) / 64;
        self.arm(index, now + wait + spread);
    }

    fn send_release(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.round += 1;
        device.state = State::Released;
        self.bound -= 1;
        let to = (device.server_mac, device.server.unwrap_or(Ipv4Addr::BROADCAST));
        let address = device.address;
        let server = device.server;
        self.by_address.remove(&address);
        self.outbox.push(request(&self.plan, device, MessageType::Release, to, address, None, server));
    }

    fn arm(&mut self, index: usize, time: Instant) {
        let device = &mut self.devices[index];
        device.timer += 1;
        self.timers.push(Reverse((time, index, device.timer)));
    }

    fn turn(&self, index: usize, now: Instant) -> Instant {
        now + Duration::from_secs(1) * index as u32 / self.plan.rate.max(1)
    }

    fn index_of(&self, address: Mac) -> Option<usize> {
        let [_, _, _, a, b, c] = address;
        let index = u32::from_be_bytes([0, a, b, c]).checked_sub(self.plan.first)? as usize;
        (index < self.devices.len() && mac(self.devices[index].number) == address).then_some(index)
    }
}

/// Locally administered, then "TR", then the number.
fn mac(number: u32) -> Mac {
    let [_, a, b, c] = number.to_be_bytes();
    [0x02, b'T', b'R', a, b, c]
}

/// Different for every device and exchange: an odd factor maps the numbers one to one.
fn xid(device: &Device) -> u32 {
    (device.number << 8 | device.round & 0xff).wrapping_mul(0x9e37_79b1)
}

fn request(
    plan: &Plan,
    device: &Device,
    message: MessageType,
    to: (Mac, Ipv4Addr),
    address: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
) -> Vec<u8> {
    let serial_number = format!("{}{:06}", plan.serial_prefix, device.number);
    let identity =
        if plan.identify { device_identity(&plan.oui, &serial_number, &plan.product_class) } else { Vec::new() };
    let host_name = format!("sim-{:06}", device.number);
    Request {
        message,
        mac: mac(device.number),
        xid: xid(device),
        to,
        address,
        broadcast_replies: plan.broadcast_replies && address.is_unspecified(),
        requested,
        server,
        host_name: &host_name,
        identity: &identity,
    }
    .to_frame()
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
