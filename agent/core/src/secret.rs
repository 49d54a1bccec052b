//! Passwords as keys of HMAC-SHA1 (RFC 2104): STUNPassword and ConnectionRequestPassword.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// Length of an HMAC-SHA1 in bytes.
pub const DIGEST: usize = 20;

/// A shared password, as an HMAC state with the key applied, so that the key is processed once and not per message.
///
/// The bytes of the password are the key; neither RFC 3489 nor TR-111 hashes them first.
#[derive(Clone)]
pub struct SharedSecret {
    hmac: Hmac<Sha1>,
    empty: bool,
}

impl SharedSecret {
    /// The secret for `password`.
    pub fn new(password: &[u8]) -> Self {
        let hmac = Hmac::new_from_slice(password).expect("HMAC takes keys of any length");
        Self { hmac, empty: password.is_empty() }
    }

    /// Whether the password is empty, and so not secret.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// A signature over an empty text.
    pub(crate) fn signature(&self) -> Signature {
        Signature(self.hmac.clone())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedSecret(..)")
    }
}

/// HMAC-SHA1 over the text so far.
pub(crate) struct Signature(Hmac<Sha1>);

impl Signature {
    pub(crate) fn cover(&mut self, text: &[u8]) {
        self.0.update(text);
    }

    pub(crate) fn finish(self) -> [u8; DIGEST] {
        self.0.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(crate) fn verifies(self, digest: &[u8; DIGEST]) -> bool {
        self.0.verify(digest.into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::bytes;

    /// UCR-41: HMAC-SHA1 of RFC 2202 (test case 2).
    #[test]
    fn signs_like_rfc_2202() {
        let mut signature = SharedSecret::new(b"Jefe").signature();
        signature.cover(b"what do ya want ");
        signature.cover(b"for nothing?");
        assert_eq!(signature.finish()[..], bytes("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"));
    }

    /// SEC-6, T-62: secrets are never printed.
    #[test]
    fn prints_no_secret() {
        assert_eq!(format!("{:?}", SharedSecret::new(b"stunpassword1234")), "SharedSecret(..)");
    }
}
