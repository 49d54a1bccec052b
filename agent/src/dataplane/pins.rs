//! What stays in the kernel when the agent goes: maps and links, pinned in a bpffs.
//!
//! ```text
//! PIN_DIR/abi-N/MAP             maps, by the layout that programs and agent agree on
//! PIN_DIR/links/INTERFACE:INDEX/PROGRAM-MODE
//! ```
//!
//! While an agent runs it holds a lock on `PIN_DIR`. What it leaves goes on: frames are classified, identities inserted,
//! events wait in the ring. The next agent adopts the maps, and gives the links its own programs in one step each.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use aya::programs::{
    SchedClassifier,
    links::{FdLink, LinkError, PinnedLink},
};
use nix::{
    fcntl::{Flock, FlockArg},
    net::if_::if_nametoindex,
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tr111_common::abi::{ABI, map};
use tracing::{debug, warn};

use super::{
    Error,
    attach::{Mode, Place},
    clsact, kernel,
};

/// Maps that outlive the agent. Scratch space does not.
pub(super) const MAPS: [&str; 13] = [
    map::EVENTS_LAN,
    map::COUNTERS,
    map::CONFIG,
    map::GATEWAY,
    map::EXCHANGES,
    map::STICKY,
    map::NEWCOMERS,
    map::LAST_ACK,
    map::NEIGHBOURS,
    map::BUDGETS,
    map::DHCP_BUDGETS,
    map::WAN_BUDGETS,
    map::FLOWS,
];

/// A pin directory that this agent holds.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// Takes the directory, and makes it if need be. `None` where no bpffs is: then programs end with the agent.
    ///
    /// # Errors
    /// [`Error::PinsTaken`] when another agent holds it, [`Error::Pins`] when it cannot be made.
    pub fn open(directory: &Path) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Pins { directory: directory.to_owned(), source };
        if !in_bpffs(directory) {
            warn!(directory = %directory.display(), "no bpffs there: the programs will end with the agent");
            return Ok(None);
        }
        fs::create_dir_all(directory).map_err(failed)?;
        let lock = File::open(directory).map_err(failed)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::Error::EWOULDBLOCK => Error::PinsTaken(directory.to_owned()),
            other => failed(other.into()),
        })?;
        Ok(Some(Self { directory: directory.to_owned(), _lock: lock }))
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> Result<PathBuf, Error> {
        let directory = self.directory.join(format!("abi-{ABI}"));
        make(&directory)?;
        Ok(directory.join(name))
    }

    /// Whether an earlier agent left maps of this layout.
    pub(super) fn has_maps(&self) -> bool {
        self.directory.join(format!("abi-{ABI}")).exists()
    }

    /// Removes the maps: nobody is to find them.
    pub(super) fn forget_maps(&self) {
        remove_tree(&self.directory.join(format!("abi-{ABI}")));
    }

    /// The link of a program, if an earlier agent left one that still holds.
    pub(super) fn link(&self, place: Place<'_>, program: &str, mode: Mode) -> Option<FdLink> {
        let path = self.link_path(place, program, mode);
        match PinnedLink::from_pin(&path) {
            Ok(link) => Some(FdLink::from(link)),
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                debug!(path = %path.display(), %error, "a pinned link is of no use");
                self.forget(place, program, mode);
                None
            }
        }
    }

    /// Whether an earlier agent left a link of the program.
    pub(super) fn has_link(&self, place: Place<'_>, program: &str, mode: Mode) -> bool {
        self.link_path(place, program, mode).exists()
    }

    /// Pins a link, so that it outlives the agent.
    pub(super) fn keep(&self, link: FdLink, place: Place<'_>, program: &str, mode: Mode) -> Result<(), Error> {
        let path = self.link_path(place, program, mode);
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        link.pin(&path)
            .map(drop)
            .map_err(|error| Error::Pins { directory: path, source: io::Error::other(error.to_string()) })
    }

    /// Pins the program of a filter, which has no link that could be pinned, in the place of an earlier one.
    pub(super) fn keep_program(
        &self,
        loaded: &mut SchedClassifier,
        place: Place<'_>,
        program: &str,
    ) -> Result<(), Error> {
        let path = self.link_path(place, program, Mode::Tc);
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        let failed = |source| Error::Pins { directory: path.clone(), source };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        loaded.pin(&path).map_err(|error| failed(io::Error::other(error)))
    }

    /// Removes the pin of a link, which takes its program off unless somebody holds it; of a filter, takes it off first.
    pub(super) fn forget(&self, place: Place<'_>, program: &str, mode: Mode) {
        let path = self.link_path(place, program, mode);
        if mode == Mode::Tc && !kernel::has_tcx() && path.exists() {
            clsact::detach(place.interface, program);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(path = %path.display(), %error, "a pinned link cannot be removed");
            }
            _ => {}
        }
    }

    /// Removes every link of an interface, whatever index it had.
    pub(super) fn forget_interface(&self, interface: &str) {
        let prefix = directory_name(interface, "");
        self.remove_links(|name| name.starts_with(&prefix));
    }

    /// Removes what agents left for interfaces other than these, and maps of other layouts.
    pub(super) fn tidy<'a>(&self, places: impl Iterator<Item = Place<'a>>) {
        let current = format!("abi-{ABI}");
        for entry in entries(&self.directory) {
            let name = file_name(&entry);
            if name.starts_with("abi-") && name != current {
                remove_tree(&entry);
            }
        }
        let kept: Vec<String> = places.map(|place| directory_name(place.interface, place.ifindex)).collect();
        self.remove_links(|name| !kept.iter().any(|kept| kept == name));
    }

    fn remove_links(&self, goes: impl Fn(&str) -> bool) {
        let links = entries(&self.directory.join("links")).into_iter();
        links.filter(|entry| goes(&file_name(entry))).for_each(|entry| {
            detach_filters(&entry);
            remove_tree(&entry);
        });
    }

    /// Removes everything, the directory too: the programs end.
    pub(super) fn remove(self) {
        for entry in entries(&self.directory.join("links")) {
            detach_filters(&entry);
        }
        remove_tree(&self.directory);
    }

    fn link_path(&self, place: Place<'_>, program: &str, mode: Mode) -> PathBuf {
        let directory = directory_name(place.interface, place.ifindex);
        self.directory.join("links").join(directory).join(format!("{program}-{mode}"))
    }
}

