//! The content of the screen as text, without terminal access.

use std::{collections::HashMap, time::Instant};

use super::Snapshot;
use crate::{
    cli::{
        Failure, bindings, devices,
        output::{Table, printable},
        status,
    },
    control::message::{Counter, Device},
};

/// Maximum rows that are shown: the most recently seen ones.
const ROWS: usize = 200;
/// Maximum counters that are shown: those with the highest rates.
const RATES: usize = 12;
/// Parts of the names of counters that count losses.
const LOSSES: [&str; 4] = ["_lost_", "_failures_", "_errors_", "_damaged_"];

/// A counter and its rate.
struct Rate<'a> {
    counter: &'a Counter,
    per_second: f64,
}

/// The last snapshot and the scroll position.
pub(super) struct View {
    now: Snapshot,
    /// Time and counter values of the previous snapshot.
    before: Option<(Instant, HashMap<Id, u64>)>,
    devices: Vec<Device>,
    /// Why the agent could not be read the last time.
    trouble: Option<String>,
    top: usize,
}

/// Name and labels of a counter.
type Id = (String, Vec<(String, String)>);

impl View {
    pub(super) fn new(first: Snapshot) -> Self {
        let mut view = Self { now: first, before: None, devices: Vec::new(), trouble: None, top: 0 };
        view.sort();
        view
    }

    /// Takes a new snapshot, or the reason why there is none.
    pub(super) fn take(&mut self, look: Result<Snapshot, Failure>) {
        match look {
            Ok(snapshot) => {
                let values = self.now.counters.drain(..).map(|counter| ((counter.name, counter.labels), counter.value));
                self.before = Some((self.now.at, values.collect()));
                self.now = snapshot;
                self.trouble = None;
                self.sort();
            }
            Err(failure) => self.trouble = Some(failure.to_string()),
        }
    }

    /// Sorts new rows: the most recently seen first.
    fn sort(&mut self) {
        if let Some(mut devices) = self.now.devices.take() {
            devices.sort_by(|one, other| other.last_seen.cmp(&one.last_seen).then(one.instance.cmp(&other.instance)));
            devices.truncate(ROWS);
            self.devices = devices;
        }
    }

    /// Scrolls down by `lines`, or up if `lines` is negative.
    pub(super) fn scroll(&mut self, lines: isize) {
        self.top = self.top.saturating_add_signed(lines);
    }

    /// The lines to draw on a terminal of this size.
    pub(super) fn page(&mut self, lines: u16, columns: u16) -> Vec<String> {
        let body = self.body();
        let room = usize::from(lines).saturating_sub(1);
        self.top = self.top.min(body.len().saturating_sub(room));
        let trouble = self.trouble.as_ref().map(|trouble| format!("  {}", printable(trouble)));
        let title = format!("tr111 top   q: quit, arrows: scroll{}", trouble.unwrap_or_default());
        let cut = |line: &str| line.chars().take(columns.into()).collect::<String>();
        let width = usize::from(columns);
        let title = format!("\x1b[7m{:<width$}\x1b[0m", cut(&title));
        std::iter::once(title).chain(body.iter().skip(self.top).take(room).map(|line| cut(line))).collect()
    }

    fn body(&self) -> Vec<String> {
        let Snapshot { status, bindings, has_more_bindings, .. } = &self.now;
        let mut rates = self.rates();
        let losses = rates.extract_if(.., |rate| LOSSES.iter().any(|part| rate.counter.name.contains(part)));
        let mut losses: Vec<_> = losses.filter(|rate| rate.counter.value > 0).collect();
        let mut parts = vec![status::describe(status)];
        parts.push(if losses.is_empty() {
            "NO LOSSES\n".to_owned()
        } else {
            format!("LOSSES\n{}", table(&mut losses))
        });
        parts.push(format!("RATES\n{}", table(&mut rates)));
        if !bindings.is_empty() {
            let more = if *has_more_bindings { " and more" } else { "" };
            parts.push(format!("BINDINGS ({}{more})\n{}", bindings.len(), bindings::table(bindings).render()));
        }
        // Only a gateway has a table.
        if status.table.max_rows > 0 {
            let rows = devices::table(&self.devices).render();
            parts.push(format!("DEVICES ({}, most recently seen first)\n{rows}", status.table.rows));
        }
        parts.join("\n").lines().map(str::to_owned).collect()
    }

