//! From the core's types to those that clients see.

use tr111_core::acs::{Cpe, Seen, Way};

use crate::{control::message::NatBinding, service::Clock};

/// Text from the network or from an operator.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All that is known of where a CPE is.
pub(super) fn bindings(cpe: &Cpe) -> Vec<NatBinding> {
    let username = || Some(text(&cpe.name));
    let seen = |seen: Seen, way: Way| NatBinding {
        username: username(),
        address: seen.address.to_string(),
        authenticated: way == Way::Authenticated,
        changed: Some(Clock::rfc3339_of(seen.since)),
        last_seen: Some(Clock::rfc3339_of(seen.last_seen)),
        way: Some(way.label().to_owned()),
        ..NatBinding::default()
    };
    let state = &cpe.state;
    let signed = state.authenticated.map(|one| seen(one, Way::Authenticated));
    let unsigned = state.tentative.map(|one| seen(one, Way::Tentative));
    let reported = state.reported.as_deref().map(|told| NatBinding {
        username: username(),
        address: told.address.to_string(),
        changed: Some(Clock::rfc3339_of(told.at)),
        way: Some(Way::Reported.label().to_owned()),
        ..NatBinding::default()
    });
    signed.into_iter().chain(reported).chain(unsigned).collect()
}
