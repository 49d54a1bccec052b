//! Reading what `/metrics` says (Prometheus text format).

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tr111_common::counter::{Class, Outcome};

use crate::namespace::Namespace;

/// One line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// Everything that one scrape gave.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
}

/// Name and value of a label.
pub type Label<'a> = (&'a str, &'a str);

impl Metrics {
    /// Reads the text format.
    ///
    /// # Errors
    /// A line that is no sample.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self { samples: lines.map(sample).collect::<Result<_>>()? })
    }

    /// All samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Sum over the samples of `name` that have all of `labels`; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[Label<'_>]) -> u64 {
        let matching = self.samples.iter().filter(|sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|known| known == value))
        });
        // Counts, which the text format writes as whole numbers that a `f64` holds exactly.
        matching.map(|sample| format!("{:.0}", sample.value).parse::<u64>().unwrap_or(0)).sum()
    }

    /// The value of the one sample of `name`; 0 where there is none.
    pub fn value(&self, name: &str) -> f64 {
        self.samples.iter().find(|sample| sample.name == name).map_or(0.0, |sample| sample.value)
    }

    /// Frames that `hook` counted as `class`.
    pub fn packets(&self, hook: &str, class: &str) -> u64 {
        self.sum("tr111_packets_total", &[("hook", hook), ("class", class)])
    }

    /// All frames that `hook` counted.
    pub fn all_packets(&self, hook: &str) -> u64 {
        self.sum("tr111_packets_total", &[("hook", hook)])
    }

    /// All frames, at every hook, of the classes with `outcome`.
    pub fn packets_by_outcome(&self, outcome: Outcome) -> u64 {
        let classes = Class::ALL.iter().filter(|class| class.outcome() == outcome);
        classes.map(|class| self.sum("tr111_packets_total", &[("class", class.label())])).sum()
    }

    /// Device Identities by message and result.
    pub fn identities(&self, message: &str, result: &str) -> u64 {
        self.sum("tr111_device_identities_total", &[("message", message), ("result", result)])
    }
}

fn sample(line: &str) -> Result<Sample> {
    let broken = || format!("not a sample: {line}");
    let (head, value) = line.rsplit_once(' ').with_context(broken)?;
    let value = value.parse().with_context(broken)?;
    let Some((name, rest)) = head.split_once('{') else {
        return Ok(Sample { name: head.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut labels = BTreeMap::new();
    for pair in rest.strip_suffix('}').with_context(broken)?.split(',').filter(|pair| !pair.is_empty()) {
        // Label values are few and fixed: none has a comma or an escape.
        let (key, quoted) = pair.split_once('=').with_context(broken)?;
        labels.insert(key.to_owned(), quoted.trim_matches('"').to_owned());
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Fetches `path` over HTTP inside `namespace`: status and body.
///
/// # Errors
/// Nobody listens, or the answer is no HTTP.
pub fn fetch(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = namespace.enter(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP header")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok((status, join_chunks(body)?));
    }
    Ok((status, body.to_owned()))
}

fn join_chunks(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").context("a chunk without a length")?;
        let length = usize::from_str_radix(length.trim(), 16)?;
        if length == 0 {
            return Ok(body);
        }
        ensure!(after.len() >= length, "a chunk is cut");
        body.push_str(&after[..length]);
        let Some(next) = after[length..].strip_prefix("\r\n") else { bail!("no end of a chunk") };
        rest = next;
    }
}
