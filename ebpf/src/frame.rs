//! All packet access: the two kernel contexts as [`Frame`], and the helpers that copy.
//!
//! # Theory of operation
//!
//! Headers are read by direct packet access where the linear part of the frame has them, and by a helper elsewhere. A
//! frame that a hook inspects further is copied once into a map value ([`Copied`]); options and attributes are read
//! from the copy.
//!
//! Three patterns that every verifier since Linux 6.1 accepts are implemented here once:
//!
//! * The length argument of a helper is a [`Length`].
//! * A variable offset in a buffer is a [`Place`].
//! * A loop is a [`KernelLoop`]; [`Step`] explains where its state has to be.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{
        bpf_loop, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_skb_vlan_push, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
        bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use core::{arch::asm, ffi::c_void, mem::MaybeUninit};
use tr111_common::{
    frame::{FRAME_WORDS, Frame, GATHERED_MAXIMUM, GATHERED_WORDS, Octets, Repeat, Source, Step},
    stun::{DATAGRAM, Datagram},
    words::{WORD, Words},
};

/// Masks `value` to less than the size of `WORDS` words, which is a power of two. The compiler cannot remove this mask,
/// because it does not know what the instruction does.
#[inline(always)]
fn mask<const WORDS: usize>(value: u64) -> u64 {
    const { assert!(WORDS.is_power_of_two() && WORDS <= FRAME_WORDS) };
    let mut masked = value;
    // SAFETY: one instruction on one register.
    unsafe {
        asm!("{0} &= {1}", inout(reg) masked, const WORDS * WORD - 1, options(pure, nomem, nostack, preserves_flags));
    };
    masked
}

/// A number of bytes for a helper: from 1 to the size of `WORDS` words, which is a power of two.
#[derive(Clone, Copy)]
pub struct Length<const WORDS: usize>(u32);

impl<const WORDS: usize> Length<WORDS> {
    const MAXIMUM: usize = WORDS * WORD;

    /// `None` if `bytes` is 0 or greater than the maximum.
    #[inline(always)]
    pub fn new(bytes: u32) -> Option<Self> {
        if bytes == 0 || bytes as usize > Self::MAXIMUM { None } else { Some(Self(bytes)) }
    }

    /// The number of bytes, for arithmetic.
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// The number of bytes in a form that every verifier accepts, as the argument of a helper.
    ///
    /// The checks in [`Length::new`] are not enough: Linux 6.1 derives no lower bound from `x != 0`, and where the
    /// compiler merges the checks into one comparison of `x - 1`, Linux 6.12 derives no bounds of `x`. From a mask and
    /// an addition both derive a minimum and a maximum.
    #[inline(always)]
    pub fn argument(self) -> u32 {
        (mask::<WORDS>(u64::from(self.0) - 1) + 1) as u32
    }
}

/// An offset in a buffer: a byte of its first `WORDS` words, a power of two.
#[derive(Clone, Copy)]
pub struct Place<const WORDS: usize>(u32);

impl<const WORDS: usize> Place<WORDS> {
    /// The offset `at`; it is reduced modulo the number of bytes.
    #[inline(always)]
    pub fn new(at: u32) -> Self {
        Self(at)
    }

    /// The offset in a form that every verifier accepts.
    #[inline(always)]
    fn offset(self) -> usize {
        mask::<WORDS>(self.0.into()) as usize
    }
}

/// A frame at a hook: its bytes and its metadata.
pub trait Packet: Frame {
    /// Kernel index of the interface at which the program runs.
    fn ifindex(&self) -> u32;
    /// Tag control information of the VLAN tag that the kernel removed from the frame.
    fn metadata_tag(&self) -> Option<u16>;
    /// Payload length in bytes of the datagrams that the kernel merged into this frame (GRO); the last one may be
    /// shorter. 0 if the frame is a single datagram.
    fn stride(&self) -> u32;
    /// The context, for `aya-log`.
    fn context(&self) -> &impl EbpfContext;
    /// Copies `length` bytes at `offset` to `to`; `false` if the frame ends before them.
    ///
    /// # Safety
    /// `to` has room for `length` bytes.
    unsafe fn load_to(&self, offset: u32, length: u32, to: *mut u8) -> bool;

