//! Alarms of a gateway: what makes it blind on a LAN interface, for as long as it does.

use std::collections::BTreeMap;

use prometheus::IntGaugeVec;
use tr111_core::time::BootTime;

use super::Clock;
use crate::control::message::{self, StandingAlarm};

/// What somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatewayAlarm {
    /// Clients with an identity ask, and no reply to them is seen.
    NoReplies,
    /// A program of somebody else runs before one of ours and may end the chain, or ours was taken off.
    Displaced,
    /// The kernel merges DHCP datagrams before the programs, which cannot tell them apart.
    Merged,
}

impl GatewayAlarm {
    /// Every alarm.
    pub const ALL: [Self; 3] = [Self::NoReplies, Self::Displaced, Self::Merged];

    /// The value of the metric's `alarm` label, and the word in events and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoReplies => "no_replies",
            Self::Displaced => "displaced",
            Self::Merged => "merged",
        }
    }
}

/// Why no reply may have been seen at an interface, the likely causes first. `in_front`: programs that run before
/// `lan_egress`. `forwards_foreign`: the interface is a bridge, and forwarded replies of another server.
pub(super) fn why_no_replies(interface: &str, in_front: &[String], forwards_foreign: bool) -> String {
    let foreign = forwards_foreign.then(|| {
        format!(
            "another DHCP server answers them from port to port of {interface}, and its replies do not count \
             (gateway.association.accept_foreign_server)"
        )
    });
    let in_front = (!in_front.is_empty()).then(|| {
        format!("{} runs before lan_egress at TC egress and ends the chain (agent.tc_order)", in_front.join(", "))
    });
    let causes = [
        "the DHCP server does not run, or does not answer these clients".to_owned(),
        "another DHCP server answers them past this machine, as one in a container on a port of the bridge does \
         (gateway.bridge_ports and gateway.association.accept_foreign_server)"
            .to_owned(),
        "the replies leave by another interface (gateway.lan names the one that has the gateway's address)".to_owned(),
        format!(
            "the network device merges datagrams (`ethtool -K {interface} rx-gro-list off rx-udp-gro-forwarding off`)"
        ),
    ];
    let causes: Vec<String> = foreign.into_iter().chain(in_front).chain(causes).collect();
    format!(
        "clients with an identity ask, and no reply to them was seen for a minute; likely causes, in this order: {}",
        causes.join("; ")
    )
}

/// What merged datagrams mean, and what to do: `merging` are the interfaces of this machine that merge.
pub(super) fn why_merged(merging: &[String]) -> String {
    let interfaces = if merging.is_empty() { vec!["IF".to_owned()] } else { merging.to_vec() };
    let command = |interface: &String| format!("`ethtool -K {interface} rx-gro-list off rx-udp-gro-forwarding off`");
    let commands = interfaces.iter().map(command).collect::<Vec<_>>().join(", ");
    format!(
        "DHCP datagrams were merged into one frame and not told apart: their devices may lack rows and the Gateway Identity; \
         where they come in: {commands}"
    )
}

/// The alarms that stand.
#[derive(Debug)]
pub(super) struct Alarms {
    standing: BTreeMap<(GatewayAlarm, String), Standing>,
    gauge: IntGaugeVec,
}

#[derive(Debug)]
struct Standing {
    since: BootTime,
    detail: String,
}

impl Alarms {
    /// None stands. `gauge` has the labels `alarm` and `interface`, and gets a value for each of `interfaces`.
    pub(super) fn new<'a>(gauge: IntGaugeVec, interfaces: impl Iterator<Item = &'a str>) -> Self {
        for interface in interfaces {
            for alarm in GatewayAlarm::ALL {
                gauge.with_label_values(&[alarm.label(), interface]).set(0);
            }
        }
        Self { standing: BTreeMap::new(), gauge }
    }

    /// Raises an alarm for the reason `detail`, or ends it where there is none. What watchers are to be told, if that is
    /// new; another reason for an alarm that stands is kept and not told.
    pub(super) fn set(
        &mut self,
        now: BootTime,
        alarm: GatewayAlarm,
        interface: &str,
        detail: Option<String>,
    ) -> Option<message::Alarm> {
        let key = (alarm, interface.to_owned());
        let told = |cleared, detail: String| message::Alarm {
            alarm: alarm.label().to_owned(),
            interface: Some(interface.to_owned()),
            detail: Some(detail),
            cleared,
            ..message::Alarm::default()
        };
        let gauge = self.gauge.with_label_values(&[alarm.label(), interface]);
        match (self.standing.get_mut(&key), detail) {
            (None, None) => None,
            (Some(standing), Some(detail)) => {
                standing.detail = detail;
                None
            }
            (None, Some(detail)) => {
                tracing::warn!(alarm = alarm.label(), interface, "{detail}");
                gauge.set(1);
                self.standing.insert(key, Standing { since: now, detail: detail.clone() });
                Some(told(false, detail))
            }
            (Some(_), None) => {
                tracing::info!(alarm = alarm.label(), interface, "the alarm is over");
                gauge.set(0);
                self.standing.remove(&key).map(|standing| told(true, standing.detail))
            }
        }
    }

    /// Whether an alarm stands.
    pub(super) fn stands(&self, alarm: GatewayAlarm, interface: &str) -> bool {
        self.standing.contains_key(&(alarm, interface.to_owned()))
    }

    /// Those that stand, for clients.
    pub(super) fn list(&self, clock: &Clock) -> Vec<StandingAlarm> {
        let shown = |((alarm, interface), standing): (&(GatewayAlarm, String), &Standing)| StandingAlarm {
            alarm: alarm.label().to_owned(),
            interface: interface.clone(),
            since: clock.rfc3339(standing.since),
            detail: standing.detail.clone(),
        };
        self.standing.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn an_alarm_is_told_when_it_comes_and_when_it_goes() {
        let gauge = IntGaugeVec::new(Opts::new("alarms", "Alarms."), &["alarm", "interface"]).expect("a gauge");
        let mut alarms = Alarms::new(gauge.clone(), ["lan0"].into_iter());
        let value = || gauge.with_label_values(&["displaced", "lan0"]).get();
        let mut set = |detail: Option<&str>| {
            alarms.set(BootTime(1), GatewayAlarm::Displaced, "lan0", detail.map(ToOwned::to_owned))
        };
        assert_eq!((set(None), value()), (None, 0));
        let raised = set(Some("a reason")).expect("told");
        assert_eq!((raised.alarm.as_str(), raised.cleared, value()), ("displaced", false, 1));
        assert_eq!((set(Some("another reason")), value()), (None, 1));
        let cleared = set(None).expect("told");
        assert_eq!((cleared.detail.as_deref(), cleared.cleared, value()), (Some("another reason"), true, 0));
        assert!(alarms.list(&Clock::new()).is_empty());
    }
}
