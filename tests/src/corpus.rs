//! The corpus: named frames in `corpus/*.toml`, each with what the hooks must make of it. `corpus/README.md` says how a
//! frame is written down.

pub mod acs;

use std::{collections::HashSet, fs, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tr111_common::{
    abi::{ClientKey, ExchangeKey, FlowKey},
    classify::{self, Request},
    config::{Config, Dialect},
    counter::{Class, Hook, Outcome},
    frame::PlainLoop,
    headers::{self, Segment, Wanted},
    identity::Refusal,
    stun::{self, Demands},
};
use tr111_core::{
    dhcp::Message as CoreMessage,
    identity::{IdentityError, decode_device},
};

use crate::{
    frame::{Mac, Message, Packet, kind_by_name},
    vectors::hex,
};

/// Device that sends the corpus's messages, unless a frame says otherwise.
const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0x01];
const SERVER: Mac = [0x02, 0, 0, 0, 0, 0xfe];
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const XID: u32 = 0x1112_1314;
/// Interface of every frame in the corpus: `BPF_PROG_TEST_RUN` runs on loopback.
const IFINDEX: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    frame: Vec<Frame>,
}

/// A named frame and what is expected of it. Fields that are left out have the values of an ordinary message.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one key of the file")]
pub struct Frame {
    /// Unique.
    pub name: String,
    /// What it is and why it is here.
    pub about: String,
    /// `lan_ingress` (default), `lan_egress`, `lan_binding`, `wan_ingress` or `acs_stun`.
    pub hook: Option<String>,
    /// Label of the class that the hook has to count.
    pub class: String,
    /// `OUI/serial/class` that the agent has to read, or the label of its refusal.
    pub identity: Option<String>,
    /// Payload of the answer, where it is not the usual one.
    pub answer: Option<String>,
    /// Names of frames that come before it, at their own hooks.
    pub after: Vec<String>,
    /// `xdp` or `tc`, where the other cannot have such a frame.
    pub only: Option<String>,
    /// VLAN tag that the kernel holds in metadata: such a frame exists at TC only.
    pub metadata_tag: Option<u16>,
    /// Dialect knob.
    pub dialect: Option<String>,
    /// Knob of T-16.
    pub lenient_oui: bool,
    /// Accepted enterprise numbers.
    pub enterprises: Vec<u32>,

    /// Added to the transaction, so that the exchanges of one round say nothing about those of another.
    #[serde(skip)]
    pub round: u32,

    /// The whole frame; nothing below counts then.
    pub hex: Option<String>,
    /// The UDP payload, hexadecimal; nothing of the DHCP message counts then.
    pub payload: Option<String>,
    /// DHCP message type by name, or `none`.
    pub message: Option<String>,
    /// The message type as a number.
    pub kind: Option<u8>,
    /// BOOTP op; 1 at ingress and 2 at egress unless given.
    pub op: Option<u8>,
    /// Hardware type.
    pub htype: Option<u8>,
    /// Hardware address length.
    pub hlen: Option<u8>,
    /// Transaction.
    pub xid: Option<u32>,
    /// Hardware address, up to 16 bytes.
    pub chaddr: Option<String>,
    /// The client's address.
    pub ciaddr: Option<Ipv4Addr>,
    /// The relay's address.
    pub giaddr: Option<Ipv4Addr>,
    /// `sname` field, hexadecimal.
    pub sname: String,
    /// `file` field, hexadecimal.
    pub file: String,
    /// Magic cookie, hexadecimal.
    pub cookie: Option<String>,
    /// Options behind the message type, hexadecimal, joined. `00*5` stands for five bytes.
    pub options: Vec<String>,
    /// No END.
    pub no_end: bool,
    /// Without the padding to 300 bytes.
    pub short: bool,
    /// Bytes that are cut off at the end of the message.
    pub cut: usize,
    /// VLAN tags, `8100.5` each: protocol in hexadecimal, control information in decimal.
    pub tags: Vec<String>,
    /// Ethernet type behind the tags.
    pub ethertype: Option<u16>,
    /// IP options, hexadecimal.
    pub ip_options: String,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Fragment flags and offset.
    pub fragment: Option<u16>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// IP total length, where it lies.
    pub total_length: Option<u16>,
    /// UDP length, where it lies.
    pub udp_length: Option<u16>,
    /// UDP checksum 0.
    pub no_checksum: bool,
    /// To the server alone.
    pub unicast: bool,
    /// Ethernet source.
    pub from: Option<String>,
    /// Ethernet destination.
    pub to: Option<String>,
    /// Source address.
    pub source: Option<Ipv4Addr>,
    /// Destination address.
    pub destination: Option<Ipv4Addr>,
    /// `wrong_ip` and `wrong_udp`: one bit of it is another; `bare`: the UDP checksum is the sum of the pseudo-header.
    pub checksum: Option<String>,
    /// Ethernet padding behind the datagram.
    pub trailer: usize,
    /// Bytes that are cut off at the end of the frame.
    pub truncate: usize,
}

