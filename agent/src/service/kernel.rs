//! What the owner of the table reads from the kernel programs and writes for them. Behind traits, so that it runs
//! without a kernel in tests.

use std::{future::Future, io};

use tr111_common::{
    abi::{ClientKey, ExchangeKey},
    config::Config,
    event::{Event, RecordError},
};

use crate::dataplane::{self, LanRing, Marks};

/// Where events come from.
pub trait Events {
    /// Waits for events and gives a batch of them, in order, to `take`. Cancel-safe: what was not given stays.
    fn next_batch(
        &mut self,
        take: impl FnMut(Result<Event<'_>, RecordError>),
    ) -> impl Future<Output = io::Result<usize>>;
}

impl Events for LanRing {
    async fn next_batch(&mut self, take: impl FnMut(Result<Event<'_>, RecordError>)) -> io::Result<usize> {
        Self::next_batch(self, take).await
    }
}

/// What the programs are told.
pub trait Programs {
    /// New settings.
    fn set_config(&self, config: &Config) -> Result<(), dataplane::Error>;
    /// The exchange belongs to a client with an identity.
    fn mark_exchange(&self, key: &ExchangeKey) -> Result<(), dataplane::Error>;
    /// The client has a row.
    fn stick(&self, client: &ClientKey) -> Result<(), dataplane::Error>;
    /// The client has none any more.
    fn unstick(&self, client: &ClientKey);
}

impl Programs for Marks {
    fn set_config(&self, config: &Config) -> Result<(), dataplane::Error> {
        Self::set_config(self, config)
    }

    fn mark_exchange(&self, key: &ExchangeKey) -> Result<(), dataplane::Error> {
        Self::mark_exchange(self, key)
    }

    fn stick(&self, client: &ClientKey) -> Result<(), dataplane::Error> {
        Self::stick(self, client)
    }

    fn unstick(&self, client: &ClientKey) {
        Self::unstick(self, client);
    }
}
