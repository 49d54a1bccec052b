//! How a demonstration talks.

use std::io::{IsTerminal, stdout};

use anyhow::Result;

use crate::agent::Agent;

pub(super) fn heading(number: u32, title: &str) {
    let (bold, plain) = if stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{bold}{number}. {title}{plain}");
}

/// Shows a command as somebody would type it.
pub(super) fn typed(line: &str) {
    println!("\n   $ {line}");
}

/// Shows output, at most `limit` lines of it.
pub(super) fn show(printed: &str, limit: usize) {
    let lines: Vec<_> = printed.lines().collect();
    for line in lines.iter().take(limit) {
        println!("   {line}");
    }
    if lines.len() > limit {
        println!("   ... and {} more", lines.len() - limit);
    }
}

/// Runs `tr111 ARGUMENTS` against the agent and shows it with its output.
pub(super) fn ask(agent: &Agent<'_>, arguments: &[&str], limit: usize) -> Result<()> {
    typed(&format!("tr111 {}", arguments.join(" ")));
    show(agent.print(arguments)?.trim_end(), limit);
    Ok(())
}
