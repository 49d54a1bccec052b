//! Checks of provisioned credentials for weaknesses (STUN-20, STUN-22, T-37).

use super::Cpe;
use crate::connreq::must_be_encoded;

/// Random bits that a password should have (RFC 3489 9.3.1, required by TR-111 2.2.2.2.1).
pub const STRENGTH: f32 = 128.0;
/// Fraction of [`STRENGTH`] that suffices, because the alphabet is only estimated from the characters that occur.
const NOMINAL: f32 = 0.95;
/// The fraction without characters that continue a run. Random texts contain some runs, and must not be reported.
const WITHOUT_RUNS: f32 = 0.75;
/// USERNAME is padded to a multiple of this many bytes (RFC 3489 11.2.6).
const ALIGNMENT: usize = 4;

/// A weakness of a CPE's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// There is no STUNPassword, so nothing from this CPE can be authenticated (STUN-20).
    NoStunPassword,
    /// STUNPassword is easier to guess than 128 random bits (STUN-22).
    WeakStunPassword,
    /// Another CPE has the same STUNPassword (STUN-22).
    DuplicateStunPassword,
    /// There is no ConnectionRequestPassword, so either everybody can send Connection Requests to the CPE, or nobody.
    NoConnectionRequestPassword,
    /// ConnectionRequestPassword is easier to guess than 128 random bits.
    WeakConnectionRequestPassword,
    /// A password equals a username, or begins or ends with one.
    PasswordFromUsername,
    /// STUNUsername has to be padded in every request, which some CPEs do incorrectly (T-37).
    UsernameLength,
    /// STUNUsername ends with a space, which cannot be distinguished from padding (T-37).
    UsernameBlank,
    /// ConnectionRequestUsername has a character that only an ACS with percent-encoding can send (T-51).
    ConnectionRequestUsernameEncoding,
}

impl Finding {
    /// Name of the finding in JSON and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoStunPassword => "no_stun_password",
            Self::WeakStunPassword => "weak_stun_password",
            Self::DuplicateStunPassword => "duplicate_stun_password",
            Self::NoConnectionRequestPassword => "no_connection_request_password",
            Self::WeakConnectionRequestPassword => "weak_connection_request_password",
            Self::PasswordFromUsername => "password_from_username",
            Self::UsernameLength => "username_length",
            Self::UsernameBlank => "username_blank",
            Self::ConnectionRequestUsernameEncoding => "connection_request_username_encoding",
        }
    }

    /// Description of the finding.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NoStunPassword => "no STUNPassword: its bindings cannot be authenticated",
            Self::WeakStunPassword => "STUNPassword is easier to guess than 128 random bits",
            Self::DuplicateStunPassword => "another CPE has the same STUNPassword",
            Self::NoConnectionRequestPassword => "no ConnectionRequestPassword: no Connection Request can be signed",
            Self::WeakConnectionRequestPassword => "ConnectionRequestPassword is easier to guess than 128 random bits",
            Self::PasswordFromUsername => "a password equals a username, or begins or ends with one",
            Self::UsernameLength => "the length of STUNUsername is not a multiple of 4: requests have to pad it",
            Self::UsernameBlank => "STUNUsername ends with a space, which looks like padding on the wire",
            Self::ConnectionRequestUsernameEncoding => {
                "ConnectionRequestUsername has a character that must be percent-encoded: not every ACS does that"
            }
        }
    }
}

/// The weaknesses of one CPE. [`Finding::DuplicateStunPassword`] is not among them, because it needs all CPEs.
pub fn findings(cpe: &Cpe) -> Vec<Finding> {
    let Cpe { name, credentials, state: _ } = cpe;
    let (stun, request) = (&*credentials.stun_password, &*credentials.connection_request_password);
    let from_username = |password: &[u8]| {
        [&**name, &credentials.connection_request_username]
            .iter()
            .any(|username| !username.is_empty() && (password.starts_with(username) || password.ends_with(username)))
    };
    let blank = name.last().is_some_and(|last| matches!(last, b' ' | 0));
    let username = std::str::from_utf8(&credentials.connection_request_username);
    let is_encoded = username.map_or(true, |username| must_be_encoded(username).is_some());
    let all = [
        (stun.is_empty(), Finding::NoStunPassword),
        (!stun.is_empty() && is_weak(stun), Finding::WeakStunPassword),
        (request.is_empty(), Finding::NoConnectionRequestPassword),
        (!request.is_empty() && is_weak(request), Finding::WeakConnectionRequestPassword),
        (from_username(stun) || from_username(request), Finding::PasswordFromUsername),
        (!name.len().is_multiple_of(ALIGNMENT), Finding::UsernameLength),
        (blank, Finding::UsernameBlank),
        (is_encoded, Finding::ConnectionRequestUsernameEncoding),
    ];
    all.into_iter().filter_map(|(is_so, finding)| is_so.then_some(finding)).collect()
}

/// Whether a password has fewer bits than [`STRENGTH`], within the tolerances.
pub fn is_weak(password: &[u8]) -> bool {
    let [nominal, without_runs] = plausible_bits(password);
    nominal < STRENGTH * NOMINAL || without_runs < STRENGTH * WITHOUT_RUNS
}

/// Estimated bits of a password: for an attacker who knows which classes of characters occur, and for one who also
/// tries runs such as `aaaa` and `1234` first.
fn plausible_bits(password: &[u8]) -> [f32; 2] {
    let has = |class: fn(&u8) -> bool| password.iter().any(class);
    let hexadecimal = password.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
        && !(has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase));
    let classes: [(bool, u32); 4] = [
        (has(u8::is_ascii_digit), 10),
        (has(u8::is_ascii_lowercase), if hexadecimal { 6 } else { 26 }),
        (has(u8::is_ascii_uppercase), if hexadecimal { 6 } else { 26 }),
        (!hexadecimal && has(|byte| !byte.is_ascii_alphanumeric()), 33),
    ];
    let alphabet: u32 = classes.into_iter().filter_map(|(has, size)| has.then_some(size)).sum();
    let mut seen = [false; 256];
    for byte in password {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let alphabet = if distinct * 4 < password.len() { alphabet.min(distinct as u32) } else { alphabet };
    let step = |pair: &[u8]| pair[1].wrapping_sub(pair[0]);
    let continues = |three: &&[u8]| step(three) == step(&three[1..]) && matches!(step(three), 0 | 1 | 255);
    let guessed = password.len() - password.windows(3).filter(continues).count();
    // Lengths and alphabet sizes are at most a few hundred.
    [password.len(), guessed].map(|length| f32::from(length as u16) * f32::from(alphabet.max(1) as u16).log2())
}
