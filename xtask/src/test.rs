//! `cargo xtask test`: runs every test, keeps a record of what passed, then asks the conformance table.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build::Profile,
    conformance, kernels,
    process::{cargo, is_root, run as run_command, target_dir},
    setup,
};

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    ensure!(is_root(), "the tests make network namespaces and load programs into the kernel: run them as root");
    setup::run(setup::Level::Test, setup::Report::Changes)?;
    let one_package = arguments.iter().any(|argument| argument == "-p" || argument == "--package");
    let everything = ["--workspace", "--exclude", "tr111-ebpf"];
    // The stories run the binary. Built with the tests, it shares their dependencies' features, and nothing compiles twice:
    // the tests want an agent whose clock they can set, which no other build has.
    let binary = if one_package {
        &["--package", "tr111", "--features", "test-clock"][..]
    } else {
        &[&everything[..], &["--all-targets"]].concat()
    };
    run_command(cargo().arg("build").args(binary))?;

    let (reader, writer) = std::io::pipe()?;
    let mut tests = cargo();
    tests.args(["test", "--no-fail-fast"]);
    if !one_package {
        tests.args(everything);
    }
    tests.args(arguments).env("TR111_BIN", Profile::Dev.program("tr111"));
    // One pipe for both, because which program runs is said on one stream and what its tests did on the other.
    tests.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = tests.spawn().context("cannot start cargo")?;
    drop(tests);

    let mut transcript = Transcript::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        transcript.read(&line);
    }
    let status = child.wait()?;
    // Those of the guests belong to a complete run.
    let kernels = !arguments.is_empty() || transcript.take_kernels();

    println!("\n{}", transcript.closing_lines());
    if !arguments.is_empty() {
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    Record { outcomes: transcript.outcomes }.write()?;
    let conformance = conformance::run(true)?;
    if !status.success() || !kernels {
        println!("tests failed ({status}{})", if kernels { "" } else { "; kernels" });
        return Ok(ExitCode::FAILURE);
    }
    Ok(conformance)
}

/// What a test program said about one of its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

impl Outcome {
    /// The path and the outcome in a line of libtest: `test table::tests::adds_a_row ... ok`.
    pub(crate) fn of_test_line(line: &str) -> Option<(String, Self)> {
        let (path, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let outcome = match outcome {
            "ok" => Self::Passed,
            "FAILED" => Self::Failed,
            other if other.starts_with("ignored") => Self::Ignored,
            _ => return None,
        };
        // `#[should_panic]` tests say so behind their name.
        Some((path.split(" - ").next().unwrap_or(path).to_owned(), outcome))
    }

    /// As libtest prints it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Ignored => "ignored",
        }
    }
}

/// A test in the last run: the source file of its program, relative to the package, and its path in that program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TestName {
    /// `tr111_core`, or the file name of an integration test.
    pub(crate) program: String,
    /// `table::tests::adds_a_row`
    pub(crate) path: String,
}

/// Reads what `cargo test` and libtest print.
#[derive(Default)]
struct Transcript {
    program: String,
    outcomes: BTreeMap<TestName, Outcome>,
    closing: Vec<String>,
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Transcript {
    fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(program) = line.strip_prefix("Running ").and_then(program_of) {
            self.program = program;
        } else if let Some(library) = line.strip_prefix("Doc-tests ") {
            self.program = format!("{library} (doc-tests)");
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.closing.push(format!("{}: {result}", self.program));
        } else if let Some((path, outcome)) = Outcome::of_test_line(line) {
            self.take(self.program.clone(), path, outcome);
        }
    }

    fn take(&mut self, program: String, path: String, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Ignored => self.ignored += 1,
        }
        self.outcomes.insert(TestName { program, path }, outcome);
    }

    /// Adds what the guests of `cargo xtask kernels` said; whether all of it passed.
    fn take_kernels(&mut self) -> bool {
        let results = match kernels::results(&[]) {
            Ok(results) => results,
            Err(error) => {
                println!("kernels: {error:#}");
                BTreeMap::from([(("kernels".to_owned(), "run".to_owned()), Outcome::Failed)])
            }
        };
        let mut sums: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for ((guest, path), outcome) in results {
            let is_good = outcome == Outcome::Passed;
            sums.entry(guest.clone()).or_default()[usize::from(!is_good)] += 1;
            self.take(guest, path, outcome);
        }
        let is_good = sums.values().all(|[_, failed]| *failed == 0);
        for (guest, [passed, failed]) in sums {
            let word = if failed == 0 { "ok" } else { "FAILED" };
            self.closing.push(format!("{guest}: {word}. {passed} passed; {failed} failed"));
        }
        is_good
    }

    /// The runner's closing lines, one for each program that had tests, and their sum.
    fn closing_lines(&self) -> String {
        let mut lines: Vec<_> =
            self.closing.iter().filter(|line| !line.contains("ok. 0 passed; 0 failed; 0 ignored")).collect();
        lines.sort();
        let sum = format!(
            "tests: {} passed, {} failed, {} ignored, in {} programs",
            self.passed,
            self.failed,
            self.ignored,
            lines.len()
        );
        lines.iter().map(|line| format!("test result of {line}")).chain([sum]).collect::<Vec<_>>().join("\n")
    }
}

