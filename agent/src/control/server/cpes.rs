//! What clients ask of the registry of an ACS.

use std::{collections::HashMap, hash::BuildHasher, hash::RandomState};

use tr111_core::acs::lint::{Finding, findings};

use super::{Connection, Ended};
use crate::{
    control::message::{NewCpe, Refusal, Reply, WeakCpe},
    service::acs::{Acs, describe},
};

/// CPEs in one message. Each has up to four texts of 256 bytes, which JSON may double, and some hundred bytes more.
const CPES: usize = 400;
/// Findings in one message.
const FINDINGS: usize = 1_000;
/// CPEs that one client may have on the way: some hundred bytes each.
const MOST: usize = 4_000_000;

impl Connection<'_> {
    /// Takes CPEs that come in several messages, and adds them with the last.
    pub(super) async fn add_cpes(&mut self, cpes: Vec<NewCpe>, more: bool) -> Result<(), Ended> {
        let Some(acs) = self.acs().await? else { return Ok(()) };
        if self.cpes_on_the_way.len() + cpes.len() > MOST {
            self.cpes_on_the_way = Vec::new();
            return self.refuse(Refusal::Failed, &format!("more than {MOST} CPEs at once; use several files")).await;
        }
        self.cpes_on_the_way.extend(cpes);
        if more {
            return self.write(&Reply::Done).await;
        }
        let cpes = std::mem::take(&mut self.cpes_on_the_way).into_iter().map(describe::provisioned).collect();
        match acs.add_all(cpes).await {
            Ok(()) => self.write(&Reply::Done).await,
            Err(not_added) => self.refuse(Refusal::Failed, &not_added.to_string()).await,
        }
    }

    pub(super) async fn remove_cpe(&mut self, username: &str) -> Result<(), Ended> {
        let Some(acs) = self.acs().await? else { return Ok(()) };
        self.conclude_cpe(acs.remove(username).await).await
    }

    pub(super) async fn verify_cpe(&mut self, username: &str) -> Result<(), Ended> {
        let Some(acs) = self.acs().await? else { return Ok(()) };
        self.conclude_cpe(acs.verify(username).await).await
    }

    async fn conclude_cpe(&mut self, done: Result<(), crate::service::acs::Error>) -> Result<(), Ended> {
        match done {
            Ok(()) => self.write(&Reply::Done).await,
            Err(error) => self.refuse(Refusal::Failed, &error.to_string()).await,
        }
    }

    pub(super) async fn cpes(&mut self) -> Result<(), Ended> {
        let Some(acs) = self.acs().await? else { return Ok(()) };
        let mut from = Some(0);
        while let Some(first) = from {
            let page = acs.list(first, CPES);
            from = page.next;
            let approach = acs.approach();
            let cpes = page.items.iter().map(|cpe| describe::cpe(cpe, approach)).collect();
            self.write(&Reply::Cpes { cpes, more: from.is_some() }).await?;
        }
        Ok(())
    }

    pub(super) async fn cpe_credentials(&mut self) -> Result<(), Ended> {
        let Some(acs) = self.acs().await? else { return Ok(()) };
        let mut from = Some(0);
        while let Some(first) = from {
            let page = acs.list(first, CPES);
            from = page.next;
            let cpes = page.items.iter().map(describe::credentials).collect();
            self.write(&Reply::CpeCredentials { cpes, more: from.is_some() }).await?;
        }
        Ok(())
    }

    pub(super) async fn lint_cpes(&mut self) -> Result<(), Ended> {
        let Some(acs) = self.acs().await? else { return Ok(()) };
        let shared = shared_passwords(&acs);
        let mut from = Some(0);
        while let Some(first) = from {
            let page = acs.list(first, FINDINGS / 5);
            from = page.next;
            let mut all = Vec::new();
            for cpe in &page.items {
                let mut found = findings(cpe);
                if shared.has(&cpe.credentials.stun_password) {
                    found.push(Finding::DuplicateStunPassword);
                }
                all.extend(found.into_iter().map(|finding| WeakCpe {
                    stun_username: describe::text(&cpe.name),
                    finding: finding.label().to_owned(),
                    meaning: finding.meaning().to_owned(),
                }));
            }
            self.write(&Reply::WeakCpes { findings: all, more: from.is_some() }).await?;
        }
        Ok(())
    }
}

/// Values of STUNPassword that several CPEs have, by a hash that nobody can foresee: a million of them take some megabytes.
struct Shared {
    hasher: RandomState,
    counts: HashMap<u64, bool>,
}

fn shared_passwords(acs: &Acs) -> Shared {
    let mut shared = Shared { hasher: RandomState::new(), counts: HashMap::new() };
    let mut from = Some(0);
    while let Some(first) = from {
        let page = acs.list(first, FINDINGS);
        from = page.next;
        for password in page.items.iter().map(|cpe| &*cpe.credentials.stun_password).filter(|text| !text.is_empty()) {
            let hash = shared.hasher.hash_one(password);
            shared.counts.entry(hash).and_modify(|is_shared| *is_shared = true).or_insert(false);
        }
    }
    shared
}

impl Shared {
    fn has(&self, password: &[u8]) -> bool {
        self.counts.get(&self.hasher.hash_one(password)).copied().unwrap_or(false)
    }
}
