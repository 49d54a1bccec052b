//! Registered bindings whose keep-alives the XDP program answers.

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

/// The map `BINDINGS`: registered bindings, and the time of the last keep-alive of each. Clones share the map.
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
    /// Takes the map of the loaded object. `seed` is that of the programs' settings.
    pub(super) fn new(loaded: &mut Loaded, seed: u64) -> Result<Self, Error> {
        let map = loaded.take_map(map::BINDINGS)?.try_into();
        let map = map.map_err(|source| Error::Map { name: map::BINDINGS, source })?;
        Ok(Self { map: Arc::new(Mutex::new(map)), seed })
    }

    /// Registers a binding: the program answers keep-alives of `username` from `source` to `server`. The time of the
    /// last keep-alive is set to `now`.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, for example because the map is full. The socket then answers the
    /// keep-alives.
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

    /// Removes a binding and returns the time of its last keep-alive. A binding that is not registered is not an error.
    pub fn forget(&self, username: &[u8], source: SocketAddrV4, server: SocketAddrV4) -> Option<BootTime> {
        let key = self.key(username, source, server)?;
        let mut map = self.lock();
        let seen = map.get(&key, 0).ok().map(BootTime);
        match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => tracing::debug!(%error, "cannot remove a binding from the map of the programs"),
        }
        seen
    }

    /// Time of the last keep-alive of a binding. `None` if it is not registered.
    pub fn last_seen(&self, username: &[u8], source: SocketAddrV4, server: SocketAddrV4) -> Option<BootTime> {
        self.lock().get(&self.key(username, source, server)?, 0).ok().map(BootTime)
    }

    fn key(&self, username: &[u8], source: SocketAddrV4, server: SocketAddrV4) -> Option<PodBinding> {
        BindingKey::new(username, endpoint(source), endpoint(server), self.seed).map(PodBinding)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MapData, PodBinding, u64>> {
        // Each write is one system call, so a panic cannot leave the map in an inconsistent state.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address in the format of the programs.
pub(super) fn endpoint(address: SocketAddrV4) -> Endpoint {
    Endpoint::new(address.ip().octets(), address.port())
}
