//! Maps and links that stay in the kernel when the agent ends, pinned in a bpffs.
//!
//! ```text
//! PIN_DIR/netns-COOKIE/namespace    witness of the network namespace (see `netns`)
//! PIN_DIR/netns-COOKIE/abi-N/MAP    maps, by the version of their layout
//! PIN_DIR/netns-COOKIE/links/INTERFACE:INDEX/PROGRAM-MODE
//! ```
//!
//! Names and indices of interfaces are unique only within a network namespace, so each namespace has its own directory,
//! named by its cookie. An agent locks the directory of its namespace while it runs. Pinned programs keep working after
//! the agent ends: they classify frames, insert identities and write events to the ring. The next agent in the
//! namespace adopts the maps and updates each link to its own program atomically. Directories of namespaces that no
//! longer exist are removed at each start.

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
use tr111_common::abi::{ABI, map, program};
use tracing::{debug, info, warn};

use super::{
    Error,
    attach::{Mode, Place},
    clsact, kernel, netns,
};

/// Maps that are pinned. Scratch maps are not.
pub(super) const MAPS: [&str; 15] = [
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
    map::SOURCE_BUDGETS,
    map::DHCP_BUDGETS,
    map::WAN_BUDGETS,
    map::FLOWS,
    map::TURNS,
];

/// Programs whose links are pinned. On kernels without TCX the TC programs themselves are pinned.
const PROGRAMS: [&str; 7] = [
    program::LAN_INGRESS,
    program::LAN_INGRESS_TC,
    program::LAN_EGRESS,
    program::LAN_PORT,
    program::LAN_BINDING,
    program::WAN_INGRESS,
    program::WAN_INGRESS_TC,
];
/// Prefix of the directory of a network namespace. The cookie follows.
const NAMESPACE: &str = "netns-";
/// Prefix of the directory of maps. The version of the layout follows.
const LAYOUT: &str = "abi-";
/// Name of the directory of links.
const LINKS: &str = "links";
/// Name of the witness of a network namespace.
const WITNESS: &str = "namespace";
/// Suffix of a link that has not been renamed to its final name. A bpffs does not allow dots in names.
const UNFINISHED: &str = "+";
/// Maximum attempts to create the directory of a namespace. While it is empty, another agent may remove it because it
/// takes it for that of a namespace that no longer exists.
const ATTEMPTS: usize = 3;

/// The locked pin directory of this network namespace.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: Flock<File>,
}

/// Result of [`unpin`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// Removed pins of maps, links and programs.
    pub removed: Vec<PathBuf>,
    /// Directories of other network namespaces that still exist. They are kept.
    pub left: Vec<PathBuf>,
}

impl Pins {
    /// Locks the directory of this network namespace below `root`, and creates it if it does not exist. `None` if
    /// `root` is not in a bpffs: programs then end with the agent.
    ///
    /// # Errors
    /// [`Error::PinsTaken`] if another agent has locked it, [`Error::Pins`] if it cannot be created.
    pub fn open(root: &Path) -> Result<Option<Self>, Error> {
        if !in_bpffs(root) {
            warn!(directory = %root.display(), "the pin directory is not in a bpffs; programs end with the agent");
            return Ok(None);
        }
        let directory = of_this_namespace(root)?;
        let mut lock = claim(root, &directory);
        for _ in 1..ATTEMPTS {
            match &lock {
                Err(Error::Pins { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    lock = claim(root, &directory);
                }
                _ => break,
            }
        }
        let pins = Self { _lock: lock?, directory };
        pins.discard_unfinished();
        discard_layout_without_namespaces(root);
        discard_ended_namespaces(root, &pins.directory);
        Ok(Some(pins))
    }

    /// Path of the pin of a map. Creates its directory.
    pub(super) fn map(&self, name: &str) -> Result<PathBuf, Error> {
        let directory = self.directory.join(format!("{LAYOUT}{ABI}"));
        make(&directory)?;
        Ok(directory.join(name))
    }

    /// Whether an earlier agent pinned maps with this layout.
    pub(super) fn has_maps(&self) -> bool {
        self.directory.join(format!("{LAYOUT}{ABI}")).exists()
    }

    /// Removes the pins of the maps.
    pub(super) fn forget_maps(&self) {
        discard(&self.directory.join(format!("{LAYOUT}{ABI}")));
    }

    /// The pinned link of a program, if it is valid.
    pub(super) fn link(&self, place: Place<'_>, program: &str, mode: Mode) -> Option<FdLink> {
        let path = self.link_path(place, program, mode);
        match PinnedLink::from_pin(&path) {
            Ok(link) => Some(FdLink::from(link)),
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                debug!(path = %path.display(), %error, "a pinned link is not valid");
                self.forget(place, program, mode);
                None
            }
        }
    }

