//! UDP Connection Requests against the vectors of the requirements catalogue (H.3).

mod properties;
mod receiving;
mod sending;
mod vectors;
