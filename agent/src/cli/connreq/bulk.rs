//! `tr111 connreq send --all` and `--file`: Connection Requests to many CPEs at a given rate.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

use super::{Outcome, Reach};
use crate::{
    cli::output,
    control::{
        ClientError,
        message::{BulkProgress, BulkSummary, Reply, Request},
    },
};

/// Maximum names per request, so that the message stays below its maximum length.
const NAMES: usize = 2_000;
/// Width of the progress bar in characters.
const BAR: usize = 40;

pub(super) fn run(usernames: Option<&[String]>, rate: u32, copies: usize, reach: &Reach, json: bool) -> Outcome {
    let mut client = reach.connect()?;
    client.be_patient()?;
    let requests: Vec<Option<Vec<String>>> = match usernames {
        None => vec![None],
        Some(names) => names.chunks(NAMES).map(|names| Some(names.to_vec())).collect(),
    };
    let bar = Bar { is_shown: !json && io::stderr().is_terminal() };
    let mut whole = BulkSummary::default();
    for usernames in requests {
        let mut reply = client.ask(&Request::SendMany { usernames, rate, copies })?;
        let part = loop {
            match reply {
                Reply::Progress(progress) => bar.show(BulkProgress { done: whole.cpes + progress.done, ..progress }),
                Reply::Summary(summary) => break summary,
                _ => return Err(ClientError::OutOfTurn.into()),
            }
            reply = client.next_reply()?;
        };
        add(&mut whole, part);
    }
    bar.clear();
    if json { output::write_json(&whole) } else { output::write(describe(&whole).as_bytes()) }
}

fn add(whole: &mut BulkSummary, part: BulkSummary) {
    whole.cpes += part.cpes;
    whole.sent += part.sent;
    whole.datagrams += part.datagrams;
    whole.duration_ms += part.duration_ms;
    for (reason, count) in part.failed {
        *whole.failed.entry(reason).or_default() += count;
    }
}

fn describe(summary: &BulkSummary) -> String {
    let BulkSummary { cpes, sent, datagrams, failed, duration_ms } = summary;
    let seconds = Duration::from_millis(*duration_ms).as_secs_f64();
    let mut text = format!("{sent} of {cpes} CPEs: {datagrams} datagrams in {seconds:.1} s\n");
    for (reason, count) in failed {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{count} not sent: {reason}");
    }
    text
}

/// A progress bar on the terminal.
struct Bar {
    is_shown: bool,
}

impl Bar {
    /// Errors are ignored: a closed terminal does not stop the job.
    fn show(&self, BulkProgress { done, cpes }: BulkProgress) {
        if self.is_shown {
            let filled = (BAR as u64 * done.min(cpes)).checked_div(cpes).unwrap_or_default() as usize;
            let _ = write!(io::stderr(), "\r[{:<BAR$}] {done} of {cpes} CPEs", "#".repeat(filled));
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_bulk_add_up() {
        let part = |reason: &str| BulkSummary {
            cpes: 3,
            sent: 2,
            datagrams: 6,
            failed: [(reason.to_owned(), 1)].into(),
            duration_ms: 750,
        };
        let mut whole = part("unknown_cpe");
        add(&mut whole, part("unknown_cpe"));
        add(&mut whole, part("no_destination"));
        assert_eq!(
            describe(&whole),
            "6 of 9 CPEs: 18 datagrams in 2.2 s\n1 not sent: no_destination\n2 not sent: unknown_cpe\n"
        );
    }
}
