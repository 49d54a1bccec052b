//! Reports to the ACS: `UDPConnectionRequestAddress` and `NATDetected` (TR-111 2.2.1.3).
//!
//! Reads always return the current values. Notifications respect `UDPConnectionRequestAddressNotificationLimit`
//! (CPE-40), and are delayed while the binding is likely to change again (CPE-41).

use std::{net::SocketAddrV4, time::Duration};

use crate::time::BootTime;

/// The values of the two parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `UDPConnectionRequestAddress`: the public address of the binding if it is in use, else the address of the
    /// listener (CPE-37, CPE-42, T-44). `None` without a local address.
    pub address: Option<SocketAddrV4>,
    /// `NATDetected`.
    pub nat_detected: bool,
}

impl Report {
    /// `UDPConnectionRequestAddress` as a CWMP value, always with the port. DM-20 allows to omit only port 80, and
    /// never requires that.
    pub fn udp_connection_request_address(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }
}

/// Tracks the last notified report, and when the current one may be notified.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    limit: Duration,
    damping: Duration,
    told: Option<Report>,
    /// Whether the ACS requests notifications.
    is_asked: bool,
    last: Option<BootTime>,
    /// The current report, and since when it differs from the last notified one.
    report: Report,
    since: Option<BootTime>,
}

impl Teller {
    pub(super) fn new(damping: Duration, told: Option<Report>) -> Self {
        Self {
            limit: Duration::ZERO,
            damping,
            told,
            is_asked: true,
            last: None,
            report: Report::default(),
            since: None,
        }
    }

    pub(super) fn report(&self) -> Report {
        self.report
    }

    pub(super) fn told(&self) -> Option<Report> {
        self.told
    }

    pub(super) fn set_asked(&mut self, is_asked: bool) {
        self.is_asked = is_asked;
    }

    pub(super) fn set_damping(&mut self, damping: Duration) {
        self.damping = damping;
    }

    pub(super) fn set_limit(&mut self, seconds: u32) {
        self.limit = Duration::from_secs(seconds.into());
    }

    /// Sets the current report. Returns whether it changed.
    pub(super) fn set(&mut self, now: BootTime, report: Report) -> bool {
        let changed = self.report != report;
        self.report = report;
        // A change that was reverted before its notification is not notified.
        self.since = (self.told != Some(report)).then(|| self.since.unwrap_or(now));
        changed
    }

    /// Time of the next notification; `is_restless` says that the binding is likely to change again.
    pub(super) fn due(&self, is_restless: bool) -> Option<BootTime> {
        // Without a local address, nothing can be sent.
        let since = self.since.filter(|_| self.report.address.is_some())?;
        let allowed = self.last.map_or(since, |last| last + self.limit);
        let calm = if is_restless { since + self.damping } else { since };
        Some(allowed.max(calm))
    }

    /// Marks the current report as notified, and returns it.
    pub(super) fn tell(&mut self, now: BootTime) -> Report {
        self.told = Some(self.report);
        if self.is_asked {
            self.last = Some(now);
        }
        self.since = None;
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::default() + Duration::from_secs(seconds)
    }

    fn report(port: u16) -> Report {
        Report { address: Some(SocketAddrV4::new([198, 51, 100, 7].into(), port)), nat_detected: true }
    }

    fn teller(limit: u32) -> Teller {
        let mut teller = Teller::new(Duration::from_mins(5), None);
        teller.set_limit(limit);
        teller
    }

    /// DM-20: the port is always present.
    #[test]
    fn the_address_is_host_and_port() {
        assert_eq!(report(80).udp_connection_request_address(), "198.51.100.7:80");
        assert_eq!(report(40_001).udp_connection_request_address(), "198.51.100.7:40001");
        assert_eq!(Report::default().udp_connection_request_address(), "");
    }

    /// CPE-40: the first change is notified at once; a change within the limit waits and is notified with the latest
    /// value.
    #[test]
    fn a_change_within_the_limit_waits_for_it() {
        let mut teller = teller(60);
        assert!(teller.set(at(100), report(1)));
        assert_eq!(teller.due(false), Some(at(100)));
        teller.tell(at(100));
        teller.set(at(105), report(2));
        teller.set(at(110), report(3));
        assert_eq!(teller.due(false), Some(at(160)));
        assert_eq!(teller.tell(at(160)), report(3));
        assert_eq!(teller.due(false), None);
        // A lower limit takes effect at once.
        teller.set(at(161), report(4));
        teller.set_limit(0);
        assert!(teller.due(false).unwrap() <= at(161));
    }

    /// CPE-41: the notification of a binding that is likely to change is delayed, but not forever.
    #[test]
    fn a_restless_binding_is_told_within_the_damping() {
        let mut teller = teller(0);
        teller.set(at(100), report(1));
        teller.set(at(200), report(2));
        assert_eq!(teller.due(true), Some(at(400)));
        assert!(teller.due(false).unwrap() <= at(200));
        teller.tell(at(200));
        teller.set(at(201), report(1));
        teller.set(at(202), report(2));
        assert_eq!(teller.due(false), None);
    }
}
