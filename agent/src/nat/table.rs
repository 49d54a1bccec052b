//! The nft table `inet tr111`.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    net::SocketAddrV4,
    process::{Command, Output, Stdio},
    time::Duration,
};

use super::owner::{Denied, Owner, Ownership};
use crate::config::Traffic;

/// Name of the table.
pub(super) const TABLE: &str = "inet tr111";
/// Priority of the chain: after conntrack (-200), which finds the flow, and before mangle (-150), where rules may
/// restore connection marks and overwrite the mark.
const PRIORITY: &str = "-175";
/// How long the table remembers that it saw the mark of a flow.
pub const MEMORY: Duration = Duration::from_hours(1);
/// Greatest number of flows that the table remembers.
const MEMORY_MAXIMUM: usize = 65_536;

/// The source and the destination of a flow.
pub type Ends = (SocketAddrV4, SocketAddrV4);

/// Why the table is not in the required state.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// nft was not found in PATH.
    #[error("nft is not installed")]
    NoNft,
    /// nft could not be run.
    #[error("cannot run nft: {0}")]
    Run(#[from] std::io::Error),
    /// The kernel, or this version of nft, rejected the table.
    #[error("nft rejected the table: {0}")]
    Refused(String),
    /// Another gateway owns the table.
    #[error("the nft table {TABLE} belongs to another gateway in this network namespace, {0}")]
    Owned(Owner),
}

impl From<Denied> for TableError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Owned(owner) => Self::Owned(owner),
            Denied::System(error) => Self::Run(error),
        }
    }
}

/// The table's rule, which gives marked flows this timeout. A second rule records the flows whose mark was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The timeout.
    pub timeout: Duration,
    mark: u32,
    mask: u32,
}

impl Rule {
    /// The rule for the settings; `None` if the extension is off.
    pub fn new(traffic: &Traffic) -> Option<Self> {
        traffic.extended_timeout.map(|timeout| Self { timeout, mark: traffic.mark, mask: traffic.mark_mask })
    }

    /// The comment of the rule, which differs for each combination of settings.
    fn comment(&self) -> String {
        format!("tr111 at {PRIORITY}: {} s {:#010x}/{:#010x}", self.timeout.as_secs(), self.mark, self.mask)
    }

    /// The nft commands that create the table or replace its rule. A timeout object that flows still use remains in the
    /// table, because deleting it would end their timeout.
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
                set marked {{
                    type ipv4_addr . inet_service . ipv4_addr . inet_service
                    flags dynamic, timeout
                    timeout {}s
                    size {MEMORY_MAXIMUM}
                }}
                chain extend {{
                    type filter hook prerouting priority {PRIORITY}; policy accept;
                }}
            }}
            flush chain {TABLE} extend
            add rule {TABLE} extend meta mark & {mask:#010x} == {mark:#010x} ct timeout set \"stun_{seconds}\" comment \"{}\"
            add rule {TABLE} extend meta mark & {mask:#010x} == {mark:#010x} \
                update @marked {{ ip saddr . udp sport . ip daddr . udp dport }}
            ",
            MEMORY.as_secs(),
            self.comment()
        );
        text
    }

    /// Whether the table exists and has this rule.
    pub(super) fn is_in_force(&self) -> bool {
        let listed = nft(&["list", "chain", "inet", "tr111", "extend"], "");
        listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains(&self.comment()))
    }

    /// Installs the rule.
    pub(super) fn install(&self) -> Result<(), TableError> {
        let installed = refused(&nft(&["-f", "-"], &self.ruleset())?);
        if installed.is_ok() || !delete()? {
            return installed;
        }
        // The priority of a chain cannot be changed, so a table of another version is deleted first.
        refused(&nft(&["-f", "-"], &self.ruleset())?)
    }
}

/// Removes the table, unless another gateway owns it. Returns `false` if there was none.
///
/// # Errors
/// See [`TableError`].
pub fn remove() -> Result<bool, TableError> {
    if !exists()? {
        return Ok(false);
    }
    let _ownership = Ownership::take()?;
    delete()
}

fn exists() -> Result<bool, TableError> {
    Ok(nft(&["list", "table", "inet", "tr111"], "")?.status.success())
}

fn delete() -> Result<bool, TableError> {
    if !exists()? {
        return Ok(false);
    }
    refused(&nft(&["delete", "table", "inet", "tr111"], "")?).map(|()| true)
}

/// The flows whose mark the rule saw within [`MEMORY`]; `None` if the record may be incomplete.
pub fn marked() -> Option<HashSet<Ends>> {
    let listed = nft(&["list", "set", "inet", "tr111", "marked"], "").ok().filter(|listed| listed.status.success())?;
    let marked = elements(&String::from_utf8_lossy(&listed.stdout));
    (marked.len() < MEMORY_MAXIMUM).then_some(marked)
}

/// Parses the set's elements as nft lists them: `elements = { 192.0.2.1 . 5000 . 198.51.100.1 . 3478 expires 59m, ...
/// }`
fn elements(listed: &str) -> HashSet<Ends> {
    let Some((_, elements)) = listed.split_once("elements = {") else { return HashSet::new() };
    let element = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [source, ".", source_port, ".", destination, ".", destination_port, ..] = words.as_slice() else {
            return None;
        };
        let end = |address: &str, port: &str| Some(SocketAddrV4::new(address.parse().ok()?, port.parse().ok()?));
        Some((end(source, source_port)?, end(destination, destination_port)?))
    };
    elements.split(['}', ',']).filter_map(element).collect()
}

fn refused(output: &Output) -> Result<(), TableError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(TableError::Refused(said.lines().next().unwrap_or("nft printed no error").to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_flows_that_nft_lists() {
        let listed = "table inet tr111 {
            set marked {
                type ipv4_addr . inet_service . ipv4_addr . inet_service
                size 65536
                flags dynamic,timeout
                timeout 1h
                elements = { 10.111.2.5 . 5000 . 203.0.113.10 . 3478 expires 59m58s500ms,
                             10.111.2.6 . 1 . 203.0.113.10 . 3479 timeout 1h expires 1s }
            }
        }";
        let ends = |source: &str, destination: &str| -> Ends {
            (source.parse().expect("an end"), destination.parse().expect("an end"))
        };
        let expected = [ends("10.111.2.5:5000", "203.0.113.10:3478"), ends("10.111.2.6:1", "203.0.113.10:3479")];
        assert_eq!(elements(listed), HashSet::from(expected));
        assert!(elements("table inet tr111 {\n set marked {\n timeout 1h\n }\n}").is_empty());
    }
}
