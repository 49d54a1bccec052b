//! Metrics of the ACS role.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use tr111_common::stun::BindingForm;
use tr111_core::{
    acs::{Outcome, Verdict},
    stun::MessageType,
};

use super::Telemetry;

/// The metrics of an ACS.
#[derive(Clone, Debug)]
pub struct AcsMetrics {
    /// Number of CPEs in the registry.
    pub cpes: IntGauge,
    /// Number of CPEs with an authenticated binding.
    pub bindings: IntGauge,
    /// 1 if the registry can be written, else 0.
    pub registry: IntGauge,
    /// Connection Requests by result. Copies are not counted.
    pub requests: IntCounterVec,
    /// Datagrams that were dropped because the socket's receive buffer was full.
    pub lost: IntCounter,
    /// Alarms by reason.
    pub alarms: IntCounterVec,
    stun: IntCounterVec,
    binding_forms: IntCounterVec,
}

impl AcsMetrics {
    /// The result of a Connection Request that was sent.
    pub const SENT: &'static str = "sent";
    /// The alarm of a signed request that was received again (T-67).
    pub const REPLAYED: &'static str = "replayed_request";
    /// The alarm of a clock that is too far ahead of the last good time (T-54).
    pub const CLOCK_AHEAD: &'static str = "clock_ahead";
    /// The alarm of a signed request that the store could not remember, so that the binding was not changed.
    pub const NOT_KEPT: &'static str = "binding_not_kept";
    /// The alarm of a thread of the STUN server that panicked, and goes on.
    pub const PANICKED: &'static str = "panicked";
    /// The alarm of a record of the registry that cannot be read.
    pub const UNREADABLE: &'static str = "unreadable_record";

    /// Registers the metrics.
    pub fn register(telemetry: &Telemetry, role: &str) -> Result<Self, prometheus::Error> {
        let requests = Opts::new("tr111_connection_requests_total", "UDP Connection Requests, by result.");
        let stun = Opts::new("tr111_stun_messages_total", "STUN messages, by result.");
        let forms = Opts::new(
            "tr111_stun_binding_forms_total",
            "Binding Requests with CONNECTION-REQUEST-BINDING that a socket received, by the attribute's form.",
        );
        let lost = Opts::new("tr111_socket_lost_total", "Datagrams dropped because a receive buffer was full.");
        let alarms = Opts::new("tr111_acs_alarms_total", "Conditions that need an operator, by reason.");
        let metrics = Self {
            cpes: IntGauge::new("tr111_cpes", "CPEs in the registry.")?,
            bindings: telemetry.nat_bindings.clone(),
            registry: IntGauge::new("tr111_registry_up", "Whether the registry can be written: 1, else 0.")?,
            requests: IntCounterVec::new(requests.const_label("role", role), &["result"])?,
            lost: IntCounter::with_opts(lost.const_label("socket", "stun"))?,
            alarms: IntCounterVec::new(alarms, &["alarm"])?,
            stun: IntCounterVec::new(stun.const_label("role", role), &["type", "result"])?,
            binding_forms: IntCounterVec::new(forms.const_label("role", role), &["form"])?,
        };
        let request = MessageType::BindingRequest.label();
        for verdict in Verdict::ALL {
            metrics.stun.with_label_values(&[request, verdict.label()]);
        }
        for form in BindingForm::ALL {
            metrics.binding_forms.with_label_values(&[form.label()]);
        }
        metrics.requests.with_label_values(&[Self::SENT]);
        for alarm in [Self::REPLAYED, Self::CLOCK_AHEAD, Self::NOT_KEPT, Self::UNREADABLE, Self::PANICKED] {
            metrics.alarms.with_label_values(&[alarm]);
        }
        telemetry.register(Box::new(metrics.cpes.clone()))?;
        telemetry.register(Box::new(metrics.bindings.clone()))?;
        telemetry.register(Box::new(metrics.registry.clone()))?;
        telemetry.register(Box::new(metrics.requests.clone()))?;
        telemetry.register(Box::new(metrics.lost.clone()))?;
        telemetry.register(Box::new(metrics.alarms.clone()))?;
        telemetry.register(Box::new(metrics.stun.clone()))?;
        telemetry.register(Box::new(metrics.binding_forms.clone()))?;
        Ok(metrics)
    }
}

/// Counts of a thread between two updates of the metrics.
#[derive(Debug, Default)]
pub struct StunCounts {
    messages: Messages,
    forms: [u64; BindingForm::ALL.len()],
}

/// Counts by message type and verdict.
#[derive(Debug)]
struct Messages([[u64; Verdict::ALL.len()]; TYPES.len() + 1]);

const TYPES: [MessageType; 6] = [
    MessageType::BindingRequest,
    MessageType::BindingResponse,
    MessageType::BindingErrorResponse,
    MessageType::SharedSecretRequest,
    MessageType::SharedSecretResponse,
    MessageType::SharedSecretErrorResponse,
];

impl Default for Messages {
    fn default() -> Self {
        Self([[0; Verdict::ALL.len()]; TYPES.len() + 1])
    }
}

impl StunCounts {
    /// Counts a datagram by the outcome of its processing.
    pub fn count(&mut self, outcome: &Outcome) {
        let position = |wanted| TYPES.iter().position(|&kind| kind == wanted);
        let kind = outcome.message_type.and_then(position).unwrap_or(TYPES.len());
        self.messages.0[kind][outcome.verdict as usize] += 1;
        if let Some(form) = outcome.binding {
            self.forms[form as usize] += 1;
        }
    }

    /// Adds the counts to the metrics and resets them.
    pub fn flush(&mut self, metrics: &AcsMetrics) {
        for (kind, counts) in self.messages.0.iter_mut().enumerate() {
            let label = TYPES.get(kind).map_or("other", |kind| kind.label());
            for (verdict, count) in Verdict::ALL.into_iter().zip(counts) {
                if *count > 0 {
                    metrics.stun.with_label_values(&[label, verdict.label()]).inc_by(*count);
                    *count = 0;
                }
            }
        }
        for (form, count) in BindingForm::ALL.into_iter().zip(&mut self.forms) {
            if *count > 0 {
                metrics.binding_forms.with_label_values(&[form.label()]).inc_by(std::mem::take(count));
            }
        }
    }
}