    fn rates(&self) -> Vec<Rate<'_>> {
        let rate = |counter: &Counter| {
            let (then, values) = self.before.as_ref()?;
            let id = (counter.name.clone(), counter.labels.clone());
            // After a restart of the agent, counters start from 0.
            let more = counter.value.checked_sub(*values.get(&id)?)?;
            let seconds = self.now.at.saturating_duration_since(*then).as_secs_f64();
            Some(f64::from(u32::try_from(more).unwrap_or(u32::MAX)) / seconds.max(f64::EPSILON))
        };
        let rate = |counter| Rate { counter, per_second: rate(counter).unwrap_or_default() };
        self.now.counters.iter().map(rate).collect()
    }
}

/// The counters with the highest rates. Counters with the same rate are sorted by value, and counters at 0 are left
/// out.
fn table(rates: &mut [Rate<'_>]) -> String {
    rates.sort_by(|one, other| {
        other.per_second.total_cmp(&one.per_second).then(other.counter.value.cmp(&one.counter.value))
    });
    let mut table = Table::new(&["PER SECOND", "TOTAL", "COUNTER"]);
    for Rate { counter, per_second } in rates.iter().filter(|rate| rate.counter.value > 0).take(RATES) {
        let mut name = counter.name.trim_start_matches("tr111_").trim_end_matches("_total").to_owned();
        for (label, value) in &counter.labels {
            name.extend([" ", label, "=", value]);
        }
        table.push([format!("{per_second:.1}"), counter.value.to_string(), name]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::message::{NatBinding, Status, Table as Rows};

    fn snapshot(at: Instant, counts: [u64; 2]) -> Snapshot {
        let counter = |name: &str, value| Counter {
            name: name.to_owned(),
            labels: vec![("ring".to_owned(), "lan".to_owned())],
            value,
        };
        Snapshot {
            at,
            status: Status {
                role: "gateway".to_owned(),
                version: "0.1.0".to_owned(),
                pid: 1,
                started: "2026-01-01T00:00:00Z".to_owned(),
                uptime_s: 90,
                interfaces: Vec::new(),
                table: Rows { rows: 2, bindings: 2, max_rows: 10, waiting: 0 },
                rings: Vec::new(),
                store_relearned: None,
                last_notification: None,
                pin_dir: "/sys/fs/bpf/tr111".into(),
                metrics: None,
                tcp_connection_requests: "external".to_owned(),
                nat_timeouts: None,
                alarms: Vec::new(),
                acs: None,
            },
            counters: vec![
                counter("tr111_ring_events_total", counts[0]),
                counter("tr111_ring_lost_total", counts[1]),
                counter("tr111_still_total", 0),
            ],
            bindings: vec![NatBinding { address: "198.51.100.7:40001".to_owned(), ..NatBinding::default() }],
            has_more_bindings: false,
            devices: Some(Vec::new()),
        }
    }

    #[test]
    fn rates_are_differences_over_time_and_losses_stand_apart() {
        let start = Instant::now();
        let mut view = View::new(snapshot(start, [100, 0]));
        let page = view.page(60, 100).join("\n");
        assert!(page.contains("NO LOSSES") && page.contains("0.0         100    ring_events ring=lan"), "{page}");
        assert!(!page.contains("still"), "{page}");
        view.take(Ok(snapshot(start + Duration::from_secs(2), [150, 3])));
        let page = view.page(60, 100).join("\n");
        let (_, losses) = page.split_once("\nLOSSES\n").expect("losses");
        let (losses, rates) = losses.split_once("\nRATES\n").expect("rates");
        assert!(losses.contains("1.5         3      ring_lost ring=lan"), "{losses}");
        assert!(rates.contains("25.0        150    ring_events ring=lan"), "{rates}");
        assert!(rates.contains("BINDINGS (1)") && rates.contains("DEVICES (2"), "{rates}");
        // The agent started again.
        view.take(Ok(snapshot(start + Duration::from_secs(4), [7, 0])));
        assert!(view.page(60, 100).join("\n").contains("0.0         7      ring_events"));
    }

    #[test]
    fn a_page_fits_its_terminal_scrolls_to_its_end_and_says_what_is_wrong() {
        let mut view = View::new(snapshot(Instant::now(), [100, 0]));
        view.take(Err(Failure::failed("no \u{1b}agent")));
        view.scroll(1_000);
        let page = view.page(5, 70);
        assert_eq!(page.len(), 5);
        assert!(page[0].contains(r"  no \u{1b}agent"), "{page:?}");
        assert!(page[4].starts_with("INSTANCE") && page[4].len() <= 70, "{page:?}");
        view.scroll(-1_000);
        assert!(view.page(5, 70)[1].starts_with("role"));
    }
}
