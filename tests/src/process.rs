//! Processes that a story starts, and that end with it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::wait_for;

/// Runs `command` to its end.
///
/// # Errors
/// It cannot be started, or fails; the error has what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Runs `command` to its end, whatever it says.
///
/// # Errors
/// It cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output();
    output.with_context(|| format!("cannot start {command:?}; is the tool installed? `cargo xtask setup` brings it"))
}

/// Runs `command` with `input` on its standard input.
///
/// # Errors
/// It cannot be started.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    // Dropped at the end of the statement, so that the child sees the end of its input.
    let written = child.stdin.take().context("no standard input")?.write_all(input);
    // A command that is used wrongly ends without reading its input.
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error.into());
    }
    Ok(child.wait_with_output()?)
}

/// Bytes as text, for messages.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process in the background. Dropping it kills it, by its number and never by a name.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to two files in `directory`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.err"));
        // A process group of its own: Ctrl-C at the terminal reaches the story alone, and the story ends the rest.
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}; is it installed? `cargo xtask setup` brings it"))?;
        Ok(Self { name: name.to_owned(), child, status: None, stdout, stderr })
    }

    /// The process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        fs::read(&self.stdout).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    /// What it complained about so far.
    pub fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        wait_for(&what, limit, || self.try_status())
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.try_status()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(limit)
    }

    /// Waits until its standard output has a line with `part`.
    ///
    /// # Errors
    /// It does not come within `limit`, or the process ends before.
    pub fn wait_for_line(&mut self, part: &str, limit: Duration) -> Result<String> {
        let what = format!("{part:?} from {}", self.name);
        wait_for(&what, limit, || {
            let ended = self.try_status()?;
            let line = self.stdout().lines().find(|line| line.contains(part)).map(str::to_owned);
            if let (None, Some(status)) = (&line, ended) {
                bail!("{} ended ({status}) without saying {part:?}:\n{}", self.name, self.complaint());
            }
            Ok(line)
        })
    }

    /// Its last words, for an error.
    pub fn complaint(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!("{} printed:\n{}\n{}", self.name, tail(self.stdout()), tail(self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}", self.complaint());
        }
        if self.status.is_none() {
            // Both fail only where the process is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
