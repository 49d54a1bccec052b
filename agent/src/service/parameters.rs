//! The data model of the gateway: what the agent knows, as parameters.

use serde::{Deserialize, Serialize};
use tr111_core::{
    association::Association,
    identity::{DeviceIdentity, GatewayIdentity},
    model::{self, Notification, Root, Setting, Source},
    notification::Notifications,
};

use super::Fault;
use crate::control::message::Parameter;

/// Values that the ACS or the operator may write; they are kept over restarts.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// `ManageableDeviceNotificationLimit` in seconds; 0 until somebody sets it (T-71).
    pub notification_limit: u32,
    /// `URL` of the ACS.
    pub url: String,
    /// `ConnectionRequestUsername`
    pub connection_request_username: String,
    /// `ConnectionRequestPassword`, which never goes to clients or the log.
    pub connection_request_password: String,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("notification_limit", &self.notification_limit)
            .field("url", &self.url)
            .field("connection_request_username", &self.connection_request_username)
            .finish_non_exhaustive()
    }
}

/// Values that are not in the table.
#[derive(Clone, Debug)]
pub struct Model {
    root: Root,
    device_info: GatewayIdentity,
    written: Written,
}

impl Model {
    /// Of a gateway with this identity. `written` holds at the first start.
    pub fn new(root: Root, device_info: GatewayIdentity, written: Written) -> Self {
        Self { root, device_info, written }
    }

    /// The root of the data model.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The values that may be written.
    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Puts all of them in place.
    pub(super) fn put(&mut self, written: Written) {
        self.written = written;
    }

    /// The parameters as they are.
    pub(super) fn view<'a>(&'a self, core: &'a Association, notifications: &'a Notifications) -> View<'a> {
        View { model: self, core, notifications }
    }

    /// What would be after every write of `writes`; one fault refuses all.
    pub(super) fn check(&self, view: &View<'_>, writes: &[(String, String)]) -> Result<Written, Fault> {
        let pairs = writes.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        let settings = model::check_all(view, pairs).map_err(|faults| match faults.first() {
            Some((path, error)) => fault(*error, path),
            None => fault(model::Fault::InternalError, ""),
        })?;
        let mut written = self.written.clone();
        for setting in settings {
            match setting {
                Setting::NotificationLimit(seconds) => written.notification_limit = seconds,
                Setting::Url(url) => written.url = url,
                Setting::ConnectionRequestUsername(user) => written.connection_request_username = user,
                Setting::ConnectionRequestPassword(password) => written.connection_request_password = password,
            }
        }
        Ok(written)
    }
}

/// As a client sees it.
pub(super) fn fault(fault: model::Fault, path: &str) -> Fault {
    Fault { code: fault.code(), name: fault.name(), path: path.to_owned() }
}

/// The parameters of one moment.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    model: &'a Model,
    core: &'a Association,
    notifications: &'a Notifications,
}

impl View<'_> {
    /// The parameters at and below each path, in the order of the paths.
    pub(super) fn get(&self, paths: &[String]) -> Result<Vec<Parameter>, Fault> {
        let mut parameters = Vec::new();
        for path in paths {
            let found = model::get(self, path).map_err(|error| fault(error, path))?;
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
        self.model.written.notification_limit
    }

    fn url(&self) -> &str {
        &self.model.written.url
    }

    fn connection_request_username(&self) -> &str {
        &self.model.written.connection_request_username
    }

    fn instances(&self) -> Vec<u32> {
        self.core.devices().map(|device| device.instance).collect()
    }

    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        self.core.device(instance).map(|device| device.identity)
    }

    fn notification(&self, name: &str) -> Notification {
        self.notifications.attribute(name)
    }
}

#[cfg(test)]
mod tests {
    use tr111_core::{association, notification};

    use super::*;

    const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";
    const ENTRIES: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
    const PASSWORD: &str = "InternetGatewayDevice.ManagementServer.ConnectionRequestPassword";

    fn parts() -> (Model, Association, Notifications) {
        let device_info = GatewayIdentity {
            manufacturer_oui: "00256D".parse().expect("an OUI"),
            serial_number: "GW0001".parse().expect("text"),
            product_class: "IGD".parse().expect("text"),
        };
        let notifications =
            Notifications::new(Root::Igd, notification::Settings::default(), notification::State::default());
        let core = Association::new(association::Settings::default());
        (Model::new(Root::Igd, device_info, Written::default()), core, notifications)
    }

    fn pair(path: &str, value: &str) -> (String, String) {
        (path.to_owned(), value.to_owned())
    }

    #[test]
    fn parameters_are_read_by_full_and_partial_path() {
        let (model, core, notifications) = parts();
        let read = |path: &str| model.view(&core, &notifications).get(&[path.to_owned()]);
        let serial = read("InternetGatewayDevice.DeviceInfo.SerialNumber").expect("there");
        assert_eq!((serial[0].value.as_str(), serial[0].kind.as_str()), ("GW0001", "string"));
        assert_eq!(read("InternetGatewayDevice.DeviceInfo.").expect("there").len(), 3);
        let fault = read("Device.DeviceInfo.").expect_err("another root");
        assert_eq!((fault.code, fault.path.as_str()), (9005, "Device.DeviceInfo."));
    }

    #[test]
    fn writes_are_all_or_nothing_and_faults_have_the_numbers_of_tr_069() {
        let (model, core, notifications) = parts();
        let check = |writes: &[(String, String)]| model.check(&model.view(&core, &notifications), writes);
        let refused = |writes: &[(String, String)]| check(writes).expect_err("refused").code;
        assert_eq!(refused(&[pair(LIMIT, "30"), pair(ENTRIES, "7")]), 9008);
        assert_eq!(refused(&[pair("InternetGatewayDevice.Nothing", "7")]), 9005);
        let written = check(&[pair(LIMIT, "30"), pair(PASSWORD, "s3cret")]).expect("writable");
        assert_eq!((written.notification_limit, written.connection_request_password.as_str()), (30, "s3cret"));
    }

    #[test]
    fn a_password_is_neither_read_back_nor_printed() {
        let (mut model, core, notifications) = parts();
        let written = model.check(&model.view(&core, &notifications), &[pair(PASSWORD, "s3cret")]).expect("writable");
        model.put(written);
        assert_eq!(model.view(&core, &notifications).get(&[PASSWORD.to_owned()]).expect("there")[0].value, "");
        assert!(!format!("{model:?}").contains("s3cret"));
    }
}
