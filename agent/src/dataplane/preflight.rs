//! Checks of `tr111 check`: kernel, programs and interfaces. Nothing is attached.

use tr111_common::abi::program;

use super::{
    Bridges, Direction, Error, Loaded, LogDepth, Neighbours, Purpose, TcOrder, Verification, chain::Chain, clsact,
    kernel,
};
use crate::os::{
    ethtool,
    netlink::{AttachedXdp, Netlink},
};

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No problem.
    Good,
    /// Works with a limitation, which the hint explains.
    Warning,
    /// Does not work.
    Failure,
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the check.
    pub check: String,
    /// Result.
    pub verdict: Verdict,
    /// Details of the result.
    pub detail: String,
    /// What the user can do. Empty if nothing.
    pub hint: String,
}

impl Finding {
    fn new(check: &str, verdict: Verdict, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict, detail: detail.into(), hint: hint.into() }
    }
}

/// Checks the version of the kernel and TCX.
pub fn kernel() -> Vec<Finding> {
    let (major, minor) = kernel::OLDEST_TESTED;
    let hint = format!("the oldest tested kernel is Linux {major}.{minor}");
    let verdict = if kernel::is_at_least(major, minor) { Verdict::Good } else { Verdict::Warning };
    let mut findings = vec![Finding::new("kernel", verdict, kernel::describe(), hint)];
    if verdict == Verdict::Good && !kernel::has_tcx() {
        let hint = "TC programs are attached with clsact; TCX needs Linux 6.6";
        findings.push(Finding::new("tcx", Verdict::Warning, "not supported by this kernel", hint));
    }
    findings
}

/// Verifies all programs of a role without attaching them. Also returns the verifier's log of rejected programs.
pub fn programs(purpose: Purpose, depth: LogDepth) -> (Vec<Finding>, String) {
    let verified = match Loaded::verify(purpose, depth) {
        Ok(verified) => verified,
        Err(error) => {
            let hint = if matches!(error, Error::Privileges) {
                ""
            } else {
                "the kernel needs CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_NET_CLS_BPF"
            };
            return (vec![Finding::new("programs", Verdict::Failure, error.to_string(), hint)], String::new());
        }
    };
    let mut log = String::new();
    let mut findings = Vec::new();
    for Verification { program, outcome } in verified {
        let check = format!("program {program}");
        findings.push(match outcome {
            Ok(0) => Finding::new(&check, Verdict::Good, "accepted", ""),
            Ok(instructions) => {
                let detail = format!("accepted ({instructions} instructions verified)");
                Finding::new(&check, Verdict::Good, detail, "")
            }
            Err(refusal) => {
                log += &["program ", program, " on ", &kernel::describe(), ":\n", &refusal.log, "\n"].concat();
                Finding::new(&check, Verdict::Failure, format!("refused: {}", refusal.reason), "")
            }
        });
    }
    (findings, log)
}

/// Whether an interface exists.
pub fn exists(name: &str) -> bool {
    super::attach::ifindex(name).is_ok()
}

/// Checks a LAN interface: whether it exists, whether another agent is attached, foreign TC programs, and the XDP slot.
/// An interface that does not exist is a failure with `is_needed`, else a warning. `order` is the configured position
/// of TC programs.
pub async fn interface(name: &str, is_needed: bool, order: TcOrder) -> Vec<Finding> {
    let check = format!("interface {name}");
    let Ok(ifindex) = super::attach::ifindex(name) else {
        let (verdict, hint) = if is_needed {
            (Verdict::Failure, "`ip link` lists the existing interfaces")
        } else {
            (
                Verdict::Warning,
                "the gateway starts, and attaches when the interface appears; `ip link` lists the existing interfaces",
            )
        };
        return vec![Finding::new(&check, verdict, "does not exist", hint)];
    };
    let mut findings = vec![Finding::new(&check, Verdict::Good, format!("index {ifindex}"), "")];
    if super::attach::refuse_second_agent(name, None).is_err() {
        findings.push(Finding::new(
            &check,
            Verdict::Warning,
            "a tr111 agent is attached",
            "a second agent refuses to start on this interface",
        ));
    }
    for (direction, program) in [(Direction::Egress, program::LAN_EGRESS), (Direction::Ingress, program::LAN_BINDING)] {
        let neighbours = neighbours(name, ifindex, direction, program, order).await;
        findings.extend(tell_of_neighbours(&check, direction, program, &neighbours));
    }
    if let Some(AttachedXdp { mode, program: id }) = xdp_occupant(name).await {
        let occupant = id.and_then(program_name).unwrap_or_else(|| "an unnamed program".to_owned());
        if occupant != program::LAN_INGRESS {
            let detail = format!("the XDP slot is taken by {occupant} ({mode})");
            let hint = "lan_ingress falls back to TC ingress; detach the other program to use XDP";
            findings.push(Finding::new(&check, Verdict::Warning, detail, hint));
        }
    }
    findings.extend(merges(&check, name));
    findings
}

