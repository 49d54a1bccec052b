//! Alarms of a gateway: what makes it blind on a LAN interface, for as long as it does.

use std::collections::BTreeMap;

use prometheus::IntGaugeVec;
use tr111_core::time::BootTime;

use super::Clock;
use crate::control::message::{self, StandingAlarm};

/// What somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatewayAlarm {
    /// A program of somebody else runs before one of ours and may end the chain, or ours was taken off.
    Displaced,
}

impl GatewayAlarm {
    /// Every alarm.
    pub const ALL: [Self; 1] = [Self::Displaced];

    /// The value of the metric's `alarm` label, and the word in events and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Displaced => "displaced",
        }
    }
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
