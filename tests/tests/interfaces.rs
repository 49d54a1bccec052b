//! LAN interfaces that are there in part, go, and come back.

use std::fs;

use anyhow::Result;
use aya::programs::xdp::XdpMode;
use tr111_common::abi::ABI;
use tr111_tests::{
    agent::{Agent, Files, attached_programs},
    lab::Lab,
    process::{output, text},
    programs::Programs,
};

/// A start that fails on its second interface takes off what it pinned on the first, maps included; what an earlier
/// agent left there goes on.
#[test]
fn a_start_that_fails_halfway_leaves_what_it_found() -> Result<()> {
    let lab = Lab::new()?;
    lab.gateway.connect("lan1", &lab.lan, "eth1")?;
    let mut other = Programs::load()?;
    lab.gateway.enter(|| -> Result<()> {
        other.loaded().xdp("bench_empty")?.attach("lan1", XdpMode::Driver)?;
        Ok(())
    })?;
    let files = Files::new(lab.path(), "first")?;
    let fail = |files: &Files| -> Result<()> {
        let mut command = files.run_gateway(&lab.gateway, &["lan0", "lan1"], &["--xdp-mode", "native"])?;
        let refused = output(&mut command)?;
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("lan1: native XDP is not possible"), "{}", text(&refused.stderr));
        assert_eq!(attached_programs(&lab.gateway, "lan1")?, ["xdp"]);
        Ok(())
    };
    fail(&files)?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
    assert!(
        !fs::read_dir(files.pins())?.any(|entry| entry.is_ok_and(|found| found.file_name() == *format!("abi-{ABI}")))
    );

    let files = Agent::start(&lab, &["lan0"], &[])?.kill()?;
    let before = attached_programs(&lab.gateway, "lan0")?;
    fail(&files)?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, before);
    Ok(())
}
