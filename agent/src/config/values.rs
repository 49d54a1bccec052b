//! Values of the configuration keys. Later layers override earlier ones: defaults, the file, flags, `tr111 tune`. The
//! source of each value is kept.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    Error, UnknownKey,
    key::{self, Effect, Form, KEYS, Key, Value},
};

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The default in the table of keys.
    Preset,
    /// The configuration file: its path and the line number.
    File(PathBuf, usize),
    /// A command-line flag, such as `--oui`.
    Flag(&'static str),
    /// Set by `tr111 tune`.
    Tune,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset => write!(f, "default"),
            Self::File(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Tune => write!(f, "tune"),
        }
    }
}

/// The values of all keys that have one.
#[derive(Clone, Debug)]
pub struct Values {
    by_key: BTreeMap<(&'static str, &'static str), (Value, Origin)>,
}

impl Default for Values {
    fn default() -> Self {
        let preset = |key: &Key| Some(((key.section, key.name), (key.preset_value()?, Origin::Preset)));
        Self { by_key: KEYS.iter().filter_map(preset).collect() }
    }
}

impl Values {
    /// Parses `text`, the content of `file`, and overrides the values of the keys in it. On an error nothing is
    /// changed.
    pub fn read(&mut self, file: &Path, text: &str) -> Result<(), Error> {
        let line_of = |offset: usize| text.as_bytes()[..offset.min(text.len())].split(|&byte| byte == b'\n').count();
        let document = DeTable::parse(text).map_err(|error| Error::Syntax {
            file: file.to_owned(),
            line: line_of(error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })?;
        let mut faults = Vec::new();
        let mut found = Vec::new();
        collect(document.get_ref(), "", &mut |section, name, span, value| {
            let origin = Origin::File(file.to_owned(), line_of(span.start));
            match judge(section, name, value, &origin) {
                Ok((key, value)) => found.push((key, value, origin)),
                Err(error) => faults.push((span.start, error)),
            }
        });
        // Report the error that comes first in the file.
        if let Some((_, error)) = faults.into_iter().min_by_key(|(offset, _)| *offset) {
            return Err(error);
        }
        for (key, value, origin) in found {
            self.by_key.insert((key.section, key.name), (value, origin));
        }
        Ok(())
    }

    /// Sets the key `path` (`section.name`) to `text`, as flags and `tr111 tune` do. Lists are split at commas.
    pub fn set(&mut self, path: &str, text: &str, origin: Origin) -> Result<&'static Key, Error> {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let key = key::find(section, name).ok_or_else(|| unknown(section, name, &origin))?;
        let wrong = |reason| wrong_value(key, reason, &origin);
        let value = match key.form {
            Form::Text(_) | Form::Choice(_) => Value::Text(text.to_owned()),
            Form::Integer(..) => Value::Integer(whole(text).map_err(wrong)?),
            Form::Boolean => Value::Boolean(match text {
                "true" | "on" | "yes" | "1" => true,
                "false" | "off" | "no" | "0" => false,
                _ => return Err(wrong(format!("expected true or false, not \"{}\"", text.escape_debug()))),
            }),
            Form::Texts(_) => Value::Texts(split(text).map(str::to_owned).collect()),
            Form::Integers(..) => Value::Integers(split(text).map(whole).collect::<Result<_, _>>().map_err(wrong)?),
        };
        let value = admit(key, value).map_err(wrong)?;
        self.by_key.insert((key.section, key.name), (value, origin));
        Ok(key)
    }

    /// Sets a key that is a list of strings.
    pub fn set_list(&mut self, path: &str, texts: &[String], origin: Origin) -> Result<(), Error> {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let key = key::find(section, name).ok_or_else(|| unknown(section, name, &origin))?;
        let value = admit(key, Value::Texts(texts.to_vec())).map_err(|reason| wrong_value(key, reason, &origin))?;
        self.by_key.insert((key.section, key.name), (value, origin));
        Ok(())
    }

