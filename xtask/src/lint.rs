//! `cargo xtask lint`: what CI refuses.

use std::process::Stdio;

use anyhow::Result;

use crate::{
    process::{cargo, cargo_home, command, find, run as run_command, target_dir},
    setup::{self, toolchain},
};

pub(crate) fn run(deny: bool) -> Result<()> {
    setup::run(setup::Level::Lint, setup::Report::Changes)?;
    step("rustfmt", cargo().args(["fmt", "--all", "--check"]))?;
    step(
        "clippy, host code and tests",
        cargo()
            .args(["clippy", "--quiet", "--workspace", "--exclude", "tr111-ebpf", "--all-targets"])
            .args(["--", "--deny", "warnings"]),
    )?;
    // What one role alone does not use is used by another; only that each builds is asked here.
    for role in ["gateway", "device", "acs"] {
        step(
            &format!("the role {role} alone"),
            cargo().args(["check", "--quiet", "--package", "tr111", "--no-default-features", "--features", role]),
        )?;
    }
    kernel_code()?;
    dependencies(deny)
}

/// clippy of the toolchain that also compiles the programs, for the target they run on.
fn kernel_code() -> Result<()> {
    let name = setup::recorded().unwrap_or_default();
    let bpf = toolchain::inspect(&name)?;
    let mut clippy = command("rustup");
    clippy
        .args(["run", &bpf.name, "cargo", "clippy", "--quiet", "--package", "tr111-ebpf", "--release"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(target_dir().join("bpf-lint"))
        .args(["--", "--deny", "warnings"])
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH));
    // What `cargo run` set for xtask would lead the other toolchain's cargo to the wrong compiler.
    for variable in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        clippy.env_remove(variable);
    }
    if bpf.bootstrap {
        clippy.env("RUSTC_BOOTSTRAP", "1");
    }
    step(&format!("clippy, kernel code ({}, rustc {})", bpf.name, bpf.release), &mut clippy)
}

/// cargo-deny takes minutes to build, so it is only installed when asked for.
fn dependencies(install: bool) -> Result<()> {
    if find("cargo-deny").is_none() {
        if !install {
            println!("lint: cargo-deny: not installed, skipped (`cargo xtask lint --deny` installs and runs it)");
            return Ok(());
        }
        let mut cargo = cargo();
        cargo.args(["install", "cargo-deny", "--locked", "--quiet", "--root"]).arg(cargo_home());
        step("installing cargo-deny", cargo.env_remove("CARGO_TARGET_DIR"))?;
    }
    // Advisories need a git fetch; they have their own schedule and do not belong into a gate that must work offline.
    step(
        "cargo-deny",
        cargo().args(["deny", "--offline", "--log-level", "error", "check", "bans", "licenses", "sources"]),
    )
}

fn step(what: &str, command: &mut std::process::Command) -> Result<()> {
    println!("lint: {what}");
    run_command(command.stdin(Stdio::null()))
}
