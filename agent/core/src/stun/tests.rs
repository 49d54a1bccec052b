//! Classic STUN against the vectors of the requirements catalogue (H.2).

mod codec;
mod properties;
mod schedule;
mod vectors;
