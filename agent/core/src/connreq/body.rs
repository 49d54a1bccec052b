//! The length of a message's body (RFC 2616 4.4). A datagram that ends before its body does is no message; what is behind
//! the body is ignored like the body itself (UCR-16).

/// What the headers say of the body.
#[derive(Default)]
pub(super) struct Framing {
    length: Option<Length>,
    /// There is a Transfer-Encoding other than `identity`.
    is_coded: bool,
    /// The last coding of the last Transfer-Encoding is `chunked`.
    is_chunked: bool,
}

enum Length {
    /// Content-Length, in bytes.
    Bytes(usize),
    /// More than one Content-Length, or one that is no number.
    Wrong,
}

impl Framing {
    /// Takes a header; its value as it stands in the datagram, with the line ends.
    pub(super) fn note(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value.trim_ascii()).map_or(Length::Wrong, Length::Bytes);
            self.length = Some(if self.length.is_some() { Length::Wrong } else { length });
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or(value).trim_ascii();
            self.is_chunked = last.eq_ignore_ascii_case(b"chunked");
            self.is_coded |= !value.trim_ascii().eq_ignore_ascii_case(b"identity");
        }
    }

    /// Whether `rest`, what stands behind the empty line, begins with a whole body.
    pub(super) fn fits(&self, rest: &[u8]) -> bool {
        match self.length {
            // RFC 2616 4.4: both headers together are forbidden.
            _ if self.is_coded => self.is_chunked && self.length.is_none() && has_chunks(rest).is_some(),
            None => true,
            Some(Length::Bytes(length)) => length <= rest.len(),
            Some(Length::Wrong) => false,
        }
    }
}

/// `1*DIGIT`. What is too large for a number is larger than any datagram.
fn decimal(text: &[u8]) -> Option<usize> {
    let digit = |number: usize, byte: &u8| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(usize::from(byte - b'0')))
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}

/// `Chunked-Body` (RFC 2616 3.6.1): chunks, one of length 0, a trailer, an empty line. Extensions are ignored.
fn has_chunks(mut rest: &[u8]) -> Option<()> {
    loop {
        let line = line(&mut rest)?;
        let size = line.split(|&byte| byte == b';').next()?.trim_ascii_end();
        let size = std::str::from_utf8(size).ok().filter(|size| !size.starts_with('+'))?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    while !line(&mut rest)?.is_empty() {}
    Some(())
}

/// Takes a line off `rest`, and gives it without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
