//! Metrics of the CPE side of TR-111 Part 2.

use prometheus::{Gauge, IntCounterVec, IntGaugeVec, Opts};
use tr111_core::{
    binding::{Alarm, Cpe},
    connreq::Refusal,
    digest,
};

use super::{Connections, Telemetry};

/// The metrics of Connection Requests and of the binding.
#[derive(Clone, Debug)]
pub struct CpeMetrics {
    /// UDP Connection Requests by result.
    pub requests: IntCounterVec,
    /// TCP Connection Requests by result.
    pub tcp_requests: IntCounterVec,
    /// Connections of the listener for TCP Connection Requests.
    pub tcp_connections: Connections,
    /// STUN messages by type and result.
    stun: IntCounterVec,
    /// Datagrams that were dropped because the socket's receive buffer was full.
    pub lost: IntCounterVec,
    /// 1 for each active alarm, by reason.
    pub alarms: IntGaugeVec,
    /// The learned keep-alive period, in seconds.
    learned: Gauge,
}

impl CpeMetrics {
    /// The result of an accepted request.
    pub const ACCEPTED: &'static str = Refusal::ACCEPTED;
    /// The result of a datagram that is neither STUN nor HTTP.
    pub const UNKNOWN: &'static str = "unknown_payload";

    /// The result of a TCP Connection Request whose method is not GET.
    pub const WRONG_METHOD: &'static str = "wrong_method";

    /// Registers the metrics.
    pub fn register(telemetry: &Telemetry, role: &str) -> Result<Self, prometheus::Error> {
        let requests = Opts::new("tr111_connection_requests_total", "UDP Connection Requests, by result.")
            .const_label("role", role);
        let tcp = Opts::new("tr111_tcp_connection_requests_total", "TCP Connection Requests, by result.")
            .const_label("role", role);
        let stun = Opts::new("tr111_stun_messages_total", "STUN messages, by result.");
        let lost = Opts::new("tr111_socket_lost_total", "Datagrams dropped because a receive buffer was full.");
        let alarms = Opts::new("tr111_binding_alarms", "Alarms of the NAT binding, by reason: 1 while active.");
        let learned = Opts::new(
            "tr111_stun_learned_period_seconds",
            "Longest keep-alive period that the NAT binding has survived; 0 until one is learned.",
        );
        let metrics = Self {
            requests: IntCounterVec::new(requests, &["result"])?,
            tcp_requests: IntCounterVec::new(tcp, &["result"])?,
            tcp_connections: telemetry.connections("connection_request"),
            stun: IntCounterVec::new(stun.const_label("role", role), &["type", "result"])?,
            lost: IntCounterVec::new(lost, &["socket"])?,
            alarms: IntGaugeVec::new(alarms, &["alarm"])?,
            learned: Gauge::with_opts(learned)?,
        };
        let results = Refusal::ALL.map(Refusal::label).into_iter().chain([Self::ACCEPTED, Self::UNKNOWN]);
        results.for_each(|result| drop(metrics.requests.with_label_values(&[result])));
        for [kind, result] in
            [["binding_request", "sent"], ["binding_response", "accepted"], ["binding_error_response", "accepted"]]
        {
            metrics.stun.with_label_values(&[kind, result]);
        }
        for socket in ["primary", "secondary"] {
            metrics.lost.with_label_values(&[socket]);
        }
        metrics.alarms.with_label_values(&[Alarm::ServerUnreachable.label()]);
        let results = digest::Refusal::ALL.map(digest::Refusal::label).into_iter();
        results
            .chain([Self::ACCEPTED, Self::WRONG_METHOD])
            .for_each(|result| drop(metrics.tcp_requests.with_label_values(&[result])));
        telemetry.register(Box::new(metrics.requests.clone()))?;
        telemetry.register(Box::new(metrics.tcp_requests.clone()))?;
        telemetry.register(Box::new(metrics.stun.clone()))?;
        telemetry.register(Box::new(metrics.lost.clone()))?;
        telemetry.register(Box::new(metrics.alarms.clone()))?;
        telemetry.register(Box::new(metrics.learned.clone()))?;
        Ok(metrics)
    }

    /// Updates the metrics from the core: its counters and the learned period.
    pub fn follow(&self, cpe: &Cpe) {
        for ((kind, result), count) in cpe.counts() {
            let counter = self.stun.with_label_values(&[kind, result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.learned.set(cpe.memory().learned.unwrap_or_default().as_secs_f64());
    }
}
