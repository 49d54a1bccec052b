//! Output for people: aligned tables. Text from the network is escaped for the terminal (SEC-9).

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde::Serialize;
use tr111_core::connreq;

use super::Outcome;
use crate::control::message::Identity;

/// Writes bytes to stdout and flushes it.
pub(super) fn write(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Writes one JSON value as a line.
pub(super) fn write_json<V: Serialize>(value: &V) -> Outcome {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    write(&line)
}

/// Escapes text from the network, so that it can neither control the terminal nor change the writing direction.
/// Characters that are not plainly printable become `\u{...}`, and a backslash is doubled.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let is_plain = |character: char| match character {
        '\\' => false,
        '"' | '\'' => true,
        other => other.escape_debug().len() == 1,
    };
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_plain(character) { shown.push(character) } else { shown.extend(character.escape_debug()) }
    }
    Cow::Owned(shown)
}

/// Warns if a ConnectionRequestUsername can be sent only by an ACS that encodes it (T-51).
pub(super) fn warn_of_username(username: &str) {
    if let Some(character) = connreq::must_be_encoded(username) {
        eprintln!(
            "warning: ConnectionRequestUsername contains {character:?}; Connection Requests from an ACS that does not \
             encode this character are refused"
        );
    }
}

/// Rows of columns, each as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows, with the headings of its columns.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(super) fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = width - cell.chars().count();
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', padding + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    pub(super) fn print(&self) -> Outcome {
        write(self.render().as_bytes())
    }
}

/// A table cell: `-` for an empty text.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text).into_owned() }
}

/// An identity in the form of TR-069: `OUI-ProductClass-SerialNumber`.
pub(super) fn identity_name(identity: &Identity) -> String {
    let Identity { manufacturer_oui, product_class, serial_number } = identity;
    let parts = [manufacturer_oui, product_class, serial_number].into_iter().filter(|part| !part.is_empty());
    parts.map(|part| printable(part)).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_steers_terminals_is_escaped() {
        for (hostile, shown) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{200b}", "\\u{200b}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{301}", "a\\u{301}"),
            ("\u{feff}", "\\u{feff}"),
            ("line\u{2028}", "line\\u{2028}"),
            ("\\u{202e}", "\\\\u{202e}"),
            ("\n", "\\n"),
        ] {
            assert_eq!(printable(hostile), shown);
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["DEV0001", "Zähler 5", "\"}", "it's", "セット"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn columns_are_aligned_by_characters_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(&["A", "LONG"]);
        table.push(["ü".to_owned(), "x".to_owned()]);
        table.push(["four".to_owned(), String::new()]);
        assert_eq!(table.render(), "A     LONG\nü     x\nfour\n");
    }
}