/// `unittests src/lib.rs (target/debug/deps/tr111_core-0f00)` is `tr111_core`.
fn program_of(running: &str) -> Option<String> {
    let path = running.split_once('(')?.1.strip_suffix(')')?;
    let file = path.rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _hash)| name).to_owned())
}

/// What the last complete run of the tests said, kept beside what it built.
pub(crate) struct Record {
    outcomes: BTreeMap<TestName, Outcome>,
}

impl Record {
    fn path() -> PathBuf {
        target_dir().join("xtask-tests.tsv")
    }

    fn write(&self) -> Result<()> {
        let mut text = String::new();
        for (name, outcome) in &self.outcomes {
            let outcome = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "failed",
                Outcome::Ignored => "ignored",
            };
            text += &[outcome, &name.program, &name.path].join("\t");
            text.push('\n');
        }
        fs::write(Self::path(), text).with_context(|| Self::path().display().to_string())
    }

    /// `None` when the tests were never run to the end here.
    pub(crate) fn read() -> Option<Self> {
        fs::read_to_string(Self::path()).ok().map(|text| Self::parse(&text))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let outcome = |line: &str| {
            let mut fields = line.split('\t');
            let outcome = match fields.next()? {
                "passed" => Outcome::Passed,
                "failed" => Outcome::Failed,
                _ => Outcome::Ignored,
            };
            Some((TestName { program: fields.next()?.to_owned(), path: fields.next()?.to_owned() }, outcome))
        };
        Self { outcomes: text.lines().filter_map(outcome).collect() }
    }

    /// How a test went: by its full name, else by its function's name if only one test anywhere has that.
    pub(crate) fn outcome(&self, name: &TestName) -> Option<Outcome> {
        if let Some(outcome) = self.outcomes.get(name) {
            return Some(*outcome);
        }
        let function = |path: &str| path.rsplit("::").next().map(str::to_owned);
        let mut same = self.outcomes.iter().filter(|(other, _)| function(&other.path) == function(&name.path));
        match (same.next(), same.next()) {
            (Some((_, outcome)), None) => Some(*outcome),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Record, TestName, Transcript};

    const PRINTED: &str = "\
     Running unittests src/lib.rs (target/debug/deps/tr111_core-0f00ba5)

running 3 tests
test table::tests::adds_a_row ... ok
test table::tests::refuses_nobody - should panic ... FAILED
test table::tests::slow ... ignored, takes an hour

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/gateway.rs (target/debug/deps/gateway-11aa)
test tells ... a story ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
   Doc-tests tr111_core
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn name(program: &str, path: &str) -> TestName {
        TestName { program: program.into(), path: path.into() }
    }

    fn transcript() -> Transcript {
        let mut transcript = Transcript::default();
        PRINTED.lines().for_each(|line| transcript.read(line));
        transcript
    }

    #[test]
    fn reads_which_test_of_which_program_did_what() {
        let outcomes = transcript().outcomes;
        assert_eq!(outcomes[&name("tr111_core", "table::tests::adds_a_row")], Outcome::Passed);
        assert_eq!(outcomes[&name("tr111_core", "table::tests::refuses_nobody")], Outcome::Failed);
        assert_eq!(outcomes[&name("tr111_core", "table::tests::slow")], Outcome::Ignored);
        assert_eq!(outcomes[&name("gateway", "tells ... a story")], Outcome::Passed);
        assert_eq!(outcomes.len(), 4);
    }

    #[test]
    fn closes_with_the_sum_and_leaves_out_programs_without_tests() {
        let closing = transcript().closing_lines();
        assert!(closing.ends_with("tests: 2 passed, 1 failed, 1 ignored, in 2 programs"), "{closing}");
        assert!(closing.contains("test result of tr111_core: FAILED. 1 passed; 1 failed"), "{closing}");
        assert!(!closing.contains("doc-tests"), "{closing}");
    }

    #[test]
    fn finds_a_test_by_its_function_only_if_that_is_unique() {
        let record = Record::parse("passed\ta\tx::one\nfailed\ta\tx::two\npassed\tb\ty::two\n");
        assert_eq!(record.outcome(&name("a", "x::one")), Some(Outcome::Passed));
        assert_eq!(record.outcome(&name("c", "z::one")), Some(Outcome::Passed));
        assert_eq!(record.outcome(&name("a", "x::two")), Some(Outcome::Failed));
        assert_eq!(record.outcome(&name("c", "z::two")), None);
        assert_eq!(record.outcome(&name("a", "x::three")), None);
    }
}
