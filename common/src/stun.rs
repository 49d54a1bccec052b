//! Classic STUN on the wire (RFC 3489 11), with the two attributes of TR-111 (2.2.1.3, Table 5).

/// UDP port of a STUN server.
pub const PORT: u16 = 3478;

/// Type, length and transaction id.
pub const HEADER: usize = 20;

/// Type and length of an attribute.
pub const ATTRIBUTE_HEADER: usize = 4;

/// Message types (RFC 3489 11.1).
pub mod message {
    /// Binding Request.
    pub const BINDING_REQUEST: u16 = 0x0001;
    /// Binding Response.
    pub const BINDING_RESPONSE: u16 = 0x0101;
    /// Binding Error Response.
    pub const BINDING_ERROR_RESPONSE: u16 = 0x0111;
    /// Shared Secret Request.
    pub const SHARED_SECRET_REQUEST: u16 = 0x0002;
    /// Shared Secret Response.
    pub const SHARED_SECRET_RESPONSE: u16 = 0x0102;
    /// Shared Secret Error Response.
    pub const SHARED_SECRET_ERROR_RESPONSE: u16 = 0x0112;
}

/// Attribute types (RFC 3489 11.2, TR-111 Table 5).
pub mod attribute {
    /// MAPPED-ADDRESS.
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    /// RESPONSE-ADDRESS.
    pub const RESPONSE_ADDRESS: u16 = 0x0002;
    /// CHANGE-REQUEST.
    pub const CHANGE_REQUEST: u16 = 0x0003;
    /// SOURCE-ADDRESS.
    pub const SOURCE_ADDRESS: u16 = 0x0004;
    /// CHANGED-ADDRESS.
    pub const CHANGED_ADDRESS: u16 = 0x0005;
    /// USERNAME.
    pub const USERNAME: u16 = 0x0006;
    /// PASSWORD.
    pub const PASSWORD: u16 = 0x0007;
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// ERROR-CODE.
    pub const ERROR_CODE: u16 = 0x0009;
    /// UNKNOWN-ATTRIBUTES.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// REFLECTED-FROM.
    pub const REFLECTED_FROM: u16 = 0x000b;
    /// XOR-MAPPED-ADDRESS of RFC 5389, which servers newer than TR-111 send.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// XOR-MAPPED-ADDRESS of the drafts between RFC 3489 and RFC 5389.
    pub const XOR_MAPPED_ADDRESS_OPTIONAL: u16 = 0x8020;
    /// CONNECTION-REQUEST-BINDING.
    pub const CONNECTION_REQUEST_BINDING: u16 = 0xc001;
    /// BINDING-CHANGE.
    pub const BINDING_CHANGE: u16 = 0xc002;
    /// Types up to this one have to be understood (RFC 3489 11.2).
    pub const MANDATORY_MAXIMUM: u16 = 0x7fff;
}

/// The value of CONNECTION-REQUEST-BINDING: the space at its end belongs to it.
pub const CONNECTION_REQUEST_BINDING: [u8; 20] = *b"dslforum.org/TR-111 ";
