//! What the association core counts.

use tr111_common::{dhcp4::MessageType, identity::Refusal};

use super::{RemovalReason, Source};
use crate::identity::IdentityError;

/// What became of an identity in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityResult {
    /// It is one.
    Accepted,
    /// It is none. The programs count what they refuse themselves; this is what was left to the agent.
    Refused(Refusal),
    /// It is not UTF-8 (SEC-9).
    NotUtf8,
    /// Accepted, but at its ACK the table had no place (SEC-8).
    TableFull,
    /// Accepted, but at its ACK its hardware address had brought enough identities (SEC-8).
    MacCap,
    /// Accepted, but at its ACK its row had enough bindings (SEC-8).
    RowCap,
    /// Accepted, but the operator denies it a row (GW-16).
    Denied,
    /// Accepted, but its client had used up its changes, and too many such clients wait already (SEC-8).
    ChangeCap,
}

impl IdentityResult {
    /// Every result.
    pub const ALL: [Self; 14] = [
        Self::Accepted,
        Self::Refused(Refusal::Absent),
        Self::Refused(Refusal::WrongEnterprise),
        Self::Refused(Refusal::Incomplete),
        Self::Refused(Refusal::BadOui),
        Self::Refused(Refusal::TooLong),
        Self::Refused(Refusal::ControlCharacter),
        Self::Refused(Refusal::Damaged),
        Self::NotUtf8,
        Self::TableFull,
        Self::MacCap,
        Self::RowCap,
        Self::Denied,
        Self::ChangeCap,
    ];

    /// The value of the metric's `result` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(refusal) => refusal.label(),
            Self::NotUtf8 => "not_utf8",
            Self::TableFull => "table_full",
            Self::MacCap => "mac_cap",
            Self::RowCap => "row_cap",
            Self::Denied => "denied",
            Self::ChangeCap => "change_cap",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|result| *result == self).unwrap_or_default()
    }
}

impl From<IdentityError> for IdentityResult {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Refused(refusal) => Self::Refused(refusal),
            IdentityError::NotUtf8 => Self::NotUtf8,
        }
    }
}

macro_rules! remarks {
    ($($(#[$doc:meta])* $name:ident $label:literal,)*) => {
        /// Something worth counting that is no error of ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Remark { $($(#[$doc])* $name,)* }

        impl Remark {
            /// Every remark.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The value of a metric's `remark` label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

remarks! {
    /// Trailing NULs in an identity were stripped (T-18).
    NulStripped "nul_stripped",
    /// A sub-option came twice (T-19a).
    Duplicate "duplicate",
    /// An identity in TR-124's layout (T-21).
    DialectTr124 "dialect_tr124",
    /// A client joined a row that has another client (T-10).
    IdentityShared "identity_shared",
    /// A lease was renewed without an identity (T-9).
    RenewWithoutIdentity "renew_without_identity",
    /// A reply of a DHCP server that is not this gateway's (T-26).
    ForeignServer "foreign_server",
    /// A RELEASE that does not fit the client's binding (T-7).
    ReleaseMismatch "release_mismatch",
    /// A DECLINE that does not fit the client's binding (T-7).
    DeclineMismatch "decline_mismatch",
    /// An ACK or NAK whose request is not remembered.
    UnmatchedReply "unmatched_reply",
    /// A NAK that answers no REQUEST (RFC 2131 4.3.5).
    MisplacedNak "misplaced_nak",
    /// An ACK to a REQUEST without a lease time.
    AckWithoutLease "ack_without_lease",
    /// An ACK that tells no address of the client.
    AckWithoutAddress "ack_without_address",
    /// A server gave the address of a binding to another client.
    AddressReassigned "address_reassigned",
    /// An INFORM from an address that is leased to another client, or for which another client answers.
    AddressConflict "address_conflict",
    /// A row, or the row of another identity, that waits because its client had used up its changes (SEC-8).
    ChangeDelayed "change_delayed",
    /// More requests without an answer than are remembered; the oldest went.
    ExchangeEvicted "exchange_evicted",
    /// An event whose frame is no DHCP message to the agent.
    Unreadable "unreadable",
}

/// What became of a probe (GW-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProbeResult {
    /// The station was heard.
    Answered,
    /// It was not.
    Unanswered,
}

impl ProbeResult {
    /// Every result.
    pub const ALL: [Self; 2] = [Self::Answered, Self::Unanswered];

    /// The value of the metric's `result` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
        }
    }
}

/// By what a device that answers no ARP was found (GW-8, T-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LifeSign {
    /// The kernel's neighbour entry was confirmed after the first lost probe.
    Neighbour,
    /// A tracked flow that the device began carried packets from it.
    Flow,
    /// A frame from its address came in.
    Frame,
}

impl LifeSign {
    /// Every sign.
    pub const ALL: [Self; 3] = [Self::Neighbour, Self::Flow, Self::Frame];

    /// The value of the metric's `sign` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Flow => "flow",
            Self::Frame => "frame",
        }
    }
}

