//! Packet access in the kernel programs, for those of tr111 (`main.rs`) and for those of its tests and benchmarks
//! (`testing.rs`), which are an object of their own and never shipped.
#![no_std]
#![feature(asm_experimental_arch)]

pub mod frame;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
