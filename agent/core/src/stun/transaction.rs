//! One request of a client: its copies in time, and what its responses have to pass (RFC 3489 9.3, 9.4, 12; SEC-3).

use std::{net::SocketAddrV4, time::Duration};

use thiserror::Error;

use super::{Header, IntegrityError, Message, MessageType, ParseError, SharedSecret, TransactionId, Variants};
use crate::time::BootTime;

/// What is waited after each copy: doubling from 100 ms to 1.6 s (RFC 3489 9.3).
pub const INTERVALS: [Duration; 9] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(1600),
    Duration::from_millis(1600),
    Duration::from_millis(1600),
    Duration::from_millis(1600),
];

/// When nobody answers any more: the sum of [`INTERVALS`].
pub const GIVE_UP: Duration = Duration::from_millis(9500);

/// How long a contradicting response is waited for after the first one (RFC 3489 9.4).
pub const LISTEN: Duration = Duration::from_secs(10);

/// Classes of errors that a client does not act on (RFC 3489 9.4).
const LOWEST_ERROR: u16 = 400;

/// What a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// A Binding Response.
    Bound {
        /// The request's source as the server saw it.
        mapped_address: SocketAddrV4,
    },
    /// A Binding Error Response with this code, 400 to 699.
    Refused {
        /// Hundreds are the class.
        code: u16,
    },
}

/// What contradicts a response that was taken already. None of this transaction's responses is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// The one is a Binding Response, the other an error, or their codes differ.
    OtherType,
    /// Two MAPPED-ADDRESSes.
    OtherMapping,
    /// More than twice as many responses as requests.
    TooManyResponses,
}

/// Why a message tells nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Discarded {
    /// It has another transaction id.
    #[error("the response belongs to no request of ours")]
    OtherTransaction,
    /// It does not come from where the request went.
    #[error("the response does not come from the server")]
    OtherSource,
    /// It is a request, or belongs to the shared secret exchange (CPE-19).
    #[error("the message is no response to a Binding Request")]
    NotAResponse,
    /// The request was signed, and this is not, or wrongly (CPE-14).
    #[error("the response is not authentic")]
    Unauthentic(#[from] IntegrityError),
    /// It lacks MAPPED-ADDRESS or ERROR-CODE, or the code is below 400.
    #[error("the response lacks what it is for")]
    Incomplete,
    /// MAPPED-ADDRESS and XOR-MAPPED-ADDRESS tell of different addresses, so one of them is wrong (T-20).
    #[error("the response tells of more than one address")]
    AddressesDiffer,
    /// It has this attribute, which a client has to understand. The transaction ends (RFC 3489 9.4).
    #[error("the response has attribute {0:#06x}, which has to be understood")]
    NotUnderstood(u16),
    /// It says again what another one said.
    #[error("the response is a copy")]
    Copy,
    /// The transaction is over.
    #[error("the response comes too late")]
    Late,
    /// It contradicts another one.
    #[error("the response contradicts an earlier one")]
    Attack(Attack),
}

impl Discarded {
    /// The value of the metric's `result` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::OtherTransaction => "other_transaction",
            Self::OtherSource => "other_source",
            Self::NotAResponse => "not_a_response",
            Self::Unauthentic(error) => error.label(),
            Self::Incomplete => "incomplete",
            Self::AddressesDiffer => "addresses_differ",
            Self::NotUnderstood(_) => "not_understood",
            Self::Copy => "copy",
            Self::Late => "late",
            Self::Attack(Attack::OtherType) => "attack_other_type",
            Self::Attack(Attack::OtherMapping) => "attack_other_mapping",
            Self::Attack(Attack::TooManyResponses) => "attack_too_many",
        }
    }
}

/// What a transaction wants of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Send this to the server, and poll again.
    Transmit(&'a [u8]),
    /// Poll again at this time.
    Wait(BootTime),
    /// Nobody answered in [`GIVE_UP`].
    TimedOut,
    /// It is over: answered and listened to for [`LISTEN`], contradicted, or not understood.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking,
    Answered(Response),
    TimedOut,
    Done,
}

/// A Binding Request on its way. Copies are identical; a request that differs is a new transaction (RFC 3489 9.3).
#[derive(Clone, Debug)]
pub struct Transaction {
    server: SocketAddrV4,
    request: Vec<u8>,
    id: TransactionId,
    secret: Option<(SharedSecret, Variants)>,
    xor_mapped_address: bool,
    sent: usize,
    responses: usize,
    state: State,
    deadline: BootTime,
}

impl Transaction {
    /// Starts with `request`, as [`Builder`](super::Builder) wrote it; the first copy is due at once.
    pub fn new(now: BootTime, server: SocketAddrV4, request: Vec<u8>) -> Result<Self, ParseError> {
        let id = Header::parse(&request)?.transaction_id;
        Ok(Self {
            server,
            request,
            id,
            secret: None,
            xor_mapped_address: false,
            sent: 0,
            responses: 0,
            state: State::Asking,
            deadline: now,
        })
    }

