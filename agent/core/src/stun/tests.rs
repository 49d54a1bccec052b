//! Tests of STUN with the test vectors in `vectors`.

mod codec;
mod copies;
mod properties;
mod schedule;
pub(crate) mod vectors;
