//! `tr111 check`

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use serde::Serialize;
use tokio::runtime;

use super::{
    Failure, Outcome, flags,
    output::{self, Table, or_dash, printable},
};
use crate::{
    config::{
        Agent, Gateway, Values,
        key::{Effect, KEYS, Value},
    },
    dataplane::{
        LogDepth, Purpose,
        preflight::{self, BridgeRules, Finding, Verdict},
    },
    role::privileges,
};

/// Arguments of `tr111 check`. They include the flags of `tr111 run gateway`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: flags::Gateway,
    /// Write the verifier's full log of rejected programs to FILE; this can take minutes
    #[arg(long, value_name = "FILE")]
    verifier_log: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Shown>,
    configuration: Vec<Setting>,
}

#[derive(Serialize)]
struct Shown {
    check: String,
    result: &'static str,
    detail: String,
    hint: Option<String>,
}

#[derive(Serialize)]
struct Setting {
    key: String,
    value: Option<Value>,
    origin: Option<String>,
}

pub(super) fn run(args: &Args, control: Option<&PathBuf>, json: bool) -> Outcome {
    let values = args.gateway.layers(control)?;
    let mut findings = preflight::kernel();
    findings.push(capabilities());
    findings.extend(programs(args.verifier_log.as_deref(), values.texts("acs", "xdp").is_empty())?);
    let agent = Agent::from(&values);
    findings.push(bpffs(&agent.pin_dir));
    findings.push(match Gateway::try_from(&values) {
        Ok(_) => finding("configuration", Verdict::Good, "complete", ""),
        Err(error) if args.gateway.names_a_file() => finding("configuration", Verdict::Failure, error.to_string(), ""),
        Err(error) => finding("configuration", Verdict::Warning, error.to_string(), ""),
    });
    findings.extend(values.obsolete().map(|(key, origin)| {
        let detail = format!("{origin}: {} has no effect", key.path());
        finding("configuration", Verdict::Warning, detail, key.help)
    }));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let lan = values.texts("gateway", "lan");
    let is_any = lan.iter().any(|name| preflight::exists(name));
    for interface in lan {
        findings.extend(runtime.block_on(preflight::interface(interface, !is_any, agent.tc_order)));
    }
    let wan = values.texts("gateway", "wan");
    findings.extend(wan.iter().filter_map(|name| preflight::merges(&format!("interface {name}"), name)));
    let rules = BridgeRules {
        bridge_ports: values.boolean("gateway", "bridge_ports"),
        accept_foreign_server: values.boolean("gateway.association", "accept_foreign_server"),
    };
    findings.extend(runtime.block_on(preflight::bridges(lan, wan, rules, agent.tc_order)));
    let failures = findings.iter().filter(|finding| finding.verdict == Verdict::Failure).count();
    let report = Report { findings: findings.into_iter().map(show).collect(), configuration: configuration(&values) };
    if json {
        output::write_json(&report)?;
    } else {
        print(&report)?;
    }
    match failures {
        0 => Ok(()),
        1 => Err(Failure::failed("1 check failed")),
        more => Err(Failure::failed(format_args!("{more} checks failed"))),
    }
}

fn finding(check: &str, verdict: Verdict, detail: impl Into<String>, hint: &str) -> Finding {
    Finding { check: check.to_owned(), verdict, detail: detail.into(), hint: hint.to_owned() }
}

fn capabilities() -> Finding {
    match privileges::missing() {
        Some(missing) if missing.is_empty() => finding("capabilities", Verdict::Good, "complete", ""),
        Some(missing) => {
            let detail = format!("missing: {}", missing.join(", "));
            finding("capabilities", Verdict::Failure, detail, privileges::HINT)
        }
        None => finding("capabilities", Verdict::Warning, "cannot be read from /proc/self/status", privileges::HINT),
    }
}

/// Loads each program that the roles need, without attaching it. The verifier's log of rejected programs is written to
/// the file `log`.
fn programs(log: Option<&Path>, without_acs: bool) -> Result<Vec<Finding>, Failure> {
    let depth = if log.is_some() { LogDepth::Instructions } else { LogDepth::Reasons };
    let (mut findings, mut said) = preflight::programs(Purpose::Gateway, depth);
    if !without_acs {
        let (more, said_too) = preflight::programs(Purpose::Acs, depth);
        findings.extend(more);
        said += &said_too;
    }
    let hint = match log {
        Some(file) => {
            fs::write(file, said).map_err(|error| Failure::failed(format_args!("{}: {error}", file.display())))?;
            format!("the verifier's full log is in {}", file.display())
        }
        None => "--verifier-log FILE writes the verifier's full log".to_owned(),
    };
    for finding in findings.iter_mut().filter(|finding| finding.detail.starts_with("refused")) {
        finding.hint.clone_from(&hint);
    }
    Ok(findings)
}

fn bpffs(pin_dir: &Path) -> Finding {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if statfs(existing).is_ok_and(|system| system.filesystem_type() == BPF_FS_MAGIC) {
        return finding("pin_dir", Verdict::Good, format!("{} is in a bpffs", pin_dir.display()), "");
    }
    let detail = format!("{} is not in a bpffs", pin_dir.display());
    finding("pin_dir", Verdict::Warning, detail, "mount -t bpf bpf /sys/fs/bpf, or give a --pin-dir in a bpffs")
}

fn show(finding: Finding) -> Shown {
    Shown {
        check: finding.check,
        result: match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
        },
        detail: finding.detail,
        hint: Some(finding.hint).filter(|hint| !hint.is_empty()),
    }
}

fn configuration(values: &Values) -> Vec<Setting> {
    let shown = KEYS.iter().filter(|key| key.effect != Effect::Obsolete);
    let setting = |key| {
        let (value, origin) = values.get(key).cloned().unzip();
        Setting { key: key.path(), value, origin: origin.map(|origin| origin.to_string()) }
    };
    shown.map(setting).collect()
}

fn print(report: &Report) -> Outcome {
    let mut findings = Table::new(&["RESULT", "CHECK", "DETAIL"]);
    for Shown { check, result, detail, hint } in &report.findings {
        let detail = match hint {
            Some(hint) => format!("{detail}; {hint}"),
            None => detail.clone(),
        };
        findings.push([(*result).to_owned(), printable(check).into_owned(), printable(&detail).into_owned()]);
    }
    let mut settings = Table::new(&["KEY", "VALUE", "FROM"]);
    for Setting { key, value, origin } in &report.configuration {
        let value = value.as_ref().map(ToString::to_string).unwrap_or_default();
        settings.push([key.clone(), or_dash(&value), or_dash(origin.as_deref().unwrap_or_default())]);
    }
    output::write(format!("{}\n{}", findings.render(), settings.render()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_configuration_tells_where_each_value_is_from() {
        let mut values = Values::default();
        values.read(Path::new("f.toml"), "[agent]\nlog = \"debug\"\n").expect("valid");
        let shown = configuration(&values);
        let log = shown.iter().find(|setting| setting.key == "agent.log").expect("shown");
        assert_eq!(log.origin.as_deref(), Some("f.toml:2"));
        let unset = shown.iter().find(|setting| setting.key == "gateway.manufacturer_oui").expect("shown");
        assert!(unset.value.is_none() && unset.origin.is_none());
    }
}