    /// Whether a link of the program is pinned.
    pub(super) fn has_link(&self, place: Place<'_>, program: &str, mode: Mode) -> bool {
        self.link_path(place, program, mode).exists()
    }

    /// Pins a link, so that it stays attached when the agent ends.
    pub(super) fn keep(&self, link: FdLink, place: Place<'_>, program: &str, mode: Mode) -> Result<(), Error> {
        let path = self.link_path(place, program, mode);
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        link.pin(&path)
            .map(drop)
            .map_err(|error| Error::Pins { directory: path, source: io::Error::other(error.to_string()) })
    }

    /// Pins a link in place of an earlier one, which is thereby detached.
    pub(super) fn replace(&self, link: FdLink, place: Place<'_>, program: &str, mode: Mode) -> Result<(), Error> {
        let path = self.link_path(place, program, mode);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let failed = |source| Error::Pins { directory: path.clone(), source };
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        link.pin(&unfinished).map_err(|error| failed(io::Error::other(error)))?;
        fs::rename(&unfinished, &path).map_err(failed)
    }

    /// Removes links of an agent that was killed in [`Pins::replace`] before the rename.
    fn discard_unfinished(&self) {
        let links = entries(&self.directory.join(LINKS)).into_iter().flat_map(|interface| entries(&interface));
        for unfinished in links.filter(|link| is_link(&file_name(link)) && file_name(link).ends_with(UNFINISHED)) {
            discard(&unfinished);
        }
    }

    /// Pins the program of a filter in place of an earlier one. A filter has no link that could be pinned.
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

    /// Removes the pin of a link. This detaches the program, unless a process has the link open. A filter is detached
    /// first.
    pub(super) fn forget(&self, place: Place<'_>, program: &str, mode: Mode) {
        let path = self.link_path(place, program, mode);
        if mode == Mode::Tc && !kernel::has_tcx() && path.exists() {
            clsact::detach(place.interface, program);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(path = %path.display(), %error, "cannot remove a pinned link");
            }
            _ => {}
        }
    }

    /// Removes all links of an interface, with any index.
    pub(super) fn forget_interface(&self, interface: &str) {
        let prefix = directory_name(interface, "");
        self.remove_links(|name| name.starts_with(&prefix));
    }

    /// Removes the links of all interfaces except for `places`, and maps with other layouts.
    pub(super) fn tidy<'a>(&self, places: impl Iterator<Item = Place<'a>>) {
        let current = format!("{LAYOUT}{ABI}");
        for entry in entries(&self.directory) {
            let name = file_name(&entry);
            if is_layout(&name) && name != current {
                discard(&entry);
            }
        }
        let kept: Vec<String> = places.map(|place| directory_name(place.interface, place.ifindex)).collect();
        self.remove_links(|name| !kept.iter().any(|kept| kept == name));
    }

    fn remove_links(&self, goes: impl Fn(&str) -> bool) {
        let links = entries(&self.directory.join(LINKS)).into_iter();
        links.filter(|entry| is_place(&file_name(entry)) && goes(&file_name(entry))).for_each(|entry| {
            detach_filters(&entry);
            discard(&entry);
        });
    }

    /// Removes all pins of this network namespace and its directory. This detaches the programs.
    pub(super) fn remove(self) {
        for entry in entries(&self.directory.join(LINKS)) {
            detach_filters(&entry);
        }
        discard_namespace(&self.directory);
        if let Some(root) = self.directory.parent() {
            // This fails if there are directories of other namespaces.
            let _ = fs::remove_dir(root);
        }
    }

    fn link_path(&self, place: Place<'_>, program: &str, mode: Mode) -> PathBuf {
        let directory = directory_name(place.interface, place.ifindex);
        self.directory.join(LINKS).join(directory).join(format!("{program}-{mode}"))
    }
}

/// Removes the pins below `root` of agents in this network namespace and in namespaces that no longer exist. Entries
/// whose names agents do not use are kept.
///
/// # Errors
/// [`Error::PinsTaken`] while an agent uses the directory, [`Error::NoBpffs`] if `root` is not in a bpffs,
/// [`Error::Pins`] if the kernel refuses.
pub fn unpin(root: &Path) -> Result<Unpinned, Error> {
    let mut unpinned = Unpinned::default();
    if !root.exists() {
        return Ok(unpinned);
    }
    if !in_bpffs(root) {
        return Err(Error::NoBpffs(root.to_owned()));
    }
    let failed = |source| Error::Pins { directory: root.to_owned(), source };
    let own = of_this_namespace(root)?;
    if own.exists() {
        let lock = lock(root, &own)?;
        for entry in entries(&own.join(LINKS)) {
            detach_filters(&entry);
        }
        remove_namespace(&own, &mut unpinned.removed).map_err(failed)?;
        drop(lock);
    }
    if lock(root, root).is_ok() {
        for entry in entries(root).iter().filter(|entry| is_pinned_by_agents(&file_name(entry))) {
            remove_pins(entry, &mut unpinned.removed).map_err(failed)?;
        }
    }
    for other in entries(root).into_iter().filter(|entry| is_namespace(&file_name(entry))) {
        if has_ended(&other) {
            remove_namespace(&other, &mut unpinned.removed).map_err(failed)?;
        } else {
            unpinned.left.push(other);
        }
    }
    // This fails if other entries are left.
    let _ = fs::remove_dir(root);
    Ok(unpinned)
}

