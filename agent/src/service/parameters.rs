//! The parameters of the data model and their values.

use std::net::SocketAddrV4;

use tr111_core::{
    binding::{self, Report},
    device::GatewayInfo,
    identity::{DeviceIdentity, GatewayIdentity},
    model::{self, Notification, Root, Setting, Side, Source},
    notification::Notifications,
};

use super::{Fault, management::Subject};
use crate::control::message::Parameter;

/// Values of writable parameters, which persist over restarts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// `ManageableDeviceNotificationLimit` in seconds; 0 until it is set (T-71).
    pub notification_limit: u32,
    /// `ConnectionRequestUsername`.
    pub connection_request_username: String,
    /// `ConnectionRequestPassword`. It is never sent to clients and never logged.
    pub connection_request_password: String,
    /// `URL` of the ACS and the writable parameters of TR-111 Table 6.
    pub binding: binding::Parameters,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("notification_limit", &self.notification_limit)
            .field("connection_request_username", &self.connection_request_username)
            .field("binding", &self.binding)
            .finish_non_exhaustive()
    }
}

impl Written {
    fn apply(&mut self, setting: Setting) {
        let binding = &mut self.binding;
        match setting {
            Setting::NotificationLimit(seconds) => self.notification_limit = seconds,
            Setting::Url(url) => binding.url = url,
            Setting::ConnectionRequestUsername(user) => self.connection_request_username = user,
            Setting::ConnectionRequestPassword(password) => self.connection_request_password = password,
            Setting::UdpConnectionRequestAddressNotificationLimit(seconds) => binding.notification_limit = seconds,
            Setting::StunEnable(on) => binding.stun_enable = on,
            Setting::StunServerAddress(address) => binding.stun_server_address = address,
            Setting::StunServerPort(port) => binding.stun_server_port = port,
            Setting::StunUsername(user) => binding.stun_username = user,
            Setting::StunPassword(password) => binding.stun_password = password,
            Setting::StunMaximumKeepAlivePeriod(seconds) => binding.stun_maximum_keep_alive_period = seconds,
            Setting::StunMinimumKeepAlivePeriod(seconds) => binding.stun_minimum_keep_alive_period = seconds,
        }
    }
}

/// Values that are common to all roles.
#[derive(Clone, Debug)]
pub struct Model {
    root: Root,
    device_info: GatewayIdentity,
    written: Written,
    /// The latest report of the service that keeps the binding.
    report: Report,
    /// The address at which that service receives Connection Requests; `None` while it does not.
    listener: Option<SocketAddrV4>,
}

impl Model {
    /// `device_info` is the identity of this machine. `written` are the values of the configuration, used at the first
    /// start.
    pub fn new(root: Root, device_info: GatewayIdentity, written: Written) -> Self {
        Self { root, device_info, written, report: Report::default(), listener: None }
    }

    /// The root object of the data model.
    pub fn root(&self) -> Root {
        self.root
    }

    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Replaces all writable values.
    pub(super) fn put(&mut self, written: Written) {
        if written.binding.stun_enable && !self.written.binding.stun_enable {
            // STUN was off and is turned on: the last report from STUN may be outdated.
            self.report = self.listening();
        }
        self.written = written;
    }

    /// `UDPConnectionRequestAddress` and `NATDetected`. From the write that disables STUN on, they describe the local
    /// address (DM-20, DM-29).
    pub(super) fn report(&self) -> Report {
        if self.written.binding.stun_enable { self.report } else { self.listening() }
    }

    /// Takes a report of the service that keeps the binding. `listener` is `None` while the service does not listen.
    pub(super) fn put_report(&mut self, report: Report, listener: Option<SocketAddrV4>) {
        self.report = report;
        self.listener = listener;
    }

    fn listening(&self) -> Report {
        Report { address: self.listener, nat_detected: false }
    }

    pub(super) fn view<'a>(&'a self, subject: &'a dyn Subject, notifications: &'a Notifications) -> View<'a> {
        View { model: self, subject, notifications }
    }

    /// Checks `writes` and returns all values as they would be afterwards. One fault refuses all writes.
    pub(super) fn check(&self, view: &View<'_>, writes: &[(String, String)]) -> Result<Checked, Fault> {
        let pairs = writes.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        let settings = model::check_all(view, pairs).map_err(|faults| match faults.first() {
            Some((path, error)) => fault(*error, path),
            None => fault(model::Fault::InternalError, ""),
        })?;
        let is_url_set = settings.iter().any(|setting| matches!(setting, Setting::Url(_)));
        let period = settings.iter().position(|setting| {
            matches!(setting, Setting::StunMinimumKeepAlivePeriod(_) | Setting::StunMaximumKeepAlivePeriod(_))
        });
        let mut written = self.written.clone();
        for setting in settings {
            written.apply(setting);
        }
        // T-45: checked after all writes, so that their order does not matter.
        if let Some((path, _)) = period.and_then(|index| writes.get(index))
            && !written.binding.has_consistent_periods()
        {
            return Err(fault(model::Fault::InvalidParameterValue, path));
        }
        Ok(Checked { written, is_url_set })
    }
}

