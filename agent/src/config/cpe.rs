//! The configuration of the CPE of TR-111 Part 2, a part of both the device and the gateway role.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use tr111_core::{
    binding,
    connreq::{Settings, TimestampUnit},
    stun::Variants,
};

use super::Values;

/// Settings of the CPE that can be changed at run time, except `keep_over_reboot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpe {
    /// `[connreq]`
    pub connreq: Settings,
    /// `[stun]`. The seed is 0; the role that uses the settings sets it.
    pub stun: binding::Settings,
    /// Remember the last accepted Connection Request across reboots (T-58).
    pub keep_over_reboot: bool,
}

impl From<&Values> for Cpe {
    fn from(values: &Values) -> Self {
        let boolean = |name| values.boolean("connreq", name);
        let seconds = |name| Duration::from_secs(values.integer("stun", name).unsigned_abs());
        Self {
            connreq: Settings {
                require_host: boolean("require_host"),
                accept_relative: boolean("accept_relative"),
                timestamp_unit: match values.text("connreq", "ts_unit") {
                    "any" => TimestampUnit::Any,
                    _ => TimestampUnit::Seconds,
                },
                allow_empty_password: boolean("allow_empty_password"),
            },
            stun: binding::Settings {
                default_period: seconds("default_period_s"),
                shortest_period: seconds("shortest_period_s"),
                longest_period: seconds("longest_period_s"),
                longest_pause: seconds("longest_pause_s"),
                look_higher: seconds("look_higher_s"),
                damping: seconds("damping_s"),
                // The form of the value was checked when it was read.
                variants: values.text("stun", "mi_variants").parse().unwrap_or(Variants::STRICT),
                xor_mapped_address: values.boolean("stun", "xor_mapped_address"),
                seed: [0; 2],
            },
            keep_over_reboot: boolean("keep_over_reboot"),
        }
    }
}

/// `connection_request_listen` in the section of a role.
pub(super) fn listen(values: &Values, section: &str) -> SocketAddrV4 {
    // The form of the value was checked when it was read.
    let preset = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7547);
    values.text(section, "connection_request_listen").parse().unwrap_or(preset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Defaults follow TR-111, and are the defaults of the core.
    #[test]
    fn the_presets_are_the_defaults_of_the_core() {
        let preset = Cpe::from(&Values::default());
        assert_eq!(preset.connreq, Settings::default());
        assert_eq!(preset.stun, binding::Settings::default());
        assert!(preset.keep_over_reboot);
    }
}
