//! One guest: its initramfs, its run, and what it printed.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{apt::Machine, image::Image};
use crate::{
    process::{command, output, workspace_root},
    test::Outcome,
};

/// How long a guest may take: it is emulated, and another one runs beside it.
const LIMIT: Duration = Duration::from_mins(15);
/// Programs that `tr111 check` asks the verifier for: those of a gateway, and that of an ACS.
const PROGRAMS: usize = 9;

/// Modules that the kernel does not load on demand in every version. Those that are built in are no error, and what is
/// missing the tests say.
const MODULES: &str = "crc32c_generic veth bridge 8021q bonding macvlan af_packet sch_ingress cls_bpf nfnetlink nf_conntrack nf_tables \
                       nft_ct nft_nat nft_masq nft_chain_nat nf_conntrack_netlink nfnetlink_cttimeout";

/// A guest that is ready to boot.
pub(super) struct Guest {
    name: String,
    machine: Machine,
    kernel: PathBuf,
    initramfs: PathBuf,
    log: PathBuf,
}

impl Guest {
    /// With `tr111` and the test program in it, of which it runs the tests whose names contain one of `tests`, or all.
    pub(super) fn new(
        image: &Image,
        tr111: &Path,
        test_program: &Path,
        tests: &[&str],
        hides_btf: bool,
    ) -> Result<Self> {
        let name = format!("linux-{}{}", image.name, if hides_btf { "-without-btf" } else { "" });
        let directory = super::directory().join("guests").join(&name);
        let _ = fs::remove_dir_all(&directory);
        let own = directory.join("own");
        fs::create_dir_all(&own)?;
        fill(&own, tr111, test_program, &init(tests, hides_btf))?;
        let initramfs = directory.join("initramfs");
        // The kernel unpacks one archive after the other.
        let mut parts = vec![archive(&image.userland)?, archive(&image.modules)?, archive(&own)?];
        let mut bytes = Vec::new();
        for part in &mut parts {
            fs::File::open(&*part).and_then(|mut part| part.read_to_end(&mut bytes))?;
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        fs::write(&initramfs, bytes)?;
        Ok(Self {
            log: super::directory().join(format!("{name}.log")),
            name,
            machine: image.machine,
            kernel: image.kernel.clone(),
            initramfs,
        })
    }

    /// Runs it to its end, or until its time is over.
    pub(super) fn boot(&self) -> Report {
        let start = Instant::now();
        let lines = self.lines().unwrap_or_else(|error| vec![format!("qemu: {error:#}")]);
        // Whatever it said is what counts; a log that cannot be written is missed only by people.
        let _ = fs::write(&self.log, lines.join("\n"));
        Report::read(self.name.clone(), self.log.clone(), lines, start.elapsed())
    }

    fn qemu(&self) -> Command {
        let (program, machine, console) = if self.machine == Machine::ARM64 {
            // The most capable processor is many times slower to emulate.
            ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "cortex-a72"][..], "ttyAMA0")
        } else {
            ("qemu-system-x86_64", &["-cpu", "max"][..], "ttyS0")
        };
        let mut qemu = command(program);
        // One processor: where several are emulated, one now and then runs an instruction that the kernel is about to patch,
        // and the kernel dies of it.
        qemu.args(machine).args(["-m", "2048", "-smp", "1", "-accel", "tcg"]);
        qemu.args(["-nographic", "-no-reboot", "-net", "none"]);
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        qemu.arg("-append").arg(format!("console={console} panic=-1 quiet"));
        qemu
    }

    fn lines(&self) -> Result<Vec<String>> {
        let mut qemu = self.qemu();
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut qemu = qemu.spawn().context("cannot start qemu")?;
        let stdout = qemu.stdout.take().context("no standard output")?;
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if told.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        let end = Instant::now() + LIMIT;
        let mut lines = Vec::new();
        loop {
            match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    lines.push(format!("qemu: not done within {LIMIT:?}"));
                    break;
                }
            }
        }
        // Fails only where it has ended already.
        let _ = qemu.kill();
        qemu.wait()?;
        Ok(lines)
    }
}

