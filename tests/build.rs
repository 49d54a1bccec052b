//! Tells `testing.rs` where the agent's build script left the programs of tests and benchmarks.

fn main() {
    let object = std::env::var("DEP_TR111_EBPF_TESTING").expect("the agent's build script tells");
    println!("cargo::rustc-env=TR111_TESTING_OBJECT={object}");
    println!("cargo::rerun-if-changed={object}");
}