/// Messages whose identities are looked at, in the order of the counters (GW-3).
const INSPECTED: [MessageType; 3] = [MessageType::Discover, MessageType::Request, MessageType::Inform];

/// Counters; they only grow.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    identities: [[u64; IdentityResult::ALL.len()]; INSPECTED.len()],
    remarks: [u64; Remark::ALL.len()],
    additions: [u64; Source::ALL.len()],
    removals: [u64; RemovalReason::ALL.len()],
    probes: [u64; ProbeResult::ALL.len()],
    signs: [u64; LifeSign::ALL.len()],
}

impl Counts {
    /// Every identity counter: message, result, count.
    pub fn identities(&self) -> impl Iterator<Item = (MessageType, IdentityResult, u64)> {
        INSPECTED.into_iter().zip(&self.identities).flat_map(|(message, counts)| {
            IdentityResult::ALL.into_iter().zip(counts).map(move |(result, count)| (message, result, *count))
        })
    }

    /// Identities of `message` that ended in `result`.
    pub fn identity(&self, message: MessageType, result: IdentityResult) -> u64 {
        self.identities().find(|(m, r, _)| (*m, *r) == (message, result)).map_or(0, |(_, _, count)| count)
    }

    /// How often something was remarked.
    pub fn remark(&self, remark: Remark) -> u64 {
        self.remarks[remark as usize]
    }

    /// Rows added by ACKs to messages of `source`.
    pub fn additions(&self, source: Source) -> u64 {
        self.additions[source as usize]
    }

    /// Rows removed for `reason`.
    pub fn removals(&self, reason: RemovalReason) -> u64 {
        self.removals[reason as usize]
    }

    /// Probes that ended in `result`.
    pub fn probes(&self, result: ProbeResult) -> u64 {
        self.probes[result as usize]
    }

    /// Devices that answered no probe and were found by `sign`.
    pub fn signs(&self, sign: LifeSign) -> u64 {
        self.signs[sign as usize]
    }

    pub(super) fn count_sign(&mut self, sign: LifeSign) {
        self.signs[sign as usize] += 1;
    }

    pub(super) fn count_probe(&mut self, result: ProbeResult) {
        self.probes[result as usize] += 1;
    }

    pub(super) fn count_identity(&mut self, message: MessageType, result: IdentityResult) {
        if let Some(at) = INSPECTED.iter().position(|inspected| *inspected == message) {
            self.identities[at][result.index()] += 1;
        }
    }

    pub(super) fn count_remark(&mut self, remark: Remark) {
        self.remarks[remark as usize] += 1;
    }

    pub(super) fn count_addition(&mut self, source: Source) {
        self.additions[source as usize] += 1;
    }

    pub(super) fn count_removal(&mut self, reason: RemovalReason) {
        self.removals[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_counter() {
        for refusal in Refusal::ALL {
            let result = IdentityResult::Refused(refusal);
            assert_eq!(IdentityResult::ALL[result.index()], result);
        }
    }
}
