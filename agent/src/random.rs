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
