//! The table that `cargo xtask bench` prints: what was measured beside what is to hold.

use std::fmt;

/// What a measured value is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
    Between(f64, f64),
}

impl Bar {
    fn is_held_by(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bar) => measured <= bar,
            Self::AtLeast(bar) => measured >= bar,
            Self::Below(bar) => measured < bar,
            Self::Between(least, most) => (least..=most).contains(&measured),
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtMost(bar) => format!("<= {}", number(bar)),
            Self::AtLeast(bar) => format!(">= {}", number(bar)),
            Self::Below(bar) => format!("< {}", number(bar)),
            Self::Between(least, most) => format!("{} to {}", number(least), number(most)),
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    measured: f64,
    unit: &'static str,
    bar: Option<Bar>,
    note: String,
}

impl Row {
    /// `measured` of `what`, in `unit`.
    pub fn new(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, unit, bar: None, note: String::new() }
    }

    /// It holds up to `bar`.
    #[must_use]
    pub fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtMost(bar)), ..self }
    }

    /// It holds from `bar` on.
    #[must_use]
    pub fn at_least(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(bar)), ..self }
    }

    /// It holds below `bar`.
    #[must_use]
    pub fn below(self, bar: f64) -> Self {
        Self { bar: Some(Bar::Below(bar)), ..self }
    }

    /// It holds from `least` to `most`.
    #[must_use]
    pub fn between(self, least: f64, most: f64) -> Self {
        Self { bar: Some(Bar::Between(least, most)), ..self }
    }

    /// What there is to know besides: spread, baseline, method.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn is_held(&self) -> bool {
        self.bar.is_none_or(|bar| bar.is_held_by(self.measured))
    }

    fn verdict(&self) -> &'static str {
        match self.bar {
            None => "",
            Some(_) if self.is_held() => "held",
            Some(_) => "MISSED",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, measured, unit, bar, note } = self;
        let bar = bar.map(|bar| format!("{} {unit}", bar.words()));
        let measured = format!("{} {unit}", number(*measured));
        let line = format!("{what:<64}{measured:>16}{:>18}  {:<7} {note}", bar.unwrap_or_default(), self.verdict());
        f.write_str(line.trim_end())
    }
}

/// Three figures, or all of those before the point, in groups.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

/// The table as it grows: each line is printed when it is known.
#[derive(Debug, Default)]
pub struct Report {
    held: usize,
    missed: Vec<String>,
    against: Option<Vec<u8>>,
}

impl Report {
    /// An empty one, whose head is printed. `against` is the object with the programs of before.
    pub fn start(against: Option<Vec<u8>>) -> Self {
        println!("{:<64}{:>16}{:>18}", "what", "measured", "bar");
        Self { against, ..Self::default() }
    }

    /// The object with the programs of before.
    pub(super) fn against(&self) -> Option<Vec<u8>> {
        self.against.clone()
    }

    /// Adds a line.
    pub fn add(&mut self, row: &Row) {
        println!("{row}");
        if row.bar.is_some() && row.is_held() {
            self.held += 1;
        } else if !row.is_held() {
            self.missed.push(row.what.clone());
        }
    }

    /// Adds that something could not be measured.
    pub fn failed(&mut self, what: &str, error: &anyhow::Error) {
        println!("{what}: not measured: {error:#}");
        self.missed.push(format!("{what} (not measured)"));
    }

    /// Prints the end; whether every bar was held.
    pub fn finish(self) -> bool {
        match self.missed.as_slice() {
            [] => println!("\nEvery bar is held ({}).", self.held),
            missed => println!("\n{} held, {} MISSED:\n  {}", self.held, missed.len(), missed.join("\n  ")),
        }
        self.missed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_was_measured_beside_its_bar() {
        let words = |row: &Row| row.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&Row::new("one", 9.25, "ns").at_most(12.0).note("why")), "one 9.25 ns <= 12 ns held why");
        assert_eq!(words(&Row::new("two", 499_999.6, "/s").at_least(5e5)), "two 500,000 /s >= 500,000 /s MISSED");
        assert_eq!(words(&Row::new("three", 2.0, "%").below(2.0)), "three 2 % < 2 % MISSED");
        assert_eq!(words(&Row::new("five", 15.1, "s").between(13.5, 15.0)), "five 15.1 s 13.5 to 15 s MISSED");
        assert_eq!(words(&Row::new("four", -1234.5, "ns")), "four -1,234 ns");
    }

    #[test]
    fn one_missed_bar_is_remembered_by_name() {
        let mut report = Report::default();
        report.add(&Row::new("good", 1.0, "x").at_most(1.0));
        report.add(&Row::new("bad", 2.0, "x").at_most(1.0));
        report.add(&Row::new("plain", 2.0, "x"));
        assert_eq!((report.held, report.missed.as_slice()), (1, ["bad".to_owned()].as_slice()));
        assert!(!report.finish());
    }
}
