//! A client's request: its retransmissions, and the checks of its responses (RFC 3489 9.3, 9.4, 12; SEC-3).

use std::{net::SocketAddrV4, time::Duration};

use thiserror::Error;

use super::{Header, IntegrityError, Message, MessageType, ParseError, SharedSecret, TransactionId, Variants};
use crate::time::BootTime;

/// Time to wait after each copy of a request: doubling from 100 ms to 1.6 s (RFC 3489 9.3).
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

/// Time after which a transaction fails without an answer: the sum of [`INTERVALS`].
pub const GIVE_UP: Duration = Duration::from_millis(9500);

/// Time after the first response in which a contradicting one is detected (RFC 3489 9.4).
pub const LISTEN: Duration = Duration::from_secs(10);

/// Lowest error code that a client acts on (RFC 3489 9.4).
const LOWEST_ERROR: u16 = 400;

/// The content of a valid response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// A Binding Response.
    Bound {
        /// Source of the request, as the server saw it.
        mapped_address: SocketAddrV4,
    },
    /// A Binding Error Response.
    Refused {
        /// Error code, from 400 to 699.
        code: u16,
    },
}

/// A contradiction to an accepted response. No response of this transaction may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// One is a Binding Response and the other an error, or their error codes differ.
    OtherType,
    /// The mapped addresses differ.
    OtherMapping,
    /// More than twice as many responses as requests were received.
    TooManyResponses,
}

/// Reasons for which a message is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Discarded {
    /// The transaction identifier is another one.
    #[error("the response has the transaction id of another request")]
    OtherTransaction,
    /// The source is not the server.
    #[error("the response does not come from the server")]
    OtherSource,
    /// The message is a request, or belongs to the shared secret exchange (CPE-19).
    #[error("the message is not a response to a Binding Request")]
    NotAResponse,
    /// The request was signed, and the response has no valid signature (CPE-14).
    #[error("the response is not authentic")]
    Unauthentic(#[from] IntegrityError),
    /// MAPPED-ADDRESS or ERROR-CODE is missing, or the error code is below 400.
    #[error("the response has no MAPPED-ADDRESS or no usable ERROR-CODE")]
    Incomplete,
    /// MAPPED-ADDRESS and XOR-MAPPED-ADDRESS have different addresses, so one of them is wrong (T-20).
    #[error("MAPPED-ADDRESS and XOR-MAPPED-ADDRESS of the response differ")]
    AddressesDiffer,
    /// The response has this unknown mandatory attribute. The transaction ends (RFC 3489 9.4).
    #[error("the response has the unknown mandatory attribute {0:#06x}")]
    NotUnderstood(u16),
    /// The response repeats an earlier one.
    #[error("the response is a duplicate")]
    Copy,
    /// The transaction has ended.
    #[error("the response is too late")]
    Late,
    /// The response contradicts an earlier one.
    #[error("the response contradicts an earlier one")]
    Attack(Attack),
}

impl Discarded {
    /// Value of the metric label `result`.
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

/// The next action of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Send this datagram to the server, then poll again.
    Transmit(&'a [u8]),
    /// Poll again at this time.
    Wait(BootTime),
    /// There was no answer within [`GIVE_UP`].
    TimedOut,
    /// The transaction has ended: [`LISTEN`] after the answer, by a contradiction, or by an unknown mandatory
    /// attribute.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking,
    Answered(Response),
    TimedOut,
    Done,
}

/// A Binding Request with its retransmissions. All copies are identical; a different request is a new transaction (RFC
/// 3489 9.3).
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
    /// A transaction for `request`, which [`Builder`](super::Builder) built. The first copy is due at once.
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

    /// Requires a signature of the Binding Response in one of the variants `accepted`, because the request is signed
    /// (CPE-14).
    #[must_use]
    pub fn signed(mut self, secret: SharedSecret, accepted: Variants) -> Self {
        self.secret = Some((secret, accepted));
        self
    }

    /// Accepts XOR-MAPPED-ADDRESS if a response has no MAPPED-ADDRESS (T-20). This needs a transaction identifier with
    /// the magic cookie of RFC 5389; otherwise some servers XOR the address with the cookie, and some with the
    /// identifier.
    #[must_use]
    pub fn with_xor_mapped_address(mut self, accepted: bool) -> Self {
        self.xor_mapped_address = accepted && self.id.has_cookie();
        self
    }

    /// The transaction identifier of the request.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Destination of the request.
    pub fn server(&self) -> SocketAddrV4 {
        self.server
    }

    /// The next action at `now`. After a late poll the rest of the schedule is delayed, so copies are never sent in a
    /// burst.
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

    /// Handles a message from `source`. Returns `Ok` at most once, for the first valid response.
    ///
    /// On [`Discarded::OtherTransaction`], the message may belong to another transaction.
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

    /// Checks a message and returns its content.
    fn judge(&mut self, message: &Message<'_>) -> Result<Response, Discarded> {
        let response = match message.message_type() {
            MessageType::BindingResponse => {
                if let Some((secret, accepted)) = &self.secret {
                    message.verify(secret, *accepted)?;
                }
                self.mapped_address(message)?.map(|mapped_address| Response::Bound { mapped_address })
            }
            // Error responses are never signed (RFC 3489 11.2, Table 2).
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

    /// The mapped address of a response. If XOR-MAPPED-ADDRESS is accepted, all address attributes have to agree.
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
