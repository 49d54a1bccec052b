//! DHCP messages (RFC 2131, RFC 2132): the fixed part, and the walk over the options that the kernel programs use.

use crate::{
    config::Config,
    frame::{Octets, Repeat, Source, Step, first_bytes},
    headers::PORTS,
    identity::{Joined, Scan},
    words::{WORD, Word, Words},
};

/// UDP port of DHCP servers and relay agents.
pub const SERVER_PORT: u16 = 67;
/// UDP port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;
/// Destination ports of replies: clients and relay agents. The list ends at the first 0.
pub const REPLY_PORTS: [u16; PORTS] = [CLIENT_PORT, SERVER_PORT, 0, 0, 0, 0, 0, 0];

/// Field `op` of a client's message.
pub const BOOTREQUEST: u8 = 1;
/// Field `op` of a server's message.
pub const BOOTREPLY: u8 = 2;

/// Magic cookie in front of the options (RFC 2131 3).
pub const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// Offset of the options in the message, in bytes.
pub const OPTIONS: u32 = 240;
/// Offset and length of the field `sname`.
pub const SNAME: (u32, u32) = (44, 64);
/// Offset and length of the field `file`.
pub const FILE: (u32, u32) = (108, 128);
/// Length of the field `chaddr`, and of the longest hardware address.
pub const CHADDR: usize = 16;

/// Option codes (RFC 2132, RFC 3925).
pub mod option {
    /// Padding; has no length byte.
    pub const PAD: u8 = 0;
    /// Requested IP address.
    pub const REQUESTED_IP: u8 = 50;
    /// Lease time in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// Option overload: options continue in `file` or `sname`.
    pub const OVERLOAD: u8 = 52;
    /// DHCP message type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Server identifier.
    pub const SERVER_ID: u8 = 54;
    /// Parameter request list.
    pub const PARAMETER_LIST: u8 = 55;
    /// Maximum DHCP message size.
    pub const MAXIMUM_SIZE: u8 = 57;
    /// Client identifier.
    pub const CLIENT_ID: u8 = 61;
    /// Relay agent information.
    pub const RELAY_AGENT: u8 = 82;
    /// Vendor-identifying vendor-specific information.
    pub const VENDOR_IDENTIFYING: u8 = 125;
    /// End of the options; has no length byte.
    pub const END: u8 = 255;
}

/// DHCP message types (RFC 2132 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// DHCPDISCOVER
    Discover = 1,
    /// DHCPOFFER
    Offer = 2,
    /// DHCPREQUEST
    Request = 3,
    /// DHCPDECLINE
    Decline = 4,
    /// DHCPACK
    Ack = 5,
    /// DHCPNAK
    Nak = 6,
    /// DHCPRELEASE
    Release = 7,
    /// DHCPINFORM
    Inform = 8,
}

impl MessageType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Discover, Self::Offer, Self::Request, Self::Decline, Self::Ack, Self::Nak, Self::Release, Self::Inform];

    /// The type with the number `value`; `None` if there is none.
    #[inline(always)]
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => return None,
        })
    }

    /// Value of the metric label `message`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Offer => "offer",
            Self::Request => "request",
            Self::Decline => "decline",
            Self::Ack => "ack",
            Self::Nak => "nak",
            Self::Release => "release",
            Self::Inform => "inform",
        }
    }
}

/// Reasons for which the fixed part of a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixedError {
    /// The message has fewer than 240 bytes.
    Truncated,
    /// `hlen` is greater than 16.
    BadHlen,
    /// The magic cookie is missing.
    WrongCookie,
}

/// The fields of the fixed part that are used, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// [`BOOTREQUEST`] or [`BOOTREPLY`].
    pub op: u8,
    /// Hardware type, 1 for Ethernet.
    pub htype: u8,
    /// Hardware address length in bytes, at most 16.
    pub hlen: u8,
    /// Transaction identifier, as on the wire.
    pub xid: u32,
    /// The client's current address; 0.0.0.0 if it has none.
    pub ciaddr: [u8; 4],
    /// The address that the server assigns.
    pub yiaddr: [u8; 4],
    /// Address of the relay agent; 0.0.0.0 if the message was not relayed.
    pub giaddr: [u8; 4],
    /// Hardware address, zero-padded beyond `hlen`.
    pub chaddr: Words<{ CHADDR / WORD }>,
}

