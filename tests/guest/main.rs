//! What runs in the guests of `cargo xtask kernels`: tests of the loaded programs, which every kernel has to pass, and
//! stories on interfaces that the kernel of a development machine may not have.

#[path = "../tests/acs_corpus.rs"]
mod acs_corpus;
#[path = "../tests/acs_xdp.rs"]
mod acs_xdp;
mod chroot;
#[path = "../tests/corpus_programs.rs"]
mod corpus_programs;
#[path = "../tests/insertion.rs"]
mod insertion;
mod links;
#[path = "../tests/nat_timeouts.rs"]
mod nat_timeouts;
mod rows;