    /// The value of a key and its source. `None` if the key is not set and has no default.
    pub fn get(&self, key: &Key) -> Option<&(Value, Origin)> {
        self.by_key.get(&(key.section, key.name))
    }

    /// The obsolete keys that are set, and the source of each.
    pub fn obsolete(&self) -> impl Iterator<Item = (&'static Key, &Origin)> {
        let set = KEYS.iter().filter(|key| key.effect == Effect::Obsolete);
        set.filter_map(|key| Some((key, &self.get(key)?.1))).filter(|(_, origin)| **origin != Origin::Preset)
    }

    /// Copies the value of a key from `other`.
    pub fn keep(&mut self, key: &Key, other: &Self) {
        let name = (key.section, key.name);
        match other.by_key.get(&name) {
            Some(entry) => self.by_key.insert(name, entry.clone()),
            None => self.by_key.remove(&name),
        };
    }

    fn value(&self, section: &str, name: &str) -> Option<&Value> {
        self.get(key::find(section, name)?).map(|(value, _)| value)
    }

    /// The value of a string key. Empty if it is not set.
    pub fn text(&self, section: &str, name: &str) -> &str {
        match self.value(section, name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The value of a number key. 0 if it is not set.
    pub fn integer(&self, section: &str, name: &str) -> i64 {
        match self.value(section, name) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        }
    }

    /// The value of a boolean key. `false` if it is not set.
    pub fn boolean(&self, section: &str, name: &str) -> bool {
        self.value(section, name) == Some(&Value::Boolean(true))
    }

    /// The value of a key that is a list of strings. Empty if it is not set.
    pub fn texts(&self, section: &str, name: &str) -> &[String] {
        match self.value(section, name) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// The value of a key that is a list of numbers. Empty if it is not set.
    pub fn integers(&self, section: &str, name: &str) -> &[i64] {
        match self.value(section, name) {
            Some(Value::Integers(numbers)) => numbers,
            _ => &[],
        }
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("expected a whole number, not \"{}\"", text.escape_debug()))
}

type Span = std::ops::Range<usize>;

/// Calls `each` with section, name, span and value of each entry in a table, except for tables that are sections.
fn collect(table: &DeTable<'_>, section: &str, each: &mut impl FnMut(&str, &str, Span, &DeValue<'_>)) {
    for (name, value) in table {
        let path =
            if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
        let below = format!("{path}.");
        match value.get_ref() {
            DeValue::Table(inner) if KEYS.iter().any(|key| key.section == path || key.section.starts_with(&below)) => {
                collect(inner, &path, each);
            }
            value => each(section, name.get_ref(), name.span(), value),
        }
    }
}

fn judge(section: &str, name: &str, value: &DeValue<'_>, origin: &Origin) -> Result<(&'static Key, Value), Error> {
    let key = key::find(section, name).ok_or_else(|| unknown(section, name, origin))?;
    let value = from_toml(key, value).and_then(|value| admit(key, value));
    value.map(|value| (key, value)).map_err(|reason| wrong_value(key, reason, origin))
}

fn from_toml(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    let mismatch = |expected: &str| Err(format!("expected {expected}, not {}", describe(value)));
    match (key.form, value) {
        (Form::Text(_) | Form::Choice(_), DeValue::String(text)) => Ok(Value::Text(text.to_string())),
        (Form::Integer(..), DeValue::Integer(_)) => Ok(Value::Integer(number(value)?)),
        (Form::Boolean, DeValue::Boolean(flag)) => Ok(Value::Boolean(*flag)),
        (Form::Texts(_), DeValue::Array(items)) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(format!("expected a list of strings, not one with {}", describe(other))),
            });
            Ok(Value::Texts(texts.collect::<Result<_, _>>()?))
        }
        (Form::Integers(..), DeValue::Array(items)) => {
            Ok(Value::Integers(items.iter().map(|item| number(item.get_ref())).collect::<Result<_, _>>()?))
        }
        (Form::Text(_) | Form::Choice(_), _) => mismatch("a string"),
        (Form::Integer(..), _) => mismatch("a whole number"),
        (Form::Boolean, _) => mismatch("true or false"),
        (Form::Texts(_), _) => mismatch("a list of strings"),
        (Form::Integers(..), _) => mismatch("a list of whole numbers"),
    }
}

