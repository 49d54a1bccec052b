//! The part of the STUN server that needs the registry (TR-111 2.2.2).

use std::{collections::BTreeMap, net::SocketAddrV4};

use super::{
    Ends, Registry, Seen, SourceLimit, State,
    request::{Challenge, Duplicates, Request, Settings},
    signed::{Accepted, Fingerprint, Remembered, SignedRequests},
    verdict::{Learned, Outcome, Verdict},
};
use crate::{
    secret::SharedSecret,
    stun::{self, MessageType, Replies, Variant},
    time::{BootTime, UnixTime},
};

/// Number of answers that are kept for copies of their requests.
const REPLIES: usize = 1 << 16;
/// Most accepted requests that wait for the store. Further signed requests are ignored, and their CPEs retransmit.
const WAITING: usize = 1 << 16;

/// The current time on both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For durations.
    pub boot: BootTime,
    /// For times that are stored.
    pub unix: UnixTime,
}

/// A STUN server with a registry.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    settings: Settings,
    replies: Replies,
    signed: SignedRequests,
    /// Accepted requests that wait for the store, with their sources.
    waiting: BTreeMap<Fingerprint, SocketAddrV4>,
}

/// Result of the second step, with the registry.
#[derive(Clone, Debug)]
pub enum Judged {
    /// The request is handled.
    Settled(Outcome),
    /// The request is authentic. The store has to remember it before the answer is sent ([`Server::conclude`]).
    Accepted(Accepted),
}

/// An authenticated request. Only this type can change an authenticated binding.
struct Authentic {
    number: u32,
    secret: SharedSecret,
    variant: Variant,
    fingerprint: Fingerprint,
}

