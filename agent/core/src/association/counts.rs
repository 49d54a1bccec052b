//! Counters of the association core.

use tr111_common::{dhcp4::MessageType, identity::Refusal};

use super::{RemovalReason, Source};
use crate::identity::IdentityError;

/// Result of an identity in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityResult {
    /// Accepted.
    Accepted,
    /// Not a valid identity. Refusals that the kernel programs count themselves are not included.
    Refused(Refusal),
    /// Not UTF-8 (SEC-9).
    NotUtf8,
    /// Accepted, but the table was full when the ACK arrived (SEC-8).
    TableFull,
    /// Accepted, but its hardware address had the maximum of identities when the ACK arrived (SEC-8).
    MacCap,
    /// Accepted, but its row had the maximum of bindings when the ACK arrived (SEC-8).
    RowCap,
    /// Accepted, but excluded by the operator (GW-16).
    Denied,
    /// Accepted, but its client had no change left and too many clients were waiting (SEC-8).
    ChangeCap,
}

impl IdentityResult {
    /// All results.
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

    /// Value of the metric label `result`.
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
        /// A condition that is tolerated and counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Remark { $($(#[$doc])* $name,)* }

        impl Remark {
            /// All remarks.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Value of the metric label `remark`.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

remarks! {
    /// Trailing NULs in an identity were removed (T-18).
    NulStripped "nul_stripped",
    /// A sub-option occurred twice (T-19a).
    Duplicate "duplicate",
    /// An identity had the layout of TR-124 (T-21).
    DialectTr124 "dialect_tr124",
    /// A client joined a row with another client (T-10).
    IdentityShared "identity_shared",
    /// A client renewed its lease without an identity (T-9).
    RenewWithoutIdentity "renew_without_identity",
    /// A reply came from a DHCP server other than this gateway (T-26).
    ForeignServer "foreign_server",
    /// A RELEASE does not match the client's binding (T-7).
    ReleaseMismatch "release_mismatch",
    /// A DECLINE does not match the client's binding (T-7).
    DeclineMismatch "decline_mismatch",
    /// An ACK or NAK matches no stored request.
    UnmatchedReply "unmatched_reply",
    /// A NAK answers a message other than REQUEST (RFC 2131 4.3.5).
    MisplacedNak "misplaced_nak",
    /// An ACK to a REQUEST has no lease time.
    AckWithoutLease "ack_without_lease",
    /// An ACK has no client address.
    AckWithoutAddress "ack_without_address",
    /// A server assigned the address of a binding to another client.
    AddressReassigned "address_reassigned",
    /// An INFORM has an address that is leased to another client, or for which another client answers.
    AddressConflict "address_conflict",
    /// A row, or the row of another identity, is delayed because its client had no change left (SEC-8).
    ChangeDelayed "change_delayed",
    /// The oldest unanswered request was discarded to make room.
    ExchangeEvicted "exchange_evicted",
    /// The frame of an event is not a DHCP message that the agent can parse.
    Unreadable "unreadable",
}

/// Result of a probe (GW-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProbeResult {
    /// The station answered.
    Answered,
    /// The station did not answer.
    Unanswered,
}

impl ProbeResult {
    /// All results.
    pub const ALL: [Self; 2] = [Self::Answered, Self::Unanswered];

    /// Value of the metric label `result`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The sign of life of a device that does not answer ARP (GW-8, T-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LifeSign {
    /// The kernel confirmed the neighbour entry after the first lost probe.
    Neighbour,
    /// A tracked flow that the device began carried packets from it.
    Flow,
    /// A frame with its source address arrived.
    Frame,
}

impl LifeSign {
    /// All signs.
    pub const ALL: [Self; 3] = [Self::Neighbour, Self::Flow, Self::Frame];

    /// Value of the metric label `sign`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Flow => "flow",
            Self::Frame => "frame",
        }
    }
}

/// Messages whose identities are inspected, in the order of the counters (GW-3).
const INSPECTED: [MessageType; 3] = [MessageType::Discover, MessageType::Request, MessageType::Inform];

/// Counters; all are monotonic.
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
    /// All identity counters: message type, result, count.
    pub fn identities(&self) -> impl Iterator<Item = (MessageType, IdentityResult, u64)> {
        INSPECTED.into_iter().zip(&self.identities).flat_map(|(message, counts)| {
            IdentityResult::ALL.into_iter().zip(counts).map(move |(result, count)| (message, result, *count))
        })
    }

    /// Number of identities in messages of type `message` with this result.
    pub fn identity(&self, message: MessageType, result: IdentityResult) -> u64 {
        self.identities().find(|(m, r, _)| (*m, *r) == (message, result)).map_or(0, |(_, _, count)| count)
    }

    /// Number of occurrences of a remark.
    pub fn remark(&self, remark: Remark) -> u64 {
        self.remarks[remark as usize]
    }

    /// Number of rows added by ACKs to messages of type `source`.
    pub fn additions(&self, source: Source) -> u64 {
        self.additions[source as usize]
    }

    /// Number of rows removed for `reason`.
    pub fn removals(&self, reason: RemovalReason) -> u64 {
        self.removals[reason as usize]
    }

    /// Number of probes with this result.
    pub fn probes(&self, result: ProbeResult) -> u64 {
        self.probes[result as usize]
    }

    /// Number of devices that answered no probe and were found by `sign`.
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
