//! `tr111 bindings`

use serde::Serialize;

use super::{
    Outcome, Reach,
    devices::since,
    output::{self, Table, or_dash},
    watch,
};
use crate::control::{
    Client, ClientError,
    message::{Happening, NatBinding, Reply, Request},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Then print changes until the agent stops
    #[arg(long)]
    watch: bool,
}

#[derive(Serialize)]
struct Listing {
    bindings: Vec<NatBinding>,
}

pub(super) fn run(args: &Args, reach: &Reach, json: bool) -> Outcome {
    // Subscribe before the list is read, so that no change in between is missed.
    let watcher = args.watch.then(|| watch::Watcher::start(reach)).transpose()?;
    let mut client = reach.connect()?;
    let bindings = receive(client.ask(&Request::Bindings)?, &mut client)?;
    if json {
        output::write_json(&Listing { bindings })?;
    } else {
        table(&bindings).print()?;
    }
    let Some(mut watcher) = watcher else { return Ok(()) };
    loop {
        let event = watcher.next()?;
        if matches!(event.what, Happening::BindingChanged(_)) {
            watch::show(&event, json)?;
        }
    }
}

/// Joins a list that arrives in several messages.
fn receive(first: Reply, client: &mut Client) -> Result<Vec<NatBinding>, ClientError> {
    let mut all = Vec::new();
    let mut reply = first;
    loop {
        let Reply::Bindings { bindings, more } = reply else { return Err(ClientError::OutOfTurn) };
        all.extend(bindings);
        if !more {
            return Ok(all);
        }
        reply = client.next_reply()?;
    }
}

/// One line per binding.
pub(super) fn table(bindings: &[NatBinding]) -> Table {
    let mut table =
        Table::new(&["ADDRESS", "USERNAME", "SIGNED", "DEVICE", "CHANGED", "SEEN", "PERIOD", "TIMEOUT", "EXTENDED"]);
    for binding in bindings {
        let ago = |time: &Option<String>| time.as_deref().map_or_else(|| "-".to_owned(), since);
        let seconds = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number}s"));
        let extended = match (binding.extended, &binding.why) {
            (None, _) => "-".to_owned(),
            (Some(true), _) => "yes".to_owned(),
            (Some(false), why) => format!("no ({})", or_dash(why.as_deref().unwrap_or_default())),
        };
        table.push([
            binding.address.clone(),
            or_dash(binding.username.as_deref().unwrap_or_default()),
            if binding.authenticated { "yes" } else { "no" }.to_owned(),
            or_dash(binding.device.as_deref().unwrap_or_default()),
            ago(&binding.changed),
            ago(&binding.last_seen),
            seconds(binding.period_s),
            seconds(binding.timeout_s),
            extended,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_keys_of_the_documentation_and_null_for_what_is_unknown() {
        let binding = NatBinding { address: "198.51.100.7:40001".to_owned(), ..NatBinding::default() };
        let listing = serde_json::to_value(Listing { bindings: vec![binding.clone()] }).expect("plain data");
        let expected = serde_json::json!({"bindings": [{
            "username": null, "address": "198.51.100.7:40001", "authenticated": false, "changed": null,
            "last_seen": null, "period_s": null, "device": null, "timeout_s": null, "extended": null, "why": null, "way": null
        }]});
        assert_eq!(listing, expected);
        assert!(table(&[binding]).render().contains("198.51.100.7:40001  -         no"));
    }
}
