//! Tells bpf-linker to let LLVM expand memset, which its order of memcpy's accesses switches off: the call that is left
//! otherwise writes byte by byte, and older verifiers (Linux 6.1) walk it byte by byte.

fn main() {
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    println!("cargo::rerun-if-changed=build.rs");
}
