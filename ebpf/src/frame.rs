//! All packet access: the two kernel contexts as [`Frame`], and the copy into the scratch buffer.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{
        bpf_loop, bpf_skb_load_bytes, bpf_skb_vlan_push, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
        bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use core::ffi::c_void;
use tr111_common::{
    frame::{FRAME_CAPACITY, Frame, Repeat, Step},
    stun::{DATAGRAM, Datagram},
};

/// A frame in a hook: its bytes, and what the kernel knows about it.
pub trait Packet: Frame {
    /// Kernel index of the interface.
    fn ifindex(&self) -> u32;
    /// VLAN tag control information that the kernel took out of the frame.
    fn metadata_tag(&self) -> Option<u16>;
    /// The context, for `aya-log`.
    fn context(&self) -> &impl EbpfContext;
    /// Reads `length` bytes at `offset`; the caller bounds `length` by the room at `to`.
    fn read(&self, offset: u32, to: *mut u8, length: u32) -> bool;
    /// Copies the first `length` bytes, 1 to [`FRAME_CAPACITY`]; `false` where the kernel refuses.
    fn copy(&self, to: &mut [u8; FRAME_CAPACITY], length: usize) -> bool;
}

/// The bytes at `offset` by direct access, where the linear part has them.
///
/// The fixed-size read of at least two bytes matters: the verifier refuses a one-byte check on a variable offset.
#[inline(always)]
fn direct<const N: usize>(data: usize, data_end: usize, offset: usize) -> Option<[u8; N]> {
    let start = data + offset;
    if start + N > data_end {
        return None;
    }
    // SAFETY: the check above proves that `N` bytes from `start` lie inside the packet, and the verifier holds us to it.
    Some(unsafe { core::ptr::read_unaligned(start as *const [u8; N]) })
}

/// A frame at XDP.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Turns the frame into one to its sender: the Ethernet addresses change places, `datagram` takes the place of
    /// everything from `ip` on, and tags stay. `false`, and the frame as it was, where there is no room for it.
    #[inline(always)]
    pub fn send_back(&self, ip: usize, datagram: &Datagram) -> bool {
        match ip {
            14 => self.send_back_behind::<2>(datagram),
            18 => self.send_back_behind::<6>(datagram),
            22 => self.send_back_behind::<10>(datagram),
            _ => false,
        }
    }

    /// The same with `N` bytes of tags and type behind the addresses.
    #[inline(always)]
    fn send_back_behind<const N: usize>(&self, datagram: &Datagram) -> bool {
        let (Some(to), Some(from), Some(kind)) = (self.load::<6>(0), self.load::<6>(6), self.load::<N>(12)) else {
            return false;
        };
        let linear = self.ctx.data_end() - self.ctx.data();
        if linear != self.len() {
            return false;
        }
        // It grows before anything is written, and shrinks after: nothing is lost where the driver refuses. All of it is
        // written anew, so room in front is as good as room behind, of which a veth may have none.
        let growth = ((12 + N + DATAGRAM).cast_signed() - linear.cast_signed()) as i32;
        if growth > 0 && !self.adjust_tail(growth) && !self.adjust_head(-growth) {
            return false;
        }
        let is_written =
            self.write(12 + N, datagram) && self.store(0, &from) && self.store(6, &to) && self.store(12, &kind);
        if growth < 0 {
            self.adjust_tail(growth);
        }
        is_written
    }

    /// Makes the frame the first `length` bytes of `request`, one less than it has, with a transaction of its own and from
    /// one of `sources` ports.
    #[inline(always)]
    pub fn replace<const N: usize>(&self, request: &[u8; N], length: u32, number: u32, sources: u32) -> bool {
        // Ethernet, IPv4 and UDP headers have 42 bytes, and a transaction starts 4 bytes behind them.
        const SOURCE_PORT: usize = 34;
        const TRANSACTION: usize = 46;
        // For the verifier, as everywhere: opaque, and bounded as 64 bits.
        let length = core::hint::black_box(u64::from(length));
        if length == 0 || length > N as u64 || !self.adjust_tail(-1) {
            return false;
        }
        // SAFETY: `request` has the `length` bytes.
        let is_written =
            unsafe { bpf_xdp_store_bytes(self.ctx.ctx, 0, request.as_ptr().cast_mut().cast(), length as u32) == 0 };
        let port = u16::from_be_bytes([request[SOURCE_PORT], request[SOURCE_PORT + 1]]);
        let port = port.wrapping_add((number % sources.max(1)) as u16);
        is_written && self.store(SOURCE_PORT, &port.to_be_bytes()) && self.store(TRANSACTION, &number.to_be_bytes())
    }

    #[inline(always)]
    fn adjust_tail(&self, by: i32) -> bool {
        // SAFETY: the context is the one the kernel gave; packet pointers are taken anew after the call.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, by) == 0 }
    }

    #[inline(always)]
    fn adjust_head(&self, by: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, by) == 0 }
    }

    /// Writes a datagram by the helper (Linux 5.18), which copies it whole; a store of our own would go byte by byte.
    #[inline(always)]
    fn write(&self, offset: usize, datagram: &Datagram) -> bool {
        // SAFETY: `datagram` has `DATAGRAM` bytes; beyond the frame the helper fails.
        unsafe {
            bpf_xdp_store_bytes(
                self.ctx.ctx,
                offset as u32,
                core::ptr::from_ref(datagram).cast_mut().cast(),
                DATAGRAM as u32,
            ) == 0
        }
    }

    /// Writes to the linear part.
    #[inline(always)]
    fn store<const N: usize>(&self, offset: usize, bytes: &[u8; N]) -> bool {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return false;
        }
        // SAFETY: the check above proves that `N` bytes from `start` lie inside the packet, which is this program's alone
        // while it runs, and the verifier holds us to it.
        unsafe { core::ptr::write_unaligned(start as *mut [u8; N], *bytes) };
        true
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is the one the kernel gave; the helper (Linux 5.18) counts fragments too.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = direct(self.ctx.data(), self.ctx.data_end(), offset) {
            return Some(bytes);
        }
        let mut bytes = [0; N];
        // SAFETY: `bytes` has room for the `N` bytes asked for; beyond the frame the helper fails.
        let result = unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        (result == 0).then_some(bytes)
    }
}