    /// The request is signed, so its Binding Response has to be, in one of `accepted` (CPE-14).
    #[must_use]
    pub fn signed(mut self, secret: SharedSecret, accepted: Variants) -> Self {
        self.secret = Some((secret, accepted));
        self
    }

    /// Takes XOR-MAPPED-ADDRESS where a response has no MAPPED-ADDRESS (T-20), if the request's id begins with the cookie of
    /// RFC 5389. Without it a server may mean another address: some XOR with the cookie, some with the id.
    #[must_use]
    pub fn with_xor_mapped_address(mut self, accepted: bool) -> Self {
        self.xor_mapped_address = accepted && self.id.has_cookie();
        self
    }

    /// The id that responses have to carry.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Where the request goes.
    pub fn server(&self) -> SocketAddrV4 {
        self.server
    }

    /// What is to be done at `now`. A late poll moves the rest of the schedule: copies never leave in a burst.
    pub fn poll(&mut self, now: BootTime) -> Progress<'_> {
        if now >= self.deadline {
            match (self.state, INTERVALS.get(self.sent)) {
                (State::Asking, Some(&interval)) => {
                    self.sent += 1;
                    self.deadline = now + interval;
                    return Progress::Transmit(&self.request);
                }
                (State::Asking, None) => self.state = State::TimedOut,
                (State::Answered(_), _) => self.state = State::Done,
                (State::TimedOut | State::Done, _) => {}
            }
        }
        match self.state {
            State::Asking | State::Answered(_) => Progress::Wait(self.deadline),
            State::TimedOut => Progress::TimedOut,
            State::Done => Progress::Done,
        }
    }

    /// Takes a message that came from `source`. `Ok` comes at most once: the first response that passes.
    ///
    /// [`Discarded::OtherTransaction`] leaves the message to other transactions.
    pub fn receive(
        &mut self,
        now: BootTime,
        source: SocketAddrV4,
        message: &Message<'_>,
    ) -> Result<Response, Discarded> {
        if message.transaction_id() != self.id {
            return Err(Discarded::OtherTransaction);
        }
        if source != self.server {
            return Err(Discarded::OtherSource);
        }
        if matches!(self.state, State::TimedOut | State::Done) || (self.is_answered() && now >= self.deadline) {
            return Err(Discarded::Late);
        }
        let response = self.judge(message)?;
        self.responses += 1;
        let State::Answered(first) = self.state else {
            self.state = State::Answered(response);
            self.deadline = now + LISTEN;
            return Ok(response);
        };
        let attack = match (first, response) {
            _ if first == response && self.responses <= 2 * self.sent => return Err(Discarded::Copy),
            _ if first == response => Attack::TooManyResponses,
            (Response::Bound { .. }, Response::Bound { .. }) => Attack::OtherMapping,
            _ => Attack::OtherType,
        };
        self.state = State::Done;
        Err(Discarded::Attack(attack))
    }

    fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered(_))
    }

    /// What the message says, if it is fit to say something.
    fn judge(&mut self, message: &Message<'_>) -> Result<Response, Discarded> {
        let response = match message.message_type() {
            MessageType::BindingResponse => {
                if let Some((secret, accepted)) = &self.secret {
                    message.verify(secret, *accepted)?;
                }
                self.mapped_address(message)?.map(|mapped_address| Response::Bound { mapped_address })
            }
            // An error is never signed (RFC 3489 11.2, Table 2).
            MessageType::BindingErrorResponse => {
                let code = message.error_code().map(|error| error.code).filter(|&code| code >= LOWEST_ERROR);
                code.map(|code| Response::Refused { code })
            }
            _ => return Err(Discarded::NotAResponse),
        };
        if let Some(code) = message.not_understood().next() {
            if self.state == State::Asking {
                self.state = State::Done;
            }
            return Err(Discarded::NotUnderstood(code));
        }
        response.ok_or(Discarded::Incomplete)
    }

    /// The address that the response tells of. Where XOR-MAPPED-ADDRESS counts, all forms have to agree.
    fn mapped_address(&self, message: &Message<'_>) -> Result<Option<SocketAddrV4>, Discarded> {
        let plain = message.mapped_address();
        if !self.xor_mapped_address {
            return Ok(plain);
        }
        let forms = [plain, message.xor_mapped_address(), message.draft_xor_mapped_address()];
        let mut told = forms.into_iter().flatten();
        let first = told.next();
        if told.any(|address| Some(address) != first) {
            return Err(Discarded::AddressesDiffer);
        }
        Ok(first)
    }
}
