//! A CPE as bytes: compact and versioned, the same in every store. Timestamps of Connection Requests have a place of their
//! own there: they change with each request.

use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};
use tr111_core::{
    acs::{Change, Cpe, Credentials, Reported, Seen, State},
    connreq::Authority,
    short::Short,
    time::UnixTime,
};

use super::Taken;
use crate::store::{self, DecodeError};

/// Goes first in a record. [`decode`] reads those of version 1 as well.
const VERSION: u8 = 2;

/// Everything but the name, which is the key.
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
}

/// The same in version 1.
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
    /// Empty, with port 0, where the CPE reported an empty address.
    host: &'a str,
    port: u16,
    nat_detected: Option<bool>,
    at: u64,
}

pub(super) fn encode(cpe: &Cpe) -> Vec<u8> {
    let Cpe { name: _, credentials, state } = cpe;
    let seen = |Seen { address, server, since, last_seen }: Seen| StoredSeen {
        address,
        server,
        since: since.0,
        last_seen: last_seen.0,
    };
    let stored = StoredCpe {
        stun_password: &credentials.stun_password,
        connection_request_username: &credentials.connection_request_username,
        connection_request_password: &credentials.connection_request_password,
        authenticated: state.authenticated.map(seen),
        tentative: state.tentative.map(seen),
        reported: state.reported.as_deref().map(|told| StoredReport {
            host: told.address.as_ref().map_or("", |address| &address.host),
            port: told.address.as_ref().map_or(0, |address| address.port),
            nat_detected: told.nat_detected,
            at: told.at.0,
        }),
        must_verify: state.must_verify,
    };
    // Plain data into memory always serialises.
    postcard::to_extend(&stored, vec![VERSION]).unwrap_or_default()
}

/// What [`encode`] made. `last_timestamp` is there only where version 1 wrote it.
pub(super) fn decode(name: &[u8], bytes: &[u8]) -> Result<Cpe, DecodeError> {
    let (stored, last_timestamp) = match bytes {
        [VERSION, stored @ ..] => (postcard::from_bytes(stored)?, None),
        _ => {
            let first: FirstStoredCpe<'_> = store::decode(bytes)?;
            let last_timestamp = first.last_timestamp;
            (StoredCpe::from(first), last_timestamp)
        }
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
        Box::new(Reported { address, nat_detected: told.nat_detected, at: UnixTime(told.at) })
    });
    Ok(Cpe {
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
            last_timestamp,
            must_verify: stored.must_verify,
        },
    })
}

impl<'a> From<FirstStoredCpe<'a>> for StoredCpe<'a> {
    fn from(first: FirstStoredCpe<'a>) -> Self {
        Self {
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

/// Whether others write what this server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    /// What this server has is what counts.
    One,
    /// Of what was learned, the later counts (T-65).
    Several,
}

/// The CPE of `before` as it is after a change.
pub(super) fn apply(change: &Change, before: Option<Cpe>, writers: Writers) -> Result<Option<Cpe>, Taken> {
    let learn = |known: &mut State, state: &State| match writers {
        Writers::One => known.clone_from(state),
        Writers::Several => known.merge(state),
    };
    Ok(match (change, before) {
        (Change::Added(cpe), Some(_)) => return Err(Taken { name: cpe.name.clone() }),
        (Change::Added(cpe) | Change::Put(cpe), None) => Some(Cpe::clone(cpe)),
        (Change::Put(cpe), Some(mut before)) => {
            before.credentials.clone_from(&cpe.credentials);
            learn(&mut before.state, &cpe.state);
            Some(before)
        }
        (Change::State(_, state), Some(mut before)) => {
            learn(&mut before.state, state);
            Some(before)
        }
        (Change::Removed(_), _) => None,
        (_, before) => before,
    })
}
