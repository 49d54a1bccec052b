//! Length of a message body (RFC 2616 4.4). A datagram that ends before its body is not a valid message. Bytes after
//! the body, like the body itself, are ignored (UCR-16).

/// Body length according to the headers.
#[derive(Default)]
pub(super) struct Framing {
    length: Option<Length>,
    /// Whether there is a Transfer-Encoding other than `identity`.
    is_coded: bool,
    /// Whether the last coding of the last Transfer-Encoding is `chunked`.
    is_chunked: bool,
}

enum Length {
    /// Content-Length in bytes.
    Bytes(usize),
    /// Several Content-Length headers, or one that is not a number.
    Wrong,
}

impl Framing {
    /// Handles a header; `value` is as in the datagram, including line ends.
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

    /// Whether `rest`, the bytes after the empty line, begins with a complete body.
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

/// `1*DIGIT`. Numbers that overflow are limited to the maximum, which is longer than any datagram.
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

/// Removes a line from `rest` and returns it without its line end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