fn make(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| Error::Pins { directory: directory.to_owned(), source })
}

/// An interface's name as a bpffs takes it: dots are reserved there (Linux 4.4). No interface has a colon in its name.
fn directory_name(interface: &str, ifindex: impl Display) -> String {
    format!("{}:{ifindex}", interface.replace('.', "%2E"))
}

/// The interface whose links are in a directory, if it still is the one that they were made for.
pub fn interface_of(directory: &Path) -> Option<String> {
    let name = file_name(directory);
    let (interface, index) = name.rsplit_once(':')?;
    let interface = interface.replace("%2E", ".");
    let index: u32 = index.parse().ok()?;
    (if_nametoindex(interface.as_str()) == Ok(index)).then_some(interface)
}

/// Takes off the filters whose programs are pinned in a directory: removing a pin does not.
fn detach_filters(directory: &Path) {
    let Some(interface) = interface_of(directory).filter(|_| !kernel::has_tcx()) else { return };
    for program in entries(directory).iter().map(|entry| file_name(entry)) {
        if let Some(program) = program.strip_suffix("-tc") {
            clsact::detach(&interface, program);
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether the directory, or the first parent that exists, lies in a bpffs.
fn in_bpffs(directory: &Path) -> bool {
    let existing = directory.ancestors().find(|path| path.exists());
    existing.is_some_and(|path| statfs(path).is_ok_and(|system| system.filesystem_type() == BPF_FS_MAGIC))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn remove_tree(path: &Path) {
    if path.is_dir() {
        for entry in entries(path) {
            remove_tree(&entry);
        }
    }
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    if let Err(error) = removed {
        warn!(path = %path.display(), %error, "what is pinned cannot be removed");
    }
}
