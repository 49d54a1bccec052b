//! Parser of the HTTP request around the query (RFC 2616 5, RFC 3986, T-22).
//!
//! TR-111 puts the query directly after the authority. General HTTP parsers interpret such URIs differently or reject
//! them. The grammar that is needed is small and is parsed here in one pass.

use super::{
    Field, Number, Refusal, Settings, body,
    query::{Encoded, Fields, Judge, Query},
    uri,
};
use crate::secret::DIGEST;

/// Classification of a datagram on the port that STUN and Connection Requests share (UCR-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The first byte is 0 or 1: a message for [`crate::stun`].
    Stun(&'a [u8]),
    /// The first byte is a letter: possibly a Connection Request.
    ConnectionRequest(Datagram<'a>),
    /// Any other datagram.
    Other,
}

impl<'a> Payload<'a> {
    /// Classifies a datagram by its first byte, as TR-111 2.2.1.4 suggests.
    pub fn of(datagram: &'a [u8]) -> Self {
        match datagram {
            [0 | 1, ..] => Self::Stun(datagram),
            [b'A'..=b'Z' | b'a'..=b'z', ..] => Self::ConnectionRequest(Datagram(datagram)),
            _ => Self::Other,
        }
    }
}

/// A datagram that may be a Connection Request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a>(pub &'a [u8]);

/// An HTTP/1.1 request with the five fields of TR-111, all well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedRequest<'a>(pub(super) Query<'a>);

impl<'a> ParsedRequest<'a> {
    /// The field `ts`.
    pub fn timestamp(&self) -> Number<'a> {
        self.0.timestamp
    }

    /// The field `id`.
    pub fn id(&self) -> Number<'a> {
        self.0.id
    }

    /// The field `un`.
    pub fn username(&self) -> Encoded<'a> {
        self.0.username
    }

    /// The field `cn`.
    pub fn nonce(&self) -> Encoded<'a> {
        self.0.nonce
    }

    /// The field `sig`, decoded.
    pub fn signature(&self) -> [u8; DIGEST] {
        self.0.signature.value()
    }
}

impl<'a> Datagram<'a> {
    /// Parses the request line and the headers. The content of a body is ignored (UCR-16), but its length has to match
    /// the headers (RFC 2616 4.4).
    pub fn parse(self, settings: Settings) -> Result<ParsedRequest<'a>, Refusal> {
        self.parse_while(settings, |_, _| Ok(()))
    }

    /// Like [`Datagram::parse`], but ends as soon as `judge` refuses `ts` or `id`. They come first, so a replayed
    /// request costs little (T-62).
    #[inline]
    pub(super) fn parse_while(self, settings: Settings, judge: impl Judge<'a>) -> Result<ParsedRequest<'a>, Refusal> {
        let mut reader = Reader { datagram: self.0, at: 0 };
        reader.method()?;
        reader.authority(settings)?;
        reader.path()?;
        let fields = reader.query(judge)?;
        reader.version()?;
        reader.headers(settings)?;
        fields.finish().map(ParsedRequest)
    }
}

/// Byte classes, so that each byte is classified by one table look-up.
pub(super) mod class {
    /// RFC 3986: unreserved, sub-delims, `:`, `@`, `/`, `?`; except the classes below.
    pub(super) const URI: u8 = 1;
    /// `+` and `%`.
    pub(super) const ESCAPE: u8 = 2;
    /// `&`.
    pub(super) const AMPERSAND: u8 = 4;
    /// `=`.
    pub(super) const EQUALS: u8 = 8;
    /// A byte of a field's value in the query.
    pub(in super::super) const VALUE: u8 = URI | ESCAPE | EQUALS;
    /// A byte of a header name (RFC 2616 2.2, token).
    pub(super) const TOKEN: u8 = 16;
    /// A byte of a header value: no control character except the tab.
    pub(super) const TEXT: u8 = 32;
    /// A byte of an authority, including the brackets of IPv6 addresses (RFC 3986).
    pub(super) const AUTHORITY: u8 = 64;
    /// A byte of a reg-name, except `%` and the bytes that end the host (RFC 3986 3.2.2).
    pub(super) const NAME: u8 = 128;

