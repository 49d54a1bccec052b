//! The documents list every command, configuration key and metric of the program.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result};
use tr111::config::{
    Origin, Values,
    key::{Effect, KEYS, Key},
};
use tr111_tests::{
    acs,
    agent::{Agent, binary},
    lab::Lab,
    process::run,
};

const COMMANDS: &str = include_str!("../../docs/cli.md");
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const METRICS: &str = include_str!("../../docs/metrics.md");

/// The text under a heading of `document`, up to the next one.
fn section<'a>(document: &'a str, heading: &str) -> Result<&'a str> {
    let (_, rest) =
        document.split_once(&format!("\n## {heading}\n")).with_context(|| format!("no section {heading}"))?;
    Ok(rest.split("\n## ").next().unwrap_or(rest))
}

/// What stands between backticks in the first column of the tables of `text`.
fn first_column(text: &str) -> impl Iterator<Item = &str> {
    let cells = text.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

#[test]
fn commands_are_those_of_the_program() -> Result<()> {
    let help = run(Command::new(binary()?).arg("--help"))?;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let program: BTreeSet<_> = names.filter(|name| *name != "help").collect();
    let documented: BTreeSet<_> = first_column(section(COMMANDS, "Commands")?)
        .filter_map(|cell| cell.strip_prefix("tr111 ")?.split_whitespace().next())
        .collect();
    assert_eq!(documented, program);
    Ok(())
}

#[test]
fn configuration_names_every_key_in_use_with_its_default() -> Result<()> {
    let text = section(CONFIGURATION, "Keys")?;
    let block = text.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).context("no TOML")?.0;
    let mut values = Values::default();
    values.read(Path::new("configuration.md"), block)?;
    for key in KEYS.iter().filter(|key| key.effect != Effect::Obsolete) {
        let (value, origin) = values.get(key).with_context(|| key.path())?;
        assert!(matches!(origin, Origin::File(..)), "{} is not in the document", key.path());
        match key.preset_value() {
            // An example stands for what has no default.
            None => {}
            Some(_) if key.path() == "gateway.lan" => {}
            Some(preset) => assert_eq!(*value, preset, "{}", key.path()),
        }
    }
    let unused = KEYS.iter().filter(|key| key.effect == Effect::Obsolete);
    let early = unused.filter(|key| matches!(values.get(key), Some((_, Origin::File(..)))));
    let early: Vec<_> = early.map(Key::path).collect();
    assert!(early.is_empty(), "in the document, but without effect: {early:?}");
    Ok(())
}

#[test]
fn metrics_are_those_that_the_agent_serves() -> Result<()> {
    let lab = Lab::new()?;
    let gateway = Agent::start(&lab, &["lan0"], &[])?;
    let acs = acs::start(&lab.lan, lab.path(), "acs", "")?;
    let texts = [gateway.fetch("/metrics")?.1, acs.fetch("/metrics")?.1];
    let types = texts.iter().flat_map(|text| text.lines().filter_map(|line| line.strip_prefix("# TYPE ")));
    let served: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let documented: BTreeSet<_> = first_column(section(METRICS, "Metrics")?).collect();
    assert_eq!(documented, served);
    Ok(())
}
