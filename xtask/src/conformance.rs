//! `cargo xtask conformance`: which requirement of TR-111 is proven by which test.
//!
//! A test cites a requirement by its id in a comment directly above it. The citation counts if the test asserts something,
//! is not ignored, and passed in the last complete run of `cargo xtask test` on this machine (when there was one).

mod lexer;
mod source;
mod table;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{
    process::workspace_root,
    test::{Outcome, Record, TestName},
};
use table::{Requirement, Table};

/// Prints the table, or only what is open in it; fails on a MUST that is due and that no test proves.
pub(crate) fn run(open: bool) -> Result<ExitCode> {
    let root = workspace_root();
    let path = root.join("xtask/requirements.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let table = Table::parse(&text).with_context(|| path.display().to_string())?;
    let record = Record::read();

    let mut citations = Vec::new();
    // The tests of xtask show nothing about TR-111.
    for package in ["agent", "common", "tests"] {
        cited_in(&root, &root.join(package), &mut citations)?;
    }
    let judged = judge(&table, citations, record.as_ref());
    if record.is_none() {
        println!("conformance: no complete run of `cargo xtask test` here; citations count without having run");
    }
    judged.print(&table, open);
    Ok(if judged.fails(&table) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A test that names a requirement.
#[derive(Clone, Debug)]
struct Citation {
    id: String,
    /// File and line, for a person.
    place: String,
    name: TestName,
    asserts: bool,
    ignored: bool,
}

fn cited_in(root: &Path, directory: &Path, citations: &mut Vec<Citation>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            cited_in(root, &path, citations)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let Some(file) = SourceFile::locate(root, &path)? else { continue };
            citations.extend(file.citations(&source));
        }
    }
    Ok(())
}

/// Where a file's tests appear in the runner's output.
struct SourceFile {
    /// Relative to the workspace.
    path: String,
    program: String,
    modules: Vec<String>,
}

impl SourceFile {
    fn locate(root: &Path, path: &Path) -> Result<Option<Self>> {
        let Some(package) = path.ancestors().skip(1).find(|dir| dir.join("Cargo.toml").exists()) else {
            return Ok(None);
        };
        let manifest = fs::read_to_string(package.join("Cargo.toml"))?;
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let name = name.with_context(|| format!("{} has no name", package.display()))?;
        let inside = path.strip_prefix(package)?.with_extension("");
        let parts: Vec<&str> = inside.iter().filter_map(|part| part.to_str()).collect();
        let path = path.strip_prefix(root)?.display().to_string();
        Ok(Self::of(&path, &name.replace('-', "_"), &parts))
    }

    /// `parts` is the path inside the package, without the extension.
    fn of(path: &str, package: &str, parts: &[&str]) -> Option<Self> {
        let (program, modules) = match parts {
            ["src", "bin", program, modules @ ..] | ["tests", program, modules @ ..] => (*program, modules),
            ["src", modules @ ..] => (package, modules),
            _ => return None,
        };
        // The files that stand for the directory, or the crate, that they are in.
        let modules = modules
            .split_last_chunk()
            .map_or(modules, |(around, [last])| if matches!(*last, "lib" | "main" | "mod") { around } else { modules });
        Some(Self {
            path: path.into(),
            program: program.into(),
            modules: modules.iter().map(|&module| module.into()).collect(),
        })
    }

    fn citations(&self, source: &str) -> Vec<Citation> {
        let mut citations = Vec::new();
        for test in source::test_functions(source) {
            let path = self.modules.iter().chain(&test.path).cloned().collect::<Vec<_>>().join("::");
            for id in table::ids_in(&test.comments) {
                citations.push(Citation {
                    id,
                    place: format!("{}:{}", self.path, test.line),
                    name: TestName { program: self.program.clone(), path: path.clone() },
                    asserts: test.asserts,
                    ignored: test.ignored,
                });
            }
        }
        citations
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Covered,
    Partial,
    Missing,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Partial => "partial",
            Self::Missing => "missing",
        }
    }
}

#[derive(Default)]
struct Judged {
    /// The tests that prove each requirement.
    proofs: BTreeMap<String, Vec<TestName>>,
    /// Citations that prove nothing, and why.
    refused: Vec<String>,
    /// Those among them that are mistakes in the source.
    mistakes: usize,
}

fn judge(table: &Table, citations: Vec<Citation>, record: Option<&Record>) -> Judged {
    let mut judged = Judged::default();
    for citation in citations {
        let outcome = record.map(|record| record.outcome(&citation.name));
        let known = table.requirements.iter().any(|requirement| requirement.id == citation.id);
        let (refusal, mistake) = match outcome {
            _ if !known => ("no such requirement", true),
            _ if !citation.asserts => ("the test asserts nothing", true),
            _ if citation.ignored => ("the test is ignored", false),
            None | Some(Some(Outcome::Passed)) => {
                judged.proofs.entry(citation.id).or_default().push(citation.name);
                continue;
            }
            Some(Some(Outcome::Failed)) => ("the test failed", false),
            Some(Some(Outcome::Ignored)) => ("the test is ignored", false),
            Some(None) => ("the last complete run did not have the test", false),
        };
        judged.mistakes += usize::from(mistake);
        judged.refused.push(format!("{}: {} at {}", citation.id, refusal, citation.place));
    }
    judged
}

impl Judged {
    fn status(&self, requirement: &Requirement) -> Status {
        match (self.proofs.contains_key(&requirement.id), &requirement.partial) {
            (true, None) => Status::Covered,
            (true, Some(_)) => Status::Partial,
            (false, _) => Status::Missing,
        }
    }

    /// A MUST that is due and missing.
    fn is_gap(&self, table: &Table, requirement: &Requirement) -> bool {
        table.is_due(requirement) && requirement.kind == "MUST" && self.status(requirement) == Status::Missing
    }

