//! Encoding of a CPE: compact, versioned, and the same in all stores. The last `ts` of a CPE is not part of the record,
//! because it changes with each Connection Request.
//!
//! An unencrypted record starts with its version. An encrypted record starts with [`SEALED`], followed by the encrypted
//! passwords and a record without passwords.

use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};
use tr111_core::{
    acs::{Author, Change, Cpe, Credentials, Record, Reported, Seen, Stamp, State},
    connreq::Authority,
    short::Short,
    time::UnixTime,
};

use super::{
    Taken,
    encryption::{Encryption, Sealed},
};
use crate::store::{self, DecodeError};

/// First byte of a record: its version. [`decode`] also reads version 1.
const VERSION: u8 = 2;
/// First byte of a record with encrypted passwords. No version has this number.
const SEALED: u8 = 0xee;

/// A record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// The encoding is invalid.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The passwords cannot be decrypted.
    #[error(transparent)]
    Sealed(#[from] Sealed),
}

/// A CPE without its name, which is the key of the record.
#[derive(Debug, Serialize, Deserialize)]
struct StoredCpe<'a> {
    stun_password: &'a [u8],
    connection_request_username: &'a [u8],
    connection_request_password: &'a [u8],
    authenticated: Option<StoredSeen>,
    tentative: Option<StoredSeen>,
    #[serde(borrow)]
    reported: Option<StoredReport<'a>>,
    must_verify: bool,
    is_reported_last: bool,
    revision: u64,
    report_revision: u64,
    server: u32,
    base: u64,
}

/// A CPE in a record of version 1.
#[derive(Debug, Deserialize)]
struct FirstStoredCpe<'a> {
    stun_password: &'a [u8],
    connection_request_username: &'a [u8],
    connection_request_password: &'a [u8],
    authenticated: Option<StoredSeen>,
    tentative: Option<StoredSeen>,
    #[serde(borrow)]
    reported: Option<StoredReport<'a>>,
    last_timestamp: Option<u64>,
    must_verify: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSeen {
    address: SocketAddrV4,
    server: SocketAddrV4,
    since: u64,
    last_seen: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredReport<'a> {
    /// Empty, with port 0, if the CPE reported an empty address.
    host: &'a str,
    port: u16,
    nat_detected: Option<bool>,
    at: u64,
}

/// STUNPassword and ConnectionRequestPassword.
type Passwords<'a> = (&'a [u8], &'a [u8]);

pub(super) fn encode(record: &Record, encryption: &Encryption) -> Vec<u8> {
    let cpe = &record.cpe;
    let passwords: Passwords<'_> = (&cpe.credentials.stun_password, &cpe.credentials.connection_request_password);
    // Serialisation into memory does not fail.
    let sealed = encryption.seal(&cpe.name, &postcard::to_stdvec(&passwords).unwrap_or_default());
    let Some(sealed) = sealed else { return encode_with(passwords, record) };
    let mut bytes = postcard::to_extend(sealed.as_slice(), vec![SEALED]).unwrap_or_default();
    bytes.extend(encode_with(Passwords::default(), record));
    bytes
}

fn encode_with(
    (stun_password, connection_request_password): Passwords<'_>,
    Record { cpe, author }: &Record,
) -> Vec<u8> {
    let Cpe { name: _, credentials, state } = cpe;
    let seen = |Seen { address, server, since, last_seen }: Seen| StoredSeen {
        address,
        server,
        since: since.0,
        last_seen: last_seen.0,
    };
    let stored = StoredCpe {
        stun_password,
        connection_request_username: &credentials.connection_request_username,
        connection_request_password,
        authenticated: state.authenticated.map(seen),
        tentative: state.tentative.map(seen),
        reported: state.reported.as_deref().map(|told| StoredReport {
            host: told.address.as_ref().map_or("", |address| &address.host),
            port: told.address.as_ref().map_or(0, |address| address.port),
            nat_detected: told.nat_detected,
            at: told.at.0,
        }),
        must_verify: state.must_verify,
        is_reported_last: state.is_reported_last,
        revision: state.revision,
        report_revision: state.reported.as_ref().map_or(0, |told| told.revision),
        server: author.server,
        base: author.base,
    };
    // Serialisation into memory does not fail.
    postcard::to_extend(&stored, vec![VERSION]).unwrap_or_default()
}