fn number(value: &DeValue<'_>) -> Result<i64, String> {
    let DeValue::Integer(integer) = value else {
        return Err(format!("expected a whole number, not {}", describe(value)));
    };
    i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| format!("{} is out of range", integer.as_str()))
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(integer) => integer.as_str().to_owned(),
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Checks a value against the form of its key and returns the canonical form.
fn admit(key: &Key, value: Value) -> Result<Value, String> {
    let in_range = |number: i64, least, most| {
        if (least..=most).contains(&number) {
            Ok(())
        } else if most == i64::MAX {
            Err(format!("{number} is out of range, {least} and above"))
        } else {
            Err(format!("{number} is out of range, {least} to {most}"))
        }
    };
    match (key.form, value) {
        (Form::Text(rule), Value::Text(text)) => rule(&text).map(Value::Text),
        (Form::Choice(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
            let hint = nearest(&text, words.iter().copied())
                .map(|word| format!("; did you mean \"{word}\"?"))
                .unwrap_or_default();
            Err(format!("expected {}, not \"{}\"{hint}", words.join(" | "), text.escape_debug()))
        }
        (Form::Texts(rule), Value::Texts(texts)) => {
            let texts: Vec<String> = texts.iter().map(|text| rule(text)).collect::<Result<_, _>>()?;
            match texts.iter().enumerate().find(|(index, text)| texts[..*index].contains(text)) {
                Some((_, twice)) => Err(format!("\"{}\" is listed twice", twice.escape_debug())),
                None => Ok(Value::Texts(texts)),
            }
        }
        (Form::Integer(least, most), Value::Integer(number)) => {
            in_range(number, least, most).map(|()| Value::Integer(number))
        }
        (Form::Integers(count, ..), Value::Integers(numbers)) if numbers.len() > count => {
            Err(format!("at most {count} numbers, not {}", numbers.len()))
        }
        (Form::Integers(_, least, most), Value::Integers(numbers)) => {
            numbers.iter().try_for_each(|&number| in_range(number, least, most)).map(|()| Value::Integers(numbers))
        }
        (_, value) => Ok(value),
    }
}

/// The word among `words` that is most similar to `text`, if one is similar enough.
fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words
        .map(|word| (strsim::damerau_levenshtein(text, word), word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance <= word.len().max(3) / 2)
        .map(|(_, word)| word)
}

fn wrong_value(key: &Key, reason: String, origin: &Origin) -> Error {
    Error::WrongValue { origin: origin.clone(), name: key.name, section: key.section, reason }
}

/// An error that names the most similar key or section. The same name in another section is more similar than another
/// name in the same section.
fn unknown(section: &str, name: &str, origin: &Origin) -> Error {
    use strsim::damerau_levenshtein as distance;

    let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    let keys = KEYS.iter().map(|key| {
        let (elsewhere, shown) = if key.section == section {
            (0, format!("\"{}\"", key.name))
        } else {
            (2, format!("\"{}\" in [{}]", key.name, key.section))
        };
        ((distance(name, key.name) + elsewhere, distance(section, key.section)), shown)
    });
    let sections = KEYS.iter().map(|key| ((distance(&path, key.section), 0), format!("[{}]", key.section)));
    let nearest = keys.chain(sections).min_by_key(|(cost, _)| *cost).map(|(_, shown)| shown);
    Error::UnknownKey(UnknownKey {
        origin: origin.clone(),
        name: name.to_owned(),
        section: section.to_owned(),
        nearest: nearest.unwrap_or_default(),
    })
}
