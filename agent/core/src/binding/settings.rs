//! Parameters of the ACS and settings of the operator for the STUN client.

use std::{fmt, net::Ipv4Addr, time::Duration};

use crate::stun::{SharedSecret, Variants};

/// The parameters of the ManagementServer object that the STUN client uses (TR-111 Table 6).
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    /// `URL`: its host is the STUN server if no other one is named (CPE-8).
    pub url: String,
    /// `STUNEnable`.
    pub stun_enable: bool,
    /// `STUNServerAddress`: a host name, an IPv4 address, or empty.
    pub stun_server_address: String,
    /// `STUNServerPort`.
    pub stun_server_port: u16,
    /// `STUNUsername`.
    pub stun_username: String,
    /// `STUNPassword`.
    pub stun_password: String,
    /// `STUNMaximumKeepAlivePeriod` in seconds; negative for no maximum.
    pub stun_maximum_keep_alive_period: i32,
    /// `STUNMinimumKeepAlivePeriod` in seconds.
    pub stun_minimum_keep_alive_period: u32,
    /// `UDPConnectionRequestAddressNotificationLimit` in seconds.
    pub notification_limit: u32,
}

/// The default values of T-71.
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

/// Omits the password.
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
    /// Whether the minimum period does not exceed the maximum, if there is one (T-45).
    pub fn has_consistent_periods(&self) -> bool {
        u32::try_from(self.stun_maximum_keep_alive_period)
            .map_or(true, |maximum| self.stun_minimum_keep_alive_period <= maximum)
    }

    /// Host of the STUN server: `STUNServerAddress`, else the host of the ACS URL (CPE-8). `None` if neither names a
    /// host, or the port is 0.
    pub fn stun_server(&self) -> Option<&str> {
        let host = match self.stun_server_address.trim() {
            "" => host(&self.url)?,
            address => address,
        };
        (self.stun_server_port != 0).then_some(host)
    }

    /// The key of MESSAGE-INTEGRITY; `None` unless both `STUNUsername` and `STUNPassword` are provisioned (T-38).
    pub(super) fn secret(&self) -> Option<SharedSecret> {
        let is_provisioned = !self.stun_username.is_empty() && !self.stun_password.is_empty();
        is_provisioned.then(|| SharedSecret::new(self.stun_password.as_bytes()))
    }
}

/// The host of a URL (RFC 3986 3.2.2). IPv6 addresses are not supported, because TR-111 Part 2 is IPv4 only (T-64).
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, after)| after);
    let host = host_and_port.split(':').next().unwrap_or_default();
    (!host.is_empty() && !host.starts_with('[')).then_some(host)
}

/// The host as an IPv4 address; `None` if it is a name that has to be resolved.
pub(super) fn literal(host: &str) -> Option<Ipv4Addr> {
    host.parse().ok()
}

/// Settings of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Keep-alive period if none can be learned: without NAT, or if the server ignores RESPONSE-ADDRESS (T-46). Limited
    /// by the ACS's minimum and maximum.
    pub default_period: Duration,
    /// Shortest period, even if the ACS's minimum is shorter (T-45).
    pub shortest_period: Duration,
    /// Longest period if the ACS sets no maximum (T-45).
    pub longest_period: Duration,
    /// Longest pause between attempts to reach a server that does not answer or refuses. Limited by the ACS's maximum,
    /// too.
    pub longest_pause: Duration,
    /// Interval of tests whether the NAT's timeout grew, and whether the server honours RESPONSE-ADDRESS now.
    pub look_higher: Duration,
    /// Longest delay of a notification while the binding is likely to change again (CPE-41).
    pub damping: Duration,
    /// Accepted variants of MESSAGE-INTEGRITY in responses (T-19).
    pub variants: Variants,
    /// Whether XOR-MAPPED-ADDRESS is accepted from servers that send no MAPPED-ADDRESS (T-20). Requests then carry the
    /// magic cookie of RFC 5389.
    pub xor_mapped_address: bool,
    /// Seed of transaction identifiers and jitter. It has to be random and secret, because a response can be forged by
    /// anybody who guesses its transaction identifier.
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

    /// CPE-8: without `STUNServerAddress`, the host of the ACS URL is used.
    #[test]
    fn the_host_of_the_acs_url_is_the_server_where_no_other_is_named() {
        assert_eq!(server("stun.example", "https://acs.example:7547/x").as_deref(), Some("stun.example"));
        assert_eq!(server("", "https://acs.example:7547/x").as_deref(), Some("acs.example"));
        assert_eq!(server("", "http://user:word@192.0.2.1?x").as_deref(), Some("192.0.2.1"));
        for url in ["", "acs.example", "https://", "https://[2001:db8::1]:7547/"] {
            assert_eq!(server("", url), None, "{url}");
        }
    }

    /// T-38: both credentials or none. DM-26: the password is never logged.
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