impl Packet for XdpFrame<'_> {
    #[inline(always)]
    fn context(&self) -> &impl EbpfContext {
        self.ctx
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn metadata_tag(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn read(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller bounds `length` by the room at `to`, and the verifier holds it to that.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn copy(&self, to: &mut [u8; FRAME_CAPACITY], length: usize) -> bool {
        // SAFETY: the caller bounds `length` by the capacity of `to`, and the verifier holds us to it.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, 0, to.as_mut_ptr().cast(), length as u32) == 0 }
    }
}

/// A frame at TC.
pub struct SkbFrame<'a> {
    ctx: &'a TcContext,
}

impl<'a> SkbFrame<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

impl SkbFrame<'_> {
    /// The kernel's context, for helpers that change the frame.
    #[inline(always)]
    pub fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Puts a VLAN tag of type 0x8100 into metadata; one that is there moves into the frame.
    #[inline(always)]
    pub fn push_tag(&self, tag: u16) {
        // SAFETY: the context is the one the kernel gave. Where the helper fails, the frame stays as it is.
        unsafe { bpf_skb_vlan_push(self.skb(), 0x8100_u16.to_be(), tag) };
    }

    /// Sets the bits of `value` under `mask` in the packet mark; the others belong to somebody else.
    #[inline(always)]
    pub fn mark(&self, value: u32, mask: u32) {
        // SAFETY: the context is the `__sk_buff` that the kernel gave.
        let before = unsafe { (*self.ctx.skb.skb).mark };
        self.ctx.set_mark((before & !mask) | (value & mask));
    }
}

impl Frame for SkbFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = direct(self.ctx.data(), self.ctx.data_end(), offset) {
            return Some(bytes);
        }
        let mut bytes = [0; N];
        // SAFETY: `bytes` has room for the `N` bytes asked for; beyond the frame the helper fails.
        let result =
            unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        (result == 0).then_some(bytes)
    }
}

impl Packet for SkbFrame<'_> {
    #[inline(always)]
    fn context(&self) -> &impl EbpfContext {
        self.ctx
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the `__sk_buff` that the kernel gave.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    #[inline(always)]
    fn metadata_tag(&self) -> Option<u16> {
        // SAFETY: as above.
        let (present, tag) = unsafe { ((*self.ctx.skb.skb).vlan_present, (*self.ctx.skb.skb).vlan_tci) };
        (present != 0).then_some(tag as u16)
    }

    #[inline(always)]
    fn read(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller bounds `length` by the room at `to`, and the verifier holds it to that.
        unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn copy(&self, to: &mut [u8; FRAME_CAPACITY], length: usize) -> bool {
        // SAFETY: the caller bounds `length` by the capacity of `to`, and the verifier holds us to it.
        unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), 0, to.as_mut_ptr().cast(), length as u32) == 0 }
    }
}

/// Loops by `bpf_loop` (Linux 5.17), whose body the verifier reads once.
#[derive(Clone, Copy)]
pub struct KernelLoop;

impl Repeat for KernelLoop {
    #[inline(always)]
    fn repeat<S: Step>(self, turns: u32, step: &mut S) {
        // SAFETY: `step` lives on this stack frame for the whole call, and `turn::<S>` gets it back as the same type.
        unsafe {
            bpf_loop(turns, turn::<S> as *mut c_void, core::ptr::from_mut(step).cast(), 0);
        }
    }
}

/// One turn of `bpf_loop`: 0 goes on, 1 ends the loop.
extern "C" fn turn<S: Step>(index: u64, step: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a live, exclusive `S`.
    let step = unsafe { &mut *step.cast::<S>() };
    i64::from(!step.step(index as u32))
}
