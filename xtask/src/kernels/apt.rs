//! Debian's archive for a processor, by lists and a cache of its own: this machine's stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    dist::Target,
    process::{command, output},
};

/// A kind of machine that guests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Machine {
    /// Debian's name of its processor.
    pub(crate) debian: &'static str,
    pub(crate) target: Target,
}

impl Machine {
    pub(crate) const AMD64: Self = Self { debian: "amd64", target: Target::X86_64 };
    pub(crate) const ARM64: Self = Self { debian: "arm64", target: Target::Aarch64 };
    pub(crate) const ALL: [Self; 2] = [Self::AMD64, Self::ARM64];

    /// The one that a kernel package is for.
    pub(crate) fn of(package: &str) -> Option<Self> {
        let package = package.trim_end_matches("-unsigned");
        Self::ALL.into_iter().find(|machine| package.ends_with(machine.debian))
    }

    /// Whether it is like this one.
    pub(crate) fn is_this(self) -> bool {
        self.target.processor() == std::env::consts::ARCH
    }
}

/// The releases that kernels are taken from; the userland comes from the newest that is stable.
const SUITES: [&str; 3] = ["bookworm", "trixie", "trixie-backports"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What runs in every guest, with all that it depends on.
const USERLAND: [&str; 6] = ["busybox-static", "conntrack", "dnsmasq-base", "ethtool", "iproute2", "nftables"];

/// The archive for one processor.
pub(crate) struct Archive {
    pub(crate) machine: Machine,
    directory: PathBuf,
}

impl Archive {
    /// Reads the lists of the mirror that this machine uses.
    pub(crate) fn open(machine: Machine) -> Result<Self> {
        let directory = super::directory().join(machine.debian);
        for part in ["apt/lists/partial", "apt/cache/archives/partial", "apt/sources"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let mirror = mirror()?;
        let sources: String = SUITES.map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")).concat();
        fs::write(directory.join("apt/sources/debian.list"), sources)?;
        // Nothing is installed, so that every dependency is found missing.
        fs::write(directory.join("apt/status"), "")?;
        let archive = Self { machine, directory };
        output(archive.apt("apt-get").args(["--quiet", "update"]))?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = command(program);
        let own = self.directory.join("apt");
        let path = |name: &str| own.join(name).display().to_string();
        let options = [
            format!("APT::Architecture={}", self.machine.debian),
            format!("APT::Architectures={}", self.machine.debian),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={}", path("sources")),
            format!("Dir::State::Lists={}", path("lists")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
        ];
        apt.args(options.iter().flat_map(|option| ["--option", option]));
        apt
    }

    /// The package of the newest kernel whose version starts with `series`.
    pub(crate) fn newest_kernel(&self, series: &str) -> Result<String> {
        let names = output(self.apt("apt-cache").args(["pkgnames", &format!("linux-image-{series}")]))?;
        let suffix = format!("-{}", self.machine.debian);
        let is_plain = |name: &&str| {
            let version = name.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix(&suffix));
            version.is_some_and(|version| {
                version.starts_with(|first: char| first.is_ascii_digit())
                    && !["cloud", "rt", "16k"].iter().any(|flavour| version.contains(flavour))
            })
        };
        let newest = names.lines().map(str::trim).filter(is_plain).max_by_key(|name| numbers(name));
        Ok(newest.with_context(|| format!("no linux-image-{series}*{suffix} in the archive"))?.to_owned())
    }

    /// Unpacks a kernel with its modules; the directory.
    pub(crate) fn kernel(&self, package: &str) -> Result<PathBuf> {
        let directory = self.directory.join(package);
        if directory.join("complete").exists() {
            return Ok(directory);
        }
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        self.download(package, &directory)?;
        // From 6.19 on the image is in linux-binary-V and the modules are in linux-modules-V.
        let own = packages(&directory)?;
        let own = own.first().with_context(|| format!("{package} was not downloaded"))?;
        let depends = output(command("dpkg-deb").arg("--field").arg(own).arg("Depends"))?;
        for part in depends.split([',', '|', ' ']) {
            if ["linux-binary-", "linux-modules-"].iter().any(|prefix| part.starts_with(prefix)) {
                self.download(part, &directory)?;
            }
        }
        unpack(&packages(&directory)?, &directory)?;
        fs::write(directory.join("complete"), "")?;
        Ok(directory)
    }

    fn download(&self, package: &str, directory: &Path) -> Result<()> {
        output(self.apt("apt-get").args(["--quiet", "download", package]).current_dir(directory)).map(drop)
    }

    /// Unpacks what runs in guests, with all that it depends on; the directory.
    pub(crate) fn userland(&self) -> Result<PathBuf> {
        let directory = self.directory.join("userland");
        let complete = USERLAND.join(" ");
        if fs::read_to_string(directory.join("complete")).is_ok_and(|found| found == complete) {
            return Ok(directory);
        }
        let _ = fs::remove_dir_all(&directory);
        output(self.apt("apt-get").args(["--quiet", "--yes", "--download-only", "install"]).args(USERLAND))?;
        // Directories that Debian's packages take for granted.
        for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            fs::create_dir_all(directory.join(target))?;
            std::os::unix::fs::symlink(target, directory.join(link))?;
        }
        unpack(&packages(&self.directory.join("apt/cache/archives"))?, &directory)?;
        // Weight without use.
        for part in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl", "usr/share/perl5"] {
            let _ = fs::remove_dir_all(directory.join(part));
        }
        fs::write(directory.join("complete"), complete)?;
        Ok(directory)
    }
}

