//! YAML parser: octets to typed values, with the line and column of every problem.
//!
//! A file passes through four steps, each in its own module:
//!
//! 1. `text` decodes octets to characters. Binary data and other encodings are refused.
//! 2. `marks` records positions with saphyr's parser. Its time and memory are linear in the size of the text, so nesting,
//!    size and syntax are checked here, before serde_yaml sees the text.
//! 3. [`tree`] reads values with serde_yaml, within a budget that aliases cannot exceed.
//! 4. [`reader`], with `scalar` and `size`, converts the tree to typed values and collects all problems.
//!
//! Both parsers see the same nodes in the same order, so the number of a node finds its position. A text that they
//! understand differently is refused.
//!
//! `subset` does steps 2 and 3 in one pass for a text without unusual syntax, with the same result.
//!
//! Step 2 cannot be deferred until a problem is printed: the time of libyaml is quadratic in the depth of
//! `{a: {a: {a: …`, and a megabyte of it takes minutes. Step 2 takes 6 µs for a service file of 20 lines.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;

mod marks;
mod position;
pub mod reader;
pub(crate) mod scalar;
mod size;
mod subset;
mod text;
pub mod tree;

use self::{
    marks::Marks,
    position::Position,
    tree::{Clash, Id, Node, Value},
};

/// Largest file in octets: some five thousand services.
pub const MAX_TEXT: usize = 1024 * 1024;
/// Maximum number of nodes in a file (tables, lists, scalars and keys), including those repeated by aliases: twice that of
/// the densest service file of [`MAX_TEXT`] octets.
pub const MAX_NODES: usize = 250_000;
/// Maximum octets in the scalars of a file, including those repeated by aliases.
pub const MAX_OCTETS: usize = 4 * MAX_TEXT;
/// Maximum nesting of tables and lists. Files of muster need six levels.
pub const MAX_DEPTH: usize = 32;

/// A YAML file with valid syntax.
#[derive(Debug)]
pub struct Document<'t> {
    path: PathBuf,
    marks: Marks<'t>,
    root: Node<'t>,
    /// Duplicate keys and invalid merge keys; the rest of the file is still read.
    clashes: Vec<Clash>,
}

impl<'t> Document<'t> {
    /// Parses a file. `path` is shown in problems; `source` is the number of the file among those read together, from 0.
    ///
    /// # Errors
    /// The first error of encoding or syntax.
    pub fn read(path: &Path, bytes: &'t [u8], source: u16) -> Result<Self, Diagnostic> {
        let read = || {
            let text = text::decode(bytes)?;
            let (mut root, marks) = match subset::read(text, source) {
                Some(read) => read,
                None => read_any(text, source)?,
            };
            let clashes = tree::resolve(&mut root);
            Ok(Self { path: path.to_owned(), marks, root, clashes })
        };
        read().map_err(|fault: Fault| fault.in_file(path))
    }

    /// The root node.
    pub fn root(&self) -> &Node<'t> {
        &self.root
    }

    /// Line and column of a node or a key, counted from 1.
    pub fn position(&self, id: Id) -> (usize, usize) {
        let place = self.marks.place(id.node);
        (place.line, place.column)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a text with the two general parsers.
fn read_any(text: &str, source: u16) -> Result<(Node<'_>, Marks<'_>), Fault> {
    let mut marks = Marks::read(text)?;
    let (mut root, nodes) = tree::read(text, source)?;
    marks.follow_aliases(nodes);
    check_agreement(&marks, &root)?;
    if marks.count() != nodes {
        return Err(ambiguous(&marks, root.id));
    }
    resolve_leading_zeros(&marks, &mut root);
    Ok((root, marks))
}

/// Refuses a text that the two parsers understand differently: in these corner cases of YAML a number would find the wrong
/// node. Recursive to at most [`MAX_DEPTH`].
fn check_agreement(marks: &Marks<'_>, node: &Node<'_>) -> Result<(), Fault> {
    let number = node.id.node;
    let written = marks.written(number);
    let same = match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                if marks.text(entry.id.node) != Some(&entry.key) {
                    return Err(ambiguous(marks, entry.id));
                }
                check_agreement(marks, &entry.value)?;
            }
            marks.text(number).is_none()
        }
        Value::List(items) => {
            items.iter().try_for_each(|item| check_agreement(marks, item))?;
            marks.text(number).is_none()
        }
        Value::Text(text) => marks.text(number) == Some(text),
        Value::Bool(value) => written.is_some_and(|written| written.eq_ignore_ascii_case("true") == *value),
        // Numbers of a base other than ten are not compared.
        Value::Integer(value) => written.is_some_and(|written| {
            written.parse().is_ok_and(|same: i64| same == *value) || written.contains(['x', 'o', 'b'])
        }),
        Value::Null | Value::Float => written.is_some(),
    };
    if same { Ok(()) } else { Err(ambiguous(marks, node.id)) }
}

/// Reads `08080` as the integer 8080, as in the core schema of YAML 1.2.2 (§10.3.2); serde_yaml reads a string. Recursive to
/// at most [`MAX_DEPTH`].
fn resolve_leading_zeros(marks: &Marks<'_>, node: &mut Node<'_>) {
    let number = node.id.node;
    match &mut node.value {
        Value::Text(text) if marks.written(number).is_some() && is_decimal(text) => {
            // A number that overflows is a float, as without the zeros.
            node.value = text.parse().map_or(Value::Float, Value::Integer);
        }
        Value::Table(entries) => {
            entries.iter_mut().for_each(|entry| resolve_leading_zeros(marks, &mut entry.value));
        }
        Value::List(items) => items.iter_mut().for_each(|item| resolve_leading_zeros(marks, item)),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float => {}
    }
}

/// Matches `[-+]?[0-9]+`.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn ambiguous(marks: &Marks<'_>, id: Id) -> Fault {
    Fault::new(marks.place(id.node), "ambiguous YAML")
        .with_hint("quote text that begins with `?`, and use each anchor name once")
}

/// Error of encoding or syntax.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    place: Position,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn new(place: Position, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn in_file(self, path: &Path) -> Diagnostic {
        let problem = Diagnostic::at(path, self.place.line, self.place.column, self.message);
        match self.hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests;