impl Server {
    /// A server without CPEs. `seed` has to be random, because it keys hashes over values that clients choose.
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            registry: Registry::new(seed),
            settings,
            replies: Replies::new(REPLIES, seed),
            signed: SignedRequests::new(seed),
            waiting: BTreeMap::new(),
        }
    }

    /// Adds the fingerprint of a signed request that an earlier process accepted.
    pub fn remember(&mut self, request: Fingerprint) {
        self.signed.note(request);
    }

    /// The remembered fingerprints, in the order for [`Server::remember`].
    pub fn remembered(&self) -> impl Iterator<Item = Fingerprint> {
        self.signed.iter()
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry, for changes.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The current settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Judges what [`Settings::judge`] could not, and answers it into `answer`. With `beyond`, its source
    /// sends too much, and only CPEs that are known to be there are heard, within that limit.
    pub fn judge(
        &mut self,
        now: Now,
        request: &Request<'_>,
        beyond: Option<&mut SourceLimit>,
        answer: &mut Vec<u8>,
    ) -> Judged {
        let number = request.username.and_then(|username| self.registry.named(username));
        let settled = if number.is_none() && self.is_unreadable(request) {
            ignored(Verdict::Unreadable)
        } else if beyond.is_some_and(|limit| !self.admits_known(now, limit, number, request)) {
            ignored(Verdict::Limited)
        } else if request.message.is_signed() {
            match self.judge_signed(now, request, number, answer) {
                Ok(accepted) => return Judged::Accepted(accepted),
                Err(outcome) => outcome,
            }
        } else {
            self.judge_unsigned(now, request, number, answer)
        };
        Judged::Settled(Outcome { binding: request.binding, ..settled })
    }

    /// Completes a request that [`Judged::Accepted`] returned, given the store's reply. `answer` is the answer that
    /// [`Server::judge`] wrote.
    pub fn conclude(&mut self, now: Now, accepted: &Accepted, remembered: Remembered, answer: &[u8]) -> Outcome {
        let Accepted { fingerprint, name, ends, binding, transaction_id, datagram, to } = accepted;
        self.waiting.remove(fingerprint);
        self.signed.note(*fingerprint);
        // The CPE may have been removed meanwhile.
        let number = self.registry.number(name);
        let (verdict, learned) = match remembered {
            Remembered::Before => return Outcome { binding: *binding, ..replayed(number) },
            Remembered::Now => (Verdict::Authenticated, number.and_then(|number| self.register(now, number, *ends))),
            Remembered::NotAtAll => (Verdict::NotKept, number.map(|number| self.hold(now, number, *ends))),
        };
        self.replies.note(now.boot, ends.source, *transaction_id, datagram, answer);
        Outcome { message_type: Some(MessageType::BindingRequest), verdict, to: Some(*to), learned, binding: *binding }
    }

    /// Whether a CPE that is known to be at the source of a request may send it, though others there send too much.
    fn admits_known(&self, now: Now, limit: &mut SourceLimit, number: Option<u32>, request: &Request<'_>) -> bool {
        let source = *request.ends.source.ip();
        let seen = self.state(number).and_then(|state| state.authenticated);
        let known = number.filter(|_| seen.is_some_and(|seen| *seen.address.ip() == source));
        known.is_some_and(|number| limit.admits_known(now.boot, source, number))
    }

    /// Whether the store has an unreadable record for the CPE that the request names.
    fn is_unreadable(&self, request: &Request<'_>) -> bool {
        let is_unreadable = |name: &[u8]| self.registry.is_unreadable(name);
        request.username.is_some_and(|username| is_unreadable(username.0) || is_unreadable(username.trimmed()))
    }

    fn state(&self, number: Option<u32>) -> Option<&State> {
        Some(&self.registry.get(number?)?.state)
    }

    /// Handles a signed request: each transaction once, and copies get the same answer (STUN-27, STUN-28, T-25). `Err`
    /// is an outcome that changes no binding.
    fn judge_signed(
        &mut self,
        now: Now,
        request: &Request<'_>,
        number: Option<u32>,
        answer: &mut Vec<u8>,
    ) -> Result<Accepted, Outcome> {
        match self.replies.look(now.boot, request.ends.source, request.transaction_id(), request.datagram) {
            stun::Seen::New => {}
            stun::Seen::Copy(_) if self.settings.duplicates == Duplicates::Drop => {
                return Err(ignored(Verdict::CopyIgnored));
            }
            stun::Seen::Copy(reply) => {
                answer.clear();
                answer.extend(reply);
                let to = request.elsewhere(self.settings).unwrap_or(request.ends.source);
                return Err(Outcome { to: Some(to), ..ignored(Verdict::Copy) });
            }
            stun::Seen::Replayed => return Err(replayed(number)),
        }
        let authentic = self.authenticate(request, number).map_err(|verdict| request.refuse(verdict, answer))?;
        // MESSAGE-INTEGRITY does not cover the source, so a request that was accepted before proves nothing (T-67).
        let fingerprint = authentic.fingerprint;
        if self.signed.contains(fingerprint) {
            return Err(replayed(number));
        }
        match self.waiting.get(&fingerprint) {
            // The answer to the first copy will follow.
            Some(source) if *source == request.ends.source => return Err(ignored(Verdict::CopyIgnored)),
            Some(_) => return Err(replayed(number)),
            None => {}
        }
        let outcome = request.grant(self.settings, Some((&authentic.secret, authentic.variant)), answer);
        let (Verdict::Authenticated, true, Some(to)) =
            (outcome.verdict, request.has_connection_request_binding(), outcome.to)
        else {
            return Err(outcome);
        };
        let Some(cpe) = self.registry.get(authentic.number).filter(|_| self.waiting.len() < WAITING) else {
            return Err(ignored(Verdict::Limited));
        };
        self.waiting.insert(fingerprint, request.ends.source);
        let (name, transaction_id, datagram) = (cpe.name.clone(), request.transaction_id(), request.datagram.into());
        let (ends, binding) = (request.ends, request.binding);
        Ok(Accepted { fingerprint, name, ends, binding, transaction_id, datagram, to })
    }

    /// Authenticates in the order of RFC 3489 8.1: USERNAME present, credentials known, signature valid (STUN-25).
    fn authenticate(&self, request: &Request<'_>, number: Option<u32>) -> Result<Authentic, Verdict> {
        if request.username.is_none() {
            return Err(Verdict::MissingUsername);
        }
        // A CPE without STUNPassword has no credentials here (STUN-46).
        let known = number.and_then(|number| Some((number, self.password(number)?)));
        let (number, password) = known.ok_or(Verdict::StaleCredentials)?;
        let secret = SharedSecret::new(password);
        let variant = request.message.verify(&secret, self.settings.variants);
        let variant = variant.map_err(|_| Verdict::IntegrityCheckFailure)?;
        let digest = request.message.integrity().and_then(|digest| digest.first_chunk());
        let fingerprint = Fingerprint(u64::from_be_bytes(*digest.ok_or(Verdict::IntegrityCheckFailure)?));
        Ok(Authentic { number, secret, variant, fingerprint })
    }

    /// STUNPassword; `None` if the CPE has none.
    fn password(&self, number: u32) -> Option<&[u8]> {
        let password: &[u8] = &self.registry.get(number)?.credentials.stun_password;
        Some(password).filter(|password| !password.is_empty())
    }

    /// Records the source of an authentic request (STUN-26).
    fn register(&mut self, now: Now, number: u32, ends: Ends) -> Option<Learned> {
        self.registry.update(number, |state| {
            let same = state.authenticated.filter(|seen| seen.address == ends.source);
            let is_new = same.is_none();
            let (since, last_seen) = (same.map_or(now.unix, |seen| seen.since.min(now.unix)), now.unix);
            let seen = Seen { address: ends.source, server: ends.server, since, last_seen };
            let was_asked = std::mem::take(&mut state.must_verify) || state.tentative.take().is_some();
            let moved_here = same.is_some_and(|seen| seen.server != ends.server);
            state.authenticated = Some(seen);
            state.is_reported_last &= !is_new;
            (is_new || was_asked || moved_here).then_some(Learned::Authenticated { number, is_new })
        })?
    }

    /// Records the source of an authentic request that the store could not remember, like that of an unsigned one. If
    /// the address changed, the CPE has to sign again.
    fn hold(&mut self, now: Now, number: u32, ends: Ends) -> Learned {
        self.registry.update(number, |state| {
            state.must_verify |= state.authenticated.is_none_or(|seen| seen.address != ends.source);
        });
        let _ = self.hear(now, ends, number);
        Learned::NotKept { number }
    }

    /// Handles an unsigned request: a keep-alive, or a request that has to be signed (STUN-23, STUN-29 to STUN-31).
    fn judge_unsigned(
        &mut self,
        now: Now,
        request: &Request<'_>,
        number: Option<u32>,
        answer: &mut Vec<u8>,
    ) -> Outcome {
        let settings = self.settings;
        let source = request.ends.source;
        if settings.duplicates == Duplicates::Drop
            && matches!(
                self.replies.look(now.boot, source, request.transaction_id(), request.datagram),
                stun::Seen::Copy(_)
            )
        {
            return ignored(Verdict::CopyIgnored);
        }
        let has_password = number.is_some_and(|number| self.password(number).is_some());
        let is_challenged = settings.challenge == Challenge::All
            || (has_password
                && self.state(number).is_some_and(|state| {
                    let is_elsewhere = state.authenticated.is_some_and(|seen| seen.address != source);
                    request.has_binding_change
                        || state.must_verify
                        || (is_elsewhere && settings.challenge >= Challenge::Moved)
                        || settings.challenge >= Challenge::Binding
                }));
        let learned = number.and_then(|number| self.hear(now, request.ends, number));
        let outcome = if is_challenged {
            request.refuse(Verdict::Unauthorized, answer)
        } else {
            request.grant(settings, None, answer)
        };
        if settings.duplicates == Duplicates::Drop && is_challenged {
            self.replies.note(now.boot, source, request.transaction_id(), request.datagram, answer);
        }
        Outcome { learned, ..outcome }
    }

    /// Records an unsigned request of a CPE: from a known address it updates the time, from another address it sets the
    /// tentative binding, which replaces no authenticated one (STUN-31, T-65).
    fn hear(&mut self, now: Now, Ends { source: address, server }: Ends, number: u32) -> Option<Learned> {
        let moved = self.registry.update(number, |state| {
            for known in [&mut state.authenticated, &mut state.tentative] {
                if let Some(seen) = known.as_mut().filter(|seen| seen.address == address) {
                    seen.last_seen = now.unix;
                    return false;
                }
            }
            state.tentative = Some(Seen { address, server, since: now.unix, last_seen: now.unix });
            true
        });
        moved?.then_some(Learned::Tentative { number })
    }
}

fn ignored(verdict: Verdict) -> Outcome {
    Outcome::silent(Some(MessageType::BindingRequest), verdict)
}

fn replayed(number: Option<u32>) -> Outcome {
    let learned = number.map(|number| Learned::Replayed { number });
    Outcome { learned, ..ignored(Verdict::Replayed) }
}
