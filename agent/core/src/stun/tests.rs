//! Classic STUN against the vectors of the requirements catalogue (H.2).

mod codec;
mod copies;
mod properties;
mod schedule;
pub(crate) mod vectors;
