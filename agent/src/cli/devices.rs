//! `tr111 devices`

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    Failure, Outcome, Reach,
    output::{self, Table, or_dash, printable},
    watch,
};
use crate::{
    control::{
        Client, ClientError,
        message::{Binding, Device, Event, Happening, Reply, Request},
    },
    os::clock,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Then print changes until the agent stops
    #[arg(long)]
    watch: bool,
}

#[derive(Serialize)]
struct Listing {
    devices: Vec<Device>,
    number_of_entries: usize,
}

pub(super) fn run(args: &Args, reach: &Reach, json: bool) -> Outcome {
    let mut client = reach.connect()?;
    if args.watch {
        return follow(&mut client, json);
    }
    let devices = receive(client.ask(&Request::Devices)?, &mut client)?;
    if json {
        return output::write_json(&Listing { number_of_entries: devices.len(), devices });
    }
    table(&devices).print()
}

/// Joins rows that arrive in several messages.
pub(super) fn receive(first: Reply, client: &mut Client) -> Result<Vec<Device>, ClientError> {
    let mut rows: Vec<Device> = Vec::new();
    let mut reply = first;
    loop {
        let Reply::Devices { devices, more } = reply else { return Err(ClientError::OutOfTurn) };
        for device in devices {
            match rows.last_mut() {
                Some(last) if last.instance == device.instance => last.bindings.extend(device.bindings),
                _ => rows.push(device),
            }
        }
        if !more {
            return Ok(rows);
        }
        reply = client.next_reply()?;
    }
}

fn follow(client: &mut Client, json: bool) -> Outcome {
    let rows = receive(client.ask(&Request::Watch { devices: true })?, client)?;
    let mut known: HashSet<u32> = rows.iter().map(|device| device.instance).collect();
    if json {
        for device in rows {
            let time = device.first_seen.clone();
            output::write_json(&Event { time, what: Happening::DeviceAdded(device.into()) })?;
        }
    } else {
        table(&rows).print()?;
    }
    client.be_patient()?;
    loop {
        match client.next_reply().map_err(watch::gone)? {
            // A row that was added between the subscription and the listing is in both.
            Reply::Event(Event { what: Happening::DeviceAdded(change), .. }) if !known.insert(change.instance) => {}
            Reply::Event(event) => {
                if let Happening::DeviceRemoved(removal) = &event.what {
                    known.remove(&removal.change.instance);
                }
                watch::show(&event, json)?;
            }
            Reply::Lagged { missed } => {
                return Err(Failure::with_hint(
                    format_args!("output read too slowly, {missed} changes were lost and the rows shown are outdated"),
                    "start again, and read the output faster",
                ));
            }
            _ => return Err(ClientError::OutOfTurn.into()),
        }
    }
}

/// One line per binding.
pub(super) fn table(devices: &[Device]) -> Table {
    let now = clock::now();
    let mut table =
        Table::new(&["INSTANCE", "OUI", "SERIAL", "CLASS", "MAC", "IP", "INTERFACE", "BY", "LEASE", "SEEN"]);
    for device in devices {
        for (index, binding) in device.bindings.iter().enumerate() {
            let [instance, oui, serial, class, seen] = if index == 0 {
                [
                    device.instance.to_string(),
                    device.manufacturer_oui.clone(),
                    printable(&device.serial_number).into_owned(),
                    or_dash(&device.product_class),
                    ago(&device.last_seen, now),
                ]
            } else {
                Default::default()
            };
            let lease = binding.lease_expires.as_deref().map_or_else(|| "-".to_owned(), |end| until(end, now));
            let Binding { mac, ip, source, .. } = binding;
            let place = place(binding);
            table.push([instance, oui, serial, class, mac.clone(), ip.clone(), place, source.clone(), lease, seen]);
        }
    }
    table
}

/// Interface and VLAN identifiers of a binding, separated by dots.
pub(super) fn place(binding: &Binding) -> String {
    let mut place = printable(&binding.interface).into_owned();
    for vlan in &binding.vlan {
        place.push('.');
        place.push_str(&vlan.to_string());
    }
    place
}

fn until(end: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(end).map(|end| end.duration_since(now)) {
        Ok(Ok(left)) => seconds(left),
        Ok(Err(_)) => "ending".to_owned(),
        Err(_) => printable(end).into_owned(),
    }
}

/// The age of an RFC 3339 time, such as `5s ago`.
pub(super) fn since(time: &str) -> String {
    ago(time, clock::now())
}

fn ago(time: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(time) {
        Ok(time) => format!("{} ago", seconds(now.duration_since(time).unwrap_or_default())),
        Err(_) => printable(time).into_owned(),
    }
}

/// A duration as text, in whole seconds.
pub(super) fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(instance: u32, serial_number: &str, macs: &[&str]) -> Device {
        let binding = |mac: &&str| Binding {
            mac: (*mac).to_owned(),
            answered_by: None,
            client_id: None,
            ip: "192.168.1.100".to_owned(),
            interface: "lan0".to_owned(),
            vlan: vec![100, 5],
            source: "request".to_owned(),
            lease_expires: None,
        };
        Device {
            instance,
            manufacturer_oui: "00256D".to_owned(),
            serial_number: serial_number.to_owned(),
            product_class: String::new(),
            first_seen: "2026-01-01T00:00:00Z".to_owned(),
            last_seen: "2026-01-01T00:00:00Z".to_owned(),
            bindings: macs.iter().map(binding).collect(),
        }
    }

    #[test]
    fn json_has_exactly_the_keys_of_the_documentation_and_null_for_what_is_unknown() {
        let devices = vec![device(1, "DEV0001", &["02:00:00:00:00:01"])];
        let listing = serde_json::to_value(Listing { number_of_entries: 1, devices }).expect("plain data");
        let expected = serde_json::json!({"devices": [{
            "instance": 1, "manufacturer_oui": "00256D", "serial_number": "DEV0001", "product_class": "",
            "first_seen": "2026-01-01T00:00:00Z", "last_seen": "2026-01-01T00:00:00Z",
            "bindings": [{"mac": "02:00:00:00:00:01", "answered_by": null, "client_id": null, "ip": "192.168.1.100", "interface": "lan0",
                "vlan": [100, 5], "source": "request", "lease_expires": null}]
        }], "number_of_entries": 1});
        assert_eq!(listing, expected);
    }

    #[test]
    fn a_second_binding_is_a_second_line_and_hostile_text_is_escaped() {
        let devices = [device(7, "a\u{202e}b", &["02:00:00:00:00:01", "02:00:00:00:00:02"])];
        let text = table(&devices).render();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("a\\u{202e}b") && lines[1].contains("lan0.100.5"), "{text}");
        assert!(lines[2].trim_start().starts_with("02:00:00:00:00:02"), "{text}");
    }
}
