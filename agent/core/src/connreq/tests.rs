//! Tests of UDP Connection Requests with the test vectors in `vectors`.

mod properties;
mod receiving;
mod sending;
mod vectors;
