//! Full and partial paths of the data model.

use super::{
    Fault,
    schema::{Entry, INSTANCE},
};

/// The root object of the data model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// InternetGatewayDevice:1 (TR-098).
    Igd,
    /// Device:1 (TR-106): a device behind a gateway.
    Device1,
    /// Device:2 (TR-181).
    Device2,
}

impl Root {
    /// Name of the root object, with its dot.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Igd => "InternetGatewayDevice.",
            Self::Device1 | Self::Device2 => "Device.",
        }
    }
}

/// A path below a root, split at its dots.
#[derive(Debug)]
pub(super) struct Path<'a> {
    parts: Vec<&'a str>,
    partial: bool,
    /// Number of names, including the root; 0 for the empty path.
    depth: usize,
}

impl<'a> Path<'a> {
    pub(super) fn parse(root: Root, path: &'a str) -> Result<Self, Fault> {
        if path.is_empty() {
            return Ok(Self { parts: Vec::new(), partial: true, depth: 0 });
        }
        let below = path.strip_prefix(root.prefix()).ok_or(Fault::InvalidParameterName)?;
        let partial = path.ends_with('.');
        let mut parts: Vec<&str> = below.split('.').collect();
        if partial {
            // The part after the last dot is empty.
            parts.pop();
        }
        let depth = parts.len() + 1;
        Ok(Self { parts, partial, depth })
    }

    /// Whether the path denotes an object and everything in it.
    pub(super) fn is_partial(&self) -> bool {
        self.partial
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the path denotes the parameter, or an object that contains it.
    pub(super) fn reaches(&self, entry: &Entry) -> bool {
        let length = entry.parts().count();
        let fits = if self.partial { self.parts.len() < length } else { self.parts.len() == length };
        fits && self
            .parts
            .iter()
            .zip(entry.parts())
            .all(|(part, wanted)| if wanted == INSTANCE { instance(part).is_some() } else { *part == wanted })
    }

    /// The instance number that the path has at the parameter's table.
    pub(super) fn instance(&self, entry: &Entry) -> Option<u32> {
        instance(self.parts.get(entry.instance_at()?)?)
    }
}

/// Parses an instance number as CWMP writes it: at least 1, without sign and leading zeros.
fn instance(part: &str) -> Option<u32> {
    let digits = part.bytes().all(|byte| byte.is_ascii_digit()) && !part.starts_with('0');
    if digits { part.parse().ok() } else { None }
}

pub(super) fn depth(name: &str) -> usize {
    name.split_terminator('.').count()
}

/// The objects that contain a parameter, from the root on, each with its dot.
pub(super) fn objects(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[..=dot])
}