impl Fixed {
    /// Parses the message in the bytes `start` to `end` of the frame.
    ///
    /// # Errors
    /// See [`FixedError`].
    #[inline(always)]
    pub fn parse<O: Octets + ?Sized>(octets: &O, start: u32, end: u32) -> Result<Self, FixedError> {
        if end < start + OPTIONS {
            return Err(FixedError::Truncated);
        }
        if octets.four(start + OPTIONS - 4) != COOKIE {
            return Err(FixedError::WrongCookie);
        }
        let hlen = octets.octet(start + 2);
        if hlen as usize > CHADDR {
            return Err(FixedError::BadHlen);
        }
        let [high, low] = [octets.be64(start + 28), octets.be64(start + 36)];
        let hlen_low = u32::from(hlen).saturating_sub(8);
        let chaddr = [first_bytes(high, hlen.into()), first_bytes(low, hlen_low)];
        let chaddr = Words(chaddr.map(|word| Word(word.to_be_bytes())));
        Ok(Self {
            op: octets.octet(start),
            htype: octets.octet(start + 1),
            hlen,
            xid: octets.be32(start + 4),
            ciaddr: octets.four(start + 12),
            yiaddr: octets.four(start + 16),
            giaddr: octets.four(start + 24),
            chaddr,
        })
    }

    /// The hardware address as two big-endian numbers.
    #[inline(always)]
    pub fn chaddr_words(&self) -> [u64; 2] {
        self.chaddr.0.map(|word| u64::from_be_bytes(word.0))
    }
}

/// Keyed hash of client identifiers, over words of eight bytes.
///
/// Both multiplications use the secret seed. The rotation between them moves every bit below the top of one of them, so
/// the effect of a changed word cannot be predicted without the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hash {
    state: u64,
    key: u64,
}

impl Hash {
    /// The hash of the empty input.
    #[inline(always)]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed.rotate_left(17), key: (seed ^ 0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// Adds eight bytes to the input.
    #[inline(always)]
    pub fn add(&mut self, word: u64) {
        let product = (self.state ^ word).wrapping_mul(self.key);
        self.state = product.rotate_left(32).wrapping_mul(self.key);
    }

    /// The hash of the input so far.
    #[inline(always)]
    pub const fn value(self) -> u64 {
        self.state
    }
}

/// State of the walk over the options field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum WalkEnd {
    /// The walk has not ended.
    #[default]
    Walking,
    /// The walk ended at END.
    End,
    /// The walk ended at the end of the message, without END. Accepted, as DHCP servers do.
    Exhausted,
    /// An option extends past the end of its field: the options field, `file` or `sname`.
    Damaged,
}

/// The field that a walk is in. Overloaded fields follow in this order (RFC 2131 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Field {
    #[default]
    Options,
    File,
    Sname,
    Done,
}

/// Bits of option overload (RFC 2132 9.3).
mod overload {
    pub(super) const FILE: u8 = 1;
    pub(super) const SNAME: u8 = 2;
}

/// A single walk over the options of a message, and the values that it collects.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// Start of the message in the frame.
    message: u32,
    at: u32,
    /// End of the current field.
    end: u32,
    /// Offset of END in the options field, once the walk has reached it.
    options_end: u32,
    field: Field,
    /// Hash over the client identifier (option 61).
    pub client_id: Hash,
    /// Length of the client identifier in bytes; 0 without one.
    pub client_id_length: u16,
    /// DHCP message type, as on the wire; 0 without option 53.
    pub message_type: u8,
    /// Option overload, as on the wire; 0 without option 52.
    overload: u8,
    /// Largest DHCP message that the client accepts, in bytes (option 57); 0 without one.
    pub maximum_size: u16,
    /// Offset of the relay agent information (option 82) in the options field; 0 without one.
    pub relay_agent: u32,
    /// Offset of the last instance of option 125; 0 without one.
    pub vendor_identifying: u32,
    /// Lease time in seconds (option 51); 0 without one.
    pub lease: u32,
    /// Server identifier (option 54); 0.0.0.0 without one.
    pub server: [u8; 4],
    /// Requested address (option 50); 0.0.0.0 without one.
    pub requested: [u8; 4],
    /// How the walk over the options field ended.
    pub ended: WalkEnd,
    /// The identity in option 125.
    pub identity: Scan,
    /// The joined value of all instances of option 125.
    pub joined: Joined,
}

/// Most options that one walk reads; four PADs count as one. A message of 16 KiB could hold more, but no known client
/// sends that many. A message with more options ends as [`WalkEnd::Damaged`].
pub const OPTIONS_MAXIMUM: u32 = 1024;

impl Walk {
    /// A walk over the options of the message in the bytes `message` to `end`.
    #[inline(always)]
    pub fn new(message: u32, end: u32, config: &Config) -> Self {
        let mut walk = Self::default();
        walk.start(message, end, config);
        walk
    }

    /// Resets the walk to the options of the message in the bytes `message` to `end`. It works in place, because a
    /// [`Walk`] does not fit on a kernel stack.
    #[inline(always)]
    pub fn start(&mut self, message: u32, end: u32, config: &Config) {
        self.message = message;
        self.at = message + OPTIONS;
        self.end = end;
        self.options_end = 0;
        self.field = Field::Options;
        self.client_id = Hash::new(config.seed);
        self.client_id_length = 0;
        self.message_type = 0;
        self.overload = 0;
        self.maximum_size = 0;
        self.relay_agent = 0;
        self.vendor_identifying = 0;
        self.lease = 0;
        self.server = [0; 4];
        self.requested = [0; 4];
        self.ended = WalkEnd::Walking;
        self.identity = Scan::new();
        self.joined.clear();
    }

