//! From the octets of a YAML file to typed values, with every problem at its line and column.
//!
//! A file goes through four steps, each in a module of its own:
//!
//! 1. `text`: octets become characters. Binary junk and other encodings end here.
//! 2. `marks`: saphyr's parser says where everything stands. Its time and memory grow with the text and no faster,
//!    so that nesting, size and syntax are with_shadowed here, before serde_yaml sees the text.
//! 3. [`tree`]: serde_yaml reads what it says, with a budget that aliases cannot exceed.
//! 4. [`reader`], and `scalar` with it: the walk from the tree to typed values, which collects problems and goes on.
//!
//! Both parsers see the same nodes in the same order, so a node's number is enough to find its place. Where they do
//! not, the text is refused.
//!
//! The first reading cannot be left for when there is a problem to print: libyaml's time is quadratic in the depth of
//! `{a: {a: {a: …`, and a megabyte of it would keep it busy for minutes. It takes 6 µs for a service file of 20 lines.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;

mod marks;
mod position;
pub mod reader;
pub(crate) mod scalar;
mod text;
pub mod tree;

use self::{
    marks::Marks,
    position::Position,
    tree::{Clash, Id, Node, Value},
};

/// The largest file, in octets: some five thousand services. What is larger is no hand-written or templated YAML.
pub const MAX_TEXT: usize = 1024 * 1024;
/// The most nodes in a file (tables, lists, scalars and keys), those that aliases repeat included: twice what the
/// densest service file of [`MAX_TEXT`] octets has.
pub const MAX_NODES: usize = 250_000;
/// The most octets in the scalars of a file, those that aliases repeat included.
pub const MAX_OCTETS: usize = 4 * MAX_TEXT;
/// The deepest nesting of tables and lists: no file of ours needs more than six.
pub const MAX_DEPTH: usize = 32;

/// A YAML file that was read without a fault of syntax.
#[derive(Debug)]
pub struct Document<'t> {
    path: PathBuf,
    marks: Marks<'t>,
    root: Node<'t>,
    /// Keys given twice and the like: they stop nobody from reading the rest.
    clashes: Vec<Clash>,
}

impl<'t> Document<'t> {
    /// Reads a file's octets; `path` is shown in problems. `source` is its number among those read together, from 0.
    ///
    /// The problem is the first fault of text or syntax: behind it nothing can be understood.
    pub fn read(path: &Path, bytes: &'t [u8], source: u16) -> Result<Self, Diagnostic> {
        let read = || {
            let text = text::decode(bytes)?;
            let mut marks = Marks::read(text)?;
            let (mut root, nodes) = tree::read(text, source)?;
            marks.follow_aliases(nodes);
            agree(&marks, &root)?;
            if marks.count() != nodes {
                return Err(ambiguous(&marks, root.id));
            }
            resolve_leading_zeros(&marks, &mut root);
            let clashes = tree::settle(&mut root);
            Ok(Self { path: path.to_owned(), marks, root, clashes })
        };
        read().map_err(|fault: Fault| fault.in_file(path))
    }

    /// The whole of it.
    pub fn root(&self) -> &Node<'t> {
        &self.root
    }
}

/// Refuses what the two parsers understand differently: corners of YAML that nobody needs, and in which a number would
/// find the wrong node. Recursive, but no deeper than [`MAX_DEPTH`].
fn agree(marks: &Marks<'_>, node: &Node<'_>) -> Result<(), Fault> {
    let number = node.id.node;
    let written = marks.written(number);
    let same = match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                if marks.text(entry.id.node) != Some(&entry.key) {
                    return Err(ambiguous(marks, entry.id));
                }
                agree(marks, &entry.value)?;
            }
            marks.text(number).is_none()
        }
        Value::List(items) => {
            items.iter().try_for_each(|item| agree(marks, item))?;
            marks.text(number).is_none()
        }
        Value::Text(text) => marks.text(number) == Some(text),
        Value::Bool(value) => written.is_some_and(|written| written.eq_ignore_ascii_case("true") == *value),
        // Numbers of another base than ten are let through.
        Value::Integer(value) => written.is_some_and(|written| {
            written.parse().is_ok_and(|same: i64| same == *value) || written.contains(['x', 'o', 'b'])
        }),
        Value::Null | Value::Float => written.is_some(),
    };
    if same { Ok(()) } else { Err(ambiguous(marks, node.id)) }
}

/// Makes `08080` the integer 8080, as the core schema of YAML 1.2.2 (§10.3.2) has it; serde_yaml reads a text. Recursive,
/// but no deeper than [`MAX_DEPTH`].
fn resolve_leading_zeros(marks: &Marks<'_>, node: &mut Node<'_>) {
    let number = node.id.node;
    match &mut node.value {
        Value::Text(text) if marks.written(number).is_some() && is_decimal(text) => {
            // What does not fit is a number all the same, as without the zeros.
            node.value = text.parse().map_or(Value::Float, Value::Integer);
        }
        Value::Table(entries) => {
            entries.iter_mut().for_each(|entry| resolve_leading_zeros(marks, &mut entry.value));
        }
        Value::List(items) => items.iter_mut().for_each(|item| resolve_leading_zeros(marks, item)),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float => {}
    }
}

/// `[-+]?[0-9]+`
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn ambiguous(marks: &Marks<'_>, id: Id) -> Fault {
    Fault::new(marks.place(id.node), "this can be read in two ways")
        .with_hint("put a text that begins with `?` in quotes, and use the name of an anchor once")
}

/// What keeps a text from being read at all.
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
