//! Converts the core's types into those that clients see.

use std::collections::HashMap;

use tr111_core::{
    association::{self, Association, Output, RemovalReason},
    dhcp::HardwareAddress,
    identity::DeviceIdentity,
    time::BootTime,
};

use super::Clock;
use crate::control::message::{Binding, Change, Device, Event, Happening, Refused, Removal};

/// Converts with the names of interfaces.
#[derive(Debug)]
pub(super) struct Describer {
    names: HashMap<u32, String>,
}

impl Describer {
    pub(super) fn new(names: HashMap<u32, String>) -> Self {
        Self { names }
    }

    /// Sets the name of an interface index.
    pub(super) fn rename(&mut self, ifindex: u32, name: &str) {
        self.names.insert(ifindex, name.to_owned());
    }

    /// Removes the name of an interface index.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.names.remove(&ifindex);
    }

    /// The name of a LAN interface; empty for any other index.
    pub(super) fn interface(&self, ifindex: u32) -> &str {
        self.names.get(&ifindex).map_or("", String::as_str)
    }

    pub(super) fn device(&self, clock: &Clock, core: &Association, device: &association::Device<'_>) -> Device {
        Device {
            instance: device.instance,
            manufacturer_oui: device.identity.manufacturer_oui.to_string(),
            serial_number: device.identity.serial_number.to_string(),
            product_class: device.identity.product_class.to_string(),
            first_seen: clock.rfc3339(device.first_seen),
            last_seen: clock.rfc3339(device.last_seen),
            bindings: device.bindings.clone().map(|binding| self.binding(clock, core, binding)).collect(),
        }
    }

    fn binding(&self, clock: &Clock, core: &Association, binding: &association::Binding) -> Binding {
        let segment = binding.segment();
        Binding {
            mac: binding.mac.to_string(),
            answered_by: core.answered_by(binding).map(|mac| HardwareAddress::from(mac).to_string()),
            client_id: binding.client_id.as_deref().map(hexadecimal),
            ip: binding.ip.to_string(),
            interface: self.names.get(&segment.ifindex).cloned().unwrap_or_else(|| segment.ifindex.to_string()),
            vlan: segment.vlan.into_iter().filter(|id| *id != 0).collect(),
            source: binding.source.label().to_owned(),
            lease_expires: binding.lease_expires.map(|end| clock.rfc3339(end)),
        }
    }

    /// The events for `outputs`, which must be all outputs of one input.
    pub(super) fn events(&self, clock: &Clock, now: BootTime, core: &Association, outputs: &[Output]) -> Vec<Event> {
        let time = clock.rfc3339(now);
        let change = |instance, identity: Option<&DeviceIdentity>, binding| Change {
            instance,
            manufacturer_oui: identity.map(|identity| identity.manufacturer_oui.to_string()).unwrap_or_default(),
            serial_number: identity.map(|identity| identity.serial_number.to_string()).unwrap_or_default(),
            product_class: identity.map(|identity| identity.product_class.to_string()).unwrap_or_default(),
            bindings: vec![self.binding(clock, core, binding)],
        };
        let removal = |reason: &RemovalReason, change| Removal { reason: reason.label().to_owned(), change };
        let mut events = Vec::new();
        for output in outputs {
            let what = match output {
                Output::DeviceAdded { instance, identity, binding } => {
                    Happening::DeviceAdded(change(*instance, Some(identity), binding))
                }
                Output::DeviceRemoved { instance, identity, binding, reason } => {
                    Happening::DeviceRemoved(removal(reason, change(*instance, Some(identity), binding)))
                }
                Output::DeviceRefused { identity, binding, result } => {
                    let Change { manufacturer_oui, serial_number, product_class, bindings, .. } =
                        change(0, Some(identity), binding);
                    let result = result.label().to_owned();
                    let refused = Refused { result, manufacturer_oui, serial_number, product_class, bindings };
                    Happening::DeviceRefused(refused)
                }
                Output::BindingAdded { instance, binding } => {
                    let identity = identity_of(*instance, core, outputs);
                    Happening::DeviceBindingAdded(change(*instance, identity, binding))
                }
                Output::BindingRemoved { instance, binding, reason } => {
                    let identity = identity_of(*instance, core, outputs);
                    Happening::DeviceBindingRemoved(removal(reason, change(*instance, identity, binding)))
                }
                _ => continue,
            };
            events.push(Event { time: time.clone(), what });
        }
        events
    }
}

/// The identity of a row that exists, or that was removed by the same input.
fn identity_of<'a>(instance: u32, core: &'a Association, outputs: &'a [Output]) -> Option<&'a DeviceIdentity> {
    let gone = || {
        outputs.iter().find_map(|output| match output {
            Output::DeviceRemoved { instance: gone, identity, .. } if *gone == instance => Some(identity),
            _ => None,
        })
    };
    core.device(instance).map(|device| device.identity).or_else(gone)
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_identifier_is_lower_case_hexadecimal() {
        assert_eq!(hexadecimal(&[0x01, 0xab, 0x00]), "01ab00");
        assert_eq!(hexadecimal(&[]), "");
    }
}
