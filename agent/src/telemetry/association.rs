//! Metrics of device-gateway associations (TR-111 1.2.3).

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use tr111_core::acs::association::{Outcome, Refusal, Tally};

use super::Telemetry;

/// The result of a table that was accepted.
const ACCEPTED: &str = "accepted";
const GATEWAY_INFO: &str = "gateway_info";
const MANAGEABLE_DEVICE: &str = "manageable_device";

/// The metrics of associations.
#[derive(Clone, Debug)]
pub struct AssociationMetrics {
    states: IntGaugeVec,
    table_rows: IntGauge,
    reports: IntCounterVec,
    changes: IntCounterVec,
    forgotten_claims: IntCounter,
    forgotten_tables: IntCounter,
}

impl AssociationMetrics {
    /// Registers the metrics.
    pub fn register(telemetry: &Telemetry) -> Result<Self, prometheus::Error> {
        let states = Opts::new(
            "tr111_associations",
            "Devices by state: validated and unvalidated associations, pending and refused claims.",
        );
        let reports = Opts::new(
            "tr111_association_reports_total",
            "Reports of devices (gateway_info) and gateways (manageable_device), by result.",
        );
        let changes = Opts::new(
            "tr111_association_changes_total",
            "Changes of associations, by result; refused means that the gateway's table contradicts the device.",
        );
        let forgotten = Opts::new("tr111_association_forgotten_total", "Claims and tables removed because of a limit.");
        let forgotten = IntCounterVec::new(forgotten, &["what"])?;
        let metrics = Self {
            states: IntGaugeVec::new(states, &["state"])?,
            table_rows: IntGauge::new("tr111_association_table_rows", "Stored rows of ManageableDevice tables.")?,
            reports: IntCounterVec::new(reports, &["report", "result"])?,
            changes: IntCounterVec::new(changes, &["result"])?,
            forgotten_claims: forgotten.with_label_values(&["claim"]),
            forgotten_tables: forgotten.with_label_values(&["table"]),
        };
        for outcome in Outcome::ALL {
            metrics.reports.with_label_values(&[GATEWAY_INFO, outcome.label()]);
            metrics.changes.with_label_values(&[outcome.label()]);
        }
        for result in Refusal::LABELS.into_iter().chain([ACCEPTED]) {
            metrics.reports.with_label_values(&[MANAGEABLE_DEVICE, result]);
        }
        telemetry.register(Box::new(metrics.states.clone()))?;
        telemetry.register(Box::new(metrics.table_rows.clone()))?;
        telemetry.register(Box::new(metrics.reports.clone()))?;
        telemetry.register(Box::new(metrics.changes.clone()))?;
        telemetry.register(Box::new(forgotten))?;
        Ok(metrics)
    }

    /// Counts a report of a device.
    pub fn gateway_info(&self, result: Result<Outcome, Refusal>) {
        let result = result.map_or_else(Refusal::label, Outcome::label);
        self.reports.with_label_values(&[GATEWAY_INFO, result]).inc();
    }

    /// Counts a report of a gateway.
    pub fn manageable_device(&self, result: Result<(), Refusal>) {
        let result = result.map_or_else(Refusal::label, |()| ACCEPTED);
        self.reports.with_label_values(&[MANAGEABLE_DEVICE, result]).inc();
    }

    /// Counts a change of an association.
    pub fn changed(&self, outcome: Outcome) {
        self.changes.with_label_values(&[outcome.label()]).inc();
    }

    /// Sets the numbers of associations and rows.
    pub fn show(&self, tally: Tally) {
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in [
            ("validated", tally.validated),
            ("unvalidated", tally.unvalidated),
            ("pending", tally.pending),
            ("refused", tally.refused),
        ] {
            self.states.with_label_values(&[state]).set(gauge(count));
        }
        self.table_rows.set(gauge(tally.rows));
        for (counter, count) in
            [(&self.forgotten_claims, tally.forgotten_claims), (&self.forgotten_tables, tally.forgotten_tables)]
        {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
