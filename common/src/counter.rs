//! The counters of the kernel programs and their indices in the map `COUNTERS`.
//!
//! Each hook counts every frame exactly once, as one [`Class`], so the classes of a hook add up to the frames that the
//! hook saw. Frames whose [`Class::outcome`] is [`Outcome::HandedUp`] were offered to the ring, so their sum equals the
//! events that the ring took plus the events that it lost.

use crate::{dhcp4::MessageType, identity::Refusal, insert::Insertion};

/// A point in the network stack at which a program is attached.
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
    /// The interfaces of an ACS, XDP.
    AcsStun,
    /// Egress of a port of a LAN bridge, TC.
    LanPort,
}

impl Hook {
    /// All hooks, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::LanIngress, Self::LanEgress, Self::LanBinding, Self::WanIngress, Self::AcsStun, Self::LanPort];
    /// The hooks of a gateway.
    pub const GATEWAY: [Self; 5] =
        [Self::LanIngress, Self::LanEgress, Self::LanBinding, Self::WanIngress, Self::LanPort];

    /// Value of the metric label `hook`, and the name of the program.
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

/// What happens to a frame of a class. The frame passes, except for [`Outcome::Dropped`] and [`Outcome::Answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Unrelated traffic.
    NotOurs,
    /// Sent to the agent through the ring.
    HandedUp,
    /// Recognised and counted; the agent gets no event.
    Noted,
    /// Relevant traffic that is malformed or over a limit; it passes unprocessed.
    Refused,
    /// Dropped, because its sender exceeds the rate that the operator set.
    Dropped,
    /// Rewritten into its answer and sent back.
    Answered,
    /// Addressed to the STUN server and left to its socket.
    ToSocket,
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident $label:literal $outcome:ident,)*) => {
        /// Classification of a frame at a hook.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Class { $($(#[$doc])* $name,)* }

        impl Class {
            /// All classes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Value of the metric label `class`.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What happens to a frame of this class.
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$name => Outcome::$outcome,)* }
            }
        }
    };
}

