//! Every counter that the programs keep: what a frame is counted as, and where in the map `COUNTERS`.
//!
//! A program counts each frame exactly once per hook, as one [`Class`], so the classes of a hook add up to the frames
//! that it saw. Frames of a class whose [`Class::outcome`] is [`Outcome::HandedUp`] were offered to the ring, so their
//! sum equals the ring's events plus its losses.

use crate::{dhcp4::MessageType, identity::Refusal, insert::Insertion};

/// A place where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// LAN ingress, XDP or TC.
    LanIngress,
    /// LAN egress, TC.
    LanEgress,
    /// LAN ingress, TC: Binding Requests.
    LanBinding,
    /// WAN ingress, XDP or TC.
    WanIngress,
    /// The ACS's interfaces, XDP.
    AcsStun,
    /// Egress of a port of a LAN bridge, TC.
    LanPort,
}

impl Hook {
    /// Every hook, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::LanIngress, Self::LanEgress, Self::LanBinding, Self::WanIngress, Self::AcsStun, Self::LanPort];
    /// Those of a gateway.
    pub const GATEWAY: [Self; 5] =
        [Self::LanIngress, Self::LanEgress, Self::LanBinding, Self::WanIngress, Self::LanPort];

    /// The value of the `hook` label, and the name of the program.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LanIngress => "lan_ingress",
            Self::LanEgress => "lan_egress",
            Self::LanBinding => "lan_binding",
            Self::WanIngress => "wan_ingress",
            Self::AcsStun => "acs_stun",
            Self::LanPort => "lan_port",
        }
    }
}

/// What becomes of a frame of some class. It passes, unless it is [`Outcome::Dropped`] or [`Outcome::Answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not ours.
    NotOurs,
    /// Handed to the agent through the ring.
    HandedUp,
    /// Recognised and counted; the agent need not see it.
    Noted,
    /// Addressed to us, and refused.
    Refused,
    /// Above the rate that the operator set.
    Dropped,
    /// Turned into its answer and sent back.
    Answered,
    /// For the STUN server, and left to its socket.
    ToSocket,
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident $label:literal $outcome:ident,)*) => {
        /// What a hook takes a frame for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Class { $($(#[$doc])* $name,)* }

        impl Class {
            /// Every class, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The value of the metric's `class` label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What becomes of the frame.
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$name => Outcome::$outcome,)* }
            }
        }
    };
}

classes! {
    /// No IPv4 header, or below more than two VLAN tags.
    NotIpv4 "not_ipv4" NotOurs,
    /// ARP.
    Arp "arp" NotOurs,
    /// IPv4, but not UDP.
    NotUdp "not_udp" NotOurs,
    /// UDP with other ports.
    OtherPort "other_port" NotOurs,
    /// A fragment without a UDP header.
    LaterFragment "later_fragment" NotOurs,
    /// BOOTP without a DHCP message type.
    Bootp "bootp" NotOurs,
    /// A DHCP message in the other direction, or of a type that the hook does not look at.
    OtherMessage "other_message" NotOurs,
    /// A client message without a Device Identity, from a client that never gave one.
    NoIdentity "no_identity" NotOurs,
    /// A reply to a client that never identified itself.
    Unmarked "unmarked" NotOurs,
    /// DISCOVER with a Device Identity.
    Discover "discover" HandedUp,
    /// REQUEST with a Device Identity.
    Request "request" HandedUp,
    /// INFORM with a Device Identity.
    Inform "inform" HandedUp,
    /// DISCOVER, REQUEST or INFORM without an identity, from a client that gave one before (T-9).
    Sticky "sticky" HandedUp,
    /// RELEASE.
    Release "release" HandedUp,
    /// DECLINE.
    Decline "decline" HandedUp,
    /// First fragment of a DHCP message; the agent concludes.
    Fragment "fragment" HandedUp,
    /// OFFER to a client that identified itself.
    Offer "offer" NotOurs,
    /// ACK to a client that identified itself.
    Ack "ack" HandedUp,
    /// NAK to a client that identified itself.
    Nak "nak" HandedUp,
    /// IP or UDP length that does not fit the frame.
    BadLength "bad_length" Refused,
    /// A frame above what the programs copy.
    Oversize "oversize" Refused,
    /// Datagrams of one flow that the kernel merged into one frame (GRO), where they cannot be told apart, or more of them
    /// than a program looks at.
    Merged "merged" Refused,
    /// Shorter than the fixed part of a DHCP message.
    Truncated "truncated" Refused,
    /// No DHCP magic cookie.
    WrongCookie "wrong_cookie" Refused,
    /// Hardware address length above 16.
    BadHlen "bad_hlen" Refused,
    /// A DHCP option that runs past the end of the message.
    DamagedOptions "damaged_options" Refused,
    /// Option 125 that is no valid Device Identity; `tr111_device_identities_total` says why.
    RefusedIdentity "refused_identity" Refused,
    /// A MAC address above its budget of messages (SEC-8).
    OverBudget "over_budget" Refused,
    /// A Binding Request with CONNECTION-REQUEST-BINDING of a flow that is new, changed, or due to be told again.
    Binding "binding" HandedUp,
    /// Such a Binding Request of a flow that goes on as it was.
    BindingRefresh "binding_refresh" Noted,
    /// Another STUN message towards a STUN server, or something else on its port.
    OtherStun "other_stun" NotOurs,
    /// The answer of a STUN server.
    StunAnswer "stun_answer" Noted,
    /// A UDP Connection Request.
    ConnectionRequest "connection_request" Noted,
    /// Above the rate that the operator set.
    Policed "policed" Dropped,
    /// A Binding Request that asks for its address and for nothing else.
    Plain "plain" Answered,
    /// A Binding Request of a registered binding that is as it was.
    KeepAlive "keep_alive" Answered,
    /// A Binding Request of a binding that is not registered, or not here.
    UnregisteredBinding "unregistered_binding" ToSocket,
    /// A Binding Request with MESSAGE-INTEGRITY.
    Signed "signed" ToSocket,
    /// A Binding Request with BINDING-CHANGE.
    BindingChange "binding_change" ToSocket,
    /// A Binding Request with RESPONSE-ADDRESS, CHANGE-REQUEST or another attribute that has to be understood.
    Demanding "demanding" ToSocket,
    /// A Binding Request that is not as RFC 3489 has it.
    MalformedStun "malformed_stun" ToSocket,
    /// A datagram to a STUN port with IP options or a VLAN tag, or the first fragment of one.
    UnusualIp "unusual_ip" ToSocket,
    /// A datagram to a STUN port whose source nobody has who could be answered: a group, a broadcast address, this machine.
    BadSource "bad_source" ToSocket,
    /// A datagram to a STUN port with a wrong checksum.
    BadChecksum "bad_checksum" ToSocket,
    /// A datagram to a STUN port that is not for this machine, or not for its STUN server.
    OtherAddress "other_address" NotOurs,
    /// An answer for which the driver leaves no room around the frame.
    NoRoom "no_room" ToSocket,
    /// As [`Class::Binding`], where the attribute has NUL for the blank at its end.
    NulBinding "nul_binding" HandedUp,
    /// As [`Class::BindingRefresh`], where the attribute has NUL for the blank at its end.
    NulBindingRefresh "nul_binding_refresh" Noted,
    /// As [`Class::KeepAlive`], where the attribute has NUL for the blank at its end.
    NulKeepAlive "nul_keep_alive" Answered,
    /// A Binding Request whose CONNECTION-REQUEST-BINDING has another text or length (STUN-1). On an ACS the socket answers
    /// it as a request without that attribute.
    WrongBinding "wrong_binding" Refused,
    /// At a port of a bridge: a DHCP message that the bridge's own hooks or another port have seen, or a reply that carries a
    /// Gateway Identity.
    Repeated "repeated" Noted,
    /// At a port of a bridge: the reply of another DHCP server to a client that identified itself, where those do not count.
    ForeignServer "foreign_server" NotOurs,
}

