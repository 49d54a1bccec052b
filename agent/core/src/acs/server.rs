//! The part of the STUN server that knows its CPEs (TR-111 2.2.2).

use super::{
    Registry, Seen, State,
    request::{Challenge, Duplicates, Request, Settings},
    signed::SignedRequests,
    verdict::{Learned, Outcome, Verdict},
};
use crate::{
    secret::SharedSecret,
    stun::{self, MessageType, Replies, Username, Variant},
    time::{BootTime, UnixTime},
};

/// Answers that are remembered for copies of their requests.
const REPLIES: usize = 1 << 16;

/// This moment on both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For lengths of time.
    pub boot: BootTime,
    /// For what is kept.
    pub unix: UnixTime,
}

/// A STUN server with a registry.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    settings: Settings,
    replies: Replies,
    signed: SignedRequests,
}

/// A request that says who signed it, and the secret of that CPE: what is left is to compare.
struct Claim<'a> {
    number: u32,
    secret: SharedSecret,
    username: Username<'a>,
}

/// A request that its CPE signed: the only one that changes an authenticated binding.
struct AuthenticRequest<'r, 'a> {
    request: &'r Request<'a>,
    claim: Claim<'a>,
    variant: Variant,
}

impl Server {
    /// A server without CPEs. What clients choose is hashed under a random `seed`.
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            registry: Registry::new(seed),
            settings,
            replies: Replies::new(REPLIES, seed),
            signed: SignedRequests::new(seed),
        }
    }

    /// Its CPEs.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its CPEs, to change them.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// What holds now.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Changes what holds.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Judges what [`Settings::judge`] could not, and answers it into `answer`. Where `is_limited`, its source sends too
    /// much, and only CPEs that are known to be there are heard.
    pub fn judge(&mut self, now: Now, request: &Request<'_>, is_limited: bool, answer: &mut Vec<u8>) -> Outcome {
        let number = request.username.and_then(|username| self.registry.named(username));
        if is_limited && !self.is_known_from(number, request) {
            return ignored(Verdict::Limited);
        }
        if request.message.is_signed() {
            self.judge_signed(now, request, number, answer)
        } else {
            self.judge_unsigned(now, request, number, answer)
        }
    }

    fn is_known_from(&self, number: Option<u32>, request: &Request<'_>) -> bool {
        let seen = self.state(number).and_then(|state| state.authenticated);
        seen.is_some_and(|seen| seen.address.ip() == request.ends.source.ip())
    }

    fn state(&self, number: Option<u32>) -> Option<&State> {
        Some(&self.registry.get(number?)?.state)
    }

    /// Once for each transaction, and the same answer to its copies (STUN-27, STUN-28, T-25).
    fn judge_signed(&mut self, now: Now, request: &Request<'_>, number: Option<u32>, answer: &mut Vec<u8>) -> Outcome {
        match self.replies.look(now.boot, request.ends.source, request.transaction_id(), request.datagram) {
            stun::Seen::New => {}
            stun::Seen::Copy(_) if self.settings.duplicates == Duplicates::Drop => {
                return ignored(Verdict::CopyIgnored);
            }
            stun::Seen::Copy(reply) => {
                answer.clear();
                answer.extend(reply);
                let to = request.elsewhere(self.settings).unwrap_or(request.ends.source);
                return Outcome { to: Some(to), ..ignored(Verdict::Copy) };
            }
            stun::Seen::Replayed => return replayed(number),
        }
        let authentic = match self.authenticate(request, number) {
            Ok(authentic) => authentic,
            Err(verdict) => return request.refuse(verdict, answer),
        };
        // MESSAGE-INTEGRITY does not cover the source: a request that was accepted once proves nothing later (T-67).
        let id = self.signed.fingerprint(authentic.claim.username.trimmed(), request.transaction_id());
        if self.signed.contains(now.boot, id) {
            return replayed(number);
        }
        let signer = Some((&authentic.claim.secret, authentic.variant));
        let mut outcome = request.grant(self.settings, signer, answer);
        if outcome.verdict == Verdict::Authenticated && request.has_connection_request_binding {
            self.signed.note(now.boot, id);
            self.replies.note(now.boot, request.ends.source, request.transaction_id(), request.datagram, answer);
            outcome.learned = self.register(now, &authentic);
        }
        outcome
    }

    /// In the order of RFC 3489 8.1: who says it signed, whether we know it, whether it did (STUN-25).
    fn authenticate<'r, 'a>(
        &self,
        request: &'r Request<'a>,
        number: Option<u32>,
    ) -> Result<AuthenticRequest<'r, 'a>, Verdict> {
        let username = request.username.ok_or(Verdict::MissingUsername)?;
        // Without a password a CPE has no credentials here (STUN-46).
        let known = number.and_then(|number| Some((number, self.password(number)?)));
        let (number, password) = known.ok_or(Verdict::StaleCredentials)?;
        let secret = SharedSecret::new(password);
        let variant = request.message.verify(&secret, self.settings.variants);
        let variant = variant.map_err(|_| Verdict::IntegrityCheckFailure)?;
        Ok(AuthenticRequest { request, claim: Claim { number, secret, username }, variant })
    }

    /// `STUNPassword`, where there is one.
    fn password(&self, number: u32) -> Option<&[u8]> {
        let password: &[u8] = &self.registry.get(number)?.credentials.stun_password;
        Some(password).filter(|password| !password.is_empty())
    }

    /// Records the source of an authentic request (STUN-26).
    fn register(
        &mut self,
        now: Now,
        AuthenticRequest { request, claim, .. }: &AuthenticRequest<'_, '_>,
    ) -> Option<Learned> {
        let (number, ends) = (claim.number, request.ends);
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

    /// Keep-alives, and requests that have to be signed (STUN-23, STUN-29 to STUN-31).
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
        let learned = number.and_then(|number| self.hear(now, request, number));
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

    /// Notes where a CPE says that it is: a sign of life from where it is known to be, else a claim that overrides
    /// nothing (STUN-31, T-65).
    fn hear(&mut self, now: Now, request: &Request<'_>, number: u32) -> Option<Learned> {
        let (address, server) = (request.ends.source, request.ends.server);
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
