//! `tr111 association`

use serde::Serialize;

use super::{
    Outcome, Reach,
    devices::since,
    output::{self, Table, identity_name},
};
use crate::control::{
    ClientError,
    message::{Association, Reply, Request},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the gateway of each device, and whether the gateway's table confirms it
    List,
}

#[derive(Serialize)]
struct Listing {
    associations: Vec<Association>,
}

pub(super) fn run(command: &Command, reach: &Reach, json: bool) -> Outcome {
    let Command::List = command;
    let mut client = reach.connect()?;
    let mut associations = Vec::new();
    let mut reply = client.ask(&Request::Associations)?;
    loop {
        let Reply::Associations { associations: some, more } = reply else { return Err(ClientError::OutOfTurn.into()) };
        associations.extend(some);
        if !more {
            break;
        }
        reply = client.next_reply()?;
    }
    if json { output::write_json(&Listing { associations }) } else { table(&associations).print() }
}

fn table(associations: &[Association]) -> Table {
    let mut table = Table::new(&["DEVICE", "GATEWAY", "CONFIRMED", "SINCE", "CLAIMS", "STATE"]);
    for association in associations {
        let Association { device, gateway, validated, since: from, claim } = association;
        let dash = || "-".to_owned();
        table.push([
            identity_name(device),
            gateway.as_ref().map_or_else(dash, identity_name),
            validated.map_or_else(dash, |validated| if validated { "yes" } else { "no" }.to_owned()),
            from.as_deref().map_or_else(dash, since),
            claim.as_ref().map_or_else(dash, |claim| identity_name(&claim.gateway)),
            claim.as_ref().map_or_else(dash, |claim| claim.state.clone()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Claim, Identity};

    fn identity(serial: &str, class: &str) -> Identity {
        Identity {
            manufacturer_oui: "00256D".to_owned(),
            serial_number: serial.to_owned(),
            product_class: class.to_owned(),
        }
    }

    #[test]
    fn json_has_the_keys_of_the_documentation_and_null_for_what_is_unknown() {
        let association = Association {
            device: identity("DEV0001", "STB"),
            gateway: None,
            validated: None,
            since: None,
            claim: Some(Claim {
                gateway: identity("GW0001", ""),
                state: "refused".to_owned(),
                since: "2026-01-01T00:00:00Z".to_owned(),
            }),
        };
        let listing = serde_json::to_value(Listing { associations: vec![association.clone()] }).expect("plain data");
        let expected = serde_json::json!({"associations": [{
            "device": {"manufacturer_oui": "00256D", "serial_number": "DEV0001", "product_class": "STB"},
            "gateway": null, "validated": null, "since": null,
            "claim": {
                "gateway": {"manufacturer_oui": "00256D", "serial_number": "GW0001", "product_class": ""},
                "state": "refused", "since": "2026-01-01T00:00:00Z"
            }
        }]});
        assert_eq!(listing, expected);
        let table = table(&[association]).render();
        assert!(table.contains("00256D-STB-DEV0001  -        -          -      00256D-GW0001  refused"), "{table}");
    }
}