/// Checks whether an interface merges datagrams. `None` if it does not.
pub fn merges(check: &str, interface: &str) -> Option<Finding> {
    let features = ethtool::merging(interface).ok().filter(|features| !features.is_empty())?;
    let detail = format!("the interface merges datagrams of a flow ({})", features.join(", "));
    let hint = format!(
        "requests are separated again; replies that are received here and sent on a LAN interface get no Gateway \
         Identity; to turn merging off: `ethtool -K {interface} rx-gro-list off rx-udp-gro-forwarding off`"
    );
    Some(Finding::new(check, Verdict::Warning, detail, hint))
}

/// Configuration of LAN bridges.
#[derive(Clone, Copy, Debug)]
pub struct BridgeRules {
    /// `gateway.bridge_ports`
    pub bridge_ports: bool,
    /// `gateway.association.accept_foreign_server`
    pub accept_foreign_server: bool,
}

/// Checks the bridges among the LAN interfaces: that no port is configured as well, and whether replies of a DHCP
/// server behind a port are accepted. `order` is the configured position of TC programs.
pub async fn bridges(lan: &[String], wan: &[String], rules: BridgeRules, order: TcOrder) -> Vec<Finding> {
    let Ok(netlink) = Netlink::route() else { return Vec::new() };
    let Ok(links) = netlink.links().await else { return Vec::new() };
    let bridges = Bridges::new(links);
    let mut findings = Vec::new();
    if let Err(error) = bridges.refuse_ports(lan.iter().chain(wan).map(String::as_str)) {
        findings.push(Finding::new("bridges", Verdict::Failure, error.to_string(), ""));
    }
    let ports = bridges.ports(lan.iter().map(String::as_str));
    for port in ports.iter().filter(|_| rules.bridge_ports) {
        let (check, direction, program) = (format!("port {}", port.name), Direction::Egress, program::LAN_PORT);
        let neighbours = neighbours(&port.name, port.ifindex, direction, program, order).await;
        findings.extend(tell_of_neighbours(&check, direction, program, &neighbours));
        findings.extend(merges(&check, &port.name));
    }
    let found = lan.iter().filter(|name| bridges.find(name).is_some());
    findings.extend(found.map(|bridge| {
        let mut ports: Vec<_> = bridges.ports([bridge.as_str()]).into_iter().map(|port| port.name).collect();
        ports.sort_unstable();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        let (becomes, hint) = match rules {
            BridgeRules { bridge_ports: false, .. } => (
                "are not watched",
                "to accept a DHCP server in a container, set gateway.bridge_ports = true and \
                 gateway.association.accept_foreign_server = true",
            ),
            BridgeRules { accept_foreign_server: false, .. } => (
                "are ignored",
                "to accept a DHCP server in a container, set gateway.association.accept_foreign_server = true",
            ),
            _ => ("are accepted", ""),
        };
        let detail = format!("ports: {ports}; replies of a DHCP server behind a port to the other ports {becomes}");
        Finding::new(&format!("bridge {bridge}"), Verdict::Good, detail, hint)
    }));
    findings
}

/// Foreign programs and filters around a program of an agent, or around the position where it would be attached.
async fn neighbours(interface: &str, ifindex: u32, direction: Direction, program: &str, order: TcOrder) -> Neighbours {
    let named = Chain::names(interface, direction);
    let chain = Chain::read(ifindex, direction).unwrap_or_default().programs;
    let mut others: Vec<String> =
        chain.iter().map(|id| named.get(id).cloned().unwrap_or_else(|| format!("program {id}"))).collect();
    if let Ok(netlink) = Netlink::route() {
        let filters = netlink.filters(ifindex, direction == Direction::Egress).await.unwrap_or_default();
        others.extend(filters.into_iter().map(|filter| filter.name));
    }
    let is_own = |name: &String| clsact::direction_of(name).is_some();
    if let Some(at) = others.iter().position(|name| name == program) {
        return Neighbours::around(&others, at, is_own, Clone::clone);
    }
    others.retain(|name| !is_own(name));
    match (direction, order) {
        (Direction::Egress, TcOrder::Last) => Neighbours { in_front: others, behind: Vec::new() },
        _ => Neighbours { in_front: Vec::new(), behind: others },
    }
}

fn tell_of_neighbours(
    check: &str,
    direction: Direction,
    program: &str,
    Neighbours { in_front, behind }: &Neighbours,
) -> Vec<Finding> {
    let direction = direction.label();
    let mut findings = Vec::new();
    if !in_front.is_empty() {
        let detail = format!("{} runs before {program} at TC {direction}", in_front.join(", "));
        let hint = format!("unless it returns TCX_NEXT (TC_ACT_UNSPEC), {program} sees no frames; see agent.tc_order");
        findings.push(Finding::new(check, Verdict::Warning, detail, hint));
    }
    if !behind.is_empty() {
        let detail = format!("{} runs behind {program} at TC {direction}", behind.join(", "));
        let hint = "it may still drop frames that the agent counts as sent";
        findings.push(Finding::new(check, Verdict::Good, detail, if direction == "egress" { hint } else { "" }));
    }
    findings
}

/// The XDP program that is attached to an interface.
pub async fn xdp_occupant(name: &str) -> Option<AttachedXdp> {
    Netlink::route().ok()?.link_by_name(name).await.ok()??.xdp
}

fn program_name(id: u32) -> Option<String> {
    let mut programs = aya::programs::loaded_programs().filter_map(Result::ok);
    programs.find(|info| info.id() == id)?.name_as_str().map(str::to_owned)
}