/// Whether the passwords of a record are encrypted.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&SEALED)
}

/// Decodes a record. `last_timestamp` is set only for records of version 1.
pub(super) fn decode(name: &[u8], bytes: &[u8], encryption: &Encryption) -> Result<Record, RecordError> {
    let [SEALED, rest @ ..] = bytes else { return Ok(decode_without(name, bytes)?) };
    let (sealed, rest): (&[u8], &[u8]) = postcard::take_from_bytes(rest).map_err(DecodeError::from)?;
    let mut record = decode_without(name, rest)?;
    let passwords = encryption.open(name, sealed)?;
    let (stun, connection_request): Passwords<'_> = postcard::from_bytes(&passwords).map_err(DecodeError::from)?;
    record.cpe.credentials.stun_password = Short::from(stun);
    record.cpe.credentials.connection_request_password = Short::from(connection_request);
    Ok(record)
}

fn decode_without(name: &[u8], bytes: &[u8]) -> Result<Record, DecodeError> {
    let (stored, last_timestamp) = if let [VERSION, stored @ ..] = bytes {
        (postcard::from_bytes(stored)?, None)
    } else {
        let first: FirstStoredCpe<'_> = store::decode(bytes)?;
        let last_timestamp = first.last_timestamp;
        (StoredCpe::from(first), last_timestamp)
    };
    let seen = |StoredSeen { address, server, since, last_seen }: StoredSeen| Seen {
        address,
        server,
        since: UnixTime(since),
        last_seen: UnixTime(last_seen),
    };
    let reported = stored.reported.map(|told| {
        let address = Some(Authority { host: told.host.to_owned(), port: told.port });
        let address = address.filter(|address| !address.host.is_empty());
        let (at, revision) = (UnixTime(told.at), stored.report_revision);
        Box::new(Reported { address, nat_detected: told.nat_detected, at, revision })
    });
    let author = Author { server: stored.server, base: stored.base };
    let cpe = Cpe {
        name: Short::from(name),
        credentials: Credentials {
            stun_password: Short::from(stored.stun_password),
            connection_request_username: Short::from(stored.connection_request_username),
            connection_request_password: Short::from(stored.connection_request_password),
        },
        state: State {
            authenticated: stored.authenticated.map(seen),
            tentative: stored.tentative.map(seen),
            reported,
            is_reported_last: stored.is_reported_last,
            last_timestamp,
            must_verify: stored.must_verify,
            revision: stored.revision,
        },
    };
    Ok(Record { cpe, author })
}

impl<'a> From<FirstStoredCpe<'a>> for StoredCpe<'a> {
    /// In version 1 the later of binding and report is the more recent one.
    fn from(first: FirstStoredCpe<'a>) -> Self {
        let since = first.authenticated.as_ref().map(|seen| seen.since);
        Self {
            is_reported_last: first.reported.as_ref().is_some_and(|told| since.is_none_or(|since| told.at > since)),
            revision: 0,
            report_revision: 0,
            server: 0,
            base: 0,
            stun_password: first.stun_password,
            connection_request_username: first.connection_request_username,
            connection_request_password: first.connection_request_password,
            authenticated: first.authenticated,
            tentative: first.tentative,
            reported: first.reported,
            must_verify: first.must_verify,
        }
    }
}

/// Applies a change to the record `before`. Only a new record has `last_timestamp`.
pub(super) fn apply(change: &Change, before: Option<Record>, stamp: Stamp) -> Result<Option<Record>, Taken> {
    Ok(match (change, before) {
        (Change::Added(cpe), Some(_)) => return Err(Taken { name: cpe.name.clone() }),
        (Change::Added(cpe) | Change::Put(cpe), None) => Some(Record::new(stamp, Cpe::clone(cpe))),
        (Change::Put(cpe), Some(mut before)) => {
            before.cpe.credentials.clone_from(&cpe.credentials);
            Some(before)
        }
        (Change::State(_, state), Some(mut before)) => {
            before.learn(stamp, state);
            Some(before)
        }
        (Change::Reported(_, told), Some(mut before)) => {
            before.report(stamp, told);
            Some(before)
        }
        (Change::Removed(_), _) => None,
        (_, before) => before,
    })
}