    /// Copies `length` bytes at `offset` to the start of `to`; `false` if the frame ends before them.
    #[inline(always)]
    fn read<const L: usize, const N: usize>(&self, offset: u32, length: Length<L>, to: &mut Words<N>) -> bool {
        const { assert!(L <= N) };
        // SAFETY: a length does not exceed `L` words.
        unsafe { self.load_to(offset, length.argument(), to.0.as_mut_ptr().cast()) }
    }

    /// Copies `length` bytes at `offset` to `place` in `to`; `false` if the frame ends before them.
    #[inline(always)]
    fn read_to<const P: usize, const L: usize, const N: usize>(
        &self,
        offset: u32,
        length: Length<L>,
        to: &mut Words<N>,
        place: Place<P>,
    ) -> bool {
        const { assert!(P + L <= N) };
        // SAFETY: a place is in the first `P` words, and a length does not exceed `L` words.
        unsafe {
            let to = to.0.as_mut_ptr().cast::<u8>().add(place.offset());
            self.load_to(offset, length.argument(), to)
        }
    }
}

/// A copy of a frame.
#[repr(C)]
pub struct Copied {
    /// The bytes of the copy.
    pub words: Words<FRAME_WORDS>,
    /// Distance in bytes by which the payload is further back in the frame than in the copy; not 0 if the copy is one
    /// of several merged datagrams. It is in a map value, because the verifier would verify each value of a stack
    /// variable separately.
    pub shift: u32,
}

impl Octets for Copied {
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        self.words.octet(at)
    }

    #[inline(always)]
    fn be16(&self, at: u32) -> u16 {
        self.words.be16(at)
    }

    #[inline(always)]
    fn be32(&self, at: u32) -> u32 {
        self.words.be32(at)
    }

    #[inline(always)]
    fn be64(&self, at: u32) -> u64 {
        self.words.be64(at)
    }

    #[inline(always)]
    fn four(&self, at: u32) -> [u8; 4] {
        self.words.four(at)
    }
}

/// A frame together with its copy. Single words are read from the copy; longer pieces of the payload are copied from
/// the frame, by one helper call each.
pub struct Captured<'a, P> {
    /// The copy.
    pub copy: &'a Copied,
    /// The frame.
    pub packet: &'a P,
}

impl<P> Octets for Captured<'_, P> {
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        self.copy.octet(at)
    }

    #[inline(always)]
    fn be16(&self, at: u32) -> u16 {
        self.copy.be16(at)
    }

    #[inline(always)]
    fn be32(&self, at: u32) -> u32 {
        self.copy.be32(at)
    }

    #[inline(always)]
    fn be64(&self, at: u32) -> u64 {
        self.copy.be64(at)
    }

    #[inline(always)]
    fn four(&self, at: u32) -> [u8; 4] {
        self.copy.four(at)
    }
}

impl<P: Packet> Source for Captured<'_, P> {
    #[inline(always)]
    fn copy_to(&self, at: u32, length: u32, to: &mut Words<GATHERED_WORDS>, place: u32) -> bool {
        let place = Place::<{ GATHERED_MAXIMUM as usize / WORD }>::new(place);
        let at = at + self.copy.shift;
        Length::<32>::new(length).is_some_and(|length| self.packet.read_to(at, length, to, place))
    }
}

