//! Packet access for the kernel programs of tr111 (`main.rs`) and for those of its tests and benchmarks (`testing.rs`),
//! which are a separate object and not part of a release.
#![no_std]
#![feature(asm_experimental_arch)]

pub mod frame;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