    /// Offset of END in the options field; `None` if the walk did not reach END.
    #[inline(always)]
    pub fn end_option(&self) -> Option<u32> {
        if self.ended == WalkEnd::End { Some(self.options_end) } else { None }
    }

    /// Reads all options.
    #[inline(always)]
    pub fn run<S: Source + ?Sized, R: Repeat>(&mut self, source: &S, config: &Config, repeat: R) {
        repeat.repeat(OPTIONS_MAXIMUM, &mut WalkStep { walk: self, source, repeat });
        if self.field != Field::Done {
            self.ended = WalkEnd::Damaged;
        }
        self.identity.read_joined(&self.joined, config, repeat);
    }

    /// Ends the current field and continues in the next field that holds options; `false` after the last one.
    #[inline(always)]
    fn leave_field(&mut self, ended: WalkEnd) -> bool {
        if self.field == Field::Options {
            self.ended = ended;
            self.options_end = self.at;
        }
        let (next, (start, length)) = if self.field == Field::Options && self.overload & overload::FILE != 0 {
            (Field::File, FILE)
        } else if self.field != Field::Sname && self.overload & overload::SNAME != 0 {
            (Field::Sname, SNAME)
        } else {
            self.field = Field::Done;
            return false;
        };
        self.field = next;
        self.at = self.message + start;
        self.end = self.at + length;
        true
    }

    /// Ends the walk at an option that extends past its field.
    #[inline(always)]
    fn fail(&mut self) -> bool {
        self.ended = WalkEnd::Damaged;
        self.field = Field::Done;
        false
    }
}

struct WalkStep<'a, S: ?Sized, R> {
    walk: &'a mut Walk,
    source: &'a S,
    repeat: R,
}

impl<S: Source + ?Sized, R: Repeat> Step for WalkStep<'_, S, R> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> bool {
        let walk = &mut *self.walk;
        let at = walk.at;
        if at >= walk.end {
            return walk.leave_field(WalkEnd::Exhausted);
        }
        let code = self.source.octet(at);
        if code == option::PAD {
            let many = at + 4 <= walk.end && self.source.be32(at) == 0;
            walk.at = at + if many { 4 } else { 1 };
            return true;
        }
        if code == option::END {
            return walk.leave_field(WalkEnd::End);
        }
        if at + 1 >= walk.end {
            return walk.fail();
        }
        let length = u32::from(self.source.octet(at + 1));
        let value = at + 2;
        if value + length > walk.end {
            return walk.fail();
        }
        walk.at = value + length;
        match code {
            option::MESSAGE_TYPE if length == 1 => walk.message_type = self.source.octet(value),
            option::OVERLOAD if length == 1 && walk.field == Field::Options => walk.overload = self.source.octet(value),
            option::MAXIMUM_SIZE if length == 2 => walk.maximum_size = self.source.be16(value),
            option::RELAY_AGENT if walk.field == Field::Options => walk.relay_agent = at,
            option::LEASE_TIME if length == 4 => walk.lease = self.source.be32(value),
            option::SERVER_ID if length == 4 => walk.server = self.source.four(value),
            option::REQUESTED_IP if length == 4 => walk.requested = self.source.four(value),
            option::CLIENT_ID => {
                walk.client_id_length += length as u16;
                let mut step = ClientIdStep { hash: &mut walk.client_id, octets: self.source, at: value, length };
                self.repeat.repeat(length.div_ceil(8), &mut step);
            }
            option::VENDOR_IDENTIFYING => {
                walk.vendor_identifying = at;
                walk.joined.append(self.source, value, length);
            }
            _ => {}
        }
        true
    }
}

struct ClientIdStep<'a, O: ?Sized> {
    hash: &'a mut Hash,
    octets: &'a O,
    at: u32,
    length: u32,
}

impl<O: Octets + ?Sized> Step for ClientIdStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        let word = self.octets.be64(self.at + index * 8);
        self.hash.add(first_bytes(word, self.length - index * 8));
        true
    }
}

/// Iterator over the options of one field of a message, as code and value, for userspace.
///
/// It ends at END, at the end of the field, or at the first option that extends past the field.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// Iterates over the bytes of one field.
    pub fn new(field: &'a [u8]) -> Self {
        Self { rest: field }
    }

    /// Whether the iteration ended at an option that extends past the field. Only meaningful after the last option.
    pub fn is_damaged(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&code, after) = self.rest.split_first()?;
            if code == option::PAD {
                self.rest = after;
                continue;
            }
            if code == option::END {
                self.rest = &[];
                return None;
            }
            let (&length, after) = after.split_first()?;
            let (value, after) = after.split_at_checked(usize::from(length))?;
            self.rest = after;
            return Some((code, value));
        }
    }
}
