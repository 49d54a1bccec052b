//! The programs' counters, as the agent reads them.

use tr111_common::counter::Counter;

use crate::dataplane::Counters;

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

impl KernelCounters for Counters {
    fn read(&self, counter: Counter) -> u64 {
        Self::read(self, counter).unwrap_or_else(|error| {
            tracing::debug!(%error, ?counter, "a counter of the programs was not read");
            0
        })
    }
}
