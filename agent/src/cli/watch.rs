//! `tr111 watch`

use std::{thread, time::Duration};

use super::{
    Failure, Outcome, Reach,
    devices::place,
    output::{self, identity_name, printable},
};
use crate::control::{
    Client, ClientError,
    message::{
        Alarm, AssociationChange, Binding, BindingChange, Change, ChangedParameter, ConnectionRequest, Event,
        Happening, Notification, Refused, Reply, Request, Transport,
    },
};

/// Pause between attempts to connect to an agent that is not running.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// When the agent stops, wait until it runs again
    #[arg(long)]
    follow: bool,
    /// Print notifications only: unacknowledged ones first, then new ones, in order and without gaps
    #[arg(long)]
    notifications: bool,
    /// With --notifications: lowest sequence number to print
    #[arg(long, value_name = "SEQUENCE", requires = "notifications", default_value_t = 0)]
    from: u64,
}

pub(super) fn run(args: &Args, reach: &Reach, json: bool) -> Outcome {
    let mut announced = false;
    let mut from = args.from;
    loop {
        let request = if args.notifications {
            Request::Subscribe { from_sequence: from }
        } else {
            Request::Watch { devices: false }
        };
        let ended = watch(reach, json, &request, &mut from, &mut announced);
        match ended {
            Err(Ended::Agent(error)) if args.follow && error.is_absence() => {
                if !announced {
                    announced = true;
                    eprintln!("waiting for an agent on {}", reach.control.display());
                }
                thread::sleep(RETRY);
            }
            Err(Ended::Agent(error)) => return Err(gone(error)),
            Err(Ended::Output(failure)) => return Err(failure),
            Ok(never) => match never {},
        }
    }
}

/// The failure of a command that waited for events.
pub(super) fn gone(error: ClientError) -> Failure {
    match error {
        ClientError::Closed => {
            Failure::with_hint("the agent closed the connection", "\"tr111 watch --follow\" waits until it runs again")
        }
        error => error.into(),
    }
}

/// A subscription to events.
pub(super) struct Watcher(Client);

impl Watcher {
    pub(super) fn start(reach: &Reach) -> Result<Self, Failure> {
        let mut client = reach.connect()?;
        match client.ask(&Request::Watch { devices: false })? {
            Reply::Done => {}
            _ => return Err(ClientError::OutOfTurn.into()),
        }
        client.be_patient()?;
        Ok(Self(client))
    }

    pub(super) fn next(&mut self) -> Result<Event, Failure> {
        loop {
            match self.0.next_reply().map_err(gone)? {
                Reply::Event(event) => return Ok(event),
                Reply::Lagged { missed } => eprintln!("warning: output read too slowly, {missed} events were lost"),
                _ => return Err(ClientError::OutOfTurn.into()),
            }
        }
    }
}

enum Ended {
    Agent(ClientError),
    Output(Failure),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Agent(error)
    }
}

/// Prints events until the connection ends. `next` is set to the sequence number after the last printed notification.
fn watch(
    reach: &Reach,
    json: bool,
    request: &Request,
    next: &mut u64,
    announced: &mut bool,
) -> Result<std::convert::Infallible, Ended> {
    let mut client = crate::control::Client::connect(&reach.control)?;
    match client.ask(request)? {
        Reply::Done => {}
        _ => return Err(ClientError::OutOfTurn.into()),
    }
    client.be_patient()?;
    *announced = false;
    loop {
        match client.next_reply()? {
            Reply::Event(event) => {
                show(&event, json).map_err(Ended::Output)?;
                if let Happening::Notification(notification) = &event.what {
                    *next = notification.sequence.saturating_add(1);
                }
            }
            Reply::Lagged { missed } => eprintln!("warning: output read too slowly, {missed} events were lost"),
            _ => return Err(ClientError::OutOfTurn.into()),
        }
    }
}

/// Prints an event as one line.
pub(super) fn show(event: &Event, json: bool) -> Outcome {
    if json {
        return output::write_json(event);
    }
    let mut line = describe(event);
    line.push('\n');
    output::write(line.as_bytes())
}

