//! Converts the core's types into those that clients see.

use tr111_core::{
    acs::{Approach, Cpe, Credentials, Seen, Way, association::Record},
    identity::{DeviceIdentity, GatewayIdentity},
    short::Short,
};

use crate::{
    control::message::{Association, Claim, Identity, NatBinding, NewCpe, RegisteredCpe},
    service::Clock,
};

/// Converts text from the network or from an operator; invalid UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every known address of a CPE.
pub(crate) fn bindings(cpe: &Cpe) -> Vec<NatBinding> {
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
    let reported = state.reported.as_deref().and_then(|told| {
        Some(NatBinding {
            username: username(),
            address: told.address.as_ref()?.to_string(),
            changed: Some(Clock::rfc3339_of(told.at)),
            way: Some(Way::Reported.label().to_owned()),
            ..NatBinding::default()
        })
    });
    signed.into_iter().chain(reported).chain(unsigned).collect()
}

/// The CPE without its passwords.
pub(crate) fn cpe(cpe: &Cpe, approach: Approach) -> RegisteredCpe {
    let Cpe { name, credentials, state } = cpe;
    let to = state.destination(approach);
    let way = to.as_ref().map(|to| to.way);
    let seen = match way {
        Some(Way::Authenticated) => state.authenticated,
        Some(Way::Tentative) => state.tentative,
        Some(Way::Reported) | None => None,
    };
    let told = state.reported.as_deref();
    let told_at = told.filter(|_| way == Some(Way::Reported)).map(|told| told.at);
    RegisteredCpe {
        stun_username: text(name),
        connection_request_username: text(&credentials.connection_request_username),
        address: to.map(|to| to.authority.to_string()),
        way: way.map(|way| way.label().to_owned()),
        changed: seen.map(|seen| seen.since).or(told_at).map(Clock::rfc3339_of),
        last_seen: seen.map(|seen| seen.last_seen).map(Clock::rfc3339_of),
        nat_detected: told.and_then(|told| told.nat_detected),
        last_timestamp: state.last_timestamp,
        must_verify: state.must_verify,
    }
}

/// The CPE's name and credentials as an operator provisioned them, with passwords.
pub(crate) fn credentials(cpe: &Cpe) -> NewCpe {
    let credentials = &cpe.credentials;
    NewCpe {
        stun_username: text(&cpe.name),
        stun_password: text(&credentials.stun_password),
        connection_request_username: text(&credentials.connection_request_username),
        connection_request_password: text(&credentials.connection_request_password),
    }
}

/// The inverse of [`credentials`].
pub(crate) fn provisioned(cpe: NewCpe) -> (String, Credentials) {
    let short = |text: &str| Short::from(text.as_bytes());
    let credentials = Credentials {
        stun_password: short(&cpe.stun_password),
        connection_request_username: short(&cpe.connection_request_username),
        connection_request_password: short(&cpe.connection_request_password),
    };
    (cpe.stun_username, credentials)
}

pub(crate) fn identity(DeviceIdentity { manufacturer_oui, serial_number, product_class }: &DeviceIdentity) -> Identity {
    Identity {
        manufacturer_oui: manufacturer_oui.to_string(),
        serial_number: serial_number.to_string(),
        product_class: product_class.to_string(),
    }
}

pub(crate) fn gateway(
    GatewayIdentity { manufacturer_oui, serial_number, product_class }: &GatewayIdentity,
) -> Identity {
    Identity {
        manufacturer_oui: manufacturer_oui.to_string(),
        serial_number: serial_number.to_string(),
        product_class: product_class.to_string(),
    }
}

/// The association and the claim of a device.
pub(crate) fn association(Record { device, association, claim }: &Record) -> Association {
    Association {
        device: identity(device),
        gateway: association.as_ref().map(|association| gateway(&association.gateway)),
        validated: association.as_ref().map(|association| association.validated),
        since: association.as_ref().map(|association| Clock::rfc3339_of(association.since)),
        claim: claim.as_ref().map(|claim| Claim {
            gateway: gateway(&claim.gateway),
            state: if claim.refused { "refused" } else { "pending" }.to_owned(),
            since: Clock::rfc3339_of(claim.since),
        }),
    }
}
