//! CPEs that come in several messages, and are added together: one import at a time, in bounded memory.

use tokio::sync::OwnedSemaphorePermit;
use tr111_core::acs::{Cpe, Credentials};

use super::{Acs, Error, NotAdded, kept::judged};

/// An import that is under way. None of its CPEs is there before it is finished.
#[derive(Debug)]
pub struct Import {
    acs: Acs,
    /// With the longest texts one takes 1.5 kB.
    cpes: Vec<Cpe>,
    _turn: OwnedSemaphorePermit,
}

impl Acs {
    /// Begins an import. `None`: another one is under way.
    pub fn begin_import(&self) -> Option<Import> {
        let turn = self.0.imports.clone().try_acquire_owned().ok()?;
        Some(Import { acs: self.clone(), cpes: Vec::new(), _turn: turn })
    }
}

impl Import {
    /// Takes some CPEs of which nothing is known yet.
    ///
    /// # Errors
    /// Names the first with a text that TR-111 Table 6 does not allow, or for which no registry has room.
    pub fn take(&mut self, cpes: Vec<(String, Credentials)>) -> Result<(), NotAdded> {
        self.cpes.extend(judged(cpes)?);
        let maximum = self.acs.max_cpes();
        match self.cpes.get(maximum as usize) {
            Some(first) => Err(NotAdded::new(&first.name, Error::Full { maximum })),
            None => Ok(()),
        }
    }

    /// Adds all of them, or none; with `upsert`, those that are there get the credentials.
    ///
    /// # Errors
    /// As [`Acs::add_all`].
    pub async fn finish(self, upsert: bool) -> Result<(), NotAdded> {
        let Self { acs, cpes, _turn } = self;
        if upsert { acs.upsert_judged(cpes).await } else { acs.add_judged(cpes).await }
    }
}
