//! Features of network devices (`SIOCETHTOOL`, linux/ethtool.h).

use std::{io, os::fd::AsRawFd, os::unix::net::UnixDatagram};

/// Command codes.
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
/// The string set with the names of features.
const FEATURES: u32 = 4;
/// Length of a name in words (`ETH_GSTRING_LEN`).
const NAME_WORDS: usize = 8;
/// Words for 32 features: the bits of available, requested, active and never-changed features.
const BLOCK_WORDS: usize = 4;
const ACTIVE: usize = 2;

/// The features, by their ethtool(8) names, with which a device merges datagrams of one flow before TC programs see
/// them.
pub const MERGING: [&str; 2] = ["rx-gro-list", "rx-udp-gro-forwarding"];

/// Returns the features of [`MERGING`] that are active on an interface.
///
/// # Errors
/// The interface does not exist, or the kernel's error.
pub fn merging(interface: &str) -> io::Result<Vec<&'static str>> {
    let names = names(interface)?;
    let blocks = names.len().div_ceil(32);
    let mut answer = vec![0; 2 + blocks * BLOCK_WORDS];
    [answer[0], answer[1]] = [GFEATURES, blocks as u32];
    ask(interface, &mut answer)?;
    let is_active = |at: usize| {
        let block = answer.get(2 + at / 32 * BLOCK_WORDS + ACTIVE);
        block.is_some_and(|bits| bits >> (at % 32) & 1 == 1)
    };
    let active = |name: &&str| names.iter().position(|known| known == name).is_some_and(is_active);
    Ok(MERGING.into_iter().filter(active).collect())
}

/// The names of all features, in the order of their bits.
fn names(interface: &str) -> io::Result<Vec<String>> {
    // The command, a reserved word, a mask of 64 bits, and the size of each string set in the mask.
    let mut sizes = [GSSET_INFO, 0, 0, 0, 0];
    let mask = (1u64 << FEATURES).to_ne_bytes();
    for (word, bytes) in sizes[2..4].iter_mut().zip(mask.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    ask(interface, &mut sizes)?;
    let count = sizes[4] as usize;
    // The command, the string set, its size, and the names.
    let mut answer = vec![0; 3 + count * NAME_WORDS];
    [answer[0], answer[1], answer[2]] = [GSTRINGS, FEATURES, sizes[4]];
    ask(interface, &mut answer)?;
    let name = |words: &[u32]| {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
        String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>()).into_owned()
    };
    Ok(answer[3..].chunks(NAME_WORDS).map(name).collect())
}

/// Sends the command in `words` to the kernel, which writes the reply to `words`. `words` must be as long as the reply.
fn ask(interface: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: `ifreq` consists of numbers and pointers, for which all bits zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte terminates the name.
    let Some(room) = request.ifr_name.get_mut(..libc::IFNAMSIZ - 1).and_then(|name| name.get_mut(..interface.len()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    for (to, from) in room.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // Any socket of the network namespace can be used.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: `words` is as long as the reply that the kernel writes to `ifru_data`. The length depends on the number
    // of features, which does not change while a kernel runs.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_the_features_by_these_names() {
        let names = names("lo").expect("the loopback interface has features");
        assert!(MERGING.iter().all(|name| names.iter().any(|known| known == name)), "{names:?}");
        assert_eq!(merging("lo").expect("an answer"), [""; 0]);
        assert!(merging("nosuchlink").is_err());
        assert!(merging("a-name-that-no-interface-can-have").is_err());
    }
}
