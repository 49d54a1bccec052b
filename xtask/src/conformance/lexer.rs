//! As much of Rust's lexical structure as it takes to tell code from comments and strings.

/// A token and the line it starts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A name, keyword or number.
    Word(&'a str),
    Punctuation(char),
    /// A string, character or lifetime; its content never matters here.
    Literal,
    /// A comment of any kind, with its slashes.
    Comment(&'a str),
}

/// Splits `source`; text that is no valid Rust gives some tokens, not an error, because the compiler sees it as well.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        self.take(char::is_whitespace);
        let line = self.line;
        let rest = &self.source[self.at..];
        let first = rest.chars().next()?;
        let kind = if rest.starts_with("//") {
            Kind::Comment(self.take(|c| c != '\n'))
        } else if rest.starts_with("/*") {
            Kind::Comment(self.block_comment())
        } else if let Some(hashes) = raw_string(rest) {
            self.raw_string(hashes)
        } else if first == '"' || ["b\"", "c\"", "b'"].iter().any(|start| rest.starts_with(start)) {
            let prefix = usize::from(first != '"');
            self.quoted(prefix)
        } else if first == '\'' {
            self.character_or_lifetime()
        } else if first.is_alphanumeric() || first == '_' {
            Kind::Word(self.take(|c| c.is_alphanumeric() || c == '_'))
        } else {
            self.advance(first.len_utf8());
            Kind::Punctuation(first)
        };
        Some(Token { kind, line })
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let end = (self.at + bytes).min(self.source.len());
        let text = &self.source[self.at..end];
        self.line += text.matches('\n').count();
        self.at = end;
        text
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.source[self.at..];
        self.advance(rest.find(|c| !of(c)).unwrap_or(rest.len()))
    }

    fn block_comment(&mut self) -> &'a str {
        let rest = &self.source[self.at..];
        let (mut depth, mut end) = (0_usize, 0);
        while end < rest.len() {
            if rest[end..].starts_with("/*") {
                depth += 1;
                end += 2;
            } else if rest[end..].starts_with("*/") {
                depth -= 1;
                end += 2;
                if depth == 0 {
                    break;
                }
            } else {
                end += rest[end..].chars().next().map_or(1, char::len_utf8);
            }
        }
        self.advance(end)
    }

    fn raw_string(&mut self, start: RawStart) -> Kind<'a> {
        let end = format!("\"{}", "#".repeat(start.hashes));
        let body = &self.source[self.at + start.length..];
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        self.advance(start.length + length);
        Kind::Literal
    }

    /// A string or byte character, whose quote stands behind `prefix` bytes.
    fn quoted(&mut self, prefix: usize) -> Kind<'a> {
        let rest = &self.source[self.at + prefix..];
        let quote = rest.chars().next().unwrap_or('"');
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.advance(prefix + end.map_or(rest.len(), |(at, _)| at + 1));
        Kind::Literal
    }

    fn character_or_lifetime(&mut self) -> Kind<'a> {
        let mut ahead = self.source[self.at + 1..].chars();
        let (first, second) = (ahead.next(), ahead.next());
        if first == Some('\\') || second == Some('\'') {
            return self.quoted(0);
        }
        self.advance(1);
        self.take(|c| c.is_alphanumeric() || c == '_');
        Kind::Literal
    }
}

#[derive(Clone, Copy)]
struct RawStart {
    /// Bytes up to and with the opening quote.
    length: usize,
    hashes: usize,
}

/// `r"`, `r#"`, `br##"` and so on; `r#type` is a word.
fn raw_string(rest: &str) -> Option<RawStart> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#'])))?;
    let behind = rest[prefix.len()..].trim_start_matches('#');
    let hashes = rest.len() - prefix.len() - behind.len();
    behind.starts_with('"').then_some(RawStart { length: prefix.len() + hashes + 1, hashes })
}

#[cfg(test)]
mod tests {
    use super::{Kind, tokens};

    fn kinds(source: &str) -> Vec<Kind<'_>> {
        tokens(source).into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn tells_words_from_strings_and_comments() {
        let found = kinds("let a = \"// fn \\\" x\"; // fn b\n/* fn /* c */ d */ e");
        let expected = [
            Kind::Word("let"),
            Kind::Word("a"),
            Kind::Punctuation('='),
            Kind::Literal,
            Kind::Punctuation(';'),
            Kind::Comment("// fn b"),
            Kind::Comment("/* fn /* c */ d */"),
            Kind::Word("e"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_raw_string_ends_with_as_many_hashes_as_it_began_with() {
        assert_eq!(kinds(r###"r##"a "# b"## c"###), [Kind::Literal, Kind::Word("c")]);
        assert_eq!(kinds(r#"br"\" d"#), [Kind::Literal, Kind::Word("d")]);
    }

    #[test]
    fn a_lifetime_does_not_swallow_what_follows() {
        assert_eq!(kinds("'a b"), [Kind::Literal, Kind::Word("b")]);
        assert_eq!(kinds(r"'\'' b"), [Kind::Literal, Kind::Word("b")]);
        assert_eq!(kinds("'{' b'\"' c"), [Kind::Literal, Kind::Literal, Kind::Word("c")]);
    }

    #[test]
    fn counts_lines_also_inside_literals() {
        let lines: Vec<_> = tokens("a \"\n\n\" b\n/*\n*/ c").into_iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 1, 3, 4, 5]);
    }
}
