//! A request on its way, and what it is for.

use std::net::SocketAddrV4;

use super::{Socket, context::Context};
use crate::{
    stun::{Attribute, Builder, MessageType, Transaction, Username, Variant},
    time::BootTime,
};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn the binding, and to keep it.
    Refresh,
    /// To say that it changed (CPE-31).
    Change,
    /// To test whether it still is (CPE-24).
    Probe(Probe),
}

/// A test of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) aim: Aim,
    /// The binding.
    pub(super) target: SocketAddrV4,
    /// When it has failed.
    pub(super) deadline: BootTime,
}

/// What a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Whether the server honours RESPONSE-ADDRESS at all (T-46).
    Server,
    /// Nothing: its answer makes a new binding one that the NAT keeps.
    Settle,
    /// Whether the binding survives a period.
    Period {
        /// The period.
        candidate: std::time::Duration,
        /// For how long the binding really was quiet.
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

    /// A request makes one for the same purpose superfluous.
    pub(super) fn supersedes(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) purpose: Purpose,
    pub(super) is_signed: bool,
    pub(super) transaction: Transaction,
    /// When the transaction wants to be polled.
    pub(super) wake: BootTime,
}

impl Exchange {
    /// A new transaction. It is signed only where the server asked for that (CPE-17) and there is a secret.
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
        // CPE-30, T-36: with CONNECTION-REQUEST-BINDING always, else only where a signature needs it.
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
