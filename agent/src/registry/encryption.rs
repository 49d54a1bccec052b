//! Encryption of the passwords of CPEs at rest.
//!
//! If a key is configured, the passwords of a record are encrypted with ChaCha20-Poly1305 (RFC 8439) under a key that
//! is derived from it by HKDF (RFC 5869). The name of the CPE is additional authenticated data, so that the passwords
//! of one CPE cannot be moved to another. The nonce is an HMAC over the name and the passwords under a second derived
//! key. So equal passwords of a CPE have equal ciphertexts, an unchanged record is not written again, and no nonce is
//! used for two plaintexts.

use std::{fmt, fs, io, path::Path, sync::Arc};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{self, HKDF_SHA256},
    hmac::{self, HMAC_SHA256},
};

/// Bytes of the configured key.
const KEY: usize = 32;
/// Bytes of [`Encryption::id`].
const ID: usize = 16;

/// Whether and under which key passwords are encrypted. The default is no encryption. Cheap to clone.
#[derive(Clone, Default)]
pub struct Encryption(Option<Arc<Keys>>);

struct Keys {
    passwords: LessSafeKey,
    nonces: hmac::Key,
    id: [u8; ID],
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// The file does not contain 64 hexadecimal digits.
    #[error("a key is one line of 64 hexadecimal digits; create one with: openssl rand -hex 32")]
    Form,
    /// The cryptographic library refuses the key.
    #[error("the cryptographic library refuses the key")]
    Refused,
}

impl From<ring::error::Unspecified> for BadKey {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::Refused
    }
}

/// The passwords of a record cannot be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Sealed {
    /// No key is configured.
    #[error("passwords are encrypted, but acs.registry_encryption_key_file is not set")]
    NoKey,
    /// The passwords are encrypted under another key, or were modified.
    #[error(
        "passwords are encrypted under another key than that of acs.registry_encryption_key_file, or were modified"
    )]
    WrongKey,
}

impl Encryption {
    /// Encryption under the key in a file, which contains 64 hexadecimal digits.
    pub fn read(file: &Path) -> Result<Self, BadKey> {
        let text = fs::read(file)?;
        // Editors add a newline at the end.
        let key = hexadecimal(text.trim_ascii_end()).ok_or(BadKey::Form)?;
        let secret = hkdf::Salt::new(HKDF_SHA256, b"tr111 registry").extract(&key);
        let passwords: UnboundKey = secret.expand(&[b"passwords"], &CHACHA20_POLY1305)?.into();
        let nonces: hmac::Key = secret.expand(&[b"nonces"], HMAC_SHA256)?.into();
        let mut id = [0; ID];
        secret.expand(&[b"id"], Id)?.fill(&mut id)?;
        Ok(Self(Some(Arc::new(Keys { passwords: LessSafeKey::new(passwords), nonces, id }))))
    }

    /// Whether passwords are encrypted.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Identifier of the key. It does not disclose the key.
    pub(super) fn id(&self) -> Option<[u8; ID]> {
        self.0.as_ref().map(|keys| keys.id)
    }

    /// Encrypts the `passwords` of the CPE `name`. `None` without a key.
    pub(super) fn seal(&self, name: &[u8], passwords: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.as_ref()?;
        let mut nonce = hmac::Context::with_key(&keys.nonces);
        nonce.update(&(name.len() as u64).to_be_bytes());
        nonce.update(name);
        nonce.update(passwords);
        let nonce: [u8; NONCE_LEN] = *nonce.sign().as_ref().first_chunk()?;
        let mut sealed = nonce.to_vec();
        sealed.extend(passwords);
        let tag = keys.passwords.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name),
            &mut sealed[NONCE_LEN..],
        );
        // Encryption fails only for plaintexts of many gigabytes.
        sealed.extend(tag.ok()?.as_ref());
        Some(sealed)
    }

    /// Decrypts the result of [`Encryption::seal`].
    pub(super) fn open(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Sealed> {
        let keys = self.0.as_ref().ok_or(Sealed::NoKey)?;
        let (nonce, text) = sealed.split_first_chunk().ok_or(Sealed::WrongKey)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = keys.passwords.open_in_place(nonce, Aad::from(name), &mut text).map_err(|_| Sealed::WrongKey)?;
        let length = opened.len();
        text.truncate(length);
        Ok(text)
    }
}

struct Id;

impl hkdf::KeyType for Id {
    fn len(&self) -> usize {
        ID
    }
}

fn hexadecimal(text: &[u8]) -> Option<[u8; KEY]> {
    let mut key = [0; KEY];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != KEY || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = ((high? << 4) | low?) as u8;
    }
    Some(key)
}

/// Omits the key.
impl fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Encryption({})", if self.is_on() { "on" } else { "off" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Encryption, BadKey> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("writable");
        Encryption::read(file.path())
    }

    /// Passwords can be decrypted only with their key and name. The ciphertext does not contain the plaintext.
    #[test]
    fn passwords_are_read_with_their_key_only() {
        let one = key(&format!("{}\n", "0f".repeat(32))).expect("a key");
        let other = key(&"0e".repeat(32)).expect("a key");
        let sealed = one.seal(b"CPE57689", b"a long password").expect("there is a key");
        assert_eq!(one.open(b"CPE57689", &sealed).as_deref(), Ok(b"a long password".as_slice()));
        assert!(!sealed.windows(8).any(|part| b"a long password".windows(8).any(|secret| secret == part)));
        assert_eq!(other.open(b"CPE57689", &sealed), Err(Sealed::WrongKey));
        assert_eq!(one.open(b"CPE57690", &sealed), Err(Sealed::WrongKey));
        assert_eq!(Encryption::default().open(b"CPE57689", &sealed), Err(Sealed::NoKey));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(one.open(b"CPE57689", &changed), Err(Sealed::WrongKey));
            assert_eq!(one.open(b"CPE57689", &sealed[..at]), Err(Sealed::WrongKey));
        }
        assert_ne!(one.id(), other.id());
        assert_eq!((Encryption::default().seal(b"a", b"b"), Encryption::default().id()), (None, None));
    }

    /// Equal passwords have equal ciphertexts for one CPE, and different ones for two CPEs.
    #[test]
    fn what_did_not_change_is_the_same() {
        let one = key(&"Aa".repeat(32)).expect("a key");
        let sealed = |name: &[u8], text: &[u8]| one.seal(name, text).expect("there is a key");
        assert_eq!(sealed(b"CPE1", b"secret"), sealed(b"CPE1", b"secret"));
        assert_ne!(sealed(b"CPE1", b"secret")[..NONCE_LEN], sealed(b"CPE2", b"secret")[..NONCE_LEN]);
        assert_ne!(sealed(b"CPE1", b"secret")[..NONCE_LEN], sealed(b"CPE", b"1secret")[..NONCE_LEN]);
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        for wrong in ["", "secret", &"0f".repeat(31), &"0f".repeat(33), &"0g".repeat(32), &"+f".repeat(32)] {
            assert!(matches!(key(wrong), Err(BadKey::Form)), "{wrong}");
        }
    }
}
