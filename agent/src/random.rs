//! Randomness of the system, for what nobody may guess.

use std::{
    fs::File,
    io::{self, Read},
};

/// Random bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Random numbers.
pub fn words<const N: usize>() -> io::Result<[u64; N]> {
    let mut words = [[0; 8]; N];
    File::open("/dev/urandom")?.read_exact(words.as_flattened_mut())?;
    Ok(words.map(u64::from_ne_bytes))
}