/// Interfaces of this network namespace with pins below `root`. `None` if there are no pins.
pub fn pinned_interfaces(root: &Path) -> Option<Vec<String>> {
    let links = fs::read_dir(of_this_namespace(root).ok()?.join(LINKS)).ok()?;
    Some(links.flatten().filter_map(|entry| interface_of(&entry.path())).collect())
}

/// The directory of this network namespace.
fn of_this_namespace(root: &Path) -> Result<PathBuf, Error> {
    let cookie = netns::cookie().map_err(Error::NetworkNamespace)?;
    Ok(root.join(format!("{NAMESPACE}{cookie}")))
}

/// Creates the directory of this network namespace with its witness, and locks it.
fn claim(root: &Path, directory: &Path) -> Result<Flock<File>, Error> {
    make(directory)?;
    let lock = lock(root, directory)?;
    let witness = directory.join(WITNESS);
    if !witness.exists() {
        netns::pin_witness(&witness).map_err(|source| Error::Pins { directory: witness, source })?;
    }
    Ok(lock)
}

/// Locks a directory below `root`. The lock is held while the agent runs.
fn lock(root: &Path, directory: &Path) -> Result<Flock<File>, Error> {
    let failed = |source| Error::Pins { directory: directory.to_owned(), source };
    let file = File::open(directory).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => Error::PinsTaken(root.to_owned()),
        other => failed(other.into()),
    })
}

/// Removes pins of versions that had no directory per network namespace, because their namespace is unknown. They are
/// kept while such an agent runs.
fn discard_layout_without_namespaces(root: &Path) {
    if lock(root, root).is_ok() {
        for entry in entries(root).iter().filter(|entry| is_pinned_by_agents(&file_name(entry))) {
            discard(entry);
        }
    }
}

/// Removes the directories of network namespaces that no longer exist.
fn discard_ended_namespaces(root: &Path, own: &Path) {
    let others = entries(root).into_iter().filter(|entry| entry != own && is_namespace(&file_name(entry)));
    for ended in others.filter(|entry| has_ended(entry)) {
        info!(directory = %ended.display(), "removing the pins of a network namespace that no longer exists");
        discard_namespace(&ended);
    }
}

/// Whether a directory is that of a network namespace that no longer exists. A directory without a witness is that of
/// an agent only if it is empty.
fn has_ended(directory: &Path) -> bool {
    let witness = directory.join(WITNESS);
    if witness.exists() { !netns::lives(&witness) } else { entries(directory).is_empty() }
}

fn discard_namespace(directory: &Path) {
    if let Err(error) = remove_namespace(directory, &mut Vec::new()) {
        warn!(directory = %directory.display(), %error, "cannot remove pins");
    }
}

/// Removes the pins of a network namespace. The witness is removed last, because it identifies the namespace.
fn remove_namespace(directory: &Path, removed: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in entries(directory).iter().filter(|entry| is_pinned_by_agents(&file_name(entry))) {
        remove_pins(entry, removed)?;
    }
    match fs::remove_file(directory.join(WITNESS)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_empty(directory)
}

/// Whether the name of an entry in the directory of a network namespace is one that agents use.
fn is_pinned_by_agents(name: &str) -> bool {
    name == LINKS || is_layout(name)
}

fn is_layout(name: &str) -> bool {
    name.strip_prefix(LAYOUT).is_some_and(|number| number.parse::<u32>().is_ok())
}

fn is_namespace(name: &str) -> bool {
    name.strip_prefix(NAMESPACE).is_some_and(|cookie| cookie.parse::<u64>().is_ok())
}

fn make(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| Error::Pins { directory: directory.to_owned(), source })
}

/// Directory name for an interface. Dots are escaped, because a bpffs reserves them (Linux 4.4). The name of an
/// interface contains no colon.
fn directory_name(interface: &str, ifindex: impl Display) -> String {
    format!("{}:{ifindex}", interface.replace('.', "%2E"))
}

/// The interface whose links are in a directory, if it still exists with the same index.
fn interface_of(directory: &Path) -> Option<String> {
    let name = file_name(directory);
    let (interface, index) = name.rsplit_once(':')?;
    let interface = interface.replace("%2E", ".");
    let index: u32 = index.parse().ok()?;
    (if_nametoindex(interface.as_str()) == Ok(index)).then_some(interface)
}

