//! A DHCP client that does one step at a time.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;

use crate::{
    frame::{BROADCAST, Mac, Message, Packet, Received, kind},
    wire::Wire,
};

/// How long a server may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The client's side of DHCP on one wire.
#[derive(Debug)]
pub struct Client<'a> {
    wire: &'a Wire,
    /// Its hardware address.
    pub mac: Mac,
    /// Ethernet source of its frames: its hardware address, unless it stands behind a repeater or lies.
    pub station: Mac,
    /// Options that it adds to DISCOVER, REQUEST and INFORM: code, length, value.
    pub options: Vec<u8>,
    /// Its address, once it has one.
    pub address: Ipv4Addr,
    server: Option<Received>,
    xid: u32,
}

impl<'a> Client<'a> {
    /// A client with hardware address 02:00:00:00:00:`number`, and `options`.
    pub fn new(wire: &'a Wire, number: u8, options: Vec<u8>) -> Self {
        Self {
            wire,
            mac: [2, 0, 0, 0, 0, number],
            station: [2, 0, 0, 0, 0, number],
            options,
            address: Ipv4Addr::UNSPECIFIED,
            server: None,
            xid: u32::from(number) << 16,
        }
    }

    /// A message of its own, with its options unless it is RELEASE or DECLINE.
    pub fn message(&mut self, kind: u8) -> Message {
        self.xid += 1;
        let message = Message::client(kind, self.mac, self.xid);
        if matches!(kind, kind::RELEASE | kind::DECLINE) { message } else { message.raw(&self.options) }
    }

    /// Sends a message by broadcast.
    ///
    /// # Errors
    /// The wire is gone.
    pub fn send(&self, message: &Message) -> Result<()> {
        let mut packet = Packet::from_client(self.station, message.bytes());
        packet.source = message.ciaddr;
        self.wire.send(&packet.bytes())
    }

    /// Sends a message, and waits for an answer of type `kind`.
    ///
    /// # Errors
    /// None comes.
    pub fn ask(&self, message: &Message, kind: u8) -> Result<Received> {
        self.send(message)?;
        self.wire.expect(&format!("answer of type {kind}"), ANSWER, |frame| {
            Received::parse(frame).filter(|answer| answer.op == 2 && answer.xid == message.xid && answer.kind() == kind)
        })
    }

    /// DISCOVER; the OFFER.
    ///
    /// # Errors
    /// No server answers.
    pub fn discover(&mut self) -> Result<Received> {
        let message = self.message(kind::DISCOVER);
        self.ask(&message, kind::OFFER)
    }

    /// The REQUEST that takes an offer.
    pub fn selection(&mut self, offer: &Received) -> Message {
        let server = offer.option(54).unwrap_or_default();
        self.message(kind::REQUEST).option(50, &offer.yiaddr.octets()).option(54, server)
    }

    /// REQUEST for what was offered; the ACK.
    ///
    /// # Errors
    /// No ACK comes.
    pub fn request(&mut self, offer: &Received) -> Result<Received> {
        let message = self.selection(offer);
        let ack = self.ask(&message, kind::ACK)?;
        self.address = ack.yiaddr;
        self.server = Some(ack.clone());
        Ok(ack)
    }

    /// DISCOVER to ACK.
    ///
    /// # Errors
    /// No server answers.
    pub fn bind(&mut self) -> Result<Received> {
        let offer = self.discover()?;
        self.request(&offer)
    }

    /// REQUEST that renews the lease, by broadcast as when rebinding; the ACK.
    ///
    /// # Errors
    /// No ACK comes.
    pub fn renew(&mut self) -> Result<Received> {
        let mut message = self.message(kind::REQUEST);
        message.ciaddr = self.address;
        self.ask(&message, kind::ACK)
    }

    /// INFORM from a static address; the ACK.
    ///
    /// # Errors
    /// No ACK comes.
    pub fn inform(&mut self, address: Ipv4Addr) -> Result<Received> {
        self.address = address;
        let mut message = self.message(kind::INFORM);
        message.ciaddr = address;
        self.ask(&message, kind::ACK)
    }

    /// RELEASE, as this client should send it.
    pub fn farewell(&mut self) -> Message {
        let server = self.server.as_ref().and_then(|ack| ack.address_option(54)).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut message = self.message(kind::RELEASE).option(54, &server.octets());
        message.ciaddr = self.address;
        message.flags = 0;
        message
    }

    /// Sends a message to the server alone.
    ///
    /// # Errors
    /// The wire is gone.
    pub fn send_to_server(&self, message: &Message) -> Result<()> {
        let mut packet = Packet::from_client(self.station, message.bytes());
        packet.source = message.ciaddr;
        packet.to = self.server.as_ref().map_or(BROADCAST, |ack| ack.from);
        let server = self.server.as_ref().and_then(|ack| ack.address_option(54));
        packet.destination = server.unwrap_or(Ipv4Addr::BROADCAST);
        self.wire.send(&packet.bytes())
    }

    /// RELEASE to the server.
    ///
    /// # Errors
    /// The wire is gone.
    pub fn release(&mut self) -> Result<()> {
        let message = self.farewell();
        self.send_to_server(&message)
    }

    /// Number of the transaction that was used last.
    pub fn transaction(&self) -> u32 {
        self.xid
    }
}

/// The hardware address as the agent prints it.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