fn describe(event: &Event) -> String {
    let (what, change) = match &event.what {
        Happening::DeviceAdded(change) => ("device added".to_owned(), change),
        Happening::DeviceRemoved(removal) => (format!("device removed ({})", removal.reason), &removal.change),
        Happening::DeviceBindingAdded(change) => ("binding added".to_owned(), change),
        Happening::DeviceBindingRemoved(removal) => (format!("binding removed ({})", removal.reason), &removal.change),
        Happening::DeviceRefused(refused) => {
            let Refused { result, manufacturer_oui, serial_number, product_class, bindings } = refused;
            let identity = [manufacturer_oui, product_class, serial_number];
            return format!("{}  device refused ({result}): {}", event.time, device(identity, bindings));
        }
        Happening::BindingChanged(BindingChange { username, address, authenticated, nat_detected }) => {
            let who = username.as_ref().map(|name| format!("{} ", printable(name))).unwrap_or_default();
            let address = printable(address.as_deref().unwrap_or("no address"));
            let nat = nat_detected.map(|behind| if behind { "behind a NAT" } else { "no NAT" });
            let signed = authenticated.map(|signed| if signed { "signed" } else { "not signed" });
            let remarks = [nat, signed].into_iter().flatten().collect::<Vec<_>>().join(", ");
            return format!("{}  {who}binding changed: {address} ({remarks})", event.time);
        }
        Happening::ConnectionRequest(ConnectionRequest { transport, result, from, omitted, username, to }) => {
            if let Some(to) = to {
                let who = printable(username.as_deref().unwrap_or("an address"));
                return format!("{}  Connection Request to {who} at {to}, from {from}: {result}", event.time);
            }
            let omitted = if *omitted > 0 { format!(" ({omitted} earlier ones not shown)") } else { String::new() };
            let transport = match transport {
                Transport::Udp => "UDP",
                Transport::Tcp => "TCP",
            };
            return format!("{}  {transport} Connection Request from {from}: {result}{omitted}", event.time);
        }
        Happening::Alarm(Alarm { alarm, username, from, interface, detail, cleared }) => {
            let of = username.as_ref().map(|name| format!(" of {}", printable(name))).unwrap_or_default();
            let from = from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
            let on = interface.as_ref().map(|name| format!(" on {}", printable(name))).unwrap_or_default();
            let detail = detail.as_ref().map(|detail| format!(": {}", printable(detail))).unwrap_or_default();
            let what = if *cleared { "alarm cleared" } else { "alarm" };
            return format!("{}  {what}: {alarm}{of}{from}{on}{detail}", event.time);
        }
        Happening::Association(change) => return format!("{}  {}", event.time, association(change)),
        Happening::Notification(Notification { sequence, kind, parameters }) => {
            let mut line = format!("{}  notification {sequence} ({kind}):", event.time);
            for ChangedParameter { name, value } in parameters {
                line.extend(["  ", &printable(name), " = ", &printable(value)]);
            }
            return line;
        }
    };
    let Change { instance, manufacturer_oui, serial_number, product_class, bindings } = change;
    let identity = [manufacturer_oui, product_class, serial_number];
    format!("{}  {what}: {instance}  {}", event.time, device(identity, bindings))
}

fn association(change: &AssociationChange) -> String {
    let AssociationChange { result, alarm, device, gateway, associated } = change;
    let alarm = if *alarm { "ALARM: " } else { "" };
    let associated = associated.as_ref().map_or_else(|| "none".to_owned(), identity_name);
    format!("{alarm}{} behind {}: {result} (associated: {associated})", identity_name(device), identity_name(gateway))
}

/// The identity of a device and its bindings.
fn device([manufacturer_oui, product_class, serial_number]: [&String; 3], bindings: &[Binding]) -> String {
    let mut line = manufacturer_oui.clone();
    for part in [product_class, serial_number] {
        if !part.is_empty() {
            line.push('-');
            line.push_str(&printable(part));
        }
    }
    for binding in bindings {
        line.extend(["  ", &binding.mac, " ", &binding.ip, " on ", &place(binding)]);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Removal;

    #[test]
    fn an_event_is_one_json_object_with_time_event_and_reason() {
        let change = Change {
            instance: 3,
            manufacturer_oui: "00256D".to_owned(),
            serial_number: "DEV0001".to_owned(),
            product_class: "STB".to_owned(),
            bindings: Vec::new(),
        };
        let event = Event {
            time: "2026-01-01T00:00:05Z".to_owned(),
            what: Happening::DeviceRemoved(Removal { reason: "released".to_owned(), change }),
        };
        let value = serde_json::to_value(&event).expect("plain data");
        let expected = serde_json::json!({
            "time": "2026-01-01T00:00:05Z", "event": "device_removed", "reason": "released", "instance": 3,
            "manufacturer_oui": "00256D", "serial_number": "DEV0001", "product_class": "STB", "bindings": []
        });
        assert_eq!(value, expected);
        let back: Event = serde_json::from_value(value).expect("the same");
        assert_eq!(back, event);
        assert_eq!(describe(&event), "2026-01-01T00:00:05Z  device removed (released): 3  00256D-STB-DEV0001");
    }
}
