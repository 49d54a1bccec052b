//! Wrappers with which aya reads and writes keys and values of maps.

// Programs and agent use the byte order of the host. Only little-endian machines are tested.
#[cfg(not(target_endian = "little"))]
compile_error!("tr111 is not tested on big-endian machines");

/// Defines wrappers for types of `tr111_common`.
macro_rules! pod {
    ($($name:ident $inner:ty,)*) => {$(
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($inner);

        // SAFETY: the types are `repr(C)` and consist of integers only. There is no implicit padding, so all bytes
        // are initialised. All bit patterns are valid.
        unsafe impl aya::Pod for $name {}
    )*};
}

pub(super) use pod;