/// The packages in a directory.
fn packages(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// Unpacks packages, and removes them.
fn unpack(packages: &[PathBuf], directory: &Path) -> Result<()> {
    ensure!(!packages.is_empty(), "no package to unpack in {}", directory.display());
    for package in packages {
        // Through tar, which keeps links that stand for directories.
        let script = "dpkg-deb --fsys-tarfile \"$0\" | tar --extract --keep-directory-symlink --directory \"$1\"";
        output(command("sh").args(["-c", script]).arg(package).arg(directory))?;
        fs::remove_file(package)?;
    }
    Ok(())
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The mirror of Debian's archive that this machine's own sources name.
fn mirror() -> Result<String> {
    let mut files =
        vec![PathBuf::from("/etc/apt/sources.list.d/debian.sources"), PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        if let Some(mirror) = mirror_in(&text) {
            return Ok(mirror);
        }
    }
    bail!("no mirror of Debian's archive in /etc/apt: kernels for the guests come from there")
}

/// A mirror of the archive, not of its security updates and not of somebody else's packages.
fn mirror_in(sources: &str) -> Option<String> {
    let words = sources.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut addresses = words.filter(|word| word.contains("://"));
    let address = addresses.find(|word| word.trim_end_matches('/').ends_with("/debian"))?;
    Some(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Machine, mirror_in, numbers};

    #[test]
    fn the_mirror_is_that_of_the_archive() {
        let sources = "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian-security\n\
                       Suites: bookworm-security\n\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(sources).as_deref(), Some("http://mirror.example/debian"));
        let line = "deb http://security.example/debian-security bookworm-security main\n\
                    deb [signed-by=/k] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(line).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(mirror_in("deb http://other.example/apt stable main\n"), None);
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("linux-image-6.12.107+deb13-amd64") > numbers("linux-image-6.12.99+deb13-amd64"));
        assert!(numbers("linux-image-7.3.4+deb13-amd64") > numbers("linux-image-6.19.1+deb13-amd64"));
    }

    #[test]
    fn a_package_names_its_machine() {
        assert_eq!(Machine::of("linux-image-6.1.0-44-amd64"), Some(Machine::AMD64));
        assert_eq!(Machine::of("linux-image-6.12.1+deb12-arm64-unsigned"), Some(Machine::ARM64));
        assert_eq!(Machine::of("linux-image-6.1.0-44-armmp"), None);
    }
}