/// The first program of the guest. Lines that begin with `@` are for [`Report::read`].
fn init(tests: &[&str], hides_btf: bool) -> String {
    let hide = if hides_btf { "mount -t tmpfs none /sys/kernel/btf" } else { ":" };
    let tests = tests.join(" ");
    format!(
        "#!/usr/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/
/usr/bin/busybox mkdir -p /busybox /proc /sys /dev /run /tmp /var/lib /var/tmp
/usr/bin/busybox --install -s /busybox
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run; mount -t tmpfs tmp /tmp; ln -sf /run /var/run
mkdir -p /run/netns /run/tr111; mount -t bpf bpf /sys/fs/bpf
dmesg -n 1
for module in {MODULES}; do modprobe $module; done 2>&1
{hide}
ip link set lo up
echo \"@kernel $(uname -r) $(uname -m)\"
tr111 check --config /etc/tr111.toml 2>&1
TR111_BIN=/usr/bin/tr111 /usr/bin/tests --test-threads=1 {tests} 2>&1
echo \"@status $?\"
poweroff -f
"
    )
}

/// Puts our own files where the guest finds them.
fn fill(root: &Path, tr111: &Path, tests: &Path, init: &str) -> Result<()> {
    for directory in ["usr/bin", "usr/sbin", "etc"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::copy(tr111, root.join("usr/bin/tr111")).with_context(|| tr111.display().to_string())?;
    fs::copy(tests, root.join("usr/bin/tests")).with_context(|| tests.display().to_string())?;
    for name in ["sh", "udhcpc"] {
        symlink("busybox", root.join("usr/bin").join(name))?;
    }
    // What the kernel asks for modules that nobody loaded.
    symlink("../bin/busybox", root.join("usr/sbin/modprobe"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(
        root.join("etc/tr111.toml"),
        "[gateway]\nlan = [\"lo\"]\nmanufacturer_oui = \"00256D\"\nserial_number = \"GW0001\"\n[acs]\nxdp = [\"lo\"]\n",
    )?;
    // The test program reads it where it was when it was built.
    let corpus = workspace_root().join("tests/corpus");
    let inside = root.join(corpus.strip_prefix("/").unwrap_or(&corpus));
    fs::create_dir_all(inside.parent().context("a directory of the workspace")?)?;
    output(command("cp").arg("--recursive").arg(&corpus).arg(&inside)).map(drop)
}

/// A directory as an archive beside it, made once.
fn archive(directory: &Path) -> Result<PathBuf> {
    let archive = directory.with_extension("cpio.gz");
    if directory.join("complete").exists() && archive.exists() {
        return Ok(archive);
    }
    let script = "cd \"$0\" && find . | cpio --quiet --create --format=newc | gzip -1 > \"$1\"";
    output(command("sh").args(["-c", script]).arg(directory).arg(&archive))?;
    Ok(archive)
}

/// What a guest printed.
pub(super) struct Report {
    pub(super) name: String,
    log: PathBuf,
    took: Duration,
    /// Programs and the instructions that their verification walked; `None` for those that were refused.
    pub(super) programs: Vec<(String, Option<u64>)>,
    tests: Vec<(String, Outcome)>,
    /// The tests' exit status; `None` where the guest did not get so far.
    status: Option<i32>,
    lines: Vec<String>,
}

impl Report {
    fn read(name: String, log: PathBuf, lines: Vec<String>, took: Duration) -> Self {
        let programs = lines.iter().filter_map(|line| program(line)).collect();
        let tests = lines.iter().filter_map(|line| Outcome::of_test_line(line)).collect();
        let status = lines.iter().find_map(|line| line.strip_prefix("@status ")?.parse().ok());
        Self { name, log, took, programs, tests, status, lines }
    }

    pub(super) fn summary(&self) -> String {
        let passed = self.tests.iter().filter(|(_, outcome)| *outcome == Outcome::Passed).count();
        let end = if self.status.is_some() { "" } else { ", and did not come to its end" };
        format!("{passed} of {} tests passed in {:.0} s{end}", self.tests.len(), self.took.as_secs_f32())
    }

    /// What it said, where something failed.
    pub(super) fn print(&self) {
        if self.status == Some(0) {
            return;
        }
        println!("--- {} ({})", self.name, self.log.display());
        let from = self.lines.iter().position(|line| line.starts_with("failures:")).unwrap_or_default();
        self.lines[from..].iter().take(400).for_each(|line| println!("{line}"));
        println!("---");
    }

    /// Every test of the guest, and what is asked of the guest itself.
    pub(super) fn outcomes(&self, limit: u64) -> Vec<(String, Outcome)> {
        let judge = |is_good| if is_good { Outcome::Passed } else { Outcome::Failed };
        let comes_to_its_end = judge(self.status.is_some() && !self.tests.is_empty());
        let are_few =
            self.programs.iter().all(|(_, walked)| walked.is_some_and(|walked| (1..=limit).contains(&walked)));
        let accepted = judge(self.programs.len() == PROGRAMS && are_few);
        let mut outcomes = self.tests.clone();
        outcomes.push(("comes_to_its_end".to_owned(), comes_to_its_end));
        outcomes.push(("every_program_is_accepted_within_the_limit".to_owned(), accepted));
        outcomes
    }
}

/// `ok       program lan_ingress     accepted (9772 instructions verified)`, of `tr111 check`.
fn program(line: &str) -> Option<(String, Option<u64>)> {
    let mut words = line.split_whitespace();
    let result = words.next()?;
    if !matches!(result, "ok" | "failure") || words.next()? != "program" {
        return None;
    }
    let name = words.next()?.to_owned();
    let walked = words.nth(1).and_then(|word| word.strip_prefix('(')?.parse().ok());
    Some((name, walked.filter(|_| result == "ok")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        let lines = text.lines().map(str::to_owned).collect();
        Report::read("guest".to_owned(), PathBuf::new(), lines, Duration::ZERO)
    }

    const ACCEPTED: &str = "\
ok       kernel                  Linux 6.1.0-44-amd64 x86_64
ok       program lan_ingress     accepted (9772 instructions verified)
ok       program wan_ingress     accepted (2293 instructions verified)
ok       program lan_ingress_tc  accepted (9976 instructions verified)
ok       program lan_merged      accepted (19004 instructions verified)
ok       program lan_egress      accepted (7381 instructions verified)
ok       program lan_port        accepted (12301 instructions verified)
ok       program lan_binding     accepted (2785 instructions verified)
ok       program wan_ingress_tc  accepted (2328 instructions verified)
ok       program acs_stun        accepted (10001 instructions verified)
test rows::udhcpc_comes_and_goes ... ok
@status 0
";

    fn failed(text: &str) -> Vec<String> {
        let outcomes = report(text).outcomes(INSTRUCTIONS);
        outcomes.into_iter().filter(|(_, outcome)| *outcome != Outcome::Passed).map(|(name, _)| name).collect()
    }

    const INSTRUCTIONS: u64 = 250_000;

    #[test]
    fn a_guest_passes_if_it_ends_accepts_every_program_and_every_test_passes() {
        assert_eq!(failed(ACCEPTED), Vec::<String>::new());
        assert_eq!(report(ACCEPTED).programs[0], ("lan_ingress".to_owned(), Some(9772)));
    }

    #[test]
    fn a_guest_that_hangs_a_refused_program_and_one_that_is_too_long_are_failures() {
        assert_eq!(failed(&ACCEPTED.replace("@status 0\n", "")), ["comes_to_its_end"]);
        let refused = ACCEPTED.replace(
            "ok       program lan_egress      accepted (7381",
            "failure  program lan_egress  refused: R4 (7381",
        );
        assert_eq!(failed(&refused), ["every_program_is_accepted_within_the_limit"]);
        assert_eq!(failed(&ACCEPTED.replace("9772", "250001")), ["every_program_is_accepted_within_the_limit"]);
        let missing = ACCEPTED.replace("program acs_stun", "something");
        assert_eq!(failed(&missing), ["every_program_is_accepted_within_the_limit"]);
        assert_eq!(failed(&ACCEPTED.replace("goes ... ok", "goes ... FAILED")), ["rows::udhcpc_comes_and_goes"]);
        assert_eq!(
            failed("Kernel panic - not syncing"),
            ["comes_to_its_end", "every_program_is_accepted_within_the_limit"]
        );
    }
}
