//! `tr111 top` on a terminal.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};
use tr111_tests::{
    agent::{Agent, Files, SOON},
    client::Client,
    cpe,
    host::dnsmasq,
    lab::{Lab, POOL},
    vectors::{D1, hex},
    wait::wait_for,
    wire::Wire,
};

const SIZE: Winsize = Winsize { ws_row: 60, ws_col: 150, ws_xpixel: 0, ws_ypixel: 0 };

/// `tr111 top` on a terminal of its own.
struct Top {
    keyboard: File,
    /// What it works on, open as long as this is.
    terminal: OwnedFd,
    child: Child,
    drawn: String,
}

impl Top {
    fn start(agent: &Agent<'_>) -> Result<Self> {
        let pty = openpty(Some(&SIZE), None)?;
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut command = agent.command(&["top"])?;
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(Stdio::inherit());
        Ok(Self { keyboard: pty.master.into(), terminal: pty.slave, child: command.spawn()?, drawn: String::new() })
    }

    /// Waits until the last page has all of `words`; from then on only what is drawn afterwards counts.
    fn wait_for(&mut self, words: &[&str]) -> Result<()> {
        wait_for(&format!("page with {words:?}"), SOON, || {
            self.read();
            let page = self.drawn.rsplit("\x1b[H").next().unwrap_or_default();
            Ok(words.iter().all(|word| page.contains(word)).then_some(()))
        })
        .with_context(|| self.drawn.clone())
    }

    fn read(&mut self) {
        let mut bytes = [0; 8_192];
        // An error is that there is nothing.
        while let Ok(length @ 1..) = self.keyboard.read(&mut bytes) {
            self.drawn.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    /// Whether the terminal hands over lines, and shows what is typed.
    fn is_cooked(&self) -> Result<bool> {
        let flags = tcgetattr(self.terminal.as_fd())?.local_flags;
        Ok(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG))
    }

    /// Waits for its end, which leaves the terminal as it was.
    fn end(mut self) -> Result<ExitStatus> {
        let status = wait_for("end of top", SOON, || {
            self.read();
            Ok(self.child.try_wait()?)
        })?;
        self.read();
        ensure!(self.drawn.ends_with("\x1b[?25h\x1b[?1049l"), "the page stays: {:?}", self.drawn);
        ensure!(self.is_cooked()?, "the terminal is not as it was");
        Ok(status)
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows, rates and losses of a gateway, as they change; a key, Ctrl-C and SIGTERM end it and give the terminal back.
#[test]
fn top_shows_a_gateway_live_and_gives_the_terminal_back() -> Result<()> {
    let lab = Lab::new()?;
    let _server = dnsmasq(&lab.gateway, "lan0", (POOL, [10, 111, 1, 250].into()), lab.path(), &[])?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let mut top = Top::start(&agent)?;
    top.wait_for(&["gateway (tr111", "0 of at most", "lan_ingress native", "NO LOSSES", "DEVICES (0"])?;
    assert!(!top.is_cooked()?);
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    top.wait_for(&["1 of at most", "DEVICES (1", "DEV0001", "packets class=discover hook=lan_ingress"])?;
    // Far down and up again.
    top.keyboard.write_all(b"\x1b[6~")?;
    top.keyboard.write_all(b"q")?;
    assert!(top.end()?.success());

    let mut top = Top::start(&agent)?;
    top.wait_for(&["DEVICES (1"])?;
    top.keyboard.write_all(b"\x03")?;
    assert!(top.end()?.success());

    // The agent goes, and top says so and stays.
    let mut top = Top::start(&agent)?;
    top.wait_for(&["DEVICES (1"])?;
    agent.stop()?;
    top.wait_for(&["no agent answers"])?;
    kill(Pid::from_raw(top.child.id().cast_signed()), Signal::SIGTERM)?;
    assert!(top.end()?.success());
    Ok(())
}

/// A device has no rows, but its own binding; and without a terminal top says what is missing.
#[test]
fn top_shows_a_device_and_wants_a_terminal() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let device = cpe::start(&lab, Files::new(lab.path(), "device")?, "")?;
    let mut top = Top::start(&device)?;
    top.wait_for(&["device (tr111", "BINDINGS (1)", "10.111.2.5:7547"])?;
    top.keyboard.write_all(b"q")?;
    assert!(top.end()?.success());
    let refused = device.ask(&["top"])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("terminal"), "{refused:?}");
    Ok(())
}
