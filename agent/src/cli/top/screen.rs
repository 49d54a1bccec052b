//! The terminal in full-screen mode. Its previous state is restored when [`Screen`] is dropped.

use std::{
    io::{self, Read as _, Write as _, stdin, stdout},
    panic,
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Switches to the alternate screen, hides the cursor, and turns line wrapping off.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Lines and columns if the terminal does not report its size.
const SIZE: (u16, u16) = (24, 80);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    Other,
}

impl Key {
    /// Waits for the next key presses. Returns `Quit` when the terminal is closed.
    pub(super) fn wait() -> Vec<Self> {
        let mut bytes = [0; 64];
        match stdin().lock().read(&mut bytes) {
            Ok(0) | Err(_) => vec![Self::Quit],
            Ok(read) => Self::all(&bytes[..read]),
        }
    }

    /// Decodes the bytes that the terminal sent.
    fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut keys = Vec::new();
        while !bytes.is_empty() {
            let (key, rest) = bytes.split_at(length(bytes));
            keys.push(Self::of(key));
            bytes = rest;
        }
        keys
    }

    /// Decodes one key. In raw mode the terminal sends no signal for Ctrl-C, so it is a key as well.
    fn of(key: &[u8]) -> Self {
        match key {
            [b'q' | b'Q' | 0x03] => Self::Quit,
            b"\x1b[A" | b"\x1bOA" | b"k" => Self::Up,
            b"\x1b[B" | b"\x1bOB" | b"j" => Self::Down,
            b"\x1b[5~" => Self::PageUp,
            b"\x1b[6~" | b" " => Self::PageDown,
            _ => Self::Other,
        }
    }
}

/// Number of bytes of the first key: one, or a control sequence up to its final byte (ECMA-48 5.4).
fn length(bytes: &[u8]) -> usize {
    match bytes {
        [0x1b, b'O', _, ..] => 3,
        [0x1b, b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| matches!(byte, 0x40..=0x7e));
            end.map_or(bytes.len(), |end| 3 + end)
        }
        _ => 1,
    }
}

/// Full-screen mode. Dropping it restores the terminal.
pub(super) struct Screen {
    before: Termios,
}

impl Screen {
    /// Switches the terminal to full-screen mode.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // From here on, dropping `screen` restores the terminal.
        let screen = Self { before };
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        write(ENTER)?;
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // Leave the alternate screen first, so that the panic message stays visible.
            let _ = write(LEAVE);
            tell(panic);
        }));
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A closed terminal needs no restoration.
        let _ = write(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Lines and columns of the terminal.
pub(super) fn size() -> (u16, u16) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => SIZE,
    }
}

/// Draws lines from the top and clears the rest of the screen.
pub(super) fn draw(page: &[String]) -> io::Result<()> {
    let lines: Vec<_> = page.iter().map(|line| format!("{line}\x1b[K")).collect();
    write(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_what_terminals_send() {
        for (bytes, keys) in [
            (&b"\x03"[..], &[Key::Quit][..]),
            (b"\x1b[A\x1b[6~q", &[Key::Up, Key::PageDown, Key::Quit]),
            (b"\x1bOBk", &[Key::Down, Key::Up]),
            (b"\x1b", &[Key::Other]),
            (b"\x1b[1;5", &[Key::Other]),
            (b"", &[]),
        ] {
            assert_eq!(Key::all(bytes), keys, "{bytes:?}");
        }
    }
}
