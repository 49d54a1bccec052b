//! Metrics of the device role.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use tr111_common::dhcp4::MessageType;
use tr111_core::device::GatewayParameter;

use super::Telemetry;

/// What only a device counts.
#[derive(Clone, Debug)]
pub struct DeviceMetrics {
    /// DHCP messages that were sent, by type.
    pub sent: IntCounterVec,
    /// Changes of `GatewayInfo`.
    pub changes: IntCounter,
    /// Notifications, by parameter.
    pub notifications: IntCounterVec,
    /// 1 while a gateway is known.
    pub gateway: IntGauge,
}

impl DeviceMetrics {
    /// Adds them to the metrics of the role.
    pub fn register(telemetry: &Telemetry) -> Result<Self, prometheus::Error> {
        let sent = Opts::new("tr111_dhcp_messages_sent_total", "DHCP messages that the device sent.");
        let notifications = Opts::new("tr111_notifications_total", "Changes of parameters that the ACS is told of.");
        let metrics = Self {
            sent: IntCounterVec::new(sent, &["message"])?,
            changes: IntCounter::new("tr111_gateway_info_changes_total", "Changes of GatewayInfo.")?,
            notifications: IntCounterVec::new(notifications, &["parameter", "result"])?,
            gateway: IntGauge::new("tr111_gateway_known", "Whether GatewayInfo names a gateway.")?,
        };
        for message in [MessageType::Discover, MessageType::Request, MessageType::Inform, MessageType::Release] {
            metrics.sent.with_label_values(&[message.label()]);
        }
        for parameter in GatewayParameter::ALL {
            metrics.notifications.with_label_values(&[parameter.path(), "sent"]);
        }
        telemetry.register(Box::new(metrics.sent.clone()))?;
        telemetry.register(Box::new(metrics.changes.clone()))?;
        telemetry.register(Box::new(metrics.notifications.clone()))?;
        telemetry.register(Box::new(metrics.gateway.clone()))?;
        Ok(metrics)
    }
}