    pub(in super::super) const OF: [u8; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let octet = byte as u8;
            let mut class = match octet {
                b'+' | b'%' => ESCAPE,
                b'&' => AMPERSAND,
                b'=' => EQUALS,
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b';' | b':' | b'@'
                | b'/' | b'?' => URI,
                _ if octet.is_ascii_alphanumeric() => URI,
                _ => 0,
            };
            if class != 0 && !matches!(octet, b'/' | b'?') || matches!(octet, b'[' | b']') {
                class |= AUTHORITY;
            }
            if class & AUTHORITY != 0 && !matches!(octet, b'%' | b':' | b'@' | b'[' | b']') {
                class |= NAME;
            }
            if octet.is_ascii_alphanumeric()
                || matches!(
                    octet,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
            {
                class |= TOKEN;
            }
            if !octet.is_ascii_control() || octet == b'\t' {
                class |= TEXT;
            }
            table[byte] = class;
            byte += 1;
        }
        table
    };
}

struct Reader<'a> {
    datagram: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.datagram[self.at..]
    }

    fn malformed(&self) -> Refusal {
        self.malformed_at(self.at)
    }

    fn malformed_at(&self, offset: usize) -> Refusal {
        Refusal::Malformed { offset, length: self.datagram.len() }
    }

    /// Skips bytes of the given classes. Returns the bytes and the union of their classes.
    #[inline(always)]
    fn run(&mut self, classes: u8) -> (&'a [u8], u8) {
        let rest = self.rest();
        let mut seen = 0;
        let mut length = 0;
        while let Some(&byte) = rest.get(length) {
            let class = class::OF[usize::from(byte)];
            if class & classes == 0 {
                break;
            }
            seen |= class;
            length += 1;
        }
        self.at += length;
        (&rest[..length], seen)
    }

    /// Skips `text` if it is next, ignoring case. Returns whether it was.
    fn step(&mut self, text: &[u8]) -> bool {
        let here = self.rest().get(..text.len()).is_some_and(|here| here.eq_ignore_ascii_case(text));
        self.at += if here { text.len() } else { 0 };
        here
    }

    /// Parses the method and the space after it. Methods are case-sensitive (RFC 2616 5.1.1).
    fn method(&mut self) -> Result<(), Refusal> {
        let (method, _) = self.run(class::TOKEN);
        if self.rest().first() != Some(&b' ') {
            return Err(self.malformed());
        }
        self.at += 1;
        if method == b"GET" { Ok(()) } else { Err(Refusal::WrongMethod) }
    }

    /// Parses scheme and authority (RFC 3986 3.2). The port is not compared with the local one, because a NAT may
    /// translate it (T-22).
    fn authority(&mut self, settings: Settings) -> Result<(), Refusal> {
        if !self.step(b"http://") {
            return match self.rest().first() {
                Some(b'/' | b'?') if settings.accept_relative => Ok(()),
                Some(b'/' | b'?') => Err(Refusal::RelativeUri),
                Some(byte) if byte.is_ascii_alphabetic() => Err(self.other_scheme()),
                _ => Err(self.malformed()),
            };
        }
        let start = self.at;
        if self.name_and_port() {
            return Ok(());
        }
        self.at = start;
        let (authority, _) = self.run(class::AUTHORITY);
        if uri::is_authority(authority) { Ok(()) } else { Err(self.malformed_at(start)) }
    }

    /// Parses the usual form of the authority: a name or an IPv4 address, and a port. Returns whether the authority
    /// ends there.
    #[inline]
    fn name_and_port(&mut self) -> bool {
        let (name, _) = self.run(class::NAME);
        if self.rest().first() == Some(&b':') {
            self.at += 1;
            self.at += self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        }
        let is_over = self.rest().first().is_none_or(|&byte| class::OF[usize::from(byte)] & class::AUTHORITY == 0);
        !name.is_empty() && is_over
    }

    #[cold]
    fn other_scheme(&self) -> Refusal {
        let rest = self.rest();
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if rest[length..].starts_with(b"://") { Refusal::WrongScheme } else { self.malformed() }
    }

    /// Parses the path, which is empty or a slash (T-50), and the question mark.
    fn path(&mut self) -> Result<(), Refusal> {
        let path = match self.rest() {
            [b'?', ..] => 1,
            [b'/', b'?', ..] => 2,
            [b'/', ..] => return Err(Refusal::WrongPath),
            [b' ', ..] => return Err(Refusal::MissingField(Field::Ts)),
            _ => return Err(self.malformed()),
        };
        self.at += path;
        Ok(())
    }

    #[inline]
    fn query(&mut self, judge: impl Judge<'a>) -> Result<Fields<'a>, Refusal> {
        let mut fields = Fields::default();
        loop {
            let start = self.at;
            let (name, mut skipped) = self.run(class::URI | class::ESCAPE);
            if self.rest().first() == Some(&b'=') {
                self.at += 1;
                let (value, seen) = self.run(class::VALUE);
                match Field::named(name) {
                    Some(field) => fields.note(field, value, seen & class::ESCAPE != 0, &judge)?,
                    None => skipped |= seen,
                }
            }
            // RFC 3986 2.1 applies to ignored fields, too.
            if skipped & class::ESCAPE != 0 && !uri::is_sound(&self.datagram[start..self.at]) {
                return Err(self.malformed_at(start));
            }
            match self.rest().first() {
                Some(b'&') => self.at += 1,
                Some(b' ') => return Ok(fields),
                _ => return Err(self.malformed()),
            }
        }
    }

    fn version(&mut self) -> Result<(), Refusal> {
        self.at += 1;
        match self.rest() {
            // RFC 2616 3.1: HTTP-Version is case-sensitive.
            rest if rest.starts_with(b"HTTP/1.1\r") || rest.starts_with(b"HTTP/1.1\n") => self.at += 8,
            rest if rest.starts_with(b"HTTP/1.1") => {
                self.at += 8;
                return Err(if rest.len() == 8 { self.no_blank_line() } else { self.malformed() });
            }
            rest if rest.starts_with(b"HTTP/") => return Err(Refusal::WrongVersion),
            _ => return Err(self.malformed()),
        }
        self.line_end()
    }

    fn line_end(&mut self) -> Result<(), Refusal> {
        match self.rest() {
            [b'\r', b'\n', ..] => self.at += 2,
            [b'\n', ..] => return Err(Refusal::BareLineFeed { offset: self.at }),
            [] | [b'\r'] => return Err(self.no_blank_line()),
            _ => return Err(self.malformed()),
        }
        Ok(())
    }

    fn no_blank_line(&self) -> Refusal {
        Refusal::NoBlankLine { length: self.datagram.len() }
    }

    /// Parses the headers and the empty line, and checks the length of the body. The value of Host is ignored (RFC 2616
    /// 5.2).
    fn headers(&mut self, settings: Settings) -> Result<(), Refusal> {
        let mut hosts = 0;
        let mut framing = body::Framing::default();
        while !matches!(self.rest(), [b'\r', ..]) {
            let (name, _) = self.run(class::TOKEN);
            match (name, self.rest()) {
                (_, []) => return Err(self.no_blank_line()),
                ([], [b'\n', ..]) => return Err(Refusal::BareLineFeed { offset: self.at }),
                ([], _) | (_, [0..=b'9' | b';'..=0xff, ..]) => return Err(self.malformed()),
                (_, [b':', ..]) => {}
            }
            hosts += u32::from(name.eq_ignore_ascii_case(b"host"));
            let value = self.at + 1;
            // A value continues in lines that begin with a space or a tab (RFC 2616 2.2).
            loop {
                self.run(class::TEXT);
                self.line_end()?;
                if !matches!(self.rest(), [b' ' | b'\t', ..]) {
                    break;
                }
            }
            framing.note(name, &self.datagram[value..self.at]);
        }
        self.line_end()?;
        match hosts {
            0 if settings.require_host => return Err(Refusal::NoHost),
            0 | 1 => {}
            _ => return Err(Refusal::DuplicateHost),
        }
        if framing.fits(self.rest()) { Ok(()) } else { Err(Refusal::BodyLength) }
    }
}