classes! {
    /// No IPv4 header, or more than two VLAN tags before the header.
    NotIpv4 "not_ipv4" NotOurs,
    /// ARP.
    Arp "arp" NotOurs,
    /// IPv4, but not UDP.
    NotUdp "not_udp" NotOurs,
    /// UDP with ports that the hook does not look at.
    OtherPort "other_port" NotOurs,
    /// A fragment other than the first: it has no UDP header.
    LaterFragment "later_fragment" NotOurs,
    /// BOOTP without a DHCP message type.
    Bootp "bootp" NotOurs,
    /// A DHCP message in the other direction, or of a type that the hook does not process.
    OtherMessage "other_message" NotOurs,
    /// A client message without a Device Identity, from an unknown client.
    NoIdentity "no_identity" NotOurs,
    /// A reply to a client that did not identify itself.
    Unmarked "unmarked" NotOurs,
    /// DISCOVER with a Device Identity.
    Discover "discover" HandedUp,
    /// REQUEST with a Device Identity.
    Request "request" HandedUp,
    /// INFORM with a Device Identity.
    Inform "inform" HandedUp,
    /// DISCOVER, REQUEST or INFORM without an identity, from a client that has identified itself before (T-9).
    Sticky "sticky" HandedUp,
    /// RELEASE.
    Release "release" HandedUp,
    /// DECLINE.
    Decline "decline" HandedUp,
    /// First fragment of a DHCP message; the agent classifies it.
    Fragment "fragment" HandedUp,
    /// OFFER to a client that identified itself.
    Offer "offer" NotOurs,
    /// ACK to a client that identified itself.
    Ack "ack" HandedUp,
    /// NAK to a client that identified itself.
    Nak "nak" HandedUp,
    /// An IP or UDP length that exceeds the frame.
    BadLength "bad_length" Refused,
    /// A frame larger than [`crate::frame::FRAME_CAPACITY`].
    Oversize "oversize" Refused,
    /// Datagrams of one flow that the kernel merged into one frame (GRO) and that cannot be separated here, or that
    /// exceed the number which a program processes.
    Merged "merged" Refused,
    /// Shorter than the fixed part of a DHCP message (240 bytes).
    Truncated "truncated" Refused,
    /// The DHCP magic cookie is missing.
    WrongCookie "wrong_cookie" Refused,
    /// Hardware address length greater than 16.
    BadHlen "bad_hlen" Refused,
    /// A DHCP option extends past the end of its field.
    DamagedOptions "damaged_options" Refused,
    /// Option 125 without a valid Device Identity; `tr111_device_identities_total` counts the reasons.
    RefusedIdentity "refused_identity" Refused,
    /// The sender exceeds its budget of events (SEC-8).
    OverBudget "over_budget" Refused,
    /// A Binding Request with CONNECTION-REQUEST-BINDING from a flow that is new, has changed, or whose last event is
    /// older than [`crate::abi::FLOW_SAMPLE_NANOSECONDS`].
    Binding "binding" HandedUp,
    /// A Binding Request with CONNECTION-REQUEST-BINDING from an unchanged flow.
    BindingRefresh "binding_refresh" Noted,
    /// Another datagram to a STUN port.
    OtherStun "other_stun" NotOurs,
    /// A response of a STUN server.
    StunAnswer "stun_answer" Noted,
    /// A UDP Connection Request.
    ConnectionRequest "connection_request" Noted,
    /// The sender exceeds the rate that the operator set.
    Policed "policed" Dropped,
    /// A Binding Request for the mapped address only.
    Plain "plain" Answered,
    /// A Binding Request from a registered binding that has not changed.
    KeepAlive "keep_alive" Answered,
    /// A Binding Request whose binding is not registered with this server.
    UnregisteredBinding "unregistered_binding" ToSocket,
    /// A Binding Request with MESSAGE-INTEGRITY.
    Signed "signed" ToSocket,
    /// A Binding Request with BINDING-CHANGE.
    BindingChange "binding_change" ToSocket,
    /// A Binding Request with RESPONSE-ADDRESS, CHANGE-REQUEST or another mandatory attribute.
    Demanding "demanding" ToSocket,
    /// A Binding Request that violates RFC 3489.
    MalformedStun "malformed_stun" ToSocket,
    /// A datagram to a STUN port with IP options, with a VLAN tag, or fragmented.
    UnusualIp "unusual_ip" ToSocket,
    /// A STUN request whose source address cannot be answered: multicast, broadcast, this machine, port 0.
    BadSource "bad_source" ToSocket,
    /// A datagram to a STUN port with an invalid checksum.
    BadChecksum "bad_checksum" ToSocket,
    /// A datagram to a STUN port for another machine, or to an address at which the STUN server does not listen.
    OtherAddress "other_address" NotOurs,
    /// A request that cannot be answered in place, because the driver has no room to grow the frame.
    NoRoom "no_room" ToSocket,
    /// Like [`Class::Binding`]; the attribute ends in NUL instead of a space.
    NulBinding "nul_binding" HandedUp,
    /// Like [`Class::BindingRefresh`]; the attribute ends in NUL instead of a space.
    NulBindingRefresh "nul_binding_refresh" Noted,
    /// Like [`Class::KeepAlive`]; the attribute ends in NUL instead of a space.
    NulKeepAlive "nul_keep_alive" Answered,
    /// A Binding Request whose CONNECTION-REQUEST-BINDING has a wrong text or length (STUN-1). On an ACS the socket
    /// ignores the attribute and answers the request.
    WrongBinding "wrong_binding" Refused,
    /// At a bridge port: a DHCP message that the bridge's own hooks or another port have processed already, or a reply
    /// that carries a Gateway Identity.
    Repeated "repeated" Noted,
    /// At a bridge port: the reply of another DHCP server to an identified client, while such replies are not accepted.
    ForeignServer "foreign_server" NotOurs,
}

/// A ring buffer between the programs and the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ring {
    /// Events from LAN interfaces.
    Lan,
}

impl Ring {
    /// All rings, in the order of their numbers.
    pub const ALL: [Self; 1] = [Self::Lan];

    /// Value of the metric label `ring`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lan => "lan",
        }
    }
}

/// A counter of the map `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Frames of a class at a hook.
    Packet(Hook, Class),
    /// Identities that the kernel refused, by the type of the message that carried them.
    Refused(MessageType, Refusal),
    /// OFFERs and ACKs to identified clients, by the result of the insertion of the Gateway Identity.
    Insertion(MessageType, Insertion),
    /// Events that a ring took.
    RingEvents(Ring),
    /// Events that were lost because a ring was full.
    RingLost(Ring),
    /// Newcomers that were overwritten in the map `NEWCOMERS`.
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
