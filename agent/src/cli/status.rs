//! `tr111 status`

use std::{fmt::Write as _, time::Duration};

use super::{
    Outcome, Reach,
    devices::seconds,
    output::{self, printable},
};
use crate::control::{
    ClientError,
    message::{Hook, Reply, Request, StandingAlarm, Status, Table},
};

pub(super) fn run(reach: &Reach, json: bool) -> Outcome {
    let Reply::Status(status) = reach.connect()?.ask(&Request::Status)? else {
        return Err(ClientError::OutOfTurn.into());
    };
    if json { output::write_json(&status) } else { output::write(describe(&status).as_bytes()) }
}

/// The state of the agent, one line per item.
pub(super) fn describe(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<18} {value}");
    };
    let uptime = seconds(Duration::from_secs(status.uptime_s));
    line("role", format!("{} (tr111 {}, pid {})", status.role, status.version, status.pid));
    line("started", format!("{} ({uptime} ago)", status.started));
    for interface in &status.interfaces {
        let hooks = interface.hooks.iter().map(describe_hook).collect::<Vec<_>>().join(", ");
        let state = if hooks.is_empty() { interface.state.clone() } else { format!("{}, {hooks}", interface.state) };
        line("interface", format!("{} ({}): {state}", printable(&interface.name), interface.side));
    }
    for StandingAlarm { alarm, interface, since, detail } in &status.alarms {
        line("ALARM", format!("{alarm} on {} since {since}: {}", printable(interface), printable(detail)));
    }
    if let Some(acs) = &status.acs {
        let listen = acs.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        line("STUN server", listen);
        line("CPEs", format!("{}, {} with an authenticated binding", acs.cpes, acs.authenticated));
        let failure = acs.registry_failure.as_deref();
        let failure = failure.map(|reason| format!(", CANNOT BE WRITTEN: {}", printable(reason)));
        let unreadable =
            acs.registry_unreadable.as_deref().map(|reason| format!(", CANNOT BE READ: {}", printable(reason)));
        let records = Some(acs.unreadable_records).filter(|&records| records > 0);
        let records = records.map(|records| format!(", {records} records CANNOT BE READ"));
        let trouble = [unreadable, records, failure].into_iter().flatten().collect::<String>();
        line("registry", format!("{}{trouble}", printable(&acs.registry)));
        if let Some(ahead) = acs.clock_ahead_s {
            let ahead = seconds(Duration::from_secs(ahead));
            line("clock", format!("NOT BELIEVED: {ahead} ahead of the last known good time"));
        }
    }
    if let Some(reason) = &status.store_relearned {
        line("store", format!("started empty, everything is learned anew: {}", printable(reason)));
    }
    let table = &status.table;
    // Only a gateway has a table.
    if table.max_rows > 0 {
        let waiting = match table.waiting {
            0 => String::new(),
            waiting => format!(", {waiting} clients delayed because they changed too often"),
        };
        let Table { rows, bindings, max_rows, .. } = table;
        line("table", format!("{rows} of at most {max_rows} rows, {bindings} bindings{waiting}"));
    }
    for ring in &status.rings {
        line("ring", format!("{}: {} events, {} lost", ring.name, ring.events, ring.lost));
    }
    if status.acs.is_none() {
        tell_of_cpe(status, &mut line);
    }
    line("metrics", status.metrics.as_ref().map_or_else(|| "off".to_owned(), |at| format!("http://{at}/metrics")));
    text
}

/// The name of a program, how it is attached, and the foreign programs before and after it.
fn describe_hook(hook: &Hook) -> String {
    let around = |words: &str, names: &[String]| {
        let names = names.iter().map(|name| printable(name).into_owned()).collect::<Vec<_>>();
        if names.is_empty() { String::new() } else { format!(" {words} {}", names.join(" and ")) }
    };
    let (in_front, behind) = (around("behind", &hook.in_front), around("in front of", &hook.behind));
    format!("{} {}{in_front}{behind}", hook.program, hook.mode)
}

/// The lines of gateways and devices, which an ACS manages.
fn tell_of_cpe(status: &Status, line: &mut impl FnMut(&str, String)) {
    if let Some(timeouts) = &status.nat_timeouts {
        line("NAT timeouts", timeouts.clone());
    }
    line("last notification", status.last_notification.clone().unwrap_or_else(|| "none".to_owned()));
    line(
        "TCP requests",
        match status.tcp_connection_requests.as_str() {
            "external" => "another process listens for TCP Connection Requests (external)".to_owned(),
            builtin => builtin.to_owned(),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Interface, Ring};

    #[test]
    fn json_has_the_keys_of_the_documentation() {
        let status = Status {
            role: "gateway".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 1,
            started: "2026-01-01T00:00:00Z".to_owned(),
            uptime_s: 90,
            interfaces: vec![Interface {
                name: "lan0".to_owned(),
                side: "lan".to_owned(),
                state: "up".to_owned(),
                hooks: vec![Hook {
                    program: "lan_ingress".to_owned(),
                    mode: "native".to_owned(),
                    in_front: Vec::new(),
                    behind: vec!["cil_from_netdev".to_owned()],
                }],
            }],
            table: Table { rows: 1, bindings: 1, max_rows: 65_536, waiting: 3 },
            rings: vec![Ring { name: "lan".to_owned(), events: 1, lost: 0 }],
            last_notification: None,
            store_relearned: None,
            pin_dir: "/sys/fs/bpf/tr111".into(),
            metrics: Some("127.0.0.1:9111".to_owned()),
            tcp_connection_requests: "external".to_owned(),
            nat_timeouts: Some("extended to 300 s".to_owned()),
            alarms: vec![StandingAlarm {
                alarm: "displaced".to_owned(),
                interface: "lan0".to_owned(),
                since: "2026-01-01T00:00:00Z".to_owned(),
                detail: "a reason".to_owned(),
            }],
            acs: None,
        };
        let value = serde_json::to_value(&status).expect("plain data");
        let documented = serde_json::json!({
            "role": "gateway", "version": "0.1.0", "started": "2026-01-01T00:00:00Z",
            "interfaces": [{"name": "lan0", "side": "lan", "state": "up", "hooks": [
                {"program": "lan_ingress", "mode": "native", "in_front": [], "behind": ["cil_from_netdev"]}
            ]}],
            "table": {"rows": 1, "bindings": 1, "max_rows": 65_536, "waiting": 3},
            "rings": [{"name": "lan", "events": 1, "lost": 0}], "last_notification": null
        });
        for (key, expected) in documented.as_object().expect("an object") {
            assert_eq!(value.get(key), Some(expected), "{key}");
        }
        assert!(describe(&status).contains("lan0 (lan): up, lan_ingress native in front of cil_from_netdev"));
        assert!(describe(&status).contains("displaced on lan0 since 2026-01-01T00:00:00Z: a reason"));
        assert!(
            describe(&status).contains("1 of at most 65536 rows, 1 bindings, 3 clients delayed because they changed")
        );
        assert!(describe(&status).contains("1m 30s ago"));
    }
}
