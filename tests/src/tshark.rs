//! Frames on the wire, judged by somebody else's dissector.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    frame::{Mac, Received},
    namespace::Namespace,
    process::{output_with_input, text},
    wire::Wire,
};

/// How long a frame may take that the story waits for: real clients pause a second here and there.
const FRAME: Duration = Duration::from_secs(30);
/// Header of a classic pcap file: version 2.4, no time zone, no cut, Ethernet.
const PCAP: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
/// What tshark is asked for, in this order.
const FIELDS: [&str; 9] = [
    "_ws.malformed",
    "ip.checksum.status",
    "udp.checksum.status",
    "dhcp.hw.mac_addr",
    "dhcp.option.dhcp",
    "dhcp.option.type",
    "dhcp.option.vi.tr111.gateway_manufacturer_oui",
    "dhcp.option.vi.tr111.gateway_serial_number",
    "dhcp.option.vi.tr111.gateway_product_class",
];
/// tshark's word for a checksum that is right.
const GOOD: &str = "1";

/// Everything that passes an interface, from now on.
#[derive(Debug)]
pub struct Capture {
    wire: Wire,
    frames: Vec<Vec<u8>>,
}

/// A DHCP reply as tshark reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The client's hardware address.
    pub client: Mac,
    /// Message type.
    pub kind: u8,
    /// Codes of the options in order, without PAD and END.
    pub options: Vec<u8>,
    /// OUI, serial number and product class of the gateway, as `00256D/GW0001/IGD`; `None` without any of them.
    pub gateway: Option<String>,
}

impl Capture {
    /// Begins on `interface` in `namespace`.
    ///
    /// # Errors
    /// There is no such interface, or it is down.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        Ok(Self { wire: Wire::open(namespace, interface)?, frames: Vec::new() })
    }

    /// Takes what passes, up to the first DHCP message that `last` holds of.
    ///
    /// # Errors
    /// It does not come.
    pub fn until(&mut self, what: &str, mut last: impl FnMut(&Received) -> bool) -> Result<()> {
        let deadline = Instant::now() + FRAME;
        while let Some(frame) = self.wire.receive(deadline.saturating_duration_since(Instant::now()))? {
            let found = Received::parse(&frame).is_some_and(|message| last(&message));
            self.frames.push(frame);
            if found {
                return Ok(());
            }
        }
        bail!("no {what} within {FRAME:?}")
    }

    /// The DHCP replies so far, none of them malformed, all their checksums right.
    ///
    /// # Errors
    /// tshark is missing, or finds fault with a reply.
    pub fn replies(&self) -> Result<Vec<Reply>> {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r", "-", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
        // Without what an ICMP error quotes: hosts refuse what is broadcast to a client that is not theirs.
        tshark.args(["-Y", "dhcp.type == 2 && !icmp", "-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]);
        for field in FIELDS {
            tshark.args(["-e", field]);
        }
        let output = output_with_input(&mut tshark, &self.pcap())?;
        ensure!(output.status.success(), "tshark: {}\n{}", output.status, text(&output.stderr));
        text(&output.stdout).lines().map(Reply::read).collect()
    }

    fn pcap(&self) -> Vec<u8> {
        let mut file: Vec<u8> = PCAP.iter().flat_map(|word| word.to_ne_bytes()).collect();
        for frame in &self.frames {
            let length = (frame.len() as u32).to_ne_bytes();
            // Nobody asks when it was.
            file.extend([0; 8]);
            file.extend([length, length].concat());
            file.extend(frame);
        }
        file
    }
}

impl Reply {
    fn read(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split('|').collect();
        let [malformed, ip, udp, mac, kind, options, gateway @ ..] = fields.as_slice() else {
            bail!("tshark said {line:?}")
        };
        ensure!(malformed.is_empty(), "malformed: {line}");
        ensure!((*ip, *udp) == (GOOD, GOOD), "IP checksum {ip}, UDP checksum {udp} (1 is good): {line}");
        // A client identifier that a server gives back (RFC 6842) counts as a second address.
        let mac = mac.split(',').next().unwrap_or_default();
        let octets: Vec<_> = mac.split(':').map(|digits| u8::from_str_radix(digits, 16)).collect::<Result<_, _>>()?;
        let gateway = gateway.join("/");
        Ok(Self {
            client: octets.try_into().ok().with_context(|| format!("no hardware address in {line}"))?,
            kind: kind.parse().with_context(|| line.to_owned())?,
            options: options
                .split(',')
                .filter(|code| *code != "0")
                .map(str::parse)
                .collect::<Result<_, _>>()
                .with_context(|| line.to_owned())?,
            gateway: (gateway != "//").then_some(gateway),
        })
    }
}