impl Frame {
    /// The hook that it is for.
    ///
    /// # Errors
    /// There is no such hook.
    pub fn hook(&self) -> Result<Hook> {
        let label = self.hook.as_deref().unwrap_or("lan_ingress");
        Hook::ALL.into_iter().find(|hook| hook.label() == label).with_context(|| format!("no hook {label}"))
    }

    /// The class that is expected.
    ///
    /// # Errors
    /// There is no such class.
    pub fn class(&self) -> Result<Class> {
        let class = Class::ALL.iter().find(|class| class.label() == self.class);
        class.copied().with_context(|| format!("no class {}", self.class))
    }

    /// The settings that it is judged with.
    ///
    /// # Errors
    /// There is no such dialect.
    pub fn config(&self) -> Result<Config> {
        let mut config = Config { lenient_oui: u8::from(self.lenient_oui), ..Config::default() };
        config.stun_ports[0] = stun::PORT;
        config.dialect = match self.dialect.as_deref() {
            None | Some("auto") => Dialect::Auto,
            Some("tr111") => Dialect::Tr111,
            Some("tr124") => Dialect::Tr124,
            Some(other) => bail!("no dialect {other}"),
        } as u8;
        for (slot, enterprise) in config.enterprises.iter_mut().zip(&self.enterprises) {
            *slot = *enterprise;
        }
        Ok(config)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// A field that cannot be.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        if let Some(digits) = &self.hex {
            return Ok(bytes_of(digits));
        }
        let mut frame = self.packet()?.bytes();
        self.spoil_checksum(&mut frame)?;
        ensure!(self.truncate < frame.len(), "nothing is left of the frame");
        frame.truncate(frame.len() - self.truncate);
        Ok(frame)
    }

    fn spoil_checksum(&self, frame: &mut [u8]) -> Result<()> {
        let ip = 14 + 4 * self.tags.len();
        match self.checksum.as_deref() {
            None => {}
            Some("wrong_ip") => frame[ip + 11] ^= 1,
            Some("wrong_udp") => frame[ip + 27] ^= 1,
            Some("bare") => {
                let words = frame[ip + 12..ip + 20].chunks(2).chain([&[0, 17][..], &frame[ip + 24..ip + 26]]);
                let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
                let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
                frame[ip + 26..ip + 28].copy_from_slice(&sum.to_be_bytes());
            }
            Some(other) => bail!("no checksum {other}"),
        }
        Ok(())
    }

    /// What it is built of.
    fn packet(&self) -> Result<Packet> {
        let hook = self.hook()?;
        let ingress = matches!(hook, Hook::LanIngress | Hook::LanBinding);
        let payload = match &self.payload {
            Some(digits) => bytes_of(digits),
            None => self.message(ingress)?,
        };
        let mut packet = if ingress {
            Packet::from_client(CLIENT, payload)
        } else {
            Packet::from_server(SERVER, SERVER_ADDRESS, payload)
        };
        if self.unicast {
            packet.to = if ingress { SERVER } else { CLIENT };
            packet.destination = if ingress { SERVER_ADDRESS } else { Ipv4Addr::new(192, 168, 1, 50) };
        }
        for tag in &self.tags {
            let (protocol, control) = tag.split_once('.').with_context(|| format!("tag {tag}"))?;
            packet.tags.push((u16::from_str_radix(protocol, 16)?, control.parse()?));
        }
        packet.ethertype = self.ethertype.unwrap_or(packet.ethertype);
        packet.ip_options = bytes_of(&self.ip_options);
        packet.protocol = self.protocol.unwrap_or(packet.protocol);
        packet.fragment = self.fragment.unwrap_or(0);
        if hook == Hook::LanBinding {
            // Flows of one round say nothing about those of another.
            packet.ports = (u16::try_from(20_000 + self.round)?, stun::PORT);
        }
        if hook == Hook::AcsStun {
            packet = acs::request(packet);
        }
        let mac = |digits: &str| bytes_of(digits).try_into().ok().context("six bytes of an Ethernet address");
        packet.from = self.from.as_deref().map_or(Ok(packet.from), mac)?;
        packet.to = self.to.as_deref().map_or(Ok(packet.to), mac)?;
        packet.source = self.source.unwrap_or(packet.source);
        packet.destination = self.destination.unwrap_or(packet.destination);
        packet.ports.0 = self.source_port.unwrap_or(packet.ports.0);
        packet.ports.1 = self.destination_port.unwrap_or(packet.ports.1);
        packet.total_length = self.total_length;
        packet.udp_length = self.udp_length;
        packet.checksum = !self.no_checksum;
        packet.trailer = self.trailer;
        Ok(packet)
    }

    fn message(&self, ingress: bool) -> Result<Vec<u8>> {
        let kind = match (self.kind, self.message.as_deref()) {
            (Some(kind), _) => kind,
            (None, Some("none")) => 0,
            (None, Some(name)) => kind_by_name(name).with_context(|| format!("no message {name}"))?,
            (None, None) => bail!("neither message nor hex"),
        };
        let mut message = Message::client(kind, CLIENT, self.xid.unwrap_or(XID).wrapping_add(self.round << 8));
        message.op = self.op.unwrap_or(if ingress { 1 } else { 2 });
        message.htype = self.htype.unwrap_or(message.htype);
        message.hlen = self.hlen.unwrap_or(message.hlen);
        if let Some(digits) = &self.chaddr {
            let address = bytes_of(digits);
            message.chaddr = [0; 16];
            message.chaddr.get_mut(..address.len()).context("chaddr above 16 bytes")?.copy_from_slice(&address);
        }
        message.ciaddr = self.ciaddr.unwrap_or(message.ciaddr);
        message.giaddr = self.giaddr.unwrap_or(message.giaddr);
        message.sname = bytes_of(&self.sname);
        message.file = bytes_of(&self.file);
        if let Some(digits) = &self.cookie {
            message.cookie = bytes_of(digits).try_into().ok().context("a cookie of four bytes")?;
        }
        if kind == 0 {
            message.options.clear();
        }
        for option in &self.options {
            message.options.extend(bytes_of(option));
        }
        message.end = !self.no_end;
        if self.short {
            message.minimum = 0;
        }
        let mut bytes = message.bytes();
        bytes.truncate(bytes.len().checked_sub(self.cut).context("nothing is left of the message")?);
        Ok(bytes)
    }
}