/// Detaches the filters whose programs are pinned in a directory. Removing the pins does not detach them.
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

/// Whether the directory, or its first existing parent, is in a bpffs.
fn in_bpffs(directory: &Path) -> bool {
    let existing = directory.ancestors().find(|path| path.exists());
    existing.is_some_and(|path| statfs(path).is_ok_and(|system| system.filesystem_type() == BPF_FS_MAGIC))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Removes a pin, or all pins of agents in a directory and then the empty directories. Other entries are kept.
fn remove_pins(path: &Path, removed: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        fs::remove_file(path)?;
        removed.push(path.to_owned());
        return Ok(());
    }
    let is_ours = names_in(path);
    for entry in entries(path).iter().filter(|entry| is_ours(&file_name(entry))) {
        remove_pins(entry, removed)?;
    }
    remove_empty(path)
}

/// Removes a directory if it is empty.
fn remove_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}

/// A check for the names that agents use in a directory.
fn names_in(directory: &Path) -> fn(&str) -> bool {
    let name = file_name(directory);
    if name == LINKS {
        is_place
    } else if name == format!("{LAYOUT}{ABI}") {
        |name| MAPS.contains(&name)
    } else if is_layout(&name) {
        // Another version may have other maps, but the names have the same form.
        |name| !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_uppercase())
    } else {
        is_link
    }
}

/// Whether an entry is the directory of the links of an interface.
fn is_place(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(interface, index)| !interface.is_empty() && index.parse::<u32>().is_ok())
}

/// Whether an entry is a link, renamed or not.
fn is_link(name: &str) -> bool {
    let Some((program, mode)) = name.strip_suffix(UNFINISHED).unwrap_or(name).rsplit_once('-') else { return false };
    PROGRAMS.contains(&program) && [Mode::Native, Mode::Generic, Mode::Tc].iter().any(|known| known.label() == mode)
}

fn discard(path: &Path) {
    match remove_pins(path, &mut Vec::new()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "cannot remove pins");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_outside_a_bpffs_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("links");
        fs::write(&file, "data").expect("a file");
        assert!(matches!(unpin(directory.path()), Err(Error::NoBpffs(_))));
        assert!(file.exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_nothing_to_take_off() {
        assert_eq!(unpin(Path::new("/nonexistent/tr111")).expect("nothing to do"), Unpinned::default());
    }

    #[test]
    fn agents_name_what_they_pin() {
        assert!(["links", "abi-5", "abi-12"].into_iter().all(is_pinned_by_agents));
        assert!(!["abi-", "abi-x", "abi", "link", "ip", "netns-7", "namespace"].into_iter().any(is_pinned_by_agents));
        assert!(is_namespace("netns-4026531840") && !is_namespace("netns-") && !is_namespace("netns-a"));
    }

    /// The test uses files in place of pins.
    #[test]
    fn only_pins_with_names_of_ours_are_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let current = format!("abi-{ABI}");
        let [config, small, cilium] = ["CONFIG", "config", "CILIUM_MAP"].map(|name| format!("{current}/{name}"));
        let ours = [
            config.as_str(),
            "abi-1/RETIRED_MAP",
            "links/lan0:3/lan_egress-tc",
            "links/lan0:3/lan_ingress-native+",
            "links/eth0%2E7:12/wan_ingress-generic",
        ];
        let others = [
            "cilium_calls",
            "cilium/tc/globals",
            "abi-x/CONFIG",
            "abi-1/jump_table",
            small.as_str(),
            cilium.as_str(),
            "links/cilium/lan_egress-tc",
            "links/lan0:3/cil_from_netdev",
            "links/lan0:3/lan_egress-tcx2",
            "links/lan0:3/other-tc",
        ];
        for path in ours.iter().chain(&others).map(|path| directory.path().join(path)) {
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "").expect("written");
        }
        let mut removed = Vec::new();
        for _ in 0..2 {
            remove_namespace(directory.path(), &mut removed).expect("removable");
        }
        removed.sort();
        let mut expected = ours.map(|path| directory.path().join(path));
        expected.sort();
        assert_eq!(removed, expected);
        assert!(others.iter().all(|path| directory.path().join(path).exists()));
        assert!(!directory.path().join("links/eth0%2E7:12").exists(), "an empty directory of ours");
    }

    #[test]
    fn directories_of_ours_are_removed_with_their_last_pin() {
        let directory = tempfile::tempdir().expect("a directory");
        let namespace = directory.path().join("netns-7");
        for path in ["links/lan0:3/lan_egress-tc", "abi-1/CONFIG", WITNESS].map(|path| namespace.join(path)) {
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "").expect("written");
        }
        remove_namespace(&namespace, &mut Vec::new()).expect("removable");
        assert!(!namespace.exists());
    }
}