/// A ring between the programs and the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ring {
    /// Everything seen on LAN interfaces.
    Lan,
}

impl Ring {
    /// Every ring, in the order of their numbers.
    pub const ALL: [Self; 1] = [Self::Lan];

    /// The value of the `ring` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lan => "lan",
        }
    }
}

/// One counter of the map `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A frame at a hook.
    Packet(Hook, Class),
    /// An identity that the kernel refused, by the message that carried it.
    Refused(MessageType, Refusal),
    /// An OFFER or ACK to a client that identified itself, by what became of the Gateway Identity.
    Insertion(MessageType, Insertion),
    /// Events that a ring took.
    RingEvents(Ring),
    /// Events that found a ring full.
    RingLost(Ring),
    /// Newcomers that the map of newcomers could not take.
    NewcomersLost,
}

const CLASSES: u32 = 64;
const MESSAGES: u32 = 16;
const REFUSALS: u32 = 8;
const INSERTION_RESULTS: u32 = 8;
const RINGS: u32 = 4;

const PACKETS: u32 = 0;
const REFUSED: u32 = PACKETS + 8 * CLASSES;
const INSERTIONS: u32 = REFUSED + MESSAGES * REFUSALS;
const RING_EVENTS: u32 = INSERTIONS + MESSAGES * INSERTION_RESULTS;
const RING_LOST: u32 = RING_EVENTS + RINGS;
const NEWCOMERS_LOST: u32 = RING_LOST + RINGS;

/// Number of slots of the map `COUNTERS`.
pub const COUNTER_SLOTS: u32 = NEWCOMERS_LOST + 1;

const _: () = assert!(Class::ALL.len() <= CLASSES as usize && Refusal::ALL.len() <= REFUSALS as usize);

impl Counter {
    /// Index in the map `COUNTERS`.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        match self {
            Self::Packet(hook, class) => PACKETS + hook as u32 * CLASSES + class as u32,
            Self::Refused(message, refusal) => REFUSED + (message as u32 % MESSAGES) * REFUSALS + refusal as u32,
            Self::Insertion(message, result) => {
                INSERTIONS + (message as u32 % MESSAGES) * INSERTION_RESULTS + result as u32
            }
            Self::RingEvents(ring) => RING_EVENTS + ring as u32,
            Self::RingLost(ring) => RING_LOST + ring as u32,
            Self::NewcomersLost => NEWCOMERS_LOST,
        }
    }
}

#[cfg(test)]
mod tests;
