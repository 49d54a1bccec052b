//! Keys and values of maps, as aya writes and reads them.

// The programs are compiled for the byte order of the host, and so are these; only one of the two is ever tested.
#[cfg(not(target_endian = "little"))]
compile_error!("tr111 was never run on a big-endian machine");

/// Wraps types of `tr111_common`, each under a name of its own.
macro_rules! pod {
    ($($name:ident $inner:ty,)*) => {$(
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($inner);

        // SAFETY: `repr(C)` all the way down, integers only, and every gap is a named field, so all bytes are
        // initialised and every pattern is valid.
        unsafe impl aya::Pod for $name {}
    )*};
}

pub(super) use pod;
