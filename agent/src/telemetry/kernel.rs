//! The programs' counters, as the agent reads them.

use tr111_common::counter::Counter;

/// Reads the programs' counters.
pub trait KernelCounters: Send + Sync {
    /// The sum over all CPUs.
    fn read(&self, counter: Counter) -> u64;
}

impl<K: KernelCounters + ?Sized> KernelCounters for std::sync::Arc<K> {
    fn read(&self, counter: Counter) -> u64 {
        (**self).read(counter)
    }
}
