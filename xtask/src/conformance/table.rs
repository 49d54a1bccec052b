//! `xtask/requirements.md`: what TR-111 asks, and by when this project answers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// The table, in its own order.
pub(super) struct Table {
    /// In the order in which the project reaches them.
    pub(super) stages: Vec<String>,
    /// Index of the last stage that is reached.
    pub(super) reached: usize,
    pub(super) requirements: Vec<Requirement>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) clause: String,
    /// Index of the stage from which on it is due.
    pub(super) stage: usize,
    pub(super) text: String,
    /// Why tests cannot show all of it yet.
    pub(super) partial: Option<String>,
}

const KINDS: [&str; 5] = ["MUST", "SHOULD", "MAY", "info", "trap"];

impl Table {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let setting = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::trim).with_context(|| format!("no line `{name}: ...`"))
        };
        let stages: Vec<String> = setting("Stages")?.split(", ").map(str::to_owned).collect();
        let stage =
            |name: &str| stages.iter().position(|stage| stage == name).with_context(|| format!("no stage {name}"));
        let reached = stage(setting("Stage reached")?)?;

        let mut requirements = Vec::new();
        let mut seen = BTreeMap::new();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            let Some(cells) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
                continue;
            };
            let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
            if matches!(cells[0], "id" | "---") {
                continue;
            }
            let [id, kind, clause, due, text, partial] = cells[..] else {
                bail!("line {number} has {} columns instead of 6", cells.len());
            };
            ensure!(is_id(id), "line {number}: {id} is not an id");
            ensure!(KINDS.contains(&kind), "line {number}: {kind} is none of {}", KINDS.join(", "));
            if let Some(first) = seen.insert(id.to_owned(), number) {
                bail!("line {number}: {id} is on line {first} already");
            }
            requirements.push(Requirement {
                id: id.into(),
                kind: kind.into(),
                clause: clause.into(),
                stage: stage(due).with_context(|| format!("line {number}"))?,
                text: text.into(),
                partial: (!partial.is_empty()).then(|| partial.into()),
            });
        }
        Ok(Self { stages, reached, requirements })
    }

    pub(super) fn is_due(&self, requirement: &Requirement) -> bool {
        requirement.stage <= self.reached
    }
}

const PREFIXES: [&str; 9] = ["ACS", "CPE", "DEV", "DM", "GW", "OPT", "SEC", "STUN", "UCR"];

/// `GW-6`, `T-19a`
pub(super) fn is_id(text: &str) -> bool {
    let Some((prefix, number)) = text.split_once('-') else { return false };
    let digits = number.strip_suffix(['a', 'b']).unwrap_or(number);
    (PREFIXES.contains(&prefix) || prefix == "T")
        && (1..=2).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit())
}

/// The ids that a comment names; `DM-1 to DM-3` names three.
pub(super) fn ids_in(comment: &str) -> Vec<String> {
    let words = comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut ids = Vec::new();
    for (at, word) in words.iter().enumerate().filter(|(_, word)| is_id(word)) {
        if at >= 2 && words[at - 1] == "to" && is_id(words[at - 2]) {
            ids.extend(between(words[at - 2], word));
        }
        ids.push((*word).to_owned());
    }
    ids
}

/// What lies between two ids of one prefix, without them.
fn between(first: &str, last: &str) -> Vec<String> {
    let parts = |id: &str| {
        let (prefix, number) = id.split_once('-')?;
        Some((prefix.to_owned(), number.parse::<u8>().ok()?))
    };
    match (parts(first), parts(last)) {
        (Some((prefix, first)), Some((same, last))) if prefix == same => {
            (first + 1..last).map(|number| format!("{prefix}-{number}")).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, ids_in};

    const HEAD: &str = "Stages: one, two\nStage reached: one\n| id | kind | clause | stage | requirement | partial |\n";

    #[test]
    fn reads_rows_and_stages() {
        let table = Table::parse(&format!(
            "{HEAD}| --- | --- | --- | --- | --- | --- |\n\
             | GW-1 | MUST | 1.2.1 | one | look | |\n| T-19a | trap | 1.2.5 | two | first wins | no server |\n"
        ))
        .unwrap();
        let [first, second] = &table.requirements[..] else { panic!("two rows") };
        assert!(table.is_due(first) && !table.is_due(second));
        assert_eq!((first.id.as_str(), first.partial.as_deref()), ("GW-1", None));
        assert_eq!((second.kind.as_str(), second.partial.as_deref()), ("trap", Some("no server")));
    }

    #[test]
    fn refuses_what_it_cannot_read_and_says_where() {
        for (row, complaint) in [
            ("| GW-1 | MUST | 1 | one | look |", "line 4 has 5 columns"),
            ("| GW1 | MUST | 1 | one | look | |", "line 4: GW1 is not an id"),
            ("| GW-1 | must | 1 | one | look | |", "line 4: must is none of"),
            ("| GW-1 | MUST | 1 | three | look | |", "line 4: no stage three"),
            ("| GW-1 | MUST | 1 | one | a | |\n| GW-1 | MUST | 1 | one | b | |", "line 5: GW-1 is on line 4"),
        ] {
            let error = Table::parse(&format!("{HEAD}{row}\n")).err().expect(row);
            assert!(format!("{error:#}").contains(complaint), "{error:#}");
        }
        assert!(Table::parse("Stages: one\n").is_err());
    }

    #[test]
    fn finds_ids_between_other_words() {
        assert_eq!(ids_in("/// GW-6, T-19b: UTF-8 and RFC-3396, D1-SPLIT (SEC-9)."), ["GW-6", "T-19b", "SEC-9"]);
        assert_eq!(ids_in("DM-1 to DM-4, GW-2 to OPT-4"), ["DM-1", "DM-2", "DM-3", "DM-4", "GW-2", "OPT-4"]);
        assert!(ids_in("XT-5 GW-6-7 T-5x GW- T-123").is_empty());
    }

    #[test]
    fn the_project_s_own_table_is_sound() {
        let table = Table::parse(include_str!("../../requirements.md")).unwrap();
        assert!(table.requirements.len() > 250);
    }
}
