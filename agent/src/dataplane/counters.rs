//! Counters of the programs.

use std::sync::Arc;

use aya::maps::{Map, MapData, PerCpuArray};
use tr111_common::{abi::map, counter::Counter};

use super::Error;

/// The programs' counters, summed over CPUs.
#[derive(Clone)]
pub struct Counters {
    map: Arc<PerCpuArray<MapData, u64>>,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Counters {
    /// Takes the map `COUNTERS`.
    ///
    /// # Errors
    /// [`Error::Map`] if the map has another type.
    pub fn new(map: Map) -> Result<Self, Error> {
        let map = PerCpuArray::try_from(map).map_err(|source| Error::Map { name: map::COUNTERS, source })?;
        Ok(Self { map: Arc::new(map) })
    }

    /// Current value of a counter.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn read(&self, counter: Counter) -> Result<u64, Error> {
        let values = self.map.get(&counter.slot(), 0).map_err(|source| Error::Map { name: map::COUNTERS, source })?;
        Ok(values.iter().sum())
    }
}