/// Reads `N` bytes at `offset` by direct access; `None` if the linear part of the frame does not have them.
///
/// `N` has to be at least 2, because the verifier refuses a one-byte check on a variable offset.
#[inline(always)]
fn direct<const N: usize>(data: usize, data_end: usize, offset: usize) -> Option<[u8; N]> {
    let start = data + offset;
    if start + N > data_end {
        return None;
    }
    // SAFETY: the check above proves that `N` bytes from `start` are inside the packet, and the verifier enforces it.
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

    /// Turns the frame into a reply to its sender: swaps the Ethernet addresses, replaces everything from offset `ip`
    /// on by `datagram`, and keeps VLAN tags. If there is no room, returns `false` and leaves the frame unchanged.
    #[inline(always)]
    pub fn send_back(&self, ip: usize, datagram: &Datagram) -> bool {
        match ip {
            14 => self.send_back_behind::<2>(datagram),
            18 => self.send_back_behind::<6>(datagram),
            22 => self.send_back_behind::<10>(datagram),
            _ => false,
        }
    }

    /// [`XdpFrame::send_back`] with `N` bytes of tags and type after the addresses.
    #[inline(always)]
    fn send_back_behind<const N: usize>(&self, datagram: &Datagram) -> bool {
        let (Some(to), Some(from), Some(kind)) = (self.load::<6>(0), self.load::<6>(6), self.load::<N>(12)) else {
            return false;
        };
        let linear = self.ctx.data_end() - self.ctx.data();
        if linear != self.len() {
            return false;
        }
        // The frame grows before anything is written and shrinks afterwards, so that nothing is lost if the driver
        // refuses. All bytes are rewritten, so the frame may grow at the front too; a veth may have no room at the end.
        let growth = ((12 + N + DATAGRAM).cast_signed() - linear.cast_signed()) as i32;
        if growth > 0 && !self.adjust_tail(growth) && !self.adjust_head(-growth) {
            return false;
        }
        let is_written = self.write_datagram(12 + N, datagram)
            && self.store(0, &from)
            && self.store(6, &to)
            && self.store(12, &kind);
        if growth < 0 {
            self.adjust_tail(growth);
        }
        is_written
    }

    /// Moves the end of the frame; `false` if there is no room.
    #[inline(always)]
    pub fn adjust_tail(&self, by: i32) -> bool {
        // SAFETY: the kernel provided the context; packet pointers are read again after the call.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, by) == 0 }
    }

    #[inline(always)]
    fn adjust_head(&self, by: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, by) == 0 }
    }

    /// Writes the first `length` bytes of `from` at `offset` by a helper (Linux 5.18), which copies all of them at
    /// once.
    #[inline(always)]
    pub fn write<const L: usize, const N: usize>(&self, offset: u32, length: Length<L>, from: &Words<N>) -> bool {
        const { assert!(L <= N) };
        let from = from.0.as_ptr().cast_mut().cast();
        // SAFETY: `from` has at least `length` bytes; the helper fails beyond the end of the frame.
        unsafe { bpf_xdp_store_bytes(self.ctx.ctx, offset, from, length.argument()) == 0 }
    }

    /// Writes a datagram by a helper; direct stores would be byte by byte.
    #[inline(always)]
    fn write_datagram(&self, offset: usize, datagram: &Datagram) -> bool {
        // SAFETY: `datagram` has `DATAGRAM` bytes; the helper fails beyond the end of the frame.
        unsafe {
            bpf_xdp_store_bytes(
                self.ctx.ctx,
                offset as u32,
                core::ptr::from_ref(datagram).cast_mut().cast(),
                DATAGRAM as u32,
            ) == 0
        }
    }

    /// Writes to the linear part of the frame; `false` if that ends before `offset + N`.
    #[inline(always)]
    pub fn store<const N: usize>(&self, offset: usize, bytes: &[u8; N]) -> bool {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return false;
        }
        // SAFETY: the check above proves that `N` bytes from `start` are inside the packet, which only this program
        // accesses while it runs, and the verifier enforces it.
        unsafe { core::ptr::write_unaligned(start as *mut [u8; N], *bytes) };
        true
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the kernel provided the context; the helper (Linux 5.18) includes fragments.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = direct(self.ctx.data(), self.ctx.data_end(), offset) {
            return Some(bytes);
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: `bytes` has room for `N` bytes, and all are initialised unless the helper fails.
        unsafe {
            let result = bpf_xdp_load_bytes(self.ctx.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32);
            if result == 0 { Some(bytes.assume_init()) } else { None }
        }
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
    fn stride(&self) -> u32 {
        // The kernel merges datagrams after the driver, and generic XDP does not expose the segment size.
        0
    }

    #[inline(always)]
    unsafe fn load_to(&self, offset: u32, length: u32, to: *mut u8) -> bool {
        // SAFETY: the caller's obligation; the helper fails beyond the end of the frame.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset, to.cast(), length) == 0 }
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
    /// The context, for a tail call.
    #[inline(always)]
    pub fn program_context(&self) -> &TcContext {
        self.ctx
    }

    /// The kernel's context, for helpers that change the frame.
    #[inline(always)]
    pub fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Writes `length` bytes from `place` in `from` to `offset`; `false` if the kernel refuses.
    #[inline(always)]
    pub fn write<const P: usize, const L: usize, const N: usize>(
        &self,
        offset: u32,
        length: Length<L>,
        from: &Words<N>,
        place: Place<P>,
    ) -> bool {
        const { assert!(P + L <= N) };
        // SAFETY: a place is in the first `P` words, and a length does not exceed `L` words.
        unsafe {
            let from = from.0.as_ptr().cast::<u8>().add(place.offset());
            bpf_skb_store_bytes(self.skb(), offset, from.cast(), length.argument(), 0) == 0
        }
    }

    /// Kernel index of the interface through which the frame entered; 0 for frames that this machine sent.
    #[inline(always)]
    pub fn came_by(&self) -> u32 {
        // SAFETY: the context is the `__sk_buff` that the kernel provided.
        unsafe { (*self.ctx.skb.skb).ingress_ifindex }
    }

    /// Puts a VLAN tag of type 0x8100 into the metadata; an existing tag there moves into the frame.
    #[inline(always)]
    pub fn push_tag(&self, tag: u16) {
        // SAFETY: the kernel provided the context. If the helper fails, the frame is unchanged.
        unsafe { bpf_skb_vlan_push(self.skb(), 0x8100_u16.to_be(), tag) };
    }

    /// Sets the bits of `value` in the packet mark that are in `mask`; other bits are not changed.
    #[inline(always)]
    pub fn mark(&self, value: u32, mask: u32) {
        // SAFETY: the context is the `__sk_buff` that the kernel provided.
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
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: `bytes` has room for `N` bytes, and all are initialised unless the helper fails.
        unsafe {
            let result = bpf_skb_load_bytes(self.ctx.as_ptr(), offset as u32, bytes.as_mut_ptr().cast(), N as u32);
            if result == 0 { Some(bytes.assume_init()) } else { None }
        }
    }
}

impl Packet for SkbFrame<'_> {
    #[inline(always)]
    fn context(&self) -> &impl EbpfContext {
        self.ctx
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the `__sk_buff` that the kernel provided.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    #[inline(always)]
    fn metadata_tag(&self) -> Option<u16> {
        // SAFETY: as above.
        let (present, tag) = unsafe { ((*self.ctx.skb.skb).vlan_present, (*self.ctx.skb.skb).vlan_tci) };
        (present != 0).then_some(tag as u16)
    }

    #[inline(always)]
    fn stride(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx.skb.skb).gso_size }
    }

    #[inline(always)]
    unsafe fn load_to(&self, offset: u32, length: u32, to: *mut u8) -> bool {
        // SAFETY: the caller's obligation; the helper fails beyond the end of the frame.
        unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), offset, to.cast(), length) == 0 }
    }
}

/// Loops by `bpf_loop` (Linux 5.17); the verifier verifies the body once.
#[derive(Clone, Copy)]
pub struct KernelLoop;

impl Repeat for KernelLoop {
    #[inline(always)]
    fn repeat<S: Step>(self, turns: u32, step: &mut S) {
        // SAFETY: `step` is on this stack frame for the whole call, and `turn::<S>` receives it as the same type.
        unsafe {
            bpf_loop(turns, turn::<S> as *mut c_void, core::ptr::from_mut(step).cast(), 0);
        }
    }
}

/// The callback of `bpf_loop`: 0 continues the loop, 1 ends it.
extern "C" fn turn<S: Step>(index: u64, step: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a live, exclusive `S`.
    let step = unsafe { &mut *step.cast::<S>() };
    i64::from(!step.step(index as u32))
}
