//! Requests that only an ACS answers.

use std::{collections::HashMap, hash::BuildHasher, hash::RandomState};

use tokio::sync::mpsc;
use tr111_core::{
    acs::lint::{Finding, findings},
    connreq::BadAuthority,
};

use super::{Connection, Ended, Permission};
use crate::{
    control::message::{NewCpe, Refusal, Reply, Request, SentRequest, WeakCpe},
    service::acs::{Acs, Bulk, Error, NotAdded, Selection, describe},
};

/// Maximum items that are read from the registry at a time.
const PAGE: usize = 1_000;

/// Whether a request is answered here instead of by the owner task of the role.
pub(super) fn is_for(request: &Request) -> bool {
    matches!(
        request,
        Request::Bindings
            | Request::Associations
            | Request::Send { .. }
            | Request::SendTo { .. }
            | Request::SendMany { .. }
            | Request::AddCpes { .. }
            | Request::RemoveCpe { .. }
            | Request::VerifyCpe { .. }
            | Request::ResetTimestamp { .. }
            | Request::Cpes
            | Request::CpeCredentials
            | Request::LintCpes
    )
}

impl Connection<'_> {
    /// Answers a request for which [`is_for`] is true.
    pub(super) async fn answer_for(&mut self, acs: Acs, request: Request, permission: Permission) -> Result<(), Ended> {
        if let Err(error) = acs.readable() {
            return self.refuse(Refusal::Failed, &error.to_string()).await;
        }
        match request {
            Request::Bindings => self.registered_bindings(&acs).await,
            Request::Associations => self.associations(&acs).await,
            Request::Send { username, copies } => self.sent(acs.send(&username, copies).await).await,
            Request::SendTo { to, user, password, copies } => match to.parse() {
                Ok(to) => self.sent(acs.send_to(to, &user, password.as_bytes(), copies).await).await,
                Err(error) => self.refuse(Refusal::BadRequest, &BadAuthority::to_string(&error)).await,
            },
            Request::SendMany { usernames, rate, copies } => {
                let selection = usernames.map_or(Selection::All, Selection::Names);
                self.send_many(acs.send_many(selection, rate, copies)).await
            }
            Request::AddCpes { cpes, more, upsert } => self.add_cpes(&acs, cpes, more, upsert).await,
            Request::RemoveCpe { username } => self.remove_cpe(&acs, &username).await,
            Request::VerifyCpe { username } => self.verify_cpe(&acs, &username).await,
            Request::ResetTimestamp { username } => self.reset_timestamp(&acs, username.as_deref()).await,
            Request::Cpes => self.cpes(&acs).await,
            Request::CpeCredentials if permission < Permission::Own => {
                self.refuse(Refusal::NotPermitted, "only root and the agent's own user may see passwords").await
            }
            Request::CpeCredentials => self.cpe_credentials(&acs).await,
            Request::LintCpes => self.lint_cpes(&acs).await,
            _ => self.refuse(Refusal::BadRequest, "an ACS does not answer this request").await,
        }
    }

    /// Sends the bindings of all registered CPEs. They are read in pages.
    async fn registered_bindings(&mut self, acs: &Acs) -> Result<(), Ended> {
        let mut from = Some(0);
        while let Some(first) = from {
            // Each CPE has up to three bindings.
            let page = acs.bindings(first, PAGE / 3);
            from = page.next;
            self.write_list(page.items, from.is_some(), |bindings, more| Reply::Bindings { bindings, more }).await?;
        }
        Ok(())
    }

    async fn sent(&mut self, sent: Result<SentRequest, Error>) -> Result<(), Ended> {
        match sent {
            Ok(sent) => self.write(&Reply::Sent(Box::new(sent))).await,
            Err(error) => self.refuse(Refusal::Failed, &error.to_string()).await,
        }
    }

    /// Tells how a bulk goes on. A client that goes ends it: nobody takes what it tells. One that ends without a summary
    /// panicked.
    async fn send_many(&mut self, mut bulk: mpsc::Receiver<Bulk>) -> Result<(), Ended> {
        while let Some(step) = bulk.recv().await {
            match step {
                Bulk::Progress(progress) => self.write(&Reply::Progress(progress)).await?,
                Bulk::Finished(summary) => return self.write(&Reply::Summary(summary)).await,
            }
        }
        self.refuse(Refusal::Failed, "it ended early, by a fault of the agent; its log says more").await
    }

    /// Sends all associations. They are read in pages.
    async fn associations(&mut self, acs: &Acs) -> Result<(), Ended> {
        let mut last = None;
        loop {
            let some = acs.associations(last.as_ref(), PAGE);
            last = some.last().map(|record| record.device.clone());
            let follow = some.len() == PAGE;
            let associations = some.iter().map(describe::association).collect::<Vec<_>>();
            let reply = |associations, more| Reply::Associations { associations, more };
            self.write_list(associations, follow, reply).await?;
            if !follow {
                return Ok(());
            }
        }
    }

    /// Takes CPEs that come in several messages, and adds them with the last. One client at a time has some on the way.
    async fn add_cpes(&mut self, acs: &Acs, cpes: Vec<NewCpe>, more: bool, upsert: bool) -> Result<(), Ended> {
        let cpes = cpes.into_iter().map(describe::provisioned).collect();
        if !more && self.import.is_none() {
            let done = if upsert { acs.upsert_all(cpes).await } else { acs.add_all(cpes).await };
            return self.conclude_import(done).await;
        }
        let Some(mut import) = self.import.take().or_else(|| acs.begin_import()) else {
            return self.refuse(Refusal::Busy, "another import is under way; try again when it has ended").await;
        };
        match import.take(cpes) {
            Ok(()) if more => {
                self.import = Some(import);
                self.write(&Reply::Done).await
            }
            Ok(()) => self.conclude_import(import.finish(upsert).await).await,
            Err(not_added) => {
                drop(import);
                self.conclude_import(Err(not_added)).await
            }
        }
    }

    async fn conclude_import(&mut self, done: Result<(), NotAdded>) -> Result<(), Ended> {
        match done {
            Ok(()) => self.write(&Reply::Done).await,
            Err(not_added) => self.refuse(Refusal::Failed, &not_added.to_string()).await,
        }
    }

    async fn remove_cpe(&mut self, acs: &Acs, username: &str) -> Result<(), Ended> {
        self.conclude_cpe(acs.remove(username).await).await
    }

    async fn verify_cpe(&mut self, acs: &Acs, username: &str) -> Result<(), Ended> {
        self.conclude_cpe(acs.verify(username).await).await
    }

    async fn reset_timestamp(&mut self, acs: &Acs, username: Option<&str>) -> Result<(), Ended> {
        let done = match username {
            Some(username) => acs.reset_timestamp(username).await,
            None => acs.reset_timestamps().await,
        };
        self.conclude_cpe(done).await
    }

    async fn conclude_cpe(&mut self, done: Result<(), Error>) -> Result<(), Ended> {
        match done {
            Ok(()) => self.write(&Reply::Done).await,
            Err(error) => self.refuse(Refusal::Failed, &error.to_string()).await,
        }
    }

    async fn cpes(&mut self, acs: &Acs) -> Result<(), Ended> {
        let mut from = Some(0);
        while let Some(first) = from {
            let page = acs.list(first, PAGE);
            from = page.next;
            let approach = acs.approach();
            let cpes = page.items.iter().map(|cpe| describe::cpe(cpe, approach)).collect::<Vec<_>>();
            self.write_list(cpes, from.is_some(), |cpes, more| Reply::Cpes { cpes, more }).await?;
        }
        Ok(())
    }

    async fn cpe_credentials(&mut self, acs: &Acs) -> Result<(), Ended> {
        let mut from = Some(0);
        while let Some(first) = from {
            let page = acs.list(first, PAGE);
            from = page.next;
            let cpes = page.items.iter().map(describe::credentials).collect::<Vec<_>>();
            self.write_list(cpes, from.is_some(), |cpes, more| Reply::CpeCredentials { cpes, more }).await?;
        }
        Ok(())
    }

    async fn lint_cpes(&mut self, acs: &Acs) -> Result<(), Ended> {
        let shared = shared_passwords(acs);
        let mut from = Some(0);
        while let Some(first) = from {
            let page = acs.list(first, PAGE);
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
            self.write_list(all, from.is_some(), |findings, more| Reply::WeakCpes { findings, more }).await?;
        }
        Ok(())
    }
}

/// Finds each STUNPassword that several CPEs share. Only keyed hashes are stored: a million passwords take some megabytes.
struct Shared {
    hasher: RandomState,
    counts: HashMap<u64, bool>,
}

fn shared_passwords(acs: &Acs) -> Shared {
    let mut shared = Shared { hasher: RandomState::new(), counts: HashMap::new() };
    let mut from = Some(0);
    while let Some(first) = from {
        let page = acs.list(first, PAGE);
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
