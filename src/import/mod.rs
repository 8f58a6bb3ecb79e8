//! Conversion of Consul's configuration and definitions into `muster.yaml` and service files.
//!
//! ```text
//! JSON, HCL ──► tree ──┬─► service, check ──► service files ─┐
//! HTTP API ──► catalog ┘                                     ├─► prune ──► files, report
//!                      └─► agent ──────────► muster.yaml ────┘
//! ```
//!
//! A [`Section`](section::Section) hands out the keys of a table one by one and reports those that are left. `prune` parses
//! each output with the agent's own parsers and removes, and reports, the values that they refuse: the output is valid.
//! Secrets are never part of a finding or a diagnostic.

mod agent;
mod catalog;
mod check;
mod convert;
mod facts;
mod hcl;
mod hcl1;
mod json;
mod output;
mod prune;
pub mod registration;
pub mod report;
mod section;
mod service;
mod template;
pub mod tree;
mod yaml_text;

use std::path::Path;

use self::tree::{FileNumber, Node};
use crate::diagnostic::Diagnostic;

pub use self::{
    catalog::{AgentResponses, CatalogNode, Unreadable},
    convert::{SERVICES_DIR, convert},
    output::{Conversion, Options, OutputFile, Privacy, is_imported},
};

/// Largest file of Consul in octets, the same as of muster's own files.
pub const MAX_FILE: usize = crate::yaml::MAX_TEXT;

/// A file, or a response of the HTTP API.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name for people: the path, or the address of the response.
    pub name: String,
    /// Name of the service file for its services, without an extension.
    pub stem: String,
    /// True if every user of the host may read it. The files that are written from it are private otherwise.
    pub is_public: bool,
    /// Its content. The positions have the number of the source among those read together.
    pub root: Node,
}

/// Syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// JSON
    Json,
    /// HCL
    Hcl,
}

impl Syntax {
    /// The syntax of a file by its name, as Consul decides it; `None`: Consul ignores the file in a folder.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.as_encoded_bytes();
        match () {
            () if name.ends_with(b".json") => Some(Self::Json),
            () if name.ends_with(b".hcl") => Some(Self::Hcl),
            () => None,
        }
    }

    /// The syntax of a text without a name: a JSON object begins with `{`.
    pub fn of_text(text: &str) -> Self {
        if text.trim_start().starts_with('{') { Self::Json } else { Self::Hcl }
    }
}

/// Invalid JSON or HCL. The message has no part of the text, which may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    /// Line, counted from 1.
    pub(crate) line: usize,
    /// Column, counted from 1.
    pub(crate) column: usize,
    /// Description.
    pub(crate) message: String,
}

/// Parses a file of Consul. `number` is its number among those read together.
///
/// # Errors
/// The first error of size, encoding or syntax.
pub fn parse(path: &Path, bytes: &[u8], syntax: Syntax, number: FileNumber) -> Result<Node, Diagnostic> {
    if bytes.len() > MAX_FILE {
        return Err(Diagnostic::whole(path, format!("larger than {MAX_FILE} octets")));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Diagnostic::at(path, line, 1, "not UTF-8")
    })?;
    let parsed = match syntax {
        Syntax::Json => json::parse(text, number),
        Syntax::Hcl => hcl::parse(text, number),
    };
    parsed.map_err(|error| Diagnostic::at(path, error.line, error.column, error.message))
}
