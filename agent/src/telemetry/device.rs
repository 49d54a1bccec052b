//! Metrics of the device role.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use tr111_common::dhcp4::MessageType;
use tr111_core::device::GatewayParameter;

use super::Telemetry;

/// The metrics of a device.
#[derive(Clone, Debug)]
pub struct DeviceMetrics {
    /// DHCP messages that were sent, by type.
    pub sent: IntCounterVec,
    /// Changes of `GatewayInfo`.
    pub changes: IntCounter,
    /// 1 while `GatewayInfo` names a gateway, else 0.
    pub gateway: IntGauge,
}

impl DeviceMetrics {
    /// Registers the metrics.
    pub fn register(telemetry: &Telemetry) -> Result<Self, prometheus::Error> {
        let sent = Opts::new("tr111_dhcp_messages_sent_total", "DHCP messages that the device sent.");
        let metrics = Self {
            sent: IntCounterVec::new(sent, &["message"])?,
            changes: IntCounter::new("tr111_gateway_info_changes_total", "Changes of GatewayInfo.")?,
            gateway: IntGauge::new("tr111_gateway_known", "Whether GatewayInfo names a gateway.")?,
        };
        for message in [
            MessageType::Discover,
            MessageType::Request,
            MessageType::Inform,
            MessageType::Decline,
            MessageType::Release,
        ] {
            metrics.sent.with_label_values(&[message.label()]);
        }
        for parameter in GatewayParameter::ALL {
            telemetry.notifications.with_label_values(&[parameter.name(), "sent"]);
        }
        telemetry.register(Box::new(metrics.sent.clone()))?;
        telemetry.register(Box::new(metrics.changes.clone()))?;
        telemetry.register(Box::new(metrics.gateway.clone()))?;
        Ok(metrics)
    }
}
