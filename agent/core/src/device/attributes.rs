use super::GatewayParameter;
use crate::model::Notification;

/// Notification attributes of the `GatewayInfo` parameters: Active, unless the ACS says otherwise (DEV-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes([Notification; GatewayParameter::ALL.len()]);

impl Default for Attributes {
    fn default() -> Self {
        Self([Notification::Active; GatewayParameter::ALL.len()])
    }
}

impl Attributes {
    /// The attribute of a parameter.
    pub fn get(&self, parameter: GatewayParameter) -> Notification {
        self.0[parameter as usize]
    }

    /// What the ACS wants of a parameter.
    pub fn set(&mut self, parameter: GatewayParameter, notification: Notification) {
        self.0[parameter as usize] = notification;
    }

    /// `ManagementServer.URL` was written, maybe with the value that it had: the ACS may be another one, and has to
    /// learn of the gateway (DEV-7, T-34).
    pub fn url_written(&mut self) {
        *self = Self::default();
    }
}
