//! Alarms of a gateway: conditions on a LAN interface that keep DHCP messages from the agent.

use std::collections::BTreeMap;

use prometheus::IntGaugeVec;
use tr111_core::time::BootTime;

use super::Clock;
use crate::control::message::{self, StandingAlarm};

/// A condition that needs an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatewayAlarm {
    /// Clients with an identity send requests, and no reply to them is seen.
    NoReplies,
    /// A foreign program runs before an agent's program and may end the chain, or an agent's program was detached.
    Displaced,
    /// The kernel merges DHCP datagrams before the programs, which cannot separate them.
    Merged,
}

impl GatewayAlarm {
    /// All alarms.
    pub const ALL: [Self; 3] = [Self::NoReplies, Self::Displaced, Self::Merged];

    /// The value of the metric's `alarm` label, also used in events and in the status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoReplies => "no_replies",
            Self::Displaced => "displaced",
            Self::Merged => "merged",
        }
    }
}

/// Describes the likely causes of missing replies on an interface, the most likely first. `in_front` are the programs
/// that run before `lan_egress`. `forwards_foreign` says that the interface is a bridge which forwarded replies of
/// another DHCP server.
pub(super) fn why_no_replies(interface: &str, in_front: &[String], forwards_foreign: bool) -> String {
    let foreign = forwards_foreign.then(|| {
        format!(
            "another DHCP server answers them between ports of {interface}, and its replies are ignored \
             (see gateway.association.accept_foreign_server)"
        )
    });
    let in_front = (!in_front.is_empty()).then(|| {
        format!("{} runs before lan_egress at TC egress and ends the chain (see agent.tc_order)", in_front.join(", "))
    });
    let causes = [
        "the DHCP server is not running or does not answer these clients".to_owned(),
        "another DHCP server answers them and its replies bypass the agent, as from a container on a bridge port \
         (see gateway.bridge_ports and gateway.association.accept_foreign_server)"
            .to_owned(),
        "the replies leave by another interface (gateway.lan must name the one with the gateway's address)".to_owned(),
        format!(
            "the network device merges datagrams (turn it off with `ethtool -K {interface} rx-gro-list off \
             rx-udp-gro-forwarding off`)"
        ),
    ];
    let causes: Vec<String> = foreign.into_iter().chain(in_front).chain(causes).collect();
    format!(
        "no DHCP reply to clients with an identity was seen for a minute; likely causes, most likely first: {}",
        causes.join("; ")
    )
}

/// Describes the effect of merged datagrams and the remedy. `merging` are the interfaces of this machine that merge.
pub(super) fn why_merged(merging: &[String]) -> String {
    let interfaces = if merging.is_empty() { vec!["IF".to_owned()] } else { merging.to_vec() };
    let command = |interface: &String| format!("`ethtool -K {interface} rx-gro-list off rx-udp-gro-forwarding off`");
    let commands = interfaces.iter().map(command).collect::<Vec<_>>().join(", ");
    format!(
        "the kernel merged DHCP datagrams into one frame, so their devices may lack rows and the Gateway Identity; \
         turn merging off on the interface that receives them: {commands}"
    )
}

/// The active alarms.
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
    /// Creates an empty list. `gauge` has the labels `alarm` and `interface`; it is set to 0 for each of `interfaces`.
    pub(super) fn new<'a>(gauge: IntGaugeVec, interfaces: impl Iterator<Item = &'a str>) -> Self {
        for interface in interfaces {
            for alarm in GatewayAlarm::ALL {
                gauge.with_label_values(&[alarm.label(), interface]).set(0);
            }
        }
        Self { standing: BTreeMap::new(), gauge }
    }

    /// Raises an alarm with the reason `detail`, or clears it if `detail` is `None`. Returns the event if the alarm was
    /// raised or cleared. A new reason of an active alarm is recorded without an event.
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
                tracing::info!(alarm = alarm.label(), interface, "alarm cleared");
                gauge.set(0);
                self.standing.remove(&key).map(|standing| told(true, standing.detail))
            }
        }
    }

    /// Whether an alarm is active.
    pub(super) fn stands(&self, alarm: GatewayAlarm, interface: &str) -> bool {
        self.standing.contains_key(&(alarm, interface.to_owned()))
    }

    /// The active alarms, for clients.
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
