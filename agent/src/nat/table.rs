//! The table `inet tr111`, written by nft.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::config::Traffic;

/// Name of the table.
const TABLE: &str = "inet tr111";

/// Why the table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No nft in PATH.
    #[error("nft is not installed")]
    NoNft,
    /// nft could not be run.
    #[error("nft cannot be run: {0}")]
    Run(#[from] std::io::Error),
    /// The kernel, or this version of nft, refuses.
    #[error("nft refuses the table: {0}")]
    Refused(String),
}

/// The table's only rule: marked flows get this timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The timeout.
    pub timeout: Duration,
    mark: u32,
    mask: u32,
}

impl Rule {
    /// As the settings want it; `None` where they want none.
    pub fn new(traffic: &Traffic) -> Option<Self> {
        traffic.extended_timeout.map(|timeout| Self { timeout, mark: traffic.mark, mask: traffic.mark_mask })
    }

    /// What tells this rule from those of other settings.
    fn comment(&self) -> String {
        format!("tr111 {} s {:#010x}/{:#010x}", self.timeout.as_secs(), self.mark, self.mask)
    }

    /// Makes the table, or changes its rule. A timeout that flows still have stays an object of the table: taking it
    /// away would take their time.
    fn ruleset(&self) -> String {
        let Self { timeout, mark, mask } = self;
        let seconds = timeout.as_secs();
        let mut text = String::new();
        let _ = write!(
            text,
            "table {TABLE} {{
                ct timeout stun_{seconds} {{
                    protocol udp
                    l3proto ip
                    policy = {{ unreplied : {seconds}, replied : {seconds} }}
                }}
                chain extend {{
                    type filter hook prerouting priority mangle; policy accept;
                }}
            }}
            flush chain {TABLE} extend
            add rule {TABLE} extend meta mark & {mask:#010x} == {mark:#010x} ct timeout set \"stun_{seconds}\" comment \"{}\"
            ",
            self.comment()
        );
        text
    }

    /// Whether the table is there and has this rule.
    pub(super) fn is_in_force(&self) -> bool {
        let listed = nft(&["list", "chain", "inet", "tr111", "extend"], "");
        listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains(&self.comment()))
    }

    /// Makes it so.
    pub(super) fn install(&self) -> Result<(), TableError> {
        refused(&nft(&["-f", "-"], &self.ruleset())?)
    }
}

/// Removes the table; `false` where there was none.
///
/// # Errors
/// See [`TableError`].
pub fn remove() -> Result<bool, TableError> {
    if !nft(&["list", "table", "inet", "tr111"], "")?.status.success() {
        return Ok(false);
    }
    refused(&nft(&["delete", "table", "inet", "tr111"], "")?).map(|()| true)
}

fn refused(output: &Output) -> Result<(), TableError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(TableError::Refused(said.lines().next().unwrap_or("no word of it").to_owned()))
}

fn nft(arguments: &[&str], input: &str) -> Result<Output, TableError> {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => TableError::NoNft,
        _ => TableError::Run(error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    Ok(child.wait_with_output()?)
}
