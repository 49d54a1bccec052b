//! Writing messages.

use tr111_common::stun::{HEADER, attribute as code};

use super::{Attribute, MessageType, SharedSecret, TransactionId, Variant, integrity};

/// Writes a message attribute by attribute.
#[derive(Clone, Debug)]
pub struct Builder {
    transaction_id: TransactionId,
    message: Vec<u8>,
}

impl Builder {
    /// A message without attributes.
    pub fn new(message_type: MessageType, transaction_id: TransactionId) -> Self {
        Self::reuse(Vec::new(), message_type, transaction_id)
    }

    /// The same in memory that a message had before, for servers.
    pub fn reuse(mut memory: Vec<u8>, message_type: MessageType, transaction_id: TransactionId) -> Self {
        memory.clear();
        memory.extend((message_type as u16).to_be_bytes());
        memory.extend([0, 0]);
        memory.extend(transaction_id.0);
        Self { transaction_id, message: memory }
    }

    /// Adds an attribute. USERNAME and reason phrases are filled with spaces to a multiple of four bytes (T-37).
    #[must_use]
    pub fn attribute(mut self, attribute: Attribute<'_>) -> Self {
        attribute.write(&mut self.message, self.transaction_id);
        self
    }

    /// The message.
    pub fn build(mut self) -> Vec<u8> {
        // Callers write a handful of attributes, so a message is far below 64 KiB.
        let length = (self.message.len() - HEADER) as u16;
        self.message[2..4].copy_from_slice(&length.to_be_bytes());
        self.message
    }

    /// The message with MESSAGE-INTEGRITY as its last attribute. A client signs by [`Variant::A`]; a server answers
    /// with the variant that the request had (T-19).
    pub fn sign(self, secret: &SharedSecret, variant: Variant) -> Vec<u8> {
        let digest = integrity::digest(secret, &self.message, variant);
        self.attribute(Attribute::Other { code: code::MESSAGE_INTEGRITY, value: &digest }).build()
    }
}