    fn fails(&self, table: &Table) -> bool {
        self.mistakes > 0 || table.requirements.iter().any(|requirement| self.is_gap(table, requirement))
    }

    fn print(&self, table: &Table, open: bool) {
        for requirement in &table.requirements {
            let status = self.status(requirement);
            if open && (status == Status::Covered || !table.is_due(requirement)) {
                continue;
            }
            let Requirement { id, kind, clause, text, .. } = requirement;
            let due = if table.is_due(requirement) { "" } else { " (later)" };
            println!("{id:<8}{kind:<7}{:<8} {clause}: {text}{due}", status.word());
            if let (Status::Partial, Some(reason)) = (status, &requirement.partial) {
                println!("{:<23} because {reason}", "");
            }
            for test in self.proofs.get(id).into_iter().flatten().take(if open { 0 } else { usize::MAX }) {
                println!("{:<23} {} {}", "", test.program, test.path);
            }
        }
        for refused in &self.refused {
            println!("does not count: {refused}");
        }
        for (index, stage) in table.stages.iter().enumerate() {
            let of_stage = || table.requirements.iter().filter(|requirement| requirement.stage == index);
            let count = |wanted| of_stage().filter(|requirement| self.status(requirement) == wanted).count();
            let gaps = of_stage().filter(|requirement| self.is_gap(table, requirement)).count();
            println!(
                "conformance: {stage}{}: {} covered, {} partial, {} missing{}",
                if index <= table.reached { " (reached)" } else { "" },
                count(Status::Covered),
                count(Status::Partial),
                count(Status::Missing),
                if gaps > 0 { format!(", {gaps} of them a MUST") } else { String::new() },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Citation, Judged, SourceFile, Status, Table, judge};
    use crate::test::Record;

    const TABLE: &str = "\
Stages: one, two
Stage reached: one
| GW-1 | MUST | 1 | one | look | |
| GW-2 | MUST | 1 | one | tell | no session |
| GW-3 | SHOULD | 1 | one | more | |
| GW-4 | MUST | 1 | two | later | |
";

    fn citations(source: &str) -> Vec<Citation> {
        SourceFile::of("core/src/a/tests.rs", "core", &["src", "a", "tests"]).unwrap().citations(source)
    }

    fn judged(source: &str, record: Option<&str>) -> (Table, Judged) {
        let table = Table::parse(TABLE).unwrap();
        let record = record.map(Record::parse);
        let judged = judge(&table, citations(source), record.as_ref());
        (table, judged)
    }

    fn statuses(source: &str, record: Option<&str>) -> Vec<Status> {
        let (table, judged) = judged(source, record);
        table.requirements.iter().map(|requirement| judged.status(requirement)).collect()
    }

    const CITING: &str = "/// GW-1, GW-2: both.\n#[test] fn both() { assert!(x) }";

    #[test]
    fn a_citation_with_an_assertion_covers_or_covers_in_part() {
        assert_eq!(statuses(CITING, None), [Status::Covered, Status::Partial, Status::Missing, Status::Missing]);
        let (table, judged) = judged(CITING, None);
        assert!(!judged.fails(&table), "a SHOULD and a later MUST may be missing");
    }

    #[test]
    fn a_missing_must_that_is_due_fails() {
        let (table, judged) = judged("/// GW-1\n#[test] fn one() { assert!(x) }", None);
        assert!(judged.fails(&table), "GW-2 is a MUST, partial or not");
    }

    #[test]
    fn a_citation_without_an_assertion_is_a_mistake() {
        let (table, judged) = judged(&format!("{CITING}\n/// GW-3\n#[test] fn idle() {{ x() }}"), None);
        assert!(judged.fails(&table));
        assert_eq!(judged.refused, ["GW-3: the test asserts nothing at core/src/a/tests.rs:4"]);
    }

    #[test]
    fn an_unknown_id_is_a_mistake() {
        let (table, judged) = judged(&format!("{CITING}\n/// GW-99\n#[test] fn typo() {{ assert!(x) }}"), None);
        assert!(judged.fails(&table));
        assert_eq!(judged.refused, ["GW-99: no such requirement at core/src/a/tests.rs:4"]);
    }

    #[test]
    fn with_a_record_only_a_test_that_passed_counts() {
        assert_eq!(statuses(CITING, Some("passed\tcore\ta::tests::both\n"))[0], Status::Covered);
        assert_eq!(statuses(CITING, Some("failed\tcore\ta::tests::both\n"))[0], Status::Missing);
        assert_eq!(statuses(CITING, Some("passed\tcore\ta::tests::other\n"))[0], Status::Missing);
        assert_eq!(statuses(CITING, Some(""))[0], Status::Missing);
    }

    #[test]
    fn an_ignored_test_proves_nothing() {
        assert_eq!(statuses("/// GW-1\n#[test]\n#[ignore]\nfn a() { assert!(x) }", None)[0], Status::Missing);
    }

    #[test]
    fn knows_what_the_runner_calls_a_file() {
        let place = |package, parts: &[&str]| {
            let file = SourceFile::of("x", package, parts)?;
            Some((file.program, file.modules.join("::")))
        };
        assert_eq!(place("core", &["src", "lib"]), Some(("core".into(), String::new())));
        assert_eq!(place("core", &["src", "a", "mod"]), Some(("core".into(), "a".into())));
        assert_eq!(place("tests", &["tests", "story"]), Some(("story".into(), String::new())));
        assert_eq!(place("tests", &["tests", "story", "main"]), Some(("story".into(), String::new())));
        assert_eq!(place("tests", &["src", "bin", "demo"]), Some(("demo".into(), String::new())));
        assert_eq!(place("core", &["build"]), None);
    }
}
