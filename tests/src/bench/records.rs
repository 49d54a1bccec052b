//! Records of the LAN ring for as many devices as wanted: the loaded programs make one of each kind, and what differs
//! between devices is written over.

use anyhow::{Context, Result, ensure};
use tr111_common::config::Config;

use crate::{
    frame::{Mac, Message, Packet, kind},
    lab::GATEWAY,
    programs::{Program, Programs},
    vectors::identity,
};

/// What stands in the records for the device's own: bytes that are nowhere else.
const MAC: Mac = [0x02, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5];
const SERIAL_NUMBER: &str = "SERIAL%NUMBER";
const XID: u32 = 0x9d8c_7b6a;
const ADDRESS: [u8; 4] = [10, 0xf1, 0xe2, 0xd3];
const LEASE: [u8; 4] = [0x71, 0x62, 0x53, 0x44];

const SERVER: Mac = [2, 0, 0, 0, 0, 0xfe];

/// One record, and where it has what differs.
pub(super) struct Record {
    bytes: Vec<u8>,
    mac: Vec<usize>,
    serial_number: Vec<usize>,
    xid: Vec<usize>,
    address: Vec<usize>,
    lease: Vec<usize>,
}

impl Record {
    fn new(bytes: Vec<u8>) -> Self {
        let places = |what: &[u8]| {
            bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
        };
        Self {
            mac: places(&MAC),
            serial_number: places(SERIAL_NUMBER.as_bytes()),
            xid: places(&XID.to_be_bytes()),
            address: places(&ADDRESS),
            lease: places(&LEASE),
            bytes,
        }
    }

    /// The record of device `number`.
    pub(super) fn of(&mut self, number: u32) -> &[u8] {
        let [a, b, c, d] = number.to_be_bytes();
        let serial_number = serial_number(number);
        // Odd, so that no two devices have the same; and spread, as clients choose.
        let xid = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
        for (places, value) in [
            (&self.mac, [2, b'T', a, b, c, d].as_slice()),
            (&self.serial_number, serial_number.as_bytes()),
            (&self.xid, &xid),
            (&self.address, &[10, b, c, d]),
            (&self.lease, &lease(number).to_be_bytes()),
        ] {
            for at in places {
                self.bytes[*at..*at + value.len()].copy_from_slice(value);
            }
        }
        &self.bytes
    }
}

fn serial_number(number: u32) -> String {
    format!("BENCH{number:08}")
}

/// Seconds, from an hour to a day.
fn lease(number: u32) -> u32 {
    3_600 + number % 82_800
}

/// The records of a device's life.
pub(super) struct Records {
    pub(super) request: Record,
    pub(super) ack: Record,
    pub(super) release: Record,
}

impl Records {
    /// Lets the programs make them.
    pub(super) fn take() -> Result<Self> {
        let mut programs = Programs::load()?;
        programs.start_round(&Config::default())?;
        let client_id: Vec<u8> = [[1].as_slice(), &MAC].concat();
        let from = |kind| Message::client(kind, MAC, XID).option(61, &client_id);
        let option = identity("00256D", SERIAL_NUMBER, "STB");
        let request = from(kind::REQUEST).option(54, &GATEWAY.octets()).option(50, &ADDRESS).raw(&option);
        let mut release = from(kind::RELEASE).option(54, &GATEWAY.octets());
        release.ciaddr = ADDRESS.into();
        let mut ack = Message::client(kind::ACK, MAC, XID).option(54, &GATEWAY.octets()).option(51, &LEASE);
        ack.op = 2;
        ack.yiaddr = ADDRESS.into();
        let ack = ack.option(1, &[255, 0, 0, 0]).option(3, &GATEWAY.octets());

        let mut record = |program, frame: Vec<u8>| -> Result<Record> {
            let mut records = programs.records(program, &frame)?;
            ensure!(records.len() == 1, "{} records of one frame", records.len());
            Ok(Record::new(records.pop().context("no record")?))
        };
        let client = |message: &Message| Packet::from_client(MAC, message.bytes()).bytes();
        let request = record(Program::IngressXdp, client(&request))?;
        // The mark of the request is there, so the ACK is told.
        let ack = record(Program::Egress, Packet::from_server(SERVER, GATEWAY, ack.bytes()).bytes())?;
        let release = record(Program::IngressXdp, client(&release))?;
        ensure!(!request.serial_number.is_empty() && !ack.lease.is_empty(), "the records are not what was sent");
        Ok(Self { request, ack, release })
    }
}
