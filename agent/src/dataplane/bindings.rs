//! The registered bindings whose keep-alives are answered at line rate.

use std::{
    net::SocketAddrV4,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, MapData, MapError};
use tr111_common::abi::{BindingKey, Endpoint, map};
use tr111_core::time::BootTime;

use super::{Error, Loaded, pod::pod};

pod! {
    PodBinding BindingKey,
}

/// Writes the map `BINDINGS`, and reads when each of them was last heard of.
#[derive(Clone)]
pub struct Bindings {
    map: Arc<Mutex<HashMap<MapData, PodBinding, u64>>>,
    seed: u64,
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bindings")
    }
}

impl Bindings {
    /// Over the map of the loaded object. `seed` is the one in the programs' settings.
    pub(super) fn new(loaded: &mut Loaded, seed: u64) -> Result<Self, Error> {
        let map = loaded.take_map(map::BINDINGS)?.try_into();
        let map = map.map_err(|source| Error::Map { name: map::BINDINGS, source })?;
        Ok(Self { map: Arc::new(Mutex::new(map)), seed })
    }

    /// Has keep-alives of `username` from `source` to `server` answered. It was last heard of `now`.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, as for a full map: then the socket answers them.
    pub fn register(
        &self,
        username: &[u8],
        source: SocketAddrV4,
        server: SocketAddrV4,
        now: BootTime,
    ) -> Result<(), Error> {
        let Some(key) = self.key(username, source, server) else { return Ok(()) };
        self.lock().insert(key, now.0, 0).map_err(|source| Error::Map { name: map::BINDINGS, source })
    }

    /// Ends what [`Bindings::register`] began, and gives when the binding was last heard of. One that is not there is no
    /// error.
    pub fn forget(&self, username: &[u8], source: SocketAddrV4, server: SocketAddrV4) -> Option<BootTime> {
        let key = self.key(username, source, server)?;
        let mut map = self.lock();
        let seen = map.get(&key, 0).ok().map(BootTime);
        match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => tracing::debug!(%error, "a binding was not taken from the programs"),
        }
        seen
    }

    /// When a binding was last heard of.
    pub fn last_seen(&self, username: &[u8], source: SocketAddrV4, server: SocketAddrV4) -> Option<BootTime> {
        self.lock().get(&self.key(username, source, server)?, 0).ok().map(BootTime)
    }

    fn key(&self, username: &[u8], source: SocketAddrV4, server: SocketAddrV4) -> Option<PodBinding> {
        BindingKey::new(username, endpoint(source), endpoint(server), self.seed).map(PodBinding)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, PodBinding, u64>> {
        // Every write is one system call: a panic elsewhere leaves nothing half done.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address as the programs have it.
pub(super) fn endpoint(address: SocketAddrV4) -> Endpoint {
    Endpoint::new(address.ip().octets(), address.port())
}