/// Writes that passed the check.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// All values after the writes.
    pub(super) written: Written,
    /// Whether the ACS's URL is among the writes, even with its current value (T-34).
    pub(super) is_url_set: bool,
}

/// Converts a fault for clients.
pub(super) fn fault(fault: model::Fault, path: &str) -> Fault {
    Fault { code: fault.code(), name: fault.name(), path: path.to_owned() }
}

/// Read access to all parameters at one moment.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    model: &'a Model,
    subject: &'a dyn Subject,
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

    fn side(&self) -> Side {
        self.subject.side()
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.model.device_info
    }

    fn number_of_entries(&self) -> u32 {
        self.subject.number_of_entries()
    }

    fn notification_limit(&self) -> u32 {
        self.model.written.notification_limit
    }

    fn binding(&self) -> &binding::Parameters {
        &self.model.written.binding
    }

    fn report(&self) -> Report {
        self.model.report()
    }

    fn connection_request_username(&self) -> &str {
        &self.model.written.connection_request_username
    }

    fn instances(&self) -> Vec<u32> {
        self.subject.instances()
    }

    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        self.subject.device(instance)
    }

    fn gateway_info(&self) -> Option<&GatewayInfo> {
        self.subject.gateway_info()
    }

    fn notification(&self, name: &str) -> Notification {
        self.notifications.attribute(name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tr111_core::{
        association::{self, Association},
        notification,
    };

    use super::*;
    use crate::service::{association::Table, describe::Describer};

    const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";
    const ENTRIES: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
    const PASSWORD: &str = "InternetGatewayDevice.ManagementServer.ConnectionRequestPassword";

    fn parts() -> (Model, Table, Notifications) {
        let device_info = GatewayIdentity {
            manufacturer_oui: "00256D".parse().expect("an OUI"),
            serial_number: "GW0001".parse().expect("text"),
            product_class: "IGD".parse().expect("text"),
        };
        let notifications =
            Notifications::new(Root::Igd, notification::Settings::default(), notification::State::default());
        let core = Association::new(association::Settings::default());
        let table = Table { core, describer: Describer::new(HashMap::new()), seed: 0 };
        (Model::new(Root::Igd, device_info, Written::default()), table, notifications)
    }

    fn pair(path: &str, value: &str) -> (String, String) {
        (path.to_owned(), value.to_owned())
    }

    #[test]
    fn parameters_are_read_by_full_and_partial_path() {
        let (model, table, notifications) = parts();
        let read = |path: &str| model.view(&table, &notifications).get(&[path.to_owned()]);
        let serial = read("InternetGatewayDevice.DeviceInfo.SerialNumber").expect("there");
        assert_eq!((serial[0].value.as_str(), serial[0].kind.as_str()), ("GW0001", "string"));
        assert_eq!(read("InternetGatewayDevice.DeviceInfo.").expect("there").len(), 3);
        let fault = read("Device.DeviceInfo.").expect_err("another root");
        assert_eq!((fault.code, fault.path.as_str()), (9005, "Device.DeviceInfo."));
    }

    #[test]
    fn writes_are_all_or_nothing_and_faults_have_the_numbers_of_tr_069() {
        let (model, table, notifications) = parts();
        let check = |writes: &[(String, String)]| model.check(&model.view(&table, &notifications), writes);
        let refused = |writes: &[(String, String)]| check(writes).expect_err("refused").code;
        assert_eq!(refused(&[pair(LIMIT, "30"), pair(ENTRIES, "7")]), 9008);
        assert_eq!(refused(&[pair("InternetGatewayDevice.Nothing", "7")]), 9005);
        assert_eq!(refused(&[pair(LIMIT, "1"), pair(LIMIT, "2")]), 9003);
        let written = check(&[pair(LIMIT, "30"), pair(PASSWORD, "s3cret")]).expect("writable").written;
        assert_eq!((written.notification_limit, written.connection_request_password.as_str()), (30, "s3cret"));
    }

    #[test]
    fn a_password_is_neither_read_back_nor_printed() {
        let (mut model, table, notifications) = parts();
        let checked = model.check(&model.view(&table, &notifications), &[pair(PASSWORD, "s3cret")]).expect("writable");
        model.put(checked.written);
        assert_eq!(model.view(&table, &notifications).get(&[PASSWORD.to_owned()]).expect("there")[0].value, "");
        assert!(!format!("{model:?}").contains("s3cret"));
    }
}
