//! The table `inet tr111`, written by nft.

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
/// Where the rule is: behind conntrack (-200), which finds the flow, and before mangle (-150), where rules restore marks of
/// connections and take ours away.
const PRIORITY: &str = "-175";
/// How long the table remembers that it saw the mark of a flow.
pub const MEMORY: Duration = Duration::from_hours(1);
/// Flows that it remembers.
const MEMORY_MAXIMUM: usize = 65_536;

/// A flow: where it comes from, and where it goes.
pub type Ends = (SocketAddrV4, SocketAddrV4);

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
    /// Another gateway has the table.
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

/// The table's rule: marked flows get this timeout. A second rule remembers the flows whose mark it saw.
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
        format!("tr111 at {PRIORITY}: {} s {:#010x}/{:#010x}", self.timeout.as_secs(), self.mark, self.mask)
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

    /// Whether the table is there and has this rule.
    pub(super) fn is_in_force(&self) -> bool {
        let listed = nft(&["list", "chain", "inet", "tr111", "extend"], "");
        listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains(&self.comment()))
    }

    /// Makes it so.
    pub(super) fn install(&self) -> Result<(), TableError> {
        let installed = refused(&nft(&["-f", "-"], &self.ruleset())?);
        if installed.is_ok() || !delete()? {
            return installed;
        }
        // The priority of a chain cannot be changed: the table was one of another version.
        refused(&nft(&["-f", "-"], &self.ruleset())?)
    }
}

/// Removes the table, unless another gateway has it; `false` where there was none.
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

/// The flows whose mark the rule saw within [`MEMORY`]; `None` where that is not known of every flow.
pub fn marked() -> Option<HashSet<Ends>> {
    let listed = nft(&["list", "set", "inet", "tr111", "marked"], "").ok().filter(|listed| listed.status.success())?;
    let marked = elements(&String::from_utf8_lossy(&listed.stdout));
    (marked.len() < MEMORY_MAXIMUM).then_some(marked)
}

/// The elements of the set as nft lists it: `elements = { 192.0.2.1 . 5000 . 198.51.100.1 . 3478 expires 59m, ... }`
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