/// Hexadecimal digits, in which `41*64` stands for 64 bytes 0x41.
fn bytes_of(digits: &str) -> Vec<u8> {
    let word = |word: &str| match word.split_once('*') {
        Some((digits, times)) => hex(digits).repeat(times.parse().expect("a number behind the star")),
        None => hex(word),
    };
    digits.split_whitespace().flat_map(word).collect()
}

/// Every frame of `tests/corpus`, in the order of file names.
///
/// # Errors
/// A file that cannot be read, or a name that comes twice.
pub fn load() -> Result<Vec<Frame>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut files: Vec<_> = fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut frames = Vec::new();
    let mut names = HashSet::new();
    for path in files {
        let file: File = toml::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        for frame in file.frame {
            ensure!(names.insert(frame.name.clone()), "two frames are called {}", frame.name);
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// A frame, and before it those that it names in `after`, all in one round.
///
/// # Errors
/// A name that no frame has.
pub fn sequence(frames: &[Frame], frame: &Frame, round: u32) -> Result<Vec<Frame>> {
    let before = frame.after.iter().map(|name| {
        frames.iter().find(|other| other.name == *name).with_context(|| format!("{} names {name}", frame.name))
    });
    before.chain([Ok(frame)]).map(|step| Ok(Frame { round, ..step?.clone() })).collect()
}

/// What `OUI/serial/class` the agent reads from a request, or the label of why there is none.
///
/// # Errors
/// The agent's reader refuses the whole message.
pub fn identity_read_by_agent(bytes: &[u8], metadata_tag: Option<u16>, config: &Config) -> Result<String> {
    let message = CoreMessage::parse_request(bytes, metadata_tag).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let Some(option) = message.vendor_identifying() else { return Ok(Refusal::Absent.label().to_owned()) };
    Ok(match decode_device(&option, config) {
        Ok(decoded) => {
            let identity = decoded.identity;
            format!("{}/{}/{}", identity.manufacturer_oui, identity.serial_number, identity.product_class)
        }
        Err(error) => IdentityError::label(error).to_owned(),
    })
}

/// The hooks over slices: `common`'s parser with sets in the place of maps, in the order that the programs keep.
#[derive(Debug, Default)]
pub struct SliceHooks {
    exchanges: HashSet<ExchangeKey>,
    newcomers: HashSet<ClientKey>,
    flows: HashSet<FlowKey>,
}

impl SliceHooks {
    /// What `hook` takes a frame for.
    pub fn run(&mut self, hook: Hook, frame: &[u8], metadata_tag: Option<u16>, config: &Config) -> Class {
        let verdict = match hook {
            Hook::LanIngress => self.ingress(frame, metadata_tag, config),
            Hook::LanEgress => self.egress(frame, metadata_tag, config),
            Hook::LanBinding => self.binding(frame, metadata_tag, config),
            Hook::WanIngress => {
                headers::find_udp(frame, metadata_tag, Wanted::Any).map(|udp| classify::judge_wan(frame, &udp, config))
            }
            Hook::AcsStun => acs::answer(frame, config).map(|(class, _)| class),
            // Here no interface is a port of a bridge.
            Hook::LanPort => classify::find_reply(frame, metadata_tag).and(Err(Class::OtherPort)),
        };
        verdict.unwrap_or_else(|class| class)
    }

    fn ingress(&mut self, frame: &[u8], metadata_tag: Option<u16>, config: &Config) -> Result<Class, Class> {
        let udp = classify::find_request(frame, metadata_tag)?;
        let fixed = classify::request_fixed(frame, &udp)?;
        let walk = classify::walk(frame, &udp, config, PlainLoop);
        let segment = Segment { ifindex: IFINDEX, vlan: udp.vlan };
        let client = classify::client_key(segment, &fixed, &walk);
        let class = match classify::judge_request(&udp, &walk, config) {
            Request::Pass(class) => return Err(class),
            Request::Ends(class) => return Ok(class),
            Request::Tell { class, identified } => {
                if identified {
                    self.newcomers.insert(client);
                }
                class
            }
            Request::Unidentified(_, refusal) => {
                if !self.newcomers.contains(&client) {
                    return Err(classify::unidentified(refusal));
                }
                Class::Sticky
            }
        };
        self.exchanges.insert(classify::exchange_key(segment, &fixed));
        Ok(class)
    }

    fn egress(&mut self, frame: &[u8], metadata_tag: Option<u16>, config: &Config) -> Result<Class, Class> {
        let udp = classify::find_reply(frame, metadata_tag)?;
        let fixed = classify::reply_fixed(frame, &udp)?;
        let segment = Segment { ifindex: IFINDEX, vlan: udp.vlan };
        if !self.exchanges.contains(&classify::exchange_key(segment, &fixed)) {
            return Err(Class::Unmarked);
        }
        let walk = classify::walk(frame, &udp, config, PlainLoop);
        Ok(classify::judge_reply(&udp, &walk))
    }

    fn binding(&mut self, frame: &[u8], metadata_tag: Option<u16>, config: &Config) -> Result<Class, Class> {
        let udp = classify::find_stun(frame, metadata_tag, config)?;
        let signals = classify::judge_stun(frame, &udp, &mut Demands::default(), PlainLoop)?;
        let segment = Segment { ifindex: IFINDEX, vlan: udp.vlan };
        let key = classify::flow_key(frame, segment, &udp);
        let is_new = self.flows.insert(key);
        Ok(classify::binding_class(signals, is_new || signals.binding_change))
    }
}

/// Whether frames of a class go to the agent.
pub fn is_handed_up(class: Class) -> bool {
    matches!(class.outcome(), Outcome::HandedUp)
}
