//! Makes bpf-linker let LLVM expand `memset` inline. The linker disables that together with the ordered expansion of
//! `memcpy`. Without it, a call remains that writes byte by byte, and older verifiers (Linux 6.1) verify every
//! iteration.

fn main() {
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    println!("cargo::rerun-if-changed=build.rs");
}
