//! The data model of the gateway: what the agent knows, as parameters.

use tr111_core::{
    association::Association,
    identity::{DeviceIdentity, GatewayIdentity},
    model::{self, Root, Setting, Source},
};

use super::Fault;
use crate::control::message::Parameter;

/// Values that are not in the table.
#[derive(Clone, Debug)]
pub struct Model {
    root: Root,
    device_info: GatewayIdentity,
    /// `ManageableDeviceNotificationLimit` in seconds; 0 until somebody sets it (T-71).
    notification_limit: u32,
}

impl Model {
    /// Of a gateway with this identity.
    pub fn new(root: Root, device_info: GatewayIdentity) -> Self {
        Self { root, device_info, notification_limit: 0 }
    }

    /// The parameters at and below each path, in the order of the paths.
    pub(super) fn get(&self, core: &Association, paths: &[String]) -> Result<Vec<Parameter>, Fault> {
        let view = View { model: self, core };
        let mut parameters = Vec::new();
        for path in paths {
            let found = model::get(&view, path).map_err(|error| fault(error, path))?;
            parameters.extend(found.into_iter().map(|parameter| Parameter {
                kind: parameter.value.kind().name().to_owned(),
                value: parameter.value.to_string(),
                writable: parameter.writable,
                notification: parameter.notification.label().to_owned(),
                name: parameter.name,
            }));
        }
        Ok(parameters)
    }

    /// Sets every parameter, or none.
    pub(super) fn set(&mut self, core: &Association, writes: &[(String, String)]) -> Result<(), Fault> {
        let view = View { model: self, core };
        let pairs = writes.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        let settings = model::check_all(&view, pairs).map_err(|faults| match faults.first() {
            Some((path, error)) => fault(*error, path),
            None => fault(model::Fault::InternalError, ""),
        })?;
        for setting in settings {
            match setting {
                Setting::NotificationLimit(seconds) => self.notification_limit = seconds,
            }
        }
        Ok(())
    }
}

fn fault(fault: model::Fault, path: &str) -> Fault {
    Fault { code: fault.code(), name: fault.name(), path: path.to_owned() }
}

struct View<'a> {
    model: &'a Model,
    core: &'a Association,
}

impl Source for View<'_> {
    fn root(&self) -> Root {
        self.model.root
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.model.device_info
    }

    fn number_of_entries(&self) -> u32 {
        self.core.rows()
    }

    fn notification_limit(&self) -> u32 {
        self.model.notification_limit
    }

    fn instances(&self) -> Vec<u32> {
        self.core.devices().map(|device| device.instance).collect()
    }

    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        self.core.device(instance).map(|device| device.identity)
    }
}

#[cfg(test)]
mod tests {
    use tr111_core::association::Settings;

    use super::*;

    const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";
    const ENTRIES: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";

    fn model() -> (Model, Association) {
        let device_info = GatewayIdentity {
            manufacturer_oui: "00256D".parse().expect("an OUI"),
            serial_number: "GW0001".parse().expect("text"),
            product_class: "IGD".parse().expect("text"),
        };
        (Model::new(Root::Igd, device_info), Association::new(Settings::default()))
    }

    fn pair(path: &str, value: &str) -> (String, String) {
        (path.to_owned(), value.to_owned())
    }

    #[test]
    fn parameters_are_read_by_full_and_partial_path() {
        let (model, core) = model();
        let read = |path: &str| model.get(&core, &[path.to_owned()]);
        let serial = read("InternetGatewayDevice.DeviceInfo.SerialNumber").expect("there");
        assert_eq!((serial[0].value.as_str(), serial[0].kind.as_str()), ("GW0001", "string"));
        assert_eq!(read("InternetGatewayDevice.DeviceInfo.").expect("there").len(), 3);
        let fault = read("Device.DeviceInfo.").expect_err("another root");
        assert_eq!((fault.code, fault.path.as_str()), (9005, "Device.DeviceInfo."));
    }

    #[test]
    fn writes_are_all_or_nothing_and_faults_have_the_numbers_of_tr_069() {
        let (mut model, core) = model();
        let mut refused = |writes: &[(String, String)]| model.set(&core, writes).expect_err("refused").code;
        assert_eq!(refused(&[pair(LIMIT, "30"), pair(ENTRIES, "7")]), 9008);
        assert_eq!(refused(&[pair("InternetGatewayDevice.Nothing", "7")]), 9005);
        assert_eq!(model.get(&core, &[LIMIT.to_owned()]).expect("there")[0].value, "0");
        model.set(&core, &[pair(LIMIT, "30")]).expect("writable");
        assert_eq!(model.get(&core, &[LIMIT.to_owned()]).expect("there")[0].value, "30");
    }
}
