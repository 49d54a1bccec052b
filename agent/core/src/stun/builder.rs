//! Builder of STUN messages.

use tr111_common::stun::{HEADER, attribute as code};

use super::{Attribute, MessageType, SharedSecret, TransactionId, Variant, integrity};

/// Builds a message attribute by attribute.
#[derive(Clone, Debug)]
pub struct Builder {
    transaction_id: TransactionId,
    message: Vec<u8>,
}

impl Builder {
    /// Starts a message without attributes.
    pub fn new(message_type: MessageType, transaction_id: TransactionId) -> Self {
        Self::reuse(Vec::new(), message_type, transaction_id)
    }

    /// Starts a message in the memory of an earlier one, as servers do.
    pub fn reuse(mut memory: Vec<u8>, message_type: MessageType, transaction_id: TransactionId) -> Self {
        memory.clear();
        memory.extend((message_type as u16).to_be_bytes());
        memory.extend([0, 0]);
        memory.extend(transaction_id.0);
        Self { transaction_id, message: memory }
    }

    /// Adds an attribute. USERNAME and reason phrases are padded with spaces to a multiple of four bytes (T-37).
    #[must_use]
    pub fn attribute(mut self, attribute: Attribute<'_>) -> Self {
        attribute.write(&mut self.message, self.transaction_id);
        self
    }

    /// Returns the message.
    pub fn build(mut self) -> Vec<u8> {
        // A message has few attributes, so it is far shorter than 64 KiB.
        let length = (self.message.len() - HEADER) as u16;
        self.message[2..4].copy_from_slice(&length.to_be_bytes());
        self.message
    }

    /// Returns the message with MESSAGE-INTEGRITY as its last attribute. A client signs with [`Variant::A`]; a server
    /// uses the variant of the request (T-19).
    pub fn sign(self, secret: &SharedSecret, variant: Variant) -> Vec<u8> {
        let digest = integrity::digest(secret, &self.message, variant);
        self.attribute(Attribute::Other { code: code::MESSAGE_INTEGRITY, value: &digest }).build()
    }
}
