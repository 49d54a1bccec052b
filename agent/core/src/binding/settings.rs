//! What the machine works with: the ACS's parameters, and the operator's knobs.

use std::{fmt, net::Ipv4Addr, time::Duration};

use crate::stun::{SharedSecret, Variants};

/// The parameters of the ManagementServer object that the machine obeys (TR-111 Table 6), with their names there.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    /// `URL`: its host is the STUN server where no other is named (CPE-8).
    pub url: String,
    /// `STUNEnable`.
    pub stun_enable: bool,
    /// `STUNServerAddress`: a name, an address, or empty.
    pub stun_server_address: String,
    /// `STUNServerPort`.
    pub stun_server_port: u16,
    /// `STUNUsername`.
    pub stun_username: String,
    /// `STUNPassword`.
    pub stun_password: String,
    /// `STUNMaximumKeepAlivePeriod` in seconds; below 0: none.
    pub stun_maximum_keep_alive_period: i32,
    /// `STUNMinimumKeepAlivePeriod` in seconds.
    pub stun_minimum_keep_alive_period: u32,
    /// `UDPConnectionRequestAddressNotificationLimit` in seconds.
    pub notification_limit: u32,
}

/// The defaults of T-71.
impl Default for Parameters {
    fn default() -> Self {
        Self {
            url: String::new(),
            stun_enable: false,
            stun_server_address: String::new(),
            stun_server_port: 3478,
            stun_username: String::new(),
            stun_password: String::new(),
            stun_maximum_keep_alive_period: -1,
            stun_minimum_keep_alive_period: 30,
            notification_limit: 0,
        }
    }
}

/// The password is not shown.
impl fmt::Debug for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Parameters")
            .field("url", &self.url)
            .field("stun_enable", &self.stun_enable)
            .field("stun_server_address", &self.stun_server_address)
            .field("stun_server_port", &self.stun_server_port)
            .field("stun_username", &self.stun_username)
            .field("stun_maximum_keep_alive_period", &self.stun_maximum_keep_alive_period)
            .field("stun_minimum_keep_alive_period", &self.stun_minimum_keep_alive_period)
            .field("notification_limit", &self.notification_limit)
            .finish_non_exhaustive()
    }
}

impl Parameters {
    /// Whether the minimum period is not above the maximum, where there is one (T-45).
    pub fn has_consistent_periods(&self) -> bool {
        u32::try_from(self.stun_maximum_keep_alive_period)
            .map_or(true, |maximum| self.stun_minimum_keep_alive_period <= maximum)
    }

    /// The host of the STUN server: `STUNServerAddress`, else that of the ACS URL (CPE-8); `None` where neither names
    /// one, or the port is none.
    pub fn stun_server(&self) -> Option<&str> {
        let host = match self.stun_server_address.trim() {
            "" => host(&self.url)?,
            address => address,
        };
        (self.stun_server_port != 0).then_some(host)
    }

    /// The secret of MESSAGE-INTEGRITY; `None` unless both `STUNUsername` and `STUNPassword` are provisioned (T-38).
    pub(super) fn secret(&self) -> Option<SharedSecret> {
        let is_provisioned = !self.stun_username.is_empty() && !self.stun_password.is_empty();
        is_provisioned.then(|| SharedSecret::new(self.stun_password.as_bytes()))
    }
}

/// The host portion of a URL (RFC 3986 3.2.2). One of IPv6 is none: TR-111 Part 2 is IPv4 only (T-64).
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, after)| after);
    let host = host_and_port.split(':').next().unwrap_or_default();
    (!host.is_empty() && !host.starts_with('[')).then_some(host)
}

/// The address that a host is written as, which needs nobody to resolve it.
pub(super) fn literal(host: &str) -> Option<Ipv4Addr> {
    host.parse().ok()
}

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Keep-alive period where none can be learned: without translation, and with servers that do not honour
    /// RESPONSE-ADDRESS (T-46). The ACS's minimum and maximum bound it.
    pub default_period: Duration,
    /// No period is shorter, whatever the ACS's minimum says (T-45).
    pub shortest_period: Duration,
    /// No period is longer where the ACS sets no maximum (T-45).
    pub longest_period: Duration,
    /// Longest pause between attempts to reach a server that is silent or refuses; the ACS's maximum bounds it too.
    pub longest_pause: Duration,
    /// How often the machine looks whether the NAT's timeout grew, and whether the server honours RESPONSE-ADDRESS now.
    pub look_higher: Duration,
    /// Longest delay of a notification because the binding is likely to change again soon (CPE-41).
    pub damping: Duration,
    /// Forms of MESSAGE-INTEGRITY that responses may have (T-19).
    pub variants: Variants,
    /// Take XOR-MAPPED-ADDRESS of servers that send no MAPPED-ADDRESS (T-20). Requests then carry the cookie of RFC 5389.
    pub xor_mapped_address: bool,
    /// Transaction ids and jitter are drawn from it. It has to be random and secret: who can guess a transaction id
    /// can forge its response.
    pub seed: [u64; 2],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_period: Duration::from_secs(30),
            shortest_period: Duration::from_secs(1),
            longest_period: Duration::from_hours(1),
            longest_pause: Duration::from_mins(10),
            look_higher: Duration::from_hours(24),
            damping: Duration::from_mins(5),
            variants: Variants::STRICT,
            xor_mapped_address: false,
            seed: [0; 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, url: &str) -> Option<String> {
        let parameters =
            Parameters { stun_server_address: address.to_owned(), url: url.to_owned(), ..Parameters::default() };
        parameters.stun_server().map(str::to_owned)
    }

    /// CPE-8: without a `STUNServerAddress`, the host of the ACS URL.
    #[test]
    fn the_host_of_the_acs_url_is_the_server_where_no_other_is_named() {
        assert_eq!(server("stun.example", "https://acs.example:7547/x").as_deref(), Some("stun.example"));
        assert_eq!(server("", "https://acs.example:7547/x").as_deref(), Some("acs.example"));
        assert_eq!(server("", "http://user:word@192.0.2.1?x").as_deref(), Some("192.0.2.1"));
        for url in ["", "acs.example", "https://", "https://[2001:db8::1]:7547/"] {
            assert_eq!(server("", url), None, "{url}");
        }
    }

    /// T-38: both or none. DM-26: the password is in no log.
    #[test]
    fn credentials_are_both_or_none_and_stay_hidden() {
        let both = Parameters {
            stun_username: "CPE57689".to_owned(),
            stun_password: "stunpassword1234".to_owned(),
            ..Parameters::default()
        };
        assert!(both.secret().is_some());
        assert!(!format!("{both:?}").contains("stunpassword1234"));
        assert!(Parameters { stun_username: String::new(), ..both.clone() }.secret().is_none());
        assert!(Parameters { stun_password: String::new(), ..both }.secret().is_none());
    }
}
