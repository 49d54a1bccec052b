//! STUN requests of the CPE and their purposes.

use std::net::SocketAddrV4;

use super::{Socket, context::Context};
use crate::{
    stun::{Attribute, Builder, MessageType, Transaction, Username, Variant},
    time::BootTime,
};

/// Purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Learn and refresh the binding.
    Refresh,
    /// Announce a changed binding (CPE-31).
    Change,
    /// Test whether the binding still exists (CPE-24).
    Probe(Probe),
}

/// A test of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) aim: Aim,
    /// The public address of the binding.
    pub(super) target: SocketAddrV4,
    /// Time at which the test has failed without an answer.
    pub(super) deadline: BootTime,
}

/// Question that a test answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Whether the server honours RESPONSE-ADDRESS (T-46).
    Server,
    /// None: its answer makes the NAT treat a new binding as established.
    Settle,
    /// Whether the binding survives a period.
    Period {
        candidate: std::time::Duration,
        /// Time for which the binding actually was quiet.
        quiet: std::time::Duration,
    },
}

impl Purpose {
    pub(super) fn socket(self) -> Socket {
        match self {
            Self::Refresh | Self::Change => Socket::Primary,
            Self::Probe(_) => Socket::Secondary,
        }
    }

    /// Whether this request replaces a running one with the other purpose.
    pub(super) fn supersedes(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// A running request.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) purpose: Purpose,
    pub(super) is_signed: bool,
    pub(super) transaction: Transaction,
    /// Time at which the transaction has to be polled.
    pub(super) wake: BootTime,
}

impl Exchange {
    /// Starts a transaction. It is signed only if the server asked for that (CPE-17) and there is a secret.
    pub(super) fn new(
        now: BootTime,
        server: SocketAddrV4,
        purpose: Purpose,
        sign: bool,
        context: &mut Context,
    ) -> Self {
        let secret = context.parameters.secret().filter(|_| sign);
        let mut request = Builder::new(MessageType::BindingRequest, context.transaction_id());
        request = match purpose {
            Purpose::Refresh => request.attribute(Attribute::ConnectionRequestBinding),
            Purpose::Change => {
                request.attribute(Attribute::ConnectionRequestBinding).attribute(Attribute::BindingChange)
            }
            Purpose::Probe(probe) => request.attribute(Attribute::ResponseAddress(probe.target)),
        };
        let username = &context.parameters.stun_username;
        // CPE-30, T-36: USERNAME always accompanies CONNECTION-REQUEST-BINDING, and otherwise only a signature.
        if !username.is_empty() && (purpose.socket() == Socket::Primary || secret.is_some()) {
            request = request.attribute(Attribute::Username(Username(username.as_bytes())));
        }
        let begin = |request| Transaction::new(now, server, request).expect("what the builder wrote is a message");
        let is_signed = secret.is_some();
        let transaction = match secret {
            Some(secret) => begin(request.sign(&secret, Variant::A)).signed(secret, context.settings.variants),
            None => begin(request.build()),
        };
        let transaction = transaction.with_xor_mapped_address(context.settings.xor_mapped_address);
        Self { purpose, is_signed, transaction, wake: now }
    }
}
