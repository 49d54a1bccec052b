//! Random numbers of the system, for values that must not be predictable.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Random bytes from `getrandom(2)`, which needs no `/dev`.
///
/// # Errors
/// The call was interrupted by a signal, or a seccomp filter forbids it.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Random 64-bit numbers.
///
/// # Errors
/// As [`bytes`].
pub fn words<const N: usize>() -> io::Result<[u64; N]> {
    let mut words = [[0; 8]; N];
    fill(words.as_flattened_mut())?;
    Ok(words.map(u64::from_ne_bytes))
}

fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let length = getrandom(&mut *bytes, GetRandomFlags::empty())?;
        bytes = &mut bytes[length..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_are_alike() {
        let [a, b] = super::words().expect("a system with randomness");
        assert!(a != b && super::bytes::<1024>().expect("more than one call may give").iter().any(|byte| *byte != 0));
    }
}
