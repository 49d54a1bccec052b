//! What `tr111 check` can say of kernel, programs and interfaces before anything is attached.

use aya::programs::{SchedClassifier, TcAttachType};
use tr111_common::abi::program;

use super::{Error, Loaded, LogDepth, Purpose, Verification, kernel};
use crate::os::netlink::{AttachedXdp, Netlink};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, with a loss that the hint names.
    Warning,
    /// Does not work.
    Failure,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it, empty if nothing.
    pub hint: String,
}

impl Finding {
    fn new(check: &str, verdict: Verdict, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict, detail: detail.into(), hint: hint.into() }
    }
}

/// The version of the kernel, and what it lacks.
pub fn kernel() -> Vec<Finding> {
    let (major, minor) = kernel::OLDEST_TESTED;
    let hint = format!("the oldest kernel that is tested is Linux {major}.{minor}");
    let verdict = if kernel::is_at_least(major, minor) { Verdict::Good } else { Verdict::Warning };
    let mut findings = vec![Finding::new("kernel", verdict, kernel::describe(), hint)];
    if verdict == Verdict::Good && !kernel::has_tcx() {
        let hint = "TC programs attach through clsact; Linux 6.6 has TCX";
        findings.push(Finding::new("tcx", Verdict::Warning, "not in this kernel", hint));
    }
    findings
}

/// Has the kernel verify every program of a role without attaching any. What it wrote about those that it refuses comes
/// second.
pub fn programs(purpose: Purpose, depth: LogDepth) -> (Vec<Finding>, String) {
    let verified = match Loaded::verify(purpose, depth) {
        Ok(verified) => verified,
        Err(error) => {
            let hint = if matches!(error, Error::Privileges) {
                ""
            } else {
                "a kernel with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_NET_CLS_BPF is needed"
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

/// Whether there is an interface of that name now.
pub fn exists(name: &str) -> bool {
    super::attach::ifindex(name).is_ok()
}

/// One LAN interface: whether it is there, who has it, and how `lan_ingress` would attach. One that is not there is a
/// failure where the gateway has no other (`is_needed`).
pub async fn interface(name: &str, is_needed: bool) -> Vec<Finding> {
    let check = format!("interface {name}");
    let Ok(ifindex) = super::attach::ifindex(name) else {
        let (verdict, hint) = if is_needed {
            (Verdict::Failure, "`ip link` lists those that exist")
        } else {
            (
                Verdict::Warning,
                "the gateway starts, and attaches to it as soon as it appears; `ip link` lists those that exist",
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
            "a second one refuses to start here and leaves the first alone",
        ));
    } else if let Ok((_, programs)) = SchedClassifier::query_tcx(name, TcAttachType::Egress)
        && !programs.is_empty()
    {
        let names: Vec<_> = programs.iter().filter_map(|info| info.name_as_str()).collect();
        let detail = format!("TC egress also runs: {}", names.join(", "));
        findings.push(Finding::new(&check, Verdict::Good, detail, format!("{} goes behind them", program::LAN_EGRESS)));
    }
    if let Some(AttachedXdp { mode, program: id }) = xdp_occupant(name).await {
        let occupant = id.and_then(program_name).unwrap_or_else(|| "an unnamed program".to_owned());
        if occupant != program::LAN_INGRESS {
            let detail = format!("the XDP slot is taken by {occupant} ({mode})");
            let hint = "lan_ingress falls back to TC ingress; to have it at XDP, take the other program off";
            findings.push(Finding::new(&check, Verdict::Warning, detail, hint));
        }
    }
    findings
}

/// The XDP program that an interface runs.
pub async fn xdp_occupant(name: &str) -> Option<AttachedXdp> {
    Netlink::route().ok()?.link_by_name(name).await.ok()??.xdp
}

fn program_name(id: u32) -> Option<String> {
    let mut programs = aya::programs::loaded_programs().filter_map(Result::ok);
    programs.find(|info| info.id() == id)?.name_as_str().map(str::to_owned)
}
